"""What a start makes of a segment directory (design sections 2 and 4).

Guarantees: nothing is truncated but zeros, nothing is deleted but files that hold nothing; one
damaged segment, run or page is reported and the rest is served. The cost is that of the segments
that have no index: those the last process had open, as a rule one of each stream.

1. Runs are opened; what they cover and is still long enough is sealed, and not read.
2. Every other segment is scanned (``scan``), sealed, or quarantined where acknowledged frames are
   damaged. One that was only prepared is used as the next one.
   A cold one, whose file is gone and which the network has, is as good as sealed; where its file
   is there all the same it is warm again.
3. Log segments that a whole unit stands for are removed: the last process had no time to. A damaged
   one lies beside its unit under another name and is kept; without the unit it gets its own back.
4. The chain of commit records is followed from segment to segment (``chain``), which settles where
   each one ends.
5. The newest batch is written once more in its place and synced, since the last process may have
   died between its write and its sync; every other unsealed segment is synced.

Called by the store, once.
"""

from __future__ import annotations

import errno
from collections.abc import Collection
from dataclasses import dataclass, field

from ingot.errors import FormatError
from ingot.messages import BodyPosition
from ingot.segments import format, runfile
from ingot.segments.chain import Chain, Link
from ingot.segments.disk import Disk, unavailable
from ingot.segments.index import SegmentIndex
from ingot.segments.model import QUARANTINED, Key, Recovered, SegmentInfo
from ingot.segments.scan import Scanned, Scanner
from ingot.segments.seal import Sealer
from ingot.segments.segment import Numbers, Segment

_FOREIGN_NAMED = 5
# What ``open`` says of one name, whatever the disk is like: it is no file, or we may not use it, or
# its inode is damaged (EUCLEAN). Other errors may concern the whole disk, and pass.
_STRAY = frozenset(
    (
        *(errno.EISDIR, errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.EINVAL, errno.EUCLEAN),
        *(errno.EPERM, errno.EACCES, errno.EROFS),
    )
)


