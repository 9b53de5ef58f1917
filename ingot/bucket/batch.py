"""One batch of the group commit, worked out in memory: sans-IO, synchronous, pure but for the
cache.

In: mutations in arrival order and the buckets as the commits before left them. Out: one
``HeadMove`` a touched bucket, the blocks to append, and an answer a mutation. A mutation that needs
a block which is not in memory leaves the batch together with its bucket's others, so that they stay
in order.

A write puts and deletes keys of the objects tree, each change for itself. One that also concerns an
upload (``UploadChange``) takes effect as a whole or not at all, in both trees. Changes of versions
and their state, and all changes of a bucket with versions, are worked out in ``bucket/versioned``.
A change of a bucket's configuration (``Configure``) is judged in order with them: what comes behind
it in the batch meets the new configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from ingot import mst
from ingot.bucket.config_block import encode_config
from ingot.bucket.leaf import Leaf, State
from ingot.bucket.model import (
    Bucket,
    BucketConfig,
    BucketExists,
    BucketNotEmpty,
    Condition,
    ConfigTooLarge,
    KeyRefused,
    NoSuchBucket,
    Outcome,
)
from ingot.bucket.nodes import Nodes
from ingot.bucket.part import BEYOND, NoSuchUpload, PartsChanged
from ingot.bucket.values import Fact
from ingot.bucket.versioned import Histories, TokenOf, ValueOf, Written
from ingot.bucket.versions import NewState
from ingot.codec.cid import of_structure
from ingot.errors import Corruption, FormatError, IngotError, Missing
from ingot.limits import BUCKET_CONFIG_BYTES_MAX, PARTS_MAX
from ingot.messages import BodyPosition, Cid, Head, HeadMove

Answer: TypeAlias = IngotError | Outcome | None
"""A refusal, or what was done: None in a bucket without versions."""


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

    def make(self, histories: Histories, versioning: bytes | None) -> Outcome | None:
        """Do it to the versions of the key. IngotError where it is refused."""
        return histories.put(self, State(), versioning)


class StatedPut(Change):
    """A put whose version begins with tags or a lock."""

    __slots__ = ("state",)

    plain = False

    def __init__(
        self, key: bytes, value: Cid, etag: str, condition: Condition | None, state: State
    ) -> None:
        super().__init__(key, value, etag, condition)
        self.state = state

    def make(self, histories: Histories, versioning: bytes | None) -> Outcome | None:
        return histories.put(self, self.state, versioning)


class Removal(Change):
    """A deletion at ``now_ms``: of the object, or of one version of it for good. ``bypass``: also
    of one that governance retains."""

    __slots__ = ("bypass", "now_ms", "plain", "version")

    def __init__(
        self,
        key: bytes,
        condition: Condition | None,
        now_ms: int,
        version: str | None = None,
        bypass: bool = False,
    ) -> None:
        super().__init__(key, None, None, condition)
        self.now_ms = now_ms
        self.version = version
        self.bypass = bypass
        self.plain = version is None

    def make(self, histories: Histories, versioning: bytes | None) -> Outcome | None:
        if self.version is None:
            return histories.delete(self.key, self.now_ms, versioning)
        return histories.remove(self.key, self.version, self.now_ms, self.bypass)


class Restating(Change):
    """A change of the state of a version, None: of the current one. The record stays."""

    __slots__ = ("new", "now_ms", "version")

    plain = False

    def __init__(self, key: bytes, version: str | None, new: NewState, now_ms: int) -> None:
        super().__init__(key, None, None, None)
        self.version = version
        self.new = new
        self.now_ms = now_ms

    def make(self, histories: Histories, versioning: bytes | None) -> Outcome | None:
        return histories.restate(self.key, self.version, self.new, self.now_ms, versioning)


class UploadChange:
    """What a write does to the uploads tree, if the upload stands at the commit as it was seen.

    ``upload`` is the key and the CID of the upload that it concerns, None for a new one: without it
    the write is refused as NoSuchUpload. ``parts`` are keys and CIDs that must be there too, else
    PartsChanged. ``ends``: the upload goes, with every part that there is. ``puts`` come last.
    """

    __slots__ = ("ends", "id", "parts", "puts", "upload")

    def __init__(
        self,
        id: str,
        puts: list[tuple[bytes, Cid | None]],
        upload: tuple[bytes, Cid] | None = None,
        parts: Iterable[tuple[bytes, Cid]] = (),
        ends: bool = False,
    ) -> None:
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
    refuse it by raising: it sees the configuration as it stands at the commit."""

    __slots__ = ("check", "document", "name")

    def __init__(
        self,
        bucket: bytes,
        waiter: Waiter,
        deadline: float,
        name: str,
        document: bytes | None,
        check: Callable[[BucketConfig], None] | None = None,
    ) -> None:
        # What it adds to a batch is the whole configuration.
        super().__init__(bucket, waiter, deadline, BUCKET_CONFIG_BYTES_MAX)
        self.name = name
        self.document = document
        self.check = check


