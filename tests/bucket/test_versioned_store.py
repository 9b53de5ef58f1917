"""Versions and state through the whole store, against a plain list of versions a key."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import pytest

from ingot.bucket.leaf import COMPLIANCE, GOVERNANCE, Acl, Retention, State
from ingot.bucket.model import (
    ENABLED,
    NULL_VERSION,
    SUSPENDED,
    VERSIONING,
    BucketConfig,
    BucketNotEmpty,
    Condition,
    IsDeleteMarker,
    Locked,
    NoSuchVersion,
    Outcome,
    PreconditionFailed,
    StateChanged,
)
from ingot.bucket.mutation import Expiry, Removal, Seen
from ingot.bucket.reading import GROUPS_PER_TURN, Found, Listed
from ingot.bucket.record import Record, decode_record
from ingot.bucket.versions import KEEP, NewState
from ingot.clock import SystemClock
from ingot.errors import NotFound
from ingot.limits import READ_MANY_BLOCKS
from ingot.messages import Body
from tests.support.turns import counted_turns
from tests.support.world import CONFIG, World

NOW = 1_800_000_000_000


class Then(SystemClock):
    """Stands at the time that the tests speak of: retention does not end by a clock that jumps."""

    def now_ms(self) -> int:
        return NOW


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = await World(Then()).start()
    yield made
    await made.stop()


async def versioning(world: World, status: bytes) -> None:
    await world.store.configure(world.store.bucket("b"), VERSIONING, status)


def record(key: bytes, etag: str) -> Record:
    data = etag.encode()
    return Record(key, Body(len(data), bytes(16), bytes(32), inline=data), etag, NOW)


async def put(world: World, key: bytes, etag: str, **more: Any) -> Outcome | None:
    return await world.store.put(world.store.bucket("b"), record(key, etag), **more)


async def remove(world: World, *removals: Removal) -> list[Any]:
    return await world.store.remove(world.store.bucket("b"), removals)


async def look(world: World, key: bytes, version: str | None = None) -> Found | None:
    return await world.store.look(world.store.bucket("b"), key, version)


async def everything(world: World, prefix: bytes = b"", page: int = 1000) -> list[Listed | bytes]:
    """All versions, so many a page."""
    items: list[Listed | bytes] = []
    after = None
    while True:
        bucket = world.store.bucket("b")
        found = await world.store.versions(bucket, prefix, b"", after, page)
        items += found.items
        assert len(found.items) <= page
        if not found.truncated:
            return items
        assert len(found.items) == page
        after = (found.key, found.version)


async def shown(world: World, listed: list[Any]) -> list[tuple[bytes, str, bool, str]]:
    """(key, version, latest, etag; "" for a marker)"""
    blocks: list[bytes] = []
    async with aclosing(world.store.records([each.record for each in listed])) as parts:
        async for some in parts:
            blocks += some
    records = [decode_record(block) for block in blocks]
    for each, found in zip(listed, records, strict=True):
        assert each.key == found.key and found.delete_marker == (found.etag == "")
    pairs = zip(listed, records, strict=True)
    return [(each.key, each.version, each.latest, found.etag) for each, found in pairs]


async def test_every_put_makes_a_version(world: World) -> None:
    """VST-2, VST-3: a fresh id each; what was there before is the null version."""
    assert await put(world, b"k", "before") is None
    await versioning(world, ENABLED)
    made = [await put(world, b"k", str(n)) for n in range(3)]
    ids = [each.version for each in made if each is not None]
    assert len(set(ids)) == 3 and not any(each.marker for each in made if each is not None)
    assert await shown(world, await everything(world)) == [
        (b"k", ids[2], True, "2"),
        (b"k", ids[1], False, "1"),
        (b"k", ids[0], False, "0"),
        (b"k", NULL_VERSION, False, "before"),
    ]
    for id, etag in [*zip(ids, "012", strict=True), (NULL_VERSION, "before"), (None, "2")]:
        found = await look(world, b"k", id)
        assert found is not None and found.record.etag == etag
    assert await look(world, b"k", ids[0][:24] + "0" * 16) is None
    assert await look(world, b"k", "0" * 40) is None
    assert await look(world, b"none", ids[0]) is None


async def test_concurrent_puts_all_survive(world: World) -> None:
    """VST-6"""
    await versioning(world, ENABLED)
    made = await asyncio.gather(*[put(world, b"k", str(n)) for n in range(40)])
    listed = await everything(world)
    assert sorted(each.version for each in listed if isinstance(each, Listed)) == sorted(
        each.version for each in made if each is not None
    )
    latest = [each for each in listed if isinstance(each, Listed) and each.latest]
    assert len(latest) == 1
    found = await look(world, b"k")
    assert found is not None and found.version == latest[0].version


async def test_a_deletion_puts_a_marker_in_front(world: World) -> None:
    """DEL-1: of a key that never was, too. Removing the marker exposes what is behind it."""
    await versioning(world, ENABLED)
    first = await put(world, b"k", "1")
    [marker] = await world.store.delete(world.store.bucket("b"), [b"k"])
    assert first is not None and marker.marker and marker.version != first.version
    assert await world.store.find(world.store.bucket("b"), b"k") is None
    found = await look(world, b"k")
    assert found is not None and found.record.delete_marker and found.version == marker.version
    [gone] = await remove(world, Removal(b"k", None, NOW, marker.version))
    assert gone == Outcome(marker.version, True)
    found = await look(world, b"k")
    assert found is not None and found.record.etag == "1"
    [again] = await remove(world, Removal(b"k", None, NOW, marker.version))
    assert again == Outcome(marker.version, False), "it is not there, which is success"
    [other] = await world.store.delete(world.store.bucket("b"), [b"never"])
    assert other.marker
    with pytest.raises(BucketNotEmpty):
        await remove(world, Removal(b"k", None, NOW, first.version))
        await world.store.delete_bucket(world.store.bucket("b"))  # a marker is left
    await remove(world, Removal(b"never", None, NOW, other.version))
    await world.store.delete_bucket(world.store.bucket("b"))


async def test_suspended_writes_replace_the_null_version(world: World) -> None:
    """VST-3"""
    await put(world, b"k", "before")
    await versioning(world, ENABLED)
    one = await put(world, b"k", "one")
    assert one is not None
    await versioning(world, SUSPENDED)
    assert await put(world, b"k", "null") == Outcome(NULL_VERSION, False)
    expected = [(b"k", NULL_VERSION, True, "null"), (b"k", one.version, False, "one")]
    assert await shown(world, await everything(world)) == expected
    assert await world.store.delete(world.store.bucket("b"), [b"k"]) == [
        Outcome(NULL_VERSION, True)
    ]
    expected[0] = (b"k", NULL_VERSION, True, "")
    assert await shown(world, await everything(world)) == expected
    await versioning(world, ENABLED)
    two = await put(world, b"k", "two")
    assert two is not None
    expected = [
        (b"k", two.version, True, "two"),
        (b"k", NULL_VERSION, False, ""),
        (b"k", one.version, False, "one"),
    ]
    assert await shown(world, await everything(world)) == expected
    [gone] = await remove(world, Removal(b"k", None, NOW, NULL_VERSION))
    assert gone == Outcome(NULL_VERSION, True)


async def test_conditions_look_at_the_current_version(world: World) -> None:
    """PUT-8, DEL-2: a delete marker counts as absent."""
    await versioning(world, ENABLED)
    create = Condition(if_none_match_any=True)
    await put(world, b"k", "1", condition=create)
    with pytest.raises(PreconditionFailed):
        await put(world, b"k", "2", condition=create)
    await put(world, b"k", "2", condition=Condition(if_match=("1",)))
    with pytest.raises(PreconditionFailed):
        await put(world, b"k", "3", condition=Condition(if_match=("1",)))
    await world.store.delete(world.store.bucket("b"), [b"k"])
    with pytest.raises(NotFound):
        await put(world, b"k", "3", condition=Condition(if_match=("*",)))
    outcomes = await asyncio.gather(
        *[put(world, b"k", str(n), condition=create) for n in range(10)], return_exceptions=True
    )
    assert sum(isinstance(outcome, Outcome) for outcome in outcomes) == 1


async def test_state_changes_no_record(world: World) -> None:
    """TAG-2: of an object without versions, too; a new put has none of it."""
    store = world.store
    await put(world, b"k", "1")
    with pytest.raises(NotFound):
        await store.set_state(store.bucket("b"), b"none", None, NewState(tags={"a": "b"}), NOW)
    assert (
        await store.set_state(store.bucket("b"), b"k", None, NewState(tags={"a": "b"}), NOW) is None
    )
    found = await look(world, b"k")
    assert found == Found(record(b"k", "1"), NULL_VERSION, State({"a": "b"}))
    assert await store.find(store.bucket("b"), b"k") == record(b"k", "1")
    page = await store.page(store.bucket("b"), b"", b"", None, 10)
    async with aclosing(store.records([cid for _, cid in page.items if cid is not None])) as parts:
        assert [decode_record(b).etag async for some in parts for b in some] == ["1"]
    with pytest.raises(PreconditionFailed):
        await put(world, b"k", "2", condition=Condition(if_match=("x",)))
    await put(world, b"k", "2", condition=Condition(if_match=("1",)))
    found = await look(world, b"k")
    assert found is not None and found.state == State()
    await put(world, b"k", "3", state=State({"c": "d"}))
    found = await look(world, b"k")
    assert found is not None and found.state == State({"c": "d"}) and found.record.etag == "3"
    await store.set_state(store.bucket("b"), b"k", NULL_VERSION, NewState(tags={}), NOW)
    assert await look(world, b"k") == Found(record(b"k", "3"), NULL_VERSION)
    assert await store.delete(store.bucket("b"), [b"k"]) == [None]
    assert await look(world, b"k") is None


async def test_each_version_has_its_state(world: World) -> None:
    await versioning(world, ENABLED)
    one, two = await put(world, b"k", "1", state=State({"n": "1"})), await put(world, b"k", "2")
    assert one is not None and two is not None
    new = NewState(tags={"n": "2"})
    assert await world.store.set_state(world.store.bucket("b"), b"k", None, new, NOW) == Outcome(
        two.version, False
    )
    await put(world, b"k", "3")
    for id, tags in ((one.version, {"n": "1"}), (two.version, {"n": "2"}), (None, {})):
        found = await look(world, b"k", id)
        assert found is not None and found.state == State(tags)
    new = NewState(tags={"n": "1b"})
    await world.store.set_state(world.store.bucket("b"), b"k", one.version, new, NOW)
    found = await look(world, b"k", one.version)
    assert found is not None and found.state == State({"n": "1b"})
    with pytest.raises(NoSuchVersion):
        await world.store.set_state(world.store.bucket("b"), b"k", "0" * 40, new, NOW)
    [marker] = await world.store.delete(world.store.bucket("b"), [b"k"])
    for id in (None, marker.version):
        with pytest.raises(IsDeleteMarker):
            await world.store.set_state(world.store.bucket("b"), b"k", id, new, NOW)


@pytest.mark.parametrize(("newer", "stays"), [(3, False), (4, True)])
async def test_newer_versions_are_counted_as_the_batch_leaves_them(
    world: World, newer: int, stays: bool
) -> None:
    """One is put in front, one is removed and one is tagged in the same batch; the null version
    stands behind them."""
    await put(world, b"k", "null")
    await versioning(world, ENABLED)
    for n in range(4):
        await put(world, b"k", str(n))
    bucket = world.store.bucket("b")
    *_, removed, tagged, null = [
        item for item in await everything(world) if isinstance(item, Listed)
    ]
    judged = (b"k", NULL_VERSION, null.record, False, NULL_VERSION, NOW)
    expiry = Expiry(*judged, (), lambda _: None, newer)
    commits = world.pipeline.commits
    answers = await asyncio.gather(
        put(world, b"k", "new"),
        world.store.set_state(bucket, b"k", tagged.version, NewState(tags={"a": "b"}), NOW),
        remove(world, Removal(b"k", None, NOW, removed.version), expiry),
    )
    assert world.pipeline.commits == commits + 1
    assert isinstance(answers[2][1], PreconditionFailed) is stays
    left = [etag for _, _, _, etag in await shown(world, await everything(world))]
    assert left == ["new", "3", "2", "0", *(["null"] if stays else [])]


async def test_a_change_is_made_to_what_it_was_judged_by_and_nothing_else(world: World) -> None:
    """Of each kind, with versions and without, and of a version that is named."""
    store = world.store
    yes, no = Seen(None, {"m": "yes"}, KEEP), Seen(None, {"m": "no"}, KEEP)
    nothing, of_acl = Seen(None, {}, KEEP), Seen(None, None, Acl("w", "writer"))
    for status in (None, ENABLED, SUSPENDED):
        if status is not None:
            await versioning(world, status)
        await store.delete(store.bucket("b"), [b"k"])
        with pytest.raises(StateChanged):
            await put(world, b"k", "1", seen=yes)
        assert await look(world, b"k") is None or status is not None
        made = await put(world, b"k", "1", state=State({"m": "yes"}), seen=nothing)
        for seen in (no, nothing, of_acl):
            with pytest.raises(StateChanged):
                await put(world, b"k", "2", seen=seen)
            [refused] = await store.remove(store.bucket("b"), [Removal(b"k", None, NOW)], [seen])
            assert isinstance(refused, StateChanged)
        found = await look(world, b"k")
        assert found is not None and found.record.etag == "1"
        await put(world, b"k", "2", seen=yes)
        found = await look(world, b"k")
        assert found is not None and (found.record.etag, found.state.tags) == ("2", {})
        if status is ENABLED:
            assert made is not None
            named = [Seen(made.version, tags, KEEP) for tags in ({}, {"m": "yes"})]
            removal = Removal(b"k", None, NOW, made.version)
            [refused] = await store.remove(store.bucket("b"), [removal], named[:1])
            assert isinstance(refused, StateChanged)
            [gone] = await store.remove(store.bucket("b"), [removal], named[1:])
            assert gone == Outcome(made.version, False)
        [answer] = await store.remove(store.bucket("b"), [Removal(b"k", None, NOW)], [nothing])
        assert not isinstance(answer, Exception)


async def test_an_acl_is_of_a_version_and_changes_as_it_was_judged(world: World) -> None:
    """ACL-4: the record stays, a new version begins without; pages lead to whose a key is."""
    store = world.store
    one, two = (Acl("w", "writer", (("w", given),)) for given in ("READ", "WRITE"))
    for status in (None, ENABLED):
        if status is not None:
            await versioning(world, status)
        await put(world, b"k", "1", state=State({"a": "b"}, acl=one))
        await put(world, b"l", "1")
        with pytest.raises(StateChanged):
            await store.set_state(
                store.bucket("b"), b"k", None, NewState(acl=two), NOW, Seen(None, None, None)
            )
        with pytest.raises(StateChanged):
            await store.set_state(
                store.bucket("b"), b"k", None, NewState(acl=two), NOW, Seen(None, {}, KEEP)
            )
        for acl, judged in ((two, one), (None, two), (one, None)):
            seen = Seen(None, {"a": "b"}, judged)
            await store.set_state(store.bucket("b"), b"k", None, NewState(acl=acl), NOW, seen)
            found = await look(world, b"k")
            assert found is not None and found.state == State({"a": "b"}, acl=acl)
            assert found.record.etag == "1"
        bucket = store.bucket("b")
        states = await store.states(bucket, await store.page(bucket, b"", b"", None, 10))
        assert list(states) == [b"k"]
        assert await store.acls(states.values()) == {states[b"k"]: one}
        await put(world, b"k", "2")
        bucket = store.bucket("b")
        assert await store.states(bucket, await store.page(bucket, b"", b"", None, 10)) == {}
    acls = await store.acls([item.state for item in await everything(world) if item.state])
    assert list(acls.values()) == [one], "of the version before"
    await remove(world, Removal(b"k", None, NOW, state=State(acl=two)))
    marker = (await everything(world))[0]
    assert await store.acls([marker.state]) == {marker.state: two}


async def test_what_is_locked_stays(world: World) -> None:
    """LOCK-4"""
    await versioning(world, ENABLED)
    made = await put(world, b"k", "1", state=State(retention=Retention(GOVERNANCE, NOW + 10)))
    assert made is not None
    removal = Removal(b"k", None, NOW, made.version)
    [refused] = await remove(world, removal)
    assert isinstance(refused, Locked)
    await put(world, b"k", "2")
    [marker] = await world.store.delete(world.store.bucket("b"), [b"k"])
    assert marker.marker, "a marker is always allowed"
    await world.store.set_state(
        world.store.bucket("b"), b"k", made.version, NewState(hold=True), NOW
    )
    removal = Removal(b"k", None, NOW, made.version, bypass=True)
    [refused] = await remove(world, removal)
    assert isinstance(refused, Locked)
    await world.store.set_state(
        world.store.bucket("b"), b"k", made.version, NewState(hold=False), NOW
    )
    with pytest.raises(Locked):
        await world.store.set_state(
            world.store.bucket("b"), b"k", made.version, NewState(retention=None), NOW
        )
    strict = NewState(retention=Retention(COMPLIANCE, NOW + 20), bypass=True)
    await world.store.set_state(world.store.bucket("b"), b"k", made.version, strict, NOW)
    results = await remove(world, removal, Removal(b"k", None, NOW, marker.version))
    assert isinstance(results[0], Locked) and results[1] == Outcome(marker.version, True)
    [gone] = await remove(world, Removal(b"k", None, NOW + 20, made.version))
    assert gone == Outcome(made.version, False)
    assert await look(world, b"k", made.version) is None


async def test_listings_pass_over_markers_and_fill_their_pages(world: World) -> None:
    """VER-4, for the plain listing: a deleted key makes no group either."""
    await versioning(world, ENABLED)
    keys = [b"%02d/%d" % (n, m) for n in range(20) for m in range(2)]
    await asyncio.gather(*[put(world, key, "x") for key in keys])
    dead = [key for key in keys if key < b"05" or key.endswith(b"/1")]
    await world.store.delete(world.store.bucket("b"), dead)
    alive = [key for key in keys if key not in dead]
    bucket = world.store.bucket("b")
    for limit in (1, 3, 14, 15, 16):
        got, after, truncated = list[bytes](), None, True
        while truncated:
            page = await world.store.page(bucket, b"", b"", after, limit)
            got += [key for key, _ in page.items]
            after, truncated = page.items[-1][0], page.truncated
            assert len(page.items) == limit or not truncated
        assert got == alive
    page = await world.store.page(bucket, b"", b"/", None, 5)
    assert page.items == [(b"%02d/" % n, None) for n in range(5, 10)] and page.truncated
    page = await world.store.page(bucket, b"", b"/", b"09/", 50)
    assert page.items == [(b"%02d/" % n, None) for n in range(10, 20)] and not page.truncated
    found = await world.store.versions(bucket, b"", b"/", None, 50)
    assert found.items == [b"%02d/" % n for n in range(20)]
    found = await world.store.versions(bucket, b"", b"/", None, 3)
    assert (found.truncated, found.key, found.version) == (True, b"02/", "")


async def test_who_deletes_while_listing_loses_no_version(world: World) -> None:
    """The markers of a page name places, also when what stood there is gone."""
    await put(world, b"k", "null")
    await versioning(world, ENABLED)
    for n in range(3):
        await put(world, b"k", str(n))
    await versioning(world, SUSPENDED)
    await put(world, b"k", "null again")
    await versioning(world, ENABLED)
    for n in range(3, 6):
        await put(world, b"k", str(n))
    await versioning(world, SUSPENDED)
    await put(world, b"m", "null")
    after, etags = None, []
    while True:
        found = await world.store.versions(world.store.bucket("b"), b"", b"", after, 1)
        etags += [etag for *_, etag in await shown(world, list(found.items))]
        [item] = found.items
        assert isinstance(item, Listed)
        await remove(world, Removal(item.key, None, NOW, item.version))
        if not found.truncated:
            break
        after = (found.key, found.version)
    assert etags == ["5", "4", "3", "null again", "2", "1", "0", "null"]
    await world.store.delete_bucket(world.store.bucket("b"))


async def test_a_page_of_versions_costs_what_it_shows(world: World) -> None:
    await versioning(world, ENABLED)
    for round_ in range(8):
        await asyncio.gather(*[put(world, b"k", f"{round_}-{n}") for n in range(120)])
    reads = 0
    read = world.log.read_many_now

    def counted(cids: Any) -> Any:
        nonlocal reads
        found = read(cids)
        reads += len(found)
        return found

    world.log.read_many_now = counted  # type: ignore[method-assign]
    found = await world.store.versions(world.store.bucket("b"), b"", b"", None, 5)
    assert len(found.items) == 5 and reads < 20
    reads = 0
    middle = (await everything(world))[500]
    assert isinstance(middle, Listed)
    reads = 0
    after = (b"k", middle.version)
    found = await world.store.versions(world.store.bucket("b"), b"", b"", after, 5)
    assert len(found.items) == 5 and reads < 20


@dataclass
class Modelled:
    """A version as the model has it."""

    id: str
    etag: str  # "" for a marker
    state: State = field(default_factory=State)


class Model:
    """Keys and their versions, newest first; what a mutation does, said plainly."""

    def __init__(self) -> None:
        self.keys: dict[bytes, list[Modelled]] = {}

    def place(self, key: bytes, outcome: Outcome | None, etag: str, state: State) -> None:
        versions = self.keys.setdefault(key, [])
        id = NULL_VERSION if outcome is None else outcome.version
        if id == NULL_VERSION:
            versions[:] = [each for each in versions if each.id != NULL_VERSION]
        versions.insert(0, Modelled(id, etag, state))

    def remove(self, key: bytes, id: str) -> None:
        self.keys[key] = [each for each in self.keys.get(key, []) if each.id != id]
        if not self.keys[key]:
            del self.keys[key]

    def listed(self) -> list[tuple[bytes, str, bool, str]]:
        return [
            (key, each.id, at == 0, each.etag)
            for key, versions in sorted(self.keys.items())
            for at, each in enumerate(versions)
        ]

    def current(self) -> list[bytes]:
        return [key for key, versions in sorted(self.keys.items()) if versions[0].etag]


@pytest.mark.parametrize("seed", range(6))
async def test_random_histories(world: World, seed: int) -> None:
    """Many changes a batch, blocks that must be waited for, the status changing in between."""
    source, model = random.Random(seed), Model()
    status: bytes | None = None
    for round_ in range(25):
        if source.random() < 0.3:
            status = source.choice([ENABLED, ENABLED, SUSPENDED])
            await versioning(world, status)
        if source.random() < 0.5:
            world.log.cold.update(world.log.blocks)
            world.nodes.cache = type(world.nodes.cache)(1 << 25)
        steps = []
        for number in range(source.randrange(1, 12)):
            key = b"k%d" % source.randrange(4)
            versions = model.keys.get(key, [])
            # Only the null version and versions of earlier rounds can be named.
            id = source.choice([each.id for each in versions] or [NULL_VERSION])
            kind = source.choice(["put", "put", "stated", "delete", "remove", "state"])
            steps.append((kind, key, id, f"{round_}.{number}"))
        outcomes = await asyncio.gather(*[_do(world, *step) for step in steps])
        for (kind, key, id, etag), outcome in zip(steps, outcomes, strict=True):
            if kind in ("put", "stated"):
                model.place(key, outcome, etag, State({"t": etag} if kind == "stated" else {}))
            elif kind == "delete" and status is not None:
                model.place(key, outcome, "", State())
            elif kind == "delete":
                model.keys.pop(key, None)
            elif kind == "remove" and key in model.keys:
                model.remove(key, id)
            elif kind == "state" and not isinstance(outcome, Exception):
                chosen = [each for each in model.keys[key] if each.id == id]
                assert chosen and chosen[0].etag
                chosen[0].state = State({"t": etag})
        page = source.choice([1, 2, 3, 1000])
        assert await shown(world, await everything(world, page=page)) == model.listed()
        found = await world.store.page(world.store.bucket("b"), b"", b"", None, 100)
        assert [key for key, _ in found.items] == model.current()
        for key, versions in model.keys.items():
            for each in versions:
                seen = await look(world, key, each.id)
                assert seen is not None
                assert (seen.record.etag, seen.state) == (each.etag, each.state)


async def _do(world: World, kind: str, key: bytes, id: str, etag: str) -> Any:
    if kind == "put":
        return await put(world, key, etag)
    if kind == "stated":
        return await put(world, key, etag, state=State({"t": etag}))
    if kind == "delete":
        return (await world.store.delete(world.store.bucket("b"), [key]))[0]
    if kind == "remove":
        return (await remove(world, Removal(key, None, NOW, id)))[0]
    try:
        return await world.store.set_state(
            world.store.bucket("b"), key, id, NewState(tags={"t": etag}), NOW
        )
    except (NotFound, IsDeleteMarker) as refusal:
        return refusal


async def test_a_bucket_without_versions_writes_no_leaf(world: World) -> None:
    before = len(world.log.blocks)
    await put(world, b"k", "1")
    await put(world, b"k", "2")
    assert await world.store.delete(world.store.bucket("b"), [b"k"]) == [None]
    made = list(world.log.blocks.values())[before:]
    assert not any(b"ingot/leaf@1" in block for block in made)
    assert BucketConfig("o", "O", 1, "r").versioning is None and CONFIG.versioning is None


@pytest.mark.parametrize("delimiter", [b"", b"/"], ids=["keys", "groups"])
async def test_a_listing_over_many_markers_leaves_others_their_turn(
    world: World, delimiter: bytes
) -> None:
    await versioning(world, ENABLED)
    bucket = world.store.bucket("b")
    markers = [Removal(b"%04d/key" % n, None, NOW) for n in range(1000)]
    await world.store.remove(bucket, markers)
    async with counted_turns() as turns:
        page = await world.store.page(world.store.bucket("b"), b"", delimiter, None, 10)
    assert not page.items and not page.truncated
    assert turns.count >= 500 // (GROUPS_PER_TURN if delimiter else READ_MANY_BLOCKS)
