"""Lifecycle: what a bucket's rules say shall go, goes by itself (``ingot.s3.lifecycle``).

A few times a day every bucket with rules is walked, its versions and its open uploads. What is due
is removed by ordinary mutations, some at a time, each only if the version still is the one that was
judged (``Expiry``), under the same rules: whoever overwrites, tags or locks an object meanwhile, or
takes a rule back, keeps it. A round that is cut short is made up for by the next. A bucket that did
not change is not read again before the next of its versions is due, since its records may have to
come from the network.

Times are wall-clock times, and a clock that is wrong would delete what nobody meant to lose. So a
round is made only while three agree to an hour: our wall clock, the registry's, which may be the
same, and what ours said at the start plus the time that has passed since (CLOCK_BOOTTIME, which
nobody can set). A round has one time, which it was found good at. Started by ``ingot.server`` while
it holds the lease.
"""

from __future__ import annotations

import asyncio
import logging
import os.path
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from ingot import limits
from ingot.bucket.model import Bucket, BucketConfig, Locked, NoSuchBucket, PreconditionFailed
from ingot.bucket.mutation import Check, Expiry
from ingot.bucket.part import NoSuchUpload
from ingot.bucket.reading import Listed
from ingot.bucket.record import Record, decode_record
from ingot.bucket.store import Store
from ingot.bucket.watch import Watch
from ingot.errors import IngotError
from ingot.messages import Head
from ingot.ports import Clock, Registry
from ingot.s3 import lifecycle
from ingot.s3.configuration import LIFECYCLE
from ingot.s3.documents import in_turns
from ingot.s3.lifecycle import Rule
from ingot.s3.lifecycle_index import RuleIndex

DAY_S = 86400.0
NEVER_MS = 1 << 63


@dataclass(slots=True)
class Round:
    """What one round did."""

    expired: int = 0  # current versions, that a delete marker hides now where there are versions
    removed: int = 0  # noncurrent versions and lone delete markers
    aborted: int = 0  # uploads
    kept: int = 0  # that were due, and had changed or were locked, or the rules had changed


