"""What answers say of the time when an object expires or an upload is aborted.

Called by the operations on objects, where the bucket has rules (``LIFECYCLE``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ingot.bucket.model import Bucket
from ingot.bucket.part import Upload
from ingot.bucket.record import Record
from ingot.messages import Header
from ingot.s3 import lifecycle
from ingot.s3.configuration import LIFECYCLE, Parsed

if TYPE_CHECKING:
    from ingot.bucket.store import Store

_NAME: Final = b"x-amz-expiration"


class Expirations:
    """The rules of all buckets. Belongs to one server."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read = Parsed(lifecycle.read)

    def abort_headers(self, bucket: Bucket, upload: Upload) -> list[Header]:
        """Of an open upload; none where no rule aborts it."""
        document = bucket.config.documents.get(LIFECYCLE)
        if document is None:
            return []
        return lifecycle.abort_headers(self._read(document), upload.key, upload.created_ms)

    async def headers(self, bucket: Bucket, record: Record) -> list[Header]:
        """Of a current version; none where no rule is about it. Its tags are looked up where a rule
        asks for them."""
        document = bucket.config.documents.get(LIFECYCLE)
        if document is None:
            return []
        rules = [rule for rule in self._read(document) if rule.enabled]
        tags: dict[str, str] = {}
        if any(rule.filter.tags for rule in rules):
            found = await self._store.look(self._store.bucket(bucket.name), record.key)
            tags = {} if found is None else found.state.tags
        value = lifecycle.expiration_header(
            rules, record.key, record.body.size, record.created_ms, tags
        )
        return [] if value is None else [(_NAME, value)]