@dataclass(slots=True)
class Recovery:
    """One start. ``spare`` are the prepared segments that were never used, by stream."""

    disk: Disk
    index: SegmentIndex
    sealer: Sealer
    numbers: Numbers
    store: bytes
    cold: Collection[Key] = ()  # segments whose file may be gone: the network has them
    found: Recovered = field(default_factory=Recovered)
    spare: dict[str, list[Segment]] = field(default_factory=dict)
    damaged_runs: list[str] = field(default_factory=list)
    pending: list[Scanned] = field(default_factory=list)  # scanned, not yet sealed
    needs: dict[int, int] = field(default_factory=dict)  # body segment -> how far it must be good
    units: dict[int, Scanned | None] = field(default_factory=dict)  # None: it has an index
    lost_indexes: bool = False  # of cold segments; a damaged run may still have them
    chain: Chain = field(init=False)

    def __post_init__(self) -> None:
        self.chain = Chain(self.disk.problem)

    async def run(self) -> Recovered:
        self.disk.problems = self.found.problems
        try:
            self.disk.sync_directory()
            files = self._list()
            self._open_runs(files.get(format.RUN, []))
            self._note_cold(files)
            await self._units(files.get(format.UNIT, []))
            self._remove_replaced(files.get(format.LOG, []))
            self._note_absent(files)
            await self._logs(files.get(format.LOG, []))
            await self._bodies(files.get(format.BODY, []))
            self._remove_damaged_runs()
            self._sum_up()
            return self.found
        except OSError as error:
            self._abandon()
            # Going on without a segment that is there would give its commits' numbers away again.
            what = "the segments cannot be read"
            raise unavailable(what, error, self.disk.directory) from error
        finally:
            self.disk.problems = None

    # -- files -------------------------------------------------------------------------------------

    def _list(self) -> dict[str, list[int]]:
        """Our files by kind, in order; unfinished ones are removed, other files left alone."""
        files: dict[str, list[int]] = {}
        foreign = []
        for name in sorted(self.disk.files.listdir(self.disk.directory)):
            parsed = format.parse_name(name)
            unfinished = format.unfinished(name)
            if parsed is not None:
                files.setdefault(parsed[0], []).append(parsed[1])
                self.numbers.avoid(*parsed)
            elif (number := format.damaged(name)) is not None:
                self.index.damaged.add(number)
            elif unfinished is not None:
                self.numbers.avoid(*unfinished)
                fd = self._open(name)
                if fd is not None:
                    self.disk.discard(name, fd)
            else:
                foreign.append(name)
        self._damaged(files)
        if foreign:
            more = f" and {len(foreign) - _FOREIGN_NAMED} more" * (len(foreign) > _FOREIGN_NAMED)
            names = ", ".join(foreign[:_FOREIGN_NAMED])
            self.disk.problem(f"left alone, not files of a segment store: {names}{more}")
        return files

    def _damaged(self, files: dict[str, list[int]]) -> None:
        """A damaged log segment is kept beside its unit. Where the last process died before that
        had its name, or it is lost, what is good of the log segment is served from there."""
        for number in sorted(self.index.damaged):
            name, unit = format.damaged_name(number), (format.UNIT, number)
            if number in files.get(format.UNIT, []) or unit in self.cold:
                self.numbers.seen(format.LOG, number)
                self.disk.problem(
                    f"{name} is kept: it is damaged, and {format.file_name(*unit)} stands for it "
                    "without the bad blocks. Check the disk; restore what is missing."
                )
                continue
            self.index.damaged.remove(number)
            if number not in files.get(format.LOG, []):
                back = format.file_name(format.LOG, number)
                self.disk.files.rename(self.disk.path(name), self.disk.path(back))
                self.disk.sync_directory()
                files.setdefault(format.LOG, []).append(number)

    def _open(self, name: str) -> int | None:
        """The file's descriptor, to read; None, with a report, for a name that is no file we may
        use."""
        try:
            return self.disk.files.open(self.disk.path(name))
        except OSError as error:
            if error.errno not in _STRAY:
                raise
            self._left_alone(name, error)
            return None

    def _left_alone(self, name: str, error: OSError) -> None:
        self.disk.problem(
            f"{name} was left alone: it cannot be opened ({error.strerror}). If it is a file of "
            "this store make it readable, else move it out of this directory."
        )

    def _open_runs(self, numbers: list[int]) -> None:
        """The newest first: a merged run makes those it was made of redundant."""
        covered: set[Key] = set()
        for number in sorted(numbers, reverse=True):
            name = format.file_name(format.RUN, number)
            try:
                held = runfile.load(self.disk, number)
            except runfile.UnknownVersion as error:
                self.disk.problem(f"{name} was left alone: {error}; its segments are indexed again")
                continue
            except (FormatError, OSError) as error:
                if isinstance(error, OSError) and error.errno in _STRAY:
                    self._left_alone(name, error)
                    continue
                self.disk.problem(f"{name} is damaged ({error}); its segments are indexed again")
                self.damaged_runs.append(name)
                continue
            self.numbers.seen(format.RUN, number)
            keys = {info.key for info in held.infos}
            if keys <= covered:
                held.release()
                self.disk.discard(name, None)
                continue
            covered |= keys
            self.index.add_old_run(held)
        for key in covered:
            self.numbers.seen(*key)

    def _note_cold(self, files: dict[str, list[int]]) -> None:
        for kind, number in self.cold:
            self.numbers.seen(kind, number)
            if number in files.get(kind, []):
                continue
            info = self.index.info((kind, number))
            if info is None:
                self.lost_indexes = True
                self.disk.problem(
                    f"{format.file_name(kind, number)} is cold and its index is lost: nothing here "
                    "tells where its blocks stand. Put the file back, or restore."
                )
                continue
            self.index.chill(info.key)
            if kind == format.UNIT:
                self.units[number] = None

    def _note_absent(self, files: dict[str, list[int]]) -> None:
        here = {(kind, n) for kind in format.SEGMENTS for n in files.get(kind, [])}
        for info in self.index.sealed():
            if info.key not in here and info.key not in self.index.cold:
                self._absent(info)
            if info.state == QUARANTINED:
                self.disk.problem(
                    f"{format.file_name(*info.key)} is quarantined: it is damaged and only what "
                    "verifies is served"
                )

    def _absent(self, info: SegmentInfo) -> None:
        self.index.absent.add(info.key)
        self.disk.problem(
            f"{format.file_name(*info.key)} is missing: commits {info.first_commit} to "
            f"{info.last_commit}, {info.bytes} bytes. Put the file back, or restore."
        )

    async def _scan(self, stream: str, number: int) -> Scanned | None:
        """None when the segment is sealed already, or not ours to judge."""
        key = (stream, number)
        name = format.file_name(*key)
        info = self.index.info(key)
        opened = self._open_segment(name, write=info is None)
        if opened is None:
            if info is not None:
                self._absent(info)
            return None
        fd, read_only = opened
        size = self.disk.files.size(fd)
        if info is not None and size >= info.bytes:
            self.disk.close_quietly(fd, name)
            return None
        if info is not None:
            self.disk.problem(
                f"{name} is shorter than when it was sealed ({size} of {info.bytes} bytes); what "
                "verifies is served. Put the file back, or restore."
            )
        segment = Segment(stream, number, fd, read_only=read_only)
        try:
            scanned = await Scanner(self.disk, segment, self.store).scan()
        except OSError:
            self.disk.close_quietly(fd, name)
            raise
        self.found.scanned += 1
        self.found.scanned_bytes += scanned.size
        if info is not None:
            segment.state = QUARANTINED
        return self._judge(scanned)

    def _open_segment(self, name: str, write: bool) -> tuple[int, bool] | None:
        """Its descriptor, and whether that is for reading only although writing was wanted; None
        as ``_open``."""
        why = None
        if write:
            try:
                return self.disk.files.open(self.disk.path(name), write=True), False
            except OSError as error:
                if error.errno not in _STRAY:
                    raise
                why = error.strerror
        fd = self._open(name)
        if fd is None:
            return None
        if why is not None:
            self.disk.problem(f"{name} may not be written ({why}); it is read and stays as it is")
        return fd, why is not None

    def _judge(self, scanned: Scanned) -> Scanned | None:
        """Sort out what is no segment of this store, and what was only prepared."""
        segment, name = scanned.segment, scanned.segment.name
        if scanned.unreadable:
            self.disk.problem(
                f"{name}: {len(scanned.unreadable)} pages cannot be read, the first at byte "
                f"{scanned.unreadable[0]}. Check the disk."
            )
        if scanned.blank and segment.stream != format.UNIT:
            self._prepared(scanned)
            return None
        if scanned.foreign is not None:
            self.disk.problem(
                f"{name} belongs to another store ({scanned.foreign.hex()}); it was left alone. "
                "Move it out of this directory."
            )
        elif scanned.blank or (not scanned.good and segment.empty and not scanned.later):
            self.disk.problem(f"{name} is no segment; it was left alone")
        else:
            if not scanned.good:
                self.disk.problem(f"{name}: its header is damaged; its frames are good")
            if scanned.gave_up:
                self.disk.problem(
                    f"{name}: the search for frames behind byte {scanned.stop} was given up"
                )
            self.numbers.seen(*segment.key)
            return scanned
        self.disk.close_quietly(segment.fd, name)
        return None

    def _prepared(self, scanned: Scanned) -> None:
        """A segment that holds nothing: take it up, or remove it where it is not whole."""
        segment, settings = scanned.segment, self.disk.settings
        if segment.number > Numbers.COUNTED_MAX:
            self.disk.problem(f"{segment.name} was left alone: no store counts that far")
            segment.read_only = True
        if segment.read_only:
            self.disk.close_quietly(segment.fd, segment.name)
            return
        self.numbers.seen(*segment.key)
        log = segment.stream == format.LOG
        ahead = settings.log_ahead_bytes if log else settings.body_ahead_bytes
        if scanned.good and scanned.size >= max(ahead, format.HEADER_BYTES):
            self.spare.setdefault(segment.stream, []).append(segment)
        else:
            self.disk.discard(segment.name, segment.fd)

    # -- units -------------------------------------------------------------------------------------

    async def _units(self, numbers: list[int]) -> None:
        for number in numbers:
            scanned = await self._scan(format.UNIT, number)
            if scanned is None:
                if self.index.info((format.UNIT, number)) is not None:
                    self.units[number] = None
                continue
            if scanned.stop < scanned.size:
                head = self.disk.files.pread(scanned.segment.fd, format.HEADER_BYTES, 0)
                scanned.salvage(named=format.root_of(head))  # which is its last commit
                self.disk.problem(
                    f"{scanned.segment.name} is damaged at byte {scanned.stop}. It is quarantined "
                    "and what verifies is served. Check the disk; restore what is missing."
                )
            self.units[number] = scanned

    def _replaced(self, info: SegmentInfo) -> bool:
        """Whether a whole unit has all commits of this log segment."""
        for number, scanned in self.units.items():
            unit = scanned.segment.info() if scanned else self.index.info((format.UNIT, number))
            if unit is not None and unit.state != QUARANTINED and info.number <= number:
                if unit.first_commit <= info.first_commit <= info.last_commit <= unit.last_commit:
                    return True
        return False

    def _remove_replaced(self, numbers: list[int]) -> None:
        """Of those that have an index; the others are looked at when they have been scanned."""
        for info in self.index.sealed():
            if info.stream == format.LOG and self._replaced(info):
                self.index.forget(info.key)
                if info.number in numbers:
                    self.disk.discard(format.file_name(*info.key), None)
                    numbers.remove(info.number)

    # -- logs --------------------------------------------------------------------------------------

    async def _logs(self, numbers: list[int]) -> None:
        absent = {key[1] for key in self.index.absent if key[0] == format.LOG}
        logs = [(number, format.LOG) for number in {*numbers, *absent}]
        for number, kind in sorted([*logs, *((number, format.UNIT) for number in self.units)]):
            if kind == format.UNIT:
                scanned = self.units[number]
            else:
                scanned = None if number in absent else await self._scan(kind, number)
            if scanned is None:
                info = self.index.info((kind, number))
                if info is not None and info.last_commit:
                    self.chain.follow(Link(info))
                    await self._seal_pending()
                continue
            if kind == format.UNIT:
                self.chain.follow(Link(scanned.segment.info()))
                await self._seal_pending()
                self.pending.append(scanned)
                self.index.add_growing(scanned.segment)
                continue
            if scanned.commits and self._replaced(scanned.segment.info()):
                self.disk.discard(scanned.segment.name, scanned.segment.fd)
                continue
            self.chain.judge_tail(scanned)
            if scanned.commits:
                self.chain.follow(Link(scanned.segment.info(), scanned))
                await self._seal_pending()
            self.pending.append(scanned)
            self.index.add_growing(scanned.segment)
        await self._confirm()
        await self._seal_pending()

    async def _confirm(self) -> None:
        """Make sure that what was read is also on the disk, the newest batch above all: a commit
        that was shown once must stay. A disk that refuses that twice refuses the start."""
        for scanned in self.pending:
            try:
                await self._write_again(scanned)
            except OSError as error:
                if scanned.commits:
                    await self._write_again(scanned)
                else:
                    self.disk.problem(
                        f"{scanned.segment.name} could not be synced ({error.strerror}); no commit "
                        "rests on what it lacks. Check the disk."
                    )

    async def _write_again(self, scanned: Scanned) -> None:
        segment = scanned.segment
        lane = self.disk.lanes.body
        job = lane.job()
        written = segment.state != QUARANTINED and segment.stream != format.UNIT
        if scanned.commits and written and not segment.read_only:
            last = scanned.commits[-1]
            batch = self.disk.files.pread(segment.fd, last.end - last.start, last.start)
            # A sync that failed, for the last process or a moment ago, marked its pages clean: only
            # bytes that are written again are surely on the disk after this one.
            job.pwrite(segment.fd, last.start, batch)
        job.fdatasync(segment.fd)
        await self.disk.run(lane, job)

    async def _seal_pending(self) -> None:
        """Seal what was scanned: where it ends is settled."""
        while self.pending:
            scanned = self.pending.pop(0)
            segment = scanned.segment
            if segment.state != QUARANTINED and segment.tail:
                segment.table.drop_from(segment.synced)
            for found in scanned.commits:
                for position in found.bodies:
                    self._note_needs(position)
            if scanned.was_open:
                self.found.commits += [(found.cid, found.sequence) for found in scanned.commits]
            await self._seal(segment)

    async def _seal(self, segment: Segment) -> None:
        try:
            await self.sealer.seal(segment)
        except OSError as error:
            self.disk.problem(
                f"{segment.name}: its index could not be written ({error.strerror}); its blocks "
                "stay readable and it is scanned again at the next start"
            )
            self.sealer.retry(segment)

    # -- bodies ------------------------------------------------------------------------------------

    def _note_needs(self, needs: BodyPosition | None) -> None:
        if needs is not None:
            self.needs[needs.segment] = max(self.needs.get(needs.segment, 0), needs.end)

    async def _bodies(self, numbers: list[int]) -> None:
        for info in self.index.sealed():
            self._note_needs(info.needs)
        for number in numbers:
            scanned = await self._scan(format.BODY, number)
            if scanned is None:
                continue
            segment = scanned.segment
            needed = self.needs.get(number, 0)
            if needed > segment.synced:
                self.disk.problem(
                    f"{segment.name} is good up to byte {segment.synced}, commits need it up to "
                    f"{needed}. The segment is quarantined and what verifies is served. Check the "
                    "disk; restore what is missing."
                )
                scanned.salvage()
            self.index.add_growing(segment)
            self.pending.append(scanned)
        await self._confirm()
        await self._seal_pending()
        for number, needed in sorted(self.needs.items()):
            here = self.index.info((format.BODY, number))
            if here is None:
                self.disk.problem(
                    f"{format.file_name(format.BODY, number)} is missing: commits need it up to "
                    f"byte {needed}. Put the file back, or restore."
                )

    # -- the end -----------------------------------------------------------------------------------

    def _remove_damaged_runs(self) -> None:
        """Their segments have runs of their own again, unless the disk is full, or they are cold
        and nothing else tells of their blocks."""
        if not self.index.growing and not self.lost_indexes:
            for name in self.damaged_runs:
                self.disk.discard(name, None)

    def _abandon(self) -> None:
        """Let go of every descriptor: the next start begins afresh."""
        prepared = [segment for segments in self.spare.values() for segment in segments]
        for segment in [*(scanned.segment for scanned in self.pending), *prepared]:
            if segment.key not in self.index.growing:
                self.disk.close_quietly(segment.fd, segment.name)
        self.sealer.close()

    def _sum_up(self) -> None:
        for stream in format.STREAMS:
            keys = [*(info.key for info in self.index.sealed()), *self.index.growing]
            kinds = format.COMMITS if stream == format.LOG else (stream,)
            used = [number for kind, number in keys if kind in kinds]
            last = max(used, default=0)
            usable = []
            for segment in self.spare.get(stream, []):
                # Numbers tell the order of the chain, so a spare below the last is of no use.
                if segment.number > last:
                    usable.append(segment)
                else:
                    self.disk.discard(segment.name, segment.fd)
            self.spare[stream] = usable
