"""What a node remembers (``state``). Pure."""

from __future__ import annotations

from dataclasses import dataclass


def held(space: str, digest: bytes) -> bytes:
    """The key of what a space has."""
    return space.encode() + b"\0" + digest


@dataclass(frozen=True, slots=True)
class Allocation:
    """By ``held``, or by the allocate task where the digest is not known yet. ``uploads`` are the
    ids of its addresses, the newest last."""

    size: int
    upload: str


@dataclass(frozen=True, slots=True)
class Upload:
    """By the id in an address. ``received``: the multihash of what was put there, or empty."""

    space: str
    size: int
    digest: bytes
    expires: int
    task: bytes
    received: bytes


@dataclass(frozen=True, slots=True)
class Acceptance:
    """By ``held``: tokens, and whether the indexer has heard of the location."""

    size: int
    location: bytes
    pdp: bytes
    published: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """By token CID."""

    token: bytes
