"""The blocks of versions and state, byte for byte, and what is refused; order keys and ids."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.bucket.leaf import (
    COMPLIANCE,
    LEAF,
    MODES,
    STATE,
    Acl,
    Leaf,
    Retention,
    State,
    decode_leaf,
    decode_state,
    encode_leaf,
    encode_state,
    is_order_key,
    is_version_id,
    order_key,
    order_of,
    version_id,
)
from ingot.codec import dag_cbor
from ingot.codec.dag_cbor import Cid
from ingot.errors import FormatError

RECORD = b"\x01\x71\x12\x20" + b"r" * 32
OTHER = b"\x01\x71\x12\x20" + b"o" * 32
THIRD = b"\x01\x71\x12\x20" + b"t" * 32
ORDER = order_key(7, 1)
ID = version_id(ORDER, b"12345678")
LINK = "d82a58250001711220"

LEAF_VECTORS = [
    (
        Leaf(RECORD, ID),
        "a16c696e676f742f6c6561664031a2"
        f"6763757272656e74{LINK}{'72' * 32}"
        f"6776657273696f6e7828{ID.encode().hex()}",
    ),
    (
        Leaf(RECORD, None, OTHER),
        "a16c696e676f742f6c6561664031a2"
        f"657374617465{LINK}{'6f' * 32}"
        f"6763757272656e74{LINK}{'72' * 32}",
    ),
    (
        Leaf(RECORD, ID, OTHER, THIRD, ORDER),
        "a16c696e676f742f6c6561664031a5"
        f"646e756c6c7818{ORDER.encode().hex()}"
        f"656f6c646572{LINK}{'74' * 32}"
        f"657374617465{LINK}{'6f' * 32}"
        f"6763757272656e74{LINK}{'72' * 32}"
        f"6776657273696f6e7828{ID.encode().hex()}",
    ),
]
STATE_VECTORS = [
    (State(hold=True), "a16d696e676f742f73746174654031a164686f6c64f5"),
    (State(hold=False), "a16d696e676f742f73746174654031a164686f6c64f4"),
    (
        State({"b": "", "aa": "x"}),
        "a16d696e676f742f73746174654031a16474616773a261626062616161" + "78",
    ),
    (
        State({"a": "x"}, Retention(COMPLIANCE, 256), True),
        "a16d696e676f742f73746174654031a3"
        "64686f6c64f5"
        "6474616773a161616178"
        "69726574656e74696f6ea2646d6f64656a434f4d504c49414e4345"
        "65756e74696c190100",
    ),
    (
        State(acl=Acl("o", "n", (("o", "FULL"), ("a", "READ")))),
        "a16d696e676f742f73746174654031a16361636ca3"
        "646e616d65616e"
        "656f776e6572616f"
        "666772616e74738282616f6446554c4c82616164" + b"READ".hex(),
    ),
    (
        State(hold=True, acl=Acl("o", "")),
        "a16d696e676f742f73746174654031a26361636ca2646e616d6560656f776e6572616f64686f6c64f5",
    ),
]


@pytest.mark.parametrize(("leaf", "expected"), LEAF_VECTORS)
def test_leaf_vectors(leaf: Leaf, expected: str) -> None:
    assert encode_leaf(leaf).hex() == expected
    assert decode_leaf(bytes.fromhex(expected)) == leaf


@pytest.mark.parametrize(("state", "expected"), STATE_VECTORS)
def test_state_vectors(state: State, expected: str) -> None:
    assert encode_state(state).hex() == expected
    assert decode_state(bytes.fromhex(expected)) == state


def test_links_of_a_leaf_are_plain_bytes_and_found_by_any_walk() -> None:
    leaf = decode_leaf(encode_leaf(Leaf(RECORD, ID, OTHER, THIRD)))
    assert [type(link) for link in (leaf.current, leaf.state, leaf.older)] == [bytes] * 3
    block = encode_leaf(Leaf(RECORD, ID, OTHER, THIRD))
    assert sorted(dag_cbor.links(block)) == sorted([RECORD, OTHER, THIRD])


@pytest.mark.parametrize(
    "leaf",
    [
        Leaf(RECORD),  # its record says the same
        Leaf(RECORD, "v1"),
        Leaf(RECORD, ID.upper()),
        Leaf(RECORD, ID, None, OTHER, "12"),
        Leaf(RECORD, ID, None, None, ORDER),  # nothing older
        Leaf(RECORD, None, None, OTHER, ORDER),  # two null versions
    ],
)
def test_a_leaf_that_is_none(leaf: Leaf) -> None:
    with pytest.raises(ValueError, match="expected"):
        encode_leaf(leaf)
    fields: dict[str, Any] = {"null": leaf.null, "version": leaf.version, "current": Cid(RECORD)}
    if leaf.older is not None:
        fields["older"] = Cid(leaf.older)
    block = dag_cbor.wrap(LEAF, {k: v for k, v in fields.items() if v is not None})
    with pytest.raises(FormatError):
        decode_leaf(block)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"hold": 1},
        {"tags": {}},
        {"tags": {"a": 1}},
        {"tags": {"": "a"}},
        {"retention": {"mode": "LATER", "until": 1}},
        {"retention": {"mode": COMPLIANCE}},
        {"retention": {"mode": COMPLIANCE, "until": -1}},
        {"retention": {"mode": COMPLIANCE, "until": 1, "more": 1}},
        {"hold": True, "more": 1},
        {"acl": {}},
        {"acl": {"owner": "o"}},
        {"acl": {"owner": "", "name": "n"}},
        {"acl": {"owner": "o", "name": "n", "grants": []}},
        {"acl": {"owner": "o", "name": "n", "grants": [["a"]]}},
        {"acl": {"owner": "o", "name": "n", "grants": [["a", 1]]}},
        {"acl": {"owner": "o", "name": "n", "grants": [["a", "b"], ["a", "b"]]}},
        {"acl": {"owner": "o", "name": "n", "more": 1}},
    ],
)
def test_a_state_that_is_none(fields: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        decode_state(dag_cbor.wrap(STATE, fields))


def test_a_state_without_a_word_has_no_block() -> None:
    with pytest.raises(ValueError, match="nothing"):
        encode_state(State())
    with pytest.raises(ValueError, match="retention"):
        encode_state(State(retention=Retention("LATER", 1)))
    with pytest.raises(ValueError, match="name"):
        encode_state(State({"": "x"}))
    for acl in (Acl("", "n"), Acl("o", "n", (("a", "b"), ("a", "b")))):
        with pytest.raises(ValueError, match="access control list"):
            encode_state(State(acl=acl))


GRANTS = st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), unique=True, max_size=3)
GRANTS = GRANTS.map(tuple)


@given(
    st.builds(
        State,
        st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=8), max_size=4),
        st.none() | st.builds(Retention, st.sampled_from(MODES), st.integers(0, 1 << 60)),
        st.booleans(),
        st.none() | st.builds(Acl, st.text(min_size=1, max_size=4), st.text(max_size=4), GRANTS),
    )
)
def test_states_come_back(state: State) -> None:
    if state:
        assert decode_state(encode_state(state)) == state


@given(st.binary(max_size=80))
def test_damaged_blocks_are_format_errors(data: bytes) -> None:
    for read, good in ((decode_leaf, LEAF_VECTORS[2][1]), (decode_state, STATE_VECTORS[2][1])):
        block = bytearray(bytes.fromhex(good))
        block[15 : 15 + len(data)] = data
        if bytes(block) != bytes.fromhex(good):
            try:
                read(bytes(block))
            except FormatError:
                pass


@given(
    st.tuples(st.integers(0, 1 << 63), st.integers(0, 1 << 31)),
    st.tuples(st.integers(0, 1 << 63), st.integers(0, 1 << 31)),
    st.binary(min_size=8, max_size=8),
)
def test_order_keys_ascend_from_the_newest(
    one: tuple[int, int], other: tuple[int, int], token: bytes
) -> None:
    """VST-2: ids need no clock to be in order, and are URL-safe."""
    assert (order_key(*one) < order_key(*other)) == (one > other)
    made = version_id(order_key(*one), token)
    assert order_of(made) == order_key(*one) and is_order_key(order_of(made))
    assert is_version_id(made) and made.isalnum() and made != "null"
