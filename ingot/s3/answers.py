"""What every answer has in common, whichever way its request went: ids, error documents, the log.

Called by ``ingot.s3.app`` and ``ingot.s3.express``, once a request each.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from itertools import count
from typing import Final, NamedTuple

from ingot.bucket.model import NoSuchBucket
from ingot.errors import Corruption, IngotError
from ingot.limits import HEADER_BYTES_MAX
from ingot.messages import Header, Response
from ingot.s3.call import XML
from ingot.s3.errors import ERRORS, S3Error, translate
from ingot.s3.xml import error_document

SAY_EVERY_MS: Final = 1000
HEAD_TOO_LARGE: Final = "RequestHeaderSectionTooLarge"
ALLOWED: Final[Header] = (b"Allow", b"GET, HEAD, PUT, POST, DELETE, OPTIONS")


class AccessEntry(NamedTuple):
    """One line of an access log."""

    request_id: str
    time_ms: int
    peer: str
    account: str  # canonical id, "" for a request that was not authenticated
    operation: str
    bucket: str
    key: bytes
    status: int
    code: str  # the S3 error code, "" on success
    length: int  # of the response's body


AccessLog = Callable[[AccessEntry], None]


class Asked(NamedTuple):
    """What a refusal says of the request it answers."""

    request_id: bytes
    now_ms: int
    method: str
    target: bytes
    bucket: str
    key: bytes


class Answers:
    """``access_log`` is called once a request, when its head has been decided."""

    def __init__(self, access_log: AccessLog | None, logger: logging.Logger) -> None:
        self._access_log = access_log
        self._log = logger
        # A request id is this process's random prefix and a counter: unique, and cheap to make.
        self._id_prefix = secrets.token_hex(4).upper().encode()
        self._ids = count(secrets.randbelow(2**24))
        self._said_ms = self._unsaid = 0
        self._host_id = secrets.token_urlsafe(32)
        self._host_header: Header = (b"x-amz-id-2", self._host_id.encode())

    def next_id(self) -> bytes:
        return b"%b%08X" % (self._id_prefix, next(self._ids))

    def complete(self, response: Response, request_id: bytes) -> Response:
        """The response with the headers that all of them bear."""
        headers = response.headers
        headers.append((b"x-amz-request-id", request_id))
        headers.append(self._host_header)
        return response

    @property
    def logs_access(self) -> bool:
        return self._access_log is not None

    def note(
        self, asked: Asked, peer: str, account: str, operation: str, response: Response, code: str
    ) -> None:
        """Tell the access log, where there is one."""
        if self._access_log is None:
            return
        length = response.length
        if length is None:
            length = len(response.body) if isinstance(response.body, bytes) else 0
        entry = AccessEntry(
            asked.request_id.decode(),
            asked.now_ms,
            peer,
            account,
            operation,
            asked.bucket,
            asked.key,
            response.status,
            code,
            length,
        )
        try:
            self._access_log(entry)
        except Exception:  # the host's mistake must not cost the client its answer
            self._log.exception("request %s: the access log failed", entry.request_id)

    def refusal(self, error: Exception, asked: Asked) -> S3Error:
        """What the client hears of ``error``; what the operator must know goes to the log."""
        bucket = asked.bucket
        if isinstance(error, NoSuchBucket) and error.args:
            bucket = str(error.args[0])  # a copy's source may be another one
        refused = translate(error, bucket, asked.key.decode("utf-8", "replace"), asked.method)
        if refused.status == 500:
            known = isinstance(error, IngotError)
            self._log.error(
                "request %s: %s %s: %s: %s",
                asked.request_id.decode(),
                asked.method,
                ascii(asked.target.partition(b"?")[0].decode("latin-1")),
                "damaged data" if isinstance(error, Corruption) else type(error).__name__,
                error,
                exc_info=None if known else error,
            )
        elif refused.status == 503:
            self._say_unavailable(error, asked)
        elif self._log.isEnabledFor(logging.DEBUG):
            self._log.debug(
                "request %s: %s %s: %d %s: %s",
                asked.request_id.decode(),
                asked.method,
                ascii(asked.target.partition(b"?")[0].decode("latin-1")),
                refused.status,
                refused.code,
                refused.message,
            )
        return refused

    def _say_unavailable(self, error: Exception, asked: Asked) -> None:
        """Once in a while: a gateway refuses most where it has least to spare."""
        self._unsaid += 1
        if asked.now_ms - self._said_ms >= SAY_EVERY_MS:
            self._log.warning(
                "request %s: %s (%d such answers)", asked.request_id.decode(), error, self._unsaid
            )
            self._said_ms, self._unsaid = asked.now_ms, 0

    def error(self, error: S3Error, asked: Asked) -> Response:
        """The answer that an error is."""
        headers = [XML, *error.headers]
        if error.status == 304:
            return Response(304, list(error.headers))
        if asked.method == "HEAD":
            return Response(error.status, headers)
        path = asked.target.partition(b"?")[0].decode("utf-8", "replace")
        document = error_document(error, path, asked.request_id.decode(), self._host_id)
        return Response(error.status, headers, document)

    def bad_request(self, kind: str, detail: str) -> Response:
        """The answer to what is no request: ``kind`` is an error code, ``detail`` says why. The
        words of the code are S3's, ours stand beside them."""
        request_id = self.next_id()
        elements = {}
        if kind == HEAD_TOO_LARGE:
            elements["MaxSizeAllowed"] = str(HEADER_BYTES_MAX)
        if detail and kind != "InternalError":
            elements["additionalMessage"] = detail
        error = S3Error(kind if kind in ERRORS else "BadRequest", headers=(), **elements)
        headers = [XML, ALLOWED] if error.status == 405 else [XML]
        body = error_document(error, "/", request_id.decode(), self._host_id)
        return self.complete(Response(error.status, headers, body, close=True), request_id)
