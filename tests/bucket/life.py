"""A gateway with small segments, what its bucket should hold, and compaction by hand."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from ingot.bucket.compaction import compact
from ingot.bucket.fsck import Fsck
from ingot.bucket.model import BucketConfig, NoSuchBucket
from ingot.bucket.record import Record
from ingot.errors import Corruption
from ingot.limits import MIB
from ingot.messages import Body
from ingot.registry.memory import MemoryRegistry
from ingot.testing import Gateway
from tests.body.support import Stream

CONFIG = BucketConfig("owner", "Owner", 1, "us-east-1")
NOW = 1_800_000_000_000


class Life:
    """A gateway and what its buckets should hold."""

    def __init__(self, directory: Path, seed: int = 1) -> None:
        self.registry = MemoryRegistry()
        self.directory = directory
        self.source = random.Random(seed)
        self.objects: dict[str, bytes] = {}
        self.gateway: Gateway

    async def start(self) -> None:
        self.gateway = Gateway(self.registry, data_dir=str(self.directory), segment_bytes=MIB)
        await self.gateway.__aenter__()
        try:
            self.store.bucket("b")
        except NoSuchBucket:
            await self.store.create_bucket("b", CONFIG)

    async def stop(self) -> None:
        await self.gateway.__aexit__(None, None, None)

    @property
    def store(self) -> Any:
        return self.gateway.server.store

    @property
    def segments(self) -> Any:
        return self.gateway.server.segments

    async def put(self, key: str, size: int) -> None:
        data = self.source.randbytes(size)
        if size <= 4096:
            body = Body(size, None, None, inline=data)
        else:
            body = await self.store.ingest(Stream(data), ())
        await self.store.put(self.store.bucket("b"), Record(key.encode(), body, "e", NOW))
        self.objects[key] = data

    async def work(self, count: int) -> None:
        for _ in range(count):
            key = f"k{self.source.randrange(60)}"
            if self.source.random() < 0.1 and key in self.objects:
                await self.store.delete(self.store.bucket("b"), [key.encode()])
                del self.objects[key]
            else:
                await self.put(key, self.source.choice((0, 100, 3000, 30_000, 200_000)))

    async def fill(self, segments: int) -> None:
        """Until so many log segments are sealed, with a commit behind them."""
        while len(self.segments.settled()) < segments:
            await self.work(10)
        await self.put("last", 10)

    async def until_settled(self, count: int) -> None:
        """Sealing goes on in the background."""
        for _ in range(100_000):
            if len(self.segments.settled()) >= count:
                return
            await asyncio.sleep(0)
        raise AssertionError("nothing was sealed")

    async def compact(self, first: int = 0, count: int | None = None) -> Any:
        sources = self.segments.settled()[first:][:count]
        return await compact(self.segments, sources, self.store._pins)

    async def check(self) -> None:
        bucket = self.store.bucket("b")
        for key, data in self.objects.items():
            record = await self.store.find(bucket, key.encode())
            assert record is not None, key
            pieces = [bytes(piece) async for piece in self.store.read(record.body, 0, len(data))]
            assert b"".join(pieces) == data, key

    async def fsck(self) -> None:
        verified = await self.segments.verify(lambda line: None)
        check = Fsck(self.segments, lambda line: None, verified=verified)
        found = await check.check(self.store.buckets())
        assert not found.damage and not found.harmless, (found.damage, found.harmless)

    async def lost(self, key: str) -> str:
        """Its record cannot be read; why."""
        with pytest.raises(Corruption) as raised:
            await self.store.find(self.store.bucket("b"), key.encode())
        return str(raised.value)
