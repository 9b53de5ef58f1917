"""Containers: every form of the vectors, HTTP bodies byte for byte, limits, and damage."""

from __future__ import annotations

import base64
import gzip
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.codec import cid, dag_cbor
from ingot.errors import FormatError
from ingot.forge import container, token
from ingot.forge.container import Container, Form
from ingot.forge.errors import TooLarge
from ingot.forge.token import Delegation, Invocation, Receipt, Token
from ingot.limits import (
    CONTAINER_BYTES_MAX,
    CONTAINER_HEADER_READ_MAX,
    CONTAINER_HEADER_WRITE_MAX,
    UCAN_BYTES_MAX,
    UCAN_ENTRIES_MAX,
)
from tests.forge import builders
from tests.forge.builders import ask, grant
from tests.forge.support import NONCE, VECTORS, load, person

FORMS = load("containers.json")
TEXT_FORMS = (Form.BASE64, Form.BASE64URL, Form.GZIP_BASE64, Form.GZIP_BASE64URL)
FLOW = {
    tok.cid: (row["name"], tok)
    for row in load("flow-tokens.json")["tokens"]
    for tok in [token.decode(bytes.fromhex(row["tokenHex"]))]
}


def packed(form: str) -> bytes:
    value = FORMS["forms"][form]
    return bytes.fromhex(value) if form in ("0x40", "0x44") else value.encode()


def names(found: Container) -> set[str]:
    assert not found.undecoded
    return {FLOW[tok.cid][0] for tok in found.tokens()}


@pytest.mark.parametrize("form", list(FORMS["forms"]))
def test_forms(form: str) -> None:
    found = container.unpack(packed(form))
    assert [cid.to_text(tok.cid) for tok in sorted(found.tokens(), key=lambda tok: tok.data)] == (
        FORMS["tokenCids"]
    )
    assert names(found) == {"/blob/add", "delegation space->agent"}
    assert container.encode(found.tokens()).hex() == FORMS["rawHex"]
    again = container.pack(found.tokens(), Form(int(form, 16)))
    assert again[0] == int(form, 16)
    if form in ("0x40", "0x42", "0x43"):
        assert again == packed(form)
    assert container.unpack(again).tokens() == found.tokens()
    if Form(int(form, 16)) in TEXT_FORMS:
        assert container.from_header(f" {packed(form).decode()}\r\n").tokens() == found.tokens()


BODIES = {
    "request-blob-add.cbor": {"/blob/add", "delegation space->agent"},
    "request-conclude.cbor": {"/ucan/conclude", "/http/put receipt"},
    "request-index-add.cbor": {
        "/index/add",
        "delegation space->agent",
        "delegation agent->service /content/retrieve",
    },
    "request-assert-index.cbor": {
        "/assert/index",
        "delegation space->agent",
        "delegation agent->service /content/retrieve",
        "delegation service->indexer /content/retrieve",
    },
    "response-blob-add.cbor": {
        "/blob/add receipt",
        "/blob/allocate",
        "/blob/allocate receipt",
        "/http/put",
        "/blob/accept",
    },
    "receipt-endpoint-accept.cbor": {"/blob/accept receipt", "/assert/location", "/pdp/accept"},
}


@pytest.mark.parametrize("name", list(BODIES))
def test_bodies(name: str) -> None:
    data = (VECTORS / name).read_bytes()
    found = container.decode(data)
    assert names(found) == BODIES[name]
    assert container.encode(found.tokens()) == data
    assert container.encode([*found.tokens(), *found.tokens()][::-1]) == data


def test_all_bodies_are_tested() -> None:
    assert {path.name for path in VECTORS.glob("*.cbor")} == set(BODIES)


def test_the_header_of_a_retrieval() -> None:
    value = (VECTORS / "retrieve-x-ucan-container.txt").read_text()
    found = container.from_header(value)
    assert names(found) == {"/content/retrieve", "delegation space->agent /content/retrieve"}
    (asked,) = found.invocations.values()
    assert set(asked.proofs) == found.delegations.keys()
    again = container.to_header(found.tokens())
    assert again[0] == "E" and container.from_header(again).tokens() == found.tokens()
    assert len(again) < 1000


