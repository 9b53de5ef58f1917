"""One segment that is being written, and the preparation of the next.

    prepared ──taken──> open ──full──> closing ──sealed──> (a SegmentInfo in a run)
                          └──write or sync failed──> poisoned ──sealed at its last good sync──┘

``Segment`` is a value that ``log``, ``body``, ``seal`` and ``recovery`` move through these states;
``Preparer`` makes the next one of a stream in the background, so that switching to it costs no
wait: its file exists, its directory is synced and its blocks are written, with zeros.
"""

from __future__ import annotations

import asyncio
import errno
import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from ingot import limits
from ingot._speedups import index
from ingot.messages import BodyPosition, Cid
from ingot.segments import format
from ingot.segments.disk import Disk
from ingot.segments.model import OPEN, QUARANTINED, SEALED, Key, SegmentInfo

FULL = (errno.ENOSPC, errno.EDQUOT)

BLOCK_BYTES_MEAN = {
    format.LOG: 512,  # tree nodes of a small PUT are the bulk of it
    format.BODY: limits.LOG_CHUNK_BYTES_MAX,
    format.UNIT: 512,
}


@dataclass(slots=True, eq=False)
class Segment:
    """A segment file with its descriptor, its table of blocks and how far it is durable."""

    stream: str
    number: int
    fd: int
    end: int = format.HEADER_BYTES  # where the next frame goes; never behind what was handed out
    synced: int = format.HEADER_BYTES  # everything before is durable
    room: int = format.HEADER_BYTES  # written beforehand, with zeros
    state: str = OPEN
    table: index.Table = field(default_factory=lambda: index.Table())
    first_commit: int = 0
    last_commit: int = 0
    root: Cid | None = None
    before: Cid | None = None
    needs: BodyPosition | None = None
    since: float = 0.0  # monotonic: when the first thing was written
    poisoned: OSError | None = None  # why it takes no more and no sync of it is believed
    writes: int = 0  # in flight
    written_out: int = format.HEADER_BYTES  # sent towards the disk by sync_file_range
    syncing: asyncio.Task[None] | None = None
    idle: asyncio.Event = field(default_factory=asyncio.Event)  # set while ``writes`` is 0
    tail: bool = False  # recovered with bytes behind its end that must not be cut off
    read_only: bool = False  # recovered from a file that may not be written: it stays as it is

    def __post_init__(self) -> None:
        self.idle.set()

    @property
    def key(self) -> Key:
        return self.stream, self.number

    @property
    def name(self) -> str:
        return format.file_name(self.stream, self.number)

    @property
    def empty(self) -> bool:
        """Whether nothing in it is durable that was ever acknowledged."""
        return self.synced == format.HEADER_BYTES

    def poison(self, error: OSError) -> None:
        """Close it for good: it ends at its last good sync, and what is behind was never there."""
        if self.poisoned is None:
            self.poisoned = error
            self.end = self.synced
            self.table.drop_from(self.synced)

    def note_commit(self, cid: Cid, sequence: int, previous: Cid | None) -> None:
        if not self.first_commit:
            self.first_commit, self.before = sequence, previous
        self.last_commit, self.root = sequence, cid

    def note_needs(self, bodies: Sequence[BodyPosition]) -> None:
        for position in bodies:
            furthest = self.needs
            if furthest is None or _order(position) > _order(furthest):
                self.needs = position

    def restore(self, info: SegmentInfo) -> None:
        """Take on what is known of a sealed segment whose frames were read again."""
        self.state = QUARANTINED if QUARANTINED in (self.state, info.state) else SEALED
        self.synced = self.end = info.bytes
        self.table.drop_from(info.bytes)
        self.first_commit, self.last_commit = info.first_commit, info.last_commit
        self.root, self.before, self.needs = info.root, info.before, info.needs

    def info(self) -> SegmentInfo:
        return SegmentInfo(
            self.stream,
            self.number,
            SEALED if self.state == OPEN else self.state,
            self.synced,
            self.first_commit,
            self.last_commit,
            self.root,
            self.before,
            self.needs,
        )


