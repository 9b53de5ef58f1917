"""Keys and delegations in files: made once, whole, private; imports in every form."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ingot.config import Config
from ingot.datadir import DataDirectory
from ingot.errors import ConfigError
from ingot.forge import container
from ingot.forge.container import Form
from ingot.forge.keys import Signer
from ingot.forge.keystore import KeyStore
from tests.forge.builders import ask, grant
from tests.forge.support import NOW, person

SPACE = person(7)


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore(str(tmp_path / "data"))


def test_the_agent_is_made_once_and_private(store: KeyStore) -> None:
    made = store.agent()
    assert store.agent() == made == Signer.from_pem(Path(store.agent_path).read_bytes())
    assert os.stat(store.agent_path).st_mode & 0o777 == 0o600
    assert os.stat(store.directory).st_mode & 0o777 == 0o700
    assert os.listdir(store.directory) == ["agent.pem"]


def test_whoever_asks_at_the_same_time_gets_the_same_key(tmp_path: Path) -> None:
    barrier, found = threading.Barrier(8), []

    def run() -> None:
        mine = KeyStore(str(tmp_path))
        barrier.wait()
        found.append(mine.agent().did)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(found)) == 1
    assert os.listdir(tmp_path / "forge") == ["agent.pem"]


def loosened(path: str) -> None:
    os.chmod(path, 0o640)


def emptied(path: str) -> None:
    Path(path).write_bytes(b"")


def swollen(path: str) -> None:
    Path(path).write_bytes(bytes(100_000))


def a_directory(path: str) -> None:
    os.unlink(path)
    os.mkdir(path, 0o700)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (loosened, "mode 0640 lets others read or change it: chmod 600"),
        (emptied, "no ed25519 key"),
        (swollen, "larger than"),
        (a_directory, "no regular file"),
    ],
)
def test_key_files_that_are_refused(
    store: KeyStore, damage: Callable[[str], None], message: str
) -> None:
    store.agent()
    damage(store.agent_path)
    with pytest.raises(ConfigError, match=message):
        store.agent()


def test_another_users_key_is_refused(store: KeyStore) -> None:
    store.agent()
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to another user")
    os.chown(store.agent_path, 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to user 12345"):
        store.agent()


def test_a_key_of_the_hosts(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    with pytest.raises(ConfigError, match="no such key file"):
        KeyStore(str(tmp_path), str(path)).agent()
    path.write_bytes(person(9).to_pem())
    path.chmod(0o400)
    assert KeyStore(str(tmp_path), str(path)).agent() == person(9)


def test_a_space_of_ones_own(store: KeyStore) -> None:
    with pytest.raises(ConfigError, match="ingot space create"):
        store.identity(NOW)
    space = store.create_space()
    who = store.identity(NOW)
    assert (who.agent, who.space) == (store.agent(), space.did)
    assert len(who.proofs("/blob/add", NOW)) == 1
    with pytest.raises(ConfigError, match="there is a space already"):
        store.create_space()
    assert sorted(os.listdir(store.directory)) == ["agent.pem", "delegations", "space.pem"]
    assert all(os.stat(entry).st_mode & 0o077 == 0 for entry in os.scandir(store.directory))


def test_a_creation_that_was_cut_short_is_finished(store: KeyStore) -> None:
    space = store.create_space()
    os.unlink(store.delegations_path)
    assert store.create_space() == space
    assert store.identity(NOW).space == space.did


@pytest.mark.parametrize("form", [*Form, "body", "bare", "lines"], ids=str)
def test_importing_every_form(store: KeyStore, tmp_path: Path, form: Form | str) -> None:
    right = grant(SPACE, store.agent().did, SPACE.did)
    if form == "body":
        data = container.encode([right])
    elif form == "bare":
        data = right.data
    elif form == "lines":
        data = b"\n " + container.pack([right], Form.BASE64) + b"\n"
    else:
        assert isinstance(form, Form)
        data = container.pack([right], form)
    file = tmp_path / "right"
    file.write_bytes(data)
    assert store.import_file(str(file), NOW) == [right]
    assert store.import_file(str(file), NOW) == []
    assert KeyStore(str(tmp_path / "data")).identity(NOW).space == SPACE.did


def test_importing_a_chain_and_another_space(store: KeyStore, tmp_path: Path) -> None:
    agent, between, other = store.agent().did, person(20), person(21)
    chain = [grant(SPACE, between.did, SPACE.did), grant(between, agent, SPACE.did, "/blob")]
    file = tmp_path / "rights"
    file.write_bytes(container.pack(chain, Form.GZIP))
    assert set(store.import_file(str(file), NOW)) == set(chain)
    who = store.identity(NOW)
    assert who.proofs("/blob/add", NOW) == chain
    with pytest.raises(ConfigError, match="/index/add"):
        who.proofs("/index/add", NOW)
    file.write_bytes(grant(other, agent, other.did).data)
    store.import_file(str(file), NOW)
    with pytest.raises(ConfigError, match="several spaces"):
        store.identity(NOW)
    assert store.identity(NOW, other.did).space == other.did
    with pytest.raises(ConfigError, match="no right over the space did:key:z6Mkstranger"):
        store.identity(NOW, "did:key:z6Mkstranger")


@pytest.mark.parametrize("text", [True, False], ids=["text", "pem"])
def test_importing_a_spaces_key(store: KeyStore, tmp_path: Path, text: bool) -> None:
    file = tmp_path / "key"
    file.write_bytes(SPACE.to_text().encode() + b"\n" if text else SPACE.to_pem())
    (made,) = store.import_file(str(file), NOW)
    assert (made.issuer, made.audience) == (SPACE.did, store.agent().did)
    assert store.import_file(str(file), NOW) == []
    assert store.space_key() == SPACE and store.identity(NOW).space == SPACE.did
    file.write_bytes(person(8).to_pem())
    with pytest.raises(ConfigError, match="another space already"):
        store.import_file(str(file), NOW)


def test_what_is_not_imported(store: KeyStore, tmp_path: Path) -> None:
    agent = store.agent().did
    file = tmp_path / "rights"
    good = grant(SPACE, agent, SPACE.did)
    forged = bytearray(good.data)
    forged[10] ^= 1
    useless = {
        b"": "neither a container",
        b"hello": "neither a container",
        b"MgCnonsense": "no ed25519 key",
        container.pack([grant(SPACE, person(30).did, SPACE.did)], Form.RAW): person(30).did,
        container.pack([grant(SPACE, agent, SPACE.did, expires=NOW)], Form.RAW): "valid now",
        container.pack([ask(SPACE, SPACE.did)], Form.RAW): "for nobody",
        ask(SPACE, SPACE.did).data: "a delegation",
        bytes(forged): "signature",
        b"@" + container.encode([good]).replace(b"ucan/dlg", b"ucan/xxx"): "damaged",
    }
    for data, message in useless.items():
        file.write_bytes(data)
        with pytest.raises(ConfigError, match=message):
            store.import_file(str(file), NOW)
    with pytest.raises(ConfigError, match="No such file"):
        store.import_file(str(tmp_path / "absent"), NOW)
    assert store.delegations() == []


def test_damaged_delegations(store: KeyStore) -> None:
    store.create_space()
    Path(store.delegations_path).write_bytes(b"@broken")
    with pytest.raises(ConfigError, match="damaged.*ingot space import"):
        store.identity(NOW)


def test_a_directory_with_an_identity_only_is_a_data_directory(tmp_path: Path) -> None:
    KeyStore(str(tmp_path / "data")).agent()
    DataDirectory(str(tmp_path / "data")).prepare()


def test_settings() -> None:
    named = Config(
        forge_upload_did="did:web:up.example",
        forge_upload_url="https://up.example",
        forge_indexer_did=person(1).did,
        forge_indexer_url="https://indexer.example/",
        forge_home_node=person(2).did,
    ).forge_settings()
    assert named is not None and named.indexer is not None
    assert named.receipts_url == "https://up.example/receipt" and not named.http.insecure
    assert named.home == person(2).did
    plain = Config(forge_upload_did="did:web:localhost%3A1", forge_upload_url="http://localhost:1")
    found = plain.forge_settings()
    assert found is not None and found.http.insecure and found.indexer is None
    assert Config().forge_settings() is None
    for wrong in (
        {"forge_upload_did": "did:web:up.example"},
        {"forge_upload_did": "up.example", "forge_upload_url": "https://up.example"},
        {"forge_upload_did": "did:web:up.example", "forge_upload_url": "ftp://up.example"},
        {"forge_indexer_did": "did:web:a.example", "forge_indexer_url": "https://a.example"},
    ):
        with pytest.raises(ConfigError, match="forge_"):
            Config(**wrong)
    mixed = Config(
        forge_upload_did="did:web:up.example",
        forge_upload_url="https://up.example",
        forge_indexer_did="did:web:a.example",
        forge_indexer_url="http://a.example",
    )
    with pytest.raises(ConfigError, match="a URL of https"):
        mixed.forge_settings()
