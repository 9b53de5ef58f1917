"""The data directory: whose it is, one holder, nothing foreign touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingot.datadir import DataDirectory
from ingot.errors import ConfigError


def opened(path: Path) -> DataDirectory:
    directory = DataDirectory(str(path))
    directory.prepare()
    assert directory.lock()
    return directory


def test_mark_is_made_once_and_kept(tmp_path: Path) -> None:
    first = opened(tmp_path / "data")
    mark = first.mark()
    first.unlock()
    again = opened(tmp_path / "data")
    assert again.mark() == mark
    again.unlock()


def test_one_holder(tmp_path: Path) -> None:
    first = opened(tmp_path)
    second = DataDirectory(str(tmp_path))
    second.prepare()
    assert not second.lock()
    assert second.holder().isdigit()
    first.unlock()
    assert second.lock()
    second.unlock()


def test_foreign_directory_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match=r"thesis\.tex"):
        DataDirectory(str(tmp_path)).prepare()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_path_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--data-dir"):
        DataDirectory(str(tmp_path / "file" / "data")).prepare()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 1, "store": "zz", "incarnation": 1}'])
def test_damaged_mark_is_not_overwritten(tmp_path: Path, text: str) -> None:
    (tmp_path / "STORE").write_text(text)
    directory = opened(tmp_path)
    with pytest.raises(ConfigError, match="restore"):
        directory.mark()
    assert (tmp_path / "STORE").read_text() == text
    directory.unlock()


def test_mark_of_a_later_format(tmp_path: Path) -> None:
    (tmp_path / "STORE").write_text(f'{{"format": 2, "store": "{"0" * 32}", "incarnation": 1}}')
    directory = opened(tmp_path)
    with pytest.raises(ConfigError, match="format 2"):
        directory.mark()
    directory.unlock()


def test_lease_token_survives(tmp_path: Path) -> None:
    directory = opened(tmp_path)
    assert directory.last_lease() is None
    directory.keep_lease(b"t" * 16)
    directory.unlock()
    assert opened(tmp_path).last_lease() == b"t" * 16
