"""Bucket names, keys and the request target they come from.

The target is split and percent-decoded exactly once, from its raw bytes: ``//`` and dots are part
of keys, ``+`` is a plus. Everything here is judged before anything is looked up, so a refused name
discloses nothing. Called by ``ingot.s3.app`` and ``ingot.s3.copy_source``. Pure.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from ingot._speedups import head
from ingot.limits import KEY_BYTES_MAX, QUERY_PARAMETERS_MAX
from ingot.s3.errors import S3Error

Query = list[tuple[bytes, bytes]]  # decoded (name, value) in the order sent

_HEX: Final = {
    (a + b).encode(): bytes([int(a + b, 16)])
    for a in "0123456789abcdefABCDEF"
    for b in "0123456789abcdefABCDEF"
}
_NAMES_KEPT: Final = 4096
_valid_names: dict[bytes, str] = {}  # names found valid, as bytes and as text: a pure function's
_BUCKET_ALPHABET: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-")
_BUCKET_PREFIXES: Final = ("xn--", "sthree-", "amzn-s3-demo-")
_BUCKET_SUFFIXES: Final = ("-s3alias", "--ol-s3", "--x-s3", "--table-s3", ".mrap")


@lru_cache(maxsize=4096)
def bucket_name_is_valid(name: str) -> bool:
    """AWS's rules for general purpose buckets."""
    if not 3 <= len(name) <= 63 or not _BUCKET_ALPHABET.issuperset(name):
        return False
    if not (name[0].isalnum() and name[-1].isalnum()):
        return False
    if ".." in name or ".-" in name or "-." in name:
        return False
    if name.startswith(_BUCKET_PREFIXES) or name.endswith(_BUCKET_SUFFIXES):
        return False
    pieces = name.split(".")
    return not (len(pieces) == 4 and all(piece.isdigit() for piece in pieces))


def check_bucket_name(name: str) -> None:
    if not bucket_name_is_valid(name):
        raise S3Error("InvalidBucketName", BucketName=name)


def key_is_valid(key: bytes) -> bool:
    """A key is 1 to 1024 bytes of UTF-8 without NUL; every other code point is legal."""
    return 0 < len(key) <= KEY_BYTES_MAX and b"\0" not in key and (key.isascii() or _is_utf8(key))


def _is_utf8(key: bytes) -> bool:
    try:
        key.decode()
    except UnicodeDecodeError:
        return False
    return True


def check_key(key: bytes) -> None:
    if key_is_valid(key):
        return
    if len(key) > KEY_BYTES_MAX:
        raise S3Error("KeyTooLongError", Size=str(len(key)), MaxSizeAllowed=str(KEY_BYTES_MAX))
    if not _is_utf8(key):
        raise S3Error("InvalidURI", "The key is not valid UTF-8.")
    raise S3Error(
        "InvalidArgument", "Object key must not contain a NUL character", ArgumentName="key"
    )


def percent_decode(raw: bytes) -> bytes:
    """InvalidURI when a ``%`` is not followed by two hexadecimal digits."""
    if b"%" not in raw:
        return raw
    first, *rest = raw.split(b"%")
    pieces = [first]
    try:
        for piece in rest:
            pieces.append(_HEX[piece[:2]])
            pieces.append(piece[2:])
    except KeyError:
        raise S3Error("InvalidURI") from None
    return b"".join(pieces)


def split_target(target: bytes) -> tuple[str, bytes, bytes]:
    """Bucket name, key and raw query of a request target; "" and b"" where there is none."""
    plain = head.split_plain(target)
    if plain is not None:
        name = _valid_names.get(plain[0])
        if name is not None:
            return name, plain[1], plain[2]
    path, _, query = target.partition(b"?")
    if path[:1] != b"/":
        path = _path_of_absolute(path)
    raw_bucket, _, raw_key = path[1:].partition(b"/")
    if len(raw_key) > 3 * KEY_BYTES_MAX:  # however it is escaped
        size = str(len(raw_key))
        raise S3Error("KeyTooLongError", Size=size, MaxSizeAllowed=str(KEY_BYTES_MAX))
    bucket = percent_decode(raw_bucket).decode("latin-1")
    key = percent_decode(raw_key)
    if bucket:
        if not bucket_name_is_valid(bucket):
            raise S3Error("InvalidBucketName", BucketName=bucket)
        if key:
            check_key(key)
        if len(_valid_names) < _NAMES_KEPT:
            _valid_names[bucket.encode()] = bucket
    elif key:
        raise S3Error("InvalidBucketName", BucketName="")
    return bucket, key, query


def _path_of_absolute(path: bytes) -> bytes:
    """``http://host/path`` is the form proxies send; ``*`` asks about the server as a whole."""
    scheme, separator, rest = path.partition(b"://")
    if separator and scheme.lower() in (b"http", b"https"):
        return b"/" + rest.partition(b"/")[2]
    if path in (b"*", b""):
        return b"/"
    raise S3Error("InvalidURI")


def split_query(raw: bytes) -> tuple[Query, list[bytes]]:
    """Decoded parameters, and the names among them that came without a value (``?acl``, ``?acl=``).

    ``+`` stays a plus: S3 signs and reads queries so, unlike HTML forms.
    """
    if raw.count(b"&") >= QUERY_PARAMETERS_MAX:
        raise S3Error("InvalidRequest", f"More than {QUERY_PARAMETERS_MAX} query parameters")
    query: Query = []
    bare = []
    for piece in raw.split(b"&"):
        if not piece:
            continue
        name, _, value = piece.partition(b"=")
        name = percent_decode(name)
        query.append((name, percent_decode(value)))
        if not value:
            bare.append(name)
    return query, bare
