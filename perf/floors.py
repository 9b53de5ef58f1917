"""The floors: what this machine allows, measured in the same run as what the gateway does.

- ``sync``: pwrite of 10 kB and fdatasync on a file whose blocks were written before, as segments
  are; back to back, and with idle gaps, which is what a lone client sees.
- ``swap``: the registry's own compare-and-swap, committed, in a database beside the gateway's.
- ``digests``: sha256 and md5, bytes a second of one core.
- ``echo``: the bare socket layer (``perf/echo.py``) under the same requests and generator.
- ``bare``: a blocking server that only sends a file, by sendfile or by pread and send.

``python perf/floors.py [--dir DIR]`` prints them; ``perf/e2e.py`` sets its figures beside them.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import loadgen

ROOT = Path(__file__).resolve().parent.parent
SYNC_BYTES = 10_000  # about what one small PUT logs
SYNC_FILE_BYTES = 64 << 20
IDLE_S = 0.001
FLOOR_DATABASE = "ingot_perf_floor"
Times = dict[str, float]


def summary(times: list[float]) -> Times:
    """Percentiles of seconds, in microseconds."""
    ordered = sorted(times)
    at = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
    found = {name: ordered[int(share * (len(ordered) - 1))] * 1e6 for name, share in at.items()}
    return {name: round(value, 1) for name, value in found.items()}


# -- disk and processor -------------------------------------------------------------------------


def sync(directory: Path, rounds: int = 300) -> dict[str, Times]:
    """Seconds a 10 kB write and fdatasync takes, on the file system of ``directory``."""
    with tempfile.NamedTemporaryFile(dir=directory, prefix="tmp-floor-") as file:
        descriptor = file.fileno()
        block = os.urandom(1 << 20)
        for offset in range(0, SYNC_FILE_BYTES, len(block)):
            os.pwrite(descriptor, block, offset)
        os.fsync(descriptor)
        return {
            "back_to_back": summary(_sync_times(descriptor, rounds, 0.0)),
            "idle": summary(_sync_times(descriptor, rounds, IDLE_S)),
        }


def _sync_times(descriptor: int, rounds: int, gap_s: float) -> list[float]:
    data = os.urandom(SYNC_BYTES)
    times = []
    for number in range(rounds):
        if gap_s:
            time.sleep(gap_s)
        offset = number * SYNC_BYTES % (SYNC_FILE_BYTES - SYNC_BYTES)
        began = time.perf_counter()
        os.pwrite(descriptor, data, offset)
        os.fdatasync(descriptor)
        times.append(time.perf_counter() - began)
    return times


def digests() -> dict[str, float]:
    """Megabytes a second of one core, the best of a few rounds; 1 MiB at a time."""
    chunk = os.urandom(1 << 20)
    return {name: round(_digest_rate(name, chunk), 1) for name in ("sha256", "md5")}


def _digest_rate(name: str, chunk: bytes) -> float:
    best = 0.0
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(32):
            hashlib.new(name, chunk, usedforsecurity=False).digest()
        best = max(best, 32 * len(chunk) / 1e6 / (time.perf_counter() - began))
    return best


# -- Postgres -----------------------------------------------------------------------------------


async def swap(dsn: str, rounds: int = 300) -> dict[str, Times]:
    """Seconds one head takes to move, in a database of its own on the server that ``dsn`` names."""
    import asyncpg

    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(f"DROP DATABASE IF EXISTS {FLOOR_DATABASE}")
        await connection.execute(f"CREATE DATABASE {FLOOR_DATABASE}")
        return await _swap_times(dsn, rounds)
    finally:
        await connection.execute(f"DROP DATABASE IF EXISTS {FLOOR_DATABASE}")
        await connection.close()


async def _swap_times(dsn: str, rounds: int) -> dict[str, Times]:
    from ingot.codec import cid
    from ingot.messages import CommitRef, Head, HeadMove
    from ingot.registry.postgres import Postgres

    registry = Postgres(in_database(dsn, FLOOR_DATABASE))
    await registry.open()
    try:
        await registry.claim(secrets.token_bytes(16))
        token = await registry.acquire("perf", 600.0)
        assert token is not None, "a new database has no lease holder"
        bucket, head = secrets.token_bytes(16), Head(0)
        record = cid.of_structure(b"record")
        await registry.swap(token, CommitRef(1, record), [HeadMove(bucket, "floor", None, head)])
        found = {}
        for name, gap_s in (("back_to_back", 0.0), ("idle", IDLE_S)):
            times = []
            for _ in range(rounds):
                if gap_s:
                    await asyncio.sleep(gap_s)
                sequence = head.sequence + 1
                new = Head(sequence, cid.of_structure(b"%d" % sequence))
                began = time.perf_counter()
                moves = [HeadMove(bucket, "floor", head, new)]
                await registry.swap(token, CommitRef(1 + sequence, record), moves)
                times.append(time.perf_counter() - began)
                head = new
            found[name] = summary(times)
        return found
    finally:
        await registry.close()


def in_database(dsn: str, database: str) -> str:
    """The same server's DSN with another database."""
    start, mark, query = dsn.partition("?")
    return f"{start[: start.rindex('/')]}/{database}{mark}{query}"


