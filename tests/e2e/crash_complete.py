"""Completes over kill -9: many at a time, of one upload twice, of several uploads to one key on a
condition, against an abort; asked again afterwards.

An object is whole with the right ETag, or its upload is still there with all its parts. Of several
conditional Completes one wins at the most. Whoever asks again hears the same answer, and that makes
no second object: in the bucket with versions each one would be seen.
"""

from __future__ import annotations

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.support.client import Answer, Client
from tests.support.process import Gateway
from tests.support.rounds import Actor, Scenario
from tests.support.s3 import PART_MIN, POOL, S3, Lost, Piece, joined_etag

CLIENTS = 16
AT_ONCE = 3  # requests of one client
STOCK = 6
KEYS_MAX = 8
VERSIONS_MAX = 5
SIZES = (100, 4096, 4097, 65_536, 65_537, 150_000)  # no two are the same by chance
BUCKETS = ("crash-completes", "crash-completes-kept")  # the second has versions
SOURCE = "pool"
ANY = {"if-none-match": "*"}

COMPLETED, ABORTED, OPEN = "completed", "aborted", "open"


class Ready(NamedTuple):
    """An upload with all of its parts, and the object that it becomes."""

    key: str
    id: str
    parts: tuple[tuple[int, Piece], ...]

    @property
    def etag(self) -> str:
        return joined_etag(piece for _, piece in self.parts)

    @property
    def data(self) -> bytes:
        return b"".join(piece.data for _, piece in self.parts)

    @property
    def listed(self) -> dict[int, tuple[str, int]]:
        return {number: (piece.etag, piece.size) for number, piece in self.parts}


@dataclass
class Asked:
    """Some requests at once about uploads to one key: ``(upload, "complete" or "abort")``, and the
    answers that came, None where there was none."""

    uploads: list[Ready]
    headers: dict[str, str]
    requests: list[tuple[Ready, str]]
    answers: list[Answer | None] = field(default_factory=list)

    def fits(self, upload: Ready, fate: str, won: bool) -> bool:
        """Whether what was answered about ``upload`` allows this; ``won``: one was completed."""
        aborts = 0
        for (asked, what), answer in zip(self.requests, self.answers, strict=True):
            if asked != upload:
                continue
            aborts += what == "abort" and (answer is None or answer.status == 204)
            if answer is None:
                continue
            good = {
                (COMPLETED, "complete"): answer.status == 200,
                (COMPLETED, "abort"): answer.code == "NoSuchUpload",
                (ABORTED, "complete"): answer.code == "NoSuchUpload",
                (ABORTED, "abort"): answer.status == 204,
                (OPEN, "complete"): answer.status == 412 and bool(self.headers) and won,
                (OPEN, "abort"): False,
            }
            if not good[fate, what]:
                return False
        return fate != ABORTED or aborts > 0

    def heard(self) -> dict[Ready, str]:
        """What became of each upload, where everything was answered."""
        fates = dict.fromkeys(self.uploads, OPEN)
        for (upload, what), answer in zip(self.requests, self.answers, strict=True):
            assert answer is not None
            if what == "complete" and answer.status == 200:
                fates[upload] = COMPLETED
            elif answer.status == 204:
                fates[upload] = ABORTED
        return fates


