"""The node cache: its budget, what it spares, and that a retry always gets further."""

from __future__ import annotations

import gc
import random

import pytest

from ingot import mst
from ingot._speedups import PURE
from ingot.errors import Missing
from tests.mst.support import Shelf, cut, node_cid, oracle, value

MIB = 1024 * 1024


def tree(count: int) -> tuple[dict[bytes, bytes], bytes, dict[bytes, bytes]]:
    content = {b"key/%06d" % n: value(n) for n in range(count)}
    root, blocks = oracle(content)
    return content, root, blocks


def test_bookkeeping() -> None:
    _, root, blocks = tree(300)
    cache = mst.NodeCache(MIB)
    assert (cache.budget, cache.bytes_used, len(cache)) == (MIB, 0, 0)
    used = 0
    for name, block in blocks.items():
        assert name not in cache and cache.block(name) is None
        cache.add(name, block)
        cache.add(name, block)
        assert name in cache and cache.block(name) == block
        used += len(block) + 128
        assert (cache.bytes_used, len(cache)) == (used, len(cache))
    assert len(cache) == len(blocks)
    cache.discard([root, root, value(0)])
    assert root not in cache and len(cache) == len(blocks) - 1
    cache.discard(blocks)
    assert (cache.bytes_used, len(cache)) == (0, 0)


def test_many_adds_and_discards_keep_the_table_right() -> None:
    """Against a set: every lookup finds what is there and nothing else."""
    _, _, blocks = tree(3000)
    names = list(blocks)
    rng = random.Random(3)
    cache = mst.NodeCache(1 << 30)
    held: set[bytes] = set()
    for _ in range(40):
        for name in rng.sample(names, 100):
            cache.add(name, blocks[name])
            held.add(name)
        gone = rng.sample(names, 80)
        cache.discard(gone)
        held.difference_update(gone)
        assert {name for name in names if name in cache} == held
        assert len(cache) == len(held)


