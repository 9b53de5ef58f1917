"""A shipper in a process of its own, which ``test_killed.py`` kills."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from ingot.clock import SystemClock
from ingot.forge.client import ForgeClient, ForgeSettings
from ingot.forge.invoker import Service
from ingot.registry.postgres import Postgres
from ingot.shipper.shipper import Shipper
from tests.forge.client.support import QUICK as RETRIES
from tests.forge.client.support import http, someone
from tests.shipper.support import QUICK, Log


def some_log(directory: Path) -> Log:
    log = Log(directory)
    log.unit(needs=log.body(3_000_000))
    log.unit()
    return log


async def ship(did: str, url: str, dsn: str, log: str, token: str) -> None:
    settings = ForgeSettings(upload=Service(did, url), http=http(), retry=RETRIES)
    registry = Postgres(dsn)
    await registry.open()
    async with ForgeClient(settings, someone(), SystemClock()) as client:
        files = some_log(Path(log))
        await Shipper(files, registry, bytes.fromhex(token), client.upload, QUICK).start()
        await asyncio.Event().wait()


def main() -> None:
    asyncio.run(ship(**json.loads(sys.argv[1])))
