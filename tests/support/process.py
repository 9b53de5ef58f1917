"""``ingot serve`` as a child process, for tests that kill it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.support.client import Client

ACCESS_KEY = "AKIATESTS00000000000"
SECRET_KEY = "tests-secret-key-000000000000000000000000"


class Gateway:
    """Started by the constructor; ready when that returns. ``start_s`` is how long it took."""

    def __init__(
        self, data_dir: Path, *arguments: str, under: tuple[str, ...] = (), **environment: str
    ) -> None:
        """``under`` is a command that runs the gateway, such as strace."""
        read_end, write_end = os.pipe()
        settings = {"INGOT_ACCESS_KEY": ACCESS_KEY, "INGOT_SECRET_KEY": SECRET_KEY, **environment}
        self.log = (data_dir.parent / (data_dir.name + ".log")).open("ab")
        began = time.monotonic()
        self.process = subprocess.Popen(
            [
                *under,
                *(sys.executable, "-m", "ingot.cli", "serve", "--data-dir", str(data_dir)),
                *("--listen", "127.0.0.1:0", "--ready-fd", str(write_end), *arguments),
            ],
            pass_fds=[write_end],
            env={**os.environ, **settings},
            stdout=self.log,
            stderr=self.log,
        )
        os.close(write_end)
        with os.fdopen(read_end) as ready:
            line = ready.readline()
        self.start_s = time.monotonic() - began
        if not line:
            self.process.wait()
            text = Path(self.log.name).read_text()[-3000:]
            self.log.close()
            raise AssertionError(f"serve ended with {self.process.returncode}:\n{text}")
        self.ready: dict[str, Any] = json.loads(line)
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
