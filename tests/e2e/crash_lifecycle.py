"""Lifecycle rules over kill -9, with days of one second, while clients write.

Nothing goes that no rule is about or that is too young, what went stays away, and once all is over
what the rules are about is gone: objects by prefix, tag and size, noncurrent versions, delete
markers with nothing behind them, uploads. Tags that are changed and rules that are taken back save
what is still there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from tests.support.client import Client
from tests.support.process import Gateway
from tests.support.rounds import Actor, Scenario
from tests.support.rules import (
    DAY_S,
    ROUNDING_S,
    Key,
    NotAllowed,
    Rule,
    Rules,
    Version,
    with_tags,
)
from tests.support.s3 import S3, Piece, Seen

CLIENTS = 12
SWITCHER_IN = 3  # pairs of clients, one at each bucket
NAMES = 3  # keys of a client under each prefix
VERSIONS_MAX = 6
UPLOADS_MAX = 8
SIZES = (100, 4096, 4097, 30_000, 70_000)
TEMPORARY, LASTING = ("kind", "temporary"), ("kind", "lasting")
END_S = 60.0  # for the last of what is due to go

PLAIN = Rules(
    (
        Rule("short/", days=1),
        Rule(tag=TEMPORARY, days=2),
        Rule("sized/", larger_than=10_000, days=1),
        Rule("keep/", days=1, enabled=False),
        Rule("short-uploads/", abort=1),
    ),
    keeps=False,
)
KEEPING = Rules(
    (
        Rule("expire/", days=1),
        Rule("noncurrent/", noncurrent=1, newer=1),
        Rule("markers/", marker=True),
        Rule("all/", days=1),
        Rule("all/", noncurrent=1),
        Rule("keep/", tag=TEMPORARY, noncurrent=1),
    ),
    keeps=True,
)
PREFIXES = {
    PLAIN: ("short", "tagged", "sized", "keep"),
    KEEPING: ("expire", "noncurrent", "markers", "all", "keep"),
}
UPLOADS = ("short-uploads", "uploads")
NEVER, FOREVER = 0.0, float("inf")


class UnderWay(NamedTuple):
    """A request about a key whose answer is not known, and what it makes of the key; ``tagged`` is
    the id of the version that gets other tags by it."""

    name: str
    effect: Callable[[Key], Key]
    tagged: str = ""


class Writer(Actor):
    """``switches``: the bucket is its own, and it takes the rules back and gives them again. What
    has gone went before ``until``: FOREVER while the rules stand, NEVER once all was looked at
    after they were taken back."""

    s3: S3

    def __init__(self, name: str, seed: int, bucket: str, rules: Rules, switches: bool) -> None:
        super().__init__(name, seed)
        self.bucket, self.rules, self.switches = bucket, rules, switches
        self.until = FOREVER
        self.keys: dict[str, Key] = {}
        self.open: dict[tuple[str, str], float] = {}  # uploads, and since when
        self.under_way: UnderWay | None = None
        self.upload_under_way: tuple[str, float] | None = None
        self.removed = self.looked = self.made = 0

    def begin(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.s3 = S3(self.connect(), self.bucket)

    def end(self) -> None:
        self.s3.close()

    # -- load ------------------------------------------------------------------------------------

    def step(self) -> None:
        prefix = self.random.choice(PREFIXES[self.rules])
        name = f"{prefix}/{self.name}/{self.random.randrange(NAMES)}"
        key = [version for version in self.keys.get(name, ()) if not version.removed]
        kind = self.random.random()
        if self.switches and self.random.random() < 0.1:
            self._switch()
        elif kind < 0.3:
            self.look(name)
        elif kind < 0.4 and key and name.startswith(("tagged/", "keep/")):
            self._retag(name, self.random.choice(key))
        elif kind < 0.4 and not self.rules.keeps:
            self._upload()
        elif len(key) >= VERSIONS_MAX or (kind < 0.6 and key and self.rules.keeps):
            self._remove(name, self.random.choice(key))
        elif kind < 0.7:
            self._delete(name)
        else:
            self._put(name)
        self.acknowledged += 1

    def _put(self, name: str) -> None:
        piece = Piece.of(self.random, self.random.choice(SIZES))
        tags = self._tags(name)
        born = time.time()
        made = Version("", piece, born, born, tags)
        self._begin_front(name, made)
        answer = self.s3.put(name, piece, dict(tags))
        self._front(name, made, answer.headers.get("x-amz-version-id", "null"))
        if self.random.random() < 0.5:
            self.look(name)

    def _tags(self, name: str) -> tuple[tuple[str, str], ...]:
        """Where what is kept has versions, it is their tags that rules ask for."""
        judged = name.startswith("tagged/") or (self.rules.keeps and name.startswith("keep/"))
        return (TEMPORARY if judged and self.random.random() < 0.5 else LASTING,)

    def _retag(self, name: str, version: Version) -> None:
        if version.piece is None:
            return
        tags, id = self._tags(name), version.id
        self.under_way = UnderWay(name, lambda key: with_tags(key, id, tags), id)
        if self.s3.set_tags(name, dict(tags), id):
            self._became(name, with_tags(self.keys[name], id, tags))
        else:
            self.under_way = None
            self.look(name)

    def _switch(self) -> None:
        """From the answer on nothing goes any more, until the rules are sent again."""
        if self.until == FOREVER:
            self.s3.configure("lifecycle", "")
            self.until = time.time()
            self._look_at_all()
        else:
            self.until = FOREVER
            self.s3.configure("lifecycle", self.rules.document)

    def _delete(self, name: str) -> None:
        born = time.time()
        if self.rules.keeps:
            made = Version("", None, born, born)
            self._begin_front(name, made)
            answer = self.s3.must(204, "DELETE", name)
            self._front(name, made, answer.headers["x-amz-version-id"])
        else:
            self.under_way = UnderWay(name, lambda key: ())
            self.s3.must(204, "DELETE", name)
            self._became(name, ())

    def _begin_front(self, name: str, made: Version) -> None:
        def effect(key: Key) -> Key:
            return self.rules.put_in_front(name, key, replace(made, known=time.time()))

        self.under_way = UnderWay(name, effect)

    def _front(self, name: str, made: Version, id: str) -> None:
        made = replace(made, id=id, known=time.time())
        self._became(name, self.rules.put_in_front(name, self.keys.get(name, ()), made))

    def _remove(self, name: str, version: Version) -> None:
        def effect(key: Key) -> Key:
            return self.rules.without(name, key, version.id, min(time.time(), self.until))

        self.under_way = UnderWay(name, effect)
        self.s3.must(204, "DELETE", name, f"versionId={version.id}")
        self._became(name, effect(self.keys[name]))

    def _became(self, name: str, key: Key) -> None:
        self.keys[name] = key
        self.under_way = None

    def _upload(self) -> None:
        self.made += 1
        name = f"{self.random.choice(UPLOADS)}/{self.name}/{self.made:06}"
        if len([each for each in self.open if each[0].startswith("uploads/")]) > UPLOADS_MAX:
            name = f"{UPLOADS[0]}/{self.name}/{self.made:06}"
        born = time.time()
        self.upload_under_way = (name, born)
        id = self.s3.create_upload(name)
        self.upload_under_way = None
        self.open[name, id] = born

    # -- what must be so -------------------------------------------------------------------------

    def look(self, name: str) -> None:
        """Compare one key with what the rules allow by now."""
        seen = self.s3.versions(name).get(name, [])
        self._explain(name, seen, time.time())
        key = self.keys.get(name, ())
        if key and self.random.random() < 0.3:
            version = self.random.choice(key)
            self._read(name, version)

    def _read(self, name: str, version: Version) -> None:
        """Its bytes, unless it has gone meanwhile; the next look says whether it might."""
        if version.piece is not None:
            data = self.s3.read(name, version.id)
            assert data in (None, version.piece.data), f"{self.bucket}/{name}: bytes of {version}"

    def _explain(self, name: str, seen: list[Seen], now: float) -> None:
        self.looked += 1
        key = self.keys.get(name, ())
        allowed = [key]
        if self.under_way is not None and self.under_way.name == name:
            allowed.append(self.under_way.effect(key))
        reasons = []
        for each in allowed:
            try:
                became = self.rules.explain(name, each, seen, min(now, self.until))
            except NotAllowed as reason:
                reasons.append(f"{each}: {reason}")
                continue
            self.removed += max(0, len(each) - len(became))
            self.keys[name] = became
            return
        raise AssertionError(
            f"{self.bucket}/{name}: seen {seen} at {now}; allowed would be what rules make of\n"
            + "\n".join(reasons)
        )

    def verify(self) -> None:
        self._check_rules()
        self._check_tags()
        self._look_at_all()
        self.under_way = None
        for name, key in list(self.keys.items()):
            for version in key:
                self._read(name, version)

    def _look_at_all(self) -> None:
        self._check_uploads()
        found: dict[str, list[Seen]] = {}
        for prefix in PREFIXES[self.rules]:
            found |= self.s3.versions(f"{prefix}/{self.name}/")
        now = time.time()
        for name in sorted({*found, *self.keys}):
            self._explain(name, found.get(name, []), now)
        if self.until != FOREVER:
            self.until = NEVER

    def _check_rules(self) -> None:
        """Whether they stand is seen: a switch may have been under way."""
        if self.switches:
            answer = self.s3.ask("GET", query="lifecycle")
            assert answer.status == 200 or answer.code == "NoSuchLifecycleConfiguration", answer
            self.until = FOREVER if answer.status == 200 else min(self.until, time.time())

    def _check_tags(self) -> None:
        """A listing does not show them. Where the version has gone it is all the same."""
        doubt = self.under_way
        if doubt is None or not doubt.tagged:
            return
        seen = self.s3.tags(doubt.name, doubt.tagged)
        if seen is not None:
            key = self.keys[doubt.name]
            allowed = [key, doubt.effect(key)]
            fitting = [each for each in allowed if _tags_of(each, doubt.tagged) == seen]
            assert fitting, f"{self.bucket}/{doubt.name}: tags {seen}, allowed {allowed}"
            self.keys[doubt.name] = fitting[0]
            self.under_way = None

    def _check_uploads(self) -> None:
        listed = set[tuple[str, str]]()
        for prefix in UPLOADS:
            listed |= self.s3.uploads(f"{prefix}/{self.name}/")
        now = min(time.time(), self.until) + ROUNDING_S
        for upload in listed - set(self.open):
            doubt = self.upload_under_way
            assert doubt is not None and doubt[0] == upload[0], f"{upload} is back"
            self.open[upload] = doubt[1]
        self.upload_under_way = None
        for upload in set(self.open) - listed:
            at = self.rules.aborts(upload[0], self.open.pop(upload))
            assert at is not None and at <= now, (
                f"{upload} is gone, and may go at {at}; it is {now}"
            )
            self.removed += 1

    def is_at_end(self) -> bool:
        """Whether all is gone that is to go."""
        self.verify()
        if any(self.rules.end(name, key) != key for name, key in self.keys.items()):
            return False
        return all(self.rules.aborts(name, born) is None for (name, _), born in self.open.items())

    def left(self) -> str:
        return f"{self.bucket}: {self.keys}, uploads {self.open}"


def _tags_of(key: Key, id: str) -> dict[str, str]:
    (tags,) = [dict(version.tags) for version in key if version.id == id]
    return tags


class Lifecycle(Scenario):
    name = "lifecycle"
    settings = {"INGOT_LIFECYCLE_DEBUG_DAY_S": str(DAY_S)}

    def __init__(self, seed: int, fewer: int = 1) -> None:
        super().__init__(seed, fewer)
        self.writers = [self._writer(n, seed * 1000 + n) for n in range(CLIENTS // fewer)]
        self.actors = [*self.writers]

    def _writer(self, number: int, seed: int) -> Writer:
        rules = (PLAIN, KEEPING)[number % 2]
        bucket = "crash-expiring-kept" if rules.keeps else "crash-expiring"
        switches = number // 2 % SWITCHER_IN == 0
        if switches:
            bucket = f"{bucket}-{number}"
        return Writer(f"w{number:02}", seed, bucket, rules, switches)

    def prepare(self, client: Client) -> None:
        for bucket, rules in {each.bucket: each.rules for each in self.writers}.items():
            s3 = S3(client, bucket)
            s3.make()
            if rules.keeps:
                s3.set_versioning("Enabled")
            s3.configure("lifecycle", rules.document)

    def finish(self) -> None:
        deadline = time.monotonic() + END_S
        for writer in self.writers:
            if writer.until != FOREVER:
                writer._switch()
            while not writer.is_at_end():
                assert time.monotonic() < deadline, f"not all is gone: {writer.left()}"
                time.sleep(DAY_S / 10)

    def figures(self) -> str:
        done = sum(each.acknowledged for each in self.writers)
        removed = sum(each.removed for each in self.writers)
        looked = sum(each.looked for each in self.writers)
        return f"lifecycle: {done} acknowledged, {looked} looks, {removed} were removed by rules"
