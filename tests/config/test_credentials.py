"""Accounts: from a file, from the environment, or made once; mistakes named by file and table."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.credentials import Account, CredentialStore, canonical_id, shown_name
from ingot.errors import ConfigError

ENVIRON = {"INGOT_ACCESS_KEY": "AKIAROOT", "INGOT_SECRET_KEY": "root-secret"}
GOOD = '[[account]]\naccess_key = "AKIAONE"\nsecret_key = "secret-one"\n'


def write(path: Path, text: str, mode: int = 0o600) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_the_environment_names_the_root_account(tmp_path: Path) -> None:
    store = CredentialStore.load(str(tmp_path), environ=ENVIRON)
    root = store.get("AKIAROOT")
    assert root is not None and root is store.root and not store.generated
    assert root.secret_key == "root-secret" and root.id == canonical_id("AKIAROOT")
    assert store.get("AKIAOTHER") is None
    assert os.listdir(tmp_path) == []  # nothing is kept of it


@pytest.mark.parametrize("missing", sorted(ENVIRON))
def test_half_an_environment_is_refused(tmp_path: Path, missing: str) -> None:
    environ = {name: value for name, value in ENVIRON.items() if name != missing}
    with pytest.raises(ConfigError, match="go together"):
        CredentialStore.load(str(tmp_path), environ=environ)


def test_a_root_account_is_made_once_and_kept(tmp_path: Path) -> None:
    first = CredentialStore.load(str(tmp_path), environ={})
    assert first.generated
    kept = tmp_path / "credentials.toml"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert len(first.root.secret_key) >= 40
    second = CredentialStore.load(str(tmp_path), environ={})
    assert not second.generated and second.accounts == first.accounts
    assert sorted(os.listdir(tmp_path)) == ["credentials.toml"]


def test_a_half_written_file_of_a_crash_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "credentials.toml.new").write_text("[[acc")
    assert CredentialStore.load(str(tmp_path), environ={}).generated


def test_two_stores_get_different_accounts(tmp_path: Path) -> None:
    made = set()
    for name in "ab":
        (tmp_path / name).mkdir()
        made.add(CredentialStore.load(str(tmp_path / name), environ={}).root)
    assert len({account.access_key for account in made}) == 2
    assert len({account.secret_key for account in made}) == 2


def test_a_file_of_accounts(tmp_path: Path) -> None:
    path = write(
        tmp_path / "accounts.toml",
        GOOD + '[[account]]\naccess_key = "AKIATWO"\nsecret_key = "secret-two"\n'
        f'display_name = "two"\nid = "{"ab" * 32}"\n',
    )
    store = CredentialStore.load(str(tmp_path), path, {})
    assert [account.access_key for account in store.accounts] == ["AKIAONE", "AKIATWO"]
    assert (
        store.root.id == canonical_id("AKIAONE") and store.root.display_name == store.root.id[:12]
    )
    assert store.get("AKIATWO") == Account("AKIATWO", "secret-two", "ab" * 32, "two")
    assert not store.generated and not (tmp_path / "credentials.toml").exists()


def test_an_access_key_is_no_name() -> None:
    """Nor one that was written as the owner's when it was the default name."""
    key = "AKIAONE"
    assert shown_name(canonical_id(key), key) == canonical_id(key)[:12]
    assert shown_name(canonical_id(key), "photos app") == "photos app"
    assert shown_name("ab" * 32, "") == "ab" * 6


def test_several_keys_may_share_an_account(tmp_path: Path) -> None:
    line = f'id = "{"0a" * 32}"\n'
    text = GOOD + line + GOOD.replace("AKIAONE", "AKIATWO") + line
    store = CredentialStore.load(str(tmp_path), write(tmp_path / "f", text), {})
    assert {account.id for account in store.accounts} == {"0a" * 32}


def test_the_environment_stands_before_the_file(tmp_path: Path) -> None:
    text = GOOD + '[[account]]\naccess_key = "AKIAROOT"\nsecret_key = "another-secret"\n'
    store = CredentialStore.load(str(tmp_path), write(tmp_path / "f", text), ENVIRON)
    assert store.root.secret_key == "root-secret"
    assert [account.access_key for account in store.accounts] == ["AKIAROOT", "AKIAONE"]


KEPT = "5e" * 32


def test_root_from_the_environment_has_the_id_that_was_kept(tmp_path: Path) -> None:
    """Root owns its buckets whatever its access key is today."""
    store = CredentialStore.load(str(tmp_path), environ=ENVIRON, root_id=KEPT)
    assert store.root.id == KEPT and store.root.access_key == "AKIAROOT"


def test_root_that_is_generated_has_the_id_that_was_kept(tmp_path: Path) -> None:
    made = CredentialStore.load(str(tmp_path), environ={}, root_id=KEPT)
    assert made.generated and made.root.id == KEPT
    again = CredentialStore.load(str(tmp_path), environ={})
    assert again.accounts == made.accounts, "the file says it too"


def test_a_generated_root_keeps_its_id_when_its_key_is_edited(tmp_path: Path) -> None:
    made = CredentialStore.load(str(tmp_path), environ={}).root
    path = tmp_path / "credentials.toml"
    path.write_text(path.read_text().replace(made.access_key, "AKIANEW"))
    assert CredentialStore.load(str(tmp_path), environ={}).root.id == made.id


