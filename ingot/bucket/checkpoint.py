"""The checkpoint: one CID that commits to every bucket of the gateway (design section 4).

A Merkle Search Tree from bucket id (32 hex digits) to ``ingot/head@1``:

    {"ingot/head@1": {"id": bytes16, "name": text, "sequence": uint,
                      "objects": link | null, "uploads": link | null, "config": link | null}}

and above it ``ingot/checkpoint@1``, which commit records name. After a seal an ordinary later batch
carries it; nothing waits for it. Only heads that changed since the last one are written again.
"""

from __future__ import annotations

from collections.abc import Iterable

from ingot import mst
from ingot.bucket.batch import Plan
from ingot.bucket.model import Bucket
from ingot.bucket.nodes import Nodes
from ingot.codec import dag_cbor
from ingot.codec.cid import Cid as Link
from ingot.codec.cid import of_structure
from ingot.errors import Missing
from ingot.messages import Cid
from ingot.ports import Clock
from ingot.segments.commit import Checkpoint, encode_checkpoint

HEAD_FORMAT = "ingot/head@1"


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


class Checkpoints:
    """Knows which heads changed since the last checkpoint, and writes the next when it is due."""

    def __init__(self, nodes: Nodes, store: bytes, incarnation: int, clock: Clock) -> None:
        self.newest: Cid | None = None
        self._store, self._incarnation = store, incarnation
        self._clock = clock
        self.count = 0
        self._nodes = nodes
        self._root: Cid | None = None
        self._changed: dict[bytes, Bucket | None] = {}  # since the newest checkpoint
        self._after: dict[bytes, Bucket | None] = {}  # the same, once the commit under way stands
        self._due = False
        self._written: tuple[Cid, Cid] | None = None

    def start(self, buckets: Iterable[Bucket], newest: Cid | None) -> None:
        """After a start every head counts as changed: the tree is built afresh."""
        self.newest = newest
        self._changed = {bucket.id: bucket for bucket in buckets}

    def segment_sealed(self) -> None:
        self._due = True

    def write(self, plan: Plan, sequence: int) -> Cid | None:
        """Add the checkpoint to commit ``sequence`` if it is due; returns the newest one's CID."""
        self._after = {**self._changed, **plan.after}
        self._written = None
        if not self._due:
            return self.newest
        heads = []
        changes: list[tuple[bytes, Cid | None]] = []
        for bucket_id, bucket in sorted(self._after.items()):
            value = None
            if bucket is not None:
                block = encode_head(bucket)
                value = of_structure(block)
                heads.append((value, block))
            changes.append((tree_key(bucket_id), value))
        cache, root = self._nodes.cache, self._root
        try:
            applied = self._nodes.run_now(lambda: mst.apply(cache, root, changes))
        except Missing:
            return self.newest  # its nodes are not at hand; a later batch will do
        made = Checkpoint(
            self._store, self._incarnation, sequence, self._clock.now_ms(), applied.root
        )
        block = encode_checkpoint(made)
        cid = of_structure(block)
        plan.blocks += [*heads, *applied.blocks, (cid, block)]
        self._written = (cid, applied.root)
        return cid

    def written(self) -> None:
        """The commit is durable, with its checkpoint where it carried one."""
        self._changed = self._after
        if self._written is not None:
            self.newest, self._root = self._written
            self._changed = {}
            self._due = False
            self.count += 1
