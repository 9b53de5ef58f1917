"""The one raw socket: a connected, non-blocking stream socket on one event loop.

``recv_now`` and ``send_now`` try the call and say when it would block; ``readable`` and
``writable`` wait for readiness after that. Whoever uses it tries first and waits only then.

- A reader is registered once and stays registered between waits, since the next wait is usually the
  same (two epoll calls a request otherwise). It goes only under back pressure: when bytes arrive
  and nobody wants them, the level-triggered loop would call back for ever.
- Both registrations are removed before the descriptor is closed. uvloop aborts the process when a
  number is registered again in the turn it was closed in; asyncio would keep the stale key.
- The loop is given the number, never the object: uvloop defers ``close`` of an object it holds.
- One reader and one writer at a time; a second one is a bug here and asserted.
- What the operating system reports becomes ``PeerGone`` (the other side or the network broke it) or
  ``SocketClosed`` (we did).

Connections of ``ingot.http`` are built on it, and clients of other services may be.
``ingot.net.tls`` has the same surface over TLS.
"""

from __future__ import annotations

import asyncio
import socket as system
from collections.abc import Callable, Sequence
from typing import Final

from ingot.errors import IngotError

WOULD_BLOCK: Final = -1
"""What ``recv_now`` returns when there is nothing to read yet; 0 is the end of the stream."""


class PeerGone(IngotError):
    """The peer or the network broke the connection."""


class SocketClosed(IngotError):
    """We closed the socket ourselves; whoever still used it comes too late."""


class Stalled(IngotError):
    """A wait for the peer ran into its deadline."""


class Socket:
    """A connected stream socket that belongs to this object from now on."""

    __slots__ = (
        "__weakref__",
        "_loop",
        "_read_waiter",
        "_recv_into",
        "_send",
        "_sock",
        "_write_waiter",
        "closed",
        "fd",
        "on_readable",
        "reading",
    )

    secure = False

    def __init__(self, sock: system.socket, loop: asyncio.AbstractEventLoop) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = loop
        self._recv_into = sock.recv_into  # bound once: looked up with every request otherwise
        self._send = sock.send
        self._read_waiter: asyncio.Future[None] | None = None
        self._write_waiter: asyncio.Future[None] | None = None
        self.on_readable: Callable[[], None] | None = None
        """Called when bytes (or the end) are there and no ``readable`` waits for them."""
        self.fd = sock.fileno()
        self.reading = False
        self.closed = False

    # -- trying -------------------------------------------------------------------------------

    def recv_now(self, view: memoryview) -> int:
        """Bytes received into ``view``, 0 at the end of the stream, or WOULD_BLOCK."""
        try:
            return self._recv_into(view)
        except BlockingIOError:
            return WOULD_BLOCK
        except OSError as error:
            raise self._classified(error) from error

    def send_now(self, data: bytes | memoryview) -> int:
        """How many bytes the kernel took; 0 when it would block."""
        try:
            return self._send(data, system.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._classified(error) from error

    def sendv_now(self, parts: Sequence[bytes | memoryview]) -> int:
        """As ``send_now``, of several buffers in order, without joining them."""
        try:
            return self._sock.sendmsg(parts, (), system.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._classified(error) from error

    @property
    def has_pending(self) -> bool:
        """Whether something can be read although the loop will not say so (TLS)."""
        return False

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for bytes."""
        return self._read_waiter is not None

    # -- waiting ------------------------------------------------------------------------------

    async def readable(self) -> None:
        """Return when ``recv_now`` is worth another try. Stalled when ``fail_waits`` was called."""
        assert self._read_waiter is None, "two readers on one socket"
        if self.closed:
            raise SocketClosed("read from a closed socket")
        waiter = self._read_waiter = self._loop.create_future()
        self.resume()
        try:
            await waiter
        finally:
            if self._read_waiter is waiter:
                self._read_waiter = None

    async def writable(self) -> None:
        """Return when ``send_now`` is worth another try. Stalled when ``fail_waits`` was called."""
        assert self._write_waiter is None, "two writers on one socket"
        if self.closed:
            raise SocketClosed("write to a closed socket")
        waiter = self._write_waiter = self._loop.create_future()
        self._loop.add_writer(self.fd, self._on_writable_event)
        try:
            await waiter
        finally:
            if self._write_waiter is waiter:
                self._write_waiter = None
                self._loop.remove_writer(self.fd)

    def fail_waits(self, error: Exception) -> bool:
        """Raise ``error`` in whoever waits; False when nobody does."""
        failed = False
        for waiter in (self._read_waiter, self._write_waiter):
            if waiter is not None and not waiter.done():
                waiter.set_exception(error)
                failed = True
        return failed

    def resume(self) -> None:
        """Have the loop report arriving bytes; to begin with, and after ``pause``."""
        if not self.reading and not self.closed:
            self.reading = True
            self._loop.add_reader(self.fd, self._on_readable_event)

    def pause(self) -> None:
        """Leave arriving bytes in the kernel: back pressure on the peer."""
        if self.reading:
            self.reading = False
            self._loop.remove_reader(self.fd)

    def _on_readable_event(self) -> None:
        waiter = self._read_waiter
        if waiter is not None:
            self._read_waiter = None
            if not waiter.done():
                waiter.set_result(None)
        elif self.on_readable is not None:
            self.on_readable()
        else:
            self.pause()

    def _on_writable_event(self) -> None:
        self._loop.remove_writer(self.fd)  # always writable otherwise: the loop would spin
        waiter, self._write_waiter = self._write_waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # -- ending -------------------------------------------------------------------------------

    def shutdown_write(self) -> None:
        """Send the end of our stream after what was sent; reading goes on."""
        try:
            self._sock.shutdown(system.SHUT_WR)
        except OSError as error:
            raise self._classified(error) from error

    def close(self) -> None:
        """Give up the descriptor; waits under way end with SocketClosed. May be repeated."""
        if self.closed:
            return
        self.closed = True
        self.on_readable = None
        if self.reading:
            self.reading = False
            self._loop.remove_reader(self.fd)
        if self._write_waiter is not None:
            self._loop.remove_writer(self.fd)
        self.fail_waits(SocketClosed("the socket was closed while it was waited for"))
        self._read_waiter = self._write_waiter = None
        self._sock.close()

    def _classified(self, error: OSError) -> IngotError:
        if self.closed:
            return SocketClosed(f"the socket is closed: {error}")
        return PeerGone(f"the connection broke: {error}")
