"""A gateway that cannot renew its lease serves nothing from the moment on in which another may."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingot import Account, Config, Deps, Server, limits
from ingot.clock import SystemClock
from ingot.credentials import CredentialStore
from ingot.registry.memory import MemoryRegistry
from tests.net.waiting import until
from tests.support.client import Client

SERVED_S = limits.LEASE_TTL_S - limits.LEASE_MARGIN_S


class Ahead(SystemClock):
    """A machine's clock of which a test lets time pass."""

    passed = 0.0

    def boottime(self) -> float:
        return super().boottime() + self.passed


class Site:
    """A gateway, its clock, its registry and a client, which all that it has sends by itself."""

    def __init__(self, directory: Path) -> None:
        self.clock, self.registry = Ahead(), MemoryRegistry()
        account = Account("KEY", "secret-key", "0" * 63 + "1", "testing")
        deps = Deps(registry=self.registry, accounts=CredentialStore([account]), clock=self.clock)
        config = Config(listen="127.0.0.1:0", data_dir=str(directory / "data"))
        self.running = Server(config, deps).run_in_thread()
        self.client = Client(self.running.url, "KEY", "secret-key")
        assert self.client.put("/box", b"").status == 200
        assert self.client.put("/box/kept", b"1").status == 200

    def cut(self) -> None:
        """No renewal is confirmed any more."""
        self.registry.database.reachable = False


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(limits, "LEASE_RENEW_S", 0.05)
    made = Site(tmp_path)
    yield made
    made.registry.database.reachable = True
    made.client.close()
    made.running.stop()


REQUESTS = {
    "a GET, as the express lane takes it": ("GET", "/box/kept", "", {}),
    "a PUT, as the express lane takes it": ("PUT", "/box/new", "", {}),
    "a GET of a range": ("GET", "/box/kept", "", {"range": "bytes=0-0"}),
    "a PUT with metadata": ("PUT", "/box/new", "", {"x-amz-meta-a": "b"}),
    "HeadObject": ("HEAD", "/box/kept", "", {}),
    "DeleteObject": ("DELETE", "/box/kept", "", {}),
    "CopyObject": ("PUT", "/box/copy", "", {"x-amz-copy-source": "/box/kept"}),
    "ListObjectsV2": ("GET", "/box", "list-type=2", {}),
    "ListObjectVersions": ("GET", "/box", "versions=", {}),
    "CreateMultipartUpload": ("POST", "/box/large", "uploads=", {}),
    "GetBucketLocation": ("GET", "/box", "location=", {}),
    "ListBuckets": ("GET", "/", "", {}),
    "CreateBucket": ("PUT", "/other", "", {}),
    "DeleteBucket": ("DELETE", "/box", "", {}),
}


@pytest.mark.slow
def test_nothing_is_served_without_a_lease(site: Site) -> None:
    site.cut()
    site.clock.passed = SERVED_S + 0.001
    for name, (method, path, query, headers) in REQUESTS.items():
        refused = site.client.request(method, path, b"", headers, query)
        assert refused.status == 503, name
        assert int(refused.headers["retry-after"]) > 0, name
        if method != "HEAD":
            assert refused.code == "ServiceUnavailable", name
    site.registry.database.reachable = True
    asyncio.run(until(lambda: site.client.get("/box/kept").status == 200))
    assert site.client.get("/box/kept").body == b"1"
    assert b"<KeyCount>1<" in site.client.request("GET", "/box", query="list-type=2").body
