"""The varsig header of a token: what it is signed with, as varints.

    header = 34, 01 (varsig, its version), the numbers of an algorithm, 71 (the payload is DAG-CBOR)

Drafts of varsig differ; these are the headers that Forge writes. Only Ed25519 is signed with here,
ES256K is verified too (``keys``), and an attested token carries an invocation of its authority in
place of a signature (``signature``). Pure.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from ingot.codec import varint
from ingot.codec.cid import DAG_CBOR
from ingot.errors import FormatError

_START: Final = (0x34, 1)


class Algorithm(Enum):
    """By the numbers in the header."""

    ED25519 = (0xED, 0xED, 0x13)  # EdDSA, edwards25519, sha2-512
    ES256K = (0xEC, 0xE7, 0x12)  # ECDSA, secp256k1, sha2-256
    ES256 = (0xEC, 0x1200, 0x12)  # ECDSA, P-256, sha2-256
    RS256 = (0x1205, 0x12, 0x100)  # RSA, sha2-256, 256 bytes of signature
    NONE = (0xD000,)  # no standard signature
    ATTESTED = (0x300001,)  # by an authority


def encode(algorithm: Algorithm) -> bytes:
    """The whole header."""
    numbers = (*_START, *algorithm.value, DAG_CBOR)
    return b"".join(varint.encode(number) for number in numbers)


def decode(header: bytes) -> Algorithm:
    """The algorithm that a header names; FormatError for one that Forge has not."""
    numbers, at = [], 0
    while at < len(header):
        number, at = varint.decode(header, at)
        numbers.append(number)
    for algorithm in Algorithm:
        if numbers == [*_START, *algorithm.value, DAG_CBOR]:
            return algorithm
    raise FormatError(0, "the header of a known signature algorithm", header[:16].hex() or "none")
