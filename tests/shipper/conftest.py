"""A network, a registry whose lease is held, a log, and shippers over them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ingot.codec import multihash
from ingot.forge.client import ForgeClient
from ingot.forge.network import Network
from ingot.messages import Shipment
from ingot.registry.memory import Database, Hook, MemoryRegistry
from ingot.shipper.lifecycle import INDEXED
from ingot.shipper.publish import Publisher
from ingot.shipper.shipper import Shipper, ShipperSettings
from tests.forge.client.support import client_of, http, someone
from tests.shipper.support import QUICK, Log, Watched, accepted, read_back, until
from tests.support.memory import in_memory


@dataclass
class World:
    """``start`` and ``stop`` a shipper; ``check`` what must hold whenever the watermark moves."""

    network: Network
    client: ForgeClient
    log: Log
    database: Database
    token: bytes
    settings: ShipperSettings = QUICK
    reach: Any = None
    advanced: list[int] = field(default_factory=list)
    shippers: list[Shipper] = field(default_factory=list)

    @property
    def shipper(self) -> Shipper:
        return self.shippers[-1]

    async def start(
        self,
        before: Hook | None = None,
        after: Hook | None = None,
        client: ForgeClient | None = None,
        publisher: Publisher | None = None,
    ) -> Shipper:
        registry = MemoryRegistry(self.database, before=before, after=after)
        await registry.open()
        watched: Any = Watched(registry, self._advances)
        upload = (client or self.client).upload
        self.shippers.append(
            Shipper(
                self.log,
                watched,
                self.token,
                upload,
                self.settings,
                publisher,
                reach=self.reach,
            )
        )
        await self.shipper.start()
        return self.shipper

    async def stop(self) -> None:
        await self.shipper.stop()
        assert self.log.open_fds == 0

    async def _advances(self, commit: int) -> None:
        """Everything up to ``commit`` can be read back from the network, and no commit is passed
        that has no unit."""
        assert commit > self.database.forge_watermark
        self.advanced.append(commit)
        end = 0
        for unit in sorted(self.units, key=lambda each: each.last_commit):
            if unit.first_commit > commit:
                break
            assert unit.first_commit <= end + 1
            end = unit.last_commit
            needed = [("unit", unit.number)]
            if unit.needs is not None:
                bodies = [("body", each) for each in range(1, unit.needs.segment + 1)]
                needed += [key for key in bodies if key in self.log.files]
            for key in needed:
                data = await read_back(self.client, self.row(*key))
                assert data == self.log.data(key)
        assert end == commit

    @property
    def units(self) -> list[Shipment]:
        return [row for row in self.database.shipments.values() if row.stream == "unit"]

    def row(self, stream: str, number: int) -> Shipment:
        return self.database.shipments[stream, number]

    def states(self) -> dict[tuple[str, int], str]:
        return {key: row.state for key, row in self.database.shipments.items()}

    @property
    def done(self) -> bool:
        return (
            self.database.forge_watermark == self.log.commits[-1][1].sequence
            and set(self.states()) == set(self.log.files)
            and set(self.states().values()) == {INDEXED}
        )

    async def shipped(self) -> None:
        """Wait until everything is, and see that it is there, once, and can be found."""
        await until(lambda: self.done, self.shipper)
        self.check_roots()
        for key in self.log.files:
            data = self.log.data(key)
            assert accepted(self.network, data) == 1
            assert await read_back(self.client, self.row(*key)) == data

    def check_roots(self) -> None:
        """Each bucket's root is its newest head at or below the watermark."""
        expected: dict[bytes, Any] = {}
        for _, record in self.log.commits:
            if record.sequence <= self.database.forge_watermark:
                expected |= {move.bucket: move.new for move in record.moves}
        found = {root.bucket: root.head for root in self.database.forge_roots.values()}
        assert found == {bucket: head for bucket, head in expected.items() if head is not None}

    async def find(self, key: tuple[str, int]) -> None:
        """Every block of a file, by way of the indexer."""
        data = self.log.data(key)
        for name, offset, length in self.log.blocks[key]:
            places = await self.client.retriever.locate(name)
            assert (offset, offset + length - 1) in [(place.start, place.end) for place in places]
            assert {place.blob for place in places} == {multihash.of(data)}


async def make_world(network: Network, client: ForgeClient, tmp_path: Path) -> World:
    database = Database()
    registry = MemoryRegistry(database)
    await registry.open()
    token = await registry.acquire("tests", 3600.0)
    assert token is not None
    return World(network, client, Log(tmp_path / "log"), database, token)


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """In memory: see there."""
    yield from in_memory(tmp_path)


@pytest.fixture
async def network(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Network]:
    generation = getattr(request, "param", "next")
    async with Network(tmp_path / "forge", generation=generation) as network:
        await network.provision(someone().space)
        yield network


@pytest.fixture
async def world(network: Network, tmp_path: Path) -> AsyncIterator[World]:
    # A breaker that stays open for long would have tests of faults wait for it.
    async with client_of(network, http=http(breaker_open_s=0.05)) as client:
        made = await make_world(network, client, tmp_path)
        yield made
        if made.shippers:
            await made.stop()
