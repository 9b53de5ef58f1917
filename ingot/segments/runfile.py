"""Run files: where the blocks of sealed segments stand, sorted by digest.

A run covers one segment, or several once it was merged. It is always rebuildable from the segments
and never required: one that is missing or damaged costs a scan of what it covered, nothing else.
Written under a temporary name, synced, renamed, its directory synced. Integers are little-endian.

    0     8    "ingotidx"
    8     4    version: 1
    12    4    S, segments covered
    16    8    N, entries
    24    8    B, filter blocks
    32    8    offset of the filter (64-byte aligned)
    40    8    offset of the entries, which end the file
    48    32   sha256 of the filter
    80    32   sha256 of the entries
    112   32   sha256 of bytes 0 to 111 and of the segment list
    144   124S segment list: kind (1: 0 log, 1 body, 2 unit), state (1: 0 sealed, 1 quarantined),
               has-before (1), 0 (1), then number, logical length, first and last commit sequence,
               furthest body position needed (segment, end) as 8 bytes each, CID of the last commit
               record (36), CID that the first record names as previous (36); zeros where absent
          64B  filter, 44N entries: ``ingot._speedups.index_py``

The head is checked when a run is opened, the filter and the entries by an audit in the background,
since a start must not read what it does not need.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from ingot._speedups import digest, index
from ingot.errors import FormatError
from ingot.messages import BodyPosition
from ingot.ports import Job
from ingot.segments import format
from ingot.segments.disk import Disk
from ingot.segments.model import QUARANTINED, SEALED, Key, SegmentInfo

MAGIC: Final = b"ingotidx"
VERSION: Final = 1
_HEAD: Final = struct.Struct("<8sIIQQQQ32s32s")
_SEGMENT: Final = struct.Struct("<BBBxQQQQQQ36s36s")
_LIST_AT: Final = 144
_STATES: Final = (SEALED, QUARANTINED)
_NONE: Final = bytes(36)

assert _HEAD.size + 32 == _LIST_AT and _SEGMENT.size == 124


@dataclass(slots=True, eq=False)
class OpenRun:
    """A run that is in use. ``infos[n]`` is the segment that its entries call ``n``, and
    ``keys[n]`` its key."""

    number: int
    infos: list[SegmentInfo]
    run: index.Run
    view: memoryview  # of the whole file
    filter_at: int
    entries_at: int
    filter_digest: bytes
    entries_digest: bytes
    audited: bool
    keys: list[Key] = field(init=False)

    def __post_init__(self) -> None:
        self.keys = [info.key for info in self.infos]

    @property
    def name(self) -> str:
        return format.file_name(format.RUN, self.number)

    def __len__(self) -> int:
        return len(self.run)

    def release(self) -> None:
        """Unmap it. Nobody holds a position in it any more."""
        self.run.release()
        self.view.release()


class UnknownVersion(FormatError):
    """A run of a later ingot: left alone, its segments are indexed again."""


def _pack_segment(info: SegmentInfo) -> bytes:
    needs = info.needs or BodyPosition(0, 0)
    return _SEGMENT.pack(
        format.SEGMENTS.index(info.stream),
        _STATES.index(info.state),
        info.before is not None,
        info.number,
        info.bytes,
        info.first_commit,
        info.last_commit,
        needs.segment,
        needs.end,
        info.root or _NONE,
        info.before or _NONE,
    )


def _unpack_segment(data: bytes, at: int) -> SegmentInfo:
    fields = _SEGMENT.unpack_from(data, at)
    stream, state, has_before, number, length, first, last, needs_segment, needs_end = fields[:9]
    root, before = fields[9:]
    if stream > 2 or state > 1 or has_before > 1:
        raise FormatError(_LIST_AT + at, "a stream, a state and a flag", data[at : at + 3].hex())
    return SegmentInfo(
        format.SEGMENTS[stream],
        number,
        _STATES[state],
        length,
        first,
        last,
        root if last else None,
        before if has_before else None,
        BodyPosition(needs_segment, needs_end) if needs_end else None,
    )


class RunWriter:
    """Writes one run, entries in order and a piece at a time, so that no step holds the loop."""

    def __init__(self, disk: Disk, number: int, infos: Sequence[SegmentInfo], count: int) -> None:
        self._disk = disk
        self._infos = list(infos)
        self._number = number
        self._name = format.file_name(format.RUN, number)
        self._count = count
        self._blocks = index.filter_blocks(count)
        list_end = _LIST_AT + _SEGMENT.size * len(self._infos)
        self._filter_at = -(-list_end // 64) * 64
        self._entries_at = self._filter_at + self._blocks * index.BLOCK_BYTES
        self._filter = index.Filter(count)
        self._filter_end, self._entries_end = self._filter_at, self._entries_at
        self._filter_hash = digest.Hasher("sha256")
        self._entries_hash = digest.Hasher("sha256")
        self._file = format.unfinished_name(format.RUN, number)
        self._fd = -1

    async def begin(self) -> None:
        disk = self._disk
        self._fd = await disk.call(disk.files.create, disk.path(self._file))

    async def add(self, entries: bytes) -> None:
        """The next entries, in order."""
        lane = self._disk.lanes.body
        job = lane.job()
        job.pwrite(self._fd, self._entries_end, entries)
        self._entries_end += len(entries)
        job.update(self._entries_hash, entries)
        self._put_filter(job, self._filter.add(entries))
        await self._disk.run(lane, job)

    async def finish(self) -> OpenRun:
        """Make the run durable under its name and open it."""
        written = (self._entries_end - self._entries_at) // index.ENTRY_BYTES
        assert written == self._count, "as many entries as were announced"
        disk, files, lane = self._disk, self._disk.files, self._disk.lanes.body
        job = lane.job()
        self._put_filter(job, self._filter.finish())
        await disk.run(lane, job)
        head = _HEAD.pack(
            MAGIC,
            VERSION,
            len(self._infos),
            self._count,
            self._blocks,
            self._filter_at,
            self._entries_at,
            self._filter_hash.digest(),
            self._entries_hash.digest(),
        )
        segments = b"".join(_pack_segment(info) for info in self._infos)
        job = lane.job()
        job.pwrite(self._fd, 0, head + sha256(head + segments).digest() + segments)
        job.fdatasync(self._fd)
        await disk.run(lane, job)
        await disk.call(files.rename, disk.path(self._file), disk.path(self._name))
        self._file = self._name
        await disk.call(disk.sync_directory)
        held = _open(disk, self._number, self._fd, audited=True)
        fd, self._fd = self._fd, -1
        disk.close_quietly(fd, self._name)
        return held

    def abandon(self) -> None:
        """Remove what was written; the segments keep their tables meanwhile."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._disk.discard(self._file, fd)

    def _put_filter(self, job: Job, blocks: bytes) -> None:
        if blocks:
            job.pwrite(self._fd, self._filter_end, blocks)
            self._filter_end += len(blocks)
            job.update(self._filter_hash, blocks)


