"""Streams, sinks and sources that the body tests drive."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence

from ingot.errors import NotFound, Unavailable
from ingot.messages import Body, BodyPosition


def content(size: int, seed: int = 0) -> bytes:
    """``size`` bytes without a period that chunks could share."""
    out = bytearray()
    counter = 0
    while len(out) < size:
        block = hashlib.blake2b(b"%d %d" % (seed, counter)).digest()
        out += block * 257  # 16 KiB and a bit: quick to make, no two chunks alike
        counter += 1
    return bytes(out[:size])


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until ``condition`` holds."""
    for _ in range(1_000_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to that")


class Stream:
    """A body that arrives in pieces; the loop runs between them."""

    def __init__(
        self,
        data: bytes,
        piece: int = 1 << 20,
        known: bool = True,
        fail_at: int | None = None,
        error: Exception | None = None,
    ) -> None:
        self.data = data
        self.length: int | None = len(data) if known else None
        self.at = 0
        self.piece = piece
        self.fail_at = fail_at
        self.error = error or ConnectionResetError("the client went away")
        self.gate: asyncio.Event | None = None

    async def readinto(self, view: memoryview) -> int:
        assert len(view) > 0
        await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.wait()
        if self.fail_at is not None and self.at >= self.fail_at:
            raise self.error
        count = min(len(view), self.piece, len(self.data) - self.at)
        view[:count] = self.data[self.at : self.at + count]
        self.at += count
        return count

    def take(self) -> bytes | None:
        return None

    async def read(self, limit: int) -> bytes:
        raise AssertionError("ingest does not read whole bodies")


class Arrived(Stream):
    """A body that is there already."""

    def take(self) -> bytes | None:
        self.at = len(self.data)
        return self.data


class Blocks:
    """A sink and a source in memory. Checks that nobody changes what is being appended."""

    def __init__(self) -> None:
        self.blocks: dict[bytes, bytes] = {}
        self.appended: list[bytes] = []
        self.synced: list[BodyPosition] = []
        self.writing = 0
        self.writing_max = 0
        self.fail_append: int | None = None
        self.fail_sync = False
        self.pauses = 3
        self.gate: asyncio.Event | None = None
        self.segment_chunks = 4
        self.reads: list[bytes] = []
        self.reading = 0
        self.cached = True
        self.prefetched: list[bytes] = []

    async def append_body(self, cid: bytes, data: memoryview) -> BodyPosition:
        number = len(self.appended)
        self.appended.append(cid)
        before = bytes(data)
        assert cid == b"\x01\x55\x12\x20" + hashlib.sha256(before).digest()
        self.writing += 1
        self.writing_max = max(self.writing_max, self.writing)
        try:
            for _ in range(self.pauses):
                await asyncio.sleep(0)
            if self.gate is not None:
                await self.gate.wait()
            if number == self.fail_append:
                raise Unavailable("no space left")
        finally:
            self.writing -= 1
            assert bytes(data) == before, "the buffer changed while it was being written"
        self.blocks[cid] = before
        return BodyPosition(number // self.segment_chunks, 1000 * (number + 1))

    async def sync_bodies(self, positions: Sequence[BodyPosition]) -> None:
        await asyncio.sleep(0)
        if self.fail_sync:
            raise Unavailable("the segment is lost")
        assert self.writing == 0
        self.synced = list(positions)

    def keep(self, body: Body) -> None:
        """Put what travels with the commit where it can be read."""
        self.blocks.update(body.blocks)

    def read_now(self, cid: bytes) -> bytes | None:
        return self._get(cid) if self.cached else None

    async def read(self, cid: bytes) -> bytes:
        await asyncio.sleep(0)
        return self._get(cid)

    async def read_part(self, cid: bytes, start: int, into: memoryview) -> None:
        self.reading += 1
        try:
            await asyncio.sleep(0)
            if self.gate is not None:
                await self.gate.wait()
            part = self._get(cid)[start : start + len(into)]
            assert len(part) == len(into), "a read past the block's end"
            into[:] = part
        finally:
            self.reading -= 1

    def prefetch(self, cids: Sequence[bytes]) -> None:
        self.prefetched += cids

    def _get(self, cid: bytes) -> bytes:
        self.reads.append(cid)
        if cid not in self.blocks:
            raise NotFound(cid.hex())
        return self.blocks[cid]
