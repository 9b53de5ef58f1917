"""What others say of a segment's blocks, taken only as far as it can be true."""

from __future__ import annotations

import pytest

from ingot._speedups import frame
from ingot.codec import cid as cids
from ingot.codec import multihash
from ingot.errors import FormatError
from ingot.segments import format
from ingot.segments.adopt import Contents

BLOCKS = [b"a" * 100, b"b" * 300, b"c" * 20_000]
FRAMES = [frame.pack([(cids.of_chunk(block), block)]) for block in BLOCKS]
SIZE = format.HEADER_BYTES + sum(map(len, FRAMES))


def slices() -> dict[bytes, tuple[int, int]]:
    """What is true."""
    said, at = {}, format.HEADER_BYTES
    for block, whole in zip(BLOCKS, FRAMES, strict=True):
        at += len(whole)
        said[multihash.of(block)] = (at - len(block), at - 1)
    return said


def test_what_is_said_twice_is_no_dispute() -> None:
    found, said = Contents(SIZE), slices()
    found.add(dict(list(said.items())[:2]))
    assert not found.disputed() and len(found.gaps()) == 1
    found.add(said)
    assert not found.disputed() and not found.gaps()


@pytest.mark.parametrize("first", [True, False], ids=["lie first", "truth first"])
@pytest.mark.parametrize("lie", ["shifted", "other block", "other place", "inside"])
def test_what_contradicts_another_is_disputed(lie: str, first: bool) -> None:
    said = slices()
    name, (start, end) = list(said.items())[2]
    other = multihash.of(b"somebody's")
    lies = {
        "shifted": {name: (start + 1, end)},
        "other block": {other: (start, end)},
        "other place": {name: (start - 300, start - 200)},
        "inside": {other: (start + 500, start + 600)},
    }
    found = Contents(SIZE)
    for one in (lies[lie], said) if first else (said, lies[lie]):
        found.add(one)
    assert found.disputed()


@pytest.mark.parametrize(
    "lie",
    [
        {b"\x11\x14" + b"s" * 20: (100, 200)},
        {b"\x12\x1f" + b"s" * 31: (100, 200)},
        {b"\x16\x20" + b"s" * 32: (100, 200)},
        {b"": (100, 200)},
        {multihash.of(b"x"): (format.HEADER_BYTES, 200)},
        {multihash.of(b"x"): (0, 0)},
        {multihash.of(b"x"): (200, SIZE)},
        {multihash.of(b"x"): (200, 1 << 40)},
    ],
    ids=repr,
)
def test_what_cannot_be_is_not_taken_nor_what_is_said_with_it(
    lie: dict[bytes, tuple[int, int]],
) -> None:
    found = Contents(SIZE)
    with pytest.raises(FormatError):
        found.add(slices() | lie)
    assert found.gaps() == [(format.HEADER_BYTES, SIZE)] and not found.disputed()
