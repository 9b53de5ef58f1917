"""The directory outlives the process: kill -9 at any moment loses nothing that was answered."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest

from ingot.codec import multihash
from ingot.config import Config
from ingot.errors import ConfigError
from ingot.forge.network import Network
from ingot.forge.network.faults import LostResponse, Status, Truncated
from ingot.server import loop_factory
from tests.forge.network.client import Added, Client
from tests.support import forking
from tests.support.process import INGOT


async def test_a_network_starts_again_as_it_was(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    data = os.urandom(1000)
    async with Network(tmp_path) as network:
        client = Client(network, session)
        await network.provision(client.space.did)
        place = await client.store(data)
        pending = await client.add(b"to be put later")
        before = network.describe()
    with pytest.raises(aiohttp.ClientConnectorError):
        await client.retrieve(place, 0, 999)
    async with Network(tmp_path, did_method="key") as network:
        assert network.describe() == before
        client.network = network
        assert (await client.retrieve(place, 0, 999))[1] == data
        again = await client.add(data)
        assert again.answer.receipts_of(again.accept.task)
        assert await client.put(pending, b"to be put later") == 204
        await client.conclude(pending)
        assert (await client.location(pending)).node == pending.node
        assert len((await client.run("/blob/list", {}))["results"]) == 2


async def test_one_process_at_a_time_has_a_directory(tmp_path: Path) -> None:
    async with Network(tmp_path, nodes=1, indexer=False):
        with pytest.raises(ConfigError, match="another process"):
            await Network(tmp_path).start()
    async with Network(tmp_path, nodes=1, indexer=False):
        pass


async def test_an_open_network_takes_every_space(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    async with Network(tmp_path, nodes=1, open=True) as network:
        client = Client(network, session)
        assert await client.run("/space/info", {}) == {"providers": [network.upload.did]}
        assert await client.store(b"data")


async def test_a_directory_is_at_one_host(tmp_path: Path) -> None:
    async with Network(tmp_path, nodes=1, indexer=False):
        pass
    with pytest.raises(ConfigError, match=r"is at 127\.0\.0\.1"):
        await Network(tmp_path, host="localhost").start()


async def test_a_port_that_somebody_took(tmp_path: Path) -> None:
    async with Network(tmp_path, nodes=1, indexer=False) as network:
        address = network.upload.address
    with socket.create_server(address):
        with pytest.raises(ConfigError, match=f"port {address[1]}"):
            await Network(tmp_path).start()
    async with Network(tmp_path, nodes=1, indexer=False):
        pass


def test_a_network_on_a_thread_of_its_own(tmp_path: Path) -> None:
    with Network(tmp_path, nodes=1, indexer=False) as network:
        network.wait(network.provision("did:key:z6Mkk89b"))
        network.upload.faults.add("GET /health", Status(503))
        for status in (503, 200):
            connection = http.client.HTTPConnection(*network.upload.address)
            connection.request("GET", "/health")
            assert connection.getresponse().status == status
            connection.close()
    with pytest.raises(ConfigError), Network(tmp_path, host="localhost"):
        pass


@pytest.mark.slow
def test_a_network_on_another_loop(tmp_path: Path) -> None:
    async def run() -> None:
        async with (
            aiohttp.ClientSession() as session,
            Network(tmp_path, open=True, nodes=1) as network,
        ):
            client = Client(network, session)
            network.upload.faults.add("/blob/add", LostResponse())
            with pytest.raises(aiohttp.ClientError):
                await client.store(b"on uvloop")
            place = await client.store(b"on uvloop")
            network.nodes[0].faults.add("GET /piece", Truncated(cut=True))
            with pytest.raises(aiohttp.ClientPayloadError):
                await client.retrieve(place, 0, 8)
            assert (await client.retrieve(place, 0, 8))[1] == b"on uvloop"
            await network.nodes[0].hang_up()
            await network.nodes[0].listen()
            assert (await client.retrieve(place, 0, 8))[1] == b"on uvloop"

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(run())


def test_settings_that_make_no_network(tmp_path: Path) -> None:
    for settings in (
        {"nodes": 0},
        {"nodes": 65},
        {"generation": "last"},
        {"did_method": "plc"},
        {"host": "::1"},
    ):
        with pytest.raises(ConfigError):
            Network(tmp_path, **settings)  # type: ignore[arg-type]


@dataclass
class Service:
    url: str
    did: str


class Process:
    """``ingot dev-network`` as a child; works as the ``Network`` of a ``Client``."""

    def __init__(self, directory: Path, *arguments: str, under: tuple[str, ...] = ()) -> None:
        """``under`` is a command that runs the network, such as strace."""
        self.output, self.errors = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        read_end, write_end = os.pipe()
        command = ["dev-network", "--dir", str(directory), "--ready-fd", str(write_end), *arguments]
        files = self.output.fileno(), self.errors.fileno()
        self.process: forking.Process | subprocess.Popen[bytes]
        if under:
            command = [*under, *INGOT, *command]
            self.process = subprocess.Popen(
                command, pass_fds=[write_end], stdout=files[0], stderr=files[1]
            )
        else:
            start = forking.ingot().start
            self.process = start(command, os.environ, *files, passed=[write_end])
        os.close(write_end)
        with os.fdopen(read_end) as ready:
            line = ready.readline()
        if not line:
            raise AssertionError(self.ended())
        self.ready: dict[str, Any] = json.loads(line)
        self.upload = Service(**self.ready["upload"])
        self.indexer = self.ready["indexer"] and Service(**self.ready["indexer"])

    def end(self, number: signal.Signals) -> tuple[int, str, str]:
        os.kill(self.ready["pid"], number)
        return self.ended()

    def ended(self) -> tuple[int, str, str]:
        """Status, output, errors."""
        status, said = self.process.wait(timeout=30), []
        for file in (self.output, self.errors):
            with file:
                file.seek(0)
                said.append(file.read().decode())
        return status, said[0], said[1]


class Work:
    """Clients that store blobs, and what they were told is done."""

    def __init__(self, client: Client, answers: int) -> None:
        self.client = client
        self.left = answers
        self.enough = asyncio.Event()
        self.added: dict[bytes, Added] = {}
        self.put: set[bytes] = set()
        self.stored: set[bytes] = set()

    def heard(self) -> None:
        self.left -= 1
        if self.left <= 0:
            self.enough.set()

    async def go_on(self) -> None:
        """Until the network is gone."""
        try:
            while True:
                data = os.urandom(2000)
                added = await self.client.add(data)
                self.added[data] = added
                self.heard()
                assert await self.client.put(added, data) == 204
                self.put.add(data)
                self.heard()
                await self.client.conclude(added)
                self.stored.add(data)
                self.heard()
        except aiohttp.ClientError:
            pass


@pytest.mark.slow
@pytest.mark.parametrize("answers", [1, 2, 7, 23, 60])
async def test_killed_at_any_moment(
    tmp_path: Path, session: aiohttp.ClientSession, answers: int
) -> None:
    process = Process(tmp_path)
    client = Client(cast(Network, process), session)
    work = Work(client, answers)
    running = [asyncio.ensure_future(work.go_on()) for _ in range(4)]
    await work.enough.wait()
    status, _, _ = await asyncio.to_thread(process.end, signal.SIGKILL)
    assert status == -signal.SIGKILL
    await asyncio.gather(*running)

    again = Process(tmp_path)
    try:
        assert {**again.ready, "pid": 0} == {**process.ready, "pid": 0}
        for data, added in work.added.items():
            kept = await client.receipt(added.invocation.task)
            assert kept is not None and kept.receipts_of(added.invocation.task) == [added.receipt]
            if data in work.stored:
                place = await client.location(added)
            else:
                if data not in work.put:
                    assert await client.put(added, data) == 204
                await client.conclude(added)
                place = await client.location(added)
            assert (await client.retrieve(place, 0, 1999))[1] == data
            assert (await client.store(data)).claim == place.claim
        listed = (await client.run("/blob/list", {}))["results"]
        assert {row["blob"]["digest"] for row in listed} == {
            multihash.of(data) for data in work.added
        }
        unfinished = [path for path in tmp_path.rglob("*.part") if path.parent.name == "blobs"]
        assert not unfinished
    finally:
        status, out, err = await asyncio.to_thread(again.end, signal.SIGTERM)
    assert (status, err) == (0, "ingot: stopping\n")
    settings = Config.load({}, file=str(tmp_path / "gateway.toml"))
    assert (settings.forge_upload_url, settings.forge_upload_did) == (
        client.network.upload.url,
        client.network.upload.did,
    )
    assert settings.forge_indexer_did == process.indexer.did
    assert again.upload.url in out and again.upload.did in out


TRACED = re.compile(
    r"(?P<call>fsync|fdatasync|rename\w*|sendto|write|writev|sendmsg)\((?P<rest>.*)"
)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
async def test_what_is_answered_was_synced(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    trace = tmp_path / "trace"
    calls = "trace=fsync,fdatasync,rename,renameat,renameat2,sendto,write,writev,sendmsg"
    under = ("strace", "-f", "-y", "-s", "20", "-e", calls, "-o", str(trace))
    process = Process(tmp_path / "forge", "--nodes", "1", under=under)
    try:
        client = Client(cast(Network, process), session)
        added = await client.add(b"data")
        assert await client.put(added, b"data") == 204
        await client.conclude(added)
    finally:
        await asyncio.to_thread(process.end, signal.SIGTERM)
    events = [event for event in map(seen, trace.read_text().splitlines()) if event]
    put = events.index("answer 204")
    assert events[put - 4 : put] == ["sync blob", "rename blob", "sync blobs", "sync node-0"]
    assert in_order(
        [
            *("sync node-0", "answer 200", "sync upload", "answer 200"),  # allocate, add
            *("sync node-0", "answer 204"),
            *("sync indexer", "answer 200"),  # the location is published
            *("sync node-0", "answer 200", "sync upload", "answer 200"),  # accept, conclude
        ],
        events,
    ), events


def in_order(expected: list[str], events: list[str]) -> bool:
    """Whether these come among the others one after another."""
    rest = iter(events)
    return all(event in rest for event in expected)


def seen(line: str) -> str | None:
    """What a call of the trace means."""
    found = TRACED.search(line)
    if found is None:
        return None
    call, rest = found["call"], found["rest"]
    if call.startswith("rename"):
        return "rename blob" if "/blobs/" in rest else None
    if call in ("fsync", "fdatasync"):
        for what, part in (("sync blob", ".part>"), ("sync blobs", "/blobs>")):
            if part in rest and "/blobs" in rest:
                return what
        state = re.search(r"/forge/([\w-]+)/state\.sqlite3", rest)
        return f"sync {state[1]}" if state else None
    answered = re.search(r"HTTP/1\.1 (\d+)", rest)
    return f"answer {answered[1]}" if answered else None


@pytest.mark.slow
def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    process = Process(tmp_path, "--no-indexer", "--nodes", "1", "--space", "did:key:z6Mkk89b")
    try:
        assert process.indexer is None and len(process.ready["nodes"]) == 1
        command = [sys.executable, "-m", "ingot.cli", "dev-network", "--dir", str(tmp_path)]
        second = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (second.returncode, second.stderr.count("\n")) == (2, 1)
        assert second.stderr.startswith("ingot: another process has the network")
    finally:
        status, out, _ = process.end(signal.SIGINT)
    assert status == 0 and "indexer   none" in out
