"""Uploads through the real pipeline, over a log and a registry in memory: atomicity, races,
bounds."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import time
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import pytest

from ingot import mst
from ingot.body.checksums import one_shot
from ingot.bucket import batch
from ingot.bucket.assembly import assemble
from ingot.bucket.fsck import Fsck
from ingot.bucket.model import (
    Condition,
    KeyRefused,
    NoSuchBucket,
    PreconditionFailed,
)
from ingot.bucket.part import (
    Completed,
    NoSuchUpload,
    Part,
    PartsChanged,
    Upload,
    marker_key,
    part_key,
)
from ingot.bucket.record import Record
from ingot.errors import Corruption, NotFound, Unavailable
from ingot.limits import COMPLETED_KEPT_MS, COMPLETED_PRUNED_MAX, MIB
from ingot.messages import Body
from tests.body.support import Arrived, Stream, content
from tests.support.world import CONFIG, World, turns

NOW = 1_800_000_000_000


@pytest.fixture
async def world() -> Any:
    made = await World().start()
    yield made
    await made.stop()


async def soon(awaitable: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(awaitable, 30)


async def create(world: World, key: bytes = b"k", ms: int = NOW, **more: Any) -> Upload:
    return await world.store.uploads.create(
        world.store.bucket("b"), Upload(key, "", ms, "me", "Me", **more)
    )


def inline(data: bytes) -> Part:
    """A part that the tests need no chunks of."""
    body = Body(len(data), hashlib.md5(data).digest(), hashlib.sha256(data).digest(), data)
    return Part(body, NOW, {"crc64nvme": one_shot("crc64nvme", data)})


async def stored(world: World, data: bytes) -> Part:
    body = await world.store.ingest(Stream(data), ("crc64nvme",))
    return Part(body, NOW, body.checksums)


async def put(world: World, upload: Upload, number: int, data: bytes) -> None:
    await world.store.uploads.put_part(world.store.bucket("b"), upload, number, inline(data))


async def chosen(world: World, upload: Upload) -> list[tuple[int, Part]]:
    found, more = await world.store.uploads.parts(world.store.bucket("b"), upload)
    assert not more
    return found


async def complete(
    world: World,
    upload: Upload,
    parts: list[tuple[int, Part]] | None = None,
    condition: Condition | None = None,
    ms: int = NOW,
) -> Completed:
    parts = parts if parts is not None else await chosen(world, upload)
    record = assemble(upload, [part for _, part in parts], ms)
    uploads = world.store.uploads
    done, outcome = await uploads.complete(
        world.store.bucket("b"), upload, parts, record, bytes(32), condition
    )
    assert outcome is None, "the bucket has no versions"
    return done


async def is_open(world: World, upload: Upload) -> bool:
    try:
        await world.store.uploads.find(world.store.bucket("b"), upload.key, upload.id)
    except NoSuchUpload:
        return False
    return True


async def tree_keys(world: World) -> list[bytes]:
    cache, root = world.nodes.cache, world.store.bucket("b").head.uploads
    return [key for key, _ in mst.scan(cache, root, b"", None, 100_000)]


async def value(world: World, key: bytes = b"k") -> bytes | None:
    record = await world.store.find(world.store.bucket("b"), key)
    if record is None:
        return None
    pieces = world.store.read(record.body, 0, record.body.size)
    return b"".join([bytes(piece) async for piece in pieces])


# -- the life of an upload ----------------------------------------------------------------------


async def test_an_upload_becomes_an_object(world: World) -> None:
    upload = await create(world, headers={"content-type": "text/x"}, metadata={"a": "b"})
    found = await world.store.uploads.find(world.store.bucket("b"), b"k", upload.id)
    assert found == upload
    data = [content(3 * MIB + 5), content(70_000, 1), b"tail"]
    for number, piece in enumerate(data, 1):
        await world.store.uploads.put_part(
            world.store.bucket("b"), upload, number, await stored(world, piece)
        )
    assert await value(world) is None, "a pending upload is no object"
    before, appended = len(world.log.commits), len(world.log.bodies)
    done = await complete(world, upload)
    assert len(world.log.commits) == before + 1 and len(world.log.bodies) == appended
    assert await value(world) == b"".join(data)
    record = await world.store.find(world.store.bucket("b"), b"k")
    assert record is not None and record.headers == {"content-type": "text/x"}
    assert record.checksums == {"crc64nvme": one_shot("crc64nvme", b"".join(data))}
    assert record.etag == done.etag
    assert await tree_keys(world) == [marker_key(upload.id)]
    bucket = world.store.bucket("b")
    assert await world.store.uploads.completed(bucket, b"k", upload.id) == done
    assert await world.store.uploads.completed(bucket, b"other", upload.id) is None


async def test_a_part_is_replaced_and_unlisted_ones_go_with_the_upload(world: World) -> None:
    upload = await create(world)
    for number, data in ((1, b"old"), (7, b"never listed"), (1, b"new")):
        await put(world, upload, number, data)
    await complete(world, upload, (await chosen(world, upload))[:1])
    assert await value(world) == b"new"
    assert await tree_keys(world) == [marker_key(upload.id)]


async def test_abort(world: World) -> None:
    upload, other = await create(world), await create(world)
    await put(world, upload, 1, b"a")
    await put(world, other, 1, b"b")
    await world.store.uploads.abort(world.store.bucket("b"), upload)
    assert await tree_keys(world) == [other.tree_key, part_key(other.tree_key, 1)]
    for attempt in (
        world.store.uploads.abort(world.store.bucket("b"), upload),
        put(world, upload, 2, b"x"),
        complete(world, upload, [(1, inline(b"a"))]),
    ):
        with pytest.raises(NoSuchUpload):
            await attempt
    await world.store.uploads.abort(world.store.bucket("b"), other)
    assert world.store.bucket("b").head.uploads == mst.EMPTY_ROOT


async def test_an_upload_is_known_at_its_own_key_only(world: World) -> None:
    upload = await create(world)
    bucket = world.store.bucket("b")
    for key, upload_id in ((b"other", upload.id), (b"k", "x"), (b"k", ""), (b"k", upload.id[::-1])):
        with pytest.raises(NoSuchUpload):
            await world.store.uploads.find(bucket, key, upload_id)


async def test_deleting_a_bucket_takes_its_uploads_along(world: World) -> None:
    upload = await create(world)
    await put(world, upload, 1, b"a")
    await world.store.delete_bucket(world.store.bucket("b"))
    with pytest.raises(NoSuchBucket):
        await put(world, upload, 2, b"b")
    await world.store.create_bucket("b", CONFIG)
    assert world.store.bucket("b").head.uploads is None
    with pytest.raises(NoSuchUpload):
        await put(world, upload, 2, b"b")


async def test_uploads_go_with_the_commit_that_ends_the_bucket(world: World) -> None:
    """A part that was taken before the deletion and commits behind it is refused."""
    upload = await create(world)
    world.swap_gate.clear()
    dropped = asyncio.create_task(world.store.delete_bucket(world.store.bucket("b")))
    await turns()
    late = asyncio.create_task(put(world, upload, 1, b"a"))
    await turns()
    world.swap_gate.set()
    await soon(dropped)
    with pytest.raises(NoSuchBucket):
        await soon(late)


# -- conditions and atomicity -------------------------------------------------------------------


async def test_a_condition_that_fails_leaves_everything_as_it_was(world: World) -> None:
    upload = await create(world)
    await put(world, upload, 1, b"new")
    with pytest.raises(NotFound):
        await complete(world, upload, condition=Condition(if_match=("x",)))
    await world.store.put(world.store.bucket("b"), Record(b"k", inline(b"old").body, "old", NOW))
    head = world.store.bucket("b").head
    with pytest.raises(PreconditionFailed):
        await complete(world, upload, condition=Condition(if_none_match_any=True))
    with pytest.raises(PreconditionFailed):
        await complete(world, upload, condition=Condition(if_match=("x",)))
    assert world.store.bucket("b").head == head
    await complete(world, upload, condition=Condition(if_match=("old",)))
    assert await value(world) == b"new"


async def test_a_replaced_part_is_noticed_at_the_commit(world: World) -> None:
    upload = await create(world)
    await put(world, upload, 1, b"old")
    seen = await chosen(world, upload)
    await put(world, upload, 1, b"new")
    with pytest.raises(PartsChanged):
        await complete(world, upload, seen)
    assert await value(world) is None and await is_open(world, upload)
    await complete(world, upload)
    assert await value(world) == b"new"


async def test_order_within_one_batch(world: World) -> None:
    """Held commits make the mutations behind them one batch, which is judged in arrival order."""
    upload, other = await create(world, b"a"), await create(world, b"b")
    for each in (upload, other):
        await put(world, each, 1, b"1")
    seen, theirs = await chosen(world, upload), await chosen(world, other)
    world.log.hold.clear()
    blocker = asyncio.create_task(
        world.store.put(world.store.bucket("b"), Record(b"x", inline(b"").body, "x", NOW))
    )
    await turns()
    before = len(world.log.commits)
    asked = [
        put(world, upload, 2, b"2"),  # goes with the upload, although nobody listed it
        complete(world, upload, seen),
        put(world, upload, 3, b"3"),
        complete(world, upload, seen),
        world.store.uploads.abort(world.store.bucket("b"), upload),
        complete(world, other, theirs, Condition(if_none_match_any=True)),
        world.store.put(
            world.store.bucket("b"),
            Record(b"b", inline(b"z").body, "z", NOW),
            Condition(if_match=("x",)),
        ),
    ]
    tasks = [asyncio.create_task(each) for each in asked]
    await turns()
    world.log.hold.set()
    await soon(asyncio.wait([blocker, *tasks]))
    assert len(world.log.commits) == before + 2, "they were not one batch"
    kinds = [type(task.exception()) for task in tasks]
    assert kinds == [
        *(type(None), type(None), NoSuchUpload, NoSuchUpload, NoSuchUpload),
        *(type(None), PreconditionFailed),
    ]
    assert await tree_keys(world) == sorted([marker_key(upload.id), marker_key(other.id)])
    assert await value(world, b"a") == b"1" and await value(world, b"b") == b"1"


async def test_refusals_wait_for_what_they_rest_on(world: World) -> None:
    upload = await create(world)
    await put(world, upload, 1, b"1")
    seen = await chosen(world, upload)
    world.swap_gate.clear()
    winner = asyncio.create_task(complete(world, upload, seen))
    await turns()
    loser = asyncio.create_task(world.store.uploads.abort(world.store.bucket("b"), upload))
    await turns()
    assert not loser.done() and await is_open(world, upload), "the winner is not published yet"
    world.swap_gate.set()
    await soon(winner)
    with pytest.raises(NoSuchUpload):
        await soon(loser)
    bucket = world.store.bucket("b")
    assert await world.store.uploads.completed(bucket, b"k", upload.id) is not None


async def test_a_failed_append_leaves_the_upload(world: World) -> None:
    upload = await create(world)
    await put(world, upload, 1, b"1")
    world.log.failures.append(Unavailable("no space left"))
    with pytest.raises(Unavailable):
        await complete(world, upload)
    assert await is_open(world, upload) and await value(world) is None
    await complete(world, upload)
    assert await value(world) == b"1"


@pytest.mark.parametrize("barred", ["object", "marker"])
async def test_a_key_that_a_tree_refuses_refuses_the_whole(
    world: World, monkeypatch: pytest.MonkeyPatch, barred: str
) -> None:
    """And those who came behind it in the batch are judged without it."""
    upload = await create(world)
    await put(world, upload, 1, b"1")
    seen = await chosen(world, upload)
    refused = {"object": b"k", "marker": marker_key(upload.id)}[barred]
    real = mst.apply

    def apply(cache: Any, root: Any, changes: Any, salt: bytes = b"") -> mst.Applied:
        at = [n for n, (key, value) in enumerate(changes) if key == refused and value is not None]
        return mst.Applied(b"", [], [], [], at) if at else real(cache, root, changes, salt)

    monkeypatch.setattr(batch.mst, "apply", apply)
    world.log.hold.clear()
    blocker = asyncio.create_task(
        world.store.put(world.store.bucket("b"), Record(b"x", inline(b"").body, "x", NOW))
    )
    await turns()
    first = asyncio.create_task(complete(world, upload, seen))
    await turns()
    second = asyncio.create_task(put(world, upload, 2, b"2"))
    await turns()
    world.log.hold.set()
    await soon(asyncio.wait([blocker, first, second]))
    assert isinstance(first.exception(), KeyRefused)
    assert second.exception() is None, "the upload stands, since its Complete was refused"
    assert [number for number, _ in await chosen(world, upload)] == [1, 2]
    assert await value(world) is None


async def test_cold_nodes_and_blocks_are_waited_for(world: World) -> None:
    upload = await create(world)
    for number in range(1, 40):
        await put(world, upload, number, b"%d" % number)
    cids = list(world.log.blocks)
    world.nodes.cache.discard([cid for cid in cids if cid[1] == 0x71])
    world.log.cold.update(cids)
    await soon(put(world, upload, 40, b"40"))
    world.nodes.cache.discard([cid for cid in world.log.blocks if cid[1] == 0x71])
    world.log.cold.update(world.log.blocks)
    await soon(complete(world, upload))
    assert await value(world) == b"".join(b"%d" % n for n in range(1, 41))


async def test_damage_in_the_uploads_tree_fails_loudly_and_spares_objects(world: World) -> None:
    upload = await create(world)
    root = world.store.bucket("b").head.uploads
    assert root is not None
    world.nodes.cache.discard([root])
    del world.log.blocks[root]
    with pytest.raises(NotFound):
        await put(world, upload, 1, b"1")
    with pytest.raises(NotFound):
        await is_open(world, replace(upload))
    await world.store.put(world.store.bucket("b"), Record(b"k", inline(b"v").body, "v", NOW))
    assert await value(world) == b"v"


# -- what a Complete costs ----------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [8, 100])
async def test_a_complete_of_640_parts_writes_little_and_is_quick(
    world: World, chunks: int
) -> None:
    upload = await create(world)

    async def part(number: int) -> None:
        named = [(b"\x01\x55\x12\x20" + os.urandom(32), MIB) for _ in range(chunks)]
        world.log.blocks |= dict.fromkeys([cid for cid, _ in named], b"not to be read")
        body = Body(chunks * MIB, os.urandom(16), None, None, named)
        made = Part(body, NOW, {"crc64nvme": os.urandom(8)})
        await world.store.uploads.put_part(world.store.bucket("b"), upload, number, made)

    await asyncio.gather(*[part(number) for number in range(1, 641)])
    parts = await chosen(world, upload)
    assert len(parts) == 640
    written, began = world.log.written, time.perf_counter()
    await complete(world, upload, parts)
    assert time.perf_counter() - began < 1.0
    assert world.log.written - written < MIB
    record = await world.store.find(world.store.bucket("b"), b"k")
    assert record is not None and record.body.size == 640 * chunks * MIB
    assert await tree_keys(world) == [marker_key(upload.id)]


# -- markers ------------------------------------------------------------------------------------


async def test_markers_are_kept_for_hours_and_then_go_a_few_at_a_time(world: World) -> None:
    count = COMPLETED_PRUNED_MAX + 5
    made = []
    for number in range(count):
        upload = await create(world, b"k%d" % number, NOW + number)
        await put(world, upload, 1, b"1")
        await complete(world, upload, ms=NOW + number)
        made.append(upload)
    late = await create(world, b"late", NOW)  # created with them, completed just now
    await put(world, late, 1, b"1")
    await complete(world, late, ms=NOW + COMPLETED_KEPT_MS)
    assert len(await tree_keys(world)) == count + 1
    after = NOW + count + COMPLETED_KEPT_MS + 1
    last = await create(world, b"z", after)
    left = [key for key in await tree_keys(world) if key[:1] == b"\0"]
    assert len(left) == count + 1 - (COMPLETED_PRUNED_MAX - 1), "bounded, and the late one stays"
    assert marker_key(late.id) in left
    await put(world, last, 1, b"1")
    await complete(world, last, ms=after)
    left = [key for key in await tree_keys(world) if key[:1] == b"\0"]
    assert left == sorted([marker_key(late.id), marker_key(last.id)])
    bucket = world.store.bucket("b")
    assert await world.store.uploads.completed(bucket, b"k0", made[0].id) is None


async def test_a_damaged_marker_stops_nobody(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    upload = await create(world)
    await put(world, upload, 1, b"1")
    await complete(world, upload)
    cache, root = world.nodes.cache, world.store.bucket("b").head.uploads
    cid = mst.get(cache, root, marker_key(upload.id))
    assert cid is not None
    world.log.blocks[cid] = b"damage"
    await create(world, b"k", NOW + 2 * COMPLETED_KEPT_MS)
    assert "cannot be read" in caplog.text


# -- listing ------------------------------------------------------------------------------------


def page_of_model(
    rows: list[Upload], prefix: bytes, delimiter: bytes, after: tuple[bytes, str], limit: int
) -> tuple[list[tuple[bytes, str | None]], bool]:
    """The plainest reading of the listing's rules."""
    items: list[tuple[bytes, str | None]] = []
    for row in sorted(rows, key=lambda row: (row.key, row.id)):
        at = row.key.find(delimiter, len(prefix)) if delimiter else -1
        group = row.key[: at + len(delimiter)] if at >= 0 else b""
        if not row.key.startswith(prefix) or row.key < after[0]:
            continue
        if row.key == after[0] and (not after[1] or row.id <= after[1]):
            continue
        if group and ((group, "") == after or (items and items[-1] == (group, None))):
            continue
        items.append((group, None) if group else (row.key, row.id))
    return items[:limit], len(items) > limit if limit else False


