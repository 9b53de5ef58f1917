"""Selectors: the paths of policy statements, ``.blob.digest``, ``.[0]``, ``.to[]?``.

    selector = "." | step+ , starting with "."
    step     = .name  .["any text"]  .[3] .[-1]  .[1:3] .[1:] .[:2]  .[]      and "?" after any

The dot before a bracket may be left out behind another step. ``[]`` continues with each entry of a
list or map by itself and gives the list of what was found, without nulls and without one level of
lists. A step that finds nothing is a ResolutionError; with ``?`` it finds null. Lists, bytes and
text are indexed and cut, text by its bytes in UTF-8, as Forge's services do. Quoted names take no
backslash. Pure; used by ``policy``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from ingot.codec.dag_cbor import Cid
from ingot.forge.errors import Malformed, ResolutionError

_STEP: Final = re.compile(
    r"""(?: \.(?P<name>[A-Za-z_][A-Za-z0-9$_-]*)
          | \.?\[ (?: "(?P<quoted>[^"\\]*)"
                    | (?P<index>-?[0-9]{1,18})
                    | (?P<start>-?[0-9]{1,18}):(?P<stop>-?[0-9]{1,18})?
                    | :(?P<only_stop>-?[0-9]{1,18})
                    | (?P<each>)
                  ) \]
        )(?P<optional>\??)""",
    re.VERBOSE,
)


class Kind(Enum):
    FIELD = auto()
    INDEX = auto()
    SLICE = auto()
    EACH = auto()


@dataclass(frozen=True, slots=True)
class Step:
    """``name`` of a field, ``start`` of an index, ``start`` and ``stop`` of a slice."""

    kind: Kind
    optional: bool
    name: str = ""
    start: int | None = None
    stop: int | None = None


@dataclass(frozen=True, slots=True)
class Selector:
    """``text`` and the steps it says."""

    text: str
    steps: tuple[Step, ...]

    @classmethod
    def parse(cls, text: str) -> Selector:
        """Malformed when the text is no selector."""
        steps: list[Step] = []
        at = 0
        while text != "." and (at < len(text) or at == 0):
            found = _STEP.match(text, at) if text.startswith(".") else None
            if found is None:
                raise Malformed((), "a selector", f"{text[:99]!r}, which is none from letter {at}")
            steps.append(_step(found))
            at = found.end()
        return cls(text, tuple(steps))

    def select(self, value: object, spend: Callable[[int], None] = lambda steps: None) -> object:
        """What it finds in ``value``; ``spend`` hears how many values were looked at."""
        return self._from(0, value, spend)[0]

    def _from(self, first: int, value: object, spend: Callable[[int], None]) -> tuple[object, bool]:
        """(what the steps from ``first`` on find, whether that is the list of an ``[]``)."""
        for at in range(first, len(self.steps)):
            step = self.steps[at]
            try:
                if step.kind is Kind.EACH:
                    return self._each(at + 1, _entries(value), spend), True
                value = _one(step, value, spend)
            except LookupError as error:
                if not step.optional:
                    raise ResolutionError(f"the selector {self.text!r} finds no {error}") from None
                value = None
        return value, False

    def _each(
        self, following: int, entries: Collection[object], spend: Callable[[int], None]
    ) -> list[object]:
        spend(1 + len(entries))
        found: list[object] = []
        for entry in entries:
            more, spread = self._from(following, entry, spend)
            if spread and isinstance(more, list):
                found += more
            elif more is not None:
                found.append(more)
        return found


def _entries(value: object) -> Collection[object]:
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list):
        return value
    raise LookupError(f"list or map, but a {type(value).__name__}")


def _one(step: Step, value: object, spend: Callable[[int], None]) -> object:
    """What one step that is no ``[]`` finds; LookupError when that is nothing."""
    if step.kind is Kind.FIELD:
        spend(1)
        if isinstance(value, dict) and step.name in value:
            return value[step.name]
        raise LookupError(f"field {step.name!r} in a {type(value).__name__}")
    if isinstance(value, str):  # a letter cut in two equals no text that a token can hold
        data = value.encode(errors="surrogateescape")
        return data[_span(step, len(data), spend)].decode(errors="surrogateescape")
    if isinstance(value, (bytes, list)) and type(value) is not Cid:
        part = value[_span(step, len(value), spend)]
        return part if step.kind is Kind.SLICE else part[0]
    raise LookupError(f"list, bytes or text, but a {type(value).__name__}")


def _span(step: Step, length: int, spend: Callable[[int], None]) -> slice:
    """The part that an index or a slice names."""
    spend(1 + length // 64)  # it is copied, and long ones add up
    if step.kind is Kind.SLICE:
        return slice(step.start, step.stop)
    at = step.start or 0
    if not -length <= at < length:
        raise LookupError(f"entry {at} among {length}")
    return slice(at % length, at % length + 1)


def _step(found: re.Match[str]) -> Step:
    optional = bool(found["optional"])
    name = found["name"] or found["quoted"]
    if name is not None:
        return Step(Kind.FIELD, optional, name=name)
    if found["index"] is not None:
        return Step(Kind.INDEX, optional, start=int(found["index"]))
    if found["each"] is not None:
        return Step(Kind.EACH, optional)
    start, stop = found["start"], found["stop"] or found["only_stop"]
    return Step(Kind.SLICE, optional, start=_number(start), stop=_number(stop))


def _number(digits: str | None) -> int | None:
    return int(digits) if digits else None
