"""Object records: given back exactly, refused where they contradict themselves, quick to skim."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dag_cbor as oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.body.checksums import SIZES
from ingot.bucket.record import (
    OBJECT,
    SUMMARY,
    Record,
    cid_of,
    decode_record,
    encode_record,
    etag_of,
)
from ingot.codec import cid, dag_cbor
from ingot.codec.dag_cbor import Cid
from ingot.errors import Corruption, FormatError
from ingot.limits import BODY_NODE_ENTRIES_MAX, INLINE_BYTES_MAX, OBJECT_BYTES_MAX
from ingot.messages import Body

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
TEXTS = st.dictionaries(TEXT, TEXT, max_size=4)
DIGESTS = st.dictionaries(
    st.sampled_from(["crc64nvme", "sha256", "crc32c"]), st.binary(max_size=32)
)


@st.composite
def bodies(draw: st.DrawFn) -> Body:
    md5 = draw(st.none() | st.binary(min_size=16, max_size=16))
    sha = draw(st.none() | st.binary(min_size=32, max_size=32))
    if draw(st.booleans()):
        inline = draw(st.binary(max_size=200))
        return Body(len(inline), md5, sha, inline)
    lengths = draw(st.lists(st.integers(1, 1 << 20), min_size=1, max_size=5))
    chunks = [(cid.of_chunk(bytes([index])), length) for index, length in enumerate(lengths)]
    return Body(sum(lengths), md5, sha, None, chunks, draw(st.integers(0, 3)))


@st.composite
def records(draw: st.DrawFn) -> Record:
    body = draw(bodies())
    first = draw(st.integers(0, body.size))
    parts = draw(st.just([]) | st.just([first, body.size - first]))
    sums = st.sampled_from(["crc32", "crc64nvme", "sha256"]).map(
        lambda name: {name: bytes(range(SIZES[name])) * 2}
    )
    return Record(
        key=draw(TEXT).encode(),
        body=body,
        etag=draw(st.just("") | TEXT),
        created_ms=draw(st.integers(0, 1 << 45)),
        headers=draw(TEXTS),
        metadata=draw(TEXTS),
        checksums=draw(DIGESTS),
        composite=draw(st.booleans()),
        parts=parts,
        version=draw(st.just("") | TEXT),
        part_checksums=draw(st.just({}) | sums) if parts else {},
    )


SMALL = Record(
    b"a/key",
    Body(3, b"m" * 16, b"s" * 32, b"abc"),
    "etag",
    1_700_000_000_000,
    {"content-type": "text/plain"},
    {"mtime": "1"},
    {"crc64nvme": b"12345678"},
)
CHUNKS = [(cid.of_chunk(b"1"), 1 << 20), (cid.of_chunk(b"2"), 7)]
ASSEMBLED = replace(
    SMALL,
    body=Body((1 << 20) + 7, None, None, None, CHUNKS),
    parts=[1 << 20, 7],
    part_checksums={"crc32": b"11112222"},
)
LARGE = replace(SMALL, body=Body((1 << 20) + 7, None, None, None, CHUNKS))


@given(records())
def test_round_trip(record: Record) -> None:
    block = encode_record(record)
    assert decode_record(block) == record
    assert cid_of(block) == cid.of_structure(block)
    assert oracle.decode(block)  # canonical in another implementation's eyes too


@given(records())
def test_summary_says_what_the_record_says(record: Record) -> None:
    block = encode_record(record)
    etag, size, created, checksums, composite = SUMMARY.pick(block)
    assert (etag or "", size, created) == (record.etag, record.body.size, record.created_ms)
    assert (checksums or {}, composite or False) == (record.checksums, record.composite)
    assert list(checksums or {}) == sorted(record.checksums, key=lambda name: (len(name), name))
    assert etag_of(block) == record.etag


@given(records(), st.data())
def test_damage_is_refused_or_another_record(record: Record, data: st.DataObject) -> None:
    block = bytearray(encode_record(record))
    block[data.draw(st.integers(0, len(block) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decoded = decode_record(bytes(block))
    except (FormatError, Corruption):
        return
    assert decoded != record
    assert encode_record(decoded) == block


@given(st.binary(max_size=80))
def test_other_bytes_are_a_format_error(block: bytes) -> None:
    for read in (decode_record, SUMMARY.pick, etag_of):
        with pytest.raises(FormatError):
            read(block)


def test_a_record_from_before_part_checksums() -> None:
    """Written by the version before the field: read as it is, and written again byte for byte."""
    block = bytes.fromhex(
        "a16e696e676f742f6f626a6563744031a9636b6579616b6465746167782230313233343536373839616263646566"
        "303132333435363738396162636465662d326473697a6509657061727473820504666368756e6b738282d82a5825"
        "00015512206b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b0582d82a5825000155"
        "1220d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35046763726561746564"
        "1b0000018bcfe568006768656164657273a16c636f6e74656e742d747970656a746578742f706c61696e69"
        "636865636b73756d73a1656372633332443132333469636f6d706f73697465f5"
    )
    record = decode_record(block)
    assert (record.key, record.parts, record.part_checksums) == (b"k", [5, 4], {})
    assert (record.checksums, record.composite) == ({"crc32": b"1234"}, True)
    assert encode_record(record) == block


def test_the_checksum_of_one_part() -> None:
    sums = {"crc32": b"1111222233334444", "sha1": bytes(range(80))}
    record = replace(ASSEMBLED, parts=[1 << 20, 3, 3, 1], part_checksums=sums)
    assert decode_record(encode_record(record)) == record
    assert [record.part_checksum("crc32", index) for index in range(4)] == [
        *(b"1111", b"2222", b"3333", b"4444")
    ]
    assert record.part_checksum("sha1", 3) == bytes(range(60, 80))
    assert record.part_checksum("sha256", 0) is None


def test_cids_are_plain_bytes() -> None:
    decoded = decode_record(encode_record(LARGE))
    assert [type(link) for link, _ in decoded.body.chunks] == [bytes, bytes]
    assert type(decoded.key) is bytes


def test_absent_is_left_out() -> None:
    bare = Record(b"k", Body(0, None, None, b""), "", 0)
    block = encode_record(bare)
    assert dag_cbor.decode(block) == {OBJECT: {"key": "k", "size": 0, "inline": b"", "created": 0}}
    assert decode_record(block) == bare
    assert encode_record(replace(bare, body=Body(0, None, None))) == block


def test_delete_marker() -> None:
    marker = Record(b"k", Body(0, None, None), "", 5, version="v1", delete_marker=True)
    assert decode_record(encode_record(marker)) == marker
    with pytest.raises(ValueError, match="delete marker"):
        encode_record(replace(SMALL, delete_marker=True))


def fields_of(record: Record) -> dict[str, Any]:
    value = dag_cbor.decode(encode_record(record))
    assert isinstance(value, dict)
    return dict(value[OBJECT])


LINKED = [[Cid(link), length] for link, length in CHUNKS]


@pytest.mark.parametrize(
    ("record", "change"),
    [
        (SMALL, {"size": 4}),
        (SMALL, {"inline": b"ab"}),
        (SMALL, {"inline": None}),
        (SMALL, {"chunks": LINKED}),
        (SMALL, {"depth": 1}),
        (SMALL, {"depth": 0}),
        (SMALL, {"parts": [1, 1]}),
        (SMALL, {"size": OBJECT_BYTES_MAX + 1}),
        (SMALL, {"inline": b"x" * (INLINE_BYTES_MAX + 1), "size": INLINE_BYTES_MAX + 1}),
        (SMALL, {"deleted": True}),
        (LARGE, {"size": 5}),
        (LARGE, {"depth": 0}),
        (LARGE, {"chunks": LINKED[:1]}),
        (LARGE, {"chunks": [*LINKED, [LINKED[0][0], 0]]}),
        (LARGE, {"deleted": True}),
        (ASSEMBLED, {"part_checksums": {"crc32": b"1111222"}}),
        (ASSEMBLED, {"part_checksums": {"crc32": b"111122223333"}}),
        (ASSEMBLED, {"part_checksums": {"crc33": b"11112222"}}),
        (ASSEMBLED, {"parts": None}),
        (
            LARGE,
            {
                "chunks": [[LINKED[0][0], 1]] * (BODY_NODE_ENTRIES_MAX + 1),
                "size": BODY_NODE_ENTRIES_MAX + 1,
            },
        ),
    ],
)
def test_numbers_that_contradict_one_another(record: Record, change: dict[str, Any]) -> None:
    fields = fields_of(record) | change
    block = dag_cbor.wrap(OBJECT, {k: v for k, v in fields.items() if v is not None})
    with pytest.raises(Corruption, match="a/key"):
        decode_record(block)


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"key": None},
        {"key": ""},
        {"key": b"bytes"},
        {"size": None},
        {"size": -3},
        {"size": 3.0},
        {"size": True},
        {"etag": ""},
        {"etag": b"x"},
        {"md5": b"short"},
        {"sha256": b"short"},
        {"created": None},
        {"headers": {}},
        {"headers": {"a": 1}},
        {"metadata": []},
        {"checksums": {"a": "text"}},
        {"composite": False},
        {"part_checksums": {}},
        {"part_checksums": {"crc32": 5}},
        {"part_checksums": b"1111"},
        {"deleted": False},
        {"parts": []},
        {"parts": [-1, 4]},
        {"chunks": []},
        {"chunks": [[b"not a link", 3]]},
        {"chunks": [[LINKED[0][0]]]},
        {"chunks": [[LINKED[0][0], 3, 4]]},
        {"chunks": [[LINKED[0][0], -3]]},
        {"chunks": [3]},
    ],
)
def test_fields_of_the_wrong_kind(change: dict[str, Any]) -> None:
    fields = fields_of(SMALL) | change
    block = dag_cbor.wrap(OBJECT, {k: v for k, v in fields.items() if v is not None})
    with pytest.raises(FormatError):
        decode_record(block)


def test_null_is_not_absent() -> None:
    with pytest.raises(FormatError):
        decode_record(dag_cbor.wrap(OBJECT, fields_of(SMALL) | {"etag": None}))


@pytest.mark.parametrize("name", ["ingot/object@2", "ingot/leaf@1", "ingot/state@1"])
def test_another_format_is_named(name: str) -> None:
    block = dag_cbor.wrap(name, fields_of(SMALL))
    for read in (decode_record, SUMMARY.pick, etag_of):
        with pytest.raises(FormatError, match=name):
            read(block)


def test_the_offset_of_a_fault_is_where_it_stands() -> None:
    block = encode_record(SMALL)
    damaged = bytearray(block)
    assert damaged[block.index(b"detag") + 5] == 0x64
    at = block.index(b"detag") + 5
    damaged[at] = 0x44  # a byte string of the same length
    with pytest.raises(FormatError) as caught:
        decode_record(bytes(damaged))
    assert caught.value.offset == at


@pytest.mark.parametrize(
    "record",
    [
        replace(SMALL, key=b""),
        replace(SMALL, key=b"\xff"),
        replace(SMALL, created_ms=-1),
        replace(SMALL, body=replace(SMALL.body, size=4)),
        replace(SMALL, body=replace(SMALL.body, md5=b"short")),
        replace(SMALL, body=replace(SMALL.body, chunks=CHUNKS)),
        replace(SMALL, parts=[2]),
        replace(SMALL, part_checksums={"crc32": b"1111"}),
        replace(ASSEMBLED, part_checksums={"crc32": b"1111"}),
        replace(LARGE, body=Body(7, None, None, None, [(b"not a cid", 7)])),
        replace(LARGE, body=replace(LARGE.body, size=9)),
    ],
)
def test_nothing_is_written_that_would_not_be_read(record: Record) -> None:
    with pytest.raises(ValueError):  # UnicodeDecodeError is one too
        encode_record(record)
