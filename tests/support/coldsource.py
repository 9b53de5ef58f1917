"""The network as the segment store sees it: segment files at providers that can lie."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ingot.errors import IngotError, NotFound, Unavailable

Key = tuple[str, int]


class Provider:
    """Has files. ``away``: it cannot be reached; ``spoil`` changes what it hands out."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.files: dict[Key, bytes] = {}
        self.forgot: set[Key] = set()  # of those, the ones that it confirmed and has no more
        self.away = False
        self.spoil: Callable[[int, bytes], bytes] = lambda at, piece: piece
        self.stop_after: int | None = None  # bytes of each answer, then it breaks off
        self.asked: list[tuple[Key, int, int]] = []


class FakeSource:
    """``ingot.ports.ColdSource`` over providers, asked in order. ``gate`` holds every answer."""

    def __init__(self, *names: str, piece: int = 1 << 16) -> None:
        self.all = [Provider(name) for name in names or ("near",)]
        self.piece = piece
        self.gate: asyncio.Event | None = None
        self.asked: list[tuple[Key, int, int]] = []
        self.reading = self.reading_max = 0
        self.failing: Callable[[int, bytes], bytes] = lambda at, piece: piece

    def keep(self, key: Key, data: bytes) -> None:
        for provider in self.all:
            provider.files[key] = data

    async def read(
        self, key: Key, start: int, stop: int, provider: str | None = None
    ) -> FakeReading:
        assert 0 <= start < stop
        self.asked.append((key, start, stop))
        return FakeReading(
            self, [one for one in self.all if provider in (None, one.name)], key, start, stop
        )

    async def providers(self, key: Key) -> Sequence[str]:
        return [one.name for one in self.all if key in one.files]


class FakeReading:
    def __init__(
        self, source: FakeSource, left: list[Provider], key: Key, start: int, stop: int
    ) -> None:
        self.position, self._stop, self._key = start, stop, key
        self._source, self._left = source, left
        self._failures: list[IngotError] = []
        self._given: int | None = None  # by the provider at hand
        source.reading += 1
        source.reading_max = max(source.reading_max, source.reading)

    async def __anext__(self) -> bytes:
        while self.position < self._stop:
            await asyncio.sleep(0)
            if self._source.gate is not None:
                await self._source.gate.wait()
            if not self._left:
                absent = all(isinstance(error, NotFound) for error in self._failures)
                raise (NotFound if absent else Unavailable)("; ".join(map(str, self._failures)))
            provider = self._left[0]
            if self._given is None:
                provider.asked.append((self._key, self.position, self._stop))
                self._given = 0
            if provider.away:
                self._next(Unavailable(f"{provider.name} is away"))
                continue
            data = provider.files.get(self._key)
            if data is None or self._key in provider.forgot:
                self._next(NotFound(f"{provider.name} has it not"))
                continue
            if provider.stop_after is not None and self._given >= provider.stop_after:
                self._next(Unavailable(f"{provider.name} broke off"))
                continue
            end = min(self._stop, self.position + self._source.piece)
            piece = data[self.position : end]
            try:
                piece = self._source.failing(self.position, provider.spoil(self.position, piece))
            except Unavailable as error:
                self._next(error)
                continue
            self.position, self._given = end, self._given + len(piece)
            return piece
        raise StopAsyncIteration

    def reject(self, since: int, why: str) -> None:
        self.position = since
        self._next(Unavailable(f"{self._left[0].name}: {why}"))

    def _next(self, error: IngotError) -> None:
        self._failures.append(error)
        del self._left[0]
        self._given = None

    async def aclose(self) -> None:
        self._source.reading -= 1


def flip(piece: bytes, at: int) -> bytes:
    """``piece`` with a wrong bit, where it has that position."""
    if not 0 <= at < len(piece):
        return piece
    return piece[:at] + bytes((piece[at] ^ 1,)) + piece[at + 1 :]
