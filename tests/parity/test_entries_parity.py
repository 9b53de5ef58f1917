"""Compiled entries of a listing beside their twin: the same bytes, and the same refusals."""

from __future__ import annotations

import inspect
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot._speedups import cbor_py, entries_py, layout_py
from ingot._speedups.cbor_py import Cid
from ingot.bucket.record import OBJECT, Record, encode_record
from ingot.errors import FormatError
from ingot.messages import Body
from ingot.s3.dates import iso

entries_c: Any = pytest.importorskip("ingot._speedups.entries_c")
layout_c: Any = pytest.importorskip("ingot._speedups.layout_c")

FIELDS = (
    ("etag", "text?"),
    ("size", "uint"),
    ("created", "uint"),
    ("checksums", "digests?"),
    ("composite", "true?"),
)
SUMMARIES = (layout_c.Layout(OBJECT, FIELDS), layout_py.Layout(OBJECT, FIELDS))
LAST_MS = 253402300799999
AROUND = (b"<C><Key>", b"</Key><LastModified>", b"</C>")


def outcome(module: Any, summary: Any, names: list[bytes], blocks: list[bytes]) -> Any:
    try:
        return module.write(summary, names, blocks, *AROUND)
    except FormatError as error:
        return error.offset, error.expected, error.found
    except (OverflowError, TypeError, ValueError) as error:
        return type(error)


def both(block: Any, name: bytes = b"name") -> Any:
    """What both make of one record between two others."""
    around = encode_record(SMALL)
    found = [
        outcome(module, summary, [b"first", name, b"last"], [around, block, around])
        for module, summary in zip((entries_c, entries_py), SUMMARIES, strict=True)
    ]
    assert found[0] == found[1]
    check_summary(block, found[0])
    return found[0]


def check_summary(block: Any, shown: Any) -> None:
    """Both make the same summary, and it shows what the block shows; or both refuse the block."""
    made = [
        summarized(module, summary, block)
        for module, summary in zip((entries_c, entries_py), SUMMARIES, strict=True)
    ]
    assert made[0] == made[1]
    if isinstance(made[0], list) and made[0] != [block]:
        around = encode_record(SMALL)
        for module, summary in zip((entries_c, entries_py), SUMMARIES, strict=True):
            again = outcome(
                module, summary, [b"first", b"name", b"last"], [around, *made[0], around]
            )
            assert again == outcome(
                module, summary, [b"first", b"name", b"last"], [around, block, around]
            )


def summarized(module: Any, summary: Any, block: Any) -> Any:
    try:
        return module.summaries(summary, [block])
    except FormatError as error:
        return error.offset, error.expected, error.found
    except (TypeError, ValueError) as error:
        return type(error)


