"""Which Postgres, if any, runs on a cluster: reads ``postmaster.pid`` and does not believe it.

The file survives a kill -9 and a power loss, and its process id may belong to anything by then (in
a container nearly always to something). A server is the cluster's only if its process is a
``postgres`` whose working directory is the cluster. Used by ``ingot.registry.embedded``.
"""

from __future__ import annotations

import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Postmaster:
    """What ``postmaster.pid`` says."""

    pid: int
    status: str  # "starting", "ready", "stopping", "standby"; "" while it is being written


def read(cluster: Path) -> Postmaster | None:
    """The file as it stands; None when there is none or its first line is not there yet."""
    try:
        lines = (cluster / "postmaster.pid").read_text(errors="replace").split("\n")
    except FileNotFoundError:
        return None
    if not lines[0].strip().isdigit():
        return None
    lines += [""] * 8
    return Postmaster(int(lines[0]), lines[7].strip())


def is_alive(postmaster: Postmaster, cluster: Path) -> bool:
    """Whether the process of that number is a Postgres of this cluster."""
    return _belongs(postmaster.pid, cluster)


def processes(cluster: Path) -> list[int]:
    """All Postgres processes of the cluster: backends can outlive a killed postmaster a little."""
    found = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in found if _belongs(pid, cluster)]


def remove_stale(cluster: Path, sockets: Path) -> None:
    """Drop what a dead server left; Postgres itself would take a foreign process for its own."""
    for name in (cluster / "postmaster.pid", *sockets.glob(".s.PGSQL.*")):
        name.unlink(missing_ok=True)


def stop(pid: int, cluster: Path, how: signal.Signals, limit_s: float) -> bool:
    """Signal the server as ``pg_ctl stop`` does and wait for its end; False when it goes on.

    Through a pidfd, taken before the process is identified: the signal reaches it or nobody.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        if not _belongs(pid, cluster):
            return True
        try:
            signal.pidfd_send_signal(descriptor, how)
        except ProcessLookupError:
            return True
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        return bool(poller.poll(limit_s * 1000))
    finally:
        os.close(descriptor)


def _belongs(pid: int, cluster: Path) -> bool:
    try:
        program = os.path.basename(os.readlink(f"/proc/{pid}/exe")).removesuffix(" (deleted)")
        return program == "postgres" and os.path.samefile(f"/proc/{pid}/cwd", cluster)
    except OSError:
        return False
