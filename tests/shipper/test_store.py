"""The shipper over the real segment store: bodies and compacted units, also while they are cut."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from ingot.clock import SystemClock
from ingot.codec import multihash
from ingot.forge.client import ForgeClient
from ingot.forge.network import Network
from ingot.messages import Head, HeadMove
from ingot.offload import Lanes
from ingot.registry.memory import Database, MemoryRegistry
from ingot.segments.files import SystemFiles
from ingot.segments.model import SegmentSettings
from ingot.segments.store import SegmentStore
from ingot.shipper.lifecycle import INDEXED
from ingot.shipper.shipper import Shipper
from tests.forge.client.support import client_of
from tests.shipper.support import QUICK, read_back, until

SMALL = SegmentSettings(seal_bytes=32 * 1024, segment_bytes_max=256 * 1024, log_ahead_bytes=0)
BUCKET = b"b" * 16


def cid_of(data: bytes) -> bytes:
    return bytes((1, 0x55, 0x12, 0x20)) + sha256(data).digest()


class Written:
    """A store that something is written to; ``heads`` by the commit that made them."""

    def __init__(self, store: SegmentStore) -> None:
        self.store = store
        self.blocks: set[bytes] = set()
        self.heads: dict[int, Head] = {}

    async def commit(self) -> None:
        """An object with a body in two chunks."""
        chunks = [os.urandom(7000) for _ in range(2)]
        positions = [
            await self.store.append_body(cid_of(chunk), memoryview(chunk)) for chunk in chunks
        ]
        block = os.urandom(3000)
        old = self.heads.get(self.store.sequence)
        new = Head(0 if old is None else old.sequence + 1, cid_of(block))
        move = HeadMove(BUCKET, "photos", old, new)
        cid, record = await self.store.commit(
            b"l" * 16, [(cid_of(block), block)], [move], positions
        )
        self.blocks |= {cid, cid_of(block)}
        self.heads[record.sequence] = new

    async def fill(self, segments: int) -> None:
        before = len(self.store.settled())
        while len(self.store.settled()) < before + segments:
            await self.commit()

    async def compact(self, count: int) -> None:
        await self.store.replace(self.store.settled()[:count], self.blocks)


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[SegmentStore]:
    lanes = Lanes(asyncio.get_running_loop())
    store = SegmentStore(SystemFiles(), lanes, str(directory), SMALL, SystemClock())
    await store.open(b"s" * 16, 1)
    yield store
    await store.close()
    lanes.close()


@pytest.fixture
async def client(network: Network) -> AsyncIterator[ForgeClient]:
    async with client_of(network) as client:
        yield client


@pytest.mark.slow
async def test_bodies_and_units_of_a_store(
    network: Network, client: ForgeClient, tmp_path: Path
) -> None:
    database = Database()
    registry = MemoryRegistry(database)
    await registry.open()
    token: Any = await registry.acquire("tests", 3600.0)

    async with opened(tmp_path / "segments") as store:
        written = Written(store)
        shipper = Shipper(store, registry, token, client.upload, QUICK)
        store.on_change = lambda row: shipper.wake()
        await shipper.start()
        await written.fill(segments=2)
        await written.compact(count=1)
        await written.compact(count=1)
        last = [one for one in store.shippable() if one.stream == "unit"][-1].last_commit
        await until(lambda: shipper.watermark == last, shipper)
        (root,) = await registry.forge_roots()
        assert (root.bucket, root.head, root.commit) == (BUCKET, written.heads[last], last)
        await shipper.stop()
        await written.fill(segments=1)
    async with opened(tmp_path / "segments") as store:
        written.store = store
        shipper = Shipper(store, registry, token, client.upload, QUICK)
        await shipper.start()
        for _ in range(len(store.settled())):
            await written.compact(count=1)
        shipper.wake()
        await until(lambda: shipper.watermark == max(written.heads), shipper)
        here = {
            (one.stream, one.number): tmp_path / f"segments/{one.stream}-{one.number:020d}.car"
            for one in store.shippable()
        }
        assert {stream for stream, _ in here} == {"body", "unit"}
        await until(lambda: set(shipper.confirmed()) == set(here), shipper)
        (root,) = await registry.forge_roots()
        assert root.head == written.heads[max(written.heads)]
        for key, path in here.items():
            data, row = path.read_bytes(), database.shipments[key]
            assert row.state == INDEXED and row.digest == multihash.of(data)
            assert await read_back(client, row) == data
        for name in list(written.blocks)[:20]:
            places = await client.retriever.locate(multihash.of_cid(name))
            block = await store.read(name)
            for place in places:
                assert place.end is not None
                async with client.retriever.read([place], place.start, place.end) as reading:
                    assert b"".join([piece async for piece in reading]) == block
            assert places
        assert (await shipper.standing()).problems == []
        await shipper.stop()
