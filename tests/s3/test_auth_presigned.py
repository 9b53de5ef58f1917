"""Presigned URLs (PRE-1 to PRE-10)."""

from __future__ import annotations

from typing import Any
from unittest import mock
from urllib.parse import parse_qs, quote, quote_from_bytes, urlsplit

import boto3
import botocore.auth
import pytest
from botocore.config import Config
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot._speedups import sigv4
from ingot.messages import Request
from ingot.s3.auth import Authenticated
from ingot.s3.errors import S3Error
from ingot.s3.sigv4 import hoist
from tests.s3.auth_signing import (
    ACCOUNT,
    EMPTY,
    NOW_MS,
    authenticator,
    change,
    presign,
    request,
)

URL = "http://h.test:9000/bucket/key"
GOOD = presign("GET", URL)
NAMES = ["Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature"]


def refused(
    given: Request, now_ms: int = NOW_MS, region: str = "us-east-1", **options: Any
) -> S3Error:
    with pytest.raises(S3Error) as error:
        authenticator(region).authenticate(given, now_ms, **options)
    return error.value


def accepted(given: Request, now_ms: int = NOW_MS, **options: Any) -> Authenticated:
    return authenticator().authenticate(given, now_ms, **options)


def with_parameter(name: str, value: str | None, given: Request = GOOD) -> Request:
    """The URL with one parameter changed, or removed where the value is None."""
    path, _, query = given.target.partition(b"?")
    pairs = [pair for pair in query.split(b"&") if pair.partition(b"=")[0] != name.encode()]
    if value is not None:
        pairs.append(f"{name}={quote(value, safe='')}".encode())
    return request(given.method, path + b"?" + b"&".join(pairs), given.headers)


@pytest.mark.parametrize("name", NAMES)
def test_pre_1_six_parameters_each_once(name: str) -> None:
    name = "X-Amz-" + name
    doubled = request("GET", GOOD.target + f"&{name}=1".encode(), GOOD.headers)
    lower = request("GET", GOOD.target.replace(name.encode(), name.lower().encode()), GOOD.headers)
    for bad in (with_parameter(name, None), with_parameter(name, ""), doubled, lower):
        error = refused(bad)
        assert (error.code, error.status) == ("AuthorizationQueryParametersError", 400)
        assert "requires the X-Amz-Algorithm" in error.message


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("Algorithm", "AWS4-HMAC-SHA512", "X-Amz-Algorithm only supports"),
        ("Algorithm", "aws4-hmac-sha256", "X-Amz-Algorithm only supports"),
        ("Credential", "AK/20130524/s3/aws4_request", "the Credential is mal-formed"),
        ("Credential", "/20130524/us-east-1/s3/aws4_request", "a non-empty Access Key"),
        ("Credential", "AK/20130524/us-east-1/ec2/aws4_request", 'incorrect service "ec2"'),
        ("Credential", "AK/20130524/us-east-1/s3/aws4", 'incorrect terminal "aws4"'),
        ("Credential", "AK/0524/us-east-1/s3/aws4_request", 'incorrect date format "0524"'),
        ("Credential", "AK/20130525/us-east-1/s3/aws4_request", "Invalid credential date"),
        ("Date", "2013-05-24T00:00:00Z", "X-Amz-Date must be in the ISO8601 Long Format"),
        ("Date", "Fri, 24 May 2013 00:00:00 GMT", "X-Amz-Date must be in"),
        ("Expires", "soon", "X-Amz-Expires should be a number"),
        ("Expires", "1.5", "X-Amz-Expires should be a number"),
        ("Expires", "-", "X-Amz-Expires should be a number"),
        ("Expires", "9" * 30, "X-Amz-Expires should be a number"),
        ("Expires", "-1", "X-Amz-Expires must be non-negative"),
        ("Expires", "604801", "must be less than a week"),
        ("SignedHeaders", "Host", "SignedHeaders"),
        ("SignedHeaders", "host;host", "SignedHeaders"),
        ("SignedHeaders", "host;a\nb", "SignedHeaders"),
    ],
)
def test_pre_2_each_mistake_with_its_message(name: str, value: str, text: str) -> None:
    error = refused(with_parameter("X-Amz-" + name, value))
    assert (error.code, error.status) == ("AuthorizationQueryParametersError", 400)
    assert text in error.message


