"""Taking bodies in: what comes out for every size, and what happens when something fails."""

from __future__ import annotations

import asyncio
import hashlib
import random

import pytest
import uvloop

from ingot.body import checksums, dag
from ingot.body.ingest import Ingest, ingest_small
from ingot.body.pool import Pool
from ingot.body.reader import read_range
from ingot.errors import RequestError, Unavailable
from ingot.limits import CHUNK_BYTES, INLINE_BYTES_MAX, LOG_CHUNK_BYTES_MAX
from ingot.messages import Body
from ingot.offload import Lanes
from tests.body.support import Arrived, Blocks, Stream, content, until

ALGORITHMS = ("crc32", "crc32c", "crc64nvme", "sha1", "sha256")
SIZES = [
    0,
    1,
    INLINE_BYTES_MAX,
    INLINE_BYTES_MAX + 1,
    LOG_CHUNK_BYTES_MAX - 1,
    LOG_CHUNK_BYTES_MAX,
    LOG_CHUNK_BYTES_MAX + 1,
    300_000,
    CHUNK_BYTES - 1,
    CHUNK_BYTES,
    CHUNK_BYTES + 1,
    CHUNK_BYTES + LOG_CHUNK_BYTES_MAX,
    CHUNK_BYTES + LOG_CHUNK_BYTES_MAX + 1,
    2 * CHUNK_BYTES,
    5 * CHUNK_BYTES + 12_345,
]


async def bytes_of(blocks: Blocks, body: Body) -> bytes:
    return b"".join([bytes(piece) async for piece in read_range(blocks, body, 0, body.size)])


async def check(body: Body, data: bytes, blocks: Blocks) -> None:
    """Everything that must hold of the body of ``data``."""
    assert body.size == len(data)
    assert body.md5 == hashlib.md5(data).digest()
    assert body.sha256 == hashlib.sha256(data).digest()
    assert body.checksums == {name: checksums.one_shot(name, data) for name in ALGORITHMS}
    if len(data) <= INLINE_BYTES_MAX:
        assert body.inline == data and not body.chunks and not body.blocks
    else:
        assert body.inline is None
        pieces = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
        assert body.chunks == [
            (b"\x01\x55\x12\x20" + hashlib.sha256(piece).digest(), len(piece)) for piece in pieces
        ]
        small = [(cid, n) for cid, n in body.chunks if n <= LOG_CHUNK_BYTES_MAX]
        assert [(cid, len(block)) for cid, block in body.blocks] == small
        large = [cid for cid, length in body.chunks if length > LOG_CHUNK_BYTES_MAX]
        assert sorted(blocks.appended) == sorted(large)
        assert bool(body.positions) == bool(large) and body.positions == blocks.synced
    blocks.keep(body)
    assert await bytes_of(blocks, body) == data


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("known", [True, False], ids=["length", "no length"])
async def test_every_size(ingest: Ingest, size: int, known: bool) -> None:
    data, blocks = content(size), Blocks()
    await check(await ingest.run(Stream(data, known=known), blocks, ALGORITHMS), data, blocks)


@pytest.mark.parametrize("size", [*SIZES[:7], 300_000])
@pytest.mark.parametrize("taken", [True, False], ids=["taken", "to take"])
async def test_a_body_that_has_arrived(ingest: Ingest, size: int, taken: bool) -> None:
    data, blocks = content(size), Blocks()
    stream = Arrived(data)
    body = await ingest.run(stream, blocks, ALGORITHMS, stream.take() if taken else None)
    await check(body, data, blocks)


@pytest.mark.parametrize("size", SIZES[:6])
async def test_a_small_body_is_taken_without_waiting(ingest: Ingest, size: int) -> None:
    data, blocks = content(size), Blocks()
    await check(ingest_small(data, ALGORITHMS), data, blocks)
    with pytest.raises(StopIteration) as caught:
        ingest.run(Arrived(data), blocks, ALGORITHMS).send(None)
    await check(caught.value.value, data, blocks)


@pytest.mark.parametrize("piece", [1009, 65_536, 100_000, 262_144, 262_145, 700_000])
async def test_pieces_of_any_length(ingest: Ingest, piece: int) -> None:
    data, blocks = content(2 * CHUNK_BYTES + 77_777), Blocks()
    await check(await ingest.run(Stream(data, piece), blocks, ALGORITHMS), data, blocks)


async def test_only_what_was_asked_for_is_computed(ingest: Ingest) -> None:
    data = content(200_000)
    assert (await ingest.run(Stream(data), Blocks(), ())).checksums == {}
    body = await ingest.run(Stream(data), Blocks(), ("crc64nvme",))
    assert body.checksums == {"crc64nvme": checksums.one_shot("crc64nvme", data)}


