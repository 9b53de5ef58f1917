"""Keys, layers and single nodes against the vectors; damaged blocks never pass."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot import mst
from ingot.errors import Corruption, FormatError
from ingot.limits import NODE_BYTES_READ_MAX, NODE_ENTRIES_MAX, TREE_KEY_BYTES_MAX
from ingot.mst import check_node, valid_key
from ingot.mst.verify import any_key
from tests.mst.support import cid, node_cid, value, vectors

HEIGHTS = vectors("key-heights")
NODES = {case["name"]: case for case in vectors("nodes")}


@pytest.mark.parametrize("group", ["interop", "example_keys", "own"])
def test_layers_of_listed_keys(group: str) -> None:
    for case in HEIGHTS[group]:
        assert mst.key_layer(case["key"].encode()) == case["height"], case


def test_layers_of_mined_and_recipe_keys() -> None:
    for case in HEIGHTS["mined"]:
        assert mst.key_layer(case["key"].encode()) == case["height"]
    for key_hex, layer in HEIGHTS["recipe_first_256"]:
        assert mst.key_layer(bytes.fromhex(key_hex)) == layer


@given(st.binary(max_size=80), st.binary(max_size=16))
def test_layer_is_half_the_leading_zero_bits_of_the_salted_hash(key: bytes, salt: bytes) -> None:
    bits = f"{int.from_bytes(sha256(salt + key).digest(), 'big'):0256b}"
    assert mst.key_layer(key, salt) == (len(bits) - len(bits.lstrip("0"))) // 2


def test_salt_changes_layers() -> None:
    keys = [b"k%d" % n for n in range(64)]
    assert [mst.key_layer(k) for k in keys] != [mst.key_layer(k, b"salt") for k in keys]


@pytest.mark.parametrize("group", ["interop", "wide", "own"])
def test_shared_prefix_is_counted_in_bytes(group: str) -> None:
    for case in vectors("common-prefix")[group]:
        low, high = sorted((case["left"].encode(), case["right"].encode()))
        if low == high or not low:
            continue  # no two keys of one node
        block = mst.encode_node(None, [(low, value(0), None), (high, value(0), None)])
        assert cbor2.loads(block)["e"][1]["p"] == case["len"], case


def test_key_validity() -> None:
    cases = vectors("key-validity")
    for key_hex, why in cases["valid"]:
        assert valid_key(bytes.fromhex(key_hex)), why
    for key_hex, why in cases["invalid"]:
        assert not valid_key(bytes.fromhex(key_hex)), why


def content(case: dict[str, Any]) -> tuple[bytes | None, list[tuple[bytes, bytes, bytes | None]]]:
    entries = [
        (bytes.fromhex(e["key_hex"]), cid(e["v"]), None if e["t"] is None else cid(e["t"]))
        for e in case["e"]
    ]
    return None if case["l"] is None else cid(case["l"]), entries


@pytest.mark.parametrize("name", NODES)
def test_node_vectors_both_ways(name: str) -> None:
    case = NODES[name]
    block = bytes.fromhex(case["hex"])
    assert node_cid(block) == cid(case["cid"])
    left, entries = content(case)
    assert mst.encode_node(left, entries) == block
    assert mst.decode_node(block) == (left, entries)
    cache = mst.NodeCache(1 << 20)
    cache.add(cid(case["cid"]), block)
    assert cache.block(cid(case["cid"])) == block
    for key, expected, _ in entries:
        assert mst.get(cache, cid(case["cid"]), key) == expected


def test_nodes_read_as_plain_cbor() -> None:
    """The layout is DAG-CBOR, so an independent decoder must find the same fields."""
    for case in NODES.values():
        plain = cbor2.loads(bytes.fromhex(case["hex"]))
        assert list(plain) == ["e", "l"]
        assert [e["p"] for e in plain["e"]] == [e["p"] for e in case["e"]]


def test_empty_tree() -> None:
    assert bytes.fromhex(NODES["empty tree"]["hex"]) == mst.EMPTY_BLOCK
    assert node_cid(mst.EMPTY_BLOCK) == mst.EMPTY_ROOT


# What the format alone cannot show: it takes the key rule or the layer function.
BEYOND_THE_FORMAT = {
    "key with NUL",
    "key of 1025 bytes",
    "key not UTF-8",
    "key with surrogate",
    "keys of two heights in one node",
    "child link at layer 0",
    "left link at layer 0",
}


@pytest.mark.parametrize("case", vectors("invalid-nodes"), ids=lambda case: case["name"])
def test_invalid_nodes_are_refused(case: dict[str, Any]) -> None:
    block = bytes.fromhex(case["hex"])
    with pytest.raises((FormatError, Corruption)):
        check_node(block)
    cache = mst.NodeCache(1 << 20)
    if case["name"] not in BEYOND_THE_FORMAT:
        with pytest.raises(FormatError) as caught:
            cache.add(node_cid(block), block)
        assert 0 <= caught.value.offset <= len(block)
        assert len(cache) == 0 and cache.bytes_used == 0
        with pytest.raises(FormatError):
            mst.decode_node(block)


def block_of(count: int, shared: bytes = b"") -> bytes:
    entries = [(shared + b"%07d" % n, value(0), None) for n in range(count)]
    return mst.encode_node(None, entries)


def test_reader_limits() -> None:
    cache = mst.NodeCache(1 << 24)
    for block, fits in [
        (block_of(NODE_ENTRIES_MAX), True),
        (block_of(NODE_ENTRIES_MAX + 1), False),
        (mst.encode_node(None, [(b"k" * TREE_KEY_BYTES_MAX, value(0), None)]), True),
    ]:
        if fits:
            cache.add(node_cid(block), block)
        else:
            with pytest.raises(FormatError):
                cache.add(node_cid(block), block)
    with pytest.raises(ValueError):
        mst.encode_node(None, [(b"k" * (TREE_KEY_BYTES_MAX + 1), value(0), None)])
    with pytest.raises(FormatError) as caught:
        cache.add(value(1), bytes(NODE_BYTES_READ_MAX + 1))
    assert caught.value.offset == NODE_BYTES_READ_MAX


@pytest.mark.parametrize(
    "entries",
    [
        [(b"", value(0), None)],
        [(b"b", value(0), None), (b"a", value(0), None)],
        [(b"a", value(0), None), (b"a", value(0), None)],
        [(b"a", b"", None)],
        [(b"a", value(0)[:-1], None)],
        [(b"a", value(0), value(0)[:-1])],
        [(b"a", value(0), b"\x01\x55" + value(0)[2:])],
    ],
)
def test_encode_refuses_what_no_node_holds(
    entries: list[tuple[bytes, bytes, bytes | None]],
) -> None:
    with pytest.raises(ValueError):
        mst.encode_node(None, entries)


CIDS = st.binary(min_size=32, max_size=32).map(lambda digest: b"\x01\x71\x12\x20" + digest)
VALUES = CIDS | st.sampled_from([cid(e["v"]) for case in NODES.values() for e in case["e"]])
KEYS = st.binary(min_size=1, max_size=6) | st.binary(min_size=1, max_size=TREE_KEY_BYTES_MAX)


@st.composite
def nodes(draw: st.DrawFn) -> tuple[bytes | None, list[tuple[bytes, bytes, bytes | None]]]:
    shared = draw(st.sampled_from([b"", b"x" * 30, b"y" * 300]))
    keys = sorted({shared + key[: TREE_KEY_BYTES_MAX - 300] for key in draw(st.lists(KEYS))})
    entries = [(key, draw(VALUES), draw(st.none() | CIDS)) for key in keys]
    return draw(st.none() | CIDS), entries


@given(nodes())
def test_decode_inverts_encode(
    node: tuple[bytes | None, list[tuple[bytes, bytes, bytes | None]]],
) -> None:
    assert mst.decode_node(mst.encode_node(*node)) == node


BLOCKS = st.sampled_from([bytes.fromhex(case["hex"]) for case in NODES.values()]) | nodes().map(
    lambda node: mst.encode_node(*node)
)


@given(BLOCKS, st.data())
def test_damaged_blocks_are_refused_or_are_what_an_encoder_writes(
    block: bytes, data: st.DataObject
) -> None:
    """Whatever decodes must encode to the same bytes: no map has a second encoding."""
    damaged = bytearray(block)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged)))
        how = data.draw(st.sampled_from(["flip", "insert", "cut", "truncate", "head"]))
        if how == "flip" and at < len(damaged):
            damaged[at] ^= 1 << data.draw(st.integers(0, 7))
        elif how == "insert":
            damaged[at:at] = data.draw(st.binary(min_size=1, max_size=4))
        elif how == "cut":
            del damaged[at : at + data.draw(st.integers(1, 50))]
        elif how == "truncate":
            del damaged[at:]
        elif how == "head" and at < len(damaged):
            damaged[at] = data.draw(st.sampled_from([0x00, 0x58, 0x59, 0x5A, 0x98, 0x99, 0xFF]))
    result = bytes(damaged)
    cache = mst.NodeCache(1 << 24)
    try:
        left, entries = mst.decode_node(result)
    except FormatError as error:
        assert 0 <= error.offset <= len(result)
        with pytest.raises(FormatError) as again:
            cache.add(node_cid(result), result)
        assert str(again.value) == str(error)
        return
    assert mst.encode_node(left, entries) == result
    cache.add(node_cid(result), result)
    for key, expected, _ in entries:
        assert mst.get(cache, node_cid(result), key) == expected


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(FormatError):
        mst.decode_node(b"\xa2\x61\x65\x81" + noise)


def test_check_node_wants_the_place_its_parent_gives() -> None:
    low, high = b"k/00", b"k/02"
    entries = [(key, value(0), None) for key in (low, high) if mst.key_layer(key) == 0]
    block = mst.encode_node(None, entries[:1])
    key = entries[0][0]
    assert check_node(block, 0, b"a", b"z")[2] == entries[:1]
    for lower, upper in [(key, None), (None, key), (key + b"\x00", None), (b"z", None)]:
        with pytest.raises(Corruption):
            check_node(block, 0, lower, upper)
    with pytest.raises(Corruption):
        check_node(block, 1)
    with pytest.raises(Corruption):
        check_node(mst.EMPTY_BLOCK)
    with pytest.raises(Corruption):
        check_node(mst.EMPTY_BLOCK, 0)
    odd = mst.encode_node(None, [(b"a\x00b", value(0), None)])
    layer = mst.key_layer(b"a\x00b")
    assert check_node(odd, layer, rule=any_key)[0] == layer
    with pytest.raises(Corruption):
        check_node(odd, layer)
