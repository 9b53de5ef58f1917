"""The data directory: whose it is, and that one process at a time has it.

    STORE        JSON: format version, store id (hex), incarnation; written once, synced
    LOCK         held by flock for the life of the process
    LEASE        the registry lease token last taken under this lock (hex)
    segments/    the segment store
    postgres/    the embedded Postgres, where one is used

Guarantees: a directory that holds anything else and no STORE is refused untouched; two processes
never both hold it. LEASE lets the next process take over a lease at once: whoever holds the lock
knows that the process which took that token has ended.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from dataclasses import dataclass

from ingot.errors import ConfigError

FORMAT = 1
OURS = {"STORE", "STORE.new", "LOCK", "LEASE", "LEASE.new", "segments", "postgres"}
OURS |= {"credentials.toml", "credentials.toml.new", "postgres.log", "lost+found"}


@dataclass(frozen=True, slots=True)
class StoreMark:
    """The identity that is also in the registry and in every commit record."""

    store: bytes  # 16 random bytes
    incarnation: int


class DataDirectory:
    """One data directory; ``lock`` first, then ``mark``."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self.segments = os.path.join(self.path, "segments")
        self._lock = -1

    def prepare(self) -> None:
        """Make the directory; ConfigError where it cannot be ours."""
        try:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
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

    def lock(self) -> bool:
        """Try to become the one process that has this directory."""
        path = os.path.join(self.path, "LOCK")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._lock = descriptor
        return True

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

    def mark(self) -> StoreMark:
        """Read the mark, or write a new one into a directory that has none yet."""
        assert self._lock >= 0
        path = os.path.join(self.path, "STORE")
        try:
            with open(path, "rb") as file:
                text = file.read()
        except FileNotFoundError:
            made = StoreMark(secrets.token_bytes(16), 1)
            self._write("STORE", json.dumps(_to_json(made)).encode() + b"\n")
            return made
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from error
        return _from_json(path, text)

    def last_lease(self) -> bytes | None:
        try:
            with open(os.path.join(self.path, "LEASE"), "rb") as file:
                return bytes.fromhex(file.read().decode().strip())
        except (FileNotFoundError, ValueError):
            return None

    def keep_lease(self, token: bytes) -> None:
        self._write("LEASE", token.hex().encode() + b"\n")

    def _write(self, name: str, data: bytes) -> None:
        """Replace a small file so that a crash leaves the old or the new one."""
        path = os.path.join(self.path, name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        descriptor = os.open(path + ".new", flags, 0o600)
        try:
            os.write(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(path + ".new", path)
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _to_json(mark: StoreMark) -> dict[str, object]:
    return {"format": FORMAT, "store": mark.store.hex(), "incarnation": mark.incarnation}


def _from_json(path: str, text: bytes) -> StoreMark:
    try:
        fields = json.loads(text)
        version, store = fields["format"], bytes.fromhex(fields["store"])
        incarnation = int(fields["incarnation"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is damaged ({error}); its store id also stands in every commit record and in "
            "the registry: 'ingot restore --from-segments' rebuilds it"
        ) from error
    if version != FORMAT or len(store) != 16:
        raise ConfigError(f"{path}: format {version} is not known to this version of ingot")
    return StoreMark(store, incarnation)
