"""The HTTP server: listens, accepts, caps and drains connections; every request goes to one
handler.

Guarantees: at most ``connections_max`` connections take requests (over it the one that has been
idle longest is closed for the new one; where all are busy the new one is told 503, a bounded number
at a time, and the rest is closed); running out of descriptors pauses accepting and
ends nothing; ``drain`` lets every begun request finish within its deadline; after ``close`` no
socket, timer or task of the server is left. ``ingot.server`` starts it; it knows no S3.
"""

from __future__ import annotations

import asyncio
import logging
import socket as system
import ssl

from ingot import limits as bounds
from ingot.clock import SystemClock
from ingot.http.connection import Connection
from ingot.http.limits import HttpLimits
from ingot.http.shared import (
    BadRequest,
    Counters,
    Express,
    Handler,
    Shared,
    plain_refusal,
)
from ingot.net.listen import Acceptor, bind
from ingot.net.socket import Socket
from ingot.net.tls import TlsSocket
from ingot.ports import Clock

__all__ = ["Counters", "HttpLimits", "HttpServer"]


DISPLACED_SAY_EVERY = 1000


class HttpServer:
    """Serves HTTP/1.1 on one address, on the loop that ``start`` runs in.

    ``handler`` makes a Response of a Request and never raises. Its first step runs in the loop's
    callback, outside any task (``ingot.http.eager``). ``bad_request(kind, detail)`` makes the
    answer for what never becomes a request (kinds: ``ingot.http.errors.REFUSALS``); its body is
    bytes. ``express`` is shown every head first and may take the request out of the handler's way.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        limits: HttpLimits | None = None,
        bad_request: BadRequest = plain_refusal,
        ssl_context: ssl.SSLContext | None = None,
        clock: Clock | None = None,
        log: logging.Logger | None = None,
        express: Express | None = None,
    ) -> None:
        self._handler = handler
        self._express = express
        self._limits = limits if limits is not None else HttpLimits()
        self._bad_request = bad_request
        self._ssl_context = ssl_context
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._log = log if log is not None else logging.getLogger("ingot.http")
        self._shared: Shared | None = None
        self._acceptor: Acceptor | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._address: tuple[str, int] | None = None
        self._refusing: set[Connection] = set()

    async def start(self, host: str, port: int) -> None:
        """Listen; ConfigError says what is wrong with the address. Once per server."""
        assert self._shared is None, "a server is started once"
        loop = asyncio.get_running_loop()
        sock = await bind(host, port)
        self._address = sock.getsockname()[:2]
        self._shared = Shared(
            self._handler,
            self._limits,
            self._bad_request,
            self._clock,
            loop,
            self._log,
            self._express,
        )
        self._acceptor = Acceptor(sock, loop, self._accepted, self._short_of)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port as bound: the real port where 0 was asked for."""
        assert self._address is not None, "the server was not started"
        return self._address

    @property
    def counters(self) -> Counters:
        """Live figures; they survive ``close``."""
        assert self._shared is not None, "the server was not started"
        return self._shared.counters

    # -- accepting ------------------------------------------------------------------------------

    def _accepted(self, sock: system.socket, peer: str) -> None:
        shared = self._shared
        assert shared is not None
        counters = shared.counters
        if self._refusing:
            self._refusing.intersection_update(shared.connections)
        over = counters.connections_open - len(self._refusing) >= self._limits.connections_max
        if over and (idle := shared.longest_idle()) is not None:
            # Else whoever opens connections and says nothing keeps all others out.
            idle.close()
            over = False
            counters.connections_displaced += 1
            if counters.connections_displaced % DISPLACED_SAY_EVERY == 1:
                self._log.warning(
                    "there are %d connections, the most that are allowed: for new ones those that "
                    "have been idle longest are closed",
                    self._limits.connections_max,
                )
        if over:
            counters.connections_refused += 1
            # A handshake only to say no is too dear, and a queue of refusals has its bound as well.
            if self._ssl_context is not None or len(self._refusing) >= self._limits.refusals_max:
                sock.close()
                return
        counters.connections_accepted += 1
        if self._ssl_context is None:
            socket = Socket(sock, shared.loop)
        else:
            try:
                socket = TlsSocket(sock, shared.loop, self._ssl_context)
            except OSError as error:  # the peer is gone already
                self._log.debug("TLS with %s did not begin: %s", peer, error)
                sock.close()
                return
        connection = Connection(shared, socket, peer)
        if self._timer is None:
            self._tick()
        if over:
            self._refusing.add(connection)
            connection.turn_away("SlowDown", "too many connections")
        else:
            connection.start()

    def _short_of(self, error: OSError) -> None:
        assert self._shared is not None
        self._shared.counters.accept_failures += 1
        self._log.warning(
            "cannot accept connections for now (%s): raise the limit of open files, "
            "or lower the cap of connections",
            error,
        )

    def _tick(self) -> None:
        """Deadlines of all connections, one timer; none runs while there are no connections."""
        shared = self._shared
        assert shared is not None
        shared.tick()
        self._timer = None
        if shared.connections:
            self._timer = shared.loop.call_later(shared.tick_s, self._tick)

    # -- ending ---------------------------------------------------------------------------------

    def stop_accepting(self) -> None:
        """Give the address back; connections stay. May be repeated."""
        if self._acceptor is not None:
            self._acceptor.close()
            self._acceptor = None

    async def drain(self, deadline_s: float = bounds.STOP_DEADLINE_S) -> bool:
        """Stop accepting, close idle connections, let begun requests finish, then ``close``.

        False when some had to be cut off at the deadline.
        """
        self.stop_accepting()
        shared = self._shared
        if shared is None:
            return True
        shared.draining = True
        for connection in list(shared.connections):
            connection.drain()
        finished = True
        if shared.connections:
            empty = asyncio.Event()
            shared.on_empty = empty.set
            try:
                async with asyncio.timeout(deadline_s):
                    await empty.wait()
            except TimeoutError:
                finished = False
                self._log.warning("%d connections were cut off", len(shared.connections))
            finally:
                shared.on_empty = None
        await self.close()
        return finished

    async def close(self) -> None:
        """End everything now; requests under way are cancelled and waited for. May be repeated."""
        self.stop_accepting()
        shared = self._shared
        if shared is None:
            return
        shared.draining = True
        tasks = [
            task
            for connection in list(shared.connections)
            if (task := connection.abort()) is not None
        ]
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
