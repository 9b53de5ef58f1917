"""Preconditions: the ``If-*`` headers of reads, copies, writes and deletes, in one place.

``read`` gives every header its meaning for one object as it is now; a copy's source differs only in
that "not modified" is a failure too. ``for_write`` and ``for_delete`` make the ``Condition`` that
the store decides at the commit (``Condition.check`` is asked before the body is read as well, so
that a client whose write cannot succeed need not send it). Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ingot.bucket.model import Condition
from ingot.bucket.record import Record
from ingot.s3.dates import parse_date
from ingot.s3.errors import S3Error

Index = dict[bytes, bytes]

COPY_PREFIX: Final = b"x-amz-copy-source-"
ANY: Final = ("*",)


@dataclass(frozen=True, slots=True)
class ReadConditions:
    """What a read asks for; None where the header is absent. Times are unix seconds."""

    match: tuple[str, ...] | None
    none_match: tuple[str, ...] | None
    modified_since: int | None
    unmodified_since: int | None
    prefix: str  # of the header names as errors show them


def etags(value: bytes) -> tuple[str, ...]:
    """The ETags of a header, without quotes; quoted, unquoted and weak forms compare equal."""
    found = []
    for piece in value.decode("latin-1").split(","):
        etag = piece.strip()
        if etag[:2] in ("W/", "w/"):
            etag = etag[2:]
        if len(etag) >= 2 and etag[0] == etag[-1] == '"':
            etag = etag[1:-1]
        found.append(etag)
    return ANY if "*" in found else tuple(found)


def read_conditions(index: Index, now_ms: int, prefix: bytes = b"") -> ReadConditions | None:
    """The conditions of a read, or of a copy's source with ``COPY_PREFIX``; None without any."""
    match = index.get(prefix + b"if-match")
    none_match = index.get(prefix + b"if-none-match")
    since = index.get(prefix + b"if-modified-since")
    unmodified = index.get(prefix + b"if-unmodified-since")
    if match is None and none_match is None and since is None and unmodified is None:
        return None
    return ReadConditions(
        None if match is None else etags(match),
        None if none_match is None else etags(none_match),
        _date(since, now_ms),
        _date(unmodified, now_ms),
        prefix.decode(),
    )


def _date(value: bytes | None, now_ms: int) -> int | None:
    """A date that cannot be read, or lies in the future, counts as absent."""
    if value is None:
        return None
    seconds = parse_date(value.decode("latin-1"))
    return None if seconds is None or seconds > now_ms // 1000 else seconds


def _holds(wanted: tuple[str, ...], etag: str) -> bool:
    return wanted is ANY or wanted == ANY or etag in wanted


def read(conditions: ReadConditions, etag: str, created_ms: int) -> bool:
    """True to go on, False when the object is not modified; PreconditionFailed otherwise.

    The order is AWS's: ETags decide before dates, and a matching If-Match silences
    If-Unmodified-Since. For a copy's source False never comes back: it is a 412 there.
    """
    failed = _decide(conditions, etag, created_ms // 1000)
    if failed is None:
        return True
    name, not_modified = failed
    if not_modified and not conditions.prefix:
        return False
    raise S3Error("PreconditionFailed", Condition=conditions.prefix + name)


def _decide(wanted: ReadConditions, etag: str, modified: int) -> tuple[str, bool] | None:
    """The header that fails and whether that means "not modified"; None when all hold."""
    unmodified_fails = wanted.unmodified_since is not None and modified > wanted.unmodified_since
    since_fails = wanted.modified_since is not None and modified <= wanted.modified_since
    if wanted.match is not None:
        if not _holds(wanted.match, etag):
            return "If-Match", False
        unmodified_fails = False
    if unmodified_fails:
        return "If-Unmodified-Since", False
    if wanted.none_match is not None:
        return ("If-None-Match", True) if _holds(wanted.none_match, etag) else None
    return ("If-Modified-Since", True) if since_fails else None


def heeds_range(index: Index, record: Record) -> bool:
    """Whether a ``Range`` is of this object: what goes on with a download says by ``If-Range`` of
    which, by its ETag or its time as it was told (RFC 9110, 13.1.5)."""
    wanted = index.get(b"if-range")
    if wanted is None:
        return True
    text = wanted.strip()
    if text[:2] in (b"W/", b"w/"):
        return False  # such a one does not promise the same bytes
    if text[:1] == b'"' or b":" not in text:
        return etags(text) == (record.etag,)
    return parse_date(text.decode("latin-1")) == record.created_ms // 1000


def for_write(index: Index) -> Condition | None:
    """PUT, copy and complete: ``If-None-Match: *`` or ``If-Match``, not both."""
    match = index.get(b"if-match")
    none_match = index.get(b"if-none-match")
    if match is None and none_match is None:
        return None
    if none_match is None:
        assert match is not None
        return Condition(if_match=etags(match))
    if match is not None or none_match.strip() != b"*":
        raise S3Error(
            "NotImplemented",
            Header="If-None-Match",
            additionalMessage="We don't accept the provided value of If-None-Match header "
            "for this API",
        )
    return Condition(if_none_match_any=True)


@dataclass(frozen=True, slots=True)
class DeleteConditions:
    """What a delete asks for. Size and time are compared on the object as it is found."""

    match: tuple[str, ...] = ()
    modified: int | None = None  # unix seconds
    size: int | None = None

    @property
    def looks(self) -> bool:
        """Whether the object must be read before the delete can be queued."""
        return self.modified is not None or self.size is not None


def delete_conditions(
    match: str | None, modified: str | None, size: str | None
) -> DeleteConditions | None:
    """From the headers of DeleteObject or the elements of one entry of DeleteObjects."""
    if match is None and modified is None and size is None:
        return None
    seconds = None if modified is None else parse_date(modified)
    if modified is not None and seconds is None:
        raise S3Error("InvalidArgument", ArgumentName="LastModifiedTime", ArgumentValue=modified)
    if size is not None and not (size.isascii() and size.isdigit() and len(size) <= 19):
        raise S3Error("InvalidArgument", ArgumentName="Size", ArgumentValue=size)
    return DeleteConditions(
        () if match is None else etags(match.encode("latin-1", "replace")),
        seconds,
        None if size is None else int(size),
    )


def for_delete(wanted: DeleteConditions, found: Record | None) -> Condition | None:
    """The commit's condition, given the object as found where ``wanted`` looks at it.

    Size and time are no conditions of a commit: they are judged here, and the commit is then bound
    to the ETag they were judged on.
    """
    if not wanted.looks:
        return Condition(if_match=wanted.match)
    if found is None:
        return Condition(if_match=wanted.match) if wanted.match else None
    if wanted.match and not _holds(wanted.match, found.etag):
        raise S3Error("PreconditionFailed", Condition="If-Match")
    if wanted.size is not None and wanted.size != found.body.size:
        raise S3Error("PreconditionFailed", Condition="x-amz-if-match-size")
    if wanted.modified is not None and wanted.modified != found.created_ms // 1000:
        raise S3Error("PreconditionFailed", Condition="x-amz-if-match-last-modified-time")
    return Condition(if_match=(found.etag,))
