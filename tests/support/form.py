"""Forms as browsers send them, and their policies signed in both ways."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import json
from typing import Any

BOUNDARY = "----WebKitFormBoundary7MA4YWxkTrZu0gW"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def part(name: str, value: bytes, filename: str | None = None) -> bytes:
    named = "" if filename is None else f'; filename="{filename}"\r\nContent-Type: text/plain'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
    return head.encode() + value + b"\r\n"


def encode(
    fields: dict[str, str | bytes] | list[tuple[str, str | bytes]],
    file: bytes | None = b"bytes",
    filename: str | None = "file.txt",
    after: bytes = b"",
) -> bytes:
    """A whole form; without a file where that is None."""
    pairs = fields.items() if isinstance(fields, dict) else fields
    parts = [part(n, v.encode() if isinstance(v, str) else v) for n, v in pairs]
    if file is not None:
        parts.append(part("file", file, filename))
    return b"".join(parts) + after + f"--{BOUNDARY}--\r\n".encode()


def policy(*conditions: Any, valid_s: int = 600, **fields: Any) -> str:
    """A policy in base64; ``fields`` replace or add to its own two."""
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=valid_s)
    document = {
        "expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "conditions": list(conditions),
        **fields,
    }
    kept = {name: value for name, value in document.items() if value is not None}
    return base64.b64encode(json.dumps(kept).encode()).decode()


def sign_v2(encoded: str, access_key: str, secret_key: str) -> dict[str, str]:
    digest = hmac.digest(secret_key.encode(), encoded.encode(), "sha1")
    signature = base64.b64encode(digest).decode()
    return {"AWSAccessKeyId": access_key, "policy": encoded, "signature": signature}


def v4_fields(access_key: str, region: str, day_offset: int = 0) -> dict[str, str]:
    """What the policy of a form signed by Version 4 has conditions on."""
    now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=day_offset)
    return {
        "x-amz-algorithm": "AWS4-HMAC-SHA256",
        "x-amz-credential": f"{access_key}/{now:%Y%m%d}/{region}/s3/aws4_request",
        "x-amz-date": now.strftime("%Y%m%dT%H%M%SZ"),
    }


def sign_v4(encoded: str, secret_key: str, fields: dict[str, str]) -> dict[str, str]:
    key = b"AWS4" + secret_key.encode()
    for step in fields["x-amz-credential"].split("/")[-4:]:
        key = hmac.digest(key, step.encode(), "sha256")
    signature = hmac.new(key, encoded.encode(), hashlib.sha256).hexdigest()
    return {**fields, "policy": encoded, "x-amz-signature": signature}
