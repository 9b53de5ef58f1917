"""What ``ingot segments`` makes of files, rows, shipments and what the gateway told."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from ingot.messages import BodyPosition, Shipment
from ingot.segments.model import Key, Row
from ingot.segments_command import Survey, aged, report, sized, survey
from ingot.standing import Told

NOW = 1_800_000_000_000
DIGEST = b"\x12\x20" + bytes(32)


def row(key: Key, state: str, size: int, first: int = 0, last: int = 0) -> Row:
    return Row(*key, state, size, None, first, last)


def unit(
    number: int, state: str, first: int, last: int, needs: int = 0, attempts: int = 0
) -> Shipment:
    position = BodyPosition(needs, 10) if needs else None
    return Shipment("unit", number, state, DIGEST, (), 2048, first, last, position, attempts)


def body(number: int, state: str) -> Shipment:
    return Shipment("body", number, state, DIGEST, (), 1000, 0, 0)


ROWS = [
    row(("body", 1), "cold", 1000),
    row(("log", 1), "replaced", 9000, 1, 5),
    row(("log", 3), "open", 300, 9, 9),
    row(("unit", 2), "sealed", 2048, 1, 5),
    row(("unit", 4), "sealed", 2048, 6, 8),
]
FILES = {("log", 3): 300, ("unit", 2): 2048, ("unit", 4): 2048}


def made(*shipments: Shipment, watermark: int = 0, told: Told | None = None) -> Survey:
    return survey(FILES, ROWS, shipments, watermark, 9, told)


def test_without_a_network_nothing_is_said_of_shipping() -> None:
    found = made()
    assert not found.ships and all(line.shipping is None for line in found.segments)
    lines = report(found, NOW)
    assert "shipping" not in lines[0] and "Forge" not in "".join(lines)
    assert lines[-1] == "3 files here, 4.29 KiB"
    keys = (("body", 1), ("log", 3), ("unit", 2), ("unit", 4))  # what was replaced is not missing
    assert [line.split()[0] for line in lines[1:5]] == [f"{name}-{at:020d}" for name, at in keys]


def test_the_table_is_aligned_and_sums_up_by_state() -> None:
    told = Told(NOW - 1000, 5, NOW - 150_000, ["unit 4: https://up.example: no room"])
    found = made(
        body(1, "indexed"),
        unit(2, "indexed", 1, 5, needs=1),
        unit(4, "queued", 6, 8, attempts=3),
        watermark=5,
        told=told,
    )
    lines = report(found, NOW)
    table = lines[: lines.index("")]
    ends = {line.index("iB") for line in table if "iB" in line}
    assert len(ends) == 1
    assert any("queued (3 failed)" in line for line in table)
    assert found.files == {"waiting": 1, "queued": 1, "stored": 0, "confirmed": 2, "refused": 0}
    assert found.bytes["confirmed"] == 1000 + 2048
    rest = lines[lines.index("") :]
    assert "Forge has everything up to commit 5 of 9" in rest
    assert "the oldest commit that it lacks is 2 min old" in rest
    assert "held up: unit 4 is queued, 3 attempts failed" in rest
    assert rest[-1] == "  unit 4: https://up.example: no room"
    assert json.loads(json.dumps(asdict(found)))["told"]["oldest_ms"] == NOW - 150_000


@pytest.mark.parametrize(
    ("shipments", "watermark", "held"),
    [
        ([unit(2, "refused", 1, 5)], 0, "unit 2 is refused"),
        ([unit(2, "indexed", 1, 5, needs=1)], 0, "body 1 is not shipped yet"),
        ([unit(2, "indexed", 1, 5, needs=1), body(1, "stored")], 0, "body 1 is stored"),
        ([unit(2, "indexed", 1, 5)], 5, "the log from commit 6 on"),
        ([unit(2, "indexed", 1, 5), unit(4, "indexed", 7, 8)], 5, "the log from commit 6 on"),
        ([unit(2, "indexed", 1, 5)], 0, "unit 2 is indexed, and is about to be counted"),
        ([unit(2, "indexed", 1, 9)], 9, ""),
    ],
)
def test_what_holds_the_watermark_is_named(
    shipments: list[Shipment], watermark: int, held: str
) -> None:
    said = made(*shipments, watermark=watermark).held_by or ""
    assert held in said and bool(held) == bool(said)


def test_an_age_that_was_told_for_another_watermark_is_not_shown() -> None:
    told = Told(NOW, 4, NOW - 1000, [])
    lines = report(made(unit(2, "indexed", 1, 5), watermark=5, told=told), NOW)
    assert not any("oldest" in line for line in lines)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1 << 20, "1.00 MiB"),
        (254 << 20, "254 MiB"),
        (5 << 40, "5.00 TiB"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    assert sized(size) == text


@pytest.mark.parametrize(
    ("ms", "text"), [(-5, "0 s"), (119_999, "119 s"), (120_000, "2 min"), (3 * 86_400_000, "3 d")]
)
def test_ages(ms: int, text: str) -> None:
    assert aged(ms) == text
