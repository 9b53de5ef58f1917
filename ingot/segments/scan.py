"""Reads one segment that has no index and says what in it can be believed.

A log segment: frames are hashed in order until one is not good or a commit record is void. A record
counts when it is of this store and this segment, continues the record before it, and its count and
digest match the frames before it. Frames before the stop are good with or without a record.

What stands behind the stop decides whether that was the end. One torn batch may: it was never
acknowledged, since nothing is written after a batch before its sync returned. A record two or more
sequences on proves that what was acknowledged is damaged: then everything that verifies is taken,
wherever it stands, and the segment is quarantined as it is.

A body segment has no records; there, commits say how far it must be good. A unit was whole before
it got its name, so every frame that is not good is damage, and its records count nothing.

Used by ``recovery``. An unreadable page counts as zeros and is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ingot._speedups import frame
from ingot.errors import FormatError
from ingot.messages import BodyPosition, Cid
from ingot.segments import format
from ingot.segments.commit import outline_commit
from ingot.segments.disk import Disk
from ingot.segments.model import QUARANTINED
from ingot.segments.segment import Segment, table_for

SEARCH_FACTOR = 4  # bytes hashed in vain behind damage, as a multiple of the file's size
_ZEROS = bytes(256 * 1024)


class Found(NamedTuple):
    """A commit record, its outline, and its batch's place in the file."""

    cid: Cid
    store: bytes
    segment: int
    sequence: int
    previous: Cid | None
    bodies: Sequence[BodyPosition]
    start: int
    end: int
    whole: bool  # every frame of the batch is good


@dataclass(slots=True)
class Scanned:
    """What one file holds."""

    segment: Segment
    size: int
    commits: list[Found] = field(default_factory=list)
    good: bool = True  # it has a header of ours
    was_open: bool = True  # its root was never written: the last process had not sealed it
    blank: bool = False  # nothing but zeros behind the header
    stop: int = format.HEADER_BYTES  # where the first frame stands that is not good
    later: list[Found] = field(default_factory=list)  # records of this segment behind the stop
    salvaged: int = 0  # frames behind the stop
    foreign: bytes | None = None  # the store its records name, if it is another
    unreadable: list[int] = field(default_factory=list)  # offsets of pages
    gave_up: bool = False  # the search behind the stop used up its budget

    @property
    def last(self) -> int:
        """The sequence of its last good commit, 0 without one."""
        return self.commits[-1].sequence if self.commits else 0

    def salvage(self, named: Cid | None = None) -> None:
        """Acknowledged frames are damaged: keep all that verifies, the file stays as it is. A
        record counts if another one follows it, if its batch is whole, or if it is ``named`` by
        the next segment."""
        segment = self.segment
        segment.state = QUARANTINED
        segment.end = segment.synced = self.size
        proven = [found for found in self.later[:-1] if found.sequence > self.last]
        proven += [found for found in self.later[-1:] if found.whole or found.cid == named]
        for found in proven:
            if found.sequence > self.last:
                self.commits.append(found)
                segment.note_commit(found.cid, found.sequence, found.previous)
                segment.note_needs(found.bodies)


class Window:
    """A part of a file in one reused buffer, read through a lane."""

    def __init__(self, disk: Disk, fd: int, size: int, unreadable: list[int]) -> None:
        self._disk = disk
        self._fd = fd
        self._size = size
        self._unreadable = unreadable
        span = max(disk.settings.scan_bytes, 2 * frame.FRAME_BYTES_MAX)
        self.buffer = bytearray(min(size, span))
        self.base = 0  # the file's offset of the buffer's first byte
        self.stop = 0  # bytes of the buffer that are filled

    async def move(self, offset: int) -> bool:
        """Put ``offset`` at the buffer's start and fill up behind it. False when nothing is new."""
        shift = offset - self.base
        if shift == 0 and self.stop:
            return False
        keep = self.stop - shift if 0 < shift < self.stop else 0
        if keep:
            self.buffer[:keep] = self.buffer[shift : self.stop]
        self.base = offset
        self.stop = keep
        length = min(len(self.buffer) - keep, self._size - offset - keep)
        if length <= 0:
            return False
        await self._read(offset + keep, keep, length)
        self.stop = keep + length
        return True

    @property
    def at_end(self) -> bool:
        return self.base + self.stop >= self._size

    async def _read(self, offset: int, at: int, length: int) -> None:
        lane = self._disk.lanes.read
        view = memoryview(self.buffer)[at : at + length]
        job = lane.job()
        job.pread(self._fd, offset, view)
        try:
            await self._disk.run(lane, job)
        except OSError:
            self._read_pages(offset, view)

    def _read_pages(self, offset: int, view: memoryview) -> None:
        """What can be had of a damaged medium: page by page, zeros for the rest."""
        done, length = 0, view.nbytes
        while done < length:
            size = min(format.PAGE_BYTES - (offset + done) % format.PAGE_BYTES, length - done)
            try:
                data = self._disk.files.pread(self._fd, size, offset + done)
            except OSError:
                self._unreadable.append(offset + done)
                data = b""
            view[done : done + size] = data + bytes(size - len(data))
            done += size


