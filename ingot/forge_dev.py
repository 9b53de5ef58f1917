"""A Forge network for development beside one gateway (``forge_dev``): a child process that ends
with it.

It is ``ingot dev-network`` on ``DIR/forge-dev``, in a process of its own, so that the work of three
services takes nothing from the gateway's loop. Guarantees: it ends when this process does, also by
kill -9, since the child holds the reading end of a pipe; a start after that waits for its end and
finds the same identities, addresses and contents. Signals of the terminal do not reach it: the
gateway may read from it until the gateway's own end. When it ends by itself the network is away,
which is said, and the gateway goes on.

Called by ``ingot.server``, which holds the data directory meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
from typing import Any, Final

from ingot.config import Config
from ingot.errors import ConfigError
from ingot.forge.keystore import KeyStore
from ingot.limits import FORGE_DEV_LOCK_S, FORGE_DEV_POLL_S, FORGE_DEV_START_S, FORGE_DEV_STOP_S

DIRECTORY: Final = "forge-dev"


class DevNetwork:
    """``data_dir`` is the gateway's. Made, started once, stopped once."""

    def __init__(self, data_dir: str, logger: logging.Logger) -> None:
        self.data_dir = os.path.abspath(data_dir)
        self.directory = os.path.join(self.data_dir, DIRECTORY)
        self.services: dict[str, Any] = {}  # as ``Network.describe`` tells them
        self._log = logger
        self._process: subprocess.Popen[bytes] | None = None
        self._leash = -1  # closed, it ends the child
        self._watch = -1  # a pidfd

    async def start(self) -> None:
        """Returns when all services answer. ConfigError where they cannot."""
        await self._until_free()
        loop = asyncio.get_running_loop()
        held, self._leash = os.pipe()
        ready, said = os.pipe()
        try:
            self._process = self._spawn(said, held)
        finally:
            os.close(held)
            os.close(said)
            reading = loop.run_in_executor(None, _line, ready)
        try:
            async with asyncio.timeout(FORGE_DEV_START_S):
                line = await asyncio.shield(reading)
            if not line:
                raise ConfigError(
                    f"the network in {self.directory} did not start: what it said stands above"
                )
        except TimeoutError:
            await self.stop()
            raise ConfigError(
                f"the network in {self.directory} did not answer for {FORGE_DEV_START_S:g} s"
            ) from None
        except BaseException:
            await self.stop()
            raise
        self.services = json.loads(line)
        self._watch = os.pidfd_open(self._process.pid)
        loop.add_reader(self._watch, self._ended)

    def _spawn(self, said: int, held: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                # -P: what lies in the working directory under a name of ours is not ours.
                *(sys.executable, "-P", "-m", "ingot.cli", "dev-network"),
                *("--dir", self.directory),
                *("--ready-fd", str(said), "--until-closed", str(held)),
            ],
            pass_fds=(said, held),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    async def _until_free(self) -> None:
        """Wait for the end of one that a killed gateway left; it is on its way."""
        os.makedirs(self.directory, exist_ok=True)
        lock = os.open(
            os.path.join(self.directory, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            async with asyncio.timeout(FORGE_DEV_LOCK_S):
                while True:
                    try:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        return
                    except BlockingIOError:
                        await asyncio.sleep(FORGE_DEV_POLL_S)
        except TimeoutError:
            raise ConfigError(
                f"another process has the network in {self.directory}: end it, or serve without "
                f"--forge-dev and with --config {os.path.join(self.directory, 'gateway.toml')}"
            ) from None
        finally:
            os.close(lock)

    def _ended(self) -> None:
        self._forget()
        assert self._process is not None
        self._log.error(
            "the development network ended with status %s: nothing is shipped or read from it. "
            "'ingot dev-network --dir %s' starts it again",
            self._process.wait(),
            self.directory,
        )

    def _forget(self) -> None:
        if self._watch >= 0:
            asyncio.get_running_loop().remove_reader(self._watch)
            os.close(self._watch)
            self._watch = -1

    def about(self) -> list[str]:
        """What it is, in lines for whoever started it."""
        named = [(name, self.services[name]) for name in ("upload", "indexer")]
        named += [(f"node {number}", one) for number, one in enumerate(self.services["nodes"])]
        return [
            f"ships to a Forge network for development, in {self.directory}",
            "it ends with this command; it is for trying things and no place to keep data",
            *(f"{name:<8} {one['url']}  {one['did']}" for name, one in named if one),
            f"see what was shipped with 'ingot segments --data-dir {self.data_dir}'",
        ]

    async def stop(self) -> None:
        """Returns when the process has ended."""
        self._forget()
        if self._leash >= 0:
            os.close(self._leash)
            self._leash = -1
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        await asyncio.get_running_loop().run_in_executor(None, _wait, process)


def _line(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as ready:
        return ready.readline()


def _wait(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(FORGE_DEV_STOP_S)
        return
    process.kill()
    process.wait()


def pointed(config: Config, network: DevNetwork, now: int) -> Config:
    """The settings of a gateway before this network, with a key and a space made at its first use.
    ``now`` in seconds since 1970. ConfigError."""
    keys = KeyStore(config.data_dir, config.forge_key)
    if not keys.spaces(now):
        keys.create_space()
    told = network.services
    named = {name: told[name] for name in ("upload", "indexer") if told[name]}
    services = {
        f"forge_{name}_{what}": service[what]
        for name, service in named.items()
        for what in ("did", "url")
    }
    return dataclasses.replace(config, forge_dev=False, **services)
