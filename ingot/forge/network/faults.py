"""Faults on demand: what a service of the network does wrong, for which requests, how often.

    service.faults.add("/blob/add", ErrorReceipt("CandidateUnavailable", "no node"), times=2)
    service.faults.add("GET /piece", FlippedBit(), times=None)        until cleared
    service.faults.clear()

A route is a command (``/blob/add``) or one of the service's HTTP routes, which its module lists
(``PUT /upload``). A fault of a command holds for the invocations of it that the service runs. Which
fault means something where is said at its class; ``add`` refuses what would do nothing. Several
faults of one route hold together. Nothing here is remembered over a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

T = TypeVar("T")


class Closed(Exception):
    """The connection is to be closed without an answer."""


class Answered(Exception):
    """An HTTP answer in place of what the request asked for."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status, self.text = status, text


@dataclass(frozen=True, slots=True)
class Delay:
    """Wait before anything is done. Any route."""

    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Hold:
    """Wait before anything is done until the test says ``release``. Any route."""

    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def release(self) -> None:
        self.released.set()


@dataclass(frozen=True, slots=True)
class Close:
    """Nothing is done, and the connection is closed without an answer. Any route."""


@dataclass(frozen=True, slots=True)
class Status:
    """Nothing is done, and the answer is this HTTP status with a text. Any route."""

    code: int
    text: str = "injected"


@dataclass(frozen=True, slots=True)
class LostResponse:
    """Everything is done, and the connection is closed without an answer. Any route."""


@dataclass(frozen=True, slots=True)
class ErrorReceipt:
    """Nothing is done, and the receipt has this error. A command."""

    name: str
    message: str = "injected"


@dataclass(frozen=True, slots=True)
class ExpiredDelegations:
    """The invocation's proofs count as expired. At ``/index/add``: the delegation that the indexer
    is given is expired, so that it cannot fetch the index. A command."""


@dataclass(frozen=True, slots=True)
class MissingReceipt:
    """Everything is done, and the answer has all but the receipt. A command."""


@dataclass(frozen=True, slots=True)
class ForgedReceipt:
    """Everything is done, and the receipt is signed by another key than its issuer's. A command,
    and ``GET /receipt``."""


@dataclass(frozen=True, slots=True)
class LateReceipts:
    """``GET /receipt``: 404, as if nothing had been concluded yet. ``/ucan/conclude``: everything
    is done, and the answer leaves the accept receipts to be asked for."""


@dataclass(frozen=True, slots=True)
class FlippedBit:
    """One bit of the body is wrong, in the middle. ``GET /piece``, ``GET /claims``."""


@dataclass(frozen=True, slots=True)
class Truncated:
    """The body ends ``missing`` bytes too early: with a Content-Length that says so, or cut off
    behind one that does not. ``GET /piece``."""

    missing: int = 1
    cut: bool = False


Fault = (
    Delay
    | Hold
    | Close
    | Status
    | LostResponse
    | ErrorReceipt
    | ExpiredDelegations
    | MissingReceipt
    | ForgedReceipt
    | LateReceipts
    | FlippedBit
    | Truncated
)

_ANYWHERE: Final = (Delay, Hold, Close, Status, LostResponse)
_OF_COMMANDS: Final = (ErrorReceipt, ExpiredDelegations, MissingReceipt, ForgedReceipt)
_AT: Final[dict[str, tuple[type, ...]]] = {
    "GET /receipt": (LateReceipts, ForgedReceipt),
    "/ucan/conclude": (LateReceipts,),
    "GET /piece": (FlippedBit, Truncated),
    "GET /claims": (FlippedBit,),
}


@dataclass(slots=True)
class _Rule:
    route: str
    fault: Fault
    skip: int
    left: int | None


class Applied:
    """The faults that hold for one request."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self._faults = faults

    def get(self, kind: type[T]) -> T | None:
        return next((fault for fault in self._faults if isinstance(fault, kind)), None)

    async def before(self) -> None:
        """Wait as they say; Closed or Answered where nothing is to be done."""
        for fault in self._faults:
            if isinstance(fault, Delay):
                await asyncio.sleep(fault.seconds)
            elif isinstance(fault, Hold):
                fault.arrived.set()
                await fault.released.wait()
        if self.get(Close):
            raise Closed
        status = self.get(Status)
        if status is not None:
            raise Answered(status.code, status.text)

    def after(self) -> None:
        """Closed where everything was done and the answer is to get lost."""
        if self.get(LostResponse):
            raise Closed


class Faults:
    """Those of one service; ``routes`` are the routes that it has."""

    def __init__(self, routes: Sequence[str]) -> None:
        self._routes = routes
        self._rules: list[_Rule] = []

    def add(self, route: str, fault: Fault, times: int | None = 1, after: int = 0) -> None:
        """For the next ``times`` requests of ``route`` (None: until cleared), once ``after`` others
        have gone well. ValueError for a route that the service lacks or a fault without effect."""
        if route not in self._routes:
            raise ValueError(f"no route {route!r}; there are {', '.join(self._routes)}")
        command = route.startswith("/")
        if not isinstance(fault, _ANYWHERE + _AT.get(route, ())):
            if not (command and isinstance(fault, _OF_COMMANDS)):
                raise ValueError(f"{type(fault).__name__} does nothing at {route}")
        self._rules.append(_Rule(route, fault, after, times))

    def clear(self, route: str | None = None) -> None:
        """Forget the faults of a route, or all."""
        self._rules = [rule for rule in self._rules if route not in (None, rule.route)]

    def take(self, route: str) -> Applied:
        """Those for a request that is there now; it counts as one of their times."""
        held = []
        for rule in self._rules:
            if rule.route != route:
                continue
            if rule.skip:
                rule.skip -= 1
            elif rule.left is None or rule.left > 0:
                held.append(rule.fault)
                rule.left = None if rule.left is None else rule.left - 1
        self._rules = [rule for rule in self._rules if rule.left != 0]
        return Applied(held)
