"""DAG-CBOR: one block a value, checked against two other implementations and the vectors."""

from __future__ import annotations

import base64
import json
import math
import struct
from pathlib import Path
from typing import Any

import cbor2
import dag_cbor as oracle
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multiformats import CID

from ingot.codec import cid, dag_cbor
from ingot.codec.dag_cbor import Cid
from ingot.errors import FormatError
from ingot.limits import CBOR_BYTES_MAX, CBOR_DEPTH_MAX

VECTORS = json.loads(
    (Path(__file__).parents[1] / "vectors" / "forge" / "dag-cbor.json").read_text()
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
LINKS = st.builds(
    lambda block, raw: Cid(cid.of_chunk(block) if raw else cid.of_structure(block)),
    st.binary(max_size=8),
    st.booleans(),
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 64), (1 << 64) - 1)
    | st.integers(-300, 300)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
    | st.binary(max_size=300)
    | LINKS
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(TEXT, inner, max_size=6),
    max_leaves=30,
)


def to_oracle(value: Any) -> Any:
    if type(value) is Cid:
        return CID.decode(bytes(value))
    if isinstance(value, list):
        return [to_oracle(item) for item in value]
    if isinstance(value, dict):
        return {key: to_oracle(item) for key, item in value.items()}
    return value


def from_dag_json(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {"/"}:
        inner = value["/"]
        if isinstance(inner, str):
            return cid.from_text(inner)
        return base64.b64decode(inner["bytes"] + "==")
    if isinstance(value, dict):
        return {key: from_dag_json(item) for key, item in value.items()}
    return [from_dag_json(item) for item in value] if isinstance(value, list) else value


def same(a: Any, b: Any) -> bool:
    """Equal, and of equal types all the way down: 1, 1.0 and True are three values."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, float):
        return struct.pack(">d", a) == struct.pack(">d", b)
    return bool(a == b)


@given(VALUES)
def test_same_bytes_as_the_oracle(value: Any) -> None:
    block = dag_cbor.encode(value)
    assert block == oracle.encode(to_oracle(value))
    assert same(dag_cbor.decode(block), value)


@given(VALUES)
def test_any_cbor_tool_reads_it(value: Any) -> None:
    def plain(value: Any) -> Any:
        if type(value) is Cid:
            return cbor2.CBORTag(42, b"\0" + value)
        if isinstance(value, list):
            return [plain(item) for item in value]
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return value

    assert cbor2.loads(dag_cbor.encode(value)) == plain(value)


@given(st.dictionaries(TEXT, st.integers(0, 9), min_size=2))
def test_insertion_order_does_not_matter(value: dict[str, int]) -> None:
    turned = dict(reversed(value.items()))
    assert dag_cbor.encode(turned) == dag_cbor.encode(value)
    keys = list(dag_cbor.decode(dag_cbor.encode(value)))  # type: ignore[call-overload]
    assert keys == sorted(value, key=lambda key: (len(key.encode()), key.encode()))


@given(st.binary(max_size=60))
@example(b"\xf9\x00\x00")
@example(b"\x9f\xff")
def test_what_decodes_encodes_to_the_same_bytes(block: bytes) -> None:
    try:
        value = dag_cbor.decode(block)
    except FormatError as error:
        assert 0 <= error.offset <= len(block)
        return
    assert dag_cbor.encode(value) == block


@given(VALUES, st.data())
def test_damage_is_refused_or_another_value(value: Any, data: st.DataObject) -> None:
    block = bytearray(dag_cbor.encode(value))
    at = data.draw(st.integers(0, len(block) - 1))
    how = data.draw(st.sampled_from(["flip", "cut", "insert"]))
    if how == "flip":
        block[at] ^= data.draw(st.integers(1, 255))
    elif how == "cut":
        del block[at:]
    else:
        block[at:at] = data.draw(st.binary(min_size=1, max_size=3))
    try:
        decoded = dag_cbor.decode(bytes(block))
    except FormatError:
        return
    assert dag_cbor.encode(decoded) == block
    if b"\xd8\x2a" not in block:  # of links it knows only those in its table of codecs
        oracle.decode(bytes(block))


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_vectors(case: dict[str, Any]) -> None:
    block, value = bytes.fromhex(case["hex"]), from_dag_json(case["value"])
    assert dag_cbor.encode(value) == block
    assert same(dag_cbor.decode(block), value)


@pytest.mark.parametrize("case", VECTORS["decodeQuirks"], ids=lambda case: case["name"])
def test_what_other_writers_get_wrong_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        dag_cbor.decode(bytes.fromhex(case["hex"]))


def test_what_other_writers_get_wrong_is_taken_by_name() -> None:
    by_bytes, binary = (bytes.fromhex(case["hex"]) for case in VECTORS["decodeQuirks"])
    for keys in (dag_cbor.SORTED_KEYS, dag_cbor.BINARY_KEYS):
        assert dag_cbor.decode(by_bytes, keys) == {"aa": 1, "b": 2}
    with pytest.raises(FormatError, match="UTF-8"):
        dag_cbor.decode(binary, dag_cbor.SORTED_KEYS)
    ((key, number),) = dag_cbor.decode(binary, dag_cbor.BINARY_KEYS).items()  # type: ignore[attr-defined]
    assert (key.encode("utf-8", "surrogateescape"), number) == (b"\xff\xfe", 1)


@given(st.dictionaries(TEXT, st.integers(0, 9), max_size=6), st.permutations(range(6)))
def test_an_order_of_keys_is_taken_whole_or_not_at_all(
    value: dict[str, int], turns: list[int]
) -> None:
    """A map in either of the two orders is the same value; in any other order it is refused."""
    names = [name.encode() for name in value]
    names = [names[turn] for turn in turns if turn < len(names)]
    entries = [dag_cbor.encode(name.decode()) + bytes([value[name.decode()]]) for name in names]
    block = bytes([0xA0 + len(names)]) + b"".join(entries)
    if names in (sorted(names), sorted(names, key=lambda name: (len(name), name))):
        assert dag_cbor.decode(block, dag_cbor.SORTED_KEYS) == value
    else:
        with pytest.raises(FormatError, match="sorts after"):
            dag_cbor.decode(block, dag_cbor.BINARY_KEYS)


def test_a_key_twice_is_refused_in_any_order() -> None:
    for block in ("a2616100616100", "a362616100616200616200", "a361620061620062616100"):
        with pytest.raises(FormatError):
            dag_cbor.decode(bytes.fromhex(block), dag_cbor.BINARY_KEYS)


LINK = "d82a58250001551220" + "00" * 32


@pytest.mark.parametrize(
    ("block", "offset", "expected"),
    [
        ("", 0, "a value"),
        ("0000", 1, "the end"),
        ("1817", 0, "shortest"),
        ("190017", 0, "shortest"),
        ("1a0000ffff", 0, "shortest"),
        ("1b00000000ffffffff", 0, "shortest"),
        ("3817", 0, "shortest"),
        ("5800", 0, "shortest"),
        ("18", 0, "argument"),
        ("1bffffff", 0, "argument"),
        ("1c", 0, "definite"),
        ("5f4100ff", 0, "definite"),
        ("7f6161ff", 0, "definite"),
        ("9f00ff", 0, "definite"),
        ("bf616100ff", 0, "definite"),
        ("8200", 0, "room for 2"),
        ("8100" + "9b7fffffffffffffff", 2, "the end"),
        ("9b7fffffffffffffff", 0, "room"),
        ("bb7fffffffffffffff", 0, "room"),
        ("5b7fffffffffffffff00", 0, "a string of"),
        ("7bffffffffffffffff00", 0, "a string of"),
        ("61ff", 1, "UTF-8"),
        ("63e28261", 1, "UTF-8"),
        ("62c080", 1, "UTF-8"),  # NUL, overlong
        ("63eda080", 1, "UTF-8"),  # a surrogate
        ("a10000", 1, "text"),
        ("a1410000", 1, "text"),
        ("a2616100616100", 4, "sorts after"),
        ("a2616200616100", 4, "sorts after"),
        ("a262616100616200", 5, "sorts after"),
        ("c000", 0, "tag 42"),
        ("d82b00", 0, "tag 42"),
        ("d82a00", 2, "byte string"),
        ("d82a40", 3, "00 before"),
        ("d82a4101", 3, "00 before"),
        ("d82a4100", 4, "a CIDv1"),
        ("d82a58230012200000" + "00" * 30, 5, "a CIDv1"),  # CIDv0
        ("d82a5824000155122000" + "00" * 30, 9, "a CIDv1"),  # a digest cut short
        ("d82a58260001d5001220" + "00" * 32, 6, "a CIDv1"),  # a varint too long
        ("f4f4", 1, "the end"),
        ("f7", 0, "false, true, null"),
        ("f0", 0, "false, true, null"),
        ("f820", 0, "false, true, null"),
        ("f97e00", 0, "false, true, null"),
        ("f93c00", 0, "false, true, null"),
        ("fa3f800000", 0, "false, true, null"),
        ("fb3ff00000000000", 0, "8 bytes"),
        ("fb7ff0000000000000", 0, "finite"),
        ("fbfff0000000000000", 0, "finite"),
        ("fb7ff8000000000000", 0, "finite"),
        ("ff", 0, "false, true, null"),
        (LINK + "00", 41, "the end"),
    ],
)
def test_malformed(block: str, offset: int, expected: str) -> None:
    with pytest.raises(FormatError) as caught:
        dag_cbor.decode(bytes.fromhex(block))
    assert caught.value.offset == offset, caught.value
    assert expected in caught.value.expected
    assert str(offset) in str(caught.value)


def test_depth_is_bounded() -> None:
    block = b"\x81" * CBOR_DEPTH_MAX + b"\x00"
    value = dag_cbor.decode(block)
    assert dag_cbor.encode(value) == block
    with pytest.raises(FormatError) as caught:
        dag_cbor.decode(b"\x81" + block)
    assert caught.value.offset == CBOR_DEPTH_MAX
    with pytest.raises(ValueError, match="levels"):
        dag_cbor.encode([value])
    nested: object = 0
    for _ in range(CBOR_DEPTH_MAX + 1):
        nested = {"a": nested}
    with pytest.raises(ValueError, match="levels"):
        dag_cbor.encode(nested)


def test_size_is_bounded() -> None:
    fits = b"x" * (CBOR_BYTES_MAX - 5)
    assert dag_cbor.decode(dag_cbor.encode(fits)) == fits
    with pytest.raises(ValueError, match="bytes"):
        dag_cbor.encode(fits + b"x")
    with pytest.raises(FormatError):
        dag_cbor.decode(b"\x5a" + (CBOR_BYTES_MAX - 4).to_bytes(4, "big") + fits + b"x")


@pytest.mark.parametrize(
    "value", [1 << 64, -(1 << 64) - 1, math.nan, math.inf, -math.inf, "\ud800"]
)
def test_values_without_an_encoding(value: object) -> None:
    with pytest.raises(ValueError):  # UnicodeEncodeError is one too
        dag_cbor.encode(value)


@pytest.mark.parametrize(
    "cid_bytes", [b"", b"\x00", b"\x01\x55\x12\x20short", b"\x12\x20" + b"0" * 32]
)
def test_a_link_must_be_a_cid(cid_bytes: bytes) -> None:
    with pytest.raises(ValueError, match="CIDv1"):
        dag_cbor.encode(Cid(cid_bytes))


class Number(int):
    pass


@pytest.mark.parametrize(
    "value", [object(), {1}, {1: 2}, {b"a": 1}, Number(1), 1j, bytearray(b"x")]
)
def test_types_outside_the_model(value: object) -> None:
    with pytest.raises(TypeError):
        dag_cbor.encode([value])


def test_decodes_any_buffer() -> None:
    block = dag_cbor.encode({"a": b"x"})
    assert dag_cbor.decode(memoryview(block)) == dag_cbor.decode(bytearray(block)) == {"a": b"x"}
    assert dag_cbor.decode(memoryview(b"__" + block)[2:]) == {"a": b"x"}
