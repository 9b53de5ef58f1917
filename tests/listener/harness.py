"""A client that says exactly what it is told to, and handlers for it to talk to."""

from __future__ import annotations

import asyncio
import socket as system
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from ingot.http.errors import BodyError
from ingot.http.limits import HttpLimits
from ingot.http.shared import Handler
from ingot.listener import HttpServer
from ingot.messages import Request, Response
from tests.net.certificate import contexts
from tests.net.waiting import PATIENCE_S


@dataclass
class Answer:
    status: int
    headers: dict[bytes, bytes]
    body: bytes


class Client:
    """One connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *parts: bytes) -> None:
        async with asyncio.timeout(PATIENCE_S):
            for part in parts:
                self.writer.write(part)
            await self.writer.drain()

    async def head(self) -> Answer:
        """A response's head alone: 100 Continue, or what a HEAD gets."""
        async with asyncio.timeout(PATIENCE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
        status, *lines = head[:-4].split(b"\r\n")
        assert status.startswith(b"HTTP/1.1 "), head
        headers: dict[bytes, bytes] = {}
        for line in lines:
            name, separator, value = line.partition(b": ")
            assert separator and name.lower() not in headers, head
            headers[name.lower()] = value
        return Answer(int(status[9:12]), headers, b"")

    async def answer(self) -> Answer:
        answer = await self.head()
        assert b"date" in answer.headers and answer.headers[b"server"] == b"ingot"
        length = int(answer.headers.get(b"content-length", b"0"))
        async with asyncio.timeout(PATIENCE_S):
            answer.body = await self.reader.readexactly(length)
        return answer

    async def ended(self) -> bytes:
        """What came until the server ended the stream."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read()

    async def get(self, path: bytes = b"/hello") -> Answer:
        await self.send(request(b"GET", path))
        return await self.answer()

    def socket(self) -> Any:
        return self.writer.get_extra_info("socket")

    def reset(self) -> None:
        self.socket().setsockopt(system.SOL_SOCKET, system.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.transport.abort()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self.writer.wait_closed()
        except OSError:
            pass  # it was broken on purpose


class Host:
    """What one test starts."""

    def __init__(self) -> None:
        self.servers: list[HttpServer] = []
        self.clients: list[Client] = []
        self.sockets: list[system.socket] = []
        self._secure: dict[HttpServer, bool] = {}

    async def serve(
        self, handler: Handler, secure: bool = False, *, bad_request: Any = None, **bounds: Any
    ) -> HttpServer:
        more = {} if bad_request is None else {"bad_request": bad_request}
        context = contexts()[0] if secure else None
        server = HttpServer(handler, limits=HttpLimits(**bounds), ssl_context=context, **more)
        await server.start("127.0.0.1", 0)
        self.servers.append(server)
        self._secure[server] = secure
        return server

    async def connect(self, server: HttpServer) -> Client:
        context = contexts()[1] if self._secure[server] else None
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(*server.address, ssl=context)
        client = Client(reader, writer)
        self.clients.append(client)
        return client

    def raw(self, server: HttpServer, receive_buffer: int | None = None) -> system.socket:
        """A blocking socket that reads nothing by itself."""
        sock = system.socket()
        if receive_buffer is not None:
            sock.setsockopt(system.SOL_SOCKET, system.SO_RCVBUF, receive_buffer)
        sock.settimeout(PATIENCE_S)
        sock.connect(server.address)
        self.sockets.append(sock)
        return sock

    async def close(self) -> None:
        for client in self.clients:
            await client.close()
        for sock in self.sockets:
            sock.close()
        for server in self.servers:
            await server.close()


def request(method: bytes, path: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    lines = [method + b" " + path + b" HTTP/1.1", b"Host: h", *headers, b"", b""]
    return b"\r\n".join(lines) + body


def put(path: bytes, body: bytes, *headers: bytes) -> bytes:
    return request(b"PUT", path, b"Content-Length: %d" % len(body), *headers, body=body)


def chunked(path: bytes, *chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + end
    return request(b"PUT", path, b"Transfer-Encoding: chunked", body=body)


class Site:
    """A handler that does what the path says, and remembers what it saw."""

    PATHS = frozenset(b"hello later held echo take read refuse some stream".split())
    NUMBERS = {b"echo": 1, b"read": 1, b"some": 1, b"stream": 2}

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes]] = []
        self.errors: list[str] = []
        self.gate = asyncio.Event()
        self.waiting = 0

    async def __call__(self, request: Request) -> Response:
        self.seen.append((request.method, request.target))
        path, _, query = request.target[1:].partition(b"?")
        if path not in self.PATHS or not self._numbers(path, query):
            return Response(404)
        try:
            response = await getattr(self, path.decode())(request, query)
        except BodyError as error:
            self.errors.append(error.kind)
            return Response(400, [(b"x-error", error.kind.encode())])
        assert isinstance(response, Response)
        return response

    def _numbers(self, path: bytes, query: bytes) -> bool:
        """Whether the query holds the numbers that this path takes."""
        wanted = self.NUMBERS.get(path, 0)
        if wanted == 0 or (path == b"echo" and not query):
            return True
        given = query.split(b",")
        return len(given) == wanted and all(n.isdigit() and len(n) < 9 for n in given)

    async def hello(self, request: Request, query: bytes) -> Response:
        return Response(200, [(b"ETag", b'"e"')], b"hello" + query)

    async def later(self, request: Request, query: bytes) -> Response:
        """As ``hello``, after some turns of the loop."""
        for _ in range(3):
            await asyncio.sleep(0)
        return Response(200, [], b"later" + query)

    async def held(self, request: Request, query: bytes) -> Response:
        self.waiting += 1
        await self.gate.wait()
        return Response(200, [], b"held" + query)

    async def echo(self, request: Request, query: bytes) -> Response:
        """The body, read piece by piece into memory of its own."""
        out, view = bytearray(), memoryview(bytearray(max(1, int(query or b"65536"))))
        while count := await request.body.readinto(view):
            out += view[:count]
        return Response(200, [], bytes(out))

    async def take(self, request: Request, query: bytes) -> Response:
        body = request.body.take()
        if body is None:
            body = await request.body.read(1 << 30)
        return Response(200, [], body)

    async def read(self, request: Request, query: bytes) -> Response:
        return Response(200, [], await request.body.read(int(query)))

    async def refuse(self, request: Request, query: bytes) -> Response:
        """Like a failed authentication: answers without looking at the body."""
        return Response(403, [], b"no")

    async def some(self, request: Request, query: bytes) -> Response:
        """Reads part of the body only."""
        await request.body.readinto(memoryview(bytearray(max(1, int(query)))))
        return Response(200, [], b"enough")

    async def stream(self, request: Request, query: bytes) -> Response:
        count, size = map(int, query.split(b","))

        async def pieces() -> AsyncIterator[memoryview]:
            for number in range(count):
                yield memoryview(bytes([number % 256]) * size)

        return Response(200, [], pieces(), length=count * size)
