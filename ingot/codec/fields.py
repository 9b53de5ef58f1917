"""Reading a named format strictly: every field taken once, with its type, and none left over.

``open_envelope`` decodes a block and hands out the fields of the one format it names; each fault is
a FormatError with the offset of the value at fault. An absent field is omitted from the map, not
null, but in the heads of checkpoints. Called by the format modules. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn, TypeVar

from ingot.codec import dag_cbor
from ingot.codec.dag_cbor import Cid
from ingot.errors import FormatError

T = TypeVar("T")
Step = str | int  # a map's key or an array's position

KIND_NAMES: dict[type, str] = {
    int: "an integer",
    str: "a text",
    bytes: "a byte string",
    Cid: "a link",
    bool: "a boolean",
    list: "an array",
    dict: "a map",
}


def open_envelope(block: bytes, format_name: str) -> Fields:
    """The fields of a block of ``format_name``; FormatError naming the format it has instead."""
    value = dag_cbor.decode(block)
    found = dag_cbor.format_in(value)
    if found != format_name:
        raise FormatError(1, f"the format {format_name!r}", repr(found))
    assert isinstance(value, dict)
    return Fields(block, (format_name,), value[format_name])


class Fields:
    """The entries of one map of a block, each to be taken once."""

    __slots__ = ("_block", "_entries", "_path", "_taken")

    def __init__(self, block: bytes, path: Sequence[Step], value: object) -> None:
        self._block, self._path = block, tuple(path)
        self._taken = 0
        if not isinstance(value, dict):
            raise FormatError(offset_of(block, self._path), "a map", kind_of(value))
        self._entries: dict[str, object] = value

    def get(self, name: str, kind: type[T]) -> T | None:
        """The field's value, None when it is absent."""
        value = self._entries.get(name)
        if value is None:
            if name in self._entries:
                self.refuse(name, KIND_NAMES[kind], "null")
            return None
        if type(value) is not kind:
            self.refuse(name, KIND_NAMES[kind], kind_of(value))
        self._taken += 1
        return value

    def need(self, name: str, kind: type[T]) -> T:
        """The field's value; it has to be there."""
        value = self.get(name, kind)
        if value is None:
            offset = offset_of(self._block, self._path)
            raise FormatError(offset, f"a field {name!r}", "none")
        return value

    def need_uint(self, name: str, least: int = 0) -> int:
        value = self.need(name, int)
        if value < least:
            self.refuse(name, f"at least {least}", str(value))
        return value

    def need_bytes(self, name: str, size: int) -> bytes:
        value = self.get_bytes(name, size)
        return value if value is not None else self.need(name, bytes)

    def get_bytes(self, name: str, size: int) -> bytes | None:
        value = self.get(name, bytes)
        if value is not None and len(value) != size:
            self.refuse(name, f"{size} bytes", str(len(value)))
        return value

    def get_link(self, name: str) -> bytes | None:
        """A link as the plain bytes that other modules take."""
        value = self.get(name, Cid)
        return bytes(value) if value is not None else None

    def need_link_or_null(self, name: str) -> bytes | None:
        """A link, of a format that writes null where there is none."""
        if name in self._entries and self._entries[name] is None:
            self._taken += 1
            return None
        return bytes(self.need(name, Cid))

    def get_list(self, name: str) -> list[object]:
        """An array; an empty one is written by leaving the field out."""
        value: list[object] | None = self.get(name, list)
        if value is None:
            return []
        if not value:
            self.refuse(name, "an array with items, or no field", "an empty array")
        return value

    def get_fields(self, name: str) -> Fields | None:
        value = self._entries.get(name)
        if value is None and name not in self._entries:
            return None
        self._taken += 1
        return self.inside(value, name)

    def inside(self, value: object, *path: Step) -> Fields:
        """The fields of a map further in, which stands at ``path``."""
        return Fields(self._block, (*self._path, *path), value)

    def refuse(self, name: Step, expected: str, found: str, *path: Step) -> NoReturn:
        """Raise a FormatError at the value under ``name`` (and ``path`` inside it)."""
        offset = offset_of(self._block, (*self._path, name, *path))
        raise FormatError(offset, expected, found)

    def done(self) -> None:
        """Refuse a field that was not taken."""
        if self._taken != len(self._entries):
            offset = offset_of(self._block, self._path)
            raise FormatError(offset, f"{self._taken} known fields", ", ".join(self._entries))


def kind_of(value: object) -> str:
    """What a value is, for messages."""
    return KIND_NAMES.get(type(value), repr(value))


def offset_of(block: bytes, path: Sequence[Step]) -> int:
    """Where the value at ``path`` starts in a block that decodes; of a value that is not there,
    where the one starts that lacks it."""
    at = 0
    for step in path:
        start = at
        major, count, at = _head(block, at)
        if major != (4 if isinstance(step, int) else 5):
            return start
        if isinstance(step, int):
            if not 0 <= step < count:
                return start
            for _ in range(step):
                at = end_of(block, at)
            continue
        for _ in range(count):
            _, length, key_at = _head(block, at)
            at = key_at + length
            if block[key_at:at] == step.encode():
                break
            at = end_of(block, at)
        else:
            return start
    return at


def _head(block: bytes, at: int) -> tuple[int, int, int]:
    major, info = block[at] >> 5, block[at] & 31
    width = 0 if info < 24 else 1 << (info - 24)
    argument = int.from_bytes(block[at + 1 : at + 1 + width], "big") if width else info
    return major, argument, at + 1 + width


def end_of(block: bytes, at: int) -> int:
    """Where the value that starts at ``at`` ends, in a block that decodes."""
    major, argument, at = _head(block, at)
    if major in (2, 3):
        return at + argument
    for _ in range({4: argument, 5: 2 * argument, 6: 1}.get(major, 0)):
        at = end_of(block, at)
    return at
