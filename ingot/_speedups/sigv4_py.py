"""Signature Version 4 as bytes in, bytes out: canonical requests, signing keys, percent-encoding.

The plain version and the specification of ``sigv4_c``. Nothing here knows an S3 error or the time;
``ingot.s3.sigv4`` and ``ingot.s3.auth`` do, and are the callers. The canonical request follows the
rules of AWS's "Signature Calculations for the Authorization Header" as S3 applies them: the path is
taken as it was sent, the query is decoded and encoded again strictly, header values lose blanks at
both ends and have inner runs of blanks made one.
"""

from __future__ import annotations

import hashlib
import hmac

ALGORITHM = b"AWS4-HMAC-SHA256"
UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
HEX_DIGITS = frozenset(b"0123456789abcdefABCDEF")
IPAD = bytes(byte ^ 0x36 for byte in range(256))
OPAD = bytes(byte ^ 0x5C for byte in range(256))


class SigningKey:
    """The key derived for one access key, day and region, as two SHA-256 states ready to go on."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, secret_key: str, date: bytes, region: bytes) -> None:
        derived = ("AWS4" + secret_key).encode()
        for part in (date, region, b"s3", b"aws4_request"):
            derived = hmac.digest(derived, part, "sha256")
        block = derived.ljust(64, b"\0")
        self._inner = hashlib.sha256(block.translate(IPAD))
        self._outer = hashlib.sha256(block.translate(OPAD))

    def sign(self, message: bytes) -> bytes:
        """HMAC-SHA256 of ``message``, 64 lower-case hex digits."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.hexdigest().encode()


class SigningKeys:
    """At most ``limit`` signing keys, the oldest dropped first. Belongs to one server.

    A key is handed out only for the secret it was derived from, so a changed secret takes effect at
    once.
    """

    __slots__ = ("_keys", "_limit")

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError("limit must be at least 1")
        self._limit = limit
        self._keys: dict[tuple[str, bytes, bytes], tuple[str, SigningKey]] = {}

    def get(self, access_key: str, secret_key: str, date: bytes, region: bytes) -> SigningKey:
        """The key of ``access_key`` for that day and region, derived at the first call."""
        name = (access_key, date, region)
        held = self._keys.get(name)
        if held is not None and held[0] == secret_key:
            return held[1]
        key = SigningKey(secret_key, date, region)
        if held is None and len(self._keys) >= self._limit:
            del self._keys[next(iter(self._keys))]
        self._keys[name] = (secret_key, key)
        return key

    def __len__(self) -> int:
        return len(self._keys)


def unquote(text: bytes) -> bytes:
    """Percent-decode once; a plus stays a plus. ValueError on an escape that is none."""
    pieces = text.split(b"%")
    decoded = [pieces[0]]
    for piece in pieces[1:]:
        if len(piece) < 2 or piece[0] not in HEX_DIGITS or piece[1] not in HEX_DIGITS:
            raise ValueError("invalid percent escape")
        decoded.append(bytes((int(piece[:2], 16),)) + piece[2:])
    return b"".join(decoded)


def quote(data: bytes, keep_slash: bool = False) -> bytes:
    """Percent-encode all but ``A-Za-z0-9-._~`` (and ``/`` if asked), with upper-case digits."""
    kept = UNRESERVED | {0x2F} if keep_slash else UNRESERVED
    return b"".join(bytes((byte,)) if byte in kept else b"%%%02X" % byte for byte in data)


def parse_query(target: bytes) -> list[tuple[bytes, bytes]]:
    """The decoded (name, value) pairs behind the first ``?``, in order, empty pieces dropped.

    ValueError on an escape that is none.
    """
    pairs = []
    for piece in target.partition(b"?")[2].split(b"&"):
        if piece:
            name, _, value = piece.partition(b"=")
            pairs.append((unquote(name), unquote(value)))
    return pairs


def reencode_path(target: bytes) -> bytes:
    """``target`` with its path decoded and encoded again strictly; the query stays as it is.

    ValueError on an escape that is none.
    """
    path, mark, query = target.partition(b"?")
    return quote(unquote(path), True) + mark + query


