"""A network for each test, in both generations, and a client that has a provisioned space."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ingot.forge.client import ForgeClient
from ingot.forge.network import Network
from tests.forge.client.support import client_of, someone


@pytest.fixture(params=["seed", "next"])
async def network(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Network]:
    async with Network(tmp_path / "forge", generation=request.param) as network:
        await network.provision(someone().space)
        yield network


@pytest.fixture
async def client(network: Network) -> AsyncIterator[ForgeClient]:
    async with client_of(network) as client:
        yield client
