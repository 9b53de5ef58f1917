"""The session against a server that misbehaves in ways that the network's services do not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from ingot.errors import Unavailable
from ingot.forge.blob import BlobRef, BytesSource
from ingot.forge.breaker import State
from ingot.forge.errors import BadAnswer, Malformed, Refused
from ingot.forge.http import Http, is_public, origin_of
from ingot.limits import CONTAINER_HEADER_READ_MAX
from tests.forge.client.support import Server, http, noise


@pytest.fixture
async def session() -> AsyncIterator[Callable[..., Awaitable[Http]]]:
    opened = []

    async def make(**settings: Any) -> Http:
        made = Http(asyncio.get_running_loop().time, http(**settings))
        await made.open()
        opened.append(made)
        return made

    yield make
    for each in opened:
        await each.close()


Make = Callable[..., Awaitable[Http]]


async def test_headers_as_long_as_a_container_may_be(server: Server, session: Make) -> None:
    value = "E" * CONTAINER_HEADER_READ_MAX

    async def long(request: web.Request) -> web.StreamResponse:
        return web.Response(headers={"X-UCAN-Container": value})

    server.handler = long
    made = await session()
    answer = await made.call("GET", server.url, bytes_max=10)
    assert answer.headers["X-UCAN-Container"] == value
    # What this is for: without the raised limit, aiohttp refuses such an answer.
    async with aiohttp.ClientSession() as plain:
        with pytest.raises(aiohttp.ClientError):
            await plain.get(server.url)


async def test_answers_are_bounded(server: Server, session: Make) -> None:
    async def much(request: web.Request) -> web.StreamResponse:
        return web.Response(body=bytes(100_000))

    server.handler = much
    made = await session()
    assert len((await made.call("GET", server.url, bytes_max=100_000)).body) == 100_000
    with pytest.raises(BadAnswer, match="more than 99999 bytes"):
        await made.call("GET", server.url, bytes_max=99_999)


async def test_a_bomb_is_not_unpacked(server: Server, session: Make) -> None:
    async def bomb(request: web.Request) -> web.StreamResponse:
        response = web.Response(body=bytes(20_000_000))
        response.enable_compression(web.ContentCoding.gzip)
        return response

    server.handler = bomb
    made = await session()
    with pytest.raises(BadAnswer, match="in gzip, which nobody asked for"):
        await made.call("GET", server.url, bytes_max=1000)
    assert server.requests[-1].headers["Accept-Encoding"] == "identity"
    response = await made.get(server.url, {})
    assert server.requests[-1].headers["Accept-Encoding"] == "identity"
    response.close()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 307])
async def test_statuses_that_are_final(server: Server, session: Make, status: int) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text="go\naway", headers={"Location": "/x"})

    server.handler = refuse
    made = await session()
    with pytest.raises(Refused) as caught:
        await made.call("POST", server.url + "/a?b", body=b"x", bytes_max=10)
    found = (caught.value.name, caught.value.message, caught.value.service)
    assert found == (f"HTTP {status}", "go away", server.url)
    assert made.breakers() == {server.url: State.CLOSED}
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_statuses_that_pass(server: Server, session: Make, status: int) -> None:
    async def fail(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text="busy")

    server.handler = fail
    made = await session(breaker_failures=1)
    with pytest.raises(Unavailable, match=f"HTTP {status} busy"):
        await made.call("GET", server.url, bytes_max=10)
    expected = State.CLOSED if status in (408, 425) else State.OPEN
    assert made.breakers() == {server.url: expected}


async def test_silence_is_bounded(server: Server, session: Make) -> None:
    forever = asyncio.Event()

    async def silent(request: web.Request) -> web.StreamResponse:
        await forever.wait()
        return web.Response()

    server.handler = silent
    made = await session(answer_s=0.05, stall_s=0.05)
    with pytest.raises(Unavailable):
        await made.call("GET", server.url, bytes_max=10)
    with pytest.raises(Unavailable):
        await made.get(server.url, {})
    forever.set()


@pytest.mark.slow
async def test_a_stall_in_the_middle_is_bounded(server: Server, session: Make) -> None:
    forever = asyncio.Event()

    async def stalls(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = 10
        await response.prepare(request)
        await response.write(b"12345")
        await forever.wait()
        return response

    server.handler = stalls
    made = await session(stall_s=0.5)
    response = await made.get(server.url, {})
    assert await response.piece() == b"12345"
    with pytest.raises(Unavailable):
        await response.piece()
    response.close()
    forever.set()


async def test_a_blob_is_sent_with_its_length_and_headers(server: Server, session: Make) -> None:
    data = noise(1_000_000)
    got = []

    async def take(request: web.Request) -> web.StreamResponse:
        got.append((dict(request.headers), await request.read()))
        return web.Response(status=204)

    server.handler = take
    made = await session()
    await made.put(server.url, {"X-Token": "a"}, BlobRef.of(data), BytesSource(data))
    ((headers, body),) = got
    assert body == data and headers["Content-Length"] == "1000000" and headers["X-Token"] == "a"
    assert "Transfer-Encoding" not in headers and "Content-Type" not in headers
    for name in ("Host", "content-length", "Transfer-Encoding", "Connection"):
        with pytest.raises(BadAnswer, match=name):
            await made.put(server.url, {name: "1"}, BlobRef.of(data), BytesSource(data))
    with pytest.raises(BadAnswer, match="33 headers"):
        many = {f"x-{number}": "1" for number in range(33)}
        await made.put(server.url, many, BlobRef.of(data), BytesSource(data))
    assert len(server.requests) == 1


async def test_a_put_on_a_closed_connection_is_not_repeated(server: Server, session: Make) -> None:
    """aiohttp would send a PUT again, from wherever its source stands."""
    data = noise(3_000_000)
    made = await session()

    async def fine(request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.Response(status=204)

    async def cut(request: web.Request) -> web.StreamResponse:
        await request.content.readexactly(100_000)
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    server.handler = fine
    await made.put(server.url, {}, BlobRef.of(data), BytesSource(data))
    server.handler = cut
    with pytest.raises(Unavailable):
        await made.put(server.url, {}, BlobRef.of(data), BytesSource(data))
    assert len(server.requests) == 2


async def test_a_node_that_does_not_take_bytes(server: Server, session: Make) -> None:
    data = bytes(20_000_000)
    forever = asyncio.Event()

    async def reads_nothing(request: web.Request) -> web.StreamResponse:
        await forever.wait()
        return web.Response()

    server.handler = reads_nothing
    made = await session(stall_s=0.1)
    with pytest.raises(Unavailable):
        await made.put(server.url, {}, BlobRef.of(data), BytesSource(data))
    forever.set()


async def test_an_early_refusal_ends_a_put(server: Server, session: Make) -> None:
    data = bytes(20_000_000)

    async def refuses(request: web.Request) -> web.StreamResponse:
        return web.Response(status=410, text="expired")

    server.handler = refuses
    made = await session()
    with pytest.raises(Unavailable, match="HTTP 410 expired|Connection|reset|closed|Broken pipe"):
        await made.put(server.url, {}, BlobRef.of(data), BytesSource(data))


async def test_a_cancelled_call_says_nothing_about_the_service(
    server: Server, session: Make
) -> None:
    arrived, forever = asyncio.Event(), asyncio.Event()

    async def silent(request: web.Request) -> web.StreamResponse:
        arrived.set()
        await forever.wait()
        return web.Response()

    server.handler = silent
    made = await session(breaker_failures=1)
    call = asyncio.ensure_future(made.call("GET", server.url, bytes_max=10))
    await arrived.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert made.breakers() == {server.url: State.CLOSED}
    forever.set()


URLS = {
    "https://a.example": "https://a.example",
    "https://a.example:8443/x?y": "https://a.example:8443",
    "http://[::1]:80/": "http://[::1]:80",
    "http://A.example/": "http://a.example",
}


@pytest.mark.parametrize("url", URLS)
def test_origins(url: str) -> None:
    assert origin_of(url) == URLS[url]
    if url.startswith("http:"):
        with pytest.raises(Malformed):
            origin_of(url, insecure=False)


@pytest.mark.parametrize(
    "url",
    [
        *("", "a", "ftp://a/", "file:///etc/passwd", "http://", "http:///x", "http://a:b/"),
        *("http://user@a/", "http://u:p@a/", "http://a b/", "http://a/\n", "http://[::1"),
        "http://a/" + "x" * 3000,
    ],
    ids=repr,
)
def test_urls_that_are_not_called(url: str) -> None:
    with pytest.raises(Malformed):
        origin_of(url)


ADDRESSES = [
    ("93.184.216.34", True),
    ("2606:4700::1", True),
    ("127.0.0.1", False),
    ("10.1.2.3", False),
    ("169.254.169.254", False),
    ("100.64.0.1", False),
    ("0.0.0.0", False),
    ("224.0.0.1", False),
    ("::1", False),
    ("fe80::1%2", False),
    ("fd00::1", False),
    ("ff0e::1", False),
    ("::ffff:10.1.2.3", False),
    ("2002:a01:203::", False),
    ("64:ff9b::10.1.2.3", False),
]


@pytest.mark.parametrize(("address", "public"), ADDRESSES)
def test_addresses_of_the_internet(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
async def test_a_url_does_not_lead_into_the_own_network(
    server: Server, session: Make, host: str
) -> None:
    async def nothing(request: web.Request) -> web.StreamResponse:
        return web.Response()

    server.handler = nothing
    port = server.url.rpartition(":")[2]
    made = await session(insecure=False)
    with pytest.raises(Unavailable, match="no address of the Internet.*forge_private_addresses"):
        await made.call("GET", f"https://{host}:{port}/", bytes_max=10)
    own = await session(insecure=False, private_addresses=True)
    with pytest.raises(Unavailable) as caught:  # for TLS, which the server does not speak
        await own.call("GET", f"https://127.0.0.1:{port}/", bytes_max=10)
    assert "Internet" not in str(caught.value)
    assert server.requests == []


@pytest.mark.parametrize("name", ["Authorization", "Cookie", "Host", "Referer", "Expect", "X-"])
async def test_headers_that_no_address_may_ask_for(session: Make, name: str) -> None:
    made = await session()
    with pytest.raises(BadAnswer, match=f"wants the header {name}"):
        await made.put("http://127.0.0.1:1", {name: "x"}, BlobRef.of(b"a"), BytesSource(b"a"))
