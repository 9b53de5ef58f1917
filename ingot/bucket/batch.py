"""One batch of the group commit, worked out in memory: sans-IO, synchronous, pure but for the
cache.

In: mutations in arrival order and the buckets as the commits before left them. Out: one
``HeadMove`` a touched bucket, the blocks to append, and an answer a mutation. A mutation that needs
a block which is not in memory leaves the batch together with its bucket's others, so that they stay
in order.

A write puts and deletes keys of the objects tree, each change for itself. One that also concerns an
upload (``UploadChange``) takes effect as a whole or not at all, in both trees. A change of a
bucket's configuration (``Configure``) is judged in order with them: what comes behind it in the
batch meets the new configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from ingot import mst
from ingot.bucket.config_block import encode_config
from ingot.bucket.model import (
    Bucket,
    BucketConfig,
    BucketExists,
    BucketNotEmpty,
    Condition,
    ConfigTooLarge,
    KeyRefused,
    NoSuchBucket,
)
from ingot.bucket.nodes import Nodes
from ingot.bucket.part import BEYOND, NoSuchUpload, PartsChanged
from ingot.codec.cid import of_structure
from ingot.errors import IngotError, Missing
from ingot.limits import BUCKET_CONFIG_BYTES_MAX, PARTS_MAX
from ingot.messages import BodyPosition, Cid, Head, HeadMove

Answer = IngotError | None


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
    """One key's new value. ``etag`` is the new record's, for conditions later in the batch."""

    __slots__ = ("condition", "etag", "key", "value")

    def __init__(
        self, key: bytes, value: Cid | None, etag: str | None, condition: Condition | None
    ) -> None:
        self.key = key
        self.value = value
        self.etag = etag
        self.condition = condition


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
    """``etag_of`` gives the ETag of a record by its CID and raises Missing where it must wait."""

    def __init__(self, nodes: Nodes, etag_of: Callable[[Cid], str]) -> None:
        self.nodes = nodes
        self.etag_of = etag_of

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
            answers = [fold.take(change) for change in changes]
            objects = sorted([(key, state[0]) for key, state in fold.objects.items()])
            of_objects = self._apply(bucket, head.objects, objects, refused)
            of_uploads = self._apply(bucket, head.uploads, sorted(fold.uploads.items()), refused)
            if len(refused) == judged:
                break
            # Whoever comes after a key that the tree does not admit is judged again, without it.
        for change, results in zip(changes, answers, strict=True):
            plan.answers.append((change, results))
            if None in results and type(change) is Write:
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

    __slots__ = ("_bucket", "_etag_of", "_nodes", "_refused", "config", "objects", "uploads")

    def __init__(self, planner: Planner, bucket: Bucket, refused: set[bytes]) -> None:
        self.objects: dict[bytes, tuple[Cid | None, str | None]] = {}
        self.uploads: dict[bytes, Cid | None] = {}
        self.config = bucket.config  # as the changes up to here leave it
        self._bucket = bucket
        self._nodes = planner.nodes
        self._etag_of = planner.etag_of
        self._refused = refused

    def take(self, write: Write | Configure) -> list[Answer]:
        """Its answers; what is not refused counts for those behind it."""
        if isinstance(write, Configure):
            return [self._configure(write)]
        if write.uploads is not None:
            return [self._take_whole(write, write.uploads)]
        results: list[Answer] = []
        for change in write.changes:
            refusal = None
            if change.condition is not None or self._refused:
                refusal = self._judge(change)
            if refusal is None:
                self.objects[change.key] = (change.value, change.etag)
            results.append(refusal)
        return results

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
        for change in write.changes:
            self.objects[change.key] = (change.value, change.etag)
        self.uploads.update(dict.fromkeys(removed))
        self.uploads.update(of_upload.puts)
        return None

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
            try:
                change.condition.check(self._etag(change.key))
            except Missing:
                raise
            except IngotError as refusal:
                return refusal
        return None

    def _etag(self, key: bytes) -> str | None:
        """Of the object as it stands here."""
        if key in self.objects:
            return self.objects[key][1]
        cache, root = self._nodes.cache, self._bucket.head.objects
        value = self._nodes.run_now(lambda: mst.get(cache, root, key))
        return None if value is None else self._etag_of(value)

    def _standing(self, key: bytes) -> Cid | None:
        """The value of a key of the uploads tree as it stands here."""
        if key in self.uploads:
            return self.uploads[key]
        cache, root = self._nodes.cache, self._bucket.head.uploads
        return self._nodes.run_now(lambda: mst.get(cache, root, key))

    def _under(self, upload: bytes) -> dict[bytes, Cid | None]:
        """An upload and all of its parts as they stand here."""
        cache, root = self._nodes.cache, self._bucket.head.uploads
        entries = self._nodes.run_now(
            lambda: mst.scan(cache, root, upload, upload + BEYOND, PARTS_MAX + 1)
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


def created_head(config: Cid) -> Head:
    """The head of a new bucket."""
    return Head(sequence=0, config=config)


def _refuse_all(mutation: Mutation, why: IngotError) -> list[Answer]:
    if isinstance(mutation, Write) and mutation.uploads is None:
        return [why] * len(mutation.changes)
    return [why]
