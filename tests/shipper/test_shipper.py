"""Files go to the network, whatever the network, the registry and the disk do meanwhile."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from ingot.errors import Unavailable
from ingot.forge.network import Network
from ingot.forge.network.faults import (
    Close,
    Delay,
    ErrorReceipt,
    ExpiredDelegations,
    Fault,
    ForgedReceipt,
    Hold,
    LateReceipts,
    LostResponse,
    MissingReceipt,
    Status,
)
from ingot.limits import UCAN_ENTRIES_MAX
from ingot.messages import SealedSegment
from ingot.registry.memory import MemoryRegistry
from ingot.shipper.lifecycle import INDEXED, QUEUED, REFUSED
from ingot.shipper.shipper import ShipperSettings
from tests.forge.client.support import ONCE, client_of, http, someone
from tests.shipper.conftest import World, make_world
from tests.shipper.support import BOTH, GENERATIONS, accepted, until
from tests.support.pairs import pairs


def some_files(world: World) -> None:
    """Two units, of which the second one needs body segments."""
    log = world.log
    log.unit()
    log.body()
    log.unit(needs=log.body())


@BOTH
async def test_everything_is_shipped_and_can_be_found(world: World) -> None:
    some_files(world)
    await world.start()
    await world.shipped()
    assert world.shipper.watermark == 6 and world.advanced == [3, 6]
    for key in world.log.files:
        await world.find(key)
    standing = await world.shipper.standing()
    assert standing.files == {INDEXED: 4} and standing.watermark == 6
    assert standing.bytes == {INDEXED: sum(each.bytes for each in world.log.files.values())}
    assert standing.oldest_ms is None and standing.problems == []
    assert set(world.shipper.confirmed()) == set(world.log.files)
    assert world.shipper.row(("unit", 1)) == world.row("unit", 1)
    assert world.shipper.row(("unit", 9)) is None
    # What comes later is shipped when it is told of.
    world.log.unit(move=lambda sequence: world.log.move(b"a" * 16, gone=sequence == 9))
    assert (await world.shipper.standing()).oldest_ms == 7000
    assert (await world.shipper.standing()).files == {INDEXED: 4, QUEUED: 1}
    world.shipper.wake()
    await world.shipped()
    assert b"a" * 16 not in world.database.forge_roots
    assert world.log.digested == {key: 1 for key in world.log.files}


async def test_a_new_shipper_takes_up_what_is_done(world: World) -> None:
    some_files(world)
    await world.start()
    await world.shipped()
    await world.stop()
    rows, asked = dict(world.database.shipments), world.network.upload.requests["/blob/add"]
    await world.start()
    world.log.unit(needs=world.log.body())
    world.shipper.wake()
    await world.shipped()
    assert {key: world.row(*key) for key in rows} == rows
    # One add for each file and one for its index.
    assert world.network.upload.requests["/blob/add"] == asked + 4
    assert world.advanced == [3, 6, 9]


async def test_a_file_of_many_blocks_has_several_indexes(world: World) -> None:
    blocks = UCAN_ENTRIES_MAX + 100
    unit = world.log.unit(blocks=blocks, size=blocks * 20)
    await world.start()
    await world.shipped()
    assert world.network.upload.requests["/index/add"] == 2
    placed = world.log.blocks["unit", unit.number]
    world.log.blocks["unit", unit.number] = [placed[0], placed[len(placed) // 2], placed[-1]]
    await world.find(("unit", unit.number))


async def test_the_oldest_commits_go_first(world: World) -> None:
    log = world.log
    for _ in range(3):
        log.unit(needs=log.body())
    log.body()
    world.settings = ShipperSettings(files=1, backoff_s=0.001, backoff_max_s=0.01)
    order = list(reversed(log.files.items()))
    log.files.clear()
    log.files.update(order)
    begun: list[SealedSegment] = []
    examine = log.examine

    async def noted(segment: SealedSegment) -> Any:
        begun.append(segment)
        return await examine(segment)

    log.examine = noted  # type: ignore[method-assign]
    await world.start()
    await world.shipped()
    assert [(one.stream, one.number) for one in begun] == [
        *(("body", 1), ("unit", 1), ("body", 2), ("unit", 2), ("body", 3), ("unit", 3)),
        ("body", 4),
    ]


async def test_so_many_files_at_a_time(world: World) -> None:
    for _ in range(6):
        world.log.unit()
    world.settings = ShipperSettings(files=3, backoff_s=0.001, backoff_max_s=0.01)
    holds = [Hold() for _ in range(6)]
    for at, hold in enumerate(holds):
        world.network.upload.faults.add("/blob/add", hold, after=at)
    await world.start()
    await until(lambda: all(hold.arrived.is_set() for hold in holds[:3]))
    assert len(world.states()) == 3 and world.log.open_fds == 3
    for hold in holds:
        hold.release()
    await world.shipped()


# -- faults ---------------------------------------------------------------------------------------

FAULTS: list[tuple[str, str, Fault]] = [
    *(("upload", "/blob/add", fault) for fault in (Close(), LostResponse(), MissingReceipt())),
    ("upload", "/blob/add", Status(503)),
    ("upload", "/blob/add", ErrorReceipt("CandidateUnavailable")),
    ("upload", "/blob/add", ErrorReceipt("InsufficientStorage")),
    ("upload", "/blob/add", ExpiredDelegations()),
    ("node", "/blob/allocate", Delay(0.01)),
    *(("node", "PUT /upload", fault) for fault in (Close(), LostResponse(), Status(500))),
    ("upload", "/ucan/conclude", LostResponse()),
    ("upload", "/ucan/conclude", ErrorReceipt("HandlerExecutionError")),
    ("upload", "GET /receipt", LateReceipts()),
    ("node", "/blob/accept", LostResponse()),
    ("upload", "/index/add", LostResponse()),
    ("upload", "/index/add", MissingReceipt()),
    ("upload", "/index/add", ForgedReceipt()),
    ("upload", "/index/add", ErrorReceipt("IndexNotFound")),
    ("upload", "/index/add", ExpiredDelegations()),
    ("indexer", "/assert/index", Close()),
]


# The shipper sees no generation: tests/forge/client has the faults of a step with both.
@pytest.mark.parametrize(
    ("who", "route", "fault", "network"), pairs(FAULTS, GENERATIONS), ids=repr, indirect=["network"]
)
async def test_faults_are_outlasted(world: World, who: str, route: str, fault: Fault) -> None:
    some_files(world)
    network = world.network
    services: list[Any] = {"upload": [network.upload], "node": network.nodes}.get(
        who, [network.indexer]
    )
    for service in services:
        service.faults.add(route, fault, times=7)
    async with client_of(network, retry=ONCE) as client:
        await world.start(client=client)
        await world.shipped()
        await world.stop()
    assert (await world.shipper.standing()).problems == []


async def test_a_network_that_is_away_for_a_while(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The queue waits, says so once, and goes on by itself; also behind a circuit breaker."""
    some_files(world)
    network = world.network
    for service in network.services:
        service.faults.add("POST /", Close(), times=None)
    quick = http(breaker_failures=2, breaker_open_s=0.01)
    async with client_of(network, retry=ONCE, http=quick) as client:
        await world.start(client=client)
        key = ("unit", 1)
        await until(lambda: world.states().get(key) == QUEUED and world.row(*key).attempts > 0)
        await until(lambda: len(world.states()) == 4)
        standing = await world.shipper.standing()
        assert standing.files == {QUEUED: 4} and standing.watermark == 0
        assert standing.oldest_ms == 1000 and standing.problems
        for service in network.services:
            service.faults.clear()
        await world.shipped()
        await world.stop()
    assert world.log.digested == {key: 1 for key in world.log.files}
    told = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert ["shipping" in one for one in told] == [True, True]
    assert "shipping waits: " in told[0] and "shipping goes on" in told[1]


