"""Reading from nodes: ranges, every fault of a node, going on with the next location."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from ingot.codec import multihash
from ingot.errors import ConfigError, NotFound, Unavailable
from ingot.forge import index
from ingot.forge.client import ForgeClient
from ingot.forge.identity import Identity
from ingot.forge.network import Network
from ingot.forge.network.additions import Pending, Registered
from ingot.forge.network.faults import (
    Close,
    ErrorReceipt,
    Fault,
    FlippedBit,
    Hold,
    LostResponse,
    MissingReceipt,
    Status,
    Truncated,
)
from ingot.forge.network.node import Node
from ingot.forge.network.records import held
from ingot.forge.query import Location
from ingot.forge.reading import Reading
from tests.forge.client.support import ONCE, client_of, http, noise, someone, store

DATA = noise(900_000)


class Twice:
    """A blob that lies at both nodes of a network."""

    def __init__(self, network: Network, client: ForgeClient, places: list[Location]) -> None:
        self.network, self.client, self.places = network, client, places

    def node(self, at: int) -> Node:
        return self.network.node(self.places[at].node)

    def read(self, start: int = 0, end: int = len(DATA) - 1) -> Reading:
        return self.client.retriever.read(self.places, start, end)


@pytest.fixture
async def twice(tmp_path: Path) -> AsyncIterator[Twice]:
    """At one node because the other takes nothing, and then the other way round."""
    async with Network(tmp_path / "forge", nodes=2, indexer=False) as network:
        await network.provision(someone().space)
        async with client_of(network) as client:
            places = []
            for other in network.nodes:
                other.faults.add("/blob/allocate", ErrorReceipt("Full"), times=None)
                places += await store(client, DATA)
                other.faults.clear()
                await forget(network)
            yield Twice(network, client, places)


async def forget(network: Network) -> None:
    """Have the upload service know nothing of the blob, while the nodes keep it."""
    key = held(someone().space, multihash.of(DATA))
    await network.upload.state.write(forget=[(Registered, key), (Pending, key)])


async def whole(reading: Reading) -> bytes:
    return b"".join([piece async for piece in reading])


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, len(DATA) - 1), (0, 0), (1000, 1999), (300_000, 700_000), (len(DATA) - 1, len(DATA) - 1)],
)
async def test_ranges(twice: Twice, start: int, end: int) -> None:
    assert await whole(twice.read(start, end)) == DATA[start : end + 1]
    assert not twice.node(1).requests["GET /piece"]


FAULTS: list[tuple[str, Fault]] = [
    ("GET /piece", Close()),
    ("GET /piece", Status(500)),
    ("GET /piece", Status(404)),
    ("GET /piece", Truncated(missing=1)),
    ("GET /piece", Truncated(missing=400_000)),
    ("GET /piece", Truncated(missing=1, cut=True)),
    ("GET /piece", Truncated(missing=400_000, cut=True)),
    ("/content/retrieve", ErrorReceipt("NotFound")),
    ("/content/retrieve", ErrorReceipt("NotAllocated")),
    ("/content/retrieve", ErrorReceipt("InternalServerError")),
    ("/content/retrieve", ErrorReceipt("Expired")),
    ("/content/retrieve", MissingReceipt()),
]


@pytest.mark.parametrize(("route", "fault"), FAULTS, ids=repr)
async def test_the_next_location_goes_on(twice: Twice, route: str, fault: Fault) -> None:
    twice.node(0).faults.add(route, fault, times=None)
    async with asyncio.timeout(30):
        assert await whole(twice.read(1, len(DATA) - 2)) == DATA[1:-1]
    # A node that failed lately comes last.
    asked = twice.node(0).requests["GET /piece"]
    assert await whole(twice.read(5, 9)) == DATA[5:10]
    assert twice.node(0).requests["GET /piece"] == asked


@pytest.mark.parametrize(("route", "fault"), FAULTS, ids=repr)
async def test_no_location_is_left(twice: Twice, route: str, fault: Fault) -> None:
    for node in twice.network.nodes:
        node.faults.add(route, fault, times=None)
    absent = isinstance(fault, ErrorReceipt) and fault.name in ("NotFound", "NotAllocated")
    with pytest.raises(NotFound if absent else Unavailable) as caught:
        await whole(twice.read())
    for place in twice.places:
        assert place.node in str(caught.value)
    twice.network.nodes[0].faults.clear()
    assert await whole(twice.read()) == DATA


async def test_a_node_that_is_away(twice: Twice) -> None:
    await twice.node(0).hang_up()
    assert await whole(twice.read()) == DATA
    await twice.node(0).listen()
    assert await whole(twice.read()) == DATA


@pytest.mark.slow
async def test_a_node_that_says_nothing(twice: Twice) -> None:
    hold = Hold()
    twice.node(0).faults.add("GET /piece", hold, times=None)
    async with client_of(twice.network, http=http(stall_s=1.0)) as client:
        assert await whole(client.retriever.read(twice.places, 0, 9)) == DATA[:10]
    hold.release()


async def test_the_reader_finds_wrong_bytes(twice: Twice) -> None:
    twice.node(0).faults.add("GET /piece", FlippedBit(), times=None)
    good = bytearray()
    async with twice.read(0, 99_999) as reading:
        async for piece in reading:
            if piece != DATA[len(good) : len(good) + len(piece)]:
                reading.reject(len(good), "the digest of a block")
                assert reading.position == len(good)
                continue
            good += piece
        assert reading.location == twice.places[1]
    assert good == DATA[:100_000]
    assert twice.node(1).requests["GET /piece"] == 1


async def test_wrong_bytes_of_which_two_locations_gave_some(twice: Twice) -> None:
    twice.node(0).faults.add("GET /piece", Truncated(missing=400_000, cut=True), times=None)
    rejected, good = 0, bytearray()
    async with twice.read() as reading:
        async for piece in reading:
            good += piece
            if reading.location == twice.places[1] and not rejected:
                rejected = len(good)
                reading.reject(10, "a block that began at the first location")
                del good[10:]
    assert good == DATA and rejected > 10
    assert twice.node(1).requests["GET /piece"] == 2


async def test_wrong_bytes_everywhere(twice: Twice) -> None:
    with pytest.raises(Unavailable, match=r"wrong bytes from byte 10 on: odd.*wrong bytes"):
        async with twice.read(10, 19) as reading:
            async for _ in reading:
                reading.reject(10, "odd")


async def test_stopping_early_and_reading_nothing(twice: Twice) -> None:
    async with twice.read() as reading:
        first = await anext(reading)
    assert DATA.startswith(first)
    with pytest.raises(NotFound, match="no location"):
        await whole(twice.client.retriever.read([], 0, 9))
    outside = twice.client.retriever.read(twice.places, 0, len(DATA))
    with pytest.raises(NotFound, match="no location of bytes 0 to 900000"):
        await whole(outside)


async def test_a_range_that_the_node_does_not_have(twice: Twice) -> None:
    endless = [replace(place, end=None) for place in twice.places]
    with pytest.raises(Unavailable, match="RangeNotSatisfiable"):
        await whole(twice.client.retriever.read(endless, 0, len(DATA)))


async def test_no_right_to_read(twice: Twice) -> None:
    agent = Identity(someone().agent, someone().space)
    async with client_of(twice.network, agent) as client:
        with pytest.raises(ConfigError, match="/content/retrieve"):
            await whole(client.retriever.read(twice.places, 0, 9))


async def test_a_receipt_of_another_is_not_believed(twice: Twice) -> None:
    """A node that answers for another one is passed over."""
    mixed = replace(twice.places[0], urls=twice.places[1].urls)
    read = twice.client.retriever.read([mixed, twice.places[1]], 0, 9)
    assert await whole(read) == DATA[:10]
    assert twice.node(1).requests["GET /piece"] == 2


# -- locate ---------------------------------------------------------------------------------------


async def published(client: ForgeClient, data: bytes) -> bytes:
    """The multihash of a slice of a blob whose index is with the indexer."""
    await store(client, data)
    name = multihash.of(data[10:20])
    (archive,) = index.archives(multihash.of(data), [(name, 10, 10)])
    assert (await client.upload.publish_index(archive)).indexed
    return name


async def test_locating(network: Network, client: ForgeClient) -> None:
    data = noise(1000)
    name = await published(client, data)
    (place,) = await client.retriever.locate(name)
    assert (place.blob, place.start, place.end) == (multihash.of(data), 10, 19)
    (itself,) = await client.retriever.locate(multihash.of(data))
    assert (itself.start, itself.end) == (0, 999)
    assert await client.retriever.locate(multihash.of(b"unknown")) == []
    async with client_of(network, someone(2), retry=ONCE) as stranger:
        with pytest.raises(Unavailable, match="no location in the spaces that were named"):
            await stranger.retriever.locate(name)


@pytest.mark.parametrize("fault", [Close(), LostResponse(), Status(500), Status(429)], ids=repr)
async def test_an_indexer_that_fails_once(
    network: Network, client: ForgeClient, fault: Fault
) -> None:
    name = await published(client, noise(1000))
    assert network.indexer is not None
    network.indexer.faults.add("GET /claims", fault)
    assert len(await client.retriever.locate(name)) == 1


async def test_an_indexer_that_lies(network: Network, client: ForgeClient) -> None:
    name = await published(client, noise(1000))
    assert network.indexer is not None
    network.indexer.faults.add("GET /claims", FlippedBit(), times=None)
    try:
        found = await client.retriever.locate(name)
    except Unavailable:
        found = []
    assert found == []  # which of both depends on where the bit is


async def test_an_index_that_the_indexer_cannot_fetch(
    network: Network, client: ForgeClient
) -> None:
    name = await published(client, noise(1000))
    await asyncio.gather(*(node.hang_up() for node in network.nodes))
    async with client_of(network, retry=ONCE) as impatient:
        with pytest.raises(Unavailable, match="HTTP 500"):
            await impatient.retriever.locate(name)


async def test_an_answer_of_the_indexer_has_a_deadline(
    network: Network, client: ForgeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingot.forge.retrieve.FORGE_LOCATE_S", 0.0)
    with pytest.raises(Unavailable, match="no answer within 0 s"):
        await client.retriever.locate(multihash.of(b"unknown"))