@pytest.mark.parametrize("streams", [2, 3, 9])
async def test_bodies_at_the_same_time(ingest: Ingest, streams: int) -> None:
    chance = random.Random(streams)

    async def one(seed: int) -> None:
        data, blocks = content(chance.randrange(3 * CHUNK_BYTES), seed), Blocks()
        stream = Stream(data, chance.choice([50_000, 400_000, 1 << 20]), chance.random() < 0.5)
        await check(await ingest.run(stream, blocks, ALGORITHMS), data, blocks)

    await asyncio.gather(*(one(seed) for seed in range(streams)))


async def test_many_chunks_become_a_tree(ingest: Ingest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dag, "BODY_NODE_ENTRIES_MAX", 2)
    data, blocks = content(6 * CHUNK_BYTES + 1000), Blocks()
    body = await ingest.run(Stream(data), blocks, ())
    assert body.depth == 2 and len(body.chunks) == 2
    assert sum(length for _, length in body.chunks) == body.size
    assert len(body.blocks) == 1 + 4 + 2  # the tail, then the nodes, level by level
    for cid, block in body.blocks[1:]:
        assert cid == b"\x01\x71\x12\x20" + hashlib.sha256(block).digest()
    blocks.keep(body)
    assert await bytes_of(blocks, body) == data


async def test_the_next_chunk_is_received_while_one_is_written(ingest: Ingest) -> None:
    data, blocks = content(4 * CHUNK_BYTES), Blocks()
    blocks.gate = asyncio.Event()
    stream = Stream(data)
    run = asyncio.ensure_future(ingest.run(stream, blocks, ()))
    await until(lambda: bool(blocks.appended) and stream.at >= 2 * CHUNK_BYTES)
    for _ in range(20):
        await asyncio.sleep(0)
    assert stream.at == 2 * CHUNK_BYTES, "two buffers and no more"
    assert ingest.pool.out == 2
    blocks.gate.set()
    body = await run
    blocks.keep(body)
    assert await bytes_of(blocks, body) == data


async def test_one_buffer_is_enough(ingest: Ingest) -> None:
    ingest.pool = Pool(1, CHUNK_BYTES, mangle=True)
    data, blocks = content(3 * CHUNK_BYTES + 5), Blocks()
    await check(await ingest.run(Stream(data), blocks, ALGORITHMS), data, blocks)
    assert blocks.writing_max == 1


async def test_more_bodies_than_buffers_all_finish(ingest: Ingest) -> None:
    ingest.pool = Pool(3, CHUNK_BYTES, mangle=True)

    async def one(seed: int) -> None:
        data, blocks = content(2 * CHUNK_BYTES + 100_000, seed), Blocks()
        await check(await ingest.run(Stream(data, 300_000), blocks, ALGORITHMS), data, blocks)

    await asyncio.wait_for(asyncio.gather(*(one(seed) for seed in range(8))), 30)


async def test_a_body_gives_its_second_buffer_to_one_that_waits(ingest: Ingest) -> None:
    ingest.pool = Pool(2, CHUNK_BYTES, mangle=True)
    greedy, blocks = Stream(content(8 * CHUNK_BYTES)), Blocks()
    first = asyncio.ensure_future(ingest.run(greedy, blocks, ()))
    await until(lambda: ingest.pool.out == 2)
    late = await ingest.run(Stream(content(100_000, 1)), Blocks(), ())
    assert late.size == 100_000
    assert not first.done() and greedy.at < len(greedy.data), "it did not wait for the end"
    await first


