"""The segment store: ``pytest perf/bench_segments.py``, or ``python perf/bench_segments.py``.

As benchmarks: packing, scanning, looking up and group commits. Small unless INGOT_BENCH_FULL=1.

As a program it prints a table of the figures that the design names: commits with their floor taken
in turns, recovery in GB/s, look-ups in tables and runs, the longest that one step of sealing held
the loop, and what writing zeros ahead does for bodies.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import statistics
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from time import perf_counter

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from ingot._speedups import frame, index
from ingot.clock import SystemClock
from ingot.messages import Head, HeadMove
from ingot.offload import Lanes
from ingot.segments import format
from ingot.segments.files import SystemFiles
from ingot.segments.model import SegmentSettings
from ingot.segments.store import SegmentStore

FULL = os.environ.get("INGOT_BENCH_FULL", "") not in ("", "0")
MIB = 1 << 20
MOVES = [HeadMove(bytes(16), "bucket", None, Head(0))]


def block(data: bytes) -> tuple[bytes, bytes]:
    return b"\x01\x71\x12\x20" + sha256(data).digest(), data


def batch(rng: random.Random, size: int) -> list[tuple[bytes, bytes]]:
    """Blocks of about 660 bytes, as a small PUT writes them, ``size`` bytes together."""
    return [block(rng.randbytes(622)) for _ in range(max(1, size // 660))]


def frames(size: int) -> bytes:
    rng = random.Random(1)
    return frame.pack(batch(rng, size))


@contextmanager
def directory(where: str | None = None) -> Iterator[str]:
    made = tempfile.mkdtemp(prefix="ingot-bench-", dir=where)
    try:
        yield made
    finally:
        shutil.rmtree(made)


# -- benchmarks ------------------------------------------------------------------------------------


def test_pack(benchmark: BenchmarkFixture) -> None:
    blocks = batch(random.Random(1), 200_000)
    assert len(benchmark(frame.pack, blocks)) > 190_000


def test_scan(benchmark: BenchmarkFixture) -> None:
    data = frames((64 if FULL else 1) * MIB)
    tally = frame.Tally()
    end, *_ = benchmark(frame.scan, data, 0, len(data), format.COMMIT_MARK, tally)
    assert end == len(data)


def test_add_frames(benchmark: BenchmarkFixture) -> None:
    data = frames((64 if FULL else 1) * MIB)
    benchmark(lambda: index.Table(len(data) // 512).add_frames(data, 0, len(data), 59, True))


def test_find_in_a_table(benchmark: BenchmarkFixture) -> None:
    table, cids = index.Table(), filled(100_000 if FULL else 10_000)
    for n, cid in enumerate(cids):
        table.add(cid, n + 59, 600, True)
    benchmark(lambda: [table.find(cid) for cid in cids[:1000]])


@pytest.mark.parametrize("hit", [True, False])
def test_find_in_a_run(benchmark: BenchmarkFixture, hit: bool) -> None:
    cids = filled(1_000_000 if FULL else 10_000)
    run = run_of(cids)
    wanted = cids[:1000] if hit else filled(1000, b"other")
    found = benchmark(lambda: [run.find(cid) for cid in wanted])
    assert all((position >= 0) == hit for position in found)


def test_commit(benchmark: BenchmarkFixture) -> None:
    rng = random.Random(1)

    async def measure(store: SegmentStore) -> None:
        loop = asyncio.get_running_loop()
        rounds = [batch(rng, 20_000) for _ in range(60)]
        times = []
        for blocks in rounds:
            began = loop.time()
            await store.commit(bytes(16), blocks, MOVES, [])
            times.append(loop.time() - began)
        benchmark.extra_info["p50_us"] = statistics.median(times) * 1e6

    def one_run() -> None:
        with directory() as where:
            asyncio.run(with_store(where, SegmentSettings(log_ahead_bytes=4 * MIB), measure))

    benchmark.pedantic(one_run, rounds=1)


@pytest.mark.parametrize("a_batch", [6_000, 100_000])
def test_start_over_an_open_segment(benchmark: BenchmarkFixture, a_batch: int) -> None:
    def one_run() -> None:
        with directory() as where:
            took, size = asyncio.run(recovery(where, (128 if FULL else 1) * MIB, a_batch))
        benchmark.extra_info["gb_per_s"] = size / took / 1e9

    benchmark.pedantic(one_run, rounds=1)


def filled(count: int, salt: bytes = b"") -> list[bytes]:
    return [b"\x01\x55\x12\x20" + sha256(salt + b"%d" % n).digest() for n in range(count)]


def run_of(cids: list[bytes]) -> index.Run:
    entries = b"".join(
        cid[4:] + bytes(4) + (n + 1).to_bytes(4, "little") + bytes(4)
        for n, cid in sorted(enumerate(cids), key=lambda each: each[1])
    )
    builder = index.Filter(len(cids))
    blocks = builder.add(entries) + builder.finish()
    return index.Run(blocks + entries, len(blocks), len(cids), 0, len(blocks) // 64)


async def with_store(
    where: str, settings: SegmentSettings, use: Callable[[SegmentStore], Awaitable[None]]
) -> None:
    lanes = Lanes(asyncio.get_running_loop())
    store = SegmentStore(SystemFiles(), lanes, where + "/segments", settings, SystemClock())
    try:
        await store.open(bytes(16), 1)
        await use(store)
        await store.close()
    finally:
        lanes.close()


# -- the program -----------------------------------------------------------------------------------


class Floor:
    """A bare pwrite and fdatasync, on the same lane, into a file whose blocks are written."""

    def __init__(self, where: str, lanes: Lanes, size: int) -> None:
        self.lanes = lanes
        self.fd = os.open(where + "/floor", os.O_CREAT | os.O_RDWR, 0o600)
        for _ in range(size // MIB):
            os.write(self.fd, bytes(MIB))
        os.fsync(self.fd)
        self.at = 59

    async def write(self, data: bytes) -> None:
        job = self.lanes.log.job()
        job.pwrite(self.fd, self.at, data)
        job.fdatasync(self.fd)
        await self.lanes.run(self.lanes.log, job)
        self.at += len(data)


async def commits(where: str, size: int, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each commit and of each bare write, taken in turns."""
    lanes = Lanes(asyncio.get_running_loop())
    store = SegmentStore(
        SystemFiles(), lanes, where + "/segments", SegmentSettings(), SystemClock()
    )
    rng = random.Random(size)
    batches = [batch(rng, size) for _ in range(rounds)]
    ours, bare = [], []
    try:
        await store.open(bytes(16), 1)
        floor = Floor(where, lanes, 64 * MIB)
        await store.commit(bytes(16), [], MOVES, [])
        for blocks in batches:
            data = frame.pack(blocks)
            began = perf_counter()
            await store.commit(bytes(16), blocks, MOVES, [])
            middle = perf_counter()
            await floor.write(data)
            ours.append(middle - began)
            bare.append(perf_counter() - middle)
        os.close(floor.fd)
        await store.close()
    finally:
        lanes.close()
    return ours, bare


