"""Reading the records of a page: in order, some at a time, and others get their turn meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from ingot.bucket.record import Record, decode_record
from ingot.errors import Corruption
from ingot.messages import Body, Cid
from tests.support.turns import counted_turns
from tests.support.world import NODE_CACHE_BYTES, World

COUNT = 10  # the log in memory reads three together


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = await World().start()
    yield made
    await made.stop()


async def page(world: World) -> list[Cid]:
    """The records of a page of as many keys."""
    store = world.store
    for number in range(COUNT):
        body = Body(1, bytes(16), bytes(32), inline=b"x")
        await store.put(store.bucket("b"), Record(b"%02d" % number, body, "etag", 1))
    found = await store.page(store.bucket("b"), b"", b"", None, 1000)
    assert [key for key, _ in found.items] == [b"%02d" % number for number in range(COUNT)]
    return [cid for _, cid in found.items if cid is not None]


async def keys_of(world: World, cids: list[Cid]) -> list[bytes]:
    async with aclosing(world.store.records(cids)) as parts:
        return [decode_record(block).key async for blocks in parts for block in blocks]


async def test_in_order(world: World) -> None:
    cids = await page(world)
    assert await keys_of(world, cids) == [b"%02d" % number for number in range(COUNT)]
    assert await keys_of(world, cids[::-1]) == [b"%02d" % n for n in reversed(range(COUNT))]
    assert await keys_of(world, []) == []


async def test_those_that_must_be_waited_for(world: World) -> None:
    cids = await page(world)
    world.log.cold.update((cids[0], cids[4], cids[5], cids[9]))
    assert await keys_of(world, cids) == [b"%02d" % number for number in range(COUNT)]
    assert world.log.prefetched == cids, "the whole page, at the first that is not at hand"


async def test_nodes_that_must_be_waited_for_are_announced_together(world: World) -> None:
    for number in range(400):
        body = Body(1, bytes(16), bytes(32), inline=b"x")
        await world.store.put(world.store.bucket("b"), Record(b"%05d" % number, body, "etag", 1))
    world.nodes.cache = type(world.nodes.cache)(NODE_CACHE_BYTES)
    world.log.prefetched.clear()
    world.log.cold.update(world.log.blocks)
    rounds: list[int] = []
    world.log.prefetch = lambda cids: rounds.append(len(cids))  # type: ignore[method-assign]
    found = await world.store.page(world.store.bucket("b"), b"", b"", None, 1000)
    assert len(found.items) == 400
    assert max(rounds) > 20 and len(rounds) <= 12, "not one after the other"


async def test_others_get_their_turn(world: World) -> None:
    cids = await page(world)
    seen = []
    async with counted_turns() as turns:
        async for blocks in world.store.records(cids):
            assert len(blocks) < COUNT
            seen.append(turns.count)
    assert seen == sorted(set(seen)), "a turn between any two parts"


async def test_a_lost_record_is_damage(world: World) -> None:
    cids = await page(world)
    del world.log.blocks[cids[7]]
    with pytest.raises(Corruption, match="in a segment"):
        await keys_of(world, cids)
