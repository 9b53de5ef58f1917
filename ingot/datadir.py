"""The data directory: whose it is, and that one process at a time has it.

    STORE        JSON: format version, store id (hex), incarnation, root's canonical id
    LOCK         held by flock for the life of the process
    LEASE        JSON: the registry lease token last taken under this lock, and which lock that was
    RESTORING    there while a restore is under way, or was cut off: nothing is served then
    segments/    the segment store
    cold/        a note on every segment whose file went because the network has it
    cache/       blocks fetched from the network, which may be thrown away at any time
    postgres/    the embedded Postgres, where one is used
    forge/       keys and delegations of the Forge network, where one was asked for (forge/keystore)

Guarantees: a directory that holds anything else and no STORE is refused untouched; two processes
never both hold it. LEASE lets the next process take over a lease at once: whoever holds the lock
knows that the process which took that token has ended. That is known of this lock only, so LEASE
names its file (device and inode) and the boot of the machine that keeps it: a copy of the
directory, or its disk at another machine, has another lock and proves nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ingot.errors import ConfigError

FORMAT = 1
OURS = {"STORE", "STORE.new", "STORE.damaged", "LOCK", "LEASE", "LEASE.new"}
OURS |= {"segments", "cache", "cold", "postgres", "RESTORING", "RESTORING.new"}
OURS |= {"credentials.toml", "credentials.toml.new", "postgres.log", "forge", "lost+found"}
BOOT_ID = "/proc/sys/kernel/random/boot_id"
_HOW_TO_REBUILD = (
    "its store id also stands in every commit record and in the registry: put the file back, or "
    "rebuild it with 'ingot restore --from-segments'"
)


class DamagedMark(ConfigError):
    """STORE is there, and nobody can tell from it what it said."""


@dataclass(frozen=True, slots=True)
class StoreMark:
    """The identity that is also in the registry and in every commit record."""

    store: bytes  # 16 random bytes
    incarnation: int
    root: str | None = None  # canonical id of the root account; None before the first start ended


class DataDirectory:
    """One data directory; ``lock`` first, then ``mark``."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self.segments = os.path.join(self.path, "segments")
        self.cold = os.path.join(self.path, "cold")
        self._lock = -1

    def prepare(self) -> None:
        """Make the directory; ConfigError where it cannot be ours."""
        try:
            _make(self.path, 0o700)
            names = set(os.listdir(self.path))
        except OSError as error:
            raise ConfigError(
                f"data directory {self.path}: {error.strerror}; choose another with --data-dir"
            ) from error
        if "STORE" not in names and names - OURS:
            stranger = sorted(names - OURS)[0]
            raise ConfigError(
                f"{self.path} is not an ingot data directory (it holds {stranger!r} and no STORE "
                "file); nothing was changed. Choose an empty or new directory with --data-dir"
            )

    def lock(self, change: bool = True) -> bool:
        """Try to become the one process that has this directory. Without ``change`` nothing is
        written for it: where there is no file to lock nobody has it, and nobody is kept out."""
        path = os.path.join(self.path, "LOCK")
        how = os.O_RDWR | os.O_CREAT if change else os.O_RDONLY
        try:
            descriptor = os.open(path, how | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            if change:
                raise
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        if change:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._lock = descriptor
        return True

    @contextlib.contextmanager
    def held(self, change: bool = True) -> Iterator[None]:
        """For a tool that runs while no gateway does; ConfigError where one does."""
        if not self.lock(change):
            raise ConfigError(
                f"process {self.holder()} serves {self.path}: stop that gateway first"
            )
        try:
            yield
        finally:
            self.unlock()

    def holder(self) -> str:
        """The process id that the lock's holder wrote, for messages."""
        try:
            with open(os.path.join(self.path, "LOCK")) as file:
                return file.read().strip() or "unknown"
        except OSError:
            return "unknown"

    def unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def found_mark(self) -> StoreMark | None:
        """The mark that is there, or None. DamagedMark, or ConfigError where it may not be read or
        a later version wrote it."""
        path = os.path.join(self.path, "STORE")
        try:
            with open(path, "rb") as file:
                text = file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from error
        return _from_json(path, text)

    def mark(self) -> StoreMark:
        """Read the mark, or write a new one into a directory that has none yet."""
        assert self._lock >= 0
        if self.restoring:
            raise ConfigError(
                f"a restore into {self.path} was cut off: nothing is served and nothing was "
                "changed. Begin 'ingot restore --from-forge' again, it goes on from there"
            )
        found = self.found_mark()
        if found is not None:
            return found
        if os.path.isdir(self.segments) and os.listdir(self.segments):
            path = os.path.join(self.path, "STORE")
            raise ConfigError(f"{path} is missing beside segments; {_HOW_TO_REBUILD}")
        made = StoreMark(secrets.token_bytes(16), 1)
        self._write_mark(made)
        return made

    def put_mark(self, mark: StoreMark) -> None:
        """Put ``mark`` in the place of the one there; what is left of a damaged one is kept as
        STORE.damaged."""
        assert self._lock >= 0
        path = os.path.join(self.path, "STORE")
        try:
            self.found_mark()
        except DamagedMark:
            os.rename(path, path + ".damaged")
        self._write_mark(mark)

    @property
    def restoring(self) -> bool:
        """Whether a restore is under way here, or was cut off."""
        return os.path.exists(os.path.join(self.path, "RESTORING"))

    def begin_restore(self) -> None:
        """Nothing is served from here until ``end_restore``."""
        assert self._lock >= 0
        self._write("RESTORING", b"see 'ingot restore --help'\n")

    def end_restore(self) -> None:
        os.unlink(os.path.join(self.path, "RESTORING"))
        _sync_directory(self.path)

    def keep_root(self, canonical_id: str) -> None:
        """Root is this canonical id from now on."""
        self._write_mark(replace(self.mark(), root=canonical_id))

    def _write_mark(self, mark: StoreMark) -> None:
        self._write("STORE", json.dumps(_to_json(mark)).encode() + b"\n")

    def last_lease(self) -> bytes | None:
        """The token of a holder that has surely ended: it was taken under the lock that is held
        now. None where that cannot be known; the lease then has to expire."""
        try:
            with open(os.path.join(self.path, "LEASE"), "rb") as file:
                kept = json.load(file)
            token = bytes.fromhex(kept.pop("token"))
            return token if kept == self._this_lock() else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def keep_lease(self, token: bytes) -> None:
        """OSError where it cannot be written."""
        kept = {"token": token.hex(), **self._this_lock()}
        self._write("LEASE", json.dumps(kept).encode() + b"\n")

    def _this_lock(self) -> dict[str, object]:
        """What no copy of the lock's file has in common with it while both exist."""
        assert self._lock >= 0
        found = os.fstat(self._lock)
        with open(BOOT_ID) as file:
            boot = file.read().strip()
        return {"boot": boot, "device": found.st_dev, "inode": found.st_ino}

    def _write(self, name: str, data: bytes) -> None:
        """Replace a small file so that a crash leaves the old or the new one."""
        path = os.path.join(self.path, name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with open(os.open(path + ".new", flags, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(path + ".new", path)
        _sync_directory(self.path)


def _make(path: str, mode: int) -> None:
    """The directory and those above it, where they are not there; their names are durable."""
    if os.path.isdir(path):
        return
    above = os.path.dirname(path)
    _make(above, 0o777)
    with contextlib.suppress(FileExistsError):  # made meanwhile, or no directory: listing it tells
        os.mkdir(path, mode)
    _sync_directory(above)


def _sync_directory(path: str) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _to_json(mark: StoreMark) -> dict[str, object]:
    fields = {"format": FORMAT, "store": mark.store.hex(), "incarnation": mark.incarnation}
    return fields if mark.root is None else {**fields, "root": mark.root}


def _from_json(path: str, text: bytes) -> StoreMark:
    try:
        fields = json.loads(text)
        version, store = fields["format"], bytes.fromhex(fields["store"])
        incarnation, root = int(fields["incarnation"]), fields.get("root")
        if root is not None and not re.fullmatch("[0-9a-f]{64}", root):
            raise ValueError(f"root is {root!r}, no canonical id")
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedMark(f"{path} is damaged ({error}); {_HOW_TO_REBUILD}") from error
    if version != FORMAT or len(store) != 16:
        raise ConfigError(f"{path}: format {version} is not known to this version of ingot")
    return StoreMark(store, incarnation, root)


def existing(path: str) -> DataDirectory:
    """A data directory that must be a store already: a report makes nothing. ConfigError."""
    directory = DataDirectory(path)
    if not os.path.exists(os.path.join(directory.path, "STORE")):
        raise ConfigError(f"{directory.path} is no ingot data directory (it has no STORE file)")
    return directory
