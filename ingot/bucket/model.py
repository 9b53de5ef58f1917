"""What a bucket is as a value, what may be asked of it, and how a write is refused. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from ingot.errors import NotFound, RequestError, Unavailable
from ingot.messages import Cid, Head


class NoSuchBucket(NotFound):
    """No live bucket has this name."""


class BucketExists(RequestError):
    """``owner`` is the canonical id of whoever has the name."""

    def __init__(self, owner: str) -> None:
        super().__init__("the bucket name is taken")
        self.owner = owner


class BucketNotEmpty(RequestError):
    """A bucket that still holds a key cannot be deleted."""


class PreconditionFailed(RequestError):
    """``condition`` is the header that did not hold: "If-Match" or "If-None-Match"."""

    def __init__(self, condition: str) -> None:
        super().__init__(f"{condition} does not hold")
        self.condition = condition


class KeyRefused(RequestError):
    """The tree's limits refuse this key (mst.md section 14)."""


class ConfigTooLarge(RequestError):
    """All documents of a bucket together are bounded (``BUCKET_CONFIG_BYTES_MAX``)."""


# Documents that change nothing for an everyday request. One that is not named here, such as one of
# a later version, may. A bucket's ACL counts only where there is a document on ownership.
EVERYDAY: Final = frozenset(("tagging", "cors", "website", "acl", "public-access", "encryption"))


class NoSuchVersion(NotFound):
    """The key has no version with this id."""

    def __init__(self, version: str) -> None:
        super().__init__(f"no version {version}")
        self.version = version


class IsDeleteMarker(RequestError):
    """The version is a delete marker, which has neither bytes nor state."""

    def __init__(self, version: str) -> None:
        super().__init__(f"version {version} is a delete marker")
        self.version = version


class Locked(RequestError):
    """A legal hold or retention keeps the version as it is."""


class StateChanged(Unavailable):
    """A version has other tags or another ACL than those by which a change was judged. Judge it
    again; whoever does not, says that it cannot be done now."""


VERSIONING: Final = "versioning"  # the document of a bucket that has versions, or had
ENABLED: Final = b"enabled"  # every write makes a version
SUSPENDED: Final = b"suspended"  # every write replaces the null version
OBJECT_LOCK: Final = "object-lock"  # the document of one whose versions can be locked
NULL_VERSION: Final = "null"  # how the version without an id is called


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a change did in a bucket with versions: the version that it made or removed, and whether
    that is a delete marker. A change of a bucket without versions has None for it."""

    version: str  # an id, or NULL_VERSION
    marker: bool


@dataclass(frozen=True, slots=True)
class BucketConfig:
    """``ingot/bucket@1``, the head's configuration block; a value, its documents too."""

    owner: str  # canonical id; "" where the block is lost
    owner_name: str
    created_ms: int
    region: str
    salt: bytes = b""  # of the layer function
    documents: dict[str, bytes] = field(default_factory=dict)  # by name: tagging, cors, ...
    plain: bool = field(init=False, compare=False)  # everyday requests go as without documents

    def __post_init__(self) -> None:
        object.__setattr__(self, "plain", EVERYDAY.issuperset(self.documents))

    def with_document(self, name: str, document: bytes | None) -> BucketConfig:
        """The configuration with this document, or without (None)."""
        documents = {k: v for k, v in self.documents.items() if k != name}
        if document is not None:
            documents[name] = document
        return replace(self, documents=documents)

    @property
    def versioning(self) -> bytes | None:
        """ENABLED, SUSPENDED, or None for a bucket that never had versions."""
        return self.documents.get(VERSIONING)


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket at one published head; a value, never changed."""

    id: bytes
    name: str
    head: Head
    config: BucketConfig
    read_only: str = ""  # why writes are refused, when they are
    away: bool = False  # its configuration lies in the network, which cannot be reached now


@dataclass(frozen=True, slots=True)
class Condition:
    """A write's precondition, decided at the commit. ETags without quotes."""

    if_match: tuple[str, ...] = ()  # ("*",) is any
    if_none_match_any: bool = False  # If-None-Match: *

    def check(self, etag: str | None) -> None:
        """``etag`` is the current object's, None where there is none. PreconditionFailed; NotFound
        when If-Match meets an absent key."""
        if self.if_match:
            if etag is None:
                raise NotFound("If-Match on a key that does not exist")
            if self.if_match != ("*",) and etag not in self.if_match:
                raise PreconditionFailed("If-Match")
        if self.if_none_match_any and etag is not None:
            raise PreconditionFailed("If-None-Match")


@dataclass(frozen=True, slots=True)
class Page:
    """``items`` in key order: (key, its record) or, for a common prefix, (prefix, None)."""

    items: list[tuple[bytes, Cid | None]]
    truncated: bool
    states: dict[bytes, Cid] = field(default_factory=dict)
    """The state of a key's current version, where it has one: of a bucket with versions. Of others
    the items lead to it."""
