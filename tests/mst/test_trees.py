"""Whole trees against the vectors: roots, node sets, sequences of operations, batches."""

from __future__ import annotations

import random
from hashlib import sha256
from itertools import permutations
from typing import Any

import pytest

from ingot import mst
from ingot._speedups import PURE
from ingot.errors import Corruption, FormatError, Missing
from tests.mst.support import (
    Shelf,
    cid,
    cut,
    deleted,
    inverse,
    oracle,
    recipe_key,
    recipe_value,
    set_digest,
    updated,
    vectors,
)

KNOWN = {case["name"]: case for case in vectors("known-roots")}
SEQUENCES = {
    f"{n} {case['name']}": case for n, case in enumerate(vectors("op-sequences")["sequences"])
}
BATCHES = {case["name"]: case for case in vectors("batch")["cases"]}
TOP = [bytes.fromhex(text) for text in vectors("batch")["top_keys_hex"]]


def assert_stats(shelf: Shelf, root: bytes, stats: dict[str, Any]) -> None:
    nodes = shelf.nodes(root)
    assert set_digest(nodes) == stats["nodes_sha256"]
    found = shelf.check(root, rule=lambda key: True)
    for name in ("nodes", "keys", "bytes", "passthrough", "max_entries", "max_node_bytes"):
        assert getattr(found, name) == stats[name], name
    assert found.height == stats["height"]


@pytest.mark.parametrize("name", KNOWN)
def test_known_root_in_one_batch(name: str) -> None:
    case = KNOWN[name]
    shelf = Shelf()
    applied = shelf.apply(None, [(key.encode(), cid(case["value"])) for key in case["keys"]])
    assert applied.root == cid(case["root"])
    if case["keys"]:
        assert_stats(shelf, applied.root, case["stats"])
    assert oracle({key.encode(): cid(case["value"]) for key in case["keys"]})[0] == applied.root


@pytest.mark.parametrize("name", KNOWN)
def test_known_root_in_any_order(name: str) -> None:
    case = KNOWN[name]
    keys = [key.encode() for key in case["keys"]]
    if len(keys) <= 5:
        orders = [list(order) for order in permutations(keys)]
    else:
        orders = [random.Random(seed).sample(keys, len(keys)) for seed in range(3)]
    for order in orders:
        shelf = Shelf()
        root: bytes | None = None
        for key in order:
            root = shelf.apply(root, [(key, cid(case["value"]))]).root
        assert (root or mst.EMPTY_ROOT) == cid(case["root"])
        for key in order[1:]:
            root = shelf.apply(root, [(key, None)]).root
        if order:
            assert root == oracle({order[0]: cid(case["value"])})[0]


@pytest.mark.parametrize("name", SEQUENCES)
def test_operations_one_by_one(name: str) -> None:
    case = SEQUENCES[name]
    values = [cid(text) for text in vectors("op-sequences")["values"]]
    keys = [key.encode() for key in case["keys"]]
    assert [mst.key_layer(key) for key in keys] == case["heights"]
    shelf = Shelf()
    root: bytes | None = None
    content: dict[bytes, bytes] = {}
    for operation, key_at, value_at, root_after, height, nodes in case["steps"]:
        key = keys[key_at]
        new = values[value_at] if operation == "put" else None
        applied = shelf.apply(root, [(key, new)])
        assert applied.previous == [content.get(key)]
        if new is None:
            content.pop(key, None)
        else:
            content[key] = new
        root = applied.root
        assert root == cid(root_after)
        stats = shelf.check(root, rule=lambda key: True)
        assert (stats.height, stats.nodes) == (height, nodes)
        shelf.cache.discard(applied.removed)
        assert shelf.loads == []  # what was removed is not part of the new tree


def test_exhaustive_pairs() -> None:
    """All 16,384 pairs of subsets of seven keys: apply one way, and diff."""
    data = vectors("exhaustive-7-keys")
    keys = [key.encode() for key in data["keys"]]
    values = [cid(text) for text in data["vals"]]
    names = [cid(text) for text in data["cids"]]
    roots = [cid(root) for root, _ in data["trees"]]
    nodes = [{names[at] for at in held} for _, held in data["trees"]]
    shelf = Shelf()
    for mask in range(128):
        content = {keys[j]: values[j] for j in range(7) if mask >> j & 1}
        root, blocks = oracle(content)
        assert root == roots[mask]
        assert set(blocks) == nodes[mask]
        shelf.blocks.update(blocks)
    shelf.blocks.pop(mst.EMPTY_ROOT)
    for name, block in shelf.blocks.items():
        shelf.cache.add(name, block)
    for a in range(0, 128, 5 if PURE else 1):
        for b in range(128):
            changed = [j for j in range(7) if (a ^ b) >> j & 1]
            batch = [(keys[j], values[j] if b >> j & 1 else None) for j in changed]
            applied = mst.apply(shelf.cache, roots[a], batch)
            assert applied.root == roots[b]
            assert {name for name, _ in applied.blocks} == nodes[b] - nodes[a]
            assert set(applied.removed) == nodes[a] - nodes[b]
            assert applied.previous == [values[j] if a >> j & 1 else None for j in changed]
            assert mst.diff(shelf.cache, roots[a], roots[b]) == [
                (
                    keys[j],
                    values[j] if a >> j & 1 else None,
                    values[j] if b >> j & 1 else None,
                )
                for j in changed
            ]


