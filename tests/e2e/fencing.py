"""A gateway that is paused until another has its lease answers nothing any more when it goes on:
``python -m tests.e2e.fencing --rounds 3``. A round takes as long as a lease, 15 s and more.

Both stand before one Postgres, each on a directory of its own: the second's is a copy, as after a
machine was thought dead. What was acknowledged before the pause is all there in the end.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ingot import limits
from ingot.registry.embedded import EmbeddedPostgres
from tests.support.process import Gateway
from tests.support.s3 import S3, Lost, Piece

CLIENTS = 16
BUCKET, LATER = "fencing", "fencing-later"
WAITS = "standby: "
WAIT_S = 60.0


def until(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + limits.LEASE_TTL_S + WAIT_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


class Load:
    """Clients that put and get, for as long as they are answered or not. Times are monotonic."""

    def __init__(self, gateway: Gateway, seed: int) -> None:
        self.gateway, self.seed = gateway, seed
        self.ending = threading.Event()
        self.acknowledged: dict[str, Piece] = {}
        self.sent: list[float] = []  # when what was answered well had been sent
        self.tried: dict[int, float] = {}  # when a client heard last, or heard that nobody is there

    def client(self, number: int) -> None:
        source, s3 = random.Random(self.seed + number), S3(self.gateway.client(), BUCKET)
        for turn in range(1 << 30):
            if self.ending.is_set():
                break
            key, piece = f"{number:02}/{turn:06}", Piece.of(source, source.choice((100, 20_000)))
            sent = time.monotonic()
            try:
                if turn % 3:
                    s3.put(key, piece)
                    self.acknowledged[key] = piece
                else:
                    assert s3.ask("GET", query="location").status == 200
                self.sent.append(sent)
            except Lost:
                self.ending.wait(0.02)  # there may be nobody to ask
            self.tried[number] = time.monotonic()
        s3.close()


def check(gateway: Gateway, acknowledged: dict[str, Piece]) -> None:
    s3 = S3(gateway.client(), BUCKET)
    for key, piece in acknowledged.items():
        assert s3.read(key) == piece.data, f"{key} was acknowledged"
    s3.close()


def run(directory: Path, seed: int) -> str:
    """One round; what was seen. AssertionError where a promise broke."""
    postgres = EmbeddedPostgres(directory / "postgres")
    gateways: list[Gateway] = []

    def start(data: Path) -> Gateway:
        made = Gateway(data, "--postgres", postgres.dsn)
        gateways.append(made)
        return made

    postgres.start_blocking()
    try:
        data, copy = directory / "data", directory / "copy"
        log = directory / "copy.log"
        log.touch()
        first = start(data)
        S3(first.client(), BUCKET).make()
        assert first.stop() == 0
        shutil.copytree(data, copy)
        first = start(data)
        load = Load(first, seed)
        with ThreadPoolExecutor(CLIENTS + 1) as pool:
            working = [pool.submit(load.client, number) for number in range(CLIENTS)]
            try:
                second = pool.submit(start, copy)
                until("it does not wait", lambda: WAITS in log.read_text())
                until("nothing is written", lambda: len(load.acknowledged) > 100)
                pid = first.ready["pid"]
                first.process.send_signal(signal.SIGSTOP)
                stat = Path(f"/proc/{pid}/stat")
                until("it is not paused", lambda: stat.read_text().rpartition(")")[2][1] == "T")
                at = time.monotonic()
                other = second.result(limits.LEASE_TTL_S + WAIT_S)
                took = time.monotonic() - at
                later = S3(other.client(), LATER)
                later.make()
                later.put("k", Piece(0, 20_000))
                first.process.send_signal(signal.SIGCONT)
                resumed = time.monotonic()
                until(
                    "its clients hear nothing",
                    lambda: len(load.tried) == CLIENTS and min(load.tried.values()) > resumed,
                )
                until("it serves on", lambda: first.process.poll() is not None)
                late = [sent for sent in load.sent if sent > at]
                assert not late, f"{len(late)} requests were answered that were sent to it later"
                later.put("k", Piece(1, 20_000))
                assert later.read("k") == Piece(1, 20_000).data
            except BaseException:
                first.process.kill()  # or the other would wait for ever
                raise
            finally:
                load.ending.set()
            for each in working:
                each.result()
        assert other.stop() == 0
        with start(data) as again:
            check(again, load.acknowledged)
        return f"{len(load.acknowledged)} acknowledged, all there; taken over after {took:.1f} s"
    finally:
        for gateway in gateways:
            if gateway.process.poll() is None:
                gateway.stop()
        postgres.stop_blocking()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for number in range(options.rounds):
        directory = Path(tempfile.mkdtemp(prefix="ingot-fencing-"))
        directory.chmod(0o755)
        try:
            said = run(directory, options.seed + number)
        except BaseException:
            print(f"what was left, with the gateways' logs: {directory}", flush=True)
            raise
        shutil.rmtree(directory)
        print(f"round {number + 1}/{options.rounds}: {said}", flush=True)


if __name__ == "__main__":
    main()
