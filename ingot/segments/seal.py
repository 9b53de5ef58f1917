"""What happens to a segment behind the writers' backs: cut, named, indexed, its run merged.

    full ──> cut to its logical length, root into the header, synced
         ──> run written, synced, renamed, directory synced ──> run in use, table dropped
         ──> where a tier of runs is crowded: merged into one, then the old ones removed

Writers never wait for any of it. A step that fails leaves the segment readable through its table;
it is tried again when the next one is sealed, and at the end. Segments go one after the other.
"""

from __future__ import annotations

from collections.abc import Callable

from ingot._speedups import index
from ingot.segments import format
from ingot.segments.disk import Disk
from ingot.segments.index import SegmentIndex
from ingot.segments.model import OPEN, SEALED, Row, SegmentInfo, row_of
from ingot.segments.runfile import OpenRun, RunWriter
from ingot.segments.segment import Numbers, Segment


class Sealer:
    """Seals what it is given, in order, in the background. ``on_change`` hears every new state."""

    def __init__(self, disk: Disk, segments: SegmentIndex, numbers: Numbers) -> None:
        self.on_change: Callable[[Row], None] = lambda row: None
        self._disk = disk
        self._index = segments
        self._numbers = numbers
        self._queue: list[Segment] = []
        self._failed: list[Segment] = []
        self._working = False

    def opened(self, segment: Segment) -> None:
        """Readers may look into it from now on."""
        self._index.add_growing(segment)

    def announce(self, segment: Segment) -> None:
        """It holds something: its state is worth knowing."""
        info = segment.info()
        self.on_change(row_of(info.as_state(OPEN) if segment.state == OPEN else info))

    def submit(self, segment: Segment) -> None:
        """Seal it soon. Nothing writes to it any more and ``synced`` is where it ends."""
        self._queue += [*self._failed, segment]
        self._failed.clear()
        if not self._working:
            self._working = True
            self._disk.spawn(self._work())

    def retry(self, segment: Segment) -> None:
        """Seal it when the next one is, or at the end."""
        self._failed.append(segment)

    async def _work(self) -> None:
        try:
            while self._queue:
                segment = self._queue.pop(0)
                try:
                    await self.seal(segment)
                except OSError as error:
                    self._failed.append(segment)
                    self._disk.statistics.seal_failures += 1
                    self._disk.problem(
                        f"{segment.name}: its index could not be written ({error.strerror}); its "
                        "blocks stay readable and it is tried again when the next one is sealed"
                    )
                if not self._queue:
                    await self._merge_crowded()
        finally:
            self._working = False

    def close(self) -> None:
        """Let go of everything. What could not be sealed is scanned at the next start."""
        for segment in self._index.growing.values():
            self._disk.close_quietly(segment.fd, segment.name)
        self._failed.clear()
        self._index.growing.clear()
        for held in self._index.runs:
            held.release()
        self._index.runs.clear()

    # -- one segment -------------------------------------------------------------------------------

    async def seal(self, segment: Segment) -> None:
        """All of it; OSError when its run could not be made durable."""
        if segment.empty and segment.state == OPEN and not (segment.tail or segment.read_only):
            self._index.drop_growing(segment)
            await self._disk.call(self._disk.discard, segment.name, segment.fd)
            return
        if segment.state == OPEN and not segment.read_only:
            await self._close_off(segment)
        held = await self.write_run(segment)
        if segment.state == OPEN:
            segment.state = SEALED
        self._index.replace_table(segment, held)
        self._disk.close_quietly(segment.fd, segment.name)
        self._disk.statistics.sealed += 1
        self.on_change(row_of(segment.info()))

    async def _close_off(self, segment: Segment) -> None:
        """Cut the file and put the root into its header. Neither is needed to read it or to recover
        it, so a failure is reported and the rest goes on."""
        lane = self._disk.lanes.body
        job = lane.job()
        if segment.root is not None:
            job.pwrite(segment.fd, format.ROOT_OFFSET, segment.root)
        job.fdatasync(segment.fd)
        try:
            if not segment.tail:
                await self._disk.call(self._disk.files.truncate, segment.fd, segment.synced)
            await self._disk.run(lane, job)
        except OSError as error:
            self._disk.problem(
                f"{segment.name}: it could not be cut to {segment.synced} bytes or its root not be "
                f"written ({error.strerror}); what is in it is safe. Check the disk."
            )

    async def write_run(self, segment: Segment) -> OpenRun:
        """Index its table, durably; nothing uses the run yet."""
        table = segment.table
        limit = max(1, self._disk.settings.merge_bytes // index.ENTRY_BYTES)
        number = self._numbers.take(format.RUN)
        writer = RunWriter(self._disk, number, [segment.info()], len(table))
        try:
            await writer.begin()
            cursor = 0
            while len(table):
                entries, cursor = table.export(cursor, limit, 0)
                await writer.add(entries)
                if not cursor:
                    break
            return await writer.finish()
        finally:
            writer.abandon()

    # -- merging -----------------------------------------------------------------------------------

    async def _merge_crowded(self) -> None:
        while runs := self._index.crowded(self._disk.settings.runs_a_tier):
            try:
                held = await self._merge(runs)
            except OSError as error:
                self._disk.problem(
                    f"merging {len(runs)} index runs failed ({error.strerror}); they stay in use"
                )
                return
            self._index.replace_runs(runs, held)
            self._disk.statistics.merged += len(runs)
            for old in runs:
                await self._remove(old)

    async def _remove(self, held: OpenRun) -> None:
        """Its successor is durable: remove the file. If that fails the next start does it."""
        held.release()
        await self._disk.call(self._disk.discard, held.name, None)

    async def _merge(self, runs: list[OpenRun]) -> OpenRun:
        infos: list[SegmentInfo] = []
        names: list[list[int]] = []
        for held in runs:
            names.append(list(range(len(infos), len(infos) + len(held.infos))))
            infos += held.infos
        merge = index.Merge(names)
        number = self._numbers.take(format.RUN)
        writer = RunWriter(self._disk, number, infos, sum(len(held) for held in runs))
        readers = [_Entries(self._disk, held) for held in runs]
        limit = max(1, self._disk.settings.merge_bytes // index.ENTRY_BYTES)
        try:
            await writer.begin()
            for reader in readers:
                reader.open()
            while True:
                source = merge.hungry()
                if source >= 0:
                    merge.feed(source, await readers[source].next())
                    continue
                entries = merge.step(limit)
                if not entries and merge.hungry() < 0:
                    return await writer.finish()
                if entries:
                    await writer.add(entries)
        finally:
            for reader in readers:
                reader.close()
            writer.abandon()

    async def remove_run(self, held: OpenRun) -> None:
        """Nothing rests on it any more: take it out of use, if it is, and away."""
        if held in self._index.runs:
            self._index.drop_run(held)
        await self._remove(held)


class _Entries:
    """Reads the entries of a run through a lane: its pages may not be in memory."""

    def __init__(self, disk: Disk, held: OpenRun) -> None:
        self._disk = disk
        self._held = held
        self._at = held.entries_at
        self._end = held.view.nbytes
        self._fd = -1

    def open(self) -> None:
        self._fd = self._disk.files.open(self._disk.path(self._held.name))

    async def next(self) -> bytes:
        """Some more; nothing at the end."""
        step = max(1, self._disk.settings.merge_bytes // index.ENTRY_BYTES) * index.ENTRY_BYTES
        piece = bytearray(min(step, self._end - self._at))
        if piece:
            lane = self._disk.lanes.body
            job = lane.job()
            job.pread(self._fd, self._at, piece)
            await self._disk.run(lane, job)
            self._at += len(piece)
        return bytes(piece)

    def close(self) -> None:
        if self._fd >= 0:
            self._disk.close_quietly(self._fd, self._held.name)
            self._fd = -1
