"""Policies: the statements of a delegation that an invocation's arguments must satisfy, all.

    ["==" or "!=", selector, value]              equal, of the same kind, all the way down
    [">" ">=" "<" "<=", selector, integer]       both integers, else no match
    ["like", selector, glob]                     text; * is any run, \\* a star, \\\\ a backslash
    ["not", statement]                           also where the inner one cannot be resolved
    ["and" or "or", [statement, ...]]            empty ones match
    ["all" or "any", selector, statement]        over the entries of a list or the values of a map

Shapes are checked when parsing (Malformed, with the path). A selector that finds nothing fails the
policy with a ResolutionError, except inside ``not`` and ``or``. The work for one invocation is
bounded: a policy that needs more is a MatchError. Pure; used by ``token`` and ``validate``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import ge, gt, le, lt
from typing import Final

from ingot.codec.fields import Step, kind_of
from ingot.forge import values
from ingot.forge.errors import Malformed, MatchError, ResolutionError
from ingot.forge.selector import Selector
from ingot.limits import POLICY_STEPS_MAX

_COMPARISONS: Final[dict[str, Callable[[int, int], bool]]] = {">": gt, ">=": ge, "<": lt, "<=": le}
_SHAPES: Final = {
    **dict.fromkeys(("==", "!=", *_COMPARISONS, "like", "all", "any"), 3),
    **dict.fromkeys(("not", "and", "or"), 2),
}


@dataclass(frozen=True, slots=True)
class Statement:
    """``operand`` is a value, or the parts of a glob; ``inner`` the statements it is made of."""

    operator: str
    selector: Selector | None
    operand: object
    inner: tuple[Statement, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """``statements`` as they stand in a delegation, and parsed."""

    statements: Sequence[object]
    _parsed: tuple[Statement, ...]

    @classmethod
    def parse(cls, statements: Sequence[object]) -> Policy:
        """Malformed, with the path, when a statement has no known shape."""
        return cls(statements, tuple(_parse(one, (at,)) for at, one in enumerate(statements)))

    def check(self, arguments: object, matcher: Matcher | None = None) -> None:
        """MatchError or ResolutionError when a statement does not hold for ``arguments``; the
        policies of one chain share a ``matcher``, and so what work they may cause."""
        matcher = matcher or Matcher()
        for statement, source in zip(self._parsed, self.statements, strict=True):
            if not matcher.holds(statement, arguments):
                raise MatchError(f"the policy {source!r:.200} does not hold for the arguments")


def _parse(value: object, path: tuple[Step, ...]) -> Statement:
    if not isinstance(value, list) or not value:
        raise Malformed(path, "a policy statement", kind_of(value))
    operator = value[0]
    length = _SHAPES.get(operator) if isinstance(operator, str) else None
    if length is None:
        raise Malformed((*path, 0), f"one of {', '.join(_SHAPES)}", f"{operator!r:.40}")
    if len(value) != length:
        raise Malformed(path, f"{length} entries with {operator!r}", str(len(value)))
    if operator == "not":
        return Statement(operator, None, None, (_parse(value[1], (*path, 1)),))
    if operator in ("and", "or"):
        inner = value[1]
        if not isinstance(inner, list):
            raise Malformed((*path, 1), "an array of statements", kind_of(inner))
        parsed = tuple(_parse(one, (*path, 1, at)) for at, one in enumerate(inner))
        return Statement(operator, None, None, parsed)
    text = value[1]
    if not isinstance(text, str):
        raise Malformed((*path, 1), "a selector", kind_of(text))
    with values.under(*path, 1):
        selector = Selector.parse(text)
    if operator in ("all", "any"):
        return Statement(operator, selector, None, (_parse(value[2], (*path, 2)),))
    operand = value[2]
    if operator in _COMPARISONS and type(operand) is not int:
        raise Malformed((*path, 2), "an integer", kind_of(operand))
    if operator == "like":
        operand = _glob(operand, (*path, 2))
    return Statement(operator, selector, operand)


def _glob(pattern: object, path: tuple[Step, ...]) -> tuple[str, ...]:
    """The literal texts between the stars of a pattern."""
    if not isinstance(pattern, str):
        raise Malformed(path, "a glob", kind_of(pattern))
    parts, letters = [""], iter(pattern)
    for letter in letters:
        if letter == "*":
            parts.append("")
            continue
        literal = next(letters, None) if letter == "\\" else letter
        if literal is None:
            raise Malformed(path, "a letter after the backslash", "the end of the glob")
        parts[-1] += literal
    return tuple(parts)


def _like(parts: tuple[str, ...], text: str) -> bool:
    first, *middle = parts
    if not middle:
        return text == first
    last = middle.pop()
    end = len(text) - len(last)
    at = len(first)
    if at > end or not text.startswith(first) or not text.endswith(last):
        return False
    for part in middle:  # the leftmost place leaves the most for the parts that follow
        at = text.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True


class Matcher:
    """Evaluates statements, counting the work of all of them."""

    def __init__(self) -> None:
        self.left = POLICY_STEPS_MAX

    def spend(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise MatchError(f"the policy looks at more than {POLICY_STEPS_MAX} values")

    def holds(self, statement: Statement, value: object) -> bool:
        """ResolutionError where a selector finds nothing."""
        self.spend(1)
        if statement.selector is None:
            return self._combined(statement, value)
        selected = statement.selector.select(value, self.spend)
        operator, operand = statement.operator, statement.operand
        if operator in ("==", "!="):
            return values.same(selected, operand) is (operator == "==")
        if operator == "like":
            assert isinstance(operand, tuple)
            return isinstance(selected, str) and _like(operand, selected)
        if operator in ("all", "any"):
            return self._entries(statement, selected)
        if type(selected) is not int or type(operand) is not int:
            return False
        return _COMPARISONS[operator](selected, operand)

    def _combined(self, statement: Statement, value: object) -> bool:
        if statement.operator == "and":
            return all(self.holds(one, value) for one in statement.inner)
        if statement.operator == "not":
            return not self._resolved(statement.inner[0], value)
        return not statement.inner or any(self._resolved(one, value) for one in statement.inner)

    def _resolved(self, statement: Statement, value: object) -> bool:
        try:
            return self.holds(statement, value)
        except ResolutionError:
            return False

    def _entries(self, statement: Statement, selected: object) -> bool:
        if isinstance(selected, dict):
            selected = list(selected.values())
        if not isinstance(selected, list):
            return False
        test = all if statement.operator == "all" else any
        return test(self.holds(statement.inner[0], entry) for entry in selected)
