"""Where blocks stand: a table for a segment that grows, sorted runs for those that do not.

The twin of ``index_c`` and its specification. Called by segments only. Pure.

An entry is 44 bytes, integers little-endian:

    digest (32) ‖ segment (4) ‖ offset of the data in that segment (4) ‖ length of the data (4)

``segment`` is a place in the list of segments that the run's file carries. Entries are sorted as
bytes. The filter says "surely absent" for about 99 of 100 digests that a run does not hold. Its
blocks have 512 bits for 42 entries each; the first eight bytes of a digest, read big-endian, choose
the block in proportion, so that sorted entries fill the blocks in order and a run of any size is
written in one pass; the next eight, little-endian, are six bit numbers of nine bits.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Any

from ingot._speedups.frame_py import CID_BYTES, _parse
from ingot.errors import FormatError

Buffer = Any  # contiguous bytes with the buffer protocol; typing has no word for it before 3.12

ENTRY_BYTES = 44
BLOCK_BYTES = 64
OFFSET_MAX = (1 << 32) - 1
LENGTH_MAX = (1 << 31) - 1

_PLACE = struct.Struct("<III")
_ENTRIES_A_BLOCK = 42
_PROBES = 6


def filter_blocks(count: int) -> int:
    """How many blocks the filter of ``count`` entries has."""
    return max(1, -(-count // _ENTRIES_A_BLOCK))


def _digest(cid: Buffer) -> bytes:
    if len(cid) != CID_BYTES:
        raise ValueError(f"a CID has {CID_BYTES} bytes, not {len(cid)}")
    return bytes(cid[4:])


class Table:
    """The blocks of one segment that still grows; ``expected`` of them need no growing pains. Of a
    block that stands in it twice, the first counts."""

    def __init__(self, expected: int = 0) -> None:
        self._places: dict[bytes, tuple[int, int, bool]] = {}
        self._sorted: list[bytes] = []

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, cid: Buffer) -> bool:
        return _digest(cid) in self._places

    def add(self, cid: Buffer, offset: int, length: int, verified: bool) -> bool:
        """Enter a block's data; False when it was there."""
        if not 0 < offset <= OFFSET_MAX or not 0 <= length <= LENGTH_MAX:
            raise ValueError(f"no place for a block: offset {offset}, length {length}")
        digest = _digest(cid)
        if digest in self._places:
            return False
        self._places[digest] = (offset, length, verified)
        self._sorted.clear()
        return True

    def add_frames(self, buffer: Buffer, start: int, stop: int, base: int, verified: bool) -> int:
        """Enter the whole frames in ``buffer[start:stop]``; ``buffer[start]`` is the file's byte
        ``base``. Returns how many blocks were new."""
        view = memoryview(buffer)
        if not 0 <= start <= stop <= view.nbytes:
            raise ValueError("the span is not inside the buffer")
        count, shift = 0, base - start
        while start < stop:
            cid, end = _parse(view, start, stop)
            if cid < 0:
                raise FormatError(start, "a whole frame", "something else")
            data = cid + CID_BYTES
            count += self.add(bytes(view[cid:data]), data + shift, end - data, verified)
            start = end
        return count

    def fresh(self, blocks: Iterable[tuple[bytes, Buffer]]) -> dict[bytes, Buffer]:
        """Those of ``blocks`` that are not here, each once, in order."""
        return {cid: data for cid, data in blocks if cid not in self}

    def warm(self) -> None:
        """Have the table's memory at hand, so that no insertion waits for the kernel. Takes long,
        without the GIL; nobody else may use the table meanwhile."""

    def find(self, cid: Buffer) -> tuple[int, int, bool] | None:
        """(offset, length, verified) of the block's data."""
        return self._places.get(_digest(cid))

    def verify(self, cid: Buffer) -> None:
        """Mark the block as hashed."""
        digest = _digest(cid)
        if digest in self._places:
            offset, length, _ = self._places[digest]
            self._places[digest] = (offset, length, True)

    def drop_from(self, offset: int) -> int:
        """Forget the blocks whose data begin at ``offset`` or later; how many those were."""
        before = len(self._places)
        self._places = {d: place for d, place in self._places.items() if place[0] < offset}
        self._sorted.clear()
        return before - len(self._places)

    def export(self, cursor: int, limit: int, segment: int) -> tuple[bytes, int]:
        """At most ``limit`` entries in order, and the cursor for the next call. Begin with 0; the
        end is reached when 0 comes back. The table must not change meanwhile."""
        if not self._sorted:
            self._sorted = sorted(self._places)
        out = bytearray()
        for digest in self._sorted[cursor : cursor + limit]:
            offset, length, _ = self._places[digest]
            out += digest + _PLACE.pack(segment, offset, length)
        cursor += limit
        return bytes(out), cursor if cursor < len(self._sorted) else 0


