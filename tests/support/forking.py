"""Programs in Python that are started often: one process imports the program, each start is a fork
of it. A start then costs a tenth of the processor's time, nearly all of which was importing.

What runs is otherwise as if started alone: its own process with its own environment, directory
and descriptors, ended by its own return, by a signal or by kill -9. What only a start from nothing
shows (options of the interpreter, what is imported when) belongs to tests that use ``subprocess``.
"""

from __future__ import annotations

import atexit
import fcntl
import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
REQUEST_BYTES_MAX = 1 << 17  # arguments and environment
DESCRIPTORS_MAX = 16


class Process:
    """One run of a program; what ``subprocess.Popen`` gives of it."""

    def __init__(self, status: int) -> None:
        """``status`` is a pipe: first comes the process's number, then how it ended."""
        self._status = os.fdopen(status, "rb", buffering=0)
        self._ending = threading.Lock()
        self.returncode: int | None = None
        self.pid = self._number()

    def _number(self) -> int:
        told = self._status.readline()
        assert told, "the process that forks has ended"
        return int(told)

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """TimeoutExpired after so many seconds."""
        ended = self._ended(timeout)
        if ended is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return ended

    def _ended(self, timeout: float | None) -> int | None:
        with self._ending:
            if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
                self.returncode = os.waitstatus_to_exitcode(self._number())
                self._status.close()
            return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Program:
    """``module`` has a ``main`` that reads ``sys.argv`` and returns an exit status; ``also`` are
    modules that it imports later."""

    def __init__(self, module: str, *also: str) -> None:
        self._asking, asked = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with asked:
            command = [sys.executable, "-m", "tests.support.forking", str(asked.fileno()), module]
            command += also
            self._parent = subprocess.Popen(command, cwd=ROOT, pass_fds=[asked.fileno()])
        atexit.register(self._end)

    def _end(self) -> None:
        self._asking.close()
        self._parent.wait()

    def start(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        output: int,
        errors: int,
        *,
        given: int | None = None,
        passed: Sequence[int] = (),
    ) -> Process:
        """``environment`` is all of it; ``passed`` descriptors have the same numbers there."""
        asked = {
            "arguments": list(arguments),
            "environment": dict(environment),
            "directory": os.getcwd(),
            "passed": list(passed),
        }
        said = json.dumps(asked).encode()
        assert len(said) < REQUEST_BYTES_MAX
        told, status = os.pipe()
        with open(os.devnull, "rb") as nothing:
            source = nothing.fileno() if given is None else given
            socket.send_fds(self._asking, [said], [status, source, output, errors, *passed])
        os.close(status)
        return Process(told)

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], given: bytes = b""
    ) -> tuple[int, str, str]:
        """Exit status, what it wrote to its output, and to its errors."""
        with (
            tempfile.TemporaryFile() as source,
            tempfile.TemporaryFile() as output,
            tempfile.TemporaryFile() as errors,
        ):
            source.write(given)
            source.seek(0)
            files = output.fileno(), errors.fileno()
            status = self.start(arguments, environment, *files, given=source.fileno()).wait()
            output.seek(0)
            errors.seek(0)
            return status, output.read().decode(), errors.read().decode()


@functools.cache
def ingot() -> Program:
    """The ``ingot`` command."""
    later = "ingot.server", "ingot.forge.client", "ingot.forge.network", "ingot.bucket.fsck"
    return Program("ingot.cli", *later, "uvloop")


# -- the process that forks ------------------------------------------------------------------------


class Child(NamedTuple):
    number: int
    status: int


def serve(asked: socket.socket) -> dict[str, Any] | None:
    """Fork once a request. In the fork that is returned which it is to run; None here, when nobody
    asks any more."""
    waiting = select.poll()
    waiting.register(asked, select.POLLIN)
    running: dict[int, Child] = {}
    while True:
        for ready, _ in waiting.poll():
            if ready != asked.fileno():
                waiting.unregister(ready)
                os.close(ready)
                child = running.pop(ready)
                _tell(child.status, os.waitpid(child.number, 0)[1])
                os.close(child.status)
                continue
            said, given, _, _ = socket.recv_fds(asked, REQUEST_BYTES_MAX, DESCRIPTORS_MAX)
            if not said:
                return None
            request: dict[str, Any] = json.loads(said)
            status, *given = given
            number = os.fork()
            if number == 0:
                asked.close()
                for handle, child in running.items():
                    os.close(handle)
                    os.close(child.status)
                os.close(status)
                _take([0, 1, 2, *request["passed"]], given)
                return request
            for each in given:
                os.close(each)
            _tell(status, number)
            handle = os.pidfd_open(number)
            running[handle] = Child(number, status)
            waiting.register(handle, select.POLLIN)


def _tell(status: int, number: int) -> None:
    with suppress(BrokenPipeError):  # who asked has ended
        os.write(status, b"%d\n" % number)


def _take(numbers: list[int], given: list[int]) -> None:
    """Give descriptors the numbers they are known by, whatever those are now."""
    above = max(numbers + given) + 1
    held = [fcntl.fcntl(each, fcntl.F_DUPFD, above) for each in given]
    for each in given:
        os.close(each)
    for each, number in zip(held, numbers, strict=True):
        os.dup2(each, number)
        os.close(each)


def main(descriptor: str, module: str, *also: str) -> Any:
    before = dict(os.environ)
    program = importlib.import_module(module)
    for each in also:
        importlib.import_module(each)
    gc.collect()
    gc.freeze()  # or the first collection of each fork would copy all of it
    own = dict(os.environ.items() - before.items())  # what importing set, as awscli's does
    request = serve(socket.socket(fileno=int(descriptor)))
    if request is None:
        return 0
    os.environ.clear()
    os.environ.update(request["environment"] | own)
    os.chdir(request["directory"])
    sys.argv = [module, *request["arguments"]]
    return program.main()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