def test_pre_2_another_region_names_the_right_one() -> None:
    error = refused(GOOD, region="eu-central-1")
    assert error.code == "AuthorizationQueryParametersError"
    assert "the region 'us-east-1' is wrong; expecting 'eu-central-1'" in error.message
    assert error.elements["Region"] == "eu-central-1"
    found = authenticator("eu-central-1").authenticate(GOOD, NOW_MS, default_region=True)
    assert found.account is ACCOUNT


def test_pre_3_expired_and_not_yet_valid() -> None:
    for now_ms in (NOW_MS, NOW_MS + 3599_999, NOW_MS - 15 * 60_000):
        assert accepted(GOOD, now_ms).account is ACCOUNT
    error = refused(GOOD, NOW_MS + 3600_000)
    assert (error.code, error.status) == ("AccessDenied", 403)
    assert error.message == "Request has expired"
    assert error.elements == {
        "X-Amz-Expires": "3600",
        "Expires": "2013-05-24T01:00:00Z",
        "ServerTime": "2013-05-24T01:00:00Z",
    }
    error = refused(GOOD, NOW_MS - 15 * 60_000 - 1)
    assert (error.code, error.status) == ("AccessDenied", 403)
    assert "not valid yet" in error.message
    assert refused(with_parameter("X-Amz-Expires", "0")).message == "Request has expired"


def test_an_unknown_key_and_a_wrong_signature() -> None:
    error = refused(with_parameter("X-Amz-Credential", "NOBODY/20130524/us-east-1/s3/aws4_request"))
    assert (error.code, error.elements) == ("InvalidAccessKeyId", {"AWSAccessKeyId": "NOBODY"})
    error = refused(with_parameter("X-Amz-Signature", "0" * 64))
    assert (error.code, error.status) == ("SignatureDoesNotMatch", 403)
    assert "X-Amz-Signature" not in error.elements["CanonicalRequest"]


def test_pre_4_what_stands_for_the_body() -> None:
    assert accepted(GOOD).payload.mode == "unsigned"
    for name in ("X-Amz-Content-Sha256", "x-amz-content-sha256"):
        given = presign_with(f"{name}={EMPTY}", EMPTY)
        assert accepted(given).payload == ("hash", bytes.fromhex(EMPTY))
        given = presign_with(f"{name}=nonsense", "nonsense")
        assert refused(given).code == "InvalidArgument"


def presign_with(extra: str, content: str) -> Request:
    """botocore always signs UNSIGNED-PAYLOAD into a URL; others do not."""
    with mock.patch.object(botocore.auth.S3SigV4QueryAuth, "payload", lambda *_: content):
        return presign("PUT", f"{URL}?{extra}")


def test_pre_5_every_amz_header_must_be_signed() -> None:
    error = refused(change(GOOD, (b"x-amz-acl", b"private")))
    assert (error.code, error.status) == ("AccessDenied", 403)
    assert error.elements["HeadersNotSigned"] == "x-amz-acl"
    given = presign("PUT", URL, {"x-amz-acl": "private"})
    assert b"X-Amz-SignedHeaders=host%3Bx-amz-acl" in given.target
    assert accepted(given).account is ACCOUNT


def test_pre_5_hoisted_parameters_take_effect_as_headers() -> None:
    query = "X-Amz-Acl=private&x-amz-meta-a=%20gr%C3%BCn%20&response-expires=x"
    given = presign("PUT", f"{URL}?{query}", {"x-amz-meta-b": "sent"})
    accepted(given)
    assert given.index[b"x-amz-acl"] == b"private"
    assert given.index[b"x-amz-meta-a"] == "grün".encode()
    assert given.index[b"x-amz-meta-b"] == b"sent"
    assert (b"x-amz-acl", b"private") in given.headers
    assert not any(name.startswith(b"x-amz-signature") for name in given.index)
    assert b"x-amz-date" not in given.index and b"response-expires" not in given.index


