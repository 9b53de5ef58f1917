"""Large objects and long listings, through boto3. ``python perf/bench_scale.py``: some minutes.

- An object of ``--gib`` GiB in ``--parts`` parts over ``--connections`` connections: how long
  Complete takes after the last part, what it writes to the log, and whether the object reads back
  equal.
- A bucket of ``--folders`` folders with ``--keys`` keys each: every page of 1,000 keys of all of
  it, and the folders of the bucket alone. Two times of each. ``server`` is from the request's last
  byte to the head of its answer: a page's head tells its length, so the page is made by then. To
  the server's own work that adds a loopback's way and http.client's reading of a head, some 0.2 ms.
  ``client`` is from before the request is sent until its answer was read whole. boto3's work on the
  document comes after and is in neither.

Fails where an object differs or a listing is not whole; times are for reading.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
import floors
import loadgen
from botocore.awsrequest import AWSHTTPConnection
from botocore.config import Config
from botocore.httpsession import URLLib3Session
from e2e import BUCKET, RESULTS, Gateway

MIB = 1 << 20
STEP = 4099  # bytes by which the parts of the object lie apart in one random buffer: no two share


def client(gateway: Gateway, connections: int) -> Any:
    """As people make it, but for digests that nobody needs on a loopback connection."""
    return boto3.client(
        "s3",
        endpoint_url=gateway.url,
        aws_access_key_id=gateway.access_key,
        aws_secret_access_key=gateway.secret_key,
        region_name="us-east-1",
        config=Config(
            max_pool_connections=connections,
            request_checksum_calculation="when_required",
            s3={"payload_signing_enabled": False, "addressing_style": "path"},
            read_timeout=600,
        ),
    )


def metric(gateway: Gateway, name: str) -> float:
    """The sum of a figure of the gateway's over all its labels but the stream's."""
    with urllib.request.urlopen(gateway.metrics_url) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


# -- one large object -----------------------------------------------------------------------------


def large(gateway: Gateway, options: argparse.Namespace) -> dict[str, Any]:
    size = (options.gib << 30) // options.parts
    buffer = memoryview(os.urandom(size + STEP * options.parts))
    s3 = client(gateway, options.connections)
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="large")["UploadId"]
    named = {"Bucket": BUCKET, "Key": "large", "UploadId": upload}

    def part(number: int) -> dict[str, Any]:
        at = STEP * number
        body = buffer[at : at + size].tobytes()
        answer = s3.upload_part(**named, PartNumber=number, Body=body)
        return {"PartNumber": number, "ETag": answer["ETag"]}

    began = time.monotonic()
    with ThreadPoolExecutor(options.connections) as pool:
        parts = list(pool.map(part, range(1, options.parts + 1)))
    last = time.monotonic()
    log = 'ingot_segments_bytes{state="open",stream="log"'
    before = metric(gateway, log), metric(gateway, "ingot_local_bytes")
    asked = time.monotonic()
    s3.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})
    done = time.monotonic()
    after = metric(gateway, log), metric(gateway, "ingot_local_bytes")
    ours, theirs = hashlib.sha256(), hashlib.sha256()
    for number in range(1, options.parts + 1):
        ours.update(buffer[STEP * number : STEP * number + size])
    reading = time.monotonic()
    body = s3.get_object(Bucket=BUCKET, Key="large")["Body"]
    while data := body.read(MIB):
        theirs.update(data)
    read = time.monotonic()
    if ours.digest() != theirs.digest():
        raise RuntimeError("the object does not read back equal")
    total = size * options.parts
    s3.delete_object(Bucket=BUCKET, Key="large")
    return {
        "gib": options.gib,
        "parts": options.parts,
        "upload_s": round(last - began, 1),
        "upload_mb_s": round(total / (last - began) / 1e6),
        "complete_ms": round((done - asked) * 1e3, 1),
        "complete_log_bytes": int(after[0] - before[0]),
        "complete_local_bytes": int(after[1] - before[1]),
        "read_mb_s": round(total / (read - reading) / 1e6),
    }


# -- long listings --------------------------------------------------------------------------------


class Times:
    """Seconds of every exchange of boto3's, as its connection and its caller see it."""

    def __init__(self) -> None:
        self.server: list[float] = []
        self.client: list[float] = []

    def spread(self) -> dict[str, Any]:
        return {
            "requests": len(self.client),
            "server": spread(self.server),
            "client": spread(self.client),
        }


