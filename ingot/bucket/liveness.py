"""Which blocks of a unit are live: what compaction keeps, judged by the unit alone. Pure.

A unit is one sealed log segment, or several in a row. Its own commit records say where every bucket
that they touched stood after the last of them; from those heads, the pins and the checkpoint that
they name the walk follows links, and enters a block only where the unit holds it. What lies in an
earlier unit is that unit's own affair: nothing in it can link to a block that was first written
later, for a link is a hash. So units are judged one by one, by roots that never change again, and
in any order.

Kept are: every commit record; the last heads' trees, records, bodies, parts and configurations;
what is pinned; the newest checkpoint with its tree of heads. A head in a checkpoint keeps its
bucket's configuration and nothing else: its roots are those of the last commit, which are walked
already, or older.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from ingot.bucket.checkpoint import HEAD_FORMAT, decode_head
from ingot.codec import dag_cbor
from ingot.messages import Cid, CommitRecord, Head

STRUCTURE: Final = b"\x01\x71"  # how the CID of a DAG-CBOR block begins; others have no links
_HEAD_BLOCK: Final = dag_cbor.envelope_prefix(HEAD_FORMAT)


@dataclass(slots=True)
class Roots:
    """What keeps blocks of a unit alive, read off its commit records, oldest first."""

    commits: list[Cid] = field(default_factory=list)
    heads: dict[bytes, Head | None] = field(default_factory=dict)  # by bucket id; None: deleted
    pins: set[Cid] = field(default_factory=set)
    checkpoint: Cid | None = None

    def add(self, cid: Cid, record: CommitRecord) -> None:
        """The next commit of the unit."""
        self.commits.append(cid)
        for move in record.moves:
            self.heads[move.bucket] = move.new
        self.pins.update(record.pins)
        self.checkpoint = record.checkpoint

    def follow(self, record: CommitRecord) -> None:
        """The first commit behind the unit, which names what requests still held of it then."""
        self.pins.update(record.pins)


class Liveness:
    """The walk: whoever drives it reads the blocks that are ``wanted`` and ``feed``s them, until no
    more are. ``holds`` says whether a block lies in the unit; ``live`` is the outcome."""

    def __init__(self, roots: Roots, holds: Callable[[Cid], bool]) -> None:
        self.live: set[Cid] = set(roots.commits)
        self._holds = holds
        self._reached: list[Cid] = []
        for head in roots.heads.values():
            if head is not None:
                self._reach([head.objects, head.uploads, head.config])
        self._reach(roots.pins)
        self._reach([roots.checkpoint])

    def wanted(self, count: int) -> list[Cid]:
        """So many blocks that have to be looked at next, none twice; none at the end."""
        wanted = self._reached[-count:]
        del self._reached[-count:]
        return wanted

    def feed(self, cid: Cid, block: bytes) -> None:
        """A wanted block. FormatError for one that is none of ours, whose links nobody knows: such
        a unit cannot be compacted."""
        if block.startswith(_HEAD_BLOCK):
            self._reach([decode_head(block)[2].config])
        else:
            self._reach(dag_cbor.links(block))

    def _reach(self, cids: Iterable[Cid | None]) -> None:
        for cid in cids:
            if cid is not None and cid not in self.live and self._holds(cid):
                self.live.add(cid)
                if cid.startswith(STRUCTURE):
                    self._reached.append(cid)