def large(count: int, size: int, seed: int) -> None:
    """The states of a large recipe set, reached in batches of ``size`` in shuffled cuts."""
    data = vectors(f"large-{count}")
    keys = [recipe_key(i) for i in range(count)]
    assert sha256(b"".join(keys)).hexdigest() == data["keys_sha256"]
    assert sha256(b"".join(sorted(keys))).hexdigest() == data["sorted_keys_sha256"]
    rng = random.Random(seed)
    shelf = Shelf(budget=1 << 30)
    root: bytes | None = None

    def run(changes: list[tuple[bytes, bytes | None]]) -> None:
        nonlocal root
        for batch in cut(changes, size):
            applied = shelf.apply(root, batch)
            root = applied.root
            shelf.cache.discard(applied.removed)
            assert not shelf.loads

    done = 0
    for checkpoint, expected in data["after_inserts"].items():
        span = list(range(done, int(checkpoint)))
        run([(keys[i], recipe_value(i, 0)) for i in rng.sample(span, len(span))])
        assert root == cid(expected)
        done = int(checkpoint)
    assert root is not None
    assert_stats(shelf, root, data["stats_after_inserts"])
    run([(keys[i], recipe_value(i, 1)) for i in range(count) if updated(i)])
    assert root == cid(data["after_updates"])
    gone = [i for i in range(count) if deleted(i)]
    run([(keys[i], None) for i in rng.sample(gone, len(gone))])
    assert root == cid(data["after_deletes"])
    assert_stats(shelf, root, data["stats_after_deletes"])
    run([(keys[i], recipe_value(i, 1 if updated(i) else 0)) for i in gone])
    assert root == cid(data["after_updates"])
    run([(keys[i], None) for i in gone])
    run([(keys[i], None) for i in range(10, count)])
    assert root == cid(data["after_trim_to_10"])
    run([(keys[i], None) for i in range(10)])
    assert root == cid(data["after_all_deleted"]) == mst.EMPTY_ROOT
    assert len(shelf.cache) == 0


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
def test_a_thousand_recipe_keys(size: int) -> None:
    large(1000, size, seed=size)


@pytest.mark.slow
@pytest.mark.skipif(PURE, reason="minutes in plain Python")
@pytest.mark.parametrize("size", [100, 5000])
def test_a_hundred_thousand_recipe_keys(size: int) -> None:
    large(100_000, size, seed=size)


def mutations_of(name: str, base: dict[bytes, bytes]) -> list[tuple[bytes, bytes | None]]:
    """The batch of a vector, from its name as the README spells it out."""
    keys = [recipe_key(i) for i in range(1200)]
    layer_15 = cid("bafyreie5cvv4h45feadgeuwhbcutmh6t2ceseocckahdoe6uat64zmz454")
    under = "delete everything under "
    changes: dict[bytes, bytes | None] = {}
    if name.startswith("no-op"):
        changes = {keys[i]: recipe_value(i, 0) for i in range(100)}
        changes |= {keys[i]: None for i in range(1000, 1100)}
    elif name == "one put, new key i=1000":
        changes = {keys[1000]: recipe_value(1000, 0)}
    elif name == "one update i=0":
        changes = {keys[0]: recipe_value(0, 1)}
    elif name == "one delete i=0":
        changes = {keys[0]: None}
    elif name == "100 new keys 1000..1099":
        changes = {keys[i]: recipe_value(i, 0) for i in range(1000, 1100)}
    elif name.startswith(under):
        prefix = name.removeprefix(under).encode()
        changes = {key: None for key in base if key.startswith(prefix)}
    elif name == "updates, deletes and 200 inserts":
        changes = {keys[i]: recipe_value(i, 0) for i in range(1000, 1200)}
        changes |= {keys[i]: recipe_value(i, 1) for i in range(1000) if updated(i)}
        changes |= {keys[i]: None for i in range(1000) if deleted(i)}
    elif name == "delete the keys of the top node":
        changes = dict.fromkeys(TOP)
    elif name == "insert a key of height 15":
        changes = {b"deep/37741461": layer_15}
    elif name == "insert height 15 and delete the old top keys":
        changes = dict.fromkeys(TOP) | {b"deep/37741461": layer_15}
    elif name == "delete all but i=5":
        changes = {key: None for key in base if key != keys[5]}
    elif name == "delete all":
        changes = dict.fromkeys(base)
    elif name == "replace all 1000 keys by 200 others":
        changes = dict.fromkeys(base)
        changes |= {keys[i]: recipe_value(i, 0) for i in range(1000, 1200)}
    else:
        raise AssertionError(f"an unknown batch: {name}")
    return sorted(changes.items())


