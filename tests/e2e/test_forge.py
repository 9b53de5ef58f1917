"""A whole gateway before a Forge network: what is written ships, its files go, and all of it is
read back from there, byte for byte; also over a restart and while a node lies."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ingot.bucket.model import BucketConfig
from ingot.bucket.record import Record
from ingot.clock import SystemClock
from ingot.cold import locations_of
from ingot.config import Config
from ingot.credentials import Account, CredentialStore
from ingot.errors import ConfigError, Corruption, LeaseLost, NotFound, Unavailable
from ingot.forge.blob import BlobRef, BytesSource
from ingot.forge.client import ForgeClient
from ingot.forge.keystore import KeyStore
from ingot.forge.network import Network, faults
from ingot.forge.network.additions import Pending, Registered
from ingot.forge.network.records import held
from ingot.limits import MIB
from ingot.messages import Body
from ingot.registry.memory import MemoryRegistry
from ingot.server import Deps, Server
from tests.body.support import Stream
from tests.net.waiting import until
from tests.support.forge import segment_bytes

pytestmark = pytest.mark.slow
CONFIG = BucketConfig("owner", "Owner", 1, "us-east-1")
NOW = 1_800_000_000_000
WARM = 6 * MIB  # of which the open log segment and the next one take four


class Site:
    """A gateway, its network, and what the gateway's bucket should hold."""

    def __init__(self, directory: Path, network: Network) -> None:
        self.directory, self.network = directory, network
        self.registry = MemoryRegistry()
        self.source = random.Random(1)
        self.objects: dict[str, bytes] = {}
        self.server: Server

    async def start(self, **settings: Any) -> None:
        data = str(self.directory / "data")
        config = Config(
            **{
                "listen": "127.0.0.1:0",
                "data_dir": data,
                "segment_bytes": MIB,
                "seal_age_s": 0.2,
                "unit_age_s": 0.4,
                "warm_bytes": WARM,
                **self.network.gateway_settings(),
                **settings,
            }
        )
        keys = KeyStore(data)
        if not keys.spaces(NOW // 1000):
            space = keys.create_space()
            await self.network.provision(space.did)
        accounts = CredentialStore([Account("AKIAINGOT", "secret-secret", "1" * 64, "t")])
        self.server = Server(config, Deps(registry=self.registry, accounts=accounts))
        await self.server.start()

    async def put(self, key: str, size: int) -> None:
        data = self.source.randbytes(size)
        if size <= 4096:
            body = Body(size, None, None, inline=data)
        else:
            body = await self.server.store.ingest(Stream(data), ())
        await self.server.store.put(
            self.server.store.bucket("b"), Record(key.encode(), body, "e", NOW)
        )
        self.objects[key] = data

    async def fill(self, count: int) -> None:
        for _ in range(count):
            size = self.source.choice((0, 100, 3000, 30_000, 300_000, 1_500_000))
            await self.put(f"k{self.source.randrange(60)}", size)

    async def store_twice(self, client: ForgeClient) -> None:
        """Have what was shipped at the other node too, and the registry know of it."""
        service, space = self.network.upload, client.identity.space
        await self.registry.open()
        token = await self.registry.acquire("a test", 10.0, None)
        assert token is not None
        for row in await self.registry.shipments():
            (place,) = locations_of(row.locations)
            having = self.network.node(place.node)
            having.faults.add("/blob/allocate", faults.ErrorReceipt("Full"), times=None)
            name = held(space, row.digest)
            await service.state.write(forget=[(Registered, name), (Pending, name)])
            data = having.blobs.path(row.digest).read_bytes()
            added = await client.upload.add(BlobRef.of(data), BytesSource(data))
            having.faults.clear()
            assert added[0].node != place.node
            places = tuple(each.claim.data for each in [place, *added])
            await self.registry.put_shipment(token, replace(row, locations=places))
        await self.registry.release(token)
        await self.registry.close()

    async def until_shipped(self) -> None:
        shipping, segments = self.server.shipping, self.server.segments
        assert shipping is not None
        newest = segments.sequence
        await until(lambda: shipping.shipper.watermark >= newest)

    async def check(self) -> None:
        store = self.server.store
        for key, data in self.objects.items():
            record = await store.find(store.bucket("b"), key.encode())
            assert record is not None, key
            pieces = [bytes(piece) async for piece in store.read(record.body, 0, len(data))]
            assert b"".join(pieces) == data, key


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with Network(tmp_path / "network") as network:
        made = Site(tmp_path, network)
        await made.start()
        await made.server.store.create_bucket("b", CONFIG)
        yield made
        await made.server.stop()


async def test_everything_ships_goes_and_is_read_back(site: Site) -> None:
    await site.fill(60)
    await site.until_shipped()
    segments = site.server.segments
    await until(lambda: segments.bytes_here() <= WARM)
    assert [row for row in segments.rows() if row.state == "cold"]
    await until(lambda: segment_bytes(site.directory / "data") <= WARM)
    await site.check()
    await site.server.stop()
    await site.start()
    await site.check()
    await site.fill(20)
    await site.until_shipped()
    await site.check()


async def test_a_flipped_bit_of_one_node_reaches_nobody(site: Site) -> None:
    await site.fill(40)
    await site.until_shipped()
    await until(lambda: site.server.segments.bytes_here() <= WARM)
    await site.server.stop()
    await site.start()
    for node in site.network.nodes:
        node.faults.add("GET /piece", faults.FlippedBit(), times=2)
    store = site.server.store
    wrong = 0
    for key, data in site.objects.items():
        try:
            record = await store.find(store.bucket("b"), key.encode())
            assert record is not None
            pieces = [bytes(piece) async for piece in store.read(record.body, 0, len(data))]
        except (Corruption, NotFound, Unavailable):  # both nodes lied, or were not asked again
            wrong += 1
            continue
        assert b"".join(pieces) == data, key
    assert wrong <= 4
    await site.check()


async def test_of_two_nodes_one_flips_a_bit(site: Site) -> None:
    """Every file lies at both: what one gives is found wrong, and comes from the other."""
    await site.fill(40)
    await site.until_shipped()
    await until(lambda: site.server.segments.bytes_here() <= WARM)
    await site.server.stop()
    network = site.server.config.forge_settings()
    identity = KeyStore(str(site.directory / "data")).identity(NOW // 1000)
    assert network is not None
    async with ForgeClient(network, identity, SystemClock()) as client:
        await site.store_twice(client)
    await site.start()
    site.network.nodes[0].faults.add("GET /piece", faults.FlippedBit(), times=None)
    await site.check()
    statistics = site.server.segments.statistics
    assert statistics.rejected and statistics.fetched


async def test_writes_go_on_while_the_network_is_away(site: Site) -> None:
    for service in site.network.services:
        await service.hang_up()
    await site.fill(40)
    await site.check()
    for service in site.network.services:
        await service.listen()
    await site.until_shipped()
    await site.check()


async def test_a_registry_of_yesterday_loses_nothing_that_is_cold(site: Site) -> None:
    """A failover may take it back to before segments shipped and went."""
    await site.fill(60)
    await site.until_shipped()
    await until(lambda: site.server.segments.bytes_here() <= WARM)
    await site.server.stop()
    database = site.registry.database
    assert any(row.state == "cold" for row in database.segments.values())
    for row in list(database.segments.values()):
        database.segments[row.stream, row.number] = replace(row, state="sealed")
    database.shipments.clear()
    await site.start()
    await site.check()
    assert any(row.state == "cold" for row in database.segments.values())
    await site.fill(10)
    await site.until_shipped()
    await site.check()


async def test_nodes_that_forget_what_they_confirmed_cost_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They were right about other files before. What they find again is relied on again."""
    await site.fill(30)
    await site.until_shipped()
    segments, nodes = site.server.segments, site.network.nodes
    await until(lambda: segments.bytes_here() <= WARM)
    put, forgotten = site.registry.put_shipment, dict[Any, Path]()

    async def forgetting(token: bytes, row: Any) -> None:
        if row.state == "indexed":
            for node in nodes:
                path = node.blobs.path(row.digest)
                if path.exists():
                    forgotten[row.stream, row.number] = path.rename(f"{path}.lost")
        await put(token, row)

    monkeypatch.setattr(site.registry, "put_shipment", forgetting)
    for _ in range(8):
        await site.put(f"large{len(site.objects)}", 1_500_000)
    await site.until_shipped()
    await until(lambda: "It was confirmed" in caplog.text)
    asked = sum(node.requests["GET /piece"] for node in nodes)
    await until(lambda: sum(node.requests["GET /piece"] for node in nodes) > asked + 3)
    cold = {(row.stream, row.number) for row in segments.rows() if row.state == "cold"}
    assert forgotten and not cold & forgotten.keys()
    assert segments.bytes_here() > WARM
    await site.check()
    monkeypatch.undo()
    for path in forgotten.values():
        path.rename(str(path).removesuffix(".lost"))
    await until(lambda: segments.bytes_here() <= WARM)
    await site.check()


async def test_another_network_is_not_taken_for_the_one_that_has_it_all(site: Site) -> None:
    await site.fill(3)
    await site.until_shipped()
    await site.server.stop()
    first = site.network
    async with Network(site.directory / "another") as site.network:
        with pytest.raises(ConfigError, match=f"{first.upload.did}.*Name the ones of before"):
            await site.start()
    site.network = first
    await site.start()
    await site.check()


async def test_a_start_while_the_network_is_away(site: Site) -> None:
    """The bucket's configuration is cold by then: it is not served, and nothing is said to be
    damaged, until the network is back."""
    segments = site.server.segments
    config = site.server.store.bucket("b").head.config
    assert config is not None
    for number in range(2000):  # until the units that have it must go
        if segments._index.find(config) is None:
            break
        await site.put(f"small{number % 50}", 4000)
        if number % 100 == 99:
            await site.until_shipped()
            await until(lambda: segments.bytes_here() <= WARM)
    await site.server.stop()
    for service in site.network.services:
        await service.hang_up()
    await site.start()
    assert any("cannot be served before the network" in line for line in site.server.report)
    for call in (lambda: site.server.store.bucket("b"), lambda: site.server.store.buckets()):
        with pytest.raises(Unavailable, match="configuration of bucket b cannot be fetched"):
            call()
    for service in site.network.services:
        await service.listen()
    await until(lambda: not site.server.store.tips["b"].away)
    assert site.server.store.bucket("b").config == CONFIG
    await site.check()
    await site.put("more", 100)


async def test_with_the_lease_gone_nothing_is_shipped_or_retired(site: Site) -> None:
    await site.fill(10)
    await site.until_shipped()
    shipping, segments = site.server.shipping, site.server.segments
    assert shipping is not None and shipping.running
    site.server.pipeline.fail(LeaseLost("another gateway took it"))
    await until(lambda: not shipping.running)
    assert site.server.failed.is_set()
    before = segments.rows(), await site.registry.shipments()
    await asyncio.sleep(1.0)  # more than the age of segments and units, and a round of retiring
    assert (segments.rows(), await site.registry.shipments()) == before
