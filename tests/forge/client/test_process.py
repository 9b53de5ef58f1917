"""A network in a process of its own that is killed under a client's uploads; a gateway's loop."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from ingot.clock import SystemClock
from ingot.codec import multihash
from ingot.config import Config
from ingot.errors import Unavailable
from ingot.forge.client import ForgeClient, ForgeSettings
from ingot.forge.keystore import KeyStore
from ingot.forge.network import Network
from ingot.server import loop_factory
from tests.forge.client.support import QUICK, client_of, http, noise, someone, store
from tests.support.process import DevNetwork


async def started(directory: Path) -> DevNetwork:
    return await asyncio.to_thread(DevNetwork, directory)


async def put_in_the_end(client: ForgeClient, data: bytes) -> None:
    """As whoever ships does: again, until it is done."""
    while True:
        try:
            await store(client, data)
            return
        except Unavailable:
            await asyncio.sleep(0.02)


@pytest.mark.slow
async def test_every_blob_arrives_though_the_network_is_killed(tmp_path: Path) -> None:
    directory = tmp_path / "network"
    network = await started(directory)
    config = Config.load({"data_dir": str(tmp_path / "data")}, {}, str(directory / "gateway.toml"))
    named = config.forge_settings()
    assert named is not None and named.http.insecure and named.indexer is not None
    settings = ForgeSettings(
        upload=named.upload,
        indexer=named.indexer,
        http=http(breaker_failures=3, breaker_open_s=0.05),
        retry=QUICK,
    )
    keys = KeyStore(config.data_dir)
    keys.create_space()
    identity = keys.identity(int(time.time()), config.forge_space)
    datas = [noise(200_000 + number) for number in range(24)]
    try:
        async with ForgeClient(settings, identity, SystemClock()) as client:
            adding = [asyncio.ensure_future(put_in_the_end(client, data)) for data in datas]
            for arrived in (4, 10):
                while sum(task.done() for task in adding) < arrived:
                    await asyncio.wait(
                        [task for task in adding if not task.done()],
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                await asyncio.to_thread(network.kill)
                network = await started(directory)
            await asyncio.gather(*adding)
            listed = (await client.upload.list_blobs()).blobs
            assert {row.blob.digest for row in listed} == {multihash.of(data) for data in datas}
            for data in datas:
                (place,) = await store(client, data)
                async with client.retriever.read([place], 0, len(data) - 1) as reading:
                    assert b"".join([piece async for piece in reading]) == data
    finally:
        if network.process.poll() is None:
            network.kill()


def test_on_the_servers_own_loop(tmp_path: Path) -> None:
    async def run() -> None:
        async with Network(tmp_path, nodes=1, indexer=False) as network:
            await network.provision(someone().space)
            async with client_of(network) as client:
                data = noise(2_000_000)
                (place,) = await store(client, data)
                async with client.retriever.read([place], 1, len(data) - 2) as reading:
                    assert b"".join([piece async for piece in reading]) == data[1:-1]

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(run())
