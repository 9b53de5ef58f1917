"""A gateway on files that were lost or damaged while it was stopped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingot.registry.memory import MemoryRegistry
from ingot.testing import Gateway
from tests.support.client import Client

MIB = 1 << 20


class Store:
    """A data directory and its registry, for one gateway after the other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.registry = MemoryRegistry()

    def gateway(self) -> Gateway:
        return Gateway(self.registry, data_dir=str(self.path), segment_bytes=MIB)

    def files(self, kind: str = "log") -> list[Path]:
        """Segments that hold something, in order."""
        found = sorted((self.path / "segments").glob(f"{kind}-*.car"))
        return [path for path in found if any(path.read_bytes()[59:])]


def client_of(gateway: Gateway) -> Client:
    return Client(gateway.url, gateway.access_key, gateway.secret_key, gateway.region)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """With a bucket whose creation is in the first of several segments."""
    made = Store(tmp_path / "data")
    with made.gateway() as gateway:
        client = client_of(gateway)
        assert client.put("/box", b"").status == 200
        for number in range(50):
            assert client.put(f"/box/{number:02}", os.urandom(60_000)).status == 200
        client.close()
    assert len(made.files()) >= 3
    yield made


def damage(path: Path, what: bytes) -> int:
    """Change a byte of each place where ``what`` stands; how many there are."""
    data = bytearray(path.read_bytes())
    count, at = 0, data.find(what)
    while at >= 0:
        data[at] ^= 0x5A
        count, at = count + 1, data.find(what, at + 1)
    path.write_bytes(data)
    return count


@pytest.mark.slow
@pytest.mark.parametrize("way", ["lost", "damaged"])
def test_a_bucket_outlives_the_segment_of_its_creation(store: Store, way: str) -> None:
    first = store.files()[0]
    if way == "lost":
        first.unlink()
    else:
        assert damage(first, b"ingot/bucket@1") == 1
    with store.gateway() as gateway:
        client = client_of(gateway)
        assert client.request("HEAD", "/box").status == 200
        assert b"<Name>box</Name>" in client.get("/").body
        assert client.get("/box/49").status == 200
        assert client.put("/box/50", b"more").status == 200
        client.close()
        report = gateway.server.report
    if way == "lost":
        assert [text for text in report if f"{first.name} is missing" in text]


@pytest.mark.slow
def test_a_small_store_outlives_its_first_segment(tmp_path: Path) -> None:
    """Its segments are sealed by stops alone; a start is a seal like any other."""
    store = Store(tmp_path / "data")
    for number in range(2):
        with store.gateway() as gateway:
            client = client_of(gateway)
            assert client.put("/box", b"").status in (200, 409)
            assert client.put(f"/box/{number}", b"x").status == 200
            client.close()
    store.files()[0].unlink()
    with store.gateway() as gateway:
        client = client_of(gateway)
        assert client.get("/box/1").body == b"x"
        client.close()


@pytest.mark.slow
def test_a_bucket_whose_configuration_is_lost(store: Store) -> None:
    assert sum(damage(path, b"ingot/bucket@1") for path in store.files()) >= 2
    with store.gateway() as gateway:
        client = client_of(gateway)
        for answer in (client.get("/box/49"), client.put("/box/new", b"x")):
            assert (answer.status, answer.code) == (500, "InternalError")
            assert b"configuration of this bucket is damaged" in answer.body
        client.close()
        assert [text for text in gateway.server.report if "configuration block" in text]
