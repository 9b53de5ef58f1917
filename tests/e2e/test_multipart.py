"""Multipart uploads by the clients that people use, over real sockets."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config as BotoConfig

from tests.body.support import content
from tests.support.client import Client
from tests.support.process import ACCESS_KEY, SECRET_KEY, Gateway

pytestmark = pytest.mark.slow

MIB = 1 << 20
PARTED = TransferConfig(multipart_threshold=8 * MIB, multipart_chunksize=8 * MIB)


def parted_etag(data: bytes, chunk: int = 8 * MIB) -> str:
    pieces = [data[at : at + chunk] for at in range(0, len(data), chunk)]
    digests = b"".join(hashlib.md5(piece).digest() for piece in pieces)
    return f'"{hashlib.md5(digests).hexdigest()}-{len(pieces)}"'


def test_aws_s3_cp_of_a_large_file_both_ways(aws, bucket, tmp_path):
    data = content(40 * MIB + 12_345)
    (tmp_path / "up").write_bytes(data)
    aws("s3", "cp", str(tmp_path / "up"), f"s3://{bucket}/k", "--content-type", "text/x")
    aws("s3", "cp", f"s3://{bucket}/k", str(tmp_path / "down"))
    assert (tmp_path / "down").read_bytes() == data
    aws("s3", "cp", f"s3://{bucket}/k", f"s3://{bucket}/copy")  # UploadPartCopy
    aws("s3", "mv", f"s3://{bucket}/copy", str(tmp_path / "moved"))
    assert (tmp_path / "moved").read_bytes() == data
    said = aws("s3api", "head-object", "--bucket", bucket, "--key", "k", "--part-number", "2")
    assert '"PartsCount": 6' in said and "text/x" in said
    assert "Uploads" not in aws("s3api", "list-multipart-uploads", "--bucket", bucket)


def test_aws_s3_cp_from_a_pipe_and_sync(aws, bucket, tmp_path):
    data = content(20 * MIB, 5)
    aws("s3", "cp", "-", f"s3://{bucket}/piped", given=data)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "large").write_bytes(data)
    os.utime(tmp_path / "tree" / "large", (1_700_000_000, 1_700_000_000))
    aws("s3", "sync", str(tmp_path / "tree"), f"s3://{bucket}/t")
    assert "upload" not in aws("s3", "sync", str(tmp_path / "tree"), f"s3://{bucket}/t")
    aws("s3", "cp", f"s3://{bucket}/piped", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == data


@pytest.mark.parametrize("algorithm", [None, "CRC32", "CRC64NVME", "SHA256"])
def test_boto3_transfers(client, bucket, tmp_path, algorithm):
    data = content(21 * MIB, 7)
    (tmp_path / "up").write_bytes(data)
    extra = {"Metadata": {"a": "b"}}
    if algorithm:
        extra["ChecksumAlgorithm"] = algorithm
    client.upload_file(str(tmp_path / "up"), bucket, "k", ExtraArgs=extra, Config=PARTED)
    head = client.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert head["ETag"] == parted_etag(data) and head["Metadata"] == {"a": "b"}
    assert head["ChecksumType"] == ("FULL_OBJECT" if algorithm == "CRC64NVME" else "COMPOSITE")
    client.download_file(bucket, "k", str(tmp_path / "down"), Config=PARTED)
    assert (tmp_path / "down").read_bytes() == data
    whole = client.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert whole["Body"].read() == data
    part = client.get_object(Bucket=bucket, Key="k", PartNumber=3, ChecksumMode="ENABLED")
    assert part["Body"].read() == data[16 * MIB :] and part["PartsCount"] == 3
    client.copy({"Bucket": bucket, "Key": "k"}, bucket, "copy", Config=PARTED)
    assert client.get_object(Bucket=bucket, Key="copy")["Body"].read() == data


def test_boto3_over_tls(secure_gateway, certificate, tmp_path):
    """Parts in aws-chunked with trailers, inside of HTTP's own chunks."""
    client = boto3.client(
        "s3",
        endpoint_url=secure_gateway.url,
        verify=str(certificate),
        config=BotoConfig(retries={"total_max_attempts": 1}),
        **secure_gateway.boto(),
    )
    client.create_bucket(Bucket="multipart")
    data = content(17 * MIB, 9)
    (tmp_path / "up").write_bytes(data)
    client.upload_file(str(tmp_path / "up"), "multipart", "k", Config=PARTED)
    assert client.get_object(Bucket="multipart", Key="k")["Body"].read() == data
    client.close()


