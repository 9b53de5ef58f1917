"""Files on their way out: which may be shipped, what they are called, what is in them."""

from __future__ import annotations

from hashlib import sha256
from itertools import pairwise
from random import Random
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


def blocks_of(
    machine: Machine, segment: SealedSegment, spans: Any = ()
) -> list[tuple[bytes, int, int]]:
    async def found() -> list[tuple[bytes, int, int]]:
        return [one async for some in machine.store.blocks_of(segment, spans) for one in some]

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
        assert machine.run(machine.store.examine(segment)) == (multihash.of(data), ())
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


@pytest.mark.parametrize("window", [2 * CHUNK, 1 << 20])
@pytest.mark.parametrize("seed", range(6))
def test_what_is_damaged_ships_and_what_is_bad_of_it_is_left_out(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, window: int, seed: int
) -> None:
    """Bits that flip anywhere: in data, in a frame's head, in the file's, one behind the other."""
    monkeypatch.setattr(outgoing, "SHIP_SCAN_BYTES", window)
    monkeypatch.setattr(outgoing, "FRAME_BYTES_MAX", CHUNK + 50)
    source = Random(seed)
    filled(machine)
    segment = source.choice(machine.store.shippable())
    whole = blocks_of(machine, segment)
    name = format.file_name("body", segment.number)
    spots = [source.randrange(segment.bytes) for _ in range(seed)] + [source.choice((0, 59, 60))]
    for spot in spots:
        machine.spoil(name, spot)
    digest, spans = machine.run(machine.store.examine(segment))
    assert digest == multihash.of(seen(machine, segment))
    assert all(any(start <= spot < stop for start, stop in spans) for spot in spots)
    assert all(before[1] < after[0] for before, after in pairwise(spans))
    good = [
        (name, offset, length)
        for name, offset, length in whole
        if all(spot < offset - 40 or spot >= offset + length for spot in spots)
    ]
    found = blocks_of(machine, segment, spans)
    data = seen(machine, segment)
    assert set(good) <= set(found) <= set(whole)
    assert all(multihash.of(data[at : at + length]) == name for name, at, length in found)
    for name, offset, _ in whole:
        bad = any(start <= offset < stop for start, stop in spans)
        assert bad == ((name, offset) not in {(one[0], one[1]) for one in found})


def test_a_file_that_was_cut_is_not_given_a_digest(machine: Machine) -> None:
    filled(machine)
    segment = machine.store.shippable()[0]
    del machine.file(format.file_name("body", segment.number)).seen[segment.bytes - 9 :]
    with pytest.raises(Corruption, match="before the file's end"):
        blocks_of(machine, segment)
    with pytest.raises(Corruption, match="before the file's end"):
        machine.run(machine.store.examine(segment))


def test_a_quarantined_segment_ships_and_a_missing_one_is_still_counted(machine: Machine) -> None:
    filled(machine)
    first, second, *rest = machine.store.shippable()
    machine.crash()
    del machine.files.names[format.file_name("body", first.number)]
    for name in machine.names("run"):
        del machine.files.names[name]
    machine.spoil(format.file_name("body", second.number), 5000)
    machine.start()
    ships = {one.number: one.lacking for one in machine.store.shippable()}
    assert first.number not in ships and ships[second.number]
    assert not any(ships[one.number] for one in rest)
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


def test_a_damaged_log_segment_becomes_a_unit_and_is_kept(machine: Machine) -> None:
    blocks = filled(machine, bodies=False)
    first, *_ = machine.store.settled()
    name = format.file_name("log", first.number)
    machine.spoil(name, 1000)  # within the data of a block
    data = bytes(machine.file(name).seen)
    unit = machine.run(machine.store.salvage(first))
    machine.run(machine.settle())
    (ships,) = [one for one in machine.store.shippable() if one.stream == "unit"]
    assert ships.lacking and ships.number == unit.number == first.number
    assert (unit.first_commit, unit.last_commit) == (first.first_commit, first.last_commit)
    kept = format.damaged_name(first.number)
    assert name not in machine.files.names and bytes(machine.file(kept).seen) == data
    for round in range(2):
        held = [block for block in blocks if len(block) == 2000 and has(machine, block)]
        assert 0 < len(held) < len([block for block in blocks if len(block) == 2000])
        machine.stop()
        problems = machine.start().problems
        assert [line for line in problems if kept in line] and len(problems) == 1, round
        assert [one.lacking for one in machine.store.shippable() if one.stream == "unit"] == [True]
    del machine.files.names[format.file_name("unit", first.number)]
    machine.stop()
    machine.start()  # without the unit the log segment is what there is
    assert machine.file(name) and kept not in machine.files.names


def has(machine: Machine, block: bytes) -> bool:
    return machine.store.find(cid_of(block)) is not None


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
    assert sha256(seen(machine, unit)).digest() == machine.run(machine.store.examine(unit))[0][2:]
