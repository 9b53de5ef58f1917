"""The cap of connections, running out of descriptors, and what a host sees when it cannot start."""

from __future__ import annotations

import asyncio
import gc
import resource
import socket as system
import weakref

import pytest

from ingot.errors import ConfigError
from ingot.listener import HttpServer
from tests.listener.harness import Client, Host, Site, put, request
from tests.net.waiting import until


async def busy(host: Host, server: HttpServer, site: Site, count: int) -> list[Client]:
    """Connections that wait for their answers until ``site.gate`` is set."""
    clients = [await host.connect(server) for _ in range(count)]
    for client in clients:
        await client.send(request(b"GET", b"/held"))
    await until(lambda: site.waiting == count)
    return clients


async def test_over_the_cap_the_answer_is_slow_down(host: Host) -> None:
    """HTTP-7."""
    site = Site()
    server = await host.serve(site, connections_max=3, linger_stall_s=0.1)
    clients = await busy(host, server, site, 3)
    over = await host.connect(server)
    answer = await over.answer()
    assert (answer.status, answer.headers[b"connection"]) == (503, b"close")
    assert answer.headers[b"retry-after"] == b"1"
    assert await over.ended() == b""
    site.gate.set()
    for client in clients:
        assert (await client.answer()).status == 200
    await clients.pop().close()
    await until(lambda: server.counters.connections_open <= 2)
    assert (await (await host.connect(server)).get()).status == 200
    assert server.counters.connections_refused == 1
    assert server.counters.connections_displaced == 0


async def test_over_the_cap_the_longest_idle_makes_room(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever opens connections and says nothing, or half of a request, keeps nobody out."""
    site = Site()
    server = await host.serve(site, connections_max=4)
    working = await busy(host, server, site, 1)
    silent = [await host.connect(server) for _ in range(3)]
    await until(lambda: server.counters.connections_open == 4)
    await silent[1].send(b"GET /hel")
    for _ in range(5):
        client = await host.connect(server)
        assert (await client.get()).status == 200
    assert all([await client.ended() == b"" for client in silent])
    site.gate.set()
    assert (await working[0].answer()).status == 200
    assert server.counters.connections_refused == 0
    assert server.counters.connections_displaced == 5
    assert server.counters.connections_open == 4
    assert caplog.text.count("idle longest") == 1


async def test_a_refused_client_that_sent_its_request_sees_the_answer(host: Host) -> None:
    site = Site()
    server = await host.serve(site, connections_max=1)
    await busy(host, server, site, 1)
    over = await host.connect(server)
    await over.send(request(b"PUT", b"/take", b"Content-Length: 1000000"), b"x" * 1_000_000)
    assert (await over.answer()).status == 503
    site.gate.set()


async def test_refusals_have_a_bound_too(host: Host) -> None:
    site = Site()
    server = await host.serve(site, connections_max=1, refusals_max=2)
    (first,) = await busy(host, server, site, 1)
    socks = [host.raw(server) for _ in range(10)]
    await until(lambda: server.counters.connections_refused == 10)
    assert server.counters.connections_open <= 3
    ends = [await asyncio.to_thread(read_all, sock) for sock in socks]
    assert sum(end.startswith(b"HTTP/1.1 503") for end in ends) >= 2
    site.gate.set()
    assert (await first.answer()).status == 200


def read_all(sock: system.socket) -> bytes:
    got = b""
    try:
        while part := sock.recv(4096):
            got += part
    except ConnectionResetError:
        pass
    finally:
        sock.close()
    return got


async def test_over_the_cap_tls_is_closed_at_once(host: Host) -> None:
    site = Site()
    server = await host.serve(site, True, connections_max=1)
    (first,) = await busy(host, server, site, 1)
    with pytest.raises(OSError):
        await host.connect(server)
    site.gate.set()
    assert (await first.answer()).status == 200


async def test_running_out_of_descriptors_ends_nothing(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    server = await host.serve(Site())
    old = await host.connect(server)
    await old.get()
    late = system.socket()
    late.setblocking(False)
    host.sockets.append(late)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        late.connect_ex(server.address)
        await until(lambda: server.counters.accept_failures > 0)
        assert (await old.get()).status == 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await until(lambda: server.counters.connections_open == 2)
    assert "raise the limit of open files" in caplog.text
    reader, writer = await asyncio.open_connection(sock=late)
    client = Client(reader, writer)
    host.clients.append(client)
    assert (await client.get()).status == 200


async def test_an_address_in_use_is_a_config_error(host: Host) -> None:
    server = await host.serve(Site())
    second = HttpServer(Site())
    with pytest.raises(ConfigError, match="in use"):
        await second.start(*server.address)
    await second.close()  # nothing was started, and closing says nothing
    assert (await (await host.connect(server)).get()).status == 200


async def test_the_address_can_be_used_again_at_once(host: Host) -> None:
    server = await host.serve(Site())
    client = await host.connect(server)
    await client.get()
    await server.close()
    again = HttpServer(Site())
    await again.start(*server.address)
    await again.close()


async def test_a_closed_connection_is_freed_without_the_collector(host: Host) -> None:
    """No cycle keeps a connection's buffers until the next collection."""
    server = await host.serve(Site())
    gc.collect()
    gc.disable()
    try:
        client = await host.connect(server)
        for path in (b"/hello", b"/later", b"/stream?3,100000"):
            await client.get(path)
        await client.send(put(b"/echo", b"x" * 100_000))
        await client.answer()
        (connection,) = server._shared.connections  # type: ignore[union-attr]
        watched = weakref.ref(connection._socket)
        del connection
        await client.close()
        await until(lambda: server.counters.connections_open == 0)
        assert watched() is None
    finally:
        gc.enable()


async def test_two_servers_share_nothing(host: Host) -> None:
    one, two = await host.serve(Site()), await host.serve(Site(), connections_max=1)
    first, second = await host.connect(one), await host.connect(two)
    assert (await first.get()).status == (await second.get()).status == 200
    await one.close()
    assert (await second.get()).status == 200
    assert (one.counters.requests, two.counters.requests) == (1, 2)
