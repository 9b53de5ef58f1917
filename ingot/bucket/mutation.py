"""What may be asked of a bucket: mutations, and the changes of keys that a write is made of. Pure.

A request makes one and submits it to the pipeline; its waiter hears the answers. A change says what
becomes of one key. A plain one can be made without a look at what was there, as long as the bucket
has no versions; the others are worked out on the key's versions (``bucket/versioned.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple, Protocol, TypeAlias

from ingot.bucket.leaf import Acl, State
from ingot.bucket.model import OBJECT_LOCK, Bucket, BucketConfig, Condition, Outcome
from ingot.bucket.versioned import Histories
from ingot.bucket.versions import Keep, NewState
from ingot.errors import IngotError, Unavailable
from ingot.limits import BUCKET_CONFIG_BYTES_MAX
from ingot.messages import BodyPosition, Cid

Answer: TypeAlias = IngotError | Outcome | None
"""A refusal, or what was done: None in a bucket without versions."""

Check: TypeAlias = Callable[[BucketConfig], None]
"""May refuse what was asked, by raising: it sees the configuration as it stands at the commit."""

Judge: TypeAlias = Callable[[BucketConfig], State]
"""What state a new version begins with. Called again where a batch is tried again."""


class Waiter(Protocol):
    """Who hears the outcome of a mutation: a future, or somebody who acts in the same call."""

    def done(self) -> bool: ...
    def set_result(self, result: list[Answer], /) -> None: ...
    def set_exception(self, exception: IngotError, /) -> None: ...


class Mutation:
    """What one request asks of one bucket. ``waiter`` gets its answers, one a change."""

    __slots__ = ("bodies", "bucket", "deadline", "size", "waiter")

    def __init__(
        self,
        bucket: bytes,
        waiter: Waiter,
        deadline: float,
        size: int = 0,
        bodies: Iterable[BodyPosition] = (),
    ) -> None:
        self.bucket = bucket
        self.waiter = waiter
        self.deadline = deadline  # monotonic; afterwards the waiter gets 503
        self.size = size  # bytes it holds in memory
        self.bodies = bodies  # synced already; named in the commit record


class Change:
    """A put: one key's new record. ``etag`` is the record's, for conditions later in the batch."""

    __slots__ = ("condition", "etag", "key", "value")

    plain = True
    """Whether it can be made without a look at the old value, where there are no versions."""

    def __init__(
        self, key: bytes, value: Cid | None, etag: str | None, condition: Condition | None
    ) -> None:
        self.key = key
        self.value = value
        self.etag = etag
        self.condition = condition

    def meet(self, config: BucketConfig) -> None:
        """Hear the configuration as it stands at the commit, before ``make``; IngotError refuses.
        Unavailable for a put that knows of no lock: one was turned on meanwhile, and may retain new
        versions."""
        if self.value is not None and OBJECT_LOCK in config.documents:
            raise Unavailable("object lock was turned on while the object was being written")

    def make(self, histories: Histories, versioning: bytes | None) -> Outcome | None:
        """Do it to the versions of the key. IngotError where it is refused."""
        return histories.put(self, State(), versioning)


class StatedPut(Change):
    """A put whose version begins with tags or a lock. ``judge`` gives the state that follows from
    the bucket's configuration at the commit: of a bucket with versions."""

    __slots__ = ("judge", "state")

    plain = False

    def __init__(
        self,
        key: bytes,
        value: Cid,
        etag: str,
        condition: Condition | None,
        state: State,
        judge: Judge | None = None,
    ) -> None:
        super().__init__(key, value, etag, condition)
        self.state = state
        self.judge = judge

    def meet(self, config: BucketConfig) -> None:
        if self.judge is None:
            super().meet(config)
        else:
            self.state = self.judge(config)

    def make(self, histories: Histories, versioning: bytes | None) -> Outcome | None:
        return histories.put(self, self.state, versioning)


class Removal(Change):
    """A deletion at ``now_ms``: of the object, or of one version of it for good. ``bypass``: also
    of one that governance retains. ``state`` is that of the delete marker, where one is made.
    ``locks_ms``: the time by which locks are judged. ``condition`` is about what is to go: where
    that is a version, it is kept as ``of_version``."""

    __slots__ = ("bypass", "locks_ms", "now_ms", "of_version", "plain", "state", "version")

    def __init__(
        self,
        key: bytes,
        condition: Condition | None,
        now_ms: int,
        version: str | None = None,
        bypass: bool = False,
        state: State | None = None,
    ) -> None:
        super().__init__(key, None, None, condition if version is None else None)
        self.of_version = None if version is None else condition
        self.now_ms = self.locks_ms = now_ms
        self.version = version
        self.bypass = bypass
        self.state = state or State()
        self.plain = version is None

    def make(self, histories: Histories, versioning: bytes | None) -> Outcome | None:
        if self.version is None:
            return histories.delete(self.key, self.now_ms, versioning, self.state)
        return histories.remove(self.key, self.version, self.locks_ms, self.bypass, self.of_version)


