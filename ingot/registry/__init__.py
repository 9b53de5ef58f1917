"""The mutable index: which heads are current, who may move them, which segments there are.

``postgres.Postgres`` is the real one, ``memory.MemoryRegistry`` the same port
(``ingot.ports.Registry``) in memory, under one contract suite; ``embedded`` runs a private
Postgres. Only ``ingot.server``, ``ingot.testing`` and ``ingot.cli`` choose between them.
"""

from __future__ import annotations

from dataclasses import dataclass

from ingot.messages import Cid


@dataclass(slots=True)
class SegmentRow:
    """State of one segment file (``ingot.ports.SegmentRow``)."""

    stream: str  # "log", "body" or "unit"
    number: int
    state: str  # "open", "sealed", "quarantined"; later "shipped", "retired"
    bytes: int
    root: Cid | None  # of the last commit record, once sealed
    first_commit: int  # commit sequences it holds; 0 and 0 when it holds none
    last_commit: int
