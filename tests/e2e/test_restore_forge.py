"""``ingot restore --from-forge``: disk and database are lost, the network has it all."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shutil
import time
import tomllib
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from ingot._speedups import frame
from ingot.cli import main
from ingot.clock import SystemClock
from ingot.codec import cid as cids
from ingot.codec import multihash
from ingot.config import Config
from ingot.datadir import DataDirectory
from ingot.errors import ConfigError
from ingot.forge import index
from ingot.forge.blob import BlobRef, BytesSource
from ingot.forge.client import ForgeClient
from ingot.forge.keystore import KeyStore
from ingot.forge.network import Network
from ingot.forge.network.faults import Close, FlippedBit, LostResponse, Status
from ingot.messages import Cid, CommitRecord
from ingot.restore import from_forge
from ingot.restore.from_forge import FromForge
from ingot.segments import format
from ingot.segments.commit import encode_commit
from tests.support.client import Client
from tests.support.process import Gateway
from tests.support.store import Store

pytestmark = pytest.mark.slow

T = TypeVar("T")
MIB = 1 << 20
SIZES = (0, 100, 4096, 20_000, 65_537, 300_000)


class Site:
    """A gateway on a disk and a database that can be lost, before a network that stays."""

    def __init__(self, path: Path, server: str, network: Network) -> None:
        self.path, self.server, self.network = path, server, network
        self.objects: dict[str, bytes] = {}
        self.random = random.Random(7)
        self.store = Store(path, server)
        keys = KeyStore(str(self.store.data))
        network.wait(network.provision(keys.create_space().did))
        self.config = path / "gateway.toml"
        self.config.write_text(
            "".join(f'{name} = "{value}"\n' for name, value in network.gateway_settings().items())
            + "seal_age_s = 0.2\nunit_age_s = 0.4\n"
        )
        self.settings = "--config", str(self.config)

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
        self.tag = str(count)
        assert client.put_tag("one", "old").status == client.put_tag("one", self.tag).status == 204
        assert client.put("/gone/x", b"gone").status == 200
        assert client.delete("/gone/x").status == 204
        assert client.delete("/gone").status == 204

    def check(self, client: Client) -> None:
        assert client.get_tag("one") == self.tag
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

        rows = self.network.wait(self.network.upload.state.page(Upload))
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
    with Network(private_path / "network") as network:
        made = Site(private_path, postgres, network)
        yield made
        made.close()


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


def test_an_old_disk_that_comes_back_ships_and_removes_nothing(site: Site) -> None:
    with site.serve() as gateway:
        site.fill(gateway.client(), 12)
        site.until_shipped()
    old = site.store
    (site.path / "new").mkdir(mode=0o711)
    site.store = Store(site.path / "new", site.server)
    try:
        site.store.data.mkdir(mode=0o700)
        shutil.copytree(old.data / "forge", site.store.data / "forge")
        status, said = site.restore()
        assert status == 0, said
        with site.serve() as gateway:
            site.put(gateway.client(), "/one/new", 70_000)
            site.until_shipped()
            named = site.uploads()
            before = old.query("SELECT commit FROM ingot.forge_watermark")
            with old.serve(*site.settings) as another:
                client = another.client()
                assert client.put("/one/old", b"only here").status == 200
                log = site.path / "data.log"
                wait(lambda: "goes on elsewhere" in log.read_text())
                assert client.get("/one/old").body == b"only here"
            assert old.query("SELECT commit FROM ingot.forge_watermark") == before
            assert site.uploads() == named
            site.check(gateway.client())
    finally:
        site.store.close()
        site.store = old


# -- a space that is read again and again ----------------------------------------------------------


class Lost:
    """What a site left in its network. ``look`` restores it for show, in this process."""

    def __init__(self, site: Site) -> None:
        self.site, self.network = site, site.network
        with site.serve() as gateway:
            client = gateway.client()
            site.fill(client)
            site.until_shipped()
            site.put(client, "/two/later", 100_000)
            self.newest = site.until_shipped()
        self.rows = site.store.query("SELECT * FROM ingot.shipments ORDER BY stream, number")
        self.states = site.store.query("SELECT * FROM ingot.segments WHERE stream = 'unit'")
        site.lose_everything()
        self.data = site.store.data

    def look(
        self, store: str | None = None, dry_run: bool = True, root: str | None = None
    ) -> tuple[int, str]:
        said: list[str] = []
        values = tomllib.loads(self.site.config.read_text())
        values |= {"postgres": self.site.store.dsn, "data_dir": str(self.data)}
        restore = FromForge(Config(**values), dry_run, False, store, said.append, root)
        return asyncio.run(restore.run()), "\n".join(said)

    def client(self, work: Callable[[ForgeClient], Coroutine[Any, Any, T]]) -> T:
        """What a client of the space does, on the network's loop."""

        async def run() -> T:
            values = tomllib.loads(self.site.config.read_text())
            settings = Config(**values).forge_settings()
            assert settings is not None
            identity = KeyStore(str(self.data)).identity(int(time.time()))
            async with ForgeClient(settings, identity, SystemClock()) as client:
                return await work(client)

        return self.network.wait(run())

    def leave(self, data: bytes) -> None:
        self.client(lambda client: client.upload.add(BlobRef.of(data), BytesSource(data)))

    def remove(self, digest: bytes) -> None:
        self.client(lambda client: client.upload.remove(digest))

    def digests(self, stream: str) -> list[bytes]:
        return [row["digest"] for row in self.rows if row["stream"] == stream]

    @contextmanager
    def away(self, digest: bytes) -> Iterator[None]:
        """A node has lost a blob."""
        (node,) = [one for one in self.network.nodes if one.blobs.size(digest) is not None]
        path = node.blobs.path(digest)
        path.rename(path.with_suffix(".away"))
        try:
            yield
        finally:
            path.with_suffix(".away").rename(path)


