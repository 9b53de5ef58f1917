"""Unsigned LEB128 varints as multiformats and CAR use them: minimal, and below 2**63.

Pure; used by ``ingot.codec`` for CIDs and frames.
"""

from __future__ import annotations

from ingot.errors import FormatError

VARINT_BYTES_MAX = 9  # 63 bits, the bound of the multiformats specification
VARINT_MAX = (1 << 63) - 1


def encode(number: int) -> bytes:
    """The shortest form; ValueError outside 0 .. 2**63 - 1."""
    if not 0 <= number <= VARINT_MAX:
        raise ValueError(f"a varint holds 0 to 2**63 - 1, not {number}")
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def decode(data: bytes | memoryview, offset: int = 0) -> tuple[int, int]:
    """(number, offset after it); FormatError when cut off, too long or not the shortest form."""
    number = 0
    for index in range(VARINT_BYTES_MAX):
        at = offset + index
        if at >= len(data):
            raise FormatError(at, "a varint's next byte", "the end")
        byte = data[at]
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if byte == 0 and index:
                raise FormatError(offset, "the shortest varint", f"{index + 1} bytes for {number}")
            return number, at + 1
    raise FormatError(offset, f"a varint of at most {VARINT_BYTES_MAX} bytes", "a longer one")
