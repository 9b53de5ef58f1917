"""Signatures against AWS's published vectors and against botocore, with anything for a request."""

from __future__ import annotations

import hmac
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot._speedups import sigv4
from ingot.messages import Request
from ingot.s3.auth import Authenticated
from ingot.s3.errors import S3Error
from tests.s3.auth_signing import (
    ACCOUNT,
    CREDENTIAL,
    EMPTY,
    NOW_MS,
    SECRET,
    STAMP,
    authenticator,
    change,
    presign,
    request,
    sign,
    sign_by_hand,
)

HOST = (b"host", b"examplebucket.s3.amazonaws.com")
DATE = (b"x-amz-date", STAMP)
EMPTY_CONTENT = (b"x-amz-content-sha256", EMPTY.encode())


def signed(
    method: str, target: bytes, headers: list[tuple[bytes, bytes]], signature: str
) -> Request:
    names = b";".join(sorted(name for name, _ in headers)).decode()
    value = f"AWS4-HMAC-SHA256 Credential={CREDENTIAL},SignedHeaders={names},Signature={signature}"
    return request(method, target, [*headers, (b"authorization", value.encode())])


def accepted(given: Request, **options: Any) -> Authenticated:
    found = authenticator().authenticate(given, NOW_MS, **options)
    assert found.account is ACCOUNT
    return found


def test_the_signing_key_of_the_published_example() -> None:
    key = sigv4.SigningKey(SECRET, b"20130524", b"us-east-1")
    raw = bytes.fromhex("dbb893acc010964918f1fd433add87c70e8b0db6be30c1fbeafefa5ec6ba8378")
    for message in (b"", b"abc" * 100):
        assert key.sign(message) == hmac.digest(raw, message, "sha256").hex().encode()


PUT_CONTENT = b"44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"


