"""Much more than the local disk may hold goes through a gateway into a Forge network, and comes
back byte for byte; also once disk and database are lost.
``python -m tests.e2e.tiers --bytes 2GiB --budget 64MiB``
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ingot.config import parse_size
from ingot.limits import MIB
from tests.support import forge
from tests.support.client import Client
from tests.support.process import INGOT, DevNetwork, Gateway, make_space

CLIENTS = 8
SIZES = (0, 1, 1000, 4096, 4097, 20_000, 65_536, 65_537, 300_000, MIB, MIB + 1, 3_000_000)
LARGE = 40_000_000  # one object in so many bytes is this large


def content(seed: int, number: int, size: int) -> bytes:
    return random.Random(f"{seed}/{number}").randbytes(size)


def sizes(seed: int, total: int) -> list[int]:
    """Sizes of mixed objects that come to ``total`` bytes or a little more."""
    source, made = random.Random(seed), list[int]()
    while total > 0:
        made.append(LARGE if source.random() < 0.004 else source.choice(SIZES))
        total -= made[-1]
    return made


def each(gateway: Gateway, numbers: Iterator[int], work: Callable[[Client, int], None]) -> None:
    """``work`` for all numbers, by ``CLIENTS`` clients with a connection each."""
    own = threading.local()

    def one(number: int) -> None:
        if not hasattr(own, "client"):
            own.client = gateway.client()
        work(own.client, number)

    with ThreadPoolExecutor(CLIENTS) as pool:
        for _ in pool.map(one, numbers):
            pass


class Run:
    """``directory`` gets the gateway's data and the network's."""

    def __init__(self, directory: Path, total: int, budget: int, segment: int, seed: int) -> None:
        self.data, self.seed, self.budget, self.total = directory / "data", seed, budget, total
        self.sizes = sizes(seed, total)
        self.network = DevNetwork(directory / "forge")
        make_space(self.data)
        self.settings = {
            "INGOT_CONFIG": str(self.network.config),
            "INGOT_WARM_BYTES": str(budget),
            "INGOT_SEGMENT_BYTES": str(segment),
            "INGOT_UNIT_AGE_S": "5",
        }
        self.gateway = Gateway(self.data, **self.settings)
        self.highest = 0

    def fill(self) -> float:
        """Put everything; seconds it took."""
        client = self.gateway.client()
        assert client.put("/tiers", b"").status == 200
        began = time.monotonic()

        def put(client: Client, number: int) -> None:
            answer = client.put(
                f"/tiers/{number:06}", content(self.seed, number, self.sizes[number])
            )
            assert answer.status == 200, answer
            if number % 50 == 0:
                self.highest = max(self.highest, forge.segment_bytes(self.data))

        each(self.gateway, iter(range(len(self.sizes))), put)
        return time.monotonic() - began

    def settle(self, limit_s: float) -> int:
        """Wait until all is shipped and what is here is within the budget; the bytes here."""
        forge.until_shipped(self.data, limit_s)
        end = time.monotonic() + limit_s
        while (here := forge.segment_bytes(self.data)) > self.budget:
            assert time.monotonic() < end, f"{here} bytes are here, {self.budget} may be"
            time.sleep(0.2)
        return here

    def check(self) -> float:
        """Get everything and compare; seconds it took."""
        began = time.monotonic()

        def get(client: Client, number: int) -> None:
            answer = client.get(f"/tiers/{number:06}")
            assert answer.status == 200, (number, answer.status, answer.body[:300])
            expected = content(self.seed, number, self.sizes[number])
            assert answer.body == expected, f"object {number} of {len(expected)} bytes differs"

        each(self.gateway, iter(range(len(self.sizes))), get)
        return time.monotonic() - began

    def restart(self) -> None:
        assert self.gateway.stop() == 0
        self.gateway = Gateway(self.data, **self.settings)

    def lose_and_restore(self) -> tuple[float, str]:
        """Delete data directory and database, all but the identity, and bring them back from the
        network; seconds it took, and the last thing that was said."""
        assert self.gateway.stop() == 0
        keys = self.data.parent / "keys"
        shutil.move(self.data / "forge", keys)
        shutil.rmtree(self.data)
        self.data.mkdir(mode=0o700)
        shutil.move(keys, self.data / "forge")
        began = time.monotonic()
        done = subprocess.run(
            [*INGOT, "restore", "--from-forge", "--data-dir", str(self.data)],
            env={**os.environ, **self.settings},
            capture_output=True,
            text=True,
        )
        took = time.monotonic() - began
        assert done.returncode == 0, done.stdout + done.stderr
        self.gateway = Gateway(self.data, **self.settings)
        (said,) = [line for line in done.stdout.splitlines() if line.startswith("restored: ")]
        return took, said

    def close(self) -> None:
        self.gateway.stop()
        self.network.kill()


def mib(count: float) -> str:
    return f"{count / MIB:.0f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", type=parse_size, default=parse_size("2GiB"))
    parser.add_argument("--budget", type=parse_size, default=parse_size("64MiB"))
    parser.add_argument("--segment", type=parse_size, default=parse_size("8MiB"))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="ingot-tiers-"))
    directory.chmod(0o755)
    run = Run(directory, options.bytes, options.budget, options.segment, options.seed)
    written = sum(run.sizes)
    took = run.fill()
    print(
        f"{len(run.sizes)} objects, {mib(written)} put in {took:.0f} s ({mib(written / took)}/s) "
        f"while shipping ran; segment files took {mib(run.highest)} at most",
        flush=True,
    )
    began = time.monotonic()
    here = run.settle(600)
    now = forge.standing(run.data)
    print(
        f"all shipped and within the budget {time.monotonic() - began:.0f} s later: {mib(here)} of "
        f"segment files here, {now.files['indexed']} files of {mib(now.bytes['indexed'])} there",
        flush=True,
    )
    for when in ("from the network", "after a restart"):
        took = run.check()
        print(
            f"every object read back equal {when}: {took:.0f} s, {mib(written / took)}/s",
            flush=True,
        )
        if when == "from the network":
            run.restart()
    took, said = run.lose_and_restore()
    print(
        f"disk and database deleted, restored from the network in {took:.1f} s: {said}", flush=True
    )
    took = run.check()
    print(f"every object read back equal after that: {took:.0f} s, {mib(written / took)}/s")
    assert forge.segment_bytes(run.data) <= options.budget
    run.close()
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()
