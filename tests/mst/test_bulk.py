"""Large sets: two orders of insertion, one root."""

from __future__ import annotations

import random

import pytest

from ingot import mst
from ingot._speedups import PURE
from tests.mst.support import cut, value


@pytest.mark.slow
@pytest.mark.skipif(PURE, reason="minutes in plain Python")
def test_fifty_thousand_keys_in_two_orders() -> None:
    keys = [
        b"tenant-%02d/%08x/object-%d" % (n % 37, n * 2654435761 % 2**32, n) for n in range(50000)
    ]
    rng = random.Random(9)
    cache = mst.NodeCache(1 << 30)
    root: bytes | None = None
    for part in cut(rng.sample(keys, len(keys)), 256):
        applied = mst.apply(cache, root, sorted((key, value(len(key))) for key in part))
        cache.discard(applied.removed)
        root = applied.root
    single: bytes | None = None
    other = mst.NodeCache(1 << 30)
    for key in rng.sample(keys, len(keys)):
        applied = mst.apply(other, single, [(key, value(len(key)))])
        other.discard(applied.removed)
        single = applied.root
    assert single == root
    assert len(cache) == len(other)  # what was discarded is exactly what died
    assert mst.check_tree(cache, root).keys == len(keys)
    whole = mst.apply(cache, None, sorted((key, value(len(key))) for key in keys))
    assert whole.root == root
