"""The raw socket: try first, wait after; registrations; both ends' breaks; closing in any state."""

from __future__ import annotations

import asyncio
import os
import socket as system
import struct
from collections.abc import AsyncIterator

import pytest

from ingot.net.socket import WOULD_BLOCK, PeerGone, Socket, SocketClosed, Stalled
from tests.net.waiting import until

Pair = tuple[Socket, system.socket]


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    ours, theirs = connected()
    wrapped = Socket(ours, asyncio.get_running_loop())
    yield wrapped, theirs
    wrapped.close()
    theirs.close()


def connected() -> tuple[system.socket, system.socket]:
    with system.create_server(("127.0.0.1", 0)) as listening:
        theirs = system.create_connection(listening.getsockname())
        ours, _ = listening.accept()
    return ours, theirs


def reset(sock: system.socket) -> None:
    sock.setsockopt(system.SOL_SOCKET, system.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def room(size: int = 100) -> memoryview:
    return memoryview(bytearray(size))


async def test_reading(pair: Pair) -> None:
    ours, theirs = pair
    view = room()
    assert ours.recv_now(view) == WOULD_BLOCK
    theirs.send(b"abc")
    await ours.readable()
    assert ours.recv_now(view) == 3 and view[:3] == b"abc"
    theirs.shutdown(system.SHUT_WR)
    await ours.readable()
    assert ours.recv_now(view) == 0


async def test_sending_until_the_peer_reads(pair: Pair) -> None:
    ours, theirs = pair
    data = os.urandom(1 << 20) * 16
    got = bytearray()

    def read_some() -> None:
        part = theirs.recv(1 << 20)
        got.extend(part)
        if len(got) < len(data):
            asyncio.get_running_loop().call_soon(read_some)

    view = memoryview(data)
    while sent := ours.send_now(view):
        view = view[sent:]
    assert len(view) > 0
    asyncio.get_running_loop().call_soon(read_some)
    while len(view):
        await ours.writable()
        view = view[ours.send_now(view) :]
    await until(lambda: len(got) == len(data))
    assert got == data


async def test_several_buffers_in_order(pair: Pair) -> None:
    ours, theirs = pair
    assert ours.sendv_now((b"head", memoryview(b"body"))) == 8
    assert theirs.recv(100) == b"headbody"


async def test_the_callback_gets_what_nobody_waits_for(pair: Pair) -> None:
    ours, theirs = pair
    called = asyncio.Event()
    ours.on_readable = called.set
    ours.resume()
    theirs.send(b"x")
    async with asyncio.timeout(5):
        await called.wait()
    ours.pause()
    assert not ours.reading
    ours.on_readable = None


async def test_unwanted_bytes_stop_the_reader_instead_of_spinning(pair: Pair) -> None:
    ours, theirs = pair
    ours.resume()
    theirs.send(b"x")
    await until(lambda: not ours.reading)
    await ours.readable()  # and a wait brings it back
    assert ours.recv_now(room()) == 1


async def test_the_registration_outlives_the_wait(pair: Pair) -> None:
    ours, theirs = pair
    for _ in range(3):
        theirs.send(b"x")
        await ours.readable()
        assert ours.reading
        ours.recv_now(room())


async def test_a_peer_that_resets(pair: Pair) -> None:
    ours, theirs = pair
    reset(theirs)
    await ours.readable()
    with pytest.raises(PeerGone):
        ours.recv_now(room())
    with pytest.raises(PeerGone):
        while True:
            ours.send_now(b"x" * 1000)


async def test_sending_to_a_peer_that_closed(pair: Pair) -> None:
    ours, theirs = pair
    theirs.close()
    with pytest.raises(PeerGone):
        for _ in range(100):
            ours.send_now(b"x" * 1000)
            ours.sendv_now((b"x", b"y"))
            await asyncio.sleep(0)


async def test_one_reader_and_one_writer(pair: Pair) -> None:
    ours, _ = pair
    task = asyncio.ensure_future(ours.readable())
    await asyncio.sleep(0)
    with pytest.raises(AssertionError, match="two readers"):
        await ours.readable()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while ours.send_now(bytes(1 << 16)):
        pass
    task = asyncio.ensure_future(ours.writable())
    await asyncio.sleep(0)
    with pytest.raises(AssertionError, match="two writers"):
        await ours.writable()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    ours.close()  # no registration of the cancelled wait is in the way


async def test_deadlines_end_waits(pair: Pair) -> None:
    ours, _ = pair
    assert not ours.fail_waits(Stalled("nobody waits"))
    for wait in (ours.readable, fill_and_wait(ours)):
        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert ours.fail_waits(Stalled("x"))
        assert not ours.fail_waits(Stalled("only once"))
        with pytest.raises(Stalled):
            await task


def fill_and_wait(ours: Socket):  # type: ignore[no-untyped-def]
    async def wait() -> None:
        while ours.send_now(bytes(1 << 16)):
            pass
        await ours.writable()

    return wait


async def test_closing_ends_waits_and_may_be_repeated(pair: Pair) -> None:
    ours, _ = pair
    tasks = [asyncio.ensure_future(ours.readable()), asyncio.ensure_future(fill_and_wait(ours)())]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    ours.close()
    ours.close()
    for task in tasks:
        with pytest.raises(SocketClosed):
            await task
    for call in (ours.readable, ours.writable):
        with pytest.raises(SocketClosed):
            await call()
    with pytest.raises(SocketClosed):
        ours.recv_now(room())
    with pytest.raises(SocketClosed):
        ours.send_now(b"x")
    with pytest.raises(SocketClosed):
        ours.shutdown_write()
    ours.resume()
    assert not ours.reading


async def test_the_peer_sees_the_end_at_once(pair: Pair) -> None:
    """The loop must hold no reference that puts the close off."""
    ours, theirs = pair
    ours.resume()
    ours.close()
    theirs.settimeout(5)
    assert theirs.recv(1) == b""


async def test_the_number_can_be_used_again_in_the_same_turn() -> None:
    """uvloop aborts, and asyncio loses events, when a closed number is still registered."""
    loop = asyncio.get_running_loop()
    for _ in range(20):
        first, first_peer = connected()
        ours = Socket(first, loop)
        ours.resume()
        number = ours.fd
        first_peer.send(b"x")
        ours.close()
        again, again_peer = connected()
        other = Socket(again, loop)
        again_peer.send(b"y")
        async with asyncio.timeout(5):
            await other.readable()
        assert other.recv_now(room()) == 1
        assert other.fd in (number, number + 1, other.fd)
        other.close()
        first_peer.close()
        again_peer.close()


async def test_shutdown_of_our_side(pair: Pair) -> None:
    ours, theirs = pair
    ours.send_now(b"last")
    ours.shutdown_write()
    assert theirs.recv(100) == b"last"
    assert theirs.recv(100) == b""
    theirs.send(b"more")
    await ours.readable()
    assert ours.recv_now(room()) == 4