@pytest.fixture(scope="module")
def lost(reachable_path: Path, postgres: str) -> Iterator[Lost]:
    path = reachable_path / f"lost-{os.urandom(4).hex()}"
    path.mkdir(mode=0o711)
    with Network(path / "network") as network:
        site = Site(path, postgres, network)
        yield Lost(site)
        site.close()
    shutil.rmtree(path)


def unit_of(record: CommitRecord) -> bytes:
    """A unit of one commit."""
    block = encode_commit(record)
    root = cids.of_structure(block)
    return format.header(root) + frame.pack([(root, block)])


def record_of(lost: Lost, **fields: Any) -> CommitRecord:
    """A commit behind the newest one."""
    found = re.search("of store ([0-9a-f]{32})", lost.look()[1])
    assert found is not None
    store = bytes.fromhex(found[1])
    made = CommitRecord(
        store=store,
        incarnation=1,
        lease=b"l" * 16,
        segment=99,
        sequence=lost.newest + 1,
        time_ms=1,
        previous=lost.states[-1]["root"],
        frames=0,
        frames_digest=b"d" * 32,
        checkpoint=None,
        bodies=(),
        moves=(),
    )
    return replace(made, **fields)


def test_wrong_bytes_and_lost_answers_are_outlasted(lost: Lost) -> None:
    for node in lost.network.nodes:
        node.faults.add("GET /piece", FlippedBit(), times=1, after=3)
        node.faults.add("GET /piece", Close(), times=1, after=8)
    lost.network.upload.faults.add("/blob/add", LostResponse(), times=2, after=2)
    lost.network.upload.faults.add("/blob/list", Status(503))
    lost.network.upload.faults.add("/upload/list", Close())
    status, said = lost.look()
    assert status == 0, said
    assert f"2 buckets, {len(lost.site.objects)} objects, commits up to {lost.newest} of" in said


def test_a_body_that_nobody_has_is_named_and_the_rest_comes_back(lost: Lost) -> None:
    with lost.away(lost.digests("body")[0]):
        status, said = lost.look()
    assert status == 1
    assert multihash.to_text(lost.digests("body")[0]) in said
    assert f"2 buckets, {len(lost.site.objects)} objects" in said and "can be read when" in said


def test_a_unit_that_nobody_has_leaves_a_hole_that_is_named(lost: Lost) -> None:
    with lost.away(lost.digests("unit")[0]):
        status, said = lost.look()
    assert status == 1
    first = next(row for row in lost.rows if row["stream"] == "unit")
    assert f"commits 1 to {first['last_commit']} are in no unit" in said
    with lost.away(lost.digests("unit")[-1]):
        status, said = lost.look()
    before = [row for row in lost.rows if row["stream"] == "unit"][-2]
    assert status == 1 and "which cannot be read" in said
    assert f"commits up to {before['last_commit']} of" in said