# -- sockets ------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def child(command: list[str], core: int | None) -> Iterator[int]:
    """A server that prints "ready"; its process id."""
    if core is not None:
        command = ["taskset", "-c", str(core), *command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError(f"{' '.join(command)} did not start")
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@contextmanager
def echo_server(core: int | None = None) -> Iterator[str]:
    """The URL of a running ``perf/echo.py``."""
    port = free_port()
    with child([sys.executable, str(ROOT / "perf/echo.py"), "--port", str(port)], core):
        yield f"http://127.0.0.1:{port}"


def echo(url: str, plan: loadgen.Plan, core: int | None = None, seconds: float = 2.0) -> float:
    """Answers a second that the socket layer gives to this plan's requests."""
    bare = dataclasses.replace(plan, url=url, seconds=seconds, warm_s=0.3, watch=(), once=False)
    return loadgen.run(dataclasses.replace(bare, count=min(plan.count, 2000)), core).rate


def bare(
    directory: Path,
    size: int,
    connections: int,
    cores: tuple[int | None, int | None],
    seconds: float = 2.0,
) -> dict[str, float]:
    """Megabytes a second of a blocking server that sends one file, for the two ways to send it."""
    found = {}
    with tempfile.NamedTemporaryFile(dir=directory, prefix="tmp-floor-") as file:
        file.write(os.urandom(size))
        file.flush()
        for how in ("sendfile", "pread"):
            port = free_port()
            command = [sys.executable, str(ROOT / "perf/bare.py"), how, file.name, str(port)]
            url = f"http://127.0.0.1:{port}"
            plan = loadgen.Plan(url, "raw", connections, seconds, min(1.0, seconds), count=100)
            with child(command, cores[0]):
                rate = loadgen.run(plan, cores[1]).rate
            found[how] = round(rate * size / 1e6, 1)
    return found


# -- the command --------------------------------------------------------------------------------


def with_postgres(directory: Path, work: Callable[[str], None]) -> None:
    """Run ``work`` with the DSN of a private Postgres under ``directory``."""
    from ingot.registry.embedded import EmbeddedPostgres

    directory.chmod(0o711)  # as root, Postgres runs as a user who has to pass here
    postgres = EmbeddedPostgres(directory)
    postgres.start_blocking()
    try:
        work(postgres.dsn)
    finally:
        postgres.stop_blocking()
        if postgres.home.is_symlink():  # it could not pass further up, and went elsewhere
            shutil.rmtree(postgres.home.resolve())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dir", type=Path, default=ROOT / "perf/results", help="on which disk")
    arguments = parser.parse_args()
    arguments.dir.mkdir(parents=True, exist_ok=True)
    found: dict[str, object] = {"sync_us": sync(arguments.dir), "digests_mb_s": digests()}
    with tempfile.TemporaryDirectory(dir=arguments.dir, prefix="tmp-floor-") as directory:

        def take(dsn: str) -> None:
            found["swap_us"] = asyncio.run(swap(dsn))

        with_postgres(Path(directory), take)
        with echo_server() as url:
            plan = loadgen.Plan(url, "raw", connections=64)
            found["echo_s"] = round(statistics.median(echo(url, plan) for _ in range(3)))
        found["bare_64mib_mb_s"] = bare(Path(directory), 64 << 20, 1, (None, None))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
