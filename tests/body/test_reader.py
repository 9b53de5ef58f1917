"""Reading ranges back: the right bytes, one chunk ahead, in constant memory, whatever fails."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.body import dag
from ingot.body.pool import Pool
from ingot.body.reader import read_range
from ingot.errors import Corruption, NotFound
from ingot.limits import CHUNK_BYTES, COLD_WINDOW_BYTES, LOG_CHUNK_BYTES_MAX
from ingot.messages import Body
from tests.body.support import Blocks, content


def stored(data: bytes, chunk: int = CHUNK_BYTES) -> tuple[Body, Blocks]:
    """The body of ``data`` in chunks of ``chunk`` bytes, and where they are."""
    blocks = Blocks()
    entries = []
    for at in range(0, len(data), chunk):
        piece = data[at : at + chunk]
        cid = b"\x01\x55\x12\x20" + hashlib.sha256(piece).digest()
        blocks.blocks[cid] = piece
        entries.append((cid, len(piece)))
    top, depth, nodes = dag.build(entries)
    body = Body(len(data), None, None, None, top, depth, nodes)
    blocks.keep(body)
    return body, blocks


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    made = Pool(4, CHUNK_BYTES, mangle=True)
    yield made
    assert made.out == 0


async def collect(blocks: Blocks, body: Body, start: int, stop: int, pool: Pool | None) -> bytes:
    out = bytearray()
    async for piece in read_range(blocks, body, start, stop, pool):
        await asyncio.sleep(0)  # the next read runs while this piece is in use
        out += piece
    return bytes(out)


RANGES = [
    (0, 0),
    (0, 1),
    (CHUNK_BYTES - 1, CHUNK_BYTES + 1),
    (5, 3 * CHUNK_BYTES - 5),
    (CHUNK_BYTES, 2 * CHUNK_BYTES),
    (3 * CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 1000),
    (100_000, 100_000 + LOG_CHUNK_BYTES_MAX + 1),
    (0, 3 * CHUNK_BYTES + 5000),
]


@pytest.mark.parametrize(("start", "stop"), RANGES)
@pytest.mark.parametrize("pooled", [True, False], ids=["pool", "no pool"])
async def test_ranges(pool: Pool, start: int, stop: int, pooled: bool) -> None:
    data = content(3 * CHUNK_BYTES + 5000)
    body, blocks = stored(data)
    found = await collect(blocks, body, start, stop, pool if pooled else None)
    assert found == data[start:stop]


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (0, 4), (1, 3), (4, 4)])
async def test_an_inline_body_needs_no_block(start: int, stop: int) -> None:
    body = Body(4, None, None, b"data")
    assert await collect(Blocks(), body, start, stop, None) == b"data"[start:stop]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_range_of_any_tree(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 400_000))
    chunk = data.draw(st.sampled_from([20_000, 66_000, 130_000]))
    start = data.draw(st.integers(0, size))
    stop = data.draw(st.integers(start, size))
    whole = content(size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dag, "BODY_NODE_ENTRIES_MAX", 3)
        body, blocks = stored(whole, chunk)
        blocks.cached = data.draw(st.booleans())
        pool = Pool(data.draw(st.integers(1, 3)), CHUNK_BYTES, mangle=True)
        found = asyncio.run(collect(blocks, body, start, stop, pool))
    assert found == whole[start:stop] and pool.out == 0


async def test_a_cached_small_object_is_read_without_waiting() -> None:
    body, blocks = stored(content(50_000))
    pieces = read_range(blocks, body, 0, 50_000)
    with pytest.raises(StopIteration) as caught:
        pieces.__anext__().send(None)
    assert caught.value.value == content(50_000)
    with pytest.raises(StopAsyncIteration):
        await pieces.__anext__()


async def test_one_chunk_is_read_ahead_and_no_more(pool: Pool) -> None:
    body, blocks = stored(content(4 * CHUNK_BYTES))
    pieces = read_range(blocks, body, 0, body.size, pool)
    await pieces.__anext__()
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(blocks.reads) == 2 and pool.out == 2
    await pieces.__anext__()
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(blocks.reads) == 3 and pool.out == 2
    await pieces.aclose()


async def test_only_the_chunks_of_the_range_are_read(pool: Pool) -> None:
    body, blocks = stored(content(4 * CHUNK_BYTES))
    await collect(blocks, body, CHUNK_BYTES + 5, 2 * CHUNK_BYTES + 5, pool)
    assert blocks.reads == [body.chunks[1][0], body.chunks[2][0]]


async def test_without_a_buffer_to_spare_it_goes_on_in_small_pieces(pool: Pool) -> None:
    data = content(CHUNK_BYTES + 200_000)
    body, blocks = stored(data)
    held = [await pool.acquire() for _ in range(4)]
    out = bytearray()
    async for piece in read_range(blocks, body, 0, body.size, pool):
        assert len(piece) <= LOG_CHUNK_BYTES_MAX
        out += piece
        if len(out) > 500_000 and held:
            break
    for buffer in held:
        pool.release(buffer)
    assert out == data[: len(out)]


async def test_buffers_that_come_free_are_used_again(pool: Pool) -> None:
    data = content(4 * CHUNK_BYTES)
    body, blocks = stored(data)
    held = [await pool.acquire() for _ in range(4)]
    lengths, out = [], bytearray()
    async for piece in read_range(blocks, body, 0, body.size, pool):
        lengths.append(len(piece))
        out += piece
        if held:
            pool.release(held.pop())
    assert out == data and max(lengths) > LOG_CHUNK_BYTES_MAX


@pytest.mark.parametrize("step", [0, 1, 2])
async def test_a_missing_chunk_ends_the_reading(pool: Pool, step: int) -> None:
    body, blocks = stored(content(3 * CHUNK_BYTES))
    del blocks.blocks[body.chunks[step][0]]
    pieces = read_range(blocks, body, 0, body.size, pool)
    for _ in range(step):
        await pieces.__anext__()
    with pytest.raises(NotFound):
        await pieces.__anext__()


async def test_a_block_of_another_length_is_corrupt() -> None:
    body, blocks = stored(content(50_000))
    blocks.blocks[body.chunks[0][0]] = content(49_999)
    with pytest.raises(Corruption, match="expected 50000, found 49999"):
        await collect(blocks, body, 0, 50_000, None)


@pytest.mark.parametrize("taken", [0, 1, 2])
async def test_closed_early_every_buffer_comes_back(pool: Pool, taken: int) -> None:
    body, blocks = stored(content(4 * CHUNK_BYTES))
    pieces = read_range(blocks, body, 0, body.size, pool)
    for _ in range(taken):
        await pieces.__anext__()
    await pieces.aclose()
    assert pool.out == 0 and blocks.reading == 0


@pytest.mark.parametrize("turns", range(12))
async def test_cancelled_at_any_point_every_buffer_comes_back(pool: Pool, turns: int) -> None:
    body, blocks = stored(content(4 * CHUNK_BYTES))

    async def consume() -> None:
        pieces = read_range(blocks, body, 0, body.size, pool)
        try:
            async for _ in pieces:
                await asyncio.sleep(0)
        finally:
            await pieces.aclose()

    task = asyncio.ensure_future(consume())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert pool.out == 0 and blocks.reading == 0


async def test_the_source_hears_what_comes_next(pool: Pool) -> None:
    """Up to a window ahead, in order, each chunk once, and only those that the range needs."""
    size = 24 * 4096
    body, blocks = stored(content(size * 700), size)
    order = [cid for cid, _ in body.chunks]
    start, stop = 3 * size + 1, 690 * size
    heard_max = read = 0
    async for piece in read_range(blocks, body, start, stop, pool):
        await asyncio.sleep(0)
        read += len(piece)
        heard_max = max(heard_max, len(blocks.prefetched) * size - read)
    assert blocks.prefetched == order[3:690]
    assert COLD_WINDOW_BYTES // 4 < heard_max <= COLD_WINDOW_BYTES + 2 * size


async def test_a_single_chunk_is_not_announced(pool: Pool) -> None:
    body, blocks = stored(content(3 * CHUNK_BYTES))
    await collect(blocks, body, CHUNK_BYTES + 5, 2 * CHUNK_BYTES - 5, pool)
    assert not blocks.prefetched


async def test_damage_ahead_does_not_hide_what_is_before_it(pool: Pool) -> None:
    """The walk meets a damaged node early; what it reached until then is sent all the same."""
    data = content(1100 * 600)
    body, blocks = stored(data, 600)
    assert body.depth == 1
    (_, second) = [cid for cid, _ in body.chunks]
    blocks.blocks[second] = dag.encode_node([(second[:1] + b"\x55" + second[2:], 1)])
    found = bytearray()
    with pytest.raises(Corruption):
        async for piece in read_range(blocks, body, 0, len(data), pool):
            found += piece
    assert found == data[: 1024 * 600]
