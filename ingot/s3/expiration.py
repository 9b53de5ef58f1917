"""What answers say of the time when an object expires or an upload is aborted.

Called by the operations on objects, where the bucket has rules (``LIFECYCLE``).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Final, NamedTuple

from ingot.bucket.leaf import State
from ingot.bucket.model import Bucket
from ingot.bucket.part import Upload
from ingot.bucket.record import Record
from ingot.messages import Header
from ingot.s3 import lifecycle
from ingot.s3.configuration import LIFECYCLE, Parsed
from ingot.s3.documents import Documents
from ingot.s3.lifecycle_index import RuleIndex
from ingot.s3.xml import at_once

_NAME: Final = b"x-amz-expiration"


class Rules(NamedTuple):
    """A bucket's rules: those by which objects expire, and those that abort uploads."""

    expiring: RuleIndex
    aborting: RuleIndex


def _read_in_steps(document: bytes) -> Generator[None, None, Rules]:
    rules = yield from lifecycle.read_in_steps(document)
    return Rules(
        RuleIndex(rule for rule in rules if rule.days is not None or rule.date_ms is not None),
        RuleIndex(rule for rule in rules if rule.abort_days is not None),
    )


class Expirations:
    """The rules of all buckets. Belongs to one server."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._parsed: Parsed[bytes, Rules] = Parsed(
            lambda document: at_once(_read_in_steps(document))
        )

    async def rules(self, bucket: Bucket) -> Rules | None:
        """The bucket's, None where it has none. Many take 60 ms to read, in which others have their
        turn, and wait for theirs: so they are asked for before an object is looked at that has to
        stay, or that is pinned. Unavailable where that takes too long."""
        document = bucket.config.documents.get(LIFECYCLE)
        if document is None:
            return None
        found = self._parsed.held(document)
        if found is None:
            owner = bucket.config.owner or ""
            found = await self._documents.one_at_a_time(owner, self._read_in_steps(document))
        return found

    def _read_in_steps(self, document: bytes) -> Generator[None, None, Rules]:
        found = self._parsed.held(document)  # by who was before us, while we waited
        if found is None:
            found = self._parsed.hold(document, (yield from _read_in_steps(document)))
        return found

    async def abort_headers(self, bucket: Bucket, upload: Upload) -> list[Header]:
        """Of an open upload; none where no rule aborts it."""
        rules = await self.rules(bucket)
        if rules is None:
            return []
        about = rules.aborting.plain(upload.key)
        return lifecycle.abort_headers(about, upload.key, upload.created_ms)

    async def headers(self, bucket: Bucket, record: Record, state: State | None) -> list[Header]:
        """Of a version that became the current one with that state; none where no rule is about
        it."""
        rules = await self.rules(bucket)
        if rules is None:
            return []
        return expiration_headers(rules, record, {} if state is None else state.tags)


def expiration_headers(rules: Rules, record: Record, tags: Mapping[str, str]) -> list[Header]:
    """As ``Expirations.headers``, of a version whose tags are known."""
    about = rules.expiring.about(record.key, tags)
    size, created_ms = record.body.size, record.created_ms
    value = lifecycle.expiration_header(about, record.key, size, created_ms, tags)
    return [] if value is None else [(_NAME, value)]
