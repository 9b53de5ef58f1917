"""The indexer's answers: the vector byte for byte, what is believed of them, and damage."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.codec import car, cid, dag_cbor, multihash
from ingot.codec.dag_cbor import Cid
from ingot.errors import Corruption, FormatError, IngotError
from ingot.forge import document, index, query
from ingot.forge.errors import Malformed, TooLarge
from ingot.forge.query import Location
from ingot.forge.token import Invocation
from ingot.limits import (
    FORGE_PLACES_MAX,
    FORGE_QUERY_BYTES_MAX,
    FORGE_QUERY_CLAIMS_MAX,
    UCAN_FIELDS_MAX,
)
from tests.forge import builders
from tests.forge.builders import ask, grant
from tests.forge.support import NOW, VECTORS, load, person

EXPECTED = load("query-result.json")
DATA = (VECTORS / "query-result.car").read_bytes()
INDEX = (VECTORS / "index.car").read_bytes()
SPACE = EXPECTED["contextIds"][0]["space"]
LOOKUP = bytes.fromhex(EXPECTED["expected"]["lookup"])
SHARD = bytes.fromhex(EXPECTED["expected"]["shard"])
NODE = person(4)


def places(data: bytes, *spaces: str, now: int = NOW) -> tuple[list[Location], list[IngotError]]:
    answer = query.decode(data)
    good, refused = query.commitments(answer, spaces, now, {})
    return good, [error for _, error in [*answer.refused, *refused]]


def test_the_answer_of_the_vectors() -> None:
    answer = query.decode(DATA)
    assert [cid.to_text(name) for name in answer.claims] == EXPECTED["claims"]
    assert [cid.to_text(name) for name in answer.indexes] == [EXPECTED["indexes"][0]["cid"]]
    assert list(answer.indexes.values()) == [index.decode(INDEX)]
    assert answer.refused == []
    for row in EXPECTED["contextIds"]:
        name = query.context(row["space"], bytes.fromhex(row["multihashHex"]))
        assert name.hex() == row["contextIdHex"]


def test_the_answer_is_reproduced() -> None:
    claims = list(query.decode(DATA).claims.values())
    context = bytes.fromhex(EXPECTED["indexes"][0]["contextIdHex"])
    assert query.encode(claims, {context: INDEX}) == DATA
    *_, (name, root) = car.blocks(DATA)
    assert cid.to_text(name) == EXPECTED["rootCid"] and root.hex() == EXPECTED["rootHex"]
    ((_, empty),) = car.blocks(query.encode([], {}))
    assert empty.hex() == EXPECTED["emptyRootHex"]


def test_the_lookup_of_the_vectors() -> None:
    good, refused = places(DATA, SPACE)
    assert refused == [] and len(good) == 2
    (found,) = query.locate(LOOKUP, good, list(query.decode(DATA).indexes.values()))
    expected = EXPECTED["expected"]
    assert (found.start, found.end) == (expected["start"], expected["end"])
    assert found.urls == (expected["url"],) and found.blob == SHARD
    assert (found.node, found.space) == (found.claim.issuer, SPACE)
    (whole,) = query.locate(SHARD, good, [])
    assert (whole.start, whole.end) == (0, 1409)
    assert query.locate(multihash.of(b"unknown"), good, [index.decode(INDEX)]) == []


def test_the_question_of_the_vectors() -> None:
    assert "GET " + query.path([LOOKUP], [SPACE]) == EXPECTED["query"]
    odd = query.path([LOOKUP, SHARD], ["did:mailto:a:b%2B&c", SPACE], "location")
    assert odd.startswith("/claims?type=location&multihash=zQm") and odd.count("multihash=") == 2
    assert "spaces=did:mailto:a:b%252B%26c&spaces=did:key" in odd


def commitment(signer: Any = NODE, **changes: Any) -> Invocation:
    arguments = {
        "space": SPACE,
        "content": SHARD,
        "location": ["http://a/1", "http://b/1"],
        "range": {"start": 0, "end": 1409},
    }
    more = {"subject": signer.did, "expires": None} | changes
    arguments |= more.pop("arguments", {})
    arguments = {name: value for name, value in arguments.items() if value is not ...}
    subject = more.pop("subject")
    command = more.pop("command", query.LOCATION)
    return ask(signer, subject, command, arguments=arguments, **more)


def test_what_a_commitment_says() -> None:
    made = commitment()
    place = query.location_of(made)
    assert place == Location(NODE.did, SPACE, SHARD, ("http://a/1", "http://b/1"), 0, 1409, made)
    for span, bounds in (
        (..., (0, None)),
        ({}, (0, None)),
        ({"start": 7}, (7, None)),
        ({"end": 7}, (0, 7)),
        ({"start": 7, "end": 7}, (7, 7)),
    ):
        place = query.location_of(commitment(arguments={"range": span}))
        assert (place.start, place.end) == bounds


MALFORMED: list[dict[str, Any]] = [
    {"location": []},
    {"location": ...},
    {"location": "http://a"},
    {"location": [b"http://a"]},
    {"space": ...},
    {"space": "nobody"},
    {"content": ...},
    {"content": "zQm"},
    {"content": Cid(cid.of_chunk(b""))},
    {"range": [0, 9]},
    {"range": {"start": -1}},
    {"range": {"start": 9, "end": 8}},
    {"range": {"end": "9"}},
]


@pytest.mark.parametrize("arguments", MALFORMED, ids=repr)
def test_malformed_commitments(arguments: dict[str, Any]) -> None:
    made = commitment(arguments=arguments)
    with pytest.raises(Malformed):
        query.location_of(made)
    good, refused = places(query.encode([made, commitment()], {}), SPACE)
    assert len(good) == 1 and [type(error) for error in refused] == [Malformed]


def test_other_claims_are_no_commitments() -> None:
    for other in (commitment(command="/assert/index"), grant(NODE, SPACE, None)):
        with pytest.raises(Malformed):
            query.location_of(other)
        assert places(query.encode([other], {}), SPACE) == ([], [])


@pytest.mark.parametrize(
    ("claim", "name"),
    [
        (commitment(subject=person(5).did), "Malformed"),
        (commitment(arguments={"space": person(5).did}), "InvalidSubject"),
        (commitment(expires=NOW), "Expired"),
        (commitment(person(5).issuing_as(NODE.did)), "InvalidSignature"),
        (commitment(NODE.issuing_as("did:web:node.example")), "DIDKeyResolutionError"),
    ],
)
def test_commitments_that_do_not_hold(claim: Invocation, name: str) -> None:
    good, refused = places(query.encode([claim, commitment()], {}), SPACE)
    assert [place.node for place in good] == [NODE.did]
    assert [type(error).__name__ for error in refused] == [name]


def test_a_node_may_be_known_by_its_document() -> None:
    name = "did:web:node.example"
    answer = query.decode(query.encode([commitment(NODE.issuing_as(name))], {}))
    known = {name: document.of_service(name, NODE.did)}
    good, refused = query.commitments(answer, [SPACE], NOW, known)
    assert [place.node for place in good] == [name] and refused == []


def test_ranges_are_absolute_and_inside_the_commitment() -> None:
    block, shards = multihash.of(b"block"), {SHARD: {multihash.of(b"block"): (100, 199)}}
    for span, expected in (
        ({"start": 0, "end": 1409}, [(100, 199)]),
        ({"start": 100, "end": 199}, [(100, 199)]),
        ({"start": 50}, [(100, 199)]),
        ({"start": 101, "end": 1409}, []),
        ({"start": 0, "end": 198}, []),
    ):
        place = query.location_of(commitment(arguments={"range": span}))
        found = query.locate(block, [place], [shards])
        assert [(one.start, one.end) for one in found] == expected


def test_every_place_is_found() -> None:
    """Two nodes have the shard, and the block is a blob of its own at a third."""
    block = multihash.of(b"block")
    held = [query.location_of(commitment(person(number))) for number in (1, 2)]
    held.append(query.location_of(commitment(person(3), arguments={"content": block})))
    shards = {SHARD: {block: (100, 199)}}
    other = {multihash.of(b"other shard"): {block: (1, 2)}}
    found = query.locate(block, held, [other, shards])
    assert {(one.node, one.start, one.end) for one in found} == {
        (person(1).did, 100, 199),
        (person(2).did, 100, 199),
        (person(3).did, 0, 1409),
    }


def test_blocks_that_are_not_what_they_should_be_are_set_aside() -> None:
    claim, other = commitment(), commitment(arguments={"content": LOOKUP})
    index_cid = cid.of_archive(multihash.of(INDEX)[2:])
    root = dag_cbor.encode(
        {
            query.FORMAT: {
                "claims": [Cid(claim.cid), Cid(other.cid), Cid(cid.of_structure(b"gone"))] * 2,
                "indexes": {"any": Cid(index_cid), "other": Cid(claim.cid)},
            }
        }
    )
    blocks = [(claim.cid, claim.data), (other.cid, claim.data), (index_cid, INDEX + b"x")]
    name = cid.of_structure(root)
    answer = query.decode(car.encode_archive([name], [*blocks, (name, root)]))
    assert list(answer.claims) == [claim.cid] and not answer.indexes
    kinds = [(refused, type(error)) for refused, error in answer.refused]
    assert kinds == [
        (other.cid, Corruption),
        (cid.of_structure(b"gone"), FormatError),
        (index_cid, Corruption),
        (claim.cid, FormatError),
    ]


def test_malformed_answers() -> None:
    for value in (
        None,
        {},
        {"other": {}},
        {query.FORMAT: {"claims": []}},
        {query.FORMAT: {"claims": {}, "indexes": {}}},
        {query.FORMAT: {"claims": [b"x"], "indexes": {}}},
        {query.FORMAT: {"claims": [], "indexes": {"a": b"x"}}},
        {query.FORMAT: {"claims": [], "indexes": []}},
        {query.FORMAT: {"claims": [], "indexes": {f"{n:4}": None for n in range(5000)}}},
    ):
        block = dag_cbor.encode(value)
        name = cid.of_structure(block)
        with pytest.raises(FormatError):
            query.decode(car.encode_archive([name], [(name, block)]))
    with pytest.raises(FormatError, match="one root"):
        query.decode(car.encode_archive([], []))
    with pytest.raises(Corruption):
        query.decode(car.encode_archive([cid.of_structure(b"root")], []))
    with pytest.raises(FormatError, match="end of the answer"):
        query.decode(bytes(FORGE_QUERY_BYTES_MAX + 1))
    with pytest.raises(TooLarge):
        query.encode([], {at.to_bytes(2, "big"): b"" for at in range(UCAN_FIELDS_MAX + 1)})


@pytest.mark.slow
@given(
    st.lists(builders.TOKENS, max_size=3),
    st.dictionaries(st.binary(min_size=34, max_size=34), st.just(INDEX), max_size=30),
)
def test_round_trip(claims: list[Any], indexes: dict[bytes, bytes]) -> None:
    data = query.encode(claims, indexes)
    answer = query.decode(data)
    assert list(answer.claims.values()) == list(dict.fromkeys(claims))
    assert len(answer.indexes) == bool(indexes) and not answer.refused
    *_, (_, root) = car.blocks(data)
    value: Any = dag_cbor.decode(root, dag_cbor.BINARY_KEYS)
    named = [key.encode("utf-8", "surrogateescape") for key in value[query.FORMAT]["indexes"]]
    assert named == sorted(indexes)


@given(st.data())
def test_damage(data: st.DataObject) -> None:
    changed = data.draw(st.composite(builders.damaged)(DATA))
    try:
        answer = query.decode(changed)
    except (FormatError, Corruption):
        return
    original = query.decode(DATA)
    assert answer.claims.items() <= original.claims.items()
    good, _ = query.commitments(answer, [SPACE], NOW, {})
    assert set(good) <= set(query.commitments(original, [SPACE], NOW, {})[0])


@given(st.binary(max_size=80))
def test_any_bytes(data: bytes) -> None:
    with pytest.raises((FormatError, Corruption)):
        query.decode(data)


def test_many_claims_and_many_indexes_are_not_multiplied() -> None:
    block, count = multihash.of(b"block"), 2000
    place = query.location_of(commitment())
    shards = [{SHARD: {block: (number % 1000, 1400)}} for number in range(count)]
    began = time.process_time()
    assert len(query.locate(block, [place] * count, shards)) == FORGE_PLACES_MAX  # which all fit
    assert query.locate(block, [replace(place, end=10)] * count, shards) == []  # and none
    assert time.process_time() - began < 1
    itself = query.location_of(commitment(arguments={"content": block}))
    first, *_ = query.locate(block, [place] * count + [itself], shards)
    assert first == itself


def test_what_comes_behind_the_first_claims_is_set_aside() -> None:
    claims = [
        ask(NODE, NODE.did, query.LOCATION, nonce=number.to_bytes(2, "big"))
        for number in range(FORGE_QUERY_CLAIMS_MAX + 1)
    ]
    answer = query.decode(query.encode(claims, {}))
    assert list(answer.claims) == [claim.cid for claim in claims[:-1]]
    ((name, why),) = answer.refused
    assert name == claims[-1].cid and isinstance(why, TooLarge)
