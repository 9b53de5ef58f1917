"""The writer's limits: which mutations are refused, and that nothing written is ever unreadable."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ingot import mst
from ingot._speedups import PURE
from ingot.limits import (
    NODE_BYTES_READ_MAX,
    NODE_BYTES_WRITE_MAX,
    NODE_ENTRIES_MAX,
)
from ingot.mst.verify import any_key
from tests.mst.support import Shelf, value

Mutations = list[tuple[bytes, bytes | None]]


def of_layer(layer: int, count: int, shape: bytes, salt: bytes = b"") -> list[bytes]:
    """``count`` keys of a layer, in order; ``shape`` has one %d."""
    found = []
    n = 0
    while len(found) < count:
        key = shape % n
        if mst.key_layer(key, salt) == layer:
            found.append(key)
        n += 1
    return found


def settle(shelf: Shelf, root: bytes | None, batch: Mutations) -> tuple[bytes, Mutations]:
    """Apply as the pipeline does: leave out what is refused, call again."""
    left = sorted(batch)
    refused: Mutations = []
    while True:
        applied = shelf.apply(root, left)
        if not applied.refused:
            shelf.cache.discard(applied.removed)
            return applied.root, refused
        assert applied.refused == sorted(set(applied.refused))
        refused += [left[at] for at in applied.refused]
        left = [pair for at, pair in enumerate(left) if at not in applied.refused]


LOWERED = """
import ingot.limits
ingot.limits.KEY_LAYER_WRITE_MAX = 14
from ingot import mst
deep, cid = b"deep/37741461", bytes.fromhex("01711220") + bytes(32)
assert mst.key_layer(deep) == 15
cache = mst.NodeCache(1 << 20)
applied = mst.apply(cache, None, [(b"a", cid), (deep, cid), (b"z", None)])
assert (applied.refused, len(cache)) == ([1], 0)
applied = mst.apply(cache, None, [(b"a", cid), (b"z", None)])
assert (applied.refused, len(cache)) == ([], 1)
assert mst.apply(cache, applied.root, [(deep, None)]).refused == []
"""


def test_key_layers_beyond_the_limit() -> None:
    """No such key can be mined in a test, so the limit is lowered before the code reads it."""
    subprocess.run([sys.executable, "-c", LOWERED], check=True)


def test_entries_of_a_node() -> None:
    keys = of_layer(0, NODE_ENTRIES_MAX + 3, b"wide/%07d")
    shelf = Shelf()
    root, refused = settle(shelf, None, [(key, value(0)) for key in keys])
    assert [key for key, _ in refused] == keys[-3:]
    assert shelf.check(root).max_entries == NODE_ENTRIES_MAX
    root_again, refused = settle(shelf, root, [(keys[-1], value(1)), (keys[0], value(1))])
    assert [key for key, _ in refused] == [keys[-1]]  # the update went through
    assert shelf.check(root_again).keys == NODE_ENTRIES_MAX
    root, refused = settle(shelf, root, [(keys[0], None), (keys[-1], value(1))])
    assert refused == []  # one out, one in
    shelf.forget()
    shelf.check(root)


def test_one_refused_key_does_not_fail_the_others() -> None:
    keys = of_layer(0, NODE_ENTRIES_MAX + 1, b"wide/%07d")
    shelf = Shelf()
    root, _ = settle(shelf, None, [(key, value(0)) for key in keys[:-1]])
    elsewhere: Mutations = [(b"x/%d" % n, value(n)) for n in range(50)]
    separators = of_layer(1, 1, b"wide0/%d")
    root, _ = settle(shelf, root, [(separators[0], value(0))])
    root, refused = settle(shelf, root, sorted([(keys[-1], value(0)), *elsewhere]))
    assert refused == [(keys[-1], value(0))]
    for key, new in elsewhere:
        assert shelf.run(lambda cache, key=key: mst.get(cache, root, key)) == new


def long_keys(layer: int, count: int, stem: bytes) -> list[bytes]:
    """Keys that share little, so that each takes over a kilobyte of its node."""
    return sorted(
        key
        for key in (
            stem + b"%02x" % (n % 256) + b"%06d" % n + b"x" * 1000 for n in range(count * 2)
        )
        if mst.key_layer(key) == layer
    )[:count]


def test_bytes_of_a_node() -> None:
    keys = long_keys(0, 1300, b"")
    shelf = Shelf()
    root, refused = settle(shelf, None, [(key, value(0)) for key in keys])
    stats = shelf.check(root, rule=any_key)
    assert refused
    assert NODE_BYTES_WRITE_MAX - 2200 < stats.max_node_bytes <= NODE_BYTES_WRITE_MAX
    assert stats.keys + len(refused) == len(keys)
    root, again = settle(shelf, root, [(key, value(1)) for key, _ in refused])
    assert [key for key, _ in again] == [key for key, _ in refused]


def test_a_delete_may_join_nodes_beyond_the_writers_limit_but_not_the_readers() -> None:
    """Three nodes just below the limit, held apart by two separators of layer 1."""
    spans = [long_keys(0, 900, stem) for stem in (b"a", b"c", b"e")]
    first = of_layer(1, 1, b"b/%d")[0]
    second = of_layer(1, 1, b"d/%d")[0]
    shelf = Shelf()
    root: bytes | None = None
    for span in spans:
        root, refused = settle(shelf, root, [(key, value(0)) for key in span])
        assert refused == []
        root, refused = settle(shelf, root, [(first, value(0)), (second, value(0))])
        assert refused == []
    size = shelf.check(root).max_node_bytes
    assert NODE_BYTES_READ_MAX < 3 * size and 2 * size < NODE_BYTES_READ_MAX
    assert NODE_BYTES_WRITE_MAX < 2 * size
    joined, refused = settle(shelf, root, [(first, None)])
    assert refused == []
    stats = shelf.check(joined)
    assert NODE_BYTES_WRITE_MAX < stats.max_node_bytes < NODE_BYTES_READ_MAX
    # An update below the large node's own size passes; a new key in it does not.
    inside = spans[0][450]
    _, refused = settle(shelf, joined, [(inside, value(5))])
    assert refused == []
    _, refused = settle(shelf, joined, [(inside + b"0", value(5)), (spans[2][0], None)])
    assert refused == ([(inside + b"0", value(5))] if mst.key_layer(inside + b"0") == 0 else [])
    # Joining all three would be a node that no reader takes: the one delete that is refused.
    assert shelf.apply(joined, [(second, None)]).refused == [0]
    assert shelf.apply(root, [(first, None), (second, None)]).refused == [0, 1]
    shelf.forget()
    assert shelf.run(lambda cache: mst.get(cache, joined, inside)) == value(0)


@pytest.mark.skipif(PURE, reason="seconds in plain Python")
def test_a_delete_is_refused_where_the_joined_node_has_too_many_entries() -> None:
    low = of_layer(0, 5000, b"a/%06d")
    high = of_layer(0, 5000, b"c/%06d")
    separator = of_layer(1, 1, b"b/%d")[0]
    shelf = Shelf()
    root, refused = settle(
        shelf, None, sorted([(key, value(0)) for key in [*low, *high, separator]])
    )
    assert refused == []
    assert shelf.apply(root, [(separator, None)]).refused == [0]
    root, refused = settle(shelf, root, [(key, None) for key in low[:2000]])
    assert refused == []
    root, refused = settle(shelf, root, [(separator, None)])
    assert refused == []
    assert shelf.check(root).max_entries == 8000
