"""Reads every frame of every segment again and follows the commits: one half of ``ingot fsck``.

Guarantees: what is not named as damaged is what was written, byte for byte, up to each segment's
logical end; the commits are one chain, each fits the frames before it, and each moves every bucket
from the head where the one before left it. Changes nothing. Waits for nobody: between two windows
others have their turn.

A spot is damage in one file: it begins where a good frame or the header ends and reaches to the
next good frame. Who needs what stood there is not known here; ``ingot.bucket.fsck`` finds out.

Called by the store.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from ingot._speedups import frame
from ingot.codec import varint
from ingot.errors import FormatError
from ingot.limits import GIB
from ingot.messages import Cid, CommitRecord, HeadMove
from ingot.segments import format
from ingot.segments.commit import decode_commit
from ingot.segments.disk import Disk
from ingot.segments.model import Key, Location, SegmentInfo
from ingot.segments.scan import SEARCH_FACTOR, Window

BYTES_PER_REPORT = GIB


@dataclass(slots=True, eq=False)
class Spot:
    """Bytes of a segment that are not good frames."""

    key: Key
    start: int
    end: int
    cids: list[Cid]  # of the frames that begin there, as far as their heads can be read
    needed_by: str = ""  # who needs what stood there
    lost: bool = False  # and it can be read nowhere else

    def __str__(self) -> str:
        return f"{format.file_name(*self.key)}, bytes {self.start} to {self.end}"


@dataclass(slots=True)
class Verified:
    """What was read, and what is wrong with it."""

    segments: int = 0
    cold: int = 0  # segments that are not here to be read
    frames: int = 0
    read: int = 0  # bytes
    first_commit: int = 0
    last_commit: int = 0
    spots: list[Spot] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)  # what is wrong with the chain of commits
    remarks: list[str] = field(default_factory=list)  # what is wrong and harms nothing
    heads: dict[bytes, HeadMove] = field(default_factory=dict)  # the last of each live bucket
    unread: bool = False  # there are commits in cold segments: more buckets may have heads


class Verifier:
    """One pass over a store that was opened and takes no commits meanwhile. ``say`` hears how far
    it is, every gibibyte; ``tip`` is the newest commit that is known to have been."""

    def __init__(
        self,
        disk: Disk,
        store: bytes,
        tip: tuple[Cid | None, int],
        say: Callable[[str], None],
        cold: Collection[Key] = (),
    ) -> None:
        self.found = Verified()
        self._disk = disk
        self._chain = _Chain(store, self.found)
        self._tip = tip
        self._say = say
        self._said = 0
        self._cold = cold

    async def run(self, segments: Iterable[SegmentInfo]) -> Verified:
        """``segments`` are those whose files are here, or which are cold: of these only their
        place in the chain is looked at."""
        ordered = sorted(segments, key=lambda info: (info.stream == format.BODY, info.number))
        total = sum(info.bytes for info in ordered if info.key not in self._cold)
        for info in ordered:
            if info.key in self._cold:
                self.found.cold += 1
                if info.last_commit:
                    self._chain.pass_over(info)
                continue
            await self._segment(info, total)
            self.found.segments += 1
        self._chain.end(*self._tip)
        return self.found

    async def _segment(self, info: SegmentInfo, total: int) -> None:
        disk, name = self._disk, format.file_name(*info.key)
        try:
            fd = disk.files.open(disk.path(name))
        except OSError as error:
            self.found.remarks.append(f"{name} cannot be opened ({error.strerror})")
            self._damaged(info.key, format.HEADER_BYTES, info.bytes, [])
            return
        try:
            await self._frames(info, fd, total)
        finally:
            disk.close_quietly(fd, name)

    async def _frames(self, info: SegmentInfo, fd: int, total: int) -> None:
        end = min(info.bytes, self._disk.files.size(fd))
        window = Window(self._disk, fd, end, [])
        await window.move(0)
        if not format.is_header(bytes(window.buffer[: format.HEADER_BYTES])):
            self.found.remarks.append(f"{format.file_name(*info.key)}: its header is damaged")
        at, tally, budget = format.HEADER_BYTES, frame.Tally(), SEARCH_FACTOR * end
        while at < end:
            await window.move(at)
            length, count, wanted, marks = frame.scan(
                window.buffer, 0, window.stop, format.COMMIT_MARK, tally
            )
            self.found.frames += count
            for mark in marks if info.stream in format.COMMITS else ():
                self._chain.follow(info.key, at, mark)
            before, at = at, at + length
            if at < end and not (wanted and length and not window.at_end):
                start = at
                at, cids, budget = await self._next_good(window, start, end, budget)
                self._damaged(info.key, start, at, cids)
                tally = frame.Tally()
            self._progress(at - before, total)
            await asyncio.sleep(0)
        if end < info.bytes:
            self._damaged(info.key, end, info.bytes, [])

    async def _next_good(
        self, window: Window, at: int, end: int, budget: int
    ) -> tuple[int, list[Cid], int]:
        """Where the next good frame begins, the CIDs that stand in the heads until there, and what
        is left of the bytes that may be hashed in vain."""
        await window.move(at)
        claims = _claims(window, end)
        search = at + 1
        while search < end and budget > 0:
            await window.move(search)
            offset, budget = frame.find(window.buffer, 0, window.stop, budget)
            if offset >= 0:
                end = window.base + offset
                break
            if window.at_end:
                break
            search = window.base + max(1, window.stop - frame.FRAME_BYTES_MAX)
        return end, [cid for start, cid in claims if start < end], budget

    def _damaged(self, key: Key, start: int, end: int, cids: list[Cid]) -> None:
        spot = Spot(key, start, end, cids)
        self.found.spots.append(spot)
        if key[0] in format.COMMITS:
            self._chain.suspect(spot)

    def _progress(self, done: int, total: int) -> None:
        found = self.found
        found.read += done
        if found.read - self._said >= BYTES_PER_REPORT:
            self._said = found.read
            self._say(f"segments: {found.read} of {total} bytes, {len(found.spots)} damaged so far")


def _claims(window: Window, end: int) -> list[tuple[int, Cid]]:
    """Offsets and CIDs of the frames that seem to stand at the window's start, one behind the
    other."""
    claims: list[tuple[int, Cid]] = []
    at, view = 0, memoryview(window.buffer)[: window.stop]
    while True:
        try:
            number, after = varint.decode(view, at)
        except FormatError:
            return claims
        cid = bytes(view[after : after + frame.CID_BYTES])
        if cid[:1] + cid[2:4] != b"\x01\x12\x20" or number > end - window.base - after:
            return claims
        claims.append((window.base + at, cid))
        at = after + max(number, frame.CID_BYTES)


class _Chain:
    """The commits in the order of the log."""

    def __init__(self, store: bytes, found: Verified) -> None:
        self._store = store
        self._found = found
        self._last: tuple[Cid | None, int] = (None, 0)
        self._suspects: list[Spot] = []  # damage since the last good record

    def suspect(self, spot: Spot) -> None:
        """Damage in the log: a record may have stood there."""
        self._suspects.append(spot)

    def follow(self, key: Key, base: int, mark: frame.Mark) -> None:
        """The next record that can be read."""
        at, _, cid, block, frames, digest = mark
        where = f"{format.file_name(*key)} at byte {base + at}"
        try:
            record = decode_commit(block)
        except FormatError as error:
            self._broken(f"{where}: a commit record cannot be read: {error}")
            return
        unit = key[0] == format.UNIT
        if record.store != self._store or (
            record.segment > key[1] if unit else record.segment != key[1]
        ):
            self._broken(
                f"{where}: a commit record of segment {record.segment} of store "
                f"{record.store.hex()}"
            )
            return
        hurt = [spot for spot in self._suspects if spot.key == key]
        fits = unit or (record.frames == frames and record.frames_digest == digest)
        if not fits and not hurt:
            self._broken(f"{where}: commit {record.sequence} does not fit the frames before it")
        linked = self._join(where, cid, record)
        self._move(where, record, linked)
        self._found.first_commit = self._found.first_commit or record.sequence
        self._found.last_commit = record.sequence
        self._last = cid, record.sequence
        self._suspects.clear()

    def pass_over(self, info: SegmentInfo) -> None:
        """A segment that is cold: its commits are known to be there, not what they moved."""
        last, sequence = self._last
        if info.first_commit > sequence + 1:
            name = format.file_name(*info.key)
            self._missing(sequence + 1, info.first_commit - 1, f"before {name}")
        elif info.before != last or info.first_commit != sequence + 1:
            self._broken(f"{format.file_name(*info.key)} does not continue commit {sequence}")
        self._last = info.root, info.last_commit
        self._found.first_commit = self._found.first_commit or info.first_commit
        self._found.last_commit = info.last_commit
        self._found.heads.clear()
        self._found.unread = True
        self._suspects.clear()

    def end(self, tip: Cid | None, sequence: int) -> None:
        """Whether the log ends where it is known to have ended."""
        cid, last = self._last
        if last < sequence:
            self._missing(last + 1, sequence, "at the end of the log")
        elif tip is not None and cid != tip:
            self._broken(f"commit {last} is the last, but not the one that the index calls so")

    def _join(self, where: str, cid: Cid, record: CommitRecord) -> bool:
        """Whether the record continues the one before it."""
        last, sequence = self._last
        if record.previous == last and record.sequence == sequence + 1:
            return True
        if record.sequence > sequence + 1:
            self._missing(sequence + 1, record.sequence - 1, f"before {where}")
        else:
            self._broken(
                f"{where}: commit {record.sequence} does not continue commit {sequence} before it"
            )
        return False

    def _missing(self, first: int, last: int, where: str) -> None:
        which = f"commit {first} is" if first == last else f"commits {first} to {last} are"
        for spot in self._suspects:
            spot.needed_by, spot.lost = f"the chain of commits: {which} missing", True
        self._broken(f"{which} missing {where}")

    def _move(self, where: str, record: CommitRecord, linked: bool) -> None:
        heads = self._found.heads
        for move in record.moves:
            before = heads.get(move.bucket)
            known = before is not None or not self._found.unread
            if linked and known and (None if before is None else before.new) != move.old:
                self._broken(
                    f"{where}: commit {record.sequence} moves bucket {move.name} from a head at "
                    "which no commit left it"
                )
            if move.new is None:
                heads.pop(move.bucket, None)
            else:
                heads[move.bucket] = move

    def _broken(self, what: str) -> None:
        self._found.broken.append(what)


class Suspects:
    """Finds the spots that concern a block."""

    def __init__(self, spots: Sequence[Spot]) -> None:
        self._by_cid: dict[Cid, list[Spot]] = {}
        self._by_key: dict[Key, list[Spot]] = {}  # in order
        for spot in spots:
            self._by_key.setdefault(spot.key, []).append(spot)
            for cid in spot.cids:
                self._by_cid.setdefault(cid, []).append(spot)

    def __bool__(self) -> bool:
        return bool(self._by_key)

    def of(self, cid: Cid, places: Iterable[Location]) -> list[Spot]:
        """Those in which the block's frame lies, whole or in part, by the index or by itself."""
        found = list(self._by_cid.get(cid, ()))
        for place in places:
            spots = self._by_key.get((place.stream, place.number), [])
            start = place.offset - len(frame.head(cid, place.length))
            first = bisect_right(spots, start, key=lambda spot: spot.end)
            for spot in spots[first:]:
                if spot.start >= place.offset + place.length:
                    break
                found.append(spot)
        return found
