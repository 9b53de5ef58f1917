"""What a page of a listing costs: ``python perf/bench_listing.py``.

    python perf/bench_listing.py                  10^5 keys, about a minute
    python perf/bench_listing.py --smoke          a moment, for the test suite
    python perf/bench_listing.py --size 100       smaller objects: smaller records

Fills a gateway of its own (real segments, a registry in memory) through its store, then calls the
handlers of the listings as the application does, so that neither a socket nor a client is counted.
Keys are in no order, so that the records of a page lie anywhere in the log. Kinds take turns, so a
machine that slows down slows all of them. Prints a line a kind and one line of JSON, in
microseconds a page: CPU of the process (the least, which a busy machine disturbs little, and p50),
time, and the time of the longest step that held the loop, p50 over the pages. ``first read`` is
after a restart, when every record is hashed; ``walk`` is the tree alone.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from hashlib import blake2b
from typing import Any

from ingot import mst
from ingot.body.ingest import ingest_small
from ingot.bucket.model import BucketConfig
from ingot.bucket.record import Record
from ingot.bucket.store import Store
from ingot.cli import COLLECTOR_THRESHOLDS
from ingot.credentials import Account
from ingot.http.body import NO_BODY
from ingot.messages import Request, Response
from ingot.registry.memory import MemoryRegistry
from ingot.s3.access import Access
from ingot.s3.call import Call
from ingot.s3.listing import ListOperations
from ingot.server import loop_factory
from ingot.testing import Gateway

BUCKET = "perf"
OWNER = Account("PERF", "secret", "0" * 64, "perf")
NOBODY_ELSE = Access({})
FOLDERS = 256
WRITERS = 64


def key_of(number: int) -> bytes:
    """In no order, and in 256 folders: the keys of ``perf/e2e.py``."""
    name = blake2b(b"%d" % number, digest_size=6).hexdigest()
    return f"r1024/{name[:2]}/{name[2:]}-{number:08d}".encode()


async def fill(store: Store, keys: int, size: int) -> None:
    await store.create_bucket(BUCKET, BucketConfig(OWNER.id, OWNER.display_name, 1, "us-east-1"))
    numbers = iter(range(keys))

    async def write() -> None:
        for number in numbers:
            body = ingest_small(random.Random(number).randbytes(size), ("crc64nvme",))
            assert body.md5 is not None
            record = Record(
                key_of(number),
                body,
                body.md5.hex(),
                1_760_000_000_000 + number * 1000,
                {"content-type": "binary/octet-stream"},
                checksums=body.checksums,
            )
            await store.put(store.bucket(BUCKET), record)

    await asyncio.gather(*(write() for _ in range(WRITERS)))


class Steps:
    """Runs a coroutine and notes its longest step."""

    def __init__(self, work: Coroutine[Any, Any, Any]) -> None:
        self.work = work
        self.longest = 0.0

    def __await__(self) -> Generator[Any, Any, Any]:
        while True:
            began = time.perf_counter()
            try:
                waited = self.work.send(None)
            except StopIteration as end:
                return end.value
            finally:
                self.longest = max(self.longest, time.perf_counter() - began)
            yield waited


class Lister:
    """Asks for pages as the application does once a request is authenticated."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.handlers = ListOperations(store).handlers()

    def ask(self, name: str, **parameters: str) -> Coroutine[Any, Any, Response]:
        call = Call(Request("GET", b"/", [], {}, NO_BODY, "-", False), b"0", 0)
        call.bucket, call.account, call.access = BUCKET, OWNER, NOBODY_ELSE
        call.query = [(k.replace("_", "-").encode(), v.encode()) for k, v in parameters.items()]
        if name == "ListObjectsV2":
            call.query.append((b"list-type", b"2"))
        return self.handlers[name](call)


Page = Callable[[int], Coroutine[Any, Any, Any]]


