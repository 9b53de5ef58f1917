"""A gateway before a service that does not provide for its space yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingot.bucket.model import BucketConfig
from ingot.forge.keystore import KeyStore
from ingot.forge.network import Network
from tests.e2e.test_forge import Site
from tests.net.waiting import until


@pytest.mark.slow
async def test_it_says_what_to_do_and_ships_once_it_is_provided_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    space = KeyStore(str(tmp_path / "data")).create_space()
    async with Network(tmp_path / "network") as network:
        site = Site(tmp_path, network)
        await site.start()
        try:
            config = BucketConfig("owner", "Owner", 1, "us-east-1")
            await site.server.store.create_bucket("b", config)
            await site.put("key", 3000)
            await until(lambda: "see 'ingot space provision --help'" in caplog.text)
            assert "InsufficientStorage" in caplog.text
            await network.provision(space.did)
            await site.until_shipped()
        finally:
            await site.server.stop()
