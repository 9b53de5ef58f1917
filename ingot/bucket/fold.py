"""The changes of a batch to one bucket, judged in arrival order, before any tree is touched.

A ``Fold`` holds the last word on each key. Plain changes are but noted; changes of versions and
their state, and all changes of a bucket with versions, go to ``bucket/versioned.py``. A change of
the configuration is judged in order with them: what comes behind it meets the new configuration.
Called by ``bucket/batch.py``.
"""

from __future__ import annotations

from collections.abc import Iterable

from ingot import mst
from ingot.bucket.leaf import Leaf
from ingot.bucket.model import Bucket, BucketConfig, ConfigTooLarge, KeyRefused
from ingot.bucket.mutation import Answer, Change, Configure, UploadChange, Write
from ingot.bucket.nodes import Nodes
from ingot.bucket.part import BEYOND, NoSuchUpload, PartsChanged
from ingot.bucket.values import Fact
from ingot.bucket.versioned import Histories, TokenOf, ValueOf, Written
from ingot.errors import Corruption, FormatError, IngotError, Missing
from ingot.limits import BUCKET_CONFIG_BYTES_MAX, PARTS_MAX
from ingot.messages import Cid


class Fold:
    """The last word on each key of a bucket's two trees and on its configuration, changes judged in
    arrival order.

    ``refused`` are keys that the trees do not admit. No key of one tree can be one of the other.
    """

    __slots__ = (
        *("_bucket", "_histories", "_nodes", "_refused", "_token", "_values", "_versioning"),
        *("config", "objects", "uploads"),
    )

    def __init__(
        self,
        nodes: Nodes,
        values: ValueOf,
        token: TokenOf,
        bucket: Bucket,
        refused: set[bytes],
    ) -> None:
        self.objects: dict[bytes, tuple[Cid | None, str | None]] = {}
        self.uploads: dict[bytes, Cid | None] = {}
        self.config = bucket.config  # as the changes up to here leave it
        self._versioning = bucket.config.versioning
        self._bucket = bucket
        self._nodes = nodes
        self._values = values
        self._token = token
        self._refused = refused
        self._histories: Histories | None = None  # of keys whose versions were looked at

    def take_all(self, changes: list[Write | Configure]) -> list[list[Answer]]:
        """The answers of each. Missing names what any of them lacks, so that it is all there at
        the next try."""
        answers: list[list[Answer]] = []
        missing: dict[Cid, None] = {}
        for change in changes:
            try:
                answers.append(self.take(change, missing))
            except Missing as lacks:
                missing.update(dict.fromkeys(lacks.cids))
        if missing:
            raise Missing(list(missing))
        return answers

    def take(self, write: Write | Configure, missing: dict[Cid, None]) -> list[Answer]:
        """Its answers; what is not refused counts for those behind it."""
        if isinstance(write, Configure):
            return [self._configure(write)]
        if write.uploads is not None:
            return [self._take_whole(write, write.uploads)]
        results: list[Answer] = []
        versioning = self._versioning
        for change in write.changes:
            try:
                refusal = None
                if change.condition is not None or self._refused:
                    refusal = self._judge(change)
                if refusal is None:
                    if versioning is None and change.plain and self._histories is None:
                        self.objects[change.key] = (change.value, change.etag)  # nearly all
                    elif versioning is None and change.plain:
                        self._replace(change)
                    else:
                        refusal = self._make(change, versioning)
                results.append(refusal)
            except Missing as lacks:
                missing.update(dict.fromkeys(lacks.cids))
        return results

    def close(self) -> tuple[list[tuple[bytes, Cid | None]], Written | None]:
        """The new values, by key, and what was written for them beside the records."""
        values = [(key, state[0]) for key, state in self.objects.items()]
        if self._histories is None:
            return sorted(values), None
        values += self._histories.close()
        return sorted(values), self._histories.written

    def _replace(self, change: Change) -> None:
        """A put or a deletion that does not look at the old value."""
        self.objects[change.key] = (change.value, change.etag)
        if self._histories is not None:
            self._histories.forget(change.key)

    def _make(self, change: Change, versioning: bytes | None) -> Answer:
        """A change of a key's versions, or of the state of one."""
        key = change.key
        if self._histories is None:
            self._histories = Histories(self._bucket, self._nodes, self._values, self._token)
        histories = self._histories
        if key not in histories:
            here = self.objects.get(key)
            if here is None:
                histories.open(key, self._value(key))
            else:
                value, etag = here
                if value is not None and etag is not None:
                    histories.written.know(value, Fact(etag, False))
                histories.open(key, value)
                del self.objects[key]
        try:
            change.meet(self.config)
            return change.make(histories, versioning)
        except (Missing, Corruption, FormatError):
            raise
        except IngotError as refusal:
            return refusal

    def _take_whole(self, write: Write, of_upload: UploadChange) -> Answer:
        removed: Iterable[bytes] = ()
        if of_upload.check is not None:
            try:
                of_upload.check(self.config)
            except IngotError as refusal:
                return refusal
        if of_upload.upload is not None:
            key, seen = of_upload.upload
            if of_upload.ends:
                standing = self._under(key)
                removed = standing
            else:
                standing = {key: self._standing(key)}
            if standing.get(key) != seen:
                return NoSuchUpload(of_upload.id)
            if any(standing.get(part) != chosen for part, chosen in of_upload.parts):
                return PartsChanged("a part was replaced")
        if self._refused and not self._refused.isdisjoint([*removed, *dict(of_upload.puts)]):
            return _key_refused()
        for change in write.changes:
            refused = self._judge(change)
            if refused is not None:
                return refused
        answer: Answer = None
        versioning = self._versioning
        for change in write.changes:
            if versioning is None and change.plain:
                self._replace(change)
            else:
                answer = self._make(change, versioning)
                if isinstance(answer, IngotError):
                    return answer
        self.uploads.update(dict.fromkeys(removed))
        self.uploads.update(of_upload.puts)
        return answer

    def _configure(self, change: Configure) -> Answer:
        try:
            if change.check is not None:
                change.check(self.config)
            made = self.config.with_document(change.name, change.document)
            if change.document is not None:
                check_size(made)
        except IngotError as refusal:
            return refusal
        self.config = made
        self._versioning = made.versioning
        return None

    def _judge(self, change: Change) -> Answer:
        if change.key in self._refused:
            return _key_refused()
        if change.condition is not None:
            etag = self._etag(change.key)
            try:
                change.condition.check(etag)
            except IngotError as refusal:
                return refusal
        return None

    def _etag(self, key: bytes) -> str | None:
        """Of the object as it stands here."""
        if self._histories is not None and key in self._histories:
            return self._histories.etag(key)
        if key in self.objects:
            return self.objects[key][1]
        value = self._value(key)
        if value is None:
            return None
        said = self._values(value)
        if isinstance(said, Leaf):
            said = self._values(said.current)
        if not isinstance(said, Fact):
            raise Corruption(f"value of key {key!r}", "a record", type(said).__name__)
        return None if said.marker else said.etag

    def _value(self, key: bytes) -> Cid | None:
        """Of a key of the objects tree that nothing in this batch has changed."""
        nodes, root = self._nodes, self._bucket.head.objects
        return nodes.run_now(lambda: mst.get(nodes.cache, root, key))

    def _standing(self, key: bytes) -> Cid | None:
        """The value of a key of the uploads tree as it stands here."""
        if key in self.uploads:
            return self.uploads[key]
        nodes, root = self._nodes, self._bucket.head.uploads
        return nodes.run_now(lambda: mst.get(nodes.cache, root, key))

    def _under(self, upload: bytes) -> dict[bytes, Cid | None]:
        """An upload and all of its parts as they stand here."""
        nodes, root = self._nodes, self._bucket.head.uploads
        entries = nodes.run_now(
            lambda: mst.scan(nodes.cache, root, upload, upload + BEYOND, PARTS_MAX + 1)
        )
        found: dict[bytes, Cid | None] = dict(entries)
        found |= {k: v for k, v in self.uploads.items() if k.startswith(upload)}
        return {key: value for key, value in found.items() if value is not None}


def _key_refused() -> KeyRefused:
    return KeyRefused("the key would unbalance the bucket's tree")


def check_size(config: BucketConfig) -> None:
    """ConfigTooLarge."""
    size = sum(map(len, config.documents.values()))
    if size > BUCKET_CONFIG_BYTES_MAX:
        raise ConfigTooLarge(
            f"the configuration of the bucket would have {size} bytes, of {BUCKET_CONFIG_BYTES_MAX}"
        )
