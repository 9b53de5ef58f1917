"""DID documents of services: fetched, held for a while, and given to whoever checks a signature.

A did:key needs no document, a did:web's is fetched from its own host (by plain http in a network
that is insecure anyway), and others are known only when they were given. What cannot be fetched now
is Unavailable. A document that does not help any more, since its owner has another key, is dropped
by ``forget`` and fetched again for the next answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ingot.errors import Unavailable
from ingot.forge import did, document, signature
from ingot.forge.document import Document
from ingot.forge.errors import Malformed, Refused
from ingot.forge.http import Http
from ingot.forge.token import Token
from ingot.limits import (
    DID_DOCUMENT_BYTES_MAX,
    DID_DOCUMENT_TTL_S,
    FORGE_AUTHORITIES_MAX,
    FORGE_DOCUMENTS_MAX,
)


class Resolver:
    """``given`` documents are believed for ever."""

    def __init__(
        self,
        http: Http,
        monotonic: Callable[[], float],
        given: Mapping[str, Document] | None = None,
    ) -> None:
        self._http, self._monotonic = http, monotonic
        self._given = dict(given or {})
        self._held: dict[str, tuple[float, Document]] = {}  # until when; oldest first

    async def documents(self, tokens: Iterable[Token]) -> dict[str, Document]:
        """All documents that these tokens' signatures need and that there are. Of an answer that
        names more authorities than may be asked, the first ones'."""
        tokens = list(tokens)
        found: dict[str, Document] = {}
        asked: set[str] = set()
        while missing := signature.unresolved(tokens, found) - asked:
            for name in sorted(missing)[: FORGE_AUTHORITIES_MAX - len(asked)]:
                known = await self._document(name)
                if known is not None:
                    found[name] = known
            asked |= missing
            if len(asked) >= FORGE_AUTHORITIES_MAX:
                break
        return found

    def forget(self, names: Iterable[str]) -> None:
        for name in names:
            self._held.pop(name, None)

    async def _document(self, name: str) -> Document | None:
        if name in self._given:
            return self._given[name]
        now = self._monotonic()
        held = self._held.get(name)
        if held is not None and now < held[0]:
            return held[1]
        if did.split(name)[0] != "web":
            return None
        try:
            url = did.web_url(name, self._http.settings.insecure)
            answer = await self._http.call("GET", url, bytes_max=DID_DOCUMENT_BYTES_MAX)
            parsed = document.parse(answer.body)
        except (Malformed, Refused) as error:
            raise Unavailable(f"the document of {name}: {error}") from error
        self._held.pop(name, None)
        while len(self._held) >= FORGE_DOCUMENTS_MAX:
            del self._held[next(iter(self._held))]
        self._held[name] = (now + DID_DOCUMENT_TTL_S, parsed)
        return parsed
