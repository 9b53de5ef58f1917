"""Waiting for what the other side of a socket does, where no event can say that it happened."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PATIENCE_S = 20.0  # a test that waits this long has failed


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until ``condition`` holds."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if condition():
                return
            await asyncio.sleep(0.0005)