class Drop(Mutation):
    """Delete a bucket, if it is empty at that moment."""

    __slots__ = ()


@dataclass(slots=True, eq=False)
class Plan:
    """What a batch comes to. ``after`` holds the buckets that it leaves changed; None: deleted."""

    moves: list[HeadMove] = field(default_factory=list)
    blocks: list[tuple[Cid, bytes]] = field(default_factory=list)
    bodies: dict[int, int] = field(default_factory=dict)  # segment -> end
    after: dict[bytes, Bucket | None] = field(default_factory=dict)
    answers: list[tuple[Mutation, list[Answer]]] = field(default_factory=list)
    left: list[tuple[list[Mutation], list[Cid]]] = field(default_factory=list)
    removed: list[Cid] = field(default_factory=list)  # nodes that the new roots do not reach
    began: float = 0.0  # monotonic; set by the pipeline


class Planner:
    """``values`` says what a block holds by its CID and raises Missing where it must wait."""

    def __init__(self, nodes: Nodes, values: ValueOf, token: TokenOf) -> None:
        self.nodes = nodes
        self.values = values
        self.token = token

    def plan(
        self, mutations: list[Mutation], working: dict[bytes, Bucket], names: dict[str, bytes]
    ) -> Plan:
        plan = Plan()
        groups: dict[bytes, list[Mutation]] = {}
        for mutation in mutations:
            groups.setdefault(mutation.bucket, []).append(mutation)
        for bucket_id, group in groups.items():
            first = group[0]
            if isinstance(first, Create):
                standing = names.get(first.made.name)
                if standing is None:
                    self._create(plan, first)
                else:
                    taken = BucketExists(working[standing].config.owner)
                    plan.answers.append((first, [taken]))
                continue
            bucket = working.get(bucket_id)
            if bucket is None:
                plan.answers += [(m, _refuse_all(m, NoSuchBucket())) for m in group]
                continue
            changes = [m for m in group if isinstance(m, Write | Configure)]
            drop = group[-1] if isinstance(group[-1], Drop) else None
            try:
                if changes:
                    self._change(plan, bucket, changes)
                if drop is not None:
                    self._drop(plan, bucket, drop)
            except Missing as missing:
                plan.left.append((group, missing.cids))
            except IngotError as damage:
                plan.answers += [(m, _refuse_all(m, damage)) for m in group]
        return plan

    def _create(self, plan: Plan, create: Create) -> None:
        plan.after[create.made.id] = create.made
        plan.blocks.append(create.config)
        plan.moves.append(HeadMove(create.made.id, create.made.name, None, create.made.head))
        plan.answers.append((create, [None]))

    def _drop(self, plan: Plan, bucket: Bucket, drop: Drop) -> None:
        """The pipeline never puts a Drop and a change of the same bucket into one batch."""
        assert bucket.id not in plan.after
        if bucket.head.objects not in (None, mst.EMPTY_ROOT):
            plan.answers.append((drop, [BucketNotEmpty("the bucket still holds objects")]))
            return
        plan.after[bucket.id] = None
        plan.moves.append(HeadMove(bucket.id, bucket.name, bucket.head, None))
        plan.answers.append((drop, [None]))

    def _change(self, plan: Plan, bucket: Bucket, changes: list[Write | Configure]) -> None:
        head, refused = bucket.head, set[bytes]()
        while True:
            judged = len(refused)
            fold = _Fold(self, bucket, refused)
            answers = fold.take_all(changes)
            objects, written = fold.close()
            of_objects = self._apply(bucket, head.objects, objects, refused)
            of_uploads = self._apply(bucket, head.uploads, sorted(fold.uploads.items()), refused)
            if len(refused) == judged:
                break
            # Whoever comes after a key that the tree does not admit is judged again, without it.
        for change, results in zip(changes, answers, strict=True):
            plan.answers.append((change, results))
            if type(change) is Write and (None in results or not _all_refused(results)):
                plan.blocks += change.blocks
                for position in change.bodies:
                    end = plan.bodies.get(position.segment, 0)
                    plan.bodies[position.segment] = max(end, position.end)
        config, named = bucket.config, head.config
        if fold.config is not config:
            block = encode_config(fold.config)
            named = of_structure(block)
            if named != head.config:
                config = fold.config
                plan.blocks.append((named, block))
        if of_objects is None and of_uploads is None and named == head.config:
            return
        after = Head(
            head.sequence + 1,
            head.objects if of_objects is None else of_objects.root,
            head.uploads if of_uploads is None else of_uploads.root,
            named,
        )
        if of_objects is not None and written is not None:
            plan.blocks += written.blocks
            plan.removed += written.removed
        for applied in (of_objects, of_uploads):
            if applied is not None:
                plan.blocks += applied.blocks
                plan.removed += applied.removed
        # Not dataclasses.replace, which takes as long as ten lines of this.
        plan.after[bucket.id] = Bucket(bucket.id, bucket.name, after, config, bucket.read_only)
        plan.moves.append(HeadMove(bucket.id, bucket.name, head, after))

    def _apply(
        self,
        bucket: Bucket,
        root: Cid | None,
        changes: list[tuple[bytes, Cid | None]],
        refused: set[bytes],
    ) -> mst.Applied | None:
        """The new tree; None where it is the old one, or where keys were added to ``refused``."""
        if not changes:
            return None
        cache, salt = self.nodes.cache, bucket.config.salt
        try:
            applied = mst.apply(cache, root, changes, salt)
        except Missing:
            applied = self.nodes.run_now(lambda: mst.apply(cache, root, changes, salt))
        if applied.refused:
            refused.update([changes[index][0] for index in applied.refused])
            return None
        return None if applied.root == (root or mst.EMPTY_ROOT) else applied


