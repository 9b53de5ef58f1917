"""What lifecycle rules remove, over the whole store: LIFE-2. Against a plain reading of the rules,
and against whoever changes an object between the look and the removal."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from itertools import chain, repeat
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingot import limits
from ingot.bucket.leaf import COMPLIANCE, Retention, State
from ingot.bucket.model import ENABLED, SUSPENDED, VERSIONING, Bucket, NoSuchBucket
from ingot.bucket.mutation import Removal
from ingot.bucket.part import Upload
from ingot.bucket.reading import Listed
from ingot.bucket.record import Record, decode_record
from ingot.bucket.versions import NewState
from ingot.errors import Unavailable
from ingot.expiring import Expiring, Round
from ingot.messages import Body
from ingot.s3 import lifecycle
from ingot.s3.lifecycle import DAY_MS, Filter, Rule
from ingot.testing import Gateway
from tests.e2e.conftest import make_client
from tests.s3.store_driver import StoreDriver
from tests.s3.test_configuration import put
from tests.support.turns import counted_turns
from tests.support.world import CONFIG, World

MIDNIGHT = 1_800_057_600_000  # and a midnight it is
assert MIDNIGHT % DAY_MS == 0


class Now:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.ms = MIDNIGHT
        self.moved_ms = 0  # by whoever set the machine's clock

    def now_ms(self) -> int:
        return self.ms + self.moved_ms

    def monotonic(self) -> float:
        return self.ms / 1000

    boottime = monotonic


class Case:
    """A store, its clock, and rounds by hand."""

    def __init__(self, world: World, clock: Now) -> None:
        self.world, self.clock, self.store = world, clock, world.store
        world.registry.database.wall_ms = clock.now_ms
        self.expiring = Expiring(world.store, world.registry, clock)

    async def rules(self, *rules: Rule) -> None:
        await self.store.configure(self.store.bucket("b"), "lifecycle", lifecycle.write(rules))

    async def put(self, key: str, age: float, size: int = 1, **state: Any) -> None:
        """An object that is ``age`` days old."""
        at = self.clock.ms - int(age * DAY_MS)
        body = Body(size, bytes(16), bytes(32), inline=bytes(size))
        made = State(**state) if state else None
        await self.store.put(
            self.store.bucket("b"), Record(key.encode(), body, "e", at), None, made
        )

    async def delete(self, key: str, age: float) -> None:
        at = self.clock.ms - int(age * DAY_MS)
        await self.store.remove(self.store.bucket("b"), [Removal(key.encode(), None, at)])

    async def versions(self) -> list[tuple[str, bool, float]]:
        """Key, whether it is a delete marker, and age of every version, in order."""
        bucket = self.store.bucket("b")
        page = await self.store.versions(bucket, b"", b"", None, 1000)
        items = [item for item in page.items if isinstance(item, Listed)]
        found = []
        async with aclosing(self.store.records([item.record for item in items])) as slices:
            async for blocks in slices:
                found += [decode_record(block) for block in blocks]
        return [
            (item.key.decode(), record.delete_marker, (self.clock.ms - record.created_ms) / DAY_MS)
            for item, record in zip(items, found, strict=True)
        ]

    async def keys(self) -> list[str]:
        return [key for key, marker, _ in await self.versions() if not marker]


@pytest.fixture
async def case() -> AsyncIterator[Case]:
    clock = Now()
    world = await World(clock).start()
    yield Case(world, clock)
    await world.stop()


# -- without versions ------------------------------------------------------------------------------


async def test_objects_go_at_the_first_midnight_behind_their_days(case: Case) -> None:
    await case.rules(Rule("r", True, Filter("a"), days=2))
    for key, age in (("a-due", 2.0), ("a-old", 9), ("a-young", 1.9), ("b-old", 9)):
        await case.put(key, age)
    assert await case.expiring.round() == Round(expired=2)
    assert await case.keys() == ["a-young", "b-old"]
    case.clock.ms += DAY_MS - 1
    assert await case.expiring.round() == Round()
    case.clock.ms += 1
    assert await case.expiring.round() == Round(expired=1)


async def test_a_date_and_a_rule_that_is_off(case: Case) -> None:
    await case.rules(
        Rule("past", True, Filter("a"), date_ms=MIDNIGHT),
        Rule("to come", True, Filter("b"), date_ms=MIDNIGHT + DAY_MS),
        Rule("off", False, Filter("c"), days=1),
    )
    for key in "abc":
        await case.put(key, 5)
    assert await case.expiring.round() == Round(expired=1)
    assert await case.keys() == ["b", "c"]


async def test_sizes_and_tags(case: Case) -> None:
    await case.rules(
        Rule("large", True, Filter(larger_than=9), days=1),
        Rule("tagged", True, Filter(tags=(("k", "v"), ("l", "")), form="And"), days=1),
    )
    await case.put("large", 5, size=10)
    await case.put("small", 5, size=9)
    await case.put("tagged", 5, tags={"k": "v", "l": "", "m": "1"})
    await case.put("half", 5, tags={"k": "v"})
    await case.put("other", 5, tags={"k": "w", "l": ""})
    assert await case.expiring.round() == Round(expired=2)
    assert await case.keys() == ["half", "other", "small"]


async def test_of_many_rules_few_are_looked_at(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand rules with tags of their own: each object's tags are read once, and only where
    they may make it go."""
    await case.rules(
        *(Rule(f"{n}", True, Filter(tags=((f"t{n}", "x"),)), days=2) for n in range(998)),
        Rule(
            "date", True, Filter("old", (("old", "x"),), form="And"), date_ms=MIDNIGHT + 9 * DAY_MS
        ),
        Rule("uploads", True, Filter("a"), abort_days=1),
    )
    await case.put("due", 5, tags={"t7": "x", "t8": "y", "t9": "z"})
    await case.put("plain", 5)
    for n in range(8):
        await case.put(f"{n}", 5, tags={"t7": "y", "more": "x"})
        await case.put(f"young{n}", 1, tags={"t7": "x"})
    looks, fits = [], []
    look, filter_fits = case.store.look, Filter.fits

    def counted(*args: Any) -> Any:
        looks.append(args[1])
        return look(*args)

    def count_fits(about: Filter, *args: Any) -> bool:
        fits.append(about)
        return filter_fits(about, *args)

    monkeypatch.setattr(case.store, "look", counted)
    monkeypatch.setattr(Filter, "fits", count_fits)
    assert await case.expiring.round() == Round(expired=1)
    assert sorted(looks) == sorted([b"due", *(b"%d" % n for n in range(8))])
    assert len(fits) <= 3 * 18
    case.clock.ms += DAY_MS
    assert await case.expiring.round() == Round(expired=8)


