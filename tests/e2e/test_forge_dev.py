"""``ingot serve --forge-dev``: one command that ships, beside a network that ends with it."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import random
import signal
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from ingot import forge_dev
from ingot.cli import main
from ingot.config import Config
from ingot.errors import ConfigError
from ingot.forge.network import Network
from tests.support.process import Gateway
from tests.support.servers import Heard
from tests.support.store import Store

pytestmark = pytest.mark.slow
QUICK = {"INGOT_SEAL_AGE_S": "0.2", "INGOT_UNIT_AGE_S": "0.4", "INGOT_WARM_BYTES": "6MiB"}
DEADLINE_S = 30.0


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_free(directory: Path) -> bool:
    """Whether no process has the network in ``directory``."""
    with (directory / "lock").open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_it_ships_comes_back_after_kill_9_and_reads_what_went(store: Store) -> None:
    network = store.data / "forge-dev"
    body = random.Random(1).randbytes(4 << 20)
    arguments = ("--forge-dev", "--postgres", store.dsn, "--segment-bytes", "1MiB")
    gateway = Gateway(store.data, *arguments, **QUICK)
    client = gateway.client()
    assert client.put("/box", b"").status == 200
    assert client.put("/box/large", body).status == 200
    gone = "SELECT FROM ingot.segments WHERE state = 'cold'"
    until(lambda: bool(store.query(gone)))
    until(lambda: "confirmed" in (listed := store.run("segments")[1]) and " cold " in listed)
    told = Path(gateway.log.name).read_text()
    assert f"a Forge network for development, in {network}" in told
    assert "no place to keep data" in told
    services = tomllib.loads((network / "gateway.toml").read_text())
    assert services["forge_upload_url"] in told
    gateway.kill()
    client.close()

    again = Gateway(store.data, *arguments, **QUICK)  # waits for the end of the other's network
    assert tomllib.loads((network / "gateway.toml").read_text()) == services
    client = again.client()
    assert client.get("/box/large").body == body
    client.close()
    os.kill(again.ready["pid"], signal.SIGINT)
    assert again.process.wait(timeout=DEADLINE_S) == 0
    again.log.close()
    assert is_free(network)  # it ended with the gateway, and before the gateway did


async def test_a_network_that_another_process_has_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forge_dev, "FORGE_DEV_LOCK_S", 0.2)
    async with Network(tmp_path / "forge-dev"):
        ours = forge_dev.DevNetwork(str(tmp_path), logging.getLogger("ingot.tests"))
        with pytest.raises(ConfigError, match="another process has the network.*--config"):
            await ours.start()


async def test_a_network_that_ends_by_itself_is_heard_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ingot").mkdir()  # as in the directory in which somebody made the clone
    monkeypatch.chdir(tmp_path)
    heard = Heard()
    logger = logging.getLogger("ingot.tests.forge_dev")
    logger.addHandler(heard)
    network = forge_dev.DevNetwork(str(tmp_path), logger)
    await network.start()
    try:
        os.kill(network.services["pid"], signal.SIGKILL)
        line = await asyncio.wait_for(heard.line("the development network ended"), DEADLINE_S)
        assert "ingot dev-network --dir" in line
    finally:
        await network.stop()
        logger.removeHandler(heard)
    assert is_free(tmp_path / "forge-dev")


def test_it_and_a_named_network_exclude_one_another() -> None:
    with pytest.raises(ConfigError, match="names another network already"):
        Config(forge_dev=True, forge_upload_did="did:web:a", forge_upload_url="https://a")
    assert Config.load({}, {"INGOT_FORGE_DEV": "1"}).forge_dev
    with pytest.raises(ConfigError, match="INGOT_FORGE_DEV: 'maybe' is neither"):
        Config.load({}, {"INGOT_FORGE_DEV": "maybe"})


def test_help_teaches_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    text = capsys.readouterr().out
    assert "--forge-dev" in text
    assert "ends with it" in text
