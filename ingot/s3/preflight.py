"""The cross-origin preflight, ``OPTIONS``: asked by browsers, without credentials.

No bucket has a cross-origin configuration, so every well-formed question is answered with no. Pure.
"""

from __future__ import annotations

from ingot.messages import Request, Response
from ingot.s3.errors import S3Error

METHODS = frozenset((b"GET", b"PUT", b"POST", b"DELETE", b"HEAD"))


def answer_preflight(request: Request) -> Response:
    """Raises the S3Error that is the answer."""
    if not request.index.get(b"origin"):
        raise S3Error("BadRequest", "Insufficient information. Origin request header needed.")
    method = request.index.get(b"access-control-request-method", b"")
    if method not in METHODS:
        raise S3Error(
            "BadRequest",
            f"Invalid Access-Control-Request-Method: {method.decode('latin-1') or 'null'}",
        )
    raise S3Error(
        "AccessForbidden",
        "CORSResponse: CORS is not enabled for this bucket.",
        Method=method.decode(),
        ResourceType="BUCKET",
    )
