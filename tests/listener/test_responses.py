"""Responses: framing, streams, back pressure, and what a client sees when something breaks
(HTTP-6)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ingot.errors import Unavailable
from ingot.limits import SEND_JOIN_BYTES, SEND_TURN_BYTES
from ingot.messages import Request, Response
from tests.listener.harness import Host, Site, request
from tests.net.waiting import until


def answering(response: Response) -> Any:
    async def handler(request: Request) -> Response:
        return response

    return handler


@pytest.mark.parametrize("size", [0, 1, SEND_JOIN_BYTES, SEND_JOIN_BYTES + 1, 8 << 20])
async def test_bodies_of_bytes(host: Host, secure: bool, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    client = await host.connect(await host.serve(answering(Response(200, [], body)), secure))
    for _ in range(2):
        assert (await client.get()).body == body


@pytest.mark.parametrize("shape", [(0, 1), (1, 5), (1000, 10), (5, 100_000), (12, 1 << 20)])
async def test_streams(host: Host, secure: bool, shape: tuple[int, int]) -> None:
    client = await host.connect(await host.serve(Site(), secure))
    count, size = shape
    for _ in range(2):
        answer = await client.get(b"/stream?%d,%d" % (count, size))
        assert answer.body == b"".join(bytes([n % 256]) * size for n in range(count))


async def test_buffers_are_valid_only_until_the_next_step(host: Host) -> None:
    """A source may use one buffer for all of its pieces."""

    async def pieces() -> AsyncIterator[memoryview]:
        buffer = bytearray(300_000)
        for number in range(20):
            buffer[:] = bytes([number]) * len(buffer)
            yield memoryview(buffer)

    response = Response(200, [], pieces(), length=20 * 300_000)
    client = await host.connect(await host.serve(answering(response)))
    assert (await client.get()).body == b"".join(bytes([n]) * 300_000 for n in range(20))


async def test_head_sends_no_body(host: Host, secure: bool) -> None:
    closed: list[bool] = []

    async def pieces() -> AsyncIterator[bytes]:
        closed.append(True)
        yield b"never"

    answers = [
        Response(200, [], b"", length=12345),
        Response(200, [], b"abc"),
        Response(200, [], pieces(), length=12345),
        Response(404, [], b"not here"),
    ]

    async def handler(request: Request) -> Response:
        return answers[int(request.target[1:])]

    client = await host.connect(await host.serve(handler, secure))
    for number, length in enumerate((b"12345", b"3", b"12345", b"8")):
        await client.send(request(b"HEAD", b"/%d" % number))
        assert (await client.head()).headers[b"content-length"] == length
    assert not closed


@pytest.mark.parametrize("status", [204, 304])
async def test_statuses_without_a_body(host: Host, status: int) -> None:
    client = await host.connect(await host.serve(answering(Response(status))))
    for _ in range(2):
        answer = await client.get()
        assert answer.status == status
        assert b"content-length" not in answer.headers
        assert b"transfer-encoding" not in answer.headers


class Source:
    """A streamed body that knows how far it was read and whether it was closed."""

    def __init__(self, piece: bytes, fail_at: int = -1) -> None:
        self.piece = piece
        self.fail_at = fail_at
        self.steps = 0
        self.closed = False

    def __aiter__(self) -> Source:
        return self

    async def __anext__(self) -> bytes:
        if self.steps == self.fail_at:
            raise LookupError("the disk")
        self.steps += 1
        return self.piece

    async def aclose(self) -> None:
        self.closed = True


def stream(source: Source, length: int) -> Response:
    return Response(200, [], source, length=length)


async def test_a_stream_that_fails_before_its_first_piece_is_an_error(host: Host) -> None:
    source = Source(b"x", fail_at=0)
    client = await host.connect(await host.serve(answering(stream(source, 10))))
    answer = await client.get()
    assert (answer.status, answer.headers[b"connection"]) == (500, b"close")
    assert await client.ended() == b""
    assert source.closed


async def test_a_stream_that_cannot_be_had_now_is_asked_for_later(host: Host) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        raise Unavailable("the network is away", 7)
        yield b""

    server = await host.serve(answering(Response(200, [], pieces(), length=11)))
    client = await host.connect(server)
    answer = await client.get()
    assert (answer.status, answer.headers[b"retry-after"]) == (503, b"7")
    assert server.counters.handler_errors == 0


@pytest.mark.parametrize(("fail_at", "piece"), [(3, b"x" * 10), (-1, b"x" * 30)])
async def test_a_stream_that_breaks_is_seen_as_short(
    host: Host, secure: bool, fail_at: int, piece: bytes
) -> None:
    """Failing in the middle, or with more than was announced: never a whole length."""
    source = Source(piece, fail_at)
    client = await host.connect(await host.serve(answering(stream(source, 100)), secure))
    await client.send(request(b"GET", b"/"))
    head = await client.head()
    assert (head.status, head.headers[b"content-length"]) == (200, b"100")
    assert 0 < len(await client.ended()) < 100
    assert source.closed
    assert host.servers[0].counters.handler_errors == 1


async def test_a_stream_that_ends_early_is_seen_as_short(host: Host) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * 10

    client = await host.connect(await host.serve(answering(Response(200, [], pieces(), length=11))))
    await client.send(request(b"GET", b"/"))
    assert (await client.head()).status == 200
    assert await client.ended() == b"x" * 10


async def test_a_client_that_goes_away_ends_the_stream_at_once(host: Host, secure: bool) -> None:
    """GET-9: readers that seek do so all the time, and it is no error."""
    source = Source(b"x" * (1 << 20))
    server = await host.serve(answering(stream(source, 1 << 40)), secure)
    client = await host.connect(server)
    await client.send(request(b"GET", b"/"))
    await client.head()
    client.reset()
    await until(lambda: server.counters.connections_open == 0)
    assert source.closed
    assert server.counters.handler_errors == 0


async def test_a_client_that_stops_reading_stops_the_source(host: Host) -> None:
    """Nothing is buffered beyond the piece under way: memory is bounded by the kernel's buffers."""
    source = Source(b"x" * (1 << 20))
    server = await host.serve(answering(stream(source, 1 << 40)))
    sock = host.raw(server, receive_buffer=65536)
    sock.send(request(b"GET", b"/"))
    (connection,) = await only_connection(server)
    await until(lambda: connection.deadline != float("inf"))  # it waits for the client
    steps = source.steps
    for _ in range(50):
        await asyncio.sleep(0)
    assert source.steps == steps < 20
    sock.close()
    await until(lambda: server.counters.connections_open == 0)
    assert source.closed


