"""Cross-origin requests: the preflight, and what an answer to a page of another site says.

A browser's request is never refused for its origin: what it may do is decided as for anybody. The
headers tell the browser whether the page may see the answer, errors included. Called by
``ingot.s3.app``.
"""

from __future__ import annotations

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


class CrossOrigin:
    """The rules of all buckets. Belongs to one server."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read = Parsed(cors.read)

    async def preflight(self, call: Call) -> Response:
        """Asked without credentials, and answered to anybody: so nobody hears by it whether there
        is such a bucket."""
        if call.request.target == b"*":  # about the server as a whole; no browser asks this
            return Response(200, [ALLOWED])
        question = Question(call.request)
        try:
            rules = self._rules(call.bucket)
        except NoSuchBucket:
            rules = None
        return answer(question, rules, bool(call.key))

    def add_headers(self, call: Call, response: Response) -> None:
        """To an answer whose request named an origin, if the bucket's rules allow it to see it."""
        request = call.request
        if request.method == "OPTIONS":
            return
        try:
            rules = self._rules(call.bucket)
        except IngotError:
            return  # there is no such bucket, or nothing is served: the answer says so
        if rules is not None:
            index = request.index
            asked = index.get(b"access-control-request-method")  # of no browser, but it counts
            method = request.method if asked is None else asked.decode("latin-1")
            response.headers += cors.answer_headers(rules, index[b"origin"], method) or ()

    def _rules(self, bucket: str) -> tuple[cors.Rule, ...] | None:
        document = self._store.bucket(bucket).config.documents.get(CORS)
        return None if document is None else self._read(document)
