"""The ``aws`` command against a whole gateway."""

from __future__ import annotations

import json
import os

import pytest

pytestmark = pytest.mark.slow


def test_a_day_with_aws_s3(aws, tmp_path, bucket):
    tree = tmp_path / "tree"
    (tree / "sub dir").mkdir(parents=True)
    for name, data in {"a.txt": b"a", "sub dir/b+c.bin": os.urandom(100_000), "é": b""}.items():
        (tree / name).write_bytes(data)
        # S3's times are whole seconds: a file of this very second would look newer than its copy.
        os.utime(tree / name, (1_700_000_000, 1_700_000_000))
    aws("s3", "sync", str(tree), f"s3://{bucket}/t")
    assert "b+c.bin" in aws("s3", "ls", "--recursive", f"s3://{bucket}")
    assert "PRE t/" in aws("s3", "ls", f"s3://{bucket}")
    # Nothing has changed, so nothing is copied again: sizes and times agree in listing and file.
    assert "upload" not in aws("s3", "sync", str(tree), f"s3://{bucket}/t")
    aws("s3", "cp", f"s3://{bucket}/t/a.txt", f"s3://{bucket}/u/a.txt")
    aws("s3", "mv", f"s3://{bucket}/u/a.txt", f"s3://{bucket}/v/a.txt")
    aws("s3", "sync", f"s3://{bucket}", str(tmp_path / "back"))
    for path in tree.rglob("*"):
        if path.is_file():
            back = tmp_path / "back" / "t" / path.relative_to(tree)
            assert back.read_bytes() == path.read_bytes()
    assert (tmp_path / "back" / "v" / "a.txt").read_bytes() == b"a"
    assert aws("s3", "cp", f"s3://{bucket}/v/a.txt", "-") == "a"
    aws("s3", "cp", "-", f"s3://{bucket}/stdin", given=b"from a pipe")
    assert aws("s3", "cp", f"s3://{bucket}/stdin", "-") == "from a pipe"
    aws("s3", "rm", "--recursive", f"s3://{bucket}")
    assert aws("s3", "ls", f"s3://{bucket}") == ""


def test_an_empty_file_before_another_on_one_connection(aws, tmp_path, bucket):
    """Both with ``Expect: 100-continue``: the answer to one must not be taken for the other's."""
    aws("configure", "set", "default.s3.max_concurrent_requests", "1")
    tree = tmp_path / "tree"
    tree.mkdir()
    for name, size in {"a": 0, "b": 100_000, "c": 1, "d": 0, "e": 5000}.items():
        (tree / name).write_bytes(os.urandom(size))
    aws("s3", "sync", "--cli-read-timeout", "10", str(tree), f"s3://{bucket}/t")
    aws("s3", "sync", f"s3://{bucket}/t", str(tmp_path / "back"))
    for path in tree.iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()


def test_buckets_made_and_removed_by_force(aws):
    name = f"cli-{os.urandom(4).hex()}"
    aws("s3", "mb", f"s3://{name}")
    aws("s3", "cp", "-", f"s3://{name}/k", given=b"x")
    assert "BucketNotEmpty" in aws("s3", "rb", f"s3://{name}", fails=True)
    aws("s3", "rb", "--force", f"s3://{name}")
    assert "NoSuchBucket" in aws("s3", "ls", f"s3://{name}", fails=True)


def test_s3api(aws, bucket):
    put = json.loads(
        aws("s3api", "put-object", "--bucket", bucket, "--key", "k", "--content-type", "text/x")
    )
    head = json.loads(aws("s3api", "head-object", "--bucket", bucket, "--key", "k"))
    assert head["ETag"] == put["ETag"] and head["ContentType"] == "text/x"
    assert "(404)" in aws("s3api", "head-object", "--bucket", bucket, "--key", "no", fails=True)
    said = aws("s3api", "get-bucket-policy", "--bucket", bucket, fails=True)
    assert "NoSuchBucketPolicy" in said
