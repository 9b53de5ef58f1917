"""End to end: latency and throughput of PUT, GET and LIST through a real ``ingot serve``.

Starts a private Postgres and the gateway as processes of their own, loads it with pre-signed
requests (``loadgen``), and sets every figure beside a floor measured in the same run (``floors``):

- PUT, one connection, up to 64 KiB: its p50 against one sync and one swap with idle gaps;
- PUT, more connections, up to 64 KiB: answers a second against the echo of the same requests;
- PUT, larger: bytes a second against md5 on one core;
- GET up to 64 KiB and LIST: answers a second against the echo of the same requests;
- GET, larger: bytes a second against the better of bare sendfile and pread with send.

``python perf/e2e.py --quick`` takes about a minute; README.md says how to read it. Results go to
``perf/results/`` as JSON, which ``compare.py`` compares. Status 1 when a request failed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import http.client
import importlib.util
import json
import os
import platform
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import floors
import loadgen
import report

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "perf/results"
SIZES = {"1k": 1 << 10, "64k": 64 << 10, "1m": 1 << 20, "64m": 64 << 20}
LONG = 16 << 20
SMALL = 64 << 10  # figures up to here are about requests, above it about bytes
BUCKET = "perf"
RATE_GUESS = 40_000  # PUTs a second, for how many new keys to make ready
PUT_BYTES = 6 << 30  # that one figure may store
GET_BYTES = 512 << 20  # stored to be read, a size


@dataclass(frozen=True)
class Case:
    """One figure to take."""

    operation: str  # put, get, list, list-folders
    size: int  # of an object; 0 for lists
    connections: int


class Gateway:
    """``ingot serve`` as a child process, ready when the constructor returns."""

    def __init__(self, directory: Path, dsn: str, core: int | None, extra: list[str]) -> None:
        self.access_key, self.secret_key = "PERF", secrets.token_hex(20)
        read_end, write_end = os.pipe()
        command = [sys.executable, "-m", "ingot.cli", "serve", "--listen", "127.0.0.1:0"]
        command += ["--data-dir", str(directory), "--postgres", dsn, "--ready-fd", str(write_end)]
        if core is not None:
            command = ["taskset", "-c", str(core), *command]
        self.log = directory.with_suffix(".log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *extra],
                pass_fds=[write_end],
                stdout=log,
                stderr=log,
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT),
                    "INGOT_ACCESS_KEY": self.access_key,
                    "INGOT_SECRET_KEY": self.secret_key,
                },
            )
        os.close(write_end)
        with os.fdopen(read_end) as ready:
            line = ready.readline()
        if not line:
            self.process.wait()
            raise RuntimeError(f"ingot serve did not start:\n{self.said()}")
        told = json.loads(line)
        self.url, self.metrics_url = str(told["url"]), str(told["metrics_url"] or "")

    def plan(self, operation: str, **fields: Any) -> loadgen.Plan:
        return loadgen.Plan(
            self.url,
            operation,
            bucket=BUCKET,
            access_key=self.access_key,
            secret_key=self.secret_key,
            watch=(self.process.pid,),
            **fields,
        )

    def make_bucket(self) -> None:
        parts = urllib.parse.urlsplit(self.url)
        signer = loadgen.Signer(self.plan("put"), parts.netloc)
        head = signer.head("PUT", f"/{BUCKET}", loadgen.EMPTY_SHA256, 0).decode()
        headers = dict(line.split(": ", 1) for line in head.strip().split("\r\n")[1:])
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
        connection.request("PUT", f"/{BUCKET}", b"", headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"making the bucket: {answer.status} {answer.read()[:500]!r}")
        connection.close()

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-3000:]

    def memory_mib(self) -> float:
        """Resident now."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0.0

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(timeout=120):
            raise RuntimeError(f"ingot serve ended badly:\n{self.said()}")


