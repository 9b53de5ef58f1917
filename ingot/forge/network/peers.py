"""What one service asks of others: their DID documents, and to run an invocation.

Documents of did:web are fetched over HTTP (this network has no TLS), and kept for three hours as
the real services do; a service knows its own by heart. An account (did:mailto) is attested by the
upload service. Calls are one POST each; the receipt is judged before its result is believed. All
waits have a limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import aiohttp

from ingot.codec import cid
from ingot.errors import FormatError, Unavailable
from ingot.forge import container, did, document, signature, validate
from ingot.forge.container import Container
from ingot.forge.document import Document
from ingot.forge.errors import Malformed
from ingot.forge.token import Invocation, Receipt, Token
from ingot.limits import CONTAINER_BYTES_MAX, DID_DOCUMENT_BYTES_MAX, DID_DOCUMENT_TTL_S
from ingot.ports import Clock

NO_TOKEN = "the answer has no receipt for the task"


class Peers:
    """``own`` is this service's document, ``authority`` the DID that attests accounts."""

    def __init__(
        self, session: aiohttp.ClientSession, clock: Clock, own: Document, authority: str
    ) -> None:
        self.session = session
        self._clock = clock
        self._own = own
        self._authority = authority
        self._kept: dict[str, tuple[Document, int]] = {}  # and until when it is believed

    def now(self) -> int:
        """Unix seconds."""
        return self._clock.now_ms() // 1000

    async def documents(self, tokens: Iterable[Token]) -> Mapping[str, Document]:
        """Those needed to check ``tokens``; one that cannot be had is absent, and validation says
        so."""
        tokens = list(tokens)
        found = {self._own.id: self._own}
        missing: set[str] = set()
        while needed := signature.unresolved(tokens, found) - missing:
            for name in needed:
                fetched = await self._document(name)
                if fetched is None:
                    missing.add(name)
                else:
                    found[name] = fetched
        return found

    async def _document(self, name: str) -> Document | None:
        method, _ = did.split(name)
        if method == "mailto":
            return document.of_account(name, self._authority)
        if method != "web":
            return None
        kept = self._kept.get(name)
        if kept is not None and self.now() < kept[1]:
            return kept[0]
        try:
            fetched = await self._fetch(did.web_url(name, insecure=True))
        except (aiohttp.ClientError, TimeoutError, Malformed):
            return None
        if fetched is not None:
            self._kept[name] = fetched, self.now() + DID_DOCUMENT_TTL_S
        return fetched

    async def _fetch(self, url: str) -> Document | None:
        async with self.session.get(url, allow_redirects=False) as response:
            if response.status != 200:
                return None
            return document.parse(await read(response, DID_DOCUMENT_BYTES_MAX))

    async def call(
        self, url: str, invocation: Invocation, along: Sequence[Token] = ()
    ) -> tuple[Receipt, Container]:
        """(the executor's receipt, what came with it); Unavailable when there is none.

        ``along`` are the proofs and whatever else the other side needs to see.
        """
        try:
            async with self.session.post(
                url,
                data=container.encode([invocation, *along]),
                headers={"Content-Type": container.CONTENT_TYPE},
                allow_redirects=False,
            ) as response:
                body = await read(response, CONTAINER_BYTES_MAX)
                kind = response.headers.get("Content-Type", "")
                if response.status != 200 or kind != container.CONTENT_TYPE:
                    raise Unavailable(f"{url}: status {response.status}: {body[:200]!r}")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"{url}: {error or type(error).__name__}") from error
        try:
            answer = container.decode(body)
        except FormatError as error:
            raise Unavailable(f"{url}: {error}") from error
        receipts = answer.receipts_of(invocation.task)
        if not receipts:
            raise Unavailable(f"{url}: {NO_TOKEN} {cid.to_text(invocation.task)}")
        validate.validate_receipt(
            receipts[0],
            task=invocation.task,
            executor=invocation.executor,
            now=self.now(),
            documents=await self.documents(receipts[:1]),
        )
        return receipts[0], answer


async def read(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    """A whole body; Unavailable when it is longer than allowed."""
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > bytes_max:
            raise Unavailable(f"{response.url}: a body over {bytes_max} bytes")
        parts.append(part)
    return b"".join(parts)
