"""Publishes the watermark in the space itself, so that the space alone tells what it holds.

    upload = { root: the commit record at the watermark, index: an index archive of the unit that
               ends there, shards: [that unit] }

Guarantees: a new root is named before older ones of this store are removed, so at every moment at
least one stands; normally it is exactly one. No root of another store is touched, and none of this
store that is newer than what we publish. Every step may be repeated and begin anew after a crash.
Before anything is changed the roots are looked at that are not ours: one of this store by a newer
incarnation, or by our own with a commit that our log does not have, means that the store goes on
elsewhere: Superseded, and whoever publishes stops shipping and removing for good. A root that
cannot be judged, whoever named it, holds back nothing but its own removal: it is looked at again.

Called by the shipper, at its start and behind every move of the watermark.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from ingot.codec.cid import CID_BYTES, DAG_CBOR_PREFIX, to_text
from ingot.errors import (
    Corruption,
    FormatError,
    IngotError,
    NotFound,
    Superseded,
    Unavailable,
)
from ingot.forge.uploads import Uploads
from ingot.limits import SHIP_ROOTS_LOOKED_AT
from ingot.messages import Cid, CommitRecord


@dataclass(frozen=True, slots=True)
class Mark:
    """What is to be published: a commit, and the unit that ends with it. ``index`` is None where
    it is not known."""

    root: Cid
    unit: bytes  # its multihash, as that of the index archive
    index: bytes | None


class OwnLog(Protocol):
    async def commit_of(self, cid: Cid) -> CommitRecord | None:
        """The commit whose record this is; None where it is not in this log."""
        ...


@dataclass(frozen=True, slots=True)
class Ours:
    """Whose the log is, and how to read a commit record of anybody."""

    log: OwnLog
    store: bytes
    incarnation: int
    decode: Callable[[bytes], CommitRecord]


class Publisher:
    """``fetch`` gives the block of a root that the space names, by its hash."""

    def __init__(
        self,
        uploads: Uploads,
        fetch: Callable[[Cid], Awaitable[bytes]],
        ours: Ours,
        logger: logging.Logger | None = None,
    ) -> None:
        self._uploads, self._fetch, self._ours = uploads, fetch, ours
        self._logger = logger or logging.getLogger("ingot.shipper")
        self._known: dict[Cid, CommitRecord | None] = {}  # None: of somebody else
        self._tries: Counter[Cid] = Counter()  # in vain, of those that are not known

    async def publish(self, mark: Mark | None) -> None:
        """Look at what the space names, and bring it up to ``mark``, where there is one. A root
        that cannot be judged now is raised behind that, as what it failed with.
        Superseded, Unavailable, Refused, Corruption, ConfigError without the rights."""
        roots = [named.root for named in await self._uploads.named()]
        standing: dict[Cid, CommitRecord] = {}
        unread: IngotError | None = None
        for root in self._in_turn(roots):
            try:
                record = await self._look(root)
            except Superseded:
                raise
            except IngotError as error:  # naming ours beside it can do no harm
                self._tries[root] += 1
                unread = unread or error
                continue
            if record is not None:
                standing[root] = record
        self._known = {root: self._known[root] for root in roots if root in self._known}
        self._tries = Counter({root: self._tries[root] for root in roots if self._tries[root]})
        if mark is not None:
            await self._name(mark, standing)
        if unread is not None:
            raise unread
        left = len(roots) - len(self._known.keys() & set(roots))
        if left:
            raise Unavailable(f"{left} roots that the space names are yet to be looked at")

    def _in_turn(self, roots: list[Cid]) -> list[Cid]:
        """Those that are known, and of the others as many as may be looked at now: first those
        that were tried the least, so that none keeps another from its turn."""
        known = [root for root in roots if root in self._known]
        others = [root for root in roots if root not in self._known]
        others.sort(key=lambda root: self._tries[root])
        return known + others[:SHIP_ROOTS_LOOKED_AT]

    async def _name(self, mark: Mark, standing: Mapping[Cid, CommitRecord]) -> None:
        """``standing`` is what the space names of this store."""
        record = await self._look(mark.root)
        if record is None:
            raise Corruption("the commit at the watermark", "one of this log", to_text(mark.root))
        age = _age(record)
        older = [root for root, one in standing.items() if _age(one) < age and root != mark.root]
        newer = [root for root, one in standing.items() if _age(one) > age]
        if mark.root not in standing and not newer:
            await self._uploads.add(mark.root, mark.index, [mark.unit])
        for root in older:
            await self._uploads.remove(root)

    async def _look(self, root: Cid) -> CommitRecord | None:
        """The commit of this store that a root is; None for anything else."""
        if root not in self._known:
            self._known[root] = await self._judge(root)
        return self._known[root]

    async def _judge(self, root: Cid) -> CommitRecord | None:
        ours, name = self._ours, to_text(root)
        if not root.startswith(DAG_CBOR_PREFIX) or len(root) != CID_BYTES:
            self._foreign(f"the space also names {name}, which is no commit of ours")
            return None
        record = await ours.log.commit_of(root)
        if record is not None:
            return record
        try:
            record = ours.decode(await self._fetch(root))
        except (FormatError, NotFound) as error:
            self._foreign(f"the space also names {name}, which is no commit of ours: {error}")
            return None
        if record.store != ours.store:
            self._foreign(
                f"the space also names commit {record.sequence} of store {record.store.hex()}: it "
                "is left alone"
            )
            return None
        if record.incarnation >= ours.incarnation:
            raise Superseded(
                f"the space names commit {record.sequence} of incarnation {record.incarnation} of "
                f"this store, which this data directory (incarnation {ours.incarnation}) does not "
                "have: the store was restored or goes on elsewhere. This gateway ships and removes "
                "nothing any more. Stop the one that is not to go on; what only this one has must "
                "be copied by an S3 client. If nobody has restored it, somebody who may add "
                "uploads to the space has forged that commit: take that right away, remove the "
                f"root with 'ingot space unname {name}', and start this gateway again"
            )
        self._logger.warning(
            "the space names commit %d of incarnation %d of this store, which was not restored; "
            "incarnation %d takes its place",
            record.sequence,
            record.incarnation,
            ours.incarnation,
        )
        return record

    def _foreign(self, text: str) -> None:
        """Told once, as long as the root is named."""
        self._logger.warning("%s", text)


def _age(record: CommitRecord) -> tuple[int, int]:
    return record.incarnation, record.sequence
