"""New records that refer to stored bodies: refused where a block of the body is lost, and for that
no chunk is read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ingot.body import dag
from ingot.bucket.assembly import assemble
from ingot.bucket.part import Part, Upload
from ingot.bucket.record import Record
from ingot.codec.cid import of_chunk, of_structure
from ingot.errors import Corruption
from ingot.limits import MIB
from ingot.messages import Body, Cid
from tests.body.support import Stream, content
from tests.support.world import World

NOW = 1_800_000_000_000


@pytest.fixture
async def world() -> Any:
    made = await World().start()
    yield made
    await made.stop()


def no_chunk_is_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def read_part(cid: Cid, start: int, into: memoryview) -> None:
        raise AssertionError("a chunk was read")

    monkeypatch.setattr(world.log, "read_part", read_part)


def tree(world: World, leaves: int) -> tuple[Body, list[Cid]]:
    """A body of small chunks under two levels of nodes, as large parts have, and its blocks."""
    made: list[Cid] = []
    entries = []
    for number in range(leaves):
        chunk = b"chunk %d" % number
        world.log.blocks[of_chunk(chunk)] = chunk
        entries.append((of_chunk(chunk), len(chunk)))
    made += [cid for cid, _ in entries]
    for _ in range(2):
        above = []
        for at in range(0, len(entries), 7):
            block = dag.encode_node(entries[at : at + 7])
            cid = of_structure(block)
            world.log.blocks[cid] = block
            made.append(cid)
            above.append((cid, sum(length for _, length in entries[at : at + 7])))
        entries = above
    size = sum(length for _, length in entries)
    return Body(size, None, None, None, entries, 2), made


async def test_a_body_of_chunks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    body = await world.store.ingest(Stream(content(3 * MIB)), ())
    no_chunk_is_read(world, monkeypatch)
    await world.store.check_body(body)
    del world.log.blocks[body.chunks[1][0]]
    with pytest.raises(Corruption, match="in a segment"):
        await world.store.check_body(body)


async def test_a_body_of_nodes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    body, blocks = tree(world, 100)
    no_chunk_is_read(world, monkeypatch)
    await world.store.check_body(body)
    for cid in (blocks[0], blocks[50], blocks[99], blocks[105], blocks[-1]):
        held = world.log.blocks.pop(cid)
        with pytest.raises(Corruption, match="in a segment"):
            await world.store.check_body(body)
        world.log.blocks[cid] = held
    await world.store.check_body(body)


async def test_a_body_that_stands_in_its_record(world: World) -> None:
    for data in (b"", b"small"):
        await world.store.check_body(Body(len(data), None, None, inline=data))


async def test_a_complete_of_parts_that_are_lost(world: World) -> None:
    store = world.store
    upload = await store.uploads.create(store.bucket("b"), Upload(b"k", "", NOW, "me", "Me"))
    for number in (1, 2):
        body = await store.ingest(Stream(content(MIB, number)), ("crc64nvme",))
        await store.uploads.put_part(
            store.bucket("b"), upload, number, Part(body, NOW, body.checksums)
        )
    chosen, _ = await store.uploads.parts(store.bucket("b"), upload)
    record = assemble(upload, [each for _, each in chosen], NOW)
    chunk = chosen[1][1].body.chunks[0][0]
    held = world.log.blocks.pop(chunk)
    with pytest.raises(Corruption, match="in a segment"):
        await store.uploads.complete(store.bucket("b"), upload, chosen, record, bytes(32))
    assert await store.find(store.bucket("b"), b"k") is None
    world.log.blocks[chunk] = held
    await store.uploads.complete(store.bucket("b"), upload, chosen, record, bytes(32))
    found = await store.find(store.bucket("b"), b"k")
    assert isinstance(found, Record) and found.body.size == 2 * MIB
    assert replace(found.body, pin=None).chunks == record.body.chunks
