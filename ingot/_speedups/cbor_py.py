"""Strict canonical DAG-CBOR: the plain version and the specification of ``cbor_c``.

Guarantees: one value has exactly one encoding; ``decode`` accepts exactly what ``encode`` writes,
and everything else is a FormatError with the offset. Heads are in their shortest form, lengths are
definite, map keys are text in ascending order of (length in UTF-8, bytes), links are CIDv1 in tag
42, floats are finite and 64 bits wide, nothing follows the value. Size and depth are bounded before
anything is allocated. Called by ``ingot.codec``.

    head  = major type (3 bits), argument: in 5 bits below 24, else 24..27 and 1, 2, 4, 8 bytes
    link  = D8 2A (tag 42), a byte string: 00, CID
"""

from __future__ import annotations

import math
import struct

from ingot.errors import FormatError
from ingot.limits import CBOR_BYTES_MAX, CBOR_DEPTH_MAX

__all__ = ["Cid", "check_cid", "decode", "encode", "links"]  # the rest is shared with ``layout_py``

CANONICAL_KEYS, SORTED_KEYS, BINARY_KEYS = range(3)


class Cid(bytes):
    """A binary CIDv1 that encodes as a link; plain ``bytes`` encode as a byte string.

    Compiled code checks for exact ``bytes``, so values that leave the codecs for other modules are
    plain bytes; this type lives between a codec and its format module.
    """

    __slots__ = ()


UINT, NINT, BYTES, TEXT, ARRAY, MAP, TAG, OTHER = range(8)
_ARGUMENT_MAX = (1 << 64) - 1
_LINK_TAG = 42


def encode(value: object) -> bytes:
    """The canonical block of ``value``.

    Takes exactly None, bool, int (64 bits and a sign), finite float, str, bytes, Cid, list, tuple
    and dict with str keys. Another type is a TypeError; a value without an encoding (or beyond the
    limits of size and depth) a ValueError.
    """
    out = bytearray()
    _write(out, value, 0)
    if len(out) > CBOR_BYTES_MAX:
        raise ValueError(f"the block has more than {CBOR_BYTES_MAX} bytes")
    return bytes(out)


def decode(block: bytes | bytearray | memoryview, keys: int = CANONICAL_KEYS) -> object:
    """The value of a whole canonical block; FormatError for anything else. Links become Cid.

    ``keys`` is the one leniency, for blocks of other writers: SORTED_KEYS takes a map whose keys
    ascend bytewise as well as one in canonical order; BINARY_KEYS takes such maps, and keys that
    are not UTF-8, whose bytes become surrogate escapes.
    """
    data = bytes(block)
    if len(data) > CBOR_BYTES_MAX:
        raise FormatError(CBOR_BYTES_MAX, "the end of the block", f"{len(data)} bytes in all")
    value, at = read(data, 0, 0, keys)
    if at != len(data):
        raise FormatError(at, "the end of the block", f"{len(data) - at} more bytes")
    return value


def links(block: bytes) -> list[bytes]:
    """The CIDs that a block links to, in order and as often as it does. FormatError for what no
    decoder takes; but order of keys, depth and UTF-8 are not looked at."""
    found = []
    at = 0
    while at < len(block):
        start = at
        if block[at] >> 5 == OTHER:
            _, at = read_other(block, at)
            continue
        major, argument, at = read_head(block, at)
        if major == TAG:
            cid, at = _read_link(block, start, at, argument)
            found.append(bytes(cid))
        elif major in (BYTES, TEXT):
            at += len(read_span(block, start, at, argument))
    return found


def check_cid(cid: bytes) -> int:
    """-1 when ``cid`` is a binary CIDv1, its varints minimal and its digest as long as it says;
    else the offset of what is wrong."""
    at = 0
    fields = []
    for _ in range(4):  # version, codec, hash function, digest length
        start, shift, number = at, 0, 0
        while True:
            if at == len(cid) or shift > 56:
                return start
            byte = cid[at]
            at += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        if byte == 0 and shift:
            return start
        fields.append(number)
        if len(fields) == 1 and number != 1:
            return start
    return -1 if fields[3] == len(cid) - at else at


