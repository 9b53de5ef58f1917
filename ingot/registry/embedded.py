"""A private Postgres for one data directory: made, started, adopted, stopped.

Guarantees: durable settings (fsync, full_page_writes and synchronous_commit are on, on the command
line, where no file overrides them); reachable through a unix socket in a directory of mode 0700
and by nobody else, no TCP; in a process session of its own, so a Ctrl-C meant for the gateway does
not reach it; one that a killed gateway left running is adopted, a stale ``postmaster.pid`` is seen
through, an initdb that was interrupted is done again, a server that is killed is started again. No
call blocks the loop, and the permissions of directories that are not ours are never changed.

The cluster is ``<data-dir>/postgres/data``, its socket and log lie beside it. As root, Postgres
runs as another user, who as a rule cannot walk to a data directory in a home of mode 0700; and a
socket's path may not be longer than 107 bytes. Both are got around in one way: the server inherits
an open descriptor of the directory and is told ``/proc/self/fd/N`` as its path, which leads there
without walking; we reach a socket with a long path likewise. Where the plain path will do, it is
used. ``binaries`` says which programs are run and why. Called by ``ingot.server`` and tests.
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import logging
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ingot.errors import ConfigError, Unavailable
from ingot.registry import postmaster
from ingot.registry.binaries import Runner, can_enter, choose_runner, find_binaries

COPIES = Path("/var/lib/ingot")  # of programs that the user who runs them cannot reach
ROLE = "ingot"
START_LIMIT_S = 60.0  # crash recovery of a busy cluster included
STOP_LIMIT_S = 30.0
RESTART_S = (0.1, 1.0, 5.0, 30.0)  # pauses between attempts to start it again
POLL_S = 0.005
LOG_BYTES_MAX = 4 * 1024 * 1024
SOCKET_NAME = ".s.PGSQL.5432"
SOCKET_PATH_BYTES_MAX = 107
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

ALWAYS = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
}
# For a gateway and an operator's psql, on a machine that has better use for its memory. These stand
# in postgresql.conf, where an operator may change them.
MODEST = """
# written by ingot; may be changed
max_connections = 20
shared_buffers = 32MB
max_wal_size = 256MB
min_wal_size = 64MB
checkpoint_timeout = 15min
wal_level = minimal
max_wal_senders = 0
max_worker_processes = 2
max_parallel_workers_per_gather = 0
autovacuum_max_workers = 1
jit = off
huge_pages = off
update_process_title = off
log_checkpoints = off
log_timezone = 'UTC'
timezone = 'UTC'
"""


class EmbeddedPostgres:
    """``await start()`` gives the DSN; ``await stop()`` ends the server, adopted or not."""

    def __init__(
        self, data_dir: str | os.PathLike[str], logger: logging.Logger | None = None
    ) -> None:
        self.home = Path(os.path.abspath(data_dir)) / "postgres"
        self.dsn = ""
        self.adopted = False
        self._logger = logger or logging.getLogger("ingot.registry")
        self._runner: Runner
        self._descriptor = -1  # of ``home``
        self._guard: asyncio.Task[None] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = 0

    async def start(self) -> str:
        """Start or adopt; ConfigError says what to do where that cannot be."""
        await self._in_thread(self.start_blocking)
        self._guard = asyncio.create_task(self._keep_running())
        return self.dsn

    async def stop(self) -> None:
        """A fast shutdown, which rolls back what is open and writes a checkpoint."""
        if self._guard is not None:
            self._guard.cancel()
            await asyncio.wait([self._guard])
            self._guard = None
        await self._in_thread(self.stop_blocking)

    async def _in_thread(self, work: Callable[[], object]) -> None:
        """A thread cannot be cancelled: a cancelled start is undone when it has ended."""
        working = asyncio.get_running_loop().run_in_executor(None, work)
        try:
            await asyncio.shield(working)
        except asyncio.CancelledError:
            await asyncio.wait([working])
            if working.exception() is None and work == self.start_blocking:
                await asyncio.get_running_loop().run_in_executor(None, self.stop_blocking)
            raise

    async def _keep_running(self) -> None:
        """Start the server again when it was killed; who needs it connects again by itself."""
        while True:
            await _ended(self._pid)
            for pause in itertools.chain(RESTART_S, itertools.repeat(RESTART_S[-1])):
                self._logger.error("the private Postgres ended, starting it again")
                try:
                    await self._in_thread(self.start_blocking)
                    break
                except (ConfigError, Unavailable) as error:
                    self._logger.error("%s", error)
                await asyncio.sleep(pause)

    # -- in a thread ------------------------------------------------------------------------------

    @property
    def cluster(self) -> Path:
        return self.home / "data"

    def start_blocking(self) -> str:
        """``start``, for callers without a loop; nobody starts it again when it dies."""
        if self._process is not None and self._process.poll() is not None:
            self._process = None  # that one died
        self._runner = choose_runner()
        try:
            self._open_home()
            with self._locked():
                self.adopted = self._adopt()
                if not self.adopted:
                    self._start_server()
        except OSError as error:
            self._forget()
            raise ConfigError(
                f"the private Postgres in {self.home} cannot be started: {error}; give a database "
                "with --postgres DSN to do without it"
            ) from error
        except BaseException:
            self._forget()
            raise
        self.dsn = f"postgresql://{ROLE}@/postgres?host={quote(self._path_for_socket(), safe='/')}"
        return self.dsn

    def stop_blocking(self) -> None:
        if not self._pid:
            return
        if not self._ended_by(signal.SIGINT):
            self._logger.warning("the private Postgres does not stop, ending it at once")
            self._ended_by(signal.SIGQUIT)
        self._forget()

    def _ended_by(self, how: signal.Signals) -> bool:
        """Signal the server; whether it ended within STOP_LIMIT_S."""
        if self._process is None:  # adopted
            return postmaster.stop(self._pid, self.cluster, how, STOP_LIMIT_S)
        # A child's number is nobody else's before it is waited for, whatever became of its files.
        self._process.send_signal(how)
        try:
            self._process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _forget(self) -> None:
        """Nothing runs, nothing is held."""
        self._process, self._pid = None, 0
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _open_home(self) -> None:
        """``<data-dir>/postgres``, which the runner owns and nobody else may enter."""
        self.home.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.home.exists():
            self.home.mkdir(mode=0o700)
            _sync_directory(self.home.parent)
        owner = self.home.stat().st_uid
        if self._runner.is_other and owner != self._runner.uid:
            if owner != os.getuid():  # taking it would break the owner's gateway, live or not
                raise ConfigError(
                    f"{self.home} belongs to user id {owner}, who runs this gateway: run ingot as "
                    "that user"
                )
            os.chown(self.home, self._runner.uid, self._runner.gid)
        if self._descriptor < 0:
            self._descriptor = os.open(self.home, DIRECTORY)

    def _path_for_server(self) -> str:
        """What the server and initdb are told; from it the socket's path follows as well."""
        if can_enter(self.home, self._runner) and _is_plain(self.home):
            return str(self.home)
        return f"/proc/self/fd/{self._descriptor}"

    def _path_for_socket(self) -> str:
        """What a client in this process is told."""
        return str(self.home) if _is_plain(self.home) else f"/proc/self/fd/{self._descriptor}"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One start at a time; the lock ends with this process at the latest, so its descriptor is
        not the one that the server inherits."""
        descriptor = os.open(self.home, DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _adopt(self) -> bool:
        """Take over a server that runs already; clear away what a dead one left."""
        found = postmaster.read(self.cluster)
        deadline = time.monotonic() + START_LIMIT_S
        while found is not None and postmaster.is_alive(found, self.cluster):
            if found.status == "ready":
                self._pid = found.pid
                self._logger.info("adopted the private Postgres, process %d", found.pid)
                return True
            _wait(deadline, f"the private Postgres (process {found.pid}) is {found.status}")
            found = postmaster.read(self.cluster)
        while left := postmaster.processes(self.cluster):
            _wait(deadline, f"processes {left} of a dead Postgres still use {self.cluster}")
        postmaster.remove_stale(self.cluster, self.home)
        return False

    def _start_server(self) -> None:
        major = self._cluster_version()
        programs = find_binaries(self._runner, major, COPIES)
        if major is None:
            self._make_cluster(programs)
        path = self._path_for_server()
        arguments = [str(programs / "postgres"), "-D", f"{path}/data", "-k", path]
        for name, value in ALWAYS.items():
            arguments += ["-c", f"{name}={value}"]
        if self._log.exists() and self._log.stat().st_size > LOG_BYTES_MAX:
            self._log.replace(self._log.with_suffix(".1"))
        with open(self._log, "ab") as log:
            log_start = log.tell()
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._circumstances(),
            )
        self._process, self._pid = process, process.pid
        try:
            self._wait_until_ready(process, log_start)
        except BaseException:
            postmaster.stop(process.pid, self.cluster, signal.SIGINT, STOP_LIMIT_S)
            process.wait()
            raise

    @property
    def _log(self) -> Path:
        return self.home / "log"

    def _wait_until_ready(self, process: subprocess.Popen[bytes], log_start: int) -> None:
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            found = postmaster.read(self.cluster)
            if found is not None and found.pid == process.pid and found.status == "ready":
                return
            if process.poll() is not None:
                raise ConfigError(f"the private Postgres does not start: {self._said(log_start)}")
            _wait(deadline, f"the private Postgres does not get ready, see {self._log}")

    def _said(self, start: int) -> str:
        """The last two things the server said, as one line: the second tends to be of the kind
        "contains errors", the first says which."""
        with open(self._log, "rb") as log:
            log.seek(start)
            lines = log.read(64 * 1024).decode(errors="replace").splitlines()
        plain = [re.sub(r"^[-0-9]+ [:.0-9]+ UTC \[\d+\] ", "", line).strip() for line in lines]
        return f"{'; '.join(plain[-2:]) or 'it said nothing'} (all of it in {self._log})"

    # -- the cluster ------------------------------------------------------------------------------

    def _cluster_version(self) -> int | None:
        """The major version that made the cluster; None where none was made to its end."""
        try:
            return int((self.cluster / "PG_VERSION").read_text())
        except FileNotFoundError:
            if self.cluster.exists():
                raise ConfigError(
                    f"{self.cluster} is there but is no Postgres cluster: nothing was changed; "
                    "move it away, then rebuild the registry with 'ingot restore'"
                ) from None
            return None
        except ValueError:
            raise ConfigError(f"{self.cluster}/PG_VERSION is damaged") from None

    def _make_cluster(self, programs: Path) -> None:
        """initdb beside the final name, renamed when all of it is synced: half a cluster never has
        the name of a whole one."""
        making = self.home / "data.new"
        shutil.rmtree(making, ignore_errors=True)
        self._initdb(
            programs,
            "--username",
            ROLE,
            "--auth",
            "trust",  # whoever can open the socket may enter; its directory is 0700
            "--encoding",
            "UTF8",
            "--locale",
            "C",
            "--no-sync",
            "--no-instructions",
        )
        with open(making / "postgresql.conf", "a") as settings:
            settings.write(MODEST)
        self._initdb(programs, "--sync-only")
        making.rename(self.cluster)
        _sync_directory(self.home)

    def _initdb(self, programs: Path, *arguments: str) -> None:
        done = subprocess.run(
            [programs / "initdb", "--pgdata", f"{self._path_for_server()}/data.new", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            **self._circumstances(),
        )
        if done.returncode != 0:
            said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()
            raise ConfigError(f"initdb failed in {self.home}: {said[-1]}")

    def _circumstances(self) -> dict[str, Any]:
        """How the programs are run: as whom, where, with which descriptor and variables."""
        return {
            "cwd": "/",
            "env": _environment(),
            "pass_fds": [self._descriptor],
            **self._runner.arguments(),
        }


async def _ended(pid: int) -> None:
    """Wait for the end of a process that need not be our child."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)  # before the close: uvloop aborts otherwise
    finally:
        os.close(descriptor)


def _environment() -> dict[str, str]:
    """Nothing that would redirect Postgres (PGDATA, PGOPTIONS) or translate what it says."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


def _wait(deadline: float, why: str) -> None:
    if time.monotonic() > deadline:
        raise Unavailable(why)
    time.sleep(POLL_S)


def _is_plain(path: Path) -> bool:
    """Short enough for a socket and without what a DSN or a list of directories would split at."""
    fits = len(os.fsencode(path / SOCKET_NAME)) <= SOCKET_PATH_BYTES_MAX
    return fits and re.fullmatch(r"[A-Za-z0-9_./+=-]+", str(path)) is not None


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
