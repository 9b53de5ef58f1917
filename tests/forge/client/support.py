"""Clients of a network of the test's own, impatient enough for tests."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from ingot.clock import SystemClock
from ingot.forge.blob import BlobRef, FileRange
from ingot.forge.client import ForgeClient, ForgeSettings
from ingot.forge.http import HttpSettings
from ingot.forge.identity import Identity
from ingot.forge.invoker import Service
from ingot.forge.network import Network
from ingot.forge.network.service import Service as NetworkService
from ingot.forge.retry import RetrySettings
from ingot.ports import Clock
from tests.forge.builders import grant
from tests.forge.support import person

QUICK = RetrySettings(tries=3, backoff_s=0.001, backoff_max_s=0.002, polls=5, poll_s=0.001)
ONCE = RetrySettings(tries=1, backoff_s=0.001, backoff_max_s=0.002, polls=1, poll_s=0.001)


def someone(number: int = 1, command: str = "/", expires: int | None = None) -> Identity:
    """An agent that has a right over a space of somebody else's."""
    space, agent = person(number), person(number + 100)
    right = grant(space, agent.did, space.did, command, expires)
    return Identity(agent, space.did, [right])


def http(**more: Any) -> HttpSettings:
    return HttpSettings(**{"insecure": True, "breaker_failures": 1000, **more})


def settings_of(network: Network, **more: Any) -> ForgeSettings:
    indexer = network.indexer
    fields: dict[str, Any] = {
        "upload": service_of(network.upload),
        "indexer": service_of(indexer) if indexer is not None else None,
        "http": http(),
        "retry": QUICK,
    }
    return ForgeSettings(**(fields | more))


def service_of(service: NetworkService) -> Service:
    return Service(service.did, service.url)


def client_of(
    network: Network, identity: Identity | None = None, clock: Clock | None = None, **more: Any
) -> ForgeClient:
    return ForgeClient(settings_of(network, **more), identity or someone(), clock or SystemClock())


class HandClock(SystemClock):
    """Its monotonic time stands still until a test moves it."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@contextmanager
def source_of(data: bytes, before: bytes = b"head") -> Iterator[FileRange]:
    """The bytes as a range in the middle of a file."""
    with tempfile.TemporaryFile() as file:
        file.write(before + data + b"tail")
        file.flush()
        yield FileRange(file.fileno(), len(before), len(data))


async def store(client: ForgeClient, data: bytes) -> Any:
    with source_of(data) as source:
        return await client.upload.add(BlobRef.of(data), source)


def noise(length: int) -> bytes:
    return os.urandom(length)


class Server:
    """One handler for every request; ``url`` once it listens."""

    def __init__(self) -> None:
        self.handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        self.url = ""
        self.requests: list[web.Request] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        return await self.handler(request)
