"""The codecs on one object's record and one commit record: ``pytest perf/bench_codec.py``.

A PUT encodes a record and hashes it, a GET decodes one, a listing shows a thousand. With
``--benchmark-disable`` every case runs once, as a test.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from ingot._speedups import entries
from ingot.bucket.record import (
    SUMMARY,
    Record,
    cid_of,
    decode_record,
    encode_record,
    etag_of,
)
from ingot.codec import cid, dag_cbor
from ingot.messages import Body, CommitRecord, Head, HeadMove
from ingot.segments.commit import decode_commit, encode_commit

CHUNK = 1 << 20


def record(chunks: int) -> Record:
    """A chunk a MiB; none: 1 KiB inline."""
    body = Body(1024, b"m" * 16, b"s" * 32, b"x" * 1024)
    if chunks:
        entries = [(cid.of_chunk(b"%d" % at), CHUNK) for at in range(chunks)]
        body = Body(chunks * CHUNK, b"m" * 16, b"s" * 32, None, entries)
    return Record(
        b"logs.prod/2024-07-15:host-123:89abcdef-00000042.json.gz",
        body,
        "9e107d9d372bb6826bd81d3542a419d6",
        1_720_000_000_000,
        {"content-type": "application/octet-stream"},
        {"mtime": "1720000000.000"},
        {"crc64nvme": b"12345678"},
    )


COMMIT = CommitRecord(
    store=b"s" * 16,
    incarnation=1,
    lease=b"l" * 16,
    segment=7,
    sequence=123_456,
    time_ms=1_720_000_000_000,
    previous=cid.of_structure(b"previous"),
    frames=400,
    frames_digest=b"d" * 32,
    checkpoint=None,
    bodies=(),
    moves=(
        HeadMove(
            b"b" * 16,
            "photos",
            Head(41, cid.of_structure(b"old"), None, cid.of_structure(b"config")),
            Head(42, cid.of_structure(b"new"), None, cid.of_structure(b"config")),
        ),
    ),
)
CHUNKS = pytest.mark.parametrize("chunks", [0, 1, 1024])


@CHUNKS
def test_encode_record(benchmark: BenchmarkFixture, chunks: int) -> None:
    assert benchmark(encode_record, record(chunks))


@CHUNKS
def test_decode_record(benchmark: BenchmarkFixture, chunks: int) -> None:
    assert benchmark(decode_record, encode_record(record(chunks))) == record(chunks)


@CHUNKS
def test_etag(benchmark: BenchmarkFixture, chunks: int) -> None:
    assert benchmark(etag_of, encode_record(record(chunks))) == record(chunks).etag


@CHUNKS
def test_entries_of_a_listing(benchmark: BenchmarkFixture, chunks: int) -> None:
    names, blocks = [b"name"] * 100, [encode_record(record(chunks))] * 100
    shown = benchmark(entries.write, SUMMARY, names, blocks, b"<Contents>", b"", b"</Contents>")
    assert shown.count(b"<Size>%d</Size>" % record(chunks).body.size) == 100


def test_cid_of_a_record(benchmark: BenchmarkFixture) -> None:
    assert len(benchmark(cid_of, encode_record(record(1)))) == cid.CID_BYTES


def test_encode_any(benchmark: BenchmarkFixture) -> None:
    assert benchmark(dag_cbor.encode, dag_cbor.decode(encode_record(record(1))))


def test_decode_any(benchmark: BenchmarkFixture) -> None:
    assert benchmark(dag_cbor.decode, encode_record(record(1)))


def test_encode_commit(benchmark: BenchmarkFixture) -> None:
    assert benchmark(encode_commit, COMMIT)


def test_decode_commit(benchmark: BenchmarkFixture) -> None:
    assert benchmark(decode_commit, encode_commit(COMMIT)) == COMMIT
