"""Buckets in the host's name, through a whole gateway with its express lane."""

from __future__ import annotations

from collections.abc import Iterator

import boto3
import pytest
from botocore.config import Config

from ingot.testing import Gateway
from tests.support.client import Client

DOMAIN = "s3.ingot.example"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with Gateway(virtual_host_domain=DOMAIN) as running:
        yield running


def client_at(gateway: Gateway, host: str) -> Client:
    """Connected to the gateway, which it knows by that name."""
    made = Client(gateway.url, gateway.access_key, gateway.secret_key, gateway.region)
    made.host = host
    return made


def test_a_path_under_a_bucket_s_host_names_no_other_bucket(gateway: Gateway) -> None:
    """``/two/k`` is everyday in path style, and under the host of another bucket a key of that."""
    plain, hosted = client_at(gateway, DOMAIN), client_at(gateway, f"one.{DOMAIN}")
    for path in ("/one", "/two"):
        assert plain.put(path, b"").status == 200
    for _ in range(2):
        assert plain.put("/two/k", b"of two").status == 200
    assert gateway.server.http.counters.express > 0
    for _ in range(2):
        assert hosted.put("/two/k", b"of one").status == 200
        assert hosted.get("/two/k").body == b"of one"
        assert plain.get("/two/k").body == b"of two"
        assert plain.get("/one/two/k").body == b"of one"
    assert hosted.list_all("") == {"two/k": 6}
    plain.close()
    hosted.close()


def test_what_is_signed_is_the_host_and_the_path_as_sent(gateway: Gateway) -> None:
    hosted = client_at(gateway, f"one.{DOMAIN}")
    path_style = hosted.sign("GET", "/one/k", "", {})
    hosted.connection.request("GET", "/k", b"", path_style)
    response = hosted.connection.getresponse()
    assert response.status == 403 and b"SignatureDoesNotMatch" in response.read()
    other = hosted.sign("GET", "/k", "", {}) | {"host": f"two.{DOMAIN}:{hosted.port}"}
    hosted.connection.request("GET", "/k", b"", other)
    response = hosted.connection.getresponse()
    assert response.status == 403 and b"SignatureDoesNotMatch" in response.read()
    hosted.close()


def test_boto3_in_virtual_host_style(gateway: Gateway) -> None:
    """The gateway stands as a proxy, so that no name has to be resolved."""
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{DOMAIN}",
        config=Config(
            s3={"addressing_style": "virtual"},
            proxies={"http": gateway.url},
            retries={"total_max_attempts": 1},
        ),
        **gateway.boto(),
    )
    client.create_bucket(Bucket="photos")
    client.put_object(Bucket="photos", Key="a b/ü+", Body=b"hello")
    assert client.get_object(Bucket="photos", Key="a b/ü+")["Body"].read() == b"hello"
    assert client.list_objects_v2(Bucket="photos")["KeyCount"] == 1
    named = {"Bucket": "photos", "Key": "in parts"}
    upload = named | {"UploadId": client.create_multipart_upload(**named)["UploadId"]}
    etag = client.upload_part(**upload, PartNumber=1, Body=b"part")["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    done = client.complete_multipart_upload(**upload, MultipartUpload=parts)
    assert done["Location"] == f"http://photos.{DOMAIN}/in%20parts"
    doomed = {"Objects": [{"Key": "a b/ü+"}, {"Key": "in parts"}]}
    assert client.delete_objects(Bucket="photos", Delete=doomed)["Deleted"]
    client.delete_bucket(Bucket="photos")
    client.close()
