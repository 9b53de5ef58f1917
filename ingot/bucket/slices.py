"""Stored bodies that new records refer to, whole or in part: for copies of objects and of parts.

Where a range falls on whole chunks the new body refers to the same chunks and nothing is written,
but it is read once, because a part has digests of its own. Else the bytes are taken in again.
Called by the bucket store.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

from ingot.body import dag
from ingot.errors import RequestError
from ingot.messages import Body, BodyPosition, Cid
from ingot.ports import BlockSource


class StoredBody:
    """A body that is stored already, as the ``BodyStream`` of an upload."""

    def __init__(self, pieces: AsyncIterator[memoryview | bytes], size: int) -> None:
        self.length: int | None = size
        self._pieces = pieces
        self._piece = memoryview(b"")  # what of the newest piece was not handed out yet

    async def readinto(self, view: memoryview) -> int:
        while not self._piece:
            piece = await anext(self._pieces, None)
            if piece is None:
                return 0
            self._piece = memoryview(piece)
        count = min(len(view), len(self._piece))
        view[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count

    def take(self) -> bytes | None:
        return None

    async def read(self, limit: int) -> bytes:
        assert self.length is not None
        if self.length > limit:
            raise RequestError(f"the body is longer than {limit} bytes")
        collected = bytearray(self.length)
        filled = 0
        while count := await self.readinto(memoryview(collected)[filled:]):
            filled += count
        return bytes(collected[:filled])


class Unwritten:
    """The sink of a body whose chunks are stored already: it is only hashed."""

    async def append_body(self, cid: Cid, data: memoryview) -> BodyPosition:
        return BodyPosition(0, 0)

    async def sync_bodies(self, positions: Sequence[BodyPosition]) -> None:
        """Nothing was written."""


async def parts_of(
    blocks: BlockSource, body: Body, start: int, stop: int
) -> AsyncGenerator[dag.Part, None]:
    """The chunks, or parts of them, that make up [start, stop) of a body that has chunks. Reads
    nodes, as they come, and no chunk."""
    steps = dag.walk(body, start, stop)
    step = next(steps, None)
    while step is not None:
        if isinstance(step, dag.Node):
            block = blocks.read_now(step.cid)
            step = steps.send(block if block is not None else await blocks.read(step.cid))
        else:
            yield step
            step = next(steps, None)


async def whole_chunks(
    blocks: BlockSource, body: Body, start: int, stop: int
) -> list[dag.Entry] | None:
    """The chunks that make up [start, stop); None where the range cuts one."""
    found: list[dag.Entry] = []
    async with aclosing(parts_of(blocks, body, start, stop)) as parts:
        async for part in parts:
            if part.start != 0 or part.stop != part.length:
                return None
            found.append((part.cid, part.length))
    return found
