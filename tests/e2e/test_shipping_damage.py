"""Bits flip on the disk of a running gateway before its segments are shipped: all that is good
ships, the watermark moves, and only the bucket that needs what is bad stays behind, as long as it
does."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from ingot.codec import multihash
from ingot.forge.keystore import KeyStore
from ingot.forge.network import Network, faults
from ingot.limits import MIB
from ingot.registry.memory import MemoryRegistry
from ingot.segments import format
from ingot.standing import told_in
from ingot.testing import Gateway
from tests.net.waiting import until

pytestmark = pytest.mark.slow
NOW_S = 1_800_000_000


class Site:
    """A gateway before a network, with one bucket that will be hit and two that will not."""

    def __init__(self, directory: Path, network: Network) -> None:
        self.directory, self.network = directory / "data", network
        self.registry = MemoryRegistry()
        self.source = random.Random(1)
        self.objects: dict[tuple[str, str], bytes] = {}
        self.gateway: Gateway

    async def start(self, **settings: Any) -> None:
        keys = KeyStore(str(self.directory))
        if not keys.spaces(NOW_S):
            await self.network.provision(keys.create_space().did)
        self.gateway = Gateway(
            self.registry,
            **{
                "data_dir": str(self.directory),
                "segment_bytes": MIB,
                "seal_age_s": 3600.0,  # until ``seal``
                "unit_age_s": 0.1,
                "warm_bytes": 6 * MIB,
                **self.network.gateway_settings(),
                **settings,
            },
        )
        await self.gateway.__aenter__()
        self.client = boto3.client("s3", endpoint_url=self.gateway.url, **self.gateway.boto())

    async def stop(self) -> None:
        await self.gateway.__aexit__(None, None, None)

    async def ask(self, operation: str, **asked: Any) -> Any:
        return await asyncio.to_thread(getattr(self.client, operation), **asked)

    async def put(self, bucket: str, key: str, size: int) -> bytes:
        data = self.source.randbytes(size)
        await self.ask("put_object", Bucket=bucket, Key=key, Body=data)
        self.objects[bucket, key] = data
        return data

    async def get(self, bucket: str, key: str) -> bytes:
        found = await self.ask("get_object", Bucket=bucket, Key=key)
        return await asyncio.to_thread(found["Body"].read)

    async def check(self) -> None:
        for (bucket, key), data in self.objects.items():
            assert await self.get(bucket, key) == data

    def seal(self) -> None:
        """From now on what was written may ship."""
        self.segments.seal_aged(0.0)

    @property
    def segments(self) -> Any:
        return self.gateway.server.segments

    def flip(self, data: bytes) -> str:
        """A bit of a block on the disk; which file that is in."""
        for path in sorted((self.directory / "segments").glob("*.car")):
            at = path.read_bytes().find(data[:64])
            if at >= 0:
                with path.open("r+b") as file:
                    file.seek(at + 5)
                    byte = file.read(1)
                    file.seek(at + 5)
                    file.write(bytes([byte[0] ^ 4]))
                return path.name
        raise AssertionError("it lies nowhere")

    async def shipped(self) -> None:
        newest = self.segments.sequence
        shipper = self.gateway.server.shipping.shipper
        await until(lambda: shipper.watermark >= newest)

    def behind(self) -> set[str]:
        """Buckets of which Forge has not the newest head."""
        tips = self.gateway.server.pipeline.tips
        roots = {root.bucket: root.head for root in self.registry.database.forge_roots.values()}
        return {name for name, bucket in tips.items() if roots.get(bucket.id) != bucket.head}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with Network(tmp_path / "network") as network:
        made = Site(tmp_path, network)
        await made.start()
        for bucket in ("hit", "spared", "other"):
            await made.ask("create_bucket", Bucket=bucket)
        yield made
        await made.stop()


@pytest.mark.parametrize(("size", "stream"), [(3000, "log"), (300_000, "body")])
async def test_damage_holds_back_the_bucket_that_needs_it_and_nobody_else(
    site: Site, size: int, stream: str
) -> None:
    for number in range(12):
        await site.put("spared", f"k{number}", random.Random(number).choice((50, 3000, 200_000)))
    before = await site.put("hit", "before", 100)
    victim = await site.put("hit", "victim", size)
    await site.put("hit", "whole", size)
    assert site.flip(victim).startswith(stream)
    del site.objects["hit", "victim"]
    site.seal()
    await site.put("other", "k", 100)
    site.seal()
    await site.shipped()
    assert site.behind() == {"hit"}
    shipping = site.gateway.server.shipping
    (problem,) = (await shipping.shipper.standing()).problems
    assert "bucket hit" in problem
    await site.check()
    with pytest.raises(ClientError):
        await site.get("hit", "victim")
    # A head that still needs it stays behind, those of the others go on; also after a restart.
    await site.stop()
    await site.start()
    await site.put("hit", "more", 100)
    await site.put("spared", "more", 100)
    site.seal()
    await site.shipped()
    assert site.behind() == {"hit"}
    kept = {path.name for path in (site.directory / "segments").iterdir()}
    damage = [(one.stream, bool(one.spans)) for one in await site.registry.damage()]
    if stream == "log":
        assert damage == [("unit", False)]
        assert [name for name in kept if name.endswith(".car.damaged")]
    else:
        assert damage == [("body", True)]
    # It is overwritten, and nothing is behind any more.
    await site.put("hit", "victim", 50)
    site.seal()
    await site.shipped()
    await until(lambda: not site.behind())
    assert (await site.gateway.server.shipping.shipper.standing()).problems == []
    await site.check()
    assert site.objects["hit", "before"] == before


async def test_what_ships_is_what_lies_here_and_damaged_files_stay(site: Site) -> None:
    for number in range(10):
        await site.put("spared", f"large{number}", 900_000)
    victim = await site.put("hit", "victim", 300_000)
    name = site.flip(victim)
    site.seal()
    await site.put("other", "k", 100)
    site.seal()
    await site.shipped()
    path = site.directory / "segments" / name
    digest = multihash.of(path.read_bytes())
    assert any(node.effects["accepted", digest] for node in site.network.nodes)
    await until(lambda: [row for row in site.segments.rows() if row.state == "cold"])
    await asyncio.sleep(0.3)  # three rounds of retiring
    assert path.exists()
    del site.objects["hit", "victim"]
    await site.check()


async def test_a_body_segment_of_which_nothing_is_left(site: Site) -> None:
    """The log has commits that need it, and no file or index of it is here or in Forge."""
    for node in site.network.nodes:
        full = faults.ErrorReceipt("CandidateUnavailable")
        node.faults.add("/blob/allocate", full, times=None)
    victim = await site.put("hit", "victim", MIB)
    await site.put("spared", "large", MIB)
    await site.stop()
    segments = site.directory / "segments"
    (lost,) = (path for path in segments.glob("body-*.car") if victim in path.read_bytes())
    for path in (lost, *segments.glob("*.idx")):
        path.unlink()
    for node in site.network.nodes:
        node.faults.clear()
    await site.start()
    await site.put("other", "k", 100)
    site.seal()
    await site.shipped()
    assert site.behind() == {"hit"}
    (damage,) = await site.registry.damage()
    assert format.file_name(damage.stream, damage.number) == lost.name and damage.spans[0][0] == 0
    del site.objects["hit", "victim"]
    await site.check()
    await site.stop()
    await site.start()
    await site.put("hit", "more", 100)
    site.seal()
    await site.shipped()
    assert site.behind() == {"hit"}
    await site.put("hit", "victim", 50)
    site.seal()
    await site.shipped()
    await until(lambda: not site.behind())


async def test_a_commit_that_is_damaged_holds_the_watermark_and_says_so(site: Site) -> None:
    await site.put("spared", "one", 100)
    cid = site.segments.newest.record
    await site.put("spared", "two", 100)
    record = await site.segments.read(cid)
    site.flip(record)
    await site.stop()  # what was read is trusted until then
    await site.start()
    await site.put("other", "k", 100)
    site.seal()

    def problems() -> list[str]:
        told = told_in(str(site.directory))
        return told.problems if told is not None else []

    await until(lambda: any(line.startswith("watermark: ") for line in problems()))
    await site.check()
