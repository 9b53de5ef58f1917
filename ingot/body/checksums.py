"""The five checksum algorithms that S3 clients send and ask for, by their names in lower case.

Digests are the raw bytes, CRCs big-endian; on the wire they are base64. CRCs of two neighbours
combine into the CRC of both, which is how a full-object checksum is made of parts. Called by ingest
while it chunks, by the S3 layer for parsing and printing. Pure.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

from awscrt import checksums as _crt

from ingot._speedups import digest

Buffer = Any  # whatever has the buffer protocol, contiguous

SIZES = {"crc32": 4, "crc32c": 4, "crc64nvme": 8, "sha1": 20, "sha256": 32}
CRCS: dict[str, Callable[[Buffer, int], int]] = {
    "crc32": _crt.crc32,
    "crc32c": _crt.crc32c,
    "crc64nvme": _crt.crc64nvme,
}
# The polynomials, reflected: the highest bit is the coefficient of x^0.
_POLYNOMIALS = {"crc32": 0xEDB88320, "crc32c": 0x82F63B78, "crc64nvme": 0x9A6C9329AC4BC9B5}


class Checksum:
    """A running checksum."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._crc = 0
        self._step = CRCS.get(name)
        self._hasher = None if self._step is not None else _hasher(name)

    def update(self, data: Buffer) -> None:
        """Go on over ``data``."""
        if self._step is not None:
            self._crc = self._step(data, self._crc)
        else:
            assert self._hasher is not None
            self._hasher.update(data)

    def digest(self) -> bytes:
        """The checksum of everything so far; it can go on."""
        if self._hasher is not None:
            return self._hasher.digest()
        return self._crc.to_bytes(SIZES[self.name], "big")


def one_shot(name: str, data: Buffer) -> bytes:
    """The checksum of ``data``."""
    step = CRCS.get(name)
    if step is not None:
        return step(data, 0).to_bytes(SIZES[name], "big")
    hasher = _hasher(name)
    hasher.update(data)
    return hasher.digest()


def combine(name: str, first: bytes, second: bytes, second_bytes: int) -> bytes:
    """crc(a ‖ b) from crc(a), crc(b) and the length of b.

    Appending n zero bytes multiplies the register by x^8n modulo the polynomial; both inversions of
    the standard forms cancel out.
    """
    polynomial, size = _POLYNOMIALS[name], SIZES[name]
    assert len(first) == len(second) == size and second_bytes >= 0
    top = 1 << (8 * size - 1)  # x^0

    def product(a: int, b: int) -> int:
        result = 0
        while b:
            if b & top:
                result ^= a
            a = (a >> 1) ^ (polynomial if a & 1 else 0)
            b = (b << 1) & (2 * top - 1)
        return result

    shift, power, left = top, top >> 8, second_bytes  # 1, x^8
    while left:
        if left & 1:
            shift = product(shift, power)
        power = product(power, power)
        left >>= 1
    crc = product(int.from_bytes(first, "big"), shift) ^ int.from_bytes(second, "big")
    return crc.to_bytes(size, "big")


def to_text(value: bytes) -> str:
    """The base64 form that goes on the wire."""
    return base64.b64encode(value).decode()


def from_text(name: str, text: str) -> bytes:
    """The digest from its wire form; ValueError unless it is base64 of exactly the right length."""
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"not base64: {error}") from None
    if len(value) != SIZES[name]:
        raise ValueError(f"{name} has {SIZES[name]} bytes, not {len(value)}")
    return value


def _hasher(name: str) -> digest.Hasher:
    if name not in SIZES:
        raise ValueError(f"no checksum is called {name!r}")
    return digest.Hasher(name)