def test_accounts_of_a_file_are_who_the_file_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where one of them stands first: moving tables must not give one's buckets to another."""
    path = write(tmp_path / "f", GOOD)
    named = CredentialStore.load(str(tmp_path), path, {}, root_id=KEPT)
    assert named.root.id == canonical_id("AKIAONE")
    assert named.root_id is None, "it is no root account, whose id would have to be kept"
    both = CredentialStore.load(str(tmp_path), path, ENVIRON, root_id=KEPT)
    assert [account.id for account in both.accounts] == [KEPT, canonical_id("AKIAONE")]
    assert not caplog.text
    write(tmp_path / "credentials.toml", GOOD)
    own = CredentialStore.load(str(tmp_path), None, {}, root_id=KEPT)
    assert own.root.id == canonical_id("AKIAONE") == own.root_id
    assert KEPT in caplog.text and "no account" in caplog.text


def test_buckets_of_nobody_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = CredentialStore.load(str(tmp_path), write(tmp_path / "f", GOOD), {})
    log = logging.getLogger("ingot.test")
    store.check_owners([("mine", canonical_id("AKIAONE")), ("damaged", "")], log)
    assert not caplog.text
    lost = [(f"b{number}", canonical_id("AKIAGONE")) for number in range(3)]
    store.check_owners([*lost, ("mine", canonical_id("AKIAONE"))], log)
    [said] = caplog.messages
    assert canonical_id("AKIAGONE") in said and "3 bucket(s), b0" in said
    caplog.clear()
    store.check_owners([(f"b{number}", f"{number:064x}") for number in range(99)], log)
    assert len(caplog.messages) == 10


def test_the_canonical_id_never_changes() -> None:
    """Buckets are owned by it: another derivation would orphan them."""
    assert canonical_id("AKIAROOT") == (
        "766204d3fa5dcdfad29e319e5f0a26ffb4d219765dc743c783a7898611c08c58"
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no \\[\\[account\\]\\] table"),
        ("[[account]\n", "not TOML"),
        ("\xff", "not TOML"),
        ("account = 3\n", "no \\[\\[account\\]\\] table"),
        ("account = [3]\n", "table 1: not a table"),
        ("user = 1\n" + GOOD, "unknown 'user'"),
        (GOOD + "[[account]]\n", "table 2: access_key"),
        (GOOD + GOOD, "table 2: access key AKIAONE stands there already"),
        (GOOD + "secret = 1\n", "table 1: unknown 'secret'"),
        (GOOD.replace('"secret-one"', "12345678"), "table 1: secret_key is not a string"),
        (GOOD.replace("secret-one", "short"), "table 1: secret_key needs"),
        (GOOD.replace("secret-one", "with a blank"), "table 1: secret_key needs"),
        (GOOD.replace("AKIAONE", "a/b"), "table 1: access_key needs"),
        (GOOD.replace("AKIAONE", "A,B"), "table 1: access_key needs"),
        (GOOD + 'id = "xyz"\n', "table 1: id needs"),
    ],
)
def test_a_wrong_file_is_named_with_its_table(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "accounts.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=complaint) as caught:
        CredentialStore.load(str(tmp_path), str(path), {})
    assert str(path) in str(caught.value)
    assert "secret-one" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        CredentialStore.load(str(tmp_path), str(tmp_path / "missing"), {})
    with pytest.raises(ConfigError, match="directory"):
        CredentialStore.load(str(tmp_path), str(tmp_path), {})


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        CredentialStore.load(str(tmp_path / "missing"), environ={})


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o400, False), (0o640, True)])
def test_a_file_that_others_can_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: bool
) -> None:
    path = write(tmp_path / "accounts.toml", GOOD, mode)
    with caplog.at_level(logging.WARNING):
        CredentialStore.load(str(tmp_path), path, {})
    assert ("chmod 600" in caplog.text) is warned


def test_secrets_do_not_show() -> None:
    assert "root-secret" not in repr(Account("AKIAROOT", "root-secret", "0" * 64, "root"))


def test_a_store_made_by_hand() -> None:
    one, two = (Account(key, "secret-key", canonical_id(key), key) for key in ("one", "two"))
    store = CredentialStore([one, two])
    assert store.root is one and store.get("two") is two
    with pytest.raises(ConfigError, match="no account"):
        CredentialStore([])
    with pytest.raises(ConfigError, match="same access key"):
        CredentialStore([one, one])


@given(st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=40))
def test_any_access_key_has_a_canonical_id(key: str) -> None:
    assert len(canonical_id(key)) == 64 and int(canonical_id(key), 16) >= 0


def test_keys_of_the_environment_replace_those_root_had(tmp_path: Path) -> None:
    made = CredentialStore.load(str(tmp_path), environ={})
    more = '[[account]]\naccess_key = "AKIAAPP"\nsecret_key = "app-secret"\n'
    with (tmp_path / "credentials.toml").open("a") as file:
        file.write(more)
    later = CredentialStore.load(str(tmp_path), environ=ENVIRON, root_id=made.root.id)
    assert later.get(made.root.access_key) is None
    assert later.root.id == made.root.id and later.get("AKIAAPP") is not None
