"""What every registry promises: heads move by compare-and-swap, all or none, under the lease."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import pytest

from ingot.errors import ConfigError, LeaseLost, RootMoved, Unavailable
from ingot.messages import (
    BodyPosition,
    BucketRow,
    CommitRef,
    Damage,
    ForgeRoot,
    Head,
    HeadMove,
    Shipment,
)
from ingot.registry import SegmentRow

A, B, C = (bytes([letter]) * 16 for letter in b"abc")


def cid(number: int) -> bytes:
    return bytes([1, 0x71, 0x12, 0x20]) + number.to_bytes(32, "big")


def at(commit: int) -> CommitRef:
    return CommitRef(commit, cid(1000 + commit))


def head(sequence: int, objects: int | None = None, uploads: int | None = None) -> Head:
    return Head(
        sequence,
        None if objects is None else cid(objects),
        None if uploads is None else cid(uploads),
        cid(7),
    )


def create(bucket: bytes, name: str, sequence: int = 0) -> HeadMove:
    return HeadMove(bucket, name, None, head(sequence))


def heads(rows: list[Any]) -> dict[str, tuple[Head, CommitRef]]:
    return {row.name: (row.head, row.commit) for row in rows}


@pytest.fixture
async def registry(world: Any) -> Any:
    return await world.gateway()


@pytest.fixture
async def token(registry: Any) -> bytes:
    token = await registry.acquire("one", 60.0)
    assert token is not None
    return token


# -- the store ------------------------------------------------------------------------------------


async def test_a_database_is_claimed_once(world: Any, registry: Any) -> None:
    assert await registry.store_id() is None
    await registry.claim(A)
    await registry.claim(A)
    assert await registry.store_id() == A
    with pytest.raises(ConfigError, match=A.hex()):
        await (await world.gateway()).claim(B)
    assert await registry.store_id() == A


async def test_opening_again_keeps_everything(world: Any, registry: Any, token: bytes) -> None:
    await registry.claim(A)
    await registry.swap(token, at(1), [create(A, "photos")])
    await registry.close()
    again = await world.gateway()
    assert await again.store_id() == A
    assert heads(await again.buckets()) == {"photos": (head(0), at(1))}


async def test_a_registry_that_is_not_open_is_unavailable(world: Any, registry: Any) -> None:
    await registry.close()
    for call in (
        registry.store_id(),
        registry.swap(A, at(1), [create(A, "a")]),
        registry.buckets(),
    ):
        with pytest.raises(Unavailable):
            await call


# -- the lease ------------------------------------------------------------------------------------


async def test_one_gateway_holds_the_lease(world: Any, registry: Any) -> None:
    assert await registry.holder() is None
    token = await registry.acquire("one", 60.0)
    assert token is not None and len(token) == 16
    other = await world.gateway()
    assert await other.acquire("two", 60.0) is None
    owner, left = await other.holder()
    assert owner == "one" and 50.0 < left <= 60.0


async def test_an_expired_lease_can_be_taken(world: Any, registry: Any, token: bytes) -> None:
    other = await world.gateway()
    await world.expire_lease()
    assert await other.holder() is None
    taken = await other.acquire("two", 60.0)
    assert taken is not None and taken != token
    assert (await registry.holder())[0] == "two"
    with pytest.raises(LeaseLost):
        await registry.renew(token, 60.0)


async def test_a_renewed_lease_cannot_be_taken(world: Any, registry: Any, token: bytes) -> None:
    await world.expire_lease()
    await registry.renew(token, 60.0)  # nobody took it meanwhile, so it still is ours
    assert await (await world.gateway()).acquire("two", 60.0) is None


async def test_a_released_lease_is_free_at_once(world: Any, registry: Any, token: bytes) -> None:
    await registry.release(token)
    assert await registry.holder() is None
    other = await world.gateway()
    taken = await other.acquire("two", 60.0)
    assert taken is not None
    await registry.release(token)  # releasing what is not held does nothing
    assert (await other.holder())[0] == "two"


async def test_the_lease_of_a_holder_known_dead_can_be_taken(
    world: Any, registry: Any, token: bytes
) -> None:
    other = await world.gateway()
    assert await other.acquire("two", 60.0, os.urandom(16)) is None
    taken = await other.acquire("two", 60.0, token)
    assert taken is not None
    with pytest.raises(LeaseLost):
        await registry.swap(token, at(1), [create(A, "photos")])


async def test_of_many_takers_one_wins(world: Any) -> None:
    gateways = [await world.gateway() for _ in range(3)]
    tokens = await asyncio.gather(*(each.acquire(str(n), 60.0) for n, each in enumerate(gateways)))
    assert len([token for token in tokens if token is not None]) == 1


# -- heads ----------------------------------------------------------------------------------------


async def test_a_bucket_is_created_moved_and_deleted(registry: Any, token: bytes) -> None:
    assert await registry.buckets() == [] and await registry.newest_commit() == CommitRef(0, None)
    await registry.swap(token, at(1), [create(A, "photos")])
    await registry.swap(token, at(2), [HeadMove(A, "photos", head(0), head(1, 11))])
    await registry.swap(token, at(5), [HeadMove(A, "photos", head(1, 11), head(2, None, 12))])
    assert heads(await registry.buckets()) == {"photos": (head(2, None, 12), at(5))}
    await registry.swap(token, at(6), [HeadMove(A, "photos", head(2, None, 12), None)])
    assert await registry.buckets() == []
    assert await registry.newest_commit() == at(6)


async def test_buckets_come_sorted_by_name_in_bytes(registry: Any, token: bytes) -> None:
    names = ["b", "a.b", "a-b", "ab", "B"]
    moves = [create(bytes([n]) * 16, name) for n, name in enumerate(names)]
    await registry.swap(token, at(1), moves)
    assert [row.name for row in await registry.buckets()] == ["B", "a-b", "a.b", "ab", "b"]


@pytest.mark.parametrize(
    "wrong",
    [
        HeadMove(A, "photos", head(0), head(1, 12)),  # an older head
        HeadMove(A, "photos", head(2, 11), head(3, 12)),  # one that never was
        HeadMove(A, "photos", head(1, 99), head(2, 12)),  # other objects
        HeadMove(A, "photos", head(1, 11, 9), head(2, 12)),  # other uploads
        HeadMove(A, "photos", Head(1, cid(11), None, None), head(2, 12)),  # no configuration
        HeadMove(A, "photos", head(1), head(2, 12)),  # no objects
        HeadMove(A, "photos", head(0), None),  # a deletion of an older head
        HeadMove(B, "photos", head(1, 11), head(2, 12)),  # another bucket
        HeadMove(B, "photos", None, head(0)),  # the name is taken
        HeadMove(A, "other", None, head(0)),  # the id is taken
    ],
)
async def test_a_head_that_is_not_the_expected_one(
    registry: Any, token: bytes, wrong: HeadMove
) -> None:
    await registry.swap(token, at(1), [create(A, "photos"), create(C, "music")])
    await registry.swap(token, at(2), [HeadMove(A, "photos", head(0), head(1, 11))])
    before = await registry.buckets()
    good = [HeadMove(C, "music", head(0), head(1, 5)), create(b"n" * 16, "new")]
    for moves in ([wrong], [*good, wrong], [wrong, *good]):
        with pytest.raises(RootMoved):
            await registry.swap(token, at(3), moves)
        assert await registry.buckets() == before
    assert await registry.newest_commit() == at(2)


async def test_many_buckets_move_together(registry: Any, token: bytes) -> None:
    buckets = [os.urandom(16) for _ in range(64)]
    await registry.swap(token, at(1), [create(b, f"bucket-{n}") for n, b in enumerate(buckets)])
    moves = [HeadMove(b, f"bucket-{n}", head(0), head(1, n)) for n, b in enumerate(buckets)]
    await registry.swap(token, at(2), moves)
    found = heads(await registry.buckets())
    assert found == {f"bucket-{n}": (head(1, n), at(2)) for n in range(64)}
    with pytest.raises(RootMoved):
        await registry.swap(token, at(3), moves)
    assert heads(await registry.buckets()) == found


async def test_creations_moves_and_deletions_in_one_commit(registry: Any, token: bytes) -> None:
    await registry.swap(token, at(1), [create(A, "old"), create(B, "kept")])
    await registry.swap(
        token,
        at(2),
        [
            create(C, "old"),  # the name that the deletion frees, in either order
            HeadMove(A, "old", head(0), None),
            HeadMove(B, "kept", head(0), head(1, 3)),
        ],
    )
    rows = await registry.buckets()
    assert heads(rows) == {"old": (head(0), at(2)), "kept": (head(1, 3), at(2))}
    assert {row.name: row.bucket for row in rows} == {"old": C, "kept": B}


async def test_a_deleted_bucket_never_comes_back(registry: Any, token: bytes) -> None:
    await registry.swap(token, at(1), [create(A, "photos")])
    await registry.swap(token, at(2), [HeadMove(A, "photos", head(0), None)])
    for move in (
        create(A, "photos"),
        create(A, "photos", 2),
        HeadMove(A, "photos", head(0), head(1, 2)),
        HeadMove(A, "photos", head(1), head(2, 2)),
        HeadMove(A, "photos", Head(1), Head(2)),
    ):
        with pytest.raises(RootMoved):
            await registry.swap(token, at(3), [move])
    assert await registry.buckets() == []


async def test_one_bucket_twice_in_a_commit_is_refused(registry: Any, token: bytes) -> None:
    await registry.swap(token, at(1), [create(A, "photos")])
    move = HeadMove(A, "photos", head(0), head(1, 2))
    with pytest.raises(RootMoved):
        await registry.swap(token, at(2), [move, move])
    assert heads(await registry.buckets()) == {"photos": (head(0), at(1))}


async def test_a_bucket_can_be_created_with_a_history(registry: Any, token: bytes) -> None:
    await registry.swap(token, at(9), [HeadMove(A, "photos", None, head(41, 5))])
    await registry.swap(token, at(10), [HeadMove(A, "photos", head(41, 5), head(42, 6))])
    assert heads(await registry.buckets()) == {"photos": (head(42, 6), at(10))}


async def test_a_commit_without_moves_asks_the_fence_only(registry: Any, token: bytes) -> None:
    await registry.swap(token, at(8), [])
    assert await registry.newest_commit() == CommitRef(0, None)
    with pytest.raises(LeaseLost):
        await registry.swap(os.urandom(16), at(9), [])


async def test_nobody_swaps_without_the_lease(world: Any, registry: Any, token: bytes) -> None:
    await registry.swap(token, at(1), [create(A, "photos")])
    step = HeadMove(A, "photos", head(0), head(1, 2))
    with pytest.raises(LeaseLost):
        await registry.swap(os.urandom(16), at(2), [step])
    await world.expire_lease()
    other = await world.gateway()
    taken = await other.acquire("two", 60.0)
    for moves in ([step], [create(B, "b")], [HeadMove(A, "photos", head(0), None)]):
        with pytest.raises(LeaseLost):
            await registry.swap(token, at(2), moves)
    await other.swap(taken, at(2), [step])
    assert heads(await registry.buckets()) == {"photos": (head(1, 2), at(2))}


async def test_an_expired_lease_that_nobody_took_still_fences(
    world: Any, registry: Any, token: bytes
) -> None:
    await world.expire_lease()
    await registry.swap(token, at(1), [create(A, "photos")])
    assert await registry.newest_commit() == at(1)


async def test_only_one_of_two_equal_swaps_takes_effect(registry: Any, token: bytes) -> None:
    await registry.swap(token, at(1), [create(A, "photos")])
    step = [HeadMove(A, "photos", head(0), head(1, 2))]
    outcomes = await asyncio.gather(
        *(registry.swap(token, at(2), step) for _ in range(4)), return_exceptions=True
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == [
        "NoneType", "RootMoved", "RootMoved", "RootMoved",
    ]  # fmt: skip


# -- many commits at a time -----------------------------------------------------------------------


def steps(bucket: bytes, name: str, first: int, count: int) -> list[HeadMove]:
    return [
        HeadMove(bucket, name, head(n, n), head(n + 1, n + 1)) for n in range(first, first + count)
    ]


async def standing(registry: Any) -> Any:
    return await registry.buckets(), await registry.newest_commit()


async def test_many_commits_are_swapped_forward(registry: Any, token: bytes) -> None:
    await registry.swap(token, at(1), [HeadMove(A, "a", None, head(0, 0))])
    photos, music = steps(A, "a", 0, 40), steps(B, "b", 0, 10)
    commits = [(at(2 + n), [move]) for n, move in enumerate(photos[:20])]
    pairs = zip(photos[21:31], music, strict=True)
    commits.append((at(22), [photos[20], HeadMove(B, "b", None, head(0, 0))]))
    commits += [(at(23 + n), list(both)) for n, both in enumerate(pairs)]
    commits.append((at(33), [HeadMove(B, "b", head(10, 10), None)]))
    commits.append((at(34), [create(C, "b")]))
    commits.append((at(35), []))
    commits += [(at(36 + n), [move]) for n, move in enumerate(photos[31:])]
    await registry.swap_forward(token, commits)
    assert heads(await registry.buckets()) == {"a": (head(40, 40), at(44)), "b": (head(0), at(34))}
    for _, moves in commits:
        assert await registry.swapped(moves) is True, "every step is in the history"
    await registry.swap_forward(token, [])
    await registry.swap(token, at(45), steps(A, "a", 40, 1))


@pytest.mark.parametrize("place", [0, 1, 7])
@pytest.mark.parametrize(
    "wrong",
    [
        HeadMove(A, "a", head(90, 90), head(91, 91)),  # from a head that is not there
        HeadMove(B, "b", head(0, 1), head(1, 1)),  # a bucket that is not there
        HeadMove(A, "a", None, head(0)),  # a creation of what is there
    ],
)
async def test_a_commit_that_does_not_continue(
    registry: Any, token: bytes, wrong: HeadMove, place: int
) -> None:
    """What stands is a prefix, so that nothing later stands without what it rests on."""
    await registry.swap(token, at(1), [HeadMove(A, "a", None, head(0, 0))])
    commits = [(at(2 + n), [move]) for n, move in enumerate(steps(A, "a", 0, 10))]
    commits[place] = (commits[place][0], [wrong])
    with pytest.raises(RootMoved):
        await registry.swap_forward(token, commits)
    (row,) = await registry.buckets()
    assert row.commit.sequence <= 1 + place
    assert row.head == head(row.commit.sequence - 1, row.commit.sequence - 1)


async def test_a_step_that_is_left_out_or_there_twice(registry: Any, token: bytes) -> None:
    await registry.swap(token, at(1), [HeadMove(A, "a", None, head(0, 0))])
    before = await standing(registry)
    one, two, three = steps(A, "a", 0, 3)
    with pytest.raises(RootMoved):
        await registry.swap_forward(token, [(at(2), [one, two]), (at(3), [three])])
    with pytest.raises(RootMoved):
        await registry.swap_forward(token, [(at(3), [two]), (at(4), [three])])
    assert await standing(registry) == before
    await registry.swap_forward(token, [(at(2), [one]), (at(3), [two])])
    with pytest.raises(RootMoved):
        await registry.swap_forward(token, [(at(2), [one]), (at(3), [two]), (at(4), [three])])
    assert heads(await registry.buckets()) == {"a": (head(2, 2), at(3))}


async def test_nobody_swaps_forward_without_the_lease(
    world: Any, registry: Any, token: bytes
) -> None:
    await registry.swap(token, at(1), [HeadMove(A, "a", None, head(0, 0))])
    await world.expire_lease()
    other = await world.gateway()
    taken = await other.acquire("two", 60.0)
    commits = [(at(2 + n), [move]) for n, move in enumerate(steps(A, "a", 0, 5))]
    with pytest.raises(LeaseLost):
        await registry.swap_forward(token, commits)
    assert heads(await registry.buckets()) == {"a": (head(0, 0), at(1))}
    await other.swap_forward(taken, commits)
    assert heads(await registry.buckets()) == {"a": (head(5, 5), at(6))}


# -- a database that lost commits ------------------------------------------------------------------


@pytest.mark.parametrize("how", ["swapped", "created", "swapped forward", "answer lost", "read"])
async def test_nothing_is_swapped_after_commits_that_are_lost(
    world: Any, registry: Any, token: bytes, how: str
) -> None:
    """Commits of another bucket must not hide the loss: a start looks behind the newest only."""
    await registry.swap(token, at(1), [HeadMove(A, "a", None, head(0, 0)), create(B, "b")])
    step = steps(A, "a", 0, 1)
    if how == "swapped":
        await registry.swap(token, at(2), step)
    elif how == "created":
        await registry.swap(token, at(2), [create(C, "c"), *step])
    elif how == "swapped forward":
        await registry.swap_forward(token, [(at(2), step), (at(3), steps(A, "a", 1, 1))])
    else:
        other = await world.gateway()
        await other.swap(token, at(2), step)
        if how == "answer lost":
            assert await registry.swapped(step) is True
        else:
            assert await registry.newest_commit() == at(2)
    await world.lose_newest_commit()
    for moves in ([HeadMove(B, "b", head(0), head(1))], [create(b"n" * 16, "new")]):
        with pytest.raises(LeaseLost):
            await registry.swap(token, at(4), moves)
        with pytest.raises(LeaseLost):
            await registry.swap_forward(token, [(at(4), moves), (at(5), [])])
    again = await world.gateway()  # a start finds what there is, and what to put back
    forward = how == "swapped forward"
    assert await again.newest_commit() == at(2 if forward else 1)
    lost = (at(3), steps(A, "a", 1, 1)) if forward else (at(2), step)
    await again.swap_forward(token, [lost, (at(4), [HeadMove(B, "b", head(0), head(1))])])


# -- after a lost answer --------------------------------------------------------------------------


async def test_swapped_tells_done_from_not_done(registry: Any, token: bytes) -> None:
    await registry.swap(token, at(1), [create(A, "photos"), create(B, "music")])
    moves = [
        HeadMove(A, "photos", head(0), head(1, 2)),
        HeadMove(B, "music", head(0), None),
        create(C, "new"),
    ]
    assert await registry.swapped(moves) is False
    await registry.swap(token, at(2), moves)
    assert await registry.swapped(moves) is True
    assert await registry.swapped([]) is True


async def test_swapped_believes_later_history(registry: Any, token: bytes) -> None:
    first = [create(A, "photos")]
    await registry.swap(token, at(1), first)
    second = [HeadMove(A, "photos", head(0), head(1, 2))]
    await registry.swap(token, at(2), second)
    await registry.swap(token, at(3), [HeadMove(A, "photos", head(1, 2), None)])
    assert await registry.swapped(first) is True
    assert await registry.swapped(second) is True


@pytest.mark.parametrize(
    "move",
    [
        HeadMove(A, "photos", head(0), head(1, 99)),  # the same sequence, another head
        HeadMove(A, "photos", head(0), None),  # the same sequence, a deletion
        HeadMove(A, "photos", head(5), head(6)),  # neither before nor after
        HeadMove(A, "photos", None, Head(0)),  # created otherwise
        HeadMove(C, "gone", head(0), head(1, 1)),  # a bucket that was deleted
        HeadMove(b"n" * 16, "never", head(0), head(1, 1)),  # or never was
    ],
)
async def test_swapped_finds_another_history(registry: Any, token: bytes, move: HeadMove) -> None:
    await registry.swap(token, at(1), [create(A, "photos"), create(B, "music"), create(C, "gone")])
    await registry.swap(token, at(2), [HeadMove(A, "photos", head(0), head(1, 2))])
    await registry.swap(token, at(3), [HeadMove(C, "gone", head(0), None)])
    waiting = HeadMove(B, "music", head(0), head(1, 1))
    for moves in ([move], [waiting, move], [move, waiting]):
        with pytest.raises(RootMoved):
            await registry.swapped(moves)


async def test_swapped_refuses_a_commit_that_is_half_done(registry: Any, token: bytes) -> None:
    await registry.swap(token, at(1), [create(A, "photos"), create(B, "music")])
    moves = [
        HeadMove(A, "photos", head(0), head(1, 2)),
        HeadMove(B, "music", head(0), head(1, 2)),
    ]
    await registry.swap(token, at(2), moves[:1])
    with pytest.raises(RootMoved):
        await registry.swapped(moves)


# -- history, segments ----------------------------------------------------------------------------


async def grow(registry: Any, token: bytes, bucket: bytes, name: str, count: int) -> None:
    for n, move in enumerate(steps(bucket, name, 0, count)):
        await registry.swap(token, at(100 + n), [move])


async def test_prune_keeps_the_newest_heads(registry: Any, token: bytes) -> None:
    moves = [HeadMove(b, n, None, head(0, 0)) for b, n in ((A, "a"), (B, "b"), (C, "c"))]
    await registry.swap(token, at(1), moves)
    await grow(registry, token, A, "a", 9)
    await grow(registry, token, B, "b", 4)
    await registry.swap(token, at(200), [HeadMove(B, "b", head(4, 4), None)])
    before = await registry.buckets()
    assert await registry.prune(1000) == 0
    assert await registry.prune(3) == 7 + 3
    assert await registry.swapped([HeadMove(A, "a", head(6, 6), head(7, 7))]) is True
    with pytest.raises(RootMoved):  # that row is gone, so nothing can be said
        await registry.swapped([HeadMove(A, "a", head(5, 5), head(6, 6))])
    assert await registry.prune(0) == 2 + 2  # the newest always stays, a tombstone too
    assert await registry.buckets() == before
    assert await registry.newest_commit() == at(200)
    with pytest.raises(RootMoved):
        await registry.swap(token, at(201), [create(B, "b")])
    await registry.swap(token, at(202), [HeadMove(A, "a", head(9, 9), head(10, 1))])


async def test_segments_are_remembered(world: Any, registry: Any) -> None:
    assert await registry.segments() == []
    rows = [
        SegmentRow("log", 2, "open", 0, None, 0, 0),
        SegmentRow("log", 1, "sealed", 123, cid(9), 1, 40),
        SegmentRow("body", 10, "quarantined", 5_000_000_000, None, 3, 3),
        SegmentRow("unit", 1, "sealed", 9, cid(9), 1, 40),
    ]
    for row in rows:
        await registry.put_segment(row)
    sealed = SegmentRow("log", 2, "sealed", 77, cid(10), 41, 50)
    await registry.put_segment(sealed)
    found = await (await world.gateway()).segments()
    assert found == [rows[2], rows[1], sealed, rows[3]]


# -- what is shipped ------------------------------------------------------------------------------


def shipment(stream: str, number: int, state: str = "queued", **more: Any) -> Shipment:
    digest = b"\x12\x20" + number.to_bytes(32, "big")
    fields: dict[str, Any] = {"locations": (), "bytes": 5, "first_commit": 1, "last_commit": 9}
    return Shipment(stream, number, state, digest, **(fields | more))


async def test_shipments_are_remembered(world: Any, registry: Any, token: bytes) -> None:
    assert await registry.shipments() == []
    needs = BodyPosition(7, 5_000_000_000)
    rows = [
        shipment("unit", 2, bytes=1 << 40, first_commit=1 << 40, last_commit=1 << 41, needs=needs),
        shipment("unit", 1, "stored", locations=(b"one", b""), attempts=1 << 33),
        shipment("body", 1, first_commit=0, last_commit=0),
    ]
    for row in rows:
        await registry.put_shipment(token, row)
    stored = shipment("unit", 2, "stored", locations=(b"x" * 999,))
    await registry.put_shipment(token, stored)
    found = await (await world.gateway()).shipments()
    assert found == [rows[2], rows[1], stored]


async def test_forge_roots_advance_with_the_watermark(
    world: Any, registry: Any, token: bytes
) -> None:
    assert await registry.forge_watermark() == 0 and await registry.forge_roots() == []
    first = [ForgeRoot(B, head(0), 3), ForgeRoot(A, head(4, 5, 6), 2)]
    await registry.advance_forge(token, 3, first)
    assert await registry.forge_roots() == [first[1], first[0]]
    await registry.advance_forge(token, 4, [])
    moved, gone = ForgeRoot(A, Head(9), 8), ForgeRoot(B, None, 7)
    await registry.advance_forge(token, 9, [gone, moved, ForgeRoot(C, None, 6)])
    again = await world.gateway()
    assert await again.forge_watermark() == 9 and await again.forge_roots() == [moved]


async def test_buckets_are_held_until_they_move(world: Any, registry: Any, token: bytes) -> None:
    assert await registry.forge_held() == []
    held = [ForgeRoot(B, head(1, 5), 2), ForgeRoot(C, head(9), 3)]
    await registry.advance_forge(token, 3, [ForgeRoot(A, head(4), 2)], held)
    again = await world.gateway()
    assert await again.forge_held() == held
    assert await again.forge_roots() == [ForgeRoot(A, head(4), 2)]
    later = ForgeRoot(C, head(11, 6, 7), 4)
    await registry.advance_forge(token, 4, [ForgeRoot(B, head(1, 5), 2)], [later])
    assert await again.forge_held() == [later]
    assert await again.forge_roots() == [ForgeRoot(A, head(4), 2), ForgeRoot(B, head(1, 5), 2)]
    await registry.advance_forge(token, 5, [ForgeRoot(C, None, 5)])
    assert await again.forge_held() == []
    with pytest.raises(RootMoved):
        await registry.advance_forge(token, 5, [], held)
    assert await again.forge_held() == []


async def test_damage_is_remembered(world: Any, registry: Any, token: bytes) -> None:
    assert await registry.damage() == []
    unit = Damage("unit", 3, ())
    body = Damage("body", 1 << 40, ((0, 59), (1 << 33, (1 << 33) + 7)))
    await registry.put_damage(token, unit)
    await registry.put_damage(token, Damage("body", 1 << 40, ((5, 6),)))
    await registry.put_damage(token, body)
    assert await (await world.gateway()).damage() == [body, unit]


@pytest.mark.parametrize("commit", [4, 5])
async def test_the_watermark_never_goes_back(registry: Any, token: bytes, commit: int) -> None:
    root = ForgeRoot(A, head(1), 5)
    await registry.advance_forge(token, 5, [root])
    with pytest.raises(RootMoved):
        await registry.advance_forge(token, commit, [ForgeRoot(A, head(2), 3)])
    assert await registry.forge_watermark() == 5 and await registry.forge_roots() == [root]


@pytest.mark.parametrize("sequence", [1, 2])
async def test_a_forge_root_never_goes_back(registry: Any, token: bytes, sequence: int) -> None:
    root = ForgeRoot(A, head(2), 5)
    await registry.advance_forge(token, 5, [root])
    with pytest.raises(RootMoved):
        await registry.advance_forge(
            token, 6, [ForgeRoot(B, head(1), 6), ForgeRoot(A, head(sequence, 8), 6)]
        )
    assert await registry.forge_watermark() == 5 and await registry.forge_roots() == [root]


async def test_what_one_network_has_another_has_not(
    world: Any, registry: Any, token: bytes
) -> None:
    assert await registry.claim_forge(token, "did:a", "did:s") == ("did:a", "did:s")
    assert await registry.claim_forge(token, "did:b", "did:s") == ("did:b", "did:s")
    await registry.put_shipment(token, shipment("unit", 1))
    again = await world.gateway()
    for other in (("did:a", "did:s"), ("did:b", "did:t"), ("did:b", "did:s")):
        assert await again.claim_forge(token, *other) == ("did:b", "did:s")


async def test_nobody_ships_without_the_lease(world: Any, registry: Any, token: bytes) -> None:
    row, root = shipment("unit", 1), ForgeRoot(A, head(1), 5)
    await registry.put_shipment(token, row)
    await world.expire_lease()
    await registry.advance_forge(token, 5, [root])  # expired and not taken: still ours
    assert await (await world.gateway()).acquire("two", 60.0) is not None
    for call in (
        registry.put_shipment(token, shipment("unit", 1, "stored")),
        registry.put_shipment(token, shipment("unit", 2)),
        registry.advance_forge(token, 6, [ForgeRoot(A, head(2), 6)]),
        registry.put_damage(token, Damage("unit", 1, ())),
        registry.claim_forge(token, "did:a", "did:s"),
    ):
        with pytest.raises(LeaseLost):
            await call
    assert await registry.shipments() == [row]
    assert await registry.forge_watermark() == 5 and await registry.forge_roots() == [root]


# -- heads that come from elsewhere ----------------------------------------------------------------


def row(bucket: bytes, name: str, sequence: int, commit: int) -> BucketRow:
    return BucketRow(bucket, name, head(sequence, sequence), at(commit))


async def test_imported_heads_are_a_registry_like_any(world: Any, registry: Any) -> None:
    token = await registry.acquire("one", 60.0)
    rows = [row(A, "photos", 40, 98), row(B, "letters", 7, 100)]
    await registry.import_heads(token, C, at(100), rows)
    again = await world.gateway()
    assert await again.store_id() == C
    assert await again.newest_commit() == at(100)
    assert await again.buckets() == sorted(rows, key=lambda each: each.name)
    await registry.swap(token, at(101), [HeadMove(A, "photos", head(40, 40), head(41, 5))])
    await registry.swap(token, at(102), [HeadMove(B, "letters", head(7, 7), None)])
    assert heads(await again.buckets()) == {"photos": (head(41, 5), at(101))}


@pytest.mark.parametrize("live", [0, 1])
async def test_the_newest_commit_need_not_be_of_a_live_bucket(
    world: Any, registry: Any, token: bytes, live: int
) -> None:
    rows = [row(A, "photos", 3, 4)][:live]
    await registry.import_heads(token, C, at(9), rows)
    again = await world.gateway()
    assert await again.newest_commit() == at(9)
    assert await again.buckets() == rows
    await registry.prune(1)
    assert await again.newest_commit() == at(9)
    await registry.swap(token, at(10), [create(B, "new")])
    assert await again.newest_commit() == at(10)


async def test_nothing_is_imported_over_heads(registry: Any, token: bytes) -> None:
    await registry.swap(token, at(1), [create(A, "photos")])
    with pytest.raises(RootMoved, match="heads"):
        await registry.import_heads(token, C, at(5), [row(B, "letters", 1, 5)])
    await registry.swap(token, at(2), [HeadMove(A, "photos", head(0), None)])
    with pytest.raises(RootMoved, match="heads"):  # tombstones are history too
        await registry.import_heads(token, C, at(5), [row(B, "letters", 1, 5)])
    assert await registry.store_id() is None and await registry.newest_commit() == at(2)


async def test_an_import_is_fenced_and_whole(world: Any, registry: Any, token: bytes) -> None:
    rows = [row(A, "photos", 1, 5)]
    with pytest.raises(LeaseLost):
        await registry.import_heads(bytes(16), C, at(5), rows)
    with pytest.raises(RootMoved, match="one name"):
        await registry.import_heads(token, C, at(5), [*rows, row(B, "photos", 1, 5)])
    await registry.claim(C)
    with pytest.raises(ConfigError, match=C.hex()):
        await registry.import_heads(token, A, at(5), rows)
    assert await registry.newest_commit() == CommitRef(0, None) and await registry.buckets() == []
    await registry.import_heads(token, C, CommitRef(0, None), [])
    assert await registry.newest_commit() == CommitRef(0, None)
    await registry.import_heads(token, C, at(5), rows)
    assert await registry.buckets() == rows


async def test_the_clock_is_the_databases(registry: Any) -> None:
    before = time.time_ns() // 1_000_000
    found = await registry.clock_ms()
    assert before - 60_000 < found < before + 120_000 and type(found) is int
