"""What the planner needs to know of the blocks that values lead to, by CID.

A condition asks for a record's ETag, a deletion for what a leaf or a state says. ``Values`` reads
such a block where that needs no waiting; where it does, the pipeline waits and leaves the outcome
here (``hold``), because the block itself may never be readable without waiting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

from ingot import limits
from ingot.bucket.leaf import (
    LEAF_PREFIX,
    STATE_PREFIX,
    Leaf,
    State,
    decode_leaf,
    decode_state,
)
from ingot.bucket.record import standing_of
from ingot.errors import Missing
from ingot.messages import Cid


@dataclass(frozen=True, slots=True)
class Fact:
    """Of a record: what conditions and deletions ask about."""

    etag: str
    marker: bool


Value: TypeAlias = Fact | Leaf | State


class Blocks(Protocol):
    """Where blocks are read."""

    def read_now(self, cid: Cid) -> bytes | None: ...


def value_of(block: bytes) -> Value:
    """FormatError for a block of any other format."""
    if block.startswith(LEAF_PREFIX):
        return decode_leaf(block)
    if block.startswith(STATE_PREFIX):
        return decode_state(block)
    return Fact(*standing_of(block))


class Values:
    """The value of a block by its CID; Missing where it must be waited for."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._held: dict[Cid, Value] = {}  # of blocks that could not be read without waiting

    def hold(self, cid: Cid, block: bytes) -> None:
        while len(self._held) >= limits.VALUES_HELD_MAX:
            del self._held[next(iter(self._held))]
        self._held[cid] = value_of(block)

    def __call__(self, cid: Cid) -> Value:
        held = self._held.get(cid)
        if held is not None:
            return held
        block = self._blocks.read_now(cid)
        if block is None:
            raise Missing([cid])
        return value_of(block)
