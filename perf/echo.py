"""The bare floor: the server's socket layer, a bare httptools parser, one fixed answer.

What no request handling on this socket layer can beat; other figures are stated as a share of it.
``python perf/echo.py --port N`` serves until it is terminated. Bodies are parsed and dropped.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket as system

import httptools
import uvloop

from ingot.limits import RECV_BYTES
from ingot.net.listen import Acceptor, bind
from ingot.net.socket import PeerGone, Socket

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_BUFFER = memoryview(bytearray(RECV_BYTES))


class Echo:
    """One connection: parse what comes, answer each complete message."""

    __slots__ = ("_messages", "_parser", "_socket")

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self._messages = 0
        self._parser = httptools.HttpRequestParser(self)
        socket.on_readable = self._on_readable
        socket.resume()

    def on_message_complete(self) -> None:
        self._messages += 1

    def _on_readable(self) -> None:
        try:
            count = self._socket.recv_now(_BUFFER)
            if count == 0:
                self._socket.close()
            if count <= 0:
                return
            self._parser.feed_data(_BUFFER[:count])
            if self._messages:
                self._socket.send_now(ANSWER * self._messages)
                self._messages = 0
        except (PeerGone, httptools.HttpParserError):
            self._socket.close()


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def accepted(sock: system.socket, peer: str) -> None:
        Echo(Socket(sock, loop))

    acceptor = Acceptor(await bind("127.0.0.1", port), loop, accepted, lambda error: None)
    print("ready", flush=True)
    await stop.wait()
    acceptor.close()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--port", type=int, required=True)
    uvloop.run(serve(arguments.parse_args().port))