async def recovery(where: str, size: int, a_batch: int) -> tuple[float, int]:
    """Seconds and bytes of a start over one unsealed log segment, read from the page cache."""
    settings = SegmentSettings(seal_bytes=200 * MIB, log_ahead_bytes=size + MIB)
    rng = random.Random(2)

    async def fill(store: SegmentStore) -> None:
        written = 0
        while written < size:
            _, record = await store.commit(bytes(16), batch(rng, a_batch), MOVES, [])
            written += a_batch
        shutil.copytree(where + "/segments", where + "/crashed")

    await with_store(where, settings, fill)
    lanes = Lanes(asyncio.get_running_loop())
    store = SegmentStore(SystemFiles(), lanes, where + "/crashed", settings, SystemClock())
    try:
        began = perf_counter()
        found = await store.open(bytes(16), 2)
        took = perf_counter() - began
        assert found.newest is not None and not found.problems, found.problems
        await store.close()
    finally:
        lanes.close()
    return took, found.scanned_bytes


async def longest_step(where: str) -> tuple[float, int]:
    """The longest that sealing and merging 64 MiB segments held the loop, and how many blocks."""
    longest, blocks = 0.0, 0
    data = [batch(random.Random(n), 512 * 1024) for n in range(24)]

    async def use(store: SegmentStore) -> None:
        nonlocal longest, blocks
        loop = asyncio.get_running_loop()
        for each in data:
            blocks += len(each)
            await store.commit(bytes(16), each, MOVES, [])
        before = store.statistics.sealed
        store._log._retire(store._log.current)  # type: ignore[arg-type]
        last = perf_counter()
        while store.statistics.sealed == before:
            turn = loop.create_future()
            loop.call_soon(turn.set_result, None)
            await turn
            now = perf_counter()
            longest, last = max(longest, now - last), now

    await with_store(where, SegmentSettings(), use)
    return longest, blocks