async def measure(pages: int, kinds: dict[str, Page]) -> dict[str, dict[str, float]]:
    took: dict[str, list[tuple[float, float, float]]] = {name: [] for name in kinds}
    for number in range(pages):
        for name, page in kinds.items():
            await asyncio.sleep(0)  # the gateway's turn: a lease to renew, a segment to seal
            began, used = time.perf_counter(), time.process_time()
            steps = Steps(page(number))
            await steps
            used, passed = time.process_time() - used, time.perf_counter() - began
            took[name].append((used * 1e6, passed * 1e6, steps.longest * 1e6))
    found = {}
    for name, all_of_them in took.items():
        cpu, passed_us, step = (sorted(each) for each in zip(*all_of_them, strict=True))
        found[name] = {
            "cpu least": round(cpu[0], 1),
            "cpu p50": round(statistics.median(cpu), 1),
            "time p50": round(statistics.median(passed_us), 1),
            "time p99": round(passed_us[int(pages * 0.99)], 1),
            "step p50": round(statistics.median(step), 1),
        }
    return found


async def warm_pages(store: Store, keys: int, pages: int) -> dict[str, dict[str, float]]:
    """Pages of 1,000 from random folders, which have been listed before."""
    lister = Lister(store)
    rng = random.Random(1)
    last = FOLDERS - 2000 * FOLDERS // keys  # so that a page is full
    starts = [f"r1024/{rng.randrange(last):02x}/" for _ in range(pages)]
    after = {"max_keys": "1000", "prefix": "r1024/"}

    async def walk(number: int) -> None:
        root = store.bucket(BUCKET).head.objects
        start = starts[number].encode()
        mst.page(store._nodes.cache, root, b"r1024/", b"", start, 1000)

    kinds: dict[str, Page] = {
        "page": lambda n: lister.ask("ListObjectsV2", start_after=starts[n], **after),
        "with owner": lambda n: lister.ask("ListObjects", marker=starts[n], **after),
        "url": lambda n: lister.ask(
            "ListObjectsV2", start_after=starts[n], encoding_type="url", **after
        ),
        "folders": lambda n: lister.ask("ListObjectsV2", delimiter="/", **after),
        "walk": walk,
    }
    for number in range(pages):
        await kinds["page"](number)
    for number in range(min(pages, 20)):
        answer, _, _, folders, _ = [await page(number) for page in kinds.values()]
        assert answer.body.count(b"<Contents>") == 1000
        assert folders.body.count(b"<CommonPrefixes>") == FOLDERS
    return await measure(pages, kinds)


async def first_reads(store: Store, keys: int) -> dict[str, dict[str, float]]:
    """All pages in order, each record read for the first time since the start."""
    lister = Lister(store)
    marker = ""

    async def page(_: int) -> None:
        nonlocal marker
        answer = await lister.ask("ListObjects", marker=marker, max_keys="1000")
        assert isinstance(answer.body, bytes)
        *_, last = answer.body.rpartition(b"<Contents><Key>")
        marker = last.partition(b"<")[0].decode()

    return await measure(-(-keys // 1000), {"first read": page})


async def everything(where: str | None, keys: int, size: int, pages: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="tmp-listing-", dir=where) as directory:
        registry = MemoryRegistry()

        async def on_a_gateway(use: Callable[[Store], Awaitable[Any]]) -> Any:
            async with Gateway(registry, data_dir=directory + "/data") as gateway:
                return await use(gateway.server.store)

        async def fill_and_list(store: Store) -> dict[str, Any]:
            await fill(store, keys, size)
            gc.collect()
            gc.freeze()  # as ``ingot serve`` has it
            return await warm_pages(store, keys, pages)

        found: dict[str, Any] = await on_a_gateway(fill_and_list)
        return found | await on_a_gateway(lambda store: first_reads(store, keys))


def main(argv: list[str] | None = None) -> dict[str, dict[str, float]]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=1024, help="bytes of an object")
    parser.add_argument("--pages", type=int, default=300, help="of each kind")
    parser.add_argument("--dir", help="a directory on the disk to measure")
    arguments = parser.parse_args(argv)
    keys, pages = (3_000, 3) if arguments.smoke else (arguments.keys, arguments.pages)
    thresholds = gc.get_threshold()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            found = runner.run(everything(arguments.dir, keys, arguments.size, pages))
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
    for name, figures in found.items():
        line = "   ".join(f"{what} {value:8,.0f}" for what, value in figures.items())
        print(f"{name:<12} us a page:   {line}")
    print(json.dumps({"bench": "listing", "keys": keys, "us": found}))
    return found


if __name__ == "__main__":
    main()
