"""Where the blocks of a segment stand, whatever others say: archives that lie, and damage."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from ingot._speedups import frame
from ingot.codec import cid as cids
from ingot.codec import multihash
from ingot.errors import NotFound
from ingot.forge import index
from ingot.forge.blob import BlobRef
from ingot.restore.survey import Blob, contents
from ingot.segments import format
from ingot.segments.adopt import Contents

RANDOM = random.Random(5)
BLOCKS = [RANDOM.randbytes(size) for size in (10, 5000, 70_000, 300, 1 << 20, 9000)]
FRAMES = [frame.pack([(cids.of_chunk(block), block)]) for block in BLOCKS]
SEGMENT = format.header() + b"".join(FRAMES)


class Space:
    """Blobs by their hashes; of a blob in ``others`` it has other bytes than it should."""

    def __init__(self) -> None:
        self.blobs: dict[bytes, bytes] = {}
        self.read_bytes = 0

    def put(self, data: bytes, instead: bytes | None = None) -> Blob:
        ref = BlobRef.of(data)
        self.blobs[ref.digest] = instead or data
        return Blob(ref, [ref.digest])  # type: ignore[list-item]

    async def read(self, places: Sequence[Any], start: int, stop: int) -> bytes:
        if not places:
            raise NotFound("nobody has it")
        self.read_bytes += stop - start
        return self.blobs[places[0]][start:stop]

    async def whole(self, ref: BlobRef, places: Sequence[Any]) -> bytes:
        return self.blobs[ref.digest]


def truth() -> dict[bytes, tuple[int, int]]:
    said, at = {}, format.HEADER_BYTES
    for block, whole in zip(BLOCKS, FRAMES, strict=True):
        at += len(whole)
        said[multihash.of(block)] = (at - len(block), at - 1)
    return said


async def found(
    space: Space, segment: Blob, *said: dict[bytes, tuple[int, int]]
) -> tuple[Contents, list[str], list[str]]:
    archives = [space.put(index.encode({segment.ref.digest: one})) for one in said]
    damage: list[str] = []
    remarks: list[str] = []
    made = await contents(space, segment, archives, damage, remarks)  # type: ignore[arg-type]
    return made, damage, remarks


def missing(made: Contents) -> list[int]:
    """The blocks that are not where they are."""
    places = truth()
    lacks = []
    for number, block in enumerate(BLOCKS):
        start, end = places[multihash.of(block)]
        place = made.table.find(cids.of_chunk(block))
        if place is None or place[:2] != (start, end - start + 1):
            lacks.append(number)
    return lacks


async def test_archives_that_account_for_all_are_believed() -> None:
    space = Space()
    one, two = dict(list(truth().items())[:3]), dict(list(truth().items())[2:])
    made, damage, remarks = await found(space, space.put(SEGMENT), one, two)
    assert not missing(made) and not damage and not remarks and not space.read_bytes


LIES: list[dict[bytes, tuple[int, int]]] = [
    {name: (start + 1, end) for name, (start, end) in truth().items()},
    dict(zip(truth(), list(truth().values())[::-1], strict=True)),
    {multihash.of(b"x"): (format.HEADER_BYTES + 50, 4000)},
    {multihash.of(b"x"): list(truth().values())[4]},
]


@pytest.mark.parametrize("lie", LIES, ids=["shifted", "turned round", "across", "renamed"])
@pytest.mark.parametrize("first", [True, False], ids=["lie first", "truth first"])
async def test_where_archives_contradict_the_segment_itself_is_read(
    lie: dict[bytes, tuple[int, int]], first: bool
) -> None:
    space = Space()
    said = [lie, truth()] if first else [truth(), lie]
    made, damage, remarks = await found(space, space.put(SEGMENT), *said)
    assert not missing(made) and not damage
    assert len(remarks) == 1 and "it is read instead" in remarks[0]


async def test_an_archive_alone_that_lies_is_found_out_by_what_it_leaves_out() -> None:
    space = Space()
    made, damage, remarks = await found(space, space.put(SEGMENT), LIES[0])
    assert not missing(made) and not damage and "it is read instead" in remarks[-1]


async def test_a_block_named_by_another_hash_function_ends_nothing() -> None:
    space, lie = Space(), {b"\x11\x14" + b"s" * 20: (100, 200)}
    made, damage, remarks = await found(space, space.put(SEGMENT), lie, truth())
    assert not missing(made) and not damage
    assert len(remarks) == 1 and "was not taken" in remarks[0]


@pytest.mark.parametrize("number", [0, 2, 4])
async def test_damage_costs_what_is_damaged_also_where_archives_lie(number: int) -> None:
    at = truth()[multihash.of(BLOCKS[number])][0]
    damaged = SEGMENT[:at] + b"?" + SEGMENT[at + 1 :]
    space = Space()
    made, damage, remarks = await found(space, space.put(damaged), LIES[0], truth())
    assert missing(made) == [number] and remarks
    (line,) = damage
    start = at - len(FRAMES[number]) + len(BLOCKS[number])
    assert f"bytes {start} to {start + len(FRAMES[number])} of" in line


async def test_a_segment_that_nobody_has_is_damage_where_archives_lie() -> None:
    space = Space()
    segment = Blob(BlobRef.of(SEGMENT), [])
    made, damage, _ = await found(space, segment, LIES[0], truth())
    assert len(missing(made)) == len(BLOCKS) and "cannot be read" in damage[0]
    made, damage, _ = await found(space, segment, truth())
    assert not missing(made) and not damage