class Suite:
    """All figures of one run against one gateway."""

    def __init__(self, gateway: Gateway, echo_url: str, options: argparse.Namespace) -> None:
        self.gateway, self.echo_url, self.options = gateway, echo_url, options
        self.cores: tuple[int | None, int | None] = (0, 1) if options.pin else (None, None)
        self.floors: dict[str, Any] = {}
        self._bare: dict[tuple[int, int], float] = {}
        self._written: dict[int, int] = {}  # new keys put so far, by size
        self._readable: dict[int, int] = {}  # keys there to be read, by size

    def cases(self) -> Iterator[Case]:
        for size in self.options.sizes:
            for operation in ("put", "get"):
                for connections in self.options.connections:
                    if size * connections <= 4 << 30:
                        yield Case(operation, size, connections)
        for operation in ("list", "list-folders"):
            for connections in self.options.connections:
                yield Case(operation, 0, connections)

    def fill(self, size: int, count: int) -> loadgen.Result:
        """Put ``count`` objects to be read later."""
        plan = self.gateway.plan(
            "put",
            prefix=f"r{size}",
            size=size,
            count=count,
            once=True,
            seconds=3600.0,
            connections=64 if size <= SMALL else 4,
        )
        result = loadgen.run(plan, self.cores[1])
        if result.failures or result.requests != count:
            raise RuntimeError(
                f"{result.requests} of {count} objects of {size} bytes put, "
                f"{result.failures} failures: {result.statuses} {result.sample}\n"
                f"the gateway says:\n{self.gateway.said()}"
            )
        self._readable[size] = count
        return result

    def take(self, case: Case) -> dict[str, Any]:
        """One figure beside its floor."""
        plan = self._plan(case)
        result = loadgen.run(plan, self.cores[1])
        if case.operation == "put":
            self._written[case.size] = self._written.get(case.size, 0) + plan.count
        percentiles = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
        figure: dict[str, Any] = {
            **dataclasses.asdict(case),
            "requests": result.requests,
            "seconds": round(result.elapsed_ns / 1e9, 3),
            "rate": round(result.rate, 1),
            "mb_s": round(result.rate * case.size / 1e6, 1),
            **{f"{n}_us": round(result.percentile_us(s), 1) for n, s in percentiles.items()},
            "max_us": round(result.max_ns / 1e3, 1),
            "failures": result.failures,
            "statuses": result.statuses,
            "wrapped": result.wrapped,
            "server_cpu_us": round(result.watched_us[0], 1),
            "generator_cpu": round(result.generator_cpu, 2),
            "memory_mib": round(self.gateway.memory_mib(), 1),
            "tenths": result.tenths,
        }
        if result.failures:
            figure |= {"sample": result.sample, "log": self.gateway.said()}
        figure["floor"] = self._floor(case, plan, figure)
        return figure

    def _plan(self, case: Case) -> loadgen.Plan:
        options = self.options
        fields: dict[str, Any] = {"connections": case.connections, "seconds": options.seconds}
        # A request of 64 MiB may last longer than the warming-up: then the first ones count too.
        fields["warm_s"] = min(1.0, options.seconds) if case.size < LONG else 0.0
        if case.operation == "put":
            guess = int(RATE_GUESS * (options.seconds + 1.0) * min(1.0, case.connections / 16))
            fields["first"] = self._written.get(case.size, 0)
            fields |= {"prefix": f"w{case.size}", "size": case.size}
            fields["count"] = max(case.connections, min(guess, PUT_BYTES // case.size))
            return self.gateway.plan("put", **fields)
        if case.operation == "get":
            if case.size not in self._readable:
                self.fill(case.size, max(4, min(4000, GET_BYTES // case.size)))
            fields |= {"prefix": f"r{case.size}", "count": self._readable[case.size]}
            return self.gateway.plan("get", **fields)
        fields |= {"prefix": "r1024", "count": 1000, "keys": self._readable[1024]}
        fields["delimiter"] = "/" if case.operation == "list-folders" else ""
        return self.gateway.plan("list", **fields)

    def _floor(self, case: Case, plan: loadgen.Plan, figure: dict[str, Any]) -> dict[str, Any]:
        """Its name, value and unit; ``share`` is the figure divided by it."""
        if case.size > SMALL:
            if case.operation == "put":
                value, name = self.floors["digests_mb_s"]["md5"], "md5"
            else:
                value, name = self._bare_rate(case), "bare send"
            return _floor(name, value, "MB/s", figure["mb_s"])
        if case.operation == "put" and case.connections == 1:
            value = self.floors["sync_us"]["idle"]["p50"] + self.floors["swap_us"]["idle"]["p50"]
            return _floor("sync + swap", value, "us p50", figure["p50_us"])
        rate = floors.echo(self.echo_url, plan, self.cores[1], min(2.0, self.options.seconds))
        return _floor("echo", rate, "/s", figure["rate"])

    def _bare_rate(self, case: Case) -> float:
        key = (case.size, min(case.connections, 16))
        if key not in self._bare:
            found = floors.bare(self.options.dir, *key, self.cores, min(2.0, self.options.seconds))
            self._bare[key] = max(found.values())
        return self._bare[key]


def _floor(name: str, value: float, unit: str, figure: float) -> dict[str, Any]:
    share = round(figure / value, 3) if value else 0.0
    return {"name": name, "value": round(value, 1), "unit": unit, "share": share}


def run(options: argparse.Namespace, directory: Path, dsn: str) -> dict[str, Any]:
    """Everything between a running Postgres and the finished results."""
    found: dict[str, Any] = {"about": about(options)}
    with contextlib.ExitStack() as stack:
        core = 0 if options.pin else None
        echo_url = stack.enter_context(floors.echo_server(core))
        gateway = Gateway(directory / "data", dsn, core, options.serve or [])
        stack.callback(gateway.process.kill)
        suite = Suite(gateway, echo_url, options)
        gateway.make_bucket()
        print("measuring the floors", flush=True)
        suite.floors = found["floors"] = {
            "sync_us": floors.sync(options.dir),
            "swap_us": asyncio.run(floors.swap(dsn)),
            "digests_mb_s": floors.digests(),
        }
        print(report.floors_table(found["floors"]), flush=True)
        filled = suite.fill(1024, options.keys)
        found["prefill"] = {"keys": options.keys, "rate": round(filled.rate, 1)}
        print(f"put {options.keys} keys of 1 KiB at {filled.rate:,.0f}/s", flush=True)
        print(report.HEADER, flush=True)
        figures: list[dict[str, Any]] = []
        for case in suite.cases():
            figures.append(suite.take(case))
            print(report.figure_row(figures[-1]), flush=True)
        found["figures"] = figures
        gateway.stop()
    return found


def about(options: argparse.Namespace) -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True
    )
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit.stdout.strip() or "unknown",
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": len(os.sched_getaffinity(0)),
        "pin": options.pin,
        "seconds": options.seconds,
        "keys": options.keys,
        "serve": options.serve or [],
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    sizes = ",".join(SIZES)
    parser.add_argument("--quick", action="store_true", help="about a minute: less of everything")
    parser.add_argument("--json", type=Path, help="where results go; default: perf/results/WHEN")
    parser.add_argument("--plot", type=Path, help="also draw the latencies (needs matplotlib)")
    parser.add_argument("--connections", help="comma-separated, default 1,16,64,256")
    parser.add_argument("--sizes", help=f"comma-separated, of {sizes}; default all")
    parser.add_argument("--seconds", type=float, help="a figure, default 5")
    parser.add_argument("--keys", type=int, help="put before anything is measured, default 100000")
    parser.add_argument("--pin", action="store_true", help="gateway on core 0, the rest on core 1")
    parser.add_argument("--dir", type=Path, default=RESULTS, help="on which disk to work")
    parser.add_argument("serve", nargs="*", help="after --: more arguments for ingot serve")
    options = parser.parse_args()
    if options.plot and importlib.util.find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib")
    options.connections = options.connections or ("1,64" if options.quick else "1,16,64,256")
    options.connections = [int(text) for text in options.connections.split(",")]
    options.sizes = options.sizes or ("1k,1m" if options.quick else sizes)
    if unknown := set(options.sizes.split(",")) - SIZES.keys():
        parser.error(f"no such size: {', '.join(unknown)} (there are {sizes})")
    options.sizes = [SIZES[text] for text in options.sizes.split(",")]
    options.seconds = options.seconds or (2.0 if options.quick else 5.0)
    options.keys = options.keys or (5_000 if options.quick else 100_000)
    return options


def main() -> int:
    options = parse()
    for directory in (options.dir, RESULTS):
        directory.mkdir(parents=True, exist_ok=True)
    if options.pin:
        os.sched_setaffinity(0, {1})  # Postgres and its processes inherit it
    loadgen.compiled()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=options.dir, prefix="tmp-e2e-") as name:
        directory = Path(name)
        floors.with_postgres(directory, lambda dsn: found.update(run(options, directory, dsn)))
    path = options.json or RESULTS / f"{found['about']['when'].replace(':', '')}.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(f"results: {path}")
    if options.plot:
        report.plot(found, options.plot)
        print(f"plot: {options.plot}")
    failures = sum(figure["failures"] for figure in found["figures"])
    if failures:
        print(f"{failures} requests failed: these figures are not to be trusted", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
