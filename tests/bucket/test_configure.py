"""Changes of a bucket's configuration: judged in arrival order with everything else of the bucket,
one head a batch, and as durable as objects are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot import limits
from ingot.bucket.config_block import decode_config
from ingot.bucket.model import (
    BucketConfig,
    BucketNotEmpty,
    ConfigTooLarge,
    NoSuchBucket,
)
from ingot.bucket.part import Part, Upload
from ingot.bucket.record import Record
from ingot.bucket.versions import NewState
from ingot.errors import IngotError, RequestError, Unavailable
from ingot.messages import Body
from tests.bucket.life import Life
from tests.bucket.test_checkpoint import seal, segments_with_the_configuration
from tests.bucket.test_pipeline import CONFIG, World, soon, turns


@pytest.fixture
async def world() -> Any:
    made = await World().start()
    await made.store.create_bucket("b", CONFIG)
    yield made
    await made.stop()


def documents(world: World) -> dict[str, bytes]:
    return world.store.bucket("b").config.documents


def stored(world: World) -> BucketConfig:
    """The configuration in the block that the published head names."""
    cid = world.store.bucket("b").head.config
    assert cid is not None
    return decode_config(world.log.blocks[cid])


async def test_a_document_is_set_replaced_and_removed(world: World) -> None:
    await world.store.configure(world.store.bucket("b"), "tagging", b"1")
    await world.store.configure(world.store.bucket("b"), "cors", b"2")
    await world.store.configure(world.store.bucket("b"), "tagging", b"3")
    assert documents(world) == {"tagging": b"3", "cors": b"2"} == stored(world).documents
    assert stored(world).owner == CONFIG.owner
    await world.store.configure(world.store.bucket("b"), "tagging", None)
    await world.store.configure(world.store.bucket("b"), "cors", None)
    assert documents(world) == {} and stored(world) == CONFIG


async def test_what_changes_nothing_moves_no_head(world: World) -> None:
    await world.store.configure(world.store.bucket("b"), "cors", b"2")
    before = world.store.bucket("b")
    commits = len(world.log.commits)
    await world.store.configure(world.store.bucket("b"), "cors", b"2")
    await world.store.configure(world.store.bucket("b"), "tagging", None)
    assert world.store.bucket("b") is before and len(world.log.commits) == commits


async def test_configuration_and_writes_share_one_move(world: World) -> None:
    world.events.clear()
    before = world.store.bucket("b").head
    await soon(
        asyncio.gather(
            world.put(b"k", "1"),
            world.store.configure(world.store.bucket("b"), "tagging", b"t"),
            world.put(b"l", "2"),
            world.store.configure(world.store.bucket("b"), "cors", b"c"),
        )
    )
    commit = world.log.commits[-1]
    assert world.events == ["append 2", "synced 2", "swap sent", "swapped"]
    assert [move.old for move in commit.moves] == [before]
    assert commit.moves[0].new == world.store.bucket("b").head
    assert documents(world) == {"tagging": b"t", "cors": b"c"}
    assert await world.etag(b"k") == "1" and await world.etag(b"l") == "2"


async def test_readers_see_published_configurations_only(world: World) -> None:
    world.swap_gate.clear()
    task = asyncio.create_task(world.store.configure(world.store.bucket("b"), "cors", b"1"))
    await turns()
    assert documents(world) == {} and not task.done()
    world.swap_gate.set()
    await soon(task)
    assert documents(world) == {"cors": b"1"}


def only_with(name: str) -> Callable[[BucketConfig], None]:
    def check(config: BucketConfig) -> None:
        if name not in config.documents:
            raise RequestError(f"{name} is not set")

    return check


async def test_a_check_sees_what_came_before_it_in_the_batch(world: World) -> None:
    store = world.store
    results = await soon(
        asyncio.gather(
            store.configure(store.bucket("b"), "object-lock", b"1", only_with("versioning")),
            store.configure(store.bucket("b"), "versioning", b"enabled"),
            store.configure(store.bucket("b"), "object-lock", b"2", only_with("versioning")),
            return_exceptions=True,
        )
    )
    assert isinstance(results[0], RequestError) and results[1:] == [None, None]
    assert documents(world) == {"versioning": b"enabled", "object-lock": b"2"}


async def test_a_put_that_knows_of_no_lock_is_not_made_behind_one(world: World) -> None:
    """It was queued before the lock was committed, and would not be retained."""
    store = world.store
    record = Record(b"k", Body(1, bytes(16), bytes(32), inline=b"x"), "e", 1)
    results = await soon(
        asyncio.gather(
            store.configure(store.bucket("b"), "versioning", b"enabled"),
            store.configure(store.bucket("b"), "object-lock", b"1"),
            store.put(store.bucket("b"), record),
            return_exceptions=True,
        )
    )
    assert results[:2] == [None, None] and isinstance(results[2], Unavailable)
    assert await store.find(store.bucket("b"), b"k") is None


async def test_another_bucket_of_the_name_is_not_meant(world: World) -> None:
    """Whoever judged one changes that one: at once, and from the queue."""
    store = world.store
    before = store.bucket("b")
    record = Record(b"k", Body(1, bytes(16), bytes(32), inline=b"x"), "e", 1)
    queued = await soon(
        asyncio.gather(
            store.delete_bucket(before),
            store.configure(before, "cors", b"1"),
            store.put(before, record),
            store.create_bucket("b", CONFIG),
            return_exceptions=True,
        )
    )
    assert [type(each) for each in queued[:3]] == [type(None), NoSuchBucket, NoSuchBucket]
    made = store.bucket("b")
    assert made.id != before.id
    upload = Upload(b"k", "", 1, "me", "Me")
    for late in (
        store.delete_bucket(before),
        store.configure(before, "cors", b"1"),
        store.put(before, record),
        store.delete(before, [b"k"]),
        store.set_state(before, b"k", None, NewState(hold=True), 1),
        store.uploads.create(before, upload),
        store.uploads.put_part(before, upload, 1, Part(record.body, 1)),
        store.uploads.complete(before, upload, [], record, bytes(32)),
        store.uploads.abort(before, upload),
    ):
        with pytest.raises(NoSuchBucket):
            await late
    assert store.bucket("b") is made


async def test_a_check_sees_what_is_committed_but_not_published(world: World) -> None:
    world.swap_gate.clear()
    first = asyncio.create_task(
        world.store.configure(world.store.bucket("b"), "versioning", b"enabled")
    )
    await turns()
    second = asyncio.create_task(
        world.store.configure(world.store.bucket("b"), "object-lock", b"2", only_with("versioning"))
    )
    await turns()
    world.swap_gate.set()
    await soon(asyncio.gather(first, second))


async def test_a_refused_change_of_its_own_makes_no_commit(world: World) -> None:
    commits = len(world.log.commits)
    with pytest.raises(RequestError, match="versioning is not set"):
        await world.store.configure(
            world.store.bucket("b"), "object-lock", b"1", only_with("versioning")
        )
    assert len(world.log.commits) == commits


async def test_it_is_bounded(world: World) -> None:
    half = bytes(limits.BUCKET_CONFIG_BYTES_MAX // 2)
    await world.store.configure(world.store.bucket("b"), "cors", half)
    await world.store.configure(world.store.bucket("b"), "policy", half)
    with pytest.raises(ConfigTooLarge):
        await world.store.configure(world.store.bucket("b"), "tagging", b"1")
    await world.store.configure(world.store.bucket("b"), "policy", b"small")
    await world.store.configure(world.store.bucket("b"), "tagging", b"1")
    assert len(documents(world)) == 3
    large = BucketConfig("o", "O", 1, "r", documents={"cors": half + half + b"1"})
    with pytest.raises(ConfigTooLarge):
        await world.store.create_bucket("c", large)


async def test_a_bucket_that_is_gone(world: World) -> None:
    with pytest.raises(NoSuchBucket):
        await world.store.configure(world.store.bucket("none"), "cors", b"1")
    await world.put(b"k", "1")
    drop = asyncio.create_task(world.store.delete_bucket(world.store.bucket("b")))
    change = asyncio.create_task(world.store.configure(world.store.bucket("b"), "cors", b"1"))
    with pytest.raises(BucketNotEmpty):
        await soon(drop)
    await soon(change)
    await world.store.delete(world.store.bucket("b"), [b"k"])
    drop = asyncio.create_task(world.store.delete_bucket(world.store.bucket("b")))
    change = asyncio.create_task(world.store.configure(world.store.bucket("b"), "cors", b"2"))
    await soon(drop)
    with pytest.raises(NoSuchBucket):
        await soon(change)


async def test_a_full_store_still_removes_documents(world: World) -> None:
    await world.store.configure(world.store.bucket("b"), "cors", b"1")
    world.store.judge_room(10, 10, 5)
    with pytest.raises(Unavailable):
        await world.store.configure(world.store.bucket("b"), "tagging", b"1")
    await world.store.configure(world.store.bucket("b"), "cors", None)
    assert documents(world) == {}


async def test_everyday_documents_leave_a_bucket_plain(world: World) -> None:
    for name, plain in (("tagging", True), ("cors", True), ("versioning", False)):
        await world.store.configure(world.store.bucket("b"), name, b"1")
        assert world.store.bucket("b").config.plain is plain
    await world.store.configure(world.store.bucket("b"), "versioning", None)
    assert world.store.bucket("b").config.plain
    await world.store.configure(world.store.bucket("b"), "ownership", b"1")
    assert not world.store.bucket("b").config.plain, "its ACLs may count"
    await world.store.configure(world.store.bucket("b"), "ownership", None)
    await world.store.configure(world.store.bucket("b"), "of a later version", b"1")
    assert not world.store.bucket("b").config.plain


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("set"), st.sampled_from("abc"), st.none() | st.binary(max_size=3), st.booleans()
        ),
        st.tuples(st.just("put"), st.sampled_from("xy"), st.text("12", min_size=1, max_size=1)),
        st.tuples(
            st.just("await"),
        ),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_against_a_dictionary(steps: list[Any]) -> None:
    """Changes sent one behind the other, answered whenever they are, come to what a dictionary
    comes to; a check that refuses goes by the dictionary of its moment."""

    async def run() -> None:
        world = await World().start()
        await world.store.create_bucket("b", CONFIG)
        model: dict[str, bytes] = {}
        objects: dict[str, str] = {}
        waiting: list[tuple[asyncio.Task[Any], bool]] = []

        async def settle() -> None:
            for task, refused in waiting:
                result = await soon(asyncio.gather(task, return_exceptions=True))
                assert isinstance(result[0], IngotError) is refused, result
            waiting.clear()

        for step in steps:
            if step[0] == "await":
                await settle()
                continue
            if step[0] == "put":
                _, key, etag = step
                waiting.append((asyncio.create_task(world.put(key.encode(), etag)), False))
                objects[key] = etag
            else:
                _, name, document, guarded = step
                check = only_with("a") if guarded else None
                change = world.store.configure(world.store.bucket("b"), name, document, check)
                refused = guarded and "a" not in model
                waiting.append((asyncio.create_task(change), refused))
                if not refused:
                    model.pop(name, None)
                    if document is not None:
                        model[name] = document
            await asyncio.sleep(0)  # it is queued
        await settle()
        assert documents(world) == model == stored(world).documents
        for key, etag in objects.items():
            assert await world.etag(key.encode()) == etag
        sequences = [move.new.sequence for commit in world.log.commits for move in commit.moves]
        assert sequences == list(range(len(sequences))), "one move a batch"
        await world.stop()

    asyncio.run(run())


# -- durable ---------------------------------------------------------------------------------------


async def test_a_checkpoint_repeats_what_changed(world: World) -> None:
    seal(world)
    await world.put(b"k", "1")
    await world.store.configure(
        world.store.bucket("b"), "cors", b"1"
    )  # in the segment of the repeated one
    bucket = world.store.bucket("b")
    assert segments_with_the_configuration(world, bucket) == {2}
    seal(world)
    await world.put(b"k", "2")
    assert segments_with_the_configuration(world, bucket) == {2, 3}
    seal(world)
    await world.put(b"k", "3")
    assert segments_with_the_configuration(world, bucket) == {2, 3}


async def test_a_checkpoint_and_a_change_in_one_commit(world: World) -> None:
    seal(world)
    await world.store.configure(world.store.bucket("b"), "cors", b"1")
    bucket = world.store.bucket("b")
    assert segments_with_the_configuration(world, bucket) == {2}
    seal(world)
    await world.put(b"k", "2")
    assert segments_with_the_configuration(world, bucket) == {2, 3}


async def test_a_checkpoint_repeats_no_more_than_it_may(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingot.bucket.checkpoint.CHECKPOINT_CONFIGS_BYTES", 1000)
    names = [f"bucket-{number}" for number in range(5)]
    for name in names:
        await world.store.create_bucket(name, BucketConfig("o", "O", 1, "r"))
        await world.store.configure(world.store.bucket(name), "cors", bytes(600))
    for _ in range(4):
        seal(world)
        await world.put(b"k", "1")
        sizes = [
            sum(len(block) for block in blocks.values() if b"documents" in block)
            for segment, blocks in world.log.segments.items()
            if segment > 1
        ]
        assert max(sizes) < 2000
    for name in names:
        assert len(segments_with_the_configuration(world, world.store.bucket(name))) == 2


async def test_it_survives_a_restart_and_compaction(tmp_path: Path) -> None:
    life = Life(tmp_path / "data")
    await life.start()
    await life.store.configure(life.store.bucket("b"), "cors", b"old")
    await life.store.configure(life.store.bucket("b"), "tagging", b"1")
    await life.store.configure(life.store.bucket("b"), "cors", b"new")
    await life.fill(2)
    await life.compact()
    await life.check()
    await life.fsck()
    assert life.store.bucket("b").config.documents == {"cors": b"new", "tagging": b"1"}
    await life.stop()
    await life.start()
    assert life.store.bucket("b").config.documents == {"cors": b"new", "tagging": b"1"}
    await life.fsck()
    await life.stop()
