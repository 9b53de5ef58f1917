"""The exceptions of ingot: whose fault it is, and whether trying again can help.

Every layer raises these; only ``ingot.s3.errors`` turns them into S3 codes. Errors that carry
numbers carry what a person needs to act: where, what was expected, what was found.
"""

from __future__ import annotations

from collections.abc import Sequence


class IngotError(Exception):
    """Base of everything that ingot raises on purpose."""


class ConfigError(IngotError):
    """A setting is wrong or a needed thing is missing; the message names it and what to do."""


class RequestError(IngotError):
    """The client asked for something it must not or cannot have; nothing was stored."""


class NotFound(IngotError):
    """The named block, key or bucket does not exist."""


class RootMoved(IngotError):
    """A bucket's head was not the expected one: a lost compare-and-swap."""


class LeaseLost(IngotError):
    """Another gateway holds the store, or the lease ran out: serve nothing from now on."""


class Superseded(IngotError):
    """The space holds a newer incarnation of this store: ship and remove nothing from now on."""


class Unavailable(IngotError):
    """Cannot be done now; the same request may succeed after ``retry_after_s`` seconds."""

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unserved(Unavailable):
    """This gateway answers nothing now: its lease is lost, or is not surely its own."""


class AccountsFailed(Unavailable):
    """The host's account store gave no answer, or none that could be used."""


class Unfetched(Unavailable):
    """A block lies in a cold segment, and the network cannot give it now."""


class Corruption(IngotError):
    """Stored bytes are not what they claim to be. Never retried, never hidden."""

    def __init__(self, where: str, expected: object, found: object) -> None:
        super().__init__(f"{where}: expected {expected}, found {found}")
        self.where, self.expected, self.found = where, expected, found


class FormatError(IngotError):
    """Bytes that no encoder of ours would write; ``offset`` is where decoding stopped."""

    def __init__(self, offset: int, expected: str, found: str) -> None:
        super().__init__(f"at byte {offset}: expected {expected}, found {found}")
        self.offset, self.expected, self.found = offset, expected, found


class Missing(IngotError):
    """Blocks that a synchronous reader needs and does not hold: load them and call again."""

    def __init__(self, cids: Sequence[bytes]) -> None:
        super().__init__(f"{len(cids)} blocks are not in memory")
        self.cids = list(cids)
