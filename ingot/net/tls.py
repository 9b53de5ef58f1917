"""The same socket over TLS: a non-blocking ``SSLSocket`` under the surface of ``Socket``.

Three things differ from a plain socket. A read returns at most one record and the library may hold
more that epoll does not know of, so reads go on until it wants more from the wire, and
``has_pending`` tells what is left. A read may have to write first and a write may have to read
first (key updates); then the wait is for the other direction. And the peer's end of stream can be
consumed together with data, so it is remembered.
"""

from __future__ import annotations

import asyncio
import socket as system
import ssl
from collections.abc import Sequence

from ingot.net.socket import WOULD_BLOCK, PeerGone, Socket


class TlsSocket(Socket):
    """A TLS connection whose handshake is the first thing to be awaited."""

    __slots__ = ("_ended", "_read_wants_write", "_tls", "_write_wants_read")

    secure = True

    def __init__(
        self, sock: system.socket, loop: asyncio.AbstractEventLoop, context: ssl.SSLContext
    ) -> None:
        sock.setblocking(False)
        tls = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        super().__init__(tls, loop)
        self._tls = tls
        self._ended = False
        self._read_wants_write = False
        self._write_wants_read = False

    async def handshake(self) -> None:
        """Agree on keys. The caller bounds it in time with ``fail_waits``."""
        while True:
            try:
                self._tls.do_handshake()
                return
            except ssl.SSLWantReadError:
                await super().readable()
            except ssl.SSLWantWriteError:
                await super().writable()
            except OSError as error:
                raise self._classified(error) from error

    def recv_now(self, view: memoryview) -> int:
        if self._ended:
            return 0
        received = 0
        while received < len(view):
            try:
                count = self._recv_into(view[received:])
            except (ssl.SSLWantReadError, BlockingIOError):
                break
            except ssl.SSLWantWriteError:
                self._read_wants_write = True
                break
            except OSError as error:
                if received:  # what came before the break counts; the next read reports it
                    break
                raise self._classified(error) from error
            if count == 0:
                self._ended = True
                return received
            received += count
        return received or WOULD_BLOCK

    def send_now(self, data: bytes | memoryview) -> int:
        view = memoryview(data)
        sent = 0
        while sent < len(view):
            try:
                sent += self._tls.send(view[sent:])
            except ssl.SSLWantWriteError:
                break
            except ssl.SSLWantReadError:
                self._write_wants_read = True
                break
            except OSError as error:
                raise self._classified(error) from error
        return sent

    def sendv_now(self, parts: Sequence[bytes | memoryview]) -> int:
        sent = 0
        for part in parts:
            count = self.send_now(part)
            sent += count
            if count < len(part):
                break
        return sent

    @property
    def has_pending(self) -> bool:
        return not self.closed and (self._ended or self._tls.pending() > 0)

    async def readable(self) -> None:
        if self._read_wants_write:
            self._read_wants_write = False
            await super().writable()
        else:
            await super().readable()

    async def writable(self) -> None:
        if self._write_wants_read:
            self._write_wants_read = False
            await super().readable()
        else:
            await super().writable()

    def shutdown_write(self) -> None:
        """Send close_notify and the end of the TCP stream; what still arrives is only discarded."""
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # ours is on its way; whether the peer answers it or still sends is not waited for
        except (OSError, ValueError) as error:
            raise PeerGone(f"the connection broke: {error}") from error
        super().shutdown_write()
