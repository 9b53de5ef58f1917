"""Buckets in the host's name: ``Host: photos.s3.example.com``, ``/key`` for ``/photos/key``. Pure.

Where a domain is configured, the bucket is put in front of the path before anything is judged, so
from there on both styles are one. What is signed is the target as it was sent. Called by
``ingot.s3.app``, for requests of the general way: the express lane knows path style only, and a
head that names a host under the domain never gets there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ingot.messages import Exchange, Request
from ingot.s3.errors import S3Error
from ingot.s3.names import bucket_name_is_valid

Lane = Callable[[bytes, Exchange, int], bool]

_SERVER: Final = b"*"  # OPTIONS of no bucket


class VirtualHosts:
    """Hosts under one ``domain``, which itself is spoken to in path style."""

    def __init__(self, domain: str) -> None:
        self._end = b"." + domain.lower().encode()

    def path_style(self, request: Request) -> bytes | None:
        """The target with the bucket that the host names; None where it names none.

        InvalidBucketName for a name under the domain that no bucket may have.
        """
        name = self._bucket(request.index.get(b"host", b""))
        if not name or request.target == _SERVER:
            return None
        bucket = name.decode("latin-1")
        if not bucket_name_is_valid(bucket):
            raise S3Error("InvalidBucketName", BucketName=bucket)
        return b"/" + name + request.target

    def _bucket(self, host: bytes) -> bytes:
        name, colon, port = host.lower().rpartition(b":")
        if not colon or port.strip(b"0123456789"):
            name = host.lower()
        name = name.removesuffix(b".")
        return name[: -len(self._end)] if name.endswith(self._end) else b""

    def beside(self, lane: Lane) -> Lane:
        """The express lane, for heads that name no host under the domain."""

        def take(head: bytes, exchange: Exchange, now_ms: int) -> bool:
            return self._end not in head.lower() and lane(head, exchange, now_ms)

        return take
