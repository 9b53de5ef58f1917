"""Which units follow one another: from the commit that the space names back to the first.

Each unit begins with a commit that names the one before it, by its hash; that is the last commit of
the unit before. So the units that lead to the named commit are told from those of another
incarnation, from those that are newer than what was named and from those of another store.

A record proves by its hash what it names, and not who made it: whoever may add blobs and uploads to
the space can name a commit of his own making. So of several that are named the newest is taken, and
all that does not lead to it is damage until a person has said which is the true one (``chosen``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Final

from ingot.codec.cid import to_text
from ingot.errors import ConfigError, FormatError, NotFound, Unavailable
from ingot.forge.holdings import Holdings
from ingot.limits import FORGE_BLOB_BYTES_MAX, KIB, MIB
from ingot.messages import Cid, CommitRecord
from ingot.restore.survey import Blob, Progress, Survey, together
from ingot.restore.target import Say
from ingot.segments.adopt import first_commit
from ingot.segments.commit import decode_commit

FIRST_BYTES: Final = (64 * KIB, MIB, 32 * MIB, FORGE_BLOB_BYTES_MAX)
"""Of a unit, for its first commit."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit in the space: its first commit's number, what that names as the one before, and its
    last commit."""

    blob: Blob
    root: Cid
    last: CommitRecord
    first: int = 0
    before: Cid | None = None


@dataclass(slots=True)
class Line:
    """``units`` in order, the newest last, whose last commit is what is restored."""

    units: list[Unit] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)  # what is in the space and not restored


@dataclass(frozen=True, slots=True)
class Named:
    """A commit of a store that the space names. ``others``: what else it names of that store;
    ``chosen``: a person said that it is to be this one."""

    root: Cid
    record: CommitRecord
    others: Sequence[Named] = ()
    chosen: bool = False

    @property
    def incarnation(self) -> int:
        """The highest that the space names of the store: who is restored must be above."""
        return max(one.record.incarnation for one in (self, *self.others))


async def named(
    space: Holdings,
    found: Survey,
    store: bytes | None,
    chosen: Cid | None,
    damage: list[str],
    remarks: list[str],
) -> Named:
    """What is to be restored: the newest (incarnation, sequence) of ``store``, or of the only one
    that the space names; or the commit ``chosen``, which ends a unit of the space. Where a named
    commit lies in a blob that cannot be read, the newest unit that can be read takes its place.
    ConfigError where there is none, or several stores."""
    in_units = {root: blob for blob, root in found.units}
    unread = {one.blob.ref.digest for one in found.unread}
    standing: list[Named] = []
    newest: dict[bytes, Named] = {}
    missed = False
    for upload in await space.uploads.named():
        root = upload.root
        try:
            record = await _record(space, root, in_units.get(root))
        except (NotFound, Unavailable, FormatError) as error:
            if unread.intersection(await space.uploads.shards(root)):
                damage.append(f"the space names {to_text(root)}, which cannot be read: {error}")
                missed = True
            else:
                remarks.append(f"the space names {to_text(root)}, which is not taken: {error}")
            continue
        standing.append(Named(root, record))
        _take(newest, standing[-1])
    if chosen is not None:
        return _with_others(await _chosen(space, chosen, in_units.get(chosen)), standing, True)
    for blob, root in found.units if missed else ():
        try:
            _take(newest, Named(root, await _record(space, root, blob)))
        except (NotFound, Unavailable, FormatError):
            continue  # whoever follows the line reports it
    if store is not None and store in newest:
        return _with_others(newest[store], standing, False)
    known = ", ".join(sorted(one.hex() for one in newest)) or "none"
    if store is None and len(newest) == 1:
        return _with_others(next(iter(newest.values())), standing, False)
    if newest:
        raise ConfigError(
            f"the space holds these stores: {known}. Say with --store which is to be restored"
        )
    reasons = "".join(f"; {line}" for line in [*damage, *remarks])
    raise ConfigError(
        "the space names no commit of a store: nothing was ever shipped to it, or it is another "
        f"space than the gateway's{reasons}"
    )


async def _chosen(space: Holdings, root: Cid, blob: Blob | None) -> Named:
    try:
        return Named(root, await _record(space, root, blob))
    except (NotFound, Unavailable, FormatError) as error:
        raise ConfigError(f"--root {to_text(root)} is no commit to restore: {error}") from error


def _with_others(one: Named, standing: Sequence[Named], chosen: bool) -> Named:
    store = one.record.store
    others = [other for other in standing if other.record.store == store and other.root != one.root]
    return replace(one, others=others, chosen=chosen)


async def _record(space: Holdings, root: Cid, blob: Blob | None) -> CommitRecord:
    """The commit of a root, out of the unit that ends with it where that is known."""
    block = await space.last_block(blob.ref, blob.places, root) if blob is not None else None
    return decode_commit(block or await space.root_block(root))


def _take(newest: dict[bytes, Named], one: Named) -> None:
    other = newest.get(one.record.store)
    if other is None or _age(other.record) < _age(one.record):
        newest[one.record.store] = one


async def follow(space: Holdings, found: Survey, wanted: Named, say: Say) -> Line:
    """The units that lead to ``wanted``."""
    line = Line()
    units = await _units(space, found, wanted.record.store, line, say)
    by_root = {unit.root: unit for unit in units}
    root: Cid | None = wanted.root
    below = wanted.record.sequence + 1  # the numbers that are wanted next end before it
    incarnation = wanted.record.incarnation
    while root is not None:
        unit = by_root.pop(root, None)
        if unit is None:
            older = [
                one
                for one in by_root.values()
                if one.last.sequence < below and one.last.incarnation <= incarnation
            ]
            unit = max(older, key=lambda one: _age(one.last), default=None)
            lost = (unit.last.sequence if unit is not None else 0) + 1
            line.damage.append(
                f"commits {lost} to {below - 1} are in no unit of the space that can be read: what "
                "only they have is lost"
            )
            if unit is None:
                break
            del by_root[unit.root]
        line.units.append(unit)
        root, below, incarnation = unit.before, unit.first, unit.last.incarnation
    line.units.reverse()
    _say_others(line, wanted)
    for former, later in pairwise(line.units):
        if former.last.incarnation != later.last.incarnation:
            say(
                f"from commit {later.first} on they are of incarnation {later.last.incarnation}: a "
                f"restore began it, and if there was none, see {to_text(former.root)} with --root"
            )
    if not line.units:
        raise ConfigError(
            f"the space names commit {wanted.record.sequence}, and no unit of it can be read: "
            + "; ".join(line.damage)
        )
    _say_beyond(line, sorted(by_root.values(), key=lambda one: _age(one.last)), wanted)
    return line


async def _units(
    space: Holdings, found: Survey, store: bytes, line: Line, say: Say
) -> Sequence[Unit]:
    """All units of ``store``."""
    units: list[Unit] = []
    progress = Progress(say, "units read for their commits", len(found.units))

    async def look(one: tuple[Blob, Cid]) -> None:
        blob, root = one
        try:
            unit = await _unit(space, blob, root)
        except (NotFound, Unavailable, FormatError) as error:
            line.damage.append(f"the commits of {blob} cannot be read: {error}")
            found.bodies.append(blob)  # what else it holds may be needed
        else:
            if unit is None:
                found.foreign += 1
            elif unit.last.store == store:
                units.append(unit)
            else:
                line.remarks.append(
                    f"{blob} is a unit of store {unit.last.store.hex()}: it is left alone"
                )
        progress.step()

    await together(look, list(found.units))
    return units


async def _unit(space: Holdings, blob: Blob, root: Cid) -> Unit | None:
    """None for a file whose root is no commit record."""
    block = await space.last_block(blob.ref, blob.places, root)
    if block is None:
        raise NotFound(f"it lacks its root {to_text(root)}")
    try:
        unit = Unit(blob, root, decode_commit(block))
    except FormatError:
        return None
    for length in FIRST_BYTES:
        stop = min(length, blob.ref.size)
        record = first_commit(await space.read(blob.places, 0, stop))
        if record is not None:
            return replace(unit, first=record.sequence, before=record.previous)
        if stop == blob.ref.size:
            break
    raise NotFound("it holds no commit whose frames before it are good")


def _say_others(line: Line, wanted: Named) -> None:
    """A gateway leaves one root of its store, but for the moment in which it puts a new one in the
    place of the old."""
    told = line.remarks if wanted.chosen else line.damage
    for other in wanted.others:
        told.append(
            f"the space also names commit {other.record.sequence} of incarnation "
            f"{other.record.incarnation} of this store, {to_text(other.root)}: one of the two may "
            "be forged, by somebody who may add uploads to the space. To restore that one give "
            "it with --root"
        )


def _say_beyond(line: Line, others: Sequence[Unit], wanted: Named) -> None:
    for unit in others:
        first, last = unit.first, unit.last
        what = (
            f"commits {first} to {last.sequence} of incarnation {last.incarnation} are in the space"
        )
        if _age(last) > _age(wanted.record):
            line.beyond.append(f"{what}, beyond what it names, and are not restored")
            continue
        told = line.remarks if wanted.chosen else line.damage
        told.append(
            f"{what} and do not lead to what it names: they are not restored. An earlier restore "
            f"gave them up, or one of the two is forged: see {to_text(unit.root)} with --root"
        )


def _age(record: CommitRecord) -> tuple[int, int]:
    return record.incarnation, record.sequence
