"""Checkpoints: what they hold, that damage of an old one does not stop them, and that a bucket's
configuration does not stand in one segment only."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot import mst
from ingot.bucket.checkpoint import decode_head, encode_head, tree_key
from ingot.bucket.config_block import decode_config
from ingot.bucket.model import Bucket, BucketConfig
from ingot.bucket.nodes import Published
from ingot.errors import Corruption, FormatError
from ingot.messages import Cid
from ingot.segments.commit import decode_checkpoint
from tests.bucket.test_pipeline import World
from tests.segments.test_commit import HEADS, IDS, NAMES

CONFIG = BucketConfig("owner", "Owner", 1, "us-east-1")


@pytest.fixture
async def world() -> Any:
    made = World()
    made.nodes.blocks = Published(made.log)  # type: ignore[arg-type]
    await made.start()
    for name in "bcdef":
        await made.store.create_bucket(name, CONFIG)
    yield made
    await made.stop()


async def touch(world: World, count: int = 1) -> None:
    for _ in range(count):
        await world.put(b"k%d" % world.pipeline.commits, "1")


def seal(world: World) -> None:
    """A segment was sealed: what comes now goes into the next one."""
    world.log.segment += 1
    world.checkpoints.segment_sealed()


async def held(world: World) -> dict[bytes, Any]:
    """The heads of the newest checkpoint, by bucket id."""
    cid = world.log.commits[-1].checkpoint
    assert cid is not None
    nodes = type(world.nodes)(world.log, 1 << 20)
    root = decode_checkpoint(world.log.blocks[cid]).root
    entries = await nodes.run(lambda: mst.scan(nodes.cache, root, b"", None, 1000))
    found = {}
    for key, value in entries:
        bucket, name, head = decode_head(world.log.blocks[value])
        assert key == tree_key(bucket)
        found[bucket] = (name, head)
    return found


def standing(world: World) -> dict[bytes, Any]:
    return {bucket.id: (bucket.name, bucket.head) for bucket in world.store.buckets()}


async def test_it_holds_every_head(world: World) -> None:
    seal(world)
    await touch(world)
    assert await held(world) == standing(world)
    await world.store.delete_bucket(world.store.bucket("c"))
    await touch(world)
    seal(world)
    await touch(world)
    assert await held(world) == standing(world) and len(standing(world)) == 4


@given(st.builds(Bucket, IDS, NAMES, HEADS, st.just(CONFIG)), st.data())
def test_heads_are_read_as_written_or_refused(bucket: Bucket, data: st.DataObject) -> None:
    block = encode_head(bucket)
    assert decode_head(block) == (bucket.id, bucket.name, bucket.head)
    damaged = bytearray(block)
    damaged[data.draw(st.integers(0, len(block) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        identity, name, head = decode_head(bytes(damaged))
    except FormatError:
        return
    assert encode_head(Bucket(identity, name, head, CONFIG)) == damaged


# -- damage of the one before ----------------------------------------------------------------------


async def old_nodes(world: World) -> list[Cid]:
    """Blocks of the newest checkpoint's tree, gone from the cache."""
    seal(world)
    await touch(world)
    cid = world.log.commits[-1].checkpoint
    assert cid is not None
    root = decode_checkpoint(world.log.blocks[cid]).root
    world.nodes.cache.discard([root])
    await touch(world)
    return [root]


async def test_a_damaged_node_of_the_last_one(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = await old_nodes(world)
    read_now = world.log.read_now

    def failing(cid: Cid) -> bytes | None:
        if cid in damaged:
            raise Corruption("log-1 at byte 7", "sha256 aa", "sha256 bb")
        return read_now(cid)

    monkeypatch.setattr(world.log, "read_now", failing)
    seal(world)
    with caplog.at_level(logging.ERROR):
        await touch(world)
    assert await held(world) == standing(world), "it is whole"
    assert world.checkpoints.count == 2
    assert [text for text in caplog.messages if "log-1 at byte 7" in text]
    caplog.clear()
    seal(world)
    await touch(world)
    assert await held(world) == standing(world) and world.checkpoints.count == 3
    assert not caplog.messages, "the new tree is good"


async def test_a_lost_node_of_the_last_one(world: World) -> None:
    for cid in await old_nodes(world):
        del world.log.blocks[cid]
    seal(world)
    await touch(world)
    assert await held(world) == standing(world) and world.checkpoints.count == 2


async def test_a_node_that_is_never_at_hand(world: World) -> None:
    """As on a file system that cannot say whether a read would wait: not put off for ever."""
    world.log.cold.update(await old_nodes(world))
    seal(world)
    await touch(world, 30)
    assert await held(world) != {} and world.checkpoints.count == 2
    seal(world)
    await touch(world)
    assert await held(world) == standing(world)


# -- configurations --------------------------------------------------------------------------------


def segments_with_the_configuration(world: World, bucket: Bucket) -> set[int]:
    return {
        number
        for number, blocks in world.log.segments.items()
        if bucket.head.config in blocks and decode_config(blocks[bucket.head.config])
    }


async def test_configurations_stand_in_two_segments(world: World) -> None:
    seal(world)
    await touch(world)
    for bucket in world.store.buckets():
        assert segments_with_the_configuration(world, bucket) == {1, 2}
    seal(world)
    await touch(world)
    for bucket in world.store.buckets():
        assert segments_with_the_configuration(world, bucket) == {1, 2}, "twice is enough"


async def test_a_checkpoint_in_the_segment_of_the_creation_does_not_count(world: World) -> None:
    seal(world)
    await touch(world)
    await world.store.create_bucket("later", BucketConfig("somebody", "Else", 2, "us-east-1"))
    world.checkpoints.segment_sealed()  # of another stream: the log goes on in the same segment
    await touch(world)
    assert segments_with_the_configuration(world, world.store.bucket("later")) == {2}
    seal(world)
    await touch(world)
    assert segments_with_the_configuration(world, world.store.bucket("later")) == {2, 3}


async def test_a_bucket_that_is_gone_is_forgotten(world: World) -> None:
    config = BucketConfig("somebody", "Else", 2, "us-east-1")
    await world.store.create_bucket("gone", config)
    bucket = world.store.bucket("gone")
    await world.store.delete_bucket(world.store.bucket("gone"))
    seal(world)
    await touch(world)
    assert segments_with_the_configuration(world, bucket) == {1}
