"""A network for each test, and a client that has a provisioned space."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from ingot.forge.network import Network
from tests.forge.network.client import Client


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        # A GET or PUT that was lost is sent once more by aiohttp itself, which would hide half of
        # the faults; its own test client turns that off in the same way.
        session._retry_connection = False
        yield session


@pytest.fixture(params=["seed", "next"])
async def network(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Network]:
    async with Network(tmp_path / "forge", generation=request.param) as network:
        yield network


@pytest.fixture
async def client(network: Network, session: aiohttp.ClientSession) -> Client:
    made = Client(network, session)
    await network.provision(made.space.did)
    return made
