"""Habits of servers that break clients, none of which is ours: looked at on the wire, since
libraries hide most of them. Those of connections are in ``tests/listener``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any
from xml.etree import ElementTree

import pytest

from ingot.testing import Gateway
from tests.e2e.conftest import make_client
from tests.support.client import Answer, Client

SPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"
MIB = 1 << 20


@pytest.fixture
def raw(gateway: Gateway) -> Iterator[Client]:
    client = Client(gateway.url, gateway.access_key, gateway.secret_key, gateway.region)
    yield client
    client.close()


def texts(answer: Answer, path: str) -> list[str]:
    root = ElementTree.fromstring(answer.body)
    return [found.text or "" for found in root.iterfind(path.replace("/", f"/{SPACE}"))]


def test_errors_are_plain_documents(raw: Client, bucket: str) -> None:
    """The root bears no namespace, and nothing is HTML."""
    for path, query, code in (
        ("/no-such-bucket", "", "NoSuchBucket"),
        (f"/{bucket}/none", "", "NoSuchKey"),
        (f"/{bucket}", "cors", "NoSuchCORSConfiguration"),
        ("/No_Bucket", "", "InvalidBucketName"),
    ):
        answer = raw.get(path, query)
        assert answer.headers["content-type"] == "application/xml"
        assert answer.body.startswith(b"<?xml")
        root = ElementTree.fromstring(answer.body)
        assert root.tag == "Error" and root.findtext("Code") == code
        assert root.findtext("RequestId") == answer.headers["x-amz-request-id"]
        assert int(answer.headers["content-length"]) == len(answer.body)


def test_every_answer_says_how_long_it_is(raw: Client, bucket: str) -> None:
    assert raw.put(f"/{bucket}/k", b"x" * 3 * MIB).status == 200
    for path, query in (("/", ""), (f"/{bucket}", ""), (f"/{bucket}/k", ""), (f"/{bucket}", "acl")):
        answer = raw.get(path, query)
        assert int(answer.headers["content-length"]) == len(answer.body)
        assert "transfer-encoding" not in answer.headers


def test_etags_are_quoted_and_stay(raw: Client, bucket: str) -> None:
    path = f"/{bucket}/k"
    begun = raw.request("POST", path, query="uploads")
    upload = ElementTree.fromstring(begun.body).findtext(f"{SPACE}UploadId")
    digests, parts = b"", ""
    for number, part in enumerate((b"a" * 5 * MIB, b"b"), 1):
        sent = raw.request("PUT", path, part, query=f"partNumber={number}&uploadId={upload}")
        assert sent.headers["etag"] == f'"{hashlib.md5(part).hexdigest()}"'
        digests += hashlib.md5(part).digest()
        parts += (
            f"<Part><PartNumber>{number}</PartNumber><ETag>{sent.headers['etag']}</ETag></Part>"
        )
    document = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
    completed = raw.request("POST", path, document, query=f"uploadId={upload}")
    etag = f'"{hashlib.md5(digests).hexdigest()}-2"'
    assert texts(completed, "./ETag") == [etag]
    assert raw.request("HEAD", path).headers["etag"] == etag
    assert raw.get(path, range="bytes=0-1").headers["etag"] == etag
    assert texts(raw.get(f"/{bucket}"), "./Contents/ETag") == [etag]


def test_a_range_bears_no_checksum_of_the_whole(raw: Client, bucket: str) -> None:
    path, mode = f"/{bucket}/k", {"x-amz-checksum-mode": "ENABLED"}
    put = raw.request("PUT", path, b"hello", {"x-amz-checksum-crc32": "NhCmhg=="})
    assert put.status == 200
    whole = raw.request("GET", path, headers=mode)
    assert whole.headers["x-amz-checksum-crc32"] == "NhCmhg=="
    part = raw.request("GET", path, headers=mode | {"range": "bytes=1-2"})
    assert (part.status, part.body) == (206, b"el")
    assert not [name for name in part.headers if name.startswith("x-amz-checksum-")]


@pytest.mark.parametrize(
    ("sent", "kept"), [("aws-chunked", None), ("aws-chunked,gzip", "gzip"), ("gzip", "gzip")]
)
def test_aws_chunked_is_no_coding_of_the_object(
    raw: Client, bucket: str, sent: str, kept: str | None
) -> None:
    body, headers = b"hello", {"content-encoding": sent}
    if "aws-chunked" in sent:
        body = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n"
        headers |= {
            "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
            "x-amz-decoded-content-length": "5",
            "x-amz-trailer": "x-amz-checksum-crc32",
        }
    assert raw.request("PUT", f"/{bucket}/k", body, headers).status == 200
    answer = raw.get(f"/{bucket}/k")
    assert (answer.body, answer.headers.get("content-encoding")) == (b"hello", kept)


def test_what_clients_send_by_habit_is_no_error(raw: Client, bucket: str) -> None:
    for headers in (
        {"x-amz-acl": "private"},
        {"x-amz-acl": "bucket-owner-full-control"},
        {"x-amz-storage-class": "STANDARD"},
    ):
        answer = raw.request("PUT", f"/{bucket}/k", b"", headers, "x-id=PutObject")
        assert answer.status == 200, headers
    assert raw.get(f"/{bucket}", "list-type=2&x-id=ListObjectsV2").status == 200
    unlocked = {"x-amz-bucket-object-lock-enabled": "false", "x-amz-acl": "private"}
    assert raw.request("PUT", f"/{bucket}-2", headers=unlocked).status == 200
    assert raw.delete(f"/{bucket}-2").status == 204


def test_an_unknown_sub_resource_is_not_listed(raw: Client, bucket: str) -> None:
    for query in ("frobnicate", "frobnicate=", "annotation", "session", "metadataTable"):
        answer = raw.get(f"/{bucket}", query)
        assert (answer.status, answer.code) == (501, "NotImplemented")


def test_buckets_say_their_region(raw: Client, gateway: Gateway, bucket: str) -> None:
    for path in (f"/{bucket}", f"/{bucket}/"):
        answer = raw.request("HEAD", path)
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["x-amz-bucket-region"] == gateway.region
    stranger = Client(gateway.url, gateway.access_key, gateway.secret_key, "eu-west-1")
    answer = stranger.get(f"/{bucket}/k")
    stranger.close()
    assert (answer.status, answer.code) == (400, "AuthorizationHeaderMalformed")
    assert ElementTree.fromstring(answer.body).findtext("Region") == gateway.region


SPELLED = {"ETag", "Last-Modified", "Accept-Ranges", "Content-Type", "Content-Length", "Date"}
SPELLED |= {"Server", "Content-Range", "Cache-Control", "Location", "Allow"}


def test_boto3_finds_the_region_by_itself(gateway: Gateway, bucket: str) -> None:
    """With HEAD too, which awscli begins a download with."""
    lost = make_client(gateway, region="eu-west-9")
    lost.put_object(Bucket=bucket, Key="k", Body=b"hello")
    lost.close()
    for name, more in (("head_object", {"Key": "k"}), ("head_bucket", {}), ("list_objects_v2", {})):
        lost = make_client(gateway, region="eu-west-9")  # what it found it remembers
        getattr(lost, name)(Bucket=bucket, **more)
        lost.close()


def test_header_names_have_one_spelling(raw: Client, bucket: str) -> None:
    """HTTP-9: S3's own are in lower case; some clients look for others as they are known."""
    seen = set()
    for method, path, query, body, more in (
        ("PUT", f"/{bucket}/k", "", b"abc", {"x-amz-meta-A": "1", "cache-control": "no-cache"}),
        ("GET", f"/{bucket}/k", "", b"", {}),
        ("GET", f"/{bucket}/k", "", b"", {"range": "bytes=0-1"}),
        ("HEAD", f"/{bucket}/k", "", b"", {"x-amz-checksum-mode": "ENABLED"}),
        ("HEAD", f"/{bucket}", "", b"", {}),
        ("GET", f"/{bucket}", "", b"", {}),
        ("PATCH", f"/{bucket}/k", "", b"", {}),
        ("DELETE", f"/{bucket}/k", "", b"", {}),
    ):
        raw.connection.request(method, path, body, raw.sign(method, path, query, more))
        response = raw.connection.getresponse()
        response.read()
        names = {name for name, _ in response.getheaders()}
        assert {"x-amz-request-id", "x-amz-id-2", "Date", "Server"} <= names
        seen |= {name for name in names if not name.startswith("x-amz-")}
        assert all(name == name.lower() for name in names if name.lower().startswith("x-amz-"))
    assert "ETag" in seen and seen <= SPELLED


