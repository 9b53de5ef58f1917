"""Files with damage: they ship, and only the buckets that need what is bad of them stay behind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ingot.messages import Damage, Head, HeadMove
from ingot.shipper.lifecycle import INDEXED, watermarks
from ingot.shipper.roots import Roots
from tests.shipper.conftest import World
from tests.shipper.support import until

A, B, C = (bytes([letter]) * 16 for letter in b"abc")
BODY = ("body", 1)


class Needs:
    """What heads need, instead of ``ingot.bucket.reach.Reach``: a block by head."""

    def __init__(self) -> None:
        self.blocks: dict[Head, bytes] = {}
        self.asked: list[tuple[Head | None, Head]] = []

    async def lacking(self, there: Head | None, head: Head, available: Any) -> str | None:
        self.asked.append((there, head))
        block = self.blocks.get(head)
        return None if block is None or available(block) else "a block is bad"


@pytest.fixture
def needs(world: World) -> Needs:
    world.reach = Needs()
    return world.reach


def body(world: World) -> Any:
    """A body segment whose second block is bad."""
    made = world.log.body()
    key = "body", made.number
    _, offset, length = world.log.blocks[key][1]
    world.log.spans[key] = ((offset - 40, offset + length),)
    return made


def cid_of(world: World, key: tuple[str, int], place: int) -> bytes:
    return b"\x01\x55" + world.log.blocks[key][place][0]


def step(world: World, *buckets: bytes, gone: bool = False) -> Any:
    """A unit with one commit for each of these buckets' next heads."""
    left = list(buckets)
    return lambda sequence: world.log.move(left.pop(0), gone)


def roots(world: World) -> dict[bytes, Head | None]:
    return {bucket: root.head for bucket, root in world.database.forge_roots.items()}


async def passed(world: World) -> None:
    world.shipper.wake()
    end = world.log.commits[-1][1].sequence
    await until(lambda: world.database.forge_watermark == end, world.shipper)


async def test_it_ships_without_what_is_bad(
    world: World, needs: Needs, caplog: pytest.LogCaptureFixture
) -> None:
    world.log.unit(needs=body(world))
    await world.start()
    await world.shipped()
    assert caplog.text.count("body 1 is damaged and ships without") == 1
    assert world.database.damage == {BODY: Damage(*BODY, world.log.spans[BODY])}
    good, bad, _ = world.log.blocks[BODY]
    assert await world.client.retriever.locate(good[0])
    assert await world.client.retriever.locate(bad[0]) == []
    assert needs.asked


async def test_nobody_is_asked_where_nothing_is_damaged(world: World, needs: Needs) -> None:
    world.log.unit(needs=world.log.body())
    await world.start()
    await world.shipped()
    assert not needs.asked


async def test_a_unit_that_lacks_blocks_is_damaged_without_a_span(
    world: World, needs: Needs
) -> None:
    unit = world.log.unit()
    world.log.files["unit", 1] = replace(unit, lacking=True)
    await world.start()
    await world.shipped()
    assert world.database.damage == {("unit", 1): Damage("unit", 1, ())}
    assert needs.asked


async def test_a_bucket_that_needs_what_is_bad_stays_behind(world: World, needs: Needs) -> None:
    log, database = world.log, world.database
    log.unit(commits=2, move=step(world, A, B))
    await world.start()
    await passed(world)
    first = dict(log.heads)
    log.unit(commits=2, needs=body(world), move=step(world, A, B))
    needs.blocks[log.heads[A]] = cid_of(world, BODY, 1)
    needs.blocks[log.heads[B]] = cid_of(world, BODY, 2)
    await passed(world)
    assert roots(world) == {A: first[A], B: log.heads[B]}
    assert [(root.bucket, root.head) for root in database.forge_held.values()] == [
        (A, log.heads[A])
    ]
    (problem,) = (await world.shipper.standing()).problems
    assert "bucket name" in problem and "a block is bad" in problem
    assert needs.asked[-2:] == [(first[A], log.heads[A]), (first[B], log.heads[B])]
    # A start knows it, and follows the bucket from the head that Forge has not got.
    await world.stop()
    await world.start()
    log.unit(commits=1, move=step(world, B))
    await passed(world)
    assert roots(world) == {A: first[A], B: log.heads[B]}
    log.unit(commits=1, move=step(world, A))  # whatever needed the block was overwritten
    await passed(world)
    assert roots(world) == log.heads and not database.forge_held
    assert (await world.shipper.standing()).problems == []


