"""Layouts: the fields of one named format, read and written without a dict between.

The plain version and the specification of ``layout_c``. Every PUT, GET and listed key goes through
one: kinds are checked on the way, links come out as plain bytes, and what a listing does not show
is stepped over. The same strict canonical DAG-CBOR as ``cbor_py``, and the same errors. Called by
``ingot.bucket.record``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ingot._speedups.cbor_py import (
    ARRAY,
    BYTES,
    MAP,
    OTHER,
    TAG,
    TEXT,
    Cid,
    decode,
    encode,
    read,
    read_head,
    read_other,
    read_span,
    read_text,
)
from ingot.errors import FormatError
from ingot.limits import CBOR_BYTES_MAX

__all__ = ["KINDS", "Layout", "foreign"]

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
    "pairs": "an array of [unsigned integer, unsigned integer], not empty",
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
        major, count, at = read_head(data, start)
        if major != MAP:
            raise FormatError(start, "a map of fields", f"major type {major}")
        following = 0  # index of the first field that may come next
        for _ in range(count):
            if some and following == len(values):
                break
            begin = at
            major, length, at = read_head(data, at)
            if major != TEXT:
                raise FormatError(begin, "a field's name", f"major type {major}")
            name = read_text(data, begin, at, length)
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
    if kind in ("uints", "pairs") and not _is_lists(value, kind == "pairs"):
        raise TypeError(f"{KINDS[kind]} is made of lists here")
    if kind == "entries":
        if not isinstance(value, list):
            raise TypeError(f"{KINDS[kind]} is a list here, not {type(value).__name__}")
        return [(Cid(cid), length) for cid, length in value]
    return value


def _read_kind(data: bytes, at: int, kind: str) -> tuple[object, int]:
    value, end = read(data, at, 2)
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
    elif isinstance(value, list) and kind == "pairs":
        good = bool(value) and all(_is_pair(item) for item in value)
    elif isinstance(value, list) and kind == "entries":
        good = bool(value) and all(_is_entry(item) for item in value)
        value = [(bytes(cid), length) for cid, length in value] if good else value
    if not good:
        raise FormatError(at, KINDS[kind], "another value")
    return value, end


_BYTES_SIZES = {"bytes16": 16, "bytes32": 32}


def _is_lists(value: object, nested: bool) -> bool:
    return isinstance(value, list) and not (
        nested and any(type(item) is not list for item in value)
    )


def _is_pair(item: object) -> bool:
    return isinstance(item, list) and [type(part) for part in item] == [int, int] and min(item) >= 0


def _is_entry(item: object) -> bool:
    return isinstance(item, list) and [type(part) for part in item] == [Cid, int] and item[1] >= 0


def _skip(data: bytes, at: int) -> int:
    """Past one value whose lengths are looked at and nothing else."""
    pending = 1
    while pending:
        pending -= 1
        if at < len(data) and data[at] >> 5 == OTHER:
            _, at = read_other(data, at)
            continue
        start = at
        major, argument, at = read_head(data, at)
        if major in (BYTES, TEXT):
            at += len(read_span(data, start, at, argument))
        elif major in (ARRAY, MAP):
            if argument > (len(data) - at) // (2 if major == MAP else 1):
                raise FormatError(start, f"room for {argument} entries", f"{len(data) - at} bytes")
            pending += argument * (2 if major == MAP else 1)
        elif major == TAG:
            pending += 1
    return at
