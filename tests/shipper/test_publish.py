"""What the space names: the watermark, whatever happens on the way, and what others left there."""

from __future__ import annotations

import asyncio
import itertools
import logging
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from ingot.codec import cid as cids
from ingot.codec import multihash
from ingot.errors import Corruption, IngotError, Superseded, Unavailable
from ingot.forge.client import ForgeClient
from ingot.forge.errors import Refused
from ingot.forge.identity import Identity
from ingot.forge.network.faults import Close, ErrorReceipt, Fault, Hold, LostResponse, Status
from ingot.forge.uploads import Named
from ingot.messages import Cid, CommitRecord
from ingot.segments.commit import decode_commit, encode_commit
from ingot.shipper import publish, shipper
from ingot.shipper.publish import Mark, Ours, Publisher
from tests.forge.builders import grant
from tests.forge.client.support import ONCE, client_of, store
from tests.forge.support import person
from tests.shipper.conftest import World
from tests.shipper.support import BOTH, until

ROUTES = ["/upload/list", "/upload/add", "/upload/remove"]
FAULTS = [Close(), Status(503), LostResponse(), ErrorReceipt("InternalServerError")]
RECORD = CommitRecord(
    store=b"s" * 16,
    incarnation=1,
    lease=b"l" * 16,
    segment=1,
    sequence=9,
    time_ms=1,
    previous=None,
    frames=0,
    frames_digest=b"d" * 32,
    checkpoint=None,
    bodies=(),
    moves=(),
)


def publisher(world: World, incarnation: int = 1, client: ForgeClient | None = None) -> Publisher:
    client = client or world.client
    ours = Ours(world.log, b"s" * 16, incarnation, decode_commit)
    return Publisher(client.uploads, client.holdings.root_block, ours)


async def started(world: World, **more: Any) -> None:
    await world.start(publisher=publisher(world, **more))


async def named(world: World) -> list[bytes]:
    return [one.root for one in await world.client.uploads.named()]


async def published(world: World, *others: bytes) -> None:
    """Wait until the space names the newest commit, and ``others``, and nothing else."""
    shipper = world.shipper
    await until(lambda: world.done, shipper)
    newest = world.log.commits[-1][0]
    for _ in range(2000):
        if sorted(await named(world)) == sorted([newest, *others]):
            return
        assert shipper.failed is None
        await until(lambda: True)
    raise AssertionError(await named(world))


async def leave(world: World, record: CommitRecord) -> bytes:
    """Somebody's commit, in a CAR of the space that it names."""
    block = encode_commit(record)
    return await leave_block(world, cids.of_structure(block), block)


async def leave_block(world: World, root: bytes, block: bytes) -> bytes:
    data = b"somebody's frames before it" + bytes([128 | (36 + len(block)) & 127])
    data += bytes([(36 + len(block)) >> 7]) + root + block
    await store(world.client, data)
    await world.client.uploads.add(root, None, [multihash.of(data)])
    return root


@BOTH
async def test_the_space_names_the_newest_watermark(world: World) -> None:
    for _ in range(3):
        world.log.unit(needs=world.log.body())
    await started(world)
    await published(world)
    row, root = world.row("unit", 3), world.log.commits[-1][0]
    assert len(row.indexes) == 1
    index = cids.of_archive(multihash.split(row.indexes[0])[1])
    assert await world.client.uploads.named() == [Named(root, index)]
    assert await world.client.uploads.shards(root) == [row.digest]
    assert (await world.shipper.standing()).problems == []
    # The next one sees that nothing is to be done.
    added = world.network.upload.requests["/upload/add"]
    await world.stop()
    await started(world)
    listed = world.network.upload.requests["/upload/list"]
    await until(lambda: world.network.upload.requests["/upload/list"] > listed)
    assert world.network.upload.requests["/upload/add"] == added
    world.log.unit()
    world.shipper.wake()
    await published(world)


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
@pytest.mark.parametrize("route", ROUTES)
async def test_faults_hold_nothing_up_and_pass(world: World, route: str, fault: Fault) -> None:
    world.log.unit()
    await started(world)
    await published(world)
    world.network.upload.faults.add(route, fault, times=None)
    world.log.unit(needs=world.log.body())
    world.shipper.wake()
    await until(lambda: world.done, world.shipper)
    if route == "/upload/list" or not isinstance(
        fault, LostResponse
    ):  # what was done is seen there
        before = world.network.upload.requests[route]
        await until(lambda: world.network.upload.requests[route] > before + 6, world.shipper)
        assert [text for text in (await world.shipper.standing()).problems if "uploads" in text]
    world.network.upload.faults.clear()
    await published(world)
    await until(lambda: not world.shipper._problems, world.shipper)


