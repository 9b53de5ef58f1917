"""Bucket names, keys, and the request target: rules NAME-1, NAME-7, CAN-2, HTTP-12."""

from __future__ import annotations

from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.limits import QUERY_PARAMETERS_MAX
from ingot.s3.errors import S3Error
from ingot.s3.names import (
    bucket_name_is_valid,
    check_key,
    percent_decode,
    split_query,
    split_target,
)

VALID = ["abc", "a-b", "a.b", "1.2.3", "a1.b2", "0ab", "1.2.3.a", "a" * 63, "1.2.3.4.5", "xn-ab"]
INVALID = [
    *("", "ab", "a" * 64, "Abc", "a_b", "-ab", "ab-", ".ab", "ab.", "a..b", "a.-b", "a-.b"),
    *("192.168.0.1", "xn--abc", "sthree-abc", "amzn-s3-demo-x", "abc-s3alias", "abc--ol-s3"),
    *("abc--x-s3", "abc.mrap", "a b", "a/b", "ab\u00e9", "ab\n", "ab\u0661"),
]


@pytest.mark.parametrize("name", VALID)
def test_name_1_valid(name):
    assert bucket_name_is_valid(name)


@pytest.mark.parametrize("name", INVALID)
def test_name_1_invalid(name):
    assert not bucket_name_is_valid(name)


@pytest.mark.parametrize(
    ("target", "bucket", "key"),
    [
        (b"/", "", b""),
        (b"/buck", "buck", b""),
        (b"/buck/", "buck", b""),
        (b"/buck/k", "buck", b"k"),
        (b"/%62uck/k", "buck", b"k"),
        (b"/buck//k", "buck", b"/k"),
        (b"/buck/a//b", "buck", b"a//b"),
        (b"/buck/a/../b", "buck", b"a/../b"),
        (b"/buck/..", "buck", b".."),
        (b"/buck/d/", "buck", b"d/"),
        (b"/buck/a+b%2Bc", "buck", b"a+b+c"),
        (b"/buck/%C3%A9", "buck", "é".encode()),
        (b"/buck/a%3Fb?acl", "buck", b"a?b"),
        (b"http://host:9000/buck/k", "buck", b"k"),
        (b"*", "", b""),
    ],
)
def test_can_2_targets(target, bucket, key):
    assert split_target(target)[:2] == (bucket, key)


@pytest.mark.parametrize(
    ("target", "code"),
    [
        (b"/buck/%zz", "InvalidURI"),
        (b"/buck/%4", "InvalidURI"),
        (b"/buck/%", "InvalidURI"),
        (b"/buck/%ff", "InvalidURI"),
        (b"/buck/a%00b", "InvalidArgument"),
        (b"/Buck/k", "InvalidBucketName"),
        (b"//k", "InvalidBucketName"),
        (b"/b/k", "InvalidBucketName"),
        (b"/buck/" + b"k" * 1025, "KeyTooLongError"),
        (b"nonsense", "InvalidURI"),
    ],
)
def test_refused_targets(target, code):
    with pytest.raises(S3Error) as caught:
        split_target(target)
    assert caught.value.code == code


def test_name_7_keys_count_in_bytes():
    check_key(b"k" * 1024)
    check_key("é".encode() * 512)
    with pytest.raises(S3Error) as caught:
        check_key("é".encode() * 512 + b"x")
    assert caught.value.elements == {"Size": "1025", "MaxSizeAllowed": "1024"}


def test_every_code_point_but_nul_is_a_key():
    for point in (*range(1, 0xD800, 97), 0xE000, 0xFFFE, 0xFFFF, 0x10FFFF):
        check_key(chr(point).encode())


@given(st.binary(max_size=50))
def test_percent_decoding_inverts_encoding(data):
    assert percent_decode(quote_from_bytes(data).encode()) == data


@given(st.binary(max_size=60))
def test_any_target_is_split_or_refused(data):
    try:
        bucket, key, _ = split_target(data)
    except S3Error:
        return
    assert bucket == "" or bucket_name_is_valid(bucket)
    assert bucket or not key


def test_split_query_keeps_plus_order_and_absent_values():
    query, bare = split_query(b"a=1+2&&acl&b=%20x&b=&c=d=e")
    assert query == [(b"a", b"1+2"), (b"acl", b""), (b"b", b" x"), (b"b", b""), (b"c", b"d=e")]
    assert bare == [b"acl", b"b"]


def test_long_targets_are_refused_before_they_are_decoded():
    with pytest.raises(S3Error) as caught:
        split_query(b"a&" * QUERY_PARAMETERS_MAX)
    assert caught.value.code == "InvalidRequest"
    assert len(split_query(b"&".join([b"a=1"] * QUERY_PARAMETERS_MAX))[0]) == QUERY_PARAMETERS_MAX
    with pytest.raises(S3Error) as caught:
        split_target(b"/bucket/" + b"%41" * 2000)
    assert caught.value.code == "KeyTooLongError"
    assert split_target(b"/bucket/" + b"%41" * 1024)[1] == b"A" * 1024
