"""The compiled DAG-CBOR and layouts beside their twins: the same signatures, values and errors."""

from __future__ import annotations

import inspect
import random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingot._speedups import cbor_py, layout_py
from ingot._speedups.cbor_py import Cid
from ingot.errors import FormatError

cbor_c: Any = pytest.importorskip("ingot._speedups.cbor_c")
layout_c: Any = pytest.importorskip("ingot._speedups.layout_c")
KINDS = layout_py.KINDS

LINKS = st.sampled_from(
    [Cid(bytes.fromhex(head) + b"d" * 32) for head in ("01551220", "01711220", "0182041220")]
    + [Cid(bytes.fromhex("01550004") + b"text"), Cid(b"no link")]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 65), 1 << 65),
    st.sampled_from([0, 23, 24, 255, 256, 65535, 65536, (1 << 32) - 1, 1 << 32, (1 << 64) - 1]),
    st.floats(),
    st.text(max_size=30),
    st.binary(max_size=40),
    LINKS,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=20,
)
ALL = [(chr(ord("a") + at), kind + "?") for at, kind in enumerate(KINDS)]
FIXED = [
    ("k", "utf8"),
    ("n", "uint"),
    ("chunks", "entries?"),
    ("etag99", "text"),
    ("zzzzzz", "true?"),
]
SOME = [("n", "uint"), ("etag99", "text"), ("zzzzzz", "true?")]


def outcome(function: Any, *arguments: Any) -> tuple[str, Any]:
    try:
        result = function(*arguments)
    except FormatError as error:
        return "format", (error.offset, error.expected, error.found)
    except (TypeError, ValueError):
        return "refused", None
    return "value", (repr(result), types_of(result))


def types_of(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value), [types_of(item) for item in value]
    if isinstance(value, dict):
        return dict, [(types_of(key), types_of(item)) for key, item in value.items()]
    return type(value)


@pytest.mark.parametrize(("compiled", "plain"), [(cbor_c, cbor_py), (layout_c, layout_py)])
def test_names_signatures_and_docstrings(compiled: Any, plain: Any) -> None:
    members = [(getattr(compiled, name), getattr(plain, name)) for name in plain.__all__]
    if compiled is layout_c:
        methods = ("encode", "decode", "pick")
        members += [(getattr(compiled.Layout, n), getattr(plain.Layout, n)) for n in methods]
    for one, other in members:
        assert inspect.getdoc(one) == inspect.getdoc(other)
        if inspect.isroutine(other):
            assert inspect.signature(one, eval_str=True) == inspect.signature(other, eval_str=True)


@given(VALUES)
def test_encode_and_back(value: Any) -> None:
    compiled = outcome(cbor_c.encode, value)
    assert compiled == outcome(cbor_py.encode, value)
    if compiled[0] == "value":
        block = cbor_c.encode(value)
        assert outcome(cbor_c.decode, block) == outcome(cbor_py.decode, block)


def links_in(value: Any) -> list[bytes]:
    if isinstance(value, Cid):
        return [bytes(value)]
    if isinstance(value, dict):
        value = [value[key] for key in sorted(value, key=lambda k: (len(k.encode()), k.encode()))]
    return [link for item in value for link in links_in(item)] if isinstance(value, list) else []


@given(VALUES)
def test_links_are_those_of_the_value(value: Any) -> None:
    if outcome(cbor_c.encode, value)[0] != "value":
        return
    block = cbor_c.encode(value)
    found = cbor_py.links(block)
    assert found == links_in(cbor_py.decode(block))
    assert outcome(cbor_c.links, block) == outcome(cbor_py.links, block)


@given(st.binary(max_size=50))
def test_links_of_anything(block: bytes) -> None:
    assert outcome(cbor_c.links, block) == outcome(cbor_py.links, block)


@given(st.binary(max_size=50))
def test_decode_anything(block: bytes) -> None:
    for keys in range(3):
        assert outcome(cbor_c.decode, block, keys) == outcome(cbor_py.decode, block, keys)
    assert outcome(cbor_c.decode, block) == outcome(cbor_py.decode, block)
    assert cbor_c.check_cid(block) == cbor_py.check_cid(block)


@given(VALUES, st.data())
def test_decode_what_is_nearly_right(value: Any, data: st.DataObject) -> None:
    if outcome(cbor_c.encode, value)[0] != "value":
        return
    block = bytearray(cbor_c.encode(value))
    for _ in range(data.draw(st.integers(1, 2))):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    assert outcome(cbor_c.decode, bytes(block)) == outcome(cbor_py.decode, bytes(block))
    assert outcome(cbor_c.links, bytes(block)) == outcome(cbor_py.links, bytes(block))


ENTRIES = st.lists(
    st.tuples(LINKS.map(bytes), st.sampled_from([0, 1, 255, 1 << 20, 1 << 40])), max_size=3
)


@given(st.lists(st.sampled_from([b"", b"a", b"b", b"aa", b"ab", b"b\x80", b"\xff"]), max_size=5))
def test_decode_maps_in_any_order(names: list[bytes]) -> None:
    """Maps as other writers leave them: out of order, with keys twice or that are not UTF-8."""
    for inside in (b"\x00", b"\xa2\x61b\x00\x61a\x00", b"\x81\xa1\x61\xff\x00"):
        entries = b"".join(bytes([0x60 + len(name)]) + name + inside for name in names)
        block = bytes([0xA0 + len(names)]) + entries
        for keys in range(3):
            assert outcome(cbor_c.decode, block, keys) == outcome(cbor_py.decode, block, keys)