async def test_many_rules_leave_others_their_turn(case: Case) -> None:
    rules, objects = 1000, 20
    await case.rules(*(Rule(f"{n}", True, Filter(), days=100) for n in range(rules)))
    for n in range(objects):
        await case.put(f"{n}", 5)
    async with counted_turns() as turns:
        assert await case.expiring.round() == Round()
    assert turns.count >= rules * objects // limits.LIFECYCLE_STEPS_PER_TURN


async def test_uploads(case: Case) -> None:
    await case.rules(Rule("r", True, Filter("a"), abort_days=3))
    for key, age in (("a/old", 3), ("a/young", 2.9), ("b/old", 9)):
        at = case.clock.ms - int(age * DAY_MS)
        await case.store.uploads.create(
            case.store.bucket("b"), Upload(key.encode(), "", at, "o", "O", {}, {}, "", False)
        )
    assert await case.expiring.round() == Round(aborted=1)
    page = await case.store.uploads.page(case.store.bucket("b"), b"", b"", (b"", ""), 10)
    assert [key for key, _ in page.items] == [b"a/young", b"b/old"]


# -- with versions ---------------------------------------------------------------------------------


async def test_a_current_version_gets_a_delete_marker(case: Case) -> None:
    await case.store.configure(case.store.bucket("b"), VERSIONING, ENABLED)
    await case.rules(Rule("r", True, Filter(), days=2))
    await case.put("k", 5)
    assert await case.expiring.round() == Round(expired=1)
    assert await case.versions() == [("k", True, 0), ("k", False, 5)]
    assert await case.expiring.round() == Round(), "the version behind a marker is not current"


