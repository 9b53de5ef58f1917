"""Multihashes: a digest behind the number of its hash function and its length.

Forge names a blob by the multihash of its bytes, ``12 20`` and the sha2-256 digest: as a byte
string in tokens and indexes, as ``z`` and base58btc in URLs and logs. Other hash functions are read
and kept apart, never computed. Pure; used by ``ingot.forge``.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from ingot.codec import base58, varint
from ingot.errors import FormatError

SHA2_256: Final = 0x12
SHA2_256_PREFIX: Final = bytes([SHA2_256, 32])


def of(data: bytes | memoryview) -> bytes:
    """The sha2-256 multihash of ``data``."""
    return SHA2_256_PREFIX + sha256(data).digest()


def of_digest(digest: bytes) -> bytes:
    """The multihash of a sha2-256 digest."""
    assert len(digest) == 32
    return SHA2_256_PREFIX + digest


def split(multihash: bytes) -> tuple[int, bytes]:
    """(number of the hash function, digest); FormatError when it is no whole multihash."""
    if len(multihash) == 34 and multihash.startswith(SHA2_256_PREFIX):
        return SHA2_256, multihash[2:]
    function, at = varint.decode(multihash)
    length, at = varint.decode(multihash, at)
    if length != len(multihash) - at:
        raise FormatError(at, f"a digest of {length} bytes", f"{len(multihash) - at} bytes")
    return function, multihash[at:]


def of_cid(cid: bytes) -> bytes:
    """The multihash that a CIDv1 carries."""
    _, at = varint.decode(cid)
    _, at = varint.decode(cid, at)
    return bytes(cid[at:])


def to_text(multihash: bytes) -> str:
    """``zQm...``"""
    return "z" + base58.encode(multihash)


def from_text(text: str) -> bytes:
    """A multihash from its text; FormatError when it is none."""
    if not text.startswith("z"):
        raise FormatError(0, "a multihash in base58btc, behind a z", repr(text[:9]))
    multihash = base58.decode(text[1:])
    split(multihash)
    return multihash