class Expiring:
    """``day_s`` is the length of a day: a shorter one is for tests of rules."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        clock: Clock,
        day_s: float = DAY_S,
        log: logging.Logger | None = None,
    ) -> None:
        self._store = store
        self._registry = registry
        self._clock = clock
        self._day_ms = round(day_s * 1000)
        self._first_s = min(limits.LIFECYCLE_FIRST_S, day_s / 10)
        self._every_s = day_s / limits.LIFECYCLE_ROUNDS_A_DAY
        self._log = log or logging.getLogger("ingot.lifecycle")
        self._watch = Watch(clock)
        self._now_ms = 0  # of the round that is made
        self._quiet: dict[bytes, tuple[Head, int]] = {}  # until when, if the head is still this one

    async def run(self) -> None:
        """Rounds, until it is cancelled."""
        await asyncio.sleep(self._first_s)
        while True:
            try:
                await self.round()
            except IngotError as error:
                self._log.warning("a lifecycle round was cut short: %s", error)
            except Exception:
                self._log.exception("a lifecycle round broke")
            await asyncio.sleep(self._every_s)

    async def round(self) -> Round:
        """One look at every bucket. Unavailable where nothing is served."""
        done = Round()
        ruled = [b for b in self._store.buckets() if LIFECYCLE in b.config.documents]
        if not ruled or not await self._clocks_agree():
            return done
        names = {bucket.id for bucket in ruled}
        self._quiet = {id: quiet for id, quiet in self._quiet.items() if id in names}
        for bucket in ruled:
            try:
                await self._bucket(bucket, done)
            except NoSuchBucket:
                pass  # it was deleted
            except IngotError as error:
                self._log.warning("lifecycle of bucket %s: %s", bucket.name, error)
        if done != Round():
            self._log.info(
                "lifecycle: %d objects expired, %d versions removed, %d uploads aborted, %d kept "
                "because they or the rules changed, or they are locked",
                *(done.expired, done.removed, done.aborted, done.kept),
            )
        return done

    async def _clocks_agree(self) -> bool:
        theirs = await self._registry.clock_ms()
        self._now_ms = self._clock.now_ms()
        apart_ms = abs(self._now_ms - theirs)
        if apart_ms > limits.LIFECYCLE_SKEW_MS:
            self._log.error(
                "nothing is expired: the clocks of this machine and of Postgres are %d s apart",
                apart_ms // 1000,
            )
            return False
        moved_ms = self._watch.moved_ms(self._now_ms)
        if abs(moved_ms) > limits.CLOCK_MOVED_MS_MAX:
            self._log.error(
                "nothing is expired: the clock of this machine was moved by %d s since the gateway "
                "started; if it is right now, start the gateway again",
                moved_ms // 1000,
            )
            return False
        return True

    async def _bucket(self, bucket: Bucket, done: Round) -> None:
        if bucket.read_only:
            return
        document = bucket.config.documents[LIFECYCLE]
        read = await in_turns(lifecycle.read_in_steps(document))
        rules = [rule for rule in read if rule.enabled]
        aborting = [rule for rule in rules if rule.abort_days is not None]
        others = [rule for rule in rules if _of_versions(rule)]
        if aborting:
            await self._uploads(bucket, aborting, done)
        head, until_ms = self._quiet.get(bucket.id, (None, 0))
        if others and (head != bucket.head or until_ms <= self._now_ms):
            kept = done.kept
            walk = _Walk(self._store, bucket, others, self._now_ms, self._day_ms, done)
            await walk.run()
            if done.kept == kept:
                self._quiet[bucket.id] = bucket.head, walk.next_ms

    async def _uploads(self, bucket: Bucket, rules: Sequence[Rule], done: Round) -> None:
        after, more, now_ms = (b"", ""), True, self._now_ms
        index, turns = RuleIndex(rules), _Turns()
        while more:
            newest = self._store.newest(bucket)
            if not _same_rules(newest, bucket):
                return
            page = await self._store.uploads.page(
                newest, _prefix(rules), b"", after, limits.LIFECYCLE_PAGE
            )
            more = page.truncated
            for key, upload in page.items:
                assert upload is not None, "without a delimiter there are no groups"
                after = key, upload.id
                about = index.plain(key)
                await turns.spend(len(about))
                if any(
                    rule.filter.fits(key, 0, {})
                    and lifecycle.due(upload.created_ms, rule.abort_days or 0, self._day_ms)
                    <= now_ms
                    for rule in about
                ):
                    try:
                        await self._store.uploads.abort(newest, upload, _standing(bucket))
                        done.aborted += 1
                    except (NoSuchUpload, PreconditionFailed):
                        done.kept += 1  # it was completed, or aborted


def _same_rules(bucket: Bucket, before: Bucket) -> bool:
    """Whether a look at the rest makes sense. What it finds is removed on one condition."""
    return bucket.config.documents.get(LIFECYCLE) == before.config.documents[LIFECYCLE]


def _standing(bucket: Bucket) -> Check:
    """Refuses a removal if the rules are others by then: whoever heard that a rule is taken back
    loses nothing by it any more."""
    judged_by = bucket.config.documents[LIFECYCLE]

    def check(config: BucketConfig) -> None:
        if config.documents.get(LIFECYCLE) != judged_by:
            raise PreconditionFailed("that the rules stand")

    return check


def _of_versions(rule: Rule) -> bool:
    actions = (rule.days, rule.date_ms, rule.noncurrent_days)
    return rule.marker is True or any(action is not None for action in actions)


def _prefix(rules: Sequence[Rule]) -> bytes:
    """What all keys begin with that any of the rules is about."""
    return os.path.commonprefix([rule.filter.prefix or "" for rule in rules]).encode()


class _Turns:
    """Gives others their turn after so many rules that were looked at."""

    def __init__(self) -> None:
        self._left = limits.LIFECYCLE_STEPS_PER_TURN

    async def spend(self, steps: int) -> None:
        self._left -= steps
        if self._left <= 0:
            self._left = limits.LIFECYCLE_STEPS_PER_TURN
            await asyncio.sleep(0)


class _Walk:
    """One walk over the versions of a bucket, each key's newest first."""

    def __init__(
        self,
        store: Store,
        bucket: Bucket,
        rules: Sequence[Rule],
        now_ms: int,
        day_ms: int,
        done: Round,
    ) -> None:
        self._store = store
        self._bucket = bucket
        self._rules = RuleIndex(rules)
        self._prefix = _prefix(rules)
        self._turns = _Turns()
        self._check = _standing(bucket)
        self._now_ms = now_ms
        self._day_ms = day_ms
        self._done = done
        self.next_ms = NEVER_MS  # when the next version is due that is not yet
        self._due: list[Expiry] = []
        # Of the key that the walk is at:
        self._newer_ms = 0  # when the version was made that is in front of the next one
        self._kept = 0  # versions behind the current one that were passed and stay

    async def run(self) -> None:
        after: tuple[bytes, str] | None = None
        more = True
        while more:
            bucket = self._store.newest(self._bucket)
            if not _same_rules(bucket, self._bucket):
                return  # the next round looks at the new ones
            page = await self._store.versions(
                bucket, self._prefix, b"", after, limits.LIFECYCLE_PAGE
            )
            items = [item for item in page.items if isinstance(item, Listed)]
            more, after = page.truncated, (page.key, page.version)
            at = 0
            async with aclosing(self._store.records([item.record for item in items])) as slices:
                async for blocks in slices:
                    for block in blocks:
                        following = items[at + 1].key if at + 1 < len(items) else None
                        alone = following != items[at].key
                        await self._judge(bucket, items[at], decode_record(block), alone)
                        at += 1
            await self._remove()

    async def _judge(self, bucket: Bucket, item: Listed, record: Record, alone: bool) -> None:
        """``alone``: no other version of the key is known to follow."""
        if item.latest:
            self._kept = 0
        since_ms, self._newer_ms = self._newer_ms, record.created_ms
        version = None if item.latest and not record.delete_marker else item.version
        judged = (item, record, alone, since_ms)
        rule = await self._first_due(self._rules.plain(item.key), {}, *judged)
        # An object without tags, as most are, has no state that would have to be read for them.
        if rule is None and item.state is not None and self._rules.asks_tags(item.key):
            if await self._first_due(self._rules.soonest_tagged, {}, *judged):
                found = await self._store.look(bucket, item.key, item.version)
                tags = {} if found is None else found.state.tags
                rule = await self._first_due(self._rules.tagged(item.key, tags), tags, *judged)
        if rule is not None:
            named = (item.key, item.version, item.record, item.latest, version)
            newer = 0 if item.latest else rule.newer or 0
            self._due.append(Expiry(*named, self._now_ms, rule.filter.tags, self._check, newer))
        elif not item.latest:
            self._kept += 1
        if len(self._due) >= limits.LIFECYCLE_BATCH:
            await self._remove()

    async def _first_due(
        self,
        rules: Sequence[Rule],
        tags: Mapping[str, str],
        item: Listed,
        record: Record,
        alone: bool,
        since_ms: int,
    ) -> Rule | None:
        await self._turns.spend(len(rules) + 1)
        for rule in rules:
            fits = rule.filter.fits(item.key, record.body.size, tags)
            if fits and self._is_due(rule, item, record, alone, since_ms):
                return rule
        return None

    def _is_due(self, rule: Rule, item: Listed, record: Record, alone: bool, since_ms: int) -> bool:
        """``since_ms``: when a noncurrent version was replaced."""
        if not item.latest:
            return (
                rule.noncurrent_days is not None
                and self._kept >= (rule.newer or 0)
                and self._is_past(lifecycle.due(since_ms, rule.noncurrent_days, self._day_ms))
            )
        if record.delete_marker:
            if not alone or rule.filter.tags:
                return False
            if rule.marker:
                return True
        return self._is_past(rule.expires_ms(record.created_ms, self._day_ms))

    def _is_past(self, at_ms: int | None) -> bool:
        if at_ms is None or at_ms <= self._now_ms:
            return at_ms is not None
        self.next_ms = min(self.next_ms, at_ms)
        return False

    async def _remove(self) -> None:
        due, self._due = self._due, []
        if not due:
            return
        done = self._done
        answers = await self._store.remove(self._bucket, due)
        for expiry, answer in zip(due, answers, strict=True):
            if isinstance(answer, PreconditionFailed | Locked):
                done.kept += 1
            elif isinstance(answer, IngotError):
                raise answer
            elif expiry.version is None:
                done.expired += 1
            else:
                done.removed += 1
