"""One read of a blob's bytes from the network: from one location, or from the next if that fails.

A location fails when its node cannot be reached or stalls, answers another status or length than it
was asked for, does not sign a receipt for the task, says no, or when the reader finds the bytes to
be wrong (``reject``). What was handed out already is not fetched again but after a ``reject``.
Called by ``retrieve``.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

from ingot.errors import FormatError, IngotError, NotFound, Unavailable
from ingot.forge import container
from ingot.forge.errors import BadAnswer, Malformed, Refused, UcanError
from ingot.forge.http import Response
from ingot.forge.invoker import Invoker
from ingot.forge.query import Location
from ingot.limits import FORGE_URLS_MAX

RETRIEVE = "/content/retrieve"
_ABSENT = ("NotFound", "NotAllocated")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/(?:[0-9]{1,19}|\*)")


class Reading:
    """An async iterator of bytes, and an async context manager for whoever may stop early.

    ``start`` and ``end`` are positions in the blob, both inclusive. It ends when all bytes were
    handed out, and raises when no location is left: NotFound where each said that it has none,
    else Unavailable with what each one did.
    """

    def __init__(
        self,
        ask: Invoker,
        locations: Sequence[Location],
        start: int,
        end: int,
        faulty: Callable[[str], None],
    ) -> None:
        assert 0 <= start <= end
        self.position = start  # of the next byte in the blob
        self.location: Location | None = None  # which the bytes come from
        self._invoker, self._end, self._faulty = ask, end, faulty
        self._start = start
        self._url = ""
        self._left = self._candidates(locations)
        self._response: Response | None = None
        self._began = start  # from where on the bytes are this location's
        self._repeats = False  # whether the same location is to be asked once more
        self._wait_s = 0.0  # that is left for the answer under way
        self._failures: list[tuple[str, IngotError]] = []

    def _candidates(self, locations: Sequence[Location]) -> Iterator[tuple[Location, str]]:
        for location in locations:
            last = self._end if location.end is None else location.end
            if not location.start <= self._start <= self._end <= last:
                continue  # its node vouches for other bytes
            for url in location.urls[:FORGE_URLS_MAX]:
                yield location, url

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while self.position <= self._end:
            if self._response is None and not self._next_location():
                raise self._failure()
            try:
                if self._response is None:
                    await self._begin()
                piece = await self._piece()
            except (Unavailable, UcanError, Malformed, FormatError) as error:
                self._give_up(error)
                continue
            except BaseException:
                self.close()
                raise
            self.position += len(piece)
            if self.position > self._end:
                self.close()
            return piece
        raise StopAsyncIteration

    def reject(self, since: int, why: str) -> None:
        """The bytes from position ``since`` on were wrong: the read goes on there, from the next
        location. Where an earlier location gave the first of them, it is not known whose fault it
        is, and the same location gives them all once more."""
        assert self._start <= since <= self.position
        self._repeats = since < self._began and self.location is not None
        self.position = since
        if self._repeats:
            self.close()
            return
        node = self.location.node if self.location is not None else "nobody"
        self._give_up(BadAnswer(node, f"wrong bytes from byte {since} on: {why}"))

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None

    async def aclose(self) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _give_up(self, error: IngotError) -> None:
        self.close()
        if self.location is not None:
            self._failures.append((self.location.node, error))
            self._faulty(self.location.node)

    def _next_location(self) -> bool:
        if self._repeats:
            self._repeats = False
            return True
        self.location, self._url = next(self._left, (None, ""))
        return self.location is not None

    async def _begin(self) -> None:
        """Ask the location for the rest, and judge its answer by its head: all that within one
        deadline, whatever pieces things come in."""
        settings = self._invoker.http.settings
        deadline_s = settings.connect_s + settings.answer_s
        try:
            async with asyncio.timeout(deadline_s):
                await self._ask()
        except TimeoutError:
            node = self.location.node if self.location is not None else "nobody"
            raise Unavailable(f"{node}: no answer to go by within {deadline_s:g} s") from None

    async def _ask(self) -> None:
        location = self.location
        assert location is not None
        invocation, proofs = self._invoker.invocation(
            location.node,
            RETRIEVE,
            {"blob": {"digest": location.blob}, "range": [self.position, self._end]},
            subject=location.space,
        )
        tokens = container.to_header([invocation, *proofs])
        response = await self._invoker.http.get(self._url, {container.HEADER: tokens})
        try:
            await self._check(response, location, invocation.task)
        except BaseException:
            response.close()
            raise
        self._response, self._began = response, self.position
        settings = self._invoker.http.settings
        self._wait_s = settings.answer_s + (self._end + 1 - self.position) / settings.rate_min

    async def _check(self, response: Response, location: Location, task: bytes) -> None:
        """The receipt first: a failure may have status 200."""
        value = response.headers.get(container.HEADER)
        if value is None:
            answer = await response.start()
            raise BadAnswer(location.node, f"no receipt; HTTP {answer.status} {answer.text()}")
        found = container.from_answer(value)
        receipt = await self._invoker.receipt_in(found, task, location.node)
        if receipt is None:
            raise BadAnswer(location.node, f"no receipt for this task; HTTP {response.status}")
        receipt.result()
        wanted = self._end + 1 - self.position
        if response.status not in (200, 206):
            raise BadAnswer(
                location.node, f"HTTP {response.status}, and a receipt that all is well"
            )
        if response.length != wanted:
            raise BadAnswer(location.node, f"{response.length} bytes in place of {wanted}")
        if response.status == 206:
            said = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if said is None or (int(said[1]), int(said[2])) != (self.position, self._end):
                raise BadAnswer(location.node, f"the range {said and said[0]!r}, not the one asked")

    async def _piece(self) -> bytes:
        assert self._response is not None and self.location is not None
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._wait_s):
                piece = await self._response.piece()
        except TimeoutError:
            raise Unavailable(f"{self.location.node}: slower than the slowest allowed") from None
        self._wait_s -= loop.time() - began  # the reader's own time does not count
        if not piece:
            left = self._end + 1 - self.position
            raise BadAnswer(self.location.node, f"the answer ends {left} bytes early")
        return piece

    def _failure(self) -> IngotError:
        if not self._failures:
            return NotFound(f"no location of bytes {self._start} to {self._end} is known")
        told = "; ".join(f"{node}: {error}" for node, error in self._failures)
        absent = [
            isinstance(error, Refused) and error.name in _ABSENT for _, error in self._failures
        ]
        if all(absent):
            return NotFound(f"no location has the bytes: {told}")
        return Unavailable(f"no location gave the bytes: {told}")
