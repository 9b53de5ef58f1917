"""Commit records, checkpoints, bucket configuration: exact, strict, and told apart at a glance."""

from __future__ import annotations

from typing import Any

import dag_cbor as oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.bucket.config_block import BUCKET, decode_config, encode_config
from ingot.bucket.model import BucketConfig
from ingot.codec import cid, dag_cbor
from ingot.codec.dag_cbor import Cid
from ingot.errors import FormatError
from ingot.messages import BodyPosition, CommitRecord, Head, HeadMove
from ingot.segments.commit import (
    CHECKPOINT,
    COMMIT,
    Checkpoint,
    decode_checkpoint,
    decode_commit,
    encode_checkpoint,
    encode_commit,
    is_commit,
    outline_commit,
)

IDS = st.binary(min_size=16, max_size=16)
NUMBERS = st.integers(0, (1 << 63) - 1)
LINKS = st.integers(0, 9).map(lambda n: cid.of_structure(b"%d" % n))
HEADS = st.builds(Head, NUMBERS, st.none() | LINKS, st.none() | LINKS, st.none() | LINKS)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789-.", min_size=3, max_size=63)
MOVES = st.builds(HeadMove, IDS, NAMES, st.none() | HEADS, HEADS) | st.builds(
    HeadMove, IDS, NAMES, HEADS, st.none()
)
POSITIONS = st.builds(BodyPosition, NUMBERS, NUMBERS)
COMMITS = st.builds(
    CommitRecord,
    store=IDS,
    incarnation=NUMBERS,
    lease=IDS,
    segment=NUMBERS,
    sequence=st.integers(1, 1 << 60),
    time_ms=NUMBERS,
    previous=st.none() | LINKS,
    frames=NUMBERS,
    frames_digest=st.binary(min_size=32, max_size=32),
    checkpoint=st.none() | LINKS,
    bodies=st.lists(POSITIONS, max_size=3).map(tuple),
    moves=st.lists(MOVES, max_size=3).map(tuple),
    pins=st.lists(LINKS, max_size=3).map(tuple),
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
CONFIGS = st.builds(
    BucketConfig,
    owner=TEXTS,
    owner_name=TEXTS,
    created_ms=NUMBERS,
    region=TEXTS,
    salt=st.binary(max_size=16),
    documents=st.dictionaries(TEXTS, st.binary(max_size=20), max_size=3),
)

LINK = cid.of_structure(b"x")
SAMPLE = CommitRecord(
    store=b"s" * 16,
    incarnation=2,
    lease=b"l" * 16,
    segment=3,
    sequence=4,
    time_ms=5,
    previous=LINK,
    frames=6,
    frames_digest=b"d" * 32,
    checkpoint=LINK,
    bodies=(BodyPosition(1, 2),),
    moves=(HeadMove(b"b" * 16, "name", Head(0), Head(1, LINK)),),
    pins=(LINK,),
)


@given(COMMITS)
def test_commit_round_trip(record: CommitRecord) -> None:
    block = encode_commit(record)
    decoded = decode_commit(block)
    assert decoded == record
    assert is_commit(block) and is_commit(memoryview(block))
    assert oracle.decode(block)
    roots = [head.objects for move in decoded.moves for head in (move.old, move.new) if head]
    assert {type(link) for link in (*decoded.pins, decoded.previous, *roots)} <= {bytes, type(None)}


@given(COMMITS)
def test_an_outline_says_what_the_record_says(record: CommitRecord) -> None:
    store, bodies, digest, frames, segment, previous, sequence = outline_commit(
        encode_commit(record)
    )
    assert (store, digest, frames) == (record.store, record.frames_digest, record.frames)
    assert (segment, previous, sequence) == (record.segment, record.previous, record.sequence)
    assert tuple(BodyPosition(*each) for each in bodies or ()) == record.bodies


@given(COMMITS, st.data())
def test_an_outline_of_damage_is_refused_or_read_past(
    record: CommitRecord, data: st.DataObject
) -> None:
    block = bytearray(encode_commit(record))
    block[data.draw(st.integers(0, len(block) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        outline_commit(bytes(block))
    except FormatError as error:
        assert 0 <= error.offset <= len(block)


@given(st.builds(Checkpoint, IDS, NUMBERS, st.integers(1, 1 << 60), NUMBERS, LINKS))
def test_checkpoint_round_trip(checkpoint: Checkpoint) -> None:
    block = encode_checkpoint(checkpoint)
    assert decode_checkpoint(block) == checkpoint
    assert not is_commit(block)


@given(CONFIGS)
def test_config_round_trip(config: BucketConfig) -> None:
    assert decode_config(encode_config(config)) == config


@given(COMMITS, st.data())
def test_damage_is_refused_or_another_record(record: CommitRecord, data: st.DataObject) -> None:
    block = bytearray(encode_commit(record))
    block[data.draw(st.integers(0, len(block) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decoded = decode_commit(bytes(block))
    except FormatError as error:
        assert 0 <= error.offset <= len(block)
        return
    assert decoded != record
    assert encode_commit(decoded) == block


@given(st.binary(max_size=40))
def test_other_bytes_are_a_format_error(block: bytes) -> None:
    assert not is_commit(block)
    for read in (decode_commit, decode_checkpoint, decode_config):
        with pytest.raises(FormatError):
            read(block)


def changed(block: bytes, format_name: str, change: dict[str, Any]) -> bytes:
    value = dag_cbor.decode(block)
    assert isinstance(value, dict)
    fields = value[format_name] | change
    return dag_cbor.wrap(format_name, {k: v for k, v in fields.items() if v is not ...})


HEAD = {"sequence": 1}
MOVE = {"bucket": b"b" * 16, "name": "n", "new": HEAD}


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"store": ...},
        {"store": b"short"},
        {"lease": "text"},
        {"sequence": 0},
        {"segment": -1},
        {"frames": None},
        {"time": True},
        {"digest": b"short"},
        {"previous": LINK},  # bytes, not a link
        {"checkpoint": None},
        {"bodies": []},
        {"bodies": [[1]]},
        {"bodies": [[1, -1]]},
        {"bodies": [[1, True]]},
        {"pins": [LINK]},
        {"moves": []},
        {"moves": [1]},
        {"moves": [{**MOVE, "extra": 1}]},
        {"moves": [{"bucket": b"b" * 16, "name": "n"}]},
        {"moves": [{**MOVE, "new": None}]},
        {"moves": [{**MOVE, "bucket": b"b"}]},
        {"moves": [{**MOVE, "old": {}}]},
        {"moves": [{**MOVE, "old": {"sequence": 1, "objects": LINK}}]},
        {"moves": [{**MOVE, "old": {"sequence": 1, "extra": LINK}}]},
    ],
)
def test_fields_of_the_wrong_kind(change: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        decode_commit(changed(encode_commit(SAMPLE), COMMIT, change))


def test_the_offset_of_a_fault_is_where_it_stands() -> None:
    marker = b"not a bucket's id"
    block = changed(encode_commit(SAMPLE), COMMIT, {"moves": [MOVE, {**MOVE, "bucket": marker}]})
    with pytest.raises(FormatError) as caught:
        decode_commit(block)
    assert caught.value.offset == block.index(marker) - 1  # at the head


@pytest.mark.parametrize(
    "change",
    [{"salt": b""}, {"documents": {}}, {"documents": {"a": "text"}}, {"owner": 1}, {"extra": 1}],
)
def test_config_of_the_wrong_kind(change: dict[str, Any]) -> None:
    config = BucketConfig("o", "name", 1, "r", b"salt", {"policy": b"{}"})
    with pytest.raises(FormatError):
        decode_config(changed(encode_config(config), BUCKET, change))


def test_checkpoint_of_the_wrong_kind() -> None:
    block = encode_checkpoint(Checkpoint(b"s" * 16, 1, 2, 3, LINK))
    for change in ({"root": LINK}, {"root": ...}, {"extra": Cid(LINK)}, {"store": b"s"}):
        with pytest.raises(FormatError):
            decode_checkpoint(changed(block, CHECKPOINT, change))


def test_another_format_is_named() -> None:
    block = encode_checkpoint(Checkpoint(b"s" * 16, 1, 2, 3, LINK))
    with pytest.raises(FormatError, match=CHECKPOINT):
        decode_commit(block)
    later = block.replace(b"ingot/checkpoint@1", b"ingot/checkpoint@2")
    with pytest.raises(FormatError, match="ingot/checkpoint@2"):
        decode_checkpoint(later)


def test_envelopes_have_one_entry() -> None:
    for value in ({}, {COMMIT: {}, "x": 1}, [COMMIT], COMMIT):
        with pytest.raises(FormatError):
            decode_commit(dag_cbor.encode(value))
