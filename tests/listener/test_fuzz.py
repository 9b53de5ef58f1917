"""Any bytes at all: well-formed answers or a clean end, and a server fit for the next request."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.listener.harness import Host, Site, chunked, put, request
from tests.net.waiting import PATIENCE_S

STATUS_LINE = re.compile(rb"HTTP/1\.1 [1-5]\d\d [A-Za-z ]+\r\n")
LENGTH = re.compile(rb"\r\nContent-Length: (\d+)")
PIECES = [
    request(b"GET", b"/hello"),
    request(b"GET", b"/later"),
    request(b"HEAD", b"/hello"),
    request(b"GET", b"/stream?3,100"),
    put(b"/take", b"body"),
    put(b"/echo?3", b"a longer body"),
    put(b"/refuse", b"unread", b"Expect: 100-continue"),
    put(b"/some?2", b"half read"),
    put(b"/read?2", b"too long"),
    chunked(b"/take", b"one", b"two"),
    chunked(b"/echo?2", b"one", b"two"),
    chunked(b"/refuse", b"unread"),
    b"GET /hello HTTP/1.0\r\n\r\n",
    b"GET",
    b" HTTP/1.1\r\n",
    b"Host: h\r\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b"0\r\n\r\n",
    b"ffff\r\n",
    b"\0",
]


@st.composite
def wires(draw: st.DrawFn) -> list[bytes]:
    """Requests and fragments, some of them damaged, cut into segments anywhere."""
    parts = draw(st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=20)), max_size=6))
    wire = bytearray(b"".join(parts))
    for _ in range(draw(st.integers(0, 2))):
        if wire:
            at = draw(st.integers(0, len(wire) - 1))
            wire[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    cuts = sorted(draw(st.lists(st.integers(0, len(wire)), max_size=3)))
    edges = [0, *cuts, len(wire)]
    return [bytes(wire[a:b]) for a, b in zip(edges, edges[1:], strict=False) if a < b]


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def host(runner: asyncio.Runner) -> Iterator[Host]:
    host = Host()
    runner.run(host.serve(Site(), body_stall_s=0.2, header_deadline_s=0.2))
    yield host
    runner.run(host.close())


@pytest.mark.slow
@settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(segments=wires())
def test_any_bytes(runner: asyncio.Runner, host: Host, segments: list[bytes]) -> None:
    runner.run(converse(host, segments))


async def converse(host: Host, segments: list[bytes]) -> None:
    (server,) = host.servers
    errors = server.counters.handler_errors
    got = await exchange(server.address, segments)
    check_answers(got)
    assert server.counters.handler_errors == errors
    fresh = await exchange(server.address, [request(b"GET", b"/hello")])
    assert fresh.endswith(b"\r\n\r\nhello")


def check_answers(got: bytes) -> None:
    """A sequence of whole answers; only the last one's body may be cut off."""
    rest = got
    while rest:
        assert STATUS_LINE.match(rest), got
        head, separator, rest = rest.partition(b"\r\n\r\n")
        assert separator and b"\0" not in head, got
        length = LENGTH.search(head)
        if length is not None and not rest.startswith(b"HTTP/1.1 "):  # else it answers a HEAD
            rest = rest[int(length[1]) :]


async def exchange(address: tuple[str, int], segments: list[bytes]) -> bytes:
    """Send all that can be sent, end our side, and read to the end."""
    loop = asyncio.get_running_loop()
    got = bytearray()
    with socket.socket() as sock:
        sock.setblocking(False)
        async with asyncio.timeout(PATIENCE_S):
            await loop.sock_connect(sock, address)
            try:
                for segment in segments:
                    await loop.sock_sendall(sock, segment)
                    await asyncio.sleep(0)
                sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the server has ended it already
            try:
                while part := await loop.sock_recv(sock, 65536):
                    got += part
            except ConnectionResetError:
                pass  # it ended while we were sending
    return bytes(got)
