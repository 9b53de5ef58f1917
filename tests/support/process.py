"""``ingot serve`` and ``ingot dev-network`` as child processes, for tests that kill them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from tests.support import forking
from tests.support.client import Client

ACCESS_KEY = "AKIATESTS00000000000"
SECRET_KEY = "tests-secret-key-000000000000000000000000"

INGOT = (sys.executable, "-m", "ingot.cli")


def start(
    command: list[str],
    log: IO[bytes],
    environment: Mapping[str, str],
    under: tuple[str, ...] = (),
) -> tuple[forking.Process | subprocess.Popen[bytes], dict[str, Any]]:
    """A command of ``ingot`` that takes ``--ready-fd``, and what it wrote there once it was ready.
    ``log`` is closed where it never is."""
    read_end, write_end = os.pipe()
    command = [*command, "--ready-fd", str(write_end)]
    settings = {**os.environ, **environment}
    process: forking.Process | subprocess.Popen[bytes]
    if under:
        command = [*under, *INGOT, *command]
        process = subprocess.Popen(
            command, pass_fds=[write_end], env=settings, stdout=log, stderr=log
        )
    else:
        output = log.fileno()
        process = forking.ingot().start(command, settings, output, output, passed=[write_end])
    os.close(write_end)
    with os.fdopen(read_end) as ready:
        line = ready.readline()
    if not line:
        process.wait()
        text = Path(log.name).read_text()[-3000:]
        log.close()
        raise AssertionError(f"{command} ended with {process.returncode}:\n{text}")
    return process, json.loads(line)


class DevNetwork:
    """A Forge network in ``directory``; ready when the constructor returns."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.directory = directory
        self.log = (directory.parent / (directory.name + ".log")).open("ab")
        command = ["dev-network", "--dir", str(directory), *arguments]
        self.process, self.ready = start(command, self.log, {})
        self.config = directory / "gateway.toml"

    def kill(self) -> None:
        """kill -9, all services at once."""
        self.process.kill()
        self.process.wait()
        self.log.close()

    def pause(self) -> None:
        """Accept connections, answer nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)


def make_space(data_dir: Path) -> None:
    """Give a gateway a space of its own, once."""
    command = ["space", "create", "--data-dir", str(data_dir)]
    status, _, said = forking.ingot().run(command, os.environ)
    assert status == 0, said


class Gateway:
    """Started by the constructor; ready when that returns. ``start_s`` is how long that took, of
    which importing is no part."""

    def __init__(
        self, data_dir: Path, *arguments: str, under: tuple[str, ...] = (), **environment: str
    ) -> None:
        """``under`` is a command that runs the gateway, such as strace."""
        settings = {"INGOT_ACCESS_KEY": ACCESS_KEY, "INGOT_SECRET_KEY": SECRET_KEY, **environment}
        self.log = (data_dir.parent / (data_dir.name + ".log")).open("ab")
        began = time.monotonic()
        command = ["serve", "--data-dir", str(data_dir), "--listen", "127.0.0.1:0", *arguments]
        self.process, self.ready = start(command, self.log, settings, under)
        self.start_s = time.monotonic() - began
        self.url: str = self.ready["url"]

    def client(self) -> Client:
        return Client(self.url, ACCESS_KEY, SECRET_KEY)

    def kill(self) -> None:
        """kill -9, as a crash."""
        self.process.kill()
        self.process.wait()
        self.log.close()

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        if self.process.poll() is None:
            os.kill(self.ready["pid"], signal.SIGTERM)
        status = self.process.wait(timeout=60)
        self.log.close()
        return status

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.log.closed:
            self.stop()
