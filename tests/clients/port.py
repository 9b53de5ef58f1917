"""What a flow asks of an S3 client, whichever it is.

Each of the clients in ``programs.py`` and ``libraries.py`` does it in its own way, with its own
defaults where they matter. Whatever a client cannot do raises ``Unable`` with the reason: no fault
of the gateway's, and shown as a skip. None repeats a request, so that nothing is hidden.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

MIB = 1 << 20
PART_BYTES = 5 * MIB  # what clients are told to cut large bodies into, where they can be told
SECONDS_MAX = 120  # a command that takes longer hangs

FROM_PYPI = "pip install -e '.[clients]'"
FROM_DEBIAN = "apt-get install {}"


class Unable(Exception):
    """The client has no way to do what was asked."""


@dataclass(frozen=True)
class Endpoint:
    """Where a client finds the gateway, and a directory for its own files."""

    url: str
    access_key: str
    secret_key: str
    region: str
    home: Path
    authority: Path | None = None  # whose certificates to trust, where the gateway speaks TLS

    @property
    def host(self) -> str:
        return self.url.partition("://")[2]


class S3Client:
    """A client, for one gateway. Keys are whole; paths are local files."""

    name: ClassVar[str]
    install: ClassVar[str] = FROM_PYPI
    # Kinds of keys (``keys.py``) that it does not send as they are, and why.
    unsendable: ClassVar[Mapping[str, str]] = {}

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    @classmethod
    def missing(cls) -> str | None:
        """What is not installed of what it needs."""
        raise AssertionError(f"{cls.__name__} does not say what it needs")

    def close(self) -> None:
        pass

    def make_bucket(self, bucket: str) -> None:
        raise Unable("it makes no buckets")

    def remove_bucket(self, bucket: str) -> None:
        raise Unable("it removes no buckets")

    def buckets(self) -> set[str]:
        raise Unable("it lists no buckets")

    def put(self, bucket: str, key: str, path: Path) -> None:
        """Upload a file; one of several ``PART_BYTES`` in parts."""
        raise Unable("it uploads nothing")

    def get(self, bucket: str, key: str, path: Path) -> None:
        raise Unable("it downloads nothing")

    def put_each(self, bucket: str, paths: Mapping[str, Path]) -> None:
        """Upload small files by their keys."""
        for key, path in paths.items():
            self.put(bucket, key, path)

    def get_each(self, bucket: str, paths: Mapping[str, Path]) -> None:
        for key, path in paths.items():
            self.get(bucket, key, path)

    def place(self, bucket: str) -> str:
        """How ``sync`` calls the bucket."""
        return f"s3://{bucket}"

    def sync(self, source: str | Path, target: str | Path) -> str:
        """Make one tree, of files or a whole bucket, like another; what the client said that it
        did."""
        raise Unable("it compares no trees")

    def get_range(self, bucket: str, key: str, first: int, count: int) -> bytes:
        raise Unable("it reads whole objects only")

    def keys(self, bucket: str) -> list[str]:
        """All keys of a bucket."""
        raise Unable("it lists no keys")

    def level(self, bucket: str, prefix: str) -> set[str]:
        """What lies directly below ``prefix`` (``""``, or ending in a slash): whole keys, and
        common prefixes, which end in a slash."""
        raise Unable("it lists by prefix only")

    def copy(self, bucket: str, key: str, target: str) -> None:
        """A copy within the bucket, made by the gateway."""
        raise Unable("it copies nothing")

    def copy_by_parts(self, bucket: str, key: str, target: str) -> None:
        """As ``copy``, of a large object, part by part."""
        raise Unable("it copies objects in one piece")

    def presigned_get(self, bucket: str, key: str) -> str:
        raise Unable("it signs no URLs")

    def presigned_put(self, bucket: str, key: str) -> str:
        raise Unable("it signs no URLs for uploads")

    def remove_all(self, bucket: str) -> None:
        """Every object of the bucket."""
        raise Unable("it removes single objects only")


class Library(S3Client):
    """A client that is a Python package."""

    module: ClassVar[str]

    @classmethod
    def missing(cls) -> str | None:
        return None if importlib.util.find_spec(cls.module) else f"the package {cls.module}"


class Program(S3Client):
    """A client that is a command."""

    program: ClassVar[str]

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self.path = find_program(self.program)
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(endpoint.home), "TZ": "UTC"}
        self.environment["LC_ALL"] = "C.UTF-8"

    @classmethod
    def missing(cls) -> str | None:
        return None if find_program(cls.program) else f"the command {cls.program}"

    def run(self, *arguments: str | Path) -> str:
        """What the command printed. AssertionError with its complaint where it fails."""
        return self.output(*arguments).decode()

    def output(self, *arguments: str | Path) -> bytes:
        done = subprocess.run(
            [str(self.path), *map(str, arguments)],
            env=self.environment,
            cwd=self.endpoint.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS_MAX,
        )
        said = (done.stdout + done.stderr).decode(errors="replace")
        assert done.returncode == 0, f"{self.program} {arguments}: {done.returncode}\n{said}"
        return done.stdout


def find_program(name: str) -> str | None:
    """The environment's own command before the system's."""
    own = Path(sys.executable).with_name(name)
    return str(own) if own.exists() else shutil.which(name)
