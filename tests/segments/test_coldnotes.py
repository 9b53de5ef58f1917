"""Notes on cold segments: kept whole, read strictly, agreed with the registry."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ingot.codec import dag_cbor
from ingot.errors import FormatError
from ingot.messages import BodyPosition, Shipment
from ingot.registry import SegmentRow
from ingot.registry.memory import MemoryRegistry
from ingot.segments.coldnotes import SHIPMENT, ColdNotes, agree, decode, encode
from ingot.segments.files import SystemFiles

DIGEST = b"\x12\x20" + bytes(32)
UNIT = Shipment(
    "unit",
    7,
    "indexed",
    DIGEST,
    (b"token", b"another"),
    9000,
    3,
    9,
    BodyPosition(4, 99),
    0,
    (DIGEST,),
)
BODY = Shipment("body", 7, "indexed", DIGEST, (b"token",), 900, 0, 0)


@pytest.mark.parametrize("row", [UNIT, BODY])
def test_a_note_is_read_back(row: Shipment) -> None:
    assert decode(encode(row)) == row


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("needs", [1]),
        ("needs", [1, "2"]),
        ("locations", [1]),
        ("indexes", b""),
        ("number", -1),
        ("digest", "x"),
        ("more", 1),
    ],
)
def test_what_is_no_note(name: str, value: object) -> None:
    fields = dag_cbor.decode(encode(UNIT))
    assert isinstance(fields, dict)
    fields[SHIPMENT][name] = value
    with pytest.raises(FormatError):
        decode(dag_cbor.encode(fields))


def test_notes_in_a_directory(tmp_path: Path) -> None:
    notes = ColdNotes(SystemFiles(), str(tmp_path / "cold"))
    assert notes.read() == ({}, [])
    notes.keep([UNIT, BODY])
    (tmp_path / "cold" / "unit-00000000000000000007.tmp").write_bytes(b"half")
    notes.keep([UNIT])
    found, faults = notes.read()
    assert found == {("unit", 7): UNIT, ("body", 7): BODY} and not faults


def test_one_bad_note_takes_no_other_along(tmp_path: Path) -> None:
    notes = ColdNotes(SystemFiles(), str(tmp_path / "cold"))
    notes.keep([UNIT, BODY])
    cold = tmp_path / "cold"
    os.rename(cold / "unit-00000000000000000007.cold", cold / "unit-00000000000000000008.cold")
    (cold / "unit-00000000000000000009.cold").write_bytes(b"rubbish")
    found, faults = notes.read()
    assert found == {("body", 7): BODY}
    assert len(faults) == 2 and all("cannot be read" in line for line in faults)


def test_notes_that_cannot_be_had_are_a_fault(tmp_path: Path) -> None:
    (tmp_path / "cold").write_bytes(b"a file where the directory should be")
    notes = ColdNotes(SystemFiles(), str(tmp_path / "cold"))
    found, faults = notes.read()
    assert not found and len(faults) == 1 and "cannot be read" in faults[0]
    with pytest.raises(OSError):
        notes.keep([UNIT])


async def test_a_start_goes_on_without_notes(tmp_path: Path) -> None:
    (tmp_path / "cold").write_bytes(b"")
    registry = MemoryRegistry()
    await registry.open()
    token = await registry.acquire("one", 60.0, None)
    assert token is not None
    await registry.put_shipment(token, UNIT)
    await registry.put_segment(SegmentRow("unit", 7, "cold", 9000, None, 3, 9))
    notes = ColdNotes(SystemFiles(), str(tmp_path / "cold"))
    agreed = await agree(registry, token, notes, "indexed")
    assert agreed.cold == {("unit", 7)}
    assert len(agreed.faults) == 2 and "the registry alone" in agreed.faults[1]
