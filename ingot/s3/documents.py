"""Request documents: read whole and checked against every digest the client named, within bounds.

A document is held and parsed while it is answered, and weighs more parsed than as text. So all of
them together have a room in memory, of which each account has a share, and those who have none a
small room of their own; bytes are taken in it before the body is read and given back with the
answer. Of the long ones a single one at a time is hashed or parsed, in steps between which all
other requests have their turn: however many connections send some, a turn of the loop has one step.
Small ones are of kinds with few elements, and are done at once.

Objects are hashed by the ingest while they are stored. A document is hashed here, once it is there,
with the digests its headers ask for. One ``Documents`` belongs to each server. Called by the
operations that take documents, and by those that keep what a bucket's documents say.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar, cast

from ingot._speedups import digest
from ingot.body.checksums import SIZES, Checksum, one_shot
from ingot.credentials import ANONYMOUS
from ingot.limits import (
    DOCUMENT_ARRIVAL_S,
    DOCUMENT_AT_ONCE_BYTES,
    DOCUMENT_ENTRIES_FACTOR,
    DOCUMENT_FACTOR,
    DOCUMENT_HASH_BYTES,
    DOCUMENT_WAIT_S,
    DOCUMENTS_BYTES,
    DOCUMENTS_SHARE_BYTES,
    OPEN_DOCUMENT_BYTES_MAX,
    OPEN_DOCUMENTS_BYTES,
    OPEN_DOCUMENTS_SHARE_BYTES,
    XML_BYTES_MAX,
    XML_STEP_BYTES,
)
from ingot.messages import Body, Request
from ingot.s3.errors import S3Error
from ingot.s3.payload import VerifiedBody
from ingot.s3.room import Room
from ingot.s3.xml import at_once

if TYPE_CHECKING:
    from ingot.ports import Clock
    from ingot.s3.call import Call

T = TypeVar("T")


class Documents:
    """The rooms of one server."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.room = Room(
            "documents of accounts", DOCUMENTS_BYTES, DOCUMENTS_SHARE_BYTES, DOCUMENT_WAIT_S
        )
        self.open_room = Room(
            "documents without a signature",
            OPEN_DOCUMENTS_BYTES,
            OPEN_DOCUMENTS_SHARE_BYTES,
            DOCUMENT_WAIT_S,
        )
        self.lane = Room("long documents, one at a time", 1, 1, DOCUMENT_WAIT_S)

    async def read(
        self,
        call: Call,
        limit: int = XML_BYTES_MAX,
        *,
        entries_bytes: int = 0,
        request: Request | None = None,
    ) -> bytes:
        """The body of the request, b"" where it has none; ``request`` stands for the call's.
        ``entries_bytes``: of memory for what its entries come to, at most. It has its room until
        ``release``. MaxMessageLengthExceeded over ``limit``; Unavailable without room."""
        body = VerifiedBody(request or call.request, call.authenticated)
        most = min(limit, OPEN_DOCUMENT_BYTES_MAX) if call.account is ANONYMOUS else limit
        if body.length is not None and body.length > most:
            raise _too_long(most)
        await self._hold(call, _weight(most if body.length is None else body.length, entries_bytes))
        data = await self._arrived(body, most)
        self._keep(call, _weight(len(data), entries_bytes))
        if len(data) <= DOCUMENT_AT_ONCE_BYTES:
            sha256, md5 = digest.sha256_md5(data)
            sums = {name: one_shot(name, data) for name in body.algorithms}
            body.check(Body(len(data), md5, sha256, checksums=sums))
        else:
            body.check(await self.one_at_a_time(holder_of(call), _hashed(data, body.algorithms)))
        return data

    def release(self, call: Call) -> None:
        """The document has been answered."""
        self._keep(call, 0)

    async def parse(self, call: Call, body: bytes, steps: Generator[None, None, T]) -> T:
        """What comes of steps in which the request's ``body`` is parsed."""
        if len(body) <= XML_STEP_BYTES:
            return at_once(steps)
        return await self.one_at_a_time(holder_of(call), steps)

    async def whole(self, call: Call, body: bytes, read: Callable[[bytes], T]) -> T:
        """What ``read`` makes of the request's ``body``, which has few elements: one step."""
        await self.turn(call, body)
        return read(body)

    async def turn(self, call: Call, body: bytes) -> None:
        """Wait for a turn, if the request's ``body`` is long: it is read right behind this."""
        if len(body) > XML_STEP_BYTES:
            await self.in_turn(holder_of(call), lambda: None)

    async def one_at_a_time(self, holder: str, steps: Generator[None, None, T]) -> T:
        """What comes of steps between which others have their turn. No others are under way at the
        same time; whose turn it is goes round among holders."""
        async with self._turn_of(holder):
            return await in_turns(steps)

    async def in_turn(self, holder: str, work: Callable[[], T]) -> T:
        """As ``one_at_a_time``, of what is one step."""
        async with self._turn_of(holder):
            return work()

    @asynccontextmanager
    async def _turn_of(self, holder: str) -> AsyncGenerator[None, None]:
        await self.lane.acquire(holder, 1)
        try:
            await asyncio.sleep(0)  # whoever ends with his first step leaves nothing of this turn
            yield
        finally:
            self.lane.release(holder, 1)

    async def _hold(self, call: Call, units: int) -> None:
        await self._room(call).acquire(holder_of(call), units)
        call.document_bytes = units

    def _keep(self, call: Call, units: int) -> None:
        """Of what is held, no more than this."""
        more = call.document_bytes - units
        if more > 0:
            call.document_bytes = units
            self._room(call).release(holder_of(call), more)

    def _room(self, call: Call) -> Room:
        return self.open_room if call.account is ANONYMOUS else self.room

    async def _arrived(self, body: VerifiedBody, most: int) -> bytes:
        """The whole body; RequestTimeout where it takes so long that it keeps others out."""
        whole = body.take()
        if whole is None:
            until = self._clock.monotonic() + DOCUMENT_ARRIVAL_S
            collected = bytearray((most if body.length is None else body.length) + 1)
            filled = 0
            with memoryview(collected) as view:
                while filled <= most:
                    count = await body.readinto(view[filled:])
                    if count == 0:
                        break
                    filled += count
                    if self._clock.monotonic() > until:
                        raise S3Error("RequestTimeout")
                whole = bytes(view[:filled])
        if len(whole) > most:
            raise _too_long(most)
        return whole


