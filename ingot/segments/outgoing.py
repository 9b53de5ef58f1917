"""Sealed files on their way out: which may be shipped, what they are called, what is in them.

Guarantees: the digest that a file is shipped under is that of its bytes as they lie here, and of
each frame it is known whether it had its hash when they were digested; nobody is told of a block
that had not. A descriptor given out stays open until its
context ends, also where its file is unlinked meanwhile. Nothing here is read on the loop.

Used by the store, for ``ingot.shipper``.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Final, ParamSpec, TypeVar

from ingot._speedups import frame
from ingot.codec import multihash, varint
from ingot.errors import Corruption, FormatError
from ingot.limits import SHIP_HEADS_BYTES, SHIP_SCAN_BYTES
from ingot.messages import Cid, SealedSegment
from ingot.offload import settled
from ingot.segments import format
from ingot.segments.disk import Disk, OpenFiles, unavailable
from ingot.segments.index import SegmentIndex
from ingot.segments.model import QUARANTINED, SEALED, SegmentInfo
from ingot.segments.scan import SEARCH_FACTOR

P = ParamSpec("P")
T = TypeVar("T")
Block = tuple[bytes, int, int]  # multihash, offset of the block's first byte, length
Span = tuple[int, int]  # of a file: its first byte, and the one behind its last

SHIPPED: Final = (format.UNIT, format.BODY)
HEAD_BYTES: Final = 4 + frame.CID_BYTES  # of a frame, at most

FRAME_BYTES_MAX: Final = frame.FRAME_BYTES_MAX

assert FRAME_BYTES_MAX <= SHIP_SCAN_BYTES


class _Look:
    """How far a file was examined: everything before ``at`` is in ``hasher``, what of it is not
    good in ``spans``. ``lost``: the next frame is to be searched for."""

    def __init__(self, budget: int) -> None:
        self.hasher = sha256()
        self.spans: list[Span] = []
        self.at = 0
        self.lost = False
        self.budget = budget  # bytes to be hashed in vain

    def take(self, data: bytes | memoryview) -> None:
        self.hasher.update(data)
        self.at += len(data)


class Outgoing:
    """See the module's head."""

    def __init__(self, disk: Disk, segments: SegmentIndex, files: OpenFiles) -> None:
        self._disk = disk
        self._index = segments
        self._files = files

    def shippable(self) -> list[SealedSegment]:
        """Units and body segments that are sealed and here, by stream and number."""
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
                info.state == QUARANTINED
                or (info.stream == format.UNIT and info.number in index.damaged),
            )
            for info in infos
            if info.stream in SHIPPED
            and info.state in (SEALED, QUARANTINED)
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

    async def examine(self, segment: SealedSegment) -> tuple[bytes, tuple[Span, ...]]:
        """The sha2-256 multihash of the file, and the spans of it that hold no good frame."""
        look = _Look(SEARCH_FACTOR * segment.bytes)
        with self.open_file(segment) as fd:
            await _to_the_end(self._header, segment, fd, look)
            while look.at < segment.bytes:
                step = self._search if look.lost else self._frames
                await _to_the_end(step, segment, fd, look)
        if look.spans:
            self._index.trusted.discard((segment.stream, segment.number))
        return multihash.of_digest(look.hasher.digest()), tuple(look.spans)

    async def blocks_of(
        self, segment: SealedSegment, spans: Sequence[Span]
    ) -> AsyncGenerator[list[Block], None]:
        """Its blocks outside ``spans`` in the order they stand, some at a time. Not hashed."""
        at = format.HEADER_BYTES
        with self.open_file(segment) as fd:
            for start, stop in [*spans, (segment.bytes, segment.bytes)]:
                while at < start:
                    blocks, at = await _to_the_end(self._heads, segment, fd, at, start)
                    yield blocks
                at = max(at, stop)

    # -- on a thread -------------------------------------------------------------------------------

    def _read(self, segment: SealedSegment, fd: int, at: int, length: int) -> bytes:
        length = min(length, segment.bytes - at)
        data = self._disk.files.pread(fd, length, at)
        if len(data) < length:
            raise _corrupt(segment, at, f"{length} bytes", f"{len(data)} before the file's end")
        return data

    def _header(self, segment: SealedSegment, fd: int, look: _Look) -> None:
        data = self._read(segment, fd, 0, format.HEADER_BYTES)
        if not format.is_header(data):
            look.spans.append((0, format.HEADER_BYTES))
        look.take(data)

    def _frames(self, segment: SealedSegment, fd: int, look: _Look) -> None:
        """Take the good frames that come next."""
        data = self._read(segment, fd, look.at, SHIP_SCAN_BYTES)
        end, _, wanted, _ = frame.scan(data, 0, len(data), format.COMMIT_MARK, frame.Tally())
        last = look.at + len(data) == segment.bytes
        look.lost = end < len(data) and (last or not wanted or not end)
        look.take(memoryview(data)[:end])

    def _search(self, segment: SealedSegment, fd: int, look: _Look) -> None:
        """Pass over what is not good; a good frame may come next."""
        data = self._read(segment, fd, look.at, SHIP_SCAN_BYTES)
        found, look.budget = frame.find(data, 0, len(data), look.budget)
        look.lost = found < 0
        if found < 0:
            last = look.at + len(data) == segment.bytes
            rest = 0 if last or look.budget <= 0 else FRAME_BYTES_MAX - 1
            found = max(1, len(data) - rest)
        start = look.at
        look.take(memoryview(data)[:found])
        if look.spans and look.spans[-1][1] == start:
            start = look.spans.pop()[0]
        look.spans.append((start, look.at))

    def _heads(
        self, segment: SealedSegment, fd: int, start: int, stop: int
    ) -> tuple[list[Block], int]:
        """The blocks of the frames that begin in a window from ``start`` on, and where the next
        one begins; frames end at ``stop``."""
        data = self._read(segment, fd, start, min(SHIP_HEADS_BYTES, stop - start))
        last = start + len(data) == stop
        blocks: list[Block] = []
        at = 0
        while at < len(data) and (last or at + HEAD_BYTES <= len(data)):
            try:
                length, cid = varint.decode(data, at)
            except FormatError as error:
                raise _corrupt(segment, start + at, "a frame", str(error)) from error
            block, end = cid + frame.CID_BYTES, cid + length
            if end < block or start + end > stop:
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