async def test_a_good_copy_elsewhere_is_enough(world: World, needs: Needs) -> None:
    log = world.log
    log.unit(commits=1, needs=body(world), move=step(world, A))
    needs.blocks[log.heads[A]] = cid_of(world, BODY, 1)
    await world.start()
    await passed(world)
    assert roots(world) == {}
    unit = log.unit(commits=1, move=step(world, B))
    log.blocks["unit", unit.number].append(log.blocks[BODY][1])
    await passed(world)
    assert roots(world) == log.heads and not world.database.forge_held


async def test_a_held_bucket_that_is_deleted(world: World, needs: Needs) -> None:
    log = world.log
    log.unit(commits=1, move=step(world, A))
    log.unit(commits=1, needs=body(world), move=step(world, A))
    needs.blocks[log.heads[A]] = cid_of(world, BODY, 1)
    await world.start()
    await passed(world)
    assert set(world.database.forge_held) == {A}
    log.unit(commits=1, move=step(world, A, gone=True))
    await passed(world)
    assert roots(world) == {} and not world.database.forge_held


async def test_without_knowledge_of_reach_every_bucket_that_moves_is_held(world: World) -> None:
    world.log.unit(commits=1, needs=body(world), move=step(world, A))
    await world.start()
    await passed(world)
    assert set(world.database.forge_held) == {A} and roots(world) == {}


async def test_a_commit_that_is_missing_holds_the_watermark_and_says_why(world: World) -> None:
    log = world.log
    log.unit(commits=3, move=step(world, A, A, A))
    lost = log.commits.pop(1)
    await world.start()
    await until(lambda: bool(world.shipper._problems), world.shipper)
    assert world.database.forge_watermark == 0
    (why,) = (await world.shipper.standing()).problems
    assert why.startswith("watermark: ") and "the one that follows" in why
    log.commits.insert(1, lost)
    await world.shipped()


async def test_a_body_segment_that_was_cut_short_is_all_there_is(
    world: World, needs: Needs
) -> None:
    whole = world.log.body()
    unit = world.log.unit(needs=whole)
    assert unit.needs is not None
    world.log.files["unit", 1] = replace(unit, needs=replace(unit.needs, end=whole.bytes + 1))
    await world.start()
    await until(lambda: set(world.states().values()) == {INDEXED}, world.shipper)
    await until(lambda: not world.shipper._active)
    assert world.shipper.watermark == 0
    rows = list(world.database.shipments.values())
    assert watermarks(rows, [1], 0) == [] and watermarks(rows, [1], 0, {BODY}) == [3]


@pytest.mark.parametrize("furthest", [True, False])
async def test_a_body_segment_of_which_nothing_is_left(
    world: World, needs: Needs, furthest: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Its file is gone and its index too: the buckets that need it stay behind, and no others;
    until the file is put back."""
    log, database = world.log, world.database
    log.unit(commits=1, needs=log.body(), move=step(world, A))
    if not furthest:
        log.unit(commits=1, needs=log.body(), move=step(world, B))
    needs.blocks[log.heads[A]] = cid_of(world, BODY, 1)
    file, blocks = log.files.pop(BODY), log.blocks.pop(BODY)
    await world.start()
    await passed(world)
    assert file.bytes == database.damage[BODY].spans[0][1]
    assert set(database.forge_held) == {A}
    assert roots(world) == ({} if furthest else {B: log.heads[B]})
    assert caplog.text.count("body 1, which commit 1 needs, is nowhere") == 1
    await world.stop()
    log.files[BODY], log.blocks[BODY] = file, blocks
    await world.start()
    log.unit(commits=1, move=step(world, C))
    await passed(world)
    assert roots(world) == log.heads and not database.forge_held
    assert database.damage[BODY].spans == ()
    assert caplog.text.count("is nowhere") == 1


def test_roots_that_are_held_are_followed_and_offered_again() -> None:
    heads = [Head(number, bytes([number]) * 36) for number in range(4)]
    folded = Roots(5, [], [])
    folded._heads[A] = folded._there[A] = heads[0]

    class Record:
        previous = None

        def __init__(self, sequence: int, *moves: HeadMove) -> None:
            self.sequence, self.moves = sequence, moves

    def take(sequence: int, *moves: HeadMove) -> None:
        folded._previous = None
        folded.take(b"", Record(sequence, *moves))  # type: ignore[arg-type]

    take(6, HeadMove(A, "a", heads[0], heads[1]))
    folded.settle(folded.moved)
    assert folded.there(A) == heads[0]
    take(7, HeadMove(B, "b", None, heads[0]))
    assert [(root.bucket, root.head) for root in folded.moved] == [(A, heads[1]), (B, heads[0])]
    folded.settle([root for root in folded.moved if root.bucket == A])
    take(8, HeadMove(A, "a", heads[1], heads[2]))
    assert [(root.bucket, root.head) for root in folded.moved] == [(A, heads[2])]
    folded.settle()
    assert folded.there(A) == heads[2] and folded.moved == []
