"""What answers say of the time when an object expires or an upload is aborted.

Called by the operations on objects, where the bucket has rules (``LIFECYCLE``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from ingot.bucket.model import Bucket
from ingot.bucket.part import Upload
from ingot.bucket.record import Record
from ingot.messages import Header
from ingot.s3 import lifecycle
from ingot.s3.configuration import LIFECYCLE, Parsed
from ingot.s3.lifecycle_index import RuleIndex

if TYPE_CHECKING:
    from ingot.bucket.store import Store

_NAME: Final = b"x-amz-expiration"


class Rules(NamedTuple):
    """A bucket's rules: those by which objects expire, and those that abort uploads."""

    expiring: RuleIndex
    aborting: RuleIndex


def _read(document: bytes) -> Rules:
    rules = lifecycle.read(document)
    return Rules(
        RuleIndex(rule for rule in rules if rule.days is not None or rule.date_ms is not None),
        RuleIndex(rule for rule in rules if rule.abort_days is not None),
    )


class Expirations:
    """The rules of all buckets. Belongs to one server."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read = Parsed(_read)

    def abort_headers(self, bucket: Bucket, upload: Upload) -> list[Header]:
        """Of an open upload; none where no rule aborts it."""
        document = bucket.config.documents.get(LIFECYCLE)
        if document is None:
            return []
        rules = self._read(document).aborting.plain(upload.key)
        return lifecycle.abort_headers(rules, upload.key, upload.created_ms)

    async def headers(self, bucket: Bucket, record: Record) -> list[Header]:
        """Of a current version; none where no rule is about it. Its tags are looked up where a rule
        asks for them."""
        document = bucket.config.documents.get(LIFECYCLE)
        if document is None:
            return []
        index = self._read(document).expiring
        tags: Mapping[str, str] = {}
        if index.asks_tags(record.key):
            found = await self._store.look(self._store.bucket(bucket.name), record.key)
            tags = {} if found is None else found.state.tags
        rules = index.about(record.key, tags)
        value = lifecycle.expiration_header(
            rules, record.key, record.body.size, record.created_ms, tags
        )
        return [] if value is None else [(_NAME, value)]
