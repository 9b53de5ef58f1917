"""Two gateways that could serve one store: the second waits, whatever its directory says."""

from __future__ import annotations

import asyncio
import logging
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ingot.bucket.model import BucketConfig
from ingot.config import Config
from ingot.credentials import Account, CredentialStore
from ingot.errors import Unavailable
from ingot.registry.memory import Database, MemoryRegistry
from ingot.server import Deps, Server

CONFIG = BucketConfig("owner", "Owner", 1, "us-east-1")


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


async def no_renewal(call: str) -> None:
    if call == "renew":
        raise Unavailable("cut off")


class World:
    """Gateways in this process on one database."""

    def __init__(self) -> None:
        self.ticks = Ticks()
        self.database = Database(clock=self.ticks)
        self.servers: list[Server] = []

    def server(self, data_dir: Path, heard: Heard | None = None) -> Server:
        logger = logging.getLogger(f"ingot.tests.{data_dir.name}")
        if heard is not None:
            logger.addHandler(heard)
        account = Account("AKIATESTS00000000000", "secret-key", "0" * 64, "tests")
        deps = Deps(
            registry=MemoryRegistry(self.database),
            accounts=CredentialStore([account]),
            logger=logger,
        )
        made = Server(Config(listen="127.0.0.1:0", data_dir=str(data_dir)), deps)
        self.servers.append(made)
        return made


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    for server in made.servers:
        await server.stop()


@pytest.mark.slow
async def test_a_copy_of_the_directory_waits_for_the_lease_to_expire(
    world: World, tmp_path: Path
) -> None:
    """Whoever copies the directory of a live gateway also copies the token of its lease."""
    first = world.server(tmp_path / "data")
    await first.start()
    subprocess.run(["cp", "-a", tmp_path / "data", tmp_path / "copy"], check=True)
    heard = Heard()
    second = world.server(tmp_path / "copy", heard)
    starting = asyncio.create_task(second.start())
    told: asyncio.Task[Any] = asyncio.create_task(heard.line("standby"))
    await asyncio.wait([starting, told], return_when=asyncio.FIRST_COMPLETED)
    assert not starting.done(), "the copy took the lease of a live gateway"
    assert f"{tmp_path / 'data'}" in told.result()
    assert first.store.buckets() == []
    first.deps.registry.before = no_renewal
    world.ticks.now += 1000.0
    await starting
    with pytest.raises(Unavailable):
        await first.store.create_bucket("late", CONFIG)


@pytest.mark.slow
async def test_the_directory_itself_takes_over_at_once(world: World, tmp_path: Path) -> None:
    first = world.server(tmp_path / "data")
    await first.start()
    await first.store.create_bucket("box", CONFIG)
    lease = world.database.lease
    await first.stop()
    world.database.lease = lease  # as if it had been killed
    second = world.server(tmp_path / "data")
    await second.start()
    assert [bucket.name for bucket in second.store.buckets()] == ["box"]
