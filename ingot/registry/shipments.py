"""Shipments and forge roots as rows of the registry; shared by both registries. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ingot.errors import RootMoved
from ingot.messages import BodyPosition, ForgeRoot, Head, Shipment


def columns_of(row: Shipment) -> tuple[object, ...]:
    """What ``statements.PUT_SHIPMENT`` takes after the token."""
    needs = row.needs
    return (
        row.stream,
        row.number,
        row.state,
        row.digest,
        list(row.locations),
        row.bytes,
        row.first_commit,
        row.last_commit,
        None if needs is None else needs.segment,
        None if needs is None else needs.end,
        row.attempts,
        list(row.indexes),
    )


def shipment_of(columns: Sequence[Any]) -> Shipment:
    """The row that ``statements.SHIPMENTS`` gives, in the order of ``columns_of``."""
    *fixed, segment, end, attempts, indexes = columns
    stream, number, state, digest, locations, size, first, last = fixed
    needs = None if segment is None else BodyPosition(segment, end)
    return Shipment(
        stream,
        number,
        state,
        digest,
        tuple(locations),
        size,
        first,
        last,
        needs,
        attempts,
        tuple(indexes),
    )


def check_roots(commit: int, roots: Sequence[ForgeRoot], held: Sequence[ForgeRoot]) -> None:
    """Our own mistakes: a bucket named twice, a head from behind the watermark."""
    named = [*roots, *held]
    assert len({root.bucket for root in named}) == len(named), "a bucket is named twice"
    assert all(root.commit <= commit for root in named), "a root is ahead of the watermark"
    assert all(root.head is not None for root in held), "a bucket is held that is gone"


def columns_of_roots(roots: Sequence[ForgeRoot]) -> tuple[list[object], ...]:
    """The arrays that ``statements.ADVANCE_FORGE`` takes after the commit; the sequence is NULL for
    a bucket that is gone."""
    heads = [root.head or _GONE for root in roots]
    return (
        [root.bucket for root in roots],
        [None if root.head is None else root.head.sequence for root in roots],
        [head.objects for head in heads],
        [head.uploads for head in heads],
        [head.config for head in heads],
        [root.commit for root in roots],
    )


def not_advanced(commit: int) -> RootMoved:
    return RootMoved(f"Forge's watermark or a root of it is not below commit {commit}")


_GONE = Head(0)
