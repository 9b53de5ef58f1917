"""Content identifiers: CIDv1 with sha2-256, in the three codecs that ingot writes.

A binary CID is 36 bytes: ``01``, the codec's varint, ``12 20``, the digest (an archive's is 37, its
codec has two bytes). Outside the codecs a CID is plain ``bytes``; ``Cid`` marks one as a link for
DAG-CBOR. The text form is multibase base32 in lower case: ``b`` and 58 characters. Pure.
"""

from __future__ import annotations

from base64 import b32encode
from hashlib import sha256
from typing import Final

from ingot._speedups import cbor
from ingot._speedups.cbor_py import Cid
from ingot.codec import varint
from ingot.errors import FormatError

__all__ = [
    "CAR_PREFIX",
    "CID_BYTES",
    "DAG_CBOR",
    "DAG_CBOR_PREFIX",
    "RAW",
    "RAW_PREFIX",
    "Cid",
    "digest_of",
    "from_text",
    "of_archive",
    "of_chunk",
    "of_structure",
    "parse",
    "read",
    "to_text",
]

RAW: Final = 0x55
DAG_CBOR: Final = 0x71
CAR: Final = 0x0202

RAW_PREFIX: Final = bytes.fromhex("01551220")
DAG_CBOR_PREFIX: Final = bytes.fromhex("01711220")
CAR_PREFIX: Final = bytes.fromhex("0182041220")
CID_BYTES: Final = 36  # of a chunk or a structured block


def of_structure(block: bytes | memoryview) -> bytes:
    """The CID of a DAG-CBOR block."""
    return DAG_CBOR_PREFIX + sha256(block).digest()


def of_chunk(chunk: bytes | memoryview) -> bytes:
    """The CID of a piece of a body."""
    return RAW_PREFIX + sha256(chunk).digest()


def of_archive(digest: bytes) -> bytes:
    """The CID of a whole segment, from the sha2-256 of its bytes."""
    assert len(digest) == 32
    return CAR_PREFIX + digest


def digest_of(cid: bytes) -> bytes:
    """The sha2-256 digest of a CID of ours; FormatError for another hash or a malformed CID."""
    for prefix in (DAG_CBOR_PREFIX, RAW_PREFIX, CAR_PREFIX):
        if cid.startswith(prefix) and len(cid) == len(prefix) + 32:
            return bytes(cid[len(prefix) :])
    raise FormatError(0, "a CIDv1 with sha2-256", cid[:8].hex())


def parse(data: bytes) -> Cid:
    """A CID from its whole binary form, any codec and hash; FormatError when it is not a CIDv1."""
    fault = cbor.check_cid(bytes(data))
    if fault >= 0:
        raise FormatError(fault, "a CIDv1", data[fault : fault + 8].hex() or "its end")
    return Cid(data)


def read(data: bytes | memoryview, offset: int) -> tuple[Cid, int]:
    """(the CIDv1 that starts at ``offset``, the offset after it), as frames hold them."""
    at = offset
    for expected in ("version 1", "a codec", "a hash function"):
        number, at = varint.decode(data, at)
        if expected == "version 1" and number != 1:
            raise FormatError(offset, "a CIDv1", f"version {number}")
    length, at = varint.decode(data, at)
    if length > len(data) - at:
        raise FormatError(offset, f"a digest of {length} bytes", f"{len(data) - at} bytes")
    return Cid(data[offset : at + length]), at + length


def to_text(cid: bytes) -> str:
    """``bafy...``, ``bafk...``: for people, URLs and logs."""
    return "b" + b32encode(cid).decode().rstrip("=").lower()


def from_text(text: str) -> Cid:
    """A CID from its text form in any multibase; FormatError when it is none."""
    from multiformats import multibase  # 0.1 s to import, and few things read CIDs as text

    try:
        data = bytes(multibase.decode(text))
    except (KeyError, ValueError) as error:
        raise FormatError(0, "a multibase text", str(error)) from None
    return parse(data)