def test_budget_holds_and_upper_layers_go_last() -> None:
    content, root, blocks = tree(8000)
    total = sum(len(block) + 128 for block in blocks.values())
    shelf = Shelf(budget=total // 3, blocks=blocks)
    keys = list(content)
    rng = random.Random(1)
    for key in rng.choices(keys, k=3000):
        assert shelf.run(lambda cache, key=key: mst.get(cache, root, key)) == content[key]
        assert shelf.cache.bytes_used <= shelf.cache.budget + 4096
    heights: dict[bytes, int] = {}

    def climb(name: bytes) -> int:
        left, entries = mst.decode_node(blocks[name])
        links = [link for link in (left, *(e[2] for e in entries)) if link is not None]
        heights[name] = 1 + max((climb(link) for link in links), default=-1)
        return heights[name]

    climb(root)
    upper = [name for name, height in heights.items() if height >= 2]
    lowest = [name for name, height in heights.items() if height == 0]
    assert sum(name in shelf.cache for name in upper) > 0.9 * len(upper)
    assert sum(name in shelf.cache for name in lowest) < 0.5 * len(lowest)


def test_dead_upper_nodes_do_not_clog_the_cache() -> None:
    content, root, blocks = tree(4000)
    other, other_root, other_blocks = {}, b"", {}
    other = {b"other/%06d" % n: value(n) for n in range(4000)}
    other_root, other_blocks = oracle(other)
    total = sum(len(block) + 128 for block in blocks.values())
    shelf = Shelf(budget=total // 2, blocks=blocks | other_blocks)
    rng = random.Random(1)
    for key in rng.choices(list(content), k=2000):
        shelf.run(lambda cache, key=key: mst.get(cache, root, key))
    for key in rng.choices(list(other), k=12000):
        shelf.run(lambda cache, key=key: mst.get(cache, other_root, key))
    assert sum(name in shelf.cache for name in blocks) < 0.1 * len(blocks)


def test_adding_alone_stays_in_the_budget() -> None:
    _, _, blocks = tree(5000)
    cache = mst.NodeCache(100_000)
    for name, block in blocks.items():
        cache.add(name, block)
        assert cache.bytes_used <= 100_000 + len(block) + 128
    assert len(cache) > 100


@pytest.mark.parametrize("budget", [1, 2000, 50_000])
def test_a_retry_gets_further_even_where_the_work_exceeds_the_budget(budget: int) -> None:
    content, root, blocks = tree(3000)
    shelf = Shelf(budget=budget, blocks=blocks)
    keys = random.Random(2).sample(list(content), 200)
    applied = shelf.apply(root, [(key, value(1)) for key in keys])
    assert len(set(shelf.loads)) == len(shelf.loads)  # nothing was evicted and read again
    expected = oracle(content | dict.fromkeys(keys, value(1)))[0]
    assert applied.root == expected
    page = shelf.run(lambda cache: mst.page(cache, root, b"", b"", None, 1000))
    assert [key for key, _ in page[0]] == sorted(content)[:1000]
    assert shelf.run(lambda cache: mst.get(cache, root, keys[0])) == content[keys[0]]
    assert shelf.cache.bytes_used <= budget + 64 * 1024
    assert len(shelf.run(lambda cache: mst.scan(cache, root, b"", None, 1 << 40))) == 3000


def test_interleaved_readers_all_finish() -> None:
    """Many readers share a cache that holds the paths of few: each miss is served in turn."""
    content, root, blocks = tree(6000)
    cache = mst.NodeCache(60_000)
    rng = random.Random(4)
    waiting = {key: [root] for key in rng.sample(list(content), 300)}
    turns = 0
    while waiting:
        turns += 1
        assert turns < 300 * 20
        key = rng.choice(sorted(waiting))
        for name in waiting[key]:
            cache.add(name, blocks[name])
        try:
            assert mst.get(cache, root, key) == content[key]
        except Missing as missing:
            waiting[key] = missing.cids
        else:
            del waiting[key]


def test_a_missing_root_is_named() -> None:
    cache = mst.NodeCache(MIB)
    root = value(7)
    for call in (
        lambda: mst.get(cache, root, b"k"),
        lambda: mst.apply(cache, root, [(b"k", None)]),
        lambda: mst.page(cache, root, b"", b"", None, 5),
        lambda: mst.scan(cache, root, b"", None, 5),
        lambda: mst.diff(cache, root, None),
        lambda: mst.prove(cache, root, b"k"),
        lambda: mst.check_tree(cache, root),
    ):
        with pytest.raises(Missing) as caught:
            call()
        assert caught.value.cids == [root]


def test_apply_names_all_paths_of_a_batch_at_once() -> None:
    """A cold batch is loaded in one round a layer, and each node once."""
    content, root, blocks = tree(5000)
    height = mst.key_layer(mst.decode_node(blocks[root])[1][0][0])
    keys = random.Random(5).sample(list(content), 64)
    shelf = Shelf(blocks=blocks)
    shelf.apply(root, [(key, value(1)) for key in keys])
    assert shelf.rounds <= height + 1
    assert len(shelf.loads) == len(set(shelf.loads)) > 64
    shelf.forget()
    shelf.apply(root, [(b"key/%06dx" % n, value(1)) for n in range(0, 5000, 100)])
    assert shelf.rounds <= height + 2


def test_a_refused_batch_leaves_the_cache_alone() -> None:
    cache = mst.NodeCache(MIB)
    deep = b"deep/37741461"
    before = mst.apply(cache, None, [(deep, value(0))])
    assert len(cache) == 1
    for block in before.blocks:
        assert block[0] in cache
    with pytest.raises(ValueError):
        mst.apply(cache, before.root, [(b"b", value(0)), (b"a", value(0))])
    assert len(cache) == 1


def test_removed_nodes_stay_until_they_are_discarded() -> None:
    content, root, blocks = tree(500)
    shelf = Shelf(blocks=blocks)
    key = next(iter(content))
    applied = shelf.apply(root, [(key, value(1))])
    assert applied.removed
    assert mst.get(shelf.cache, root, key) == content[key]
    assert mst.get(shelf.cache, applied.root, key) == value(1)
    shelf.cache.discard(applied.removed)
    with pytest.raises(Missing):
        mst.get(shelf.cache, root, key)


def test_arguments() -> None:
    for budget in (0, -1):
        with pytest.raises(ValueError):
            mst.NodeCache(budget)
    cache = mst.NodeCache(MIB)
    with pytest.raises(ValueError):
        cache.add(b"short", mst.EMPTY_BLOCK)
    with pytest.raises(ValueError):
        cache.discard([b"short"])
    cache.add(mst.EMPTY_ROOT, mst.EMPTY_BLOCK)
    assert mst.get(cache, mst.EMPTY_ROOT, b"k") is None


def test_work_of_one_operation() -> None:
    """Counts, not times: nodes written per insert and nodes read per look-up."""
    content = {b"logs/%08x.gz" % (n * 2654435761 % 2**32): value(n) for n in range(20000)}
    root, blocks = oracle(content)
    height = mst.key_layer(mst.decode_node(blocks[root])[1][0][0])
    shelf = Shelf(blocks=blocks)
    written, at = 0, root
    inserts = 300
    for n in range(inserts):
        key = b"logs/%08x.gz" % ((n + 20000) * 2654435761 % 2**32)
        applied = shelf.apply(at, [(key, value(n))])
        written += len(applied.blocks)
        at = applied.root
    assert written / inserts <= height + 1.6
    for key in list(content)[:50]:
        shelf.forget()
        assert shelf.run(lambda cache, key=key: mst.get(cache, root, key)) == content[key]
        assert len(shelf.loads) == height - mst.key_layer(key) + 1
    batch = list(content)[:64]
    together = shelf.apply(root, [(key, value(1)) for key in batch])
    alone = sum(height - mst.key_layer(key) + 1 for key in batch)
    assert len(together.blocks) < 0.8 * alone
    for part in cut(batch, 32):
        assert shelf.apply(root, [(key, content[key]) for key in part]).blocks == []


@pytest.mark.skipif(PURE, reason="the twin keeps no pointers")
def test_a_finalizer_cannot_change_the_cache_under_a_call() -> None:
    """The collector may run any code while a call makes its answer: it finds the cache busy."""
    _, root, blocks = tree(8000)  # more items than the free lists of the interpreter serve
    shelf = Shelf(blocks=blocks)
    for name, block in blocks.items():
        shelf.cache.add(name, block)
    heard: list[str] = []

    def intrude(phase: str, info: dict[str, int]) -> None:
        for act in (
            lambda: shelf.cache.discard([value(0)]),
            lambda: shelf.cache.add(mst.EMPTY_ROOT, mst.EMPTY_BLOCK),
            lambda: mst.apply(shelf.cache, root, []),
            lambda: mst.get(shelf.cache, root, b"k"),
        ):
            try:
                act()
            except RuntimeError as error:
                heard.append(str(error))

    before = gc.get_threshold()
    gc.callbacks.append(intrude)
    gc.set_threshold(1)
    try:
        items = mst.scan(shelf.cache, root, b"", None, 8000)
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(intrude)
    assert len(items) == 8000
    assert len(heard) >= 4 and all("in use" in text for text in heard)


def test_node_cid_helper_matches_the_empty_root() -> None:
    assert node_cid(mst.EMPTY_BLOCK) == mst.EMPTY_ROOT
