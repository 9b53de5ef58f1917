"""A network for each test, in both generations, and a client that has a provisioned space."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from ingot.forge.client import ForgeClient
from ingot.forge.network import Network
from tests.forge.client.support import Server, client_of, someone


@pytest.fixture(params=["seed", "next"])
async def network(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Network]:
    async with Network(tmp_path / "forge", generation=request.param) as network:
        await network.provision(someone().space)
        yield network


@pytest.fixture
async def client(network: Network) -> AsyncIterator[ForgeClient]:
    async with client_of(network) as client:
        yield client


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    application = web.Application(client_max_size=1 << 30)
    application.router.add_route("*", "/{tail:.*}", made.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()
