"""Listening: bind an address with errors a person can act on, and accept until told to stop."""

from __future__ import annotations

import asyncio
import errno
import socket as system
from collections.abc import Callable

from ingot import limits
from ingot.errors import ConfigError

# Descriptors or memory ran out: these end by themselves, and the listener is left readable.
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


async def bind(host: str, port: int) -> system.socket:
    """A listening, non-blocking, close-on-exec socket; port 0 lets the system choose.

    Of a name with several addresses the first IPv4 one is taken. ConfigError says what to change.
    """
    if not host:
        raise ConfigError("no address to listen on: use 127.0.0.1, or 0.0.0.0 or :: for all")
    if not 0 <= port <= 65535:
        raise ConfigError(f"port {port} does not exist: use 0 (any free one) to 65535")
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=system.SOCK_STREAM, flags=system.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"cannot resolve the address of {where}: {error}") from error
    family, kind, protocol, _, address = min(found, key=lambda item: item[0] != system.AF_INET)
    sock = system.socket(family, kind, protocol)
    try:
        # Without it a restart has to wait until connections of the last run have timed out.
        sock.setsockopt(system.SOL_SOCKET, system.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind(address)
        sock.listen(limits.LISTEN_BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigError(_advice(where, port, error)) from error
    return sock


def _advice(where: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{where} is in use: stop what listens there, or choose another port"
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"not permitted to listen on {where}: use a port above 1023, "
            "or give the process CAP_NET_BIND_SERVICE"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"this machine has no address {where}: use one of its own, 0.0.0.0 or ::"
    return f"cannot listen on {where}: {error}"


class Acceptor:
    """Accepts on one listening socket, several connections a wake, until closed.

    ``on_accept`` gets each socket (non-blocking, close-on-exec, TCP_NODELAY) and the peer's
    address, and owns the socket from then on.
    """

    def __init__(
        self,
        sock: system.socket,
        loop: asyncio.AbstractEventLoop,
        on_accept: Callable[[system.socket, str], None],
        on_shortage: Callable[[OSError], None],
    ) -> None:
        self._sock = sock
        self._loop = loop
        self._on_accept = on_accept
        self._on_shortage = on_shortage
        self._pause: asyncio.TimerHandle | None = None
        self._watching = False
        self._fd = sock.fileno()
        self._resume()

    def _resume(self) -> None:
        self._pause = None
        self._watching = True
        self._loop.add_reader(self._fd, self._accept)

    def _accept(self) -> None:
        for _ in range(limits.ACCEPTS_PER_WAKE):
            try:
                sock, address = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _SHORTAGES:
                    self._wait_out(error)
                    return
                continue  # a connection that broke while it was in the backlog
            sock.setblocking(False)
            if sock.family in (system.AF_INET, system.AF_INET6):
                sock.setsockopt(system.IPPROTO_TCP, system.TCP_NODELAY, 1)
            self._on_accept(sock, address[0])
            if not self._watching:  # the callback closed us
                return

    def _wait_out(self, error: OSError) -> None:
        # The backlog stays readable, so going on at once would spin.
        self._watching = False
        self._loop.remove_reader(self._fd)
        self._pause = self._loop.call_later(limits.ACCEPT_PAUSE_S, self._resume)
        self._on_shortage(error)

    def close(self) -> None:
        """Stop accepting and give the address back. May be repeated."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._watching:
            self._watching = False
            self._loop.remove_reader(self._fd)
        self._sock.close()
