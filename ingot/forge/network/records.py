"""What a node remembers (``state``). Pure."""

from __future__ import annotations

from dataclasses import dataclass


def held(space: str, digest: bytes) -> bytes:
    """The key of what a space has."""
    return space.encode() + b"\0" + digest


@dataclass(frozen=True, slots=True)
class Allocation:
    """By ``held``, or by the allocate task where the digest is not known yet. ``upload`` is the id
    of its newest address, or empty."""

    size: int
    upload: str


@dataclass(frozen=True, slots=True)
class Upload:
    """By the id in an address, for the allocation with a key. ``digest`` is empty where it is not
    known yet, ``received`` until bytes were put there, whose multihash it is then."""

    allocation: bytes
    size: int
    digest: bytes
    expires: int
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