BY_KIND = {
    "uint": st.integers(0, 1 << 64),
    "text": st.text(max_size=5),
    "utf8": st.text(max_size=5).map(lambda text: text.encode("utf-8", "surrogatepass")),
    "bytes": st.binary(max_size=5),
    "bytes16": st.binary(min_size=16, max_size=16),
    "bytes32": st.binary(min_size=32, max_size=32),
    "true": st.just(True),
    "link": LINKS.map(bytes),
    "texts": st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=3),
    "digests": st.dictionaries(st.text(max_size=3), st.binary(max_size=3), max_size=3),
    "uints": st.lists(st.integers(0, 1 << 30), max_size=3),
    "pairs": st.lists(st.lists(st.integers(0, 1 << 30), min_size=2, max_size=2), max_size=3),
    "entries": ENTRIES,
}
ANY_FIELDS = st.tuples(*(st.none() | BY_KIND[kind] | VALUES for kind in KINDS))
RIGHT_FIELDS = st.tuples(*(st.none() | BY_KIND[kind] for kind in KINDS))


def pair(name: str, fields: list[tuple[str, str]]) -> tuple[Any, Any]:
    return layout_c.Layout(name, fields), layout_py.Layout(name, fields)


@given(RIGHT_FIELDS | ANY_FIELDS)
def test_layouts_write_the_same(values: tuple[Any, ...]) -> None:
    compiled, plain = pair("f@1", ALL)
    written = outcome(compiled.encode, values)
    assert written == outcome(plain.encode, values)
    if written[0] == "value":
        block = compiled.encode(values)
        assert outcome(compiled.decode, block) == outcome(plain.decode, block)


@given(RIGHT_FIELDS)
def test_layouts_give_back_what_they_wrote(values: tuple[Any, ...]) -> None:
    for layout in pair("f@1", ALL):
        try:
            block = layout.encode(values)
        except ValueError:  # a value that is empty, or a link that is none
            continue
        assert layout.decode(block) == values


@example({"g": [0]})  # a list of numbers where only true may stand
@given(st.dictionaries(st.sampled_from([name for name, _ in ALL] + ["zz"]), VALUES, max_size=4))
def test_layouts_read_any_fields(fields: dict[str, Any]) -> None:
    compiled, plain = pair("f@1", ALL)
    if outcome(cbor_c.encode, fields)[0] == "value":
        block = cbor_c.encode({"f@1": fields})
        assert outcome(compiled.decode, block) == outcome(plain.decode, block)
        assert outcome(compiled.pick, block) == outcome(plain.pick, block)


@pytest.mark.parametrize("seed", range(4))
def test_layouts_read_damaged_blocks(seed: int) -> None:
    """Every read of a block with one or two wrong bytes ends the same way in both."""
    rng = random.Random(seed)
    whole, part = pair("f@1", FIXED), pair("f@1", SOME)
    entries = [(bytes.fromhex("01551220") + rng.randbytes(32), 1 << 20) for _ in range(3)]
    block = whole[0].encode((b"key", 300, entries, "etag", True))
    for _ in range(1500):
        damaged = bytearray(block)
        for _ in range(rng.choice([1, 1, 2])):
            damaged[rng.randrange(len(damaged))] = rng.choice([rng.randrange(256), 0xFB, 0xF5, 0])
        if rng.random() < 0.2:
            del damaged[rng.randrange(len(damaged)) :]
        data = bytes(damaged)
        assert outcome(whole[0].decode, data) == outcome(whole[1].decode, data)
        assert outcome(part[0].pick, data) == outcome(part[1].pick, data)


@pytest.mark.parametrize(
    "fields", [[("b", "uint"), ("a", "uint")], [("a", "uint"), ("a", "uint")], [("a", "kind")]]
)
def test_layouts_out_of_order(fields: list[tuple[str, str]]) -> None:
    for module in (layout_c, layout_py):
        with pytest.raises(ValueError, match="canonical order"):
            module.Layout("f@1", fields)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("uints", (1, 2)),
        ("pairs", [(1, 2)]),
        ("pairs", ([1, 2],)),
        ("pairs", [[1]]),
        ("pairs", [[1, 2, 3]]),
        ("pairs", [[1, -2]]),
        ("pairs", [[True, 2]]),
        ("pairs", []),
    ],
)
def test_layouts_refuse_what_a_block_would_not_give_back(kind: str, value: Any) -> None:
    for layout in pair("f@1", [("a", kind + "?")]):
        with pytest.raises((TypeError, ValueError)):
            layout.encode((value,))
        block = cbor_py.encode({"f@1": {"a": value}})
        if kind == "pairs" and value and type(value) is list and type(value[0]) is list:
            with pytest.raises(FormatError, match="an array of"):
                layout.decode(block)


def test_a_required_field() -> None:
    for layout in pair("f@1", SOME):
        with pytest.raises(ValueError):
            layout.encode((None, "e", None))
        with pytest.raises(ValueError):
            layout.encode((1, "e"))
        block = cbor_py.encode({"f@1": {"n": 1}})
        with pytest.raises(FormatError, match="etag99"):
            layout.decode(block)
