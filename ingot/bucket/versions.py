"""What becomes of a key's versions: put, delete, delete one version, change its state. Pure.

A key's versions are a list, the newest first; the first is the current one. A version has an id, or
is the null version, of which a key has one at the most. Rules:

- ``add`` puts a version with an id in front. Nothing is lost.
- ``add_null`` puts a null version in front, in place of the one that there was, wherever it stood.
- ``remove`` takes one version out; the next is the current one where it was the first.
- What is under a hold, or under retention that has not ended, is neither removed nor replaced.

The list is a leaf and a tree behind it (``bucket/leaf.py``); where the tree is read and written is
the affair of ``Older``. A null version gets its place in the tree when a newer one is put in front
of it: before, nobody needs to know it. Called by ``bucket/versioned.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, Protocol

from ingot.bucket.leaf import COMPLIANCE, GOVERNANCE, Acl, Retention, State, order_of
from ingot.bucket.model import Locked
from ingot.errors import Corruption
from ingot.messages import Cid

Judge = Callable[["Version"], None]
"""Raises Locked for a version that must stay."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a key. ``id`` None is the null version."""

    record: Cid
    id: str | None = None
    state: Cid | None = None


class Older(Protocol):
    """The older versions of a key by order key."""

    def newest(self) -> tuple[str, Version] | None: ...
    def get(self, order: str) -> Version | None: ...
    def put(self, order: str, version: Version) -> None: ...
    def remove(self, order: str) -> None: ...
    def in_front(self, order: str, most: int) -> int: ...


class History:
    """The versions of one key. ``null`` is the order key of the null version among ``older``."""

    __slots__ = ("current", "null", "older")

    def __init__(self, current: Version | None, older: Older, null: str | None = None) -> None:
        self.current = current
        self.older = older
        self.null = null

    def find(self, id: str | None) -> Version | None:
        """The version with this id, or the null version."""
        if self.current is not None and self.current.id == id:
            return self.current
        order = self.null if id is None else order_of(id)
        found = None if order is None else self.older.get(order)
        return found if found is not None and found.id == id else None

    def add(self, made: Version, behind: str) -> None:
        """A new current version, which has an id. ``behind`` is the order key just behind it."""
        assert made.id is not None
        self._push(behind)
        self.current = made

    def add_null(self, made: Version, judge: Judge, behind: str) -> None:
        """A new current version that is the null version; Locked where the old one must stay."""
        assert made.id is None
        replaced = self.find(None)
        if replaced is not None:
            judge(replaced)
            self._take_out_null()
        if self.current is not None:
            self._push(behind)
        self.current = made

    def remove(self, id: str | None, judge: Judge) -> Version | None:
        """Take a version out and return it, None where there is none; Locked where it must stay."""
        found = self.find(id)
        if found is None:
            return None
        judge(found)
        if id is None:
            self._take_out_null()
        elif found is not self.current:
            self.older.remove(order_of(id))
        else:
            self.current = None
        if self.current is None:
            self._promote()
        return found

    def has_newer(self, id: str | None, count: int) -> bool:
        """Whether so many versions stand between the current one and this older one."""
        order = self.null if id is None else order_of(id)
        assert order is not None, "it is an older one"
        return self.older.in_front(order, count) >= count

    def set_state(self, id: str | None, state: Cid | None) -> None:
        """Give a version that is there another state."""
        current = self.current
        if current is not None and current.id == id:
            self.current = replace(current, state=state)
            return
        found = self.find(id)
        assert found is not None, "its caller found it"
        order = self.null if id is None else order_of(id)
        assert order is not None
        self.older.put(order, replace(found, state=state))

    def _push(self, behind: str) -> None:
        """Make the current version an older one."""
        current = self.current
        if current is None:
            return
        order = behind if current.id is None else order_of(current.id)
        if current.id is None:
            assert self.null is None, "one null version at the most"
            self.null = order
        self.older.put(order, current)

    def _take_out_null(self) -> None:
        if self.null is None:
            self.current = None
        else:
            self.older.remove(self.null)
            self.null = None

    def _promote(self) -> None:
        """The newest of the older versions becomes the current one."""
        newest = self.older.newest()
        if newest is None:
            return
        order, version = newest
        self.older.remove(order)
        if version.id is None:
            if order != self.null:
                raise Corruption("null version of a key", self.null, order)
            self.null = None
        self.current = version


# -- state ------------------------------------------------------------------------------------


class Keep(Enum):
    """What a change of state leaves as it is."""

    AS_IS = 0


KEEP: Final = Keep.AS_IS


@dataclass(frozen=True, slots=True)
class NewState:
    """A change of a version's state; what is KEEP stays. ``bypass``: governance may be ended."""

    tags: dict[str, str] | Keep = KEEP
    retention: Retention | None | Keep = KEEP
    hold: bool | Keep = KEEP
    bypass: bool = False
    acl: Acl | None | Keep = KEEP

    def on(self, state: State, now_ms: int) -> State:
        """The state after it; Locked where retention would end earlier than was promised."""
        retention = state.retention
        if not isinstance(self.retention, Keep):
            _judge_retention(state.retention, self.retention, now_ms, self.bypass)
            retention = self.retention
        return State(
            state.tags if isinstance(self.tags, Keep) else self.tags,
            retention,
            state.hold if isinstance(self.hold, Keep) else self.hold,
            state.acl if isinstance(self.acl, Keep) else self.acl,
        )


def judge_removal(state: State, now_ms: int, bypass: bool) -> None:
    """Locked where a version in this state must not be deleted. A hold knows no bypass."""
    if state.hold:
        raise Locked("the version is under a legal hold")
    retention = state.retention
    if retention is not None and retention.until_ms > now_ms:
        if retention.mode == COMPLIANCE or not bypass:
            raise Locked(f"the version is retained ({retention.mode})")


def _judge_retention(
    old: Retention | None, new: Retention | None, now_ms: int, bypass: bool
) -> None:
    """Retention may always be made longer. Anything else is a way to end it early, or to keep those
    from ending it who may."""
    if old is None or old.until_ms <= now_ms:
        return
    if new is not None and new.until_ms >= old.until_ms and new.mode == old.mode:
        return
    if old.mode == GOVERNANCE and bypass:
        return
    raise Locked(f"the version is retained ({old.mode}) until a later time")
