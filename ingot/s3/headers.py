"""Headers of objects: what a write may carry, what of it is stored, what a read shows.

A header that asks for something ingot does not do is refused by name and never dropped in silence:
a client that asked for encryption, tags or a lock must not believe it got them. Values are latin-1
text of the bytes as received, so that every byte comes back as it was sent. Pure; called by the
operations that write or read objects.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable
from typing import Final

from ingot.bucket.leaf import Retention, State
from ingot.bucket.model import BucketConfig
from ingot.bucket.record import Record
from ingot.limits import METADATA_BYTES_MAX
from ingot.messages import Header
from ingot.s3 import acl
from ingot.s3.dates import http_date, iso, parse_date
from ingot.s3.errors import S3Error
from ingot.s3.tags import read_header

Index = dict[bytes, bytes]

DEFAULT_TYPE: Final = "binary/octet-stream"
ALGORITHMS: Final = ("crc32", "crc32c", "crc64nvme", "sha1", "sha256")
META: Final = b"x-amz-meta-"

_CONTENT: Final = {
    b"content-type": b"Content-Type",
    b"cache-control": b"Cache-Control",
    b"content-disposition": b"Content-Disposition",
    b"content-encoding": b"Content-Encoding",
    b"content-language": b"Content-Language",
    b"expires": b"Expires",
}
_STORED: Final = {name: name.decode() for name in _CONTENT}
_CHECKSUMS: Final = {name: b"x-amz-checksum-" + name.encode() for name in ALGORITHMS}
_COMPOSITE: Final = (b"x-amz-checksum-type", b"COMPOSITE")
_FULL_OBJECT: Final = (b"x-amz-checksum-type", b"FULL_OBJECT")
_CONTROLS: Final = bytes([*range(0x20), 0x7F])

SSE: Final = b"x-amz-server-side-encryption"
SSE_STORED: Final = SSE.decode()  # among a record's headers, for an object that is to show it
AES256: Final = "AES256"
ENCRYPTION: Final = "encryption"  # the document of a bucket's default
TAGGING: Final = b"x-amz-tagging"
REDIRECT: Final = b"x-amz-website-redirect-location"  # kept for whoever hosts a site from a bucket
REDIRECT_STORED: Final = REDIRECT.decode()
OWN_STORED: Final = (SSE_STORED, REDIRECT_STORED)  # that a copy does not take along
_SHOWN: Final = {
    SSE_STORED: SSE,
    REDIRECT_STORED: REDIRECT,
    **{name.decode(): shown for name, shown in _CONTENT.items()},
}
STORAGE_CLASS: Final = b"x-amz-storage-class"
LOCK_MODE: Final = b"x-amz-object-lock-mode"
LOCK_DATE: Final = b"x-amz-object-lock-retain-until-date"
LOCK_HOLD: Final = b"x-amz-object-lock-legal-hold"
NO_DATE: Final = "The retain until date must be provided in ISO 8601 format"
NO_LOCK: Final = "Bucket is missing Object Lock Configuration"
NO_LOCK_TO_WRITE: Final = "Bucket is missing ObjectLockConfiguration"  # S3's words, both of them


def _not_implemented(name: bytes) -> S3Error:
    return S3Error("NotImplemented", Header=name.decode())


def _check_storage_class(name: bytes, value: bytes) -> None:
    if value != b"STANDARD":
        raise S3Error("InvalidStorageClass", StorageClassRequested=value.decode("latin-1"))


def _check_sse(name: bytes, value: bytes) -> None:
    if value == b"AES256":
        return
    if value in (b"aws:kms", b"aws:kms:dsse"):
        raise _not_implemented(name)
    raise S3Error(
        "InvalidEncryptionAlgorithmError",
        ArgumentName=SSE.decode(),
        ArgumentValue=value.decode("latin-1"),
    )


def _check_bucket_key(name: bytes, value: bytes) -> None:
    if value.lower() != b"false":
        raise _not_implemented(name)


def _check_redirect(name: bytes, value: bytes) -> None:
    if not value.startswith((b"/", b"http://", b"https://")):
        raise S3Error("InvalidRedirectLocation")
    if value.translate(None, _CONTROLS) != value:
        raise S3Error("InvalidRedirectLocation")


def _refuse(name: bytes, value: bytes) -> None:
    raise _not_implemented(name)


def _pass(name: bytes, value: bytes) -> None:
    """Read as a whole, once all headers were seen."""


def _pass_acl(name: bytes, value: bytes) -> None:
    """The same, once it is known whose object it is to be."""


_CUSTOMER_KEYS: Final = tuple(
    prefix + b"server-side-encryption-customer-" + suffix
    for prefix in (b"x-amz-", b"x-amz-copy-source-")
    for suffix in (b"algorithm", b"key", b"key-md5")
)
_CHECKS: Final[dict[bytes, Callable[[bytes, bytes], None]]] = {
    STORAGE_CLASS: _check_storage_class,
    TAGGING: _pass,
    SSE: _check_sse,
    b"x-amz-server-side-encryption-aws-kms-key-id": _refuse,
    b"x-amz-server-side-encryption-context": _refuse,
    b"x-amz-server-side-encryption-bucket-key-enabled": _check_bucket_key,
    REDIRECT: _check_redirect,
    b"x-amz-write-offset-bytes": _refuse,
    LOCK_MODE: _pass,
    LOCK_DATE: _pass,
    LOCK_HOLD: _pass,
    **dict.fromkeys((acl.CANNED, *acl.GRANT_HEADERS), _pass_acl),
    **dict.fromkeys(_CUSTOMER_KEYS, _refuse),
}


class WriteHeaders:
    """What the headers of a PUT or copy ask to be stored."""

    __slots__ = ("acl", "encrypted", "headers", "lock", "metadata", "state", "tagged")

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.metadata: dict[str, str] = {}
        self.encrypted = False  # the client asked for AES256
        self.acl = False  # headers say an ACL
        self.lock = False  # lock headers are there and well-formed
        self.tagged = False  # and a header with tags, perhaps with none in it
        self.state: State | None = None  # tags and lock, where headers bring any


def write_headers(index: Index, now_ms: int) -> WriteHeaders:
    """Check and collect the headers of an object to be written, in one pass."""
    found = WriteHeaders()
    headers, metadata, meta_bytes = found.headers, found.metadata, 0
    for name, value in index.items():
        if name[:6] != b"x-amz-":
            stored = _STORED.get(name)
            if stored is not None:
                headers[stored] = value.decode("latin-1")
        elif name[:11] == META:
            if value.translate(None, _CONTROLS) != value:
                shown = name.decode("latin-1")
                message = f"{shown} must not contain control characters"
                raise S3Error("InvalidArgument", message, ArgumentName=shown)
            metadata[name[11:].decode("latin-1")] = value.decode("latin-1")
            meta_bytes += len(name) - 11 + len(value)
        else:
            check = _CHECKS.get(name)
            if check is not None:
                check(name, value)
                if name == SSE:
                    found.encrypted = True
                    headers[SSE_STORED] = AES256
                elif name == TAGGING:
                    found.tagged = True
                elif name == REDIRECT:
                    headers[REDIRECT_STORED] = value.decode("latin-1")
                elif check is _pass:
                    found.lock = True
                elif check is _pass_acl:
                    found.acl = True
    if "content-type" not in headers:
        headers["content-type"] = DEFAULT_TYPE
    if "content-encoding" in headers:
        _drop_framing(headers)
    if meta_bytes > METADATA_BYTES_MAX:
        raise S3Error(
            "MetadataTooLarge", Size=str(meta_bytes), MaxSizeAllowed=str(METADATA_BYTES_MAX)
        )
    if found.acl:
        acl.check_headers(index)
    if found.lock or found.tagged:
        tags = read_header(index[TAGGING]) if found.tagged else {}
        retention, hold = _read_lock(index, now_ms) if found.lock else (None, None)
        found.state = State(tags, retention, hold)
    return found


def encrypt_by_default(headers: dict[str, str], config: BucketConfig) -> None:
    """A bucket's default encryption is that of what is written there, whether asked for or not."""
    if ENCRYPTION in config.documents:
        headers[SSE_STORED] = AES256


