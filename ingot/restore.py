"""``ingot restore``: a registry rebuilt from a store's segments, for a gateway that is stopped.

Guarantees: nothing is written to a registry that holds heads, is another store's, or whose lease
somebody has; what is written is one transaction, so an interrupted restore is begun again. Of the
data directory only what any start changes is changed, and STORE, which gets a new incarnation and
is made again where it is lost. With ``--dry-run`` nothing is changed and nothing is created.

``bucket.rebuild`` says what the segments come to; ``fill`` puts it into a registry, wherever the
segments came from. Registered by ``cli.build_parser``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ingot import limits
from ingot.config import Config
from ingot.datadir import DamagedMark, DataDirectory, StoreMark
from ingot.errors import ConfigError, RootMoved

if TYPE_CHECKING:
    from ingot.bucket.rebuild import Rebuilt
    from ingot.ports import FileSystem, Registry
    from ingot.segments.store import SegmentStore

RESTORE = """

For a database that was lost: it is empty, was never used, or lost its heads. The segment files of
--data-dir are opened as at a start; the commits are followed from the newest back to a checkpoint,
each found by its hash; the heads of all buckets are written in one transaction. Then 'ingot serve'
starts as ever. Afterwards every bucket is walked, so that the report says what it holds and what of
it cannot be read (its bytes are for 'ingot fsck' to read). The gateway must be stopped. It changes
no registry that holds heads: to rebuild one all the same, drop its schema first
(DROP SCHEMA ingot CASCADE; of a private Postgres move DIR/postgres away). Where DIR/STORE is lost
it is made again.

exit status:
  0   restored, and all is good
  1   damage: something is lost, the lines before say what; all else is restored. Or nothing was
      restored because the segments contradict themselves
  2   nothing was restored: a setting, the directory or the database is not right
  3   restored; something was reported that costs nothing that is kept"""

Say = Callable[[str], None]


def register(commands: Any, add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command; ``add`` makes one, with the options that all have."""
    parser = add(commands, "restore", "rebuild a lost database from segments", run_restore, RESTORE)
    parser.add_argument(
        "--from-segments",
        action="store_true",
        required=True,
        help="from the segment files in the data directory",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="report what would be restored, change nothing"
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="follow the commits to the first, and see that the checkpoint agrees with them",
    )


def run_restore(config: Config, arguments: argparse.Namespace) -> int:
    from ingot.server import loop_factory

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        restore = Restore(config, arguments.dry_run, arguments.verify, _say)
        return runner.run(restore.run())


