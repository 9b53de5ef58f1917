"""TLS on the raw socket: the plain one's surface, with the library's own buffers in between."""

from __future__ import annotations

import asyncio
import os
import socket as system
import ssl
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ingot.net.socket import WOULD_BLOCK, PeerGone, Stalled
from ingot.net.tls import TlsSocket
from tests.net.certificate import contexts

Pair = tuple[TlsSocket, ssl.SSLSocket]


def raw_pair() -> tuple[system.socket, system.socket]:
    with system.create_server(("127.0.0.1", 0)) as listening:
        theirs = system.create_connection(listening.getsockname(), timeout=10)
        ours, _ = listening.accept()
    return ours, theirs


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    server, client = contexts()
    raw, raw_peer = raw_pair()
    ours = TlsSocket(raw, asyncio.get_running_loop(), server)
    with ThreadPoolExecutor(1) as pool:  # the peer blocks, so it needs a thread of its own
        wrapping = pool.submit(client.wrap_socket, raw_peer, server_hostname="127.0.0.1")
        await ours.handshake()
        theirs = wrapping.result()
    yield ours, theirs
    ours.close()
    theirs.close()


def room(size: int) -> memoryview:
    return memoryview(bytearray(size))


async def receive(ours: TlsSocket, count: int, at_once: int) -> bytes:
    got, view = bytearray(), room(at_once)
    while len(got) < count:
        size = ours.recv_now(view[: count - len(got)])
        if size == WOULD_BLOCK:
            await ours.readable()
        elif size == 0:
            break
        else:
            got += view[:size]
    return bytes(got)


async def test_bytes_in_both_directions(pair: Pair) -> None:
    ours, theirs = pair
    assert ours.secure
    assert ours.recv_now(room(10)) == WOULD_BLOCK
    theirs.sendall(b"question")
    assert await receive(ours, 8, 100) == b"question"
    assert ours.send_now(b"answer") == 6
    assert ours.sendv_now((b" in", b" parts")) == 9
    assert theirs.recv(100) + theirs.recv(100) + theirs.recv(100) == b"answer in parts"


async def test_what_the_library_holds_is_seen(pair: Pair) -> None:
    """epoll says nothing about bytes that were decrypted already."""
    ours, theirs = pair
    theirs.sendall(b"0123456789")
    await ours.readable()
    view = room(4)
    assert ours.recv_now(view) == 4
    assert ours.has_pending
    assert ours.recv_now(room(100)) == 6
    assert not ours.has_pending


async def test_one_read_takes_several_records(pair: Pair) -> None:
    ours, theirs = pair
    data = os.urandom(100_000)  # seven records
    theirs.sendall(data)
    assert await receive(ours, len(data), 1 << 20) == data


async def test_a_large_stream_out(pair: Pair) -> None:
    ours, theirs = pair
    data = os.urandom(1 << 20) * 8

    def read_all() -> bytes:
        got = bytearray()
        while len(got) < len(data):
            got += theirs.recv(1 << 16)
        return bytes(got)

    rest = memoryview(data)
    while sent := ours.send_now(rest):  # until the kernel takes no more
        rest = rest[sent:]
    assert len(rest) > 0
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read_all)
        while len(rest):
            await ours.writable()
            rest = rest[ours.send_now(rest) :]
        assert reading.result() == data


