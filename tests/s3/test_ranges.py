"""Ranges and part numbers: rules GET-3, GET-5."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.s3.errors import S3Error
from ingot.s3.ranges import content_range, parse_range, part_range


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (b"bytes=0-0", (0, 1)),
        (b"bytes=2-5", (2, 6)),
        (b"bytes=2-", (2, 10)),
        (b"bytes=-3", (7, 10)),
        (b"bytes=0-99", (0, 10)),
        (b"bytes=9-9", (9, 10)),
        (b"bytes=-99", (0, 10)),
        (b"bytes=0-52428799", (0, 10)),
        (b"BYTES=1-2", (1, 3)),
        (b"bytes=0-" + b"9" * 5000, (0, 10)),
        (b"bytes=-" + b"9" * 5000, (0, 10)),
        (b"bytes=000001-2", (1, 3)),
    ],
)
def test_get_3_satisfiable(header, wanted):
    assert parse_range(header, 10) == wanted


@pytest.mark.parametrize(
    "header",
    [
        *(b"", b"bytes", b"bytes=", b"bytes=-", b"bytes=a-b", b"bytes=5-2", b"bytes=1-2,4-5"),
        *(b"lines=0-1", b"bytes=1", b"bytes=--1", b"bytes=1--2", b"bytes=+1-2", b"bytes=1_0-20"),
        *(b"bytes=\xb2-3", b"bytes=1 - 2", b"bytes= -1", b"bytes =0-1"),
    ],
)
def test_get_3_not_understood_is_ignored(header):
    assert parse_range(header, 10) is None


@pytest.mark.parametrize(
    "header", [b"bytes=10-", b"bytes=10-20", b"bytes=-0", b"bytes=" + b"9" * 5000 + b"-"]
)
def test_get_3_unsatisfiable(header):
    with pytest.raises(S3Error) as caught:
        parse_range(header, 10)
    error = caught.value
    assert (error.status, error.code) == (416, "InvalidRange")
    assert error.headers == ((b"Content-Range", b"bytes */10"),)
    assert error.elements["ActualObjectSize"] == "10"
    assert error.elements["RangeRequested"] == header.decode()


def test_get_3_of_an_empty_object():
    assert parse_range(b"bytes=-5", 0) is None
    for header in (b"bytes=0-", b"bytes=0-0", b"bytes=1-"):
        with pytest.raises(S3Error):
            parse_range(header, 0)


@given(st.binary(max_size=20).map(lambda tail: b"bytes=" + tail), st.integers(0, 100))
def test_any_range_lies_inside_the_object(header, size):
    try:
        wanted = parse_range(header, size)
    except S3Error as error:
        assert error.code == "InvalidRange"
        return
    assert wanted is None or 0 <= wanted[0] < wanted[1] <= size


def test_get_5_parts():
    assert part_range(b"1", 10, []) == (0, 10)
    assert part_range(b"2", 10, [4, 6]) == (4, 10)
    assert part_range(b"1", 0, []) == (0, 0)


@pytest.mark.parametrize("text", [b"0", b"10001", b"x", b"", b"-1", b"1.0", b"9" * 5000])
def test_get_5_bad_numbers(text):
    with pytest.raises(S3Error) as caught:
        part_range(text, 10, [])
    assert caught.value.code == "InvalidArgument"
    assert caught.value.elements["ArgumentName"] == "partNumber"


def test_get_5_past_the_end():
    with pytest.raises(S3Error) as caught:
        part_range(b"3", 10, [4, 6])
    error = caught.value
    assert (error.status, error.code) == (416, "InvalidPartNumber")
    assert error.elements == {"ActualPartCount": "2", "PartNumberRequested": "3"}


def test_content_range():
    assert content_range(2, 6, 10) == b"bytes 2-5/10"
