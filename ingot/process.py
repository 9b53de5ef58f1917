"""How a command lives as a process: the signals that end it, and saying that it is ready.

Used by the commands that serve until they are told to stop. Nothing here is needed by a host that
embeds a server.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Mapping
from typing import Any, Final

from ingot.errors import ConfigError

ORDERLY: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last: its terminal was closed


class Stopping:
    """The first of these signals asks for an orderly end, the second ends the process at once."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._pipe: int | None = None
        for number in ORDERLY:
            self._loop.add_signal_handler(number, self._ask)

    def _ask(self) -> None:
        if not self._asked.is_set():
            self._asked.set()
            self.close()
            for number in ORDERLY:
                signal.signal(number, lambda number, _frame: os._exit(128 + number))

    def close(self) -> None:
        for number in ORDERLY:
            self._loop.remove_signal_handler(number)
        if self._pipe is not None:
            self._loop.remove_reader(self._pipe)

    def when_closed(self, descriptor: int) -> None:
        """Take the end of this pipe for the first signal: its writer has ended."""
        self._pipe = descriptor
        self._loop.add_reader(descriptor, self._ask)

    async def asked(self) -> None:
        """Wait for the first signal."""
        await self._asked.wait()

    async def interrupts(self, work: asyncio.Future[Any]) -> bool:
        """Wait for ``work``; True when a signal came first, and ``work`` was cancelled."""
        asked = asyncio.ensure_future(self._asked.wait())
        await asyncio.wait([work, asked], return_when=asyncio.FIRST_COMPLETED)
        first = asked.done() and not work.done()
        for task in (asked, work) if first else (asked,):
            task.cancel()
            await asyncio.wait([task])
        return first


def check_descriptor(descriptor: int, option: str = "--ready-fd") -> None:
    """Before anything starts: a wrong number must not become somebody else's file."""
    try:
        os.fstat(descriptor)
        os.set_inheritable(descriptor, False)
    except OSError as error:
        raise ConfigError(f"{option} {descriptor}: {error.strerror}") from error


def say_ready(descriptor: int, line: Mapping[str, Any]) -> None:
    """One line of JSON to whoever started this process; the descriptor is closed."""
    try:
        with os.fdopen(descriptor, "w") as ready:
            ready.write(json.dumps(line) + "\n")
    except BrokenPipeError:
        logging.getLogger("ingot.process").warning("nobody reads --ready-fd %d", descriptor)
