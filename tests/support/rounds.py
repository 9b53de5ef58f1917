"""Rounds of kill -9: clients work on a real gateway, it is killed at a random moment and started
again, and what each client knows must be so. Then the same store goes on.

A ``Scenario`` has actors. An actor is one client: it owns what it works on, so that it knows the
acknowledged state of each thing, and the one request (or the few at once) that was under way when
the connection died. What was under way may have happened, whole, or not.
"""

from __future__ import annotations

import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.client import Client
from tests.support.process import Gateway
from tests.support.s3 import Lost

CHECKERS = 8  # actors whose knowledge is checked at a time


class Actor(ABC):
    """One client. It lives over restarts; ``begin`` gives it the gateway that there is now."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.random = random.Random(seed)
        self.acknowledged = 0
        self.gateway: Gateway | None = None

    def connect(self) -> Client:
        assert self.gateway is not None
        return self.gateway.client()

    @abstractmethod
    def begin(self, gateway: Gateway) -> None: ...

    @abstractmethod
    def end(self) -> None:
        """Close what ``begin`` opened."""

    @abstractmethod
    def step(self) -> None:
        """Ask for something. Lost where it is not known what became of it."""

    @abstractmethod
    def verify(self) -> None:
        """All that is acknowledged stands; what was under way is settled, for good."""


class Scenario(ABC):
    """``settings`` are environment variables of the gateway. ``fewer``: so many times fewer clients
    than a long run has."""

    name = ""
    settings: dict[str, str] = {}
    load_s = (1.0, 3.0)  # how long the load runs until the gateway is killed

    def __init__(self, seed: int, fewer: int = 1) -> None:
        self.actors: list[Actor] = []

    @abstractmethod
    def prepare(self, client: Client) -> None:
        """Make the buckets."""

    def finish(self) -> None:
        """What can only be said after the last restart; the actors have begun."""
        return

    @abstractmethod
    def figures(self) -> str:
        """What was done up to here."""


def run(
    scenarios: Sequence[Scenario],
    rounds: int,
    seed: int,
    directory: Path,
    load_s: tuple[float, float],
    say: bool = False,
) -> list[float]:
    """All scenarios at once, on one store. Returns the times of the starts in seconds.
    AssertionError where a promise broke."""
    rng = random.Random(seed)
    settings = {name: value for each in scenarios for name, value in each.settings.items()}
    actors = [actor for each in scenarios for actor in each.actors]
    data, starts = directory / "data", list[float]()
    gateway = Gateway(data, **settings)
    try:
        client = gateway.client()
        for scenario in scenarios:
            scenario.prepare(client)
        client.close()
        for number in range(rounds):
            lost = _load_and_kill(gateway, actors, rng.uniform(*load_s))
            gateway = Gateway(data, **settings)
            starts.append(gateway.start_s)
            _each(gateway, actors)
            if say:
                print(
                    f"round {number + 1}/{rounds}: {lost} of {len(actors)} were under way, start "
                    f"{gateway.start_s:.2f} s; {'; '.join(s.figures() for s in scenarios)}",
                    flush=True,
                )
        for actor in actors:
            actor.begin(gateway)
        for scenario in scenarios:
            scenario.finish()
        for actor in actors:
            actor.end()
        assert gateway.stop() == 0
        idle = [actor.name for actor in actors if not actor.acknowledged]
        assert len(idle) < len(actors), "nothing was acknowledged"
    finally:
        if gateway.process.poll() is None:
            gateway.stop()  # and its Postgres with it
    return starts


def _load_and_kill(gateway: Gateway, actors: Sequence[Actor], seconds: float) -> int:
    """How many actors had something under way that they heard no more of."""
    ended: list[BaseException] = []
    killed = threading.Event()

    def work(actor: Actor) -> None:
        actor.begin(gateway)
        try:
            while not killed.is_set():
                actor.step()
        except BaseException as error:
            ended.append(error)
        finally:
            actor.end()

    threads = [threading.Thread(target=work, args=(actor,), daemon=True) for actor in actors]
    for thread in threads:
        thread.start()
    time.sleep(seconds)  # how long the load runs, not what it waits for
    assert gateway.process.poll() is None, "the gateway ended by itself"
    gateway.kill()
    killed.set()
    for thread in threads:
        thread.join()
    for error in ended:
        if not isinstance(error, Lost):
            raise error
    return len(ended)


def _each(gateway: Gateway, actors: Sequence[Actor]) -> None:
    def check(actor: Actor) -> None:
        actor.begin(gateway)
        try:
            actor.verify()
        finally:
            actor.end()

    with ThreadPoolExecutor(CHECKERS) as pool:
        list(pool.map(check, actors))