@pytest.mark.parametrize("seed", range(4))
async def test_pages_of_uploads_equal_a_model(world: World, seed: int) -> None:
    rng = random.Random(seed)
    names = [b"a", b"a/", b"a/b", b"a/b/c", b"ab", b"b//", "é/ü".encode(), b"\x01", b"\x01/z"]
    rows = []
    for number in range(30):
        upload = await create(world, rng.choice(names), NOW + rng.randrange(5))
        for part in range(rng.randrange(3)):
            await put(world, upload, part + 1, b"x")
        if number % 7 == 0:
            await put(world, upload, 1, b"x")
            await complete(world, upload)
        else:
            rows.append(upload)
    bucket = world.store.bucket("b")
    for _ in range(60):
        prefix = rng.choice([b"", b"a", b"a/", b"b", "é".encode(), b"zz", b"a\0"])
        delimiter = rng.choice([b"", b"/", b"b", b"//"])
        limit = rng.choice([0, 1, 2, 3, 1000])
        key = rng.choice([b"", *names, b"a/", b"zzz"])
        of_key = [row.id for row in rows if row.key == key]
        after = (key, rng.choice(["", *of_key]) if key else "")
        page = await world.store.uploads.page(bucket, prefix, delimiter, after, limit)
        found = [(k, None if upload is None else upload.id) for k, upload in page.items]
        assert (found, page.truncated) == page_of_model(rows, prefix, delimiter, after, limit)