async def test_a_network_without_an_indexer(tmp_path: Path) -> None:
    async with Network(tmp_path / "forge", indexer=False) as network:
        await network.provision(someone().space)
        async with client_of(network) as client:
            world = await make_world(network, client, tmp_path)
            some_files(world)
            await world.start()
            await world.shipped()
            await world.stop()


async def test_a_refusal_holds_the_watermark_and_not_the_queue(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    some_files(world)
    world.log.unit()
    world.settings = ShipperSettings(files=1, backoff_s=0.001, backoff_max_s=0.01)
    refusal = ErrorReceipt("BlobSizeLimitExceeded", "too much")
    # Of file and index of the first unit and of the body segment, then of the second unit's file.
    world.network.upload.faults.add("/blob/add", refusal, after=6)
    await world.start()
    await until(lambda: world.states().get(("unit", 3)) == INDEXED)
    assert world.row("unit", 2).state == REFUSED and world.database.forge_watermark == 3
    standing = await world.shipper.standing()
    assert standing.files == {INDEXED: 4, REFUSED: 1} and standing.oldest_ms == 4000
    (problem,) = standing.problems
    assert "unit 2" in problem and "too much" in problem
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 1
    assert accepted(world.network, world.log.data(("unit", 2))) == 0
    await world.stop()
    await world.start()  # whatever was the reason: a start tries again
    await world.shipped()
    assert world.advanced == [3, 6, 9]


async def test_a_refused_index_is_tried_from_there(world: World) -> None:
    world.log.unit()
    refusal = ErrorReceipt("MalformedArguments")
    world.network.upload.faults.add("/index/add", refusal, times=None)
    await world.start()
    await until(lambda: world.states().get(("unit", 1)) == REFUSED)
    assert world.row("unit", 1).locations
    await world.stop()
    world.network.upload.faults.clear()
    asked = world.network.upload.requests["/blob/add"]
    await world.start()
    await world.shipped()
    assert world.network.upload.requests["/blob/add"] == asked + 1  # the index only


async def test_a_file_that_is_too_short_holds_the_watermark(world: World) -> None:
    some_files(world)
    world.log.unit()
    world.log.short.add(("body", 1))
    await world.start()
    await until(lambda: world.states().get(("unit", 3)) == INDEXED)
    await until(lambda: world.shipper.watermark == 3)
    assert ("body", 1) not in world.states() and world.log.digested["body", 1] == 1
    assert "body 1" in (await world.shipper.standing()).problems[0]


@pytest.mark.parametrize("times", [1, 99])
async def test_a_file_that_changed_is_looked_at_once_more(world: World, times: int) -> None:
    """It was damaged after it was digested; one that goes on changing is not shipped."""
    world.log.unit()
    examine = world.log.examine
    path = world.log.directory / "unit-1"

    async def then_changed(segment: SealedSegment) -> Any:
        found = await examine(segment)
        if world.log.digested["unit", 1] <= times:
            path.write_bytes(path.read_bytes()[:-1] + bytes([world.log.digested["unit", 1]]))
        return found

    world.log.examine = then_changed  # type: ignore[method-assign]
    await world.start()
    if times == 1:
        await world.shipped()
    else:
        await until(lambda: world.states().get(("unit", 1)) == REFUSED)
        assert accepted(world.network, path.read_bytes()) == 0
    assert world.log.digested["unit", 1] == 2


async def test_a_body_segment_that_cannot_ship_holds_the_watermark(world: World) -> None:
    log = world.log
    open_body = log.body()
    log.unit()
    log.unit(needs=open_body)
    log.hidden.add(("body", 1))
    await world.start()
    await until(lambda: world.states().get(("unit", 2)) == INDEXED)
    await until(lambda: world.shipper.watermark == 3)
    log.hidden.clear()  # it was sealed
    world.shipper.wake()
    await world.shipped()


async def test_units_that_are_not_there_hold_the_watermark(world: World) -> None:
    for _ in range(3):
        world.log.unit()
    world.log.hidden.add(("unit", 2))
    await world.start()
    await until(lambda: world.states().get(("unit", 3)) == INDEXED)
    await until(lambda: world.shipper.watermark == 3)
    world.log.hidden.clear()
    world.shipper.wake()
    await world.shipped()


async def test_commits_that_do_not_continue_hold_the_watermark(world: World) -> None:
    world.log.unit()
    world.log.unit()
    lost = world.log.commits.pop(4)
    await world.start()
    await until(lambda: world.states().get(("unit", 2)) == INDEXED)
    await until(lambda: bool(world.shipper._problems))
    assert world.database.forge_watermark == 3
    world.check_roots()
    world.log.commits.insert(4, lost)
    await world.shipped()


async def test_skipped_commit_numbers_are_no_gap(world: World) -> None:
    world.log.unit()
    world.log.unit(skip=20)
    await world.start()
    await world.shipped()
    assert world.advanced == [3, 26]


# -- the registry ---------------------------------------------------------------------------------


async def test_a_registry_that_is_away(world: World) -> None:
    """At the start, and again in the middle."""
    some_files(world)
    away = True

    async def gone(name: str) -> None:
        if away and name != "open":
            raise Unavailable("gone")

    await world.start(before=gone)
    await until(lambda: bool(world.shipper._problems))
    assert (await world.shipper.standing()).files == {QUEUED: 4}
    away = False
    await until(lambda: bool(world.states()))
    away = True
    await until(lambda: len(world.shipper._problems) > 1)
    away = False
    await world.shipped()


@pytest.mark.parametrize("call", ["put_shipment", "advance_forge"])
async def test_answers_of_the_registry_that_are_lost(world: World, call: str) -> None:
    some_files(world)
    left = 5

    async def lose(name: str) -> None:
        nonlocal left
        if name == call and left:
            left -= 1
            raise Unavailable("lost")

    await world.start(after=lose)
    await world.shipped()
    await world.stop()
    assert world.advanced[0] == 3 and world.advanced[-1] == 6


async def test_a_lost_lease_ends_it(world: World) -> None:
    some_files(world)
    hold = Hold()
    world.network.upload.faults.add("/index/add", hold)
    await world.start()
    await until(hold.arrived.is_set)
    other = MemoryRegistry(world.database)
    await other.open()
    assert await other.acquire("other", 60.0, world.token) is not None
    rows = dict(world.database.shipments)
    hold.release()
    await until(lambda: world.shipper.failed is not None)
    assert {key: world.row(*key) for key in rows} == rows
    assert world.database.forge_watermark == 0