@pytest.mark.parametrize(
    ("method", "target", "headers", "signature"),
    [
        (
            "GET",
            b"/test.txt",
            [HOST, (b"range", b"bytes=0-9"), EMPTY_CONTENT, DATE],
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT",
            b"/test%24file.text",
            [
                HOST,
                DATE,
                (b"date", b"Fri, 24 May 2013 00:00:00 GMT"),
                (b"x-amz-storage-class", b"REDUCED_REDUNDANCY"),
                (b"x-amz-content-sha256", PUT_CONTENT),
            ],
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        (
            "GET",
            b"/?lifecycle",
            [HOST, EMPTY_CONTENT, DATE],
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "GET",
            b"/?max-keys=2&prefix=J",
            [HOST, EMPTY_CONTENT, DATE],
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)
def test_published_header_vectors(
    method: str, target: bytes, headers: list[tuple[bytes, bytes]], signature: str
) -> None:
    found = accepted(signed(method, target, headers, signature))
    assert found.signature == signature.encode()
    assert found.scope == b"20130524/us-east-1/s3/aws4_request"
    with pytest.raises(S3Error) as error:
        accepted(signed(method, target, headers, "0" * 64))
    assert error.value.code == "SignatureDoesNotMatch"


def test_the_published_presigned_vector() -> None:
    target = (
        b"/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F"
        b"20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400"
        b"&X-Amz-SignedHeaders=host&X-Amz-Signature="
        b"aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )
    found = accepted(request("GET", target, [HOST]))
    assert found.presigned and found.payload.mode == "unsigned"


# -- canonical form (CAN) -------------------------------------------------------------------------
def test_can_1_the_path_is_signed_as_sent() -> None:
    for path in (b"/b/a+b", b"/b/~!*'()", b"/b/a%2fb%2F", b"/b/%41", b"/b//k", b"/b/a/../b/./c"):
        accepted(sign_by_hand("GET", path, base_headers(), b"host;" + AMZ))


def test_can_1_a_path_signed_strictly_and_sent_otherwise_is_accepted() -> None:
    for sent, strict in ((b"/b/a+b", b"/b/a%2Bb"), (b"/b/(x)%41", b"/b/%28x%29A")):
        accepted(sign_by_hand("GET", sent, base_headers(), b"host;" + AMZ, path=strict))
    with pytest.raises(S3Error) as error:
        accepted(sign_by_hand("GET", b"/b/a+b", base_headers(), b"host;" + AMZ, path=b"/b/a b"))
    assert error.value.code == "SignatureDoesNotMatch"


AMZ = b"x-amz-content-sha256;x-amz-date"


def base_headers() -> list[tuple[bytes, bytes]]:
    return [HOST, (b"x-amz-content-sha256", b"UNSIGNED-PAYLOAD"), DATE]


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [
        (b"", b""),
        (b"acl", b"acl="),
        (b"a=1&&b=2&", b"a=1&b=2"),
        (b"b=2&a=1", b"a=1&b=2"),
        (b"a=2&a=1&a", b"a=&a=1&a=2"),
        (b"a=x+y", b"a=x%2By"),
        (b"a=x%20y&prefix=%2f", b"a=x%20y&prefix=%2F"),
        (b"a=b=c", b"a=b%3Dc"),
        (b"a=/~!", b"a=%2F~%21"),
        (b"a-b=1&a%2fb=1&a=1", b"a=1&a%2Fb=1&a-b=1"),  # CAN-4: encoded forms are sorted
        (b"a=%e4", b"a=%E4"),
        (b"=v", b"=v"),
    ],
)
def test_can_3_the_query(raw: bytes, canonical: bytes) -> None:
    target = b"/b?" + raw
    accepted(sign_by_hand("GET", target, base_headers(), b"host;" + AMZ, query=canonical))


def test_can_5_header_values() -> None:
    cases = [(b"  a   b  ", b"a b"), (b'"a  b"', b'"a b"'), (b"a\t b", b"a b"), (b"", b"")]
    for sent, canonical in cases:
        headers = [*base_headers(), (b"x-amz-meta-a", sent)]
        names = b"host;" + AMZ + b";x-amz-meta-a"
        values = dict(base_headers()) | {b"x-amz-meta-a": canonical}
        accepted(sign_by_hand("PUT", b"/b/k", headers, names, values=values))


def test_can_5_repeated_lines_are_joined_in_order() -> None:
    headers = [*base_headers(), (b"x-amz-meta-a", b"2"), (b"x-amz-meta-a", b"1 ")]
    values = dict(base_headers()) | {b"x-amz-meta-a": b"2,1"}
    names = b"host;" + AMZ + b";x-amz-meta-a"
    accepted(sign_by_hand("PUT", b"/b/k", headers, names, values=values))


def test_can_5_a_listed_header_that_is_absent_signs_as_empty() -> None:
    accepted(sign_by_hand("GET", b"/b", base_headers(), b"content-length;host;" + AMZ))


def test_can_6_values_are_bytes_as_received_and_the_list_is_taken_verbatim() -> None:
    for value in ("grün".encode(), "grün".encode("latin-1")):
        headers = [*base_headers(), (b"x-amz-meta-a", value)]
        accepted(sign_by_hand("PUT", b"/b/k", headers, b"x-amz-meta-a;" + AMZ + b";host"))


@pytest.mark.parametrize("host", [b"127.0.0.1:9000", b"[::1]:80", b"S3.Example.com", b"b.h:443"])
def test_can_7_the_host_is_signed_as_sent(host: bytes) -> None:
    headers = [(b"host", host), *base_headers()[1:]]
    accepted(sign_by_hand("GET", b"/b", headers, b"host;" + AMZ))
    other = dict(headers) | {b"host": host.lower().rpartition(b":")[0]}
    with pytest.raises(S3Error) as error:
        accepted(sign_by_hand("GET", b"/b", headers, b"host;" + AMZ, values=other))
    assert error.value.code == "SignatureDoesNotMatch"


def test_can_8_what_other_sdks_sign_besides() -> None:
    """aws-sdk-go-v2 signs headers of connections and of its own attempts, over a body that it does
    not hash (CAN-10)."""
    more = [
        (b"accept-encoding", b"identity"),
        (b"amz-sdk-invocation-id", b"2f1c5ae0-8f8c-4c3f-9f35-6f3a6a1c2b11"),
        (b"amz-sdk-request", b"attempt=1; max=10"),
        (b"content-length", b"5"),
    ]
    headers = [*base_headers(), *more]
    names = b";".join(sorted(name for name, _ in headers))
    found = accepted(sign_by_hand("PUT", b"/b/k?x-id=PutObject", headers, names, query=QUERY_ID))
    assert found.payload.mode == "unsigned"
    for name, _ in more:
        edited = change(
            sign_by_hand("PUT", b"/b/k?x-id=PutObject", headers, names, query=QUERY_ID),
            (name, b"6"),
        )
        with pytest.raises(S3Error) as error:
            accepted(edited)
        assert error.value.code == "SignatureDoesNotMatch"


QUERY_ID = b"x-id=PutObject"


def test_can_9_trace_and_expect_need_not_be_signed() -> None:
    extra = [(b"expect", b"100-continue"), (b"x-amzn-trace-id", b"Root=1"), (b"user-agent", b"x")]
    accepted(sign_by_hand("GET", b"/b", [*base_headers(), *extra], b"host;" + AMZ))


def test_the_date_header_stands_in_for_x_amz_date() -> None:
    for date in (b"Fri, 24 May 2013 00:00:00 GMT", b"24 May 2013 00:00:00 +0000", STAMP):
        headers = [HOST, (b"date", date), (b"x-amz-content-sha256", b"UNSIGNED-PAYLOAD")]
        found = accepted(sign_by_hand("GET", b"/b", headers, b"date;host;x-amz-content-sha256"))
        assert found.stamp == STAMP


# -- botocore as the oracle -----------------------------------------------------------------------
KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
WORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)
VALUES = st.lists(
    st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=10), max_size=4
).map(" ".join)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=12)


