"""What the data directory itself knows of segments whose files went because the network has them.

    cold/unit-<20 digits>.cold      a note: the segment's shipment, as the registry had it
    cold/body-<20 digits>.cold
    cold/*.tmp                      one that was being written

    ingot/shipment@1 = { state: text, stream: text, number: uint, digest: bytes, size: uint,
                         first: uint, last: uint, indexes: [bytes], locations: [bytes],
                         needs: [uint, uint] (left out where there are none) }

Guarantee: a note is durable before its segment's file goes. So a registry that is lost, or is
yesterday's, takes no segment out of reach: a start tells it again what the notes say
(``agree``), and ``ingot restore`` reads them.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ingot.codec import dag_cbor
from ingot.codec.fields import open_envelope
from ingot.errors import FormatError
from ingot.limits import COLD_NOTE_BYTES_MAX
from ingot.messages import BodyPosition, Shipment
from ingot.ports import FileSystem, Registry
from ingot.segments.model import COLD, Key

log: Final = logging.getLogger("ingot.segments")

SHIPMENT: Final = "ingot/shipment@1"
SUFFIX: Final = ".cold"


class ColdNotes:
    """Notes in ``directory``, which is their own. All methods wait for the disk: not for a loop."""

    def __init__(self, files: FileSystem, directory: str) -> None:
        self._files = files
        self._directory = directory

    def read(self) -> tuple[dict[Key, Shipment], list[str]]:
        """All notes, and what is wrong with those that cannot be read."""
        found: dict[Key, Shipment] = {}
        faults: list[str] = []
        try:
            names = self._files.listdir(self._directory) if self._there() else []
        except OSError as error:
            return {}, [f"{self._directory} cannot be read: {error}"]
        for name in sorted(names):
            if not name.endswith(SUFFIX):
                continue
            path = os.path.join(self._directory, name)
            try:
                row = decode(self._content(path))
                if _name((row.stream, row.number)) != name:
                    raise FormatError(0, name, f"a note on {row.stream} {row.number}")
            except (OSError, FormatError) as error:
                faults.append(f"{path} cannot be read: {error}")
            else:
                found[row.stream, row.number] = row
        return found, faults

    def keep(self, rows: Iterable[Shipment]) -> None:
        """Make notes of these shipments durable, in place of older ones. OSError."""
        files = self._files
        if not self._there():
            files.mkdir(self._directory)
            files.sync_directory(os.path.dirname(self._directory))
        for row in rows:
            path = os.path.join(self._directory, _name((row.stream, row.number)))
            temporary = path.removesuffix(SUFFIX) + ".tmp"
            if files.exists(temporary):
                files.unlink(temporary)
            fd = files.create(temporary)
            try:
                data, at = encode(row), 0
                while at < len(data):
                    at += files.pwrite(fd, data[at:], at)
                files.fdatasync(fd)
            finally:
                files.close(fd)
            files.rename(temporary, path)
        files.sync_directory(self._directory)

    def _there(self) -> bool:
        return self._files.exists(self._directory)

    def _content(self, path: str) -> bytes:
        fd = self._files.open(path)
        try:
            size = self._files.size(fd)
            if size > COLD_NOTE_BYTES_MAX:
                raise FormatError(COLD_NOTE_BYTES_MAX, "the end of a note", f"{size} bytes")
            return self._files.pread(fd, size, 0)
        finally:
            self._files.close(fd)


@dataclass(frozen=True, slots=True)
class Agreed:
    """``cold``: segments whose files may be gone. ``faults``: what is wrong with the notes."""

    cold: set[Key]
    faults: list[str]


async def agree(registry: Registry, token: bytes, notes: ColdNotes, state: str) -> Agreed:
    """Have the registry and the notes in the data directory tell the same of cold segments; what
    only one of them knows the other is told. ``state`` is that of a confirmed shipment. Notes that
    cannot be read or written are faults, and refuse no start. LeaseLost, Unavailable."""
    noted, faults = await asyncio.to_thread(notes.read)
    rows = {(row.stream, row.number): row for row in await registry.shipments()}
    states = await registry.segments()
    cold = {(row.stream, row.number) for row in states if row.state == COLD}
    for key, row in noted.items():
        known = rows.get(key)
        if known is None or known.state != state:
            log.warning("the registry is told again of %s %d, which is in the network", *key)
            await registry.put_shipment(token, row)
    lacking = [row for key, row in rows.items() if key in cold and key not in noted]
    if lacking:
        try:
            await asyncio.to_thread(notes.keep, lacking)
        except OSError as error:
            faults.append(f"{len(lacking)} cold segments are known to the registry alone: {error}")
    return Agreed(cold | noted.keys(), faults)


def encode(row: Shipment) -> bytes:
    fields: dict[str, object] = {
        "state": row.state,
        "stream": row.stream,
        "number": row.number,
        "digest": row.digest,
        "size": row.bytes,
        "first": row.first_commit,
        "last": row.last_commit,
        "indexes": list(row.indexes),
        "locations": list(row.locations),
    }
    if row.needs is not None:
        fields["needs"] = [row.needs.segment, row.needs.end]
    return dag_cbor.wrap(SHIPMENT, fields)


def decode(block: bytes) -> Shipment:
    """FormatError for anything that ``encode`` would not write."""
    fields = open_envelope(block, SHIPMENT)
    needs = fields.get("needs", list)
    if needs is not None and [type(one) for one in needs] != [int, int]:
        fields.refuse("needs", "a segment and an end", repr(needs)[:99])
    row = Shipment(
        fields.need("stream", str),
        fields.need_uint("number"),
        fields.need("state", str),
        fields.need("digest", bytes),
        _all_bytes(fields.need("locations", list)),
        fields.need_uint("size"),
        fields.need_uint("first"),
        fields.need_uint("last"),
        None if needs is None else BodyPosition(*needs),
        0,
        _all_bytes(fields.need("indexes", list)),
    )
    fields.done()
    return row


def _all_bytes(values: list[object]) -> tuple[bytes, ...]:
    found = tuple(value for value in values if type(value) is bytes)
    if len(found) != len(values):
        raise FormatError(0, "byte strings", repr(values)[:99])
    return found


def _name(key: Key) -> str:
    return f"{key[0]}-{key[1]:020d}{SUFFIX}"
