"""``ingot space provision``: before a real upload service that stores for nobody unasked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ingot.cli import main
from ingot.forge import container, did, token
from ingot.forge.container import Form
from ingot.forge.keystore import KeyStore
from ingot.forge.network import Network
from ingot.forge.signature import Attestor
from ingot.forge.token import Delegation

EMAIL = "user+tag@example.com"


class Home:
    """A data directory with a space, before a network."""

    def __init__(self, path: Path, network: Network) -> None:
        self.path, self.network = path, network
        self.data = str(path / "data")
        self.keys = KeyStore(self.data)
        self.space = self.keys.create_space().did

    def run(self, *arguments: str) -> int:
        settings = str(self.network.directory / "gateway.toml")
        return main(["space", *arguments, "--data-dir", self.data, "--config", settings])

    def take_in(self, right: Delegation) -> None:
        file = self.path / "right"
        file.write_bytes(container.pack([right], Form.GZIP_BASE64))
        assert self.run("import", str(file)) == 0


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with Network(tmp_path / "network", nodes=1) as network:
        yield Home(tmp_path, network)


def test_an_account_with_a_plan_provides(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    agent = home.keys.agent().did
    assert home.run("provision") == 2
    assert "no account lets this agent act for it" in capsys.readouterr().err
    home.take_in(home.network.wait(home.network.login(EMAIL, agent)))
    assert home.run("provision", "--account", "other@example.com") == 2
    assert "lets" in capsys.readouterr().err
    assert home.run("provision") == 0
    assert f"provides for {home.space}, on behalf of {did.of_email(EMAIL)}" in (
        capsys.readouterr().out
    )
    assert home.run("provision") == 0
    assert f"provides for {home.space} already" in capsys.readouterr().out
    # The account is no space that a gateway would have to choose from.
    assert home.run("show") == 0
    assert home.keys.identity(2_000_000_000).space == home.space


def test_an_account_without_a_plan_is_told_what_to_do(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    account = did.of_email("poor@example.com")
    home.take_in(
        token.delegate(
            Attestor(account, home.network.upload.signer),
            audience=home.keys.agent().did,
            subject=account,
            command="/provider",
            expires=None,
            nonce=b"",
        )
    )
    assert home.run("provision", "--account", "poor@example.com") == 2
    said = capsys.readouterr().err
    assert "AccountPlanMissing" in said and "choose a plan" in said


@pytest.mark.parametrize("account", ["nobody", "did:x", "@a"])
def test_an_account_that_is_none(
    home: Home, capsys: pytest.CaptureFixture[str], account: str
) -> None:
    assert home.run("provision", "--account", account) == 2
    assert f"--account {account}" in capsys.readouterr().err


def test_without_a_network_there_is_nothing_to_ask(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["space", "provision", "--data-dir", str(tmp_path / "data")]) == 2
    assert "forge_upload_did" in capsys.readouterr().err
