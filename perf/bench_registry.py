"""What a swap costs: p50 beside ``select 1`` and beside a bare INSERT committed durably.

    python perf/bench_registry.py                 a private Postgres, 3,000 rounds
    python perf/bench_registry.py --smoke         a moment, for the test suite
    python perf/bench_registry.py --dsn DSN       another Postgres; its schema ingot is dropped

The kinds take turns within each round, so a disk that slows down slows all of them. Prints one line
a kind and one line of JSON; the JSON has microseconds, and CPU of this process beside the time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg

from ingot.messages import CommitRef, Head, HeadMove
from ingot.registry import statements
from ingot.registry.embedded import EmbeddedPostgres
from ingot.registry.postgres import Postgres
from ingot.server import loop_factory

BUCKETS = 64


class Swaps:
    """Moves the same buckets on and on."""

    def __init__(self, registry: Postgres, token: bytes) -> None:
        self.registry, self.token = registry, token
        self.heads = {os.urandom(16): Head(0) for _ in range(BUCKETS)}
        self.commit = 1

    async def create(self) -> None:
        moves = [HeadMove(b, b.hex(), None, head) for b, head in self.heads.items()]
        await self.registry.swap(self.token, self.ref(), moves)

    def moves(self, count: int) -> list[HeadMove]:
        moved = []
        for bucket, head in list(self.heads.items())[:count]:
            new = Head(head.sequence + 1, os.urandom(36), head.uploads, b"c" * 36)
            moved.append(HeadMove(bucket, bucket.hex(), head, new))
            self.heads[bucket] = new
        return moved

    def ref(self) -> CommitRef:
        return CommitRef(self.commit, os.urandom(36))

    async def swap(self, count: int) -> None:
        self.commit += 1
        await self.registry.swap(self.token, self.ref(), self.moves(count))


async def measure(dsn: str, rounds: int) -> dict[str, dict[str, float]]:
    admin = await asyncpg.connect(dsn)
    await admin.execute("DROP SCHEMA IF EXISTS ingot CASCADE")
    registry = Postgres(dsn)
    await registry.open()
    token = await registry.acquire("bench", 3600.0)
    assert token is not None
    swaps = Swaps(registry, token)
    await swaps.create()
    await admin.execute("CREATE TABLE ingot.bench (n bigint, cid bytea)")
    await admin.execute(statements.SESSION_SWAP)
    select = await admin.prepare("SELECT 1")
    insert = await admin.prepare("INSERT INTO ingot.bench VALUES ($1, $2)")
    kinds: dict[str, Callable[[], Awaitable[Any]]] = {
        "select 1": lambda: select.fetch(timeout=5.0),
        "insert": lambda: insert.fetch(7, os.urandom(36), timeout=5.0),
        "swap of 1": lambda: swaps.swap(1),
        f"swap of {BUCKETS}": lambda: swaps.swap(BUCKETS),
        "fence alone": lambda: registry.swap(token, CommitRef(1, None), []),
    }
    took: dict[str, list[float]] = {name: [] for name in kinds}
    cpu = dict.fromkeys(kinds, 0.0)
    for n in range(rounds + 10):
        for name, work in kinds.items():
            began, used = time.perf_counter(), time.process_time()
            await work()
            if n >= 10:
                took[name].append((time.perf_counter() - began) * 1e6)
                cpu[name] += (time.process_time() - used) * 1e6
    await registry.close()
    await admin.execute("DROP SCHEMA ingot CASCADE")
    await admin.close()
    return {
        name: {
            "p50": round(statistics.median(times), 1),
            "p99": round(sorted(times)[int(len(times) * 0.99)], 1),
            "cpu": round(cpu[name] / len(times), 1),
        }
        for name, times in took.items()
    }


def main(argv: list[str] | None = None) -> dict[str, dict[str, float]]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--dsn")
    parser.add_argument("--rounds", type=int, default=3000)
    arguments = parser.parse_args(argv)
    rounds = 20 if arguments.smoke else arguments.rounds
    place = Path(tempfile.mkdtemp(prefix="ingot-bench-"))
    server = None if arguments.dsn else EmbeddedPostgres(place / "data")
    try:
        dsn = arguments.dsn or (server and server.start_blocking())
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            found = runner.run(measure(dsn, rounds))
    finally:
        if server is not None:
            server.stop_blocking()
        shutil.rmtree(place)
    for name, figures in found.items():
        print(
            f"{name:<12} p50 {figures['p50']:8.1f} us   p99 {figures['p99']:8.1f} us   "
            f"cpu {figures['cpu']:6.1f} us"
        )
    print(json.dumps({"bench": "registry", "rounds": rounds, "us": found}))
    return found


if __name__ == "__main__":
    main()