async def test_a_suspended_bucket_loses_its_null_version(case: Case) -> None:
    await case.put("k", 9)
    await case.store.configure(case.store.bucket("b"), VERSIONING, SUSPENDED)
    await case.rules(Rule("r", True, Filter(), days=2))
    assert await case.expiring.round() == Round(expired=1)
    assert await case.versions() == [("k", True, 0)]


async def test_noncurrent_versions_go_by_the_time_they_were_replaced(case: Case) -> None:
    await case.store.configure(case.store.bucket("b"), VERSIONING, ENABLED)
    for age in (9, 8, 3, 1):
        await case.put("k", age)
    await case.rules(Rule("r", True, Filter(), noncurrent_days=3))
    assert await case.expiring.round() == Round(removed=2)
    assert [age for _, _, age in await case.versions()] == [1, 3]


async def test_newer_noncurrent_versions_stay(case: Case) -> None:
    await case.store.configure(case.store.bucket("b"), VERSIONING, ENABLED)
    for age in (9, 8, 7, 6, 5):
        await case.put("k", age)
    await case.put("l", 9)
    await case.rules(Rule("r", True, Filter(), noncurrent_days=1, newer=2))
    assert await case.expiring.round() == Round(removed=2)
    assert [age for _, _, age in await case.versions()] == [5, 6, 7, 9]
    assert await case.expiring.round() == Round()


@pytest.mark.parametrize("status", [ENABLED, SUSPENDED])
async def test_as_many_newer_versions_stay_as_there_are_at_the_commit(
    case: Case, monkeypatch: pytest.MonkeyPatch, status: bytes
) -> None:
    """Who deletes one of those that stay has one more of the others stay."""
    await case.put("k", 10)  # it becomes the null version
    await case.store.configure(case.store.bucket("b"), VERSIONING, ENABLED)
    for age in (9, 8, 7, 6):
        await case.put("k", age)
    await case.store.configure(case.store.bucket("b"), VERSIONING, status)
    await case.rules(Rule("r", True, Filter(), noncurrent_days=1, newer=2))
    page = await case.store.versions(case.store.bucket("b"), b"", b"", None, 10)
    second = page.items[1]
    assert isinstance(second, Listed)
    gone = Removal(b"k", None, case.clock.ms, second.version)
    remove = case.store.remove
    done = await faster(case, monkeypatch, lambda: remove(case.store.bucket("b"), [gone]))
    assert done == Round(removed=1, kept=1)
    assert [age for _, _, age in await case.versions()] == [6, 8, 9]
    assert await case.expiring.round() == Round()


async def test_of_two_rules_the_one_that_keeps_counts_what_the_other_leaves(case: Case) -> None:
    await case.store.configure(case.store.bucket("b"), VERSIONING, ENABLED)
    for age, size in ((9, 1), (8, 1), (7, 1), (6, 5), (5, 5), (4, 5)):
        await case.put("k", age, size)
    large = Filter(larger_than=2)
    await case.rules(
        Rule("large", True, large, noncurrent_days=1),
        Rule("all", True, Filter(), noncurrent_days=1, newer=2),
    )
    assert await case.expiring.round() == Round(removed=3)
    assert [age for _, _, age in await case.versions()] == [4, 7, 8]
    assert await case.expiring.round() == Round()


async def test_delete_markers_with_nothing_behind_them(case: Case) -> None:
    await case.store.configure(case.store.bucket("b"), VERSIONING, ENABLED)
    await case.delete("alone", 0)
    await case.put("hides", 9)
    await case.delete("hides", 0)
    await case.delete("two", 5)
    await case.delete("two", 5)
    await case.rules(Rule("r", True, Filter(), marker=True))
    assert await case.expiring.round() == Round(removed=1)
    assert [key for key, _, _ in await case.versions()] == ["hides", "hides", "two", "two"]
    await case.rules(Rule("r", True, Filter(), marker=False, noncurrent_days=4))
    await case.expiring.round()
    assert [key for key, _, _ in await case.versions()] == ["hides", "hides", "two"]


