"""What all connections of one server share: its handler, bounds, counters, buffer and clock."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from ingot import limits
from ingot.http.errors import REFUSALS
from ingot.http.limits import HttpLimits
from ingot.http.parser import HeadParser
from ingot.http.writer import HeadWriter
from ingot.messages import Exchange, Request, Response
from ingot.ports import Clock

if TYPE_CHECKING:
    from ingot.http.connection import Connection

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
Express = Callable[[bytes, Exchange, int], bool]
"""(whole head, its exchange, wall clock in ms) -> whether the request was taken; never raises."""
BadRequest = Callable[[str, str], Response]


@dataclass(slots=True)
class Counters:
    """What a server did since it started; only ``connections_open`` goes down."""

    connections_open: int = 0
    connections_accepted: int = 0
    connections_refused: int = 0
    connections_displaced: int = 0  # closed for others, over the cap
    accept_failures: int = 0
    requests: int = 0
    express: int = 0  # of them, how many the express lane answered
    bad_requests: int = 0
    handler_errors: int = 0
    deadlines_missed: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


def plain_refusal(kind: str, detail: str) -> Response:
    """The ``bad_request`` hook of a server that was given none."""
    return Response(REFUSALS[kind], [(b"Content-Type", b"text/plain")], f"{detail}\n".encode())


class Shared:
    """One per server. ``now`` is the coarse monotonic time: that of the last tick."""

    def __init__(
        self,
        handler: Handler,
        http_limits: HttpLimits,
        bad_request: BadRequest,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        log: logging.Logger,
        express: Express | None = None,
    ) -> None:
        self.handler = handler
        self.express = express
        self.limits = http_limits
        self.bad_request = bad_request
        self.clock = clock
        self.loop = loop
        self.log = log
        self.counters = Counters()
        self.parser = HeadParser(http_limits)
        self.writer = HeadWriter()
        self.draining = False
        self.connections: dict[Connection, None] = {}  # in the order in which they were accepted
        self.on_empty: Callable[[], None] | None = None
        # Received into and copied out of again without waiting in between, so one is enough.
        self.buffer = bytearray(limits.RECV_BYTES)
        self.view = memoryview(self.buffer)
        self.head_view = memoryview(self.buffer)[: limits.HEAD_READ_BYTES]
        self._posted: list[Connection] = []
        self._begun = 0  # requests that went the general way in this turn of the loop
        self._held: deque[tuple[Connection, bytes, int]] = deque()
        self.tick_s = http_limits.tick_s
        self.now = clock.monotonic()

    def after(self, seconds: float) -> float:
        """A deadline: no sooner than ``seconds`` from now, at most two ticks later."""
        return self.now + seconds + self.tick_s

    def post(self, connection: Connection) -> None:
        """Have the connection send its answer before the loop waits again, or now, if many do."""
        posted = self._posted
        if not posted:
            self.loop.call_soon(self._send_posted)
        posted.append(connection)
        if len(posted) >= limits.SENDS_TOGETHER_MAX:
            self._send_posted()

    def _send_posted(self) -> None:
        posted, self._posted = self._posted, []
        for connection in posted:
            try:
                connection.send_posted()
            except Exception:  # its own trouble, not that of those behind it
                self.log.exception("an answer could not be sent")
                connection.close()

    def longest_idle(self) -> Connection | None:
        """Of the oldest connections, the one that has waited longest for a whole request."""
        oldest = islice(self.connections, limits.DISPLACE_AMONG)
        idle = [connection for connection in oldest if connection.idle]
        return min(idle, key=lambda connection: connection.deadline, default=None)

    def may_begin(self) -> bool:
        """Whether this turn has room for one more request of those that take long; else ``hold``.

        Clients without an account can send those as fast as they like. What the gateway itself
        waits for, the lease's renewal above all, must be heard meanwhile.
        """
        if self._begun == 0:
            self.loop.call_soon(self._next_turn)
        self._begun += 1
        return self._begun <= limits.REQUESTS_PER_TURN and not self._held

    def hold(self, connection: Connection, head: bytes, received_ms: int) -> None:
        """Have the connection begin this request in a later turn."""
        self._held.append((connection, head, received_ms))

    def _next_turn(self) -> None:
        held = self._held
        self._begun = min(len(held), limits.REQUESTS_PER_TURN)
        for _ in range(self._begun):
            connection, head, received_ms = held.popleft()
            connection.begin_held(head, received_ms)
        if self._begun:
            self.loop.call_soon(self._next_turn)

    def tick(self) -> None:
        """Look at every connection's deadline."""
        self.now = now = self.clock.monotonic()
        for connection in [c for c in self.connections if c.deadline <= now]:
            connection.expire()
