"""One batch of the group commit, worked out in memory: sans-IO, synchronous, pure but for the cache.

In: mutations in arrival order and the buckets as the commits before left them. Out: one ``HeadMove``
a touched bucket, the blocks to append, and an answer a mutation. A mutation that needs a block which
is not in memory leaves the batch together with its bucket's others, so that they stay in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ingot import mst
from ingot.bucket.model import (
    Bucket,
    BucketExists,
    BucketNotEmpty,
    Condition,
    KeyRefused,
    NoSuchBucket,
)
from ingot.bucket.nodes import Nodes
from ingot.errors import IngotError, Missing
from ingot.messages import BodyPosition, Cid, Head, HeadMove

if TYPE_CHECKING:
    from asyncio import Future

Answer = IngotError | None


class Mutation:
    """What one request asks of one bucket. ``waiter`` gets its answers, one a change."""

    __slots__ = ("bodies", "bucket", "deadline", "size", "waiter")

    def __init__(
        self,
        bucket: bytes,
        waiter: Future[list[Answer]],
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


class Write(Mutation):
    """Put or delete keys of the objects tree; ``blocks`` go to the log with it."""

    __slots__ = ("blocks", "changes")

    def __init__(
        self,
        bucket: bytes,
        waiter: Future[list[Answer]],
        deadline: float,
        changes: list[Change],
        blocks: list[tuple[Cid, bytes]],
        bodies: Iterable[BodyPosition] = (),
    ) -> None:
        size = sum([len(block) for _, block in blocks])
        super().__init__(bucket, waiter, deadline, size, bodies)
        self.changes = changes
        self.blocks = blocks


class Create(Mutation):
    """Bring a bucket into being; its head names the configuration block ``config``."""

    __slots__ = ("config", "made")

    def __init__(
        self,
        made: Bucket,
        waiter: Future[list[Answer]],
        deadline: float,
        config: tuple[Cid, bytes],
    ) -> None:
        super().__init__(made.id, waiter, deadline, len(config[1]))
        self.made = made
        self.config = config


class Drop(Mutation):
    """Delete a bucket, if it is empty at that moment."""

    __slots__ = ()


@dataclass(slots=True)
class Plan:
    """What a batch comes to. ``after`` holds the buckets that it leaves changed; None: deleted."""

    moves: list[HeadMove] = field(default_factory=list)
    blocks: list[tuple[Cid, bytes]] = field(default_factory=list)
    bodies: dict[int, int] = field(default_factory=dict)  # segment -> end
    after: dict[bytes, Bucket | None] = field(default_factory=dict)
    answers: list[tuple[Mutation, list[Answer]]] = field(default_factory=list)
    left: list[tuple[list[Mutation], list[Cid]]] = field(default_factory=list)


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
            writes = [m for m in group if isinstance(m, Write)]
            drop = group[-1] if isinstance(group[-1], Drop) else None
            try:
                if writes:
                    self._write(plan, bucket, writes)
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
        """The pipeline never puts a Drop and a write of the same bucket into one batch."""
        assert bucket.id not in plan.after
        if bucket.head.objects not in (None, mst.EMPTY_ROOT):
            plan.answers.append((drop, [BucketNotEmpty("the bucket still holds objects")]))
            return
        plan.after[bucket.id] = None
        plan.moves.append(HeadMove(bucket.id, bucket.name, bucket.head, None))
        plan.answers.append((drop, [None]))

    def _write(self, plan: Plan, bucket: Bucket, writes: list[Write]) -> None:
        folded, answers = self._fold(bucket, writes)
        root = bucket.head.objects
        applied = None
        while folded:
            changes = sorted([(key, state[0]) for key, state in folded.items()])
            tried = self._apply(root, changes, bucket.config.salt)
            if not tried.refused:
                applied = tried
                break
            for index in tried.refused:
                refused = changes[index][0]
                del folded[refused]
                for write, results in zip(writes, answers, strict=True):
                    for n, change in enumerate(write.changes):
                        if change.key == refused and results[n] is None:
                            results[n] = KeyRefused("the key would unbalance the bucket's tree")
        for write, results in zip(writes, answers, strict=True):
            plan.answers.append((write, results))
            if any(result is None for result in results):
                plan.blocks += write.blocks
                for position in write.bodies:
                    end = plan.bodies.get(position.segment, 0)
                    plan.bodies[position.segment] = max(end, position.end)
        if applied is None or applied.root == (root or mst.EMPTY_ROOT):
            return
        plan.blocks += applied.blocks
        head = replace(bucket.head, sequence=bucket.head.sequence + 1, objects=applied.root)
        plan.after[bucket.id] = replace(bucket, head=head)
        plan.moves.append(HeadMove(bucket.id, bucket.name, bucket.head, head))

    def _apply(
        self, root: Cid | None, changes: list[tuple[bytes, Cid | None]], salt: bytes
    ) -> mst.Applied:
        cache = self.nodes.cache
        try:
            return mst.apply(cache, root, changes, salt)
        except Missing:
            return self.nodes.run_now(lambda: mst.apply(cache, root, changes, salt))

    def _fold(
        self, bucket: Bucket, writes: list[Write]
    ) -> tuple[dict[bytes, tuple[Cid | None, str | None]], list[list[Answer]]]:
        """The last word on each key, conditions judged in arrival order."""
        folded: dict[bytes, tuple[Cid | None, str | None]] = {}
        answers: list[list[Answer]] = []
        for write in writes:
            results: list[Answer] = []
            for change in write.changes:
                if change.condition is not None:
                    try:
                        change.condition.check(self._current(bucket, folded, change.key))
                    except IngotError as refusal:
                        if isinstance(refusal, Missing):
                            raise
                        results.append(refusal)
                        continue
                folded[change.key] = (change.value, change.etag)
                results.append(None)
            answers.append(results)
        return folded, answers

    def _current(
        self, bucket: Bucket, folded: dict[bytes, tuple[Cid | None, str | None]], key: bytes
    ) -> str | None:
        if key in folded:
            return folded[key][1]
        cache, root = self.nodes.cache, bucket.head.objects
        value = self.nodes.run_now(lambda: mst.get(cache, root, key))
        return None if value is None else self.etag_of(value)


def created_head(config: Cid) -> Head:
    """The head of a new bucket."""
    return Head(sequence=0, config=config)


def _refuse_all(mutation: Mutation, why: IngotError) -> list[Answer]:
    return [why] * (len(mutation.changes) if isinstance(mutation, Write) else 1)
