"""The compiled tree against its twin, on the same input: answers, errors, and what they ask for."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot._speedups import mst_c, mst_py
from ingot.errors import Corruption, FormatError, Missing
from tests.mst.support import keys_by_layer, node_cid, oracle, value, vectors

TWINS: tuple[ModuleType, ModuleType] = (mst_c, mst_py)


def describe(function: Callable[..., object]) -> str:
    """A signature with annotations resolved, whichever module its classes come from."""
    text = str(inspect.signature(function, eval_str=True))
    return (
        text.replace("ingot._speedups.mst_c.", "")
        .replace("ingot._speedups.mst_store_py.", "")
        .replace("ingot._speedups.mst_apply_py.", "")
    )


def test_names_signatures_and_docstrings() -> None:
    for name in mst_py.__all__:
        compiled, twin = getattr(mst_c, name), getattr(mst_py, name)
        if isinstance(twin, bytes):
            assert compiled == twin
            continue
        assert inspect.getdoc(compiled) == inspect.getdoc(twin), name
        if not inspect.isclass(twin):
            assert describe(compiled) == describe(twin)
            continue
        members = {m for m in vars(twin) if not m.startswith("_")}
        assert members == {m for m in vars(compiled) if not m.startswith("_")}
        for member in members | {"__contains__", "__len__"} if name == "NodeCache" else ():
            ours, theirs = getattr(compiled, member), getattr(twin, member)
            if not member.startswith("_"):
                assert inspect.getdoc(ours) == inspect.getdoc(theirs), member
            if inspect.isfunction(theirs) and not member.startswith("_"):
                assert describe(ours) == describe(theirs), member
    public = {
        name
        for name, found in vars(mst_c).items()
        if callable(found) and getattr(found, "__module__", "") == mst_c.__name__
    }
    assert {name for name in public if not name.startswith("_")} <= set(mst_py.__all__)
    assert mst_c.Applied._fields == mst_py.Applied._fields


class Pair:
    """One cache of each kind over the same blocks; every call runs on both and must agree."""

    def __init__(self, budget: int = 1 << 26) -> None:
        self.blocks: dict[bytes, bytes] = {}
        self.budget = budget
        self.caches: list[Any] = []
        self.forget()

    def forget(self) -> None:
        self.caches = [twin.NodeCache(self.budget) for twin in TWINS]

    def run(self, name: str, *args: Any) -> Any:
        compiled, twin = (
            self.settle(getattr(module, name), cache, args)
            for module, cache in zip(TWINS, self.caches, strict=True)
        )
        assert compiled == twin
        assert len({(len(cache), cache.bytes_used) for cache in self.caches}) == 1
        return compiled[0]

    def settle(self, call: Any, cache: Any, args: tuple[Any, ...]) -> tuple[Any, Any]:
        """(answer, what it was missing, call by call)."""
        asked = []
        while True:
            try:
                answer = call(cache, *args)
            except Missing as missing:
                asked.append(missing.cids)
                for cid in missing.cids:
                    cache.add(cid, self.blocks[cid])
            except Corruption as error:
                return str(error), asked
            else:
                return (tuple(answer) if call.__name__ == "apply" else answer), asked


@st.composite
def contents(draw: st.DrawFn) -> list[bytes]:
    layers = draw(st.lists(st.integers(0, 9), min_size=1, max_size=6, unique=True))
    pool = [key for layer in layers for key in keys_by_layer()[layer]] + [
        b"a/%d" % n for n in range(9)
    ]
    return draw(st.lists(st.sampled_from(pool), min_size=1, max_size=30, unique=True))


@settings(max_examples=120)
@given(st.data(), contents(), st.sampled_from([b"", b"salt"]))
def test_whole_histories(data: st.DataObject, universe: list[bytes], salt: bytes) -> None:
    """Batches, cold caches, listings, look-ups and differences in any order."""
    pair = Pair()
    roots: list[bytes | None] = [None]
    one = st.tuples(st.sampled_from(universe), st.none() | st.integers(0, 2).map(value))
    for _ in range(data.draw(st.integers(1, 6))):
        batch = sorted(dict(data.draw(st.lists(one, max_size=15))).items())
        if data.draw(st.booleans()):
            pair.forget()
        root, blocks, removed, _, refused = pair.run("apply", roots[-1], batch, salt)
        assert refused == []
        pair.blocks.update(blocks)
        roots.append(root)
        if data.draw(st.booleans()):
            for cache in pair.caches:
                cache.discard(removed)
        if data.draw(st.booleans()):
            pair.forget()
        key = data.draw(st.sampled_from(universe))
        pair.run("get", root, key)
        after = data.draw(st.none() | st.sampled_from([b"a/", key]))
        limit = data.draw(st.integers(0, 9))
        pair.run("page", root, key[:1], data.draw(st.sampled_from([b"", b"/"])), after, limit)
        pair.run("scan", root, key[:2], None, limit)
        other = data.draw(st.sampled_from(roots))
        pair.run("diff", other, root, data.draw(st.none() | st.integers(0, 4)), b"", salt)
        for cache in pair.caches:
            block = cache.block(root)
            assert block is None or block == pair.blocks.get(root, mst_py.EMPTY_BLOCK)


@settings(max_examples=60)
@given(contents(), contents(), st.integers(1, 3000))
def test_the_same_nodes_are_asked_for_whatever_the_budget(
    universe: list[bytes], sought: list[bytes], budget: int
) -> None:
    root, blocks = oracle({key: value(1) for key in universe})
    for module in TWINS:
        cache = module.NodeCache(budget)
        for key in sought:
            for _ in range(20):
                try:
                    found = module.get(cache, root, key)
                except Missing as missing:
                    for cid in missing.cids:
                        cache.add(cid, blocks[cid])
                else:
                    break
            assert found == (value(1) if key in universe else None)


def decoded(module: ModuleType, block: bytes) -> Any:
    try:
        answer = module.decode_node(block)
    except FormatError as error:
        return error.offset, error.expected, error.found
    assert module.encode_node(*answer) == block
    return answer


NODES = [bytes.fromhex(case["hex"]) for case in vectors("nodes")]


@pytest.mark.parametrize("case", vectors("invalid-nodes"), ids=lambda case: case["name"])
def test_invalid_nodes_give_the_same_error(case: dict[str, Any]) -> None:
    block = bytes.fromhex(case["hex"])
    assert decoded(mst_c, block) == decoded(mst_py, block)


def test_every_truncation_and_every_changed_byte_gives_the_same_error() -> None:
    for block in NODES:
        for at in range(len(block)):
            assert decoded(mst_c, block[:at]) == decoded(mst_py, block[:at])
            for new in (
                0x00,
                0x18,
                0x58,
                0x5A,
                0x80,
                0xA4,
                0xF6,
                0xFF,
                block[at] ^ 1,
                block[at] ^ 16,
            ):
                damaged = block[:at] + bytes((new,)) + block[at + 1 :]
                assert decoded(mst_c, damaged) == decoded(mst_py, damaged)


@given(st.sampled_from(NODES), st.data())
def test_spliced_blocks_give_the_same_error(block: bytes, data: st.DataObject) -> None:
    other = data.draw(st.sampled_from(NODES))
    at, start = data.draw(st.integers(0, len(block))), data.draw(st.integers(0, len(other)))
    spliced = block[:at] + other[start:] + data.draw(st.binary(max_size=3))
    assert decoded(mst_c, spliced) == decoded(mst_py, spliced)
    for module in TWINS:
        cache = module.NodeCache(1 << 20)
        try:
            cache.add(node_cid(spliced), spliced)
        except FormatError as error:
            assert decoded(module, spliced)[0] == error.offset
        else:
            assert cache.block(node_cid(spliced)) == spliced


@given(st.binary(max_size=100), st.binary(max_size=20))
def test_layers(key: bytes, salt: bytes) -> None:
    assert mst_c.key_layer(key, salt) == mst_py.key_layer(key, salt)


ENTRIES = st.lists(
    st.tuples(
        st.binary(max_size=3),
        st.sampled_from(
            [value(0), b"", b"\x01\x55\x00\x00", value(0)[:-1], b"\x81\x00" + bytes(9)]
        ),
        st.sampled_from([None, value(1), b"short"]),
    ),
    max_size=4,
)


@given(st.sampled_from([None, value(1), b"short"]), ENTRIES)
def test_encoding(left: bytes | None, entries: list[tuple[bytes, bytes, bytes | None]]) -> None:
    def encoded(module: ModuleType) -> Any:
        try:
            return module.encode_node(left, entries)
        except ValueError as error:
            return str(error)

    assert encoded(mst_c) == encoded(mst_py)


@pytest.mark.parametrize(
    "blocks",
    [case["blocks"] for case in vectors("invalid-trees")],
    ids=[case["name"] for case in vectors("invalid-trees")],
)
def test_invalid_trees_break_neither(blocks: dict[str, str]) -> None:
    """A tree that nobody checked may give any answer or a Corruption, but both give the same."""
    held = {node_cid(bytes.fromhex(text)): bytes.fromhex(text) for text in blocks.values()}
    for root in held:
        pair = Pair()
        pair.blocks = held
        for key in (b"a", b"b/1", b"z", b"a/0"):
            for args in (
                ("get", root, key),
                ("apply", root, [(key, value(0))], b""),
                ("apply", root, [(key, None)], b""),
                ("scan", root, key, None, 10),
                ("diff", root, None),
            ):
                try:
                    pair.run(*args)
                except KeyError:  # a block that the case leaves out
                    pair.forget()
