"""Ending: what was begun is finished, what was not is refused, and the deadline is kept."""

from __future__ import annotations

import asyncio

import pytest

from ingot.messages import Request, Response
from tests.listener.harness import Host, Site, put, request
from tests.net.waiting import until


async def test_idle_connections_are_closed_and_no_more_are_accepted(
    host: Host, secure: bool
) -> None:
    server = await host.serve(Site(), secure)
    clients = [await host.connect(server) for _ in range(3)]
    await clients[0].get()
    await until(lambda: server.counters.connections_open == 3)
    assert await server.drain(10)
    for client in clients:
        assert await client.ended() == b""
    with pytest.raises(OSError):
        await host.connect(server)


async def test_a_request_under_way_is_finished(host: Host, secure: bool) -> None:
    site = Site()
    server = await host.serve(site, secure)
    client = await host.connect(server)
    await client.send(request(b"GET", b"/held"), request(b"GET", b"/hello"))
    await until(lambda: site.waiting == 1)
    draining = asyncio.ensure_future(server.drain(10))
    await asyncio.sleep(0)
    site.gate.set()
    answer = await client.answer()
    assert (answer.body, answer.headers[b"connection"]) == (b"held", b"close")
    assert await client.ended() == b""  # the pipelined request was not begun
    assert await draining
    assert site.seen == [("GET", b"/held")]


async def test_an_upload_under_way_is_finished(host: Host, secure: bool) -> None:
    server = await host.serve(Site(), secure)
    client = await host.connect(server)
    wire = put(b"/echo", b"x" * 1000)
    await client.send(wire[:-500])
    await until(lambda: server.counters.requests == 1)
    draining = asyncio.ensure_future(server.drain(10))
    await asyncio.sleep(0)
    await client.send(wire[-500:])
    assert (await client.answer()).body == b"x" * 1000
    assert await draining


async def test_a_head_under_way_is_finished(host: Host) -> None:
    server = await host.serve(Site())
    client = await host.connect(server)
    wire = request(b"GET", b"/hello")
    await client.send(wire[:10])
    await until(lambda: server.counters.bytes_in == 10)
    draining = asyncio.ensure_future(server.drain(10))
    await asyncio.sleep(0)
    await client.send(wire[10:])
    assert (await client.answer()).headers[b"connection"] == b"close"
    assert await draining


async def test_a_request_that_has_just_arrived_is_answered(host: Host) -> None:
    server = await host.serve(Site())
    client = await host.connect(server)
    await client.get()
    client.socket()  # the loop has not run since the bytes were sent:
    client.writer.write(request(b"GET", b"/hello"))
    assert await server.drain(10)
    answer = await client.answer()
    assert (answer.body, answer.headers[b"connection"]) == (b"hello", b"close")


async def test_what_does_not_finish_is_cut_off(
    host: Host, secure: bool, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[str] = []

    async def handler(request: Request) -> Response:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # cleaning up is waited for
            ended.append("cancelled")
            raise
        raise AssertionError("unreachable")

    server = await host.serve(handler, secure)
    client = await host.connect(server)
    await client.send(request(b"GET", b"/"))
    await until(lambda: server.counters.requests == 1)
    assert not await server.drain(0.05)
    assert ended == ["cancelled"]
    assert await client.ended() == b""
    assert "cut off" in caplog.text
    assert server.counters.handler_errors == 0


async def test_closing_in_the_middle_of_everything(host: Host, secure: bool) -> None:
    """Uploads, downloads, waits, half a head, an idle connection: nothing is left."""
    site = Site()
    server = await host.serve(site, secure)
    clients = [await host.connect(server) for _ in range(5)]
    await clients[0].send(put(b"/echo", b"x" * 1000)[:-10])
    await clients[1].send(request(b"GET", b"/stream?1000,1000000"))
    await clients[2].send(request(b"GET", b"/held"))
    await clients[3].send(b"GET / HT")
    await until(lambda: server.counters.requests == 3 and site.waiting == 1)
    await server.close()
    assert server.counters.connections_open == 0
    for client in clients:
        try:
            await client.ended()
        except ConnectionResetError:
            pass
    await server.close()
    assert site.errors in ([], ["IncompleteBody"])


async def test_closing_before_anything(host: Host) -> None:
    server = await host.serve(Site())
    await server.close()
    await server.close()
    assert await server.drain(1)


async def test_a_connection_that_arrives_with_the_end(host: Host) -> None:
    server = await host.serve(Site())
    sock = host.raw(server)  # in the backlog, never accepted
    await server.close()
    with pytest.raises(ConnectionResetError):
        sock.send(b"x")
        while sock.recv(1):
            pass