def url(key: str, query: list[tuple[str, str]]) -> str:
    target = "http://h.test:9000/bucket/" + quote(key, safe="/~")
    pairs = "&".join(f"{quote(n, safe='-_.~')}={quote(v, safe='-_.~')}" for n, v in query)
    return target + ("?" + pairs if pairs else "")


@given(
    method=st.sampled_from(["GET", "PUT", "DELETE", "POST", "HEAD"]),
    key=KEYS,
    query=st.lists(st.tuples(WORDS.filter(lambda word: not word.startswith("X-Amz-")), WORDS)),
    meta=st.dictionaries(NAMES, VALUES, max_size=4),
    data=st.binary(max_size=50),
)
@settings(max_examples=150, deadline=None)
def test_whatever_botocore_signs_is_accepted_and_no_change_of_it(
    method: str,
    key: str,
    query: list[tuple[str, str]],
    meta: dict[str, str],
    data: bytes,
) -> None:
    query = [pair for pair in query if pair[0] not in ("AWSAccessKeyId", "Signature")]
    headers = {f"x-amz-meta-{name}": value for name, value in meta.items()}
    given = sign(method, url(key, query), headers, data)
    found = accepted(given)
    assert found.query == [(name.encode(), value.encode()) for name, value in query]
    tampered = Request(
        *(method, given.target + b"x", given.headers, given.index, given.body, "", False)
    )
    for other in (tampered, change(given, (b"host", b"other.test"))):
        with pytest.raises(S3Error) as error:
            accepted(other)
        assert error.value.code == "SignatureDoesNotMatch"


@given(
    method=st.sampled_from(["GET", "PUT"]),
    key=KEYS,
    query=st.lists(st.tuples(NAMES, WORDS), max_size=4),
    expires=st.integers(1, 604800),
)
@settings(max_examples=80, deadline=None)
def test_whatever_botocore_presigns_is_accepted_and_no_change_of_it(
    method: str, key: str, query: list[tuple[str, str]], expires: int
) -> None:
    given = presign(method, url(key, query), expires=expires)
    assert accepted(given).presigned
    for target in (b"/x" + given.target, given.target.replace(b"&X-Amz-Date", b"&a=b&X-Amz-Date")):
        other = request(given.method, target, given.headers)
        with pytest.raises(S3Error) as error:
            accepted(other)
        assert error.value.code == "SignatureDoesNotMatch"


def test_keys_are_bounded_and_follow_a_changed_secret() -> None:
    """AUTH-4."""
    keys = sigv4.SigningKeys(2)
    first = keys.get("a", "secret", b"20130524", b"r")
    assert keys.get("a", "secret", b"20130524", b"r") is first
    changed = keys.get("a", "other", b"20130524", b"r")
    assert changed.sign(b"x") != first.sign(b"x") and len(keys) == 1
    for day in (b"20130525", b"20130526", b"20130527"):
        keys.get("a", "other", day, b"r")
    assert len(keys) == 2
    with pytest.raises(ValueError):
        sigv4.SigningKeys(0)


@pytest.mark.parametrize(
    ("value", "unix_ms"),
    [
        (b"19700101T000000Z", 0),
        (b"20130524T000000Z", 1369353600000),
        (b"20240229T235959Z", 1709251199000),
        (b"20000229T000000Z", 951782400000),
        (b"99991231T235959Z", 253402300799000),
        (b"20230229T000000Z", -1),
        (b"19691231T235959Z", -1),
        (b"00000101T000000Z", -1),
        (b"20131324T000000Z", -1),
        (b"20130500T000000Z", -1),
        (b"20130524T240000Z", -1),
        (b"20130524T006000Z", -1),
        (b"20130524T000060Z", -1),
        (b"20130524 000000Z", -1),
        (b"20130524T000000", -1),
        (b"2013052aT000000Z", -1),
        (b"+0130524T000000Z", -1),
        (b"", -1),
    ],
)
def test_stamps(value: bytes, unix_ms: int) -> None:
    assert sigv4.parse_stamp(value) == unix_ms
