"""A gateway whose bodies and units are nearly all in the network: what clients see of that."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ingot.bucket.compaction import compact
from ingot.bucket.fsck import Fsck
from ingot.bucket.pins import Pins
from ingot.registry.memory import MemoryRegistry
from ingot.segments import format
from ingot.segments.store import SegmentStore
from ingot.testing import Gateway
from tests.support.client import Client
from tests.support.coldsource import FakeSource, Key, flip

MIB = 1 << 20
KEYS = 600


class ColdStore:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.registry = MemoryRegistry()
        self.source = FakeSource("near", "far")
        self.cold: set[Key] = set()
        self.large = os.urandom(20 * MIB + 5)

    def gateway(self) -> Gateway:
        return Gateway(self.registry, data_dir=str(self.path), segment_bytes=MIB)

    def fill(self, gateway: Gateway) -> None:
        client = client_of(gateway)
        assert client.put("/box", b"").status == 200
        for number in range(KEYS):
            assert client.put(f"/box/{number:04}", b"%d" % number * 100).status == 200
        assert client.put("/box/large", self.large).status == 200
        client.close()

    async def retire(self, gateway: Gateway) -> None:
        """All that can be retired, and as much as can become a unit."""
        segments = gateway.server.segments
        sources = segments.settled()[:-1]
        assert sources
        for at in range(0, len(sources), 8):
            await compact(segments, sources[at : at + 8], Pins())
        infos = segments.retirable()
        assert {info.stream for info in infos} == {"body", "unit"}
        for info in infos:
            path = self.path / "segments" / format.file_name(*info.key)
            self.source.keep(info.key, path.read_bytes())
            self.cold.add(info.key)
            await segments.retire(info.key)
            assert not path.exists()


def client_of(gateway: Gateway) -> Client:
    return Client(gateway.url, gateway.access_key, gateway.secret_key, gateway.region)


@pytest.fixture
async def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ColdStore]:
    made = ColdStore(tmp_path / "data")
    async with made.gateway() as gateway:
        await asyncio.to_thread(made.fill, gateway)
    async with made.gateway() as gateway:
        await made.retire(gateway)
    opened = SegmentStore.open

    async def told(self: SegmentStore, store: bytes, incarnation: int, *_: object) -> object:
        self.fetch = made.source
        return await opened(self, store, incarnation, made.cold)

    monkeypatch.setattr(SegmentStore, "open", told)
    yield made


def read_everything(store: ColdStore, gateway: Gateway) -> None:
    client = client_of(gateway)
    listed = client.get("/box", "list-type=2&max-keys=1000")
    assert listed.status == 200
    assert listed.body.count(b"<Key>") == KEYS + 1
    # Some 150 nodes and 600 records, most of them in one unit.
    assert len(store.source.asked) < 40, "nodes or records one after the other"
    for number in range(0, KEYS, 37):
        answer = client.get(f"/box/{number:04}")
        assert (answer.status, answer.body) == (200, b"%d" % number * 100)
    asked = len(store.source.asked)
    answer = client.get("/box/large")
    assert answer.status == 200 and answer.body == store.large
    assert len(store.source.asked) - asked <= 2 * 21  # two places, segments of a mebibyte
    client.close()


@pytest.mark.slow
async def test_clients_read_what_is_cold(store: ColdStore) -> None:
    async with store.gateway() as gateway:
        assert not gateway.server.report
        assert {(r.stream, r.number) for r in gateway.server.segments.rows() if r.state == "cold"}
        await asyncio.to_thread(read_everything, store, gateway)


@pytest.mark.slow
async def test_one_place_lies(store: ColdStore) -> None:
    store.source.all[0].spoil = lambda at, piece: flip(piece, len(piece) // 3)
    async with store.gateway() as gateway:
        await asyncio.to_thread(read_everything, store, gateway)
        assert gateway.server.segments.statistics.rejected > 10


@pytest.mark.slow
async def test_the_network_is_away_for_a_while(store: ColdStore) -> None:
    def story(gateway: Gateway) -> None:
        client = client_of(gateway)
        for provider in store.source.all:
            provider.away = True
        assert client.get("/box/0001").status == 503
        assert client.get("/box", "list-type=2").status == 503
        for provider in store.source.all:
            provider.away = False
        assert client.get("/box/0001").body == b"1" * 100
        assert client.put("/box/0001", b"the newer one").status == 200
        assert client.get("/box/0001").body == b"the newer one"
        client.close()

    async with store.gateway() as gateway:
        await asyncio.to_thread(story, gateway)


@pytest.mark.slow
async def test_fsck_says_what_it_did_not_see(store: ColdStore) -> None:
    async with store.gateway() as gateway:
        segments, lines = gateway.server.segments, list[str]()
        for source, cold in ((None, True), (store.source, False)):
            segments.fetch = source
            verified = await segments.verify(lines.append)
            assert verified.cold == len(store.cold) and not verified.broken
            fsck = Fsck(segments, lines.append, True, verified)
            found = await fsck.check(gateway.server.store.buckets())
            assert not found.damage and not found.harmless
            assert (found.cold > 0) == cold
        assert found.keys == KEYS + 1 and found.bytes >= len(store.large)
