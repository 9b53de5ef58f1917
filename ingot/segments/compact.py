"""Makes units: log segments in a row become one file with what is live of them.

    live blocks, in the order they stand ──> unit.tmp, synced ──> renamed, directory synced
         ──> its run made and in use ──> the segments out of the index, then unlinked

Guarantees: at every moment, for readers and for a start after a crash, each live block lies where
the index or a scan finds it. A block is copied only if its bytes have its hash, from whichever copy
is good, so a unit has no damage from before. Until the unit has its name the segments stand; from
then on the unit does, and whoever starts next removes them. Which blocks are live is the caller's
to say (``ingot.bucket.liveness``), and he is asked once more in the step in which the segments go.

Called by the store, one unit at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from typing import Final

from ingot._speedups import frame
from ingot.errors import IngotError, RequestError
from ingot.limits import COPY_STEP_BLOCKS, MIB
from ingot.messages import Cid
from ingot.segments import format
from ingot.segments.disk import Disk, OpenFiles
from ingot.segments.index import SegmentIndex
from ingot.segments.model import REPLACED, SEALED, Key, SegmentInfo, row_of
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
        number = sources[-1].number
        fd = -1
        name = format.unfinished_name(format.UNIT, number)
        try:
            fd = await self._disk.call(self._disk.files.create, self._disk.path(name))
            size = sum(info.bytes for info in sources)
            unit = Segment(format.UNIT, number, fd, table=table_for(format.UNIT, size))
            await self._write(unit, sources[-1].root, await self._in_order(sources, live))
            final = format.file_name(format.UNIT, number)
            await self._disk.call(
                self._disk.files.rename, self._disk.path(name), self._disk.path(final)
            )
            name = final
            await self._disk.call(self._disk.sync_directory)
            _describe(unit, sources)
            held = await self._sealer.write_run(unit)
            if not settled():  # from here to where they are forgotten nobody else has a turn
                await self._sealer.remove_run(held)
                raise Unsettled(f"somebody reads what {unit.name} would lack")
        except BaseException:
            # With its name it would be whole, and a start would take it for what stands.
            if fd >= 0:
                self._disk.discard(name, fd)
            raise
        self._index.add_run(held)
        self._index.trusted.add(unit.key)
        for info in sources:
            self._index.forget(info.key)
            self._files.forget(info.key)
        self._disk.close_quietly(fd, name)
        self._disk.statistics.units += 1
        self._sealer.on_change(row_of(unit.info()))
        for info in sources:
            self._sealer.on_change(row_of(info.as_state(REPLACED)))
            await self._disk.call(self._disk.discard, format.file_name(*info.key), None)
        return unit.info()

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

    async def _write(
        self, unit: Segment, root: Cid | None, pieces: Sequence[Sequence[Cid]]
    ) -> None:
        assert root is not None, "a segment without commits has no place in a unit"
        lane = self._disk.lanes.body
        job = lane.job()
        job.pwrite(unit.fd, 0, format.header(root))
        await self._disk.run(lane, job)
        for piece in pieces:
            blocks: list[tuple[Cid, bytes]] = []
            for cid in piece:
                blocks.append((cid, await self._reader.read(cid)))
                if len(blocks) % COPY_STEP_BLOCKS == 0:  # a read from memory does not wait
                    await asyncio.sleep(0)
            await self._append(unit, blocks)
        job = lane.job()
        job.fdatasync(unit.fd)
        await self._disk.run(lane, job)
        unit.synced = unit.end

    async def _append(self, unit: Segment, blocks: list[tuple[Cid, bytes]]) -> None:
        data = frame.pack(blocks)
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
