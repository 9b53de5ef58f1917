"""The body stream: chunks too large for the log, in a file of their own (design section 4).

A chunk is written as soon as it is hashed, many uploads side by side; nothing is promised about it
before ``sync`` returned, and a commit that refers to it comes after that. One fdatasync serves all
who wait. Writes and syncs share a lane, which keeps their order: when a sync has succeeded,
everything that was handed out before it was submitted is durable, up to one offset.

After a failed write or sync the segment is closed for good: what lies behind its last good sync
leaves the index, and whoever waits for it, or comes later, gets Unavailable. No second sync of that
file is believed, for the kernel may have dropped the pages and forgotten it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ingot._speedups import frame
from ingot.errors import Unavailable
from ingot.messages import BodyPosition, Cid
from ingot.segments import format
from ingot.segments.disk import Disk, unavailable
from ingot.segments.index import SegmentIndex
from ingot.segments.seal import Sealer
from ingot.segments.segment import Preparer, Segment


class BodyStream:
    """The one writer of body segments."""

    def __init__(self, disk: Disk, preparer: Preparer, sealer: Sealer, index: SegmentIndex) -> None:
        self._disk = disk
        self._preparer = preparer
        self._sealer = sealer
        self._index = index
        self._current: Segment | None = None
        self._unsealed: dict[int, Segment] = {}  # the open one and those on the way to the sealer
        self._lost: dict[int, tuple[int, OSError]] = {}  # poisoned: what of them is durable, why
        self._opening = asyncio.Lock()

    async def append(self, cid: Cid, data: memoryview) -> BodyPosition:
        """Write one chunk; its position is durable only after ``sync``."""
        known = self._current.table.find(cid) if self._current is not None else None
        if known is not None and self._current is not None:
            self._disk.statistics.repeated += 1
            return BodyPosition(self._current.number, known[0] + known[1])
        head = frame.head(cid, data.nbytes)
        size = len(head) + data.nbytes
        segment = self._room(size) or await self._next(size)
        offset, segment.end = segment.end, segment.end + size
        await self._write(segment, offset, head, data)
        if not len(segment.table):
            segment.since = self._disk.clock.monotonic()
            self._sealer.announce(segment)
        segment.table.add(cid, offset + len(head), data.nbytes, True)
        statistics = self._disk.statistics
        statistics.bodies += 1
        statistics.body_bytes += data.nbytes
        if segment is self._current and segment.end >= self._disk.settings.seal_bytes:
            self._retire(segment)
        return BodyPosition(segment.number, offset + size)

    async def sync(self, positions: Sequence[BodyPosition]) -> None:
        """Return when all ``positions`` are durable; Unavailable when one of them is lost."""
        for number in {position.segment for position in positions}:
            end = max(position.end for position in positions if position.segment == number)
            segment = self._unsealed.get(number)
            if segment is not None:
                await self._sync_to(segment, end)
            elif number in self._lost:
                synced, error = self._lost[number]
                if synced < end:
                    raise self._refusal(error)
            else:
                info = self._index.info((format.BODY, number))
                if info is None or info.bytes < end:
                    raise Unavailable(f"body segment {number} does not reach to byte {end}")

    def seal_aged(self, age_s: float) -> None:
        """Close the open segment if it has held something for longer."""
        segment = self._current
        if segment is not None and len(segment.table):
            if self._disk.clock.monotonic() - segment.since >= age_s:
                self._retire(segment)

    async def close(self) -> None:
        """Seal the open segment; nothing is appended any more."""
        if self._current is not None:
            self._retire(self._current)

    # -- writing -----------------------------------------------------------------------------------

    def _room(self, size: int) -> Segment | None:
        """The open segment, if a frame of ``size`` bytes fits."""
        segment = self._current
        if segment is None:
            return None
        if segment.end + size <= self._disk.settings.segment_bytes_max:
            return segment
        self._retire(segment)
        return None

    async def _next(self, size: int) -> Segment:
        async with self._opening:
            segment = self._room(size)  # another upload may have opened it meanwhile
            if segment is not None:
                return segment
            segment = self._preparer.take_now()
            if segment is None:
                self._disk.statistics.rotations_waited += 1
                try:
                    segment = await self._preparer.take()
                except OSError as error:
                    raise self._refusal(error) from error
            self._current = segment
            self._unsealed[segment.number] = segment
            self._sealer.opened(segment)
            return segment

    async def _write(self, segment: Segment, offset: int, head: bytes, data: memoryview) -> None:
        lane = self._disk.lanes.body
        job = lane.job()
        job.pwrite(segment.fd, offset, head)
        job.pwrite(segment.fd, offset + len(head), data)
        start, end = segment.written_out, offset + len(head) + data.nbytes
        if end - start >= self._disk.settings.write_behind_bytes:
            job.sync_file_range(segment.fd, start, end - start)
            segment.written_out = end
        segment.writes += 1
        segment.idle.clear()
        try:
            await self._disk.run(lane, job)
        except OSError as error:
            self._poison(segment, error)
        finally:
            segment.writes -= 1
            if not segment.writes:
                segment.idle.set()
        if segment.poisoned is not None:
            raise self._refusal(segment.poisoned)

    # -- syncing -----------------------------------------------------------------------------------

    async def _sync_to(self, segment: Segment, end: int) -> None:
        while segment.synced < end:
            if segment.poisoned is not None:
                raise self._refusal(segment.poisoned)
            if segment.syncing is None:
                segment.syncing = self._disk.spawn(self._sync(segment))
            # Waiting, not awaiting: a waiter that is cancelled must not cancel it for the others.
            await asyncio.wait([segment.syncing])

    async def _sync(self, segment: Segment) -> None:
        covered = segment.end  # submitted before this sync, so written before it
        lane = self._disk.lanes.body
        job = lane.job()
        job.fdatasync(segment.fd)
        try:
            await self._disk.run(lane, job)
        except OSError as error:
            self._poison(segment, error)
        else:
            self._disk.statistics.body_syncs += 1
            if segment.poisoned is None:
                segment.synced = covered
        finally:
            segment.syncing = None

    # -- the end of a segment ----------------------------------------------------------------------

    def _retire(self, segment: Segment) -> None:
        """Take the open segment out of use; its last writes and its sync happen behind it."""
        self._current = None
        self._disk.statistics.rotations += 1
        self._disk.spawn(self._finish(segment))

    def _poison(self, segment: Segment, error: OSError) -> None:
        if segment.poisoned is not None:
            return
        self._disk.statistics.poisoned += 1
        self._disk.problem(
            f"{segment.name}: a write or sync failed ({error.strerror}); the segment was closed at "
            f"byte {segment.synced} and the uploads behind that are refused. Check the disk."
        )
        segment.poison(error)
        self._lost[segment.number] = (segment.synced, error)
        if segment is self._current:
            self._retire(segment)

    async def _finish(self, segment: Segment) -> None:
        """Hand a segment to the sealer once nothing of it is under way any more."""
        await segment.idle.wait()
        if segment.poisoned is None and segment.synced < segment.end:
            try:
                await self._sync_to(segment, segment.end)
            except Unavailable:
                assert segment.poisoned is not None  # reported, and sealed at its last good sync
        while segment.syncing is not None:
            await asyncio.wait([segment.syncing])
        self._sealer.submit(segment)
        del self._unsealed[segment.number]

    def _refusal(self, error: OSError) -> Unavailable:
        return unavailable("the body of the request was not stored", error, self._disk.directory)
