"""Forge's roots: each bucket's newest head at or below the watermark, folded from commits. Pure.

Guarantee: a root moves exactly as the bucket did, head by head, so that it neither skips one nor
goes back. Commits that do not continue what stands are Corruption: something of the log is missing.
"""

from __future__ import annotations

from collections.abc import Iterable

from ingot.errors import Corruption
from ingot.messages import Cid, CommitRecord, ForgeRoot, Head


class Roots:
    """As of ``commit``, which is the watermark that they were read with."""

    def __init__(self, commit: int, roots: Iterable[ForgeRoot]) -> None:
        self.commit = commit
        self._heads: dict[bytes, Head | None] = {root.bucket: root.head for root in roots}
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
            self._moved[move.bucket] = ForgeRoot(move.bucket, move.new, record.sequence)
        self.commit, self._previous = record.sequence, cid

    @property
    def moved(self) -> list[ForgeRoot]:
        """The buckets that moved since ``settle``; also those that were deleted."""
        return list(self._moved.values())

    def settle(self) -> None:
        """What has moved is in the registry."""
        for bucket, root in self._moved.items():
            if root.head is None:
                self._heads.pop(bucket, None)
        self._moved.clear()