class Scanner:
    """Scans one file; ``segment`` gets the table, the end and the commits."""

    def __init__(self, disk: Disk, segment: Segment, store: bytes) -> None:
        self._disk = disk
        self._segment = segment
        self._store = store
        self._size = disk.files.size(segment.fd)
        segment.table = table_for(segment.stream, self._size)
        self.result = Scanned(segment, self._size)
        self._window = Window(disk, segment.fd, self._size, self.result.unreadable)
        self._tally = frame.Tally()  # of the frames since the last record
        self._batch = format.HEADER_BYTES  # where they begin
        self._void = False

    async def scan(self) -> Scanned:
        result, window, segment = self.result, self._window, self._segment
        await window.move(0)
        head = bytes(window.buffer[: format.HEADER_BYTES])
        result.good = format.is_header(head)
        result.was_open = format.root_of(head) in (format.PLACEHOLDER, b"")
        if self._size > format.HEADER_BYTES:
            await self._frames_in_order(format.HEADER_BYTES)
        end = self._batch if self._void else result.stop
        segment.end = segment.synced = end
        zeros = await self._zeros_from(end)
        if result.unreadable:
            segment.tail = True  # those zeros are ours, not the file's
        elif zeros and (segment.stream != format.UNIT or end == self._size):
            result.blank = end == format.HEADER_BYTES and (result.good or not any(head))
            return result
        segment.tail = True
        await self._search(result.stop)
        return result

    # -- in order ----------------------------------------------------------------------------------

    async def _frames_in_order(self, at: int) -> None:
        window, result = self._window, self.result
        await window.move(at)
        while True:
            start = at - window.base
            end, _, wanted, marks = frame.scan(
                window.buffer, start, window.stop, format.COMMIT_MARK, self._tally
            )
            void = self._take(marks)
            if void is not None:
                self._add(start, void)
                result.stop = window.base + void
                return
            self._add(start, end)
            at = window.base + end
            if not (wanted and not window.at_end and await window.move(at)):
                result.stop = at
                return

    def _add(self, start: int, end: int) -> None:
        if start < end:
            window = self._window
            self._segment.table.add_frames(window.buffer, start, end, window.base + start, True)

    def _take(self, marks: Sequence[frame.Mark]) -> int | None:
        """Take these records; where one stands that is void, or of another store."""
        commits, segment = self.result.commits, self._segment
        for mark in marks:
            found = self._found(mark)
            if found is None or not self._continues(found):
                self._void = self.result.foreign is None
                return mark[0]
            commits.append(found)
            self._batch = found.end
            segment.note_commit(found.cid, found.sequence, found.previous)
            if found.bodies:
                segment.note_needs(found.bodies)
        return None

    def _found(self, mark: frame.Mark) -> Found | None:
        at, end, cid, block, frames, digest = mark
        base = self._window.base
        try:
            store, bodies, named, counted, segment, previous, sequence = outline_commit(block)
        except FormatError as error:
            self._disk.problem(
                f"{self._segment.name} at byte {base + at}: a commit record cannot be read "
                f"({error}); was it written by a later version?"
            )
            return None
        whole = counted == frames and named == digest
        positions = tuple([BodyPosition(*each) for each in bodies]) if bodies else ()
        start, end = self._batch, base + end
        return Found(cid, store, segment, sequence, previous, positions, start, end, whole)

    def _continues(self, found: Found) -> bool:
        """Whether the record continues what was read. Another store's file is not ours to judge."""
        if found.store != self._store:
            self.result.foreign = found.store
            return False
        commits = self.result.commits
        if commits:
            last = commits[-1]
            if found.sequence != last.sequence + 1 or found.previous != last.cid:
                return False
        return self._belongs(found) and (found.whole or self._segment.stream == format.UNIT)

    def _belongs(self, found: Found) -> bool:
        """Whether the record was written for this file, or into the unit from one before."""
        if self._segment.stream == format.UNIT:
            return found.segment <= self._segment.number
        return found.segment == self._segment.number

    # -- behind the stop ---------------------------------------------------------------------------

    async def _zeros_from(self, at: int) -> bool:
        window = self._window
        while at < self._size:
            if not window.base <= at < window.base + window.stop:
                await window.move(at)
            start = at - window.base
            length = min(window.stop - start, len(_ZEROS))
            if not window.buffer.startswith(_ZEROS[:length], start):
                return False
            at += length
        return True

    async def _search(self, at: int) -> None:
        """Find the good frames behind ``at`` and the records of this segment among them."""
        window, result = self._window, self.result
        budget = SEARCH_FACTOR * self._size
        at += 1 if not self._void else 0
        while at < self._size:
            await window.move(at)
            offset, budget = frame.find(window.buffer, 0, window.stop, budget)
            if offset < 0:
                result.gave_up = budget <= 0
                if window.at_end or result.gave_up:
                    return
                at = window.base + max(1, window.stop - frame.FRAME_BYTES_MAX)
                continue
            at = await self._run_of_frames(window.base + offset)

    async def _run_of_frames(self, at: int) -> int:
        """Good frames from ``at`` on; where they end."""
        window, result = self._window, self.result
        self._tally, self._batch = frame.Tally(), at
        while True:
            await window.move(at)
            end, count, wanted, marks = frame.scan(
                window.buffer, 0, window.stop, format.COMMIT_MARK, self._tally
            )
            result.salvaged += count
            for mark in marks:
                self._note_later(mark)
            self._add(0, end)
            at = window.base + end
            if not (wanted and end and not window.at_end):
                return at

    def _note_later(self, mark: frame.Mark) -> None:
        found = self._found(mark)
        self._batch = self._window.base + mark[1]
        if found is not None and found.store == self._store:
            if self._belongs(found):
                self.result.later.append(found)
