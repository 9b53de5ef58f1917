"""Commits that are found where the chain does not lead to them, and whose segments these are."""

from __future__ import annotations

from typing import Any

import pytest

from ingot.errors import IngotError
from ingot.messages import CommitRef
from ingot.segments import format
from ingot.segments.search import stores_in
from tests.segments.machine import STORE, Machine

RECORD = b"\xa1\x6eingot/commit@1"


@pytest.fixture
def machine() -> Any:
    made = Machine(seed=7)
    made.start()
    yield made
    made.loop.bury()


def fill(machine: Machine, segments: int = 3) -> list[CommitRef]:
    """The commits, in order, of some sealed segments and an open one."""
    refs = []
    while machine.store.statistics.rotations < segments or not refs:
        cid, record = machine.commit(machine.random.randbytes(1500))
        refs.append(CommitRef(record.sequence, cid))
    cid, record = machine.commit(b"the last")
    machine.run(machine.settle())
    return [*refs, CommitRef(record.sequence, cid)]


def spoil_record(machine: Machine, name: str, which: int) -> None:
    """Damage one commit record of a file."""
    seen, at = bytes(machine.file(name).seen), -1
    for _ in range(which + 1):
        at = seen.index(RECORD, at + 1)
    machine.spoil(name, at + 30)


def before(machine: Machine, sequence: int) -> CommitRef | None:
    return machine.run(machine.store.commit_before(sequence))


def test_every_commit_leads_to_the_one_before(machine: Machine) -> None:
    refs = fill(machine)
    assert machine.store.newest == refs[-1]
    found, sequence = [], refs[-1].sequence + 1
    while (ref := before(machine, sequence)) is not None:
        found.append(ref)
        sequence = ref.sequence
    assert found == refs[::-1]


def test_damaged_records_are_passed_over(machine: Machine) -> None:
    refs = fill(machine)
    name = machine.names("log")[1]
    info = machine.store.settled()[1]
    first, count = info.first_commit, info.last_commit - info.first_commit + 1
    assert count >= 5
    for which in (1, 2, count - 1):
        spoil_record(machine, name, which)
    assert before(machine, first + 4) == refs[first + 2]
    assert before(machine, first + 3) == refs[first - 1]
    last = before(machine, info.last_commit + 1)
    assert last == refs[info.last_commit - 1], "the index knows of it, readable or not"
    assert before(machine, info.last_commit) == refs[info.last_commit - 2]
    assert before(machine, first) == refs[first - 2], "in the segment before"


def test_a_segment_that_is_gone(machine: Machine) -> None:
    refs = fill(machine)
    info = machine.store.settled()[1]
    machine.stop()
    machine.files.unlink(f"/segments/{format.file_name(*info.key)}")
    machine.start()
    assert before(machine, info.last_commit) == refs[info.first_commit - 2]
    with pytest.raises(IngotError):
        machine.run(machine.store.read(refs[info.last_commit - 1].record or b""))


def test_whose_segments_these_are(machine: Machine) -> None:
    assert stores_in(machine.files, "/segments") == {}
    fill(machine)
    machine.stop()
    assert list(stores_in(machine.files, "/segments")) == [STORE]
    logs = [name for name in machine.names("log") if RECORD in machine.file(name).seen]
    spoil_record(machine, logs[0], 0)
    machine.spoil(logs[1], format.HEADER_BYTES + 10)
    assert stores_in(machine.files, "/segments") == {STORE: len(logs)}
