"""Binding says what is wrong and what to do; accepting survives what can happen to it."""

from __future__ import annotations

import asyncio
import os
import socket as system

import pytest

from ingot.errors import ConfigError
from ingot.net.listen import Acceptor, bind
from tests.net.waiting import until


@pytest.mark.parametrize(
    ("host", "port", "advice"),
    [
        ("", 0, "no address to listen on"),
        ("127.0.0.1", 65536, "does not exist"),
        ("127.0.0.1", -1, "does not exist"),
        ("192.0.2.1", 0, "this machine has no address"),
        ("no such host.invalid", 0, "cannot resolve"),
        ("x" * 70, 0, "cannot resolve"),
    ],
)
async def test_bad_addresses(host: str, port: int, advice: str) -> None:
    with pytest.raises(ConfigError, match=advice):
        await bind(host, port)


async def test_an_address_in_use() -> None:
    with await bind("127.0.0.1", 0) as first:
        with pytest.raises(ConfigError, match=r"127\.0\.0\.1:\d+ is in use"):
            await bind("127.0.0.1", first.getsockname()[1])


async def test_a_port_that_is_not_permitted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: system.socket, address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(system.socket, "bind", refuse)
    with pytest.raises(ConfigError, match="port above 1023"):
        await bind("127.0.0.1", 80)


async def test_a_failed_bind_leaves_no_descriptor() -> None:
    with await bind("127.0.0.1", 0) as first:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with pytest.raises(ConfigError):
                await bind("127.0.0.1", first.getsockname()[1])
        assert len(os.listdir("/proc/self/fd")) == before


async def test_the_socket_is_as_promised() -> None:
    with await bind("localhost", 0) as sock:
        assert sock.family == system.AF_INET
        assert not sock.get_inheritable() and not sock.getblocking()
        assert sock.getsockopt(system.SOL_SOCKET, system.SO_REUSEADDR)


async def test_ipv6() -> None:
    try:
        sock = await bind("::1", 0)
    except ConfigError:
        pytest.skip("no IPv6 here")
    with sock:
        assert sock.getsockname()[0] == "::1"


class Accepted:
    """Collects what is accepted; everything is closed at the end."""

    def __init__(self) -> None:
        self.sockets: list[system.socket] = []
        self.peers: list[str] = []
        self.shortages: list[OSError] = []

    def take(self, sock: system.socket, peer: str) -> None:
        self.sockets.append(sock)
        self.peers.append(peer)

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


async def test_a_burst_is_accepted_whole() -> None:
    accepted = Accepted()
    sock = await bind("127.0.0.1", 0)
    acceptor = Acceptor(sock, asyncio.get_running_loop(), accepted.take, accepted.shortages.append)
    clients = [system.create_connection(sock.getsockname()) for _ in range(150)]
    await until(lambda: len(accepted.sockets) == 150)
    for taken in accepted.sockets:
        assert not taken.getblocking() and not taken.get_inheritable()
        assert taken.getsockopt(system.IPPROTO_TCP, system.TCP_NODELAY)
    assert set(accepted.peers) == {"127.0.0.1"}
    acceptor.close()
    acceptor.close()
    for client in clients:
        client.close()
    accepted.close()


async def test_closing_from_within_the_callback() -> None:
    accepted = Accepted()
    sock = await bind("127.0.0.1", 0)

    def take(taken: system.socket, peer: str) -> None:
        accepted.take(taken, peer)
        acceptor.close()

    acceptor = Acceptor(sock, asyncio.get_running_loop(), take, accepted.shortages.append)
    clients = [system.create_connection(sock.getsockname()) for _ in range(2)]
    await until(lambda: len(accepted.sockets) == 1)
    for client in clients:
        client.close()
    accepted.close()


async def test_running_out_of_descriptors_is_waited_out() -> None:
    """The real thing: a limit below what is open. The client is served when it is raised again."""
    import resource

    accepted = Accepted()
    sock = await bind("127.0.0.1", 0)
    acceptor = Acceptor(sock, asyncio.get_running_loop(), accepted.take, accepted.shortages.append)
    client = system.socket()
    client.setblocking(False)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        assert client.connect_ex(sock.getsockname()) in (0, 115)
        await until(lambda: len(accepted.shortages) >= 2)
        assert not accepted.sockets
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await until(lambda: len(accepted.sockets) == 1)
    acceptor.close()
    client.close()
    accepted.close()


async def test_closing_during_the_pause() -> None:
    """No timer is left that would watch a closed descriptor."""
    sock = await bind("127.0.0.1", 0)
    shortages: list[OSError] = []

    class Broke(system.socket):
        def accept(self):  # type: ignore[no-untyped-def]
            raise OSError(24, "Too many open files")

    broke = Broke(fileno=sock.detach())
    acceptor = Acceptor(broke, asyncio.get_running_loop(), lambda s, p: None, shortages.append)
    with system.create_connection(broke.getsockname()):
        await until(lambda: bool(shortages))
        acceptor.close()
    assert broke.fileno() == -1