def load(disk: Disk, number: int) -> OpenRun:
    """Open run ``number`` and check its head. FormatError when it is damaged."""
    name = format.file_name(format.RUN, number)
    fd = disk.files.open(disk.path(name))
    try:
        return _open(disk, number, fd, audited=False)
    finally:
        disk.close_quietly(fd, name)


def _open(disk: Disk, number: int, fd: int, audited: bool) -> OpenRun:
    files = disk.files
    head = files.pread(fd, _LIST_AT, 0)
    if len(head) < _LIST_AT or head[:8] != MAGIC:
        raise FormatError(0, "the head of a run", head[:8].hex() or "an empty file")
    _, version, listed, count, blocks, filter_at, entries_at, filter_digest, entries_digest = (
        _HEAD.unpack_from(head)
    )
    if version != VERSION:
        raise UnknownVersion(8, f"version {VERSION}", f"version {version}")
    size = files.size(fd)
    if not _LIST_AT <= _LIST_AT + listed * _SEGMENT.size <= filter_at <= entries_at <= size:
        raise FormatError(12, "parts that lie inside the file", f"{listed} segments")
    segments = files.pread(fd, listed * _SEGMENT.size, _LIST_AT)
    if sha256(head[: _HEAD.size] + segments).digest() != head[_HEAD.size :]:
        raise FormatError(_HEAD.size, "the digest of the head", head[_HEAD.size :].hex())
    if size != entries_at + count * index.ENTRY_BYTES:
        raise FormatError(16, f"a file for {count} entries", f"{size} bytes")
    if entries_at != filter_at + blocks * index.BLOCK_BYTES or not blocks:
        raise FormatError(24, "a filter before the entries", f"{blocks} blocks")
    infos = [_unpack_segment(segments, at) for at in range(0, len(segments), _SEGMENT.size)]
    view = files.map(fd, size)
    run = index.Run(view, entries_at, count, filter_at, blocks)
    return OpenRun(
        number, infos, run, view, filter_at, entries_at, filter_digest, entries_digest, audited
    )


async def audit(disk: Disk, held: OpenRun) -> bool:
    """Whether the filter and the entries are what was written. Reads all of the file, in steps."""
    fd = disk.files.open(disk.path(held.name))
    try:
        step = disk.settings.merge_bytes
        parts = (
            (held.filter_at, held.entries_at, held.filter_digest),
            (held.entries_at, held.view.nbytes, held.entries_digest),
        )
        for start, end, expected in parts:
            running = digest.Hasher("sha256")
            while start < end:
                piece = bytearray(min(step, end - start))
                job = disk.lanes.read.job()
                job.pread(fd, start, piece)
                job.update(running, piece)
                await disk.run(disk.lanes.read, job)
                start += len(piece)
            if running.digest() != expected:
                return False
    finally:
        disk.close_quietly(fd, held.name)
    held.audited = True
    return True
