"""A bucket's lifecycle rules, found by what they are about and not one by one. Pure.

A bucket may have a thousand rules, and they are asked of each of its objects, and with each GET. So
they stand under their prefixes, and those that name tags under the first of these as well: an
object finds the ones with a beginning of its key by as many look-ups as prefixes have lengths, and
of the tagged ones those that name one of its tags. Used by ``ingot.expiring`` and
``ingot.s3.expiration``, who still ask each that is found whether it ``fits``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from ingot.s3.lifecycle import Filter, Rule

T = TypeVar("T")
Placed = tuple[int, Rule]  # a rule behind its place in the document


class RuleIndex:
    """Finds rules in the order of the document."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        """Only of those that are enabled."""
        self._plain = _ByPrefix[list[Placed]]()
        self._tagged = _ByPrefix[dict[tuple[str, str], list[Placed]]]()
        tagged = []
        for placed in enumerate(rules):
            rule = placed[1]
            if not rule.enabled:
                continue
            if rule.filter.tags:
                under = self._tagged.under(rule.filter, {})
                under.setdefault(rule.filter.tags[0], []).append(placed)
                tagged.append(rule)
            else:
                self._plain.under(rule.filter, []).append(placed)
        self.soonest_tagged = _soonest(tagged)
        """By which no version goes later than by any rule that names tags."""

    def plain(self, key: bytes) -> list[Rule]:
        """The rules that name no tags."""
        return _in_order(self._of_plain(key))

    def asks_tags(self, key: bytes) -> bool:
        """Whether rules depend on the tags of the key's object."""
        return bool(self._tagged.of(key))

    def tagged(self, key: bytes, tags: Mapping[str, str]) -> list[Rule]:
        """The rules that name tags, of which the first is among ``tags``."""
        return _in_order(self._of_tagged(key, tags))

    def about(self, key: bytes, tags: Mapping[str, str]) -> list[Rule]:
        """Both."""
        return _in_order(self._of_plain(key) + self._of_tagged(key, tags))

    def _of_plain(self, key: bytes) -> list[Placed]:
        return [one for some in self._plain.of(key) for one in some]

    def _of_tagged(self, key: bytes, tags: Mapping[str, str]) -> list[Placed]:
        under = self._tagged.of(key) if tags else []
        return [one for by in under for tag in tags.items() for one in by.get(tag, ())]


class _ByPrefix(dict[bytes, T]):
    """What stands under the prefixes of rules."""

    def __init__(self) -> None:
        super().__init__()
        self._lengths: list[int] = []

    def under(self, about: Filter, empty: T) -> T:
        prefix = (about.prefix or "").encode()
        if prefix not in self:
            self._lengths = sorted({*self._lengths, len(prefix)})
        return self.setdefault(prefix, empty)

    def of(self, key: bytes) -> list[T]:
        """What stands under beginnings of a key."""
        found = []
        for length in self._lengths:
            if length > len(key):
                break
            one = self.get(key[:length])
            if one is not None:
                found.append(one)
        return found


def _in_order(found: list[Placed]) -> list[Rule]:
    found.sort(key=lambda placed: placed[0])
    return [rule for _, rule in found]


def _soonest(rules: Sequence[Rule]) -> list[Rule]:
    """At most two, since days and a date exclude each other in a rule."""
    days = [rule.days for rule in rules if rule.days is not None]
    noncurrent = [rule.noncurrent_days for rule in rules if rule.noncurrent_days is not None]
    dates = [rule.date_ms for rule in rules if rule.date_ms is not None]
    made = []
    if days or noncurrent:
        first, behind = min(days, default=None), min(noncurrent, default=None)
        made.append(Rule("", True, Filter(), days=first, noncurrent_days=behind))
    if dates:
        made.append(Rule("", True, Filter(), date_ms=min(dates)))
    return made
