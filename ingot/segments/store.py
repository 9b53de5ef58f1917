"""The segment store: a gateway's blocks, durable on its own disk.

Guarantees: what ``commit`` and ``sync_bodies`` returned for survives a crash and a power failure;
a block that is read is the block that was asked for, byte for byte, or an error that says where it
is damaged; ``open`` starts whatever the last process left behind (``recovery``).

Called by ``ingot.bucket`` (commits, reads), ``ingot.body`` (chunks) and ``ingot.server`` (life).
``format`` draws the directory; ``log`` and ``body`` write, ``seal`` follows behind them, ``index``
finds. One event loop; nothing on it waits for the disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Collection,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractContextManager

from ingot.errors import IngotError
from ingot.limits import COPY_STEP_BLOCKS
from ingot.messages import (
    BodyPosition,
    Cid,
    CommitRecord,
    CommitRef,
    HeadMove,
    SealedSegment,
)
from ingot.ports import Clock, ColdSource, FileSystem, Lanes
from ingot.segments import format, search
from ingot.segments.audit import Auditor
from ingot.segments.body import BodyStream
from ingot.segments.cache import BlockCache
from ingot.segments.cold import ColdReader
from ingot.segments.commit import decode_commit
from ingot.segments.compact import Compactor
from ingot.segments.disk import Disk, OpenFiles, unavailable
from ingot.segments.index import SegmentIndex
from ingot.segments.log import Batch, LogStream
from ingot.segments.model import (
    COLD,
    OPEN,
    QUARANTINED,
    SEALED,
    Key,
    Location,
    Recovered,
    Row,
    SegmentInfo,
    SegmentSettings,
    Statistics,
    row_of,
)
from ingot.segments.outgoing import Block, Outgoing, Span
from ingot.segments.read import Reader
from ingot.segments.recovery import Recovery
from ingot.segments.retire import Retirer
from ingot.segments.seal import Sealer
from ingot.segments.segment import Numbers, Preparer
from ingot.segments.verify import Verified, Verifier

__all__ = ["Location", "Recovered", "Row", "SegmentSettings", "SegmentStore", "Statistics"]


class SegmentStore:
    """See the module's head. Made, opened once, closed once."""

    def __init__(
        self,
        files: FileSystem,
        lanes: Lanes,
        directory: str,
        settings: SegmentSettings,
        clock: Clock,
    ) -> None:
        self._disk = Disk(files, lanes, directory, settings, clock)
        self._index = SegmentIndex()
        self._numbers = Numbers()
        self._sealer = Sealer(self._disk, self._index, self._numbers)
        self._open_files = OpenFiles(self._disk)
        self._cold = ColdReader(self._disk, self._index)
        self._reader = Reader(self._disk, self._index, self._open_files, self._cold)
        self._retirer = Retirer(self._disk, self._index, self._sealer, self._open_files)
        self._compactor = Compactor(
            self._disk, self._index, self._sealer, self._reader, self._open_files
        )
        self._outgoing = Outgoing(self._disk, self._index, self._open_files)
        self._preparers: list[Preparer] = []
        self._store = b""
        self._search: tuple[SegmentInfo, list[CommitRef]] | None = None
        self._log: LogStream
        self._body: BodyStream

    @property
    def statistics(self) -> Statistics:
        return self._disk.statistics

    @property
    def on_change(self) -> Callable[[Row], None]:
        """Hears the row of every segment whose state changes; must not wait."""
        return self._sealer.on_change

    @on_change.setter
    def on_change(self, hear: Callable[[Row], None]) -> None:
        self._sealer.on_change = hear

    @property
    def fetch(self) -> ColdSource | None:
        """Where blocks of cold segments are read; without it they are Unavailable."""
        return self._cold.source

    @fetch.setter
    def fetch(self, source: ColdSource | None) -> None:
        self._cold.source = source

    async def open_cache(self, directory: str, bytes_max: int) -> None:
        """Keep what is fetched in files of ``directory``, which is this store's own, up to
        ``bytes_max``. What an earlier process left there is thrown away."""
        cache = BlockCache(self._disk, directory, bytes_max)
        await cache.open()
        self._cold.cache = cache

    # -- life --------------------------------------------------------------------------------------

    async def open(
        self,
        store: bytes,
        incarnation: int,
        cold: Collection[Key] = frozenset(),
        writing: bool = True,
    ) -> Recovered:
        """Take up the directory. ``cold`` are the segments that the registry knows to have been
        retired. Unavailable when its files cannot be reached at all. Without ``writing`` no segment
        is prepared, for nothing will be written."""
        disk, self._store = self._disk, store
        try:
            if not disk.files.exists(disk.directory):
                disk.files.mkdir(disk.directory)
                disk.files.sync_directory(disk.directory.rpartition("/")[0] or "/")
        except OSError as error:
            raise unavailable("no segment directory", error, disk.directory) from error
        recovery = Recovery(disk, self._index, self._sealer, self._numbers, store, cold)
        found = await recovery.run()
        log_next, body_next = (
            Preparer(disk, stream, self._numbers, recovery.spare[stream])
            for stream in format.STREAMS
        )
        self._preparers = [log_next, body_next]
        self._log = LogStream(disk, log_next, self._sealer)
        self._body = BodyStream(disk, body_next, self._sealer, self._index)
        sequence, previous = 0, None
        tip = recovery.chain.tip
        if tip is not None:
            sequence, previous = tip.last_commit, tip.root
        self._log.start(store, incarnation, sequence, previous)
        auditor = Auditor(disk, self._index, self._sealer, store)
        if self._index.doubtful:
            self._reader.audit = disk.spawn(auditor.run())
        for preparer in self._preparers if writing else ():
            preparer.begin()
        if previous is not None:
            found.newest = await self._newest(previous, found)
        return found

    async def close(self) -> None:
        """Seal the open segments. Nothing is under way any more, and nothing comes after."""
        await self._cold.close()
        await self._log.close()
        await self._body.close()
        await self._disk.settle()
        for preparer in self._preparers:
            await preparer.close()
        self._open_files.close()
        self._sealer.close()

    async def _newest(self, cid: Cid, found: Recovered) -> tuple[Cid, CommitRecord] | None:
        try:
            return cid, decode_commit(await self._reader.read(cid))
        except IngotError as error:
            found.problems.append(f"the newest commit record cannot be read: {error}")
            return None

    # -- writing -----------------------------------------------------------------------------------

    async def commit(
        self,
        lease: bytes,
        blocks: Sequence[tuple[Cid, bytes]],
        moves: Sequence[HeadMove],
        bodies: Sequence[BodyPosition],
        checkpoint: Cid | None = None,
        pins: Collection[Cid] = (),
    ) -> tuple[Cid, CommitRecord]:
        """Make ``blocks`` durable with a commit record that carries the rest: one write, one sync.
        Of ``pins``, which may change meanwhile, the first record of a segment names those that lie
        in the segment before.

        One at a time. Unavailable when the disk refuses twice; the sequence is then not used up.
        """
        if bodies:
            await self._body.sync(bodies)
        return await self._log.commit(Batch(lease, blocks, moves, bodies, checkpoint, pins))

    async def append_body(self, cid: Cid, data: memoryview) -> BodyPosition:
        """Write one chunk to the body stream. It can be read at once; it is durable, and may be
        committed, once ``sync_bodies`` has returned for its position."""
        return await self._body.append(cid, data)

    async def sync_bodies(self, positions: Sequence[BodyPosition]) -> None:
        """Return when everything up to ``positions`` is durable; Unavailable when it is lost."""
        await self._body.sync(positions)

    @property
    def sequence(self) -> int:
        """Of the newest commit that is here, or that is known to have been."""
        return self._log.sequence

    @property
    def newest(self) -> CommitRef:
        """The newest commit that is here, or that is known to have been."""
        return CommitRef(self._log.sequence, self._log.previous)

    def resume_after(self, sequence: int) -> None:
        """The registry knows of commits up to ``sequence`` that are missing here: do not use their
        numbers again. The chain goes on from the newest commit that is here."""
        self._log.sequence = max(self._log.sequence, sequence)

    # -- reading -----------------------------------------------------------------------------------

    def read_now(self, cid: Cid) -> bytes | None:
        """The block, or None where the disk would have to be waited for. NotFound, Corruption."""
        return self._reader.read_now(cid)

    def read_many_now(self, cids: Sequence[Cid]) -> list[bytes | None]:
        """The first of these blocks, at least one and no more than a step of the loop should read;
        None for one that ``read`` has to see about. Corruption."""
        return self._reader.read_many_now(cids)

    async def read(self, cid: Cid) -> bytes:
        """The block. NotFound, Corruption, Unavailable when the disk fails."""
        return await self._reader.read(cid)

    async def read_hashed(self, cid: Cid) -> bytes:
        """As ``read``, and hashed here also where that was done before."""
        return await self._reader.read_hashed(cid)

    async def read_part(self, cid: Cid, start: int, into: memoryview) -> None:
        """Fill ``into`` with the block's bytes from ``start`` on. The whole block is verified at
        its first read after a start."""
        await self._reader.read_part(cid, start, into)

    def find(self, cid: Cid) -> Location | None:
        return self._index.locate(cid)

    async def lacking(self, cids: Sequence[Cid]) -> Cid | None:
        """The first of ``cids`` that no segment has, None when all are there. Reads no block, so it
        does not tell of damage."""
        missing = [cid for cid in cids if cid not in self]
        audit = self._reader.audit
        if missing and audit is not None and not audit.done():
            await asyncio.wait([audit])  # a damaged run could have hidden them
            missing = [cid for cid in missing if cid not in self]
        return missing[0] if missing else None

    def places(self, cid: Cid) -> list[Location]:
        """Where every copy of the block lies in the files that are here."""
        return [
            Location(*place.key, place.offset, place.length) for place in self._index.places(cid)
        ]

    def where(self, cid: Cid) -> str:
        """Where the block lies, in words for an operator."""
        found, state = self._index.lookup(cid), ""
        if found is None:
            found, state = self._index.cold_place(cid), f", which is {COLD}"
        if found is None:
            return "in no segment"
        return f"{format.file_name(*found.key)} at byte {found.offset}{state}"

    def prefetch(self, cids: Sequence[Cid]) -> None:
        """These blocks will be read soon, in this order: those that are cold begin to be fetched,
        together and as far as there is room for them. Costs nothing where no segment is cold."""
        self._cold.prefetch(cids)

    def __contains__(self, cid: Cid) -> bool:
        return self._index.find(cid) is not None or self._index.cold_place(cid) is not None

    # -- commits, for a start ----------------------------------------------------------------------

    async def holds(self, commit: CommitRef) -> bool:
        """Whether a commit is in this log. What was shipped and removed counts: its index stays.
        Numbers of commits that were made elsewhere are skipped here, between two segments, so a
        number may tell that it is not; where its record is not known the number decides."""
        if commit.record is not None and commit.record in self:
            return True
        number = commit.sequence
        if not any(info.first_commit <= number <= info.last_commit for info in self._logs()):
            return False
        try:  # a damaged run may hide it: this waits for the audit, which would find it
            if commit.record is not None:
                await self.read(commit.record)
        except IngotError:
            return False
        return True

    async def commit_of(self, cid: Cid) -> CommitRecord | None:
        """The commit whose record this is; None where it is not in this log. FormatError where it
        is another block."""
        if await self.lacking([cid]) is not None:
            return None
        return decode_commit(await self.read(cid))

    async def commits_after(self, after: int) -> AsyncGenerator[tuple[Cid, CommitRecord], None]:
        """The commits with a sequence above ``after``, oldest first. Holds the records of one
        segment at a time, each of which is found from its newest record along the chain."""
        infos = [info for info in self._logs() if info.last_commit > after]
        for info in sorted(infos, key=lambda info: info.number):
            async for commit in self.commits_of(info, after):
                yield commit

    async def commits_of(
        self, info: SegmentInfo, after: int = 0
    ) -> AsyncIterator[tuple[Cid, CommitRecord]]:
        """The commits of one segment with a sequence above ``after``, oldest first."""
        found: list[tuple[Cid, CommitRecord]] = []
        cid = info.root
        while cid is not None and cid != info.before:
            record = decode_commit(await self.read(cid))
            if record.sequence <= after:
                break
            found.append((cid, record))
            cid = record.previous
            if len(found) % COPY_STEP_BLOCKS == 0:
                await asyncio.sleep(0)
        while found:
            yield found.pop()

    async def commit_before(self, sequence: int) -> CommitRef | None:
        """The newest commit below ``sequence`` that can be found without the chain, for when that
        is broken there; it need not be readable. Reads the segment that has ``sequence``."""
        for info in sorted(self._logs(), key=lambda info: info.number, reverse=True):
            if not 0 < info.first_commit < sequence:
                continue
            if info.last_commit < sequence:
                return CommitRef(info.last_commit, info.root)
            below = [ref for ref in await self._searched(info) if ref.sequence < sequence]
            if below:  # of two with one number the later one stands, if any
                return max(reversed(below), key=lambda ref: ref.sequence)
        return None

    async def _searched(self, info: SegmentInfo) -> list[CommitRef]:
        """What ``search`` finds in a segment, remembered for the next hole in it."""
        if self._search is None or self._search[0] != info:
            found: list[CommitRef] = []
            try:
                found = await search.commits_in(self._disk, info, self._store)
            except OSError as error:
                self._disk.problem(f"{format.file_name(*info.key)}: {error.strerror}")
            self._search = info, found
        return self._search[1]

    async def commit_after(self, info: SegmentInfo) -> CommitRecord | None:
        """The first commit behind a segment; None where there is none."""
        async for _, record in self.commits_after(info.last_commit):
            return record
        return None

    def _logs(self) -> Iterator[SegmentInfo]:
        """The log segments that can be read."""
        index = self._index
        for info in [*index.sealed(), *(segment.info() for segment in index.growing.values())]:
            gone = info.key in index.absent and info.key not in index.cold
            if info.stream in format.COMMITS and not gone:
                yield info

    # -- segments ----------------------------------------------------------------------------------

    def seal_aged(self, age_s: float) -> None:
        """Close open segments that have held something for longer, so that it can be shipped."""
        self._log.seal_aged(age_s)
        self._body.seal_aged(age_s)

    def settled(self) -> list[SegmentInfo]:
        """The log segments that can become part of a unit, or of which one can be salvaged: sealed
        or quarantined, in order."""
        return sorted(
            (
                info
                for info in self._logs()
                if info.stream == format.LOG
                and info.state in (SEALED, QUARANTINED)
                and info.last_commit
                and info.key not in self._index.growing
            ),
            key=lambda info: info.number,
        )

    def holding(self, infos: Sequence[SegmentInfo]) -> Callable[[Cid], bool]:
        """Whether a block lies in one of these segments."""
        keys, places = {info.key for info in infos}, self._index.places
        return lambda cid: any(place.key in keys for place in places(cid))

    async def replace(
        self,
        sources: Sequence[SegmentInfo],
        live: Collection[Cid],
        settled: Callable[[], bool] = lambda: True,
    ) -> SegmentInfo:
        """Put a unit of the ``live`` blocks in the place of ``sources`` (``segments.compact``)."""
        return await self._compactor.replace(sources, live, settled)

    async def salvage(self, info: SegmentInfo) -> SegmentInfo:
        """Put a unit of all that is good of a log segment in its place (``segments.compact``)."""
        return await self._compactor.salvage(info)

    def retirable(self) -> list[SegmentInfo]:
        """The body segments and units that ``retire`` would take."""
        return self._retirer.retirable(self._log.previous)

    async def retire(self, key: Key) -> None:
        """Remove the file of a sealed body segment or unit, which is cold from now on
        (``segments.retire``). The network must have it and the registry know that, or a start will
        call it missing. RequestError for another segment, Unavailable where it cannot go now."""
        await self._retirer.retire(key, self._log.previous, self._reader.audit)

    async def part_of(self, info: SegmentInfo, start: int, length: int) -> bytes:
        """So many bytes of a segment's file, as they lie here. OSError."""
        return await self._reader.raw(info.key, start, length)

    def read_times(self, now: int) -> Mapping[Key, int]:
        """When each segment was last read since the start, by the ``now`` of the last call before
        that; reads from now on count as of ``now``."""
        self._open_files.now = now
        return self._open_files.read_times()

    def bytes_here(self) -> int:
        """What the files of the segments take on the disk, with what was written beforehand; one
        that is removed and still read counts."""
        index, lingering = self._index, set(self._open_files.lingering())
        here = [i for i in index.sealed() if i.key not in index.absent or i.key in lingering]
        growing = sum(max(segment.end, segment.room) for segment in index.growing.values())
        ready = sum(preparer.room for preparer in self._preparers)
        return sum(info.bytes for info in here) + growing + ready

    # -- shipping (``segments.outgoing``) ----------------------------------------------------------

    def shippable(self) -> list[SealedSegment]:
        """The units and body segments that are sealed and here, damaged or not."""
        return self._outgoing.shippable()

    def body_numbers(self) -> Collection[int]:
        """Of all body segments: open, sealed, damaged, or known and not here."""
        return self._outgoing.body_numbers()

    def open_file(self, segment: SealedSegment) -> AbstractContextManager[int]:
        """A descriptor for reading, valid until the context ends. Unavailable."""
        return self._outgoing.open_file(segment)

    async def examine(self, segment: SealedSegment) -> tuple[bytes, tuple[Span, ...]]:
        """The sha2-256 multihash of the whole file, and the spans of it that hold no good frame.
        Corruption where it is shorter than it was, OSError."""
        return await self._outgoing.examine(segment)

    def blocks_of(
        self, segment: SealedSegment, spans: Sequence[Span]
    ) -> AsyncGenerator[list[Block], None]:
        """Multihash, offset and length of the file's blocks outside ``spans``, some at a time."""
        return self._outgoing.blocks_of(segment, spans)

    def copies(self, cid: Cid) -> list[tuple[Key, int]]:
        """In which segments, cold ones too, and at which bytes of them the block stands."""
        index = self._index
        places = [*index.places(cid), *index.cold_places(cid)]
        return [(place.key, place.offset) for place in places]

    # -- for checks and lists ----------------------------------------------------------------------

    async def verify(self, say: Callable[[str], None]) -> Verified:
        """Read and hash every frame and follow every commit; ``say`` hears how far it is. Cold
        segments are not read. Nothing is committed meanwhile."""
        growing = [segment.info() for segment in self._index.growing.values() if not segment.empty]
        cold = self._index.cold
        here = [i for i in self._index.sealed() if i.key not in self._index.absent or i.key in cold]
        tip = self._log.previous, self._log.sequence
        return await Verifier(self._disk, self._store, tip, say, cold).run([*here, *growing])

    def rows(self) -> list[Row]:
        """The state of every segment that holds something, in order."""
        cold = self._index.cold
        rows = [
            row_of(info.as_state(COLD) if info.key in cold else info)
            for info in self._index.sealed()
        ]
        for segment in self._index.growing.values():
            if not segment.empty or len(segment.table):
                info = segment.info()
                rows.append(row_of(info.as_state(OPEN) if segment.state == OPEN else info))
        return sorted(rows, key=lambda row: (row.stream, row.number))
