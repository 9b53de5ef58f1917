"""The store under the seeded disk, and the simulation under broken rules: it must see each of them.

A rule is broken by replacing the one function that keeps it; nothing in the product knows of this.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ingot.segments import (
    chain,
    cold,
    compact,
    format,
    log,
    recovery,
    runfile,
    scan,
    segment,
    store,
)
from ingot.segments import retire as retiring
from ingot.segments.body import BodyStream
from ingot.segments.disk import Disk
from tests.sim.disk import SimFiles, SimLane
from tests.sim.world import run_seed

Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable()  # the store reports what the faults do to it
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(6))
def test_nothing_acknowledged_is_lost(block: int) -> None:
    mood = ("", "", "", "", "paged", "killed")[block]
    for seed in range(block * 60, block * 60 + 60):
        try:
            run_seed(seed, mood=mood)
        except Exception as error:
            line = f"python -m tests.sim.run --seeds 1 --start {seed} --mood '{mood}'"
            raise AssertionError(f"replay: {line}") from error


def test_one_seed_is_one_history() -> None:
    def fingerprint() -> Any:
        world = run_seed(7)
        return world.truth.commits, world.files.calls, world.commits

    assert fingerprint() == fingerprint()


# -- broken rules ----------------------------------------------------------------------------------


def no_log_sync(patch: Patch) -> None:
    """Acknowledge before the sync."""
    run = SimLane._run

    def lazy(self: SimLane, step: tuple[Any, ...]) -> None:
        inode = self._files.fds.get(step[1]) if step[0] == "fdatasync" else None
        names = [name for name, each in self._files.names.items() if each is inode]
        if not any(name.startswith("log") for name in names):
            run(self, step)

    patch.setattr(SimLane, "_run", lazy)


def no_body_sync(patch: Patch) -> None:
    """Commit to bodies that are only written."""

    async def sync(self: BodyStream, positions: Any) -> None:
        return None

    patch.setattr(BodyStream, "sync", sync)


def no_directory_sync(patch: Patch) -> None:
    """Leave the names of new files to chance."""
    patch.setattr(Disk, "sync_directory", lambda self: None)


def no_frames_digest(patch: Patch) -> None:
    """Believe any commit record that hashes."""
    found = scan.Scanner._found

    def believing(self: Any, mark: Any) -> Any:
        result = found(self, mark)
        if result is not None:
            result = result._replace(whole=True)
        return result

    patch.setattr(scan.Scanner, "_found", believing)


def no_segment_number(patch: Patch) -> None:
    """Believe records that a recycled file brought along."""
    continues = scan.Scanner._continues

    def believing(self: Any, found: Any) -> bool:
        if found.store == self._store and not self.result.commits:
            return bool(found.whole)
        return continues(self, found)

    patch.setattr(scan.Scanner, "_continues", believing)


def no_voiding(patch: Patch) -> None:
    """Keep the records that a later segment does not continue."""
    patch.setattr(chain, "void", lambda scanned, keep: None)


def no_poison(patch: Patch) -> None:
    """Go on in a file whose sync failed, and believe the next sync."""
    patch.setattr(segment.Segment, "poison", lambda self, error: None)
    poison = log.LogStream._poison

    def forgiving(self: Any, current: Any, error: OSError) -> None:
        submit, self._sealer.submit = self._sealer.submit, lambda segment: None
        poison(self, current, error)
        self._sealer.submit = submit
        current.end += 0
        self.current = current

    patch.setattr(log.LogStream, "_poison", forgiving)
    patch.setattr(BodyStream, "_poison", lambda self, current, error: None)


def no_second_write(patch: Patch) -> None:
    """Trust that what a start can read is on the disk."""

    async def trusting(self: Any) -> None:
        return None

    patch.setattr(recovery.Recovery, "_confirm", trusting)


def no_run_sync(patch: Patch) -> None:
    """Put a run under its name before it is on the disk."""
    finish = runfile.RunWriter.finish

    async def lazy(self: Any) -> Any:
        fdatasync, SimFiles.fdatasync = SimFiles.fdatasync, lambda files, fd: None  # type: ignore
        try:
            return await finish(self)
        finally:
            SimFiles.fdatasync = fdatasync  # type: ignore[method-assign]

    patch.setattr(runfile.RunWriter, "finish", lazy)


def no_sequence_kept(patch: Patch) -> None:
    """Use up a sequence for a commit that failed."""
    attempt = log.LogStream._attempt

    async def counting(self: Any, batch: Any) -> Any:
        try:
            return await attempt(self, batch)
        except OSError:
            self.sequence += 1
            raise

    patch.setattr(log.LogStream, "_attempt", counting)


def old_table_first(patch: Patch) -> None:
    """Drop a segment's table before its run is in use."""
    write = store.Sealer.write_run

    async def early(self: Any, sealing: Any) -> Any:
        self._index.drop_growing(sealing)
        return await write(self, sealing)

    patch.setattr(store.Sealer, "write_run", early)