async def bodies(where: str, ahead: int, total: int) -> float:
    """Bytes a second of 1 MiB chunks, synced every 64."""
    chunk = random.Random(3).randbytes(MIB)
    rate = 0.0

    async def use(store: SegmentStore) -> None:
        nonlocal rate
        settled = [preparer._task for preparer in store._preparers]
        await asyncio.wait([task for task in settled if task is not None])
        began = perf_counter()
        for n in range(total // MIB):
            data = bytearray(chunk)
            data[:8] = n.to_bytes(8, "little")
            cid = b"\x01\x55\x12\x20" + sha256(data[:64]).digest()
            position = await store.append_body(cid, memoryview(data))
            if n % 64 == 63:
                await store.sync_bodies([position])
        rate = total / (perf_counter() - began)

    settings = replace(SegmentSettings(), body_ahead_bytes=ahead)
    await with_store(where, settings, use)
    return rate


def percentiles(times: list[float]) -> str:
    ordered = sorted(times)
    return (
        f"{ordered[len(ordered) // 2] * 1e6:7.0f} / {ordered[len(ordered) * 99 // 100] * 1e6:7.0f}"
    )


def per_call(call: Callable[[], object], number: int) -> float:
    began = perf_counter()
    call()
    return (perf_counter() - began) / number * 1e9


async def reads(where: str) -> tuple[float, float]:
    """Nanoseconds of a warm read_now in the open segment, and after a start in a run."""
    contents = batch(random.Random(4), 4 * MIB)
    cids = [cid for cid, _ in contents]
    result = []

    async def use(store: SegmentStore) -> None:
        if not result:
            await store.commit(bytes(16), contents, MOVES, [])
        else:
            for cid in cids:
                store.read_now(cid)
        result.append(per_call(lambda: [store.read_now(cid) for cid in cids], len(cids)))

    await with_store(where, SegmentSettings(), use)
    await with_store(where, SegmentSettings(), use)
    return result[0], result[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", help="a directory on the disk to measure")
    parser.add_argument("--rounds", type=int, default=400)
    arguments = parser.parse_args()
    print("group commit, us p50 / p99     ours              bare pwrite+fdatasync   ratio of p50")
    for size in (2_000, 10_000, 60_000, 250_000):
        with directory(arguments.dir) as where:
            ours, bare = asyncio.run(commits(where, size, min(arguments.rounds, 50 * MIB // size)))
        ratio = statistics.median(ours) / statistics.median(bare)
        print(f"  {size:>8,} bytes         {percentiles(ours)}   {percentiles(bare)}   {ratio:.2f}")
    for a_batch in (6_000, 100_000):
        with directory(arguments.dir) as where:
            took, size = asyncio.run(recovery(where, 128 * MIB, a_batch))
        print(f"start over an open segment, batches of {a_batch:,}: {size / took / 1e9:.2f} GB/s")
    table, cids = index.Table(), filled(100_000)
    for n, cid in enumerate(cids):
        table.add(cid, n + 59, 600, True)
    run, others = run_of(cids), filled(100_000, b"other")
    shuffled = random.Random(5).sample(cids, len(cids))
    count = len(cids)
    print(
        f"find: table {per_call(lambda: [table.find(c) for c in shuffled], count):.0f} ns, run "
        f"{per_call(lambda: [run.find(c) for c in shuffled], count):.0f} ns, absent from a run "
        f"{per_call(lambda: [run.find(c) for c in others], count):.0f} ns"
    )
    with directory(arguments.dir) as where:
        fresh, started = asyncio.run(reads(where))
    print(f"read_now of 622 bytes, warm: open segment {fresh:.0f} ns, sealed one {started:.0f} ns")
    with directory(arguments.dir) as where:
        longest, blocks = asyncio.run(longest_step(where))
    print(f"sealing {blocks:,} blocks: the longest step held the loop {longest * 1e3:.2f} ms")
    for ahead in (0, 65 * MIB):
        with directory(arguments.dir) as where:
            rate = asyncio.run(bodies(where, ahead, 512 * MIB))
        print(f"bodies, {ahead // MIB} MiB written ahead: {rate / 1e6:,.0f} MB/s")


if __name__ == "__main__":
    main()
