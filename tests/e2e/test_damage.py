"""A gateway on files that were lost or damaged while it was stopped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ingot.bucket.fsck import Findings, Fsck
from ingot.registry.memory import MemoryRegistry
from ingot.testing import Gateway
from tests.support.client import Client

MIB = 1 << 20


class Store:
    """A data directory and its registry, for one gateway after the other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.registry = MemoryRegistry()
        self.bodies: dict[str, bytes] = {}

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
        assert client.put("/box/twice", b"superseded").status == 200
        assert client.put("/box/twice", b"the newer one").status == 200
        for number in range(50):
            body = made.bodies[f"{number:02}"] = os.urandom(60_000)
            assert client.put(f"/box/{number:02}", body).status == 200
        body = made.bodies["large"] = os.urandom(2 * MIB + 5)
        assert client.put("/box/large", body).status == 200
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


# -- fsck ------------------------------------------------------------------------------------------


async def fsck(store: Store, read_bodies: bool = True) -> Findings:
    async with store.gateway() as gateway:
        segments = gateway.server.segments
        verified = await segments.verify(lambda line: None)
        assert verified.frames > 100
        check = Fsck(segments, lambda line: None, read_bodies, verified)
        return await check.check(gateway.server.store.buckets())


@pytest.mark.slow
async def test_fsck_of_a_good_store(store: Store) -> None:
    found = await fsck(store)
    assert not found.damage and not found.harmless and found.keys == 52


@pytest.mark.slow
async def test_fsck_of_damage_that_nothing_needs(store: Store) -> None:
    assert sum(damage(path, b"superseded") for path in store.files()) == 1
    found = await fsck(store)
    assert not found.damage
    (line,) = found.harmless
    assert line.startswith("log-") and "nothing that is kept needs it" in line


@pytest.mark.slow
@pytest.mark.parametrize("read_bodies", [True, False])
@pytest.mark.parametrize(("key", "kind"), [("07", "log"), ("large", "body")])
async def test_fsck_of_damage_that_an_object_needs(
    store: Store, key: str, kind: str, read_bodies: bool
) -> None:
    at = store.bodies[key][40_000:40_100]
    assert sum(damage(path, at) for path in store.files(kind)) == 1
    found = await fsck(store, read_bodies)
    assert not found.harmless
    assert len(found.damage) == 2 and all(f"key '{key}'" in line for line in found.damage)
    assert any(line.startswith(f"{kind}-") and "lost to" in line for line in found.damage)


@pytest.mark.slow
async def test_fsck_of_a_damaged_copy(store: Store) -> None:
    assert damage(store.files()[0], b"ingot/bucket@1") == 1
    found = await fsck(store)
    assert not found.damage
    (line,) = found.harmless
    assert "bucket box: configuration can be read all the same" in line


@pytest.mark.slow
async def test_fsck_of_damage_that_hides_what_is_below(store: Store) -> None:
    """Of what stands below a node that is lost nobody can say that nothing needs it."""
    async with store.gateway() as gateway:
        root = gateway.server.store.bucket("box").head.objects
        assert root is not None
        node = await gateway.server.segments.read(root)
    for path in store.files():
        damage(path, node[len(node) // 2 :])
    assert sum(damage(path, store.bodies["07"][40_000:]) for path in store.files()) == 1
    found = await fsck(store)
    assert any("objects tree: node" in line and "lost to" in line for line in found.damage)
    assert any("nothing that can still be reached needs it" in line for line in found.harmless)


@pytest.mark.slow
async def test_fsck_of_the_chain(store: Store) -> None:
    """Every object can be read, but the log alone could not rebuild the bucket."""
    path = store.files()[1]
    data = bytearray(path.read_bytes())
    at = data.index(b"ingot/commit@1", data.index(b"ingot/commit@1") + 1)
    data[at + 100] ^= 1
    path.write_bytes(data)
    found = await fsck(store)
    assert not found.harmless and found.keys == 52
    assert any(line.startswith("commit ") and "is missing before" in line for line in found.damage)
    assert any("lost to the chain of commits" in line for line in found.damage)


@pytest.mark.slow
async def test_fsck_of_a_segment_that_is_gone(store: Store) -> None:
    store.files()[1].unlink()
    found = await fsck(store)
    assert any("are missing before log-" in line for line in found.damage)
    assert any("key '" in line for line in found.damage)


@pytest.mark.slow
async def test_fsck_of_a_registry_that_disagrees(store: Store) -> None:
    async with store.gateway() as gateway:
        segments, buckets = gateway.server.segments, gateway.server.store.buckets()
        verified = await segments.verify(lambda line: None)
        (move,) = verified.heads.values()
        verified.heads = {move.bucket: replace(move, new=replace(move.new, sequence=3))}
        found = await Fsck(segments, lambda line: None, False, verified).check(buckets)
        assert any("the commits in the log leave it at 3" in line for line in found.damage)
        verified.heads = {bytes(16): move}
        found = await Fsck(segments, lambda line: None, False, verified).check(buckets)
        assert any("leave it nowhere" in line for line in found.damage)
        assert any("the registry does not have it" in line for line in found.damage)
