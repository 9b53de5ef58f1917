"""Shippers that end in the middle, at every point, and others that go on from there."""

from __future__ import annotations

import asyncio
import functools
import json
import os
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from ingot.forge.network import Network
from ingot.forge.network.faults import Hold
from ingot.registry.postgres import Postgres
from ingot.shipper.shipper import Shipper
from tests.forge.client.support import client_of
from tests.shipper.conftest import World
from tests.shipper.killed import some_log
from tests.shipper.support import GENERATIONS, QUICK, accepted, read_back, until
from tests.support.forking import Program
from tests.support.pairs import pairs

CALLS = [
    *("shipments", "forge_watermark", "forge_roots"),
    *("put_shipment", "put_shipment 2", "put_shipment 3", "advance_forge"),
]
STEPS = [
    ("upload", "/blob/add"),
    ("node", "/blob/allocate"),
    ("node", "PUT /upload"),
    ("upload", "/ucan/conclude"),
    ("node", "/blob/accept"),
    ("upload", "/index/add"),
    ("indexer", "/assert/index"),
]


def services_of(network: Network, who: str) -> list[Any]:
    return {"upload": [network.upload], "node": network.nodes}.get(who, [network.indexer])


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("call", CALLS)
async def test_killed_at_a_call_of_the_registry(world: World, call: str, moment: str) -> None:
    world.log.unit(needs=world.log.body())
    name, _, count = call.partition(" ")
    left, arrived = int(count or 1), asyncio.Event()

    async def stay(called: str) -> None:
        nonlocal left
        left -= called == name
        if called == name and not left:
            arrived.set()
            await asyncio.Event().wait()

    await world.start(**{moment: stay})  # type: ignore[arg-type]
    await until(arrived.is_set)
    await world.stop()
    await world.start()
    await world.shipped()


# Killed at any step, with both generations: tests/forge/client/test_killed.py.
@pytest.mark.parametrize(
    ("who", "route", "after", "network"),
    pairs([(*step, after) for step in STEPS for after in (0, 2)], GENERATIONS),
    ids=repr,
    indirect=["network"],
)
async def test_killed_at_a_step_of_the_network(
    world: World, who: str, route: str, after: int
) -> None:
    world.log.unit(needs=world.log.body())
    world.log.unit()
    hold = Hold()
    services = services_of(world.network, who)
    for service in services:
        service.faults.add(route, hold, after=after if len(services) == 1 else 0)
    await world.start()
    await until(hold.arrived.is_set)
    await world.stop()
    hold.release()
    for service in services:
        service.faults.clear()
    await world.start()
    await world.shipped()


@pytest.mark.slow
async def test_killed_again_and_again(world: World) -> None:
    """After each number of turns of the loop, until one of them has lived long enough."""
    world.log.unit(needs=world.log.body())
    turns = 0
    while not world.done:
        await world.start()
        for _ in range(turns):
            await asyncio.sleep(0)
        await world.stop()
        turns += 1 + turns // 20
    await world.start()
    await world.shipped()
    assert len(world.shippers) > 10


@functools.cache
def child() -> Program:
    return Program("tests.shipper.killed")


@pytest.mark.slow
@pytest.mark.parametrize(("who", "route"), STEPS, ids=repr)
async def test_killed_for_real(
    network: Network, tmp_path: Path, postgres: str, who: str, route: str
) -> None:
    admin = await asyncpg.connect(postgres)
    await admin.execute("DROP SCHEMA IF EXISTS ingot CASCADE")
    await admin.close()
    registry = Postgres(postgres)
    await registry.open()
    token = await registry.acquire("tests", 3600.0)
    assert token is not None
    hold = Hold()
    for service in services_of(network, who):
        service.faults.add(route, hold, after=1 if who == "upload" else 0)
    given = {"did": network.upload.did, "url": network.upload.url, "dsn": postgres}
    given |= {"log": str(tmp_path / "log"), "token": token.hex()}
    process = child().start([json.dumps(given)], os.environ, 1, 2)
    try:
        async with asyncio.timeout(60):
            await hold.arrived.wait()
    finally:
        process.kill()
        process.wait()
    hold.release()
    for service in network.services:
        service.faults.clear()
    log = some_log(tmp_path / "log")
    async with client_of(network) as client:
        shipper = Shipper(log, registry, token, client.upload, QUICK)
        await shipper.start()
        await until(lambda: shipper.watermark == log.commits[-1][1].sequence, shipper)
        await shipper.stop()
        rows = await registry.shipments()
        assert {(row.stream, row.number) for row in rows} == set(log.files)
        for row in rows:
            data = log.data((row.stream, row.number))
            assert row.state == "indexed" and await read_back(client, row) == data
            assert accepted(network, data) == 1
    assert await registry.forge_watermark() == 6
    roots = {root.bucket: root.head for root in await registry.forge_roots()}
    assert roots == log.heads
    await registry.close()
