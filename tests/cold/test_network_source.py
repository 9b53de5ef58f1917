"""Cold segments against the real network with its faults: no wrong byte reaches a reader."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ingot.clock import SystemClock
from ingot.cold import Key, NetworkSource, Shipped, locations_of
from ingot.errors import NotFound, Unavailable, Unfetched
from ingot.forge.blob import BlobRef, BytesSource
from ingot.forge.client import ForgeClient
from ingot.forge.network import Network
from ingot.forge.network.additions import Pending, Registered
from ingot.forge.network.faults import (
    Close,
    Delay,
    ErrorReceipt,
    Fault,
    FlippedBit,
    Hold,
    MissingReceipt,
    Status,
    Truncated,
)
from ingot.forge.network.node import Node
from ingot.forge.network.records import held
from ingot.forge.query import Location
from ingot.offload import Lanes
from ingot.segments import format
from ingot.segments.files import SystemFiles
from ingot.segments.model import SegmentSettings
from ingot.segments.store import SegmentStore
from tests.body.support import until
from tests.forge.client.support import client_of, http, someone
from tests.support.pairs import pairs


def cid_of(data: bytes) -> bytes:
    return b"\x01\x55\x12\x20" + sha256(data).digest()


class ColdBody:
    """A store with one cold body segment, which lies at both nodes of a network."""

    def __init__(self, network: Network, client: ForgeClient, directory: Path) -> None:
        self.network, self.client, self.directory = network, client, directory
        self.lanes = Lanes(asyncio.get_running_loop())
        self.store = self.made()
        random = Random(7)
        self.chunks = [random.randbytes(100_000 + 777 * n) for n in range(12)]
        self.known: dict[Key, Shipped] = {}
        self.source = NetworkSource(
            client.retriever, self.shipped, network.indexer is not None, time.monotonic
        )

    def made(self) -> SegmentStore:
        directory = str(self.directory / "segments")
        return SegmentStore(SystemFiles(), self.lanes, directory, SegmentSettings(), SystemClock())

    async def shipped(self, key: Key) -> Shipped | None:
        return self.known.get(key)

    async def start(self) -> None:
        store = self.store
        await store.open(b"s" * 16, 1)
        store.fetch = self.source
        positions = [await store.append_body(cid_of(c), memoryview(c)) for c in self.chunks]
        await store.sync_bodies(positions)
        await store.close()
        self.store = store = self.made()
        await store.open(b"s" * 16, 2)
        store.fetch = self.source
        await until(lambda: bool(store.retirable()))
        await store._disk.settle()
        (info,) = store.retirable()
        self.key = info.key
        self.data = (self.directory / "segments" / format.file_name(*info.key)).read_bytes()
        blob, places = BlobRef.of(self.data), []
        for other in self.network.nodes:  # at one because the other takes nothing
            other.faults.add("/blob/allocate", ErrorReceipt("Full"), times=None)
            places += await self.client.upload.add(blob, BytesSource(self.data))
            other.faults.clear()
            name = held(someone().space, blob.digest)
            await self.network.upload.state.write(forget=[(Registered, name), (Pending, name)])
        tokens = [place.claim.data for place in places]
        assert locations_of(tokens) == places
        self.known[info.key] = Shipped(blob.digest, places)
        await store.retire(info.key)

    def node(self, at: int) -> Node:
        return self.network.node(self.places[at].node)

    @property
    def places(self) -> Sequence[Location]:
        return self.known[self.key].locations

    async def stop(self) -> None:
        await self.store.close()
        self.lanes.close()

    async def read_all(self, ahead: bool) -> list[Any]:
        cids = [cid_of(chunk) for chunk in self.chunks]
        if ahead:
            self.store.prefetch(cids)
        return await asyncio.gather(*map(self.store.read, cids), return_exceptions=True)


INDEXER = ["with an indexer", "without"]


@pytest.fixture(params=INDEXER)
async def twice(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[ColdBody]:
    indexer = request.param == "with an indexer"
    async with Network(tmp_path / "forge", nodes=2, indexer=indexer) as network:
        await network.provision(someone().space)
        async with client_of(network, http=http(stall_s=1.0)) as client:
            made = ColdBody(network, client, tmp_path)
            await made.start()
            yield made
            await made.stop()


FAULTS: list[tuple[str, Fault]] = [
    ("GET /piece", FlippedBit()),
    ("GET /piece", Truncated(missing=150_000)),
    ("GET /piece", Truncated(missing=150_000, cut=True)),
    ("GET /piece", Close()),
    ("GET /piece", Status(500)),
    ("GET /piece", Delay(0.05)),
    ("/content/retrieve", ErrorReceipt("NotFound")),
    ("/content/retrieve", MissingReceipt()),
]


# The indexer is asked once the known places have failed, however they did: its own tests are below.
MET = pytest.mark.parametrize(
    ("route", "fault", "ahead", "twice"),
    pairs([(*fault, ahead) for fault in FAULTS for ahead in (True, False)], INDEXER),
    ids=repr,
    indirect=["twice"],
)


@MET
async def test_one_node_is_faulty(twice: ColdBody, route: str, fault: Fault, ahead: bool) -> None:
    twice.node(0).faults.add(route, fault, times=None)
    assert await twice.read_all(ahead) == twice.chunks
    assert (twice.store.statistics.rejected > 0) == (fault == FlippedBit())


@pytest.mark.slow
@MET
async def test_every_node_is_faulty(twice: ColdBody, route: str, fault: Fault, ahead: bool) -> None:
    """Some blocks may come; none comes wrong, and the failure says what can be done."""
    for node in twice.network.nodes:
        node.faults.add(route, fault, times=None)
    for expected, found in zip(twice.chunks, await twice.read_all(ahead), strict=True):
        if fault == ErrorReceipt("NotFound"):
            assert isinstance(found, NotFound)
        else:
            assert found == expected or isinstance(found, Unfetched)
    for node in twice.network.nodes:
        node.faults.clear()
    assert await twice.read_all(ahead) == twice.chunks


async def test_a_read_ahead_is_few_requests(twice: ColdBody) -> None:
    assert await twice.read_all(ahead=True) == twice.chunks
    assert sum(node.requests["GET /piece"] for node in twice.network.nodes) == 1


async def test_the_network_is_away_and_back(twice: ColdBody) -> None:
    for node in twice.network.nodes:
        await node.hang_up()
    found = await twice.read_all(ahead=True)
    assert all(isinstance(one, Unfetched) for one in found)
    for node in twice.network.nodes:
        await node.listen()
    assert await twice.read_all(ahead=True) == twice.chunks


@pytest.mark.slow
async def test_a_node_that_says_nothing(twice: ColdBody) -> None:
    hold = Hold()
    twice.node(0).faults.add("GET /piece", hold, times=None)
    assert await twice.read_all(ahead=True) == twice.chunks
    hold.release()


async def test_the_indexer_knows_a_place_that_we_do_not(twice: ColdBody) -> None:
    """Our one location's node has lost it; where there is no indexer nobody else is known."""
    digest, places = twice.known[twice.key].digest, list(twice.places)
    for mine, error in (([places[0]], NotFound), ([], NotFound)):
        twice.known[twice.key] = Shipped(digest, mine)
        node = twice.network.node(places[0].node)
        node.faults.add("/content/retrieve", ErrorReceipt("NotFound"), times=None)
        twice.store._cold._kept.clear()
        if twice.network.indexer is not None:
            assert await twice.read_all(ahead=False) == twice.chunks
            assert twice.network.indexer.requests["GET /claims"] == 1
        else:
            with pytest.raises(error):
                await twice.store.read(cid_of(twice.chunks[0]))
        node.faults.clear()


