"""What a space names as its content: roots, each with the blobs it is in (forge.md section 4.1).

    /upload/add          a root, an index archive and the CARs; what is there already is added to
    /upload/list         roots, a page at a time
    /upload/shard/list   the CARs of one root, a page at a time
    /upload/remove       a root is named no more; its blobs stay

The service does not look at any of it: a root is what its reader makes of it. Each operation may be
repeated. Errors are those of ``upload``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from ingot.codec import cid, multihash
from ingot.codec.dag_cbor import Cid
from ingot.errors import FormatError
from ingot.forge import invoker, retry, values
from ingot.forge.errors import BadAnswer, Malformed
from ingot.forge.invoker import Invoker, Service
from ingot.forge.retry import RetrySettings
from ingot.limits import FORGE_UPLOADS_MAX

T = TypeVar("T")

LIST: Final = "/upload/list"
SHARDS: Final = "/upload/shard/list"


@dataclass(frozen=True, slots=True)
class Named:
    """A root of the space, and the CID of an index archive where one was said."""

    root: bytes
    index: bytes | None


class Uploads:
    """The uploads of the identity's space."""

    def __init__(
        self, ask: Invoker, service: Service, settings: RetrySettings, logger: logging.Logger
    ) -> None:
        self._invoker, self._service = ask, service
        self._settings, self._logger = settings, logger

    async def add(self, root: bytes, index: bytes | None, shards: Sequence[bytes]) -> None:
        """Name ``root``. ``index`` and ``shards`` are multihashes of blobs of the space."""
        arguments: dict[str, object] = {
            "root": Cid(root),
            "shards": [_archive(shard) for shard in shards],
        }
        if index is not None:
            arguments["index"] = _archive(index)
        await self._often("naming an upload", "/upload/add", arguments)

    async def remove(self, root: bytes) -> None:
        """Name ``root`` no more; nothing to do where it is not named."""
        await self._often("removing an upload", "/upload/remove", {"root": Cid(root)})

    async def named(self) -> list[Named]:
        """All roots. BadAnswer where there are more than ``FORGE_UPLOADS_MAX``."""
        return await self._pages(
            LIST,
            {},
            lambda row: Named(invoker.link(row, "root"), values.get(row, Cid, "index")),
        )

    async def shards(self, root: bytes) -> list[bytes]:
        """The multihashes of the blobs that ``root`` was said to be in."""
        return await self._pages(
            SHARDS, {"root": Cid(root)}, lambda row: multihash.of_cid(values.take(row, Cid))
        )

    async def _pages(
        self, command: str, arguments: Mapping[str, object], read: Callable[[object], T]
    ) -> list[T]:
        rows: list[T] = []
        pages = invoker.Pages(self._service.url, command)
        cursor: str | None = None
        while True:
            more = {} if cursor is None else {"cursor": cursor}
            ok = await self._often("listing uploads", command, {**arguments, **more})
            try:
                rows += [read(row) for row in values.take(ok, list, "results")]
                cursor = values.get(ok, str, "cursor") or None
            except (Malformed, FormatError) as error:
                raise invoker.bad(self._service.url, f"the answer to {command}", error) from error
            if len(rows) > FORGE_UPLOADS_MAX:
                raise BadAnswer(
                    self._service.url, f"{command} has more than {FORGE_UPLOADS_MAX} results"
                )
            if cursor is None:
                return rows
            pages.follow(cursor)

    async def _often(self, what: str, command: str, arguments: Mapping[str, object]) -> object:
        reply = await retry.run(
            lambda: self._invoker.ask(self._service, command, arguments),
            self._settings,
            self._invoker.random,
            self._logger,
            what,
        )
        return reply.ok


def _archive(digest: bytes) -> Cid:
    return Cid(cid.of_archive(multihash.split(digest)[1]))
