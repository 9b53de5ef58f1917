"""Forge's roots: each bucket's newest head at or below the watermark, folded from commits. Pure.

Guarantee: a bucket is followed head by head, so that none is skipped, and its root never goes back.
Commits that do not continue what stands are Corruption: something of the log is missing. Where
Forge lacks what a head reaches, whoever folds has the bucket held: its root stays at the head that
it had, and is tried again with every commit that is folded.
"""

from __future__ import annotations

from collections.abc import Iterable

from ingot.errors import Corruption
from ingot.messages import Cid, CommitRecord, ForgeRoot, Head


class Roots:
    """As of ``commit``, which is the watermark that they were read with."""

    def __init__(
        self, commit: int, roots: Iterable[ForgeRoot], held: Iterable[ForgeRoot] = ()
    ) -> None:
        self.commit = commit
        self.names: dict[bytes, str] = {}  # of the buckets that moved
        self._there: dict[bytes, Head | None] = {root.bucket: root.head for root in roots}
        self._held: dict[bytes, ForgeRoot] = {root.bucket: root for root in held}
        self._heads = self._there | {bucket: root.head for bucket, root in self._held.items()}
        self._moved: dict[bytes, ForgeRoot] = {}
        self._previous: Cid | None = None  # the commit record taken last

    def take(self, cid: Cid, record: CommitRecord) -> None:
        """Follow the next commit. Corruption where it is not the next one."""
        if record.sequence <= self.commit or self._previous not in (None, record.previous):
            raise Corruption(
                f"the commits shipped after {self.commit}",
                "the one that follows",
                f"commit {record.sequence}, which does not",
            )
        for move in record.moves:
            standing = self._heads.get(move.bucket)
            if standing != move.old:
                raise Corruption(
                    f"bucket {move.name} at commit {record.sequence}, as shipped",
                    f"the head {move.old}",
                    standing,
                )
            self._heads[move.bucket] = move.new
            self.names[move.bucket] = move.name
            self._moved[move.bucket] = ForgeRoot(move.bucket, move.new, record.sequence)
        self.commit, self._previous = record.sequence, cid

    @property
    def moved(self) -> list[ForgeRoot]:
        """The buckets that moved since ``settle``, also those that were deleted; and those held."""
        return list((self._held | self._moved).values())

    def there(self, bucket: bytes) -> Head | None:
        """The head of the bucket that Forge has."""
        return self._there.get(bucket)

    def settle(self, held: Iterable[ForgeRoot] = ()) -> None:
        """What has moved is in the registry, and of that ``held`` as what Forge has not got."""
        moved = self.moved
        self._moved.clear()
        self._held = {root.bucket: root for root in held}
        for root in moved:
            if root.head is None:
                self._heads.pop(root.bucket, None)
                self._there.pop(root.bucket, None)
            elif root.bucket not in self._held:
                self._there[root.bucket] = root.head