@dataclass(slots=True)
class Restore:
    """One restore from the segments of a data directory. ``say`` hears progress and findings."""

    config: Config
    dry_run: bool
    verify: bool
    say: Say
    damage: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    async def run(self) -> int:
        """Returns the exit status. ConfigError where nothing may be restored."""
        directory = DataDirectory(self.config.data_dir)
        async with contextlib.AsyncExitStack() as stack:
            files = _files(stack, self.dry_run)
            if not os.path.isdir(directory.segments):
                raise ConfigError(
                    f"{directory.path} has no segments to restore from: name the data directory of "
                    "the lost store with --data-dir"
                )
            stack.enter_context(directory.held(change=not self.dry_run))
            mark = self._mark(directory, files)
            registry, token = None, b""
            if self.dry_run:
                await self._look(mark)
            else:
                registry = await _open_registry(self.config, directory, stack)
                await refuse_used(registry, mark.store)
                token = await _lease(registry, directory, stack)
            segments = await self._open(directory, files, mark, await _cold(registry), stack)
            rebuilt = await self._rebuild(segments, mark)
            if registry is not None:
                # Whoever still serves a copy of this store is the older one from now on.
                incarnation = max(mark.incarnation, rebuilt.incarnation) + 1
                directory.put_mark(replace(mark, incarnation=incarnation))
                await fill(registry, token, mark.store, rebuilt)
            return await self._report(segments, rebuilt)

    def _mark(self, directory: DataDirectory, files: FileSystem) -> StoreMark:
        """Whose segments these are: what STORE says, or where it is lost they themselves."""
        from ingot.segments.search import stores_in

        try:
            found = directory.found_mark()
        except DamagedMark as error:
            self._remark(str(error))
            found = None
        stores = stores_in(files, directory.segments)
        named = ", ".join(sorted(store.hex() for store in stores)) or "none"
        if found is not None:
            if stores and found.store not in stores:
                raise ConfigError(
                    f"{directory.path}/STORE says store {found.store.hex()}, the commits in its "
                    f"segments are of {named}: bring those together that belong together"
                )
            return found
        if len(stores) != 1:
            raise ConfigError(
                f"{directory.path} has no STORE file and its commits are of these stores: {named}. "
                "Leave the segments of one there, or put STORE back"
            )
        (store,) = stores
        self._remark(
            f"{directory.path}/STORE is made again, of store {store.hex()}. Root's "
            "buckets are those of its access key: if that was ever changed, give the first one"
        )
        return StoreMark(store, 1)

    async def _look(self, mark: StoreMark) -> None:
        """What a real run would refuse, as far as looking tells."""
        if self.config.postgres is None:
            self.say("the private Postgres was not looked at: it would have to be started")
            return
        from ingot.registry.look import look

        found = await look(self.config.postgres)
        _refuse_store(found.store, mark.store)
        if found.heads:
            raise ConfigError(f"the registry holds heads of this store. {_NOTHING_TO_RESTORE}")

    async def _open(
        self,
        directory: DataDirectory,
        files: FileSystem,
        mark: StoreMark,
        cold: set[tuple[str, int]],
        stack: contextlib.AsyncExitStack,
    ) -> SegmentStore:
        from ingot.clock import SystemClock
        from ingot.offload import Lanes
        from ingot.segments.overlay import REFUSED
        from ingot.segments.store import SegmentStore

        lanes = Lanes(asyncio.get_running_loop())
        stack.callback(lanes.close)
        settings, clock = self.config.segment_settings(), SystemClock()
        segments = SegmentStore(files, lanes, directory.segments, settings, clock)
        writing = not self.dry_run
        recovered = await segments.open(mark.store, mark.incarnation, cold, writing)
        stack.push_async_callback(segments.close)
        for line in recovered.problems:
            if not (self.dry_run and REFUSED in line):
                self._remark(line)
        return segments

    async def _rebuild(self, segments: SegmentStore, mark: StoreMark) -> Rebuilt:
        from ingot.bucket.rebuild import rebuild

        rebuilt = await rebuild(segments, mark.store, self.say, self.verify)
        kept = f"the checkpoint of commit {rebuilt.checkpoint}"
        until = kept if rebuilt.checkpoint and not self.verify else "the first"
        agreed = f", {kept} compared" if rebuilt.checkpoint and self.verify else ""
        self.say(
            f"{rebuilt.commits} commits followed, from {rebuilt.newest.sequence} back to {until}"
            f"{agreed}: {len(rebuilt.rows)} buckets"
        )
        for line in rebuilt.damage:
            self.say(line)
            self.damage.append(line)
        for line in rebuilt.remarks:
            self._remark(line)
        return rebuilt

    async def _report(self, segments: SegmentStore, rebuilt: Rebuilt) -> int:
        """Walk every bucket and say what came of it all."""
        from ingot.bucket.fsck import Fsck
        from ingot.bucket.reconcile import bucket_of

        did = "would be restored" if self.dry_run else "restored"
        self.say(f"{len(rebuilt.rows)} buckets {did}; now they are walked")
        unread: list[str] = []  # configurations, which the walk finds too
        buckets = [await bucket_of(segments, row, False, unread) for row in rebuilt.rows]
        found = await Fsck(segments, self.say, read_bodies=False).check(buckets)
        damage, remarks = [*self.damage, *found.damage], [*self.remarks, *found.harmless]
        verdict = "all good"
        if damage or remarks:
            verdict = f"{len(damage)} damaged, {len(remarks)} that harm nothing"
        if found.cold:
            verdict += f"; cold and not looked at: {found.cold} blocks and what is below them"
        self.say(
            f"{did}: {found.buckets} buckets, {found.keys} objects, commits up to "
            f"{rebuilt.newest.sequence}: {verdict}"
        )
        return 1 if damage else 3 if remarks else 0

    def _remark(self, line: str) -> None:
        self.say(line)
        self.remarks.append(line)


