"""The data directory: whose it is, one holder, nothing foreign touched."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from ingot.datadir import DataDirectory, StoreMark
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


def test_the_names_of_new_directories_are_made_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a power loss takes the whole directory, with what was acknowledged in it."""
    synced = []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    DataDirectory(str(tmp_path / "a" / "b" / "data")).prepare()
    assert synced == [str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b")]
    synced.clear()
    DataDirectory(str(tmp_path / "a" / "b" / "data")).prepare()
    assert synced == []


def test_path_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--data-dir"):
        DataDirectory(str(tmp_path / "file" / "data")).prepare()


def test_the_root_account_s_id_is_kept(tmp_path: Path) -> None:
    directory = opened(tmp_path)
    mark = directory.mark()
    assert mark.root is None
    directory.keep_root("ab" * 32)
    assert directory.mark() == StoreMark(mark.store, mark.incarnation, "ab" * 32)
    directory.unlock()


GOOD = f'"format": 1, "store": "{"0" * 32}", "incarnation": 1'
DAMAGED = ["", "{}", "[]", '{"format": 1, "store": "zz", "incarnation": 1}']
DAMAGED += [f'{{{GOOD}, "root": {root}}}' for root in ("1", '"ab"', f'"{"A" * 64}"')]


@pytest.mark.parametrize("text", DAMAGED)
def test_damaged_mark_is_not_overwritten(tmp_path: Path, text: str) -> None:
    (tmp_path / "STORE").write_text(text)
    directory = opened(tmp_path)
    with pytest.raises(ConfigError, match="restore"):
        directory.mark()
    assert (tmp_path / "STORE").read_text() == text
    directory.unlock()


def test_a_lost_mark_is_not_made_anew_beside_segments(tmp_path: Path) -> None:
    """Another store id would make strangers of the segments and of the registry."""
    directory = opened(tmp_path)
    mark = directory.mark()
    (tmp_path / "segments").mkdir()
    (tmp_path / "STORE").rename(tmp_path / "STORE.lost")
    (tmp_path / "segments" / "log-00000000000000000001.car").write_bytes(b"")
    with pytest.raises(ConfigError, match="restore"):
        directory.mark()
    assert not (tmp_path / "STORE").exists()
    (tmp_path / "STORE.lost").rename(tmp_path / "STORE")
    assert directory.mark() == mark
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


def edited(directory: DataDirectory, **changes: object) -> DataDirectory:
    """The same directory, locked again after ``changes`` to what LEASE says."""
    path = Path(directory.path) / "LEASE"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    directory.unlock()
    return opened(Path(directory.path))


def test_lease_token_of_a_copy_is_not_believed(tmp_path: Path) -> None:
    """The process that took it may live: it holds the lock of the original."""
    original = opened(tmp_path / "data")
    original.mark()
    original.keep_lease(b"t" * 16)
    subprocess.run(["cp", "-a", tmp_path / "data", tmp_path / "copy"], check=True)
    copy = opened(tmp_path / "copy")
    assert copy.mark() == original.mark()
    assert copy.last_lease() is None
    copy.keep_lease(b"u" * 16)
    assert copy.last_lease() == b"u" * 16
    original.unlock()
    assert opened(tmp_path / "data").last_lease() == b"t" * 16


def test_lease_token_of_another_machine_or_boot_is_not_believed(tmp_path: Path) -> None:
    directory = opened(tmp_path)
    directory.keep_lease(b"t" * 16)
    kept = json.loads((tmp_path / "LEASE").read_text())
    directory = edited(directory)
    assert directory.last_lease() == b"t" * 16
    directory = edited(directory, boot="3f1a2b5c-0000-4000-8000-000000000000")
    assert directory.last_lease() is None
    directory = edited(directory, boot=kept["boot"], device=kept["device"] + 1)
    assert directory.last_lease() is None


@pytest.mark.parametrize("text", ["", "74" * 16, "{}", "[]", '{"token": "zz"}', '{"token": 3}'])
def test_a_lease_file_that_says_too_little_is_not_believed(tmp_path: Path, text: str) -> None:
    (tmp_path / "STORE").write_text("")
    (tmp_path / "LEASE").write_text(text)
    directory = opened(tmp_path)
    assert directory.last_lease() is None
    directory.unlock()
