"""Requests per second of the HTTP layer with a trivial handler, as a share of the echo floor.

``python perf/bench_http.py`` runs the servers in turn on core 0, some rounds, with ``wrk`` on the
other cores, and prints the best round of each. CPU a request is the steadier figure where others
share the machine. ``--smoke`` sends a few requests without wrk. Each is a GET with the headers that
an S3 client signs, answered with two bytes; ``waiting`` has to wait once and so becomes a task.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import uvloop

from ingot.listener import HttpServer
from ingot.messages import Request, Response

ROOT = Path(__file__).resolve().parent.parent
HEADERS = {
    "X-Amz-Date": "20260101T000000Z",
    "X-Amz-Content-Sha256": "UNSIGNED-PAYLOAD",
    "User-Agent": "wrk",
    "Accept-Encoding": "identity",
    "Authorization": "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20260101/us-east-1/s3/"
    "aws4_request, SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature=" + "0" * 64,
}


async def trivial(request: Request) -> Response:
    return Response(200, [(b"x-amz-request-id", b"0123456789ABCDEF")], b"ok")


async def waiting(request: Request) -> Response:
    """As ``trivial``, but every request has to wait once, so each one becomes a task."""
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, None)
    await future
    return Response(200, [(b"x-amz-request-id", b"0123456789ABCDEF")], b"ok")


async def serve(port: int, handler: str) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = HttpServer({"trivial": trivial, "waiting": waiting}[handler])
    await server.start("127.0.0.1", port)
    print("ready", flush=True)
    await stop.wait()
    await server.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def command(name: str, port: int) -> list[str]:
    if name == "echo":
        return [sys.executable, str(ROOT / "perf" / "echo.py"), "--port", str(port)]
    return [sys.executable, __file__, "--serve", name, "--port", str(port)]


def measure(name: str, seconds: int, connections: int) -> tuple[float, float]:
    """Requests per second, and microseconds of the server's CPU per request."""
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    cores = sorted(os.sched_getaffinity(0))
    server = subprocess.Popen(
        command(name, port), stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert server.stdout is not None and server.stdout.readline() == "ready\n"
        os.sched_setaffinity(server.pid, cores[:1])
        before = cpu_seconds(server.pid)
        load = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s"]
        for header, value in HEADERS.items():
            load += ["-H", f"{header}: {value}"]
        done = subprocess.run(
            [*load, f"http://127.0.0.1:{port}/bucket/key"],
            capture_output=True,
            text=True,
            check=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores[1:] or cores),
        )
        used = cpu_seconds(server.pid) - before
    finally:
        server.terminate()
        server.wait()
        if server.stdout is not None:
            server.stdout.close()
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise SystemExit(f"{name} failed under load:\n{done.stdout}")
    found = re.search(r"(\d+) requests in", done.stdout)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    assert found is not None and rate is not None, done.stdout
    return float(rate[1]), used * 1e6 / int(found[1])


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def smoke() -> None:
    async def few() -> None:
        server = HttpServer(trivial)
        await server.start("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.address)
        for _ in range(10):
            writer.write(b"GET /bucket/key HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\nok")).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.close()
        await writer.wait_closed()
        await server.close()

    asyncio.run(few())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", choices=("trivial", "waiting"), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    given = parser.parse_args()
    if given.serve:
        uvloop.run(serve(given.port, given.serve))
        return
    if given.smoke:
        smoke()
        return
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: apt-get install wrk, or use --smoke")
    best: dict[str, tuple[float, float]] = {}
    for _ in range(given.rounds):
        for name in ("echo", "trivial", "waiting"):
            rate, cpu_us = measure(name, given.seconds, given.connections)
            old_rate, old_us = best.get(name, (rate, cpu_us))
            best[name] = max(rate, old_rate), min(cpu_us, old_us)
    floor, floor_us = best["echo"]
    for name, (rate, cpu_us) in best.items():
        print(
            f"{name:8} {rate:10,.0f} req/s ({rate / floor:4.0%} of echo) "
            f"{cpu_us:6.2f} us CPU/req ({floor_us / cpu_us:4.0%})"
        )


if __name__ == "__main__":
    main()