@pytest.mark.parametrize("name", BATCHES)
def test_batch_vectors(name: str) -> None:
    case = BATCHES[name]
    base = {recipe_key(i): recipe_value(i, 0) for i in range(1000)}
    root, blocks = oracle(base)
    assert root == cid(vectors("batch")["base_root"])
    shelf = Shelf(blocks=blocks)
    batch = mutations_of(name, base)
    assert len(batch) == case["mutations"]
    joined = b"".join(key + (new or b"") for key, new in batch)
    assert sha256(joined).hexdigest() == case["mutations_sha256"]
    applied = shelf.apply(root, batch)
    assert applied.root == cid(case["root"])
    assert len(applied.blocks) == case["new_nodes"]
    assert sum(len(block) for _, block in applied.blocks) == case["new_bytes"]
    assert set_digest(name for name, _ in applied.blocks) == case["new_sha256"]
    assert len(applied.removed) == case["removed_nodes"]
    assert set_digest(applied.removed) == case["removed_sha256"]
    assert sum(old is not None for old in applied.previous) == case["prior_found"]
    assert len(shelf.loads) == len(set(shelf.loads)) <= case["nodes_loaded_by_reference"]
    back = shelf.apply(applied.root, inverse(batch, applied.previous))
    assert back.root == root


def test_parents_follow_their_children() -> None:
    base = {recipe_key(i): recipe_value(i, 0) for i in range(1000)}
    applied = Shelf().apply(None, list(base.items()))
    seen: set[bytes] = set()
    for name, block in applied.blocks:
        left, entries = mst.decode_node(block)
        assert seen >= {link for link in (left, *(e[2] for e in entries)) if link is not None}
        seen.add(name)
    assert applied.blocks[-1][0] == applied.root


@pytest.mark.parametrize("case", vectors("invalid-trees"), ids=lambda case: case["name"])
def test_invalid_trees_are_refused(case: dict[str, Any]) -> None:
    shelf = Shelf(blocks={cid(name): bytes.fromhex(hex_) for name, hex_ in case["blocks"].items()})
    if case["name"] == "missing block":
        for name, block in shelf.blocks.items():
            shelf.cache.add(name, block)
        with pytest.raises(Missing):
            mst.check_tree(shelf.cache, cid(case["root"]))
        return
    with pytest.raises((FormatError, Corruption)):
        shelf.check(cid(case["root"]))
    with pytest.raises((FormatError, Corruption)):
        shelf.run(lambda cache: mst.check_tree(cache, cid(case["root"])))


@pytest.mark.parametrize("case", vectors("commit-proof-fixtures"), ids=lambda case: case["comment"])
def test_inverse_batch_needs_only_the_commit_proof(case: dict[str, Any]) -> None:
    leaf = cid(case["leafValue"])
    shelf = Shelf()
    before = shelf.apply(None, [(key.encode(), leaf) for key in case["keys"]]).root
    assert before == cid(case["rootBeforeCommit"])
    batch: list[tuple[bytes, bytes | None]] = [(key.encode(), leaf) for key in case["adds"]]
    batch += [(key.encode(), None) for key in case["dels"]]
    batch.sort()
    applied = shelf.apply(before, batch)
    assert applied.root == cid(case["rootAfterCommit"])
    proof = {cid(name) for name in case["blocksInProof"]}
    light = Shelf(blocks={name: shelf.blocks[name] for name in proof})
    back = light.apply(applied.root, inverse(batch, applied.previous))
    assert back.root == before
    assert set(light.loads) <= proof


@pytest.mark.parametrize("case", vectors("adversarial")["cases"], ids=lambda case: case["name"])
def test_adversarial_trees(case: dict[str, Any]) -> None:
    leaf = cid("bafyreie5cvv4h45feadgeuwhbcutmh6t2ceseocckahdoe6uat64zmz454")
    if "keys" in case:
        keys = [key.encode() for key in case["keys"]]
    else:
        count = 8193 if "8193" in case["name"] else 8192
        keys = []
        n = 0
        while len(keys) < count:
            key = b"wide/%07d" % n
            if mst.key_layer(key) == 0:
                keys.append(key)
            n += 1
    shelf = Shelf()
    if "stats" in case:
        applied = shelf.apply(None, [(key, leaf) for key in keys])
        assert applied.root == cid(case["root"])
        assert_stats(shelf, applied.root, case["stats"])
        return
    # One entry over the limit: a writer refuses the key, a reader refuses the block.
    block = mst.encode_node(None, [(key, leaf, None) for key in keys])
    assert len(block) == case["bytes"]
    with pytest.raises(FormatError):
        shelf.cache.add(cid(case["root"]), block)
    refused = shelf.apply(None, [(key, leaf) for key in keys]).refused
    assert refused == [len(keys) - 1]