def test_http_11_who_pays_is_nobodys_affair(raw: Client, bucket: str) -> None:
    payer = {"x-amz-request-payer": "requester"}
    for method, path in (("PUT", f"/{bucket}/k"), ("GET", f"/{bucket}/k"), ("GET", f"/{bucket}")):
        answer = raw.request(method, path, b"", payer)
        assert answer.status == 200 and "x-amz-request-charged" not in answer.headers


def test_times_have_one_form(raw: Client, client: Any, bucket: str) -> None:
    raw.put(f"/{bucket}/k", b"x")
    shown = texts(raw.get(f"/{bucket}"), "./Contents/LastModified")
    shown += texts(raw.get("/"), "./Buckets/Bucket/CreationDate")
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time) for time in shown)
    answer = raw.request("HEAD", f"/{bucket}/k")
    for name in ("last-modified", "date"):
        assert answer.headers[name].endswith(" GMT")
        assert parsedate_to_datetime(answer.headers[name])


@pytest.mark.parametrize("kind", ["", "list-type=2&"])
def test_a_page_that_holds_everything_is_the_last(raw: Client, bucket: str, kind: str) -> None:
    for key in ("a", "b/1", "b/2", "c"):
        raw.put(f"/{bucket}/{key}", b"")
    for more, size in (("", 4), ("&delimiter=%2F", 3), ("&prefix=b%2F", 2)):
        exact = raw.get(f"/{bucket}", f"{kind}max-keys={size}{more}")
        assert texts(exact, "./IsTruncated") == ["false"]
        short = raw.get(f"/{bucket}", f"{kind}max-keys={size - 1}{more}")
        assert texts(short, "./IsTruncated") == ["true"]
        assert not texts(exact, "./NextContinuationToken") + texts(exact, "./NextMarker")
