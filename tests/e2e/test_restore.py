"""``ingot restore``: the database is lost, the segments are there. Real Postgres, real gateways."""

from __future__ import annotations

import hashlib
import http.client
import os
import random
import re
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import Client
from tests.support.process import Gateway
from tests.support.store import BUCKETS, Store

pytestmark = pytest.mark.slow

MIB = 1 << 20
CLIENTS = 16
SIZES = (0, 1, 100, 4096, 4097, 20_000, 65_537, 300_000)


# -- a load, and what must be there after it -------------------------------------------------------


class Worker(threading.Thread):
    """Owns its buckets and keys, so that what was acknowledged and what is in flight are known.
    States are digests by path; None: absent."""

    def __init__(self, number: int, client: Client, seed: int) -> None:
        super().__init__(daemon=True)
        self.client, self.random = client, random.Random(seed)
        self.buckets = ["shared", *(f"own-{number:02}-{n}" for n in range(2))]
        self.number = number
        self.states: dict[str, str | None] = {}
        self.in_flight: dict[str, str | None] = {}
        self.acknowledged = 0
        self.wrong = ""

    def run(self) -> None:
        try:
            while not self.wrong:
                self.step()
        except (OSError, http.client.HTTPException):
            pass  # the gateway was killed
        finally:
            self.client.close()

    def step(self) -> None:
        bucket = self.random.choice(self.buckets)
        if bucket != "shared" and self.random.random() < 0.2:
            self.create_or_delete(bucket)
        elif bucket != "shared" and self.states.get(f"/{bucket}") and self.random.random() < 0.1:
            self.in_flight = {f"/{bucket}?tagging": str(self.random.randrange(1 << 30))}
            tag = self.in_flight[f"/{bucket}?tagging"]
            self.answered(self.in_flight, self.client.put_tag(bucket, str(tag)), 204)
        elif self.states.get(f"/{bucket}") or bucket == "shared":
            path = f"/{bucket}/c{self.number:02}/k{self.random.randrange(12):02}"
            self.random.choice([self.put, self.put, self.put, self.delete, self.multipart])(path)

    def create_or_delete(self, bucket: str) -> None:
        path = f"/{bucket}"
        if not self.states.get(path):
            self.in_flight = {path: "there"}
            self.answered(self.in_flight, self.client.put(path, b""), 200)
            return
        for key in [key for key in self.states if key.startswith(path + "/") and self.states[key]]:
            self.delete(key)
        self.in_flight = {path: None, f"{path}?tagging": None}
        self.answered(self.in_flight, self.client.delete(path), 204)

    def put(self, path: str) -> None:
        body = self.random.randbytes(self.random.choice(SIZES))
        state = {path: hashlib.sha256(body).hexdigest()}
        self.in_flight = state
        self.answered(state, self.client.put(path, body), 200)

    def delete(self, path: str) -> None:
        self.in_flight = {path: None}
        self.answered({path: None}, self.client.delete(path), 204)

    def multipart(self, path: str) -> None:
        if self.random.random() > 0.2:  # they are large
            return self.put(path)
        begun = self.client.request("POST", path, query="uploads=")
        found = re.search(rb"<UploadId>(.*)</UploadId>", begun.body)
        if found is None:
            self.wrong = f"{path}: {begun}"
            return
        upload, listed, body = found[1].decode(), "", b""
        for number, size in enumerate((5 * MIB, 1000), 1):
            piece = self.random.randbytes(size)
            query = f"partNumber={number}&uploadId={upload}"
            answer = self.client.request("PUT", path, piece, query=query)
            etag = answer.headers["etag"]
            listed += f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
            body += piece
        document = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
        state = {path: hashlib.sha256(body).hexdigest()}
        self.in_flight = state
        query = f"uploadId={upload}"
        self.answered(state, self.client.request("POST", path, document, query=query), 200)

    def answered(self, state: dict[str, str | None], answer: Any, expected: int) -> None:
        if answer.status != expected:
            self.wrong = f"{state}: {answer.status} {answer.body[:300]!r}"
            return
        self.states |= state
        self.in_flight = {}
        self.acknowledged += 1


