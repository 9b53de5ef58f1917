"""Strict canonical DAG-CBOR: the plain version and the specification of ``cbor_c``.

Guarantees: one value has exactly one encoding; ``decode`` accepts exactly what ``encode`` writes,
and everything else is a FormatError with the offset. Heads are in their shortest form, lengths are
definite, map keys are text in ascending order of (length in UTF-8, bytes), links are CIDv1 in tag
42, floats are finite and 64 bits wide, nothing follows the value. Size and depth are bounded before
anything is allocated. ``ingot.codec`` calls this, and no one else.

A ``Layout`` reads and writes the fields of one named format without a dict between, since every
PUT, GET and listed key does so once: kinds are checked on the way and the links come out as bytes.

    head  = major type (3 bits), argument: in 5 bits below 24, else 24..27 and 1, 2, 4, 8 bytes
    link  = D8 2A (tag 42), a byte string: 00, CID
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

from ingot.errors import FormatError
from ingot.limits import CBOR_BYTES_MAX, CBOR_DEPTH_MAX


class Cid(bytes):
    """A binary CIDv1 that encodes as a link; plain ``bytes`` encode as a byte string.

    Compiled code checks for exact ``bytes``, so values that leave the codecs for other modules are
    plain bytes; this type lives between a codec and its format module.
    """

    __slots__ = ()


_UINT, _NINT, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _OTHER = range(8)
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


def decode(block: bytes | bytearray | memoryview) -> object:
    """The value of a whole canonical block; FormatError for anything else. Links become Cid."""
    data = bytes(block)
    if len(data) > CBOR_BYTES_MAX:
        raise FormatError(CBOR_BYTES_MAX, "the end of the block", f"{len(data)} bytes in all")
    value, at = _read(data, 0, 0)
    if at != len(data):
        raise FormatError(at, "the end of the block", f"{len(data) - at} more bytes")
    return value


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
        _write_head(out, _TEXT, len(text))
        out += text
    elif isinstance(value, bytes) and kind is bytes:
        _write_head(out, _BYTES, len(value))
        out += value
    elif isinstance(value, int) and kind is int:
        argument = value if value >= 0 else -1 - value
        if argument > _ARGUMENT_MAX:
            raise ValueError("an integer needs more than 64 bits")
        _write_head(out, _UINT if value >= 0 else _NINT, argument)
    elif isinstance(value, Cid) and kind is Cid:
        if check_cid(value) >= 0:
            raise ValueError(f"not a CIDv1: {value.hex()}")
        out += b"\xd8\x2a"
        _write_head(out, _BYTES, len(value) + 1)
        out += b"\x00" + value
    elif isinstance(value, dict) and kind is dict:
        _write_map(out, value, depth)
    elif isinstance(value, (list, tuple)) and (kind is list or kind is tuple):
        _check_depth(depth)
        _write_head(out, _ARRAY, len(value))
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
    _write_head(out, _MAP, len(entries))
    for length, text, item in entries:
        _write_head(out, _TEXT, length)
        out += text
        _write(out, item, depth + 1)


def _check_depth(depth: int) -> None:
    if depth >= CBOR_DEPTH_MAX:
        raise ValueError(f"more than {CBOR_DEPTH_MAX} levels of arrays and maps")


# -- decoding -----------------------------------------------------------------------------------


def _read_head(data: bytes, at: int) -> tuple[int, int, int]:
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


def _read(data: bytes, at: int, depth: int) -> tuple[object, int]:
    start = at
    if at < len(data) and data[at] >> 5 == _OTHER:
        return _read_other(data, at)
    major, argument, at = _read_head(data, at)
    if major == _UINT:
        return argument, at
    if major == _NINT:
        return -1 - argument, at
    if major == _BYTES:
        return _read_span(data, start, at, argument), at + argument
    if major == _TEXT:
        return _read_text(data, start, at, argument), at + argument
    if major == _TAG:
        return _read_link(data, start, at, argument)
    if depth >= CBOR_DEPTH_MAX:
        raise FormatError(start, f"at most {CBOR_DEPTH_MAX} levels", "one more")
    if argument > (len(data) - at) // (2 if major == _MAP else 1):
        raise FormatError(start, f"room for {argument} entries", f"{len(data) - at} bytes")
    if major == _MAP:
        return _read_map(data, at, argument, depth)
    items: list[object] = []
    for _ in range(argument):
        item, at = _read(data, at, depth + 1)
        items.append(item)
    return items, at


def _read_map(data: bytes, at: int, count: int, depth: int) -> tuple[object, int]:
    entries: dict[str, object] = {}
    previous: tuple[int, bytes] | None = None
    for _ in range(count):
        start = at
        major, length, at = _read_head(data, at)
        if major != _TEXT:
            raise FormatError(start, "a map key that is text", f"major type {major}")
        key = _read_text(data, start, at, length)
        order = (length, data[at : at + length])
        if previous is not None and order <= previous:
            found = "the same key again" if order == previous else "a key that sorts before it"
            raise FormatError(start, "a map key that sorts after the one before", found)
        previous = order
        entries[key], at = _read(data, at + length, depth + 1)
    return entries, at


def _read_span(data: bytes, start: int, at: int, length: int) -> bytes:
    if length > len(data) - at:
        raise FormatError(start, f"a string of {length} bytes", f"{len(data) - at} bytes")
    return data[at : at + length]


def _read_text(data: bytes, start: int, at: int, length: int) -> str:
    try:
        return _read_span(data, start, at, length).decode()
    except UnicodeDecodeError as error:
        offset = at + error.start
        raise FormatError(offset, "UTF-8", f"byte {data[offset]:02x}") from None


def _read_link(data: bytes, start: int, at: int, tag: int) -> tuple[Cid, int]:
    if tag != _LINK_TAG:
        raise FormatError(start, "tag 42", f"tag {tag}")
    head = at
    major, length, at = _read_head(data, at)
    if major != _BYTES:
        raise FormatError(head, "a link's byte string", f"major type {major}")
    span = _read_span(data, head, at, length)
    if not span or span[0] != 0:
        raise FormatError(at, "00 before a link's CID", span[:1].hex() or "nothing")
    cid = Cid(span[1:])
    wrong = check_cid(cid)
    if wrong >= 0:
        raise FormatError(at + 1 + wrong, "a CIDv1", cid[wrong:][:8].hex() or "its end")
    return cid, at + length


def _read_other(data: bytes, at: int) -> tuple[bool | float | None, int]:
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


# -- layouts ------------------------------------------------------------------------------------

KINDS = {
    "uint": "an unsigned integer",
    "text": "a text, not empty",
    "utf8": "a text, not empty",  # bytes in Python
    "bytes": "a byte string",
    "bytes16": "a byte string of 16 bytes",
    "bytes32": "a byte string of 32 bytes",
    "true": "true",
    "link": "a link",  # bytes in Python
    "texts": "a map of texts, not empty",
    "digests": "a map of byte strings, not empty",
    "uints": "an array of unsigned integers, not empty",
    "entries": "an array of [link, unsigned integer], not empty",  # (bytes, int) tuples in Python
}


class Layout:
    """The fields of one format: a map of one entry, the format's name, that holds a map of fields.

    ``fields`` are (name, kind) in canonical order; a kind is one of ``KINDS`` and ends in "?" when
    the field may be absent. An absent field is left out of the map and None in Python. Where a kind
    has an empty value other than the empty byte string, no block holds it: absent says the same.
    """

    def __init__(self, name: str, fields: Sequence[tuple[str, str]]) -> None:
        self.name = name
        self._prefix = b"\xa1" + encode(name)
        self._names = [field for field, _ in fields]
        self._kinds = [kind.removesuffix("?") for _, kind in fields]
        self._optional = [kind.endswith("?") for _, kind in fields]
        order = [(len(field.encode()), field.encode()) for field in self._names]
        if sorted(set(order)) != order or not KINDS.keys() >= set(self._kinds):
            raise ValueError(f"the fields of {name} are not in canonical order, or of no kind")
        if len(self._kinds) > 32:
            raise ValueError("more than 32 fields")

    def encode(self, values: Sequence[object]) -> bytes:
        """The block of these values, one a field; TypeError or ValueError for a value that its
        field cannot hold."""
        fields = {}
        for name, kind, value in zip(self._names, self._kinds, values, strict=True):
            if value is not None:
                fields[name] = _from_python(kind, value)
        block = encode({self.name: fields})
        try:
            self.decode(block)
        except FormatError as error:
            raise ValueError(str(error)) from None
        return block

    def decode(self, block: bytes | bytearray | memoryview) -> tuple[Any, ...]:
        """The values of a whole block, one a field; FormatError for what ``encode`` would not
        write, naming the format where it is another one."""
        data = bytes(block)
        values, at = self._read_fields(data, False)
        if at != len(data):
            raise FormatError(at, "the end of the block", f"{len(data) - at} more bytes")
        return values

    def pick(self, block: bytes | bytearray | memoryview) -> tuple[Any, ...]:
        """As ``decode``, for a layout that names only some of the format's fields: others are
        stepped over, and the block is read no further than the last field named."""
        return self._read_fields(bytes(block), True)[0]

    def _read_fields(self, data: bytes, some: bool) -> tuple[tuple[object, ...], int]:
        if len(data) > CBOR_BYTES_MAX:
            raise FormatError(CBOR_BYTES_MAX, "the end of the block", f"{len(data)} bytes in all")
        if not data.startswith(self._prefix):
            raise foreign(data, self.name)
        values: list[object] = [None] * len(self._names)
        start = len(self._prefix)
        major, count, at = _read_head(data, start)
        if major != _MAP:
            raise FormatError(start, "a map of fields", f"major type {major}")
        following = 0  # index of the first field that may come next
        for _ in range(count):
            if some and following == len(values):
                break
            begin = at
            major, length, at = _read_head(data, at)
            if major != _TEXT:
                raise FormatError(begin, "a field's name", f"major type {major}")
            name = _read_text(data, begin, at, length)
            at += length
            if name in self._names[following:]:
                index = self._names.index(name)
                self._check_absent(begin, following, index)
                values[index], at = _read_kind(data, at, self._kinds[index])
                following = index + 1
            elif some:
                at = _skip(data, at)
            else:
                raise FormatError(begin, f"a field of {self.name}, in order", repr(name))
        self._check_absent(at, following, len(values))
        return tuple(values), at

    def _check_absent(self, at: int, first: int, last: int) -> None:
        for index in range(first, last):
            if not self._optional[index]:
                raise FormatError(at, f"the field {self._names[index]!r}", "none")


def foreign(block: bytes, name: str) -> FormatError:
    """The error for a block that does not start as blocks of the format ``name`` do."""
    try:
        value = decode(block)
    except FormatError as error:
        return error
    if isinstance(value, dict) and len(value) == 1:
        return FormatError(1, f"the format {name!r}", repr(next(iter(value))))
    found = f"{len(value)} entries" if isinstance(value, dict) else type(value).__name__
    return FormatError(0, "a map with one entry that names the format", found)


def _from_python(kind: str, value: object) -> object:
    """What ``encode`` takes for the value of a field."""
    if kind in ("utf8", "link") and type(value) is not bytes:
        raise TypeError(f"{KINDS[kind]} is bytes here, not {type(value).__name__}")
    if kind == "utf8" and isinstance(value, bytes):
        return value.decode()
    if kind == "link" and isinstance(value, bytes):
        return Cid(value)
    if kind == "entries":
        if not isinstance(value, list):
            raise TypeError(f"{KINDS[kind]} is a list here, not {type(value).__name__}")
        return [(Cid(cid), length) for cid, length in value]
    return value


def _read_kind(data: bytes, at: int, kind: str) -> tuple[object, int]:
    value, end = _read(data, at, 2)
    exact = type(value)
    good = False
    if isinstance(value, int):
        good = value is True if kind == "true" else kind == "uint" and exact is int and value >= 0
    elif isinstance(value, str):
        good = kind in ("text", "utf8") and value != ""
        value = value.encode() if kind == "utf8" else value
    elif isinstance(value, bytes):
        good = kind == "link" if exact is Cid else len(value) == _BYTES_SIZES.get(kind, len(value))
        good = good and (exact is Cid or kind.startswith("bytes"))
        value = bytes(value)
    elif isinstance(value, dict):
        wanted = {"texts": str, "digests": bytes}.get(kind)
        good = bool(value) and all(type(item) is wanted for item in value.values())
    elif isinstance(value, list) and kind == "uints":
        good = bool(value) and all(type(item) is int and item >= 0 for item in value)
    elif isinstance(value, list) and kind == "entries":
        good = bool(value) and all(_is_entry(item) for item in value)
        value = [(bytes(cid), length) for cid, length in value] if good else value
    if not good:
        raise FormatError(at, KINDS[kind], "another value")
    return value, end


_BYTES_SIZES = {"bytes16": 16, "bytes32": 32}


def _is_entry(item: object) -> bool:
    return isinstance(item, list) and [type(part) for part in item] == [Cid, int] and item[1] >= 0


def _skip(data: bytes, at: int) -> int:
    """Past one value whose lengths are looked at and nothing else."""
    pending = 1
    while pending:
        pending -= 1
        if at < len(data) and data[at] >> 5 == _OTHER:
            _, at = _read_other(data, at)
            continue
        start = at
        major, argument, at = _read_head(data, at)
        if major in (_BYTES, _TEXT):
            at += len(_read_span(data, start, at, argument))
        elif major in (_ARRAY, _MAP):
            if argument > (len(data) - at) // (2 if major == _MAP else 1):
                raise FormatError(start, f"room for {argument} entries", f"{len(data) - at} bytes")
            pending += argument * (2 if major == _MAP else 1)
        elif major == _TAG:
            pending += 1
    return at