async def test_the_indexer_is_away(twice: ColdBody) -> None:
    """Then it is not known that nobody has it."""
    if twice.network.indexer is None:
        return
    twice.known[twice.key] = Shipped(twice.known[twice.key].digest, [])
    await twice.network.indexer.hang_up()
    with pytest.raises(Unfetched, match="where else it may be"):
        await twice.store.read(cid_of(twice.chunks[0]))
    await twice.network.indexer.listen()
    assert await twice.store.read(cid_of(twice.chunks[0])) == twice.chunks[0]


async def test_wrong_bytes_across_the_change_to_the_indexers_places(twice: ColdBody) -> None:
    """The known place breaks off inside of a block, the next one goes on, and the first part was
    wrong: the other place gives all of it once more."""
    if twice.network.indexer is None:
        return
    shipped = twice.known[twice.key]
    twice.known[twice.key] = Shipped(shipped.digest, [shipped.locations[0]])
    faults = twice.node(0).faults
    faults.add("GET /piece", FlippedBit(), times=None)
    faults.add("GET /piece", Truncated(missing=20_000, cut=True), times=None)
    assert await twice.read_all(ahead=False) == twice.chunks


async def test_one_provider_alone(twice: ColdBody) -> None:
    names = await twice.source.providers(twice.key)
    assert names == [place.node for place in twice.places]
    for at, name in enumerate(names):
        other = twice.node(1 - at)
        before = other.requests["GET /piece"]
        reading = await twice.source.read(twice.key, 10, 200, name)
        assert await anext(reading) == twice.data[10:200]
        assert other.requests["GET /piece"] == before
        await reading.aclose()
        twice.node(at).faults.add("GET /piece", Close(), times=None)
        with pytest.raises(Unavailable):
            await anext(await twice.source.read(twice.key, 10, 200, name))
        twice.node(at).faults.clear()
    assert await twice.source.providers(("body", 99)) == []
    with pytest.raises(NotFound):
        await twice.source.read(("body", 99), 0, 1)
