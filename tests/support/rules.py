"""What lifecycle rules may and must remove, said once more and as plainly as can be: tests compare
a gateway with it that removes while clients write. Pure; times are unix seconds.

A client knows when it sent a request and when it heard the answer. What it made was made after the
first, so it may be removed no sooner than that and the days of the rule; what it sees now may be as
it was until the answer came. Days are ``DAY_S`` long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tests.support.s3 import Piece, Seen

DAY_S = 1.0  # the least that a gateway takes
ROUNDING_S = 0.01  # a gateway knows milliseconds


@dataclass(frozen=True)
class Rule:
    """Days are None where the rule does not say. ``newer``: so many noncurrent versions stay."""

    prefix: str = ""
    tag: tuple[str, str] | None = None
    larger_than: int | None = None
    enabled: bool = True
    days: int | None = None
    noncurrent: int | None = None
    newer: int = 0
    marker: bool = False
    abort: int | None = None

    def fits(self, key: str, version: Version) -> bool:
        size = 0 if version.piece is None else version.piece.size
        return (
            self.enabled
            and key.startswith(self.prefix)
            and (self.larger_than is None or size > self.larger_than)
            and (self.tag is None or self.tag in version.tags)
        )

    def document(self, name: str) -> str:
        tests = [f"<Prefix>{self.prefix}</Prefix>"] if self.prefix else []
        if self.tag:
            tests.append(f"<Tag><Key>{self.tag[0]}</Key><Value>{self.tag[1]}</Value></Tag>")
        if self.larger_than is not None:
            tests.append(f"<ObjectSizeGreaterThan>{self.larger_than}</ObjectSizeGreaterThan>")
        about = "".join(tests)
        if len(tests) > 1:
            about = f"<And>{about}</And>"
        text = f"<ID>{name}</ID><Filter>{about}</Filter>"
        text += f"<Status>{'Enabled' if self.enabled else 'Disabled'}</Status>"
        if self.days is not None:
            text += f"<Expiration><Days>{self.days}</Days></Expiration>"
        if self.marker:
            marker = "<ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker>"
            text += f"<Expiration>{marker}</Expiration>"
        if self.noncurrent is not None:
            newer = f"<NewerNoncurrentVersions>{self.newer}</NewerNoncurrentVersions>"
            text += f"<NoncurrentVersionExpiration><NoncurrentDays>{self.noncurrent}"
            text += f"</NoncurrentDays>{newer if self.newer else ''}</NoncurrentVersionExpiration>"
        if self.abort is not None:
            text += f"<AbortIncompleteMultipartUpload><DaysAfterInitiation>{self.abort}"
            text += "</DaysAfterInitiation></AbortIncompleteMultipartUpload>"
        return f"<Rule>{text}</Rule>"


@dataclass(frozen=True)
class Version:
    """``id`` is "" while it is not known, ``piece`` None for a delete marker. It was made between
    ``born`` and ``known``, and not replaced before ``since``, None for the current version.
    ``removed``: a client removed it, and the marker that hid it may be there unseen.
    ``may_be_gone``: by the rules, before a client changed what is in front of it."""

    id: str
    piece: Piece | None
    born: float
    known: float
    tags: tuple[tuple[str, str], ...] = ()
    since: float | None = None
    removed: bool = False
    may_be_gone: bool = False

    def is_seen_as(self, seen: Seen) -> bool:
        etag = "" if self.piece is None else self.piece.etag
        marker = self.piece is None
        same = self.id in ("", seen.id) and marker == seen.marker and etag == seen.etag
        return same and not self.removed


Key = tuple[Version, ...]  # the newest first


class NotAllowed(Exception):
    """No rule explains what is seen."""


def with_tags(key: Key, id: str, tags: tuple[tuple[str, str], ...]) -> Key:
    return tuple(replace(each, tags=tags) if each.id == id else each for each in key)


def _first_is_current(versions: list[Version]) -> Key:
    if versions:
        versions[0] = replace(versions[0], since=None)
    return tuple(versions)


class Rules:
    """The rules of one bucket. ``keeps``: it has versions."""

    def __init__(self, rules: Sequence[Rule], keeps: bool) -> None:
        self.rules, self.keeps = rules, keeps

    @property
    def document(self) -> str:
        text = "".join(rule.document(f"rule-{n}") for n, rule in enumerate(self.rules))
        return f"<LifecycleConfiguration>{text}</LifecycleConfiguration>"

    def _expires(self, name: str, version: Version) -> float | None:
        """When a current version expires at the earliest."""
        fitting = [rule for rule in self.rules if rule.fits(name, version)]
        times = [version.born + rule.days * DAY_S for rule in fitting if rule.days is not None]
        return min(times, default=None)

    def _goes(self, name: str, version: Version, since: float, place: int) -> float | None:
        """When a noncurrent version goes at the earliest; ``place`` counts those in front of it."""
        times = [
            since + rule.noncurrent * DAY_S
            for rule in self.rules
            if rule.noncurrent is not None and rule.fits(name, version) and place >= rule.newer
        ]
        return min(times, default=None)

    def _lone_marker_goes(self, name: str, marker: Version) -> float | None:
        if any(rule.marker and rule.fits(name, marker) for rule in self.rules):
            return marker.born
        return self._expires(name, marker)

    def aborts(self, name: str, created: float) -> float | None:
        """When an open upload is aborted at the earliest."""
        times = [
            created + rule.abort * DAY_S
            for rule in self.rules
            if rule.enabled and rule.abort is not None and name.startswith(rule.prefix)
        ]
        return min(times, default=None)

    def put_in_front(self, name: str, key: Key, made: Version) -> Key:
        """After a PUT, or a DELETE that makes a marker."""
        if not key or not self.keeps:
            return (made,)
        since, expires = made.born, self._expires(name, key[0])
        if expires is not None and expires <= made.known and key[0].piece is not None:
            since = min(since, expires)  # a marker may have hidden it before
        return (made, replace(key[0], since=since), *key[1:])

    def without(self, name: str, key: Key, id: str, now: float) -> Key:
        """After the removal of a version by a client, of which it has heard by now."""
        left: list[Version] = []
        for place, version in enumerate(key):
            if version.id != id:
                if place > 0 and version.since is not None:
                    goes = self._goes(name, version, version.since, place - 1)
                    if goes is not None and goes <= now + ROUNDING_S:
                        version = replace(version, may_be_gone=True)
                left.append(version)
            elif self.keeps and version.piece is not None:
                expires = self._expires(name, version)
                until = now if place == 0 else key[place - 1].known
                if expires is not None and expires <= until + ROUNDING_S:
                    left.append(replace(version, removed=True))
        return _first_is_current(left)

    def explain(self, name: str, key: Key, seen: Sequence[Seen], now: float) -> Key:
        """What ``key`` became, by its rules, where it is ``seen`` by ``now``. NotAllowed."""
        now += ROUNDING_S
        left: list[Version] = []
        kept: list[int] = []
        for found in seen:
            place = kept[-1] + 1 if kept else 0
            at = next((n for n in range(place, len(key)) if key[n].is_seen_as(found)), None)
            if at is None:
                key = self._expired(name, key, place, found, now)
                at = place
            kept.append(at)
            left.append(replace(key[at], id=found.id, may_be_gone=False))
        for place in range(len(key)):
            if place not in kept:
                behind = bool(kept) and kept[-1] > place
                self._may_be_gone(name, key, place, now, not kept, behind)
        if any(found.latest is not (place == 0) for place, found in enumerate(seen)):
            raise NotAllowed("the latest is not the first")
        return _first_is_current(left)

    def _expired(self, name: str, key: Key, place: int, found: Seen, now: float) -> Key:
        """With ``found`` at ``place``: the marker that hid the version there when it expired. That
        was before a client put another one in front of it."""
        if place > 0:
            now = key[place - 1].known + ROUNDING_S
        if self.keeps and found.marker and place < len(key) and key[place].piece is not None:
            at = self._expires(name, key[place])
            if at is not None and at <= now:
                since = key[place - 1].born if place else None
                marker = Version(found.id, None, at, now, since=since)
                hidden = replace(key[place], since=at)
                return (*key[:place], marker, hidden, *key[place + 1 :])
        raise NotAllowed(f"nobody made {found}")

    def _may_be_gone(
        self, name: str, key: Key, place: int, now: float, alone: bool, behind: bool
    ) -> None:
        """``alone``: nothing else is left of the key; ``behind``: something older is."""
        version = key[place]
        if version.removed or version.may_be_gone:
            return
        times: list[float | None] = []
        if place > 0:
            assert version.since is not None
            times.append(self._goes(name, version, version.since, place - 1))
            # A marker may have gone while it stood alone: before what stays in front of it was put.
            front = [each for each in key[:place] if not each.removed and not each.may_be_gone]
            if version.piece is None and not behind and front:
                lone = self._lone_marker_goes(name, version)
                if lone is not None and lone <= front[-1].known + ROUNDING_S:
                    return
        if all(each.removed or each.may_be_gone for each in key[:place]):
            times.append(self._current_goes(name, version, now, alone))
        at = min([each for each in times if each is not None], default=None)
        if at is None or at > now:
            raise NotAllowed(f"{version} is gone, and may go at {at}; it is {now}")

    def _current_goes(self, name: str, version: Version, now: float, alone: bool) -> float | None:
        """When nothing is left of a current version at the earliest."""
        if version.piece is None:
            return self._lone_marker_goes(name, version) if alone else None
        expires = self._expires(name, version)
        if not self.keeps or expires is None:
            return expires
        # It goes as a noncurrent version, and then the marker goes that hides it.
        marker = Version("", None, expires, now)
        if not alone or self._lone_marker_goes(name, marker) is None:
            return None
        return self._goes(name, version, expires, 0)

    def end(self, name: str, key: Key) -> Key:
        """What is left in the end. Markers that will be made have no id."""
        if key and key[0].piece is not None and self._expires(name, key[0]) is not None:
            if not self.keeps:
                return ()
            key = (Version("", None, 0.0, 0.0), *key)
        left = [
            version
            for place, version in enumerate(key)
            if place == 0 or self._goes(name, version, 0.0, place - 1) is None
        ]
        if len(left) == 1 and left[0].piece is None:
            if self._lone_marker_goes(name, left[0]) is not None:
                left = []
        return tuple(left)
