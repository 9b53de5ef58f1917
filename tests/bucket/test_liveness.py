"""What compaction may drop: random histories cut into units, each judged by itself; afterwards
every head, old and new, that a unit's end stood for can be read in full from what was kept."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ingot import mst
from ingot.body import dag
from ingot.bucket.checkpoint import decode_head
from ingot.bucket.liveness import Liveness, Roots
from ingot.bucket.part import Part, Upload
from ingot.bucket.record import Record, decode_record
from ingot.codec.cid import of_chunk, of_structure
from ingot.errors import FormatError
from ingot.messages import Body, Cid, Head
from ingot.segments.commit import decode_checkpoint, encode_commit
from tests.support.fakelog import record_cid
from tests.support.world import CONFIG, World

NOW = 1_800_000_000_000


@pytest.fixture
async def world() -> Any:
    made = await World().start()
    yield made
    await made.stop()


def roots_of(world: World, segments: set[int]) -> Roots:
    roots = Roots()
    for record in world.log.commits:
        if record.segment in segments:
            roots.add(record_cid(record), record)
    after = [record for record in world.log.commits if record.segment > max(segments)]
    if after:
        roots.follow(after[0])
    return roots


def unit(world: World, segments: set[int]) -> dict[Cid, bytes]:
    """Every block of these segments, commit records too."""
    blocks: dict[Cid, bytes] = {}
    for number in segments:
        blocks |= world.log.segments.get(number, {})
    for record in world.log.commits:
        if record.segment in segments:
            blocks[record_cid(record)] = encode_commit(record)
    return blocks


def compacted(world: World, segments: set[int], step: int = 7) -> dict[Cid, bytes]:
    blocks = unit(world, segments)
    walk = Liveness(roots_of(world, segments), blocks.__contains__)
    while wanted := walk.wanted(step):
        for cid in wanted:
            walk.feed(cid, blocks[cid])
    assert walk.live <= blocks.keys()
    return {cid: block for cid, block in blocks.items() if cid in walk.live}


def body_of(world: World, source: random.Random) -> Body:
    """Inline, a few chunks, or chunks under a node; chunks of the log stream."""
    kind = source.randrange(3)
    data = source.randbytes(40)
    if kind == 0:
        return Body(40, bytes(16), bytes(32), inline=data)
    chunks = [(of_chunk(data[at : at + 10]), 10) for at in range(0, 40, 10)]
    blocks = [(of_chunk(data[at : at + 10]), data[at : at + 10]) for at in range(0, 40, 10)]
    if kind == 1:
        return Body(40, bytes(16), bytes(32), chunks=chunks, blocks=blocks)
    node = dag.encode_node(chunks)
    blocks.append((of_structure(node), node))
    return Body(40, bytes(16), bytes(32), chunks=[(of_structure(node), 40)], depth=1, blocks=blocks)


async def random_history(world: World, source: random.Random, units: int) -> list[dict[str, Any]]:
    """The heads that stood at the end of each unit. Objects are put, deleted, copied."""
    stood = []
    for _ in range(units):
        for _ in range(source.randrange(1, 40)):
            bucket = source.choice(list(world.pipeline.tips))
            key = b"k%03d" % source.randrange(30)
            choice = source.random()
            if choice < 0.15:
                await world.store.delete(world.store.bucket(bucket), [key])
            elif choice < 0.3 and world.log.commits:
                found = await world.store.find(world.store.bucket(bucket), key)
                if found is not None:
                    await world.store.put(
                        world.store.bucket(bucket), Record(b"copy" + key, found.body, "e", NOW)
                    )
            elif choice < 0.34 and len(world.pipeline.tips) < 4:
                await world.store.create_bucket(f"b{len(world.log.commits)}", CONFIG)
            else:
                body = body_of(world, source)
                etag = f"{source.random()}"
                await world.store.put(world.store.bucket(bucket), Record(key, body, etag, NOW))
        stood.append(dict(world.pipeline.tips))
        world.log.segment += 1
        world.pipeline._checkpoints.segment_sealed()
    await world.store.put(
        world.store.bucket("b"),
        Record(b"last", Body(0, bytes(16), bytes(32), inline=b""), "e", NOW),
    )
    return stood


def read_all(head: Head, salt: bytes, blocks: dict[Cid, bytes]) -> int:
    """Read every byte below a head; the number of keys. KeyError where something is missing."""
    keys = 0
    for root in (head.objects, head.uploads):
        check = mst.TreeCheck(root, salt)
        while (cid := check.next_wanted) is not None:
            for _, value, _ in check.feed(cid, blocks[cid]):
                keys += 1
                body = decode_record(blocks[value]).body
                pending = [(cid, body.depth) for cid, _ in body.chunks]
                while pending:
                    below, depth = pending.pop()
                    block = blocks[below]
                    if depth:
                        pending += [(cid, depth - 1) for cid, _ in dag.decode_node(block)]
    assert head.config is None or head.config in blocks
    return keys


@pytest.mark.parametrize("seed", range(25))
async def test_every_head_at_a_units_end_survives_the_compaction_of_all(
    world: World, seed: int
) -> None:
    source = random.Random(seed)
    units = source.randrange(2, 6)
    stood = await random_history(world, source, units)
    numbers = list(range(1, units + 1))
    cut = source.randrange(1, units + 1)
    groups = [{n} for n in numbers[:cut]] + ([set(numbers[cut:])] if numbers[cut:] else [])
    kept = dict(unit(world, {units + 1}))
    for group in groups:
        kept |= compacted(world, group)
    ends = [max(group) for group in groups]
    read = 0
    for end in ends:
        for bucket in stood[end - 1].values():
            read += read_all(bucket.head, bucket.config.salt, kept)
    assert read
    for record in world.log.commits:
        assert record_cid(record) in kept
        if record.checkpoint is not None and record.segment in ends[-1:]:
            tree = decode_checkpoint(kept[record.checkpoint]).root
            check = mst.TreeCheck(tree)
            while (cid := check.next_wanted) is not None:
                for _, value, _ in check.feed(cid, kept[cid]):
                    config = decode_head(kept[value])[2].config
                    assert config is None or config in kept


async def test_superseded_blocks_go_and_nothing_else(world: World) -> None:
    for number in range(200):
        body = Body(1, bytes(16), bytes(32), inline=b"x")
        await world.store.put(
            world.store.bucket("b"), Record(b"k%d" % (number % 10), body, str(number), NOW)
        )
    everything, kept = unit(world, {1}), compacted(world, {1})
    head = world.store.bucket("b").head
    assert read_all(head, b"", kept) == 10
    records = [cid for cid, block in kept.items() if b"ingot/object@1" in block[:20]]
    assert len(records) == 10
    commits = len(world.log.commits)
    assert len(kept) - commits < len(everything) - commits - 180


async def test_a_pinned_block_and_what_it_links_to_stay(world: World) -> None:
    source = random.Random(3)
    body = Body(0, None, None)
    while body.depth == 0:
        body = body_of(world, source)
    await world.store.put(world.store.bucket("b"), Record(b"k", body, "1", NOW))
    node = body.chunks[0][0]
    await world.store.put(
        world.store.bucket("b"), Record(b"k", Body(0, bytes(16), bytes(32), inline=b""), "2", NOW)
    )
    assert node not in compacted(world, {1})
    pin = world.store.pin(Body(40, None, None, chunks=body.chunks, depth=1))
    world.log.segment += 1
    await world.store.put(
        world.store.bucket("b"), Record(b"l", Body(0, bytes(16), bytes(32), inline=b""), "3", NOW)
    )
    del pin
    kept = compacted(world, {1})
    assert node in kept and all(cid in kept for cid, _ in dag.decode_node(kept[node]))


async def test_open_uploads_keep_their_parts(world: World) -> None:
    uploads = world.store.uploads
    upload = await uploads.create(world.store.bucket("b"), Upload(b"k", "", NOW, "me", "Me"))
    source = random.Random(5)
    body = Body(0, None, None)
    while not body.chunks:
        body = body_of(world, source)
    await uploads.put_part(world.store.bucket("b"), upload, 1, Part(body, NOW, {}))
    kept = compacted(world, {1})
    head = world.store.bucket("b").head
    assert head.uploads in kept and all(cid in kept for cid, _ in body.chunks)
    await uploads.abort(world.store.bucket("b"), upload)
    assert not any(cid in compacted(world, {1}) for cid, _ in body.chunks)


async def test_a_deleted_bucket_keeps_its_commits_only(world: World) -> None:
    await world.store.create_bucket("gone", CONFIG)
    await world.store.put(
        world.store.bucket("gone"),
        Record(b"k", Body(1, bytes(16), bytes(32), inline=b"x"), "1", NOW),
    )
    await world.store.delete(world.store.bucket("gone"), [b"k"])
    await world.store.delete_bucket(world.store.bucket("gone"))
    kept = compacted(world, {1})
    assert not [block for block in kept.values() if b"ingot/object@1" in block[:20]]


def test_a_block_that_is_no_dag_cbor_stops_the_walk() -> None:
    block = b"\x9f\x00\xff"
    roots = Roots(heads={bytes(16): Head(1, of_structure(block))})
    walk = Liveness(roots, lambda cid: True)
    assert walk.wanted(10) == [of_structure(block)]
    with pytest.raises(FormatError):
        walk.feed(of_structure(block), block)
