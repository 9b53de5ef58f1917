"""How an object's bytes hang together: chunks, and nodes over them when there are many.

A body of up to BODY_NODE_ENTRIES_MAX chunks is the list of (chunk CID, length) in its record. A
longer one is a tree; a node, ``ingot/body@1``, is a DAG-CBOR block

    {"ingot/body@1": [[CID, length], ...]}     1 to BODY_NODE_ENTRIES_MAX entries, lengths positive

with the byte length below each child, so that a range finds its chunks by reading one node a
level. A child with codec raw is a chunk, with codec dag-cbor another node; the lengths in a node
sum to what its parent says. Pure: ``walk`` asks its caller for the nodes it needs. Called by ingest
and reader.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Final

from ingot._speedups import digest
from ingot.codec import dag_cbor
from ingot.codec.cid import DAG_CBOR_PREFIX, RAW_PREFIX, Cid
from ingot.errors import Corruption, FormatError
from ingot.limits import BODY_NODE_ENTRIES_MAX
from ingot.messages import Body

FORMAT: Final = "ingot/body@1"

Entry = tuple[bytes, int]


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes [start, stop) of one chunk of ``length`` bytes."""

    cid: bytes
    length: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Node:
    """A node that ``walk`` needs: send its block."""

    cid: bytes


def build(entries: Sequence[Entry]) -> tuple[list[Entry], int, list[tuple[bytes, bytes]]]:
    """Put nodes over ``entries`` until one list holds them: that list, its depth, the nodes."""
    level, depth, blocks = list(entries), 0, []
    while len(level) > BODY_NODE_ENTRIES_MAX:
        above = []
        for at in range(0, len(level), BODY_NODE_ENTRIES_MAX):
            below = level[at : at + BODY_NODE_ENTRIES_MAX]
            block = encode_node(below)
            cid = digest.cid_dag_cbor(block)
            blocks.append((cid, block))
            above.append((cid, sum(length for _, length in below)))
        level, depth = above, depth + 1
    return level, depth, blocks


def encode_node(entries: Sequence[Entry]) -> bytes:
    """The block of one node."""
    assert 0 < len(entries) <= BODY_NODE_ENTRIES_MAX
    return dag_cbor.encode({FORMAT: [[Cid(cid), length] for cid, length in entries]})


def decode_node(block: bytes) -> list[Entry]:
    """The entries of a node; FormatError for anything that ``encode_node`` would not write."""
    value = dag_cbor.decode(block)
    name = dag_cbor.format_in(value)
    if name != FORMAT:
        raise FormatError(0, FORMAT, name)
    assert isinstance(value, dict)
    rows = value[name]
    if not isinstance(rows, list) or not 0 < len(rows) <= BODY_NODE_ENTRIES_MAX:
        raise FormatError(0, f"a list of 1 to {BODY_NODE_ENTRIES_MAX} entries", type(rows).__name__)
    entries = []
    for row in rows:
        if not isinstance(row, list) or len(row) != 2:
            raise FormatError(0, "an entry of CID and length", repr(row)[:80])
        cid, length = row
        if not isinstance(cid, Cid) or cid[:4] not in (RAW_PREFIX, DAG_CBOR_PREFIX):
            raise FormatError(0, "the CID of a chunk or a node", repr(cid)[:80])
        if type(length) is not int or length <= 0:
            raise FormatError(0, "a positive length", repr(length)[:80])
        entries.append((bytes(cid), length))
    return entries


def walk(body: Body, start: int, stop: int) -> Generator[Part | Node, bytes | None, None]:
    """The parts of chunks that make up the bytes [start, stop), in order.

    For every ``Node`` yielded the caller sends the block; after a ``Part`` it sends None. Nodes
    that the range does not touch are not asked for, and one list of entries a level is held.
    """
    assert 0 <= start <= stop <= body.size
    if start < stop:
        yield from _walk(body.chunks, body.size, body.depth, start, stop)


def _walk(
    entries: Sequence[Entry], size: int, depth: int, start: int, stop: int
) -> Generator[Part | Node, bytes | None, None]:
    found = sum(length for _, length in entries)
    if found != size:
        raise Corruption("lengths in a body's node", size, found)
    at = 0
    for cid, length in entries:
        end = at + length
        if end > start:
            first, last = max(start - at, 0), min(stop - at, length)
            if cid[:4] == RAW_PREFIX:
                yield Part(cid, length, first, last)
            elif depth == 0:
                raise Corruption("a body's chunk", "codec raw", cid[:4].hex())
            else:
                block = yield Node(cid)
                assert block is not None
                yield from _walk(decode_node(block), length, depth - 1, first, last)
        at = end
        if at >= stop:
            return