def split_authorization(value: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Credential, SignedHeaders and Signature of a header-form Authorization; None if malformed.

    The three may come in any order, each once, separated by a comma and optional blanks. Their
    names are case-sensitive and their values must not be empty.
    """
    if not value.startswith(ALGORITHM + b" ") or value[17:18] == b" ":
        return None
    parts = value[17:].split(b",")
    if len(parts) != 3:
        return None
    found: dict[bytes, bytes] = {}
    for part in parts:
        name, _, text = part.strip(b" \t").partition(b"=")
        found[name] = text
    credential, listed = found.get(b"Credential"), found.get(b"SignedHeaders")
    signature = found.get(b"Signature")
    return (credential, listed, signature) if credential and listed and signature else None


def unsigned_headers(index: dict[bytes, bytes], names: tuple[bytes, ...]) -> list[bytes]:
    """What should be in ``names`` and is not: ``host`` and every ``x-amz-`` header of ``index``."""
    missing = [] if b"host" in names else [b"host"]
    missing += [name for name in index if name.startswith(b"x-amz-") and name not in names]
    return missing


def canonical_request(
    method: str,
    target: bytes,
    index: dict[bytes, bytes],
    listed: bytes,
    names: tuple[bytes, ...],
    payload: bytes,
    presigned: bool = False,
) -> bytes:
    """The canonical request. ``listed`` is the list as sent, ``names`` its parts.

    A listed header that is absent signs as empty. ``presigned`` leaves X-Amz-Signature out of the
    query. ValueError on an escape that is none.
    """
    pairs = parse_query(target)
    if presigned:
        pairs = [pair for pair in pairs if pair[0] != b"X-Amz-Signature"]
    query = b"&".join(b"%b=%b" % pair for pair in sorted((quote(n), quote(v)) for n, v in pairs))
    headers = []
    for name in names:
        words = index.get(name, b"").replace(b"\t", b" ").split(b" ")
        headers.append(name + b":" + b" ".join(word for word in words if word))
    lines = (method.encode(), target.partition(b"?")[0], query, *headers, b"", listed, payload)
    return b"\n".join(lines)


def string_to_sign(stamp: bytes, scope: bytes, canonical: bytes) -> bytes:
    """What the signing key signs for the request whose canonical form is ``canonical``."""
    digest = hashlib.sha256(canonical).hexdigest().encode()
    return b"\n".join((ALGORITHM, stamp, scope, digest))


def sign_request(
    key: SigningKey,
    stamp: bytes,
    scope: bytes,
    method: str,
    target: bytes,
    index: dict[bytes, bytes],
    listed: bytes,
    names: tuple[bytes, ...],
    payload: bytes,
    presigned: bool = False,
) -> bytes:
    """The signature a request must carry: ``canonical_request`` to hex digits in one call."""
    canonical = canonical_request(method, target, index, listed, names, payload, presigned)
    return key.sign(string_to_sign(stamp, scope, canonical))


def equal(one: bytes, other: bytes) -> bool:
    """Compare in a time that does not tell where the two differ."""
    return hmac.compare_digest(one, other)


def parse_stamp(value: bytes) -> int:
    """Unix milliseconds of ``yyyymmddThhmmssZ``, or -1 when it is no such moment from 1970 on."""
    digits = value[:8] + value[9:15]
    if len(value) != 16 or value[8:9] != b"T" or value[15:] != b"Z" or not digits.isdigit():
        return -1
    year, month, day = int(value[:4]), int(value[4:6]), int(value[6:8])
    hour, minute, second = int(value[9:11]), int(value[11:13]), int(value[13:15])
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    lengths = (31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
    if year < 1970 or not 1 <= month <= 12 or not 1 <= day <= lengths[month - 1]:
        return -1
    if hour > 23 or minute > 59 or second > 59:
        return -1
    before = year - 1
    days = before * 365 + before // 4 - before // 100 + before // 400 - 719162
    days += sum(lengths[: month - 1]) + day - 1
    return (((days * 24 + hour) * 60 + minute) * 60 + second) * 1000
