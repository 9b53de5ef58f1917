"""Bodies over real sockets: sizes and framings, 100-continue (PUT-10), what is left unread, what
breaks."""

from __future__ import annotations

import asyncio
import os

import pytest

from ingot.http.errors import BodyError
from ingot.messages import Request, Response
from tests.listener.harness import Host, Site, chunked, put, request
from tests.net.waiting import until

SIZES = [0, 1, 4096, 65_535, 65_536, 65_537, 1 << 20, 3_000_001]


@pytest.mark.parametrize("path", [b"/take", b"/echo?1000", b"/echo?1048576"])
async def test_bodies_of_every_size_and_framing(host: Host, secure: bool, path: bytes) -> None:
    client = await host.connect(await host.serve(Site(), secure))
    for size in SIZES:
        body = os.urandom(size)
        pieces = [body[at : at + 100_000] for at in range(0, size, 100_000)]
        for wire in (put(path, body), chunked(path, *pieces)):
            sending = asyncio.ensure_future(client.send(wire))
            assert (await client.answer()).body == body
            await sending


async def test_memory_does_not_follow_a_body_that_is_not_read(host: Host) -> None:
    """Bytes stay in the kernel until the handler asks: the buffer holds one read at most."""
    site = Site()
    server = await host.serve(site)
    client = await host.connect(server)
    client.writer.write(put(b"/held", b"x" * (16 << 20)))
    await until(lambda: site.waiting == 1)
    for _ in range(50):
        await asyncio.sleep(0)
    assert server.counters.bytes_in <= 64 << 10
    site.gate.set()
    assert (await client.answer()).body == b"held"


EXPECT = b"Expect: 100-continue"


@pytest.mark.parametrize("path", [b"/take", b"/echo?1000", b"/read?9000"])
@pytest.mark.parametrize("coded", [False, True])
async def test_continue_comes_with_the_first_read(
    host: Host, secure: bool, path: bytes, coded: bool
) -> None:
    client = await host.connect(await host.serve(Site(), secure))
    body = b"x" * 5000
    for _ in range(2):
        wire = chunked(path, body) if coded else put(path, body)
        head, _, rest = wire.partition(b"\r\n\r\n")
        await client.send(head + b"\r\n" + EXPECT + b"\r\n\r\n")
        interim = await client.head()
        assert (interim.status, interim.headers) == (100, {})
        await client.send(rest)
        assert (await client.answer()).body == body


async def test_continue_comes_even_where_there_is_nothing_to_wait_for(
    host: Host, secure: bool
) -> None:
    """Else botocore takes the status that came in its place for that of the next response too."""
    client = await host.connect(await host.serve(Site(), secure))
    for path in (b"/take", b"/echo?10", b"/later"):
        for body in (b"x" * 100, b""):
            await client.send(put(path, body, EXPECT))
            assert (await client.head()).status == 100
            assert (await client.answer()).status == 200
    await client.send(request(b"GET", b"/hello"))
    assert (await client.answer()).status == 200


@pytest.mark.parametrize("body", [b"", b"x" * 100])
async def test_a_refusal_without_continue_ends_the_connection(host: Host, body: bytes) -> None:
    client = await host.connect(await host.serve(Site()))
    await client.send(put(b"/refuse", body, EXPECT))
    answer = await client.answer()
    assert answer.status == 403 and answer.headers[b"connection"] == b"close"
    assert await client.ended() == b""


@pytest.mark.parametrize("path", [b"/refuse", b"/later"])
async def test_a_final_answer_instead_of_continue_ends_the_connection(
    host: Host, secure: bool, path: bytes
) -> None:
    client = await host.connect(await host.serve(Site(), secure))
    await client.send(request(b"PUT", path, b"Content-Length: 5", EXPECT))
    answer = await client.answer()
    assert answer.status in (403, 200)  # and no 100 before it
    assert answer.headers[b"connection"] == b"close"
    assert await client.ended() == b""


@pytest.mark.parametrize("expectation", [b"200", b"", b"nothing"])
async def test_other_expectations_are_ignored(host: Host, expectation: bytes) -> None:
    client = await host.connect(await host.serve(Site()))
    await client.send(request(b"PUT", b"/echo", b"Content-Length: 2", b"Expect: " + expectation))
    await client.send(b"ab")
    assert (await client.answer()).body == b"ab"


