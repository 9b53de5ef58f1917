"""Uploads, parts and markers as blocks and keys; the assembly of an object from parts."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.body import dag
from ingot.body.checksums import SIZES, one_shot
from ingot.bucket.assembly import assemble, compact
from ingot.bucket.part import (
    ID_RANDOM_BYTES,
    Completed,
    Part,
    Upload,
    decode_completed,
    decode_part,
    decode_upload,
    encode_completed,
    encode_part,
    encode_upload,
    id_fits,
    make_upload_id,
    marker_key,
    marker_range,
    part_key,
    part_number,
    split_key,
    upload_key,
)
from ingot.bucket.record import decode_record, encode_record
from ingot.codec import dag_cbor
from ingot.codec.cid import of_chunk, of_structure
from ingot.errors import Corruption, FormatError
from ingot.limits import (
    BODY_NODE_ENTRIES_MAX,
    KEY_BYTES_MAX,
    PART_ENTRIES_MAX,
    PARTS_MAX,
    TREE_KEY_BYTES_MAX,
)
from ingot.messages import Body

KEYS = st.text(min_size=1, max_size=30).map(lambda t: t.replace("\0", "0").encode())
TEXTS = st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3)
TIMES = st.integers(0, 2**45)
DIGESTS = st.fixed_dictionaries(
    {}, optional={name: st.binary(min_size=n, max_size=n) for name, n in SIZES.items()}
)


@st.composite
def uploads(draw: st.DrawFn) -> Upload:
    algorithm = draw(st.sampled_from(["", *SIZES]))
    return Upload(
        draw(KEYS),
        draw(st.text(min_size=1, max_size=40)),
        draw(TIMES),
        draw(st.text(max_size=10)),
        draw(st.text(max_size=10)),
        draw(TEXTS),
        draw(TEXTS),
        algorithm,
        bool(algorithm) and draw(st.booleans()),
    )


@st.composite
def parts(draw: st.DrawFn) -> Part:
    if draw(st.booleans()):
        data = draw(st.binary(max_size=100))
        body = Body(len(data), hashlib.md5(data).digest(), hashlib.sha256(data).digest(), data)
    else:
        lengths = draw(st.lists(st.integers(1, 2**20), min_size=1, max_size=20))
        chunks = [(of_chunk(b"%d" % n), length) for n, length in enumerate(lengths)]
        sha = draw(st.none() | st.binary(min_size=32, max_size=32))
        body = Body(sum(lengths), os.urandom(16), sha, None, chunks, draw(st.integers(0, 2)))
    return Part(body, draw(TIMES), draw(DIGESTS))


COMPLETED = st.builds(
    Completed,
    KEYS,
    st.text(max_size=40),
    st.integers(1, PARTS_MAX),
    TIMES,
    st.binary(min_size=32, max_size=32),
    DIGESTS,
    st.booleans(),
)


@given(uploads())
def test_uploads_go_out_and_in(upload: Upload) -> None:
    block = encode_upload(upload)
    assert decode_upload(block) == replace(upload, cid=of_structure(block))


@given(parts())
def test_parts_go_out_and_in(part: Part) -> None:
    block = encode_part(part)
    again = decode_part(block)
    assert again == replace(part, cid=of_structure(block))
    assert again.etag == part.body.md5.hex()


@given(COMPLETED)
def test_markers_go_out_and_in(completed: Completed) -> None:
    assert decode_completed(encode_completed(completed)) == completed


@given(uploads(), parts(), COMPLETED, st.data())
def test_a_changed_block_is_refused_or_is_another_value(
    upload: Upload, part: Part, completed: Completed, data: st.DataObject
) -> None:
    """Canonical: whatever is accepted is exactly what encoding it again writes."""
    kinds = [
        (encode_upload(upload), decode_upload, encode_upload),
        (encode_part(part), decode_part, encode_part),
        (encode_completed(completed), decode_completed, encode_completed),
    ]
    block, decode, encode = data.draw(st.sampled_from(kinds))
    at = data.draw(st.integers(0, len(block) - 1))
    changed = bytearray(block)
    changed[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del changed[at:]
    try:
        value = decode(bytes(changed))  # type: ignore[operator]
    except FormatError:
        return
    assert encode(value) == bytes(changed)  # type: ignore[operator]


GOOD_PART = {
    "etag": "0" * 32,
    "size": 5,
    "created": 1,
    "chunks": [[dag_cbor.Cid(of_chunk(b"hello")), 5]],
}


@pytest.mark.parametrize(
    "change",
    [
        {"etag": "0" * 31},
        {"etag": "G" * 32},
        {"etag": "A" * 32},
        {"size": 6},
        {"size": -5},
        {"depth": 0},
        {"depth": -1},
        {"inline": b"hello"},
        {"chunks": []},
        {"chunks": [[dag_cbor.Cid(of_chunk(b"")), 0], [dag_cbor.Cid(of_chunk(b"hello")), 5]]},
        {"chunks": [[dag_cbor.Cid(of_structure(b"\xf6")), 5]]},
        {"chunks": [[of_chunk(b"hello"), 5]]},
        {"chunks": [5]},
        {"checksums": {}},
        {"checksums": {"crc32": b"123"}},
        {"checksums": {"crc16": b"12"}},
        {"checksums": {"crc32": "1234"}},
        {"sha256": bytes(31)},
        {"more": 1},
    ],
    ids=repr,
)
def test_parts_that_contradict_themselves_are_refused(change: dict[str, object]) -> None:
    decode_part(dag_cbor.wrap("ingot/part@1", GOOD_PART))
    with pytest.raises(FormatError):
        decode_part(dag_cbor.wrap("ingot/part@1", GOOD_PART | change))


def test_another_format_is_named() -> None:
    block = dag_cbor.wrap("ingot/part@2", GOOD_PART)
    with pytest.raises(FormatError, match="part@2"):
        decode_part(block)
    with pytest.raises(FormatError, match="part@2"):
        decode_upload(block)
    with pytest.raises(FormatError, match="part@2"):
        decode_completed(block)


# -- keys ---------------------------------------------------------------------------------------


def made_id(key: bytes, ms: int = 0) -> str:
    return make_upload_id(key, ms, os.urandom(ID_RANDOM_BYTES))


@given(KEYS, KEYS, TIMES)
def test_ids_are_url_safe_and_of_one_key(key: bytes, other: bytes, ms: int) -> None:
    upload_id = made_id(key, ms)
    assert upload_id.isascii() and upload_id.isalnum()
    assert id_fits(key, upload_id) and made_id(key, ms) != upload_id
    assert id_fits(other, upload_id) == (other == key)
    for wrong in ("", upload_id[:-1], upload_id + "0", upload_id.lower(), "é" * 36, "0" * 36):
        assert not id_fits(key, wrong)


@given(st.lists(st.tuples(KEYS, TIMES), min_size=2, max_size=6, unique=True))
def test_the_tree_is_in_the_order_of_keys_then_times(made: list[tuple[bytes, int]]) -> None:
    """And every part stands behind its own upload and before the next."""
    rows = []
    for key, ms in sorted(made):
        upload = upload_key(key, made_id(key, ms))
        rows += [upload, part_key(upload, 1), part_key(upload, 2), part_key(upload, PARTS_MAX)]
    assert rows == sorted(rows)


def test_keys_come_apart_again() -> None:
    upload_id = made_id(b"k")
    upload = upload_key(b"k", upload_id)
    assert split_key(upload) == (b"k", upload_id, 0)
    assert split_key(part_key(upload, 70)) == (b"k", upload_id, 70)
    assert part_number(part_key(upload, 10_000)) == 10_000
    assert split_key(marker_key(upload_id)) == (b"", upload_id, 0)
    for wrong in (b"k", b"k\0short", upload + b"\0001", upload + b"\0000x1", upload + b"\0"):
        with pytest.raises(Corruption):
            split_key(wrong)


def test_the_longest_keys_fit_the_tree() -> None:
    key = b"k" * KEY_BYTES_MAX
    assert len(part_key(upload_key(key, made_id(key, 2**45)), PARTS_MAX)) <= TREE_KEY_BYTES_MAX


@given(TIMES, TIMES)
def test_markers_stand_in_the_order_of_creation(created: int, before: int) -> None:
    start, stop = marker_range(before)
    assert (start <= marker_key(made_id(b"k", created)) < stop) == (created < before)
    assert not start <= upload_key(b"\x01", made_id(b"\x01", created)) < stop


# -- assembly -----------------------------------------------------------------------------------

UPLOAD = Upload(b"k", "", 1, "me", "Me", {"content-type": "text/x"}, {"a": "b"})


def part_of(data: bytes, chunk: int = 10, inline: bool = False) -> tuple[Part, dict[bytes, bytes]]:
    """A part as the store keeps it, and the blocks below it."""
    md5 = hashlib.md5(data).digest()
    sums = {name: one_shot(name, data) for name in SIZES}
    if inline:
        return Part(Body(len(data), md5, None, data), 1, sums), {}
    pieces = [data[at : at + chunk] for at in range(0, len(data), chunk)]
    entries, depth, nodes = dag.build([(of_chunk(piece), len(piece)) for piece in pieces])
    blocks = {of_chunk(piece): piece for piece in pieces} | dict(nodes)
    body = compact(Body(len(data), md5, None, None, entries, depth))
    blocks |= dict(body.blocks)
    part = decode_part(encode_part(Part(body, 1, sums)))
    return part, blocks


def read(body: Body, blocks: dict[bytes, bytes], start: int, stop: int) -> bytes:
    if body.inline is not None:
        return body.inline[start:stop]
    found, steps = b"", dag.walk(body, start, stop)
    step = next(steps, None)
    while step is not None:
        if isinstance(step, dag.Node):
            step = steps.send(blocks[step.cid])
            continue
        found += blocks[step.cid][step.start : step.stop]
        step = next(steps, None)
    return found


@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=8),
    st.sampled_from([1, 10, 100]),
    st.booleans(),
    st.data(),
)
def test_an_assembled_body_is_the_parts_one_behind_the_other(
    sizes: list[int], chunk: int, inline: bool, data: st.DataObject
) -> None:
    whole = os.urandom(sum(sizes))
    blocks: dict[bytes, bytes] = {}
    found, at = [], 0
    for number, size in enumerate(sizes):
        last = number == len(sizes) - 1
        piece = whole[at : at + size]
        part, below = part_of(piece, chunk, inline=size == 0 or (inline and last))
        found.append(part)
        blocks |= below
        at += size
    record = assemble(UPLOAD, found, 7)
    blocks |= dict(record.body.blocks)
    assert decode_record(encode_record(record)).parts == sizes
    assert record.body.md5 is None and record.body.sha256 is None
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    assert read(record.body, blocks, start, stop) == whole[start:stop]
    md5s = b"".join([part.md5 for part in found])
    assert record.etag == f"{hashlib.md5(md5s).hexdigest()}-{len(sizes)}"
    assert (record.headers, record.metadata) == (UPLOAD.headers, UPLOAD.metadata)


@pytest.mark.parametrize(
    ("algorithm", "composite"),
    [
        *[(name, True) for name in ("crc32", "crc32c", "sha1", "sha256")],
        *[(name, False) for name in ("", "crc32", "crc32c", "crc64nvme")],
    ],
)
def test_checksums_of_the_whole(algorithm: str, composite: bool) -> None:
    pieces = [os.urandom(n) for n in (300, 1, 77)]
    found = [part_of(piece)[0] for piece in pieces]
    record = assemble(replace(UPLOAD, algorithm=algorithm, composite=composite), found, 7)
    name = algorithm or "crc64nvme"
    whole = b"".join(one_shot(name, p) for p in pieces) if composite else b"".join(pieces)
    assert record.checksums == {name: one_shot(name, whole)}
    assert record.composite == composite


@pytest.mark.parametrize(
    ("algorithm", "given", "kept"),
    [
        ("", [[], [], []], []),  # nothing was declared or given: the CRC-64 is our own
        ("crc64nvme", [[], [], []], ["crc64nvme"]),
        ("sha256", [["sha256"]] * 3, ["sha256"]),
        ("", [["crc32", "sha1"], ["sha1"], ["sha1"]], ["sha1"]),  # what every part has
    ],
)
def test_checksums_of_the_parts_are_kept(
    algorithm: str, given: list[list[str]], kept: list[str]
) -> None:
    pieces = [os.urandom(n) for n in (300, 1, 77)]
    found = []
    for piece, names in zip(pieces, given, strict=True):
        sums = {name: one_shot(name, piece) for name in {*names, "crc64nvme"}}
        found.append(replace(part_of(piece)[0], checksums=sums))
    upload = replace(UPLOAD, algorithm=algorithm, composite=algorithm == "sha256")
    record = assemble(upload, found, 7)
    assert decode_record(encode_record(record)).part_checksums == record.part_checksums
    assert list(record.part_checksums) == kept
    for name in kept:
        for index, piece in enumerate(pieces):
            assert record.part_checksum(name, index) == one_shot(name, piece)


def test_many_entries_get_nodes_and_large_parts_one_entry_each() -> None:
    """Entries of a part are bounded when it is uploaded, those of an object by nodes above."""
    large, below = part_of(os.urandom((PART_ENTRIES_MAX + 1) * 10))
    assert len(large.body.chunks) == 1 and large.body.depth == 1
    small, more = part_of(os.urandom(PART_ENTRIES_MAX * 10))
    assert len(small.body.chunks) == PART_ENTRIES_MAX and small.body.depth == 0
    found = [large, small] * (BODY_NODE_ENTRIES_MAX // PART_ENTRIES_MAX + 1)
    record = assemble(UPLOAD, found, 7)
    assert record.body.depth == 2 and len(record.body.chunks) <= BODY_NODE_ENTRIES_MAX
    blocks = below | more | dict(record.body.blocks)
    size = large.body.size + small.body.size
    expected = read(large.body, blocks, 0, large.body.size)
    assert read(record.body, blocks, 3 * size, 3 * size + large.body.size) == expected


def test_a_small_object_of_inline_parts_stays_in_its_record() -> None:
    record = assemble(UPLOAD, [part_of(b"hello", inline=True)[0]], 7)
    assert record.body.inline == b"hello" and not record.body.blocks
    assert assemble(UPLOAD, [part_of(b"", inline=True)[0]], 7).body.inline == b""
