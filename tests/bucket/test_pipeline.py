"""The group commit, over a log and a registry in memory: order, atomicity, conditions, failures."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from typing import Any

import pytest

from ingot import mst
from ingot.bucket.checkpoint import Checkpoints
from ingot.bucket.model import (
    Bucket,
    BucketConfig,
    BucketExists,
    BucketNotEmpty,
    Condition,
    NoSuchBucket,
    PreconditionFailed,
)
from ingot.bucket.nodes import Nodes, Published
from ingot.bucket.pins import Pin, Pins
from ingot.bucket.pipeline import Pipeline
from ingot.bucket.record import Record
from ingot.bucket.store import Store
from ingot.bucket.values import Values
from ingot.clock import SystemClock
from ingot.errors import Corruption, NotFound, Unavailable
from ingot.messages import Body, Cid, CommitRef, HeadMove
from ingot.registry.memory import Database, MemoryRegistry
from tests.support.fakelog import FakeLog

CONFIG = BucketConfig("owner", "Owner", 1, "us-east-1")
BUDGET = 32 * 1024 * 1024


class World:
    """A store over fakes; ``events`` is what log and registry did, in order."""

    def __init__(self, database: Database | None = None) -> None:
        self.events: list[str] = []
        self.log = FakeLog(self.events)
        self.registry = MemoryRegistry(database, before=self._before, after=self._after)
        self.swap_gate = asyncio.Event()
        self.swap_gate.set()
        self.lose_answers = 0
        self.clock = SystemClock()
        blocks = Published(self.log)  # type: ignore[arg-type]
        self.nodes = Nodes(blocks, BUDGET)
        self.pins = Pins()
        self.checkpoints = Checkpoints(self.nodes, bytes(16), 1, self.clock)
        self.pipeline = Pipeline(
            self.nodes,
            self.log,
            self.registry,
            self.clock,
            Values(blocks),
            self.pins,
            self.checkpoints,
        )
        self.store = Store(self.log, self.nodes, self.pipeline, None, self.pins, self.clock)  # type: ignore[arg-type]
        self.store.lease_until = float("inf")

    async def _before(self, call: str) -> None:
        if call == "swap":
            self.events.append("swap sent")
            await self.swap_gate.wait()

    async def _after(self, call: str) -> None:
        if call == "swap":
            self.events.append("swapped")
            if self.lose_answers:
                self.lose_answers -= 1
                raise Unavailable("the answer was lost")

    async def start(self) -> World:
        await self.registry.open()
        token = await self.registry.acquire("test", 60.0)
        assert token is not None
        self.token = token
        self.pipeline.start(token, [], None)
        return self

    async def put(self, key: bytes, etag: str, condition: Condition | None = None) -> Any:
        data = etag.encode()
        body = Body(len(data), bytes(16), bytes(32), inline=data)
        return await self.store.put(self.store.bucket("b"), Record(key, body, etag, 1), condition)

    async def cid(self, key: bytes, etag: str) -> Cid:
        """Put an object; the CID of its record."""
        await self.put(key, etag)
        found = await self.store.page(self.store.bucket("b"), key, b"", None, 1)
        [(_, cid)] = found.items
        assert cid is not None
        return cid

    async def etag(self, key: bytes) -> str | None:
        found = await self.store.find(self.store.bucket("b"), key)
        return None if found is None else found.etag

    async def stop(self) -> None:
        self.swap_gate.set()
        await self.pipeline.stop()


@pytest.fixture
async def world() -> Any:
    made = await World().start()
    await made.store.create_bucket("b", CONFIG)
    yield made
    await made.stop()


async def soon(awaitable: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(awaitable, 10)


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_answer_follows_sync_and_swap(world: World) -> None:
    world.events.clear()
    await world.put(b"k", "1")
    assert world.events == ["append 2", "synced 2", "swap sent", "swapped"]
    assert await world.etag(b"k") == "1"


async def test_concurrent_puts_share_a_commit(world: World) -> None:
    before = len(world.log.commits)
    await soon(asyncio.gather(*[world.put(b"k%d" % n, str(n)) for n in range(64)]))
    assert len(world.log.commits) - before == 1
    assert [await world.etag(b"k%d" % n) for n in range(64)] == [str(n) for n in range(64)]


async def test_clients_that_come_back_one_after_another_share_a_commit(world: World) -> None:
    """An answer goes to each of 32 clients, and they send their next request turn by turn."""
    await soon(asyncio.gather(*[world.put(b"k%d" % n, "1") for n in range(32)]))
    before = len(world.log.commits)
    tasks = []
    for n in range(32):
        tasks.append(asyncio.create_task(world.put(b"k%d" % n, "2")))
        await asyncio.sleep(0)
    await soon(asyncio.gather(*tasks))
    assert len(world.log.commits) - before <= 3
    await soon(world.put(b"alone", "3"))  # a crowd that has left is not waited for
    assert await world.etag(b"alone") == "3"


async def test_a_batch_that_gathers_ends_with_the_pipeline(world: World) -> None:
    await soon(asyncio.gather(*[world.put(b"k%d" % n, "1") for n in range(32)]))
    task = asyncio.create_task(world.put(b"last", "2"))
    await asyncio.sleep(0)
    world.pipeline.fail(Unavailable("the lease is lost"))
    with pytest.raises(Unavailable):
        await soon(task)


async def test_depth_two_the_next_batch_is_synced_during_a_swap(world: World) -> None:
    world.swap_gate.clear()
    first = asyncio.create_task(world.put(b"a", "1"))
    await turns()
    second = asyncio.create_task(world.put(b"b", "2"))
    await turns()
    third = asyncio.create_task(world.put(b"c", "3"))
    await turns()
    assert world.events[-3:] == ["swap sent", "append 3", "synced 3"]
    assert not first.done() and not second.done() and not third.done()
    assert await world.etag(b"a") is None, "readers see published heads only"
    world.swap_gate.set()
    await soon(asyncio.gather(first, second, third))
    assert await world.etag(b"c") == "3"


async def test_refusals_wait_for_the_batch_they_rest_on(world: World) -> None:
    world.swap_gate.clear()
    winner = asyncio.create_task(world.put(b"k", "1", Condition(if_none_match_any=True)))
    await turns()
    loser = asyncio.create_task(world.put(b"k", "2", Condition(if_none_match_any=True)))
    await turns()
    assert not loser.done(), "it was refused because of a commit that is not published yet"
    world.swap_gate.set()
    await soon(winner)
    with pytest.raises(PreconditionFailed) as refused:
        await soon(loser)
    assert refused.value.condition == "If-None-Match"
    assert await world.etag(b"k") == "1"


async def test_one_creator_wins(world: World) -> None:
    create = Condition(if_none_match_any=True)
    for round_ in range(20):
        key = b"race-%d" % round_
        results = await soon(
            asyncio.gather(
                *[world.put(key, str(n), create) for n in range(30)], return_exceptions=True
            )
        )
        won = [n for n, result in enumerate(results) if result is None]
        assert len(won) == 1
        assert await world.etag(key) == str(won[0])


async def test_if_match_chain_loses_no_increment(world: World) -> None:
    await world.put(b"counter", "0")

    async def increment() -> None:
        while True:
            seen = await world.etag(b"counter")
            assert seen is not None
            try:
                await world.put(b"counter", str(int(seen) + 1), Condition(if_match=(seen,)))
                return
            except PreconditionFailed:
                continue

    await soon(asyncio.gather(*[increment() for _ in range(32)]))
    assert await world.etag(b"counter") == "32"


async def test_if_match_on_nothing_is_not_found(world: World) -> None:
    with pytest.raises(NotFound):
        await world.put(b"none", "1", Condition(if_match=("*",)))


async def test_a_write_that_meets_a_lost_block_says_damage(world: World) -> None:
    """Also where the miss had to be waited for: an absent key would be another answer."""
    cid = await world.cid(b"k", "1")
    root = world.store.bucket("b").head.objects
    assert root is not None
    for lost, condition in ((cid, Condition(if_match=("1",))), (root, None)):
        del world.log.blocks[lost]
        world.log.cold.add(lost)
        world.nodes.cache.discard([root])
        with pytest.raises(Corruption):
            await soon(world.put(b"k", "2", condition))


async def test_conditions_load_cold_records_outside_the_batch(world: World) -> None:
    cid = await world.cid(b"k", "1")
    world.log.cold.add(cid)
    cold = asyncio.create_task(world.put(b"k", "2", Condition(if_match=("1",))))
    await soon(cold)
    assert await world.etag(b"k") == "2"


async def test_a_stop_waits_for_what_has_to_load_twice(world: World) -> None:
    """Of two cold records the second is missed only once the first is there."""
    cids = [await world.put(key, "1") for key in (b"k", b"l")]
    world.log.cold.update(cids)
    condition = Condition(if_match=("1",))
    task = asyncio.create_task(
        world.store.delete(world.store.bucket("b"), [b"k", b"l"], [condition, condition])
    )
    await asyncio.sleep(0)
    await soon(world.pipeline.stop())
    assert await soon(task) == [None, None]


async def test_deletes_in_one_commit(world: World) -> None:
    await asyncio.gather(*[world.put(b"k%d" % n, str(n)) for n in range(50)])
    before = len(world.log.commits)
    keys = [b"k%d" % n for n in range(60)]
    assert await world.store.delete(world.store.bucket("b"), keys) == [None] * 60
    assert len(world.log.commits) == before + 1
    assert world.store.bucket("b").head.objects == mst.EMPTY_ROOT


async def test_a_delete_that_changes_nothing_commits_nothing(world: World) -> None:
    before = len(world.log.commits)
    assert await world.store.delete(world.store.bucket("b"), [b"none"]) == [None]
    assert len(world.log.commits) == before


async def test_failed_append_fails_the_batch_and_nothing_else(world: World) -> None:
    await world.put(b"k", "1")
    world.log.failures.append(Unavailable("no space left"))
    with pytest.raises(Unavailable, match="no space"):
        await world.put(b"k", "2")
    assert await world.etag(b"k") == "1"
    await world.put(b"k", "3")
    assert await world.etag(b"k") == "3"
    sequences = [record.sequence for record in world.log.commits]
    assert sequences == list(range(1, len(sequences) + 1))


async def test_lost_answer_of_a_swap_is_resolved_not_repeated(world: World) -> None:
    world.lose_answers = 1
    await soon(world.put(b"k", "1"))
    assert world.events.count("swapped") == 2, "one for the bucket, one for the put"
    assert await world.etag(b"k") == "1"


async def test_registry_away_and_back(world: World) -> None:
    world.registry.database.reachable = False
    waiting = asyncio.create_task(world.put(b"k", "1"))
    while not world.pipeline.registry_away:
        await turns(1)
    with pytest.raises(Unavailable, match="Postgres"):
        await world.put(b"k2", "2")
    assert not waiting.done()
    world.registry.database.reachable = True
    await soon(waiting)
    assert await world.etag(b"k") == "1"
    await world.put(b"k2", "2")


async def test_overdue_waiters_get_503_and_the_commit_stands(world: World) -> None:
    world.swap_gate.clear()
    waiting = asyncio.create_task(world.put(b"k", "1"))
    await turns()
    world.clock.monotonic = lambda: 1e12  # type: ignore[method-assign]
    world.pipeline.expire()
    with pytest.raises(Unavailable, match="took too long"):
        await waiting
    del world.clock.monotonic
    world.swap_gate.set()
    await soon(world.put(b"other", "2"))
    assert await world.etag(b"k") == "1"


async def test_another_gateways_heads_end_service(world: World) -> None:
    await world.put(b"k", "1")
    bucket = world.store.bucket("b")
    other = MemoryRegistry(world.registry.database)
    await other.open()
    taken = await other.acquire("other", 60.0, dead=world.token)
    assert taken is not None
    head = type(bucket.head)(bucket.head.sequence + 1, mst.EMPTY_ROOT, None, bucket.head.config)
    await other.swap(taken, CommitRef(99, None), [HeadMove(bucket.id, "b", bucket.head, head)])
    with pytest.raises(Unavailable):
        await soon(world.put(b"k", "2"))
    assert world.pipeline.failed is not None
    with pytest.raises(Unavailable):
        world.store.bucket("b")


async def test_cancelled_waiter_cancels_nothing(world: World) -> None:
    world.swap_gate.clear()
    leaving = asyncio.create_task(world.put(b"k", "1"))
    await turns()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    world.swap_gate.set()
    await soon(world.put(b"other", "2"))
    assert await world.etag(b"k") == "1"


async def test_bucket_names_are_taken_once(world: World) -> None:
    results = await soon(
        asyncio.gather(
            *[world.store.create_bucket("n", CONFIG) for _ in range(10)], return_exceptions=True
        )
    )
    made = [result for result in results if isinstance(result, Bucket)]
    assert len(made) == 1
    assert all(isinstance(r, BucketExists) for r in results if not isinstance(r, Bucket))


async def test_bucket_deletion(world: World) -> None:
    await world.put(b"k", "1")
    with pytest.raises(BucketNotEmpty):
        await world.store.delete_bucket(world.store.bucket("b"))
    await world.store.delete(world.store.bucket("b"), [b"k"])
    await world.store.delete_bucket(world.store.bucket("b"))
    with pytest.raises(NoSuchBucket):
        world.store.bucket("b")
    again = await world.store.create_bucket("b", CONFIG)
    assert again.head.objects is None
    assert await world.etag(b"k") is None


async def test_deletion_and_creation_of_one_name_at_once(world: World) -> None:
    for _ in range(10):
        dropped = asyncio.create_task(world.store.delete_bucket(world.store.bucket("b")))
        created = asyncio.create_task(world.store.create_bucket("b", CONFIG))
        await soon(dropped)
        await soon(created)


async def test_put_into_a_bucket_deleted_meanwhile(world: World) -> None:
    world.swap_gate.clear()
    dropped = asyncio.create_task(world.store.delete_bucket(world.store.bucket("b")))
    await turns()
    late = asyncio.create_task(world.put(b"k", "1"))
    await turns()
    world.swap_gate.set()
    await soon(dropped)
    with pytest.raises(NoSuchBucket):
        await soon(late)


async def test_checkpoint_and_pins_after_a_seal(world: World) -> None:
    cid = await world.cid(b"k", "0")
    pin = Pin(world.pins, [cid, b"\x01\x55\x12\x20" + bytes(32)])
    world.log.segment += 1
    world.checkpoints.segment_sealed()
    await world.put(b"k", "1")
    del pin
    assert not world.pins.counts
    record = world.log.commits[-1]
    assert record.pins == (cid,), "what is pinned of the segment behind"
    assert record.checkpoint is not None and record.checkpoint in world.log.blocks
    await world.put(b"k", "2")
    assert world.log.commits[-1].checkpoint == record.checkpoint
    assert world.log.commits[-1].pins == ()


async def test_withdrawn_checkpoint_is_written_with_the_next_commit(world: World) -> None:
    world.checkpoints.segment_sealed()
    world.log.failures.append(Unavailable("no space left"))
    with pytest.raises(Unavailable):
        await world.put(b"k", "1")
    await world.put(b"k", "2")
    assert world.log.commits[-1].checkpoint in world.log.blocks


async def test_damage_in_one_bucket_does_not_touch_another(world: World) -> None:
    await world.store.create_bucket("c", CONFIG)
    await world.put(b"k", "1")
    root = world.store.bucket("b").head.objects
    assert root is not None
    world.nodes.cache.discard([root])
    world.log.blocks[root] = b"damage"
    world.log.read_now = _raising(world.log.read_now, root)  # type: ignore[method-assign]
    data = Body(1, bytes(16), bytes(32), inline=b"x")
    hurt, fine = await asyncio.gather(
        world.put(b"k2", "2"),
        world.store.put(world.store.bucket("c"), Record(b"k", data, "x", 1)),
        return_exceptions=True,
    )
    assert isinstance(hurt, Corruption)
    assert fine is None


def _raising(read_now: Any, bad: bytes) -> Any:
    def wrapped(cid: bytes) -> bytes | None:
        if cid == bad:
            raise Corruption("segment log-1 at 0", cid.hex(), "other bytes")
        found: bytes | None = read_now(cid)
        return found

    return wrapped


@pytest.mark.parametrize("seed", range(8))
async def test_random_history_equals_a_model(seed: int) -> None:
    """Concurrent puts and deletes with a lossy registry; the tips always equal a rebuild from the
    acknowledged operations, key by key."""
    rng = random.Random(seed)
    world = await World().start()
    await world.store.create_bucket("b", CONFIG)
    model: dict[bytes, str | None] = {}

    async def client(number: int) -> None:
        for step in range(30):
            key = b"c%d/%d" % (number, rng.randrange(6))
            if rng.random() < 0.3:
                await world.store.delete(world.store.bucket("b"), [key])
                model[key] = None
            else:
                etag = f"{number}-{step}"
                await world.put(key, etag)
                model[key] = etag
            if rng.random() < 0.05:
                world.lose_answers = 1
            assert await world.etag(key) == model[key]

    await soon(asyncio.gather(*[client(number) for number in range(12)]))
    for key, etag in model.items():
        assert await world.etag(key) == etag
    await world.stop()
    page = await world.store.page(world.store.bucket("b"), b"", b"", None, 1000)
    assert [key for key, _ in page.items] == sorted(k for k, e in model.items() if e is not None)


async def test_a_lost_block_is_damage_not_an_absent_key(world: World) -> None:
    cid = await world.cid(b"k", "1")
    del world.log.blocks[cid]
    with pytest.raises(Corruption, match="in a segment"):
        await world.etag(b"k")


async def test_blocks_that_are_never_readable_now_do_not_stop_writes(world: World) -> None:
    """As on a file system that cannot say whether a read would wait."""
    cid = await world.cid(b"k", "1")
    root = world.store.bucket("b").head.objects
    assert root is not None
    world.log.read_now = lambda _: None  # type: ignore[method-assign]
    blocks = dict(world.log.blocks)

    async def read(wanted: bytes) -> bytes:
        await asyncio.sleep(0)
        return blocks[wanted]

    world.log.read = read  # type: ignore[method-assign]
    world.nodes.cache.discard([root])
    await soon(world.put(b"k2", "2"))
    await soon(world.put(b"k", "3", Condition(if_match=("1",))))
    assert cid in blocks


async def test_waiters_that_left_a_batch_hear_of_a_failure(world: World) -> None:
    await world.put(b"k", "1")
    root = world.store.bucket("b").head.objects
    assert root is not None
    never = asyncio.Event()

    async def read(_: bytes) -> bytes:
        await never.wait()
        return world.log.blocks[root]

    world.log.read_now = lambda _: None  # type: ignore[method-assign]
    world.log.read = read  # type: ignore[method-assign]
    world.nodes.cache.discard([root])
    waiting = asyncio.create_task(world.put(b"k2", "2"))
    await turns()
    world.pipeline.fail(Unavailable("the lease was lost"))
    with pytest.raises(Unavailable):
        await soon(waiting)
    never.set()