def load(gateway: Gateway, acknowledged: int, seed: int = 1) -> list[Worker]:
    """Workers until so many requests were acknowledged, then kill -9."""
    assert gateway.client().put("/shared", b"").status in (200, 409)
    workers = [Worker(n, gateway.client(), seed * 100 + n) for n in range(CLIENTS)]
    for worker in workers:
        worker.start()
    while sum(worker.acknowledged for worker in workers) < acknowledged:
        assert any(worker.is_alive() for worker in workers), [w.wrong for w in workers]
        workers[0].join(0.02)
    gateway.kill()
    for worker in workers:
        worker.join()
    assert not any(worker.wrong for worker in workers), [w.wrong for w in workers if w.wrong]
    return workers


def check(client: Client, workers: list[Worker]) -> int:
    """Everything acknowledged is there and nothing else; what was in flight may be or not. How many
    objects."""
    buckets, objects = set(), set()
    for worker in workers:
        for path in {**worker.states, **worker.in_flight}:
            allowed = {worker.states.get(path), worker.in_flight.get(path, worker.states.get(path))}
            if path.endswith("?tagging"):
                found = client.get_tag(path[1:].removesuffix("?tagging"))
            elif path.count("/") == 1:
                found = None
                if client.request("HEAD", path).status == 200:
                    found = "there"
                    buckets.add(path)
            else:
                answer = client.get(path)
                assert answer.status in (200, 404), (path, answer)
                found = None
                if answer.status == 200:
                    found = hashlib.sha256(answer.body).hexdigest()
                    objects.add(path)
            assert found in allowed, f"{path}: found {found}, allowed {allowed}"
    listed = {
        f"/{name}" for name in re.findall(r"<Name>(.*?)</Name>", client.get("/").body.decode())
    }
    assert listed == {*buckets, "/shared"}
    assert {f"{name}/{key}" for name in listed for key in client.list_all(name[1:])} == objects
    return len(objects)


class Upload:
    """A multipart upload that is open while the gateway dies."""

    path = "/other/whole"

    def __init__(self, client: Client) -> None:
        assert client.put("/other", b"").status == 200
        begun = client.request("POST", self.path, query="uploads=")
        self.id = re.findall(r"<UploadId>(.*)</UploadId>", begun.body.decode())[0]
        self.body, self.parts = b"", ""
        self.part(client, os.urandom(5 * MIB))

    def part(self, client: Client, piece: bytes) -> None:
        number = self.parts.count("<Part>") + 1
        query = f"partNumber={number}&uploadId={self.id}"
        answer = client.request("PUT", self.path, piece, query=query)
        assert answer.status == 200, answer
        etag = answer.headers["etag"]
        self.parts += f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
        self.body += piece

    def complete(self, client: Client) -> None:
        self.part(client, b"the rest")
        document = f"<CompleteMultipartUpload>{self.parts}</CompleteMultipartUpload>".encode()
        answer = client.request("POST", self.path, document, query=f"uploadId={self.id}")
        assert answer.status == 200, answer
        assert client.get(self.path).body == self.body
        assert client.delete(self.path).status == client.delete("/other").status == 204


def test_everything_is_there_after_a_crash_and_a_lost_database(store: Store) -> None:
    gateway = store.serve()
    upload = Upload(gateway.client())
    workers = load(gateway, 1500)
    before = {row["name"]: row for row in store.query(BUCKETS)}
    assert len(store.logs()) > 3
    store.drop_schema()
    status, said = store.restore()
    assert status == 0, said
    after = {row["name"]: row for row in store.query(BUCKETS)}
    swapped = max(row["commit"] for row in before.values())
    for name, row in before.items():  # but for commits that were not swapped yet
        if name in after and after[name]["commit"] <= swapped:
            assert tuple(after[name])[:6] == tuple(row)[:6]
    with store.serve() as gateway:
        client = gateway.client()
        upload.complete(client)
        there = check(client, workers)
        assert there > 50 and f"{there} objects" in said
        assert client.put("/shared/new", b"x").status == 200
        client.close()
    status, said = store.run("fsck")
    assert status == 0, said


# -- what it refuses -------------------------------------------------------------------------------


def tree(path: Path) -> dict[str, tuple[int, int, str]]:
    """Every file below: size, time of its last change, digest."""
    found = {}
    for file in sorted(path.rglob("*")):
        if file.is_file():
            stat = file.stat()
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            found[str(file)] = stat.st_size, stat.st_mtime_ns, digest
    return found


