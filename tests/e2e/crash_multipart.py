"""Open uploads over kill -9: parts that are put, replaced and copied, aborts, completes.

What is acknowledged is listed, with its ETags and sizes, and can be completed; what is aborted is
gone; a part, an upload or an abort that was under way is there whole or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.support.client import Client
from tests.support.process import Gateway
from tests.support.rounds import Actor, Scenario
from tests.support.s3 import PART_MIN, POOL, S3, Piece, joined_etag

CLIENTS = 16
OPEN_MAX = 5
OBJECTS_MAX = 4
NUMBERS = (1, 2, 3, 4, 5, 9_999, 10_000)
SIZES = (0, 1, 1000, 4096, 4097, 65_536, 65_537, 200_000)
BUCKET = "crash-parts"
SOURCE = "pool"

Upload = tuple[str, str]  # key, upload id
Parts = dict[int, Piece]


@dataclass
class UnderWay:
    """The one request whose answer is not known. ``upload`` has id "" for a creation."""

    what: str
    upload: Upload
    number: int = 0
    piece: Piece | None = None
    chosen: list[tuple[int, Piece]] = field(default_factory=list)


class Uploader(Actor):
    s3: S3

    def __init__(self, name: str, seed: int) -> None:
        super().__init__(name, seed)
        self.open: dict[Upload, Parts] = {}
        self.aborted: list[Upload] = []
        self.objects: dict[str, list[Piece]] = {}
        self.under_way: UnderWay | None = None
        self.made = self.completed = 0

    def begin(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.s3 = S3(self.connect(), BUCKET)

    def end(self) -> None:
        self.s3.close()

    # -- load ------------------------------------------------------------------------------------

    def step(self) -> None:
        if not self.open or (len(self.open) < OPEN_MAX and self.random.random() < 0.3):
            self._create()
        else:
            upload = self.random.choice(list(self.open))
            (work,) = self.random.choices(
                (self._part, self._copy, self._abort, self._complete), (60, 20, 10, 10)
            )
            work(upload)
        self.under_way = None
        self.acknowledged += 1

    def _create(self) -> None:
        self.made += 1
        key = f"{self.name}/{self.made:06}"
        self.under_way = UnderWay("create", (key, ""))
        self.open[key, self.s3.create_upload(key)] = {}

    def _part(self, upload: Upload) -> None:
        number = self.random.choice(NUMBERS)
        size = PART_MIN if self.random.random() < 0.03 else self.random.choice(SIZES)
        piece = Piece.of(self.random, size)
        self.under_way = UnderWay("part", upload, number, piece)
        self.s3.put_part(*upload, number, piece)
        self.open[upload][number] = piece

    def _copy(self, upload: Upload) -> None:
        number = self.random.choice(NUMBERS)
        size = PART_MIN if self.random.random() < 0.2 else self.random.choice(SIZES) + 1
        piece = Piece.of(self.random, size)
        self.under_way = UnderWay("part", upload, number, piece)
        self.s3.copy_part(*upload, number, SOURCE, piece)
        self.open[upload][number] = piece

    def _abort(self, upload: Upload) -> None:
        self.under_way = UnderWay("abort", upload)
        assert self.s3.abort(*upload).status == 204, upload
        del self.open[upload]
        self.aborted.append(upload)

    def _complete(self, upload: Upload) -> None:
        chosen = self._choice(self.open[upload])
        if not chosen:
            return
        self.under_way = UnderWay("complete", upload, chosen=chosen)
        self._ask_to_complete(upload, chosen)
        self._became(upload, chosen)

    def _choice(self, parts: Parts) -> list[tuple[int, Piece]]:
        """Some of them: the last may be small."""
        if not parts:
            return []
        last = self.random.choice(sorted(parts))
        before = [n for n in sorted(parts) if n < last and parts[n].size >= PART_MIN]
        return [(number, parts[number]) for number in (*before, last)]

    def _ask_to_complete(self, upload: Upload, chosen: list[tuple[int, Piece]]) -> None:
        answer = self.s3.complete(*upload, chosen)
        etag = joined_etag(piece for _, piece in chosen)
        assert answer.status == 200 and etag.encode() in answer.body, (upload, chosen, answer)

    def _became(self, upload: Upload, chosen: list[tuple[int, Piece]]) -> None:
        self.completed += 1
        self.open.pop(upload, None)
        self.objects[upload[0]] = [piece for _, piece in chosen]

    # -- what must be so -------------------------------------------------------------------------

    def verify(self) -> None:
        doubt, self.under_way = self.under_way, None
        listed = self.s3.uploads(f"{self.name}/")
        if doubt is not None:
            self._settle(doubt, listed)
        assert listed == set(self.open), (
            f"open uploads of {self.name}: lost {set(self.open) - listed}, back or never made "
            f"{listed - set(self.open)}; under way was {doubt}"
        )
        for upload, parts in self.open.items():
            expected = {number: (piece.etag, piece.size) for number, piece in parts.items()}
            seen = self.s3.parts(*upload)
            assert seen == expected, f"parts of {upload}: {seen}, allowed is {expected} only"
        for upload in self.aborted[-10:]:
            assert self.s3.parts(*upload) is None, f"{upload} is back"
        for upload in list(self.open)[:2]:  # it can be completed
            chosen = self._choice(self.open[upload])
            if chosen:
                self._ask_to_complete(upload, chosen)
                self._became(upload, chosen)
        self._check_objects()

    def _settle(self, doubt: UnderWay, listed: set[Upload]) -> None:
        """It happened or not: see which, and that it did so whole."""
        upload, key = doubt.upload, doubt.upload[0]
        if doubt.what == "create":
            made = [each for each in listed if each[0] == key]
            assert len(made) <= 1, made
            self.open.update({each: {} for each in made})
        elif doubt.what == "abort" and upload not in listed:
            del self.open[upload]
            self.aborted.append(upload)
        elif doubt.what == "part":
            assert doubt.piece is not None
            seen = (self.s3.parts(*upload) or {}).get(doubt.number)
            if seen == (doubt.piece.etag, doubt.piece.size):
                self.open[upload][doubt.number] = doubt.piece
        elif doubt.what == "complete":
            there = self.s3.read(key) is not None
            assert there is not (upload in listed), (
                f"{upload}: {'an object and' if there else 'neither an object nor'} an open upload"
            )
            if there:  # its client never heard the answer, and asks again
                self._ask_to_complete(upload, doubt.chosen)
                self._became(upload, doubt.chosen)

    def _check_objects(self) -> None:
        found = {key: seen for key, (seen, *_) in self.s3.versions(f"{self.name}/").items()}
        assert set(found) == set(self.objects), (self.name, found, set(self.objects))
        for key, pieces in self.objects.items():
            assert found[key].etag == joined_etag(pieces), (key, found[key], pieces)
            assert self.s3.read(key) == b"".join(piece.data for piece in pieces), f"{key}: bytes"
        for key in list(self.objects)[:-OBJECTS_MAX]:
            self.s3.must(204, "DELETE", key)
            del self.objects[key]


class Multipart(Scenario):
    name = "multipart"

    def __init__(self, seed: int, fewer: int = 1) -> None:
        super().__init__(seed, fewer)
        self.uploaders = [Uploader(f"w{n:02}", seed * 1000 + n) for n in range(CLIENTS // fewer)]
        self.actors = [*self.uploaders]

    def prepare(self, client: Client) -> None:
        s3 = S3(client, BUCKET)
        s3.make()
        s3.put(SOURCE, Piece(0, len(POOL)))

    def finish(self) -> None:
        for actor in self.uploaders:
            for upload, parts in list(actor.open.items()):
                chosen = actor._choice(parts)
                if chosen:
                    actor._ask_to_complete(upload, chosen)
                    actor._became(upload, chosen)
                else:
                    actor._abort(upload)
            actor.under_way = None
            actor.verify()

    def figures(self) -> str:
        done = sum(actor.acknowledged for actor in self.uploaders)
        completed = sum(actor.completed for actor in self.uploaders)
        still = sum(len(actor.open) for actor in self.uploaders)
        return f"multipart: {done} acknowledged, {completed} completed, {still} uploads open"
