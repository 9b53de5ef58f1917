"""``ingot restore --from-forge``: disk and database are lost, the network has it all."""

from __future__ import annotations

import random
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ingot.forge.keystore import KeyStore
from ingot.forge.network import Network
from ingot.forge.network.thread import LoopThread
from ingot.messages import Cid
from tests.support.client import Client
from tests.support.process import Gateway
from tests.support.store import Store

pytestmark = pytest.mark.slow

MIB = 1 << 20
SIZES = (0, 100, 4096, 20_000, 65_537, 300_000)


class Site:
    """A gateway on a disk and a database that can be lost, before a network that stays."""

    def __init__(self, path: Path, server: str, loop: LoopThread, network: Network) -> None:
        self.path, self.server, self.loop, self.network = path, server, loop, network
        self.objects: dict[str, bytes] = {}
        self.random = random.Random(7)
        self.store = Store(path, server)
        keys = KeyStore(str(self.store.data))
        loop.run(network.provision(keys.create_space().did))
        config = path / "gateway.toml"
        config.write_text(
            "".join(f'{name} = "{value}"\n' for name, value in network.gateway_settings().items())
            + "seal_age_s = 0.2\nunit_age_s = 0.4\n"
        )
        self.settings = "--config", str(config)

    def close(self) -> None:
        self.store.close()

    def serve(self, *arguments: str) -> Gateway:
        return self.store.serve(*self.settings, *arguments)

    def restore(self, *arguments: str) -> tuple[int, str]:
        return self.store.run("restore", "--from-forge", *self.settings, *arguments)

    def lose_everything(self) -> None:
        """But the identity."""
        keys = self.path / "keys"
        shutil.copytree(self.store.data / "forge", keys)
        shutil.rmtree(self.store.data)
        self.store.drop_schema()
        self.store.data.mkdir(mode=0o700)
        shutil.copytree(keys, self.store.data / "forge")
        shutil.rmtree(keys)

    # -- what is stored ----------------------------------------------------------------------------

    def put(self, client: Client, path: str, size: int) -> None:
        data = self.random.randbytes(size)
        assert client.put(path, data).status == 200
        self.objects[path] = data

    def multipart(self, client: Client, path: str) -> None:
        begun = client.request("POST", path, query="uploads=")
        found = re.search(rb"<UploadId>(.*)</UploadId>", begun.body)
        assert found is not None
        upload, listed, data = found[1].decode(), "", b""
        for number, size in enumerate((5 * MIB, 70_000), 1):
            piece = self.random.randbytes(size)
            answer = client.request(
                "PUT", path, piece, query=f"partNumber={number}&uploadId={upload}"
            )
            etag = answer.headers["etag"]
            listed += f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
            data += piece
        document = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
        done = client.request("POST", path, document, query=f"uploadId={upload}")
        assert done.status == 200
        self.objects[path] = data

    def fill(self, client: Client, count: int = 30) -> None:
        for name in ("one", "two", "gone"):
            assert client.put(f"/{name}", b"").status in (200, 409)
        for number in range(count):
            self.put(client, f"/{('one', 'two')[number % 2]}/k{number:03}", SIZES[number % 6])
        assert client.put("/gone/x", b"gone").status == 200
        assert client.delete("/gone/x").status == 204
        assert client.delete("/gone").status == 204

    def check(self, client: Client) -> None:
        for path, data in self.objects.items():
            answer = client.get(path)
            assert answer.status == 200, (path, answer)
            assert answer.body == data, path
        for bucket in ("one", "two"):
            listed = {
                path.removeprefix(f"/{bucket}/"): len(data)
                for path, data in self.objects.items()
                if path.startswith(f"/{bucket}/")
            }
            assert client.list_all(bucket) == listed

    # -- how far it is -----------------------------------------------------------------------------

    def uploads(self) -> list[Cid]:
        """The roots that the space names."""
        from ingot.forge.network.upload import Upload

        rows = self.loop.run(self.network.upload.state.page(Upload))
        return [key[-36:] for key, _ in rows]

    def until_shipped(self) -> int:
        """The newest commit, once the space names it and nothing else."""
        newest = self.store.query("SELECT max(commit) AS commit FROM ingot.heads")[0]["commit"]
        wait(lambda: self.watermark() >= newest)
        row = "SELECT root FROM ingot.segments WHERE stream = 'unit' ORDER BY number DESC LIMIT 1"
        wait(lambda: self.uploads() == [self.store.query(row)[0]["root"]])
        return int(newest)

    def watermark(self) -> int:
        return int(self.store.query("SELECT commit FROM ingot.forge_watermark")[0]["commit"])


def wait(condition: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def site(private_path: Path, postgres: str) -> Iterator[Site]:
    loop = LoopThread()
    network = Network(private_path / "network")
    loop.run(network.__aenter__())
    made = Site(private_path, postgres, loop, network)
    yield made
    made.close()
    loop.run(network.__aexit__(None, None, None))
    loop.close()


def test_all_comes_back_from_the_network_alone(site: Site) -> None:
    with site.serve() as gateway:
        client = gateway.client()
        site.fill(client)
        site.multipart(client, "/one/large")
        newest = site.until_shipped()
    newest = max(newest, site.watermark())
    site.lose_everything()
    before = sorted(path.name for path in site.store.data.rglob("*"))
    status, said = site.restore("--dry-run")
    assert status == 0, said
    assert f"would be restored: 2 buckets, {len(site.objects)} objects" in said
    assert sorted(path.name for path in site.store.data.rglob("*")) == before
    status, said = site.restore()
    assert status == 0, said
    assert f"restored: 2 buckets, {len(site.objects)} objects" in said
    assert f"commits up to {newest} of 2" in said and "it is lost" in said
    assert site.watermark() == newest
    with site.serve() as gateway:
        client = gateway.client()
        site.check(client)
        assert client.get("/gone").status == 404
        site.fill(client, 12)
        site.put(client, "/two/late", 2 * MIB)
        assert site.until_shipped() > newest
        site.check(client)
    assert "error" not in (site.path / "data.log").read_text().lower().replace("errors", "")
    with site.serve() as gateway:
        site.check(gateway.client())
    site.lose_everything()
    status, said = site.restore()
    assert status == 0, said
    assert "incarnation 2" in said
    with site.serve() as gateway:
        site.check(gateway.client())
