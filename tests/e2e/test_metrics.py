"""Prometheus text: over HTTP of its own, from two servers in one process, and to a host."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ingot.bucket.model import BucketConfig
from ingot.errors import ConfigError
from ingot.forge.network import Network
from ingot.testing import Gateway
from tests.support.client import Client

Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: bytes) -> Figures:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def figure(figures: Figures, name: str, **labels: str) -> float:
    return figures[f"ingot_{name}", frozenset(labels.items())]


@pytest.fixture
def gateways() -> Iterator[list[Gateway]]:
    with Gateway(metrics_listen="127.0.0.1:0") as one, Gateway(metrics_listen="127.0.0.1:0") as two:
        yield [one, two]


def test_two_servers_in_one_process_count_apart(gateways: list[Gateway]) -> None:
    one, two = gateways
    client = Client(one.url, one.access_key, one.secret_key)
    assert client.put("/box", b"").status == 200
    for number in range(5):
        assert client.put(f"/box/{number}", b"%d" % number * 5000).status == 200
    assert client.get("/box/0").status == 200
    client.close()
    with urllib.request.urlopen(one.server.metrics_url) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        busy = parsed(answer.read())
    with urllib.request.urlopen(two.server.metrics_url) as answer:
        idle = parsed(answer.read())
    assert figure(busy, "mutations_total") == 6 and figure(idle, "mutations_total") == 0
    assert figure(busy, "http_requests_total") == 7 and figure(idle, "http_requests_total") == 0
    assert figure(busy, "http_received_bytes_total") > 25_000
    assert 1 <= figure(busy, "commits_total") <= 6
    assert figure(busy, "newest_commit") == figure(busy, "log_commits_total")
    assert figure(busy, "buckets") == 1 and figure(idle, "buckets") == 0
    assert figure(busy, "segments", stream="log", state="open") == 1
    assert figure(busy, "local_bytes") > figure(busy, "log_written_bytes_total") > 25_000
    for figures in (busy, idle):
        assert figure(figures, "serving") == 1 and figure(figures, "registry_up") == 1
        assert 0 < figure(figures, "lease_remaining_seconds") < 15
        assert not any(name.startswith("ingot_ship") for name, _ in figures)
        assert figures["process_open_fds", frozenset()] > 0


def test_only_metrics_are_there_and_no_bucket_is_in_the_way(gateways: list[Gateway]) -> None:
    one, _ = gateways
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(one.server.metrics_url + "/box")
    client = Client(one.url, one.access_key, one.secret_key)
    assert client.put("/metrics", b"").status == 200
    assert client.put("/metrics/a", b"1").status == 200
    assert client.get("/metrics/a").body == b"1"
    client.close()


def test_it_is_off_by_default_and_a_host_asks_for_itself() -> None:
    with Gateway() as gateway:
        assert gateway.server.metrics_url == ""
        assert gateway._running is not None
        assert figure(parsed(gateway._running.metrics()), "buckets") == 0


def test_an_address_that_is_taken_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with (
            pytest.raises(ConfigError, match=f"metrics_listen {address}: Address already in use"),
            Gateway(metrics_listen=address),
        ):
            pass


def test_importing_the_server_does_not_import_it() -> None:
    """Nor the HTTP client of a network that a gateway may not have."""
    command = "import sys, ingot.server; print({'prometheus_client', 'aiohttp'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.slow
async def test_what_forge_lacks_has_an_age_and_a_reason(tmp_path: Path) -> None:
    from tests.e2e.test_forge import Site

    config = BucketConfig("owner", "Owner", 1, "us-east-1")
    async with Network(tmp_path / "network") as network:
        site = Site(tmp_path, network)
        await site.start()
        try:
            await site.server.store.create_bucket("b", config)
            await site.fill(10)
            await site.until_shipped()
            figures = parsed(await site.server.metrics())
            assert figure(figures, "ship_oldest_commit_age_seconds") == 0
            assert figure(figures, "ship_running") == 1
            assert figure(figures, "ship_files", state="confirmed") > 0
            assert figure(figures, "ship_watermark_commit") == figure(figures, "newest_commit")
            assert figure(figures, "forge_breaker_open", service=network.upload.url) == 0
            for service in network.services:
                await service.hang_up()
            await site.fill(5)
            upload = network.upload.url

            async def away() -> Figures:
                while True:
                    found = parsed(await site.server.metrics())
                    if figure(found, "forge_breaker_open", service=upload):
                        return found
                    await asyncio.sleep(0.05)

            figures = await asyncio.wait_for(away(), 30)
            assert figure(figures, "ship_oldest_commit_age_seconds") > 0
            assert figure(figures, "ship_files", state="queued") > 0
        finally:
            await site.server.stop()


def test_names_follow_the_conventions() -> None:
    with Gateway() as gateway:
        assert gateway._running is not None
        text = gateway._running.metrics().decode()
    for family in text_string_to_metric_families(text):
        assert family.documentation
        assert family.name.startswith(("ingot_", "process_")), family.name
        for sample in family.samples:
            assert (family.type == "counter") == sample.name.endswith("_total"), sample.name
