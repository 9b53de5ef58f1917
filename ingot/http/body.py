"""Request bodies: what the peer still has to send of one request, read once and in order.

Three kinds share the surface of ``ingot.messages.BodyStream``: no body, a counted one, a chunked
one. They take bytes that came with the head from the connection's buffer and then ask the
connection for more, straight into the reader's own memory where the framing allows it. They know
no socket: a ``Source`` supplies the bytes, minds the deadlines and answers ``Expect:
100-continue``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final, Protocol

from ingot.http.chunked import ChunkedDecoder
from ingot.http.errors import BodyError
from ingot.limits import HEAD_READ_BYTES, KIB

_GROWTH: Final = 64 * KIB  # ``read`` asks for memory as bytes arrive, not as the peer announces
_DIRECT_BYTES_MIN: Final = 32 * KIB  # smaller rests of a chunk are read together with what follows


class Source(Protocol):
    """Where a body's bytes come from: the connection."""

    pending: bytearray
    """Received and not yet consumed."""

    async def receive(self, view: memoryview) -> int:
        """One byte at least into ``view``; BodyError when none will come."""
        ...

    async def receive_pending(self) -> None:
        """One byte at least into ``pending``; BodyError when none will come."""
        ...

    def receive_now(self, view: memoryview) -> int:
        """What is there already, 0 or less when nothing is. Never waits, never raises."""
        ...


def peek(source: Source, length: int) -> bytes | None:
    """The next ``length`` bytes if they have arrived; they stay in ``pending``."""
    pending = source.pending
    missing = length - len(pending)
    if missing > 0:
        # Many clients send the body right behind the head in a packet of its own.
        if length > HEAD_READ_BYTES:
            return None
        with memoryview(bytearray(missing)) as view:
            count = source.receive_now(view)
            if count > 0:
                pending += view[:count]
        if len(pending) < length:
            return None
    with memoryview(pending) as received:
        return bytes(received[:length])


class NoBody:
    """The body of a request that has none; holds nothing, so one serves all."""

    __slots__ = ()

    length: int | None = 0

    async def readinto(self, view: memoryview) -> int:
        return 0

    def take(self) -> bytes | None:
        return b""

    async def read(self, limit: int) -> bytes:
        return b""

    @property
    def left(self) -> int | None:
        return 0

    def settle(self) -> None:
        """Nothing can be on its way."""

    def detach(self) -> None:
        """Nothing to let go of."""


NO_BODY: Final = NoBody()


class ReceivedBody(ABC):
    """What the counted and the chunked body share."""

    __slots__ = ("_source", "_started", "length")

    def __init__(self, source: Source, length: int | None) -> None:
        self._source: Source | None = source
        self._started = False
        self.length: int | None = length

    @property
    @abstractmethod
    def left(self) -> int | None:
        """Bytes the peer still owes us; None when that is unknown."""

    @abstractmethod
    async def readinto(self, view: memoryview) -> int: ...

    @abstractmethod
    def take(self) -> bytes | None: ...

    @abstractmethod
    def settle(self) -> None:
        """See whether the rest has arrived already, so that ``left`` can say so."""

    async def read(self, limit: int) -> bytes:
        if self.length is not None and self.length > limit:
            raise BodyError("EntityTooLarge", f"the body exceeds {limit} bytes")
        whole = self.take()
        if whole is None:
            whole = await self._collect(limit)
        if len(whole) > limit:
            raise BodyError("EntityTooLarge", f"the body exceeds {limit} bytes")
        return whole

    async def _collect(self, limit: int) -> bytes:
        collected = bytearray()
        space = bytearray(min(_GROWTH, limit + 1))
        with memoryview(space) as view:
            while len(collected) <= limit:
                count = await self.readinto(view)
                if count == 0:
                    break
                collected += view[:count]
        return bytes(collected)

    def detach(self) -> None:
        """The exchange is over: what follows on the connection belongs to the next request."""
        self._source = None

    def _reading(self) -> Source:
        if self._source is None:
            raise BodyError("IncompleteBody", "the request has been answered already")
        self._started = True
        return self._source


class CountedBody(ReceivedBody):
    """A body with a Content-Length of one byte at least."""

    __slots__ = ("_left",)

    def __init__(self, source: Source, length: int) -> None:
        super().__init__(source, length)
        self._left = length

    @property
    def left(self) -> int | None:
        return self._left

    async def readinto(self, view: memoryview) -> int:
        if self._left == 0:
            return 0
        assert len(view) > 0, "a read needs room"
        source = self._reading()
        room = min(len(view), self._left)
        pending = source.pending
        if pending:
            count = min(room, len(pending))
            with memoryview(pending) as received:
                view[:count] = received[:count]
            del pending[:count]
        else:
            count = await source.receive(view[:room])
        self._left -= count
        return count

    def take(self) -> bytes | None:
        source = self._source
        if source is None or self._started:
            return None
        length = self._left
        whole = peek(source, length)
        if whole is not None:
            self._started = True
            self._left = 0
            del source.pending[:length]
        return whole

    def settle(self) -> None:
        """``left`` is exact at any time."""


class ChunkedBody(ReceivedBody):
    """A body with ``Transfer-Encoding: chunked``."""

    __slots__ = ("_decoded", "_decoder")

    def __init__(self, source: Source) -> None:
        super().__init__(source, None)
        self._decoder = ChunkedDecoder()
        self._decoded = bytearray()  # what ``take`` decoded in vain

    @property
    def left(self) -> int | None:
        return 0 if self._decoder.finished else None

    async def readinto(self, view: memoryview) -> int:
        assert len(view) > 0, "a read needs room"
        if self._decoded:
            count = min(len(view), len(self._decoded))
            view[:count] = self._decoded[:count]
            del self._decoded[:count]
            return count
        if self._decoder.finished:
            return 0
        source = self._reading()
        decoder = self._decoder
        while True:
            count = decoder.decode(source.pending, view)
            if count or decoder.finished:
                return count
            room = min(len(view), decoder.remaining)
            if room >= _DIRECT_BYTES_MIN and not source.pending:
                count = await source.receive(view[:room])
                decoder.advance(count)
                return count
            await source.receive_pending()

    def take(self) -> bytes | None:
        source = self._source
        if source is None or self._started:
            return None
        self._started = True
        self._decoded = bytearray(len(source.pending))
        with memoryview(self._decoded) as view:
            count = self._decoder.decode(source.pending, view)
        del self._decoded[count:]
        if not self._decoder.finished:
            return None
        whole = bytes(self._decoded)
        self._decoded.clear()
        return whole

    def settle(self) -> None:
        source = self._source
        if source is None or self._decoder.finished:
            return
        with memoryview(bytearray(len(source.pending))) as scratch:
            try:
                self._decoder.decode(source.pending, scratch)
            except BodyError:
                return  # it stays unfinished, which ends the connection
