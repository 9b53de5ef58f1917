"""The peer's bytes, with a deadline on every wait: what a connection receives and sends.

``Wire`` is the ``Source`` of request bodies. It answers ``Expect: 100-continue`` at the first read
that has to wait, holds bodies to a minimum rate, and turns a broken or silent peer into
``BodyError`` for readers and into ``net.socket`` errors for writers. ``ingot.http.connection``
adds requests to it.
"""

from __future__ import annotations

import asyncio
import math
from typing import Final

from ingot.http.errors import BodyError
from ingot.http.shared import Shared
from ingot.http.writer import CONTINUE
from ingot.net.socket import WOULD_BLOCK, PeerGone, Socket, SocketClosed, Stalled

NEVER: Final = math.inf


class Wire:
    """One socket and the deadline of whoever waits for it."""

    __slots__ = (
        "_body_broken",
        "_body_deadline",
        "_continue_due",
        "_continued",
        "_received",
        "_shared",
        "_socket",
        "_waited",
        "deadline",
        "pending",
    )

    def __init__(self, shared: Shared, socket: Socket) -> None:
        self._shared = shared
        self._socket = socket
        self.deadline = NEVER  # of the wait under way; the server looks at it with every tick
        self.pending = bytearray()  # received and not yet consumed
        self._expect_body(False)

    def _expect_body(self, continue_due: bool) -> None:
        """Begin to receive the body of another request."""
        self._continue_due = continue_due  # the client waits for our 100
        self._continued = False  # and has got it
        self._received = len(self.pending)
        self._waited = 0.0  # seconds, for what was received
        self._body_broken = False
        self._body_deadline = NEVER  # for all of it; only where nobody wants it

    async def _send(self, data: bytes | memoryview) -> None:
        """All of ``data`` to the kernel, waiting while the peer's window is full."""
        shared = self._shared
        sent = self._socket.send_now(data)
        shared.counters.bytes_out += sent
        if sent == len(data):
            return
        rest = memoryview(data)[sent:]
        while len(rest):
            self.deadline = shared.after(shared.limits.send_stall_s)
            try:
                await self._socket.writable()
            finally:
                self.deadline = NEVER
            sent = self._socket.send_now(rest)
            shared.counters.bytes_out += sent
            rest = rest[sent:]

    async def _send_pair(self, start: bytes, content: bytes | memoryview) -> None:
        """Both, in one call where the kernel takes them."""
        sent = self._socket.sendv_now((start, content))
        self._shared.counters.bytes_out += sent
        if sent < len(start):
            await self._send(memoryview(start)[sent:])
            await self._send(content)
        elif sent < len(start) + len(content):
            await self._send(memoryview(content)[sent - len(start) :])

    def receive_now(self, view: memoryview) -> int:
        try:
            count = self._socket.recv_now(view)
        except PeerGone:
            return 0  # the read that waits reports it
        if count > 0:
            self._took(count)
        return count

    async def receive_pending(self) -> None:
        view = self._shared.head_view
        count = await self.receive(view)
        self.pending += view[:count]

    async def receive(self, view: memoryview) -> int:
        while True:
            try:
                count = self._socket.recv_now(view)
                if count > 0:
                    self._took(count)
                    return count
                if count == 0:
                    raise PeerGone("the peer ended the stream")
                await self._await_body()
            except Stalled as error:
                self._body_broken = True
                raise BodyError("RequestTimeout", "the body did not arrive in time") from error
            except (PeerGone, SocketClosed) as error:
                self._body_broken = True
                raise BodyError("IncompleteBody", "the body ended before its last byte") from error

    def _took(self, count: int) -> None:
        self._shared.counters.bytes_in += count
        self._received += count
        self._continue_due = False  # it does not wait for it, evidently

    async def _await_body(self) -> None:
        """Wait for bytes of the body; Stalled after too long, or when they come too slowly."""
        shared = self._shared
        if self._continue_due:
            self._continue_due = False
            self._continued = True
            await self._send(CONTINUE)
        stall_s = shared.limits.body_stall_s
        begun = shared.clock.monotonic()
        self.deadline = min(shared.after(stall_s), self._body_deadline)
        try:
            await self._socket.readable()
        finally:
            self.deadline = NEVER
        # Only time spent waiting counts: a slow disk of ours is not the client's fault.
        self._waited += shared.clock.monotonic() - begun
        if self._waited > stall_s and self._received < self._waited * shared.limits.body_rate_min:
            raise Stalled("the peer sends too slowly")

    async def _linger(self, left: int | None) -> None:
        """End our side, and discard what arrives until the peer ends its own or time is up.

        Without it, unread bytes would turn our close into RST, and the peer could lose the answer.
        ``left`` bytes are known to be on their way (None: some may be); with 0, those that have
        arrived decide whether there is anything to wait for.
        """
        shared, socket = self._shared, self._socket
        socket.shutdown_write()
        until = shared.after(shared.limits.linger_deadline_s)
        while True:
            count = socket.recv_now(shared.view)
            if count == 0 or (count == WOULD_BLOCK and left == 0):
                return
            if count > 0 and left is not None:
                left = max(0, left - count)
            self.deadline = min(until, shared.after(shared.limits.linger_stall_s))
            if count > 0:
                await asyncio.sleep(0)  # a peer that floods us must not keep others waiting
            else:
                await socket.readable()
            if shared.now >= until:
                return