def table_for(stream: str, size: int) -> index.Table:
    """A table with room for the blocks of a segment of ``size`` bytes."""
    return index.Table(size // BLOCK_BYTES_MEAN[stream])


def _order(position: BodyPosition) -> tuple[int, int]:
    return position.segment, position.end


_COUNTED_AS = {format.UNIT: format.LOG}  # a unit has the number of a log segment


class Numbers:
    """The next unused number of each kind of file: above those of our own, and of no name there.

    A number so high that no store ever counts that far is of a file that somebody renamed: it is
    passed over like any other name, for there would be no room above it.
    """

    COUNTED_MAX = format.NUMBER_MAX // 2

    def __init__(self) -> None:
        self._next = {format.LOG: 1, format.BODY: 1, format.RUN: 1}
        self._avoided: dict[str, set[int]] = {kind: set() for kind in self._next}

    def avoid(self, kind: str, number: int) -> None:
        """There is such a name, whatever it is."""
        self._avoided[_COUNTED_AS.get(kind, kind)].add(number)

    def seen(self, kind: str, number: int) -> None:
        """It is a file of ours."""
        kind = _COUNTED_AS.get(kind, kind)
        if number <= self.COUNTED_MAX:
            self._next[kind] = max(self._next[kind], number + 1)
        else:
            self.avoid(kind, number)

    def take(self, kind: str) -> int:
        number = self._next[kind]
        while number in self._avoided[kind]:
            number += 1
        self._next[kind] = number + 1
        return number


class Preparer:
    """Keeps one segment of a stream ready. ``spare`` are empty ones from an earlier process."""

    def __init__(self, disk: Disk, stream: str, numbers: Numbers, spare: list[Segment]) -> None:
        self._disk = disk
        self._stream = stream
        self._numbers = numbers
        self._spare = sorted(spare, key=lambda segment: segment.number)
        self._task: asyncio.Task[Segment] | None = None
        settings = disk.settings
        ahead = settings.log_ahead_bytes if stream == format.LOG else settings.body_ahead_bytes
        self._ahead = max(ahead, format.HEADER_BYTES)
        self._told_full = False
        self._direct = True  # until the file system says that it cannot
        self._zeros = memoryview(mmap.mmap(-1, settings.fill_step_bytes))  # aligned for O_DIRECT
        self._closed = False

    def begin(self) -> None:
        """Have the next segment made, in the background."""
        if self._task is None and not self._closed:
            self._task = asyncio.get_running_loop().create_task(self._next())
            self._task.add_done_callback(_look)

    def take_now(self) -> Segment | None:
        """The next segment if it is ready."""
        task = self._task
        if task is None or not task.done() or task.cancelled() or task.exception() is not None:
            return None
        self._task = None
        self.begin()
        return task.result()

    async def take(self) -> Segment:
        """The next segment; OSError when it cannot be made, and the next call tries again."""
        if self._task is not None and self._task.done() and self._task.exception() is not None:
            self._task = None  # that was then
        while True:
            self.begin()
            task = self._task
            assert task is not None, "the store is closed"
            await asyncio.wait([task])
            if task is not self._task:
                continue  # somebody else took it meanwhile
            self._task = None
            segment = task.result()
            self.begin()
            return segment

    @property
    def room(self) -> int:
        """What the files that are ready, or being made, take on the disk."""
        return self._ahead * (len(self._spare) + (self._task is not None))

    async def close(self) -> None:
        """Let go of what was prepared; the next process takes it up."""
        self._closed = True
        if self._task is not None:
            await asyncio.wait([self._task])
            if self._task.exception() is None:
                self._spare.append(self._task.result())
        for segment in self._spare:
            self._disk.close_quietly(segment.fd, segment.name)
        self._spare.clear()

    async def _next(self) -> Segment:
        disk = self._disk
        if self._spare:
            segment = self._spare.pop(0)
            # What was read of it need not be on the disk, if a sync of the last process failed.
            ahead = format.HEADER_BYTES
        else:
            free = disk.files.free_bytes(disk.directory)
            if free < self._ahead:
                # Known beforehand: not a file filled to the last byte at every attempt.
                if not self._told_full:
                    self._told_full = True
                    disk.problem(
                        f"the next {self._stream} segment takes {self._ahead} bytes, the disk of "
                        f"{disk.directory} has {free}: free some, until then writes are refused"
                    )
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._told_full = False
            number = self._numbers.take(self._stream)
            name = format.file_name(self._stream, number)
            fd = await disk.call(disk.files.create, disk.path(name))
            segment, ahead = Segment(self._stream, number, fd), self._ahead
        try:
            await self._fill(segment, ahead)
            segment.room = self._ahead
            await disk.call(disk.sync_directory)
        except OSError:
            await disk.call(disk.discard, segment.name, segment.fd)
            raise
        segment.table = await self._table()
        return segment

    async def _table(self) -> index.Table:
        """A table that need not grow, its memory touched: each would hold a commit up."""
        table = table_for(self._stream, self._disk.settings.seal_bytes)
        await self._disk.call(table.warm)
        return table

    async def _fill(self, segment: Segment, ahead: int) -> None:
        """Write the header and the zeros behind it, a piece at a time, and sync them.

        The zeros go past the page cache where the file system can: through it they take memory and
        a core's time in bursts, and commits wait meanwhile (the p99 of a PUT was 12 ms, is 5).
        """
        disk, lane = self._disk, self._disk.lanes.body
        first = format.header()
        job = lane.job()
        job.pwrite(segment.fd, 0, first)
        if ahead > len(first):
            job.pwrite(segment.fd, len(first), self._zeros[: format.PAGE_BYTES - len(first)])
        await disk.run(lane, job)
        fd = await self._open_direct(segment.name) if ahead > format.PAGE_BYTES else None
        try:
            await self._zero(segment.fd if fd is None else fd, ahead)
        except OSError as error:
            if fd is None or error.errno in FULL:
                raise
            self._direct = False
            await self._zero(segment.fd, ahead)
        finally:
            if fd is not None:
                disk.close_quietly(fd, segment.name)
        job = lane.job()
        job.fdatasync(segment.fd)
        await disk.run(lane, job)

    async def _zero(self, fd: int, ahead: int) -> None:
        disk, lane = self._disk, self._disk.lanes.body
        for at in range(format.PAGE_BYTES, ahead, len(self._zeros)):
            pages = -(-(ahead - at) // format.PAGE_BYTES)
            length = min(len(self._zeros), pages * format.PAGE_BYTES)
            job = lane.job()
            job.pwrite(fd, at, self._zeros[:length])
            job.sync_file_range(fd, at, length)
            await disk.run(lane, job)

    async def _open_direct(self, name: str) -> int | None:
        """None where the file system has no writes past the page cache, or refuses this one: what
        only saves time must not stop writes."""
        if not self._direct:
            return None
        try:
            return await self._disk.call(self._disk.files.open_direct, self._disk.path(name))
        except OSError:
            self._direct = False
            return None


def _look(task: asyncio.Task[Segment]) -> None:
    """A failure is met again, and reported, by whoever takes the segment."""
    if not task.cancelled():
        task.exception()