@contextlib.contextmanager
def timed() -> Iterator[Times]:
    times = Times()
    whole: Callable[..., Any] = URLLib3Session.send
    head: Callable[..., Any] = AWSHTTPConnection.getresponse

    def send(session: Any, request: Any) -> Any:
        began = time.perf_counter()
        answer = whole(session, request)
        _ = answer.content  # read whole here
        times.client.append(time.perf_counter() - began)
        return answer

    def getresponse(connection: Any) -> Any:  # called when the request has been sent
        began = time.perf_counter()
        answer = head(connection)
        times.server.append(time.perf_counter() - began)
        return answer

    with mock.patch.object(URLLib3Session, "send", send):
        with mock.patch.object(AWSHTTPConnection, "getresponse", getresponse):
            yield times


def fill(gateway: Gateway, options: argparse.Namespace) -> float:
    """Put all the keys; how many a second."""
    began = time.monotonic()
    for folder in range(options.folders):
        result = loadgen.run(
            gateway.plan(
                "put",
                prefix=f"{folder:03d}",
                size=16,
                count=options.keys,
                once=True,
                seconds=3600.0,
                connections=64,
            )
        )
        if result.failures or result.requests != options.keys:
            raise RuntimeError(f"{result.statuses} {result.sample}\n{gateway.said()}")
    return options.folders * options.keys / (time.monotonic() - began)


def spread(times: list[float]) -> dict[str, float]:
    times = sorted(times)
    at = {"p50_ms": 0.5, "p99_ms": 0.99, "max_ms": 1.0}
    return {
        name: round(times[min(len(times) - 1, int(len(times) * share))] * 1e3, 2)
        for name, share in at.items()
    }


def listings(gateway: Gateway, options: argparse.Namespace) -> dict[str, Any]:
    s3 = client(gateway, 1)
    found: dict[str, Any] = {}
    for name in ("first", "again"):  # the first walk fills the cache
        pages, keys = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET), 0
        with timed() as times:
            for page in pages:
                keys += page["KeyCount"]
        if keys != options.folders * options.keys:
            raise RuntimeError(f"{keys} keys listed, {options.folders * options.keys} put")
        found[name] = times.spread()
        print(f"all pages, {name}: {found[name]}", flush=True)
    with timed() as times:
        for _ in range(options.repeat):
            page = s3.list_objects_v2(Bucket=BUCKET, Delimiter="/")
            if len(page["CommonPrefixes"]) != options.folders or page.get("Contents"):
                raise RuntimeError(f"{len(page['CommonPrefixes'])} folders listed")
    found["folders"] = times.spread()
    print(f"the folders: {found['folders']}", flush=True)
    return found


def run(options: argparse.Namespace, directory: Path, dsn: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    gateway = Gateway(
        directory / "data", dsn, None, ["--metrics-listen", "127.0.0.1:0", *options.serve]
    )
    with contextlib.ExitStack() as stack:
        stack.callback(gateway.process.kill)
        gateway.make_bucket()
        if options.gib:
            found["large"] = large(gateway, options)
            print(f"one object: {found['large']}", flush=True)
        if options.keys:
            rate = fill(gateway, options)
            found["keys"] = {"count": options.folders * options.keys, "rate": round(rate)}
            print(f"keys put: {found['keys']}", flush=True)
            found["listings"] = listings(gateway, options)
        found["memory_mib"] = round(gateway.memory_mib())
        gateway.stop()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gib", type=int, default=5, help="size of the object; 0: none")
    parser.add_argument("--parts", type=int, default=640, help="that it is uploaded in")
    parser.add_argument("--connections", type=int, default=16, help="that upload them")
    parser.add_argument("--folders", type=int, default=100, help="of the bucket that is listed")
    parser.add_argument("--keys", type=int, default=10_000, help="in each; 0: no listing")
    parser.add_argument("--repeat", type=int, default=200, help="listings of the folders alone")
    parser.add_argument("--json", type=Path, help="where results go")
    parser.add_argument("--dir", type=Path, default=RESULTS, help="on which disk to work")
    parser.add_argument("serve", nargs="*", help="after --: more arguments for ingot serve")
    options = parser.parse_args()
    options.dir.mkdir(parents=True, exist_ok=True)
    loadgen.compiled()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=options.dir, prefix="tmp-scale-") as name:
        directory = Path(name)
        floors.with_postgres(directory, lambda dsn: found.update(run(options, directory, dsn)))
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