def test_a_failed_transfer_leaves_nothing_behind(client, bucket, tmp_path):
    """s3transfer aborts its upload when a part fails."""

    class Broken:
        def __init__(self) -> None:
            self.left = 20 * MIB

        def read(self, size: int = -1) -> bytes:
            if self.left < 10 * MIB:
                raise OSError("the source broke")
            self.left -= size
            return bytes(size)

    with pytest.raises(OSError, match="the source broke"):
        client.upload_fileobj(Broken(), bucket, "k", Config=PARTED)
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)
    assert "Contents" not in client.list_objects_v2(Bucket=bucket)


def test_serve_in_a_process_of_its_own(private_path, tmp_path):
    """The whole command, Postgres included; and again after a restart."""
    data = content(20 * MIB, 11)
    (tmp_path / "up").write_bytes(data)
    settings = {
        "aws_access_key_id": ACCESS_KEY,
        "aws_secret_access_key": SECRET_KEY,
        "region_name": "us-east-1",
    }
    with Gateway(private_path / "data") as gateway:
        client = boto3.client("s3", endpoint_url=gateway.url, **settings)
        client.create_bucket(Bucket="bucket")
        client.upload_file(str(tmp_path / "up"), "bucket", "k", Config=PARTED)
        pending = client.create_multipart_upload(Bucket="bucket", Key="p")["UploadId"]
        client.upload_part(Bucket="bucket", Key="p", UploadId=pending, PartNumber=1, Body=b"tail")
        client.close()
    with Gateway(private_path / "data") as gateway:
        client = boto3.client("s3", endpoint_url=gateway.url, **settings)
        assert client.get_object(Bucket="bucket", Key="k")["Body"].read() == data
        parts = client.list_parts(Bucket="bucket", Key="p", UploadId=pending)["Parts"]
        client.complete_multipart_upload(
            Bucket="bucket",
            Key="p",
            UploadId=pending,
            MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": parts[0]["ETag"]}]},
        )
        assert client.get_object(Bucket="bucket", Key="p")["Body"].read() == b"tail"
        client.close()


def test_parts_from_many_connections_at_once(gateway, bucket):
    """Sixteen parts in parallel, each replaced once; then one of four Completes wins."""
    pieces = [content(5 * MIB, seed) for seed in range(16)]
    first = Client(gateway.url, gateway.access_key, gateway.secret_key, gateway.region)
    answer = first.request("POST", f"/{bucket}/k", query="uploads")
    upload = re.search(rb"<UploadId>(.+)</UploadId>", answer.body)[1].decode()

    def put(number: int) -> str:
        client = Client(gateway.url, gateway.access_key, gateway.secret_key, gateway.region)
        query = f"partNumber={number}&uploadId={upload}"
        for data in (b"replaced", pieces[number - 1]):
            answer = client.request("PUT", f"/{bucket}/k", data, query=query)
            assert answer.status == 200, answer
        client.close()
        return answer.headers["etag"]

    with ThreadPoolExecutor(16) as pool:
        etags = list(pool.map(put, range(1, 17)))
    entries = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
        for number, etag in enumerate(etags, 1)
    )
    document = f"<CompleteMultipartUpload>{entries}</CompleteMultipartUpload>".encode()
    start = threading.Barrier(4)

    def complete(_: int) -> tuple[int, bytes]:
        client = Client(gateway.url, gateway.access_key, gateway.secret_key, gateway.region)
        start.wait()
        answer = client.request("POST", f"/{bucket}/k", document, query=f"uploadId={upload}")
        client.close()
        return answer.status, answer.body

    with ThreadPoolExecutor(4) as pool:
        answers = set(pool.map(complete, range(4)))
    assert len(answers) == 1 and answers.pop()[0] == 200
    assert first.get(f"/{bucket}/k").body == b"".join(pieces)
    first.close()