@pytest.mark.parametrize("fail_at", [0, 1, 70_000, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
@pytest.mark.parametrize("known", [True, False], ids=["length", "no length"])
async def test_a_client_that_goes_away(ingest: Ingest, fail_at: int, known: bool) -> None:
    blocks = Blocks()
    stream = Stream(content(4 * CHUNK_BYTES), 50_000, known, fail_at=fail_at)
    with pytest.raises(ConnectionResetError):
        await ingest.run(stream, blocks, ALGORITHMS)
    assert blocks.writing == 0 and not blocks.synced


async def test_an_aborted_body_waits_for_the_lanes_that_read_its_buffer(
    ingest: Ingest, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    released: list[tuple[int, int]] = []
    release = ingest.pool.release

    def watched(buffer: memoryview) -> None:
        released.append((lanes.in_flight()["hash_a"][0], lanes.in_flight()["hash_b"][0]))
        release(buffer)

    monkeypatch.setattr(ingest.pool, "release", watched)
    # The last span is handed over just before the stream fails.
    stream = Stream(content(CHUNK_BYTES), 900_000, fail_at=900_000)
    with pytest.raises(ConnectionResetError):
        await ingest.run(stream, Blocks(), ())
    assert released == [(0, 0)]


async def test_a_small_body_that_is_cut_off(ingest: Ingest) -> None:
    with pytest.raises(ConnectionResetError):
        await ingest.run(Stream(content(50_000), 10_000, fail_at=20_000), Blocks(), ())


@pytest.mark.parametrize("chunk", [0, 1, 3])
async def test_a_write_that_fails(ingest: Ingest, chunk: int) -> None:
    blocks = Blocks()
    blocks.fail_append = chunk
    stream = Stream(content(5 * CHUNK_BYTES))
    with pytest.raises(Unavailable, match="no space left"):
        await ingest.run(stream, blocks, ALGORITHMS)
    assert blocks.writing == 0 and not blocks.synced
    assert stream.at <= (chunk + 3) * CHUNK_BYTES, "it stops soon"


async def test_a_sync_that_fails(ingest: Ingest) -> None:
    blocks = Blocks()
    blocks.fail_sync = True
    with pytest.raises(Unavailable, match="lost"):
        await ingest.run(Stream(content(2 * CHUNK_BYTES)), blocks, ())


async def test_a_body_longer_than_it_said(ingest: Ingest) -> None:
    for size in (1000, LOG_CHUNK_BYTES_MAX, 200_000, CHUNK_BYTES, 2 * CHUNK_BYTES):
        stream = Stream(content(size + 1))
        stream.length = size
        with pytest.raises(RequestError, match="longer than it said"):
            await ingest.run(stream, Blocks(), ())


async def test_a_body_without_end(ingest: Ingest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingot.body.ingest.PUT_BYTES_MAX", 3 * CHUNK_BYTES)
    data, blocks = content(3 * CHUNK_BYTES), Blocks()
    await check(await ingest.run(Stream(data, known=False), blocks, ALGORITHMS), data, blocks)
    endless = Stream(content(9 * CHUNK_BYTES), known=False)
    with pytest.raises(RequestError, match="longer than"):
        await ingest.run(endless, Blocks(), ())
    assert endless.at <= 4 * CHUNK_BYTES


def test_on_uvloop() -> None:
    async def main() -> None:
        lanes = Lanes(asyncio.get_running_loop())
        try:
            ingest = Ingest(lanes)
            for size in SIZES:
                data, blocks = content(size), Blocks()
                body = await ingest.run(Stream(data, 300_000), blocks, ALGORITHMS)
                await check(body, data, blocks)
            assert ingest.pool.out == 0
        finally:
            lanes.close()

    uvloop.run(main())


@pytest.mark.parametrize("turns", range(0, 60, 3))
async def test_cancelled_at_any_point_every_buffer_comes_back(ingest: Ingest, turns: int) -> None:
    blocks = Blocks()
    run = asyncio.ensure_future(
        ingest.run(Stream(content(3 * CHUNK_BYTES + 9), 300_000), blocks, ALGORITHMS)
    )
    for _ in range(turns):
        await asyncio.sleep(0)
    finished = run.done()
    run.cancel()
    await asyncio.sleep(0)
    run.cancel()
    outcome = (await asyncio.gather(run, return_exceptions=True))[0]
    assert isinstance(outcome, Body) if finished else isinstance(outcome, asyncio.CancelledError)
    assert ingest.pool.out == 0 and blocks.writing == 0


async def test_a_cancelled_body_waits_for_the_write_that_uses_its_buffer(ingest: Ingest) -> None:
    blocks = Blocks()
    blocks.gate = asyncio.Event()
    stream = Stream(content(3 * CHUNK_BYTES))
    run = asyncio.ensure_future(ingest.run(stream, blocks, ()))
    await until(lambda: bool(blocks.appended))
    for _ in range(5):
        run.cancel()
        await asyncio.sleep(0)
    assert not run.done() and ingest.pool.out > 0
    blocks.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert ingest.pool.out == 0


async def test_waiting_for_a_buffer_ends_with_slow_down(ingest: Ingest) -> None:
    ingest.pool = Pool(1, CHUNK_BYTES, wait_s=0.01)
    held = await ingest.pool.acquire()
    with pytest.raises(Unavailable, match="too many bodies"):
        await ingest.run(Stream(content(100_000)), Blocks(), ())
    ingest.pool.release(held)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
async def test_any_interleaving(ingest: Ingest, seed: int) -> None:
    """Bodies of any size at once, some failing, some cancelled, over few buffers."""
    chance = random.Random(seed)
    ingest.pool = Pool(chance.choice([1, 2, 3, 5]), CHUNK_BYTES, mangle=True)

    async def one(number: int) -> None:
        size = chance.choice([10_000, 80_000, 500_000, CHUNK_BYTES, 2_500_000])
        data, blocks = content(size, number), Blocks()
        stream = Stream(data, chance.choice([40_000, 300_000, 1 << 20]), chance.random() < 0.5)
        blocks.pauses = chance.randrange(8)
        fails = chance.random() < 0.3
        if fails:
            stream.fail_at = chance.randrange(size)
        if chance.random() < 0.2:
            blocks.fail_append = chance.randrange(3)
        try:
            body = await ingest.run(stream, blocks, ALGORITHMS)
        except (ConnectionResetError, Unavailable, asyncio.CancelledError):
            assert blocks.writing == 0
            return
        await check(body, data, blocks)

    tasks = [asyncio.ensure_future(one(number)) for number in range(6)]
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0)
        if chance.random() < 0.002:
            chance.choice(tasks).cancel()
    for task in tasks:
        if not task.cancelled():
            task.result()
    assert ingest.pool.out == 0
