"""A whole store over a log and a registry in memory: the real pipeline, trees, ingest and lanes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from hashlib import sha256

from ingot.body.ingest import Ingest
from ingot.bucket.checkpoint import Checkpoints
from ingot.bucket.model import BucketConfig
from ingot.bucket.nodes import Nodes
from ingot.bucket.pins import Pins
from ingot.bucket.pipeline import Pipeline
from ingot.bucket.store import Store
from ingot.bucket.values import Values
from ingot.clock import SystemClock
from ingot.errors import NotFound
from ingot.messages import BodyPosition, Cid
from ingot.offload import Lanes
from ingot.ports import Clock
from ingot.registry.memory import MemoryRegistry
from tests.support.fakelog import FakeLog

CONFIG = BucketConfig("owner", "Owner", 1, "us-east-1")
NODE_CACHE_BYTES = 32 * 1024 * 1024


class BodyLog(FakeLog):
    """A log with a body stream. ``written`` counts the bytes that commits brought to the log."""

    def __init__(self, events: list[str] | None = None) -> None:
        super().__init__(events)
        self.bodies: list[Cid] = []  # chunks of the body stream, in order
        self.written = 0

    async def commit(self, lease, blocks, *rest, **named):  # type: ignore[no-untyped-def]
        self.written += sum([len(block) for _, block in blocks])
        return await super().commit(lease, blocks, *rest, **named)

    async def append_body(self, cid: Cid, data: memoryview) -> BodyPosition:
        assert cid[4:] == sha256(data).digest()
        await asyncio.sleep(0)
        self.blocks[cid] = bytes(data)
        self.bodies.append(cid)
        return BodyPosition(0, len(self.bodies))

    async def sync_bodies(self, positions: Sequence[BodyPosition]) -> None:
        await asyncio.sleep(0)

    async def read_part(self, cid: Cid, start: int, into: memoryview) -> None:
        await asyncio.sleep(0)
        if cid not in self.blocks:
            raise NotFound(cid.hex())
        into[:] = self.blocks[cid][start : start + len(into)]

    def where(self, cid: Cid) -> str:
        return "in memory"


class World:
    """A store and what it stands on. Made on a running loop; ``stop`` gives the lanes back."""

    def __init__(self, clock: Clock | None = None, cache_bytes: int = NODE_CACHE_BYTES) -> None:
        self.clock = clock or SystemClock()
        self.log = BodyLog()
        self.registry = MemoryRegistry(before=self._before)
        self.swap_gate = asyncio.Event()
        self.swap_gate.set()
        self.nodes = Nodes(self.log, cache_bytes)
        self.pins = Pins()
        self.lanes = Lanes(asyncio.get_running_loop())
        self.pipeline = Pipeline(
            self.nodes,
            self.log,
            self.registry,
            self.clock,
            Values(self.log),
            self.pins,
            Checkpoints(self.nodes, bytes(16), 1, self.clock),
        )
        self.store = Store(
            self.log, self.nodes, self.pipeline, Ingest(self.lanes), self.pins, self.clock
        )
        self.store.lease_until = float("inf")

    async def _before(self, call: str) -> None:
        if call == "swap":
            await self.swap_gate.wait()

    async def start(self, bucket: str | None = "b") -> World:
        await self.registry.open()
        token = await self.registry.acquire("test", 60.0)
        assert token is not None
        self.pipeline.start(token, [], None)
        if bucket is not None:
            await self.store.create_bucket(bucket, CONFIG)
        return self

    async def stop(self) -> None:
        self.swap_gate.set()
        self.log.hold.set()
        await self.pipeline.stop()
        self.lanes.close()


async def turns(count: int = 30) -> None:
    """Let everything that can run do so."""
    for _ in range(count):
        await asyncio.sleep(0)
