"""``ingot segments``: every segment file, what the registry knows of it, and how far shipping is.

Works beside a gateway that runs, and changes nothing. ``survey`` puts together what files, registry
and gateway say, purely; the rest reads those and prints. Registered by ``cli.build_parser``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from ingot.config import Config
from ingot.datadir import DataDirectory, existing
from ingot.errors import ConfigError
from ingot.limits import GIB, KIB, MIB
from ingot.messages import Damage, Shipment
from ingot.ports import SegmentRow
from ingot.segments.model import COLD, DAMAGED, REPLACED, Key
from ingot.shipper.lifecycle import BODY, INDEXED, QUEUED, REFUSED, STORED, UNIT, holder
from ingot.standing import Told, told_in

CONFIRMED: Final = "confirmed"  # ``indexed``, in the word of the rest of ingot
WAITING: Final = "waiting"
ABOUT: Final[Mapping[str, str]] = {
    WAITING: "open, to become units, or not looked at yet",
    QUEUED: "to be uploaded",
    STORED: "uploaded, their indexes are not published yet",
    CONFIRMED: "Forge has them, with their indexes",
    REFUSED: "cannot be shipped as they are; tried again at the next start",
}

DETAILS: Final = """

Beside a gateway's rows it shows what Forge has of each file:

  waiting    not to be shipped yet: still open, or a log segment that becomes part of a unit
  queued     to be uploaded
  stored     uploaded; its index is not published yet
  confirmed  Forge has it, with its index; only then its file here may go (state: cold)
  refused    cannot be shipped as it is, because of its bytes; tried again at the next start

What is damaged here ships all the same: "(bad: SIZE)" says how much of it nobody is pointed at, and
its file stays here. A log segment in the state "damaged" is kept beside the unit that has what is
good of it. Buckets that need what is bad keep the roots that Forge has of them until they do not.