SMALL = Record(
    b"k",
    Body(3, b"m" * 16, b"s" * 32, b"abc"),
    "9e107d9d372bb6826bd81d3542a419d6",
    1_700_000_000_000,
    {"content-type": "text/plain"},
    {"mtime": "1"},
    {"crc64nvme": b"12345678"},
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
ETAGS = st.from_regex(r"\A[0-9a-f]{32}(-[0-9]{1,5})?\Z") | TEXT
TEXTS = st.dictionaries(TEXT, TEXT, max_size=3)
ALGORITHMS = st.sampled_from(["crc32", "crc32c", "crc64nvme", "sha1", "sha256", "md5"]) | TEXT
CHUNK = Cid(b"\x01\x55\x12\x20" + b"d" * 32)


@st.composite
def records(draw: st.DrawFn) -> Record:
    inline = draw(st.binary(max_size=300))
    body = Body(len(inline), b"m" * 16, b"s" * 32, inline)
    if draw(st.booleans()):
        lengths = draw(st.lists(st.integers(1, 1 << 40), min_size=1, max_size=40))
        body = Body(sum(lengths), None, None, None, [(bytes(CHUNK), n) for n in lengths])
    in_parts = draw(st.booleans())
    return Record(
        b"k",
        body,
        draw(st.just("") | ETAGS),
        draw(st.integers(0, LAST_MS)),
        draw(TEXTS),
        draw(TEXTS),
        draw(st.dictionaries(ALGORITHMS, st.binary(max_size=40), max_size=3)),
        draw(st.booleans()),
        version=draw(st.just("") | TEXT),
        parts=[body.size] if in_parts else [],
        part_checksums={"crc32": b"1234"} if in_parts else {},
    )


def test_names_signatures_and_docstrings() -> None:
    assert entries_py.__all__ == ["summaries", "write"]
    for name in entries_py.__all__:
        one, other = getattr(entries_c, name), getattr(entries_py, name)
        assert inspect.getdoc(one) == inspect.getdoc(other)
        assert inspect.signature(one, eval_str=True) == inspect.signature(other, eval_str=True)


@pytest.mark.slow
@given(records(), st.binary(max_size=20))
def test_every_record_is_shown(record: Record, name: bytes) -> None:
    shown = both(encode_record(record), name)
    assert isinstance(shown, bytes)
    _, entry, _ = shown.split(AROUND[0])[1:]
    assert entry.startswith(name + AROUND[1] + iso(record.created_ms).encode())
    assert entry.endswith(b"<Size>%d</Size>" % record.body.size + AROUND[2])
    kind = b"COMPOSITE" if record.composite else b"FULL_OBJECT"
    assert (b"<ChecksumAlgorithm>" in entry) == (kind in entry) == bool(record.checksums)


@pytest.mark.parametrize("composite", [False, True])
@pytest.mark.parametrize("algorithm", ["crc32", "crc64nvme", "sha256"])
def test_an_entry(algorithm: str, composite: bool) -> None:
    record = replace(SMALL, checksums={algorithm: b"x"}, composite=composite)
    for module, summary in zip((entries_c, entries_py), SUMMARIES, strict=True):
        assert module.write(summary, [b"a&amp;b"], [encode_record(record)], *AROUND).decode() == (
            "<C><Key>a&amp;b</Key><LastModified>2023-11-14T22:13:20.000Z</LastModified>"
            "<ETag>&quot;9e107d9d372bb6826bd81d3542a419d6&quot;</ETag>"
            f"<ChecksumAlgorithm>{algorithm.upper()}</ChecksumAlgorithm>"
            f"<ChecksumType>{'COMPOSITE' if composite else 'FULL_OBJECT'}</ChecksumType>"
            "<Size>3</Size></C>"
        )


def check_time(created: int) -> None:
    record = replace(SMALL, created_ms=created)
    for module, summary in zip((entries_c, entries_py), SUMMARIES, strict=True):
        shown = module.write(summary, [b""], [encode_record(record)], b"", b"", b"")
        assert shown.startswith(iso(created).encode() + b"</LastModified>")


@given(st.integers(0, LAST_MS))
def test_times(created: int) -> None:
    check_time(created)


LEAP_DAYS = [951_782_400, 1_709_164_800, 4_107_456_000, 4_107_542_400]  # 2000, 2024, around 2100


@pytest.mark.parametrize("second", [1, *LEAP_DAYS, LAST_MS // 1000])
def test_days_that_calendars_get_wrong(second: int) -> None:
    for each in (second - 1, second):
        check_time(each * 1000)


@pytest.mark.parametrize("created", [LAST_MS + 1, 1 << 62, (1 << 64) - 1])
def test_a_time_behind_the_calendar(created: int) -> None:
    assert both(encode_record(replace(SMALL, created_ms=created))) is OverflowError


def test_nothing_and_unequal_numbers() -> None:
    for module, summary in zip((entries_c, entries_py), SUMMARIES, strict=True):
        assert module.write(summary, [], [], *AROUND) == b""
        assert outcome(module, summary, [b"a"], []) is ValueError
        assert outcome(module, summary, [], [encode_record(SMALL)]) is ValueError


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(1 << 63), (1 << 64) - 1),
        st.sampled_from([0, 23, 24, 255, 256, 65535, 65536, LAST_MS, LAST_MS + 1]),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=30),
        ETAGS,
        st.binary(max_size=40),
        st.just(CHUNK),
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)
RIGHT = {
    "etag": ETAGS,
    "size": st.integers(0, 1 << 50),
    "created": st.integers(0, LAST_MS),
    "checksums": st.dictionaries(ALGORITHMS, st.binary(max_size=40), min_size=1, max_size=3),
    "composite": st.just(True),
}
NAMES = st.sampled_from([*RIGHT, "key", "md5", "inline", "deleted", "zz", "é"]) | TEXT


@st.composite
def maps(draw: st.DrawFn) -> bytes:
    """A map of fields right and wrong, often in order, at times twice or in another."""
    names = draw(st.lists(st.sampled_from(list(RIGHT)) | NAMES, max_size=7))
    names += draw(st.sampled_from([[], ["size", "created"]]))
    if draw(st.integers(0, 4)):
        names = sorted(set(names), key=lambda name: (len(name.encode()), name.encode()))
    count = max(0, len(names) + draw(st.sampled_from([0, 0, 0, 0, 1, -1])))
    found = b"\xa1" + cbor_py.encode(OBJECT) + bytes((0xA0 | min(count, 23),))
    for name in names:
        right = draw(st.integers(0, 4)) and name in RIGHT
        value = draw(RIGHT[name] if right else VALUES)
        found += cbor_py.encode(name) + cbor_py.encode(value)
    return found + draw(st.sampled_from([b"", b"", b"\x00", b"rest"]))


