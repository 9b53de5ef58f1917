"""Root's buckets stay root's, whatever its access key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingot.credentials import canonical_id
from tests.support.client import Client
from tests.support.servers import SECRET_KEY, Servers

pytestmark = pytest.mark.slow


class World:
    """One data directory and its gateways, one after the other."""

    def __init__(self, data: Path, patch: pytest.MonkeyPatch) -> None:
        self.data, self.patch = data, patch
        self.servers = Servers()
        self.servers.accounts = None  # those of the environment

    @contextmanager
    def gateway(self, access_key: str) -> Iterator[Client]:
        self.patch.setenv("INGOT_ACCESS_KEY", access_key)
        self.patch.setenv("INGOT_SECRET_KEY", SECRET_KEY)
        with self.servers.running(self.data, access_key) as client:
            yield client


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path / "data", monkeypatch)


def test_a_new_access_key_for_root(world: World) -> None:
    with world.gateway("AKIAFIRST") as client:
        assert client.put("/box", b"").status == 200
        assert client.put("/box/k", b"mine").status == 200
    for access_key in ("AKIASECOND", "AKIATHIRD", "AKIAFIRST"):
        with world.gateway(access_key) as client:
            listed = client.get("/").body
            assert b"<Name>box</Name>" in listed
            assert canonical_id("AKIAFIRST").encode() in listed
            assert client.get("/box/k").body == b"mine"
            assert client.delete("/box").code == "BucketNotEmpty"


def test_a_directory_from_before_keeps_the_id_of_its_present_key(world: World) -> None:
    with world.gateway("AKIAFIRST") as client:
        assert client.put("/box", b"").status == 200
    mark = world.data / "STORE"
    fields = json.loads(mark.read_text())
    del fields["root"]
    mark.write_text(json.dumps(fields))
    for access_key in ("AKIAFIRST", "AKIASECOND"):
        with world.gateway(access_key) as client:
            assert b"<Name>box</Name>" in client.get("/").body
