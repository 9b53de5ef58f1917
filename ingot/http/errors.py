"""What can be wrong with a request below the meaning of its headers, as kinds with a name each.

``BodyError`` is what reading a body raises; the S3 layer turns its kind into an answer.
``HeadError`` is a head that never became a request; the listener's ``bad_request`` hook gets its
kind and detail and makes the answer. Pure.
"""

from __future__ import annotations

from typing import Final

from ingot.errors import RequestError

BODY_KINDS: Final = frozenset(
    {
        "BadRequest",  # the chunked coding is broken
        "EntityTooLarge",  # more bytes than the reader allows
        "IncompleteBody",  # the peer ended or broke the connection before the last byte
        "RequestTimeout",  # no byte for too long, or too few a second
    }
)

REFUSALS: Final = {
    "BadRequest": 400,
    "RequestHeaderSectionTooLarge": 400,  # 431 is HTTP's own; S3 clients know 400
    "MethodNotAllowed": 405,
    "RequestTimeout": 408,  # the head did not arrive in time
    "InternalError": 500,  # a handler broke its contract
    "NotImplemented": 501,  # a transfer coding other than chunked
    "SlowDown": 503,  # over the cap of connections
}
"""Every kind that the ``bad_request`` hook can be asked for, with the usual status."""


class BodyError(RequestError):
    """The body cannot be had; ``kind`` is one of BODY_KINDS."""

    def __init__(self, kind: str, detail: str) -> None:
        assert kind in BODY_KINDS, kind
        super().__init__(detail)
        self.kind = kind


class HeadError(RequestError):
    """The bytes are no request that may be answered normally; ``kind`` is one of REFUSALS."""

    def __init__(self, kind: str, detail: str) -> None:
        assert kind in REFUSALS, kind
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