async def test_http_10_gets_no_continue(host: Host) -> None:
    client = await host.connect(await host.serve(Site()))
    await client.send(b"PUT /echo HTTP/1.0\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    await client.send(b"ab")
    assert (await client.answer()).body == b"ab"


@pytest.mark.parametrize("size", [1, 1000, 100_000, 256 << 10])
async def test_a_short_body_that_nobody_read_is_drained(
    host: Host, secure: bool, size: int
) -> None:
    client = await host.connect(await host.serve(Site(), secure))
    for path in (b"/refuse", b"/some?1"):
        await client.send(put(path, b"x" * size), request(b"GET", b"/hello"))
        answer = await client.answer()
        assert b"connection" not in answer.headers
        assert (await client.answer()).body == b"hello"


async def test_a_short_chunked_body_that_has_arrived_is_drained(host: Host) -> None:
    client = await host.connect(await host.serve(Site()))
    await client.send(chunked(b"/refuse", b"x" * 1000), request(b"GET", b"/hello"))
    assert (await client.answer()).status == 403
    assert (await client.answer()).body == b"hello"


@pytest.mark.parametrize("coded", [False, True])
async def test_an_early_answer_to_a_large_upload_arrives(
    host: Host, secure: bool, coded: bool
) -> None:
    """The client sends everything before it reads; it must find the answer and not a reset."""
    client = await host.connect(await host.serve(Site(), secure))
    body = bytes(6 << 20)
    wire = chunked(b"/refuse", body) if coded else put(b"/refuse", body)
    await client.send(wire)
    answer = await client.answer()
    assert (answer.status, answer.headers[b"connection"]) == (403, b"close")
    assert await client.ended() == b""
    again = await host.connect(host.servers[0])
    assert (await again.get()).status == 200


@pytest.mark.parametrize("path", [b"/take", b"/echo?10"])
@pytest.mark.parametrize(
    "wire",
    [
        request(b"PUT", b"PATH", b"Content-Length: 5", body=b"abc"),
        chunked(b"PATH", b"abc", end=b""),
        chunked(b"PATH", b"abc", end=b"5\r\nab"),
        chunked(b"PATH", b"abc", end=b"0\r\nx: y\r\n"),
    ],
)
async def test_a_client_that_ends_its_side_too_early(host: Host, path: bytes, wire: bytes) -> None:
    site = Site()
    client = await host.connect(await host.serve(site))
    await client.send(wire.replace(b"PATH", path))
    client.writer.write_eof()
    answer = await client.answer()
    assert answer.headers[b"x-error"] == b"IncompleteBody"
    assert answer.headers[b"connection"] == b"close"
    assert await client.ended() == b""
    assert site.errors == ["IncompleteBody"]


@pytest.mark.parametrize("coded", [False, True])
async def test_a_client_that_resets_in_the_middle_of_its_body(
    host: Host, secure: bool, coded: bool
) -> None:
    site = Site()
    server = await host.serve(site, secure)
    client = await host.connect(server)
    wire = chunked(b"/echo", b"x" * 5000) if coded else put(b"/echo", b"x" * 5000)
    await client.send(wire[:3000])
    await until(lambda: server.counters.requests == 1)
    client.reset()
    await until(lambda: server.counters.connections_open == 0)
    assert site.errors == ["IncompleteBody"]


async def test_a_broken_chunk_is_answered_and_ends_the_connection(host: Host) -> None:
    site = Site()
    client = await host.connect(await host.serve(site))
    await client.send(chunked(b"/echo", b"abc", end=b"zz\r\n"), request(b"GET", b"/hello"))
    answer = await client.answer()
    assert answer.headers[b"x-error"] == b"BadRequest"
    assert answer.headers[b"connection"] == b"close"
    assert await client.ended() == b""
    assert site.errors == ["BadRequest"]


async def test_a_body_over_the_readers_limit(host: Host) -> None:
    site = Site()
    client = await host.connect(await host.serve(site))
    await client.send(put(b"/read?99", b"x" * 100))
    assert (await client.answer()).headers[b"x-error"] == b"EntityTooLarge"
    await client.send(chunked(b"/read?99", b"x" * 100))
    assert (await client.answer()).headers[b"x-error"] == b"EntityTooLarge"
    assert (await client.get()).status == 200  # both were short enough to drain


async def test_a_body_kept_beyond_its_request_reads_nothing(host: Host) -> None:
    kept: list[Request] = []

    async def handler(request: Request) -> Response:
        kept.append(request)
        return Response(200)

    client = await host.connect(await host.serve(handler))
    await client.send(put(b"/", b"first"), put(b"/", b"second"))
    for _ in range(2):
        await client.answer()
    await client.send(put(b"/", b"third"))
    for request_ in kept:
        assert request_.body.take() is None
        assert await request_.body.readinto(memoryview(bytearray(10))) == 0
    await client.answer()


async def test_a_reader_that_outlives_its_request_gets_no_bytes_of_the_next(host: Host) -> None:
    readers: list[asyncio.Task[int]] = []

    async def handler(request: Request) -> Response:
        if request.target == b"/":
            view = memoryview(bytearray(100))
            readers.append(asyncio.ensure_future(request.body.readinto(view)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return Response(200)

    client = await host.connect(await host.serve(handler))
    await client.send(request(b"PUT", b"/", b"Content-Length: 10"))
    assert (await client.answer()).headers[b"connection"] == b"close"
    assert await client.ended() == b""
    with pytest.raises(BodyError):
        await readers[0]


async def test_uploads_side_by_side(host: Host, secure: bool) -> None:
    server = await host.serve(Site(), secure)

    async def upload(number: int) -> None:
        client = await host.connect(server)
        body = os.urandom(1 << 16) * (8 + number)
        pieces = [body[at : at + 40_000] for at in range(0, len(body), 40_000)]
        wire = chunked(b"/echo", *pieces) if number % 2 else put(b"/echo?300000", body)
        sending = asyncio.ensure_future(client.send(wire))
        assert (await client.answer()).body == body
        await sending

    await asyncio.gather(*[upload(number) for number in range(8)])
