"""Whole servers in this process on one registry in memory, one after the other or two at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ingot.config import Config
from ingot.credentials import Account, CredentialStore
from ingot.registry.memory import Database, Hook, MemoryRegistry
from ingot.server import Deps, Server
from tests.support.client import Client

ACCESS_KEY = "AKIATESTS00000000000"
SECRET_KEY = "tests-secret-key-0000000000"


class Ticks:
    """The database's time, moved by hand."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Heard(logging.Handler):
    """Log lines, and the wait for one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: asyncio.Queue[str] = asyncio.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.put_nowait(record.getMessage())

    async def line(self, part: str) -> str:
        while part not in (line := await self.lines.get()):
            pass
        return line


class Servers:
    """``make`` gives a server that is not started; ``running`` one with a client."""

    def __init__(self) -> None:
        self.ticks = Ticks()
        self.database = Database(clock=self.ticks)
        self.made: list[Server] = []
        account = Account(ACCESS_KEY, SECRET_KEY, "0" * 64, "tests")
        self.accounts: CredentialStore | None = CredentialStore([account])

    def make(
        self, data_dir: Path, heard: Heard | None = None, before: Hook | None = None
    ) -> Server:
        logger = logging.getLogger(f"ingot.tests.{data_dir.name}")
        if heard is not None:
            logger.addHandler(heard)
        deps = Deps(
            registry=MemoryRegistry(self.database, before=before),
            accounts=self.accounts,
            logger=logger,
        )
        made = Server(Config(listen="127.0.0.1:0", data_dir=str(data_dir)), deps)
        self.made.append(made)
        return made

    async def stop(self) -> None:
        for server in self.made:
            await server.stop()

    @contextmanager
    def running(self, data_dir: Path, access_key: str = ACCESS_KEY) -> Iterator[Client]:
        with self.make(data_dir).run_in_thread() as running:
            client = Client(running.url, access_key, SECRET_KEY)
            yield client
            client.close()


def lose_newest_commit(database: Database) -> None:
    """Commits that deleted a bucket cannot be lost in this way."""
    newest = max(commit.sequence for rows in database.heads.values() for _, commit in rows)
    for bucket, rows in list(database.heads.items()):
        if rows[-1][1].sequence == newest:
            rows.pop()
        if not rows:
            del database.heads[bucket]
    left = database.heads
    database.names = {name: each for name, each in database.names.items() if each in left}