# -- the registry ----------------------------------------------------------------------------------

_NOTHING_TO_RESTORE = (
    "There is nothing to restore and nothing was changed: start 'ingot serve'. To have it rebuilt "
    "all the same, as the segments are, drop its schema first (DROP SCHEMA ingot CASCADE; where "
    "the Postgres is the private one, move the data directory's postgres/ away)"
)


async def fill(registry: Registry, token: bytes, store: bytes, rebuilt: Rebuilt) -> None:
    """Write what was rebuilt into a registry without heads, whose lease ``token`` is. ConfigError
    where it has some."""
    try:
        await registry.import_heads(token, store, rebuilt.newest, rebuilt.rows)
    except RootMoved as error:
        raise ConfigError(
            f"{error}, though it names no live bucket: it is half empty and nothing was changed. "
            "Drop its schema (DROP SCHEMA ingot CASCADE) and restore again"
        ) from error


async def refuse_used(registry: Registry, store: bytes) -> None:
    """ConfigError for a registry that is not to be restored into."""
    _refuse_store(await registry.store_id(), store)
    newest, rows = await registry.newest_commit(), await registry.buckets()
    if newest.sequence or rows:
        raise ConfigError(
            f"the registry holds {len(rows)} buckets of this store, up to commit "
            f"{newest.sequence}. {_NOTHING_TO_RESTORE}"
        )


def _refuse_store(theirs: bytes | None, ours: bytes) -> None:
    if theirs not in (None, ours):
        raise ConfigError(
            f"the registry belongs to store {theirs.hex() if theirs else ''}, the segments to "
            f"store {ours.hex()}: nothing was changed. Point --postgres at an empty database"
        )


async def _open_registry(
    config: Config, directory: DataDirectory, stack: contextlib.AsyncExitStack
) -> Registry:
    from ingot.registry.postgres import Postgres

    dsn = config.postgres
    if dsn is None:
        from ingot.registry.embedded import EmbeddedPostgres

        private = EmbeddedPostgres(directory.path)
        dsn = await private.start()
        stack.push_async_callback(private.stop)
    registry = Postgres(dsn, statement_cache_size=config.postgres_statement_cache)
    await registry.open()
    stack.push_async_callback(registry.close)
    return registry


async def _cold(registry: Registry | None) -> set[tuple[str, int]]:
    """The segments whose files went because the network has them, where the registry still knows
    them: its heads may be all that it lost."""
    from ingot.segments.model import COLD

    rows = await registry.segments() if registry is not None else []
    return {(row.stream, row.number) for row in rows if row.state == COLD}


async def _lease(
    registry: Registry, directory: DataDirectory, stack: contextlib.AsyncExitStack
) -> bytes:
    """The lease's token, kept renewed until everything else has ended. Nobody is waited for: who
    has it is alive, or its lease ends by itself."""
    from ingot.clock import SystemClock
    from ingot.lease import Lease

    owner = f"{socket.gethostname()}:{os.getpid()}:{directory.path} (restore)"
    token = await registry.acquire(owner, limits.LEASE_TTL_S, directory.last_lease())
    if token is None:
        held = await registry.holder()
        holder, left = held if held is not None else ("nobody, a moment ago", 0.0)
        raise ConfigError(
            f"the store is held by {holder}: stop that gateway first. If it has ended, its lease "
            f"runs out in {left:.0f} s"
        )
    lease = Lease(registry, SystemClock(), logging.getLogger("ingot"))
    lease.token = token
    stack.push_async_callback(lease.release)
    keeping = asyncio.create_task(lease.keep())
    stack.push_async_callback(_end, keeping)
    directory.keep_lease(token)
    return token


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def _files(stack: contextlib.AsyncExitStack, dry_run: bool) -> FileSystem:
    if dry_run:
        from ingot.segments.overlay import Overlay

        overlay = Overlay()
        stack.callback(overlay.close_all)
        return overlay
    from ingot.segments.files import SystemFiles

    return SystemFiles()


def _say(line: str) -> None:
    print(line, flush=True)
