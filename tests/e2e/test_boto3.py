"""boto3 against a whole gateway, over plain sockets and over TLS."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import urllib.error
import urllib.request

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config as BotoConfig
from botocore.exceptions import ClientError

from ingot.testing import Gateway
from tests.e2e.conftest import make_client
from tests.support.client import Client

SIZES = [0, 1, 4096, 4097, 65_536, 65_537, 1_048_576, 1_048_577, 5_000_000]
WHOLE = TransferConfig(multipart_threshold=1 << 30)


def status_of(error):
    return error.value.response["ResponseMetadata"]["HTTPStatusCode"]


@pytest.mark.parametrize("size", SIZES)
def test_bodies_of_every_kind_come_back(client, bucket, size):
    data = os.urandom(size)
    put = client.put_object(Bucket=bucket, Key="k", Body=data)
    assert put["ETag"] == f'"{hashlib.md5(data).hexdigest()}"'
    got = client.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert got["Body"].read() == data and got["ContentLength"] == size
    head = client.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert head["ChecksumCRC32"] == got["ChecksumCRC32"] == put["ChecksumCRC32"]
    for start, stop in ((0, 0), (size // 2, size - 1), (size - 1, size + 5)):
        if 0 <= start < size:
            part = client.get_object(Bucket=bucket, Key="k", Range=f"bytes={start}-{stop}")
            assert part["Body"].read() == data[start : stop + 1]


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_uploads_from_files_in_every_framing(request, bucket, secure, algorithm):
    """Over TLS the body comes in aws-chunked with a trailer, inside of HTTP's own chunks."""
    gateway = request.getfixturevalue("secure_gateway" if secure else "gateway")
    settings = {"verify": str(request.getfixturevalue("certificate"))} if secure else {}
    client = boto3.client(
        "s3",
        endpoint_url=gateway.url,
        config=BotoConfig(retries={"total_max_attempts": 1}),
        **gateway.boto(),
        **settings,
    )
    if secure:
        client.create_bucket(Bucket=bucket)
    data = os.urandom(300_000)
    client.put_object(Bucket=bucket, Key="k", Body=io.BytesIO(data), ChecksumAlgorithm=algorithm)
    got = client.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert got["Body"].read() == data
    assert got["Checksum" + algorithm] and "ContentEncoding" not in got
    client.close()


def test_keys_that_are_hard_to_sign_route_and_print(client, bucket):
    keys = [
        *("a", "a/", "a/b", "a//b", "/lead", "..", "../up", "./x", "a b", "a+b", "a%20b", "a%2Fb"),
        *("é", "e\u0301", "\U0001f600", "x?y=z&w", "#frag", "~!*'()", "tab\tx", "new\nline", "&<>"),
        *("\u2028", "x" * 1024, ":", "@", "a=b", "%", "\\", "{}", "|", '"q"'),
    ]
    for key in keys:
        client.put_object(Bucket=bucket, Key=key, Body=key.encode())
    for key in keys:
        assert client.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode()
    wanted = sorted(keys, key=str.encode)
    for name in ("list_objects", "list_objects_v2"):
        pages = client.get_paginator(name).paginate(Bucket=bucket, PaginationConfig={"PageSize": 5})
        assert [entry["Key"] for page in pages for entry in page["Contents"]] == wanted
    for key in keys[::3]:
        client.copy_object(
            Bucket=bucket, Key="copy/" + key[:1000], CopySource={"Bucket": bucket, "Key": key}
        )
    client.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys]})
    left = client.list_objects_v2(Bucket=bucket)["Contents"]
    assert all(entry["Key"].startswith("copy/") for entry in left) and len(left) == len(keys[::3])


def test_headers_and_metadata_come_back(client, bucket):
    sent = {
        "ContentType": "text/x; charset=utf-8",
        "CacheControl": "max-age=5",
        "ContentDisposition": 'attachment; filename="x"',
        "ContentEncoding": "gzip",
        "ContentLanguage": "de",
    }
    metadata = {"a": "1", "with-dash": "x y", "empty": ""}
    client.put_object(Bucket=bucket, Key="k", Body=b"x", Metadata=metadata, **sent)
    for answer in (
        client.get_object(Bucket=bucket, Key="k"),
        client.head_object(Bucket=bucket, Key="k"),
    ):
        assert {name: answer[name] for name in sent} == sent
        assert answer["Metadata"] == metadata
    over = client.get_object(Bucket=bucket, Key="k", ResponseContentType="a/b")
    assert over["ContentType"] == "a/b"


def test_conditional_creation_has_exactly_one_winner(gateway, client, bucket):
    statuses: list[int] = []
    ready = threading.Barrier(8)

    def create(number: int) -> None:
        own = make_client(gateway)
        ready.wait()
        try:
            own.put_object(Bucket=bucket, Key="lock", Body=b"%d" % number, IfNoneMatch="*")
            statuses.append(200)
        except ClientError as error:
            statuses.append(error.response["ResponseMetadata"]["HTTPStatusCode"])
        finally:
            own.close()

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + [412] * 7


