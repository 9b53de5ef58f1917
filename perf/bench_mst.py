"""The tree alone: ``pytest perf/bench_mst.py`` or ``python perf/bench_mst.py --keys 1000000``.

As benchmarks: apply at 10^3 to 10^6 keys in batches of 1, 16, 64 and 256 new keys, get, page; small
sizes unless INGOT_BENCH_FULL=1. Times are of one batch, one key, one page of a thousand.

As a program it inserts ``--keys`` keys in batches of ``--batch`` in one order and, with
``--check``, one at a time in another, compares the two roots and prints what a key costs on the way
up. Removed nodes are discarded, so memory is that of the live tree. Sorting and the making of keys
are not counted.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from functools import cache
from hashlib import sha256
from itertools import count
from time import perf_counter

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from ingot import mst

FULL = os.environ.get("INGOT_BENCH_FULL", "") not in ("", "0")
KEYS = [10**3, 10**4, 10**5, 10**6] if FULL else [10**3]
BATCHES = [1, 16, 64, 256]
BUDGET = 1 << 30


def key(n: int) -> bytes:
    """55 bytes in no order: the shape that the tree's sizes were worked out for."""
    d = sha256(b"bench %d" % n).digest()
    day = b"2024-%02d-%02d" % (1 + d[0] % 12, 1 + d[1] % 28)
    return b"logs.prod/%s:host-%03d:%s-%08d.json.gz" % (day, d[2] % 200, d[3:7].hex().encode(), n)


def value(n: int) -> bytes:
    return b"\x01\x71\x12\x20" + sha256(b"value %d" % n).digest()


@cache
def tree(keys: int) -> tuple[mst.NodeCache, bytes]:
    nodes = mst.NodeCache(BUDGET)
    whole = sorted((key(n), value(n)) for n in range(keys))
    return nodes, mst.apply(nodes, None, whole).root


@pytest.mark.parametrize("size", BATCHES)
@pytest.mark.parametrize("keys", KEYS)
def test_apply(benchmark: BenchmarkFixture, keys: int, size: int) -> None:
    """New keys into a tree that stays: every round starts from the same root."""
    nodes, root = tree(keys)
    fresh = count(keys)

    def batch() -> tuple[tuple[list[tuple[bytes, bytes | None]]], dict[str, object]]:
        return (sorted((key(n), value(n)) for n, _ in zip(fresh, range(size), strict=False)),), {}

    def run(mutations: list[tuple[bytes, bytes | None]]) -> None:
        applied = mst.apply(nodes, root, mutations)
        assert applied.previous == [None] * size
        nodes.discard(cid for cid, _ in applied.blocks)

    benchmark.extra_info["keys in a batch"] = size
    benchmark.pedantic(run, setup=batch, rounds=max(20, 2048 // size) if FULL else 3)
    assert mst.get(nodes, root, key(keys - 1)) == value(keys - 1)


@pytest.mark.parametrize("keys", KEYS)
def test_get(benchmark: BenchmarkFixture, keys: int) -> None:
    nodes, root = tree(keys)
    wanted = [key(n) for n in random.Random(1).sample(range(keys), min(keys, 10_000))]
    turn = count()
    found = benchmark(lambda: mst.get(nodes, root, wanted[next(turn) % len(wanted)]))
    assert found is not None


@pytest.mark.parametrize("delimiter", [b"", b":"])
@pytest.mark.parametrize("keys", KEYS)
def test_page(benchmark: BenchmarkFixture, keys: int, delimiter: bytes) -> None:
    nodes, root = tree(keys)
    prefix = b"logs.prod/" if delimiter else b""
    items, _ = benchmark(mst.page, nodes, root, prefix, delimiter, None, 1000)
    assert len(items) == (len(dict(items)) if delimiter else 1000)


def insert(keys: int, size: int, seed: int) -> tuple[mst.NodeCache, bytes]:
    """Insert in a random order, reporting what a key costs in each tenth."""
    order = list(range(keys))
    random.Random(seed).shuffle(order)
    nodes = mst.NodeCache(BUDGET)
    root = mst.EMPTY_ROOT
    spent, since, reported = 0.0, 0, perf_counter()
    for at in range(0, keys, size):
        batch = sorted((key(n), value(n)) for n in order[at : at + size])
        start = perf_counter()
        applied = mst.apply(nodes, root, batch)
        nodes.discard(applied.removed)
        spent += perf_counter() - start
        root = applied.root
        since += len(batch)
        if since >= keys / 10 or at + size >= keys:
            done = at + len(batch)
            rate = f"{spent / since * 1e6:6.2f} us a key"
            wall = f"{perf_counter() - reported:.1f} s"
            print(f"batch {size:4}: {done:>9,} keys, {rate}, {len(nodes):>8,} nodes, {wall}")
            spent, since, reported = 0.0, 0, perf_counter()
    return nodes, root


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    arguments.add_argument("--keys", type=int, default=100_000)
    arguments.add_argument("--batch", type=int, default=256)
    arguments.add_argument("--check", action="store_true", help="insert singly too and compare")
    given = arguments.parse_args()
    nodes, root = insert(given.keys, given.batch, seed=1)
    print(f"root {root.hex()}, {nodes.bytes_used:,} bytes")
    wanted = random.Random(3).sample(range(given.keys), min(given.keys, 50_000))
    names = [key(n) for n in wanted]
    start = perf_counter()
    for name in names:
        mst.get(nodes, root, name)
    print(f"get: {(perf_counter() - start) / len(names) * 1e6:.2f} us")
    if given.check:
        others, other = insert(given.keys, 1, seed=2)
        if (other, len(others)) != (root, len(nodes)):
            print(f"DIFFERENT: {other.hex()}, {len(others)} nodes against {len(nodes)}")
            return 1
        stats = mst.check_tree(others, other)
        assert stats.keys == given.keys and stats.nodes == len(others)
        print(f"two orders, one root; every invariant holds: {stats}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
