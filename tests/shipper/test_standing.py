"""How far shipping is, as it is told to other processes."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from ingot.clock import SystemClock
from ingot.shipper.shipper import Standing
from ingot.standing import FILE, Teller, told_in

STANDING = Standing({"queued": 1}, {"queued": 9}, 5, 1234, ["unit 1: no room"])


async def test_what_is_told_is_read_back_and_written_only_when_it_changed(tmp_path: Path) -> None:
    given = [STANDING]

    async def ask() -> Standing:
        return given[-1]

    teller = Teller(str(tmp_path), ask, SystemClock())
    assert told_in(str(tmp_path)) is None
    await teller.tell()
    told = told_in(str(tmp_path))
    assert told is not None
    assert (told.watermark, told.oldest_ms, told.problems) == (5, 1234, ["unit 1: no room"])
    (tmp_path / FILE).unlink()
    await teller.tell()
    assert told_in(str(tmp_path)) is None
    given.append(Standing({}, {}, 6, None, []))
    await teller.tell()
    told = told_in(str(tmp_path))
    assert told is not None and told.watermark == 6
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


async def test_a_failure_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def ask() -> Standing:
        raise OSError("disk")

    teller = Teller(str(tmp_path), ask, SystemClock())
    with caplog.at_level(logging.WARNING):
        await teller.tell()
        await teller.tell()
    assert len(caplog.records) == 1 and "disk" in caplog.text


@pytest.mark.parametrize("text", ["", "{", "[]", '{"at_ms": 1}', '{"a": 1}', "1"])
def test_a_file_of_another_kind_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert told_in(str(tmp_path)) is None
