"""Proofs of presence and absence: the vectors, minimal paths, and forgeries that must not pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot import mst
from ingot.errors import Corruption, FormatError, Missing
from tests.mst.support import (
    Shelf,
    cid,
    keys_by_layer,
    node_cid,
    oracle,
    recipe_key,
    recipe_value,
    value,
    vectors,
)

PROOFS = vectors("proofs")


@pytest.fixture(scope="module")
def thousand() -> tuple[bytes, dict[bytes, bytes]]:
    root, blocks = oracle({recipe_key(i): recipe_value(i, 0) for i in range(1000)})
    assert root == cid(PROOFS["root"])
    return root, blocks


@pytest.mark.parametrize("at", range(len(PROOFS["proofs"])))
def test_vectors(at: int, thousand: tuple[bytes, dict[bytes, bytes]]) -> None:
    case = PROOFS["proofs"][at]
    root, blocks = thousand
    key = bytes.fromhex(case["key_hex"])
    expected = None if case["value"] is None else cid(case["value"])
    shelf = Shelf(blocks=blocks)
    proof = shelf.run(lambda cache: mst.prove(cache, root, key))
    assert [node_cid(block) for block in proof] == [cid(name) for name in case["path"]]
    assert mst.check_proof(root, key, proof) == expected
    assert mst.get(shelf.cache, root, key) == expected if expected else True
    more = [*reversed(proof), *list(blocks.values())[:20]]
    assert mst.check_proof(root, key, more) == expected
    for missing in range(len(proof)):
        with pytest.raises(Missing):
            mst.check_proof(root, key, proof[:missing] + proof[missing + 1 :])


def test_a_changed_block_proves_nothing(thousand: tuple[bytes, dict[bytes, bytes]]) -> None:
    root, blocks = thousand
    key = recipe_key(5)
    proof = Shelf(blocks=blocks).run(lambda cache: mst.prove(cache, root, key))
    for at, block in enumerate(proof):
        forged = block.replace(recipe_value(5, 0), recipe_value(6, 0))
        if forged == block:
            forged = bytes([block[0] ^ 1]) + block[1:]
        with pytest.raises((Missing, FormatError, Corruption)):
            mst.check_proof(root, key, [*proof[:at], forged, *proof[at + 1 :]])


def test_a_foreign_tree_cannot_hide_a_key() -> None:
    """Nodes that are well-formed but out of place: the checker looks at layers and ranges."""
    low = keys_by_layer()[0][0]
    leaf = mst.encode_node(None, [(low, value(0), None)])
    for top in keys_by_layer()[2][:4]:  # a leaf two layers below
        links = (None, node_cid(leaf)) if low > top else (node_cid(leaf), None)
        root = mst.encode_node(links[0], [(top, value(1), links[1])])
        with pytest.raises(Corruption):
            mst.check_proof(node_cid(root), low, [root, leaf])
    for top in keys_by_layer()[1][:4]:  # a leaf on the wrong side of its separator
        links = (node_cid(leaf), None) if low > top else (None, node_cid(leaf))
        root = mst.encode_node(links[0], [(top, value(1), links[1])])
        step = -1 if low > top else 1
        sought = next(
            key
            for n in range(100)
            if mst.key_layer(key := (top[:-1] + b"%d" % n if step < 0 else top + b"%d" % n)) == 0
        )
        with pytest.raises(Corruption):
            mst.check_proof(node_cid(root), sought, [root, leaf])


@given(
    content=st.sets(st.integers(0, 7), max_size=8).flatmap(
        lambda layers: st.dictionaries(
            st.sampled_from([key for layer in layers for key in keys_by_layer()[layer]] or [b"k"]),
            st.integers(0, 9).map(value),
            max_size=25,
        )
    ),
    layer=st.integers(0, 9),
    which=st.integers(0, 11),
    salt=st.sampled_from([b"", b"a salt"]),
)
def test_every_key_can_be_proved(
    content: dict[bytes, bytes], layer: int, which: int, salt: bytes
) -> None:
    pool = keys_by_layer()[layer]
    key = pool[which % len(pool)]
    root, blocks = oracle(content, salt)
    blocks.pop(mst.EMPTY_ROOT, None)
    shelf = Shelf(blocks=blocks)
    proof = shelf.run(lambda cache: mst.prove(cache, root, key, salt))
    assert mst.check_proof(root, key, proof, salt) == content.get(key)
    assert mst.check_proof(root, key, blocks.values(), salt) == content.get(key)


def test_the_empty_tree_needs_no_proof() -> None:
    cache = mst.NodeCache(1 << 20)
    for root in (None, mst.EMPTY_ROOT):
        assert mst.prove(cache, root, b"key") == []
        assert mst.check_proof(root, b"key", []) is None
