"""States, the order of files, the watermark, the roots: by their properties."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.errors import Corruption
from ingot.messages import BodyPosition, ForgeRoot, Head, HeadMove, SealedSegment, Shipment
from ingot.shipper import lifecycle
from ingot.shipper.lifecycle import INDEXED, QUEUED, REFUSED, STORED
from ingot.shipper.roots import Roots
from tests.shipper.support import Log

DIGEST = b"\x12\x20" + bytes(32)
STATES = [QUEUED, STORED, INDEXED, REFUSED]


def unit(number: int, first: int, last: int, needs: BodyPosition | None = None) -> SealedSegment:
    return SealedSegment("unit", number, 100, first, last, needs)


def body(number: int, size: int = 100) -> SealedSegment:
    return SealedSegment("body", number, size, 0, 0, None)


def row(segment: SealedSegment, state: str = INDEXED) -> Shipment:
    made = lifecycle.enqueue(segment, DIGEST)
    if state in (STORED, INDEXED):
        made = lifecycle.store(made, [b"token"])
    return made if state == made.state else lifecycle.become(made, state)


@st.composite
def logs(draw: Any) -> tuple[list[SealedSegment], list[SealedSegment]]:
    """Units in a row, and the body segments that they need."""
    bodies = [body(number) for number in range(1, draw(st.integers(0, 5)) + 1)]
    units, last, furthest = [], 0, 0
    for number in range(1, draw(st.integers(1, 6)) + 1):
        first, last = last + 1, last + draw(st.integers(1, 4))
        furthest = draw(st.integers(furthest, len(bodies)))
        end = draw(st.integers(1, 100))
        needs = BodyPosition(furthest, end) if furthest and draw(st.booleans()) else None
        units.append(unit(number, first, last, needs))
    return units, bodies


def states(draw: Any, segments: list[SealedSegment]) -> dict[SealedSegment, str]:
    return {segment: draw.draw(st.sampled_from(STATES)) for segment in segments}


# -- states ---------------------------------------------------------------------------------------


def test_the_way_of_a_file() -> None:
    queued = lifecycle.enqueue(unit(1, 1, 5, BodyPosition(3, 9)), DIGEST)
    assert (queued.state, queued.attempts, queued.needs) == (QUEUED, 0, BodyPosition(3, 9))
    failed = lifecycle.fail(lifecycle.fail(queued))
    assert failed.attempts == 2
    stored = lifecycle.store(failed, [b"one", b"two"])
    assert (stored.state, stored.attempts, stored.locations) == (STORED, 0, (b"one", b"two"))
    assert lifecycle.become(stored, INDEXED).locations == (b"one", b"two")


@pytest.mark.parametrize("state", STATES)
def test_what_follows_what(state: str) -> None:
    for other in STATES:
        if other in lifecycle.FOLLOWS[state]:
            assert lifecycle.become(row(unit(1, 1, 1), state), other).state == other
        else:
            with pytest.raises(AssertionError):
                lifecycle.become(row(unit(1, 1, 1), state), other)


def test_a_refused_file_goes_on_from_where_it_was() -> None:
    queued, stored = row(unit(1, 1, 1), QUEUED), row(unit(1, 1, 1), STORED)
    for before in (queued, stored):
        assert lifecycle.resume(lifecycle.become(before, REFUSED)) == before
        assert lifecycle.resume(before) == before
    assert lifecycle.resume(row(unit(1, 1, 1))).state == INDEXED


# -- order ----------------------------------------------------------------------------------------


@given(logs(), st.randoms(use_true_random=False))
def test_oldest_commits_first_and_bodies_before_those_that_need_them(
    log: tuple[list[SealedSegment], list[SealedSegment]], random: Any
) -> None:
    units, bodies = log
    mixed = units + bodies
    random.shuffle(mixed)
    ordered = lifecycle.in_order(mixed)
    assert sorted(map(str, ordered)) == sorted(map(str, mixed))
    assert [one for one in ordered if one.stream == "unit"] == units
    assert [one for one in ordered if one.stream == "body"] == bodies
    for at, one in enumerate(ordered):
        if one.needs is not None:
            needed = {b for b in bodies if b.number <= one.needs.segment}
            assert needed <= set(ordered[:at])


# -- the watermark --------------------------------------------------------------------------------


def covered(
    units: list[SealedSegment], bodies: list[SealedSegment], of: dict[SealedSegment, str], end: int
) -> bool:
    """Whether everything up to commit ``end`` is confirmed, written down naively."""
    for one in units:
        if one.first_commit > end:
            continue
        if of[one] != INDEXED:
            return False
        for each in bodies:
            if one.needs and each.number <= one.needs.segment and of[each] != INDEXED:
                return False
    return True


@given(logs(), st.data())
def test_the_watermark_is_the_last_end_that_is_covered(
    log: tuple[list[SealedSegment], list[SealedSegment]], data: Any
) -> None:
    units, bodies = log
    of = states(data, units + bodies)
    rows = data.draw(st.permutations([row(one, state) for one, state in of.items()]))
    found = lifecycle.watermarks(rows, [one.number for one in bodies])
    ends = [one.last_commit for one in units]
    assert found == [end for end in ends if covered(units, bodies, of, end)]
    for after in range(ends[-1] + 1):
        expected = [end for end in found if end > after]
        assert lifecycle.watermarks(rows, [one.number for one in bodies], after) == expected


@given(logs(), st.data())
def test_the_holder_is_what_must_be_confirmed_for_the_watermark_to_move(
    log: tuple[list[SealedSegment], list[SealedSegment]], data: Any
) -> None:
    units, bodies = log
    numbers = [one.number for one in bodies]
    rows = {one: row(one, state) for one, state in states(data, units + bodies).items()}
    for one in data.draw(st.sets(st.sampled_from(units + bodies))):
        del rows[one]  # not queued yet
    for _ in range(len(units + bodies) + 1):
        mark = max(lifecycle.watermarks(rows.values(), numbers), default=0)
        held = lifecycle.holder(rows.values(), numbers, mark)
        if held is None:
            break
        key = (held.stream, held.number) if isinstance(held, Shipment) else held
        (one,) = [one for one in units + bodies if (one.stream, one.number) == key]
        assert one not in rows or rows[one].state != INDEXED or one.stream == "body"
        if one in rows and rows[one].state == INDEXED:
            return  # shorter at Forge than what is needed: no step of shipping mends that
        rows[one] = row(one)
    ends = [one.last_commit for one in units]
    assert mark == ends[-1] or any(one not in rows for one in units)


@given(logs(), st.data())
def test_the_watermark_only_grows(
    log: tuple[list[SealedSegment], list[SealedSegment]], data: Any
) -> None:
    units, bodies = log
    numbers = [one.number for one in bodies]
    before: list[int] = []
    done: list[Shipment] = []
    for one in data.draw(st.permutations(units + bodies)):
        done.append(row(one))
        found = lifecycle.watermarks(done, numbers)
        assert found[: len(before)] == before
        before = found
    assert before == [one.last_commit for one in units]


def test_what_holds_the_watermark() -> None:
    needs = BodyPosition(2, 100)
    first, second = row(unit(1, 1, 5)), row(unit(2, 6, 9, needs))
    bodies = [row(body(1)), row(body(2))]
    assert lifecycle.watermarks([first, second, *bodies], [1, 2]) == [5, 9]
    assert lifecycle.watermarks([first, second, *bodies], [1, 2, 3]) == [5, 9]
    # A body segment that was never queued, one that is too short.
    assert lifecycle.watermarks([first, second, bodies[1]], [1, 2]) == [5]
    assert lifecycle.watermarks([first, second, bodies[0]], [1, 2]) == [5]
    # Nothing is left of one: nobody waits for it.
    assert lifecycle.watermarks([first, second, bodies[0]], [1]) == [5, 9]
    assert lifecycle.holder([first, second, bodies[0]], [1, 2], 5) == ("body", 2)
    assert lifecycle.holder([first, second, bodies[0]], [1, 2], 5, [("body", 2)]) == second
    assert lifecycle.watermarks([first, second, bodies[0], row(body(2, 99))], [1, 2]) == [5]
    # A gap in the commits, also before the first unit.
    assert lifecycle.watermarks([first, row(unit(3, 7, 9))], []) == [5]
    assert lifecycle.watermarks([row(unit(2, 6, 9))], []) == []
    assert lifecycle.watermarks([], [1]) == []


# -- roots ----------------------------------------------------------------------------------------


def test_roots_follow_every_commit(tmp_path: Any) -> None:
    log = Log(tmp_path)
    a, b = b"a" * 16, b"b" * 16
    steps = [log.move(a), log.move(b), log.move(a), log.move(b, gone=True), log.move(a)]
    log.unit(commits=5, move=lambda sequence: steps[sequence - 1])
    roots = Roots(0, [])
    for at, (cid, record) in enumerate(log.commits, 1):
        roots.take(cid, record)
        assert roots.commit == at
        if at == 2:
            expected = [ForgeRoot(a, steps[0].new, 1), ForgeRoot(b, steps[1].new, 2)]
            assert roots.moved == expected
            roots.settle()
            assert roots.moved == []
    moved = {root.bucket: root for root in roots.moved}
    assert moved == {a: ForgeRoot(a, steps[4].new, 5), b: ForgeRoot(b, None, 4)}


def test_roots_neither_skip_nor_go_back(tmp_path: Any) -> None:
    log = Log(tmp_path)
    log.unit(commits=4, move=lambda sequence: log.move(b"a" * 16))
    (one, two, three, four) = log.commits
    for start, wrong in (((one,), three), ((one, two), two), ((one, two), one), ((), two)):
        roots = Roots(0, [])
        for each in start:
            roots.take(*each)
        with pytest.raises(Corruption):
            roots.take(*wrong)
    resumed = Roots(2, [ForgeRoot(b"a" * 16, two[1].moves[0].new, 2)])
    with pytest.raises(Corruption):
        resumed.take(*four)
    resumed.take(*three)
    other = Roots(2, [ForgeRoot(b"a" * 16, Head(7), 2)])
    with pytest.raises(Corruption, match="bucket name at commit 3"):
        other.take(*three)
    assert isinstance(three[1].moves[0], HeadMove)
