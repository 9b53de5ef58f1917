"""CARv1: archives that others read, and others' archives read back; damage is found and placed."""

from __future__ import annotations

from pathlib import Path

import dag_cbor as oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multiformats import CID

from ingot.codec import car, cid, varint
from ingot.errors import Corruption, FormatError

BLOCKS = st.lists(st.binary(max_size=80), max_size=5)


def pairs(blocks: list[bytes]) -> list[tuple[bytes, bytes]]:
    return [(cid.of_chunk(block), block) for block in blocks]


@given(BLOCKS)
def test_round_trip(blocks: list[bytes]) -> None:
    roots = [cid.of_structure(b"root")]
    archive = car.encode_archive(roots, pairs(blocks))
    found, offset = car.decode_header(archive)
    assert found == roots
    assert list(car.blocks(archive)) == pairs(blocks)
    for frame, block in zip(car.frames(archive, offset), blocks, strict=True):
        assert archive[frame.block : frame.end] == block
        assert frame == car.read_frame(archive, frame.offset)


@given(BLOCKS)
def test_read_by_the_specification(blocks: list[bytes]) -> None:
    """The archive taken apart with other libraries, straight from the CARv1 text."""
    data = car.encode_archive([], pairs(blocks))
    length, at = varint.decode(data)
    assert oracle.decode(data[at : at + length]) == {"roots": [], "version": 1}
    at += length
    seen = []
    while at < len(data):
        length, at = varint.decode(data, at)
        name, block = data[at : at + 36], data[at + 36 : at + length]
        CID.decode(name)
        seen.append((name, block))
        at += length
    assert seen == pairs(blocks)


def test_an_archive_of_another_tool() -> None:
    data = (Path(__file__).parents[1] / "vectors" / "forge" / "segment.car").read_bytes()
    roots, _ = car.decode_header(data)
    blocks = list(car.blocks(data))
    assert len(roots) == 1 and len(blocks) == 3
    assert car.encode_archive(roots, blocks) == data


@given(st.data())
def test_damage(data: st.DataObject) -> None:
    archive = bytearray(car.encode_archive([cid.of_chunk(b"r")], pairs([b"one", b"two" * 9])))
    at = data.draw(st.integers(0, len(archive) - 1))
    archive[at] ^= data.draw(st.integers(1, 255))
    header_end = car.decode_header(car.encode_archive([cid.of_chunk(b"r")], []))[1]
    try:
        list(car.blocks(bytes(archive)))
    except (FormatError, Corruption):
        return
    assert at < header_end  # only the digest of the root is nobody's to check
    assert car.decode_header(archive)[0] != [cid.of_chunk(b"r")]


def test_a_damaged_block_is_placed() -> None:
    archive = bytearray(car.encode_archive([], pairs([b"one", b"two"])))
    offset = list(car.frames(archive, car.decode_header(archive)[1]))[1].offset
    archive[-1] ^= 1
    with pytest.raises(Corruption, match=f"byte {offset}"):
        list(car.blocks(archive))


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\x05\xa0",
        b"\x01\xa0",
        b"\x0a\xa1gversion\x01",
        varint.encode(17) + bytes.fromhex("a265726f6f7473806776657273696f6e02"),
        varint.encode(18) + bytes.fromhex("a265726f6f747381006776657273696f6e01"),
    ],
)
def test_malformed_header(header: bytes) -> None:
    with pytest.raises(FormatError):
        car.decode_header(header)


def test_malformed_frames() -> None:
    good = car.encode_frame(cid.of_chunk(b"x"), b"x")
    for length in range(len(good)):
        with pytest.raises(FormatError):
            car.read_frame(good[:length], 0)
    with pytest.raises(FormatError):
        car.read_frame(b"\x00" + good, 0)  # a frame of nothing
    with pytest.raises(FormatError):
        car.read_frame(b"\x10" + good[1:], 0)  # a frame shorter than its CID
