"""The cross-origin preflight, ``OPTIONS``: asked by browsers, without credentials. Pure.

Answered before anybody is authenticated, by the rules of the bucket alone (``ingot.s3.cors``).
"""

from __future__ import annotations

from ingot.messages import Request, Response
from ingot.s3 import cors
from ingot.s3.errors import S3Error

NOT_ENABLED = "CORSResponse: CORS is not enabled for this bucket."


class Question:
    """What a well-formed preflight asks; BadRequest for one that is not."""

    def __init__(self, request: Request) -> None:
        index = request.index
        self.origin = index.get(b"origin", b"")
        if not self.origin:
            raise S3Error("BadRequest", "Insufficient information. Origin request header needed.")
        self.method = index.get(b"access-control-request-method", b"").decode("latin-1")
        if self.method not in cors.METHODS:
            raise S3Error(
                "BadRequest", f"Invalid Access-Control-Request-Method: {self.method or 'null'}"
            )
        self.headers = cors.asked_headers(index.get(b"access-control-request-headers", b""))


def answer(question: Question, rules: tuple[cors.Rule, ...] | None, of_object: bool) -> Response:
    """200 with what is allowed, or AccessForbidden. ``rules`` are None where there are none."""
    headers = None
    if rules is not None:
        headers = cors.answer_headers(rules, question.origin, question.method, question.headers)
    if headers is None:
        raise refusal(question, None if rules is not None else NOT_ENABLED, of_object)
    return Response(200, headers)


def refusal(question: Question, message: str | None, of_object: bool) -> S3Error:
    return S3Error(
        "AccessForbidden",
        message,
        Method=question.method,
        ResourceType="OBJECT" if of_object else "BUCKET",
    )
