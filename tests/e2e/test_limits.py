"""Limits of the store as a client meets them."""

from __future__ import annotations

from typing import Any

import pytest

from ingot import limits
from ingot.testing import Gateway
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


def test_full_log_takes_no_bytes_but_serves_and_deletes(client: Any) -> None:
    client.gateway.server.store.full = "the segments hold 8 of 8 bytes"
    refused = client.put("/box/more", b"2")
    assert (refused.status, refused.code) == (503, "SlowDown")
    assert int(refused.headers["retry-after"]) > 0
    assert client.put("/box/large", bytes(2 * limits.MIB)).status == 503
    assert client.get("/box/kept").body == b"1"
    assert client.delete("/box/kept").status == 204
    client.gateway.server.store.full = ""
    assert client.put("/box/more", b"2").status == 200
