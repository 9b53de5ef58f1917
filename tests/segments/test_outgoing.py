"""Files on their way out: which may be shipped, what they are called, what is in them."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest

from ingot.codec import multihash
from ingot.errors import Corruption, Unavailable
from ingot.messages import BodyPosition, SealedSegment
from ingot.segments import format, outgoing
from tests.segments.machine import Machine, cid_of

CHUNK = 9000


@pytest.fixture
def machine() -> Any:
    made = Machine(seed=7)
    made.start()
    yield made
    made.loop.bury()


def filled(machine: Machine, segments: int = 3, bodies: bool = True) -> list[bytes]:
    """Several log segments; per commit a block in the log and a chunk. All blocks, in order."""
    blocks: list[bytes] = []
    before = len(machine.store.settled())
    while len(machine.store.settled()) < before + segments:
        chunk = machine.random.randbytes(CHUNK)
        positions = [machine.upload(chunk)] if bodies else []
        blocks += [machine.random.randbytes(2000), chunk]
        machine.commit(blocks[-2], bodies=positions)
        machine.run(machine.settle())
    return blocks


def compact(machine: Machine, count: int, blocks: list[bytes]) -> None:
    """The first log segments become a unit, of everything that is in them."""
    store = machine.store
    sources = store.settled()[:count]

    async def records() -> set[bytes]:
        return {cid async for cid, _ in store.commits_after(0)}

    machine.run(store.replace(sources, {*map(cid_of, blocks), *machine.run(records())}))
    machine.run(machine.settle())


def blocks_of(machine: Machine, segment: SealedSegment) -> list[tuple[bytes, int, int]]:
    async def found() -> list[tuple[bytes, int, int]]:
        return [one async for some in machine.store.blocks_of(segment) for one in some]

    return machine.run(found())


def seen(machine: Machine, segment: SealedSegment) -> bytes:
    return bytes(machine.file(format.file_name(segment.stream, segment.number)).seen)


@pytest.mark.parametrize("window", [44, 300, 1 << 20])
def test_whole_files_ship_with_digest_and_blocks(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    monkeypatch.setattr(outgoing, "SHIP_HEADS_BYTES", window)
    monkeypatch.setattr(outgoing, "SHIP_SCAN_BYTES", max(window, CHUNK + 100))
    blocks = filled(machine)
    assert {one.stream for one in machine.store.shippable()} == {"body"}
    compact(machine, 2, blocks)
    shippable = machine.store.shippable()
    units = [one for one in shippable if one.stream == "unit"]
    assert [one.number for one in units] == [2] and len(shippable) > 3
    assert units[0].first_commit == 1 and units[0].needs is not None
    held = set()
    for segment in shippable:
        data = seen(machine, segment)
        assert len(data) == segment.bytes
        assert machine.run(machine.store.digest_of(segment)) == multihash.of(data)
        for name, offset, length in blocks_of(machine, segment):
            assert multihash.of(data[offset : offset + length]) == name
            held.add(name)
        assert sum(length for _, _, length in blocks_of(machine, segment)) > segment.bytes * 0.9
    bodies = [one.number for one in shippable if one.stream == "body"]
    chunks = [block for block in blocks if len(block) == CHUNK]
    assert {multihash.of(chunk) for chunk in chunks[: len(bodies)]} <= held
    assert set(bodies) <= set(machine.store.body_numbers())


def test_what_is_still_written_does_not_ship(machine: Machine) -> None:
    position = machine.upload(b"chunk" * 2000)
    assert set(machine.store.body_numbers()) == set()
    machine.commit(b"block", bodies=[position])
    assert machine.store.shippable() == [] and set(machine.store.body_numbers()) == {1}
    machine.stop()
    assert not machine.start().problems
    (body,) = machine.store.shippable()
    assert (body.stream, body.number, body.first_commit, body.needs) == ("body", 1, 0, None)


def test_what_is_damaged_is_not_given_a_digest(machine: Machine) -> None:
    filled(machine)
    first, second, *_ = machine.store.shippable()
    machine.spoil(format.file_name("body", first.number), first.bytes - 5)
    with pytest.raises(Corruption, match=f"body-0*{first.number}.car at byte"):
        machine.run(machine.store.digest_of(first))
    machine.file(format.file_name("body", second.number)).write(b"x", 0)
    with pytest.raises(Corruption, match="a header of ours"):
        machine.run(machine.store.digest_of(second))
    inode = machine.file(format.file_name("body", second.number))
    del inode.seen[second.bytes - 9 :]
    with pytest.raises(Corruption, match="before the file's end"):
        blocks_of(machine, second)


def test_a_quarantined_or_missing_body_segment_is_still_counted(machine: Machine) -> None:
    filled(machine)
    first, second, *rest = machine.store.shippable()
    machine.crash()
    del machine.files.names[format.file_name("body", first.number)]
    for name in machine.names("run"):
        del machine.files.names[name]
    machine.spoil(format.file_name("body", second.number), 5000)
    machine.start()
    assert second.number not in [one.number for one in machine.store.shippable()]
    assert {second.number, *(one.number for one in rest)} <= set(machine.store.body_numbers())


def test_a_body_segment_without_a_good_frame_is_not_waited_for(machine: Machine) -> None:
    chunk = machine.random.randbytes(6000)
    machine.upload(chunk)
    machine.crash()
    machine.spoil(format.file_name("body", 1), 100)
    assert not machine.start().problems
    position = machine.upload(machine.random.randbytes(6000))
    machine.commit(b"record", bodies=[position])
    assert format.file_name("body", 1) in machine.names("body")
    assert set(machine.store.body_numbers()) == {position.segment}


def test_an_open_file_outlives_its_name(machine: Machine) -> None:
    filled(machine)
    segment = machine.store.shippable()[0]
    data = seen(machine, segment)
    with machine.store.open_file(segment) as fd:
        machine.store._open_files.forget((segment.stream, segment.number))
        assert machine.files.pread(fd, segment.bytes, 0) == data
    assert fd not in machine.files.fds
    gone = SealedSegment("body", 999, 5, 0, 0, None)
    with pytest.raises(Unavailable, match="cannot be opened"):
        with machine.store.open_file(gone):
            pass


def test_numbers_that_were_skipped_are_no_gap(machine: Machine) -> None:
    blocks = filled(machine, bodies=False)
    machine.stop()
    machine.start()
    last = machine.store.sequence
    machine.store.resume_after(last + 10)
    blocks += filled(machine, segments=2, bodies=False)
    while len(machine.store.settled()) > 1:
        compact(machine, 1, blocks)
    units = machine.store.shippable()
    assert len(units) > 3 and units[0].first_commit == 1
    for one, behind in zip(units, units[1:], strict=False):
        assert behind.first_commit == one.last_commit + 1
    assert units[-1].last_commit > last + 10


def test_needs_is_the_furthest_position(machine: Machine) -> None:
    blocks = filled(machine)
    compact(machine, 2, blocks)
    (unit,) = [one for one in machine.store.shippable() if one.stream == "unit"]

    async def positions() -> list[BodyPosition]:
        return [
            position
            async for _, record in machine.store.commits_after(0)
            for position in record.bodies
            if record.sequence <= unit.last_commit
        ]

    assert unit.needs == max(machine.run(positions()), key=lambda one: (one.segment, one.end))
    assert sha256(seen(machine, unit)).digest() == machine.run(machine.store.digest_of(unit))[2:]
