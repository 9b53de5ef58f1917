"""``metrics_listen``: ``/metrics`` on an address of its own, for Prometheus.

Apart from the S3 listener, so that a bucket may be called ``metrics`` and figures are to be had
where clients are not let in. No password: bind it where only the monitoring comes. Made by
``ingot.server`` once it serves.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from ingot.errors import ConfigError

PATH: Final = "/metrics"


class Exporter:
    """``text`` gives the figures of the moment."""

    def __init__(self, text: Callable[[], Awaitable[bytes]]) -> None:
        self._text = text
        self._runner: web.AppRunner | None = None
        self.address: tuple[str, int] = "", 0

    async def start(self, host: str, port: int) -> None:
        """ConfigError for an address that cannot be had."""
        app = web.Application()
        app.router.add_get(PATH, self._answer)
        runner = self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            await self.close()
            why = os.strerror(error.errno) if error.errno else str(error)
            raise ConfigError(f"metrics_listen {host}:{port}: {why}") from error
        self.address = runner.addresses[0][:2]

    async def close(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        return web.Response(body=await self._text(), headers={"Content-Type": CONTENT_TYPE_LATEST})
