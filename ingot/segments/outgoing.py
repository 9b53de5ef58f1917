"""Sealed files on their way out: which may be shipped, what they are called, what is in them.

Guarantees: the digest that a file is shipped under is that of bytes whose every frame has its hash;
what is damaged is Corruption and is not shipped. A descriptor given out stays open until its
context ends, also where its file is unlinked meanwhile. Nothing here is read on the loop.

Used by the store, for ``ingot.shipper``.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from typing import Any, Final, ParamSpec, TypeVar

from ingot._speedups import frame
from ingot.codec import multihash, varint
from ingot.errors import Corruption, FormatError
from ingot.limits import SHIP_HEADS_BYTES, SHIP_SCAN_BYTES
from ingot.messages import Cid, SealedSegment
from ingot.offload import settled
from ingot.segments import format
from ingot.segments.disk import Disk, OpenFiles, unavailable
from ingot.segments.index import SegmentIndex
from ingot.segments.model import SEALED, SegmentInfo

P = ParamSpec("P")
T = TypeVar("T")
Block = tuple[bytes, int, int]  # multihash, offset of the block's first byte, length

SHIPPED: Final = (format.UNIT, format.BODY)
HEAD_BYTES: Final = 4 + frame.CID_BYTES  # of a frame, at most

assert frame.FRAME_BYTES_MAX <= SHIP_SCAN_BYTES


class Outgoing:
    """See the module's head."""

    def __init__(self, disk: Disk, segments: SegmentIndex, files: OpenFiles) -> None:
        self._disk = disk
        self._index = segments
        self._files = files

    def shippable(self) -> list[SealedSegment]:
        """Units and body segments that are sealed, whole and here, by stream and number."""
        index = self._index
        infos = index.sealed()
        known = [*infos, *(segment.info() for segment in index.growing.values())]
        ends = {info.root: info.last_commit for info in known if info.root is not None}
        found = [
            SealedSegment(
                info.stream,
                info.number,
                info.bytes,
                _first_commit(info, ends),
                info.last_commit,
                info.needs,
            )
            for info in infos
            if info.stream in SHIPPED
            and info.state == SEALED
            and info.bytes > format.HEADER_BYTES
            and info.key not in index.absent
            and info.key not in index.growing
        ]
        return sorted(found, key=lambda segment: (segment.stream, segment.number))

    def body_numbers(self) -> set[int]:
        """Of all body segments that a commit may need: those of which nothing is durable yet may
        still vanish, and no commit names them."""
        keys = [info.key for info in self._index.sealed() if not _is_void(info)]
        keys += [segment.key for segment in self._index.growing.values() if not segment.empty]
        return {number for stream, number in keys if stream == format.BODY}

    @contextmanager
    def open_file(self, segment: SealedSegment) -> Iterator[int]:
        key = segment.stream, segment.number
        try:
            fd = self._files.pin(key)
        except OSError as error:
            what = f"{format.file_name(*key)} cannot be opened"
            raise unavailable(what, error, self._disk.directory) from error
        try:
            yield fd
        finally:
            self._files.unpin(key)

    async def digest_of(self, segment: SealedSegment) -> bytes:
        hasher, tally = sha256(), frame.Tally()
        with self.open_file(segment) as fd:
            at = await _to_the_end(self._header, segment, fd, hasher)
            while at < segment.bytes:
                at = await _to_the_end(self._frames, segment, fd, at, hasher, tally)
        return multihash.of_digest(hasher.digest())

    async def blocks_of(self, segment: SealedSegment) -> AsyncGenerator[list[Block], None]:
        """Its blocks in the order they stand, some at a time. Not hashed."""
        at = format.HEADER_BYTES
        with self.open_file(segment) as fd:
            while at < segment.bytes:
                blocks, at = await _to_the_end(self._heads, segment, fd, at)
                yield blocks

    # -- on a thread -------------------------------------------------------------------------------

    def _read(self, segment: SealedSegment, fd: int, at: int, length: int) -> bytes:
        length = min(length, segment.bytes - at)
        data = self._disk.files.pread(fd, length, at)
        if len(data) < length:
            raise _corrupt(segment, at, f"{length} bytes", f"{len(data)} before the file's end")
        return data

    def _header(self, segment: SealedSegment, fd: int, hasher: Any) -> int:
        data = self._read(segment, fd, 0, format.HEADER_BYTES)
        if not format.is_header(data):
            raise _corrupt(segment, 0, "a header of ours", data.hex())
        hasher.update(data)
        return format.HEADER_BYTES

    def _frames(
        self, segment: SealedSegment, fd: int, at: int, hasher: Any, tally: frame.Tally
    ) -> int:
        """Verify the frames from ``at`` on, feed their bytes to ``hasher``; where they end."""
        data = self._read(segment, fd, at, SHIP_SCAN_BYTES)
        end, _, wanted, _ = frame.scan(data, 0, len(data), format.COMMIT_MARK, tally)
        if end < len(data) and (not wanted or at + len(data) == segment.bytes):
            raise _corrupt(segment, at + end, "a frame that has its hash", "another one, or none")
        hasher.update(memoryview(data)[:end])
        return at + end

    def _heads(self, segment: SealedSegment, fd: int, start: int) -> tuple[list[Block], int]:
        """The blocks of the frames that begin in a window from ``start`` on, and where the next
        one begins."""
        data = self._read(segment, fd, start, SHIP_HEADS_BYTES)
        last = start + len(data) == segment.bytes
        blocks: list[Block] = []
        at = 0
        while at < len(data) and (last or at + HEAD_BYTES <= len(data)):
            try:
                length, cid = varint.decode(data, at)
            except FormatError as error:
                raise _corrupt(segment, start + at, "a frame", str(error)) from error
            block, end = cid + frame.CID_BYTES, cid + length
            if end < block or start + end > segment.bytes:
                raise _corrupt(segment, start + at, "a frame", f"one of {length} bytes")
            blocks.append((data[cid + 2 : block], start + block, end - block))
            at = end
        return blocks, start + at


async def _to_the_end(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """``work`` on a thread; also when cancelled meanwhile, for it uses the caller's descriptor."""
    bound = functools.partial(work, *args, **kwargs)
    doing = asyncio.get_running_loop().run_in_executor(None, bound)
    await settled([doing])
    return doing.result()


def _first_commit(info: SegmentInfo, ends: Mapping[Cid, int]) -> int:
    """The first commit number that the segment accounts for: the one behind the segment that its
    commits continue. Numbers between the two were skipped by a start and are in no segment."""
    if info.before is None or info.before not in ends:
        return info.first_commit
    return ends[info.before] + 1


def _is_void(info: SegmentInfo) -> bool:
    """A crash left it without one good frame, and it is needed by no commit, or it would be
    quarantined."""
    return info.state == SEALED and info.bytes <= format.HEADER_BYTES


def _corrupt(segment: SealedSegment, at: int, expected: str, found: str) -> Corruption:
    where = f"{format.file_name(segment.stream, segment.number)} at byte {at}"
    return Corruption(where, expected, found)
