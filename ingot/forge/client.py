"""A client of the Forge network: one identity, one session, uploads and reads.

    async with ForgeClient(settings, identity, clock) as client:
        locations = await client.upload.add(BlobRef(digest, size), FileRange(fd, 0, size))
        await client.upload.publish_index(archive)
        async with client.retriever.read(locations, start, end) as reading:
            async for piece in reading: ...

It belongs to the loop it was entered on. Everything it learns is in memory and can be learnt again;
what has to be kept (locations, what was uploaded) is the caller's.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from ingot.errors import ConfigError
from ingot.forge import did, http
from ingot.forge.breaker import State
from ingot.forge.document import Document
from ingot.forge.errors import Malformed
from ingot.forge.holdings import Holdings
from ingot.forge.http import Http, HttpSettings
from ingot.forge.identity import Identity
from ingot.forge.invoker import Invoker, Service
from ingot.forge.resolver import Resolver
from ingot.forge.retrieve import Retriever
from ingot.forge.retry import RetrySettings
from ingot.forge.space import SpaceClient
from ingot.forge.upload import UploadClient
from ingot.forge.uploads import Uploads
from ingot.ports import Clock, ProviderSelector


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgeSettings:
    """The services of a network. ``receipts`` is where the upload service keeps receipts, by
    default ``/receipt`` under its URL; ``home`` the DID of the one node that blobs shall go to.
    ConfigError for what cannot be."""

    upload: Service
    indexer: Service | None = None
    receipts: str | None = None
    home: str | None = None
    http: HttpSettings = field(default_factory=HttpSettings)
    retry: RetrySettings = field(default_factory=RetrySettings)

    def __post_init__(self) -> None:
        named = [self.upload] + ([self.indexer] if self.indexer is not None else [])
        try:
            for name in [one.did for one in named] + ([self.home] if self.home else []):
                did.check(name)
            for url in [one.url for one in named] + ([self.receipts] if self.receipts else []):
                http.origin_of(url, self.http.insecure)
        except Malformed as error:
            raise ConfigError(f"a service of the Forge network: {error}") from error

    @property
    def receipts_url(self) -> str:
        return self.receipts or self.upload.url.rstrip("/") + "/receipt"


class AnyNode:
    """The upload service chooses (``ingot.ports.ProviderSelector``)."""

    async def node_for(self, digest: bytes, size: int) -> str | None:
        return None


@dataclass(frozen=True, slots=True)
class HomeNode:
    """Every blob goes to one node, or waits; what lies at another one already stays there."""

    node: str

    async def node_for(self, digest: bytes, size: int) -> str | None:
        return self.node


class ForgeClient:
    """``documents`` are DID documents that need not be fetched, by DID."""

    def __init__(
        self,
        settings: ForgeSettings,
        identity: Identity,
        clock: Clock,
        random: Callable[[int], bytes] = os.urandom,
        *,
        providers: ProviderSelector | None = None,
        documents: Mapping[str, Document] | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        logger = logger or logging.getLogger("ingot.forge")
        if providers is None:
            providers = HomeNode(settings.home) if settings.home else AnyNode()
        self.identity = identity
        self.service = settings.upload.did
        self._http = Http(clock.monotonic, settings.http)
        resolver = Resolver(self._http, clock.monotonic, documents)
        ask = Invoker(self._http, resolver, identity, clock.now_ms, random)
        self.upload = UploadClient(
            ask, settings.upload, settings.receipts_url, providers, settings.retry, logger
        )
        self.space = SpaceClient(ask, settings.upload)
        self.uploads = Uploads(ask, settings.upload, settings.retry, logger)
        self.retriever = Retriever(ask, settings.indexer, clock.monotonic, settings.retry, logger)
        self.holdings = Holdings(
            self.upload, self.uploads, self.retriever, settings.retry, random, logger
        )

    def breakers(self) -> dict[str, State]:
        """How each service that was called stands, by scheme, host and port."""
        return self._http.breakers()

    async def open(self) -> None:
        await self._http.open()

    async def close(self) -> None:
        await self._http.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