async def test_no_pause_ends_unseen(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes between two looks at the clock, at times more than what is left of a pause."""
    looks, loop = itertools.count(), asyncio.get_running_loop()
    theirs = SimpleNamespace(
        time=lambda: loop.time() + next(looks) % 2 * 0.05, run_in_executor=loop.run_in_executor
    )
    asyncio_of_theirs = SimpleNamespace(**vars(asyncio) | {"get_running_loop": lambda: theirs})
    monkeypatch.setattr(shipper, "asyncio", asyncio_of_theirs)
    world.network.upload.faults.add("/upload/add", Status(503), times=None)
    world.log.unit()
    await started(world)
    await until(lambda: world.network.upload.requests["/upload/add"] > 20, world.shipper)
    world.network.upload.faults.clear()
    await published(world)


@pytest.mark.parametrize("route", ROUTES)
async def test_killed_at_a_step(world: World, route: str) -> None:
    world.log.unit()
    await started(world)
    await published(world)
    hold = Hold()
    world.network.upload.faults.add(route, hold)
    world.log.unit()
    world.shipper.wake()
    await until(hold.arrived.is_set, world.shipper)
    await until(lambda: world.done, world.shipper)
    await world.stop()
    hold.release()
    await started(world)
    await published(world)


@pytest.mark.parametrize("incarnation", [1, 2])
async def test_a_store_that_goes_on_elsewhere_is_left_to_who_does(
    world: World, incarnation: int, caplog: pytest.LogCaptureFixture
) -> None:
    world.log.unit()
    await started(world)
    await published(world)
    ours = world.log.commits[-1][0]
    theirs = await leave(world, replace(RECORD, incarnation=incarnation, sequence=2))
    world.log.unit()
    world.shipper.wake()
    shipper = world.shipper
    await until(shipper.ended.is_set)
    assert isinstance(shipper.failed, Superseded)
    assert sorted(await named(world)) == sorted([ours, theirs])
    assert any("elsewhere" in text for text in (await shipper.standing()).problems)
    assert any("elsewhere" in text for text in caplog.messages)
    # Nor does the next start ship a thing.
    added = world.network.upload.requests["/blob/add"]
    world.log.hidden |= set(world.log.files)
    await world.stop()
    await started(world)
    shipper = world.shipper
    await until(shipper.ended.is_set)
    assert world.network.upload.requests["/blob/add"] <= added + 1  # to look at theirs


async def test_a_root_of_an_older_incarnation_goes(world: World) -> None:
    await leave(world, replace(RECORD, incarnation=1, sequence=500))
    world.log.unit()
    last, record = world.log.commits[-1]
    world.log.commits[-1] = last, replace(record, incarnation=2)
    await started(world, incarnation=2)
    await published(world)


async def test_what_others_name_is_left_alone_and_told_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "ingot.shipper")
    other = await leave(world, replace(RECORD, store=b"o" * 16, incarnation=7))
    letter = await leave_block(world, cids.of_structure(b"a letter"), b"a letter")
    raw = cids.of_chunk(b"chunk")
    await world.client.uploads.add(raw, None, [])
    lost = cids.of_structure(b"nowhere")
    await world.client.uploads.add(lost, None, [])
    world.log.unit()
    await started(world)
    await published(world, other, letter, raw, lost)
    world.log.unit()
    world.shipper.wake()
    await published(world, other, letter, raw, lost)
    told = [text for text in caplog.messages if text.startswith("the space also names")]
    assert len(told) == 4
    assert any((b"o" * 16).hex() in text for text in told)


async def test_a_watermark_below_what_is_named_changes_nothing(world: World) -> None:
    """As after a restore of the database: everything is confirmed once more, unit by unit."""
    for _ in range(2):
        world.log.unit()
    await started(world)
    await published(world)
    await world.stop()
    removed = world.network.upload.requests["/upload/remove"]
    world.database.shipments.clear()
    world.database.forge_roots.clear()
    world.database.forge_watermark = 0
    await started(world)
    await published(world)
    assert world.network.upload.requests["/upload/remove"] == removed


async def test_without_the_right_to_name_it_ships_all_the_same(world: World) -> None:
    space, agent = person(1), person(101)
    rights = [
        grant(space, agent.did, space.did, command)
        for command in ("/blob", "/index", "/content", "/ucan")
    ]
    identity = Identity(agent, space.did, rights)
    async with client_of(world.network, identity, retry=ONCE) as client:
        world.log.unit()
        await world.start(client=client, publisher=publisher(world, client=client))
        await until(lambda: world.done, world.shipper)
        await until(lambda: bool(world.shipper._problems), world.shipper)
        (problem,) = (await world.shipper.standing()).problems
        assert "/upload/list" in problem
        await world.stop()


async def test_a_root_that_cannot_be_read_now_keeps_ours_from_nothing(world: World) -> None:
    other = await leave(world, replace(RECORD, store=b"o" * 16))
    world.network.upload.faults.add("/upload/shard/list", Status(503), times=None)
    world.log.unit()
    await started(world)
    await until(lambda: world.database.forge_watermark > 0, world.shipper)
    newest = world.log.commits[-1][0]
    async with asyncio.timeout(60):
        while sorted(await named(world)) != sorted([newest, other]):
            assert world.shipper.failed is None
    await until(lambda: bool(world.shipper._problems), world.shipper)
    world.network.upload.faults.clear()
    await until(lambda: not world.shipper._problems, world.shipper)


class Space:
    """What a space names, in memory. ``blocks`` are of others; one that is missing is refused."""

    def __init__(self, *roots: bytes) -> None:
        self.roots = list(roots)
        self.blocks: dict[Cid, bytes] = {}
        self.fetched: list[Cid] = []

    async def named(self) -> list[Named]:
        return [Named(root, None) for root in self.roots]

    async def add(self, root: bytes, index: bytes | None, shards: object) -> None:
        self.roots.append(root)

    async def remove(self, root: bytes) -> None:
        self.roots.remove(root)

    async def fetch(self, root: Cid) -> bytes:
        self.fetched.append(root)
        if root not in self.blocks:
            raise Refused("InsufficientStorage", "it does not say where that blob is", "somebody")
        return self.blocks[root]


class OneCommit:
    """A log of one commit. The record that was named before it is damaged."""

    mark = Mark(cids.of_structure(b"new"), b"unit", None)
    damaged = cids.of_structure(b"old")

    async def commit_of(self, cid: Cid) -> CommitRecord | None:
        if cid == self.damaged:
            raise Corruption("unit 1", "a hash", "another")
        return RECORD if cid == self.mark.root else None


def of(space: Space) -> Publisher:
    ours = Ours(OneCommit(), b"s" * 16, 1, decode_commit)
    return Publisher(space, space.fetch, ours)  # type: ignore[arg-type]


@pytest.mark.parametrize("root", [OneCommit.damaged, cids.of_structure(b"theirs")])
async def test_a_root_that_cannot_be_judged_keeps_ours_from_nothing(root: bytes) -> None:
    space = Space(root)
    made = of(space)
    for _ in range(2):  # and is looked at again
        with pytest.raises(IngotError, match="another|does not say"):
            await made.publish(OneCommit.mark)
        assert space.roots == [root, OneCommit.mark.root]


async def test_of_many_roots_some_are_looked_at_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "SHIP_ROOTS_LOOKED_AT", 3)
    others = [cids.of_structure(bytes([number])) for number in range(7)]
    newer = replace(RECORD, incarnation=2)
    last = cids.of_structure(encode_commit(newer))
    space = Space(*others, last)
    space.blocks[last] = encode_commit(newer)
    for root in others[:4]:
        space.blocks[root] = b"a letter"
    made = of(space)
    with pytest.raises(Unavailable, match="5 roots"):
        await made.publish(OneCommit.mark)
    assert space.fetched == others[:3] and OneCommit.mark.root in space.roots
    with pytest.raises(Refused):
        await made.publish(OneCommit.mark)
    assert space.fetched[3:] == others[3:6]
    with pytest.raises(Superseded, match="ingot space unname"):
        await made.publish(OneCommit.mark)
    assert space.fetched[6:] == [others[6], last]
