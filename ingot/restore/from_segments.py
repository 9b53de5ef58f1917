"""A registry rebuilt from the segments in the data directory, which are all there.

Of the data directory only what any start changes is changed, and STORE, which gets a new
incarnation and is made again where it is lost. ``bucket.rebuild`` says what the segments come to.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ingot.config import Config
from ingot.datadir import DamagedMark, DataDirectory, StoreMark
from ingot.errors import ConfigError
from ingot.restore.target import (
    NOTHING_TO_RESTORE,
    Say,
    fill,
    open_registry,
    refuse_store,
    refuse_used,
    take_lease,
    target_files,
)

if TYPE_CHECKING:
    from ingot.bucket.rebuild import Rebuilt
    from ingot.messages import Shipment
    from ingot.ports import ColdSource, FileSystem, Registry
    from ingot.segments.store import SegmentStore


@dataclass(slots=True)
class FromSegments:
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
            files = target_files(stack, self.dry_run)
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
                registry = await open_registry(self.config, directory, stack)
                await refuse_used(registry, mark.store)
                token = await take_lease(registry, directory, stack)
            from ingot.segments.coldnotes import ColdNotes

            notes, faults = ColdNotes(files, directory.cold).read()
            for line in faults:
                self._remark(line)
            cold = await _cold(registry) | notes.keys()
            segments = await self._open(directory, files, mark, cold, notes, stack)
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
        refuse_store(found.store, mark.store)
        if found.heads:
            raise ConfigError(f"the registry holds heads of this store. {NOTHING_TO_RESTORE}")

    async def _open(
        self,
        directory: DataDirectory,
        files: FileSystem,
        mark: StoreMark,
        cold: set[tuple[str, int]],
        notes: Mapping[tuple[str, int], Shipment],
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
        if notes:
            segments.fetch = await self._network(directory, notes, stack)
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

    async def _network(
        self,
        directory: DataDirectory,
        notes: Mapping[tuple[str, int], Shipment],
        stack: contextlib.AsyncExitStack,
    ) -> ColdSource | None:
        """Where cold segments are read, if the settings name their network: commits may lie there,
        and the walk of the buckets goes through them."""
        network = self.config.forge_settings()
        if network is None:
            self.say(
                f"{len(notes)} segments are in the Forge network, which no setting names: what "
                "lies there is not looked at"
            )
            return None
        from ingot.clock import SystemClock
        from ingot.cold import NetworkSource, Shipped, locations_of
        from ingot.forge.client import ForgeClient
        from ingot.forge.keystore import KeyStore

        keys, clock = KeyStore(directory.path, self.config.forge_key), SystemClock()
        identity = keys.identity(clock.now_ms() // 1000, self.config.forge_space)
        client = await stack.enter_async_context(ForgeClient(network, identity, clock))

        async def shipped(key: tuple[str, int]) -> Shipped | None:
            row = notes.get(key)
            return None if row is None else Shipped(row.digest, locations_of(row.locations))

        indexed = network.indexer is not None
        return NetworkSource(client.retriever, shipped, indexed, clock.monotonic)

    def _remark(self, line: str) -> None:
        self.say(line)
        self.remarks.append(line)


async def _cold(registry: Registry | None) -> set[tuple[str, int]]:
    """The segments whose files went because the network has them, where the registry still knows
    them: its heads may be all that it lost."""
    from ingot.segments.model import COLD

    rows = await registry.segments() if registry is not None else []
    return {(row.stream, row.number) for row in rows if row.state == COLD}
