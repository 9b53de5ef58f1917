"""One batch of the group commit, worked out in memory: sans-IO, synchronous, pure but for the
cache.

In: mutations in arrival order and the buckets as the commits before left them. Out: one
``HeadMove`` a touched bucket, the blocks to append, and an answer a mutation. A mutation that needs
a block which is not in memory leaves the batch together with its bucket's others, so that they stay
in order.

A write puts and deletes keys of the objects tree, each change for itself. One that also concerns an
upload (``UploadChange``) takes effect as a whole or not at all, in both trees. What may be asked is
in ``bucket/mutation.py``, how it is judged in ``bucket/fold.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ingot import mst
from ingot.bucket.config_block import encode_config
from ingot.bucket.fold import Fold
from ingot.bucket.model import Bucket, BucketExists, BucketNotEmpty, NoSuchBucket
from ingot.bucket.mutation import Answer, Configure, Create, Drop, Mutation, Write
from ingot.bucket.nodes import Nodes
from ingot.bucket.versioned import TokenOf, ValueOf
from ingot.codec.cid import of_structure
from ingot.errors import IngotError, Missing
from ingot.messages import Cid, Head, HeadMove


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
            fold = Fold(self.nodes, self.values, self.token, bucket, refused)
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


def _all_refused(answers: list[Answer]) -> bool:
    return all([isinstance(answer, IngotError) for answer in answers])


def created_head(config: Cid) -> Head:
    """The head of a new bucket."""
    return Head(sequence=0, config=config)


def _refuse_all(mutation: Mutation, why: IngotError) -> list[Answer]:
    if isinstance(mutation, Write) and mutation.uploads is None:
        return [why] * len(mutation.changes)
    return [why]
