"""Everyday requests known by their heads: one object, nothing unusual, a signature that verifies.

The specification of ``express_c``. Called by ``ingot.s3.express`` with every request head, before
anything else looks at it. ``recognise`` takes a subset of what the general way (``http.parser``,
``s3.names``, ``s3.auth``) takes, and finds the same in it; None says nothing about a request but
that the general way has to judge it. So nothing is refused here, and no error has two sources.

An everyday head is a GET or PUT of a key that needs no escapes, without a query, with headers from
``NAMES`` alone, each once, printable, with single blanks; its body, if it is a PUT, is counted and
short; its Authorization begins as one did that the general way has verified before (a ``Form``).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ingot._speedups import sigv4_py
from ingot._speedups.sigv4_py import SigningKey
from ingot.limits import INLINE_BYTES_MAX

CHECKSUMS = ("crc32", "crc32c", "crc64nvme")
NAMES = (
    *(b"host", b"user-agent", b"accept", b"accept-encoding", b"accept-language", b"connection"),
    *(b"authorization", b"x-amz-date", b"x-amz-content-sha256", b"x-amz-user-agent"),
    *(b"amz-sdk-invocation-id", b"amz-sdk-request", b"x-amz-checksum-mode"),
    *(b"content-length", b"content-type", b"content-md5", b"x-amz-sdk-checksum-algorithm"),
    *(b"x-amz-checksum-crc32", b"x-amz-checksum-crc32c", b"x-amz-checksum-crc64nvme"),
)
OF_PUT = frozenset(NAMES[13:])  # say something of a body
OF_GET = frozenset((b"x-amz-checksum-mode",))

_FIRST = re.compile(rb"(GET|PUT) (/([A-Za-z0-9._~-]+)/([A-Za-z0-9._~/-]{1,1024})) HTTP/1\.1")
_LINE = re.compile(rb"([A-Za-z0-9-]+): *([!-~](?: ?[!-~])*|) *")
_STAMP = re.compile(rb"([0-9]{8})T([01][0-9]|2[0-3])([0-5][0-9])([0-5][0-9])Z")
_HASH = re.compile(rb"[0-9a-f]{64}")
_EMPTY = b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
_UNSIGNED = b"UNSIGNED-PAYLOAD"


class Form:
    """What of a verified Authorization a client's next requests repeat. ``day_ms`` is the unix
    time of the midnight that ``scope`` begins with."""

    __slots__ = ("access_key", "day_ms", "key", "listed", "names", "scope", "secret_key")

    def __init__(
        self,
        access_key: str,
        secret_key: str,
        key: SigningKey,
        scope: bytes,
        day_ms: int,
        listed: bytes,
        names: tuple[bytes, ...],
    ) -> None:
        self.access_key = access_key
        self.secret_key = secret_key
        self.key = key
        self.scope = scope
        self.day_ms = day_ms
        self.listed = listed
        self.names = names


class Everyday(NamedTuple):
    """A recognised request."""

    form: Form
    put: bool  # or a GET
    target: bytes
    bucket: bytes
    key: bytes
    length: int  # of the body
    payload: bytes  # its sha256 in hex, b"" where it was not signed
    content_type: bytes | None
    md5: bytes | None  # in base64, as sent
    algorithm: str  # of the checksum that was sent, or ""
    checksum: bytes  # in base64, as sent
    checksum_mode: bool  # the checksum is to be shown


def recognise(head: bytes, forms: dict[bytes, Form], now_ms: int, skew_ms: int) -> Everyday | None:
    """The request whose whole head is ``head``, or None. ``forms`` by the beginning of their
    Authorization up to the signature; a stamp may be ``skew_ms`` away from ``now_ms``."""
    lines = head.split(b"\r\n")
    first = _FIRST.fullmatch(lines[0])
    if first is None or len(lines) < 3 or lines[-2:] != [b"", b""]:
        return None
    method, target, bucket, key = first.groups()
    found: dict[bytes, bytes] = {}
    for line in lines[1:-2]:
        match = _LINE.fullmatch(line)
        if match is None:
            return None
        name = match[1].lower()
        if name not in NAMES or name in found:
            return None
        found[name] = match[2]
    form = _verified(method, target, found, forms, now_ms, skew_ms)
    if form is None:
        return None
    if method == b"PUT":
        return _put(form, target, bucket, key, found)
    if not OF_PUT.isdisjoint(found) or found[b"x-amz-content-sha256"] not in (_EMPTY, _UNSIGNED):
        return None
    mode = found.get(b"x-amz-checksum-mode", b"").upper() == b"ENABLED"
    return Everyday(form, False, target, bucket, key, 0, b"", None, None, "", b"", mode)


def _verified(
    method: bytes,
    target: bytes,
    found: dict[bytes, bytes],
    forms: dict[bytes, Form],
    now_ms: int,
    skew_ms: int,
) -> Form | None:
    """The form of the request's Authorization, if its signature is right."""
    if found.get(b"connection", b"keep-alive").lower() != b"keep-alive" or not found.get(b"host"):
        return None
    authorization = found.get(b"authorization", b"")
    stamp = _STAMP.fullmatch(found.get(b"x-amz-date", b""))
    content = found.get(b"x-amz-content-sha256", b"")
    form = forms.get(authorization[:-64])
    if form is None or stamp is None or len(authorization) <= 64:
        return None
    if content != _UNSIGNED and _HASH.fullmatch(content) is None:
        return None
    day, hour, minute, second = stamp.groups()
    sent_ms = form.day_ms + ((int(hour) * 60 + int(minute)) * 60 + int(second)) * 1000
    if form.scope[:8] != day or not -skew_ms <= now_ms - sent_ms <= skew_ms:
        return None
    names = form.names
    if b"host" not in names or not found.keys() >= set(names) or len(set(names)) != len(names):
        return None
    if any(name.startswith(b"x-amz-") and name not in names for name in found):
        return None
    ours = sigv4_py.sign_request(
        form.key, stamp[0], form.scope, method.decode(), target, found, form.listed, names, content
    )
    return form if sigv4_py.equal(ours, authorization[-64:]) else None


def _put(
    form: Form, target: bytes, bucket: bytes, key: bytes, found: dict[bytes, bytes]
) -> Everyday | None:
    size = found.get(b"content-length", b"")
    if not OF_GET.isdisjoint(found) or not size.isdigit() or len(size) > 9:
        return None
    if int(size) > INLINE_BYTES_MAX:
        return None
    sent = [(name, found.get(b"x-amz-checksum-" + name.encode())) for name in CHECKSUMS]
    sums = [(name, value) for name, value in sent if value is not None]
    if len(sums) > 1:
        return None
    algorithm, checksum = sums[0] if sums else ("", b"")
    said = found.get(b"x-amz-sdk-checksum-algorithm")
    if said is not None and said.lower() != algorithm.encode():
        return None
    content = found[b"x-amz-content-sha256"]
    return Everyday(
        form,
        True,
        target,
        bucket,
        key,
        int(size),
        b"" if content == _UNSIGNED else content,
        found.get(b"content-type"),
        found.get(b"content-md5"),
        algorithm,
        checksum,
        False,
    )
