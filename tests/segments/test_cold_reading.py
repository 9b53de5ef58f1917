"""How cold blocks are put together into requests, and what memory and disk that takes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot import limits
from ingot.body.dag import build
from ingot.body.pool import Pool
from ingot.body.reader import read_range
from ingot.clock import SystemClock
from ingot.messages import Body
from ingot.offload import Lanes
from ingot.segments import cold, format
from ingot.segments.cold import Flight, runs_of
from ingot.segments.files import SystemFiles
from ingot.segments.index import Place
from ingot.segments.model import SegmentSettings
from ingot.segments.segment import Segment
from ingot.segments.store import SegmentStore
from tests.body.support import until
from tests.support.coldsource import FakeSource

MIB = 1 << 20


def cid_of(data: bytes) -> bytes:
    return b"\x01\x55\x12\x20" + sha256(data).digest()


class Filled:
    """A store on a real disk whose large object lies in cold segments, two objects interleaved."""

    def __init__(self, directory: Path, chunks: int) -> None:
        self.directory = directory
        self.lanes = Lanes(asyncio.get_running_loop())
        self.store = SegmentStore(
            SystemFiles(), self.lanes, str(directory / "segments"), SegmentSettings(), SystemClock()
        )
        self.random = Random(chunks)
        self.chunks = [self.random.randbytes(MIB) for _ in range(chunks)]
        self.source = FakeSource()
        entries, depth, self.nodes = build([(cid_of(chunk), MIB) for chunk in self.chunks])
        self.body = Body(len(self.chunks) * MIB, None, None, chunks=entries, depth=depth)

    async def start(self) -> None:
        await self.store.open(b"s" * 16, 1)
        self.store.fetch = self.source
        positions = []
        for chunk in self.chunks:
            positions.append(await self.store.append_body(cid_of(chunk), memoryview(chunk)))
            other = self.random.randbytes(30_000)  # somebody else's upload, in between
            positions.append(await self.store.append_body(cid_of(other), memoryview(other)))
        await self.store.sync_bodies(positions)
        self.store._body._retire(self.store._body._current)  # seal it
        await self.store._disk.settle()
        await until(lambda: len(self.store.retirable()) == len(self.store._index.sealed()))
        for info in self.store.retirable():
            path = self.directory / "segments" / format.file_name(*info.key)
            self.source.keep(info.key, path.read_bytes())
            await self.store.retire(info.key)

    async def stop(self) -> None:
        await self.store.close()
        self.lanes.close()


@pytest.fixture
async def filled(tmp_path: Path) -> AsyncIterator[Filled]:
    made = Filled(tmp_path, 70)
    await made.start()
    yield made
    await made.stop()


async def whole(filled: Filled, start: int, stop: int, pool: Pool | None) -> bytes:
    found = bytearray()
    async for piece in read_range(filled.store, filled.body, start, stop, pool):
        found += piece
        assert filled.store._cold._ahead_bytes <= limits.COLD_AHEAD_BYTES_MAX
        assert filled.store._cold._kept_bytes <= limits.COLD_MEMORY_BYTES
    return bytes(found)


@pytest.mark.slow
@pytest.mark.parametrize("pooled", [True, False])
async def test_a_large_object_streams_in_few_requests(filled: Filled, pooled: bool) -> None:
    pool = Pool(4, MIB) if pooled else None
    assert await whole(filled, 0, 70 * MIB, pool) == b"".join(filled.chunks)
    # Eight chunks a request after the first sixteen, and one more where segments meet.
    assert len(filled.source.asked) <= 12
    fetched = sum(stop - start for _, start, stop in filled.source.asked)
    assert fetched < 70 * MIB + 70 * 31_000
    assert filled.store.statistics.fetched == 70


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "stop"), [(0, 1), (5 * MIB - 1, 5 * MIB + 1), (33 * MIB, 40 * MIB + 7)]
)
async def test_a_range_fetches_what_it_covers(filled: Filled, start: int, stop: int) -> None:
    found = await whole(filled, start, stop, Pool(4, MIB))
    assert found == b"".join(filled.chunks)[start:stop]
    covered = -(-stop // MIB) - start // MIB
    assert filled.store.statistics.fetched == covered
    fetched = sum(end - begin for _, begin, end in filled.source.asked)
    assert fetched <= covered * (MIB + 31_000)


@pytest.mark.slow
async def test_many_readers_stay_within_memory(filled: Filled) -> None:
    """More than there is room ahead for: each gets its bytes all the same."""

    async def one(number: int) -> None:
        start = number * 5 * MIB
        assert await whole(filled, start, 70 * MIB, Pool(2, MIB)) == expected[start:]

    expected = b"".join(filled.chunks)
    await asyncio.gather(*map(one, range(6)))


@pytest.mark.slow
async def test_what_nobody_came_for_makes_room(filled: Filled, monkeypatch: Any) -> None:
    reading = filled.store._cold
    filled.store.prefetch([cid_of(chunk) for chunk in filled.chunks])
    await until(lambda: not reading._flights)
    assert 40 * MIB < reading._ahead_bytes <= limits.COLD_AHEAD_BYTES_MAX
    asked = len(filled.source.asked)
    filled.store.prefetch([cid_of(filled.chunks[60])])
    assert len(filled.source.asked) == asked and not reading._flights
    monkeypatch.setattr(cold, "COLD_AHEAD_S", -1.0)
    filled.store.prefetch([cid_of(filled.chunks[60])])
    assert reading._ahead_bytes == MIB
    assert await filled.store.read(cid_of(filled.chunks[60])) == filled.chunks[60]
    assert reading._ahead_bytes == 0


@pytest.mark.slow
async def test_the_cache(filled: Filled) -> None:
    directory = filled.directory / "cache"
    directory.mkdir()
    left = directory / "cache-00000000000000000009.blocks"
    left.write_bytes(b"of a process that was killed")
    (directory / "notes.txt").write_text("somebody else's")
    await filled.store.open_cache(str(directory), 40 * MIB)
    assert not left.exists()
    expected = b"".join(filled.chunks)
    assert await whole(filled, 0, 70 * MIB, None) == expected

    def used() -> int:
        return sum(path.stat().st_size for path in directory.glob("*.blocks"))

    assert 20 * MIB < used() <= 40 * MIB
    asked = len(filled.source.asked)
    assert await whole(filled, 50 * MIB, 70 * MIB, None) == expected[50 * MIB :]
    assert len(filled.source.asked) == asked and filled.store.statistics.cache_hits > 10
    # Nothing in the cache is believed: every byte of it is changed now.
    reading = filled.store._cold
    reading._kept.clear()
    reading._kept_bytes = 0
    for path in directory.glob("*.blocks"):
        with open(path, "r+b") as file:
            data = bytes(byte ^ 0xFF for byte in file.read())
            file.seek(0)
            file.write(data)
    assert await whole(filled, 50 * MIB, 70 * MIB, None) == expected[50 * MIB :]
    assert len(filled.source.asked) > asked
    await filled.store.close()
    assert sorted(os.listdir(directory)) == ["notes.txt"]
    await filled.store._cold.close()


@pytest.mark.slow
async def test_a_cache_that_cannot_be_written(
    filled: Filled, caplog: pytest.LogCaptureFixture
) -> None:
    (filled.directory / "cache").write_text("a file where the directory should be")
    await filled.store.open_cache(str(filled.directory / "cache"), 40 * MIB)
    for chunk in filled.chunks[:3]:
        assert await filled.store.read(cid_of(chunk)) == chunk
    (said,) = [record.message for record in caplog.records if "cache" in record.message]
    assert "fetched each time" in said


frames = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 200_000), st.integers(1, 2 * MIB)), max_size=60
)


@given(frames)
def test_runs(drawn: list[tuple[int, int, int]]) -> None:
    """Every block is in one run; a run is of one segment, in order, without long gaps."""
    asyncio.run(check_runs(drawn))


async def check_runs(drawn: list[tuple[int, int, int]]) -> None:
    ends, flights = [59] * 4, []
    for number, gap, length in drawn:
        offset = ends[number] + gap
        ends[number] = offset + length
        holder = Segment("body", number, -1)
        place = Place(("body", number), offset, length, False, holder, -1)
        flights.append(Flight(bytes(36), place, False))
    Random(len(flights)).shuffle(flights)
    runs = runs_of(flights)
    assert sorted(map(id, (one for run in runs for one in run))) == sorted(map(id, flights))
    for run in runs:
        assert len({one.place.key for one in run}) == 1
        assert len(run) == 1 or run[-1].end - run[0].place.offset <= limits.COLD_RUN_BYTES
        for one, after in zip(run, run[1:], strict=False):
            assert 0 <= after.place.offset - one.end <= limits.COLD_GAP_BYTES


def test_overlapping_claims_of_a_damaged_index_are_read_apart() -> None:
    async def story() -> None:
        holder = Segment("body", 1, -1)
        places = [
            Place(("body", 1), offset, 500, False, holder, -1) for offset in (100, 100, 300, 700)
        ]
        runs = runs_of([Flight(bytes(36), place, False) for place in places])
        for run in runs:
            for one, after in zip(run, run[1:], strict=False):
                assert one.end <= after.place.offset

    asyncio.run(story())