At the end it says up to which commit Forge has everything, how old the oldest commit is that Forge
lacks, and what holds that up. It may run beside a gateway. A file that is "unlisted" is not known
to the registry: as a rule the one that is prepared for what will be written next."""

Add = Callable[..., argparse.ArgumentParser]


@dataclass(frozen=True, slots=True)
class Line:
    """One segment. ``shipping`` is None where nothing ships."""

    segment: str
    state: str
    here: bool  # whether its file is
    bytes: int
    first_commit: int
    last_commit: int
    shipping: str | None
    failed_attempts: int
    bad_bytes: int | None  # of it that shipped; 0: blocks are missing; None: all is good


@dataclass(frozen=True, slots=True)
class Survey:
    """``watermark`` is the commit up to which Forge has everything. ``told`` is from the gateway
    and may be older than the rest."""

    segments: list[Line]
    files: dict[str, int]  # by shipping state
    bytes: dict[str, int]
    here_bytes: int
    newest_commit: int
    ships: bool
    watermark: int
    held_by: str | None  # in words; None where Forge has everything
    held_buckets: int  # whose roots at Forge stay behind because of damage
    told: Told | None


def survey(
    files: Mapping[Key, int],
    rows: Sequence[SegmentRow],
    shipments: Sequence[Shipment],
    watermark: int,
    newest_commit: int,
    told: Told | None,
    damage: Sequence[Damage] = (),
    held_buckets: int = 0,
) -> Survey:
    """``files`` are the sizes of the segment files that are here. Pure."""
    bad = {
        (one.stream, one.number): sum(stop - start for start, stop in one.spans) for one in damage
    }
    known = {(row.stream, row.number): row for row in rows}
    shipped = {(one.stream, one.number): one for one in shipments}
    ships = bool(shipments) or told is not None
    # A unit stands for what was replaced: nothing is missing there.
    replaced = {key for key, row in known.items() if row.state == REPLACED and key not in files}
    lines = []
    for key in sorted({*files, *known, *shipped} - replaced):
        row, shipment = known.get(key), shipped.get(key)
        size = files.get(key, row.bytes if row else shipment.bytes if shipment else 0)
        state = row.state if row is not None else "unlisted"
        if key not in files and state != COLD:
            state += ", no file"
        shipping = None
        if shipment is not None:
            shipping = CONFIRMED if shipment.state == INDEXED else shipment.state
        elif ships and row is not None and state not in (DAMAGED, REPLACED):
            shipping = WAITING
        lines.append(
            Line(
                f"{key[0]}-{key[1]:020d}",
                state,
                key in files,
                size,
                row.first_commit if row else 0,
                row.last_commit if row else 0,
                shipping,
                shipment.attempts if shipment else 0,
                bad.get(key),
            )
        )
    counted: dict[str, list[int]] = {state: [] for state in ABOUT}
    for line in lines:
        if line.shipping is not None:
            counted.setdefault(line.shipping, []).append(line.bytes)
    held = None
    if ships and newest_commit > watermark:
        bodies = [number for stream, number in known if stream == BODY]
        held = _held(holder(shipments, bodies, watermark, bad), watermark)
    return Survey(
        lines,
        {state: len(sizes) for state, sizes in counted.items()},
        {state: sum(sizes) for state, sizes in counted.items()},
        sum(files.values()),
        newest_commit,
        ships,
        watermark,
        held,
        held_buckets,
        told,
    )


def _held(by: Shipment | Key | None, watermark: int) -> str:
    if by is None:
        return f"the log from commit {watermark + 1} on is still open, or is to become a unit"
    if not isinstance(by, Shipment):
        return f"{by[0]} {by[1]} is not shipped yet: open, damaged or not looked at"
    text = f"{by.stream} {by.number} is {by.state}"
    if by.state == INDEXED and by.stream == UNIT:
        return f"nothing: {text}, and is about to be counted"
    if by.state == INDEXED:
        return f"{by.stream} {by.number} is shorter at Forge than its commits need: run fsck"
    return text + (f", {by.attempts} attempts failed" if by.attempts else "")


# -- out ------------------------------------------------------------------------------------------


def report(found: Survey, now_ms: int) -> list[str]:
    """The table and its summary, in lines."""
    table = [("segment", "state", *(("shipping",) if found.ships else ()), "size", "commits")]
    for line in found.segments:
        commits = f"{line.first_commit} to {line.last_commit}" if line.last_commit else "-"
        shipping = line.shipping or "-"
        if line.failed_attempts:
            shipping += f" ({line.failed_attempts} failed)"
        if line.bad_bytes is not None:
            shipping += f" (bad: {sized(line.bad_bytes)})" if line.bad_bytes else " (lacks blocks)"
        columns = (shipping,) if found.ships else ()
        table.append((line.segment, line.state, *columns, sized(line.bytes), commits))
    size_at = len(table[0]) - 2
    widths = [max(len(row[at]) for row in table) for at in range(len(table[0]))]
    out = [
        "  ".join(
            text.rjust(width) if at == size_at else text.ljust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
    here = sum(line.here for line in found.segments)
    out += ["", f"{here} files here, {sized(found.here_bytes)}"]
    if found.ships:
        out += _standing(found, now_ms)
    return out


def _standing(found: Survey, now_ms: int) -> list[str]:
    out = [
        f"{state:<10}{found.files[state]:>5} files{sized(found.bytes[state]):>12}  {about}"
        for state, about in ABOUT.items()
        if found.files[state] or state == CONFIRMED
    ]
    out.append(
        f"Forge has everything up to commit {found.watermark}"
        + (f" of {found.newest_commit}" if found.newest_commit else "")
    )
    if found.held_buckets:
        out.append(f"of {found.held_buckets} buckets it keeps older roots, because of damage")
    told = found.told
    if found.held_by is None:
        return out + _told(told)
    if told is not None and told.watermark == found.watermark and told.oldest_ms is not None:
        out.append(f"the oldest commit that it lacks is {aged(now_ms - told.oldest_ms)} old")
    out.append(f"held up: {found.held_by}")
    return out + _told(told)


def _told(told: Told | None) -> list[str]:
    if told is None or not told.problems:
        return []
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(told.at_ms / 1000))
    return [f"the gateway said at {at}:", *(f"  {problem}" for problem in told.problems)]


def sized(size: int) -> str:
    """A size as a person reads it, of three digits or so."""
    for unit, name in ((1024 * GIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            digits = 2 if size < 10 * unit else 1 if size < 100 * unit else 0
            return f"{size / unit:.{digits}f} {name}"
    return f"{size} B"


def aged(ms: int) -> str:
    """An age as a person reads it."""
    seconds = max(0, ms) // 1000
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds // unit} {name}"
    return f"{seconds} s"


# -- the command ----------------------------------------------------------------------------------


def register(commands: Any, add: Add) -> None:
    """Add the command; ``add`` makes one, with the options that all have."""
    text = "list the segments, their states and how far shipping is"
    parser = add(commands, "segments", text, run, DETAILS)
    parser.add_argument("--json", action="store_true", help="one JSON document, sizes in bytes")


def run(config: Config, arguments: argparse.Namespace) -> int:
    found = asyncio.run(_survey(config))
    if arguments.json:
        print(json.dumps(asdict(found), indent=1))
    else:
        print("\n".join(report(found, int(time.time() * 1000))))
    return 0


async def _survey(config: Config) -> Survey:
    """A private Postgres is started for it where none runs, and then nobody else may start one
    meanwhile."""
    from ingot.registry.embedded import EmbeddedPostgres
    from ingot.registry.postgres import Postgres

    directory = existing(config.data_dir)
    async with contextlib.AsyncExitStack() as stack:
        dsn = config.postgres
        if dsn is None:
            private = EmbeddedPostgres(directory.path)
            with contextlib.suppress(ConfigError):  # it runs, hence its Postgres does: adopt that
                stack.enter_context(directory.held())
            dsn = await private.start()
            if not private.adopted:
                stack.push_async_callback(private.stop)
        registry = Postgres(dsn, statement_cache_size=config.postgres_statement_cache)
        await registry.open()
        stack.push_async_callback(registry.close)
        told = told_in(directory.path)
        return survey(
            _files(directory),
            await registry.segments(),
            await registry.shipments(),
            await registry.forge_watermark(),
            (await registry.newest_commit()).sequence,
            told,
            await registry.damage(),
            len(await registry.forge_held()),
        )


def _files(directory: DataDirectory) -> dict[Key, int]:
    from ingot.segments import format

    files = {}
    for name in os.listdir(directory.segments):
        path, key = os.path.join(directory.segments, name), format.parse_name(name)
        if key is not None and key[0] in format.SEGMENTS and os.path.isfile(path):
            files[key] = os.stat(path).st_size
        kept = format.damaged(name)
        if kept is not None and os.path.isfile(path):
            files[format.LOG, kept] = os.stat(path).st_size
    return files
