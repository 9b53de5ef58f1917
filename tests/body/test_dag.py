"""Bodies as trees: building, ranges, and nodes that lie."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.body import dag
from ingot.body.dag import Node, Part, build, decode_node, encode_node, walk
from ingot.codec import dag_cbor
from ingot.codec.cid import Cid
from ingot.errors import Corruption, FormatError
from ingot.limits import BODY_NODE_ENTRIES_MAX
from ingot.messages import Body


def chunk_cid(data: bytes) -> bytes:
    return b"\x01\x55\x12\x20" + hashlib.sha256(data).digest()


def entries_of(lengths: list[int]) -> list[tuple[bytes, int]]:
    return [(chunk_cid(b"%d" % at), length) for at, length in enumerate(lengths)]


def body_of(lengths: list[int]) -> tuple[Body, dict[bytes, bytes]]:
    top, depth, blocks = build(entries_of(lengths))
    return Body(sum(lengths), None, None, None, top, depth, blocks), dict(blocks)


def run(body: Body, nodes: dict[bytes, bytes], start: int, stop: int) -> tuple[list[Part], int]:
    """Every part, and how many nodes were asked for."""
    steps, parts, asked = walk(body, start, stop), [], 0
    try:
        step = next(steps)
        while True:
            if isinstance(step, Node):
                asked += 1
                step = steps.send(nodes[step.cid])
            else:
                parts.append(step)
                step = next(steps)
    except StopIteration:
        return parts, asked


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dag, "BODY_NODE_ENTRIES_MAX", 3)


def test_a_short_body_has_no_nodes() -> None:
    entries = entries_of([1 << 20] * BODY_NODE_ENTRIES_MAX)
    assert build(entries) == (entries, 0, [])
    assert build([]) == ([], 0, [])


def test_a_long_body_is_a_tree_of_full_nodes() -> None:
    lengths = [1 << 20] * (2 * BODY_NODE_ENTRIES_MAX) + [5]
    top, depth, blocks = build(entries_of(lengths))
    assert depth == 1 and len(top) == len(blocks) == 3
    assert [length for _, length in top] == [1 << 30, 1 << 30, 5]
    for cid, block in blocks:
        assert cid == b"\x01\x71\x12\x20" + hashlib.sha256(block).digest()
        assert decode_node(block) and encode_node(decode_node(block)) == block
        assert len(block) < 64 * 1024, "nodes go to the log"
    assert decode_node(blocks[0][1]) == entries_of(lengths)[:BODY_NODE_ENTRIES_MAX]


def test_the_format_is_the_designs() -> None:
    block = encode_node([(chunk_cid(b"a"), 7)])
    assert dag_cbor.decode(block) == {"ingot/body@1": [[Cid(chunk_cid(b"a")), 7]]}


@given(st.lists(st.integers(1, 50), max_size=60), st.data())
def test_any_range_is_the_bytes_it_names(lengths: list[int], data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dag, "BODY_NODE_ENTRIES_MAX", 3)
        body, nodes = body_of(lengths)
        start = data.draw(st.integers(0, body.size))
        stop = data.draw(st.integers(start, body.size))
        parts, _ = run(body, nodes, start, stop)
    owner = {cid: at for at, (cid, _) in enumerate(entries_of(lengths))}
    found: list[int] = []
    for part in parts:
        at = owner[part.cid]
        assert part.length == lengths[at] and part.start < part.stop <= part.length
        begin = sum(lengths[:at])
        found.extend(range(begin + part.start, begin + part.stop))
    assert found == list(range(start, stop))


def test_a_range_asks_for_one_node_a_level(narrow: None) -> None:
    body, nodes = body_of([10] * 200)
    assert body.depth == 4
    for at in (0, 999, 1999):
        parts, asked = run(body, nodes, at, at + 1)
        assert asked == body.depth and len(parts) == 1


def test_an_empty_range_asks_for_nothing() -> None:
    body, nodes = body_of([10] * 5)
    assert run(body, {}, 7, 7) == ([], 0)


def lying(change: Callable[[list[tuple[bytes, int]]], list[tuple[bytes, int]]]) -> bytes:
    return encode_node(change(entries_of([10, 10, 10])))


@pytest.mark.parametrize(
    "block",
    [
        lying(lambda entries: entries[:-1]),
        lying(lambda entries: [*entries[:2], (entries[2][0], 11)]),
        lying(lambda entries: [(cid, length + 1) for cid, length in entries]),
    ],
    ids=["too little", "too much", "other lengths"],
)
def test_a_node_whose_lengths_do_not_add_up_is_corrupt(narrow: None, block: bytes) -> None:
    body, nodes = body_of([10] * 9)
    nodes[body.chunks[0][0]] = block
    with pytest.raises(Corruption, match="lengths in a body's node: expected 30"):
        run(body, nodes, 0, 90)


def test_a_body_whose_lengths_do_not_add_up_is_corrupt() -> None:
    body, nodes = body_of([10, 10])
    body.size = 21
    with pytest.raises(Corruption):
        run(body, nodes, 0, 21)


def test_nodes_below_the_depth_are_corrupt(narrow: None) -> None:
    body, nodes = body_of([10] * 9)
    body.depth = 0
    with pytest.raises(Corruption, match="codec raw"):
        run(body, nodes, 0, 90)


LINK = Cid(chunk_cid(b""))


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        {"ingot/body@2": [[LINK, 1]]},
        {"ingot/body@1": [[LINK, 1]], "more": 1},
        {"ingot/body@1": []},
        {"ingot/body@1": {}},
        {"ingot/body@1": [LINK]},
        {"ingot/body@1": [[LINK]]},
        {"ingot/body@1": [[LINK, 1, 2]]},
        {"ingot/body@1": [[LINK, 0]]},
        {"ingot/body@1": [[LINK, -1]]},
        {"ingot/body@1": [[LINK, True]]},
        {"ingot/body@1": [[LINK, "1"]]},
        {"ingot/body@1": [[bytes(LINK), 1]]},
        {"ingot/body@1": [[Cid(bytes.fromhex("0182041220") + bytes(32)), 1]]},
        {"ingot/body@1": [[LINK, 1]] * (BODY_NODE_ENTRIES_MAX + 1)},
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_block_that_is_not_a_node_is_refused(value: object) -> None:
    with pytest.raises(FormatError):
        decode_node(dag_cbor.encode(value))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_node_or_a_format_error(block: bytes) -> None:
    try:
        entries = decode_node(block)
    except FormatError:
        return
    assert encode_node(entries) == block
