"""Ports that a network can have again after it was stopped or killed.

The system's own choice for port 0 is among those it also gives to outgoing connections, so another
process could hold such a port just when the network starts again. Those below are taken only by
whoever asks for them.
"""

from __future__ import annotations

import errno
import random
import socket

from ingot.errors import ConfigError
from ingot.limits import NETWORK_PORT_TRIES, NETWORK_PORTS


def bind(host: str, port: int | None = None) -> socket.socket:
    """A socket that listens on a port, or on a free one; ConfigError when it is taken."""
    if port is not None:
        try:
            return _listen(host, port)
        except OSError as error:
            raise ConfigError(f"port {port} of {host}, which is this network's: {error}") from error
    for _ in range(NETWORK_PORT_TRIES):
        try:
            return _listen(host, random.randint(*NETWORK_PORTS))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise ConfigError(f"no service can be at {host}: {error}") from error
    raise ConfigError(f"found no free port among {NETWORK_PORTS[0]} to {NETWORK_PORTS[1]}")


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()  # only now does nobody else get it
    except BaseException:
        listener.close()
        raise
    return listener