async def test_paging_over_uploads_that_end_meanwhile(world: World) -> None:
    """What rclone does: abort what a page showed, then ask for the next."""
    rows = [await create(world, b"k%d" % (number // 3)) for number in range(9)]
    seen, after = [], (b"", "")
    while True:
        bucket = world.store.bucket("b")
        page = await world.store.uploads.page(bucket, b"", b"", after, 2)
        for key, upload in page.items:
            assert upload is not None
            seen.append(upload.id)
            await world.store.uploads.abort(world.store.bucket("b"), upload)
            after = (key, upload.id)
        if not page.truncated:
            break
    assert sorted(seen) == sorted(row.id for row in rows)


async def test_pages_of_parts(world: World) -> None:
    upload = await create(world)
    for number in (1, 2, 5, 10_000):
        await put(world, upload, number, b"%d" % number)
    bucket = world.store.bucket("b")

    async def numbers(after: int, limit: int) -> tuple[list[int], bool]:
        found, more = await world.store.uploads.parts(bucket, upload, after, limit)
        return [number for number, _ in found], more

    assert await numbers(0, 2) == ([1, 2], True)
    assert await numbers(2, 2) == ([5, 10_000], False)
    assert await numbers(5, 1) == ([10_000], False)
    assert await numbers(10_000, 5) == ([], False) == await numbers(2**31 - 1, 5)
    assert await numbers(0, 0) == ([], False)


# -- slices of stored bodies --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, 3 * MIB + 70_000), (MIB, 3 * MIB), (2 * MIB, 3 * MIB + 70_000), (0, MIB)],
)
async def test_a_slice_of_whole_chunks_writes_nothing(world: World, start: int, stop: int) -> None:
    data = content(3 * MIB + 70_000)
    body = await world.store.ingest(Stream(data), ())
    before = len(world.log.bodies)
    made = await world.store.slice(body, start, stop, ("sha1",))
    assert len(world.log.bodies) == before and not made.blocks and not made.positions
    assert (made.size, made.md5) == (stop - start, hashlib.md5(data[start:stop]).digest())
    assert made.checksums == {"sha1": hashlib.sha1(data[start:stop]).digest()}
    assert world.pins.counts.keys() >= {cid for cid, _ in made.chunks}
    pieces = world.store.read(made, 0, made.size)
    assert b"".join([bytes(piece) async for piece in pieces]) == data[start:stop]


@pytest.mark.parametrize(("start", "stop"), [(1, MIB), (0, MIB + 1), (MIB - 1, 2 * MIB + 5)])
async def test_a_slice_that_cuts_a_chunk_is_taken_in_again(
    world: World, start: int, stop: int
) -> None:
    data = content(3 * MIB)
    body = await world.store.ingest(Stream(data), ())
    made = await world.store.slice(body, start, stop, ("crc32",))
    world.log.blocks.update(made.blocks)
    assert made.md5 == hashlib.md5(data[start:stop]).digest()
    pieces = world.store.read(made, 0, made.size)
    assert b"".join([bytes(piece) async for piece in pieces]) == data[start:stop]


async def test_slices_of_small_bodies(world: World) -> None:
    small = await world.store.ingest(Arrived(b"hello"), ())
    made = await world.store.slice(small, 1, 3, ("crc32",))
    assert made.inline == b"el" and made.checksums == {"crc32": one_shot("crc32", b"el")}
    empty = await world.store.ingest(Arrived(b""), ())
    assert (await world.store.slice(empty, 0, 0, ("crc32",))).inline == b""


async def test_a_slice_gives_its_pins_and_buffers_back(world: World) -> None:
    body = await world.store.ingest(Stream(content(2 * MIB)), ())
    last = body.chunks[-1][0]
    held = world.log.blocks.pop(last)
    with pytest.raises(Corruption):
        await world.store.slice(body, 0, 2 * MIB, ())
    world.log.blocks[last] = held
    made = await world.store.slice(body, 0, 2 * MIB, ())
    assert world.pins.counts
    del made, body
    assert not world.pins.counts
    assert world.store._read_pool.out == 0


# -- races --------------------------------------------------------------------------------------


async def test_of_many_completes_and_aborts_one_succeeds(world: World) -> None:
    for round_ in range(20):
        upload = await create(world, b"k%d" % round_)
        await put(world, upload, 1, b"1")
        seen = await chosen(world, upload)
        asked = [complete(world, upload, seen) for _ in range(5)]
        others = [world.store.uploads.abort(world.store.bucket("b"), upload) for _ in range(5)]
        mixed = [each for pair in zip(asked, others, strict=True) for each in pair]
        if round_ % 2:
            mixed.reverse()
        results = await soon(asyncio.gather(*mixed, return_exceptions=True))
        won = [result for result in results if not isinstance(result, BaseException)]
        assert len(won) == 1
        assert all(isinstance(r, NoSuchUpload) for r in results if r is not won[0])
        assert (await value(world, upload.key) == b"1") == isinstance(won[0], Completed)
        assert not await is_open(world, upload)


@pytest.mark.parametrize("seed", range(6))
async def test_random_histories_equal_a_model(seed: int) -> None:
    """Clients put parts, complete and abort the same few uploads at once, and now and then an
    append fails. Whatever interleaving happened, it is one that could have happened one by one."""
    rng = random.Random(seed)
    world = await World().start()
    open_uploads = [await create(world, b"k%d" % number) for number in range(4)]
    ended: dict[str, str] = {}  # how each upload ended
    written: dict[str, set[bytes]] = {}  # every value that a part of it ever had
    objects: dict[bytes, set[bytes]] = {}  # what a key can hold

    async def part(upload: Upload, number: int, data: bytes) -> None:
        over = upload.id in ended
        written.setdefault(upload.id, set()).add(data)
        try:
            await put(world, upload, number, data)
        except (NoSuchUpload, Unavailable):
            return
        assert not over, "a part was taken after its upload had ended"

    async def finish(upload: Upload) -> None:
        over = upload.id in ended
        parts = await chosen(world, upload)
        if not parts:
            return
        body = b"".join([p.body.inline or b"" for _, p in parts])
        try:
            await complete(world, upload, parts)
        except (NoSuchUpload, PartsChanged, Unavailable):
            return
        assert not over and upload.id not in ended, "two ends of one upload"
        ended[upload.id] = "completed"
        objects.setdefault(upload.key, set()).add(body)

    async def drop(upload: Upload) -> None:
        try:
            await world.store.uploads.abort(world.store.bucket("b"), upload)
        except (NoSuchUpload, Unavailable):
            return
        assert upload.id not in ended, "two ends of one upload"
        ended[upload.id] = "aborted"

    async def client(number: int) -> None:
        for step in range(25):
            at = rng.randrange(len(open_uploads))
            upload, action = open_uploads[at], rng.random()
            if rng.random() < 0.03:
                world.log.failures.append(Unavailable("no space left"))
            if action < 0.6:
                await part(upload, rng.randint(1, 3), b"%d-%d;" % (number, step))
            elif action < 0.75:
                await finish(upload)
            elif action < 0.85:
                await drop(upload)
            else:
                with contextlib.suppress(Unavailable):
                    open_uploads[at] = await create(world, upload.key, NOW + step)

    await soon(asyncio.gather(*[client(number) for number in range(10)]))
    for key in [b"k%d" % number for number in range(4)]:
        found = await value(world, key)
        assert found in objects.get(key, {None})
    stems = {key.split(b"\0")[1].decode() for key in await tree_keys(world) if key[:1] != b"\0"}
    assert not stems & ended.keys(), "keys of an upload that has ended"
    for upload in open_uploads:
        assert await is_open(world, upload) == (upload.id not in ended)
        for _, found_part in await chosen(world, upload):
            assert found_part.body.inline in written[upload.id]
    found = await Fsck(world.log, lambda line: None).check([world.store.bucket("b")])
    assert found.damage == []
    await world.stop()


# -- fsck ---------------------------------------------------------------------------------------


async def fsck(world: World) -> list[str]:
    return (await Fsck(world.log, lambda line: None).check([world.store.bucket("b")])).damage


async def test_fsck_reads_the_parts_of_open_uploads(world: World) -> None:
    upload, done = await create(world), await create(world, b"done")
    for each in (upload, done):
        part = await stored(world, content(MIB + 100_000))
        await world.store.uploads.put_part(world.store.bucket("b"), each, 1, part)
        await put(world, each, 2, b"2")
    await complete(world, done)
    assert await fsck(world) == []
    chunk = (await chosen(world, upload))[0][1].body.chunks[0][0]
    held = world.log.blocks[chunk]
    world.log.blocks[chunk] = b"x" + held[1:]
    damage = await fsck(world)
    assert any("upload" in line for line in damage), damage
    assert any("ETag" in line for line in damage), "the object refers to the same chunk"
    world.log.blocks[chunk] = held
    part = (await chosen(world, upload))[1][1]
    world.log.blocks[part.cid] = b"damage"
    assert "00002" in (line := (await fsck(world))[0]) and "another hash" in line
    del world.log.blocks[part.cid]
    assert "00002" in (await fsck(world))[0]


async def test_fsck_of_a_bucket_whose_uploads_are_all_gone(world: World) -> None:
    upload = await create(world)
    await world.store.uploads.abort(world.store.bucket("b"), upload)
    assert await fsck(world) == []