async def only_connection(server: Any) -> list[Any]:
    await until(lambda: server.counters.requests == 1)
    return list(server._shared.connections)


async def test_large_bytes_wait_for_a_slow_reader(host: Host) -> None:
    body = bytes(range(256)) * (32 << 10)
    server = await host.serve(answering(Response(200, [], body)))
    sock = host.raw(server, receive_buffer=65536)
    sock.send(request(b"GET", b"/"))
    (connection,) = await only_connection(server)
    await until(lambda: connection.deadline != float("inf"))
    assert server.counters.bytes_out < len(body)

    def read() -> bytes:
        got = bytearray()
        while len(got) < len(body) or b"\r\n\r\n" not in got[:1000]:
            got += sock.recv(1 << 16)
            start = got.find(b"\r\n\r\n") + 4
            if len(got) - start == len(body):
                return bytes(got[start:])
        raise AssertionError("more than was sent")

    assert await asyncio.to_thread(read) == body


async def test_a_fast_reader_does_not_keep_others_waiting(host: Host) -> None:
    """A source that never waits, to a peer that always reads: others still get their turn."""
    turns: list[int] = []
    steps = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal steps
        while steps < 64:
            steps += 1
            if steps == 2:
                other.send(request(b"GET", b"/other"))
            yield b"x" * (1 << 20)

    async def handler(request: Request) -> Response:
        if request.target == b"/other":
            turns.append(steps)
            return Response(200)
        return Response(200, [], pieces(), length=64 << 20)

    server = await host.serve(handler)
    client = await host.connect(server)
    await until(lambda: server.counters.connections_open == 1)
    (connection,) = server._shared.connections  # type: ignore[union-attr]
    connection._socket = _Swallowing(connection._socket)  # type: ignore[assignment]
    other = host.raw(server)
    await until(lambda: server.counters.connections_open == 2)
    await client.send(request(b"GET", b"/"))
    await until(lambda: steps == 64)
    assert turns and turns[0] <= 2 + 2 * SEND_TURN_BYTES // (1 << 20)


async def test_a_source_that_fails_to_close_is_reported_and_survived(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    class Stubborn(Source):
        async def aclose(self) -> None:
            raise LookupError("cannot close")

    source = Stubborn(b"x" * 10)
    client = await host.connect(await host.serve(answering(stream(source, 10))))
    await client.send(request(b"HEAD", b"/"))
    assert (await client.head()).status == 200
    assert "cannot close" in caplog.text
    await client.send(request(b"HEAD", b"/"))
    assert (await client.head()).status == 200


class _Few:
    """A kernel that takes a few bytes at a time."""

    def __init__(self, real: Any, few: int) -> None:
        self._real = real
        self._few = few

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def send_now(self, data: bytes | memoryview) -> int:
        return int(self._real.send_now(memoryview(data)[: self._few]))

    def sendv_now(self, parts: Any) -> int:
        return self.send_now(parts[0])


@pytest.mark.parametrize("few", [1, 10, 100])
async def test_short_sends_lose_nothing(host: Host, few: int) -> None:
    site = Site()
    server = await host.serve(site)
    client = await host.connect(server)
    await until(lambda: server.counters.connections_open == 1)
    (connection,) = server._shared.connections  # type: ignore[union-attr]
    connection._socket = _Few(connection._socket, few)  # type: ignore[assignment]
    for _ in range(2):
        assert (await client.get()).body == b"hello"
        answer = await client.get(b"/stream?3,50")
        assert answer.body == b"\0" * 50 + b"\1" * 50 + b"\2" * 50


class _Swallowing:
    """A socket whose peer takes everything at once."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def send_now(self, data: bytes | memoryview) -> int:
        return len(data)

    def sendv_now(self, parts: Any) -> int:
        return sum(len(part) for part in parts)