# -- encoding -----------------------------------------------------------------------------------


def _write_head(out: bytearray, major: int, argument: int) -> None:
    if argument < 24:
        out.append(major << 5 | argument)
    elif argument < 1 << 8:
        out += struct.pack(">BB", major << 5 | 24, argument)
    elif argument < 1 << 16:
        out += struct.pack(">BH", major << 5 | 25, argument)
    elif argument < 1 << 32:
        out += struct.pack(">BI", major << 5 | 26, argument)
    else:
        out += struct.pack(">BQ", major << 5 | 27, argument)


def _write(out: bytearray, value: object, depth: int) -> None:
    kind = type(value)
    if isinstance(value, str) and kind is str:
        text = value.encode()
        _write_head(out, TEXT, len(text))
        out += text
    elif isinstance(value, bytes) and kind is bytes:
        _write_head(out, BYTES, len(value))
        out += value
    elif isinstance(value, int) and kind is int:
        argument = value if value >= 0 else -1 - value
        if argument > _ARGUMENT_MAX:
            raise ValueError("an integer needs more than 64 bits")
        _write_head(out, UINT if value >= 0 else NINT, argument)
    elif isinstance(value, Cid) and kind is Cid:
        if check_cid(value) >= 0:
            raise ValueError(f"not a CIDv1: {value.hex()}")
        out += b"\xd8\x2a"
        _write_head(out, BYTES, len(value) + 1)
        out += b"\x00" + value
    elif isinstance(value, dict) and kind is dict:
        _write_map(out, value, depth)
    elif isinstance(value, (list, tuple)) and (kind is list or kind is tuple):
        _check_depth(depth)
        _write_head(out, ARRAY, len(value))
        for item in value:
            _write(out, item, depth + 1)
    elif value is None:
        out.append(0xF6)
    elif isinstance(value, bool):
        out.append(0xF5 if value else 0xF4)
    elif isinstance(value, float) and kind is float:
        if not math.isfinite(value):
            raise ValueError("a float is not finite")
        out += struct.pack(">Bd", 0xFB, value)
    else:
        raise TypeError(f"DAG-CBOR has no {kind.__name__}")


def _write_map(out: bytearray, value: dict[object, object], depth: int) -> None:
    _check_depth(depth)
    entries = []
    for key, item in value.items():
        if type(key) is not str:
            raise TypeError(f"a map key is {type(key).__name__}, not str")
        text = key.encode()
        entries.append((len(text), text, item))
    entries.sort(key=lambda entry: entry[:2])
    _write_head(out, MAP, len(entries))
    for length, text, item in entries:
        _write_head(out, TEXT, length)
        out += text
        _write(out, item, depth + 1)


def _check_depth(depth: int) -> None:
    if depth >= CBOR_DEPTH_MAX:
        raise ValueError(f"more than {CBOR_DEPTH_MAX} levels of arrays and maps")


# -- decoding -----------------------------------------------------------------------------------


def read_head(data: bytes, at: int) -> tuple[int, int, int]:
    """(major type, argument, offset after the head)."""
    if at == len(data):
        raise FormatError(at, "a value", "the end of the block")
    major, info = data[at] >> 5, data[at] & 31
    if info < 24:
        return major, info, at + 1
    if info > 27:
        kind = "an indefinite one" if info == 31 else f"additional information {info}"
        raise FormatError(at, "a head of definite length", kind)
    width = 1 << (info - 24)
    if len(data) - at - 1 < width:
        raise FormatError(at, f"{width} bytes of argument", f"{len(data) - at - 1}")
    argument = int.from_bytes(data[at + 1 : at + 1 + width], "big")
    if argument < (24, 1 << 8, 1 << 16, 1 << 32)[info - 24]:
        raise FormatError(at, "the shortest head", f"{width} bytes for {argument}")
    return major, argument, at + 1 + width


