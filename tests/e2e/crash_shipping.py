"""kill -9 of a gateway and of the Forge network before which it stands, at random moments while
clients write and segments ship. ``python -m tests.e2e.crash_shipping --rounds 50 --seed 1``

After every round: what was acknowledged is there, and every block that a forge root reaches is in
the network, whole. At the end: every file was stored once, and nothing else.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from ingot.codec import car, multihash
from ingot.forge import index
from tests.e2e.crash import State, Worker, load_and_kill, verify
from tests.support import forge
from tests.support.client import Answer, Client
from tests.support.process import ACCESS_KEY, SECRET_KEY, DevNetwork, Gateway, make_space
from tests.support.space import Space

CLIENTS = 8
SETTINGS = {
    "INGOT_SEGMENT_BYTES": "1MiB",
    "INGOT_WARM_BYTES": "8MiB",
    "INGOT_SEAL_AGE_S": "0.3",
    "INGOT_UNIT_AGE_S": "0.5",
}


class Patient(Client):
    """Asks again while the network was away for too long to have been heard of."""

    def request(self, *args: Any, **kwargs: Any) -> Answer:
        end = time.monotonic() + 60
        while (answer := super().request(*args, **kwargs)).status == 503:
            assert time.monotonic() < end, answer
            time.sleep(0.1)
        return answer


class Services(threading.Thread):
    """Kills the network and starts it again, until told to stop."""

    def __init__(self, directory: Path, seed: int) -> None:
        super().__init__(daemon=True)
        self.directory, self.random = directory, random.Random(seed)
        self.network = DevNetwork(directory)
        self.kills = 0
        self.ending = threading.Event()

    def run(self) -> None:
        while not self.ending.wait(self.random.uniform(0.1, 1.5)):
            self.network.kill()
            self.kills += 1
            self.ending.wait(self.random.uniform(0.0, 0.5))
            self.network = DevNetwork(self.directory)

    def end(self) -> DevNetwork:
        self.ending.set()
        self.join()
        return self.network


def check_roots(data: Path, space: Space) -> int:
    """Every block that the forge roots reach is in files that are confirmed; how many those are."""
    before = forge.shipped(data)
    confirmed = [digest for digest, (state, *_) in before.files.items() if state == "indexed"]
    space.take(confirmed)
    return space.check_reachable(cid for root in before.roots.values() for cid in root)


def check_once(data: Path, space: Space) -> tuple[int, int]:
    """The space has the files that were shipped, with their indexes, each at one node, and no more;
    how many files and index archives."""
    files, expected = forge.shipped(data).files, set[bytes]()
    assert {state for state, *_ in files.values()} == {"indexed"}, files
    archives = 0
    for digest in files:
        file = space.blob(digest)
        frames = car.frames(file, car.decode_header(file)[1])
        blocks = [(frame.cid[2:], frame.block, frame.end - frame.block) for frame in frames]
        made = index.archives(digest, blocks)
        archives += len(made)
        expected |= {digest, *(multihash.of(archive) for archive in made)}
    registered = space.registered()
    assert registered == expected, (
        f"{len(registered - expected)} blobs too many, {len(expected - registered)} too few"
    )
    twice = [digest for digest, count in Counter(space.accepted()).items() if count > 1]
    assert not twice, f"{len(twice)} blobs are at two nodes"
    return len(files), archives


def run(rounds: int, seed: int, directory: Path, say: bool = False) -> None:
    """AssertionError where a promise broke."""
    rng = random.Random(seed)
    states: dict[str, State] = {}
    data, home = directory / "data", directory / "forge"
    network = DevNetwork(home)
    make_space(data)
    settings = {**SETTINGS, "INGOT_CONFIG": str(network.config)}
    space = Space(home)
    gateway = Gateway(data, **settings)
    assert gateway.client().put("/crash", b"").status == 200
    acknowledged = kills = 0
    for number in range(rounds):
        network.kill()
        services = Services(home, rng.randrange(1 << 30))
        services.start()
        workers = [
            Worker(n, gateway.client(), states, rng.randrange(1 << 30)) for n in range(CLIENTS)
        ]
        done, unsure = load_and_kill(gateway, workers, rng.uniform(0.5, 3.0))
        acknowledged += done
        gateway = Gateway(data, **settings)
        network = services.end()
        kills += services.kills
        client = Patient(gateway.url, ACCESS_KEY, SECRET_KEY)
        verify(client, states, unsure)
        client.close()
        if number % 3 == 2:  # else little would ever be confirmed
            forge.until_shipped(data, 120)
        reached = check_roots(data, space)
        if say:
            now = forge.standing(data)
            print(
                f"round {number + 1}/{rounds}: {acknowledged} acknowledged, all there; network "
                f"killed {kills} times; {sum(now.files.values())} files, watermark {now.watermark} "
                f"of {now.newest}, {reached} blocks reached in the network",
                flush=True,
            )
    forge.until_shipped(data, 120)
    check_roots(data, space)
    files, archives = check_once(data, space)
    client = Patient(gateway.url, ACCESS_KEY, SECRET_KEY)
    verify(client, states, {})
    client.close()
    if say:
        print(f"{files} files and {archives} index archives stored, each once, and nothing else")
    assert gateway.stop() == 0
    network.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="ingot-crash-shipping-"))
    directory.chmod(0o755)
    try:
        run(options.rounds, options.seed, directory, say=True)
    except BaseException:
        print(f"what was left, with the logs: {directory}", flush=True)
        raise
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()