class Completer(Actor):
    connections: list[S3]
    pool: ThreadPoolExecutor

    def __init__(self, name: str, seed: int, bucket: str) -> None:
        super().__init__(name, seed)
        self.bucket = bucket
        self.keeps = bucket == BUCKETS[1]
        self.objects: dict[str, list[Ready]] = {}  # the newest first; one without versions
        self.stock: list[Asked] = []  # ready to be sent, so that many are when the gateway dies
        self.asked: Asked | None = None
        self.made = self.completed = self.raced = self.repeated = 0
        self.settled: Counter[str] = Counter()  # what became of uploads when the gateway died

    def begin(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.connections = [S3(self.connect(), self.bucket) for _ in range(AT_ONCE)]
        self.pool = ThreadPoolExecutor(AT_ONCE)

    def end(self) -> None:
        self.pool.shutdown()
        for connection in self.connections:
            connection.close()

    @property
    def s3(self) -> S3:
        return self.connections[0]

    # -- load ------------------------------------------------------------------------------------

    def step(self) -> None:
        if self.objects and self.random.random() < 0.2:
            self._repeat(self.random.choice(list(self.objects.values()))[0])
            return
        asked = self.stock.pop() if self.stock else self._ask_for()
        self.asked = asked
        self._send(asked)
        if None in asked.answers:
            raise Lost("while some uploads were completed")
        self.asked = None
        self._take(asked, asked.heard())
        self.acknowledged += 1

    def _ask_for(self) -> Asked:
        """What to do next, with uploads that are ready for it."""
        kind = self.random.random()
        key, headers = self._fresh(), dict[str, str]()
        if kind < 0.4:  # one upload, by one client or several
            upload = self._ready(key)
            return Asked([upload], {}, [(upload, "complete")] * self.random.choice((1, 1, 2, 3)))
        if kind < 0.55:
            upload = self._ready(key)
            return Asked([upload], {}, [(upload, "complete"), (upload, "abort")])
        free = [key for key in self.objects if key not in self._stocked()]
        if kind < 0.75 or not free:
            headers = ANY
        else:
            key = self.random.choice(free)
            headers = {"if-match": self.objects[key][0].etag}
        uploads = [self._ready(key) for _ in range(AT_ONCE)]
        return Asked(uploads, headers, [(upload, "complete") for upload in uploads])

    def _stocked(self) -> set[str]:
        """Keys about which something is ready to be sent."""
        return {asked.uploads[0].key for asked in self.stock}

    def _fresh(self) -> str:
        self.made += 1
        return f"{self.name}/{self.made:06}"

    def _ready(self, key: str) -> Ready:
        """A new upload. If its making is cut off, it is nobody's, and is aborted afterwards."""
        id = self.s3.create_upload(key)
        parts = []
        if self.random.random() < 0.3:
            piece = Piece.of(self.random, PART_MIN)
            self.s3.copy_part(key, id, 1, SOURCE, piece)
            parts.append((1, piece))
        piece = Piece.of(self.random, self.random.choice(SIZES))
        self.s3.put_part(key, id, 7, piece)
        return Ready(key, id, (*parts, (7, piece)))

    def _send(self, asked: Asked) -> None:
        """All requests at once."""

        def send(place: int) -> Answer | None:
            upload, what = asked.requests[place]
            s3 = self.connections[place]
            try:
                if what == "abort":
                    return s3.abort(upload.key, upload.id)
                return s3.complete(upload.key, upload.id, upload.parts, asked.headers)
            except Lost:
                return None

        asked.answers = list(self.pool.map(send, range(len(asked.requests))))

    def _take(self, asked: Asked, fates: dict[Ready, str]) -> None:
        """Check what was answered against what became of the uploads; go on with that."""
        won = [upload for upload, fate in fates.items() if fate == COMPLETED]
        assert len(won) <= 1, f"{len(won)} Completes with {asked.headers} won: {asked}"
        for upload, fate in fates.items():
            assert asked.fits(upload, fate, bool(won)), f"{upload} is {fate}, but {asked}"
        self.raced += len(asked.uploads) > 1 and bool(won)
        for upload in won:
            self.completed += 1
            said = {
                _told(answer)
                for (each, what), answer in zip(asked.requests, asked.answers, strict=True)
                if answer is not None and each == upload and what == "complete"
            }
            assert len(said) <= 1, f"{upload}: not the same answer to all: {said}"
            before = self.objects.get(upload.key, [])
            self.objects[upload.key] = [upload, *before] if self.keeps else [upload]
        for upload, fate in fates.items():
            if fate == OPEN and won:
                self._lose(upload, asked.headers)

    def _lose(self, upload: Ready, headers: dict[str, str]) -> None:
        """The condition does not hold any more, and the upload is still whole."""
        assert self.s3.parts(upload.key, upload.id) == upload.listed, f"{upload} lost its race"
        again = self.s3.complete(upload.key, upload.id, upload.parts, headers)
        assert again.status == 412, (upload, headers, again)
        assert self.s3.abort(upload.key, upload.id).status == 204, upload

    def _repeat(self, upload: Ready) -> None:
        """Twice, at once: both hear the same, and nothing is made. Conditions do not matter."""

        def ask(s3: S3) -> Answer:
            return s3.complete(upload.key, upload.id, upload.parts, ANY)

        answers = list(self.pool.map(ask, self.connections[:2]))
        for answer in answers:
            assert answer.status == 200 and upload.etag.encode() in answer.body, (upload, answer)
        assert _told(answers[0]) == _told(answers[1]), (upload, answers)
        self.repeated += 2

    # -- what must be so -------------------------------------------------------------------------

    def verify(self) -> None:
        asked, self.asked = self.asked, None
        opened = self.s3.uploads(f"{self.name}/")
        if asked is not None:
            self._settle(asked, opened)
        ready = [upload for asked in self.stock for upload in asked.uploads]
        for upload in ready:
            parts = self.s3.parts(upload.key, upload.id)
            assert parts == upload.listed, f"{upload}: open with {parts}"
        opened = self.s3.uploads(f"{self.name}/") - {(upload.key, upload.id) for upload in ready}
        for key, id in opened:  # cut off while it was made ready
            assert self.s3.abort(key, id).status == 204, (key, id)
        for versions in self.objects.values():
            self._repeat(versions[0])
        self._check_objects()
        while len(self.stock) < STOCK:
            self.stock.append(self._ask_for())

    def _settle(self, asked: Asked, opened: set[tuple[str, str]]) -> None:
        """What was under way came out one way or another; what did not is asked for again."""
        key = asked.uploads[0].key
        known = [upload.etag for upload in self.objects.get(key, [])]
        seen = [version.etag for version in self.s3.versions(key).get(key, [])]
        fates: dict[Ready, str] = {}
        for upload in asked.uploads:
            there = upload.etag in seen
            is_open = (key, upload.id) in opened
            assert not (there and is_open), f"{upload}: an object, and still an open upload"
            fates[upload] = COMPLETED if there else OPEN if is_open else ABORTED
            if is_open:
                parts = self.s3.parts(key, upload.id)
                assert parts == upload.listed, f"{upload}: open with {parts}"
        made = [upload.etag for upload in asked.uploads if fates[upload] == COMPLETED]
        allowed = [*made, *known] if self.keeps or not made else made
        assert seen == allowed, f"{key}: {seen}, allowed {allowed}; {asked}"
        self.settled.update(fates.values())
        self._take(asked, fates)
        if not made and OPEN in fates.values():
            again = Asked(asked.uploads, asked.headers, [(u, "complete") for u in asked.uploads])
            self._send(again)
            assert None not in again.answers, again
            assert COMPLETED in again.heard().values(), f"nothing stood in its way: {again}"
            self._take(again, again.heard())

    def _check_objects(self) -> None:
        """Exactly the objects that were made, each once, and whole."""
        found = self.s3.versions(f"{self.name}/")
        seen = {key: [version.etag for version in versions] for key, versions in found.items()}
        expected = {key: [each.etag for each in made] for key, made in self.objects.items()}
        wrong = {k for k in seen | expected if seen.get(k) != expected.get(k)}
        assert not wrong, [f"{k}: {seen.get(k)}, allowed {expected.get(k)}" for k in wrong]
        for key, made in self.objects.items():
            assert self.s3.read(key) == made[0].data, f"{key}: bytes"
            for upload, version in zip(made, found[key], strict=True):
                data = self.s3.read(key, version.id)
                assert data == upload.data, f"{key}, version {version.id}: bytes"
        for key in sorted(set(self.objects) - self._stocked()):
            if len(self.objects[key]) > VERSIONS_MAX or len(self.objects) > KEYS_MAX:
                self.s3.delete_many([(key, version.id) for version in found[key]])
                del self.objects[key]


def _told(answer: Answer) -> bytes:
    """The document without the address, which is another one after a restart."""
    return re.sub(rb"<Location>.*</Location>", b"", answer.body)


class Complete(Scenario):
    name = "complete"
    load_s = (0.1, 1.0)  # what is ready is soon sent

    def __init__(self, seed: int, fewer: int = 1) -> None:
        super().__init__(seed, fewer)
        self.completers = [
            Completer(f"w{n:02}", seed * 1000 + n, BUCKETS[n % 2]) for n in range(CLIENTS // fewer)
        ]
        self.actors = [*self.completers]

    def prepare(self, client: Client) -> None:
        for name in BUCKETS:
            s3 = S3(client, name)
            s3.make()
            if name == BUCKETS[1]:
                s3.set_versioning("Enabled")
            s3.put(SOURCE, Piece(0, len(POOL)))

    def figures(self) -> str:
        completed = sum(each.completed for each in self.completers)
        raced = sum(each.raced for each in self.completers)
        repeated = sum(each.repeated for each in self.completers)
        settled = sum((each.settled for each in self.completers), Counter[str]())
        return (
            f"complete: {completed} completed, {raced} of them in races, {repeated} asked again; "
            f"under way at a kill were {dict(sorted(settled.items()))}"
        )
