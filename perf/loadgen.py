"""The load generator: pre-signed S3 requests from a process of its own, latencies in a histogram.

``run(Plan(...))`` starts this file as a child, which builds every request as bytes (SigV4 in the
header, real payload digests up to ``SIGNED_BYTES_MAX``), then runs the compiled loop over them and
prints its findings as JSON. Bodies come from one shared random buffer, each request's from another
offset, so that no two objects have a chunk in common and the store can deduplicate nothing.

The compiled part is built on first use into ``$XDG_CACHE_HOME/ingot-perf`` (``~/.cache``), named by
its content. As a command: ``python perf/loadgen.py --url http://127.0.0.1:9000 --help``.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import hashlib
import hmac
import importlib.util
import json
import os
import random
import resource
import subprocess
import sys
import sysconfig
import time
import urllib.parse
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

SOURCE = Path(__file__).with_name("loadgen_c.pyx")
SIGNED_BYTES_MAX = 64 * 1024  # above it UNSIGNED-PAYLOAD: hashing bodies ahead would take minutes
OFFSETS = 1 << 20  # bodies start anywhere in the first MiB of the buffer
STEPS = 64  # of the histogram, an octave; loadgen_c.pyx


@dataclass(frozen=True)
class Plan:
    """One run. ``operation``: put, get, list (a page of 1,000), or raw (GET / as it is)."""

    url: str
    operation: str
    connections: int = 1
    seconds: float = 5.0
    warm_s: float = 1.0
    bucket: str = "perf"
    prefix: str = "k"
    first: int = 0  # keys are numbered: ``key_of(prefix, first)`` and on
    over: int = 0  # of a PUT: each goes to one of so many keys, at random; 0: all keys are new
    count: int = 10_000  # requests made ready; used again from the first one when they run out
    size: int = 1024  # of a PUT's body
    once: bool = False  # end when every request was sent once
    delimiter: str = ""  # of a list
    keys: int = 100_000  # that a list finds under its prefix
    access_key: str = ""
    secret_key: str = ""
    region: str = "us-east-1"
    seed: int = 1
    watch: tuple[int, ...] = ()  # process ids whose CPU time is taken


@dataclass
class Result:
    """What a run found. Times are nanoseconds."""

    requests: int
    elapsed_ns: int
    received_bytes: int
    sum_ns: int
    min_ns: int
    max_ns: int
    reconnects: int
    broken: int
    issued: int
    statuses: dict[int, int]
    histogram: dict[int, int]
    tenths: list[int]
    sample: str
    wrapped: bool = False  # the requests ran out and were sent again
    generator_cpu: float = 0.0  # share of one core
    watched_us: list[float] = field(default_factory=list)  # CPU a request, of each ``watch``

    @property
    def rate(self) -> float:
        """Responses a second."""
        return self.requests / (self.elapsed_ns / 1e9) if self.elapsed_ns else 0.0

    @property
    def failures(self) -> int:
        return self.broken + sum(n for status, n in self.statuses.items() if status // 100 != 2)

    def percentile_us(self, share: float) -> float:
        """The latency that ``share`` of the requests stayed below, to 1.6 %."""
        wanted = share * self.requests
        seen = 0
        for slot in sorted(self.histogram):
            seen += self.histogram[slot]
            if seen >= wanted:
                return min(_upper_ns(slot), self.max_ns) / 1000
        return 0.0


def _upper_ns(slot: int) -> int:
    if slot < STEPS:
        return slot
    shift = slot // STEPS - 1
    return (STEPS + slot % STEPS + 1 << shift) - 1


def run(plan: Plan, core: int | None = None) -> Result:
    """Carry out ``plan`` in a child process, on one core if given."""
    command = [sys.executable, str(Path(__file__).resolve()), "--plan"]
    compiled()  # here, so that a build is never part of a measured child
    if core is not None:
        command = ["taskset", "-c", str(core), *command]
    child = subprocess.run(
        command, input=json.dumps(dataclasses.asdict(plan)), capture_output=True, text=True
    )
    if child.returncode:
        raise RuntimeError(f"the load generator failed: {child.stderr.strip()[-2000:]}")
    found = json.loads(child.stdout)
    for name in ("statuses", "histogram"):
        found[name] = {int(key): value for key, value in found[name].items()}
    return Result(**found)


# -- requests -----------------------------------------------------------------------------------


def key_of(prefix: str, number: int) -> str:
    """Keys in random order and in 256 folders, the same for the same number."""
    name = hashlib.blake2b(b"%d" % number, digest_size=6).hexdigest()
    return f"{prefix}/{name[:2]}/{name[2:]}-{number:08d}"


class Signer:
    """SigV4 in the Authorization header, with the headers that SDKs send."""

    def __init__(self, plan: Plan, host: str) -> None:
        now = datetime.datetime.now(datetime.UTC)
        self.date = now.strftime("%Y%m%dT%H%M%SZ")
        self.host = host
        scope = f"{self.date[:8]}/{plan.region}/s3/aws4_request"
        key = ("AWS4" + plan.secret_key).encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        self.key = key
        self.start = f"AWS4-HMAC-SHA256\n{self.date}\n{scope}\n"
        self.credential = f"{plan.access_key}/{scope}"

    def head(self, method: str, target: str, payload: str, length: int | None) -> bytes:
        """The request line and headers; ``target`` is escaped and its query sorted already."""
        path, _, query = target.partition("?")
        canonical = (
            f"{method}\n{path}\n{query}\nhost:{self.host}\nx-amz-content-sha256:{payload}\n"
            f"x-amz-date:{self.date}\n\nhost;x-amz-content-sha256;x-amz-date\n{payload}"
        )
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        signature = hmac.digest(self.key, (self.start + digest).encode(), "sha256").hex()
        body = f"Content-Type: binary/octet-stream\r\nContent-Length: {length}\r\n"
        return (
            f"{method} {target} HTTP/1.1\r\nHost: {self.host}\r\n"
            "User-Agent: ingot-perf/1.0 (load generator)\r\nAccept-Encoding: identity\r\n"
            f"{'' if length is None else body}X-Amz-Date: {self.date}\r\n"
            f"X-Amz-Content-SHA256: {payload}\r\n"
            "amz-sdk-request: attempt=1\r\n"
            f"Authorization: AWS4-HMAC-SHA256 Credential={self.credential}, SignedHeaders="
            f"host;x-amz-content-sha256;x-amz-date, Signature={signature}\r\n\r\n"
        ).encode()


EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


class Requests:
    """Every request of a plan, as the compiled loop takes them."""

    def __init__(self, plan: Plan) -> None:
        parts = urllib.parse.urlsplit(plan.url)
        self.host, self.port = str(parts.hostname), parts.port or 80
        self.signer = Signer(plan, parts.netloc)
        self.body = b""
        self.body_size = 0
        if plan.operation == "put":
            self.body_size = plan.size
            source, whole = random.Random(plan.seed), plan.size + OFFSETS
            pieces = [source.randbytes(min(OFFSETS, whole - at)) for at in range(0, whole, OFFSETS)]
            self.body = b"".join(pieces)  # randbytes makes 256 MiB at most
        self.body_at = array("Q")
        self.ends = array("Q", [0])
        heads = []
        for head in MAKERS[plan.operation](self, plan):
            heads.append(head)
            self.ends.append(self.ends[-1] + len(head))
        self.heads = b"".join(heads)
        if not self.body_at:
            self.body_at.extend([0] * len(heads))

    def puts(self, plan: Plan) -> Iterator[bytes]:
        rng = random.Random(plan.seed)
        for number in range(plan.first, plan.first + plan.count):
            at = number * 977 % OFFSETS
            self.body_at.append(at)
            payload = "UNSIGNED-PAYLOAD"
            if plan.size <= SIGNED_BYTES_MAX:
                payload = hashlib.sha256(memoryview(self.body)[at : at + plan.size]).hexdigest()
            key = rng.randrange(plan.over) if plan.over else number
            target = f"/{plan.bucket}/{key_of(plan.prefix, key)}"
            yield self.signer.head("PUT", target, payload, plan.size)

    def gets(self, plan: Plan) -> Iterator[bytes]:
        numbers = list(range(plan.first, plan.first + plan.count))
        random.Random(plan.seed).shuffle(numbers)
        for number in numbers:
            target = f"/{plan.bucket}/{key_of(plan.prefix, number)}"
            yield self.signer.head("GET", target, EMPTY_SHA256, None)

    def lists(self, plan: Plan) -> Iterator[bytes]:
        """Pages of 1,000 keys from random places; with a delimiter, the folders of the prefix."""
        rng = random.Random(plan.seed)
        prefix = urllib.parse.quote(plan.prefix + "/", safe="")
        starts = max(1, 255 - 1000 * 256 // max(plan.keys, 1))  # folders with a full page after
        for _ in range(plan.count):
            after = urllib.parse.quote(f"{plan.prefix}/{rng.randrange(starts):02x}/", safe="")
            query = "list-type=2&max-keys=1000&prefix=" + prefix + f"&start-after={after}"
            if plan.delimiter:
                delimiter = urllib.parse.quote(plan.delimiter, safe="")
                query = f"delimiter={delimiter}&list-type=2&max-keys=1000&prefix={prefix}"
            yield self.signer.head("GET", f"/{plan.bucket}?{query}", EMPTY_SHA256, None)

    def raws(self, plan: Plan) -> Iterator[bytes]:
        for _ in range(plan.count):
            yield self.signer.head("GET", "/", EMPTY_SHA256, None)


MAKERS: dict[str, Callable[[Requests, Plan], Iterator[bytes]]] = {
    "put": Requests.puts,
    "get": Requests.gets,
    "list": Requests.lists,
    "raw": Requests.raws,
}


# -- the child ----------------------------------------------------------------------------------


def carry_out(plan: Plan) -> dict[str, Any]:
    loop = compiled()
    requests = Requests(plan)
    before = [cpu_seconds(pid) for pid in plan.watch]
    own, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    found: dict[str, Any] = loop.run(
        requests.host,
        requests.port,
        requests.heads,
        requests.ends,
        requests.body,
        requests.body_at,
        requests.body_size,
        plan.connections,
        0.0 if plan.once else plan.warm_s,
        plan.seconds,
        plan.once,
    )
    used, elapsed = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - began
    spent = used.ru_utime + used.ru_stime - own.ru_utime - own.ru_stime
    after = [cpu_seconds(pid) for pid in plan.watch]
    issued = max(found["issued"], 1)
    found["generator_cpu"] = spent / elapsed
    found["watched_us"] = [(b - a) / issued * 1e6 for a, b in zip(before, after, strict=True)]
    found["wrapped"] = found["issued"] > plan.count
    found["sample"] = found["sample"].decode("latin-1")
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all its threads; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def compiled() -> ModuleType:
    """The compiled loop, built if this source was never built here."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ingot-perf"
    suffix = str(sysconfig.get_config_var("EXT_SUFFIX"))
    stamp = hashlib.sha256(SOURCE.read_bytes() + suffix.encode()).hexdigest()[:16]
    library = base / stamp / f"loadgen_c{suffix}"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        code = library.with_name(f"{os.getpid()}.c")
        cython = [sys.executable, "-m", "cython", "-3", str(SOURCE), "-o", str(code)]
        compiler = str(sysconfig.get_config_var("CC") or "cc").split()
        include = sysconfig.get_paths()["include"]
        flags = ["-shared", "-fPIC", "-O2", f"-I{include}", "-o", f"{code}.so", str(code)]
        for command in (cython, [*compiler, *flags]):
            subprocess.run(command, check=True)
        os.replace(f"{code}.so", library)  # whole or not at all, for two builds at once
        code.unlink()
    spec = importlib.util.spec_from_file_location("loadgen_c", library)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    if sys.argv[1:] == ["--plan"]:
        plan = json.load(sys.stdin)
        json.dump(carry_out(Plan(**plan | {"watch": tuple(plan["watch"])})), sys.stdout)
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for each in dataclasses.fields(Plan):
        name = "--" + each.name.replace("_", "-")
        if each.name == "watch":
            parser.add_argument(name, type=int, nargs="*", default=(), metavar="PID")
        elif each.name == "once":
            parser.add_argument(name, action="store_true")
        elif each.default is dataclasses.MISSING:
            parser.add_argument(name, required=each.name == "url", default="raw")
        else:
            parser.add_argument(name, type=type(each.default), default=each.default)
    result = run(Plan(**vars(parser.parse_args())))
    print(f"{result.requests} responses, {result.rate:,.0f}/s, statuses {result.statuses}")
    shares = (0.5, 0.9, 0.99, 0.999)
    print("p50 / p90 / p99 / p99.9 us:", *(f"{result.percentile_us(s):,.0f}" for s in shares))
    print(f"generator {result.generator_cpu:.0%} of a core, CPU a request {result.watched_us}")
    if result.failures:
        print(f"{result.failures} failures, {result.broken} broken; first:\n{result.sample}")


if __name__ == "__main__":
    main()
