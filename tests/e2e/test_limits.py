"""Limits of the store as a client meets them."""

from __future__ import annotations

import asyncio
import functools
import time
from pathlib import Path
from typing import Any

import pytest

from ingot import limits
from ingot.forge import http
from ingot.forge.network import Network
from ingot.testing import Gateway
from tests.e2e.test_forge import Site
from tests.net.waiting import until
from tests.support.client import Client


@pytest.fixture
def client() -> Any:
    with Gateway() as gateway:
        made = Client(gateway.url, gateway.access_key, gateway.secret_key)
        made.gateway = gateway  # type: ignore[attr-defined]
        assert made.put("/box", b"").status == 200
        assert made.put("/box/kept", b"1").status == 200
        yield made
        made.close()


def use(client: Any, share: float) -> None:
    """Have the segments take this share of the limit, as far as the server can see."""
    server = client.gateway.server
    used = int(server.config.log_bytes_max * share)
    server.segments.bytes_here = lambda: used
    server._judge_room()  # as it does every second


def test_full_log_takes_no_bytes_but_serves_and_deletes(client: Any) -> None:
    use(client, 1.0)
    refused = client.put("/box/more", b"2")
    assert (refused.status, refused.code) == (503, "SlowDown")
    assert int(refused.headers["retry-after"]) > 0
    assert client.put("/box/large", bytes(2 * limits.MIB)).status == 503
    assert client.get("/box/kept").body == b"1"
    assert client.delete("/box/kept").status == 204
    use(client, 0.9)
    assert client.put("/box/more", b"2").status == 200


def test_deletions_have_a_bound_of_their_own(client: Any) -> None:
    use(client, 1.0)
    assert client.put("/box/more", b"2").status == 503
    assert client.put("/other", b"").status == 503
    assert client.delete("/box/kept").status == 204
    use(client, 1.07)
    refused = client.delete("/box/kept")
    assert (refused.status, refused.code) == (503, "SlowDown")
    assert client.delete("/box").status == 503
    assert client.get("/box").status == 200
    use(client, 0.9)
    assert client.delete("/box").status == 204


@pytest.mark.slow
async def test_with_forge_away_a_full_log_refuses_writes_and_goes_on_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    quick = functools.partial(http.HttpSettings, breaker_open_s=0.5)
    monkeypatch.setattr("ingot.forge.http.HttpSettings", quick)
    async with Network(tmp_path / "network") as network:
        site = Site(tmp_path, network)
        await site.start(log_bytes_max="8MiB", warm_bytes="1TiB")
        client = Client(site.server.url, "AKIAINGOT", "secret-secret")
        kept: dict[str, bytes] = {}

        def fill() -> int:
            """PUTs until one is refused; its Retry-After."""
            while True:
                body = site.source.randbytes(400_000)
                answer = client.put(f"/box/{len(kept)}", body)
                if answer.status != 200:
                    assert (answer.status, answer.code) == (503, "SlowDown")
                    return int(answer.headers["retry-after"])
                kept[f"/box/{len(kept)}"] = body

        def all_there() -> bool:
            return all(client.get(path).body == body for path, body in kept.items())

        def until_taken() -> None:
            deadline = time.monotonic() + 60
            while client.put("/box/again", b"again").status != 200:
                assert time.monotonic() < deadline
                time.sleep(0.1)

        try:
            assert (await asyncio.to_thread(client.put, "/box", b"")).status == 200
            for service in network.services:
                await service.hang_up()
            assert await asyncio.to_thread(fill) > 0
            assert site.server.segments.bytes_here() >= 8 * limits.MIB
            assert "writes are refused" in caplog.text
            assert await asyncio.to_thread(all_there)
            assert (await asyncio.to_thread(client.delete, "/box/0")).status == 204
            del kept["/box/0"]
            for service in network.services:
                await service.listen()
            await asyncio.to_thread(until_taken)
            # Room is made well below the limit, although warm_bytes lets more stay.
            await until(lambda: site.server.segments.bytes_here() <= 7 * limits.MIB)
            assert await asyncio.to_thread(all_there)
        finally:
            client.close()
            await site.server.stop()