def test_a_container_is_looked_up() -> None:
    found = container.decode((VECTORS / "response-blob-add.cbor").read_bytes())
    (added,) = [one for one in found.receipts.values() if one.ran not in tasks(found)]
    site: Any = added.result()
    accept = found.invocation_of(bytes(site["site"]["await/ok"]))
    assert accept is not None and accept.command == "/blob/accept"
    put = found.invocation_of(bytes(accept.arguments["_put"]["await/ok"]))  # type: ignore[index]
    assert put is not None and put.command == "/http/put"
    allocated = bytes(put.arguments["destination"]["await/ok"])  # type: ignore[index]
    assert [one.ran for one in found.receipts_of(allocated)] == [allocated]
    assert found.invocation_of(added.cid) is None and found.receipts_of(put.task) == []


def tasks(found: Container) -> set[bytes]:
    return {one.task for one in found.invocations.values()}


@pytest.mark.slow
@given(st.lists(builders.TOKENS, max_size=4), st.sampled_from(list(Form)))
def test_round_trip(tokens: list[Token], form: Form) -> None:
    found = container.unpack(container.pack(tokens, form))
    assert set(found.tokens()) == set(tokens) and not found.undecoded
    for kind, group in (
        (Delegation, found.delegations),
        (Receipt, found.receipts),
        (Invocation, found.invocations),
    ):
        for name, tok in group.items():
            assert type(tok) is kind and tok.cid == name
    body = container.encode(tokens)
    assert container.decode(body).tokens() == found.tokens()
    assert cbor2.loads(body) == {"ctn-v1": sorted({tok.data for tok in tokens})}
    if form in TEXT_FORMS:
        assert set(container.from_header(container.to_header(tokens, form)).tokens()) == set(tokens)


def test_a_token_that_is_none_is_kept_apart() -> None:
    good = ask(person(1), person(1).did)
    body = dag_cbor.encode({"ctn-v1": [b"\x00", good.data, good.data[:-1]]})
    found = container.decode(body)
    assert found.tokens() == [good]
    assert [block for block, _ in found.undecoded] == [b"\x00", good.data[:-1]]
    assert all(isinstance(error, FormatError) for _, error in found.undecoded)


@pytest.mark.slow
@given(st.data())
def test_damage(data: st.DataObject) -> None:
    tokens = data.draw(st.lists(builders.TOKENS, min_size=1, max_size=3))
    whole = container.pack(tokens, data.draw(st.sampled_from(list(Form))))
    changed = data.draw(st.composite(builders.damaged)(whole))
    for read in (container.unpack, container.decode):
        try:
            read(changed)
        except FormatError as error:
            assert error.offset >= 0
    try:
        container.from_header(changed.decode("latin-1"))
    except FormatError:
        return


@given(st.binary(max_size=60), st.sampled_from([b"", *(bytes([form]) for form in Form)]))
def test_any_bytes(data: bytes, front: bytes) -> None:
    for read in (container.unpack, container.decode):
        try:
            read(front + data)
        except FormatError:
            continue


@given(st.text(max_size=40), st.sampled_from(["", *"@BCDEF"]))
def test_any_header(value: str, front: str) -> None:
    with pytest.raises(FormatError):
        container.from_header(front + value)


