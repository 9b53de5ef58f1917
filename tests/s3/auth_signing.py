"""What the tests of authentication share: requests, botocore as signer, bodies without sockets."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar
from unittest import mock
from urllib.parse import urlsplit

import botocore.auth
from awscrt import checksums as crt
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from ingot.credentials import Account
from ingot.messages import Body, BodyStream, Request
from ingot.s3.auth import Authenticator

T = TypeVar("T")

REGION = "us-east-1"
STAMP = b"20130524T000000Z"
NOW_MS = 1369353600000
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
ACCOUNT = Account("AKIAIOSFODNN7EXAMPLE", SECRET, "0" * 64, "example")
CREDENTIAL = f"{ACCOUNT.access_key}/20130524/{REGION}/s3/aws4_request"
EMPTY = hashlib.sha256(b"").hexdigest()


def authenticator(region: str = REGION, *accounts: Account) -> Authenticator:
    return Authenticator({a.access_key: a for a in accounts or (ACCOUNT,)}, region)


class MemoryBody:
    """A BodyStream over pieces: each read gives what is left of one, as a socket would."""

    def __init__(self, pieces: Iterable[bytes], length: int | None, arrived: bool = False) -> None:
        self.pieces = [piece for piece in pieces if piece]
        self.length = length
        self.arrived = arrived
        self.reads = 0

    async def readinto(self, view: memoryview) -> int:
        assert len(view) > 0
        self.reads += 1
        if not self.pieces:
            return 0
        count = min(len(view), len(self.pieces[0]))
        view[:count] = self.pieces[0][:count]
        self.pieces[0] = self.pieces[0][count:]
        if not self.pieces[0]:
            del self.pieces[0]
        return count

    def take(self) -> bytes | None:
        return b"".join(self.pieces) if self.arrived else None

    async def read(self, limit: int) -> bytes:
        data = b"".join(self.pieces)
        assert len(data) <= limit
        return data


def request(
    method: str,
    target: bytes,
    headers: Iterable[tuple[bytes, bytes]],
    body: BodyStream | None = None,
) -> Request:
    """As the HTTP layer makes them: lower-case names, blanks trimmed, repeated lines joined."""
    lines = [(name.lower(), value.strip(b" \t")) for name, value in headers]
    index: dict[bytes, bytes] = {}
    for name, value in lines:
        index[name] = index[name] + b"," + value if name in index else value
    return Request(method, target, lines, index, body or MemoryBody([], 0), "127.0.0.1", False)


@contextmanager
def botocore_time(now_ms: int = NOW_MS) -> Iterator[None]:
    """botocore signs with its wall clock; give it ours."""
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    with mock.patch.object(botocore.auth, "get_current_datetime", lambda: now):
        yield


def credentials(account: Account = ACCOUNT) -> Credentials:
    return Credentials(account.access_key, account.secret_key)


def as_request(signed: Any, body: BodyStream | None = None) -> Request:
    """An AWSRequest or AWSPreparedRequest of botocore, as it would arrive."""
    parts = urlsplit(signed.url)
    target = parts.path.encode() + (b"?" + parts.query.encode() if parts.query else b"")
    headers = [
        (name.encode(), value if isinstance(value, bytes) else value.encode())
        for name, value in signed.headers.items()
    ]
    if not any(name.lower() == b"host" for name, _ in headers):
        headers.append((b"host", parts.netloc.encode()))
    return request(signed.method, target, headers, body)


def sign(
    method: str,
    url: str,
    headers: dict[str, str] | None = None,
    data: bytes = b"",
    *,
    account: Account = ACCOUNT,
    region: str = REGION,
    now_ms: int = NOW_MS,
    body: BodyStream | None = None,
) -> Request:
    """A request signed by botocore in its headers."""
    made = AWSRequest(method, url, headers=headers or {}, data=data)
    with botocore_time(now_ms):
        botocore.auth.S3SigV4Auth(credentials(account), "s3", region).add_auth(made)
    return as_request(made, body)


def presign(
    method: str,
    url: str,
    headers: dict[str, str] | None = None,
    *,
    expires: int = 3600,
    region: str = REGION,
    now_ms: int = NOW_MS,
) -> Request:
    """A request signed by botocore in its query."""
    made = AWSRequest(method, url, headers=headers or {})
    with botocore_time(now_ms):
        botocore.auth.S3SigV4QueryAuth(credentials(), "s3", region, expires).add_auth(made)
    return as_request(made)


def sign_by_hand(
    method: str,
    target: bytes,
    headers: list[tuple[bytes, bytes]],
    signed: bytes,
    *,
    path: bytes | None = None,
    query: bytes = b"",
    values: dict[bytes, bytes] | None = None,
    content: bytes = b"UNSIGNED-PAYLOAD",
    stamp: bytes = STAMP,
    body: BodyStream | None = None,
) -> Request:
    """A second signer, for what botocore never sends: every part of the canonical form is given."""
    index = dict(headers) if values is None else values
    lines = [name + b":" + index.get(name, b"") for name in signed.split(b";")]
    shown = target.partition(b"?")[0] if path is None else path
    canonical = b"\n".join((method.encode(), shown, query, *lines, b"", signed, content))
    scope = b"%b/%b/s3/aws4_request" % (stamp[:8], REGION.encode())
    digest = hashlib.sha256(canonical).hexdigest().encode()
    string = b"\n".join((b"AWS4-HMAC-SHA256", stamp, scope, digest))
    signature = hmac.digest(signing_key(stamp[:8]), string, "sha256").hex()
    value = f"AWS4-HMAC-SHA256 Credential={ACCOUNT.access_key}/{scope.decode()},"
    value += f"SignedHeaders={signed.decode()},Signature={signature}"
    return request(method, target, [*headers, (b"authorization", value.encode())], body)


def signing_key(date: bytes = STAMP[:8], secret: str = SECRET, region: str = REGION) -> bytes:
    key = b"AWS4" + secret.encode()
    for part in (date, region.encode(), b"s3", b"aws4_request"):
        key = hmac.digest(key, part, "sha256")
    return key


def change(given: Request, *changes: tuple[bytes, bytes | None]) -> Request:
    """A copy with headers replaced, or removed where the new value is None."""
    names = {name for name, _ in changes}
    headers = [header for header in given.headers if header[0] not in names]
    headers += [(name, value) for name, value in changes if value is not None]
    return request(given.method, given.target, headers, given.body)


# -- aws-chunked, framed by other code than the decoder's ----------------------------------------
def frame(
    chunks: Iterable[bytes],
    *,
    seed: bytes | None = None,
    trailers: Iterable[tuple[bytes, bytes]] | None = None,
    stamp: bytes = STAMP,
    key: bytes | None = None,
    line_end: bytes = b"\r\n",
) -> bytes:
    """``seed`` None: unsigned. ``trailers`` None: a framing without trailers."""
    scope = b"%b/%b/s3/aws4_request" % (stamp[:8], REGION.encode())
    key = signing_key(stamp[:8]) if key is None else key
    previous, framed = seed, b""
    for chunk in [*chunks, b""]:
        framed += b"%x" % len(chunk)
        if previous is not None:
            digest = hashlib.sha256(chunk).hexdigest().encode()
            lines = (b"AWS4-HMAC-SHA256-PAYLOAD", stamp, scope, previous, EMPTY.encode(), digest)
            previous = hmac.digest(key, b"\n".join(lines), "sha256").hex().encode()
            framed += b";chunk-signature=" + previous
        framed += b"\r\n" + chunk + (b"\r\n" if chunk else b"")
    if trailers is not None:
        pairs = list(trailers)
        for name, value in pairs:
            framed += name + b":" + value + line_end
        if previous is not None:
            block = b"".join(b"%b:%b\n" % pair for pair in sorted(pairs))
            digest = hashlib.sha256(block).hexdigest().encode()
            parts = (b"AWS4-HMAC-SHA256-TRAILER", stamp, scope, previous, digest)
            previous = hmac.digest(key, b"\n".join(parts), "sha256").hex().encode()
            framed += b"x-amz-trailer-signature:" + previous + b"\r\n"
    return framed + b"\r\n"


CHECKSUMS: dict[str, Callable[[bytes], bytes]] = {
    "crc32": lambda data: crt.crc32(data).to_bytes(4, "big"),
    "crc32c": lambda data: crt.crc32c(data).to_bytes(4, "big"),
    "crc64nvme": lambda data: crt.crc64nvme(data).to_bytes(8, "big"),
    "sha1": lambda data: hashlib.sha1(data).digest(),
    "sha256": lambda data: hashlib.sha256(data).digest(),
}


def checksum(algorithm: str, data: bytes) -> str:
    return base64.b64encode(CHECKSUMS[algorithm](data)).decode()


def stored(data: bytes, algorithms: Iterable[str]) -> Body:
    """What the ingest makes of ``data``."""
    return Body(
        len(data),
        hashlib.md5(data).digest(),
        hashlib.sha256(data).digest(),
        checksums={name: CHECKSUMS[name](data) for name in algorithms},
    )


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Drive a coroutine that never waits for anything real."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("the coroutine waited")
