"""The cross-origin preflight, ``OPTIONS``: asked by browsers, without credentials.

No bucket has a cross-origin configuration, so every well-formed question is answered with no. Pure.
"""

from __future__ import annotations

from ingot.messages import Request
from ingot.s3.errors import S3Error

METHODS = frozenset((b"GET", b"PUT", b"POST", b"DELETE", b"HEAD"))


def preflight_refusal(request: Request) -> S3Error:
    if not request.index.get(b"origin"):
        return S3Error("BadRequest", "Insufficient information. Origin request header needed.")
    method = request.index.get(b"access-control-request-method", b"")
    if method not in METHODS:
        return S3Error(
            "BadRequest",
            f"Invalid Access-Control-Request-Method: {method.decode('latin-1') or 'null'}",
        )
    return S3Error(
        "AccessForbidden",
        "CORSResponse: CORS is not enabled for this bucket.",
        Method=method.decode(),
        ResourceType="BUCKET",
    )
