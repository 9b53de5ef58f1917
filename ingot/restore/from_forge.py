"""A store out of the space of the Forge network alone: its disk and its database are lost.

    space ──survey──> segments and their indexes ──line──> units up to the commit that it names
          ──adopt──> runs in the data directory ──rebuild──> heads ──> STORE, the registry, and last
                     the heads in one transaction

All segments are cold afterwards: a gateway serves from the network at once, and goes on with the
numbers of commits and segments above those that were restored. Body segments are numbered anew, as
the space lists them: nothing in the log leads to a block by its segment's number. What commits say
of body segments they need was settled when the watermark passed them, so no need is restored.

A restore that was cut off leaves RESTORING in the data directory, by which the next one knows that
what it finds there is of a restore. Until then nothing is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ingot import limits
from ingot.bucket.model import Bucket
from ingot.bucket.rebuild import Rebuilt, rebuild
from ingot.clock import SystemClock
from ingot.codec.cid import from_text
from ingot.cold import NetworkSource, Shipped
from ingot.config import Config
from ingot.datadir import DamagedMark, DataDirectory, StoreMark
from ingot.errors import ConfigError, FormatError
from ingot.forge.client import ForgeClient, ForgeSettings
from ingot.forge.keystore import KeyStore
from ingot.messages import Cid, ForgeRoot, Shipment
from ingot.offload import Lanes
from ingot.registry import SegmentRow
from ingot.restore.line import Line, Named, follow, named
from ingot.restore.survey import Blob, Progress, Survey, contents, survey, together
from ingot.restore.target import (
    Say,
    fill,
    open_registry,
    refuse_store,
    refuse_used,
    take_lease,
    target_files,
)
from ingot.segments import format
from ingot.segments.adopt import Contents, write_run
from ingot.segments.disk import Disk
from ingot.segments.model import COLD, SEALED, SegmentInfo
from ingot.segments.overlay import REFUSED
from ingot.segments.store import SegmentStore
from ingot.shipper.lifecycle import INDEXED

if TYPE_CHECKING:
    from ingot.ports import FileSystem, Registry


@dataclass(frozen=True, slots=True)
class Placed:
    """A segment of the space with the number that it has here."""

    info: SegmentInfo
    blob: Blob
    archives: Sequence[Blob]


@dataclass(slots=True)
class FromForge:
    """One restore. ``store`` is an id in hex, where the space holds several; ``say`` hears progress
    and findings; ``root`` is the CID of the commit to restore, where it is not the newest."""

    config: Config
    dry_run: bool
    verify: bool
    store: str | None
    say: Say
    root: str | None = None
    damage: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    async def run(self) -> int:
        """Returns the exit status. ConfigError where nothing may be restored."""
        directory, wanted_store = DataDirectory(self.config.data_dir), self._wanted_store()
        root = self._wanted_root()
        network = self.config.forge_settings()
        if network is None:
            raise ConfigError(
                "no Forge network is named: give the settings that the lost gateway had "
                "(forge_upload_did, forge_upload_url and on, in the file of --config)"
            )
        async with contextlib.AsyncExitStack() as stack:
            files = target_files(stack, self.dry_run)
            _refuse_live(directory)
            if not self.dry_run:
                directory.prepare()
            stack.enter_context(directory.held(change=not self.dry_run))
            _refuse_live(directory)
            client = await self._client(directory, network, stack)
            registry, token = None, b""
            if not self.dry_run:
                registry = await open_registry(self.config, directory, stack)
                token = await take_lease(registry, directory, stack)
            found = await survey(client.holdings, self.say)
            wanted = await named(
                client.holdings, found, wanted_store, root, self.damage, self.remarks
            )
            self._say_wanted(wanted)
            mark = self._mark(directory, wanted)
            if registry is not None:
                await _refuse_registry(registry, directory, mark)
            else:
                await self._look(mark)
            line = await follow(client.holdings, found, wanted, self.say)
            found.add_unread_segments(self.damage)
            self.damage += line.damage
            self.remarks += line.remarks
            placed = _placed(found, line)
            if registry is not None:
                directory.begin_restore()
            lanes = Lanes(asyncio.get_running_loop())
            stack.callback(lanes.close)
            await self._adopt(client, files, lanes, directory, placed)
            segments = await self._open(client, files, lanes, directory, mark, placed, stack)
            rebuilt = await self._rebuild(segments, mark)
            if registry is not None:
                incarnation = max(mark.incarnation, rebuilt.incarnation, wanted.incarnation) + 1
                directory.put_mark(replace(mark, incarnation=incarnation))
                await self._fill(registry, token, mark, placed, rebuilt)
                directory.end_restore()
            return await self._report(directory, segments, found, line, rebuilt)

    # -- before anything is changed ----------------------------------------------------------------

    def _wanted_store(self) -> bytes | None:
        if self.store is None:
            return None
        try:
            store = bytes.fromhex(self.store)
        except ValueError:
            store = b""
        if len(store) != 16:
            raise ConfigError(f"--store {self.store}: a store's id has 32 hexadecimal digits")
        return store

    def _wanted_root(self) -> Cid | None:
        if self.root is None:
            return None
        try:
            return bytes(from_text(self.root))
        except FormatError as error:
            raise ConfigError(f"--root {self.root}: no CID: {error}") from error

    async def _client(
        self, directory: DataDirectory, network: ForgeSettings, stack: contextlib.AsyncExitStack
    ) -> ForgeClient:
        config, clock = self.config, SystemClock()
        keys = KeyStore(directory.path, config.forge_key)
        if not os.path.exists(keys.agent_path):
            raise ConfigError(
                f"{keys.agent_path} is missing: without its identity a gateway cannot read its "
                f"space. Put a copy of the lost {keys.directory} back, or take the space's key in "
                "with 'ingot space import space.pem' (or have its owner delegate to "
                "'ingot whoami')"
            )
        identity = keys.identity(clock.now_ms() // 1000, config.forge_space)
        client = ForgeClient(network, identity, clock)
        await client.open()
        stack.push_async_callback(client.close)
        self.say(f"space {identity.space}")
        return client

    def _say_wanted(self, wanted: Named) -> None:
        record = wanted.record
        which = "commit to restore" if wanted.chosen else "newest commit"
        self.say(
            f"the {which} is {record.sequence} of {_moment(record.time_ms)}, incarnation "
            f"{record.incarnation} of store {record.store.hex()}"
        )
        for line in (*self.damage, *self.remarks):
            self.say(line)

    def _mark(self, directory: DataDirectory, wanted: Named) -> StoreMark:
        """What STORE says, where it is there of a restore before this one."""
        try:
            found = directory.found_mark()
        except DamagedMark as error:
            self._remark(str(error))
            found = None
        if found is None:
            return StoreMark(wanted.record.store, wanted.record.incarnation)
        if found.store != wanted.record.store:
            raise ConfigError(
                f"{directory.path}/STORE says store {found.store.hex()}, the space holds store "
                f"{wanted.record.store.hex()}: nothing was changed. Give an empty directory with "
                "--data-dir"
            )
        return found

    async def _look(self, mark: StoreMark) -> None:
        """What a real run would refuse, as far as looking tells."""
        if self.config.postgres is None:
            self.say("the private Postgres was not looked at: it would have to be started")
            return
        from ingot.registry.look import look

        found = await look(self.config.postgres)
        refuse_store(found.store, mark.store)
        if found.heads:
            raise ConfigError("the registry holds heads of this store: it is not lost")

    # -- the data directory ------------------------------------------------------------------------

    async def _adopt(
        self,
        client: ForgeClient,
        files: FileSystem,
        lanes: Lanes,
        directory: DataDirectory,
        placed: Sequence[Placed],
    ) -> None:
        """Make the runs of all segments; those of a restore that was cut off go."""
        path = directory.segments
        disk = Disk(files, lanes, path, self.config.segment_settings(), SystemClock())
        if not files.exists(path):
            files.mkdir(path)
            files.sync_directory(directory.path)
        for name in files.listdir(path):
            parsed = format.parse_name(name) or format.unfinished(name)
            if parsed is not None:
                files.unlink(disk.path(name))
        progress = Progress(self.say, "segments indexed", len(placed))
        for number, group in enumerate(_groups(placed), 1):
            made: dict[tuple[str, int], Contents] = {}

            async def index(one: Placed, made: dict[tuple[str, int], Contents] = made) -> None:
                made[one.info.key] = await contents(
                    client.holdings, one.blob, one.archives, self.damage, self.remarks
                )
                progress.step()

            await together(index, group)
            await write_run(disk, number, [(one.info, made[one.info.key]) for one in group])
        await disk.settle()

    async def _open(
        self,
        client: ForgeClient,
        files: FileSystem,
        lanes: Lanes,
        directory: DataDirectory,
        mark: StoreMark,
        placed: Sequence[Placed],
        stack: contextlib.AsyncExitStack,
    ) -> SegmentStore:
        clock = SystemClock()
        shipped = {one.info.key: Shipped(one.blob.ref.digest, one.blob.places) for one in placed}

        async def known(key: tuple[str, int]) -> Shipped | None:
            return shipped.get(key)

        settings = self.config.segment_settings()
        segments = SegmentStore(files, lanes, directory.segments, settings, clock)
        indexed = self.config.forge_indexer_did is not None
        segments.fetch = NetworkSource(client.retriever, known, indexed, clock.monotonic)
        recovered = await segments.open(mark.store, mark.incarnation, set(shipped), writing=False)
        stack.push_async_callback(segments.close)
        for line in recovered.problems:
            if not (self.dry_run and REFUSED in line):
                self._remark(line)
        return segments

    async def _rebuild(self, segments: SegmentStore, mark: StoreMark) -> Rebuilt:
        rebuilt = await rebuild(segments, mark.store, self.say, self.verify)
        self.say(
            f"{rebuilt.commits} commits followed, from {rebuilt.newest.sequence} back: "
            f"{len(rebuilt.rows)} buckets"
        )
        self.damage += rebuilt.damage
        self.remarks += rebuilt.remarks
        return rebuilt

    # -- the registry ------------------------------------------------------------------------------

    async def _fill(
        self,
        registry: Registry,
        token: bytes,
        mark: StoreMark,
        placed: Sequence[Placed],
        rebuilt: Rebuilt,
    ) -> None:
        """All that a gateway knows of its segments, then the heads."""
        progress = Progress(self.say, "segments noted in the registry", len(placed))
        accounted = 0  # by the units before; commits that are in none are nobody's to wait for
        for one in placed:
            await registry.put_segment(_cold(one.info))
            first = accounted + 1 if one.info.last_commit else 0
            await registry.put_shipment(token, _shipment(one, first))
            accounted = max(accounted, one.info.last_commit)
            progress.step()
        watermark = rebuilt.newest.sequence
        if await registry.forge_watermark() != watermark:
            roots = [ForgeRoot(row.bucket, row.head, row.commit.sequence) for row in rebuilt.rows]
            await registry.advance_forge(token, watermark, roots)
        newest, rows = await registry.newest_commit(), await registry.buckets()
        if (newest, sorted(rows, key=lambda row: row.name)) != (rebuilt.newest, rebuilt.rows):
            await fill(registry, token, mark.store, rebuilt)

    # -- what came of it ---------------------------------------------------------------------------

    async def _report(
        self,
        directory: DataDirectory,
        segments: SegmentStore,
        found: Survey,
        line: Line,
        rebuilt: Rebuilt,
    ) -> int:
        """Walk every bucket and say what came of it all."""
        from ingot.bucket.fsck import Fsck
        from ingot.bucket.reconcile import bucket_of

        did = "would be restored" if self.dry_run else "restored"
        self.say(f"{len(rebuilt.rows)} buckets {did}; now they are walked")
        unread: list[str] = []  # configurations, which the walk finds too
        buckets = [await bucket_of(segments, row, False, unread) for row in rebuilt.rows]
        walked = await Fsck(segments, self.say, read_bodies=self.verify).check(buckets)
        for text in (*self.damage, *self.remarks, *line.beyond):
            self.say(text)
        damage, remarks = [*self.damage, *walked.damage], [*self.remarks, *walked.harmless]
        if walked.cold:
            damage.append(f"{walked.cold} blocks cannot be fetched now, nor what is below them")
            self.say(damage[-1])
        if found.foreign:
            self.say(f"{found.foreign} blobs of the space are not of this store's: left alone")
        last = line.units[-1].last
        verdict = "all good"
        if damage or remarks:
            verdict = f"{len(damage)} damaged, {len(remarks)} that harm nothing"
        self.say(
            f"{did}: {walked.buckets} buckets, {walked.keys} objects, commits up to "
            f"{last.sequence} of {_moment(last.time_ms)}: {verdict}"
        )
        self.say(
            f"what was newer than {_moment(last.time_ms)} had not been shipped, or not wholly, "
            "when the store was lost: it is lost"
        )
        self._say_owners(directory, buckets)
        return 1 if damage else 3 if remarks else 0

    def _say_owners(self, directory: DataDirectory, buckets: Sequence[Bucket]) -> None:
        owners = Counter((one.config.owner, one.config.owner_name) for one in buckets)
        for (owner, name), count in sorted(owners.items()):
            self.say(f"owner of {count} buckets: {owner} ({name})")
        self.say(
            "before 'ingot serve': give root the access key that it had (INGOT_ACCESS_KEY and "
            f"INGOT_SECRET_KEY, or {directory.path}/credentials.toml), for root's buckets are "
            "those of its access key; with another key set id in the credentials file to the owner"
        )

    def _remark(self, line: str) -> None:
        self.say(line)
        self.remarks.append(line)


def _refuse_live(directory: DataDirectory) -> None:
    """ConfigError for a directory that holds segments and is not of a restore that was cut off."""
    try:
        names = os.listdir(directory.segments)
    except FileNotFoundError:
        return
    parsed = [format.parse_name(name) for name in names]
    files = [one for one in parsed if one is not None and one[0] in format.SEGMENTS]
    if any(parsed) and not files and not directory.restoring:
        raise ConfigError(
            f"{directory.path} has the indexes of a store that was restored already, and nothing "
            "was changed: start 'ingot serve'"
        )
    if files:
        raise ConfigError(
            f"{directory.path} holds segments: nothing was changed. Where only its database is "
            "lost use 'ingot restore --from-segments'; else give an empty directory with --data-dir"
        )


async def _refuse_registry(registry: Registry, directory: DataDirectory, mark: StoreMark) -> None:
    """ConfigError for a registry that is in use. What a restore that was cut off has written
    there is written again."""
    refuse_store(await registry.store_id(), mark.store)
    if directory.restoring:
        return
    await refuse_used(registry, mark.store)
    if await registry.segments() or await registry.shipments():
        raise ConfigError(
            "the registry lists segments: nothing was changed. Give an empty database with "
            "--postgres, or drop its schema first (DROP SCHEMA ingot CASCADE)"
        )


def _placed(found: Survey, line: Line) -> list[Placed]:
    """Bodies and units with their numbers here."""
    placed = []
    for number, blob in enumerate(found.bodies, 1):
        info = SegmentInfo(format.BODY, number, SEALED, blob.ref.size)
        placed.append(Placed(info, blob, found.archives.get(blob.ref.digest, ())))
    for number, unit in enumerate(line.units, 1):
        blob = unit.blob
        info = SegmentInfo(
            format.UNIT,
            number,
            SEALED,
            blob.ref.size,
            unit.first,
            unit.last.sequence,
            unit.root,
            unit.before,
        )
        placed.append(Placed(info, blob, found.archives.get(blob.ref.digest, ())))
    return placed


def _groups(placed: Sequence[Placed]) -> list[list[Placed]]:
    """Those that share a run."""
    groups: list[list[Placed]] = []
    size = 0
    for one in placed:
        size += one.info.bytes
        full = not groups or len(groups[-1]) == limits.RESTORE_RUN_SEGMENTS
        if full or size > limits.RESTORE_RUN_BYTES:
            groups.append([])
            size = one.info.bytes
        groups[-1].append(one)
    return groups


def _cold(info: SegmentInfo) -> SegmentRow:
    return SegmentRow(
        info.stream,
        info.number,
        COLD,
        info.bytes,
        info.root,
        info.first_commit,
        info.last_commit,
    )


def _shipment(one: Placed, first_commit: int) -> Shipment:
    """A file that the network has, whole; of a unit, from which commit on it accounts for them."""
    info = one.info
    return Shipment(
        info.stream,
        info.number,
        INDEXED,
        one.blob.ref.digest,
        tuple(place.claim.data for place in one.blob.places),
        info.bytes,
        first_commit,
        info.last_commit,
        indexes=tuple(archive.ref.digest for archive in one.archives),
    )


def _moment(time_ms: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_ms // 1000))
