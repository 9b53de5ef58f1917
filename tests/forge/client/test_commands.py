"""``ingot whoami`` and ``ingot space`` as a shell sees them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ingot.cli import main
from ingot.forge import container
from ingot.forge.container import Form
from ingot.forge.keystore import KeyStore
from tests.forge.builders import grant
from tests.forge.support import person


def test_from_nothing_to_a_space(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data_dir = str(tmp_path / "data")
    assert main(["whoami", "--data-dir", data_dir]) == 0
    shown = capsys.readouterr().out
    agent = KeyStore(data_dir).agent().did
    assert agent in shown and "ingot space create" in shown
    assert main(["space", "show", "--data-dir", data_dir]) == 2
    assert "ingot space import" in capsys.readouterr().err
    assert main(["space", "create", "--data-dir", data_dir]) == 0
    space = KeyStore(data_dir).space_key()
    assert space is not None and space.did in capsys.readouterr().out
    assert main(["space", "show", "--data-dir", data_dir]) == 0
    shown = capsys.readouterr().out
    assert space.did in shown and "all that a gateway needs" in shown
    assert main(["whoami", "--data-dir", data_dir]) == 0
    shown = capsys.readouterr().out
    assert f"/ on {space.did}, without end" in shown and data_dir in shown
    assert main(["space", "create", "--data-dir", data_dir]) == 2


@pytest.mark.parametrize("action", [["show"], ["unname", "bafy"], ["provision"]])
def test_a_question_makes_nothing(
    action: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data_dir = tmp_path / "misspelt"
    network = {"INGOT_FORGE_UPLOAD_DID": "did:web:up", "INGOT_FORGE_UPLOAD_URL": "http://up"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in network.items():
            patch.setenv(name, value)
        assert main(["space", *action, "--data-dir", str(data_dir)]) == 2
    assert str(data_dir) in capsys.readouterr().err
    assert not data_dir.exists()


def test_the_agents_own_key_is_no_space(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data_dir = str(tmp_path / "data")
    agent = KeyStore(data_dir)
    agent.agent()
    assert main(["space", "import", agent.agent_path, "--data-dir", data_dir]) == 2
    assert "agent" in capsys.readouterr().err
    assert KeyStore(data_dir).space_key() is None


def test_importing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data_dir, file = str(tmp_path / "data"), tmp_path / "rights"
    agent, space = KeyStore(data_dir).agent().did, person(5)
    ends = int(time.time()) + 86_400
    file.write_bytes(
        container.pack([grant(space, agent, space.did, "/blob", ends)], Form.GZIP_BASE64)
    )
    assert main(["space", "import", str(file), "--data-dir", data_dir]) == 0
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ends))
    assert f"/blob on {space.did}, until {moment}" in capsys.readouterr().out
    assert main(["space", "import", str(file), "--data-dir", data_dir]) == 0
    assert "there already" in capsys.readouterr().out
    assert main(["space", "show", "--data-dir", data_dir]) == 1
    assert "not allowed: /index/add, /content/retrieve" in capsys.readouterr().out
    file.write_bytes(b"junk")
    assert main(["space", "import", str(file), "--data-dir", data_dir]) == 2
    error = capsys.readouterr().err
    assert str(file) in error and "Traceback" not in error


def test_a_directory_of_somebody_elses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "letters").mkdir()
    assert main(["whoami", "--data-dir", str(tmp_path)]) == 2
    assert "not an ingot data directory" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["letters"]