def no_unit_sync(patch: Patch) -> None:
    """Put a unit under its name, and its segments away, before it is on the disk."""
    write = compact.Compactor._write

    async def lazy(self: Any, *rest: Any) -> None:
        fdatasync, SimFiles.fdatasync = SimFiles.fdatasync, lambda files, fd: None  # type: ignore
        try:
            await write(self, *rest)
        finally:
            SimFiles.fdatasync = fdatasync  # type: ignore[method-assign]

    patch.setattr(compact.Compactor, "_write", lazy)


def segments_before_their_unit(patch: Patch) -> None:
    """Unlink the segments before their unit has its name."""
    write = compact.Compactor._write

    async def eager(self: Any, *rest: Any) -> None:
        await write(self, *rest)
        for info in self._index.sealed():
            if info.stream == "log" and info.number <= rest[0].number:
                self._disk.discard(f"log-{info.number:020d}.car", None)

    patch.setattr(compact.Compactor, "_write", eager)


def no_hash_of_what_was_fetched(patch: Patch) -> None:
    """Believe the network."""

    async def trusting(self: Any, pieces: Any, flight: Any) -> None:
        data = await pieces.take(flight.place.offset, flight.place.length)
        self._land(flight, bytes(data))

    patch.setattr(cold.ColdReader, "_next", trusting)


def file_before_index(patch: Patch) -> None:
    """Remove a segment's file while readers are still sent to it."""
    retire = retiring.Retirer.retire

    async def eager(self: Any, key: Any, *rest: Any) -> None:
        if any(info.key == key for info in self.retirable(*rest[:1])):
            self._disk.files.unlink(self._disk.path(format.file_name(*key)))
            await asyncio.sleep(0)
        await retire(self, key, *rest)

    patch.setattr(retiring.Retirer, "retire", eager)


def cold_is_missing(patch: Patch) -> None:
    """Forget at a start which segments are cold."""
    patch.setattr(recovery.Recovery, "_note_cold", lambda self, files: None)


RULES: list[tuple[Callable[[Patch], None], str]] = [  # and the mood that brings it out
    (no_log_sync, ""),
    (no_body_sync, ""),
    (no_directory_sync, ""),
    (no_frames_digest, "paged"),
    (no_segment_number, "paged"),
    (no_voiding, "killed"),
    (no_poison, ""),
    (no_second_write, "killed"),
    (no_run_sync, ""),
    (no_sequence_kept, ""),
    (old_table_first, ""),
    (no_unit_sync, ""),
    (segments_before_their_unit, ""),
    (no_hash_of_what_was_fetched, ""),
    (file_before_index, ""),
    (cold_is_missing, ""),
]
SEEDS = 600  # at the most; the rarest breach needs about a tenth of them


@pytest.mark.slow
@pytest.mark.parametrize("rule, mood", RULES, ids=[rule.__name__ for rule, _ in RULES])
def test_a_broken_rule_is_caught(
    rule: Callable[[Patch], None], mood: str, monkeypatch: Patch
) -> None:
    rule(monkeypatch)
    for seed in range(SEEDS):
        try:
            run_seed(seed, mood=mood)
        except Exception:
            return
    pytest.fail(f"{SEEDS} seeds did not notice: {rule.__doc__}")