def holder_of(call: Call) -> str:
    """Whose share a request's document is of: the account's, else the address's."""
    return f"from {call.request.peer}" if call.account is ANONYMOUS else call.account.id


def _weight(length: int, entries_bytes: int) -> int:
    """Bytes of memory for a document of so many, until it is answered."""
    return DOCUMENT_FACTOR * length + min(entries_bytes, DOCUMENT_ENTRIES_FACTOR * length)


def _too_long(most: int) -> S3Error:
    return S3Error("MaxMessageLengthExceeded", MaxMessageLengthBytes=str(most))


def _hashed(data: bytes, algorithms: tuple[str, ...]) -> Generator[None, None, Body]:
    sha256, md5 = digest.Hasher("sha256"), digest.Hasher("md5")
    sums = [Checksum(name) for name in algorithms]
    with memoryview(data) as view:
        for at in range(0, len(data), DOCUMENT_HASH_BYTES):
            span = view[at : at + DOCUMENT_HASH_BYTES]
            sha256.update(span)
            md5.update(span)
            for each in sums:
                each.update(span)
            yield
    checksums = {each.name: each.digest() for each in sums}
    return Body(len(data), md5.digest(), sha256.digest(), checksums=checksums)


async def in_turns(steps: Generator[None, None, T]) -> T:
    """What comes of steps between which others have their turn."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast("T", end.value)
        await asyncio.sleep(0)


def require_checksum(call: Call) -> None:
    index = call.request.index
    if b"content-md5" in index or any(b"x-amz-checksum-" + n.encode() in index for n in SIZES):
        return
    raise S3Error(
        "InvalidRequest",
        "Missing required header for this request: Content-MD5 OR x-amz-checksum-*",
    )
