"""Makes units: log segments in a row become one file with what is live of them.

    live blocks, in the order they stand ──> unit.tmp, synced ──> renamed, directory synced
         ──> its run made and in use ──> the segments out of the index, then unlinked

Guarantees: at every moment, for readers and for a start after a crash, each live block lies where
the index or a scan finds it. A block is copied only if its bytes have its hash, from whichever copy
is good, so a unit has no damage from before. Until the unit has its name the segments stand; from
then on the unit does, and whoever starts next removes them. A segment of which something is good
nowhere is ``salvage``d: its unit has every good frame of it, and its file is kept under another
name, since a bad sector may read well again and a person may have a copy. Which blocks are live is
the caller's to say (``ingot.bucket.liveness``), and he is asked once more in the step in which the
segments go.

Called by the store, one unit at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextlib import aclosing
from itertools import pairwise
from typing import Any, Final

from ingot._speedups import frame
from ingot.errors import IngotError, RequestError
from ingot.limits import COPY_STEP_BLOCKS, MIB
from ingot.messages import Cid
from ingot.segments import format, search
from ingot.segments.disk import Disk, OpenFiles
from ingot.segments.index import SegmentIndex
from ingot.segments.model import (
    DAMAGED,
    QUARANTINED,
    REPLACED,
    SEALED,
    Key,
    SegmentInfo,
    row_of,
)
from ingot.segments.read import Reader
from ingot.segments.seal import Sealer
from ingot.segments.segment import Segment, table_for

STEP_BYTES: Final = MIB  # of a segment, from which is copied at a time


class Unsettled(IngotError):
    """What is live has become more while the unit was written: nothing has changed."""


class Compactor:
    """See the module's head."""

    def __init__(
        self, disk: Disk, segments: SegmentIndex, sealer: Sealer, reader: Reader, files: OpenFiles
    ) -> None:
        self._disk = disk
        self._index = segments
        self._sealer = sealer
        self._reader = reader
        self._files = files

    async def replace(
        self,
        sources: Sequence[SegmentInfo],
        live: Collection[Cid],
        settled: Callable[[], bool] = lambda: True,
    ) -> SegmentInfo:
        """Put a unit of the ``live`` blocks in the place of ``sources``, sealed log segments in the
        order of their commits, if ``settled`` says at the end that these still are all. OSError
        when it could not be written, Corruption when a live block is good nowhere, RequestError
        when the unit would be larger than a segment may be, Unsettled: then everything is as it
        was."""
        for info, behind in pairwise(sources):
            if behind.before != info.root:
                raise RequestError(f"the commits of segments {info.number} and on are not in a row")
        pieces = await self._in_order(sources, live)
        return await self._put(sources, lambda unit: self._write(unit, pieces), settled)

    async def salvage(self, info: SegmentInfo) -> SegmentInfo:
        """Put a unit of everything that is good of a log segment in its place: where a node cannot
        be read, nothing may be called garbage that it could have led to. OSError when it could not
        be written: then everything is as it was."""
        return await self._put([info], lambda unit: self._write_good(unit, info), lambda: True)

    async def _put(
        self,
        sources: Sequence[SegmentInfo],
        write: Callable[[Segment], Coroutine[Any, Any, bool]],
        settled: Callable[[], bool],
    ) -> SegmentInfo:
        """``write`` fills the unit, and says whether the one source of it is damaged."""
        number = sources[-1].number
        name = format.unfinished_name(format.UNIT, number)
        fd, damaged, apart = -1, False, False
        try:
            fd = await self._disk.call(self._disk.files.create, self._disk.path(name))
            size = sum(info.bytes for info in sources)
            unit = Segment(format.UNIT, number, fd, table=table_for(format.UNIT, size))
            _describe(unit, sources)
            damaged = await write(unit)
            if damaged:
                self._files.pin(sources[0].key)  # which readers find by its name until the end
                apart = True
                await self._rename(
                    format.file_name(format.LOG, number), format.damaged_name(number)
                )
            final = format.file_name(format.UNIT, number)
            await self._rename(name, final)
            name = final
            held = await self._sealer.write_run(unit)
            if not settled():  # from here to where they are forgotten nobody else has a turn
                await self._sealer.remove_run(held)
                raise Unsettled(f"somebody reads what {unit.name} would lack")
        except BaseException:
            # With its name it would be whole, and a start would take it for what stands.
            if fd >= 0:
                self._disk.discard(name, fd)
            if apart:
                self._put_back(number)
                self._files.unpin(sources[0].key)
            raise
        self._index.add_run(held)
        self._index.trusted.add(unit.key)
        for info in sources:
            self._index.forget(info.key)
            self._files.forget(info.key)
        self._disk.close_quietly(fd, name)
        self._disk.statistics.units += 1
        if damaged:
            self._files.unpin(sources[0].key)
            self._index.damaged.add(number)
            self._disk.statistics.salvaged += 1
            self._disk.problem(
                f"{format.file_name(format.LOG, number)} is damaged. {unit.name} stands for it "
                f"without the bad blocks, and it is kept as {format.damaged_name(number)}. Check "
                "the disk; restore what is missing."
            )
        self._sealer.on_change(row_of(unit.info()))
        for info in sources:
            self._sealer.on_change(row_of(info.as_state(DAMAGED if damaged else REPLACED)))
            if not damaged:
                await self._disk.call(self._disk.discard, format.file_name(*info.key), None)
        return unit.info()

    async def _rename(self, old: str, new: str) -> None:
        files, path = self._disk.files, self._disk.path
        await self._disk.call(files.rename, path(old), path(new))
        await self._disk.call(self._disk.sync_directory)

    def _put_back(self, number: int) -> None:
        """Its unit came to nothing."""
        name, kept = format.file_name(format.LOG, number), format.damaged_name(number)
        try:
            if self._disk.files.exists(self._disk.path(kept)):
                self._disk.files.rename(self._disk.path(kept), self._disk.path(name))
        except OSError as error:
            self._disk.problem(
                f"{kept} could not be renamed to {name} ({error.strerror}); the next start does it"
            )

    async def _in_order(
        self, sources: Sequence[SegmentInfo], live: Collection[Cid]
    ) -> list[list[Cid]]:
        """The live blocks as they stand in the sources, the first copy of each, by the pieces of
        the files that they are in."""
        place_of: dict[Key, int] = {info.key: place for place, info in enumerate(sources)}
        pieces: dict[tuple[int, int], list[tuple[int, Cid]]] = {}
        for count, cid in enumerate(live):
            if count % COPY_STEP_BLOCKS == 0:
                await asyncio.sleep(0)
            places = [
                (place_of[place.key], place.offset)
                for place in self._index.places(cid)
                if place.key in place_of
            ]
            if places:
                source, offset = min(places)
                pieces.setdefault((source, offset // STEP_BYTES), []).append((offset, cid))
        return [[cid for _, cid in sorted(pieces[key])] for key in sorted(pieces)]

    async def _write(self, unit: Segment, pieces: Sequence[Sequence[Cid]]) -> bool:
        await self._begin(unit)
        for piece in pieces:
            blocks: list[tuple[Cid, bytes]] = []
            for cid in piece:
                blocks.append((cid, await self._reader.read_hashed(cid)))
                if len(blocks) % COPY_STEP_BLOCKS == 0:  # a read from memory does not wait
                    await asyncio.sleep(0)
            await self._append(unit, frame.pack(blocks))
        await self._end(unit)
        return False

    async def _write_good(self, unit: Segment, info: SegmentInfo) -> bool:
        await self._begin(unit)
        at, damaged = unit.end, info.state == QUARANTINED
        async with aclosing(search.good_frames(self._disk, info)) as runs:
            async for run in runs:
                damaged |= run.start != at
                at = run.stop
                await self._append(unit, bytes(run.data))
        await self._end(unit)
        return damaged or at != info.bytes

    async def _begin(self, unit: Segment) -> None:
        assert unit.root is not None, "a segment without commits has no place in a unit"
        lane = self._disk.lanes.body
        job = lane.job()
        job.pwrite(unit.fd, 0, format.header(unit.root))
        await self._disk.run(lane, job)

    async def _end(self, unit: Segment) -> None:
        lane = self._disk.lanes.body
        job = lane.job()
        job.fdatasync(unit.fd)
        await self._disk.run(lane, job)
        unit.synced = unit.end

    async def _append(self, unit: Segment, data: bytes) -> None:
        """Whole frames."""
        if unit.end + len(data) > self._disk.settings.segment_bytes_max:
            raise RequestError(f"{unit.name} would be larger than a segment may be")
        lane = self._disk.lanes.body
        job = lane.job()
        job.pwrite(unit.fd, unit.end, data)
        await self._disk.run(lane, job)
        unit.table.add_frames(data, 0, len(data), unit.end, True)
        unit.end += len(data)


def _describe(unit: Segment, sources: Sequence[SegmentInfo]) -> None:
    """What its commits come to, as if it had been written by them."""
    unit.state = SEALED
    unit.first_commit, unit.last_commit = sources[0].first_commit, sources[-1].last_commit
    unit.before, unit.root = sources[0].before, sources[-1].root
    unit.note_needs([info.needs for info in sources if info.needs is not None])
