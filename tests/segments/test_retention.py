"""Which files go, and that none goes before the network surely has it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.errors import Unavailable
from ingot.limits import RETENTION_PROBE_BYTES, RETENTION_PROBES
from ingot.segments import format, retention
from ingot.segments.retention import Warm, chosen, order_of, probes
from ingot.segments.retiring import Retiring
from tests.segments.machine import cid_of
from tests.segments.test_cold import Cold
from tests.support.coldsource import flip

Key = tuple[str, int]

segments = st.lists(
    st.builds(
        Warm,
        st.tuples(st.sampled_from(["body", "unit"]), st.integers(1, 50)),
        st.integers(1, 1000),
        st.integers(0, 5),
        st.booleans(),
    ),
    unique_by=lambda one: one.key,
    max_size=30,
)


@given(segments, st.integers(0, 10_000), st.integers(0, 10_000))
def test_what_is_chosen(warm: list[Warm], more: int, budget: int) -> None:
    used = more + sum(one.bytes for one in warm)
    going = chosen(warm, used, budget)
    assert all(one.confirmed for one in going)
    assert going == order_of(warm)[: len(going)]
    left = used - sum(one.bytes for one in going)
    if left > budget:  # then there was nothing more that may go
        assert len(going) == sum(one.confirmed for one in warm)
    if going:  # and none of them was too many
        assert left + going[-1].bytes > budget


@given(segments)
def test_the_order(warm: list[Warm]) -> None:
    for one, after in zip(order_of(warm), order_of(warm)[1:], strict=False):
        if one.key[0] != after.key[0]:
            assert (one.key[0], after.key[0]) == ("body", "unit")
        else:
            assert one.last_read <= after.last_read
            assert one.last_read < after.last_read or one.key[1] < after.key[1]


@given(st.integers(1, 1 << 30), st.binary(min_size=8, max_size=8))
def test_which_parts_are_read_back(size: int, chance: bytes) -> None:
    parts = probes(size, lambda count: chance)
    assert all(0 <= start < stop <= size for start, stop in parts)
    assert parts[0][1] == size, "the end is among them"
    read = sum(stop - start for start, stop in parts)
    assert read == min(size, RETENTION_PROBES * RETENTION_PROBE_BYTES)


class Ledger:
    """What a registry would know. ``failure`` is raised in place of an answer."""

    def __init__(self, cold: Cold) -> None:
        self.cold = cold
        self.known: set[Key] = set()
        self.noted: list[Key] = []
        self.failure: Exception | None = None

    async def confirmed(self) -> set[Key]:
        return self.known

    async def note_cold(self, info: Any) -> None:
        if self.failure is not None:
            raise self.failure
        assert format.file_name(*info.key) in self.cold.machine.files.names
        self.noted.append(info.key)


class Kept:
    """A store, a network that has all its files, and what keeps it within a budget."""

    def __init__(self, cold: Cold) -> None:
        self.cold, self.store = cold, cold.store
        self.ledger = Ledger(cold)
        for info in self.store.retirable():
            name = format.file_name(*info.key)
            cold.source.keep(info.key, bytes(cold.machine.file(name).seen))
            self.ledger.known.add(info.key)
        self.keys = [info.key for info in self.store.retirable()]
        self.warm = self.store.bytes_here()
        self.retiring = self.within(0)

    def within(self, budget: int) -> Retiring:
        self.retiring = Retiring(self.store, self.ledger, budget, self.cold.machine.clock)
        return self.retiring

    def round(self) -> int:
        return self.cold.machine.run(self.retiring.round())


@pytest.fixture
def kept() -> Iterator[Kept]:
    made = Kept(Cold("near", "far"))
    yield made
    made.cold.machine.loop.bury()


def test_nothing_goes_within_the_budget(kept: Kept) -> None:
    kept.within(kept.warm)
    assert kept.round() == 0 and not kept.ledger.noted and not kept.cold.source.asked


def test_bodies_go_first_the_longest_unread_before_the_others(kept: Kept) -> None:
    assert [key[0] for key in kept.keys] == ["body", "body", "unit"]
    first, second, unit = kept.keys
    kept.within(kept.warm - 1)
    kept.cold.machine.clock.ms = 10_000
    kept.store.read_times(10)
    chunk = next(c for c in kept.cold.chunks if kept.store.find(cid_of(c)).number == first[1])
    kept.cold.machine.read(chunk)
    assert kept.round() == 1 and kept.ledger.noted == [second]
    assert kept.round() == 0
    kept.within(0)
    assert kept.round() == 2 and kept.ledger.noted == [second, first, unit]
    kept.cold.check()
    assert not kept.store.retirable()


def test_the_unconfirmed_stay(kept: Kept) -> None:
    kept.ledger.known.remove(kept.keys[0])
    assert kept.round() == 2 and kept.keys[0] not in kept.ledger.noted
    kept.ledger.known.clear()
    assert kept.round() == 0


def test_every_file_is_read_back_while_it_is_here(kept: Kept) -> None:
    near, far = kept.cold.source.all

    def spoil(at: int, piece: bytes) -> bytes:
        assert format.file_name(*near.asked[-1][0]) in kept.cold.machine.files.names
        return piece

    near.spoil = spoil
    assert kept.round() == 3
    assert {key for key, _, _ in near.asked} == set(kept.keys) and not far.asked


def test_parts_anywhere_in_a_file_are_compared(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "RETENTION_PROBE_BYTES", 100)
    near, far = kept.cold.source.all
    far.away = True
    kept.round()
    sizes = {info.key: info.bytes for info in kept.cold.infos("body")}
    assert not sizes, "they are whole at one"
    assert len(near.asked) == 3 * RETENTION_PROBES
    assert all(stop - start == 100 for _, start, stop in near.asked)
    assert len(set(near.asked)) > 3 + RETENTION_PROBES, "not the same parts each time"


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]


def test_providers_that_are_away(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    near, far = kept.cold.source.all
    near.away = far.away = True
    assert kept.round() == 0 and kept.round() == 0
    assert not kept.ledger.noted and len(kept.store.retirable()) == 3
    said = errors(caplog)
    assert len(said) == 2, "each is told once"
    assert "near is away" in said[0] and "far is away" in said[1]
    far.away = False
    assert kept.round() == 3


@pytest.mark.parametrize("forgets", [True, False])
def test_one_that_has_not_what_it_confirmed_is_believed_no_more_until_it_has(
    kept: Kept, caplog: pytest.LogCaptureFixture, forgets: bool
) -> None:
    """Also about files that it does have, and after it was right before."""
    near, far = kept.cold.source.all
    far.files.clear()
    first, second, unit = kept.keys
    kept.within(kept.warm - 1)
    assert kept.round() == 1 and kept.ledger.noted == [first]
    kept.within(0)
    held = dict(near.files)
    if forgets:
        near.forgot.add(second)
    else:
        near.files[second] = flip(held[second], len(held[second]) // 2)
    assert kept.round() == 0 and kept.round() == 0
    (said,) = errors(caplog)
    assert format.file_name(*second) in said and "near" in said
    assert ("has not" if forgets else "reads differently") in said
    assert [key for key, _, _ in near.asked] == [first, second, second], (
        "the unit was not asked for"
    )
    near.forgot.clear()
    near.files.update(held)
    assert kept.round() == 2 and set(kept.ledger.noted) == {first, second, unit}
    kept.cold.check()


def test_another_that_has_it_is_enough(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    near, far = kept.cold.source.all
    first, second, unit = kept.keys
    near.spoil = lambda at, piece: flip(piece, 0)
    assert kept.round() == 3
    assert len(errors(caplog)) == 1
    assert {key for key, _, _ in near.asked} == {first}
    assert {key for key, _, _ in far.asked} == {first, second, unit}


def test_files_of_others_go_in_place_of_one_that_stays(kept: Kept) -> None:
    """One that cannot go does not keep the budget from being met."""
    near, far = kept.cold.source.all
    first, second, unit = kept.keys
    near.files = {first: b"another" * 9999}
    del far.files[first]
    kept.within(kept.warm - 1)
    assert kept.round() == 1 and kept.ledger.noted == [second]


def test_a_file_that_is_damaged_here_stays_and_no_provider_is_blamed(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    first, *others = kept.keys
    kept.cold.machine.spoil(format.file_name(*first), 5000)
    assert kept.round() == 2 and kept.ledger.noted == others
    assert kept.round() == 0
    (said,) = errors(caplog)
    assert "damaged here" in said and "fsck" in said


def test_a_registry_that_is_away(kept: Kept) -> None:
    kept.ledger.failure = Unavailable("no registry")
    with pytest.raises(Unavailable):
        kept.round()
    assert len(kept.store.retirable()) == 3
    kept.ledger.failure = None
    assert kept.round() == 3


def test_what_is_new_is_not_the_first_to_go(kept: Kept) -> None:
    """It was never read, but it was not here for long either."""
    kept.within(kept.warm * 10)
    assert kept.round() == 0
    machine = kept.cold.machine
    machine.clock.ms = 50_000
    chunks = [machine.random.randbytes(9000) for _ in range(6)]
    positions = [machine.upload(chunk) for chunk in chunks]
    machine.run(kept.store.sync_bodies(positions))
    machine.run(machine.settle())
    (new,) = [info for info in kept.store.retirable() if info.key not in kept.keys][:1]
    name = format.file_name(*new.key)
    kept.cold.source.keep(new.key, bytes(machine.file(name).seen))
    kept.ledger.known.add(new.key)
    assert kept.round() == 0
    kept.retiring._budget = kept.store.bytes_here() - 1
    assert kept.round() == 1 and kept.ledger.noted == [kept.keys[0]]


async def test_it_goes_on_by_itself_and_stops() -> None:
    """Over failures too."""

    class Failing:
        rounds = 0

        def retirable(self) -> list[Any]:
            self.rounds += 1
            if self.rounds < 3:
                raise (Unavailable("away"), ValueError("odd"))[self.rounds - 1]
            raise _Enough

    class _Enough(BaseException):
        pass

    from ingot.clock import SystemClock

    store: Any = Failing()
    retiring = Retiring(store, None, 0, SystemClock(), round_s=0)  # type: ignore[arg-type]
    with pytest.raises(_Enough):
        await retiring._run()
    assert store.rounds == 3
    await retiring.start()
    await retiring.stop()
    assert store.rounds == 3
