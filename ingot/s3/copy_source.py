"""The ``x-amz-copy-source`` header: which object a copy reads. Pure."""

from __future__ import annotations

from typing import NamedTuple

from ingot.s3.errors import S3Error
from ingot.s3.names import bucket_name_is_valid, key_is_valid, percent_decode


class CopySource(NamedTuple):
    bucket: str
    key: bytes
    version: str | None  # None where the header names none


def parse_copy_source(value: bytes) -> CopySource:
    """``[/]bucket/key[?versionId=id]``, percent-encoded in whole, in part or not at all.

    Some clients encode the slash too, so the first slash is looked for after decoding. A question
    mark of the key itself arrives encoded; the version is therefore cut off before decoding. A plus
    is a blank here, other than in a request's target: AWS reads it so, and s5cmd writes it so.
    """
    path, version = value, None
    head, mark, tail = value.rpartition(b"?versionId=")
    if mark:
        path, version = head, _decode(tail).decode("latin-1")
    decoded = _decode(path.replace(b"+", b" "))
    if decoded[:1] == b"/":
        decoded = decoded[1:]
    bucket, slash, key = decoded.partition(b"/")
    if not slash:
        raise _invalid(
            "Copy Source must mention the source bucket and key: sourcebucket/sourcekey", value
        )
    name = bucket.decode("latin-1")
    if not bucket_name_is_valid(name):
        raise _invalid("Invalid copy source bucket name", value)
    if not key_is_valid(key):
        raise _invalid("Invalid copy source object key", value)
    return CopySource(name, key, version)


def _decode(raw: bytes) -> bytes:
    try:
        return percent_decode(raw)
    except S3Error:
        raise _invalid("Invalid copy source encoding", raw) from None


def _invalid(message: str, value: bytes) -> S3Error:
    return S3Error(
        "InvalidArgument",
        message,
        ArgumentName="x-amz-copy-source",
        ArgumentValue=value.decode("latin-1"),
    )
