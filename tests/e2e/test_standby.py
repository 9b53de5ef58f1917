"""Two gateways that could serve one store: the second waits, whatever its directory says."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ingot import limits
from ingot.bucket.model import BucketConfig
from ingot.errors import LeaseLost, Unavailable
from tests.support.servers import Heard, Servers

CONFIG = BucketConfig("owner", "Owner", 1, "us-east-1")


@pytest.fixture
async def servers() -> AsyncIterator[Servers]:
    made = Servers()
    yield made
    await made.stop()


async def no_renewal(call: str) -> None:
    if call == "renew":
        raise Unavailable("cut off")


@pytest.mark.slow
async def test_a_copy_of_the_directory_waits_for_the_lease_to_expire(
    servers: Servers, tmp_path: Path
) -> None:
    """Whoever copies the directory of a live gateway also copies the token of its lease."""
    first = servers.make(tmp_path / "data")
    await first.start()
    subprocess.run(["cp", "-a", tmp_path / "data", tmp_path / "copy"], check=True)
    heard = Heard()
    second = servers.make(tmp_path / "copy", heard)
    starting = asyncio.create_task(second.start())
    told: asyncio.Task[Any] = asyncio.create_task(heard.line("standby"))
    await asyncio.wait([starting, told], return_when=asyncio.FIRST_COMPLETED)
    assert not starting.done(), "the copy took the lease of a live gateway"
    assert f"{tmp_path / 'data'}" in told.result()
    assert first.store.buckets() == []
    first.deps.registry.before = no_renewal
    servers.ticks.now += 1000.0
    await starting
    with pytest.raises(Unavailable):
        await first.store.create_bucket("late", CONFIG)


@pytest.mark.slow
async def test_a_standby_outlives_a_restart_of_the_database(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moment it is needed most."""
    monkeypatch.setattr(limits, "STANDBY_POLL_S", 0.001)
    servers.database.lease = (b"t" * 16, "another host", servers.ticks.now + 1000.0)
    asked = 0

    async def before(call: str) -> None:
        nonlocal asked
        if call == "acquire":
            asked += 1
            servers.database.reachable = asked not in (3, 4, 5)
            if asked == 7:
                servers.database.lease = None

    async with asyncio.timeout(20):
        async with servers.make(tmp_path / "data", before=before) as server:
            assert server.store.buckets() == []
    assert asked == 7


async def test_a_database_that_is_away_refuses_a_first_start(
    servers: Servers, tmp_path: Path
) -> None:
    async def before(call: str) -> None:
        servers.database.reachable = call != "acquire"

    with pytest.raises(Unavailable):
        await servers.make(tmp_path / "data", before=before).start()


def forget_newest(servers: Servers, name: str) -> None:
    """The registry loses the creation of a bucket, its newest commit."""
    del servers.database.heads[servers.database.names.pop(name)]


@pytest.mark.slow
async def test_the_lease_is_renewed_while_a_start_replays_commits(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LEASE_RENEW_S", 0.001)
    async with servers.make(tmp_path / "data") as first:
        await first.store.create_bucket("box", CONFIG)
    forget_newest(servers, "box")
    replaying, renewed = asyncio.Event(), asyncio.Event()

    async def before(call: str) -> None:
        if call == "swap":
            servers.ticks.now += limits.LEASE_TTL_S * 10
            replaying.set()
            await renewed.wait()
        elif call == "renew" and replaying.is_set():
            renewed.set()

    second = servers.make(tmp_path / "data", before=before)
    async with asyncio.timeout(20):
        await second.start()
    assert [bucket.name for bucket in second.store.buckets()] == ["box"]
    assert servers.database.lease is not None
    assert servers.database.lease[2] > servers.ticks.now, "it has not expired meanwhile"


@pytest.mark.slow
@pytest.mark.parametrize("behind", [False, True])
async def test_a_lease_that_is_lost_during_a_start_ends_it(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behind: bool
) -> None:
    monkeypatch.setattr(limits, "LEASE_RENEW_S", 0.001)
    async with servers.make(tmp_path / "data") as first:
        await first.store.create_bucket("box", CONFIG)
    if behind:
        forget_newest(servers, "box")
    noticed = asyncio.Event()

    async def before(call: str) -> None:
        if call == "buckets":
            servers.database.lease = (b"t" * 16, "a taker", servers.ticks.now + 1000.0)
            if not behind:  # then a swap will tell, else nothing but the renewal does
                await noticed.wait()
        elif call == "renew" and (servers.database.lease or [b""])[0] == b"t" * 16:
            noticed.set()

    second = servers.make(tmp_path / "data", before=before)
    with pytest.raises(LeaseLost):
        async with asyncio.timeout(20):
            await second.start()
    servers.database.lease = None
    third = servers.make(tmp_path / "data")
    await third.start()
    assert [bucket.name for bucket in third.store.buckets()] == ["box"]


@pytest.mark.slow
async def test_the_directory_itself_takes_over_at_once(servers: Servers, tmp_path: Path) -> None:
    first = servers.make(tmp_path / "data")
    await first.start()
    await first.store.create_bucket("box", CONFIG)
    lease = servers.database.lease
    await first.stop()
    servers.database.lease = lease  # as if it had been killed
    second = servers.make(tmp_path / "data")
    await second.start()
    assert [bucket.name for bucket in second.store.buckets()] == ["box"]
