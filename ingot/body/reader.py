"""Sends a range of an object's bytes: piece after piece, reading one ahead, in constant memory.

The source hears early which chunks come next, up to a window, and only those that the range needs:
some may have to be fetched from far away. While the client takes one chunk the next is read into a
second buffer. When the pool has none to spare a reader goes on in small pieces of its own, instead
of waiting until clients slower than its own are done. Called by the bucket store, for GetObject.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Generator

from ingot.body.dag import Node, Part, walk
from ingot.body.pool import Pool
from ingot.errors import Corruption, IngotError
from ingot.limits import COLD_WINDOW_BYTES, LOG_CHUNK_BYTES_MAX
from ingot.messages import Body
from ingot.offload import settled
from ingot.ports import BlockSource

SMALL_BYTES = LOG_CHUNK_BYTES_MAX  # what a reader may allocate without asking the pool


async def read_range(
    source: BlockSource, body: Body, start: int, stop: int, pool: Pool | None = None
) -> AsyncGenerator[memoryview | bytes, None]:
    """The bytes [start, stop) in pieces, each valid until the next step. To be closed when done.

    ``pool`` gives the buffers for large pieces; without one all pieces are small.
    """
    if body.inline is not None:
        if start < stop:
            yield body.inline if stop - start == body.size else body.inline[start:stop]
        return
    reader = _Reader(source, walk(body, start, stop), stop - start, pool)
    try:
        while reader.left:
            yield await reader.next()
    finally:
        await reader.close()


class _Piece:
    """Bytes to send, and the pool's buffer they lie in."""

    __slots__ = ("buffer", "data")

    def __init__(self, data: memoryview | bytes, buffer: memoryview | None = None) -> None:
        self.data, self.buffer = data, buffer


class _Reader:
    """The pieces of one range in order; at most one is out and one being read."""

    def __init__(
        self,
        source: BlockSource,
        steps: Generator[Part | Node, bytes | None, None],
        left: int,
        pool: Pool | None,
    ) -> None:
        self.left = left  # bytes not given out yet
        self._source = source
        self._steps = steps
        self._pool = pool
        self._planned: deque[Part] = deque()  # of which the source has heard
        self._planned_bytes = 0
        self._unplanned = left  # bytes of the range behind those
        self._broken: Exception | None = None  # why the walk went no further than was planned
        self._rest: Part | None = None  # of a chunk that is sent in small pieces
        self._out: _Piece | None = None
        self._ahead: asyncio.Task[_Piece] | None = None

    async def next(self) -> memoryview | bytes:
        """The next piece; the one before is no longer valid."""
        self._release(self._out)
        self._out = None
        if self._ahead is None:
            piece = await self._read()
        else:
            await settled([self._ahead])
            piece, self._ahead = self._ahead.result(), None
        self._out = piece
        self.left -= len(piece.data)
        if self.left:
            self._ahead = asyncio.ensure_future(self._read())
        return piece.data

    async def close(self) -> None:
        """Give every buffer back, once nothing reads into it any more."""
        self._release(self._out)
        self._out = None
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return
        ahead.cancel()
        try:
            await settled([ahead])
        finally:
            if not ahead.cancelled() and ahead.exception() is None:
                self._release(ahead.result())

    def _release(self, piece: _Piece | None) -> None:
        if piece is not None and piece.buffer is not None:
            assert self._pool is not None
            self._pool.release(piece.buffer)

    async def _read(self) -> _Piece:
        part = self._rest or await self._next_part()
        self._rest = None
        if part.length <= SMALL_BYTES:
            block = await self._block(part.cid)
            if len(block) != part.length:
                raise Corruption(f"length of chunk {part.cid.hex()}", part.length, len(block))
            return _Piece(memoryview(block)[part.start : part.stop])
        wanted = part.stop - part.start
        buffer = None
        if wanted > SMALL_BYTES and self._pool is not None:
            buffer = self._pool.try_acquire()
        if buffer is None:
            stop = min(part.stop, part.start + SMALL_BYTES)
            view = memoryview(bytearray(stop - part.start))
            await self._source.read_part(part.cid, part.start, view)
            if stop < part.stop:
                self._rest = Part(part.cid, part.length, stop, part.stop)
            return _Piece(view)
        try:
            view = buffer[:wanted]
            await self._source.read_part(part.cid, part.start, view)
        except BaseException:
            assert self._pool is not None
            self._pool.release(buffer)
            raise
        return _Piece(view, buffer)

    async def _next_part(self) -> Part:
        if self._unplanned and self._planned_bytes <= COLD_WINDOW_BYTES // 2:
            await self._plan()
        if not self._planned:
            assert self._broken is not None, "the parts make up the range"
            raise self._broken
        part = self._planned.popleft()
        self._planned_bytes -= part.length
        return part

    async def _plan(self) -> None:
        """Fill the window. A failure on the way concerns what is behind it, and waits for that."""
        known = len(self._planned)
        try:
            while self._unplanned and self._planned_bytes < COLD_WINDOW_BYTES:
                step = next(self._steps)
                while isinstance(step, Node):
                    step = self._steps.send(await self._block(step.cid))
                self._planned.append(step)
                self._planned_bytes += step.length
                self._unplanned -= step.stop - step.start
        except IngotError as error:
            self._unplanned, self._broken = 0, error
        if len(self._planned) > 1:
            self._source.prefetch([part.cid for part in list(self._planned)[known:]])

    async def _block(self, cid: bytes) -> bytes:
        block = self._source.read_now(cid)
        return block if block is not None else await self._source.read(cid)