class _Digests(Sequence[bytes]):
    """The digests of a run as a sequence to bisect."""

    def __init__(self, view: memoryview, start: int, count: int) -> None:
        self.view, self.start, self.number = view, start, count

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: Any) -> Any:
        at = self.start + index * ENTRY_BYTES
        return bytes(self.view[at : at + 32])


class Run:
    """A sorted run over ``buffer``, which holds ``count`` entries at ``entries`` and a filter of
    ``blocks`` blocks at ``filter``. Keeps one bit an entry: hashed since the start."""

    def __init__(self, buffer: Buffer, entries: int, count: int, filter: int, blocks: int) -> None:
        self._view = memoryview(buffer)
        size = self._view.nbytes
        if not (0 <= entries <= size and 0 <= count <= (size - entries) // ENTRY_BYTES):
            raise ValueError("the entries are not inside the buffer")
        if not (0 <= filter <= size and 0 < blocks <= (size - filter) // BLOCK_BYTES):
            raise ValueError("the filter is not inside the buffer")
        self._entries, self._filter, self._blocks = entries, filter, blocks
        self._digests = _Digests(self._view, entries, count)
        self._verified = bytearray((count + 7) // 8)

    def __len__(self) -> int:
        return self._digests.number

    def find(self, cid: Buffer) -> int:
        """The first position of the block's digest, or -1."""
        digest = _digest(cid)
        block = int.from_bytes(digest[:8], "big") * self._blocks >> 64
        at = self._filter + block * BLOCK_BYTES
        word = int.from_bytes(self._view[at : at + BLOCK_BYTES], "little")
        if any(not word >> bit & 1 for bit in _bits(digest)):
            return -1
        position = bisect_left(self._digests, digest)
        return position if self.holds(position, cid) else -1

    def holds(self, position: int, cid: Buffer) -> bool:
        """Whether the entry at ``position`` is of this block; False behind the last."""
        if position < 0:
            raise ValueError("a position is not negative")
        return position < len(self) and bool(self._digests[position] == _digest(cid))

    def entry(self, position: int) -> tuple[int, int, int]:
        """(segment, offset, length) at ``position``."""
        self._check(position)
        return _PLACE.unpack_from(self._view, self._entries + position * ENTRY_BYTES + 32)

    def lookup(self, cid: Buffer) -> tuple[int, int, int, bool] | None:
        """(segment, offset, length, verified) of the block's first entry."""
        position = self.find(cid)
        return None if position < 0 else (*self.entry(position), self.verified(position))

    def verified(self, position: int) -> bool:
        """Whether the block was hashed since the start."""
        self._check(position)
        return bool(self._verified[position >> 3] >> (position & 7) & 1)

    def verify(self, position: int) -> None:
        """Mark the block as hashed."""
        self._check(position)
        self._verified[position >> 3] |= 1 << (position & 7)

    def release(self) -> None:
        """Let go of the buffer; the run is not used any more."""
        self._digests.number = 0
        self._digests.view.release()
        self._view.release()

    def _check(self, position: int) -> None:
        if not 0 <= position < len(self):
            raise IndexError("no such entry")


def find_many(
    tables: Sequence[tuple[Table, Any]],
    runs: Sequence[tuple[Run, Sequence[Any]]],
    trusted: Container[Any],
    cids: Sequence[bytes],
) -> tuple[list[tuple[Any, int, int] | None], list[int]]:
    """(segment, offset, length) of each block, from the first table or run that has it, None for a
    block that is nowhere; and the positions in ``cids`` of those that have yet to be hashed.

    A table stands beside its segment, a run beside those that its entries number; one that numbers
    none of them is nowhere. What stands in a ``trusted`` segment need not be hashed.
    """
    places: list[tuple[Any, int, int] | None] = []
    unverified = []
    for position, cid in enumerate(cids):
        found = _find_one(tables, runs, cid)
        places.append(found and found[:3])
        if found is not None and not found[3] and found[0] not in trusted:
            unverified.append(position)
    return places, unverified


def _find_one(
    tables: Sequence[tuple[Table, Any]], runs: Sequence[tuple[Run, Sequence[Any]]], cid: bytes
) -> tuple[Any, int, int, bool] | None:
    for table, segment in tables:
        place = table.find(cid)
        if place is not None:
            return (segment, *place)
    for run, segments in runs:
        entry = run.lookup(cid)
        if entry is not None:
            name, offset, length, verified = entry
            return (segments[name], offset, length, verified) if name < len(segments) else None
    return None


def _bits(digest: bytes) -> Iterator[int]:
    word = int.from_bytes(digest[8:16], "little")
    return (word >> 9 * probe & 511 for probe in range(_PROBES))


class Filter:
    """Builds the filter of a run while its entries are written in order."""

    def __init__(self, count: int) -> None:
        self._blocks = filter_blocks(count)
        self._block, self._word = 0, 0

    def add(self, entries: Buffer) -> bytes:
        """Take the next entries; the blocks that are complete now."""
        view, out = memoryview(entries), bytearray()
        if view.nbytes % ENTRY_BYTES:
            raise ValueError("half an entry")
        for at in range(0, view.nbytes, ENTRY_BYTES):
            digest = bytes(view[at : at + 32])
            block = int.from_bytes(digest[:8], "big") * self._blocks >> 64
            if block < self._block:
                raise FormatError(at, "entries in order", digest.hex())
            if block > self._block:
                out += self._flush(block)
            for bit in _bits(digest):
                self._word |= 1 << bit
        return bytes(out)

    def finish(self) -> bytes:
        """The blocks that are left."""
        return self._flush(self._blocks)

    def _flush(self, block: int) -> bytes:
        out = self._word.to_bytes(BLOCK_BYTES, "little")
        out += bytes((block - self._block - 1) * BLOCK_BYTES)
        self._block, self._word = block, 0
        return out


class Merge:
    """Merges sorted entries of several runs into one order, a piece at a time.

    ``segments[i][n]`` is what segment ``n`` of source ``i`` is called in the result.
    """

    def __init__(self, segments: Sequence[Sequence[int]]) -> None:
        self._segments = [list(names) for names in segments]
        self._pieces: list[bytes | None] = [b"" for _ in segments]
        self._at = [0 for _ in segments]
        self._last = [b"" for _ in segments]

    def hungry(self) -> int:
        """The first source that must be fed before the next step, or -1."""
        for source, piece in enumerate(self._pieces):
            if piece is not None and self._at[source] == len(piece):
                return source
        return -1

    def feed(self, source: int, entries: Buffer) -> None:
        """The next entries of ``source``; none: it has ended."""
        piece = self._pieces[source]
        if piece is None or self._at[source] != len(piece):
            raise ValueError("the source is not hungry")
        if len(entries) % ENTRY_BYTES:
            raise ValueError("half an entry")
        self._pieces[source] = bytes(entries) if len(entries) else None
        self._at[source] = 0

    def step(self, limit: int) -> bytes:
        """At most ``limit`` merged entries; fewer when a source is hungry, none at the end.
        FormatError when a source is out of order or names a segment that it does not have."""
        out = bytearray()
        while limit > 0 and self.hungry() < 0:
            source = min(
                (s for s, piece in enumerate(self._pieces) if piece is not None),
                key=lambda s: (self._digest(s), s),
                default=-1,
            )
            if source < 0:
                break
            out += self._take(source)
            limit -= 1
        return bytes(out)

    def _digest(self, source: int) -> bytes:
        piece, at = self._pieces[source], self._at[source]
        assert piece is not None
        return piece[at : at + 32]

    def _take(self, source: int) -> bytes:
        piece, at, names = self._pieces[source], self._at[source], self._segments[source]
        assert piece is not None
        digest = piece[at : at + 32]
        segment, offset, length = _PLACE.unpack_from(piece, at + 32)
        if digest < self._last[source]:
            raise FormatError(at, "entries in order", digest.hex())
        if segment >= len(names):
            raise FormatError(at, f"one of {len(names)} segments", str(segment))
        self._last[source] = digest
        self._at[source] = at + ENTRY_BYTES
        return digest + _PLACE.pack(names[segment], offset, length)
