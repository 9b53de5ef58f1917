"""The data model of tokens: what their decoders take, and reading a value by its path.

Values are None, bool, int of 64 bits, str, bytes, Cid (a link), list and dict with str keys. There
are no floats (nor the bignums that Go could read), and everything has a largest size. Pure; used by
the modules that read tokens, and by those that read the arguments and results in them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from ingot.codec.dag_cbor import Cid
from ingot.codec.fields import KIND_NAMES, Step, kind_of, offset_of
from ingot.errors import FormatError
from ingot.forge.errors import Malformed, shown
from ingot.limits import UCAN_BYTES_MAX, UCAN_ENTRIES_MAX, UCAN_TEXT_BYTES_MAX

T = TypeVar("T")


def check(value: object, *path: Step) -> None:
    """Malformed where a value, however deep, is outside the model or over its size."""
    kind = type(value)
    if isinstance(value, str):
        check_text(value, UCAN_TEXT_BYTES_MAX, *path)
    elif isinstance(value, bytes):
        if len(value) > UCAN_BYTES_MAX:
            raise Malformed(path, f"at most {UCAN_BYTES_MAX} bytes", str(len(value)))
    elif isinstance(value, (list, dict)):
        if len(value) > UCAN_ENTRIES_MAX:
            raise Malformed(path, f"at most {UCAN_ENTRIES_MAX} entries", str(len(value)))
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(key, str):
                check_text(key, UCAN_TEXT_BYTES_MAX, *path)
            check(item, *path, key)
    elif value is not None and kind is not int and kind is not bool:
        raise Malformed(path, "a value of the token data model", f"a {kind.__name__}")


def check_text(text: str, bytes_max: int, *path: Step) -> None:
    if len(text) > bytes_max // 4 and len(text.encode(errors="surrogatepass")) > bytes_max:
        raise Malformed(path, f"a text of at most {bytes_max} bytes", f"{len(text)} characters")


def get(value: object, kind: type[T], *path: Step) -> T | None:
    """What stands at ``path`` inside ``value``, of exactly this kind; None when it is absent or
    null. Malformed when something else stands there or on the way."""
    for depth, step in enumerate(path):
        if isinstance(value, dict) and isinstance(step, str):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int):
            value = value[step] if 0 <= step < len(value) else None
        else:
            expected = "a map" if isinstance(step, str) else "an array"
            raise Malformed(path[:depth], expected, kind_of(value))
    if value is None or kind is object or type(value) is kind:
        return value  # type: ignore[return-value]
    raise Malformed(path, KIND_NAMES[kind], kind_of(value))


def take(value: object, kind: type[T], *path: Step) -> T:
    """As ``get``, of something that has to be there."""
    found = get(value, kind, *path)
    if found is None:
        expected = KIND_NAMES[kind] if kind in KIND_NAMES else "a value"
        raise Malformed(path, expected, "nothing")
    return found


@contextmanager
def under(*path: Step) -> Iterator[None]:
    """A Malformed raised inside is about something at ``path``."""
    try:
        yield
    except Malformed as fault:
        raise Malformed((*path, *fault.path), fault.expected, fault.found) from None


@contextmanager
def located(block: bytes, *path: Step) -> Iterator[None]:
    """A Malformed raised inside, about the value at ``path`` of a block that decodes, becomes a
    FormatError with the offset."""
    try:
        yield
    except Malformed as fault:
        where = "".join(f"{shown(str(step))}: " for step in fault.path)
        offset = offset_of(block, (*path, *fault.path))
        raise FormatError(offset, where + fault.expected, fault.found) from None


def same(one: object, other: object) -> bool:
    """Equal and of equal kinds all the way down: text is never bytes, bytes never a link, and a
    number never a boolean."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


def promise(task: bytes) -> dict[str, object]:
    """The value that stands for the result of ``task`` (a task CID) until it is known."""
    return {"await/ok": Cid(task)}


def promised(value: object, *path: Step) -> bytes:
    """The task CID of the promise at ``path``; Malformed when none stands there."""
    return bytes(take(value, Cid, *path, "await/ok"))
