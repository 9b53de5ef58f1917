"""The clients that are Python packages: boto3, minio, s3fs, pyarrow, obstore."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.clients.port import PART_BYTES, Endpoint, Library

HOUR_S = 3600


class Boto3(Library):
    name = "boto3"
    module = "boto3"

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        import boto3
        from botocore.config import Config

        self.s3 = boto3.client(
            "s3",
            endpoint_url=endpoint.url,
            aws_access_key_id=endpoint.access_key,
            aws_secret_access_key=endpoint.secret_key,
            region_name=endpoint.region,
            verify=str(endpoint.authority) if endpoint.authority else None,
            # Without the version it signs URLs for us-east-1 by version 2.
            config=Config(signature_version="s3v4", retries={"total_max_attempts": 1}),
        )

    def close(self) -> None:
        self.s3.close()

    def make_bucket(self, bucket: str) -> None:
        self.s3.create_bucket(Bucket=bucket)

    def remove_bucket(self, bucket: str) -> None:
        self.s3.delete_bucket(Bucket=bucket)

    def buckets(self) -> set[str]:
        return {entry["Name"] for entry in self.s3.list_buckets()["Buckets"]}

    def put(self, bucket: str, key: str, path: Path) -> None:
        self.s3.upload_file(str(path), bucket, key)

    def get(self, bucket: str, key: str, path: Path) -> None:
        self.s3.download_file(bucket, key, str(path))

    def get_range(self, bucket: str, key: str, first: int, count: int) -> bytes:
        span = f"bytes={first}-{first + count - 1}"
        body: bytes = self.s3.get_object(Bucket=bucket, Key=key, Range=span)["Body"].read()
        return body

    def keys(self, bucket: str) -> list[str]:
        return [entry["Key"] for page in self._pages(bucket) for entry in page.get("Contents", [])]

    def level(self, bucket: str, prefix: str) -> set[str]:
        found = set()
        for page in self._pages(bucket, Prefix=prefix, Delimiter="/"):
            found |= {entry["Key"] for entry in page.get("Contents", [])}
            found |= {entry["Prefix"] for entry in page.get("CommonPrefixes", [])}
        return found

    def copy(self, bucket: str, key: str, target: str) -> None:
        self.s3.copy({"Bucket": bucket, "Key": key}, bucket, target)

    copy_by_parts = copy  # from 8 MiB on

    def presigned_get(self, bucket: str, key: str) -> str:
        return self._presigned("get_object", bucket, key)

    def presigned_put(self, bucket: str, key: str) -> str:
        return self._presigned("put_object", bucket, key)

    def remove_all(self, bucket: str) -> None:
        for page in self._pages(bucket):
            doomed = [{"Key": entry["Key"]} for entry in page.get("Contents", [])]
            answer = self.s3.delete_objects(Bucket=bucket, Delete={"Objects": doomed})
            assert "Errors" not in answer, answer

    def _pages(self, bucket: str, **asked: str) -> Iterator[dict[str, Any]]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, **asked)
        yield from pages

    def _presigned(self, operation: str, bucket: str, key: str) -> str:
        named = {"Bucket": bucket, "Key": key}
        url: str = self.s3.generate_presigned_url(operation, Params=named, ExpiresIn=HOUR_S)
        return url


class Minio(Library):
    name = "minio-py"
    module = "minio"
    unsendable = {
        "dot": "it refuses paths with dots",
        "two dots": "it refuses paths with dots",
    }

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        import minio
        import urllib3

        trusted = {"ca_certs": str(endpoint.authority)} if endpoint.authority else {}
        self.pool = urllib3.PoolManager(retries=False, **trusted)
        self.s3 = minio.Minio(
            endpoint=endpoint.host,
            access_key=endpoint.access_key,
            secret_key=endpoint.secret_key,
            secure=endpoint.authority is not None,
            http_client=self.pool,
        )

    def close(self) -> None:
        self.pool.clear()

    def make_bucket(self, bucket: str) -> None:
        self.s3.make_bucket(bucket_name=bucket)

    def remove_bucket(self, bucket: str) -> None:
        self.s3.remove_bucket(bucket_name=bucket)

    def buckets(self) -> set[str]:
        return {found.name for found in self.s3.list_buckets()}

    def put(self, bucket: str, key: str, path: Path) -> None:
        self.s3.fput_object(
            bucket_name=bucket, object_name=key, file_path=str(path), part_size=PART_BYTES
        )

    def get(self, bucket: str, key: str, path: Path) -> None:
        self.s3.fget_object(bucket_name=bucket, object_name=key, file_path=str(path))

    def get_range(self, bucket: str, key: str, first: int, count: int) -> bytes:
        answer = self.s3.get_object(bucket_name=bucket, object_name=key, offset=first, length=count)
        try:
            body: bytes = answer.read()
        finally:
            answer.close()
            answer.release_conn()
        return body

    def keys(self, bucket: str) -> list[str]:
        return [found.object_name for found in self._listed(bucket)]

    def level(self, bucket: str, prefix: str) -> set[str]:
        found = self.s3.list_objects(bucket_name=bucket, prefix=prefix)
        return {entry.object_name for entry in found}

    def copy(self, bucket: str, key: str, target: str) -> None:
        from minio.commonconfig import CopySource

        source = CopySource(bucket_name=bucket, object_name=key)
        self.s3.copy_object(bucket_name=bucket, object_name=target, source=source)

    def copy_by_parts(self, bucket: str, key: str, target: str) -> None:
        """An object put together from two ranges of the other."""
        from minio.commonconfig import ComposeSource

        size = self.s3.stat_object(bucket_name=bucket, object_name=key).size
        halves = [(0, size // 2), (size // 2, size - size // 2)]
        sources = [
            ComposeSource(bucket_name=bucket, object_name=key, offset=offset, length=length)
            for offset, length in halves
        ]
        self.s3.compose_object(bucket_name=bucket, object_name=target, sources=sources)

    def presigned_get(self, bucket: str, key: str) -> str:
        url: str = self.s3.presigned_get_object(bucket_name=bucket, object_name=key)
        return url

    def presigned_put(self, bucket: str, key: str) -> str:
        url: str = self.s3.presigned_put_object(bucket_name=bucket, object_name=key)
        return url

    def remove_all(self, bucket: str) -> None:
        from minio.deleteobjects import DeleteObject

        doomed = [DeleteObject(found.object_name) for found in self._listed(bucket)]
        left = self.s3.remove_objects(bucket_name=bucket, delete_object_list=doomed)
        assert not list(left)

    def _listed(self, bucket: str) -> Iterator[Any]:
        yield from self.s3.list_objects(bucket_name=bucket, recursive=True)


class S3Fs(Library):
    name = "s3fs"
    module = "s3fs"
    unsendable = {
        "leading slash": "it takes slashes off both ends of a path",
        "trailing slash": "it takes slashes off both ends of a path",
    }

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        import s3fs

        # No region: it would name it when it makes a bucket, and us-east-1 cannot be named there.
        trusted = {"verify": str(endpoint.authority)} if endpoint.authority else {}
        self.s3 = s3fs.S3FileSystem(
            key=endpoint.access_key,
            secret=endpoint.secret_key,
            endpoint_url=endpoint.url,
            client_kwargs=trusted,
            config_kwargs={"signature_version": "s3v4", "retries": {"total_max_attempts": 1}},
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    def make_bucket(self, bucket: str) -> None:
        self.s3.mkdir(bucket)

    def remove_bucket(self, bucket: str) -> None:
        self.s3.rmdir(bucket)

    def buckets(self) -> set[str]:
        return set(self.s3.ls(""))

    def put(self, bucket: str, key: str, path: Path) -> None:
        self.s3.put_file(str(path), f"{bucket}/{key}", chunksize=PART_BYTES)

    def get(self, bucket: str, key: str, path: Path) -> None:
        self.s3.get_file(f"{bucket}/{key}", str(path))

    def get_range(self, bucket: str, key: str, first: int, count: int) -> bytes:
        body: bytes = self.s3.cat_file(f"{bucket}/{key}", start=first, end=first + count)
        return body

    def keys(self, bucket: str) -> list[str]:
        return [path.removeprefix(bucket + "/") for path in self.s3.find(bucket)]

    def level(self, bucket: str, prefix: str) -> set[str]:
        found = set()
        for entry in self.s3.ls(f"{bucket}/{prefix}", detail=True):
            name = entry["name"].removeprefix(bucket + "/")
            found.add(name + "/" if entry["type"] == "directory" else name)
        return found

    def copy(self, bucket: str, key: str, target: str) -> None:
        self.s3.cp_file(f"{bucket}/{key}", f"{bucket}/{target}")

    def presigned_get(self, bucket: str, key: str) -> str:
        url: str = self.s3.sign(f"{bucket}/{key}")
        return url

    def presigned_put(self, bucket: str, key: str) -> str:
        url: str = self.s3.sign(f"{bucket}/{key}", client_method="put_object")
        return url

    def remove_all(self, bucket: str) -> None:
        self.s3.rm([f"{bucket}/{key}" for key in self.keys(bucket)])


class PyArrow(Library):
    name = "pyarrow"
    module = "pyarrow"
    unsendable = {
        "leading slash": "it has no empty pieces of paths",
        "trailing slash": "to it that is a directory",
        "double slash": "it has no empty pieces of paths",
        "dot": "it signs the dot and then sends a path without",
        "two dots": "it signs the dots and then sends a path without",
    }

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        from pyarrow import fs

        self.fs = fs
        self.s3 = fs.S3FileSystem(
            access_key=endpoint.access_key,
            secret_key=endpoint.secret_key,
            endpoint_override=endpoint.host,
            scheme="https" if endpoint.authority else "http",
            region=endpoint.region,
            tls_ca_file_path=str(endpoint.authority) if endpoint.authority else None,
            allow_bucket_creation=True,
            allow_bucket_deletion=True,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),
        )

    def make_bucket(self, bucket: str) -> None:
        self.s3.create_dir(bucket)

    def remove_bucket(self, bucket: str) -> None:
        self.s3.delete_dir(bucket)

    def buckets(self) -> set[str]:
        return {found.path for found in self.s3.get_file_info(self.fs.FileSelector(""))}

    def put(self, bucket: str, key: str, path: Path) -> None:
        with self.s3.open_output_stream(f"{bucket}/{key}") as output:
            output.write(path.read_bytes())

    def get(self, bucket: str, key: str, path: Path) -> None:
        with self.s3.open_input_stream(f"{bucket}/{key}") as given:
            path.write_bytes(given.read())

    def get_range(self, bucket: str, key: str, first: int, count: int) -> bytes:
        with self.s3.open_input_file(f"{bucket}/{key}") as given:
            body: bytes = given.read_at(count, first)
        return body

    def keys(self, bucket: str) -> list[str]:
        found = self.s3.get_file_info(self.fs.FileSelector(bucket, recursive=True))
        files = [entry for entry in found if entry.type == self.fs.FileType.File]
        return [entry.path.removeprefix(bucket + "/") for entry in files]

    def level(self, bucket: str, prefix: str) -> set[str]:
        found = set()
        for entry in self.s3.get_file_info(self.fs.FileSelector(f"{bucket}/{prefix}")):
            name = entry.path.removeprefix(bucket + "/")
            found.add(name if entry.type == self.fs.FileType.File else name + "/")
        return found

    def copy(self, bucket: str, key: str, target: str) -> None:
        self.s3.copy_file(f"{bucket}/{key}", f"{bucket}/{target}")

    def remove_all(self, bucket: str) -> None:
        self.s3.delete_dir_contents(bucket)


class ObStore(Library):
    """A store of object_store is one bucket."""

    name = "obstore"
    module = "obstore"
    unsendable = {
        "leading slash": "it has no empty pieces of paths",
        "trailing slash": "it has no empty pieces of paths",
        "double slash": "it has no empty pieces of paths",
        "dot": "it refuses paths with dots",
        "two dots": "it refuses paths with dots",
    }

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        import obstore

        self.obstore = obstore

    def store(self, bucket: str) -> Any:
        from obstore.store import S3Store

        endpoint = self.endpoint
        options: dict[str, Any] = {"allow_http": True}
        if endpoint.authority:
            options["root_certificate"] = endpoint.authority.read_bytes()
        return S3Store(
            bucket,
            endpoint=endpoint.url,
            access_key_id=endpoint.access_key,
            secret_access_key=endpoint.secret_key,
            region=endpoint.region,
            virtual_hosted_style_request=False,
            client_options=options,
            retry_config={"max_retries": 0},
        )

    def put(self, bucket: str, key: str, path: Path) -> None:
        self.obstore.put(self.store(bucket), key, path, chunk_size=PART_BYTES)

    def get(self, bucket: str, key: str, path: Path) -> None:
        path.write_bytes(self.obstore.get(self.store(bucket), key).bytes())

    def get_range(self, bucket: str, key: str, first: int, count: int) -> bytes:
        return bytes(self.obstore.get_range(self.store(bucket), key, start=first, length=count))

    def keys(self, bucket: str) -> list[str]:
        pages = self.obstore.list(self.store(bucket))
        return [entry["path"] for page in pages for entry in page]

    def level(self, bucket: str, prefix: str) -> set[str]:
        found = self.obstore.list_with_delimiter(self.store(bucket), prefix or None)
        groups = {group + "/" for group in found["common_prefixes"]}
        return groups | {entry["path"] for entry in found["objects"]}

    def copy(self, bucket: str, key: str, target: str) -> None:
        self.obstore.copy(self.store(bucket), key, target)

    def presigned_get(self, bucket: str, key: str) -> str:
        return self._signed("GET", bucket, key)

    def presigned_put(self, bucket: str, key: str) -> str:
        return self._signed("PUT", bucket, key)

    def remove_all(self, bucket: str) -> None:
        self.obstore.delete(self.store(bucket), self.keys(bucket))

    def _signed(self, method: str, bucket: str, key: str) -> str:
        lifetime = datetime.timedelta(seconds=HOUR_S)
        url: str = self.obstore.sign(self.store(bucket), method, key, lifetime)
        return url


LIBRARIES = (Boto3, Minio, S3Fs, PyArrow, ObStore)
