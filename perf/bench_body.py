"""Body ingest: what a MiB costs to chunk and digest, and what a small PUT's body costs.

Smoke sizes by default; INGOT_BENCH_FULL=1 measures. Beside each figure stands its floor: the bare
digests on the same machine in the same run.

    python -m pytest perf/bench_body.py --benchmark-columns=min,median,ops
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import uvloop

from ingot._speedups import digest
from ingot.body.ingest import Ingest, ingest_small
from ingot.limits import MIB
from ingot.messages import BodyPosition
from ingot.offload import Lanes

FULL = os.environ.get("INGOT_BENCH_FULL", "") not in ("", "0")
STREAM_BYTES = 64 * MIB if FULL else 2 * MIB
ROUNDS = 10 if FULL else 1


class _Source:
    """A client that is always ahead: every read is full and none waits."""

    def __init__(self, data: bytes) -> None:
        self.length: int | None = len(data)
        self._left = memoryview(data)

    async def readinto(self, view: memoryview) -> int:
        piece = self._left[: len(view)]
        view[: len(piece)] = piece
        self._left = self._left[len(piece) :]
        await asyncio.sleep(0)
        return len(piece)

    def take(self) -> bytes | None:
        return None

    async def read(self, limit: int) -> bytes:
        raise AssertionError


class _Sink:
    """A disk that takes no time."""

    async def append_body(self, cid: bytes, data: memoryview) -> BodyPosition:
        return BodyPosition(1, len(data))

    async def sync_bodies(self, positions: Sequence[BodyPosition]) -> None:
        return


def _ingest(data: bytes, streams: int) -> None:
    async def main() -> None:
        lanes = Lanes(asyncio.get_running_loop())
        try:
            ingest = Ingest(lanes)
            algorithms = ("crc64nvme",)
            await asyncio.gather(
                *(ingest.run(_Source(data), _Sink(), algorithms) for _ in range(streams))
            )
        finally:
            lanes.close()

    uvloop.run(main())


@pytest.fixture(scope="module")
def data() -> bytes:
    return os.urandom(STREAM_BYTES)


@pytest.mark.parametrize("streams", [1, 2, 4])
def test_ingest_large(benchmark: Any, data: bytes, streams: int) -> None:
    benchmark.extra_info["MiB"] = streams * STREAM_BYTES // MIB
    benchmark.pedantic(_ingest, (data, streams), rounds=ROUNDS, warmup_rounds=1 if FULL else 0)


@pytest.mark.parametrize("name", ["md5", "sha256"])
def test_floor_large(benchmark: Any, data: bytes, name: str) -> None:
    benchmark.extra_info["MiB"] = STREAM_BYTES // MIB
    benchmark.pedantic(lambda: hashlib.new(name, data).digest(), rounds=ROUNDS)


def _time_small(benchmark: Any, function: Callable[..., object], *arguments: object) -> None:
    if FULL:
        benchmark(function, *arguments)
    else:
        benchmark.pedantic(function, arguments, rounds=5, iterations=10)


@pytest.mark.parametrize("size", [64, 1024, 4096, 16384, 65536])
def test_ingest_small(benchmark: Any, size: int) -> None:
    _time_small(benchmark, ingest_small, os.urandom(size), ("crc64nvme",))


@pytest.mark.parametrize("size", [64, 1024, 4096, 16384, 65536])
def test_floor_small(benchmark: Any, size: int) -> None:
    _time_small(benchmark, digest.sha256_md5, os.urandom(size))
