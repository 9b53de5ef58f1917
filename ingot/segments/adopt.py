"""Segments whose files lie elsewhere, taken into a directory by their indexes alone.

    what others say of its blocks ──> Contents ──gaps? disputes?──> frames read and hashed ──> a run

A run tells where the blocks of a segment stand, and that is all that this directory needs of a
segment that is cold. Guarantee: a run is written only if it accounts for every byte of its segments
or its maker was told which it does not (``Contents.gaps``). What others say is not believed to be
true, for every block is hashed when it is read; it is believed to be all, unless two of them say
different things (``Contents.disputed``), for anybody may say something.

Called by ``ingot restore`` before the store is opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ingot._speedups import frame, index
from ingot.codec import multihash, varint
from ingot.errors import FormatError
from ingot.messages import CommitRecord
from ingot.segments import format
from ingot.segments.commit import decode_commit
from ingot.segments.disk import Disk
from ingot.segments.model import SegmentInfo
from ingot.segments.runfile import RunWriter

_CID: Final = bytes.fromhex("01551220")  # the index knows blocks by their digests alone
_NAME_BYTES: Final = len(multihash.SHA2_256_PREFIX) + 32


class Contents:
    """Where the blocks of one segment of ``size`` bytes stand."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._places: dict[int, int] = {}  # length by offset
        self._disputed = ""
        self.table = index.Table()

    def add(self, slices: Mapping[bytes, tuple[int, int]]) -> None:
        """Blocks as somebody says: first and last byte by multihash. FormatError, and none of them
        is taken, where one is no frame inside of the segment or not named by its sha2-256."""
        for name, (start, end) in slices.items():
            if len(name) != _NAME_BYTES or not name.startswith(multihash.SHA2_256_PREFIX):
                raise FormatError(start, "a block named by its sha2-256", name.hex())
            length = end - start + 1
            inside = _frame_start(start, length) >= format.HEADER_BYTES and end < self._size
            if not (inside and 0 < length <= frame.DATA_BYTES_MAX):
                raise FormatError(start, f"a frame inside {self._size} bytes", f"{length} bytes")
        for name, (start, end) in slices.items():
            block, length = _CID + name[len(multihash.SHA2_256_PREFIX) :], end - start + 1
            known = self.table.find(block)
            if known is None and start not in self._places:
                self.table.add(block, start, length, False)
                self._places[start] = length
            elif known is None or known[:2] != (start, length):
                self._disputed = self._disputed or f"two tell different things of byte {start}"

    def disputed(self) -> str:
        """Why what was said cannot all be true; "" where it can."""
        at = format.HEADER_BYTES
        for offset, length in sorted(self._places.items()):
            if _frame_start(offset, length) < at:
                return self._disputed or f"two blocks overlap at byte {offset}"
            at = offset + length
        return self._disputed

    def read(self, data: bytes, base: int) -> int:
        """The whole frames in ``data``, which begins at the segment's byte ``base``: each is
        hashed. How many bytes they take."""
        end, _, _, _ = frame.scan(data, 0, len(data), format.COMMIT_MARK, frame.Tally())
        self.table.add_frames(data, 0, end, base, False)
        at = 0
        while at < end:
            length, start = varint.decode(data, at)
            at = start + length
            self._places[base + start + frame.CID_BYTES] = length - frame.CID_BYTES
        return end

    def search(self, data: bytes, budget: int) -> tuple[int, int]:
        """Where behind the first byte of ``data`` a frame begins that has its hash, or -1; and what
        is left of ``budget``, the bytes to hash in vain."""
        return frame.find(data, 1, len(data), budget)

    def gaps(self) -> list[tuple[int, int]]:
        """The bytes [start, stop) of the segment that belong to no frame of a known block."""
        found: list[tuple[int, int]] = []
        at = format.HEADER_BYTES
        for offset, length in sorted(self._places.items()):
            start = _frame_start(offset, length)
            if start > at:
                found.append((at, start))
            at = max(at, offset + length)
        if at < self._size:
            found.append((at, self._size))
        return found


def _frame_start(offset: int, length: int) -> int:
    """Where the frame begins whose ``length`` bytes of data stand at ``offset``."""
    return offset - frame.CID_BYTES - len(varint.encode(frame.CID_BYTES + length))


def is_segment(head: bytes) -> bool:
    """Whether a file that begins like this may be a segment that was sealed."""
    return format.is_header(head)


def first_commit(head: bytes) -> CommitRecord | None:
    """The first commit record in the beginning of a segment's file; None where it lies behind
    that. FormatError for one that is no record of ours."""
    stop = len(head)
    tally = frame.Tally()
    _, _, _, marks = frame.scan(head, format.HEADER_BYTES, stop, format.COMMIT_MARK, tally)
    return decode_commit(marks[0][3]) if marks else None


async def write_run(
    disk: Disk, number: int, segments: Sequence[tuple[SegmentInfo, Contents]]
) -> None:
    """Make run ``number`` of these segments durable. OSError."""
    infos = [info for info, _ in segments]
    tables = [contents.table for _, contents in segments]
    limit = max(1, disk.settings.merge_bytes // index.ENTRY_BYTES)
    writer = RunWriter(disk, number, infos, sum(len(table) for table in tables))
    merge = index.Merge([[place] for place in range(len(tables))])
    sources = [_exported(table, limit) for table in tables]
    try:
        await writer.begin()
        while True:
            source = merge.hungry()
            if source >= 0:
                merge.feed(source, next(sources[source], b""))
                continue
            entries = merge.step(limit)
            if entries:
                await writer.add(entries)
            elif merge.hungry() < 0:
                break
        (await writer.finish()).release()
    finally:
        writer.abandon()


def _exported(table: index.Table, limit: int) -> Iterator[bytes]:
    cursor = 0
    while len(table):
        entries, cursor = table.export(cursor, limit, 0)
        yield entries
        if not cursor:
            return
