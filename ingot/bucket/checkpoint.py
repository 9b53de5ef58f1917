"""The checkpoint: one CID that commits to every bucket of the gateway (design section 4).

A Merkle Search Tree from bucket id (32 hex digits) to ``ingot/head@1``:

    {"ingot/head@1": {"id": bytes16, "name": text, "sequence": uint,
                      "objects": link | null, "uploads": link | null, "config": link | null}}

and above it ``ingot/checkpoint@1``, which commit records name. After a seal an ordinary later batch
carries it; nothing waits for it. Only heads that changed since the last one are written again. Of a
tree that is damaged nothing is needed: the next is written afresh.

A bucket's configuration block is written when the bucket is made and when its configuration
changes, and all that says whose the bucket is stands in it. So checkpoints repeat it until it
stands in two segments, and a segment that is lost does not take a bucket from its owner. A
checkpoint repeats so many bytes of them at the most; the next goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from ingot import mst
from ingot.bucket.batch import Plan
from ingot.bucket.config_block import encode_config
from ingot.bucket.model import Bucket
from ingot.bucket.nodes import Nodes
from ingot.codec import dag_cbor
from ingot.codec.cid import Cid as Link
from ingot.codec.cid import of_structure
from ingot.codec.fields import open_envelope
from ingot.errors import IngotError, Missing
from ingot.limits import CHECKPOINT_CONFIGS_BYTES, CHECKPOINT_TRIES
from ingot.messages import Cid, CommitRecord, Head
from ingot.ports import Clock
from ingot.segments.commit import ID_BYTES, Checkpoint, encode_checkpoint

log = logging.getLogger("ingot.checkpoint")

HEAD_FORMAT = "ingot/head@1"
_EARLIER = 0  # the segment of what an earlier process wrote: another than any that comes


def tree_key(bucket: bytes) -> bytes:
    """The checkpoint tree's key of a bucket id."""
    return bucket.hex().encode()


def encode_head(bucket: Bucket) -> bytes:
    head = bucket.head
    return dag_cbor.encode(
        {
            HEAD_FORMAT: {
                "id": bucket.id,
                "name": bucket.name,
                "sequence": head.sequence,
                "objects": None if head.objects is None else Link(head.objects),
                "uploads": None if head.uploads is None else Link(head.uploads),
                "config": None if head.config is None else Link(head.config),
            }
        }
    )


def decode_head(block: bytes) -> tuple[bytes, str, Head]:
    """Id, name and head of a bucket; FormatError for anything that ``encode_head`` would not
    write."""
    fields = open_envelope(block, HEAD_FORMAT)
    bucket, name = fields.need_bytes("id", ID_BYTES), fields.need("name", str)
    head = Head(
        sequence=fields.need_uint("sequence"),
        objects=fields.need_link_or_null("objects"),
        uploads=fields.need_link_or_null("uploads"),
        config=fields.need_link_or_null("config"),
    )
    fields.done()
    return bucket, name, head


class Checkpoints:
    """Knows what changed since the last checkpoint, and writes the next when it is due."""

    def __init__(self, nodes: Nodes, store: bytes, incarnation: int, clock: Clock) -> None:
        self.newest: Cid | None = None
        self._store, self._incarnation = store, incarnation
        self._clock = clock
        self.count = 0
        self._nodes = nodes
        self._buckets: Mapping[bytes, Bucket] = {}  # as the last durable commit left them
        self._root: Cid | None = None
        self._changed: dict[bytes, Bucket | None] = {}  # since the newest checkpoint
        self._due = False
        self._tries = 0  # of the one that is due, for want of nodes of the last
        self._alone: dict[bytes, int] = {}  # buckets whose configuration one segment has: which
        # Of the commit under way:
        self._after: dict[bytes, Bucket | None] = {}
        self._repeated: list[bytes] = []  # buckets whose configuration it carries once more
        self._written: tuple[Cid, Cid] | None = None

    def start(self, buckets: Mapping[bytes, Bucket], newest: Cid | None) -> None:
        """``buckets`` are kept up to date by the caller. After a start, which seals what was open,
        every head counts as changed, the tree is built afresh, and every configuration is written
        once more."""
        self.newest = newest
        self._buckets = buckets
        self._changed = dict(buckets)
        self._alone = dict.fromkeys(buckets, _EARLIER)
        self._due = bool(buckets)

    def segment_sealed(self) -> None:
        self._due = True

    def write(self, plan: Plan, sequence: int) -> Cid | None:
        """Add the checkpoint to commit ``sequence`` if it is due; returns the newest one's CID."""
        self._after, self._repeated, self._written = plan.after, [], None
        if not self._due:
            return self.newest
        applied = self._next_tree(plan)
        if applied is None:
            return self.newest
        made = Checkpoint(
            self._store, self._incarnation, sequence, self._clock.now_ms(), applied.root
        )
        block = encode_checkpoint(made)
        cid = of_structure(block)
        plan.blocks += [*applied.blocks, *self._configurations(), (cid, block)]
        self._written = (cid, applied.root)
        return cid

    def written(self, record: CommitRecord) -> None:
        """The commit is durable, with its checkpoint where it carried one."""
        self._changed.update(self._after)
        if self._written is not None:
            self.newest, self._root = self._written
            self._changed = {}
            self._due, self._tries = False, 0
            self.count += 1
        for bucket_id in self._repeated:
            if self._alone[bucket_id] != record.segment:
                del self._alone[bucket_id]
        for move in record.moves:
            if move.new is None:
                self._alone.pop(move.bucket, None)
            elif move.old is None or move.old.config != move.new.config:
                self._alone[move.bucket] = record.segment

    def _next_tree(self, plan: Plan) -> mst.Applied | None:
        """The tree of this commit's heads, their blocks among its own; None to try again later."""
        try:
            return self._tree(self._root, {**self._changed, **self._after})
        except Missing as missing:
            self._tries += 1
            if self._tries < CHECKPOINT_TRIES:
                return None  # its nodes are not at hand; a later batch will do
            log.warning("nodes of the last checkpoint are not at hand (%s): a whole one", missing)
        except IngotError as damage:
            log.error("the last checkpoint's tree is damaged, a whole one is written: %s", damage)
        return self._tree(None, {**self._buckets, **self._after})

    def _tree(self, root: Cid | None, buckets: Mapping[bytes, Bucket | None]) -> mst.Applied:
        heads = []
        changes: list[tuple[bytes, Cid | None]] = []
        for bucket_id, bucket in sorted(buckets.items()):
            value = None
            if bucket is not None:
                block = encode_head(bucket)
                value = of_structure(block)
                heads.append((value, block))
            changes.append((tree_key(bucket_id), value))
        cache = self._nodes.cache
        applied = self._nodes.run_now(lambda: mst.apply(cache, root, changes))
        applied.blocks[:0] = heads
        return applied

    def _configurations(self) -> list[tuple[Cid, bytes]]:
        """Blocks of which only one segment is known to have a copy."""
        found: dict[Cid, bytes] = {}
        size = 0
        for bucket_id in list(self._alone):
            if size >= CHECKPOINT_CONFIGS_BYTES:
                break
            after = self._after
            bucket = after[bucket_id] if bucket_id in after else self._buckets[bucket_id]
            if bucket is None:
                continue
            block = encode_config(bucket.config)
            cid = of_structure(block)
            if cid == bucket.head.config:
                found[cid] = block
                size += len(block)
                self._repeated.append(bucket_id)
            else:
                del self._alone[bucket_id]  # it is lost: what we have is not what it was
        return list(found.items())
