"""The versions of a key against a plain list, and the rules of locks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.bucket.leaf import COMPLIANCE, GOVERNANCE, Acl, Retention, State, order_key, version_id
from ingot.bucket.model import Locked
from ingot.bucket.versions import (
    History,
    NewState,
    Version,
    judge_removal,
)


class Shelf:
    """Older versions in a dict."""

    def __init__(self) -> None:
        self.kept: dict[str, Version] = {}

    def newest(self) -> tuple[str, Version] | None:
        return min(self.kept.items()) if self.kept else None

    def get(self, order: str) -> Version | None:
        return self.kept.get(order)

    def put(self, order: str, version: Version) -> None:
        self.kept[order] = version

    def remove(self, order: str) -> None:
        del self.kept[order]

    def in_front(self, order: str, most: int) -> int:
        return min(most, sum(standing < order for standing in self.kept))


@dataclass
class Listed:
    """A version as the model has it."""

    record: bytes
    id: str | None
    state: bytes | None = None


def cid_of(number: int) -> bytes:
    return b"%036d" % number


def seen(history: History, shelf: Shelf) -> list[Version]:
    older = [version for _, version in sorted(shelf.kept.items())]
    return older if history.current is None else [history.current, *older]


LOCKED = cid_of(999_999)  # the state of a version that must stay


def judge(version: Version) -> None:
    if version.state == LOCKED:
        raise Locked("stays")


STEPS = st.lists(
    st.one_of(
        st.just(("add", 0)),
        st.just(("add_null", 0)),
        st.tuples(st.just("remove"), st.integers(0, 5)),
        st.just(("remove_null", 0)),
        st.just(("remove_unknown", 0)),
        st.tuples(st.just("state"), st.integers(0, 5)),
        st.tuples(st.just("lock"), st.integers(0, 5)),
        st.tuples(st.just("unlock"), st.integers(0, 5)),
    ),
    max_size=40,
)


@given(STEPS)
def test_versions_are_a_list(steps: list[tuple[str, int]]) -> None:
    shelf = Shelf()
    history = History(None, shelf)
    model: list[Listed] = []
    for number, (step, choice) in enumerate(steps):
        record, behind = cid_of(number), order_key(number, 0)
        at = choice % len(model) if model else 0
        if step == "add":
            made = version_id(order_key(number, 1), b"%08d" % number)
            history.add(Version(record, made), behind)
            model.insert(0, Listed(record, made))
        elif step == "add_null":
            null = next((each for each in model if each.id is None), None)
            if null is not None and null.state == LOCKED:
                with pytest.raises(Locked):
                    history.add_null(Version(record), judge, behind)
                continue
            history.add_null(Version(record), judge, behind)
            model = [Listed(record, None), *[each for each in model if each is not null]]
        elif step == "remove_unknown":
            assert history.remove(version_id(behind, b"unknown."), judge) is None
        elif step == "remove_null" and all(each.id is not None for each in model):
            assert history.remove(None, judge) is None
        elif model:
            chosen = model[at]
            if step == "remove_null":
                chosen = next(each for each in model if each.id is None)
            if step.startswith("remove") and chosen.state == LOCKED:
                with pytest.raises(Locked):
                    history.remove(chosen.id, judge)
            elif step.startswith("remove"):
                removed = history.remove(chosen.id, judge)
                assert removed is not None and removed.record == chosen.record
                model.remove(chosen)
            else:
                state = {"state": record, "lock": LOCKED, "unlock": None}[step]
                history.set_state(chosen.id, state)
                chosen.state = state
        assert seen(history, shelf) == [Version(e.record, e.id, e.state) for e in model]
        for each in model:
            assert history.find(each.id) == Version(each.record, each.id, each.state)
        older_null = [order for order, version in shelf.kept.items() if version.id is None]
        assert [history.null] == (older_null or [None])


def test_an_id_of_the_same_place_is_not_the_version() -> None:
    """A restored store may use a sequence again: the whole id is compared."""
    shelf = Shelf()
    history = History(None, shelf)
    mine = version_id(order_key(1, 1), b"mine....")
    lost = version_id(order_key(1, 1), b"lost....")
    history.add(Version(cid_of(1), mine), order_key(1, 0))
    for _ in range(2):
        assert history.find(lost) is None
        assert history.remove(lost, judge) is None
        assert history.find(mine) is not None
        history.add(Version(cid_of(2), version_id(order_key(2, 1), b"newer...")), order_key(2, 0))


NOW = 1000
GOVERNED = State(retention=Retention(GOVERNANCE, NOW + 1))
COMPLIED = State(retention=Retention(COMPLIANCE, NOW + 1))


@pytest.mark.parametrize(
    ("state", "bypass", "stays"),
    [
        (State(), False, False),
        (State({"a": "b"}), False, False),
        (State(hold=True), False, True),
        (State(hold=True), True, True),
        (GOVERNED, False, True),
        (GOVERNED, True, False),
        (replace(GOVERNED, hold=True), True, True),
        (COMPLIED, False, True),
        (COMPLIED, True, True),
        (State(retention=Retention(COMPLIANCE, NOW)), False, False),  # has ended
    ],
)
def test_what_must_stay(state: State, bypass: bool, stays: bool) -> None:
    """LOCK-4"""
    if stays:
        with pytest.raises(Locked):
            judge_removal(state, NOW, bypass)
    else:
        judge_removal(state, NOW, bypass)


@pytest.mark.parametrize(
    ("old", "new", "bypass", "allowed"),
    [
        (None, Retention(GOVERNANCE, NOW + 5), False, True),
        (Retention(GOVERNANCE, NOW + 5), Retention(GOVERNANCE, NOW + 6), False, True),
        (Retention(GOVERNANCE, NOW + 5), Retention(GOVERNANCE, NOW + 4), False, False),
        (Retention(GOVERNANCE, NOW + 5), Retention(GOVERNANCE, NOW + 4), True, True),
        (Retention(GOVERNANCE, NOW + 5), None, False, False),
        (Retention(GOVERNANCE, NOW + 5), None, True, True),
        (Retention(GOVERNANCE, NOW + 5), Retention(COMPLIANCE, NOW + 5), False, False),
        (Retention(GOVERNANCE, NOW + 5), Retention(COMPLIANCE, NOW + 4), True, True),
        (Retention(GOVERNANCE, NOW + 5), Retention(COMPLIANCE, NOW + 4), False, False),
        (Retention(COMPLIANCE, NOW + 5), Retention(COMPLIANCE, NOW + 5), False, True),
        (Retention(COMPLIANCE, NOW + 5), Retention(COMPLIANCE, NOW + 4), True, False),
        (Retention(COMPLIANCE, NOW + 5), Retention(GOVERNANCE, NOW + 9), True, False),
        (Retention(COMPLIANCE, NOW + 5), None, True, False),
        (Retention(COMPLIANCE, NOW), None, False, True),  # has ended
    ],
)
def test_retention_is_never_ended_early(
    old: Retention | None, new: Retention | None, bypass: bool, allowed: bool
) -> None:
    """LOCK-3"""
    change = NewState(retention=new, bypass=bypass)
    before = State({"t": "x"}, old, True)
    if allowed:
        assert change.on(before, NOW) == State({"t": "x"}, new, True)
    else:
        with pytest.raises(Locked):
            change.on(before, NOW)


def test_what_is_not_named_is_kept() -> None:
    before = State({"t": "x"}, Retention(COMPLIANCE, NOW + 1), True)
    assert NewState(tags={}).on(before, NOW) == replace(before, tags={})
    assert NewState(hold=False).on(before, NOW) == replace(before, hold=False)
    assert NewState().on(before, NOW) == before
    owned = replace(before, acl=Acl("o", "n", (("o", "p"),)))
    assert NewState(tags={}).on(owned, NOW) == replace(owned, tags={})
    assert NewState(acl=None).on(owned, NOW) == before
