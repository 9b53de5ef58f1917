"""The clients that are commands: awscli, rclone, s5cmd, s3cmd."""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.clients.port import (
    FROM_DEBIAN,
    MIB,
    PART_BYTES,
    Endpoint,
    Program,
    Unable,
)

PART_MIB = str(PART_BYTES // MIB)


class AwsCli(Program):
    name = "awscli"
    program = "aws"

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        # Without this it signs URLs for us-east-1 by version 2.
        config = endpoint.home / "aws-config"
        config.write_text("[default]\ns3 =\n    signature_version = s3v4\n")
        self.environment |= {
            "AWS_CONFIG_FILE": str(config),
            "AWS_ACCESS_KEY_ID": endpoint.access_key,
            "AWS_SECRET_ACCESS_KEY": endpoint.secret_key,
            "AWS_DEFAULT_REGION": endpoint.region,
            "AWS_ENDPOINT_URL": endpoint.url,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",
        }
        if endpoint.authority:
            self.environment["AWS_CA_BUNDLE"] = str(endpoint.authority)

    def make_bucket(self, bucket: str) -> None:
        self.run("s3", "mb", f"s3://{bucket}")

    def remove_bucket(self, bucket: str) -> None:
        self.run("s3", "rb", f"s3://{bucket}")

    def buckets(self) -> set[str]:
        return {line.split()[2] for line in self.run("s3", "ls").splitlines()}

    def put(self, bucket: str, key: str, path: Path) -> None:
        if key.endswith("/"):  # "s3 cp" would add the file's name
            self._api("put-object", bucket, "--key", key, "--body", path)
        else:
            self.run("s3", "cp", path, f"s3://{bucket}/{key}")

    def get(self, bucket: str, key: str, path: Path) -> None:
        if key.endswith("/"):
            self._api("get-object", bucket, "--key", key, path)
        else:
            self.run("s3", "cp", f"s3://{bucket}/{key}", path)

    def put_each(self, bucket: str, paths: Mapping[str, Path]) -> None:
        """A tree of files by one command, for it takes a second to start."""
        tree = Path(tempfile.mkdtemp(dir=self.endpoint.home))
        for key in filter(_is_file_name, paths):
            (tree / key).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(paths[key], tree / key)
        self.run("s3", "cp", "--recursive", "--only-show-errors", tree, f"s3://{bucket}")
        for key in itertools.filterfalse(_is_file_name, paths):
            self.put(bucket, key, paths[key])

    def get_each(self, bucket: str, paths: Mapping[str, Path]) -> None:
        tree = Path(tempfile.mkdtemp(dir=self.endpoint.home))
        odd = list(itertools.filterfalse(_is_file_name, paths))
        excluded = [word for key in odd for word in ("--exclude", key)]
        self.run("s3", "cp", "--recursive", *excluded, f"s3://{bucket}", tree)
        for key in filter(_is_file_name, paths):
            shutil.copyfile(tree / key, paths[key])
        for key in odd:
            self.get(bucket, key, paths[key])

    def get_range(self, bucket: str, key: str, first: int, count: int) -> bytes:
        path = self.endpoint.home / "range"
        span = f"bytes={first}-{first + count - 1}"
        self._api("get-object", bucket, "--key", key, "--range", span, path)
        return path.read_bytes()

    def keys(self, bucket: str) -> list[str]:
        found = json.loads(self._api("list-objects-v2", bucket))
        return [entry["Key"] for entry in found["Contents"]]

    def level(self, bucket: str, prefix: str) -> set[str]:
        # Three columns before a file's name, "PRE" before a group's; names begin below the prefix.
        lines = self.run("s3", "ls", f"s3://{bucket}/{prefix}").splitlines()
        return {prefix + line.split(maxsplit=1 if " PRE " in line else 3)[-1] for line in lines}

    def copy(self, bucket: str, key: str, target: str) -> None:
        self.run("s3", "cp", f"s3://{bucket}/{key}", f"s3://{bucket}/{target}")

    copy_by_parts = copy  # from 8 MiB on

    def presigned_get(self, bucket: str, key: str) -> str:
        return self.run("s3", "presign", f"s3://{bucket}/{key}").strip()

    def sync(self, source: str | Path, target: str | Path) -> str:
        return self.run("s3", "sync", "--delete", "--no-progress", source, target)

    def remove_all(self, bucket: str) -> None:
        self.run("s3", "rm", "--recursive", "--only-show-errors", f"s3://{bucket}")

    def _api(self, operation: str, bucket: str, *arguments: str | Path) -> str:
        return self.run("s3api", operation, "--bucket", bucket, "--output", "json", *arguments)


def _is_file_name(key: str) -> bool:
    return not {"", ".", ".."}.intersection(key.split("/"))


class Rclone(Program):
    name = "rclone"
    program = "rclone"
    install = FROM_DEBIAN.format("rclone")
    unsendable = {
        "leading slash": "it has no empty pieces of paths",
        "trailing slash": "it has no empty pieces of paths",
        "double slash": "it has no empty pieces of paths",
        "dot": "it writes another character for the dot",
        "two dots": "it writes another character for the dots",
    }

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        config = endpoint.home / "rclone.conf"
        config.write_text(
            f"[ingot]\ntype = s3\nprovider = Other\nendpoint = {endpoint.url}\n"
            f"access_key_id = {endpoint.access_key}\nsecret_access_key = {endpoint.secret_key}\n"
            f"region = {endpoint.region}\n"
            f"chunk_size = {PART_MIB}Mi\nupload_cutoff = 8Mi\ncopy_cutoff = 8Mi\n"
        )
        self.environment |= {
            "RCLONE_CONFIG": str(config),
            "RCLONE_RETRIES": "1",
            "RCLONE_LOW_LEVEL_RETRIES": "1",
        }
        if endpoint.authority:
            self.environment["RCLONE_CA_CERT"] = str(endpoint.authority)

    def make_bucket(self, bucket: str) -> None:
        self.run("mkdir", f"ingot:{bucket}")

    def remove_bucket(self, bucket: str) -> None:
        self.run("rmdir", f"ingot:{bucket}")

    def buckets(self) -> set[str]:
        return {line.rstrip("/") for line in self.run("lsf", "ingot:").splitlines()}

    def put(self, bucket: str, key: str, path: Path) -> None:
        self.run("copyto", path, f"ingot:{bucket}/{key}")

    def get(self, bucket: str, key: str, path: Path) -> None:
        self.run("copyto", f"ingot:{bucket}/{key}", path)

    def get_range(self, bucket: str, key: str, first: int, count: int) -> bytes:
        window = ("--offset", str(first), "--count", str(count))
        return self.output("cat", *window, f"ingot:{bucket}/{key}")

    def keys(self, bucket: str) -> list[str]:
        return self.run("lsf", "-R", "--files-only", f"ingot:{bucket}").splitlines()

    def level(self, bucket: str, prefix: str) -> set[str]:
        return {prefix + name for name in self.run("lsf", f"ingot:{bucket}/{prefix}").splitlines()}

    def copy(self, bucket: str, key: str, target: str) -> None:
        self.run("copyto", f"ingot:{bucket}/{key}", f"ingot:{bucket}/{target}")

    copy_by_parts = copy  # from copy_cutoff on

    def presigned_get(self, bucket: str, key: str) -> str:
        return self.run("link", "--expire", "1h", f"ingot:{bucket}/{key}").strip()

    def place(self, bucket: str) -> str:
        return f"ingot:{bucket}"

    def sync(self, source: str | Path, target: str | Path) -> str:
        log = self.endpoint.home / "rclone.log"
        log.write_text("")
        self.run("sync", "--log-level", "INFO", "--log-file", log, source, target)
        return log.read_text()

    def remove_all(self, bucket: str) -> None:
        self.run("delete", f"ingot:{bucket}")


class S5cmd(Program):
    name = "s5cmd"
    program = "s5cmd"
    unsendable = {"trailing slash": "it adds the file's name"}

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self.environment |= {
            "AWS_ACCESS_KEY_ID": endpoint.access_key,
            "AWS_SECRET_ACCESS_KEY": endpoint.secret_key,
            "AWS_REGION": endpoint.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "S3_ENDPOINT_URL": endpoint.url,
        }
        if endpoint.authority:
            self.environment["AWS_CA_BUNDLE"] = str(endpoint.authority)

    def make_bucket(self, bucket: str) -> None:
        self._do("mb", f"s3://{bucket}")

    def remove_bucket(self, bucket: str) -> None:
        self._do("rb", f"s3://{bucket}")

    def buckets(self) -> set[str]:
        return {entry["name"] for entry in self._said("ls")}

    def put(self, bucket: str, key: str, path: Path) -> None:
        self._do("cp", "--part-size", PART_MIB, path, f"s3://{bucket}/{key}")

    def get(self, bucket: str, key: str, path: Path) -> None:
        source = f"s3://{bucket}/{key}"
        self._do("cp", "--raw", "--part-size", PART_MIB, source, path)

    def keys(self, bucket: str) -> list[str]:
        whole = len(f"s3://{bucket}/")
        return [entry["key"][whole:] for entry in self._said("ls", f"s3://{bucket}/*")]

    def level(self, bucket: str, prefix: str) -> set[str]:
        whole = len(f"s3://{bucket}/")
        return {entry["key"][whole:] for entry in self._said("ls", f"s3://{bucket}/{prefix}")}

    def copy(self, bucket: str, key: str, target: str) -> None:
        self._do("cp", "--raw", f"s3://{bucket}/{key}", f"s3://{bucket}/{target}")

    def presigned_get(self, bucket: str, key: str) -> str:
        return self.run("presign", f"s3://{bucket}/{key}").strip()

    def sync(self, source: str | Path, target: str | Path) -> str:
        """Its buckets are patterns, its directories end in a slash."""
        pattern = f"{source}/*" if isinstance(source, str) else f"{source}/"
        return self._do("sync", "--delete", pattern, f"{target}/")

    def remove_all(self, bucket: str) -> None:
        self._do("rm", f"s3://{bucket}/*")

    def _do(self, *arguments: str | Path) -> str:
        return self.run("--retry-count", "0", "--json", *arguments)

    def _said(self, *arguments: str | Path) -> list[dict[str, str]]:
        return [json.loads(line) for line in self._do(*arguments).splitlines()]


class S3cmd(Program):
    name = "s3cmd"
    program = "s3cmd"
    unsendable = {"trailing slash": "it adds the file's name"}

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self.config = endpoint.home / "s3cfg"
        self.config.write_text(
            f"[default]\naccess_key = {endpoint.access_key}\nsecret_key = {endpoint.secret_key}\n"
            f"host_base = {endpoint.host}\nhost_bucket = {endpoint.host}\n"
            f"use_https = {endpoint.authority is not None}\n"
            f"ca_certs_file = {endpoint.authority or ''}\n"
            f"multipart_chunk_size_mb = {PART_MIB}\nmultipart_copy_chunk_size_mb = {PART_MIB}\n"
            "max_retries = 1\nprogress_meter = False\n"
        )

    def make_bucket(self, bucket: str) -> None:
        self._do("mb", f"s3://{bucket}")

    def remove_bucket(self, bucket: str) -> None:
        self._do("rb", f"s3://{bucket}")

    def buckets(self) -> set[str]:
        return {line.rpartition("s3://")[2] for line in self._do("ls").splitlines()}

    def put(self, bucket: str, key: str, path: Path) -> None:
        self._do("put", path, f"s3://{bucket}/{key}")

    def get(self, bucket: str, key: str, path: Path) -> None:
        self._do("get", "--force", f"s3://{bucket}/{key}", path)

    def get_range(self, bucket: str, key: str, first: int, count: int) -> bytes:
        """It has ranges to go on with a download that was cut."""
        path = self.endpoint.home / "range"
        path.write_bytes(bytes(first))
        self._do("get", "--continue", f"s3://{bucket}/{key}", path)
        return path.read_bytes()[first:][:count]

    def keys(self, bucket: str) -> list[str]:
        return self._listed(bucket, "ls", "--recursive", f"s3://{bucket}")

    def level(self, bucket: str, prefix: str) -> set[str]:
        return set(self._listed(bucket, "ls", f"s3://{bucket}/{prefix}"))

    def copy(self, bucket: str, key: str, target: str) -> None:
        self._do("cp", f"s3://{bucket}/{key}", f"s3://{bucket}/{target}")

    copy_by_parts = copy

    def presigned_get(self, bucket: str, key: str) -> str:
        raise Unable("it signs URLs by version 2 only")

    def sync(self, source: str | Path, target: str | Path) -> str:
        return self._do("sync", "--delete-removed", f"{source}/", f"{target}/")

    def remove_all(self, bucket: str) -> None:
        self._do("del", "--recursive", "--force", f"s3://{bucket}")

    def _listed(self, bucket: str, *arguments: str) -> list[str]:
        lines = self._do(*arguments).splitlines()
        return [line.partition(f"s3://{bucket}/")[2] for line in lines]

    def _do(self, *arguments: str | Path) -> str:
        return self.run("--config", self.config, *arguments)


PROGRAMS = (AwsCli, Rclone, S5cmd, S3cmd)
