"""Cross-origin requests: the preflight, and what an answer to a page of another site says.

A browser's request is never refused for its origin: what it may do is decided as for anybody. The
headers tell the browser whether the page may see the answer, errors included. Called by
``ingot.s3.app``.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from ingot.bucket.model import NoSuchBucket
from ingot.errors import IngotError
from ingot.messages import Response
from ingot.s3 import cors
from ingot.s3.answers import ALLOWED
from ingot.s3.call import Call
from ingot.s3.configuration import CORS, Parsed
from ingot.s3.preflight import Question, answer

if TYPE_CHECKING:
    from ingot.bucket.store import Store
    from ingot.s3.documents import Documents


class CrossOrigin:
    """The rules of all buckets. Belongs to one server."""

    def __init__(self, store: Store, documents: Documents) -> None:
        self._store = store
        self._documents = documents
        self._parsed = Parsed(cors.read)

    async def preflight(self, call: Call) -> Response:
        """Asked without credentials, and answered to anybody: so nobody hears by it whether there
        is such a bucket."""
        if call.request.target == b"*":  # about the server as a whole; no browser asks this
            return Response(200, [ALLOWED])
        question = Question(call.request)
        try:
            rules = await self._rules(call.bucket)
        except NoSuchBucket:
            rules = None
        return answer(question, rules, bool(call.key))

    async def add_headers(self, call: Call, response: Response) -> None:
        """To an answer whose request named an origin, if the bucket's rules allow it to see it."""
        request = call.request
        if request.method == "OPTIONS":
            return
        try:
            rules = await self._rules(call.bucket)
        except IngotError:
            return  # there is no such bucket, or nothing is served: the answer says so
        if rules is not None:
            index = request.index
            asked = index.get(b"access-control-request-method")  # of no browser, but it counts
            method = request.method if asked is None else asked.decode("latin-1")
            response.headers += cors.answer_headers(rules, index[b"origin"], method) or ()

    async def _rules(self, name: str) -> tuple[cors.Rule, ...] | None:
        """Unavailable where others' documents take too long: anybody may ask for them."""
        config = self._store.bucket(name).config
        document = config.documents.get(CORS)
        if document is None:
            return None
        found = self._parsed.held(document)
        if found is None:
            steps = self._read_in_steps(document)
            found = await self._documents.one_at_a_time(config.owner or "", steps)
        return found

    def _read_in_steps(self, document: bytes) -> Generator[None, None, tuple[cors.Rule, ...]]:
        found = self._parsed.held(document)  # by who was before us, while we waited
        if found is None:
            found = self._parsed.hold(document, (yield from cors.read_in_steps(document)))
        return found
