"""CARv1 archives for tools: a header that names roots, then blocks, each behind its CID.

The same format that segments have on disk, read and written in memory and in plain Python; the
write path and recovery have their own compiled code (``ingot._speedups.frame``). Any IPLD tool
reads what this writes; it reads archives of any CIDv1 blocks. Lengths are compared with what is
left before anything is sliced. Pure.

    archive = frame length, header, frame*         header = { roots: [link], version: 1 }
    frame   = length of the rest (varint), CID, block
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

from ingot.codec import cid as cids
from ingot.codec import dag_cbor, varint
from ingot.codec.dag_cbor import Cid
from ingot.errors import Corruption, FormatError


@dataclass(frozen=True, slots=True)
class Frame:
    """Where one block stands in an archive."""

    cid: Cid
    offset: int  # of the frame
    block: int  # offset of the block's first byte
    end: int  # offset after the frame


def encode_header(roots: Sequence[bytes]) -> bytes:
    header = dag_cbor.encode({"roots": [Cid(root) for root in roots], "version": 1})
    return varint.encode(len(header)) + header


def encode_frame(cid: bytes, block: bytes) -> bytes:
    return varint.encode(len(cid) + len(block)) + cid + block


def encode_archive(roots: Sequence[bytes], blocks: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A whole archive of (CID, block) pairs, in their order."""
    return encode_header(roots) + b"".join(encode_frame(cid, block) for cid, block in blocks)


def decode_header(data: bytes | memoryview) -> tuple[list[bytes], int]:
    """(roots, offset of the first frame); FormatError when ``data`` does not start a CARv1."""
    length, start = varint.decode(data)
    if length > len(data) - start:
        raise FormatError(0, f"a header of {length} bytes", f"{len(data) - start} bytes")
    try:
        header = dag_cbor.decode(data[start : start + length])
    except FormatError as error:
        raise FormatError(start + error.offset, error.expected, error.found) from None
    if not isinstance(header, dict) or header.keys() != {"roots", "version"}:
        raise FormatError(start, "a header with roots and a version", repr(header)[:99])
    if header["version"] != 1:
        raise FormatError(start, "version 1", repr(header["version"])[:99])
    roots = header["roots"]
    if not isinstance(roots, list) or any(type(root) is not Cid for root in roots):
        raise FormatError(start, "roots that are links", repr(roots)[:99])
    return [bytes(root) for root in roots], start + length


def read_frame(data: bytes | memoryview, offset: int) -> Frame:
    """The frame that starts at ``offset``; FormatError when it is cut off or holds no CID."""
    length, start = varint.decode(data, offset)
    if not 0 < length <= len(data) - start:
        raise FormatError(offset, f"a frame of {length} bytes", f"{len(data) - start} bytes")
    cid, block = cids.read(data[: start + length], start)
    return Frame(cid, offset, block, start + length)


def frames(data: bytes | memoryview, offset: int) -> Iterator[Frame]:
    """Every frame from ``offset`` (of the first frame, or any later one) to the end of ``data``."""
    view = memoryview(data)
    while offset < len(view):
        frame = read_frame(view, offset)
        yield frame
        offset = frame.end


def blocks(data: bytes | memoryview) -> Iterator[tuple[Cid, bytes]]:
    """Every (CID, block) of a whole archive, each block hashed before it is handed out."""
    _, offset = decode_header(data)
    for frame in frames(data, offset):
        block = bytes(data[frame.block : frame.end])
        check_block(frame.cid, block, f"frame at byte {frame.offset}")
        yield frame.cid, block


def check_block(cid: bytes, block: bytes, where: str) -> None:
    """Corruption when ``block`` does not have the sha2-256 digest that ``cid`` names."""
    expected, found = cids.digest_of(cid), sha256(block).digest()
    if expected != found:
        raise Corruption(where, expected.hex(), found.hex())
