"""Batches and differences on small universes, where every kind of split and merge is frequent."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot import mst
from ingot._speedups import PURE
from ingot.errors import Corruption
from ingot.mst import iter_diff
from tests.mst.support import Shelf, inverse, keys_by_layer, node_cid, oracle, value

Mutations = list[tuple[bytes, bytes | None]]


@st.composite
def universes(draw: st.DrawFn) -> list[bytes]:
    """5 to 40 keys whose layers are spread far wider than chance would."""
    layers = draw(st.lists(st.integers(0, 12), min_size=1, max_size=8, unique=True))
    pool = [key for layer in layers for key in keys_by_layer()[layer]]
    pool += keys_by_layer()[0][:8]
    size = draw(st.integers(5, 40))
    return random.Random(draw(st.integers(0, 1 << 30))).sample(pool, min(size, len(pool)))


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Mutations], bytes]:
    universe = draw(universes())
    one = st.tuples(st.sampled_from(universe), st.none() | st.integers(0, 2).map(value))
    batches = draw(st.lists(st.lists(one, max_size=20), min_size=1, max_size=6))
    salt = draw(st.sampled_from([b"", b"", b"pepper"]))
    return [sorted(dict(batch).items()) for batch in batches], salt


def change(content: dict[bytes, bytes], batch: Mutations) -> dict[bytes, bytes]:
    result = dict(content)
    for key, new in batch:
        if new is None:
            result.pop(key, None)
        else:
            result[key] = new
    return result


def look_up(shelf: Shelf, root: bytes, key: bytes) -> bytes | None:
    return shelf.run(lambda cache: mst.get(cache, root, key))


@settings(max_examples=60 if PURE else 300)
@given(histories(), st.booleans())
def test_batches_equal_a_rebuild(history: tuple[list[Mutations], bytes], cold: bool) -> None:
    batches, salt = history
    shelf = Shelf()
    content: dict[bytes, bytes] = {}
    root: bytes | None = None
    for batch in batches:
        if cold:
            shelf.forget()
        before = shelf.nodes(root)
        applied = shelf.apply(root, batch, salt)
        assert len(set(shelf.loads)) == len(shelf.loads)
        assert set(shelf.loads) <= before
        assert applied.previous == [content.get(key) for key, _ in batch]
        content = change(content, batch)
        expected, blocks = oracle(content, salt)
        assert applied.root == expected
        if root is None and expected == mst.EMPTY_ROOT:
            assert applied.blocks == []
        else:
            emitted = [name for name, _ in applied.blocks]
            assert len(set(emitted)) == len(emitted)
            assert set(emitted) == set(blocks) - before
            assert all(blocks[name] == block for name, block in applied.blocks)
            assert len(set(applied.removed)) == len(applied.removed)
            assert set(applied.removed) == before - set(blocks)
        root = applied.root
        shelf.check(root, salt)
        shelf.cache.discard(applied.removed)
        for key in content:
            assert look_up(shelf, root, key) == content[key]


@settings(max_examples=40 if PURE else 150)
@given(histories())
def test_the_inverse_batch_leads_back(history: tuple[list[Mutations], bytes]) -> None:
    batches, salt = history
    shelf = Shelf()
    root: bytes | None = mst.EMPTY_ROOT
    trail: list[tuple[bytes | None, Mutations]] = []
    for batch in batches:
        applied = shelf.apply(root, batch, salt)
        trail.append((root, inverse(batch, applied.previous)))
        root = applied.root
    for before, batch in reversed(trail):
        root = shelf.apply(root, batch, salt).root
        assert root == before


@settings(max_examples=40 if PURE else 200)
@given(histories(), st.none() | st.integers(1, 5), st.booleans())
def test_diff_of_two_roots(
    history: tuple[list[Mutations], bytes], limit: int | None, wrong_salt: bool
) -> None:
    batches, salt = history
    shelf = Shelf()
    first = change({}, batches[0])
    second: dict[bytes, bytes] = {}
    for batch in batches:
        second = change(second, batch)
    roots = []
    for content in (first, second):
        root, blocks = oracle(content, salt)
        roots.append(root)
        shelf.blocks.update(blocks)
    a, b = roots
    expected = [
        (key, first.get(key), second.get(key))
        for key in sorted(first.keys() | second.keys())
        if first.get(key) != second.get(key)
    ]
    given_salt = b"wrong" if wrong_salt else salt
    found: list[tuple[bytes, bytes | None, bytes | None]] = []
    after = b""
    while True:
        changes = shelf.run(
            lambda cache, after=after: mst.diff(cache, a, b, limit, after, given_salt)
        )
        assert len(set(shelf.loads)) == len(shelf.loads)
        found += changes
        if limit is None or len(changes) < limit:
            break
        after = changes[-1][0]
    assert found == expected
    backward = shelf.run(lambda cache: mst.diff(cache, b, a, None, b"", given_salt))
    assert backward == [(key, new, old) for key, old, new in expected]

    def load(cids: list[bytes]) -> None:
        for name in cids:
            shelf.cache.add(name, shelf.blocks[name])

    shelf.forget()
    chunks = list(iter_diff(shelf.cache, a, b, load, salt=given_salt, chunk=3))
    assert [item for chunk in chunks for item in chunk] == expected
    assert all(0 < len(chunk) <= 3 for chunk in chunks)


def test_diff_reads_only_what_differs() -> None:
    content = {b"key/%06d" % n: value(n) for n in range(5000)}
    a, blocks = oracle(content)
    shelf = Shelf(blocks=blocks)
    b = shelf.apply(a, [(b"key/002500", value(1)), (b"key/9", value(2))]).root
    height = mst.key_layer(mst.decode_node(blocks[a])[1][0][0])
    shelf.forget()
    changes = shelf.run(lambda cache: mst.diff(cache, a, b))
    assert [key for key, _, _ in changes] == [b"key/002500", b"key/9"]
    assert len(shelf.loads) <= 2 * 2 * (height + 1)


def test_a_wrong_salt_is_noticed_where_it_would_do_harm() -> None:
    content = {b"key/%06d" % n: value(n) for n in range(300)}
    root, blocks = oracle(content, b"right")
    shelf = Shelf(blocks=blocks)
    noticed = 0
    for key in list(content)[:20]:
        try:
            applied = shelf.apply(root, [(key, None)], b"wrong")
        except Corruption:
            noticed += 1
        else:
            assert applied.previous == [None]  # believed to be a layer the tree has not
    assert noticed > 10


def test_a_join_of_nodes_with_keys_out_of_range_writes_nothing() -> None:
    """Only a tree that nobody checked has such nodes; what came of them could not be read again."""
    low, high = sorted(keys_by_layer()[0][:2])
    middle = next(key for key in keys_by_layer()[1])
    left = mst.encode_node(None, [(high, value(0), None)])
    right = mst.encode_node(None, [(low, value(0), None)])
    top = mst.encode_node(node_cid(left), [(middle, value(0), node_cid(right))])
    shelf = Shelf(blocks={node_cid(block): block for block in (left, right, top)})
    with pytest.raises(Corruption):
        shelf.apply(node_cid(top), [(middle, None)])
    assert len(shelf.cache) == 3


@pytest.mark.parametrize(
    "links", [(None, b"x"), (b"x", None)], ids=["right of the key", "left of the key"]
)
def test_links_at_layer_0_are_corruption(links: tuple[bytes | None, bytes | None]) -> None:
    low = keys_by_layer()[0][0]
    leaf = mst.encode_node(None, [(keys_by_layer()[0][1], value(0), None)])
    left, right = (None if link is None else node_cid(leaf) for link in links)
    top = mst.encode_node(left, [(low, value(0), right)])
    shelf = Shelf(blocks={node_cid(block): block for block in (leaf, top)})
    with pytest.raises(Corruption):
        shelf.apply(node_cid(top), [(low, None)])


def test_a_path_longer_than_any_layer_is_corruption() -> None:
    """Keyless nodes on keyless nodes: a reader gives up where no honest tree goes."""
    shelf = Shelf()
    block = mst.encode_node(None, [(b"k", value(0), None)])
    for _ in range(140):
        shelf.blocks[node_cid(block)] = block
        block = mst.encode_node(node_cid(block), [])
    shelf.blocks[node_cid(block)] = block
    root = node_cid(block)
    with pytest.raises(Corruption):
        shelf.run(lambda cache: mst.get(cache, root, b"k"))
    with pytest.raises(Corruption):
        shelf.run(lambda cache: mst.scan(cache, root, b"", None, 5))
    with pytest.raises(Corruption):
        shelf.run(lambda cache: mst.page(cache, root, b"", b"", None, 5))
    with pytest.raises(Corruption):
        shelf.apply(root, [(b"k", None)])


@pytest.mark.parametrize(
    "mutations",
    [
        [(b"b", value(0)), (b"a", value(0))],
        [(b"a", value(0)), (b"a", None)],
        [(b"", value(0))],
        [(b"k" * 1089, value(0))],
        [(b"a", b"")],
        [(b"a", value(0)[:-1])],
        [(b"a", value(0) + b"x")],
        [(b"a", b"\x01\x71\x1e\x20" + bytes(32))],
        [(b"a", b"\x02\x71\x12\x20" + bytes(32))],
    ],
)
def test_what_apply_does_not_take(mutations: Mutations) -> None:
    cache = mst.NodeCache(1 << 20)
    with pytest.raises(ValueError):
        mst.apply(cache, None, mutations)
    assert mst.apply(cache, None, [(b"a", value(0))]).previous == [None]


def test_roots_that_are_no_node_cids() -> None:
    cache = mst.NodeCache(1 << 20)
    for root in (b"", value(0)[:-1], b"\x01\x55" + value(0)[2:]):
        with pytest.raises(ValueError):
            mst.get(cache, root, b"k")
        with pytest.raises(ValueError):
            mst.apply(cache, root, [])
        with pytest.raises(ValueError):
            mst.scan(cache, root, b"", None, 1)


def test_keys_of_other_trees() -> None:
    """The uploads tree puts NUL separators and more bytes into its keys."""
    key = b"k" * 1024 + b"\x00" + b"u" * 32 + b"\x0000001"
    shelf = Shelf()
    root = shelf.apply(None, [(key, value(0)), (b"k\x00u", value(1))]).root
    assert shelf.run(lambda cache: mst.get(cache, root, key)) == value(0)
    assert shelf.run(lambda cache: mst.scan(cache, root, b"k\x00", b"k\x01", 9)) == [
        (b"k\x00u", value(1))
    ]
    shelf.forget()
    assert shelf.run(lambda cache: mst.get(cache, root, key)) == value(0)
