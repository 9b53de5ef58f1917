"""restic, which keeps a repository of its own in a bucket."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.clients.conftest import new_name
from tests.clients.port import FROM_DEBIAN, MIB, Endpoint, Program
from tests.support.client import Client


class Restic(Program):
    name = "restic"
    program = "restic"
    install = FROM_DEBIAN.format("restic")

    def __init__(self, endpoint: Endpoint, bucket: str) -> None:
        super().__init__(endpoint)
        self.environment |= {
            "AWS_ACCESS_KEY_ID": endpoint.access_key,
            "AWS_SECRET_ACCESS_KEY": endpoint.secret_key,
            "RESTIC_REPOSITORY": f"s3:{endpoint.url}/{bucket}/backups",
            "RESTIC_PASSWORD": "tests",
            "RESTIC_CACHE_DIR": str(endpoint.home / "cache"),
        }

    def output(self, *arguments: str | Path) -> bytes:
        authority = self.endpoint.authority
        return super().output(*(("--cacert", authority) if authority else ()), *arguments)


def open_restic(endpoint: Endpoint) -> Restic:
    if missing := Restic.missing():
        pytest.skip(f"{missing} is not installed: {Restic.install}")
    return Restic(endpoint, new_name())  # it makes the bucket itself


def contents(root: Path) -> dict[str, bytes]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


@pytest.mark.parametrize("name", ["restic"])
def test_backup(name: str, endpoint: Endpoint, tmp_path: Path, observer: Client) -> None:
    restic = open_restic(endpoint)
    home = tmp_path / "documents"
    for path, data in {
        "a b/c+d \u00e9.txt": b"text",
        "empty": b"",
        "large.bin": os.urandom(12 * MIB),
    }.items():
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_bytes(data)
    before = contents(home)
    restic.run("init")
    restic.run("backup", home)
    restic.run("check", "--read-data")

    (home / "large.bin").write_bytes(os.urandom(MIB))
    (home / "empty").unlink()
    restic.run("backup", home)
    restic.run("restore", "latest", "--target", tmp_path / "new")
    assert contents(tmp_path / "new" / home.relative_to("/")) == contents(home) != before

    bucket = restic.environment["RESTIC_REPOSITORY"].split("/")[3]
    held = sum(observer.list_all(bucket).values())
    restic.run("forget", "--keep-last", "1", "--prune")
    restic.run("check", "--read-data")
    assert held - sum(observer.list_all(bucket).values()) > 10 * MIB


@pytest.mark.parametrize("name", ["restic"])
def test_secure_backup(name: str, secure_endpoint: Endpoint, tmp_path: Path) -> None:
    """Over TLS it signs no bodies."""
    restic = open_restic(secure_endpoint)
    home = tmp_path / "documents"
    home.mkdir()
    (home / "large.bin").write_bytes(os.urandom(12 * MIB))
    restic.run("init")
    restic.run("backup", home)
    restic.run("check", "--read-data")