def test_an_index_that_is_missing_is_read_from_its_segment(lost: Lost) -> None:
    indexes = [row["indexes"][0] for row in lost.rows[:1] + lost.rows[-1:]]
    assert [row["stream"] for row in lost.rows[:1] + lost.rows[-1:]] == ["body", "unit"]
    archives = []
    for digest in indexes:
        (node,) = [one for one in lost.network.nodes if one.blobs.size(digest) is not None]
        archives.append(node.blobs.path(digest).read_bytes())
        lost.remove(digest)
    try:
        status, said = lost.look()
    finally:
        for archive in archives:
            lost.leave(archive)
    assert status == 3, said
    assert said.count("they are read instead") >= 2
    assert f"2 buckets, {len(lost.site.objects)} objects" in said


def test_what_others_have_in_the_space_is_left_alone(lost: Lost) -> None:
    letters = [b"a letter", format.header()[:40], format.header(cids.of_structure(b"x"))]
    for letter in letters:
        lost.leave(letter)
    try:
        status, said = lost.look()
    finally:
        for letter in letters:
            lost.remove(multihash.of(letter))
    assert status == 0, said
    assert "3 blobs of the space are not of this store's" in said


def test_units_beyond_what_is_named_are_told_of_and_not_taken(lost: Lost) -> None:
    record = record_of(lost)
    units = [unit_of(record), unit_of(replace(record, sequence=2, previous=None))]
    for unit in units:
        lost.leave(unit)
    try:
        status, said = lost.look()
    finally:
        for unit in units:
            lost.remove(multihash.of(unit))
    assert status == 1, said
    assert (
        f"commits {record.sequence} to {record.sequence} of incarnation 1 are in the space, beyond"
        in said
    )
    assert "commits 2 to 2 of incarnation 1 are in the space and do not lead" in said
    assert f"commits up to {lost.newest} of" in said


