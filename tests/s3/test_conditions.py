"""Preconditions: GET-6, COPY-6, PUT-8, DEL-2."""

from __future__ import annotations

from itertools import product

import pytest

from ingot.bucket.model import Condition
from ingot.bucket.record import Record
from ingot.messages import Body
from ingot.s3.conditions import (
    COPY_PREFIX,
    delete_conditions,
    etags,
    for_delete,
    for_write,
    read,
    read_conditions,
)
from ingot.s3.dates import http_date
from ingot.s3.errors import S3Error

NOW = 1_700_000_000_000
MODIFIED = NOW - 1_000_000
LATER = http_date(MODIFIED + 1000).encode()
EARLIER = http_date(MODIFIED - 1000).encode()
HEADERS = {
    "M": {None: {}, True: {b"if-match": b'"e"'}, False: {b"if-match": b'"x"'}},
    "N": {None: {}, True: {b"if-none-match": b'"x"'}, False: {b"if-none-match": b'"e"'}},
    "S": {None: {}, True: {b"if-modified-since": EARLIER}, False: {b"if-modified-since": LATER}},
    "U": {
        None: {},
        True: {b"if-unmodified-since": LATER},
        False: {b"if-unmodified-since": EARLIER},
    },
}


def expected(m, n, s, u):
    """The table of GET-6, written down again from its words."""
    if m is False:
        return 412
    if m is True:
        if n is False:
            return 304
        if n is True:
            return 200
        return 304 if s is False else 200
    if n is True:
        return 412 if u is False else 200
    if n is False:
        return 412 if u is False else 304
    if s is False:
        return 412 if u is False else 304
    return 412 if u is False else 200


def judge(index, prefix=b""):
    asked = read_conditions(index, NOW, prefix)
    if asked is None:
        return 200
    try:
        return 200 if read(asked, "e", MODIFIED) else 304
    except S3Error as error:
        assert error.code == "PreconditionFailed"
        return 412


@pytest.mark.parametrize(("m", "n", "s", "u"), list(product((None, True, False), repeat=4)))
def test_get_6_every_combination(m, n, s, u):
    index = HEADERS["M"][m] | HEADERS["N"][n] | HEADERS["S"][s] | HEADERS["U"][u]
    assert judge(index) == expected(m, n, s, u)
    copied = {COPY_PREFIX + name: value for name, value in index.items()}
    status = 412 if expected(m, n, s, u) == 304 else expected(m, n, s, u)
    assert judge(copied, COPY_PREFIX) == status


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({b"if-match": b'"x"', b"if-none-match": b'"e"'}, "If-Match"),
        ({b"if-unmodified-since": EARLIER, b"if-none-match": b'"e"'}, "If-Unmodified-Since"),
    ],
)
def test_get_6_a_412_names_the_header(headers, name):
    with pytest.raises(S3Error) as caught:
        read(read_conditions(headers, NOW), "e", MODIFIED)
    assert caught.value.elements == {"Condition": name}


def test_copy_6_a_412_names_the_source_header():
    asked = read_conditions({COPY_PREFIX + b"if-none-match": b"*"}, NOW, COPY_PREFIX)
    with pytest.raises(S3Error) as caught:
        read(asked, "e", MODIFIED)
    assert caught.value.elements == {"Condition": "x-amz-copy-source-If-None-Match"}


def test_get_2_dates_compare_at_whole_seconds():
    for rest in (0, 999):
        asked = read_conditions({b"if-modified-since": http_date(MODIFIED).encode()}, NOW)
        assert read(asked, "e", MODIFIED + rest) is False
        asked = read_conditions({b"if-unmodified-since": http_date(MODIFIED).encode()}, NOW)
        assert read(asked, "e", MODIFIED + rest) is True


@pytest.mark.parametrize("value", [b"yesterday", b"", http_date(NOW + 5000).encode()])
def test_get_6_future_and_unreadable_dates_count_as_absent(value):
    assert judge({b"if-modified-since": value}) == 200
    assert judge({b"if-unmodified-since": value}) == 200


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b'"a"', ("a",)),
        (b"a", ("a",)),
        (b'"a", "b",c', ("a", "b", "c")),
        (b"*", ("*",)),
        (b'W/"a"', ("a",)),
        (b'"a", *', ("*",)),
        (b'""', ("",)),
        (b'"', ('"',)),
    ],
)
def test_etags(value, found):
    assert etags(value) == found


def test_put_8_conditions_of_a_write():
    assert for_write({}) is None
    assert for_write({b"if-none-match": b"*"}) == Condition(if_none_match_any=True)
    assert for_write({b"if-match": b'"a"'}) == Condition(if_match=("a",))
    assert for_write({b"if-match": b"*"}) == Condition(if_match=("*",))


@pytest.mark.parametrize(
    "index", [{b"if-none-match": b'"a"'}, {b"if-none-match": b"*", b"if-match": b'"a"'}]
)
def test_put_8_what_no_write_may_ask(index):
    with pytest.raises(S3Error) as caught:
        for_write(index)
    assert caught.value.code == "NotImplemented"
    assert caught.value.elements["Header"] == "If-None-Match"
    assert caught.value.elements["additionalMessage"]


def found(size=3):
    return Record(b"k", Body(size, None, None), "e", MODIFIED)


def test_del_2_etags_are_decided_at_the_commit():
    asked = delete_conditions('"e"', None, None)
    assert not asked.looks
    assert for_delete(asked, None) == Condition(if_match=("e",))
    assert delete_conditions(None, None, None) is None


@pytest.mark.parametrize(
    ("match", "modified", "size", "fails"),
    [
        (None, http_date(MODIFIED), None, None),
        (None, None, "3", None),
        ('"e"', http_date(MODIFIED), "3", None),
        ("*", None, "3", None),
        (None, http_date(MODIFIED + 1000), None, "x-amz-if-match-last-modified-time"),
        (None, None, "4", "x-amz-if-match-size"),
        ('"x"', None, "3", "If-Match"),
    ],
)
def test_del_2_size_and_time_bind_the_commit_to_what_was_seen(match, modified, size, fails):
    asked = delete_conditions(match, modified, size)
    if fails is None:
        assert for_delete(asked, found()) == Condition(if_match=("e",))
        return
    with pytest.raises(S3Error) as caught:
        for_delete(asked, found())
    assert caught.value.elements == {"Condition": fails}


def test_del_2_of_a_missing_object():
    assert for_delete(delete_conditions(None, None, "3"), None) is None
    assert for_delete(delete_conditions('"e"', None, "3"), None) == Condition(if_match=("e",))


@pytest.mark.parametrize("values", [(None, "never", None), (None, None, "-1"), (None, None, "x")])
def test_del_2_bad_values(values):
    with pytest.raises(S3Error) as caught:
        delete_conditions(*values)
    assert caught.value.code == "InvalidArgument"