def encryption_headers(stored: dict[str, str]) -> list[Header]:
    """What the answer to a write says of encryption."""
    return [(SSE, AES256.encode())] if SSE_STORED in stored else []


def _drop_framing(headers: dict[str, str]) -> None:
    """``aws-chunked`` was the framing of the request and is no property of the object."""
    codings = [coding.strip() for coding in headers["content-encoding"].split(",")]
    kept = [coding for coding in codings if coding and coding.lower() != "aws-chunked"]
    if kept:
        headers["content-encoding"] = ",".join(kept)
    else:
        del headers["content-encoding"]


def _read_lock(index: Index, now_ms: int) -> tuple[Retention | None, bool | None]:
    """Retention and hold that a write begins with."""
    mode, date, hold = index.get(LOCK_MODE), index.get(LOCK_DATE), index.get(LOCK_HOLD)
    if (mode is None) != (date is None):
        raise S3Error(
            "InvalidArgument",
            "x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied",
            ArgumentName=(LOCK_DATE if date is None else LOCK_MODE).decode(),
        )
    if mode is not None and mode not in (b"GOVERNANCE", b"COMPLIANCE"):
        raise _bad_lock("Unknown wormMode directive.", LOCK_MODE, mode)
    if date is not None:
        if not _lock_seconds(date):
            raise _bad_lock(NO_DATE, LOCK_DATE, date)
        if _lock_seconds(date) * 1000 <= now_ms:
            raise _bad_lock("The retain until date must be in the future!", LOCK_DATE, date)
    if hold is not None and hold not in (b"ON", b"OFF"):
        raise _bad_lock("Legal Hold must be either of 'ON' or 'OFF'", LOCK_HOLD, hold)
    held = None if hold is None else hold == b"ON"
    if mode is None or date is None:
        return None, held
    return Retention(mode.decode(), _lock_seconds(date) * 1000), held


