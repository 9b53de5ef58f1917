"""One seeded life of a segment store: work, crash, start again, and see that nothing was lost.

Checked after every start, and during work where it applies:

- every commit that was acknowledged is there, with every block and every body chunk it names, byte
  for byte; so is every commit that an earlier start has shown;
- the newest commit is not older than the last one acknowledged;
- the chain of records has no gap, from the newest to the first;
- a block that is read is the block that was asked for;
- a start reports no damage where nothing but power was lost;
- all of that also holds of segments that were retired, whose bytes a network has that lies now and
  then and is away now and then.

Faults (EIO, ENOSPC, short writes) may refuse work, never undo it.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from random import Random

from ingot._speedups import frame
from ingot.errors import IngotError, NotFound, RequestError, Unavailable
from ingot.messages import BodyPosition, CommitRecord, CommitRef, Head, HeadMove
from ingot.segments import format
from ingot.segments.model import Key, Recovered, SegmentSettings
from ingot.segments.store import SegmentStore
from tests.sim.disk import Crashed, SimFiles
from tests.sim.loop import SimLoop
from tests.support.coldsource import FakeSource, flip

STORE = b"store of the sim"
LEASE = b"lease of the sim"
SETTINGS = SegmentSettings(
    seal_bytes=24 * 1024,
    segment_bytes_max=64 * 1024,
    log_ahead_bytes=28 * 1024,
    body_ahead_bytes=0,
    fill_step_bytes=8 * 1024,
    write_behind_bytes=16 * 1024,
    scan_bytes=16 * 1024,
    merge_bytes=1024,
    runs_a_tier=2,
    open_files_max=3,
)

LARGEST_CHUNK = 20_000
PAGED = (
    4096 - 59 - 38,
    4096 - 38,
    4096 - 38,
)  # blocks whose frames fill the pages of a new segment


class SimClock:
    """Time that passes a millisecond a look."""

    def __init__(self) -> None:
        self.ms = 0

    def now_ms(self) -> int:
        self.ms += 1
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000

    def boottime(self) -> float:
        return self.ms / 1000


def cid_of(data: bytes, codec: int = 0x55) -> bytes:
    return bytes((1, codec, 0x12, 0x20)) + sha256(data).digest()


@dataclass(frozen=True)
class Asked:
    """One commit as it was asked for."""

    blocks: dict[bytes, bytes]
    chunks: dict[bytes, bytes]
    moves: tuple[HeadMove, ...]


@dataclass
class Truth:
    """What must be there, whatever happens."""

    asked: dict[bytes, Asked] = field(default_factory=dict)  # by the bucket id in its only move
    commits: dict[int, bytes] = field(default_factory=dict)  # sequence -> CID, never to be lost
    blocks: dict[bytes, bytes] = field(default_factory=dict)  # what those need

    def keep(self, sequence: int, cid: bytes, asked: Asked) -> None:
        before = self.commits.setdefault(sequence, cid)
        assert before == cid, f"commit {sequence} changed"
        self.blocks.update(asked.blocks)
        self.blocks.update(asked.chunks)

    @property
    def newest(self) -> int:
        return max(self.commits, default=0)


class Faults:
    """Fails a share of the calls of some kinds."""

    def __init__(self, random: Random, rate: float, only: str = "") -> None:
        self.random, self.rate, self.only = random, rate, only
        self.on = True
        self.count = 0
        self.then: Callable[[], None] = lambda: None

    def __call__(self, call: str, name: str) -> int:
        if not self.on or (self.only and call != self.only):
            return 0
        if self.random.random() >= self.rate:
            return 0
        if call in ("pread", "pread_now", "size", "open", "map", "listdir"):
            return 0
        self.count += 1
        self.then()
        if call in ("pwrite", "create", "rename", "sync_directory"):
            return self.random.choice((errno.EIO, errno.ENOSPC))
        return errno.EIO


class World:
    """A disk, what must be on it, and a store that comes and goes.

    ``mood`` bends a life towards something rare: "paged" to pages that lose whole frames, "killed"
    to processes that die right after the disk refused a sync, and a power failure after that.
    """

    def __init__(self, seed: int, mood: str = "") -> None:
        self.random = Random(seed)
        self.mood = mood
        self.settings = SETTINGS
        self.files = SimFiles(self.random)
        self.clock = SimClock()
        self.truth = Truth()
        self.incarnation = 0
        self.starts = 0
        self.crashes = 0
        self.commits = 0
        self.units = 0
        self.retired = 0
        self.lies = 0  # and other faults of the network
        self.source = FakeSource("one", "two", piece=3000)
        self.source.failing = self._network_fails
        self.registered: set[Key] = set()  # cold, as the registry knows it
        rate = self.random.choice((0.0, 0.0, 0.0, 0.005, 0.03))
        self.faults = Faults(self.random, rate)
        if mood == "killed":
            self.faults = Faults(self.random, 0.1, only="fdatasync")
            self.faults.then = self._cut_soon
        self.recycled = self.random.random() < 0.3
        # Now and then batches whose frames end where pages do, each in a recycled segment of its
        # own: a page that never got to the platter then leaves whole frames of another batch.
        self.paged = mood == "paged" or self.random.random() < 0.1
        if self.paged:
            self.recycled = True
            self.settings = replace(SETTINGS, seal_bytes=4096)
        elif self.random.random() < 0.2:
            self.settings = replace(SETTINGS, body_ahead_bytes=20_000)
        self.loop: SimLoop
        self.store: SegmentStore

    # -- a life ------------------------------------------------------------------------------------

    def live(self, cycles: int) -> None:
        for _ in range(cycles):
            random = self.random
            self._boot()
            self.files.fault = self.faults
            self.files.cut_at = self.files.calls + random.randint(1, random.choice((30, 200, 900)))
            orderly = random.random() < 0.1
            if orderly:
                self.files.cut_at = -1
            try:
                self.loop.run(self._cycle())
            except Crashed:
                pass
            except BaseException:
                self.loop.bury()
                raise
            self._end()
        self.verify()

    def verify(self) -> None:
        """Start with a disk that works, and look at everything."""
        self._boot()
        self.faults.on = False
        self.files.fault = lambda call, name: 0
        try:
            self.loop.run(self._verify())
        except BaseException:
            self.loop.bury()
            raise
        self.faults.on = True
        self._end()

    def _cut_soon(self) -> None:
        self.files.cut_at = self.files.calls + self.random.randint(1, 4)

    def _network_fails(self, at: int, piece: bytes) -> bytes:
        """One of two places lies or is away at a time, now and then both are away."""
        choice = self.random.random() if self.faults.on else 1.0
        if choice >= 0.1:
            return piece
        self.lies += 1
        if choice < 0.02:
            raise Unavailable("the network is away")
        return flip(piece, self.random.randrange(len(piece)))

    def _boot(self) -> None:
        self.loop = SimLoop(self.files, self.random)
        self.turn = asyncio.Lock()  # commits go one at a time

    def _end(self) -> None:
        """The process is gone, and now and then the power with it."""
        self.crashes += 1
        power = self.random.random() < 0.6
        if self.mood == "killed":
            power = self.crashes % 2 == 0
        self.loop.bury()
        if power:
            self.files.power_failure()
        else:
            self.files.revive()
        if self.recycled:
            self.files.stale = [
                bytes(inode.seen) for name, inode in self.files.names.items() if "log" in name
            ]

    async def _cycle(self) -> None:
        if not await self._start():
            return
        work = [self.loop.create_task(self._uploads()) for _ in range(self.random.randint(0, 3))]
        if self.random.random() < 0.4:
            work.append(self.loop.create_task(self._units()))
        if self.random.random() < 0.4:
            work.append(self.loop.create_task(self._retire()))
        for _ in range(self.random.randint(1, 40)):
            await self._commit([])
            if self.truth.blocks and self.random.random() < 0.2:
                await self._look_around([self.random.choice(list(self.truth.blocks))])
        for task in work:
            await task
        if self.random.random() < 0.5:
            await self.store.close()

    async def _start(self) -> bool:
        self.starts += 1
        self.incarnation += 1
        self.store = SegmentStore(
            self.files, self.loop.lanes, "/segments", self.settings, self.clock
        )
        before = self.faults.count
        try:
            self.store.fetch = self.source
            found = await self.store.open(STORE, self.incarnation, frozenset(self.registered))
        except Unavailable:
            assert self.faults.count > before, "a start refused a disk that works"
            return False
        await self._judge(found, self.faults.count > before)
        return True

    async def _judge(self, found: Recovered, faulty: bool) -> None:
        if not faulty:
            assert not found.problems, found.problems
        newest = found.newest[1].sequence if found.newest is not None else 0
        assert newest >= self.truth.newest, f"commit {self.truth.newest} is lost: {newest}"
        await self._walk(newest)

    async def _walk(self, newest: int) -> None:
        """The chain, from the first commit to the newest."""
        on, self.faults.on = self.faults.on, False
        sequence, previous = 0, None
        async for cid, record in self.store.commits_after(0):
            assert record.sequence == sequence + 1, "a gap in the chain"
            assert record.previous == previous, "a break in the chain"
            assert await self.store.holds(CommitRef(record.sequence, cid))
            sequence, previous = record.sequence, cid
            if record.sequence in self.truth.commits:
                assert self.truth.commits[record.sequence] == cid, f"commit {record.sequence}"
            else:
                self._adopt(cid, record)
        assert sequence == newest, "the chain does not reach its end"
        self.faults.on = on

    def _adopt(self, cid: bytes, record: CommitRecord) -> None:
        """A commit nobody was told about: shown once, it must stay."""
        asked = self.truth.asked[record.moves[0].bucket]
        assert record.moves == asked.moves
        self.truth.keep(record.sequence, cid, asked)

    async def _verify(self) -> None:
        assert await self._start()
        await self._look_around(self.truth.blocks)
        for _ in range(3):
            assert await self._commit([]), "a store on a good disk refused a commit"
        assert not self.store.statistics.corrupt
        await self.store.close()

    # -- work --------------------------------------------------------------------------------------

    async def _commit(self, uploaded: list[tuple[BodyPosition, bytes]]) -> bool:
        async with self.turn:
            return await self._commit_alone(uploaded)

    async def _commit_alone(self, uploaded: list[tuple[BodyPosition, bytes]]) -> bool:
        random = self.random
        blocks: dict[bytes, bytes] = {}
        for size in PAGED if self.paged else ():
            data = random.randbytes(size)
            blocks[cid_of(data)] = data
        for _ in range(0 if self.paged else random.randint(0, 5)):
            if self.truth.blocks and random.random() < 0.1:
                cid = random.choice(list(self.truth.blocks))
                blocks[cid] = self.truth.blocks[cid]  # known already, perhaps in this segment
            else:
                size = random.choice((0, 60, 500, 3000, 3000, 9000))
                data = random.randbytes(random.randint(0, size))
                blocks[cid_of(data, random.choice((0x55, 0x71)))] = data
        bucket = random.randbytes(16)
        # A configuration is changed with every commit that has a block to name for it.
        moves = (HeadMove(bucket, "bucket", None, Head(0, config=next(iter(blocks), None))),)
        chunks = {cid_of(data): data for _, data in uploaded}
        asked = self.truth.asked[bucket] = Asked(blocks, chunks, moves)
        before = self.faults.count
        try:
            cid, record = await self.store.commit(
                LEASE, list(blocks.items()), moves, [position for position, _ in uploaded]
            )
        except Unavailable:
            assert self.faults.count > 0 and self.faults.count >= before
            return False
        self.commits += 1
        assert record.sequence == self.truth.newest + 1
        self.truth.keep(record.sequence, cid, asked)
        return True

    async def _units(self) -> None:
        """Compact segments that are in a row: all that was acknowledged is live."""
        random = self.random
        for _ in range(random.randint(1, 4)):
            for _ in range(random.randint(0, 30)):
                await asyncio.sleep(0)
            if random.random() < 0.3:
                self.store.seal_aged(0.0)
            settled = self.store.settled()
            if not settled:
                continue
            first = random.randrange(len(settled))
            sources = settled[first : first + 1]
            for info in settled[first + 1 : first + random.randint(1, 3)]:
                if info.before == sources[-1].root:
                    sources.append(info)
            live = set(self.truth.blocks)
            try:
                for info in sources:
                    live.update([cid async for cid, _ in self.store.commits_of(info)])
                await self.store.replace(sources, live)
                self.units += 1
            except (OSError, Unavailable):
                assert self.faults.count > 0
            except RequestError:
                assert sum(info.bytes for info in sources) > self.settings.segment_bytes_max

    async def _retire(self) -> None:
        """Retire segments, each after the network and the registry have it."""
        random = self.random
        for _ in range(random.randint(1, 4)):
            for _ in range(random.randint(0, 60)):
                await asyncio.sleep(0)
            retirable = self.store.retirable()
            if not retirable:
                continue
            info = random.choice(retirable)
            inode = self.files.names[format.file_name(*info.key)]
            self.source.keep(info.key, bytes(inode.seen[: info.bytes]))
            self.registered.add(info.key)
            try:
                await self.store.retire(info.key)
                self.retired += 1
            except Unavailable:
                pass  # the disk refuses, or the indexes are still being checked
            except RequestError:
                assert info.key not in {one.key for one in self.store.retirable()}

    async def _uploads(self) -> None:
        random = self.random
        for _ in range(random.randint(1, 5)):
            uploaded = []
            try:
                for _ in range(random.randint(1, 4)):
                    data = random.randbytes(random.randint(5000, LARGEST_CHUNK))
                    view = memoryview(data)
                    uploaded.append((await self.store.append_body(cid_of(data), view), data))
                await self.store.sync_bodies([position for position, _ in uploaded])
            except Unavailable:
                assert self.faults.count > 0
                continue
            await self._commit(uploaded)

    async def _look_around(self, cids: Iterable[bytes]) -> None:
        for cid in cids:
            expected = self.truth.blocks[cid]
            before = self.faults.count + self.lies
            if self.random.random() < 0.1:
                some = list(self.truth.blocks)
                self.store.prefetch([self.random.choice(some) for _ in range(5)])
            try:
                found = await self.store.read(cid)
                assert found == expected
                if expected and self.random.random() < 0.3:
                    start = self.random.randrange(len(expected))
                    part = bytearray(self.random.randint(0, len(expected) - start))
                    await self.store.read_part(cid, start, memoryview(part))
                    assert part == expected[start : start + len(part)]
            except NotFound as error:
                raise AssertionError(f"an acknowledged block is gone: {error}") from error
            except IngotError as error:
                faults = self.faults.count + self.lies
                assert faults > before, f"reading failed on a good disk: {error}"


def run_seed(seed: int, cycles: int = 5, mood: str = "") -> World:
    """One life; AssertionError or another failure tells what broke."""
    world = World(seed, mood)
    largest = frame.FRAME_BYTES_MAX
    try:
        # Recovery's window holds two of the largest frames: small ones make it move.
        frame.FRAME_BYTES_MAX = LARGEST_CHUNK + 40  # type: ignore[misc]
        world.live(cycles)
    finally:
        frame.FRAME_BYTES_MAX = largest  # type: ignore[misc]
    return world
