"""What ``x-amz-content-sha256`` says of a body: its hash, a framing, or nothing.

It stands in the canonical request in the place of the body, so ``ingot.s3.auth`` reads it; what it
promises is kept by ``ingot.s3.payload``. Pure.
"""

from __future__ import annotations

from binascii import Error as HexError
from binascii import unhexlify
from hashlib import sha256
from typing import Final, Literal, NamedTuple

from ingot.s3.errors import S3Error

Mode = Literal[
    "none", "hash", "unsigned", "signed-chunks", "signed-chunks-trailer", "unsigned-chunks-trailer"
]

TRANSPORT_FORMS: Final = (
    "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, "
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER, "
    "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD, STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER "
    "or a valid sha256 value."
)


class Payload(NamedTuple):
    """What ``x-amz-content-sha256`` says of the body; ``sha256`` with mode "hash" only."""

    mode: Mode
    sha256: bytes | None = None


NO_PAYLOAD: Final = Payload("none")
UNFRAMED: Final = ("unsigned", "hash")
PAYLOADS: Final[dict[bytes, Payload]] = {
    sha256().hexdigest().encode(): Payload("hash", sha256().digest()),  # of every GET
    b"UNSIGNED-PAYLOAD": Payload("unsigned"),
    b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD": Payload("signed-chunks"),
    b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER": Payload("signed-chunks-trailer"),
    b"STREAMING-UNSIGNED-PAYLOAD-TRAILER": Payload("unsigned-chunks-trailer"),
}
ASYMMETRIC: Final = (
    b"STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD",
    b"STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER",
)


def parse_payload(value: bytes, streaming: bool) -> Payload:
    """``streaming``: the operation is one whose body may be framed (PutObject, UploadPart)."""
    payload = PAYLOADS.get(value)
    if payload is None:
        if value in ASYMMETRIC and streaming:
            raise S3Error("NotImplemented", Header="x-amz-content-sha256")
        if value not in ASYMMETRIC:
            return Payload("hash", parse_hash(value))
    elif streaming or payload.mode in UNFRAMED:
        return payload
    raise S3Error("InvalidRequest", "The value of x-amz-content-sha256 header is invalid.")


def parse_hash(value: bytes) -> bytes:
    try:
        digest = unhexlify(value)
    except HexError:
        digest = b""
    if len(digest) != 32:
        raise S3Error("InvalidArgument", TRANSPORT_FORMS, ArgumentName="x-amz-content-sha256")
    return digest