def read(data: bytes, at: int, depth: int, keys: int = CANONICAL_KEYS) -> tuple[object, int]:
    start = at
    if at < len(data) and data[at] >> 5 == OTHER:
        return read_other(data, at)
    major, argument, at = read_head(data, at)
    if major == UINT:
        return argument, at
    if major == NINT:
        return -1 - argument, at
    if major == BYTES:
        return read_span(data, start, at, argument), at + argument
    if major == TEXT:
        return read_text(data, start, at, argument), at + argument
    if major == TAG:
        return _read_link(data, start, at, argument)
    if depth >= CBOR_DEPTH_MAX:
        raise FormatError(start, f"at most {CBOR_DEPTH_MAX} levels", "one more")
    if argument > (len(data) - at) // (2 if major == MAP else 1):
        raise FormatError(start, f"room for {argument} entries", f"{len(data) - at} bytes")
    if major == MAP:
        return _read_map(data, at, argument, depth, keys)
    items: list[object] = []
    for _ in range(argument):
        item, at = read(data, at, depth + 1, keys)
        items.append(item)
    return items, at


def _read_map(data: bytes, at: int, count: int, depth: int, keys: int) -> tuple[object, int]:
    entries: dict[str, object] = {}
    previous: bytes | None = None
    canonical, bytewise = True, keys != CANONICAL_KEYS  # the orders that its keys may be in
    errors = "surrogateescape" if keys == BINARY_KEYS else "strict"
    for _ in range(count):
        start = at
        major, length, at = read_head(data, at)
        if major != TEXT:
            raise FormatError(start, "a map key that is text", f"major type {major}")
        key = read_text(data, start, at, length, errors)
        text = data[at : at + length]
        if previous is not None:
            canonical = canonical and (len(text), text) > (len(previous), previous)
            bytewise = bytewise and text > previous
            if not canonical and not bytewise:
                found = "the same key again" if text == previous else "a key that sorts before it"
                raise FormatError(start, "a map key that sorts after the one before", found)
        previous = text
        entries[key], at = read(data, at + length, depth + 1, keys)
    return entries, at


def read_span(data: bytes, start: int, at: int, length: int) -> bytes:
    if length > len(data) - at:
        raise FormatError(start, f"a string of {length} bytes", f"{len(data) - at} bytes")
    return data[at : at + length]


def read_text(data: bytes, start: int, at: int, length: int, errors: str = "strict") -> str:
    try:
        return read_span(data, start, at, length).decode("utf-8", errors)
    except UnicodeDecodeError as error:
        offset = at + error.start
        raise FormatError(offset, "UTF-8", f"byte {data[offset]:02x}") from None


def _read_link(data: bytes, start: int, at: int, tag: int) -> tuple[Cid, int]:
    if tag != _LINK_TAG:
        raise FormatError(start, "tag 42", f"tag {tag}")
    head = at
    major, length, at = read_head(data, at)
    if major != BYTES:
        raise FormatError(head, "a link's byte string", f"major type {major}")
    span = read_span(data, head, at, length)
    if not span or span[0] != 0:
        raise FormatError(at, "00 before a link's CID", span[:1].hex() or "nothing")
    cid = Cid(span[1:])
    wrong = check_cid(cid)
    if wrong >= 0:
        raise FormatError(at + 1 + wrong, "a CIDv1", cid[wrong:][:8].hex() or "its end")
    return cid, at + length


def read_other(data: bytes, at: int) -> tuple[bool | float | None, int]:
    initial = data[at]
    if initial == 0xF6:
        return None, at + 1
    if initial in (0xF4, 0xF5):
        return initial == 0xF5, at + 1
    if initial != 0xFB:
        raise FormatError(at, "false, true, null or a 64-bit float", f"byte {initial:02x}")
    if len(data) - at - 1 < 8:
        raise FormatError(at, "8 bytes of float", f"{len(data) - at - 1}")
    number: float = struct.unpack_from(">d", data, at + 1)[0]
    if not math.isfinite(number):
        raise FormatError(at, "a finite float", str(number))
    return number, at + 9
