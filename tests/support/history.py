"""What a bucket with versions must hold after a request, said once more and as plainly as can be:
lists of versions, the newest first. Tests compare a gateway with it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from tests.support.s3 import Piece

NULL = "null"
UNKNOWN = ""  # the id of a version that was made by a request whose answer was lost

Tags = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Version:
    """``piece`` None is a delete marker."""

    id: str
    piece: Piece | None
    tags: Tags = ()


@dataclass(frozen=True)
class Bucket:
    """``status`` as S3 shows it: "", Enabled or Suspended."""

    status: str
    keys: Mapping[str, tuple[Version, ...]]

    def with_key(self, key: str, versions: tuple[Version, ...]) -> Bucket:
        keys = {**self.keys, key: versions}
        return replace(self, keys={name: each for name, each in keys.items() if each})

    def of(self, key: str) -> tuple[Version, ...]:
        return self.keys.get(key, ())

    def named(self, key: str, id: str) -> Bucket:
        """The newest version of the key has this id: the answer said so."""
        newest, *others = self.of(key)
        assert newest.id in (UNKNOWN, id), f"{key}: {newest} was made, the answer says {id}"
        return self.with_key(key, (replace(newest, id=id), *others))


class Request(Protocol):
    def on(self, bucket: Bucket) -> Bucket: ...


@dataclass(frozen=True)
class Put:
    key: str
    piece: Piece
    tags: Tags = ()

    def on(self, bucket: Bucket) -> Bucket:
        return _placed(bucket, self.key, self.piece, self.tags)


@dataclass(frozen=True)
class Delete:
    """Without a version id."""

    key: str

    def on(self, bucket: Bucket) -> Bucket:
        if not bucket.status:
            return bucket.with_key(self.key, ())
        return _placed(bucket, self.key, None, ())


@dataclass(frozen=True)
class DeleteMany:
    """(key, version id), the id "" for a marker in front; all or nothing."""

    entries: tuple[tuple[str, str], ...]

    def on(self, bucket: Bucket) -> Bucket:
        for key, id in self.entries:
            bucket = (Remove(key, id) if id else Delete(key)).on(bucket)
        return bucket


@dataclass(frozen=True)
class Remove:
    """One version for good."""

    key: str
    id: str

    def on(self, bucket: Bucket) -> Bucket:
        left = tuple(each for each in bucket.of(self.key) if each.id != self.id)
        return bucket.with_key(self.key, left)


@dataclass(frozen=True)
class SetTags:
    """``id`` "" is the current version."""

    key: str
    id: str
    tags: Tags

    def on(self, bucket: Bucket) -> Bucket:
        versions = bucket.of(self.key)
        id = self.id or versions[0].id
        changed = [replace(v, tags=self.tags) if v.id == id else v for v in versions]
        return bucket.with_key(self.key, tuple(changed))


@dataclass(frozen=True)
class SetStatus:
    status: str

    def on(self, bucket: Bucket) -> Bucket:
        return replace(bucket, status=self.status)


def _placed(bucket: Bucket, key: str, piece: Piece | None, tags: Tags) -> Bucket:
    """A new version in front. Without versioning, or where it is suspended, the null version is
    replaced by it, wherever that stood."""
    if bucket.status == "Enabled":
        return bucket.with_key(key, (Version(UNKNOWN, piece, tags), *bucket.of(key)))
    others = [version for version in bucket.of(key) if version.id != NULL]
    return bucket.with_key(key, (Version(NULL, piece, tags), *others))


def explains(expected: Bucket, seen: Bucket) -> bool:
    """Whether ``seen`` is ``expected``, whatever ids the versions have whose ids are unknown."""
    if expected.status != seen.status or set(expected.keys) != set(seen.keys):
        return False
    for key, versions in expected.keys.items():
        known = {version.id for version in versions}
        found = seen.keys[key]
        if len(found) != len(versions):
            return False
        for ours, theirs in zip(versions, found, strict=True):
            new = ours.id == UNKNOWN and theirs.id not in known | {NULL}
            if (theirs if not new else replace(theirs, id=UNKNOWN)) != ours:
                return False
    return True


def difference(seen: Bucket, *allowed: Bucket) -> str:
    """The keys in which ``seen`` is none of what is allowed, for a person to read."""
    lines = [f"status {seen.status!r}, allowed {[each.status for each in allowed]}"]
    for key in sorted({key for each in (seen, *allowed) for key in each.keys}):
        if all(each.of(key) != seen.of(key) for each in allowed):
            lines.append(f"{key}: seen {seen.of(key)}")
            lines += [f"    allowed {each.of(key)}" for each in allowed]
    return "\n".join(lines)
