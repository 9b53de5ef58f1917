"""Segments whose file is gone: what stays known of them, and how their blocks are read."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator
from typing import Any

import pytest

from ingot.errors import NotFound, RequestError, Unavailable, Unfetched
from ingot.messages import CommitRef
from ingot.segments import format
from ingot.segments.model import SegmentInfo
from tests.segments.machine import Machine, cid_of
from tests.segments.test_units import Filled
from tests.support.coldsource import FakeSource, flip

Key = tuple[str, int]


class Cold:
    """A machine with body segments and a unit, and a network that has them."""

    def __init__(self, *providers: str, **settings: Any) -> None:
        self.machine = Machine(seed=3, **settings)
        self.source = FakeSource(*providers, piece=1000)
        self.machine.start()
        self.chunks = [self.machine.random.randbytes(9000) for _ in range(6)]
        positions = [self.machine.upload(chunk) for chunk in self.chunks]
        self.machine.run(self.machine.store.sync_bodies(positions))
        cid, record = self.machine.commit(b"record", bodies=positions)
        rotated = self.machine.store.statistics.rotations  # of body segments
        self.log = Filled(self.machine, 3 + rotated)
        self.log.kept.append(b"record")
        self.log.records = {cid: record, **self.log.records}
        self.log.compact()
        self.machine.stop()
        self.restart()

    def restart(self, cold: frozenset[Key] = frozenset()) -> Any:
        machine = self.machine
        found = machine.start(cold=cold)
        machine.run(machine.settle())
        machine.store.fetch = self.source
        return found

    @property
    def store(self) -> Any:
        return self.machine.store

    def infos(self, stream: str) -> list[SegmentInfo]:
        return [info for info in self.store.retirable() if info.stream == stream]

    def retire(self, *infos: SegmentInfo) -> None:
        for info in infos:
            name = format.file_name(*info.key)
            self.source.keep(info.key, bytes(self.machine.file(name).seen))
            self.machine.run(self.store.retire(info.key))
            assert name not in self.machine.files.names

    def check(self) -> None:
        for chunk in self.chunks:
            assert self.machine.read(chunk) == chunk
        self.log.check_blocks()


@pytest.fixture
def cold() -> Iterator[Cold]:
    made = Cold("near", "far")
    yield made
    made.machine.loop.bury()


def keys(infos: list[SegmentInfo]) -> frozenset[Key]:
    return frozenset(info.key for info in infos)


def test_what_is_retired_is_read_from_the_network(cold: Cold) -> None:
    bodies, units = cold.infos("body"), cold.infos("unit")
    assert len(bodies) == 2 and len(units) == 1
    rows: list[Any] = []
    cold.store.on_change = rows.append
    cold.retire(*bodies, *units)
    assert [(row.stream, row.number, row.state) for row in rows] == [
        (info.stream, info.number, "cold") for info in [*bodies, *units]
    ]
    assert not cold.infos("body") and not cold.infos("unit")
    cold.check()
    assert cold.store.statistics.fetched >= len(cold.chunks)
    chunk = cold.chunks[0]
    assert cold.store.read_now(cid_of(chunk)) is None
    assert cold.machine.run(cold.store.lacking([cid_of(chunk), cid_of(b"record")])) is None
    assert "which is cold" in cold.store.where(cid_of(chunk))
    assert cid_of(chunk) in cold.store
    part = bytearray(100)
    cold.machine.run(cold.store.read_part(cid_of(chunk), 50, memoryview(part)))
    assert part == chunk[50:150]
    with pytest.raises(NotFound):
        cold.machine.read(b"what nobody ever stored")


@pytest.mark.parametrize("end", ["stop", "kill", "power"])
@pytest.mark.parametrize("without_runs", [False, True])
def test_a_start_knows_what_is_cold(cold: Cold, end: str, without_runs: bool) -> None:
    gone = [*cold.infos("body"), *cold.infos("unit")]
    cold.retire(*gone)
    if end == "stop":
        cold.machine.stop()
    else:
        cold.machine.crash(power=end == "power")
    if without_runs:
        for name in cold.machine.names("run"):
            del cold.machine.files.names[name]
    found = cold.restart(keys(gone))
    if without_runs:  # nothing here can tell any more where blocks stand
        assert sum("its index is lost" in problem for problem in found.problems) == len(gone)
        return
    assert not found.problems
    cold.check()
    states = {(row.stream, row.number): row.state for row in cold.store.rows()}
    assert {states[info.key] for info in gone} == {"cold"}
    sequences = cold.machine.commits()
    assert sequences == list(range(1, cold.store.sequence + 1))
    for cid, record in cold.log.records.items():
        assert cold.machine.run(cold.store.holds(CommitRef(record.sequence, cid)))
    chunk = cold.machine.random.randbytes(9000)
    position = cold.machine.upload(chunk)
    assert position.segment > max(info.number for info in gone if info.stream == "body")
    cold.log.commit()


def test_a_start_that_was_not_told_calls_it_missing(cold: Cold) -> None:
    (unit,) = cold.infos("unit")
    cold.retire(unit)
    cold.machine.stop()
    found = cold.restart()
    assert any("is missing" in problem for problem in found.problems)
    with pytest.raises(NotFound):
        cold.machine.read(cold.log.kept[0])


def test_a_file_that_is_still_there_is_warm(cold: Cold) -> None:
    everything = keys([*cold.infos("body"), *cold.infos("unit")])
    cold.machine.stop()
    found = cold.restart(everything)
    assert not found.problems
    cold.check()
    assert not cold.source.asked
    assert "cold" not in {row.state for row in cold.store.rows()}


def test_what_must_not_be_retired(cold: Cold) -> None:
    machine, store = cold.machine, cold.store
    position = machine.upload(machine.random.randbytes(6000))
    for key in (("body", position.segment), ("log", 4), ("body", 99), ("unit", 1), ("unit", 99)):
        with pytest.raises(RequestError):
            machine.run(store.retire(key))
    (body, *_) = cold.infos("body")
    cold.retire(body)
    with pytest.raises(RequestError):
        machine.run(store.retire(body.key))


def test_the_unit_of_the_newest_commit_stays() -> None:
    machine = Machine(seed=4)
    machine.start()
    filled = Filled(machine)
    machine.stop()
    machine.start()
    machine.run(machine.settle())
    count = len(machine.store.settled())
    info = filled.compact(count=count)
    assert info.last_commit == machine.store.sequence
    assert info not in machine.store.retirable()
    with pytest.raises(RequestError):
        machine.run(machine.store.retire(info.key))
    filled.commit()
    assert info in machine.store.retirable()
    machine.loop.bury()


def test_a_file_that_cannot_be_removed_is_as_warm_as_before(cold: Cold) -> None:
    (body, *_) = cold.infos("body")
    cold.machine.files.fault = lambda call, name: errno.EIO if call == "unlink" else 0
    with pytest.raises(Unavailable, match="cannot be removed"):
        cold.machine.run(cold.store.retire(body.key))
    cold.machine.files.fault = lambda call, name: 0
    cold.check()
    assert not cold.source.asked and body in cold.infos("body")


def test_readers_under_way_finish(cold: Cold) -> None:
    bodies = cold.infos("body")
    inodes = [cold.machine.file(format.file_name(*info.key)) for info in bodies]
    for info, inode in zip(bodies, inodes, strict=True):
        cold.source.keep(info.key, bytes(inode.seen))

    async def read_and_retire() -> list[bytes]:
        reads = [asyncio.ensure_future(cold.store.read(cid_of(chunk))) for chunk in cold.chunks]
        for info in bodies:
            await asyncio.sleep(0)
            await cold.store.retire(info.key)
        return [await read for read in reads]

    assert cold.machine.run(read_and_retire()) == cold.chunks
    assert not set(cold.machine.files.fds.values()) & set(inodes), "a descriptor is left open"


def test_without_a_network(cold: Cold) -> None:
    cold.retire(*cold.infos("body"))
    cold.store.fetch = None
    with pytest.raises(Unfetched, match="no network"):
        cold.machine.read(cold.chunks[0])
    cold.store.fetch = cold.source
    for provider in cold.source.all:
        provider.away = True
    with pytest.raises(Unfetched, match="is away"):
        cold.machine.read(cold.chunks[0])
    for provider in cold.source.all:
        provider.away = False
        provider.files.clear()
    with pytest.raises(NotFound, match="has it not"):
        cold.machine.read(cold.chunks[0])


def test_wrong_bytes_never_get_through(cold: Cold) -> None:
    cold.retire(*cold.infos("body"))
    near, far = cold.source.all
    near.spoil = lambda at, piece: flip(piece, len(piece) // 2)
    for chunk in cold.chunks:
        assert cold.machine.read(chunk) == chunk
    assert cold.store.statistics.rejected == len(cold.chunks) == len(far.asked)
    far.spoil = near.spoil
    cold.machine.stop()
    cold.restart(keys([info for info in cold.store._index.sealed() if info.stream == "body"]))
    for chunk in cold.chunks:
        with pytest.raises(Unfetched):
            cold.machine.read(chunk)


def test_a_place_that_breaks_off_is_continued_elsewhere(cold: Cold) -> None:
    cold.retire(*cold.infos("body"))
    near, far = cold.source.all
    near.stop_after = 5000
    assert cold.machine.read(cold.chunks[0]) == cold.chunks[0]
    (_, start, stop) = far.asked[0]
    assert 0 < stop - start < len(cold.chunks[0])


def test_equal_blocks_are_fetched_once(cold: Cold) -> None:
    cold.retire(*cold.infos("body"))

    async def together() -> list[bytes]:
        return await asyncio.gather(*[cold.store.read(cid_of(cold.chunks[0])) for _ in range(9)])

    assert cold.machine.run(together()) == [cold.chunks[0]] * 9
    assert len(cold.source.asked) == 1


def test_one_who_goes_away_does_not_end_it_for_the_others(cold: Cold) -> None:
    cold.retire(*cold.infos("body"))

    async def story() -> bytes:
        cold.source.gate = asyncio.Event()
        first, second = (
            asyncio.ensure_future(cold.store.read(cid_of(cold.chunks[0]))) for _ in range(2)
        )
        for _ in range(20):
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        cold.source.gate.set()
        return await second

    assert cold.machine.run(story()) == cold.chunks[0]
    assert len(cold.source.asked) == 1


def test_what_everybody_left_before_its_turn_is_not_fetched(
    cold: Cold, monkeypatch: pytest.MonkeyPatch
) -> None:
    cold.retire(*cold.infos("body"))
    reader = cold.store._cold
    monkeypatch.setattr(reader, "_fetching", asyncio.Semaphore(1))
    first, second, third, fourth, *_ = map(cid_of, cold.chunks)

    async def story() -> list[bytes]:
        def task(cid: bytes) -> asyncio.Task[bytes]:
            return asyncio.ensure_future(cold.store.read(cid))

        cold.source.gate = asyncio.Event()
        under_way = task(first)
        await turns()
        gone = [task(second), task(third), task(third)]
        cold.store.prefetch([fourth])
        ahead = task(fourth)
        await turns()
        for one in (*gone, ahead):
            one.cancel()
        await asyncio.wait([*gone, ahead])
        again = task(second)  # takes the place of one who left
        await turns()
        cold.source.gate.set()
        found = [await under_way, await again]
        await turns()
        assert not reader._flights
        return found

    async def turns() -> None:
        for _ in range(40):
            await asyncio.sleep(0)

    assert cold.machine.run(story()) == cold.chunks[:2]
    assert len(cold.source.asked) == 2 and reader._ahead_bytes == 0
    assert cold.machine.read(cold.chunks[2]) == cold.chunks[2]


def test_neighbours_come_with_one_request_a_segment(cold: Cold) -> None:
    bodies = cold.infos("body")
    cold.retire(*bodies)
    cids = [cid_of(chunk) for chunk in cold.chunks]

    async def ahead() -> list[bytes]:
        cold.store.prefetch(cids)
        cold.store.prefetch(cids)
        return [await cold.store.read(cid) for cid in cids]

    assert cold.machine.run(ahead()) == cold.chunks
    assert sorted(key for key, _, _ in cold.source.asked) == [info.key for info in bodies]
    assert cold.store._cold._ahead_bytes == 0


def test_a_bad_neighbour_spoils_nothing_but_itself(cold: Cold) -> None:
    """The damaged block is at every provider; what stands behind it in the same request is read
    all the same."""
    bodies = cold.infos("body")
    cold.retire(*bodies)
    cids = [cid_of(chunk) for chunk in cold.chunks]
    bad = cold.store._index.cold_place(cids[1])
    for provider in cold.source.all:
        data = bytearray(provider.files[bad.key])
        data[bad.offset + 10] ^= 1
        provider.files[bad.key] = bytes(data)

    async def ahead() -> list[Any]:
        cold.store.prefetch(cids)
        return await asyncio.gather(*map(cold.store.read, cids), return_exceptions=True)

    found = cold.machine.run(ahead())
    assert isinstance(found.pop(1), Unfetched)
    assert found == cold.chunks[:1] + cold.chunks[2:]


def test_closing_ends_what_is_under_way(cold: Cold) -> None:
    cold.retire(*cold.infos("body"))

    async def story() -> None:
        cold.source.gate = asyncio.Event()
        read = asyncio.ensure_future(cold.store.read(cid_of(cold.chunks[0])))
        for _ in range(20):
            await asyncio.sleep(0)
        await cold.store.close()
        with pytest.raises(Unavailable):
            await read

    cold.machine.run(story())
    assert cold.source.reading == 0


def test_another_copy_here_is_read_here(cold: Cold) -> None:
    """And where it is damaged the network helps."""
    chunk = cold.chunks[0]
    cold.retire(*cold.infos("body"))
    position = cold.machine.upload(chunk)
    assert cold.machine.read(chunk) == chunk and not cold.source.asked
    cold.machine.run(cold.store.sync_bodies([position]))
    cold.machine.stop()
    gone = keys([info for info in cold.store._index.sealed() if info.number <= 2])
    cold.restart(frozenset(key for key in gone if key[0] == "body"))
    (place,) = cold.store.places(cid_of(chunk))
    cold.machine.spoil(format.file_name(place.stream, place.number), place.offset + 5)
    assert cold.machine.read(chunk) == chunk
    assert cold.source.asked and cold.store.statistics.corrupt == 1


def test_a_damaged_run_of_cold_segments_stays(cold: Cold) -> None:
    gone = [*cold.infos("body"), *cold.infos("unit")]
    cold.retire(*gone)
    cold.machine.stop()
    for name in cold.machine.names("run"):
        cold.machine.spoil(name, len(cold.machine.file(name).seen) - 1)
    found = cold.restart(keys(gone))
    assert not found.problems
    cold.machine.run(cold.machine.settle())
    good = 0
    for chunk in cold.chunks:  # an entry was spoilt, the others still lead to their blocks
        try:
            assert cold.machine.read(chunk) == chunk
            good += 1
        except (NotFound, Unfetched):
            pass
    assert good >= len(cold.chunks) - 2
    with pytest.raises(RequestError):
        for info in gone:
            cold.machine.run(cold.store.retire(info.key))


def test_verify_passes_over_what_is_cold(cold: Cold) -> None:
    gone = [*cold.infos("body"), *cold.infos("unit")]
    cold.retire(*gone)
    found = cold.machine.run(cold.store.verify(lambda line: None))
    assert not found.broken and not found.spots and not found.remarks
    assert found.cold == len(gone) and found.unread
    assert (found.first_commit, found.last_commit) == (1, cold.store.sequence)
    assert not cold.source.asked


def test_bytes_here_and_read_times(cold: Cold) -> None:
    before = cold.store.bytes_here()
    (body, *_) = cold.infos("body")
    times = cold.store.read_times(7)
    assert body.key not in times
    cold.machine.read(cold.chunks[0])
    assert cold.store.read_times(8)[body.key] == 7
    tail = cold.machine.run(cold.store.part_of(body, body.bytes - 100, 100))
    cold.retire(body)
    assert cold.store.bytes_here() == before - body.bytes
    assert cold.source.all[0].files[body.key].endswith(tail)
