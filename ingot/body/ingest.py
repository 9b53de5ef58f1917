"""Takes the body of an upload in: chunks it, digests it, makes its large chunks durable.

A body of up to INLINE_BYTES_MAX stands in its record. A longer one is cut every CHUNK_BYTES; a
chunk of up to LOG_CHUNK_BYTES_MAX (a small object, or the tail) is handed back to travel with the
commit, a larger one is appended to the body stream as soon as its CID is known. While one chunk is
hashed and written the next is received, into a second buffer if the pool has one to spare. When
``run`` returns, every chunk it appended is durable and nothing is visible yet; when it raises,
frames that nobody refers to are all that is left.

A buffer goes back to the pool only when neither a lane nor the sink uses it any more, whatever
happens to the request. Called by the bucket store, for PutObject and UploadPart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ingot import ports
from ingot._speedups import digest
from ingot.body import checksums, dag
from ingot.body.hashing import RAW_PREFIX, BodyDigests, ChunkDigest, HashLanes
from ingot.body.pool import Pool
from ingot.errors import RequestError
from ingot.limits import (
    CHUNK_BYTES,
    CHUNK_POOL_BUFFERS,
    HASH_SPAN_BYTES,
    INLINE_BYTES_MAX,
    LOG_CHUNK_BYTES_MAX,
    PUT_BYTES_MAX,
    SMALL_POOL_BUFFERS,
)
from ingot.messages import Body, BodyPosition, BodyStream
from ingot.offload import settled

BUFFERS_A_BODY = 2  # one is received into while the other is hashed and written


def ingest_small(data: bytes, algorithms: Sequence[str]) -> Body:
    """The body of an object of at most LOG_CHUNK_BYTES_MAX that has arrived whole. Never waits."""
    size = len(data)
    assert size <= LOG_CHUNK_BYTES_MAX
    sha256, md5 = digest.sha256_md5(data)
    sums = {
        name: sha256 if name == "sha256" else checksums.one_shot(name, data) for name in algorithms
    }
    if size <= INLINE_BYTES_MAX:
        return Body(size, md5, sha256, data, checksums=sums)
    cid = RAW_PREFIX + sha256
    return Body(size, md5, sha256, None, [(cid, size)], 0, [(cid, data)], checksums=sums)


class Ingest:
    """The bodies coming in to one server: its buffers and its hash lanes."""

    def __init__(self, lanes: ports.Lanes) -> None:
        self._lanes = HashLanes(lanes.hash_a, lanes.hash_b)
        self.pool = Pool(CHUNK_POOL_BUFFERS, CHUNK_BYTES)
        self.small_pool = Pool(SMALL_POOL_BUFFERS, LOG_CHUNK_BYTES_MAX)

    async def run(
        self,
        stream: BodyStream,
        sink: ports.BodySink,
        algorithms: tuple[str, ...],
        taken: bytes | None = None,
    ) -> Body:
        """Read ``stream`` to its end. ``taken`` is what ``stream.take()`` gave, if the caller has
        called it. Unavailable when no buffer is to be had or the sink fails."""
        data = taken if taken is not None else stream.take()
        if data is not None:
            if len(data) <= LOG_CHUNK_BYTES_MAX:
                return ingest_small(data, algorithms)
            stream = _Taken(data)
        elif stream.length is not None and stream.length <= LOG_CHUNK_BYTES_MAX:
            return ingest_small(await self._receive_small(stream, stream.length), algorithms)
        return await _Upload(stream, sink, algorithms, self._lanes, self.pool).run()

    async def _receive_small(self, stream: BodyStream, length: int) -> bytes:
        buffer = await self.small_pool.acquire()
        try:
            filled = 0
            while filled < length:
                count = await stream.readinto(buffer[filled:length])
                if count == 0:
                    return bytes(buffer[:filled])
                filled += count
            await _expect_end(stream)
            return bytes(buffer[:length])
        finally:
            self.small_pool.release(buffer)


class _Upload:
    """One body of more than LOG_CHUNK_BYTES_MAX, or of a length not known in advance."""

    def __init__(
        self,
        stream: BodyStream,
        sink: ports.BodySink,
        algorithms: tuple[str, ...],
        lanes: HashLanes,
        pool: Pool,
    ) -> None:
        self._stream = stream
        self._sink = sink
        self._algorithms = algorithms
        self._pool = pool
        self._digests = BodyDigests(lanes, algorithms)
        self._held: list[memoryview] = []  # buffers of ours
        self._free: list[memoryview] = []  # those that nobody uses
        self._storing: list[asyncio.Task[None]] = []
        self._chunks: list[tuple[ChunkDigest, int]] = []
        self._ends: dict[int, int] = {}  # by body segment, how far we wrote
        self._size = 0
        self._ended = False

    async def run(self) -> Body:
        try:
            small = await self._receive()
            if small is not None:
                return ingest_small(small, self._algorithms)
            while self._storing:
                await self._stored()
            return await self._body()
        finally:
            if self._storing or self._digests.jobs:
                # In a task of its own, which a cancelled request cannot interrupt.
                await settled([asyncio.ensure_future(self._let_go())])
            else:
                self._release()

    async def _receive(self) -> bytes | None:
        """Receive every chunk and set it on its way; a whole small body comes back as bytes."""
        self._held.append(await self._pool.acquire())
        buffer = self._held[0]
        self._tail: bytes | None = None
        while True:
            length = await self._fill(buffer)
            if self._ended and self._size <= LOG_CHUNK_BYTES_MAX:
                return bytes(buffer[:length])
            if length:
                self._chunks.append((self._digests.chunk, length))
            if length > LOG_CHUNK_BYTES_MAX:
                storing = self._store(self._digests.chunk, buffer, length)
                self._storing.append(asyncio.ensure_future(storing))
            elif length:
                self._tail = bytes(buffer[:length])
            if self._ended:
                return None
            await self._digests.next_chunk()
            buffer = await self._next_buffer()

    async def _fill(self, buffer: memoryview) -> int:
        """Receive one chunk and hash it by spans; one below CHUNK_BYTES is the last."""
        length, room = self._stream.length, CHUNK_BYTES
        if length is not None:
            room = min(room, length - self._size)
        filled = hashed = 0
        while filled < room:
            count = await self._stream.readinto(buffer[filled:room])
            if count == 0:
                self._ended = True
                break
            filled += count
            self._size += count
            if self._size > PUT_BYTES_MAX:
                raise RequestError(f"the body is longer than {PUT_BYTES_MAX} bytes")
            if filled - hashed >= HASH_SPAN_BYTES and filled < room:
                self._digests.add(buffer[hashed:filled], last=False)
                hashed = filled
        if filled > hashed and self._size > LOG_CHUNK_BYTES_MAX:
            self._digests.add(buffer[hashed:filled], last=True)
        if self._size == length and not self._ended:
            await _expect_end(self._stream)  # while the lanes are at the last span
            self._ended = True
        return filled

    async def _store(self, chunk: ChunkDigest, buffer: memoryview, length: int) -> None:
        """Append one chunk; its buffer is free when this ends well."""
        cid = await chunk.cid()
        position = await self._sink.append_body(cid, buffer[:length])
        end = self._ends.get(position.segment, 0)
        self._ends[position.segment] = max(end, position.end)
        await chunk.hashed()
        self._free.append(buffer)

    async def _stored(self) -> None:
        """Wait until a chunk is stored; raise what went wrong with it."""
        await asyncio.wait(self._storing, return_when=asyncio.FIRST_COMPLETED)
        self._reap()

    def _reap(self) -> None:
        """Forget the chunks that are stored; raise what went wrong with one."""
        finished = [task for task in self._storing if task.done()]
        for task in finished:
            self._storing.remove(task)
        for task in finished:
            task.result()

    async def _next_buffer(self) -> memoryview:
        """A buffer to receive into: never waits for another body while it holds one."""
        while True:
            self._reap()
            if self._free and len(self._held) > 1 and self._pool.waiting:
                self._give_back(self._free.pop())
            if self._free:
                return self._free.pop()
            if len(self._held) < BUFFERS_A_BODY:
                extra = self._pool.try_acquire()
                if extra is not None:
                    self._held.append(extra)
                    return extra
            await self._stored()

    def _give_back(self, buffer: memoryview) -> None:
        self._held = [each for each in self._held if each is not buffer]
        self._pool.release(buffer)

    async def _body(self) -> Body:
        """All chunks are written: make them durable and put the body together."""
        positions = [BodyPosition(segment, end) for segment, end in sorted(self._ends.items())]
        if positions:
            await self._sink.sync_bodies(positions)  # while the last MD5 is being computed
        entries = [(await chunk.cid(), length) for chunk, length in self._chunks]
        sha256, md5, sums = await self._digests.finish()
        chunks, depth, blocks = dag.build(entries)
        if self._tail is not None:
            blocks.insert(0, (entries[-1][0], self._tail))
        return Body(self._size, md5, sha256, None, chunks, depth, blocks, positions, sums)

    async def _let_go(self) -> None:
        await settled(self._storing)
        for task in self._storing:
            task.exception()  # the request failed already, with this or something before it
        await self._digests.idle()
        self._release()

    def _release(self) -> None:
        for buffer in self._held:
            self._pool.release(buffer)
        self._held, self._free = [], []


class _Taken:
    """A body that has arrived whole, as a stream."""

    def __init__(self, data: bytes) -> None:
        self.length: int | None = len(data)
        self._left = memoryview(data)

    async def readinto(self, view: memoryview) -> int:
        piece = self._left[: len(view)]
        view[: len(piece)] = piece
        self._left = self._left[len(piece) :]
        return len(piece)

    def take(self) -> bytes | None:
        return None

    async def read(self, limit: int) -> bytes:
        if len(self._left) > limit:
            raise RequestError(f"the body is longer than {limit} bytes")
        data, self._left = bytes(self._left), self._left[:0]
        return data


async def _expect_end(stream: BodyStream) -> None:
    if await stream.readinto(memoryview(bytearray(1))):
        raise RequestError("the body is longer than it said")