class Expiry(Removal):
    """A removal by a lifecycle rule, of what the rule was asked about and nothing else:
    PreconditionFailed where ``judged`` (a version's id, or NULL_VERSION) is no longer ``record``,
    was the current version (``latest``) and is not, or the other way round, lacks one of the
    ``tags``, or has not as many versions between the current one and it as the rule wants
    (``newer``). A delete marker that is removed as the current version has to be the only one."""

    __slots__ = ("check", "judged", "latest", "newer", "record", "tags")

    def __init__(
        self,
        key: bytes,
        judged: str,
        record: Cid,
        latest: bool,
        version: str | None,
        now_ms: int,
        tags: Collection[tuple[str, str]],
        check: Check,
        newer: int = 0,
    ) -> None:
        super().__init__(key, None, now_ms, version)
        self.judged = judged
        self.record = record
        self.latest = latest
        self.tags = tags
        self.check = check
        self.newer = newer
        self.plain = False

    def meet(self, config: BucketConfig) -> None:
        self.check(config)

    def make(self, histories: Histories, versioning: bytes | None) -> Outcome | None:
        alone = self.latest and self.version is not None
        histories.expect(
            self.key, self.judged, self.record, self.latest, alone, self.tags, self.newer
        )
        return super().make(histories, versioning)


class Restating(Change):
    """A change of the state of a version, None: of the current one. The record stays. ``check`` may
    refuse it."""

    __slots__ = ("check", "new", "now_ms", "version")

    plain = False

    def __init__(
        self,
        key: bytes,
        version: str | None,
        new: NewState,
        now_ms: int,
        check: Check | None = None,
    ) -> None:
        super().__init__(key, None, None, None)
        self.version = version
        self.new = new
        self.now_ms = now_ms
        self.check = check

    def meet(self, config: BucketConfig) -> None:
        if self.check is not None:
            self.check(config)

    def make(self, histories: Histories, versioning: bytes | None) -> Outcome | None:
        return histories.restate(self.key, self.version, self.new, self.now_ms, versioning)


class Seen(NamedTuple):
    """A version by which a change was judged, None: the current one, and what it had of that on
    which the right to the change rests. One that was not there, or is a delete marker, has no tags
    and no ACL."""

    version: str | None
    tags: Mapping[str, str] | None  # None: it does not rest on them
    acl: Acl | None | Keep


class Judged(Change):
    """A change that is made where its key is still as it was ``seen``, else StateChanged."""

    __slots__ = ("change", "seen")

    plain = False

    def __init__(self, change: Change, seen: Seen) -> None:
        super().__init__(change.key, change.value, change.etag, change.condition)
        self.change = change
        self.seen = seen

    def meet(self, config: BucketConfig) -> None:
        self.change.meet(config)

    def make(self, histories: Histories, versioning: bytes | None) -> Outcome | None:
        histories.check_seen(self.key, self.seen)
        return self.change.make(histories, versioning)


def as_judged(change: Change, seen: Seen | None) -> Change:
    """The change, bound to what it was judged by where it was judged by something."""
    return change if seen is None else Judged(change, seen)


class UploadChange:
    """What a write does to the uploads tree, if the upload stands at the commit as it was seen.

    ``upload`` is the key and the CID of the upload that it concerns, None for a new one: without it
    the write is refused as NoSuchUpload. ``parts`` are keys and CIDs that must be there too, else
    PartsChanged. ``ends``: the upload goes, with every part that there is. ``puts`` come last.
    ``check`` may refuse it.
    """

    __slots__ = ("check", "ends", "id", "parts", "puts", "upload")

    def __init__(
        self,
        id: str,
        puts: list[tuple[bytes, Cid | None]],
        upload: tuple[bytes, Cid] | None = None,
        parts: Iterable[tuple[bytes, Cid]] = (),
        ends: bool = False,
        check: Check | None = None,
    ) -> None:
        self.check = check
        self.id = id
        self.puts = puts
        self.upload = upload
        self.parts = parts
        self.ends = ends


class Write(Mutation):
    """Put or delete keys of the objects tree; ``blocks`` go to the log with it. With ``uploads`` it
    is all or nothing and has one answer."""

    __slots__ = ("blocks", "changes", "uploads")

    def __init__(
        self,
        bucket: bytes,
        waiter: Waiter,
        deadline: float,
        changes: list[Change],
        blocks: list[tuple[Cid, bytes]],
        bodies: Iterable[BodyPosition] = (),
        uploads: UploadChange | None = None,
    ) -> None:
        self.bucket = bucket  # as Mutation.__init__, without the call: there is one a PUT
        self.waiter = waiter
        self.deadline = deadline
        self.bodies = bodies
        size = 0
        for _, block in blocks:
            size += len(block)
        self.size = size
        self.changes = changes
        self.blocks = blocks
        self.uploads = uploads


class Create(Mutation):
    """Bring a bucket into being; its head names the configuration block ``config``."""

    __slots__ = ("config", "made")

    def __init__(
        self,
        made: Bucket,
        waiter: Waiter,
        deadline: float,
        config: tuple[Cid, bytes],
    ) -> None:
        super().__init__(made.id, waiter, deadline, len(config[1]))
        self.made = made
        self.config = config


class Configure(Mutation):
    """Set the document ``name`` of the bucket's configuration, or remove it (None). ``check`` may
    refuse it."""

    __slots__ = ("check", "document", "name")

    def __init__(
        self,
        bucket: bytes,
        waiter: Waiter,
        deadline: float,
        name: str,
        document: bytes | None,
        check: Check | None = None,
    ) -> None:
        # What it adds to a batch is the whole configuration.
        super().__init__(bucket, waiter, deadline, BUCKET_CONFIG_BYTES_MAX)
        self.name = name
        self.document = document
        self.check = check


class Drop(Mutation):
    """Delete a bucket, if it is empty at that moment."""

    __slots__ = ()