GOOD = ask(person(1), person(1).did)
RAW = container.encode([GOOD])
ZIPPED = gzip.compress(RAW, mtime=0)  # no time in it: each process names the cases alike


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"A" + RAW,
        b"M" + base64.b64encode(ZIPPED),  # the public specification's letter
        RAW,
        b"@" + RAW + b"\0",
        b"@ " + RAW,
        b"B" + base64.b64encode(RAW).rstrip(b"="),
        b"B" + base64.urlsafe_b64encode(RAW),
        b"C" + base64.b64encode(RAW).rstrip(b"="),
        b"C" + base64.urlsafe_b64encode(RAW + b"\0"),
        b"B!" + base64.b64encode(RAW),
        b"D" + RAW,
        b"D" + ZIPPED[:-1],
        b"D" + ZIPPED + b"\0",
        b"D" + ZIPPED[:-8] + bytes(8),
        b"D" + ZIPPED * 2,
        b"E" + base64.b64encode(RAW),
    ],
    ids=lambda data: repr(data[:12]),
)
def test_malformed_forms(data: bytes) -> None:
    pieces = base64.b64encode(RAW)
    assert b"=" in pieces and (b"+" in pieces or b"/" in pieces)  # else some rows say nothing
    with pytest.raises(FormatError):
        container.unpack(data)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"ctn-v2": []},
        {"ctn-v1": {}},
        {"ctn-v1": b""},
        {"ctn-v1": [], "x": 1},
        {"ctn-v1": ["text"]},
        {"ctn-v1": [[GOOD.data]]},
        {"ctn-v1": [b""] * (UCAN_ENTRIES_MAX + 1)},
    ],
    ids=lambda value: repr(value)[:20],
)
def test_malformed_containers(value: object) -> None:
    with pytest.raises(FormatError):
        container.decode(dag_cbor.encode(value))


def test_headers_of_forms_that_are_no_text() -> None:
    for value in ("@", "D", "@oWZjdG4", "A", "M", "oWZjdG4"):
        with pytest.raises(FormatError, match="letter of a form"):
            container.from_header(value)
    for form in (Form.RAW, Form.GZIP):
        with pytest.raises(FormatError):
            container.from_header(container.pack([GOOD], form).decode("latin-1"))


def test_what_is_unpacked_is_bounded() -> None:
    bomb = gzip.compress(bytes(CONTAINER_BYTES_MAX + 1))
    assert len(bomb) < 10_000
    with pytest.raises(FormatError, match=f"at most {CONTAINER_BYTES_MAX}"):
        container.unpack(b"D" + bomb)
    with pytest.raises(FormatError, match=f"at byte {CONTAINER_BYTES_MAX}"):
        container.decode(bytes(CONTAINER_BYTES_MAX + 1))
    with pytest.raises(FormatError, match="letters"):
        container.from_header("B" + "A" * CONTAINER_HEADER_READ_MAX)
    large = dag_cbor.encode({"ctn-v1": [b"x" * (UCAN_BYTES_MAX + 1)]})
    (refused,) = container.decode(large).undecoded
    assert refused[1].offset == UCAN_BYTES_MAX


def test_what_is_packed_is_bounded() -> None:
    large = [
        ask(person(1), person(1).did, arguments={"a": bytes([at]) * 1_500_000}) for at in range(3)
    ]
    container.decode(container.encode(large[:2]))
    with pytest.raises(TooLarge, match=f"holds {CONTAINER_BYTES_MAX}"):
        container.encode(large)
    chain = [grant(person(1), person(2).did, None, nonce=bytes([at]) * 16) for at in range(80)]
    with pytest.raises(TooLarge, match="shorter chain"):
        container.to_header(chain)
    assert len(container.to_header(chain[:20])) < CONTAINER_HEADER_WRITE_MAX


@pytest.mark.slow
def test_many_tokens() -> None:
    tokens = [
        token.delegate(
            person(1),
            audience="did:web:a",
            subject=None,
            command="/",
            expires=None,
            nonce=at.to_bytes(2, "big"),
        )
        for at in range(UCAN_ENTRIES_MAX + 1)
    ]
    body = container.encode(tokens[1:])
    assert len(container.decode(body).delegations) == UCAN_ENTRIES_MAX
    with pytest.raises(TooLarge, match=f"{len(tokens)} tokens"):
        container.encode(tokens)


def test_names_of_the_transport() -> None:
    assert container.CONTENT_TYPE == "application/vnd.ipld.dag-cbor"
    assert container.HEADER == "X-UCAN-Container"
    assert [bytes([form]) for form in Form] == [b"@", b"B", b"C", b"D", b"E", b"F"]
    assert len(NONCE) == 16
