"""Servers on both loops, plain and over TLS, that must leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from tests.listener.harness import Host


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=["plain", "tls"])
def secure(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "tls")


def internet_sockets() -> set[int]:
    """Open descriptors of TCP sockets; the loops keep files and socket pairs of their own."""
    found = set()
    for number in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            if os.readlink(f"/proc/self/fd/{number}").startswith("socket:"):
                with socket.socket(fileno=os.dup(number)) as sock:
                    if sock.family in (socket.AF_INET, socket.AF_INET6):
                        found.add(number)
    return found


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    """Starts servers and opens clients; no task and no descriptor of them may be left."""
    before = internet_sockets()
    tasks = asyncio.all_tasks()
    host = Host()
    yield host
    await host.close()
    for server in host.servers:
        assert server.counters.connections_open == 0
    left = asyncio.all_tasks() - tasks - {asyncio.current_task()}
    assert not [task for task in left if not task.done()]
    assert internet_sockets() == before