def test_pre_5_repeated_parameters_are_joined_as_lines_would_be() -> None:
    given = request("PUT", b"/b", [])
    hoist(given, [(b"x-amz-meta-a", b"1"), (b"X-Amz-Meta-A", b" 2"), (b"X-Amz-Date", b"d")])
    assert given.headers == [(b"x-amz-meta-a", b"1"), (b"x-amz-meta-a", b"2")]
    assert given.index == {b"x-amz-meta-a": b"1,2"}


def test_pre_5_a_header_that_was_sent_stays() -> None:
    given = presign("PUT", f"{URL}?x-amz-meta-a=query", {"x-amz-meta-a": "header"})
    accepted(given)
    assert given.index[b"x-amz-meta-a"] == b"header"


def test_pre_5_nothing_is_hoisted_into_a_request_that_fails() -> None:
    given = with_parameter("x-amz-acl", "private")
    assert refused(given).code == "SignatureDoesNotMatch"
    assert b"x-amz-acl" not in given.index


@pytest.mark.parametrize("extra", ["x-amz-meta-a=b%0D%0Ac", "x-amz-meta-a=%00", "x-amz-a%3Ab=c"])
def test_pre_5_an_escape_cannot_smuggle_a_header(extra: str) -> None:
    error = refused(presign("PUT", f"{URL}?{extra}"))
    assert (error.code, error.status) == ("InvalidArgument", 400)


def test_pre_8_a_session_token_that_nobody_issued() -> None:
    error = refused(presign("GET", f"{URL}?X-Amz-Security-Token=abc"))
    assert (error.code, error.status) == ("InvalidToken", 403)


def test_boto3_presigned_urls() -> None:
    client = boto3.client(
        "s3",
        endpoint_url="http://h.test:9000",
        region_name="us-east-1",
        aws_access_key_id=ACCOUNT.access_key,
        aws_secret_access_key=ACCOUNT.secret_key,
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )
    calls: list[tuple[str, dict[str, Any]]] = [
        ("get_object", {"Key": "a b/ü+~.txt", "ResponseContentType": "text/plain; charset=utf-8"}),
        ("put_object", {"Key": "k", "ContentType": "text/plain", "Metadata": {"a": "b c"}}),
        ("upload_part", {"Key": "k", "UploadId": "u", "PartNumber": 1}),
        ("list_objects_v2", {"Prefix": "a/", "Delimiter": "/"}),
    ]
    for name, parameters in calls:
        url = client.generate_presigned_url(name, {"Bucket": "bucket", **parameters})
        stamp = parse_qs(urlsplit(url).query)["X-Amz-Date"][0]
        method = {"get_object": "GET", "list_objects_v2": "GET"}.get(name, "PUT")
        headers = [(b"host", b"h.test:9000")]
        if name == "put_object":
            headers += [(b"content-type", b"text/plain"), (b"x-amz-meta-a", b"b c")]
        target = url.removeprefix("http://h.test:9000").encode()
        now_ms = sigv4.parse_stamp(stamp.encode())
        assert accepted(request(method, target, headers), now_ms).account is ACCOUNT


@given(
    st.lists(
        st.tuples(st.sampled_from([f"X-Amz-{name}" for name in NAMES]), st.binary(max_size=20)),
        max_size=8,
    )
)
@settings(max_examples=300, deadline=None)
def test_any_other_values_are_refused_with_an_s3_error(changes: list[tuple[str, bytes]]) -> None:
    given = GOOD
    for name, value in changes:
        path, _, query = given.target.partition(b"?")
        pairs = [pair for pair in query.split(b"&") if not pair.startswith(name.encode() + b"=")]
        pairs.append(f"{name}={quote_from_bytes(value, safe='')}".encode())
        given = request("GET", path + b"?" + b"&".join(pairs), given.headers)
    if sorted(sigv4.parse_query(given.target)) != sorted(sigv4.parse_query(GOOD.target)):
        assert 400 <= refused(given).status < 500
    else:
        assert accepted(given).account is ACCOUNT


@given(query=st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_query_is_refused_or_anonymous(query: bytes) -> None:
    given = request("GET", b"/b?" + query, [(b"host", b"h")])
    try:
        assert accepted(given).account is None
    except S3Error as error:
        assert error.status == 400