async def test_locked_versions_stay(case: Case) -> None:
    await case.store.configure(case.store.bucket("b"), VERSIONING, ENABLED)
    await case.put("held", 9, hold=True)
    await case.put("kept", 9, retention=Retention(COMPLIANCE, case.clock.ms + 1))
    await case.put("free", 9)
    for key in ("held", "kept", "free"):
        await case.put(key, 8)
    await case.rules(Rule("r", True, Filter(), noncurrent_days=1))
    assert await case.expiring.round() == Round(removed=1, kept=2)
    case.clock.ms += DAY_MS
    assert await case.expiring.round() == Round(removed=1, kept=1), "retention has ended"


async def test_a_bucket_that_did_not_change_is_read_when_something_is_due(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    versions = case.store.versions

    async def counted(*arguments: Any) -> Any:
        looks.append(arguments)
        return await versions(*arguments)

    monkeypatch.setattr(case.store, "versions", counted)
    await case.rules(Rule("r", True, Filter(), days=3), Rule("s", True, Filter("k"), days=5))
    await case.put("k", 1)
    await case.expiring.round()
    await case.expiring.round()
    case.clock.ms += 2 * DAY_MS - 1
    await case.expiring.round()
    assert len(looks) == 1
    await case.put("l", 0)
    await case.expiring.round()
    assert len(looks) == 2, "it changed"
    case.clock.ms += 1
    assert await case.expiring.round() == Round(expired=1)
    await case.expiring.round()
    assert len(looks) == 4, "and so it did by the removal"
    await case.expiring.round()
    assert len(looks) == 4


# -- somebody is faster ----------------------------------------------------------------------------


async def faster(case: Case, monkeypatch: pytest.MonkeyPatch, change: Any) -> Round:
    """A round in which ``change`` happens between the look and the removal."""
    remove = case.store.remove
    todo = [change]

    async def late(bucket: Bucket, removals: Sequence[Removal]) -> Any:
        while todo:
            await todo.pop()()
        return await remove(bucket, removals)

    monkeypatch.setattr(case.store, "remove", late)
    return await case.expiring.round()


@pytest.mark.parametrize("status", [None, ENABLED, SUSPENDED])
async def test_what_was_overwritten_meanwhile_stays(
    case: Case, monkeypatch: pytest.MonkeyPatch, status: bytes | None
) -> None:
    """With the same bytes, and so the same ETag."""
    if status is not None:
        await case.store.configure(case.store.bucket("b"), VERSIONING, status)
    await case.put("k", 9)
    await case.rules(Rule("r", True, Filter(), days=1))
    assert await faster(case, monkeypatch, lambda: case.put("k", 0)) == Round(kept=1)
    assert ("k", False, 0) in await case.versions()


async def test_a_noncurrent_version_that_became_current_stays(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    await case.store.configure(case.store.bucket("b"), VERSIONING, ENABLED)
    await case.put("k", 9)
    await case.put("k", 8)
    await case.rules(Rule("r", True, Filter(), noncurrent_days=1))
    remove = case.store.remove

    async def remove_newest() -> None:
        page = await case.store.versions(case.store.bucket("b"), b"", b"", None, 1)
        newest = page.items[0]
        assert isinstance(newest, Listed)
        await remove(
            case.store.bucket("b"), [Removal(newest.key, None, case.clock.ms, newest.version)]
        )

    assert await faster(case, monkeypatch, remove_newest) == Round(kept=1)
    assert await case.versions() == [("k", False, 9)]


async def test_a_delete_marker_that_got_company_stays(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    await case.store.configure(case.store.bucket("b"), VERSIONING, ENABLED)
    await case.delete("k", 5)
    await case.rules(Rule("r", True, Filter(), marker=True))

    async def another() -> None:
        await case.put("k", 1)
        await case.delete("k", 0)

    assert await faster(case, monkeypatch, another) == Round(kept=1)
    assert len(await case.versions()) == 3


async def test_a_rule_that_was_taken_back_removes_no_more(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LIFECYCLE_PAGE", 2)
    for number in range(6):
        await case.put(f"k{number}", 9)
    await case.rules(Rule("r", True, Filter(), days=1))
    done = await faster(
        case, monkeypatch, lambda: case.store.configure(case.store.bucket("b"), "lifecycle", None)
    )
    assert done == Round(kept=2), "those that were on their way"
    assert len(await case.keys()) == 6


async def test_a_rule_that_was_taken_back_aborts_no_more(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = case.clock.ms - 9 * DAY_MS
    upload = await case.store.uploads.create(
        case.store.bucket("b"), Upload(b"k", "", at, "o", "O", {}, {}, "", False)
    )
    await case.rules(Rule("r", True, Filter(), abort_days=1))
    abort = case.store.uploads.abort

    async def late(*arguments: Any) -> None:
        await case.store.configure(case.store.bucket("b"), "lifecycle", None)
        await abort(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(case.store.uploads, "abort", late)
        assert await case.expiring.round() == Round(kept=1)
    assert await case.store.uploads.find(case.store.bucket("b"), b"k", upload.id)


@pytest.mark.parametrize("status", [None, ENABLED, SUSPENDED])
async def test_what_was_tagged_anew_meanwhile_stays(
    case: Case, monkeypatch: pytest.MonkeyPatch, status: bytes | None
) -> None:
    if status is not None:
        await case.store.configure(case.store.bucket("b"), VERSIONING, status)
    await case.put("k", 9, tags={"a": "1", "b": "2"})
    await case.rules(Rule("r", True, Filter(tags=(("a", "1"),)), days=1))
    new = NewState(tags={"a": "3", "b": "2"})
    done = await faster(
        case, monkeypatch, lambda: case.store.set_state(case.store.bucket("b"), b"k", None, new, 0)
    )
    assert done == Round(kept=1)
    assert await case.expiring.round() == Round()
    await case.store.set_state(
        case.store.bucket("b"), b"k", None, NewState(tags={"a": "1", "c": "3"}), 0
    )
    assert await case.expiring.round() == Round(expired=1)


async def test_a_bucket_that_goes_meanwhile(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    await case.put("k", 9)
    await case.rules(Rule("r", True, Filter(), days=1))

    async def gone() -> None:
        await case.store.delete(case.store.bucket("b"), [b"k"])
        await case.store.delete_bucket(case.store.bucket("b"))

    assert await faster(case, monkeypatch, gone) == Round()
    with pytest.raises(NoSuchBucket):
        case.store.bucket("b")


# -- clocks and failures ---------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [-1.1, 1.1, 24 * 365])
async def test_nothing_goes_by_a_clock_that_is_wrong(
    case: Case, caplog: pytest.LogCaptureFixture, hours: float
) -> None:
    await case.put("k", 9)
    await case.rules(Rule("r", True, Filter(), days=1))
    ours = case.clock.ms
    case.world.registry.database.wall_ms = lambda: ours - int(hours * 3_600_000)
    with caplog.at_level(logging.ERROR):
        assert await case.expiring.round() == Round()
    assert "s apart" in caplog.text
    case.world.registry.database.wall_ms = lambda: ours + 3_000_000
    assert await case.expiring.round() == Round(expired=1)


@pytest.mark.parametrize("hours", [-1.1, 1.1, 24 * 365])
async def test_nothing_goes_by_a_clock_that_was_moved(
    case: Case, caplog: pytest.LogCaptureFixture, hours: float
) -> None:
    """Though Postgres says the same: it runs on this machine. Time itself may pass."""
    await case.put("old", 9)
    await case.put("young", 0)
    await case.rules(Rule("r", True, Filter(), days=5))
    case.clock.moved_ms = int(hours * 3_600_000)
    with caplog.at_level(logging.ERROR):
        assert await case.expiring.round() == Round()
    assert "was moved" in caplog.text
    case.clock.moved_ms = 3_000_000  # as clocks are put right
    assert await case.expiring.round() == Round(expired=1)
    case.clock.ms += 6 * DAY_MS
    assert await case.expiring.round() == Round(expired=1)


async def test_a_round_has_one_time(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that the clocks agreed on, whatever ours says while it goes on."""
    await case.put("young", 0)
    await case.rules(Rule("r", True, Filter(), days=1))
    said = chain((MIDNIGHT,), repeat(MIDNIGHT + 365 * DAY_MS))
    monkeypatch.setattr(case.clock, "now_ms", lambda: next(said))
    assert await case.expiring.round() == Round()
    assert next(said) > MIDNIGHT, "it was asked"
    assert await case.keys() == ["young"]


async def test_nothing_is_asked_where_there_are_no_rules(case: Case) -> None:
    case.world.registry.database.reachable = False
    assert await case.expiring.round() == Round()


async def test_trouble_with_one_bucket_is_not_the_others(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    await case.store.create_bucket("a", CONFIG)
    await case.store.configure(case.store.bucket("a"), "lifecycle", b"<later/>")
    await case.put("k", 9)
    await case.rules(Rule("r", True, Filter(), days=1))
    with caplog.at_level(logging.WARNING):
        assert await case.expiring.round() == Round(expired=1)
    assert "bucket a" in caplog.text


async def test_rounds_go_on_after_one_that_was_cut_short(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds: list[Round] = []
    enough = asyncio.Event()
    expiring = Expiring(case.store, case.world.registry, case.clock, day_s=0.001)
    inner = expiring.round

    async def failing() -> Round:
        rounds.append(Round())
        if len(rounds) == 1:
            raise Unavailable("the registry is away")
        if len(rounds) == 2:
            raise ValueError("a bug")
        enough.set()
        return await inner()

    monkeypatch.setattr(expiring, "round", failing)
    task = asyncio.create_task(expiring.run())
    async with asyncio.timeout(10):
        await enough.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# -- all of it, against a plain reading ------------------------------------------------------------

STEPS = st.lists(
    st.tuples(st.sampled_from("kl"), st.booleans(), st.integers(0, 6)), min_size=1, max_size=14
)
RULES = st.builds(
    lambda prefix, days, marker, noncurrent, newer: Rule(
        "r",
        True,
        Filter(prefix),
        days,
        None,
        marker if days is None else None,
        noncurrent,
        newer if noncurrent else None,
    ),
    st.sampled_from(["", "k"]),
    st.none() | st.integers(1, 6),
    st.sampled_from([None, True]),
    st.none() | st.integers(1, 6),
    st.none() | st.integers(1, 3),
)


def survivors(key: str, versions: list[tuple[bool, int]], rule: Rule) -> list[tuple[bool, int]]:
    """What is left of a key's versions (marker, age), the newest first, after one round."""
    if not key.startswith(rule.filter.prefix or ""):
        return versions
    (marker, age), rest = versions[0], versions[1:]
    left = [versions[0]]
    days = rule.days
    if not marker and days is not None and age >= days:
        left = [(True, 0), versions[0]]
    elif marker and not rest and (rule.marker or (days is not None and age >= days)):
        left = []
    for place, version in enumerate(rest):
        replaced = versions[place][1]
        gone = rule.noncurrent_days is not None and replaced >= rule.noncurrent_days
        if not gone or place < (rule.newer or 0):
            left.append(version)
    return left


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(STEPS, RULES, st.integers(1, 4))
def test_against_a_plain_reading(
    monkeypatch: pytest.MonkeyPatch, steps: list[Any], rule: Rule, page: int
) -> None:
    async def run() -> None:
        clock = Now()
        world = await World(clock).start()
        case = Case(world, clock)
        try:
            await world.store.configure(world.store.bucket("b"), VERSIONING, ENABLED)
            model: dict[str, list[tuple[bool, int]]] = {}
            for key, deletes, age in sorted(steps, key=lambda step: -step[2]):
                await (case.delete(key, age) if deletes else case.put(key, age))
                model.setdefault(key, []).insert(0, (deletes, age))
            await case.rules(rule)
            await case.expiring.round()
            expected = [
                (key, *version)
                for key in sorted(model)
                for version in survivors(key, model[key], rule)
            ]
            assert await case.versions() == expected
        finally:
            await world.stop()

    with monkeypatch.context() as patch:
        patch.setattr(limits, "LIFECYCLE_PAGE", page)
        patch.setattr(limits, "LIFECYCLE_BATCH", 2)
        asyncio.run(run())


# -- a whole gateway -------------------------------------------------------------------------------


def test_a_gateway_expires_by_itself() -> None:
    with Gateway(lifecycle_debug_day_s=1.0) as gateway:
        client = make_client(gateway)
        client.create_bucket(Bucket="bucket")
        rule = {"Status": "Enabled", "Filter": {"Prefix": "gone"}, "Expiration": {"Days": 1}}
        client.put_bucket_lifecycle_configuration(
            Bucket="bucket", LifecycleConfiguration={"Rules": [{**rule, "ID": "one"}]}
        )
        client.put_object(Bucket="bucket", Key="gone", Body=b"1")
        client.put_object(Bucket="bucket", Key="stays", Body=b"1")
        deadline = gateway.server.clock.monotonic() + 20
        keys = ["gone", "stays"]
        while keys != ["stays"]:
            assert gateway.server.clock.monotonic() < deadline
            keys = [o["Key"] for o in client.list_objects_v2(Bucket="bucket")["Contents"]]
        client.close()


def test_life_3_clients_are_told() -> None:
    with StoreDriver() as driver:
        driver.bucket()
        body = lifecycle.write(
            [
                Rule("all", True, Filter("a"), days=9),
                Rule("tagged", True, Filter(tags=(("k", "v"),)), days=2),
            ]
        )
        assert put(driver, "lifecycle", body).status == 200
        answers = [driver.ask("PUT", "/bucket/a", body=b"1")]
        answers += [driver.ask("HEAD", "/bucket/a"), driver.ask("GET", "/bucket/a")]
        for answer in answers:
            assert 'rule-id="all"' in answer.headers["x-amz-expiration"]
        assert "x-amz-expiration" not in driver.ask("PUT", "/bucket/b", body=b"1").headers
        tags = NewState(tags={"k": "v"})
        driver._runner.run(
            driver.world.store.set_state(driver.world.store.bucket("bucket"), b"a", None, tags, 0)
        )
        assert 'rule-id="tagged"' in driver.ask("GET", "/bucket/a").headers["x-amz-expiration"]


def test_life_3_a_get_among_many_rules_looks_at_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """And reads neither the rules nor the object's tags again."""
    tagged = [Rule(f"{n}", True, Filter(tags=((f"t{n}", "x"),)), days=5) for n in range(999)]
    document = lifecycle.write([*tagged, Rule("all", True, Filter("a"), days=9)]).decode()
    fits, reads = [], []
    filter_fits, read = Filter.fits, lifecycle.read_in_steps

    def count_fits(about: Filter, *args: Any) -> bool:
        fits.append(about)
        return filter_fits(about, *args)

    def count_reads(document: bytes) -> Any:
        reads.append(document)
        return read(document)

    with StoreDriver() as driver:
        driver.bucket()
        assert put(driver, "lifecycle", document).status == 200
        monkeypatch.setattr(Filter, "fits", count_fits)
        monkeypatch.setattr(lifecycle, "read_in_steps", count_reads)
        tags = {"x-amz-tagging": "t7=x&t8=y"}
        assert driver.ask("PUT", "/bucket/a", headers=tags, body=b"1").status == 200
        del fits[:]
        for _ in range(3):
            answer = driver.ask("GET", "/bucket/a")
            assert 'rule-id="7"' in answer.headers["x-amz-expiration"]
        assert len(fits) == 3 * 2 and len(reads) == 1
