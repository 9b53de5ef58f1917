"""Reads blocks of cold segments: from memory, from the cache on disk, from the network.

    wanted ──cached?──> done
       └──by segment and offset──> runs of near frames ──one ranged read each──> hashed, one by one

Guarantees: a block is handed out only if its bytes have its hash, wherever they came from; wrong
bytes are rejected, and the next place that has the segment is asked. Whoever wants a block that is
on its way waits for that. NotFound is said only where nobody has it. Memory is bounded: what is
fetched ahead by ``COLD_AHEAD_BYTES_MAX`` of all readers together, what was fetched and is kept by
``COLD_MEMORY_BYTES``.

A fetch goes on when whoever wanted it has lost interest: it is short, and fills the cache. Of one
that has not begun what everybody left is dropped, or clients that go would keep others waiting.
Called by the store and its reader.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from ingot._speedups import digest
from ingot.errors import IngotError, NotFound, Unavailable, Unfetched
from ingot.limits import (
    COLD_AHEAD_BYTES_MAX,
    COLD_AHEAD_S,
    COLD_FETCHES_MAX,
    COLD_GAP_BYTES,
    COLD_MEMORY_BYTES,
    COLD_RUN_BYTES,
    HASH_OFFLOAD_BYTES,
)
from ingot.messages import Cid
from ingot.ports import ColdReading, ColdSource
from ingot.segments.cache import BlockCache
from ingot.segments.disk import Disk
from ingot.segments.index import Place, SegmentIndex

_NOTHING: Final = digest.sha256(b"")


class Flight:
    """A block on its way. ``outcome`` has it, or why it did not come; ``waiters`` wait for it.
    ``left``: some did, and none does."""

    __slots__ = ("ahead", "cid", "left", "outcome", "place", "waiters")

    def __init__(self, cid: Cid, place: Place, ahead: bool) -> None:
        self.cid, self.place, self.ahead = cid, place, ahead
        self.outcome: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.waiters = 0
        self.left = False

    @property
    def end(self) -> int:
        return self.place.offset + self.place.length


class ColdReader:
    """See the module's head. ``source`` is None while there is no network."""

    def __init__(self, disk: Disk, segments: SegmentIndex) -> None:
        self.source: ColdSource | None = None
        self.cache: BlockCache | None = None
        self._disk = disk
        self._index = segments
        self._flights: dict[Cid, Flight] = {}
        self._ahead: dict[Cid, tuple[bytes, float]] = {}  # came before it was asked for, and when
        self._ahead_bytes = 0  # of those, and of what is still on its way
        self._kept: OrderedDict[Cid, bytes] = OrderedDict()  # the least recently wanted first
        self._kept_bytes = 0
        self._fetching = asyncio.Semaphore(COLD_FETCHES_MAX)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def read(self, cid: Cid) -> bytes:
        """The block. NotFound where no segment that is cold has it or no place has the segment,
        Unfetched while it cannot be had."""
        data = self._remembered(cid)
        if data is not None:
            return data
        failure: IngotError | None = None
        for place in self._index.cold_places(cid):
            try:
                return await self._wait(self._flights.get(cid) or self._begin([(cid, place)])[0])
            except NotFound as error:
                failure = failure or error
            except Unavailable as error:
                failure = Unfetched(str(error), error.retry_after_s)
        raise failure or NotFound(f"block {cid.hex()} is in no segment")

    def prefetch(self, cids: Sequence[Cid]) -> None:
        """Begin to fetch those that are cold and not under way, as far as there is room."""
        if not self._index.cold or self.source is None or self._closed:
            return
        wanted: list[tuple[Cid, Place]] = []
        self._expire()
        room = COLD_AHEAD_BYTES_MAX - self._ahead_bytes
        for cid in dict.fromkeys(cids):
            if cid in self._ahead or cid in self._kept or cid in self._flights:
                continue
            if self._index.find(cid) is not None:
                continue
            place = self._index.cold_place(cid)
            if place is None:
                continue
            room -= place.length
            if room < 0:
                break
            wanted.append((cid, place))
        if wanted:
            self._begin(wanted, ahead=True)

    async def close(self) -> None:
        """Stop what is under way: nobody reads any more."""
        self._closed = True
        while self._tasks:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        if self.cache is not None:
            await self.cache.close()

    # -- flights -----------------------------------------------------------------------------------

    async def _wait(self, flight: Flight) -> bytes:
        flight.waiters += 1
        flight.left = False
        try:
            # The flight is everybody's: one who goes away does not end it.
            return await asyncio.shield(flight.outcome)
        finally:
            flight.waiters -= 1
            flight.left = not flight.waiters

    def _begin(self, wanted: Sequence[tuple[Cid, Place]], ahead: bool = False) -> list[Flight]:
        if self._closed:
            raise Unavailable("this gateway stops")
        flights = [Flight(cid, place, ahead) for cid, place in wanted]
        for flight in flights:
            self._flights[flight.cid] = flight
            if ahead:
                self._ahead_bytes += flight.place.length
        self._spawn(flights, self._fly(flights))
        return flights

    def _spawn(self, flights: Sequence[Flight], work: Coroutine[Any, Any, None]) -> None:
        """Run what takes care of these flights. If it ends otherwise, they have failed."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)

        def over(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            error: BaseException = Unavailable("this gateway stops")
            if not task.cancelled():
                failure = task.exception()
                if failure is None:
                    return
                self._disk.problem(f"reading cold segments failed: {failure!r}")
                error = failure
            for flight in flights:
                if self._flights.get(flight.cid) is flight:
                    self._fail(flight, error)

        task.add_done_callback(over)

    def _land(self, flight: Flight, data: bytes) -> None:
        del self._flights[flight.cid]
        if flight.ahead and not flight.waiters:
            self._ahead[flight.cid] = data, self._disk.clock.monotonic()
        else:
            if flight.ahead:
                self._ahead_bytes -= flight.place.length
            self._keep(flight.cid, data)
        flight.outcome.set_result(data)

    def _fail(self, flight: Flight, error: BaseException) -> None:
        del self._flights[flight.cid]
        if flight.ahead:
            self._ahead_bytes -= flight.place.length
        flight.outcome.set_exception(error)
        flight.outcome.exception()  # seen, even if nobody waits

    # -- memory ------------------------------------------------------------------------------------

    def _remembered(self, cid: Cid) -> bytes | None:
        came = self._ahead.pop(cid, None)
        if came is not None:
            data, _ = came
            self._ahead_bytes -= len(data)
            self._keep(cid, data)
            return data
        kept = self._kept.get(cid)
        if kept is not None:
            self._kept.move_to_end(cid)
        return kept

    def _keep(self, cid: Cid, data: bytes) -> None:
        """A reader that has no large buffer comes back for the rest of a chunk, piece by piece."""
        self._kept[cid] = data
        self._kept_bytes += len(data)
        while self._kept_bytes > COLD_MEMORY_BYTES:
            _, old = self._kept.popitem(last=False)
            self._kept_bytes -= len(old)

    def _expire(self) -> None:
        """Forget what nobody came for: its reader has gone. The cache on disk still has it."""
        bound = self._disk.clock.monotonic() - COLD_AHEAD_S
        while self._ahead:
            cid, (data, at) = next(iter(self._ahead.items()))
            if at > bound:
                break
            del self._ahead[cid]
            self._ahead_bytes -= len(data)

    # -- fetching ----------------------------------------------------------------------------------

    async def _fly(self, flights: Sequence[Flight]) -> None:
        left = []
        for flight in flights:
            data = await self.cache.get(flight.cid) if self.cache is not None else None
            if flight.cid[4:] == _NOTHING:
                data = b""  # of which no range can be asked for
            if data is not None:
                self._land(flight, data)
            elif flight.place.length:
                left.append(flight)
            else:
                self._fail(flight, NotFound(f"no segment has bytes of block {flight.cid.hex()}"))
        for run in runs_of(left):
            self._spawn(run, self._fetch(run))

    async def _fetch(self, run: Sequence[Flight]) -> None:
        """One ranged read for all of ``run``, which are of one segment and in order."""
        async with self._fetching:
            run, at = self._wanted(run), 0
            if not run:
                return
            try:
                if self.source is None:
                    raise Unavailable("this block is cold, and there is no network to fetch it", 5)
                key, start, end = run[0].place.key, run[0].place.offset, run[-1].end
                reading = await self.source.read(key, start, end)
                try:
                    pieces = _Pieces(reading)
                    while at < len(run):
                        await self._next(pieces, run[at])
                        at += 1
                finally:
                    await reading.aclose()
            except (NotFound, Unavailable) as error:
                self._give_up(run[at:], error)

    def _wanted(self, run: Sequence[Flight]) -> Sequence[Flight]:
        """Of those that are about to be fetched, the ones that somebody may still want."""
        for flight in run:
            if flight.left:
                self._fail(flight, Unavailable("whoever wanted it has gone"))
        return [flight for flight in run if not flight.left]

    async def _next(self, pieces: _Pieces, flight: Flight) -> None:
        place = flight.place
        while True:
            data = await pieces.take(place.offset, place.length)
            if await self._digest(data) == flight.cid[4:]:
                break
            self._disk.statistics.rejected += 1
            pieces.reject(place.offset, f"block {flight.cid.hex()} has another sha256")
        block = bytes(data)
        self._disk.statistics.fetched += 1
        self._disk.statistics.fetched_bytes += len(block)
        self._land(flight, block)
        if self.cache is not None:
            await self.cache.put(flight.cid, block)

    def _give_up(self, run: Sequence[Flight], error: IngotError) -> None:
        """The first block that did not come has failed. Those behind it may be good: whoever waits
        for one gets it by itself; those that nobody waits for are left."""
        self._fail(run[0], error)
        for flight in run[1:]:
            if flight.waiters:
                self._spawn([flight], self._fetch([flight]))
            else:
                self._fail(flight, error)

    async def _digest(self, data: bytearray) -> bytes:
        if len(data) <= HASH_OFFLOAD_BYTES:
            return digest.sha256(data)
        lane, hasher = self._disk.lanes.read, digest.Hasher("sha256")
        job = lane.job()
        job.update(hasher, data)
        await self._disk.run(lane, job)
        return hasher.digest()


def runs_of(flights: Sequence[Flight]) -> list[list[Flight]]:
    """Blocks that one ranged read serves: of one segment, with little between them, and no more
    than ``COLD_RUN_BYTES`` from end to end."""
    runs: list[list[Flight]] = []
    for flight in sorted(flights, key=lambda one: (one.place.key, one.place.offset)):
        place = flight.place
        if runs:
            first, last = runs[-1][0], runs[-1][-1]
            near = first.place.key == place.key and place.offset - last.end <= COLD_GAP_BYTES
            if near and place.offset >= last.end:
                if flight.end - first.place.offset <= COLD_RUN_BYTES:
                    runs[-1].append(flight)
                    continue
        runs.append([flight])
    return runs


class _Pieces:
    """Blocks out of the pieces of a reading, passing over what lies between them."""

    def __init__(self, reading: ColdReading) -> None:
        self._reading = reading
        self._piece = memoryview(b"")  # what of the newest one was not used
        self._at = reading.position  # of its first byte

    async def take(self, offset: int, length: int) -> bytearray:
        """The bytes from ``offset`` on, which is not before what was taken."""
        data, filled = bytearray(length), 0
        while filled < length:
            if not self._piece:
                self._at = self._reading.position
                piece = await anext(self._reading, None)
                if piece is None:
                    raise Unavailable("the network gave fewer bytes than it was asked for")
                self._piece = memoryview(piece)
            skip = min(max(0, offset + filled - self._at), len(self._piece))
            count = min(length - filled, len(self._piece) - skip)
            data[filled : filled + count] = self._piece[skip : skip + count]
            filled += count
            self._at += skip + count
            self._piece = self._piece[skip + count :]
        return data

    def reject(self, since: int, why: str) -> None:
        self._reading.reject(since, why)
        self._piece = memoryview(b"")