def test_conditional_updates_lose_nothing(gateway, client, bucket):
    """A counter that several clients raise by compare-and-swap, as table formats do."""
    client.put_object(Bucket=bucket, Key="n", Body=b"0")

    def raise_it(times: int) -> None:
        own = make_client(gateway)
        while times:
            got = own.get_object(Bucket=bucket, Key="n")
            number = int(got["Body"].read()) + 1
            try:
                own.put_object(
                    Bucket=bucket, Key="n", Body=str(number).encode(), IfMatch=got["ETag"]
                )
            except ClientError as error:
                assert error.response["Error"]["Code"] == "PreconditionFailed"
            else:
                times -= 1
        own.close()

    threads = [threading.Thread(target=raise_it, args=(5,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.get_object(Bucket=bucket, Key="n")["Body"].read() == b"15"


def test_conditional_reads_and_deletes(client, bucket):
    etag = client.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    with pytest.raises(ClientError) as unchanged:
        client.get_object(Bucket=bucket, Key="k", IfNoneMatch=etag)
    assert status_of(unchanged) == 304
    with pytest.raises(ClientError) as changed:
        client.head_object(Bucket=bucket, Key="k", IfMatch='"other"')
    assert status_of(changed) == 412
    with pytest.raises(ClientError) as kept:
        client.delete_object(Bucket=bucket, Key="k", IfMatch='"other"')
    assert status_of(kept) == 412
    client.delete_object(Bucket=bucket, Key="k", IfMatch=etag)
    with pytest.raises(client.exceptions.NoSuchKey):
        client.get_object(Bucket=bucket, Key="k")


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_copies(client, bucket, size):
    data = os.urandom(size)
    client.put_object(Bucket=bucket, Key="a", Body=data, Metadata={"m": "1"})
    source = {"Bucket": bucket, "Key": "a"}
    copied = client.copy_object(Bucket=bucket, Key="b", CopySource=source)["CopyObjectResult"]
    assert copied["ETag"] == f'"{hashlib.md5(data).hexdigest()}"'
    summed = client.copy_object(
        Bucket=bucket, Key="c", CopySource=source, ChecksumAlgorithm="SHA256"
    )["CopyObjectResult"]
    assert summed["ChecksumSHA256"]
    client.copy_object(
        Bucket=bucket,
        Key="a",
        CopySource=source,
        MetadataDirective="REPLACE",
        Metadata={"m": "2"},
    )
    client.delete_object(Bucket=bucket, Key="a", IfMatch=copied["ETag"])
    for key in ("b", "c"):
        got = client.get_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
        assert got["Body"].read() == data and got["Metadata"] == {"m": "1"}


def test_transfer_manager(client, bucket, tmp_path):
    data = os.urandom(6_000_000)
    (tmp_path / "up").write_bytes(data)
    client.upload_file(str(tmp_path / "up"), bucket, "k", Config=WHOLE)
    chunked = TransferConfig(multipart_threshold=1 << 20, multipart_chunksize=1 << 20)
    client.download_file(bucket, "k", str(tmp_path / "down"), Config=chunked)
    assert (tmp_path / "down").read_bytes() == data


def test_presigned_urls(client, bucket):
    parameters = {"Bucket": bucket, "Key": "k y/é"}
    put = client.generate_presigned_url("put_object", Params=parameters)
    request = urllib.request.Request(put, data=b"hello", method="PUT")
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
    get = client.generate_presigned_url("get_object", Params=parameters)
    with urllib.request.urlopen(get) as answer:
        assert answer.read() == b"hello"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(get.replace("X-Amz-Expires=3600", "X-Amz-Expires=3601"))
    assert refused.value.code == 403
    refused.value.close()


def test_a_refused_upload_leaves_the_connection_usable_or_closed(gateway, client, bucket):
    """AUTH-8: 403 for a large body, then a good request through the same pool."""
    stranger = boto3.client(
        "s3",
        endpoint_url=gateway.url,
        config=BotoConfig(retries={"total_max_attempts": 1}, max_pool_connections=1),
        **gateway.boto() | {"aws_secret_access_key": "wrong"},
    )
    for _ in range(2):
        with pytest.raises(ClientError) as refused:
            stranger.put_object(Bucket=bucket, Key="k", Body=b"x" * 6_000_000)
        assert status_of(refused) == 403
    stranger.close()
    client.put_object(Bucket=bucket, Key="k", Body=b"x")


def test_put_9_a_reader_sees_the_old_object_until_the_last_byte(gateway, client, bucket):
    old, new = b"a" * 2_000_000, b"b" * 2_000_000
    client.put_object(Bucket=bucket, Key="k", Body=old)

    class Peeking(io.BytesIO):
        """Reads the object whenever more of the new one is asked for."""

        seen = 0

        def read(self, count: int = -1) -> bytes:
            if 0 < self.tell() < len(new):
                assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == old
                self.seen += 1
            return super().read(min(count, 500_000) if count > 0 else count)

    own = make_client(gateway, request_checksum_calculation="when_required")
    body = Peeking(new)
    own.put_object(Bucket=bucket, Key="k", Body=body)
    own.close()
    assert body.seen
    assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == new


def test_list_after_write_and_after_delete(client, bucket):
    for number in range(20):
        client.put_object(Bucket=bucket, Key=f"k{number:02d}", Body=b"x")
        assert client.list_objects_v2(Bucket=bucket)["KeyCount"] == number + 1
    client.delete_object(Bucket=bucket, Key="k05")
    assert client.list_objects_v2(Bucket=bucket)["KeyCount"] == 19


@pytest.mark.slow
def test_more_keys_than_a_page(gateway, client, bucket):
    client.put_object(Bucket=bucket, Key="source", Body=b"x")
    keys = [f"d{number % 7}/{number:04d}" for number in range(1100)]
    quick = Client(gateway.url, gateway.access_key, gateway.secret_key)  # than boto3
    for key in keys:
        assert quick.put(f"/{bucket}/{key}", b"x").status == 200
    quick.close()
    pages = list(client.get_paginator("list_objects_v2").paginate(Bucket=bucket))
    found = [entry["Key"] for page in pages for entry in page["Contents"]]
    assert len(pages) == 2 and found == sorted([*keys, "source"])
    grouped = client.list_objects_v2(Bucket=bucket, Delimiter="/")
    assert [p["Prefix"] for p in grouped["CommonPrefixes"]] == [f"d{n}/" for n in range(7)]
    after = client.list_objects_v2(Bucket=bucket, Delimiter="/", StartAfter="d3/9999")
    assert [p["Prefix"] for p in after["CommonPrefixes"]] == ["d4/", "d5/", "d6/"]


def test_bucket_life(client):
    name = f"life-{os.urandom(4).hex()}"
    client.create_bucket(Bucket=name)
    client.create_bucket(Bucket=name)  # us-east-1 says yes again
    assert name in [found["Name"] for found in client.list_buckets()["Buckets"]]
    assert client.head_bucket(Bucket=name)["BucketRegion"] == "us-east-1"
    assert client.get_bucket_location(Bucket=name)["LocationConstraint"] is None
    client.put_object(Bucket=name, Key="k", Body=b"x")
    with pytest.raises(ClientError) as full:
        client.delete_bucket(Bucket=name)
    assert full.value.response["Error"]["Code"] == "BucketNotEmpty"
    client.delete_object(Bucket=name, Key="k")
    client.delete_bucket(Bucket=name)
    with pytest.raises(client.exceptions.NoSuchBucket):
        client.list_objects_v2(Bucket=name)


@pytest.mark.parametrize("setting", ["aws", "idempotent"])
def test_ones_own_bucket_again(setting):
    with Gateway(region="eu-central-1", recreate_own_bucket=setting) as gateway:
        client = make_client(gateway)
        place = {"LocationConstraint": "eu-central-1"}
        client.create_bucket(Bucket="mine", CreateBucketConfiguration=place)
        if setting == "aws":
            with pytest.raises(client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket="mine", CreateBucketConfiguration=place)
        else:
            client.create_bucket(Bucket="mine", CreateBucketConfiguration=place)
            with pytest.raises(client.exceptions.BucketAlreadyExists):
                client.create_bucket(
                    Bucket="mine",
                    CreateBucketConfiguration=place,
                    ObjectOwnership="ObjectWriter",
                )
        client.close()


def test_buckets_in_pages(client):
    names = sorted(f"paged-{os.urandom(4).hex()}-{n}" for n in range(5))
    for name in names:
        client.create_bucket(Bucket=name)
    pages = client.get_paginator("list_buckets").paginate(
        Prefix="paged-", BucketRegion="us-east-1", PaginationConfig={"PageSize": 2}
    )
    found = list(pages)
    assert [[b["Name"] for b in page["Buckets"]] for page in found] == [
        *(names[:2], names[2:4], names[4:])
    ]
    assert {b["BucketRegion"] for page in found for b in page["Buckets"]} == {"us-east-1"}
    assert [page["Prefix"] for page in found] == ["paged-"] * 3
    for name in names:
        client.delete_bucket(Bucket=name)


def test_a_buckets_default_encryption_by_either_way(gateway, client, bucket):
    """Small objects go by the express lane, which has to say the same."""
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    client.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
    for size in (10, 10, 10, 200_000):
        put = client.put_object(Bucket=bucket, Key="k", Body=bytes(size))
        assert put["ServerSideEncryption"] == "AES256"
        assert client.get_object(Bucket=bucket, Key="k")["ServerSideEncryption"] == "AES256"
        assert client.head_object(Bucket=bucket, Key="k")["ServerSideEncryption"] == "AES256"
