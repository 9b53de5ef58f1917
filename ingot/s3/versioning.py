"""Whether a bucket has versions, and how answers speak of them.

A bucket never had versions, has them, or has them suspended; it never goes back to the first. The
word stands among the documents of the bucket's configuration and is judged at the commit, in order
with the writes (``bucket/fold.py``). Version ids are the store's; the version without one is
"null" on the wire.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ingot.bucket.model import (
    ENABLED,
    OBJECT_LOCK,
    SUSPENDED,
    VERSIONING,
    Bucket,
    BucketConfig,
    Outcome,
)
from ingot.limits import DOCUMENT_BYTES_MAX
from ingot.messages import Header, Response
from ingot.s3.call import Call, Handler, open_again, open_bucket, xml_response
from ingot.s3.errors import S3Error
from ingot.s3.xml import document, malformed, parse

if TYPE_CHECKING:
    from ingot.bucket.store import Store

VERSION_ID: Final = b"x-amz-version-id"
DELETE_MARKER: Final = b"x-amz-delete-marker"
_WORDS: Final = {"Enabled": ENABLED, "Suspended": SUSPENDED}
_SHOWN: Final = {word: shown for shown, word in _WORDS.items()}


class VersioningOperations:
    """GetBucketVersioning, PutBucketVersioning."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def handlers(self) -> dict[str, Handler]:
        return {"GetBucketVersioning": self.get, "PutBucketVersioning": self.put}

    async def get(self, call: Call) -> Response:
        """Empty where it was never set."""
        status = open_bucket(self._store, call).config.versioning
        shown = "" if status is None else f"<Status>{_SHOWN[status]}</Status>"
        return xml_response(document("VersioningConfiguration", shown))

    async def put(self, call: Call) -> Response:
        bucket = open_bucket(self._store, call)
        status = read_status(await call.documents.read(call, DOCUMENT_BYTES_MAX))
        bucket = await open_again(self._store, call, bucket)
        check = _may_suspend if status == SUSPENDED else None
        await self._store.configure(bucket, VERSIONING, status, check)
        return Response(200)


def read_status(body: bytes) -> bytes:
    """ENABLED or SUSPENDED; MalformedXML, NotImplemented for what only MFA could change."""
    if not body:
        raise S3Error("MissingRequestBodyError")
    root = parse(body, "VersioningConfiguration")
    root.only(("Status", "MfaDelete"))
    mfa = (root.value("MfaDelete") or "Disabled").strip()
    if mfa == "Enabled":
        raise S3Error("NotImplemented", "Deletion protected by MFA is not implemented")
    if mfa != "Disabled":
        raise malformed()
    status = root.value("Status")
    if status is None:
        raise S3Error("IllegalVersioningConfigurationException")
    if status.strip() not in _WORDS:
        raise malformed()
    return _WORDS[status.strip()]


def _may_suspend(config: BucketConfig) -> None:
    if OBJECT_LOCK in config.documents:
        raise S3Error(
            "InvalidBucketState",
            "An Object Lock configuration is present on this bucket, so the versioning state "
            "cannot be changed.",
        )


def version_headers(bucket: Bucket, version: str) -> list[Header]:
    """The header that names the version shown; none for a bucket that never had versions."""
    if bucket.config.versioning is None:
        return []
    return [(VERSION_ID, version.encode())]


def outcome_headers(outcome: Outcome | None) -> list[Header]:
    """What a write answers of the version that it made or removed."""
    if outcome is None:
        return []
    found: list[Header] = [(VERSION_ID, outcome.version.encode())]
    if outcome.marker:
        found.append((DELETE_MARKER, b"true"))
    return found