def _lock_seconds(date: bytes) -> int:
    """Unix seconds of a time in ISO 8601; 0 for anything else."""
    until = parse_date(date.decode("latin-1")) if date[:4].isdigit() else None
    return until or 0


def _bad_lock(message: str, name: bytes, value: bytes) -> S3Error:
    return S3Error(
        "InvalidArgument",
        message,
        ArgumentName=name.decode(),
        ArgumentValue=value.decode("latin-1"),
    )


def object_headers(record: Record) -> list[Header]:
    """What GET and HEAD show of an object, but for its length and checksums."""
    shown: list[Header] = [
        (b"ETag", b'"%s"' % record.etag.encode("latin-1")),
        (b"Last-Modified", http_date(record.created_ms).encode()),
        (b"Accept-Ranges", b"bytes"),
    ]
    for name, value in record.headers.items():
        shown.append((_SHOWN[name], value.encode("latin-1")))
    for name, value in record.metadata.items():
        shown.append((META + name.encode("latin-1"), value.encode("latin-1")))
    return shown


def state_headers(state: State) -> list[Header]:
    """What GET and HEAD show of tags and locks."""
    shown: list[Header] = []
    if state.tags:
        shown.append((b"x-amz-tagging-count", b"%d" % len(state.tags)))
    if state.retention is not None:
        shown.append((LOCK_MODE, state.retention.mode.encode()))
        shown.append((LOCK_DATE, iso(state.retention.until_ms).encode()))
    if state.hold is not None:
        shown.append((LOCK_HOLD, b"ON" if state.hold else b"OFF"))
    return shown


def validator_headers(record: Record) -> list[Header]:
    """What a 304 shows: validators and cache headers."""
    kept = (b"ETag", b"Last-Modified", b"Cache-Control", b"Expires")
    return [header for header in object_headers(record) if header[0] in kept]


def checksum_texts(record: Record) -> list[tuple[str, str]]:
    """(algorithm, value) as headers and documents show them."""
    shown = zip(record.checksums, checksum_headers(record), strict=False)  # the last is the type
    return [(name, value.decode()) for name, (_, value) in shown]


def checksum_type(record: Record) -> str:
    return "COMPOSITE" if record.composite else "FULL_OBJECT"


def checksum_headers(record: Record) -> list[Header]:
    """The stored checksum, for answers that carry or describe the whole object."""
    return checksum_lines(record.checksums, record.composite, len(record.parts))


def part_sums(record: Record, index: int) -> dict[str, bytes]:
    """The checksums of one part, counted from 0: those of the algorithm that its upload declared,
    which is the object's too. None where it declared nothing, whatever its parts came with."""
    found = {name: record.part_checksum(name, index) for name in record.checksums}
    return {name: digest for name, digest in found.items() if digest is not None}


def part_headers(record: Record, index: int) -> list[Header]:
    """The checksums of one part, for answers that carry it: with the type of the object's."""
    sums = part_sums(record, index)
    return (
        [*checksum_lines(sums)[:-1], _COMPOSITE if record.composite else _FULL_OBJECT]
        if sums
        else []
    )


def checksum_lines(
    checksums: dict[str, bytes], composite: bool = False, parts: int = 0
) -> list[Header]:
    """Checksums as headers; composite ones are of the checksums of that many ``parts``."""
    if not checksums:
        return []
    suffix = b"-%d" % parts if composite else b""
    found = [
        (_CHECKSUMS[name], b2a_base64(digest, newline=False) + suffix)
        for name, digest in checksums.items()
    ]
    found.append(_COMPOSITE if composite else _FULL_OBJECT)
    return found


_OVERRIDES: Final = {b"response-" + name: shown for name, shown in _CONTENT.items()}
UNSIGNED_OVERRIDES: Final = (
    "Request specific response headers cannot be used for anonymous GET requests."
)


def check_overrides(query: list[tuple[bytes, bytes]]) -> None:
    """InvalidRequest for ``response-*`` parameters, of a request that nobody signed: else anybody
    could have an object served as a page of the gateway's own host."""
    if any(name in _OVERRIDES for name, _ in query):
        raise S3Error("InvalidRequest", UNSIGNED_OVERRIDES)


def override_headers(headers: list[Header], query: list[tuple[bytes, bytes]]) -> list[Header]:
    """``headers`` with the values that ``response-*`` parameters ask for instead."""
    wanted = {_OVERRIDES[name]: value for name, value in query if name in _OVERRIDES}
    for shown, value in wanted.items():
        if value.translate(None, _CONTROLS) != value:
            # A line break here would let whoever made the URL write headers of the response.
            name = f"response-{shown.decode().lower()}"
            message = f"{name} must not contain control characters"
            raise S3Error("InvalidArgument", message, ArgumentName=name)
    kept = [header for header in headers if header[0] not in wanted]
    return kept + list(wanted.items())