class _Fold:
    """The last word on each key of a bucket's two trees and on its configuration, changes judged in
    arrival order.

    ``refused`` are keys that the trees do not admit. No key of one tree can be one of the other.
    """

    __slots__ = ("_bucket", "_histories", "_planner", "_refused", "config", "objects", "uploads")

    def __init__(self, planner: Planner, bucket: Bucket, refused: set[bytes]) -> None:
        self.objects: dict[bytes, tuple[Cid | None, str | None]] = {}
        self.uploads: dict[bytes, Cid | None] = {}
        self.config = bucket.config  # as the changes up to here leave it
        self._bucket = bucket
        self._planner = planner
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
        versioning = self.config.versioning
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
            planner = self._planner
            self._histories = Histories(self._bucket, planner.nodes, planner.values, planner.token)
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
            return change.make(histories, versioning)
        except (Missing, Corruption, FormatError):
            raise
        except IngotError as refusal:
            return refusal

    def _take_whole(self, write: Write, of_upload: UploadChange) -> Answer:
        removed: Iterable[bytes] = ()
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
            refusal = self._judge(change)
            if refusal is not None:
                return refusal
        answer: Answer = None
        versioning = self.config.versioning
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
        said = self._planner.values(value)
        if isinstance(said, Leaf):
            said = self._planner.values(said.current)
        if not isinstance(said, Fact):
            raise Corruption(f"value of key {key!r}", "a record", type(said).__name__)
        return None if said.marker else said.etag

    def _value(self, key: bytes) -> Cid | None:
        """Of a key of the objects tree that nothing in this batch has changed."""
        nodes, root = self._planner.nodes, self._bucket.head.objects
        return nodes.run_now(lambda: mst.get(nodes.cache, root, key))

    def _standing(self, key: bytes) -> Cid | None:
        """The value of a key of the uploads tree as it stands here."""
        if key in self.uploads:
            return self.uploads[key]
        nodes, root = self._planner.nodes, self._bucket.head.uploads
        return nodes.run_now(lambda: mst.get(nodes.cache, root, key))

    def _under(self, upload: bytes) -> dict[bytes, Cid | None]:
        """An upload and all of its parts as they stand here."""
        nodes, root = self._planner.nodes, self._bucket.head.uploads
        entries = nodes.run_now(
            lambda: mst.scan(nodes.cache, root, upload, upload + BEYOND, PARTS_MAX + 1)
        )
        found: dict[bytes, Cid | None] = dict(entries)
        found |= {k: v for k, v in self.uploads.items() if k.startswith(upload)}
        return {key: value for key, value in found.items() if value is not None}


def _key_refused() -> KeyRefused:
    return KeyRefused("the key would unbalance the bucket's tree")


def _all_refused(answers: list[Answer]) -> bool:
    return all([isinstance(answer, IngotError) for answer in answers])


def check_size(config: BucketConfig) -> None:
    """ConfigTooLarge."""
    size = sum(map(len, config.documents.values()))
    if size > BUCKET_CONFIG_BYTES_MAX:
        raise ConfigTooLarge(
            f"the configuration of the bucket would have {size} bytes, of {BUCKET_CONFIG_BYTES_MAX}"
        )


def created_head(config: Cid) -> Head:
    """The head of a new bucket."""
    return Head(sequence=0, config=config)


def _refuse_all(mutation: Mutation, why: IngotError) -> list[Answer]:
    if isinstance(mutation, Write) and mutation.uploads is None:
        return [why] * len(mutation.changes)
    return [why]
