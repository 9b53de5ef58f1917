"""A client in a process of its own, which ``test_killed.py`` kills: it adds a file to a space."""

from __future__ import annotations

import asyncio
import json
import sys

from ingot.clock import SystemClock
from ingot.forge.blob import BlobRef, BytesSource
from ingot.forge.client import ForgeClient, ForgeSettings
from ingot.forge.invoker import Service
from tests.forge.client.support import QUICK, http, someone


async def add(did: str, url: str, file: str) -> None:
    settings = ForgeSettings(upload=Service(did, url), http=http(), retry=QUICK)
    with open(file, "rb") as source:
        data = source.read()
    async with ForgeClient(settings, someone(), SystemClock()) as client:
        await client.upload.add(BlobRef.of(data), BytesSource(data))


def main() -> None:
    asyncio.run(add(**json.loads(sys.argv[1])))
