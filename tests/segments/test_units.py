"""Units: what takes the place of log segments, at every moment and after every crash."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from ingot.errors import NotFound, RequestError
from ingot.messages import CommitRecord, CommitRef
from ingot.segments import format
from ingot.segments.model import SegmentInfo
from tests.segments.machine import Machine, cid_of
from tests.sim.disk import SimFiles


@pytest.fixture
def machine() -> Any:
    made = Machine(seed=5)
    made.start()
    yield made
    made.loop.bury()


class Filled:
    """A log of several sealed segments: per commit a block that stays and one that is garbage."""

    def __init__(self, machine: Machine, segments: int = 3) -> None:
        self.machine = machine
        self.kept: list[bytes] = []
        self.garbage: list[bytes] = []
        self.records: dict[bytes, CommitRecord] = {}
        while machine.store.statistics.rotations < segments:
            self.commit()
        self.commit()
        machine.run(machine.settle())

    def commit(self) -> None:
        kept, garbage = (self.machine.random.randbytes(2000) for _ in range(2))
        cid, record = self.machine.commit(kept, garbage)
        self.kept.append(kept)
        self.garbage.append(garbage)
        self.records[cid] = record

    @property
    def live(self) -> set[bytes]:
        return {*map(cid_of, self.kept), *self.records}

    def compact(self, first: int = 0, count: int = 3) -> SegmentInfo:
        machine = self.machine
        sources = machine.store.settled()[first : first + count]
        return machine.run(machine.store.replace(sources, self.live))

    def check_blocks(self) -> None:
        for block in self.kept:
            assert self.machine.read(block) == block

    def check(self) -> None:
        """All that is live is there, and the commits are one chain."""
        machine = self.machine
        self.check_blocks()
        assert machine.commits() == [record.sequence for record in self.records.values()]
        for cid, record in self.records.items():
            assert machine.run(machine.store.holds(CommitRef(record.sequence, cid)))


def test_a_unit_takes_the_place_of_its_segments(machine: Machine) -> None:
    filled = Filled(machine)
    before = sum(info.bytes for info in machine.store.settled())
    rows: list[Any] = []
    machine.store.on_change = rows.append
    info = filled.compact()
    assert machine.names("unit") == [format.file_name("unit", 3)] == [format.file_name(*info.key)]
    assert [n for n in machine.names("log") if n <= format.file_name("log", 3)] == []
    assert info.bytes < before * 0.55
    assert [(row.stream, row.number, row.state) for row in rows] == [
        ("unit", 3, "sealed"),
        *(("log", number, "replaced") for number in (1, 2, 3)),
    ]
    filled.check()
    for block in filled.garbage[:3]:
        with pytest.raises(NotFound):
            machine.read(block)
    filled.commit()
    filled.check()


def test_a_unit_is_a_car_file_whose_root_is_its_last_commit(machine: Machine) -> None:
    filled = Filled(machine)
    info = filled.compact(count=2)
    data = bytes(machine.file(format.file_name("unit", 2)).seen)
    assert format.is_header(data) and format.root_of(data) == info.root
    assert len(data) == info.bytes
    last = [cid for cid, record in filled.records.items() if record.segment == 2][-1]
    assert info.root == last and info.first_commit == 1


@pytest.mark.parametrize("power", [False, True])
@pytest.mark.parametrize("without_runs", [False, True])
def test_a_start_takes_units_up(machine: Machine, power: bool, without_runs: bool) -> None:
    filled = Filled(machine, segments=4)
    filled.compact(count=2)
    filled.commit()
    machine.crash(power=power)
    if without_runs:
        for name in machine.names("run"):
            del machine.files.names[name]
    found = machine.start()
    assert not found.problems
    assert found.newest is not None and found.newest[0] == list(filled.records)[-1]
    filled.check()
    verified = machine.run(machine.store.verify(lambda line: None))
    assert not verified.broken and not verified.spots
    assert verified.last_commit == len(filled.records)
    filled.commit()
    filled.compact(count=1)
    filled.check()


def test_segments_beside_their_unit_are_removed(machine: Machine) -> None:
    filled = Filled(machine)
    names = [format.file_name("log", number) for number in (1, 2, 3)]
    inodes = {name: machine.file(name) for name in names}
    filled.compact()
    machine.crash()
    machine.files.names.update(inodes)  # as if it had died before it could unlink them
    assert not machine.start().problems
    assert not {*names} & {*machine.files.names}
    filled.check()
    machine.crash()
    machine.files.names.update(inodes)
    for name in machine.names("run"):  # nothing says what is in them but they themselves
        del machine.files.names[name]
    assert not machine.start().problems
    assert not {*names} & {*machine.files.names}
    filled.check()


def test_an_unfinished_unit_is_removed(machine: Machine) -> None:
    filled = Filled(machine)
    machine.crash()
    left = format.unfinished_name("unit", 3)
    machine.files.names[left] = machine.file(format.file_name("log", 3))
    assert not machine.start().problems
    assert left not in machine.files.names
    filled.check()


@pytest.mark.parametrize(
    "call", ["create", "pwrite", "fdatasync", "rename", "sync_directory", "unlink"]
)
def test_a_disk_that_refuses_leaves_the_segments(machine: Machine, call: str) -> None:
    filled = Filled(machine)
    for nth in range(1, 8):
        left = [nth]

        def refuse(kind: str, name: str, left: list[int] = left) -> int:
            left[0] -= kind == call
            return errno.EIO if kind == call and left[0] == 0 else 0

        machine.files.fault = refuse
        try:
            filled.compact()
        except OSError:
            filled.check()
            continue
        finally:
            machine.files.fault = lambda kind, name: 0
        break
    filled.check()
    machine.crash(power=True)
    assert not machine.start().problems
    filled.check()


def test_a_damaged_unit_is_quarantined_and_what_verifies_is_served(machine: Machine) -> None:
    filled = Filled(machine)
    filled.compact()
    place = machine.store.find(cid_of(filled.kept[1]))
    assert place is not None and place.stream == "unit"
    machine.crash()
    for name in machine.names("run"):
        del machine.files.names[name]
    machine.spoil(format.file_name("unit", 3), place.offset + 5)
    found = machine.start()
    assert [line for line in found.problems if "unit" in line and "quarantined" in line]
    for number, block in enumerate(filled.kept):
        if number != 1:
            assert machine.read(block) == block
    assert machine.commits() == [record.sequence for record in filled.records.values()]


def test_fsck_finds_a_flipped_bit_in_a_unit(machine: Machine) -> None:
    filled = Filled(machine)
    filled.compact()
    place = machine.store.find(cid_of(filled.kept[2]))
    assert place is not None
    machine.spoil(format.file_name("unit", 3), place.offset)
    verified = machine.run(machine.store.verify(lambda line: None))
    assert [spot.key for spot in verified.spots] == [("unit", 3)]


def test_a_good_copy_goes_into_the_unit(machine: Machine) -> None:
    """A block whose copy in the segment is damaged, and that a later segment has."""
    filled = Filled(machine)
    machine.commit(filled.kept[0])
    machine.run(machine.settle())
    place = [p for p in machine.store.places(cid_of(filled.kept[0])) if p.number == 1][0]
    machine.spoil(format.file_name("log", 1), place.offset)
    machine.store._index.trusted.clear()
    filled.compact()
    units = [p for p in machine.store.places(cid_of(filled.kept[0])) if p.stream == "unit"]
    data = machine.file(format.file_name("unit", 3)).seen
    assert bytes(data[units[0].offset :][: units[0].length]) == filled.kept[0]


def test_segments_that_are_not_in_a_row_are_refused(machine: Machine) -> None:
    filled = Filled(machine, segments=4)
    settled = machine.store.settled()
    with pytest.raises(RequestError, match="not in a row"):
        machine.run(machine.store.replace([settled[0], settled[2]], filled.live))
    filled.check()


def test_a_unit_larger_than_a_segment_may_be_is_refused() -> None:
    machine = Machine(seed=6, segment_bytes_max=40 * 1024)
    machine.start()
    filled = Filled(machine)
    filled.kept += filled.garbage
    with pytest.raises(RequestError, match="larger"):
        filled.compact()
    filled.check()
    assert not machine.names("unit")
    machine.loop.bury()


def test_a_reader_under_way_is_not_disturbed(machine: Machine) -> None:
    """A read that waits for the disk while its segment goes."""
    filled = Filled(machine)
    cid = cid_of(filled.kept[0])

    async def both() -> bytes:
        plain, SimFiles.pread_now = SimFiles.pread_now, lambda *_: None  # type: ignore
        try:
            reading = machine.loop.create_task(machine.store.read(cid))
            sources = machine.store.settled()[:3]
            making = machine.loop.create_task(machine.store.replace(sources, filled.live))
            await making
            return await reading
        finally:
            SimFiles.pread_now = plain  # type: ignore[method-assign]

    assert machine.run(both()) == filled.kept[0]
    filled.check()
    assert not machine.store._open_files._gone
