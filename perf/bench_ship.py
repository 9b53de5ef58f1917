"""Shipping: a backlog, and what of small objects ships. ``python perf/bench_ship.py``: minutes.

A gateway takes PUTs while the Forge network is away, until ``--segments`` files are sealed; the
same PUTs to a gateway without a network say what they cost by themselves. Then the network comes
back, and the rate at which the backlog drains stands beside that of a bare client, which uploads
files of the same sizes to the same network in the same run, as many at a time.

``noticed`` is how long the gateway took to find that the network is back: it had failed for long,
and is asked again with a backoff of up to a minute.

Then, before the same network, ``--puts`` objects of 1 KiB go to ``--keys`` keys at random: the
bytes that are shipped beside those that the log took.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import asyncpg
import floors
import loadgen
from e2e import RESULTS, ROOT, Gateway

from ingot import limits
from ingot.clock import SystemClock
from ingot.config import Config
from ingot.forge.blob import BlobRef, FileRange
from ingot.forge.client import ForgeClient
from ingot.forge.keystore import KeyStore

MIB = 1 << 20


class Network:
    """``ingot dev-network`` as a child process; ready when ``start`` returns."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        read_end, write_end = os.pipe()
        command = [sys.executable, "-m", "ingot.cli", "dev-network", "--dir", str(self.directory)]
        self.process = subprocess.Popen(
            [*command, "--ready-fd", str(write_end)],
            pass_fds=[write_end],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        os.close(write_end)
        with os.fdopen(read_end) as ready:
            if not ready.readline():
                raise RuntimeError("the network did not start")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None


def settings(network: Network, options: argparse.Namespace) -> Path:
    """A file for ``--config``: the network, and segments as small as they are to be."""
    path = network.directory.parent / "gateway.toml"
    own = f'segment_bytes = "{options.segment}MiB"\nunit_age_s = 5\n'
    path.write_text((network.directory / "gateway.toml").read_text() + own)
    return path


def puts(gateway: Gateway, options: argparse.Namespace) -> dict[str, Any]:
    """Objects of ``--size`` by 16 connections, until the segments are full."""
    count = options.segments * options.segment * MIB // options.size + 1
    result = loadgen.run(
        gateway.plan(
            "put", size=options.size, count=count, once=True, seconds=3600.0, connections=16
        )
    )
    if result.failures:
        raise RuntimeError(f"PUTs failed: {result.statuses} {result.sample}\n{gateway.said()}")
    spans = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
    return {
        "requests": result.requests,
        "mb_s": round(result.rate * options.size / 1e6, 1),
        **{f"{name}_ms": round(result.percentile_us(at) / 1e3, 1) for name, at in spans.items()},
        "max_ms": round(result.max_ns / 1e6, 1),
    }


async def ask(dsn: str, query: str) -> Any:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchrow(query)
    finally:
        await connection.close()


SETTLED = """
    SELECT (SELECT max(last_commit) FROM ingot.segments WHERE stream = 'unit') =
           (SELECT max(commit) FROM ingot.heads)"""
SHIPPABLE = """
    SELECT count(*), coalesce(sum(bytes), 0)::bigint FROM ingot.segments
    WHERE state = 'sealed' AND stream IN ('unit', 'body') AND bytes > 59"""
CONFIRMED = """
    SELECT count(*), coalesce(sum(bytes), 0)::bigint FROM ingot.shipments
    WHERE state = 'indexed'"""


def until(dsn: str, query: str) -> None:
    """Poll until the answer is true; RuntimeError after ten minutes."""
    end = time.monotonic() + 600
    while not asyncio.run(ask(dsn, query))[0]:
        if time.monotonic() > end:
            raise RuntimeError(f"not within ten minutes: {' '.join(query.split())}")
        time.sleep(0.2)


def settle(dsn: str) -> tuple[int, int]:
    """Wait until all that was written is sealed and compacted; files and bytes to be shipped."""
    until(dsn, SETTLED)
    files, size = asyncio.run(ask(dsn, SHIPPABLE))
    return files, size


def drain(dsn: str, backlog: int) -> dict[str, Any]:
    """From the network's return until it has ``backlog`` files."""
    began = time.monotonic()
    first = None
    while True:
        files, size = asyncio.run(ask(dsn, CONFIRMED))
        now = time.monotonic()
        if files and first is None:
            first = now, size
        if files >= backlog:
            break
        if now - began > 600:
            raise RuntimeError(f"{files} of {backlog} files were shipped in ten minutes")
        time.sleep(0.05)
    assert first is not None
    return {
        "files": files,
        "mb": round(size / 1e6, 1),
        "noticed_s": round(first[0] - began, 1),
        "seconds": round(now - first[0], 1),
        "mb_s": round((size - first[1]) / (now - first[0]) / 1e6, 1),
    }


async def bare(config: Config, directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The client by itself: files of random bytes, ``SHIP_FILES`` at a time."""
    count = max(limits.SHIP_FILES, min(options.segments, 512 // options.segment))
    paths = []
    for number in range(count):
        data = os.urandom(options.segment * MIB)
        paths.append((directory / f"blob-{number}", BlobRef.of(data)))
        paths[-1][0].write_bytes(data)
    network = config.forge_settings()
    assert network is not None
    identity = KeyStore(config.data_dir).identity(int(time.time()))
    turns = asyncio.Semaphore(limits.SHIP_FILES)
    async with ForgeClient(network, identity, SystemClock()) as client:

        async def add(path: Path, blob: BlobRef) -> None:
            async with turns:
                with path.open("rb") as file:
                    await client.upload.add(blob, FileRange(file.fileno(), 0, blob.size))

        began = time.monotonic()
        await asyncio.gather(*(add(*one) for one in paths))
        took = time.monotonic() - began
    size = sum(blob.size for _, blob in paths)
    return {"files": count, "seconds": round(took, 1), "mb_s": round(size / took / 1e6, 1)}


APPENDED = """
    SELECT sum(bytes)::bigint FROM ingot.segments WHERE stream = 'log'"""
SHIPPED = """
    SELECT (SELECT max(commit) FROM ingot.heads) = commit FROM ingot.forge_watermark"""


def small(gateway: Gateway, dsn: str, options: argparse.Namespace) -> dict[str, Any]:
    """Small objects, most of them overwritten, until Forge has every commit."""
    result = loadgen.run(
        gateway.plan(
            "put",
            size=1024,
            over=options.keys,
            count=options.puts,
            once=True,
            seconds=3600.0,
            connections=64,
        )
    )
    if result.failures:
        raise RuntimeError(f"PUTs failed: {result.statuses} {result.sample}\n{gateway.said()}")
    until(dsn, SHIPPED)
    appended = asyncio.run(ask(dsn, APPENDED))[0]
    files, shipped = asyncio.run(ask(dsn, CONFIRMED))
    return {
        "rate": round(result.rate),
        "appended_mb": round(appended / 1e6, 1),
        "units": files,
        "shipped_mb": round(shipped / 1e6, 1),
        "share": round(shipped / appended, 3),
    }


def run(
    options: argparse.Namespace, directory: Path, dsn: str, other: str, third: str
) -> dict[str, Any]:
    """``other`` is the database of the gateway without a network, ``third`` of that with small
    objects."""
    found: dict[str, Any] = {}
    network = Network(directory / "forge")
    with contextlib.ExitStack() as stack:
        stack.callback(network.stop)
        plain = Gateway(
            directory / "plain", other, None, ["--segment-bytes", f"{options.segment}MiB"]
        )
        stack.callback(plain.process.kill)
        plain.make_bucket()
        found["puts_alone"] = puts(plain, options)
        print(f"PUTs without a network: {found['puts_alone']}", flush=True)
        plain.stop()
        network.start()  # for its keys
        network.stop()
        file, data = settings(network, options), directory / "data"
        config = Config.load({"data_dir": str(data)}, {}, str(file))
        KeyStore(config.data_dir).create_space()
        gateway = Gateway(data, dsn, None, ["--config", str(file)])
        stack.callback(gateway.process.kill)
        gateway.make_bucket()
        found["puts_away"] = puts(gateway, options)
        print(f"PUTs with the network away: {found['puts_away']}", flush=True)
        files, size = settle(dsn)
        print(f"{files} files of {size >> 20} MiB are sealed; the network is back", flush=True)
        network.start()
        found["drain"] = drain(dsn, files)
        print(f"the backlog drained: {found['drain']}", flush=True)
        found["bare"] = asyncio.run(bare(config, directory, options))
        print(f"a bare client: {found['bare']}", flush=True)
        gateway.stop()
        data, config = directory / "small", str(network.directory / "gateway.toml")
        KeyStore(str(data)).create_space()
        gateway = Gateway(data, third, None, ["--config", config])
        stack.callback(gateway.process.kill)
        gateway.make_bucket()
        found["small"] = small(gateway, third, options)
        print(f"small objects: {found['small']}", flush=True)
        gateway.stop()
    found["share"] = round(found["drain"]["mb_s"] / found["bare"]["mb_s"], 2)
    print(f"the backlog drains at {found['share']} of a bare client's rate")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--segments", type=int, default=200, help="files to be shipped")
    parser.add_argument("--segment", type=int, default=8, help="MiB of one")
    parser.add_argument("--size", type=int, default=256 << 10, help="bytes of an object")
    parser.add_argument("--puts", type=int, default=100_000, help="small objects")
    parser.add_argument("--keys", type=int, default=20_000, help="that those go to")
    parser.add_argument("--json", type=Path, help="where results go")
    parser.add_argument("--dir", type=Path, default=RESULTS, help="on which disk to work")
    options = parser.parse_args()
    loadgen.compiled()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=options.dir, prefix="tmp-ship-") as name:
        directory = Path(name)

        def work(dsn: str) -> None:
            others = [asyncio.run(another(dsn, name)) for name in ("other", "third")]
            found.update(run(options, directory, dsn, *others))

        floors.with_postgres(directory, work)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


async def another(dsn: str, name: str) -> str:
    """A further database beside that of ``dsn``."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    return dsn.replace("@/postgres?", f"@/{name}?")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
