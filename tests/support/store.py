"""A data directory and a database in a real Postgres, for tests that lose one of the two."""

from __future__ import annotations

import asyncio
import os
import subprocess
import urllib.parse
from pathlib import Path
from typing import Any

import asyncpg

from tests.support import forking
from tests.support.process import Gateway

BUCKETS = """
SELECT b.name, b.bucket, h.sequence, h.objects, h.uploads, h.config, h.commit FROM ingot.buckets b
CROSS JOIN LATERAL (
    SELECT * FROM ingot.heads WHERE bucket = b.bucket ORDER BY sequence DESC LIMIT 1
) AS h
"""


def run(data: Path, command: str, *arguments: str) -> tuple[int, str]:
    """Exit status of a command and all that it said."""
    status, output, errors = forking.ingot().run(
        [command, "--data-dir", str(data), *arguments], os.environ
    )
    said = output + errors
    assert "Traceback" not in said, said
    return status, said


class Store:
    """A data directory and a database of its own, for one gateway after the other. ``filled`` are
    stores whose copies others begin with, by what ``fill`` was given."""

    def __init__(
        self, path: Path, server: str, filled: dict[tuple[int, bytes], Store] | None = None
    ) -> None:
        self.path = path
        self.filled = {} if filled is None else filled
        self.data = path / "data"
        self.segments = self.data / "segments"
        self.server = server
        self.gateways: list[Gateway] = []
        self.database = f"restore_{os.urandom(4).hex()}"
        self.made = False

    @property
    def dsn(self) -> str:
        """Of its database, which is made when it is first asked for."""
        if not self.made:
            self.admin(f"CREATE DATABASE {self.database}")
            self.made = True
        parts = urllib.parse.urlsplit(self.server)
        return urllib.parse.urlunsplit(parts._replace(path=f"/{self.database}"))

    def admin(self, sql: str) -> None:
        asyncio.run(_query(self.server, sql))

    def query(self, sql: str) -> list[Any]:
        return asyncio.run(_query(self.dsn, sql))

    def drop_schema(self) -> None:
        self.query("DROP SCHEMA ingot CASCADE")

    def serve(self, *arguments: str) -> Gateway:
        settings = "--postgres", self.dsn, "--segment-bytes", "1MiB"
        made = Gateway(self.data, *settings, *arguments)
        self.gateways.append(made)
        return made

    def close(self) -> None:
        """End what a failed test left running; the database goes."""
        for gateway in self.gateways:
            if gateway.process.poll() is None:
                gateway.kill()
        self.admin(f"DROP DATABASE IF EXISTS {self.database} WITH (FORCE)")

    def run(self, command: str, *arguments: str, data: Path | None = None) -> tuple[int, str]:
        return run(data or self.data, command, "--postgres", self.dsn, *arguments)

    def restore(self, *arguments: str, data: Path | None = None) -> tuple[int, str]:
        return self.run("restore", "--from-segments", *arguments, data=data)

    def logs(self) -> list[Path]:
        """Log segments that hold something, in order."""
        found = sorted(self.segments.glob("log-*.car"))
        return [path for path in found if any(path.read_bytes()[59:4096])]

    def fill(self, commits: int = 30, body: bytes = b"") -> None:
        """Commits one by one, of a few buckets; then an orderly stop. A store that is still without
        anything gets a copy of what another made of the same."""
        if self.made:
            self._fill(commits, body)
            return
        made = self.filled.get((commits, body))
        if made is None:
            path = self.path.parent / f"filled-{os.urandom(4).hex()}"
            path.mkdir(mode=0o711)
            made = Store(path, self.server)
            made._fill(commits, body)
            self.filled[commits, body] = made
        subprocess.run(["cp", "-a", made.data, self.data], check=True)
        self.admin(f"CREATE DATABASE {self.database} TEMPLATE {made.database}")
        self.made = True

    def _fill(self, commits: int, body: bytes) -> None:
        with self.serve() as gateway:
            client = gateway.client()
            for name in ("one", "two", "three"):
                assert client.put(f"/{name}", b"").status == 200
            for number in range(commits):
                name = ("one", "two", "three")[number % 3]
                assert client.put(f"/{name}/k{number:04}", b"%d" % number + body).status == 200
            client.close()


async def _query(dsn: str, sql: str) -> list[Any]:
    connection = await asyncpg.connect(dsn)
    try:
        found: list[Any] = await connection.fetch(sql)
        return found
    finally:
        await connection.close()
