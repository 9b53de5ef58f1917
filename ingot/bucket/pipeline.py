"""THE write path: one group commit for all buckets of a gateway (design section 5).

    collect ─ plan ─ append + sync ──┐ batch n+1
                    swap ─ acknowledge   batch n

Two batches are under way at the most: while the swap of one is on its way to Postgres, the next is
planned and synced. Swaps go in order. Guarantees, to every waiter:

- An answer, refusals too, is given only when the batch it rests on is durable in the log and its
  heads stand in the registry; readers see only such heads (``tips``).
- A commit whose record is durable is never withdrawn and never applied again: its swap is repeated
  until the registry shows exactly its heads. If it shows others the lease is lost and the gateway
  serves nothing more.
- The pipeline is its own task. A client that goes away cancels its waiter and nothing else.

Called by ``ingot.bucket.store``; started and stopped by ``ingot.server``.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from typing import Final, Protocol

from ingot import limits
from ingot.bucket.batch import Plan, Planner
from ingot.bucket.busy_poll import BusyPoll
from ingot.bucket.checkpoint import Checkpoints
from ingot.bucket.model import Bucket
from ingot.bucket.mutation import Create, Drop, Mutation, Write
from ingot.bucket.nodes import Nodes
from ingot.bucket.pins import Pins
from ingot.bucket.values import Value
from ingot.errors import FormatError, IngotError, LeaseLost, RootMoved, Unavailable, Unserved
from ingot.messages import BodyPosition, Cid, CommitRecord, CommitRef, HeadMove
from ingot.ports import Clock, Registry

log = logging.getLogger("ingot.pipeline")

CROWD_KEPT: Final = 15 / 16  # of the highest count, from batch to batch: it follows within dozens


class CommitLog(Protocol):
    """The part of the segment store that commits need."""

    async def commit(
        self,
        lease: bytes,
        blocks: Sequence[tuple[Cid, bytes]],
        moves: Sequence[HeadMove],
        bodies: Sequence[BodyPosition],
        checkpoint: Cid | None = None,
        pins: Collection[Cid] = (),
    ) -> tuple[Cid, CommitRecord]: ...


class Values(Protocol):
    """What a block says by its CID; Missing where it must be waited for, then ``hold``."""

    def __call__(self, cid: Cid) -> Value: ...
    def hold(self, cid: Cid, block: bytes) -> None: ...


class Pipeline:
    """Collects mutations and commits them; ``tips`` are the buckets that readers may see."""

    def __init__(
        self,
        nodes: Nodes,
        commits: CommitLog,
        registry: Registry,
        clock: Clock,
        values: Values,
        pins: Pins,
        checkpoints: Checkpoints,
        batch_mutations: int = limits.BATCH_MUTATIONS_MAX,
        commit_deadline_s: float = limits.COMMIT_DEADLINE_S,
        busy_poll_s: float = limits.BUSY_POLL_S,
    ) -> None:
        self.tips: dict[str, Bucket] = {}
        self.commits = 0
        self.mutations = 0
        self.failed: IngotError | None = None
        self._nodes = nodes
        self._values = values
        self._planner = Planner(nodes, values, secrets.token_bytes)
        self._log = commits
        self._registry = registry
        self._clock = clock
        self._pins = pins
        self._checkpoints = checkpoints
        self._batch_mutations = batch_mutations
        self._commit_deadline_s = commit_deadline_s
        self._busy_poll = BusyPoll(clock, busy_poll_s)
        self._working: dict[bytes, Bucket] = {}
        self._names: dict[str, bytes] = {}
        self._queue: deque[Mutation] = deque()
        self._away: dict[int, list[Mutation]] = {}  # groups that wait for blocks, by their number
        self._away_number = 0
        self.registry_away = False
        self._away_since = 0.0
        self._wake: asyncio.Event = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._swapping: asyncio.Task[None] | None = None
        self._loading: set[asyncio.Task[None]] = set()
        self._under_way: list[Plan] = []
        self._stopping = False
        self._lease = b""
        self._sequence = 0
        self._crowd = 0.0  # mutations queued and under way together, of late

    # -- life -------------------------------------------------------------------------------------

    def start(
        self,
        lease: bytes,
        buckets: Iterable[Bucket],
        newest: CommitRecord | None,
        sequence: int = 0,
    ) -> None:
        """``newest`` is the last commit of the log, whose heads ``buckets`` have; ``sequence`` the
        last number that is used up."""
        self._lease = lease
        self._sequence = max(sequence, newest.sequence if newest is not None else 0)
        for bucket in buckets:
            self.tips[bucket.name] = bucket
            self._working[bucket.id] = bucket
            self._names[bucket.name] = bucket.id
        checkpoint = newest.checkpoint if newest is not None else None
        self._checkpoints.start(self._working, checkpoint)
        self._task = asyncio.get_running_loop().create_task(self._run(), name="ingot-pipeline")

    def adopt(self, bucket: Bucket) -> None:
        """What could not be read of this bucket at the start now was: its head is the same."""
        standing = self._working[bucket.id]
        assert standing.away and standing.head == bucket.head, "a bucket that is away has not moved"
        self.tips[bucket.name] = self._working[bucket.id] = bucket

    async def stop(self) -> None:
        """Commit what was submitted, then end. Nothing may be submitted any more."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await self._task
        while self._loading:
            await asyncio.wait(self._loading)

    def fail(self, why: IngotError) -> None:
        """Serve nothing from now on; every waiter gets 503."""
        if self.failed is None:
            self.failed = why
            log.critical("no more commits: %s", why)
        refusal = Unserved(f"this gateway no longer serves: {why}")
        for mutation in self._pending():
            _refuse(mutation, refusal)
        self._queue.clear()
        self._wake.set()

    def expire(self) -> None:
        """Give 503 to waiters past their deadline, or when the registry has been away for long;
        their mutations may still commit."""
        now = self._clock.monotonic()
        away = self.registry_away and now - self._away_since >= limits.REGISTRY_PATIENCE_S
        for mutation in self._pending():
            if away or mutation.deadline <= now:
                _refuse(mutation, Unavailable("the commit took too long; it may yet succeed", 2))

    def _pending(self) -> Iterable[Mutation]:
        yield from self._queue
        for plan in self._under_way:
            for mutation, _ in plan.answers:
                yield mutation
        for group in self._away.values():
            yield from group

    # -- stage 1: queue and collect ---------------------------------------------------------------

    def deadline(self) -> float:
        return self._clock.monotonic() + self._commit_deadline_s

    @property
    def waiting(self) -> int:
        """Mutations that are queued, or wait for blocks."""
        return len(self._queue) + sum(map(len, self._away.values()))

    def submit(self, mutation: Mutation) -> None:
        """Queue it; its waiter hears the outcome. Unavailable where it cannot be taken now."""
        if self.failed is not None:
            raise Unserved(f"this gateway no longer serves: {self.failed}")
        if self._stopping:
            raise Unavailable("the gateway is stopping")
        if self.registry_away:
            raise Unavailable("the registry (Postgres) cannot be reached", retry_after_s=2)
        waiting = len(self._queue)
        if self._away:
            waiting += sum(map(len, self._away.values()))
        if waiting >= limits.QUEUE_MUTATIONS_MAX:
            raise Unavailable("too many writes are waiting")
        self._queue.append(mutation)
        if len(self._queue) == 1:
            self._wake.set()

    async def _gather(self) -> None:
        """Let the batch grow: while each turn of the loop brings more, until it is half of what is
        asked for at once. Clients that were answered together come back together, and the first of
        them would otherwise make a batch of its own, with a sync and a swap of its own. Not for
        longer than a commit takes: turns may be slow.
        """
        self._crowd = self._crowd * CROWD_KEPT
        patience = self._clock.monotonic() + limits.GATHER_S
        before = -1
        while before < (queued := len(self._queue)) < self._batch_mutations:
            answering = sum([len(plan.answers) for plan in self._under_way])
            self._crowd = max(self._crowd, min(queued + answering, self._batch_mutations))
            if queued >= self._crowd / 2 or self._clock.monotonic() >= patience:
                break
            before = queued
            await asyncio.sleep(0)

    def _collect(self) -> list[Mutation]:
        """What queued while the stages below were busy, in order.

        A bucket's deletion never shares a batch with its writes, nor two that concern one name: the
        later waits for the next batch, so that a batch has at most one move a bucket and a name.
        """
        batch: list[Mutation] = []
        size = 0
        touched: set[bytes] = set()
        barred: set[bytes | str] = set()
        queue = self._queue
        while queue and len(batch) < self._batch_mutations and size < limits.BATCH_BYTES_MAX:
            mutation = queue[0]
            if type(mutation) is Write and not barred:  # nearly all are
                touched.add(mutation.bucket)
                size += mutation.size
                batch.append(queue.popleft())
                continue
            if mutation.bucket in barred:
                break
            if isinstance(mutation, Create):
                if mutation.made.name in barred:
                    break
                barred.add(mutation.made.name)
            elif isinstance(mutation, Drop):
                if mutation.bucket in touched:
                    break
                barred.add(mutation.bucket)
                standing = self._working.get(mutation.bucket)
                if standing is not None:
                    barred.add(standing.name)
            touched.add(mutation.bucket)
            size += mutation.size
            batch.append(queue.popleft())
        return batch

    # -- stages 2 to 4: plan, append, sync --------------------------------------------------------

    async def _run(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._queue and self.failed is None:
                    await self._gather()
                    await self._commit(self._collect())
                # What waits for blocks comes back to the queue, perhaps to wait for others.
                if (self._stopping and not self._loading) or self.failed is not None:
                    break
        except Exception as error:  # a bug here must not leave waiters hanging
            log.exception("the pipeline broke")
            self.fail(Unavailable(f"internal error: {error!r}"))
        finally:
            if self._swapping is not None:
                await self._swapping

    async def _commit(self, batch: list[Mutation]) -> None:
        try:
            plan = self._planner.plan(batch, self._working, self._names)
        except Exception as error:  # a bug: nobody else knows these any more
            for mutation in batch:
                _refuse(mutation, Unavailable(f"internal error: {error!r}"))
            raise
        for group, cids in plan.left:
            self._leave(group, cids)
        self._under_way.append(plan)
        if plan.moves:
            plan.began = self._busy_poll.begin()
        commit = None
        if plan.moves:
            try:
                commit = await self._append(plan)
            except IngotError as error:
                self._over(plan)
                for mutation, _ in plan.answers:
                    _refuse(mutation, error)
                return
        if self._swapping is not None:
            await self._swapping
        if self.failed is not None:
            self._over(plan)
            self.fail(self.failed)
            return
        if commit is not None:
            self._swapping = asyncio.create_task(self._swap(plan, commit), name="ingot-swap")
            await asyncio.sleep(0)  # sent before the next batch is planned
        else:
            self._acknowledge(plan)

    async def _append(self, plan: Plan) -> CommitRef:
        """Make the batch durable, then take its heads as the ones the next batch starts from."""
        checkpoint = self._checkpoints.write(plan, self._sequence + 1)
        bodies = [BodyPosition(segment, end) for segment, end in sorted(plan.bodies.items())]
        cid, record = await self._log.commit(
            self._lease, plan.blocks, plan.moves, bodies, checkpoint, self._pins.counts
        )
        self._checkpoints.written(record)
        self._sequence = record.sequence
        for bucket_id, bucket in plan.after.items():
            standing = self._working.pop(bucket_id, None)
            if standing is not None:
                del self._names[standing.name]
            if bucket is not None:
                self._working[bucket_id] = bucket
                self._names[bucket.name] = bucket_id
        return CommitRef(record.sequence, cid)

    def _leave(self, group: list[Mutation], cids: list[Cid]) -> None:
        """These wait for blocks; the others go on."""
        self._away_number += 1
        self._away[self._away_number] = group
        work = self._load(self._away_number, group, cids)
        task = asyncio.create_task(work, name="ingot-load")
        self._loading.add(task)
        task.add_done_callback(self._loaded)

    def _loaded(self, task: asyncio.Task[None]) -> None:
        self._loading.discard(task)
        self._wake.set()

    async def _load(self, number: int, group: list[Mutation], cids: list[Cid]) -> None:
        """Read what the group lacks and keep it, for it may never be readable without waiting: a
        node goes into the cache, of others is remembered what they say. Then back to the head of
        the queue, but for those whose waiters have their answer."""
        try:
            for cid in cids:
                block = await self._nodes.blocks.read(cid)
                try:
                    self._nodes.cache.add(cid, block)
                except FormatError:
                    self._values.hold(cid, block)
        except IngotError as error:
            for mutation in group:
                _refuse(mutation, error)
        except Exception as error:
            log.exception("loading blocks for a batch broke")
            for mutation in group:
                _refuse(mutation, Unavailable(f"internal error: {error!r}"))
        else:
            self._queue.extendleft(m for m in reversed(group) if not m.waiter.done())
            self._wake.set()
        finally:
            del self._away[number]

    # -- stages 5 and 6: swap, acknowledge --------------------------------------------------------

    async def _swap(self, plan: Plan, commit: CommitRef) -> None:
        """Repeat the swap until the registry holds these heads, or others."""
        attempt, sequence = 0, commit.sequence
        try:
            while True:
                try:
                    if attempt == 0 or not await self._registry.swapped(plan.moves):
                        await self._registry.swap(self._lease, commit, plan.moves)
                    break
                except RootMoved:
                    # A swap whose answer was lost may have been committed since we asked.
                    if attempt == 0 or not await self._registry.swapped(plan.moves):
                        raise
                    break
                except Unavailable as error:
                    if not self.registry_away:
                        self._away_since = self._clock.monotonic()
                        log.warning("commit %d is durable, its swap is not: %s", sequence, error)
                    self.registry_away = True
                    if self.failed is not None:
                        return
                    pauses = limits.SWAP_RETRY_S
                    await asyncio.sleep(pauses[min(attempt, len(pauses) - 1)])
                    attempt += 1
            if self.registry_away:
                log.warning("the registry is back; commit %d stands", sequence)
                self.registry_away = False
            if self.failed is None:
                self._acknowledge(plan)
        except (LeaseLost, RootMoved) as error:
            self.fail(LeaseLost(f"commit {sequence} cannot be swapped: {error}"))
        except Exception as error:
            log.exception("the swap of commit %d broke", sequence)
            self.fail(Unavailable(f"internal error: {error!r}"))
        finally:
            self._over(plan)

    def _acknowledge(self, plan: Plan) -> None:
        tips = self.tips
        for move in plan.moves:
            bucket = plan.after[move.bucket]
            if bucket is None:
                del tips[move.name]
            else:
                tips[move.name] = bucket
        self._nodes.cache.discard(plan.removed)  # whoever still lists an old root reads them again
        for mutation, answers in plan.answers:
            if not mutation.waiter.done():
                try:
                    mutation.waiter.set_result(answers)
                except Exception:  # its own trouble, not that of those behind it
                    log.exception("a waiter did not take its answer")
        self.commits += bool(plan.moves)
        self.mutations += len(plan.answers)
        self._over(plan)

    def _over(self, plan: Plan) -> None:
        """Its waiters have heard, or the pipeline has failed. May be repeated."""
        if plan in self._under_way:
            self._under_way.remove(plan)
            if plan.moves:
                self._busy_poll.end(plan.began)


def _refuse(mutation: Mutation, why: IngotError) -> None:
    if not mutation.waiter.done():
        try:
            mutation.waiter.set_exception(why)
        except Exception:
            log.exception("a waiter did not take its refusal")
