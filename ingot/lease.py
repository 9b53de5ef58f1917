"""The lease of one server: waited for, kept by renewing it, given back (design section 8).

Guarantees: ``until`` is never later than this gateway may serve, which is CLOCK_BOOTTIME at the
sending of the last confirmed renewal + TTL - margin. It is renewed from the moment it was taken, so
a start may take longer than a lease lasts. A lease that is lost stays lost.

Called by ``ingot.server``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ingot import limits
from ingot.errors import IngotError, LeaseLost, Unavailable
from ingot.ports import Clock, Registry


class Lease:
    """``take`` first, then ``keep`` as a task. ``hear`` is called whenever something changed."""

    def __init__(self, registry: Registry, clock: Clock, logger: logging.Logger) -> None:
        self.token = b""
        self.until = 0.0  # boottime; what is served is served only before
        self.lost: LeaseLost | None = None
        self.hear: Callable[[], None] = lambda: None
        self._registry = registry
        self._clock = clock
        self._log = logger

    async def take(self, owner: str, dead: Callable[[], bytes | None]) -> None:
        """Wait as a standby, saying for whom, until the lease is free or expired, or its holder's
        token is the one that ``dead`` gives: of a process that has ended. Unavailable where the
        registry is away at once; a standby waits for its return."""
        said = False
        while True:
            sent = self._clock.boottime()
            try:
                token = await self._registry.acquire(owner, limits.LEASE_TTL_S, dead())
            except Unavailable:
                if not said:
                    raise
                token = None
            if token is not None:
                self.token = token
                self._confirmed(sent)
                return
            if not said:
                said = True
                held = await self._registry.holder()
                holder = "nobody, a moment ago" if held is None else held[0]
                self._log.warning("standby: the store is held by %s", holder)
            await asyncio.sleep(limits.STANDBY_POLL_S)

    async def keep(self) -> None:
        """Renew it until it is lost."""
        while self.lost is None:
            await asyncio.sleep(limits.LEASE_RENEW_S)
            sent = self._clock.boottime()
            try:
                await self._registry.renew(self.token, limits.LEASE_TTL_S)
            except LeaseLost as error:
                self.lost, self.until = error, 0.0
                self.hear()
            except Exception as error:  # whatever it is, it may be repaired: try on
                self._log.warning("the lease could not be renewed: %s", error)
            else:
                self._confirmed(sent)

    def _confirmed(self, sent: float) -> None:
        self.until = sent + limits.LEASE_TTL_S - limits.LEASE_MARGIN_S
        self.hear()

    async def release(self) -> None:
        """Give it back; nothing is served or swapped any more."""
        try:
            await self._registry.release(self.token)
        except IngotError as error:
            self._log.warning("the lease was not given back, it will expire: %s", error)
