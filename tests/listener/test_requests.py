"""Requests over real sockets: reuse, pipelining, any split, old clients (HTTP-1), and what is no
request (HTTP-4)."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from ingot.http.parser import END_OF_HEAD
from ingot.messages import Request, Response
from ingot.net.socket import PeerGone
from tests.listener.harness import Host, Site, chunked, put, request
from tests.net.waiting import until


async def test_one_connection_serves_many_requests(host: Host, secure: bool) -> None:
    server = await host.serve(Site(), secure)
    client = await host.connect(server)
    for path, body in [(b"/hello", b"hello"), (b"/later", b"later"), (b"/hello?x", b"hellox")] * 5:
        answer = await client.get(path)
        assert (answer.status, answer.body) == (200, body)
        assert b"connection" not in answer.headers
    assert server.counters.requests == 15
    assert server.counters.connections_accepted == 1


async def test_the_handler_sees_the_request(host: Host, secure: bool) -> None:
    seen: list[Request] = []

    async def handler(request: Request) -> Response:
        seen.append(request)
        return Response(200)

    client = await host.connect(await host.serve(handler, secure))
    await client.send(
        b"PUT /%7Ea//b?c HTTP/1.1\r\nHost: h\r\nX-A:  1 \r\nContent-Length: 0\r\n\r\n"
    )
    await client.answer()
    (got,) = seen
    assert (got.method, got.target, got.peer, got.secure) == (
        "PUT",
        b"/%7Ea//b?c",
        "127.0.0.1",
        secure,
    )
    assert got.headers == [(b"host", b"h"), (b"x-a", b"1"), (b"content-length", b"0")]
    assert abs(got.received_ms / 1000 - asyncio.get_running_loop().time()) > 1  # a wall clock
    assert got.body.length == 0 and got.body.take() == b""


@pytest.mark.parametrize("path", [b"/hello", b"/later"])
async def test_a_hundred_pipelined_requests_in_one_segment(
    host: Host, secure: bool, path: bytes
) -> None:
    client = await host.connect(await host.serve(Site(), secure))
    await client.send(b"".join(request(b"GET", b"%b?%d" % (path, number)) for number in range(100)))
    for number in range(100):
        assert (await client.answer()).body == path[1:] + b"%d" % number


async def test_pipelined_bodies_are_told_apart_exactly(host: Host, secure: bool) -> None:
    client = await host.connect(await host.serve(Site(), secure))
    bodies = [bytes([number]) * (number * 997 % 5000) for number in range(60)]
    wire = b""
    for number, body in enumerate(bodies):
        path = (b"/echo?100", b"/take", b"/refuse")[number % 3]
        pieces = [body[at : at + 700] for at in range(0, len(body), 700)]
        wire += chunked(path, *pieces) if number % 2 and path != b"/refuse" else put(path, body)
    await client.send(wire, request(b"GET", b"/hello"))
    for number, body in enumerate(bodies):
        expected = b"no" if number % 3 == 2 else body
        assert (await client.answer()).body == expected, number
    assert (await client.answer()).body == b"hello"


@pytest.mark.slow
async def test_every_split_of_the_wire(host: Host) -> None:
    site = Site()
    server = await host.serve(site)
    wires = [
        put(b"/take", b"body"),
        chunked(b"/take", b"bo", b"dy"),
        put(b"/echo", b"body", b"Expect: nothing"),
    ]
    for wire in wires:
        for cut in range(1, len(wire)):
            client = await host.connect(server)
            before = server.counters.bytes_in
            await client.send(wire[:cut])
            await until(lambda seen=before + cut: server.counters.bytes_in == seen)  # type: ignore[misc]
            await client.send(wire[cut:])
            assert (await client.answer()).body == b"body", cut
            await client.close()
    assert not site.errors


async def test_byte_by_byte(host: Host, secure: bool) -> None:
    server = await host.serve(Site(), secure)
    client = await host.connect(server)
    for at, byte in enumerate(wire := put(b"/take", b"body") + chunked(b"/echo", b"x" * 20)):
        before = server.counters.bytes_in
        await client.send(bytes([byte]))
        if at != len(wire) - 1:
            await until(lambda seen=before: server.counters.bytes_in > seen)  # type: ignore[misc]
    assert (await client.answer()).body == b"body"
    assert (await client.answer()).body == b"x" * 20


async def test_stray_empty_lines_between_requests(host: Host) -> None:
    client = await host.connect(await host.serve(Site()))
    for stray in (b"\r\n", b"\r\n\r\n\r\n"):
        await client.send(stray + request(b"GET", b"/hello"))
        assert (await client.answer()).status == 200
    server = host.servers[0]
    before = server.counters.bytes_in
    await client.send(b"\r")
    await until(lambda: server.counters.bytes_in > before)
    await client.send(b"\n" + request(b"GET", b"/hello"))
    assert (await client.answer()).status == 200


async def test_connection_close_is_honoured(host: Host, secure: bool) -> None:
    client = await host.connect(await host.serve(Site(), secure))
    await client.send(request(b"GET", b"/hello", b"Connection: close"))
    answer = await client.answer()
    assert answer.headers[b"connection"] == b"close"
    assert await client.ended() == b""


async def test_a_handler_can_end_the_connection(host: Host, secure: bool) -> None:
    async def handler(request: Request) -> Response:
        return Response(503, [], b"x", close=True)

    client = await host.connect(await host.serve(handler, secure))
    answer = await client.get()
    assert (answer.status, answer.headers[b"connection"]) == (503, b"close")
    assert await client.ended() == b""


async def test_http_10(host: Host) -> None:
    server = await host.serve(Site())
    client = await host.connect(server)
    await client.send(b"GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    answer = await client.answer()
    assert (answer.body, answer.headers[b"connection"]) == (b"hello", b"keep-alive")
    await client.send(b"GET /hello HTTP/1.0\r\n\r\n")
    answer = await client.answer()
    assert (answer.body, answer.headers[b"connection"]) == (b"hello", b"close")
    assert await client.ended() == b""


async def test_a_client_that_ends_its_side_gets_its_answers(host: Host) -> None:
    client = await host.connect(await host.serve(Site()))
    await client.send(request(b"GET", b"/later"), request(b"GET", b"/hello"))
    client.writer.write_eof()
    assert (await client.answer()).body == b"later"
    assert (await client.answer()).body == b"hello"
    assert await client.ended() == b""


async def test_upgrade_is_ignored(host: Host) -> None:
    client = await host.connect(await host.serve(Site()))
    upgrade = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk")
    await client.send(put(b"/take", b"body", *upgrade), request(b"GET", b"/hello", *upgrade))
    assert (await client.answer()).body == b"body"
    assert (await client.answer()).body == b"hello"


REFUSED = [
    (b"GET /hello HTTP/1.1\r\n\r\n", 400),
    (b"GET /hello HTTP/2.0\r\nHost: h\r\n\r\n", 400),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 405),
    (b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n", 405),
    (b"NONSENSE /hello HTTP/1.1\r\nHost: h\r\n\r\n", 405),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n", 400),
    (b"GET /hello HTTP/1.1\nHost: h\n\n", 400),
    (b"GET /hello HTTP/1.1\r\nHost: h\r\nX: \n", 400),
    (request(b"PUT", b"/take", b"Transfer-Encoding: gzip"), 501),
    (request(b"GET", b"/hello", b"X: " + b"y" * 70_000), 400),
    (b"GET /hello HTTP/1.1\r\nHost: h\r\nX: " + b"y" * 140_000, 400),
    (request(b"GET", b"/hello", *[b"X-%d: y" % number for number in range(300)]), 400),
    (b"GET /" + b"h" * 66_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 400),
]


@pytest.mark.parametrize(("wire", "status"), REFUSED)
async def test_what_is_no_request_is_refused_and_the_connection_ends(
    host: Host, secure: bool, wire: bytes, status: int
) -> None:
    site = Site()
    server = await host.serve(site, secure)
    client = await host.connect(server)
    await client.send(wire + request(b"GET", b"/hello"))
    answer = await client.answer()
    assert (answer.status, answer.headers[b"connection"]) == (status, b"close")
    assert await client.ended() == b""
    assert not site.seen
    assert server.counters.bad_requests == 1


SMUGGLED = [
    request(
        b"PUT", b"/take", b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"
    ),
    request(
        b"PUT", b"/take", b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n"
    ),
    request(b"PUT", b"/take", b"Content-Length: 5", b"Content-Length: 0", body=b"hello"),
    request(b"PUT", b"/take", b"Content-Length: 5, 0", body=b"hello"),
    request(b"PUT", b"/take", b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"),
    request(b"PUT", b"/take", b"Transfer-Encoding: xchunked", b"Content-Length: 0"),
    request(b"PUT", b"/take", b"Transfer-Encoding : chunked", b"Content-Length: 0"),
    request(b"PUT", b"/take", b"X: y\nTransfer-Encoding: chunked", b"Content-Length: 0"),
    request(b"PUT", b"/take", b"X: y\rTransfer-Encoding: chunked", b"Content-Length: 0"),
    request(b"PUT", b"/take", b"X: y", b" Transfer-Encoding: chunked", b"Content-Length: 0"),
    request(b"PUT", b"/take", b"Content-Length: 0", b"Host: other"),
    b"PUT /take HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    request(b"PUT", b"/take", b"Transfer-Encoding: chunked", body=b"1\nx\r\n0\r\n\r\n"),
    request(b"PUT", b"/take", b"Transfer-Encoding: chunked", body=b"0\r\n\n"),
    request(b"PUT", b"/take", b"Transfer-Encoding: chunked", body=b"2\r\nxxx\r\n0\r\n\r\n"),
    request(b"PUT", b"/take", b"Transfer-Encoding: chunked", body=b"0\r\nno colon\r\n\r\n"),
]


@pytest.mark.parametrize("wire", SMUGGLED)
async def test_nothing_can_be_smuggled(host: Host, wire: bytes) -> None:
    """HTTP-4: one refusal, the connection ends, and the bytes behind are never taken for a
    request."""
    site = Site()
    client = await host.connect(await host.serve(site))
    await client.send(wire + request(b"GET", b"/hello?smuggled"))
    answer = await client.answer()
    assert answer.status in (400, 501) and answer.headers[b"connection"] == b"close"
    assert await client.ended() == b""
    assert (("GET", b"/hello?smuggled")) not in site.seen


async def test_refusals_are_made_by_the_hook(host: Host) -> None:
    made: list[tuple[str, str]] = []

    def bad_request(kind: str, detail: str) -> Response:
        made.append((kind, detail))
        return Response(400, [(b"Content-Type", b"application/xml")], b"<Error/>")

    client = await host.connect(await host.serve(Site(), bad_request=bad_request))
    await client.send(b"GET / HTTP/1.1\r\n\r\n")
    answer = await client.answer()
    assert (answer.body, answer.headers[b"content-type"]) == (b"<Error/>", b"application/xml")
    assert made == [("BadRequest", "the Host header is missing")]


@pytest.mark.parametrize("waits", [False, True])
async def test_a_handler_that_raises(
    host: Host, secure: bool, waits: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(request: Request) -> Response:
        if waits:
            await asyncio.sleep(0)
        raise LookupError("the handler's own")

    server = await host.serve(handler, secure)
    client = await host.connect(server)
    with caplog.at_level(logging.ERROR, logger="ingot.http"):
        answer = await client.get()
    assert (answer.status, answer.headers[b"connection"]) == (500, b"close")
    assert await client.ended() == b""
    assert "the handler's own" in caplog.text and b"own" not in answer.body
    assert server.counters.handler_errors == 1


async def test_a_handler_whose_wait_was_cancelled_is_answered_too(host: Host) -> None:
    async def handler(request: Request) -> Response:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.cancel)
        await future
        raise AssertionError("unreachable")

    client = await host.connect(await host.serve(handler))
    assert (await client.get()).status == 500
    assert await client.ended() == b""


@pytest.mark.parametrize(
    "response",
    [
        Response(200, [(b"x", b"a\r\nSet-Cookie: b")]),
        Response(200, [(b"x", b"a\0")]),
        Response(200, [(b"Content-Length", b"1")]),
        Response(101),
        Response(200, [], b"abc", length=5),
    ],
)
async def test_an_answer_that_may_not_be_sent(host: Host, response: Response) -> None:
    async def handler(request: Request) -> Response:
        return response

    client = await host.connect(await host.serve(handler))
    answer = await client.get()
    assert answer.status == 500 and b"set-cookie" not in answer.headers
    assert await client.ended() == b""


async def test_bytes_are_counted(host: Host) -> None:
    server = await host.serve(Site())
    client = await host.connect(server)
    wire = put(b"/take", b"x" * 1000)
    await client.send(wire)
    await client.answer()
    assert server.counters.bytes_in == len(wire)
    await client.send(request(b"GET", b"/hello"))
    before = server.counters.bytes_out
    answer = await client.reader.readuntil(END_OF_HEAD)
    assert server.counters.bytes_out - before == len(answer) + 5


async def test_many_connections_at_once_do_not_mix(host: Host, secure: bool) -> None:
    server = await host.serve(Site(), secure)

    async def converse(number: int) -> None:
        client = await host.connect(server)
        for turn in range(10):
            body = b"%d,%d;" % (number, turn) * 3000
            await client.send(put(b"/echo?777" if turn % 2 else b"/take", body))
            assert (await client.answer()).body == body
            assert (await client.get(b"/later?%d" % number)).body == b"later%d" % number

    await asyncio.gather(*[converse(number) for number in range(12)])


async def test_a_client_that_resets_while_idle(host: Host, secure: bool) -> None:
    server = await host.serve(Site(), secure)
    client = await host.connect(server)
    await client.get()
    client.reset()
    await until(lambda: server.counters.connections_open == 0)


async def test_a_client_that_resets_behind_its_request(host: Host) -> None:
    """The small body is looked for while it is being reset."""
    site = Site()
    server = await host.serve(site)
    sock = host.raw(server)
    await until(lambda: server.counters.connections_open == 1)
    (connection,) = server._shared.connections  # type: ignore[union-attr]
    sock.send(put(b"/take", b"x" * 100)[:-50])

    real, heads = connection._socket.recv_now, 0

    def recv_now(view: memoryview) -> int:
        nonlocal heads
        heads += 1
        if heads > 1:
            raise PeerGone("reset")
        return int(real(view))

    connection._socket = _Scripted(connection._socket, recv_now)  # type: ignore[assignment]
    await until(lambda: server.counters.connections_open == 0)
    assert site.errors == ["IncompleteBody"]


class _Scripted:
    def __init__(self, real: Any, recv_now: Any) -> None:
        self._real = real
        self.recv_now = recv_now

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


async def test_stopping_the_process_is_not_swallowed(host: Host) -> None:
    """SystemExit and the like pass through, and the connection does not stay half open."""
    seen: list[BaseException] = []

    class Stop(BaseException):
        pass

    async def handler(request: Request) -> Response:
        raise Stop

    server = await host.serve(handler)
    sock = host.raw(server)
    await until(lambda: server.counters.connections_open == 1)
    (connection,) = server._shared.connections  # type: ignore[union-attr]
    connection._socket.pause()
    sock.send(request(b"GET", b"/"))
    try:
        connection._on_readable()
    except Stop as stop:
        seen.append(stop)
    assert len(seen) == 1
    assert connection.closed
