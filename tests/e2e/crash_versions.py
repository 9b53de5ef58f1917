"""Buckets with versions over kill -9: PUT, DELETE, DELETE of versions, tags, suspending.

Every version that was acknowledged is there, with its id, its bytes and tags, in its place, and
nothing that was acknowledged as deleted. The one request of a client that was under way happened
whole or not at all: a DeleteObjects too, which is one commit.
"""

from __future__ import annotations

from tests.support.client import Client
from tests.support.history import (
    NULL,
    Bucket,
    Delete,
    DeleteMany,
    Put,
    Remove,
    Request,
    SetStatus,
    SetTags,
    Tags,
    Version,
    difference,
    explains,
)
from tests.support.process import Gateway
from tests.support.rounds import Actor, Scenario
from tests.support.s3 import S3, Piece, Seen

SHARED = ("crash-versions-1", "crash-versions-2")  # by clients that each have keys of their own
SHARERS = 6  # clients of each
SWITCHERS = 6  # clients with a bucket of their own, in which they suspend versioning and go on
KEYS = 5
VERSIONS_MAX = 7
SIZES = (0, 1, 1000, 4096, 4097, 65_536, 65_537, 200_000)


class Historian(Actor):
    """``bucket`` is what is acknowledged of its keys."""

    s3: S3

    def __init__(self, name: str, seed: int, bucket: str, switches: bool) -> None:
        super().__init__(name, seed)
        self.bucket_name, self.switches = bucket, switches
        self.bucket = Bucket("" if switches else "Enabled", {})
        self.under_way: Request | None = None
        self.pieces: dict[str, Piece] = {}  # by ETag
        self.checked = 0

    def begin(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.s3 = S3(self.connect(), self.bucket_name)

    def end(self) -> None:
        self.s3.close()

    # -- load ------------------------------------------------------------------------------------

    def step(self) -> None:
        request = self._choose()
        self.under_way = request
        after = request.on(self.bucket)
        self.bucket = self._send(request, after)
        self.under_way = None
        self.acknowledged += 1

    def _choose(self) -> Request:
        key = f"{self.name}/k{self.random.randrange(KEYS)}"
        versions = self.bucket.of(key)
        if self.switches and self.random.random() < 0.06:
            return SetStatus("Suspended" if self.bucket.status == "Enabled" else "Enabled")
        kind = self.random.random()
        if len(versions) >= VERSIONS_MAX:
            kind = 0.99 if self.random.random() < 0.3 else 0.7
        if versions and kind > 0.93:
            doomed = [(each, self._some(each)) for each in list(self.bucket.keys)[:3]]
            return DeleteMany(tuple(doomed))
        if versions and kind > 0.65:
            return Remove(key, self.random.choice(versions).id)
        if versions and kind > 0.5:
            data = [version for version in versions if version.piece is not None]
            if data:
                newest = versions[0].piece is not None and self.random.random() < 0.3
                return SetTags(key, "" if newest else self.random.choice(data).id, self._tags())
        if kind > (0.4 if versions else 0.9):
            return Delete(key)
        piece = Piece.of(self.random, self.random.choice(SIZES))
        piece = self.pieces.setdefault(piece.etag, piece)
        return Put(key, piece, self._tags())

    def _tags(self) -> Tags:
        count = self.random.choice((0, 1, 3))
        return tuple((f"t{n}", str(self.random.randrange(1000))) for n in range(count))

    def _some(self, key: str) -> str:
        return self.random.choice(["", *(version.id for version in self.bucket.of(key))])

    def _send(self, request: Request, after: Bucket) -> Bucket:
        """``after`` with the ids that were answered."""
        s3, versioned = self.s3, bool(self.bucket.status)
        if isinstance(request, Put):
            answer = s3.put(request.key, request.piece, dict(request.tags))
        elif isinstance(request, Delete):
            answer = s3.must(204, "DELETE", request.key)
            assert (answer.headers.get("x-amz-delete-marker") == "true") is versioned, answer
        elif isinstance(request, Remove):
            answer = s3.must(204, "DELETE", request.key, f"versionId={request.id}")
            assert answer.headers.get("x-amz-version-id", NULL) == request.id, (request, answer)
            return after
        elif isinstance(request, SetTags):
            assert s3.set_tags(request.key, dict(request.tags), request.id), request
            return after
        elif isinstance(request, SetStatus):
            s3.set_versioning(request.status)
            return after
        elif isinstance(request, DeleteMany):
            made = s3.delete_many(request.entries)
            for key, id in made.items():
                after = after.named(key, id)
            return after
        id = answer.headers.get("x-amz-version-id")
        assert (id is not None) is versioned, f"{request}: version {id} in {self.bucket.status!r}"
        if id is None or not after.of(request.key):
            return after
        return after.named(request.key, id)

    # -- what must be so -------------------------------------------------------------------------

    def verify(self) -> None:
        allowed = [self.bucket]
        if self.under_way is not None:
            allowed.append(self.under_way.on(self.bucket))
        seen = self._read()
        assert any(explains(each, seen) for each in allowed), (
            f"{self.bucket_name}, {self.name}; under way was {self.under_way}\n"
            + difference(seen, *allowed)
        )
        self.bucket, self.under_way = seen, None
        standing = {v.piece.etag: v.piece for vs in seen.keys.values() for v in vs if v.piece}
        self.pieces = standing

    def _read(self) -> Bucket:
        """What the gateway has of this client's keys; every byte and tag was read."""
        keys = {}
        for key, found in self.s3.versions(f"{self.name}/").items():
            assert [each.latest for each in found] == [True] + [False] * (len(found) - 1), found
            keys[key] = tuple(self._version(key, each) for each in found)
            current = keys[key][0].piece
            data = None if current is None else current.data
            assert self.s3.read(key) == data, f"{key}: what is current is not {found[0]}"
        return Bucket(self.s3.versioning(), keys)

    def _version(self, key: str, found: Seen) -> Version:
        self.checked += 1
        if found.marker:
            return Version(found.id, None)
        piece = self.pieces.get(found.etag)
        assert piece is not None, f"{key}: nobody put version {found}"
        data = self.s3.read(key, found.id)
        assert data == piece.data and found.size == piece.size, f"{key}: bytes of {found}"
        tags = self.s3.tags(key, found.id)
        assert tags is not None, f"{key}: {found}"
        return Version(found.id, piece, tuple(sorted(tags.items())))


class Versions(Scenario):
    name = "versions"

    def __init__(self, seed: int, fewer: int = 1) -> None:
        super().__init__(seed, fewer)
        self.historians: list[Historian] = []
        for bucket in SHARED:
            for n in range(SHARERS // fewer):
                made = Historian(f"w{n:02}", seed * 1000 + len(self.historians), bucket, False)
                self.historians.append(made)
        for n in range(SWITCHERS // fewer):
            bucket = f"crash-switched-{n}"
            made = Historian("w00", seed * 1000 + len(self.historians), bucket, True)
            self.historians.append(made)
        self.actors = [*self.historians]

    def prepare(self, client: Client) -> None:
        for name in {each.bucket_name for each in self.historians}:
            S3(client, name).make()
        for name in SHARED:
            S3(client, name).set_versioning("Enabled")

    def figures(self) -> str:
        done = sum(each.acknowledged for each in self.historians)
        checked = sum(each.checked for each in self.historians)
        return f"versions: {done} acknowledged, {checked} versions read back"
