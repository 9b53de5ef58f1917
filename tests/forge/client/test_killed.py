"""A client that is killed in the middle of an add, at every step, and another that begins again."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from ingot.codec import multihash
from ingot.forge.network import Network
from ingot.forge.network.faults import Hold
from tests.forge.client.support import client_of, noise, store

ROOT = Path(__file__).parents[3]
CHILD = """
import asyncio, json, sys
from ingot.clock import SystemClock
from ingot.forge.blob import BlobRef, BytesSource
from ingot.forge.client import ForgeClient, ForgeSettings
from ingot.forge.invoker import Service
from tests.forge.client.support import QUICK, http, someone

async def main():
    given = json.loads(sys.argv[1])
    settings = ForgeSettings(upload=Service(given["did"], given["url"]), http=http(), retry=QUICK)
    data = open(given["file"], "rb").read()
    async with ForgeClient(settings, someone(), SystemClock()) as client:
        await client.upload.add(BlobRef.of(data), BytesSource(data))

asyncio.run(main())
"""
STEPS = [
    ("upload", "/blob/add"),
    ("node", "/blob/allocate"),
    ("node", "PUT /upload"),
    ("upload", "/ucan/conclude"),
    ("node", "/blob/accept"),
    ("upload", "GET /receipt"),
]


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
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, json.dumps(given), cwd=ROOT
    )
    try:
        async with asyncio.timeout(60):
            await hold.arrived.wait()
    finally:
        child.kill()
        await child.wait()
    hold.release()
    for service in network.services:
        service.faults.clear()
    async with client_of(network) as client:
        (place,) = await store(client, data)
    assert network.node(place.node).blobs.path(place.blob).read_bytes() == data
    effects = [node.effects for node in network.nodes]
    assert sum(each["accepted", multihash.of(data)] for each in effects) == 1
