"""The block of a root out of the end of somebody's CAR."""

from __future__ import annotations

import time

import pytest

from ingot.codec import cid, varint
from ingot.forge import holdings
from ingot.limits import FORGE_ROOT_BYTES_MAX, FORGE_TAIL_BYTES, MIB

BLOCK = b"the block of a root"
NAME = cid.of_structure(BLOCK)


def frame(name: bytes, block: bytes) -> bytes:
    return varint.encode(len(name) + len(block)) + name + block


@pytest.mark.parametrize("before", [b"", b"x", b"\x80" * 20, frame(NAME, b"another block")])
@pytest.mark.parametrize("behind", [b"", b"x", NAME, frame(cid.of_structure(b"x"), NAME)])
def test_found_wherever_it_lies(before: bytes, behind: bytes) -> None:
    assert holdings.block_in(before + frame(NAME, BLOCK) + behind, NAME) == BLOCK


@pytest.mark.parametrize(
    "data", [b"", NAME, frame(NAME, b""), frame(NAME, BLOCK)[:-1], frame(NAME, BLOCK)[1:]]
)
def test_not_there_whole(data: bytes) -> None:
    assert holdings.block_in(data, NAME) is None


def test_the_largest_block() -> None:
    for size, found in ((FORGE_ROOT_BYTES_MAX, True), (FORGE_ROOT_BYTES_MAX + 1, False)):
        block = bytes(size)
        name = cid.of_structure(block)
        assert holdings.block_in(frame(name, block), name) == (block if found else None)


def test_names_that_are_none_of_ours() -> None:
    for name in (b"", b"\x01\x55\x00\x00", NAME[:-1]):
        assert holdings.block_in(frame(NAME, BLOCK), name) is None


def test_a_piece_full_of_the_name_takes_no_longer_than_others() -> None:
    """Each place would have all that follows it hashed: 40 s for 1.3 MiB."""
    name, parts, left = cid.of_structure(b"what is not there"), [], FORGE_TAIL_BYTES[-1]
    while left > 40:
        parts.append(varint.encode(min(left - 4, 2 * MIB - 1)).rjust(4, b"\0") + name)
        left -= 4 + len(name)
    data = b"".join(parts)
    began = time.process_time()
    assert holdings.block_in(data, name) is None
    assert time.process_time() - began < 1
