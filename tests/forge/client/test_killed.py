"""A client that is killed in the middle of an add, at every step, and another that begins again."""

from __future__ import annotations

import asyncio
import functools
import json
import os
from pathlib import Path

import pytest

from ingot.codec import multihash
from ingot.forge.network import Network
from ingot.forge.network.faults import Hold
from tests.forge.client.support import client_of, noise, store
from tests.support.forking import Program

STEPS = [
    ("upload", "/blob/add"),
    ("node", "/blob/allocate"),
    ("node", "PUT /upload"),
    ("upload", "/ucan/conclude"),
    ("node", "/blob/accept"),
    ("upload", "GET /receipt"),
]


@functools.cache
def child() -> Program:
    return Program("tests.forge.client.killed")


@pytest.mark.slow
@pytest.mark.parametrize(("who", "route"), STEPS, ids=repr)
async def test_killed_at_a_step_and_begun_again(
    network: Network, tmp_path: Path, who: str, route: str
) -> None:
    if route == "GET /receipt" and network.upload.generation == "next":
        route = "/ucan/conclude"  # which has the accept receipt already
    data = noise(3_000_000)
    file = tmp_path / "blob"
    file.write_bytes(data)
    hold = Hold()
    for service in [network.upload] if who == "upload" else network.nodes:
        service.faults.add(route, hold)
    given = {"did": network.upload.did, "url": network.upload.url, "file": str(file)}
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
    async with client_of(network) as client:
        (place,) = await store(client, data)
    assert network.node(place.node).blobs.path(place.blob).read_bytes() == data
    effects = [node.effects for node in network.nodes]
    assert sum(each["accepted", multihash.of(data)] for each in effects) == 1
