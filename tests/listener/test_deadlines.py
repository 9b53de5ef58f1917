"""Slow peers (HTTP-6): every wait ends, with an answer where one is due. Deadlines are shrunken."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket as system

import pytest

from ingot.messages import Request, Response
from tests.listener.harness import Host, Site, chunked, put, request
from tests.net.waiting import until

SHORT_S = 0.1


async def test_an_idle_connection_is_closed_without_a_word(host: Host, secure: bool) -> None:
    server = await host.serve(Site(), secure, idle_deadline_s=SHORT_S)
    client = await host.connect(server)
    assert await client.ended() == b""
    client = await host.connect(server)
    await client.get()
    assert await client.ended() == b""
    assert server.counters.deadlines_missed == 2


async def test_a_connection_in_use_is_not_idle(host: Host) -> None:
    server = await host.serve(Site(), idle_deadline_s=SHORT_S)
    client = await host.connect(server)
    end = asyncio.get_running_loop().time() + 3 * SHORT_S
    while asyncio.get_running_loop().time() < end:
        assert (await client.get()).status == 200


@pytest.mark.parametrize("sent", [b"G", b"GET /hello HTTP/1.1\r\nHost: h\r\nX-A: b\r\n"])
async def test_a_head_that_never_ends(host: Host, secure: bool, sent: bytes) -> None:
    server = await host.serve(Site(), secure, header_deadline_s=SHORT_S)
    client = await host.connect(server)
    await client.send(sent)
    answer = await client.answer()
    assert (answer.status, answer.headers[b"connection"]) == (408, b"close")
    assert await client.ended() == b""


async def test_a_dripping_head_gains_no_time(host: Host) -> None:
    """The deadline counts from the first byte, however many follow."""
    server = await host.serve(Site(), header_deadline_s=SHORT_S, idle_deadline_s=60)
    client = await host.connect(server)
    await client.get()

    async def drip() -> None:
        await client.send(b"GET / HTTP/1.1\r\n")
        while True:
            await client.send(b"X: y\r\n")
            await asyncio.sleep(SHORT_S / 10)

    dripping = asyncio.ensure_future(drip())
    answer = await client.answer()
    dripping.cancel()
    assert answer.status == 408


@pytest.mark.parametrize("drops", [[b"\r\n"], [b"\r", b"\n"]])
async def test_empty_lines_alone_gain_no_time(host: Host, drops: list[bytes]) -> None:
    server = await host.serve(
        Site(), idle_deadline_s=SHORT_S, header_deadline_s=SHORT_S, linger_deadline_s=SHORT_S
    )
    client = await host.connect(server)

    async def drip() -> None:
        for drop in itertools.cycle(drops):
            await client.send(drop)
            await asyncio.sleep(SHORT_S / 10)

    dripping = asyncio.ensure_future(drip())
    await until(lambda: server.counters.connections_open == 1)
    await until(lambda: server.counters.connections_open == 0)
    dripping.cancel()
    with contextlib.suppress(asyncio.CancelledError, OSError, RuntimeError):
        await dripping


async def test_a_head_behind_an_empty_line_has_its_deadline_too(host: Host) -> None:
    server = await host.serve(Site(), header_deadline_s=SHORT_S, idle_deadline_s=60)
    client = await host.connect(server)
    for drop in (b"\r", b"\n", request(b"GET", b"/hello")):
        before = server.counters.bytes_in
        await client.send(drop)
        await until(lambda seen=before: server.counters.bytes_in > seen)  # type: ignore[misc]
    assert (await client.answer()).status == 200
    await client.send(b"GET /")
    assert (await client.answer()).status == 408


@pytest.mark.parametrize("path", [b"/take", b"/echo?10"])
@pytest.mark.parametrize("coded", [False, True])
async def test_a_body_that_stalls(host: Host, secure: bool, path: bytes, coded: bool) -> None:
    site = Site()
    server = await host.serve(site, secure, body_stall_s=SHORT_S)
    client = await host.connect(server)
    wire = chunked(path, b"x" * 100) if coded else put(path, b"x" * 100)
    await client.send(wire[:-50])
    answer = await client.answer()
    assert answer.headers[b"x-error"] == b"RequestTimeout"
    assert answer.headers[b"connection"] == b"close"
    assert await client.ended() == b""
    assert site.errors == ["RequestTimeout"]


async def test_a_body_that_never_starts_after_its_continue(host: Host) -> None:
    server = await host.serve(Site(), body_stall_s=SHORT_S)
    client = await host.connect(server)
    await client.send(request(b"PUT", b"/take", b"Content-Length: 5", b"Expect: 100-continue"))
    assert (await client.head()).status == 100
    assert (await client.answer()).headers[b"x-error"] == b"RequestTimeout"


async def test_a_body_that_drips_is_held_to_the_minimum_rate(host: Host) -> None:
    site = Site()
    server = await host.serve(site, body_stall_s=SHORT_S, body_rate_min=100_000)
    client = await host.connect(server)
    await client.send(
        put(b"/echo?10", b"")[:-4].replace(b"Length: 0", b"Length: 999999") + b"\r\n\r\n"
    )

    async def drip() -> None:
        while True:
            await client.send(b"x")
            await asyncio.sleep(SHORT_S / 10)

    dripping = asyncio.ensure_future(drip())
    assert (await client.answer()).headers[b"x-error"] == b"RequestTimeout"
    dripping.cancel()
    assert site.errors == ["RequestTimeout"]


async def test_a_slow_server_is_not_the_clients_fault(host: Host) -> None:
    """Only time spent waiting for bytes counts towards stall and rate."""
    gate = asyncio.Event()

    async def handler(request: Request) -> Response:
        view = memoryview(bytearray(10))
        await request.body.readinto(view)
        await gate.wait()
        return Response(200, [], await request.body.read(100))

    server = await host.serve(handler, body_stall_s=SHORT_S, body_rate_min=1 << 30)
    client = await host.connect(server)
    await client.send(put(b"/", b"x" * 50))
    asyncio.get_running_loop().call_later(3 * SHORT_S, gate.set)
    assert (await client.answer()).body == b"x" * 40


async def test_a_client_that_stops_reading_is_given_up(host: Host) -> None:
    closed = asyncio.Event()

    async def handler(request: Request) -> Response:
        async def pieces():  # type: ignore[no-untyped-def]
            try:
                while True:
                    yield b"x" * (1 << 20)
            finally:
                closed.set()

        return Response(200, [], pieces(), length=1 << 40)

    server = await host.serve(handler, send_stall_s=SHORT_S)
    sock = host.raw(server, receive_buffer=65536)
    sock.send(request(b"GET", b"/"))
    async with asyncio.timeout(10):
        await closed.wait()
    await until(lambda: server.counters.connections_open == 0)
    assert server.counters.deadlines_missed == 1


async def test_the_rest_of_a_refused_body_is_waited_for_in_bounds(host: Host) -> None:
    server = await host.serve(Site(), drain_deadline_s=SHORT_S, linger_deadline_s=SHORT_S)
    client = await host.connect(server)
    await client.send(put(b"/refuse", b"x" * 100)[:-50])
    assert (await client.answer()).status == 403
    assert await client.ended() == b""
    await until(lambda: server.counters.connections_open == 0)


async def test_a_client_that_goes_on_sending_after_the_end_is_given_up(host: Host) -> None:
    """Discarding has a total deadline: endless bytes do not extend it."""
    server = await host.serve(Site(), linger_deadline_s=SHORT_S)
    client = await host.connect(server)

    async def flood() -> None:
        await client.send(request(b"PUT", b"/refuse", b"Content-Length: 999999999999"))
        while True:
            await client.send(b"x" * 65536)

    flooding = asyncio.ensure_future(flood())
    assert (await client.answer()).status == 403
    await until(lambda: server.counters.connections_open == 0)
    with pytest.raises(OSError):
        await flooding


async def test_a_refused_client_that_does_nothing_is_given_up_sooner(host: Host) -> None:
    server = await host.serve(Site(), linger_stall_s=SHORT_S, linger_deadline_s=60)
    client = await host.connect(server)
    await client.send(request(b"PUT", b"/refuse", b"Content-Length: 999999999"))
    assert (await client.answer()).status == 403
    await until(lambda: server.counters.connections_open == 0)


async def test_a_handshake_that_never_comes(host: Host) -> None:
    server = await host.serve(Site(), True, handshake_deadline_s=SHORT_S)
    sock = host.raw(server)
    await until(lambda: server.counters.connections_open == 1)
    await until(lambda: server.counters.connections_open == 0)
    assert sock.recv(1) == b""


async def test_a_handshake_with_something_else(host: Host) -> None:
    server = await host.serve(Site(), True)
    sock = host.raw(server)
    sock.send(request(b"GET", b"/hello"))
    await until(lambda: server.counters.connections_accepted == 1)
    await until(lambda: server.counters.connections_open == 0)
    with contextlib.suppress(ConnectionResetError):
        assert not sock.recv(100).startswith(b"HTTP")
    assert server.counters.requests == 0


async def test_no_timer_runs_without_connections(host: Host) -> None:
    server = await host.serve(Site(), idle_deadline_s=SHORT_S)
    client = await host.connect(server)
    await until(lambda: server._timer is not None)
    await client.ended()
    await until(lambda: server._timer is None)
    client = await host.connect(server)  # and it comes back
    assert await client.ended() == b""


async def test_a_half_open_connection_is_not_kept_for_ever(host: Host) -> None:
    """The peer vanished without a packet; the idle deadline is what finds out."""
    server = await host.serve(Site(), idle_deadline_s=SHORT_S)
    sock = host.raw(server)
    sock.setsockopt(system.SOL_SOCKET, system.SO_KEEPALIVE, 0)
    await until(lambda: server.counters.connections_open == 1)
    await until(lambda: server.counters.connections_open == 0)
