"""A space read by whoever knows nothing of it yet: its blobs, where they lie, the block of a root.

Where a blob lies the upload service tells, for it keeps what the nodes signed (``upload.located``);
so no indexing service is needed. What is read is as ``retrieve`` gives it: whoever wants to believe
it hashes it. ``root_block`` does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from hashlib import sha256

from ingot.codec import cid, multihash, varint
from ingot.errors import FormatError, NotFound, Unavailable
from ingot.forge import retry
from ingot.forge.blob import BlobRef
from ingot.forge.invoker import Pages
from ingot.forge.query import Location
from ingot.forge.retrieve import Retriever
from ingot.forge.retry import RetrySettings
from ingot.forge.upload import UploadClient
from ingot.forge.uploads import Uploads
from ingot.limits import (
    FORGE_ROOT_BYTES_MAX,
    FORGE_ROOT_HASHED_BYTES,
    FORGE_ROOT_PLACES,
    FORGE_TAIL_BYTES,
)


class Holdings:
    """What the space of a client's identity holds."""

    def __init__(
        self,
        upload: UploadClient,
        uploads: Uploads,
        retriever: Retriever,
        settings: RetrySettings,
        random: Callable[[int], bytes],
        logger: logging.Logger,
    ) -> None:
        self.uploads = uploads
        self._upload, self._retriever = upload, retriever
        self._settings, self._random, self._logger = settings, random, logger

    async def blobs(self) -> AsyncGenerator[list[BlobRef], None]:
        """All blobs, a page at a time. BadAnswer where the pages have no end."""
        cursor: str | None = None
        pages = Pages("the upload service", "/blob/list")
        while True:
            page = await self._upload.list_blobs(cursor)
            yield [listed.blob for listed in page.blobs]
            cursor = page.cursor
            if cursor is None:
                return
            pages.follow(cursor)

    async def places(self, blob: BlobRef) -> list[Location]:
        """Where a blob lies. NotFound where the service does not have it."""
        return await self._upload.located(blob)

    async def read(self, places: Sequence[Location], start: int, stop: int) -> bytes:
        """The bytes [start, stop) of a blob, at least one. NotFound, Unavailable."""
        return await self._often(lambda: self._read(places, start, stop))

    async def whole(self, blob: BlobRef, places: Sequence[Location]) -> bytes:
        """All of a blob, which has its hash. NotFound, Unavailable where nobody gives it."""

        async def work() -> bytes:
            data = await self._read(places, 0, blob.size)
            if multihash.of(data) != blob.digest:
                raise Unavailable(f"{places[0].node} gives other bytes for {blob}")
            return data

        return await self._often(work)

    async def _read(self, places: Sequence[Location], start: int, stop: int) -> bytes:
        async with self._retriever.read(places, start, stop - 1) as reading:
            return b"".join([piece async for piece in reading])

    async def _often(self, work: Callable[[], Awaitable[bytes]]) -> bytes:
        what = "reading from the space"
        return await retry.run(work, self._settings, self._random, self._logger, what)

    async def root_block(self, root: bytes) -> bytes:
        """The block of a root that the space names, from the blobs that it was said to be in; it
        has its hash. NotFound where none of them has it, Unavailable."""
        wanted = set(await self.uploads.shards(root))
        async with aclosing(self.blobs()) as pages:
            async for page in pages:
                for blob in page:
                    if blob.digest not in wanted:
                        continue
                    block = await self.last_block(blob, await self.places(blob), root)
                    if block is not None:
                        return block
        raise NotFound(f"the root {cid.to_text(root)} is in no blob of the space that it names")

    async def last_block(
        self, blob: BlobRef, places: Sequence[Location], root: bytes
    ) -> bytes | None:
        """The block of a CID out of a CAR, looked for at its end, where roots of ours are; None
        where it is not in there whole."""
        for length in FORGE_TAIL_BYTES:
            start = max(0, blob.size - length)
            piece = await self.read(places, start, blob.size)
            found = await asyncio.to_thread(block_in, piece, root)
            if found is not None or start == 0:
                return found
        return None


def block_in(data: bytes, name: bytes) -> bytes | None:
    """The block of a CID out of a piece of a CAR, from wherever its frame lies whole; it has its
    hash, which is sha2-256. Looked for from the end.

    Whoever made the piece may have put the name into it any number of times, each behind a length
    that has to be hashed: so only some of the places are looked at, and so many bytes hashed.
    """
    if len(name) != cid.CID_BYTES:
        return None
    expected, room = multihash.of_cid(name), FORGE_ROOT_HASHED_BYTES
    at = data.rfind(name)
    for _ in range(FORGE_ROOT_PLACES):
        if at < 0:
            break
        for start in range(max(0, at - varint.VARINT_BYTES_MAX), at):
            try:
                length, end = varint.decode(data, start)
            except FormatError:
                continue
            size = length - len(name)
            if end != at or not 0 < size <= min(FORGE_ROOT_BYTES_MAX, len(data) - at - len(name)):
                continue
            room -= size
            if room < 0:
                return None
            block = data[at + len(name) : at + length]
            if multihash.of_digest(sha256(block).digest()) == expected:
                return block
        at = data.rfind(name, 0, at + len(name) - 1)
    return None
