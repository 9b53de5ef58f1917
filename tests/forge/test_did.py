"""DIDs: their kinds and mappings, as other implementations' tables have them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.forge import did
from ingot.forge.errors import Malformed
from ingot.limits import UCAN_NAME_BYTES_MAX
from tests.forge.support import load, person

TABLES = load("did.json")


@pytest.mark.parametrize("row", TABLES["didWebUrls"], ids=lambda row: row["did"])
def test_web_urls(row: dict[str, Any]) -> None:
    assert did.web_url(row["did"]) == row["url"]
    assert did.web_url(row["did"], insecure=True) == row["url"].replace("https", "http", 1)


@pytest.mark.parametrize("row", TABLES["didMailto"], ids=lambda row: row["did"])
def test_mailto(row: dict[str, Any]) -> None:
    assert did.of_email(row["email"]) == row["did"]
    assert did.email_of(row["did"]) == row["email"]


@pytest.mark.parametrize("row", TABLES["methods"], ids=lambda row: row["did"])
def test_methods(row: dict[str, Any]) -> None:
    assert did.check(row["did"]) == row["did"]
    assert did.split(row["did"]) == (row["method"], row["identifier"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "did",
        "did:",
        "did:web",
        "did:web:",
        "did::x",
        "DID:web:x",
        "did:key:",
        "did:key:z",  # no bytes, but base58: the shallow check takes it, see below
        "did:key:mAbc",
        "did:key:z0OIl",
        "did:web:" + "x" * UCAN_NAME_BYTES_MAX,
        "did:web:" + "ü" * (UCAN_NAME_BYTES_MAX // 2),
    ],
)
def test_what_is_no_did(text: str) -> None:
    if text == "did:key:z":
        assert did.tagged_key(did.check(text)) == b""
        return
    with pytest.raises(Malformed):
        did.check(text)


@given(st.binary(max_size=60))
def test_did_keys_round_trip(tagged: bytes) -> None:
    name = did.of_key(tagged)
    assert did.is_key(did.check(name)) and did.tagged_key(name) == tagged


@pytest.mark.parametrize(
    "name",
    [
        "did:web:",
        "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK",
        "did:web:user@example.com",
        "did:web:example.com%2Fpath",
        "did:web:example.com%3A",
        "did:web:example.com%3A99999999",
        "did:web:.example.com",
        "did:web:example.com:",
        "did:web:example.com:..",
        "did:web:example.com:.",
        "did:web:example.com:a:..:b",
        "did:web:example.com:a%2F..%2Fb",
        "did:web:example.com:a/b",
        "did:web:example.com:a?b",
        "did:web:example.com:a#b",
        "did:web:exa mple.com",
        "did:web:[::1]",
    ],
)
def test_a_did_web_leads_nowhere_else(name: str) -> None:
    with pytest.raises(Malformed):
        did.web_url(name)


@pytest.mark.parametrize("name", ["did:web:127.0.0.1%3a80:a.b:...", "did:web:localhost"])
def test_unusual_did_webs(name: str) -> None:
    assert did.web_url(name).startswith("https://")


@given(st.text(st.characters(codec="ascii"), max_size=20))
def test_any_did_web_stays_at_its_host(rest: str) -> None:
    from urllib.parse import urlsplit

    try:
        url = did.web_url(f"did:web:example.com:{rest}")
    except Malformed:
        return
    parts = urlsplit(url)
    assert (parts.scheme, parts.netloc) == ("https", "example.com")
    assert parts.path.endswith("/did.json") and ".." not in parts.path.split("/")
    assert not parts.query and not parts.fragment


@given(st.emails())
def test_accounts_round_trip(email: str) -> None:
    name = did.of_email(email)
    assert did.email_of(did.check(name)) == email
    assert name.count(":") == 3


@pytest.mark.parametrize("email", ["", "x", "@x", "x@", "@"])
def test_what_is_no_email(email: str) -> None:
    with pytest.raises(Malformed):
        did.of_email(email)


@pytest.mark.parametrize(
    "name", ["did:mailto:", "did:mailto:a", "did:mailto::b", "did:mailto:a:b:c", "did:web:a:b"]
)
def test_what_is_no_account(name: str) -> None:
    with pytest.raises(Malformed):
        did.email_of(name)


def test_a_key_is_not_a_service() -> None:
    assert did.is_key(person(1).did) and not did.is_key("did:web:key")
