"""A relay in front of Postgres that can cut, hold or delay what passes, message by message."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

SOCKET = ".s.PGSQL.5432"
_FIELDS = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0"
STARTING_UP = b"E" + (len(_FIELDS) + 4).to_bytes(4, "big") + _FIELDS


class Relay:
    """Listens in ``directory`` on a Postgres socket and passes bytes on to the one in ``target``.

    ``cut`` is asked before every chunk is passed on: ("up" to the server or "down", chunk) -> True
    cuts both sides of that connection without passing it on. ``hold`` stops passing answers down
    until it is set again; nothing is cut, so the client sees a server that is silent.
    """

    def __init__(self, directory: Path, target: str) -> None:
        self.directory, self.target = directory, target
        self.cut: Callable[[str, bytes], bool] = lambda direction, chunk: False
        self.answers = asyncio.Event()
        self.answers.set()
        self.chunks: list[tuple[str, int]] = []
        self.refuse = False
        self.starting = 0  # so many connections still hear that the server is starting up
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def dsn(self) -> str:
        return f"postgresql://ingot@/postgres?host={quote(str(self.directory))}"

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_unix_server(self._accept, self.directory / SOCKET)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut_all()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        os.unlink(self.directory / SOCKET)

    def cut_all(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuse:
            writer.transport.abort()
            return
        if self.starting > 0:
            self.starting -= 1
            await reader.read(65536)
            writer.write(STARTING_UP)
            writer.close()
            return
        up_reader, up_writer = await asyncio.open_unix_connection(os.path.join(self.target, SOCKET))
        self._writers |= {writer, up_writer}
        pair = (writer, up_writer)
        for direction, source, sink in (("up", reader, up_writer), ("down", up_reader, writer)):
            task = asyncio.ensure_future(self._pass(direction, source, sink, pair))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(
        self,
        direction: str,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        pair: tuple[asyncio.StreamWriter, ...],
    ) -> None:
        try:
            while chunk := await source.read(65536):
                if direction == "down":
                    await self.answers.wait()
                self.chunks.append((direction, len(chunk)))
                if self.cut(direction, chunk):
                    break
                sink.write(chunk)
        except OSError:
            pass  # the side we read from is gone: so is the other, below
        finally:
            for writer in pair:
                writer.transport.abort()
                self._writers.discard(writer)