@pytest.mark.slow
@given(maps())
def test_any_fields(block: bytes) -> None:
    both(block)


@given(st.binary(max_size=60))
def test_any_bytes(block: bytes) -> None:
    both(block)
    both(b"\xa1" + cbor_py.encode(OBJECT) + block)


@pytest.mark.slow
@given(records() | st.just(SMALL), st.data())
def test_damage(record: Record, data: st.DataObject) -> None:
    block = bytearray(encode_record(record))
    for _ in range(data.draw(st.integers(1, 2))):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    both(bytes(block[: data.draw(st.just(len(block)) | st.integers(0, len(block)))]))


@pytest.mark.slow
def test_every_single_byte_of_damage() -> None:
    """Every byte of a record's fields, each changed to what matters in CBOR and to its neighbours;
    so much that the compiled code shows what the layout refuses nowhere."""
    block = encode_record(replace(SMALL, body=Body(1, b"m" * 16, None, b"x"), composite=True))
    for at, byte in product(range(len(block)), (0x00, 0x17, 0x18, 0x60, 0x7F, 0xA0, 0xF5, 0xFF)):
        both(block[:at] + bytes((byte,)) + block[at + 1 :])
    for at in range(len(block)):
        both(block[:at])
        for step in (1, -1):
            both(block[:at] + bytes(((block[at] + step) % 256,)) + block[at + 1 :])


@given(st.binary(min_size=35, max_size=35))
def test_what_looks_like_a_summary(rest: bytes) -> None:
    both(b"\x01" + rest)


@pytest.mark.parametrize("checksum", [0, 5, 6, 127, 128, 133, 134, 255])
def test_summaries_of_no_algorithm_there_is_are_none(checksum: int) -> None:
    shown = both(bytes((1, checksum)) + bytes(34))
    assert isinstance(shown, bytes) == ((checksum & 127) <= 5)


def raw_map(*fields: tuple[str, Any]) -> bytes:
    """A map of these entries, as they come; bytes are values encoded already."""
    out = bytes((0xA0 | len(fields),))
    for name, value in fields:
        out += cbor_py.encode(name) + (value if type(value) is bytes else cbor_py.encode(value))
    return out


SIZE, CREATED = ("size", 1), ("created", 2)


@pytest.mark.parametrize(
    "fields",
    [
        (SIZE, ("etag", "e"), CREATED),
        (("etag", "a"), ("etag", "b"), SIZE, CREATED),
        (("etag", "a"), SIZE, ("size", 9), CREATED),
        (SIZE, CREATED, ("created", 9)),
        (CREATED, SIZE),
        (("etag", ""), SIZE, CREATED),
        (("etag", b"\x41e"), SIZE, CREATED),
        (("etag", None), SIZE, CREATED),
        (("size", -2), CREATED),
        (SIZE,),
        (CREATED,),
        (SIZE, CREATED, ("checksums", raw_map(("b", b"\x41x"), ("a", b"\x41x")))),
        (SIZE, CREATED, ("checksums", raw_map(("a", b"\x41x"), ("a", b"\x41x")))),
        (SIZE, CREATED, ("checksums", raw_map(("aa", b"\x41x"), ("b", b"\x41x")))),
        (SIZE, CREATED, ("checksums", raw_map(("a", b"\x41x"), ("b", b"\x61x")))),
        (SIZE, CREATED, ("checksums", raw_map(("a", 1)))),
        (SIZE, CREATED, ("checksums", raw_map())),
        (SIZE, CREATED, ("checksums", [b"x"])),
        (SIZE, CREATED, ("composite", False)),
        (SIZE, CREATED, ("composite", 1)),
        (SIZE, CREATED, ("composite", [1])),
        (SIZE, CREATED, ("composite", True), ("checksums", raw_map(("a", b"\x41x")))),
        (SIZE, CREATED, ("composite", True), ("etag", "late")),
        (("\x7f", 1), SIZE, CREATED),
        (("", 1), SIZE, CREATED),
    ],
)
def test_fields_that_are_not_as_they_should_be(fields: tuple[tuple[str, Any], ...]) -> None:
    both(b"\xa1" + cbor_py.encode(OBJECT) + raw_map(*fields))


@pytest.mark.parametrize("block", [bytearray(encode_record(SMALL)), None, "text"])
def test_what_is_no_bytes(block: Any) -> None:
    shown = both(block)
    assert isinstance(shown, bytes) == isinstance(block, bytearray)


def test_a_link_in_a_field_that_is_not_shown() -> None:
    fields = {"size": 1, "chunks": [[CHUNK, 1]], "created": 0}
    assert isinstance(both(cbor_py.encode({OBJECT: fields})), bytes)