async def test_the_end_behind_data_is_not_lost(pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(b"last")
    with pytest.raises(OSError):
        theirs.settimeout(0.05)
        theirs.unwrap()
    assert await receive(ours, 4, 100) == b"last"
    assert ours.recv_now(room(10)) == 0
    assert ours.has_pending
    assert ours.recv_now(room(10)) == 0


async def test_our_end_and_reading_on(pair: Pair) -> None:
    ours, theirs = pair
    ours.send_now(b"bye")
    theirs.sendall(b"still sending")
    ours.shutdown_write()
    assert theirs.recv(10) == b"bye"
    assert theirs.recv(10) == b""
    theirs.sendall(b"and on")
    assert await receive(ours, 1, 100) != b""  # whatever it looks like, it can be discarded
    theirs.close()
    async with asyncio.timeout(5):
        while await receive(ours, 1000, 1000):
            pass


async def test_a_peer_that_breaks_the_connection(pair: Pair) -> None:
    ours, theirs = pair
    theirs.close()
    with pytest.raises(PeerGone):
        for _ in range(100):
            ours.send_now(b"x" * 1000)
            await asyncio.sleep(0)


async def test_a_peer_that_speaks_no_tls() -> None:
    raw, peer = raw_pair()
    ours = TlsSocket(raw, asyncio.get_running_loop(), contexts()[0])
    peer.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    with pytest.raises(PeerGone):
        await ours.handshake()
    ours.close()
    peer.close()


async def test_a_handshake_ends_at_its_deadline() -> None:
    raw, peer = raw_pair()
    ours = TlsSocket(raw, asyncio.get_running_loop(), contexts()[0])
    shaking = asyncio.ensure_future(ours.handshake())
    await asyncio.sleep(0)
    assert ours.fail_waits(Stalled("too slow"))
    with pytest.raises(Stalled):
        await shaking
    ours.close()
    peer.close()


class Crossed:
    """A TLS library that has to do the other thing first: key updates, renegotiation."""

    def __init__(self, real: ssl.SSLSocket, error: type[ssl.SSLError]) -> None:
        self.real = real
        self.error: type[ssl.SSLError] | None = error

    def _once(self) -> None:
        if self.error is not None:
            error, self.error = self.error, None
            raise error("the other direction first")

    def recv_into(self, view: memoryview) -> int:
        self._once()
        return self.real.recv_into(view)

    def send(self, data: memoryview) -> int:
        self._once()
        return self.real.send(data)

    def do_handshake(self) -> None:
        self._once()
        self.real.do_handshake()

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)


async def test_a_read_that_has_to_write_first(pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(b"data")
    ours._recv_into = Crossed(ours._tls, ssl.SSLWantWriteError).recv_into
    assert ours.recv_now(room(10)) == WOULD_BLOCK
    await ours.readable()  # for writing, which is possible at once
    assert ours.recv_now(room(10)) == 4


async def test_a_write_that_has_to_read_first(pair: Pair) -> None:
    ours, theirs = pair
    ours._tls = Crossed(ours._tls, ssl.SSLWantReadError)  # type: ignore[assignment]
    assert ours.send_now(b"data") == 0
    waiting = asyncio.ensure_future(ours.writable())
    await asyncio.sleep(0)
    assert not waiting.done()
    theirs.sendall(b"x")
    await waiting
    assert ours.sendv_now((b"da", b"ta")) == 4
    assert theirs.recv(2) + theirs.recv(2) == b"data"


async def test_a_handshake_that_has_to_write_first() -> None:
    server, client = contexts()
    raw, raw_peer = raw_pair()
    ours = TlsSocket(raw, asyncio.get_running_loop(), server)
    ours._tls = Crossed(ours._tls, ssl.SSLWantWriteError)  # type: ignore[assignment]
    with ThreadPoolExecutor(1) as pool:
        wrapping = pool.submit(client.wrap_socket, raw_peer, server_hostname="127.0.0.1")
        await ours.handshake()
        wrapping.result().close()
    ours.close()


async def test_a_break_behind_data_is_reported_after_it(pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(b"last")
    await ours.readable()
    real = ours._recv_into

    def recv_into(view: memoryview) -> int:
        if len(view) == 10:
            return real(view)
        raise ConnectionResetError(104, "Connection reset by peer")

    ours._recv_into = recv_into
    assert ours.recv_now(room(10)) == 4
    with pytest.raises(PeerGone):
        ours.recv_now(room(11))


async def test_our_end_over_a_broken_connection(pair: Pair) -> None:
    ours, theirs = pair
    theirs.setsockopt(system.SOL_SOCKET, system.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    theirs.close()
    await ours.readable()
    with pytest.raises(PeerGone):
        ours.shutdown_write()
