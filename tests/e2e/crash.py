"""kill -9 rounds: 64 clients put and delete, and some tag a bucket of their own, while the gateway
is killed; then everything that was acknowledged must be there.
``python -m tests.e2e.crash --rounds 50 --seed 1``
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support.client import Client
from tests.support.process import Gateway

CLIENTS = 64
TAGGERS = 4
KEYS_PER_CLIENT = 12
SIZES = (0, 1, 100, 1024, 4096, 4097, 20_000, 65_536, 65_537, 300_000, 1_048_577)

State = bytes | None  # sha256 of the body, None: absent


class Worker(threading.Thread):
    """Owns its keys, and the tags of a bucket where one is named, so that their last acknowledged
    state and what is in flight are known. The state of ``?bucket`` is its tags'."""

    def __init__(
        self, number: int, client: Client, states: dict[str, State], seed: int, tagged: str = ""
    ) -> None:
        super().__init__(daemon=True)
        self.number, self.client, self.states = number, client, states
        self.random = random.Random(seed)
        self.tagged = tagged
        self.in_flight: tuple[str, State] | None = None
        self.acknowledged = 0
        self.wrong = ""

    def run(self) -> None:
        try:
            while True:
                self.step()
        except (OSError, http.client.HTTPException):
            pass  # the gateway was killed
        finally:
            self.client.close()

    def step(self) -> None:
        key = f"c{self.number:02}/k{self.random.randrange(KEYS_PER_CLIENT):02}"
        if self.tagged and self.random.random() < 0.5:
            key, value = f"?{self.tagged}", str(self.random.randrange(1 << 30))
            self.in_flight = (key, value.encode())
            answer = self.client.put_tag(self.tagged, value)
            expected = 204
        elif self.random.random() < 0.25:
            self.in_flight = (key, None)
            answer = self.client.delete(f"/crash/{key}")
            expected = 204
        else:
            body = self.random.randbytes(self.random.choice(SIZES))
            self.in_flight = (key, hashlib.sha256(body).digest())
            answer = self.client.put(f"/crash/{key}", body)
            expected = 200
        if answer.status == expected:
            self.states[self.in_flight[0]] = self.in_flight[1]
            self.in_flight = None
            self.acknowledged += 1
        elif answer.status != 503:
            self.wrong = f"{key}: {answer.status} {answer.body[:300]!r}"


def verify(client: Client, states: dict[str, State], unsure: dict[str, State]) -> None:
    """Every acknowledged state stands; a request in flight may have happened or not."""
    listed = client.list_all("crash")
    for key in sorted(set(states) | set(unsure) | set(listed)):
        if key.startswith("?"):
            tag = client.get_tag(key[1:])
            found = None if tag is None else tag.encode()
            assert found in (states.get(key), unsure.get(key, states.get(key))), f"{key}: {tag}"
            states[key] = found
            continue
        answer = client.get(f"/crash/{key}")
        assert answer.status in (200, 404), (key, answer)
        found = hashlib.sha256(answer.body).digest() if answer.status == 200 else None
        allowed = {states.get(key)}
        if key in unsure:
            allowed.add(unsure[key])
        assert found in allowed, f"{key}: found {found and found.hex()}, allowed {allowed}"
        assert (key in listed) == (found is not None), f"{key}: the listing disagrees"
        states[key] = found


def load_and_kill(
    gateway: Gateway, workers: Sequence[Worker], seconds: float
) -> tuple[int, dict[str, State]]:
    """Run the load for so long, then kill -9: how many requests were acknowledged, and what was in
    flight."""
    for worker in workers:
        worker.start()
    time.sleep(seconds)  # how long the load runs, not what it waits for
    gateway.kill()
    for worker in workers:
        worker.join()
    wrong = [worker.wrong for worker in workers if worker.wrong]
    assert not wrong, wrong[0]
    unsure = dict(worker.in_flight for worker in workers if worker.in_flight is not None)
    return sum(worker.acknowledged for worker in workers), unsure


def run(rounds: int, seed: int, directory: Path, say: bool = False) -> list[float]:
    """Returns the start-up times in seconds. AssertionError where a promise broke."""
    rng = random.Random(seed)
    states: dict[str, State] = {}
    data, starts, acknowledged = directory / "data", [], 0
    gateway = Gateway(data)
    tagged = [f"crash-{n}" if n < TAGGERS else "" for n in range(CLIENTS)]
    for bucket in ("crash", *tagged[:TAGGERS]):
        assert gateway.client().put(f"/{bucket}", b"").status == 200
    for number in range(rounds):
        workers = [
            Worker(n, gateway.client(), states, rng.randrange(1 << 30), tagged[n])
            for n in range(CLIENTS)
        ]
        done, unsure = load_and_kill(gateway, workers, rng.uniform(0.2, 1.0))
        acknowledged += done
        gateway = Gateway(data)
        starts.append(gateway.start_s)
        client = gateway.client()
        verify(client, states, unsure)
        client.close()
        if say:
            print(
                f"round {number + 1}/{rounds}: {acknowledged} acknowledged, {len(unsure)} were in "
                f"flight, start {gateway.start_s:.2f} s, all there",
                flush=True,
            )
    assert gateway.stop() == 0
    return starts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="ingot-crash-"))
    directory.chmod(0o755)
    try:
        starts = run(options.rounds, options.seed, directory, say=True)
    except BaseException:
        print(f"what was left, with the gateway's log: {directory}", flush=True)
        raise
    shutil.rmtree(directory)
    print(
        f"{options.rounds} rounds; starts: median {sorted(starts)[len(starts) // 2]:.2f} s, "
        f"slowest {max(starts):.2f} s"
    )


if __name__ == "__main__":
    main()
