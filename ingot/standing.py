"""How far shipping is, for other processes to read: ``DATA_DIR/shipping.json``.

The registry says where each file is; what holds one up, in words, and how old the oldest commit is
that Forge lacks is known to the gateway alone. It writes both down when they have changed, and at
its end. Guarantee: what is read was written whole, and says when. Not synced: it is a report, and
nothing rests on it.

Written by ``ingot.shipping``, read by ``ingot segments``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from ingot.limits import STANDING_REPEAT_S, STANDING_S
from ingot.offload import settled
from ingot.ports import Clock

if TYPE_CHECKING:
    from ingot.shipper.shipper import Standing

FILE: Final = "shipping.json"

log: Final = logging.getLogger("ingot.shipper")


@dataclass(frozen=True, slots=True)
class Told:
    """A standing as it was at ``at_ms``, unix milliseconds."""

    at_ms: int
    watermark: int
    oldest_ms: int | None
    problems: list[str]


class Teller:
    """``ask`` gives the present standing; ``directory`` is the data directory."""

    def __init__(
        self, directory: str, ask: Callable[[], Awaitable[Standing]], clock: Clock
    ) -> None:
        self._path = os.path.join(directory, FILE)
        self._ask = ask
        self._clock = clock
        self._last: tuple[float, Standing] | None = None
        self._complained = False

    async def run(self) -> None:
        while True:
            await self.tell()
            await asyncio.sleep(STANDING_S)

    async def tell(self) -> None:
        """Write it down, where it is not what stands there. Whatever fails is logged once."""
        try:
            now, standing = self._clock.monotonic(), await self._ask()
            if self._last is not None:
                at, before = self._last
                if standing == before and now - at < STANDING_REPEAT_S:
                    return
            told = Told(
                self._clock.now_ms(), standing.watermark, standing.oldest_ms, standing.problems
            )
            text = json.dumps(asdict(told), indent=1) + "\n"
            loop = asyncio.get_running_loop()
            writing = loop.run_in_executor(None, _write, self._path, text)
            await settled([writing])  # the next one uses the same name
            writing.result()
            self._last = now, standing
        except Exception as error:
            if not self._complained:
                self._complained = True
                log.warning("%s is not kept up to date: %s", self._path, error)


def _write(path: str, text: str) -> None:
    part = f"{path}.part"
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    os.replace(part, path)


def told_in(directory: str) -> Told | None:
    """What the gateway of a data directory wrote last; None where that is nothing, or not one of
    this version."""
    try:
        with open(os.path.join(directory, FILE), encoding="utf-8") as file:
            found = Told(**json.load(file))
    except (OSError, ValueError, TypeError):
        return None
    numbers = [found.at_ms, found.watermark, found.oldest_ms or 0]
    if not all(isinstance(number, int) for number in numbers):
        return None
    return found if isinstance(found.problems, list) else None