def test_a_live_store_is_refused(store: Store) -> None:
    with store.serve() as gateway:
        client = gateway.client()
        assert client.put("/box", b"").status == 200
        before = store.query(BUCKETS)
        for arguments in ((), ("--dry-run",)):
            status, said = store.restore(*arguments)
            assert status == 2 and "stop that gateway first" in said
        subprocess.run(["cp", "-a", store.data, f"{store.data}-copy"], check=True)
        for arguments in ((), ("--dry-run",)):
            status, said = store.restore(*arguments, data=Path(f"{store.data}-copy"))
            assert status == 2 and "There is nothing to restore" in said
        assert store.query(BUCKETS) == before
        assert client.put("/box/k", b"x").status == 200
        client.close()


def test_a_lease_that_somebody_has_is_refused(store: Store) -> None:
    """The heads are gone, but a gateway on a copy of the directory still believes in its lease."""
    store.fill(6)
    store.query("DELETE FROM ingot.heads")
    store.query(
        "UPDATE ingot.lease SET token = '0123456789abcdef', owner = 'another machine', "
        "expires_at = clock_timestamp() + interval '1 hour'"
    )
    status, said = store.restore()
    assert status == 2 and "held by another machine: stop that gateway first" in said
    assert store.query("SELECT * FROM ingot.heads") == []
    store.query("UPDATE ingot.lease SET expires_at = clock_timestamp()")
    assert store.restore()[0] == 0


def test_a_database_of_another_store_is_refused(store: Store) -> None:
    store.fill(6)
    store.query("UPDATE ingot.store SET store_id = decode(repeat('ab', 16), 'hex')")
    store.query("DELETE FROM ingot.heads")
    for arguments in ((), ("--dry-run",)):
        status, said = store.restore(*arguments)
        assert status == 2 and f"belongs to store {'ab' * 16}" in said
        assert "Point --postgres at an empty database" in said
    assert store.query("SELECT * FROM ingot.heads") == []


def test_half_empty_databases(store: Store) -> None:
    store.fill(9)
    whole = store.query(BUCKETS)
    store.query("DELETE FROM ingot.heads WHERE bucket IN (SELECT bucket FROM ingot.heads LIMIT 1)")
    status, said = store.restore()
    assert status == 2 and "DROP SCHEMA ingot CASCADE" in said
    store.query("DELETE FROM ingot.buckets")  # heads that nothing names
    status, said = store.restore()
    assert status == 2 and "half empty" in said and "DROP SCHEMA ingot CASCADE" in said
    store.query("DELETE FROM ingot.heads")
    store.query("INSERT INTO ingot.buckets VALUES ('one', decode(repeat('00', 16), 'hex'))")
    status, said = store.restore()  # a name without a head is what is left of a lost one
    assert status == 0, said
    assert sorted(tuple(row)[:6] for row in store.query(BUCKETS)) == sorted(
        tuple(row)[:6] for row in whole
    )


def test_a_directory_without_segments_is_refused(store: Store, private_path: Path) -> None:
    status, said = store.restore(data=private_path / "nowhere")
    assert status == 2 and "has no segments" in said
    assert not (private_path / "nowhere").exists()
    (private_path / "empty" / "segments").mkdir(parents=True)
    status, said = store.restore(data=private_path / "empty")
    assert status == 2 and "commits are of these stores: none" in said


def test_a_dry_run_changes_nothing(store: Store) -> None:
    """Also where the last process was killed, so that a start would have files to write."""
    load(store.serve(), 200)
    store.drop_schema()
    before = tree(store.data)
    status, said = store.restore("--dry-run")
    assert status == 0, said
    assert "would be restored" in said
    assert "may not be written" not in said and "ERROR" not in said
    assert tree(store.data) == before
    assert store.query("SELECT to_regnamespace('ingot')")[0][0] is None
    told = re.search(r"(\d+) buckets, (\d+) objects", said)
    status, said = store.restore("--verify")
    assert status == 0 and told is not None and told[0] in said
    before = tree(store.data)
    status, said = store.restore("--dry-run")
    assert status == 2 and "There is nothing to restore" in said and tree(store.data) == before