@pytest.mark.parametrize("continues", [True, False])
def test_a_forged_commit_is_told_of_and_the_true_one_can_be_chosen(
    lost: Lost, continues: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever may add blobs and uploads can name a commit of his own making."""
    true = cids.to_text(lost.site.uploads()[0])
    record = record_of(lost, incarnation=999)
    if not continues:
        record = replace(record, previous=None)
    forged, unit = cids.of_structure(encode_commit(record)), unit_of(record)
    lost.leave(unit)
    lost.client(lambda client: client.uploads.add(forged, None, [multihash.of(unit)]))
    try:
        status, said = lost.look()
        assert status == 1, said
        assert f"also names commit {lost.newest} of incarnation 1 of this store, {true}" in said
        assert continues or "do not lead to what it names" in said
        status, said = lost.look(root=true)
        assert status == 3, said
        assert f"2 buckets, {len(lost.site.objects)} objects, commits up to {lost.newest}" in said
        assert f"also names commit {record.sequence} of incarnation 999" in said
        with pytest.raises(ConfigError, match="no commit to restore"):
            lost.look(root=cids.to_text(cids.of_structure(b"nowhere")))
        with pytest.raises(ConfigError, match="no CID"):
            lost.look(root="x")
    finally:
        common = ["--data-dir", str(lost.data), "--config", str(lost.site.config)]
        assert main(["space", "unname", cids.to_text(forged), *common]) == 0
        lost.remove(multihash.of(unit))
    assert [cids.to_text(root) for root in lost.site.uploads()] == [true]
    assert main(["space", "unname", cids.to_text(forged), *common]) == 2
    assert "does not name" in capsys.readouterr().err


@pytest.mark.parametrize("lie", ["shifted", "sha1"])
def test_archives_that_lie_cost_nothing(lost: Lost, lie: str) -> None:
    """Whoever may add blobs can leave archives of our segments."""
    left = []
    for row in lost.rows:
        said = {multihash.of(b"x"): (row["bytes"] // 2, row["bytes"] - 1)}
        if lie == "sha1":
            said = {b"\x11\x14" + b"s" * 20: (100, 200)}
        left.append(index.encode({row["digest"]: said}))
        lost.leave(left[-1])
    try:
        status, said_of_it = lost.look()
    finally:
        for archive in left:
            lost.remove(multihash.of(archive))
    assert status == 3, said_of_it
    assert f"2 buckets, {len(lost.site.objects)} objects" in said_of_it
    told = "it is read instead" if lie == "shifted" else "was not taken"
    assert said_of_it.count(told) == len(lost.rows)


def test_of_several_stores_one_has_to_be_said(lost: Lost) -> None:
    record = record_of(lost, store=b"o" * 16, previous=None, sequence=1)
    unit = unit_of(record)
    root = cids.of_structure(encode_commit(record))
    lost.leave(unit)
    lost.client(lambda client: client.uploads.add(root, None, [multihash.of(unit)]))
    try:
        with pytest.raises(ConfigError, match="--store") as told:
            lost.look()
        (ours,) = set(re.findall("[0-9a-f]{32}", str(told.value))) - {record.store.hex()}
        status, said = lost.look(store=ours)
        with pytest.raises(ConfigError, match="--store"):
            lost.look(store="0" * 32)
        with pytest.raises(ConfigError, match="32 hex"):
            lost.look(store="x")
    finally:
        lost.client(lambda client: client.uploads.remove(root))
        lost.remove(multihash.of(unit))
    assert status == 3, said
    assert f"is a unit of store {(b'o' * 16).hex()}: it is left alone" in said


def test_what_is_in_use_is_refused(lost: Lost, tmp_path: Path) -> None:
    segments = lost.data / "segments"
    segments.mkdir()
    for kind, why in (("log", "holds segments"), ("run", "was restored already")):
        name = format.file_name(kind, 1)
        (segments / name).touch()
        with pytest.raises(ConfigError, match=why):
            lost.look()
        (segments / name).unlink()
    segments.rmdir()
    (lost.data / "STORE").write_text(
        json.dumps({"format": 1, "store": "ab" * 16, "incarnation": 1})
    )
    with pytest.raises(ConfigError, match="STORE says store abab"):
        lost.look()
    (lost.data / "STORE").unlink()
    data, lost.data = lost.data, tmp_path / "none"
    try:
        with pytest.raises(ConfigError, match="without its identity"):
            lost.look()
    finally:
        lost.data = data
    assert not (tmp_path / "none").exists()


def test_a_restore_that_is_cut_off_is_begun_again(
    lost: Lost, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = lost.site

    async def fails(*_: object) -> None:
        raise OSError("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(from_forge, "fill", fails)
        with pytest.raises(OSError, match="cut off"):
            lost.look(dry_run=False)
    with pytest.raises(AssertionError, match="was cut off: nothing is served"):
        site.serve()
    with monkeypatch.context() as patch:
        patch.setattr(DataDirectory, "end_restore", lambda self: (_ for _ in ()).throw(OSError))
        with pytest.raises(OSError):
            lost.look(dry_run=False)
    assert site.store.query("SELECT count(*) FROM ingot.heads")[0][0]
    status, said = lost.look(dry_run=False)
    assert status == 0, said
    with site.serve() as gateway:
        site.check(gateway.client())
    with pytest.raises(ConfigError, match="holds segments|was restored already"):
        lost.look(dry_run=False)
    # A new directory beside the database that is in use.
    data, lost.data = lost.data, site.path / "another"
    shutil.copytree(data / "forge", lost.data / "forge")
    try:
        with pytest.raises(ConfigError, match="the registry holds"):
            lost.look(dry_run=False)
    finally:
        shutil.rmtree(lost.data)
        lost.data = data
        site.lose_everything()  # others look at this space too


def test_the_database_is_lost_while_segments_are_cold(site: Site) -> None:
    """The data directory knows what went, and where it is."""
    small = "--warm-bytes", "6MiB", "--segment-bytes", "1MiB"
    cold = "SELECT count(*) AS cold FROM ingot.segments WHERE state = 'cold'"
    with site.serve(*small) as gateway:
        client = gateway.client()
        site.fill(client)
        for number in range(3):
            site.multipart(client, f"/one/large{number}")
        site.until_shipped()
        wait(lambda: site.store.query(cold)[0]["cold"] >= 5)
        site.put(client, "/two/not-shipped", 20_000)
    site.store.drop_schema()
    status, said = site.store.run("restore", "--from-segments", *site.settings)
    assert status == 0, said
    assert f"restored: 2 buckets, {len(site.objects)} objects" in said
    with site.serve(*small) as gateway:
        site.check(gateway.client())
        site.put(gateway.client(), "/two/later", 20_000)
        site.until_shipped()
    assert site.store.query(cold)[0]["cold"] >= 5
