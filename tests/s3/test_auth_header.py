"""Header SigV4: each check, its code and elements, and the order in which they are made."""

from __future__ import annotations

import base64
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingot.credentials import Account
from ingot.messages import Request
from ingot.s3.auth import Authenticated, parse_query
from ingot.s3.errors import S3Error
from ingot.s3.xml import error_document
from tests.s3.auth_signing import (
    ACCOUNT,
    CREDENTIAL,
    EMPTY,
    NOW_MS,
    SECRET,
    authenticator,
    change,
    request,
    sign,
    sign_by_hand,
    signing_key,
)

URL = "http://h.test:9000/bucket/key"
GOOD = sign("GET", URL)
AUTHORIZATION = GOOD.index[b"authorization"]


def refused(
    given: Request, now_ms: int = NOW_MS, region: str = "us-east-1", **options: Any
) -> S3Error:
    with pytest.raises(S3Error) as error:
        authenticator(region).authenticate(given, now_ms, **options)
    return error.value


def accepted(given: Request, now_ms: int = NOW_MS, **options: Any) -> Authenticated:
    return authenticator().authenticate(given, now_ms, **options)


def replaced(old: bytes, new: bytes) -> Request:
    assert old in AUTHORIZATION
    return change(GOOD, (b"authorization", AUTHORIZATION.replace(old, new)))


def with_credential(credential: str) -> Request:
    return replaced(CREDENTIAL.encode(), credential.encode())


# -- AUTH-1, AUTH-2: which mechanism --------------------------------------------------------------
def test_auth_1_header_and_query_together() -> None:
    for extra in (b"X-Amz-Signature=a", b"X-Amz-Algorithm=a", b"AWSAccessKeyId=a", b"Signature="):
        given = request("GET", GOOD.target + b"?" + extra, GOOD.headers)
        error = refused(given)
        assert (error.code, error.status) == ("InvalidArgument", 400)
        assert "Only one auth mechanism" in error.message
        assert error.elements["ArgumentName"] == "Authorization"


def test_auth_1_sigv2_in_the_query() -> None:
    """PRE-9 too."""
    target = b"/b/k?AWSAccessKeyId=a&Signature=b&Expires=1"
    error = refused(request("GET", target, [(b"host", b"h")]))
    assert (error.code, error.status) == ("InvalidRequest", 400)
    assert "Please use AWS4-HMAC-SHA256" in error.message


def test_auth_2_sigv2_in_the_header() -> None:
    error = refused(change(GOOD, (b"authorization", b"AWS AKIA:c2ln")))
    assert (error.code, error.status) == ("InvalidRequest", 400)


@pytest.mark.parametrize(
    "value",
    [
        b"AWS4-HMAC-SHA256",
        b"AWS4-HMAC-SHA256  Credential=a,SignedHeaders=b,Signature=c",
        b"nospace",
        b"Bearer abc",
        b"Basic dTpw",
        b"AWS4-ECDSA-P256-SHA256 Credential=a,SignedHeaders=b,Signature=c",
        b"aws4-hmac-sha256 Credential=a,SignedHeaders=b,Signature=c",
    ],
)
def test_auth_2_a_shape_or_type_that_is_none(value: bytes) -> None:
    error = refused(change(GOOD, (b"authorization", value)))
    assert (error.code, error.status) == ("InvalidArgument", 400)
    assert error.elements["ArgumentName"] == "Authorization"


def test_auth_6_without_credentials_a_request_is_anonymous() -> None:
    for headers in ([(b"host", b"h")], [(b"host", b"h"), (b"authorization", b"  ")]):
        found = accepted(request("GET", b"/b/k?acl", headers))
        assert found.account is None and found.key is None and found.query == [(b"acl", b"")]


# -- the components -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"Credential=a,SignedHeaders=b", "requires three components"),
        (b"Credential=a,SignedHeaders=b,Signature=c,Signature=c", "requires three components"),
        (b"credential=a,SignedHeaders=b,Signature=c", "missing Credential"),
        (b"Credential=a,Signedheaders=b,Signature=c", "missing SignedHeaders"),
        (b"Credential=a,SignedHeaders=b,Signature", "a non-empty Signature"),
        (b"Credential=a,SignedHeaders=b,Credential=c", "missing Signature"),
        (b"Credential=a,SignedHeaders=b,Signature=", "a non-empty Signature"),
        (b"Credential=,SignedHeaders=b,Signature=c", "the Credential is mal-formed"),
        (b"Credential=a,SignedHeaders=,Signature=c", "a non-empty SignedHeaders"),
        (b"Credential=a/b,SignedHeaders=host,Signature=c", "the Credential is mal-formed"),
    ],
)
def test_auth_3_components(value: bytes, text: str) -> None:
    error = refused(change(GOOD, (b"authorization", b"AWS4-HMAC-SHA256 " + value)))
    assert (error.code, error.status) == ("AuthorizationHeaderMalformed", 400)
    assert error.message.startswith("The authorization header is malformed; ")
    assert text in error.message


def test_auth_3_any_order_and_blanks() -> None:
    parts = [part.strip() for part in AUTHORIZATION.removeprefix(b"AWS4-HMAC-SHA256 ").split(b",")]
    for separator in (b",", b", ", b" ,\t"):
        for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2)):
            value = b"AWS4-HMAC-SHA256 " + separator.join(parts[at] for at in order)
            assert accepted(change(GOOD, (b"authorization", value))).account is ACCOUNT


def test_auth_3_an_access_key_with_slashes() -> None:
    account = Account("team/a/key", "secret", "1" * 64, "team")
    given = sign("GET", URL, account=account)
    found = authenticator("us-east-1", account).authenticate(given, NOW_MS)
    assert found.account is account


@pytest.mark.parametrize(
    "names",
    [b"Host;x-amz-date", b"host;host", b"host;", b";host", b"host x", b"host:a", b"h\xf6st"]
    + [b";".join(b"h%d" % n for n in range(300))],
)
def test_signed_names_must_be_lower_case_and_there_once(names: bytes) -> None:
    error = refused(replaced(b"host;x-amz-content-sha256;x-amz-date", names))
    assert error.code == "AuthorizationHeaderMalformed"


# -- the scope ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("credential", "text"),
    [
        ("/20130524/us-east-1/s3/aws4_request", "a non-empty Access Key"),
        ("AK/20130524/us-east-1/ec2/aws4_request", 'incorrect service "ec2"'),
        ("AK/20130524/us-east-1/s3/aws4", 'incorrect terminal "aws4"'),
        ("AK/2013-05-24/us-east-1/s3/aws4_request", 'incorrect date format "2013-05-24"'),
        ("AK/20131324/us-east-1/s3/aws4_request", "incorrect date format"),
        ("AK/20130523/us-east-1/s3/aws4_request", 'Invalid credential date "20130523"'),
    ],
)
def test_scope(credential: str, text: str) -> None:
    error = refused(with_credential(credential))
    assert (error.code, error.status) == ("AuthorizationHeaderMalformed", 400)
    assert text in error.message
    assert "Region" not in error.elements


def test_another_region_names_the_right_one() -> None:
    """In a header too: a HEAD has no document."""
    error = refused(GOOD, region="eu-central-1")
    assert error.code == "AuthorizationHeaderMalformed"
    assert error.elements["Region"] == "eu-central-1"
    assert error.headers == ((b"x-amz-bucket-region", b"eu-central-1"),)
    assert "the region 'us-east-1' is wrong; expecting 'eu-central-1'" in error.message


def test_us_east_1_is_accepted_where_clients_do_not_know_the_region() -> None:
    found = authenticator("eu-central-1").authenticate(GOOD, NOW_MS, default_region=True)
    assert found.account is ACCOUNT
    given = sign("GET", URL, region="us-west-2")
    assert refused(given, region="eu-central-1", default_region=True).elements["Region"]


# -- key, date, skew ------------------------------------------------------------------------------
def test_unknown_access_key() -> None:
    error = refused(with_credential("NOBODY/20130524/us-east-1/s3/aws4_request"))
    assert (error.code, error.status) == ("InvalidAccessKeyId", 403)
    assert error.elements["AWSAccessKeyId"] == "NOBODY"


@pytest.mark.parametrize(
    "changes",
    [
        [(b"x-amz-date", None)],
        [(b"x-amz-date", b"")],
        [(b"x-amz-date", b"yesterday")],
        [(b"x-amz-date", b"2013-05-24T00:00:00Z")],
        [(b"x-amz-date", None), (b"date", b"tomorrow")],
        [(b"x-amz-date", None), (b"date", b"Fri, 24 Mai 2013 00:00:00 GMT")],
        [(b"x-amz-date", None), (b"date", b"Fri, 31 Feb 2013 00:00:00 GMT")],
        [(b"x-amz-date", b"bad"), (b"date", b"Fri, 24 May 2013 00:00:00 GMT")],
    ],
)
def test_auth_5_no_date_or_none_that_can_be_read(
    changes: list[tuple[bytes, bytes | None]],
) -> None:
    error = refused(change(GOOD, *changes))
    assert (error.code, error.status) == ("AccessDenied", 403)


def test_skew() -> None:
    window = 15 * 60 * 1000
    for offset in (-window, 0, window):
        assert accepted(GOOD, NOW_MS + offset).account is ACCOUNT
    for offset in (-window - 1, window + 1):
        error = refused(GOOD, NOW_MS + offset)
        assert (error.code, error.status) == ("RequestTimeTooSkewed", 403)
        assert error.elements["RequestTime"] == "20130524T000000Z"
        assert error.elements["ServerTime"].startswith("2013-05-2")
        assert error.elements["MaxAllowedSkewMilliseconds"] == "900000"


@pytest.mark.parametrize("year", ["1970", "9999"])
def test_auth_5_dates_far_away(year: str) -> None:
    given = change(
        with_credential(f"{ACCOUNT.access_key}/{year}0101/us-east-1/s3/aws4_request"),
        (b"x-amz-date", f"{year}0101T000000Z".encode()),
    )
    assert refused(given).status == 403


# -- payload --------------------------------------------------------------------------------------
def test_content_sha256_absent() -> None:
    error = refused(change(GOOD, (b"x-amz-content-sha256", None)))
    assert (error.code, error.status) == ("InvalidRequest", 400)
    assert "x-amz-content-sha256" in error.message


@pytest.mark.parametrize(
    "value", [b"", b"abc", b"g" * 64, b"a" * 63, b"a" * 65, b"unsigned-payload", b"  " + b"a" * 62]
)
def test_content_sha256_that_is_nothing(value: bytes) -> None:
    error = refused(change(GOOD, (b"x-amz-content-sha256", value)), streaming=True)
    assert (error.code, error.status) == ("InvalidArgument", 400)
    assert error.elements["ArgumentName"] == "x-amz-content-sha256"


@pytest.mark.parametrize(
    ("keyword", "mode"),
    [
        (b"UNSIGNED-PAYLOAD", "unsigned"),
        (b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "signed-chunks"),
        (b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", "signed-chunks-trailer"),
        (b"STREAMING-UNSIGNED-PAYLOAD-TRAILER", "unsigned-chunks-trailer"),
    ],
)
def test_payload_keywords(keyword: bytes, mode: str) -> None:
    headers = [(b"host", b"h"), (b"x-amz-content-sha256", keyword)]
    headers.append((b"x-amz-date", b"20130524T000000Z"))
    names = b"host;x-amz-content-sha256;x-amz-date"
    given = sign_by_hand("PUT", b"/b/k", headers, names, content=keyword)
    found = accepted(given, streaming=True)
    assert (found.payload.mode, found.payload.sha256) == (mode, None)
    if mode != "unsigned":
        error = refused(given)
        assert (error.code, error.status) == ("InvalidRequest", 400)


@pytest.mark.parametrize("suffix", [b"", b"-TRAILER"])
def test_sigv4a_streaming_is_not_implemented(suffix: bytes) -> None:
    keyword = b"STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD" + suffix
    error = refused(change(GOOD, (b"x-amz-content-sha256", keyword)), streaming=True)
    assert (error.code, error.status) == ("NotImplemented", 501)


def test_a_hash_is_taken_in_either_case() -> None:
    for value in (EMPTY, EMPTY.upper()):
        given = sign("GET", URL, {"X-Amz-Content-SHA256": value})
        assert given.index[b"x-amz-content-sha256"] == EMPTY.encode()
        headers = [(b"host", b"h"), (b"x-amz-content-sha256", value.encode())]
        headers.append((b"x-amz-date", b"20130524T000000Z"))
        names = b"host;x-amz-content-sha256;x-amz-date"
        given = sign_by_hand("GET", b"/b", headers, names, content=value.encode())
        found = accepted(given)
        assert found.payload == ("hash", bytes.fromhex(EMPTY))


# -- signed headers and the signature -------------------------------------------------------------
def test_headers_that_had_to_be_signed() -> None:
    given = change(GOOD, (b"x-amz-meta-a", b"1"), (b"x-amz-acl", b"private"))
    error = refused(given)
    assert (error.code, error.status) == ("AccessDenied", 403)
    assert error.elements["HeadersNotSigned"] == "x-amz-meta-a, x-amz-acl"
    error = refused(replaced(b"host;", b""))
    assert error.elements["HeadersNotSigned"] == "host"


def test_a_wrong_signature_shows_what_the_server_signed() -> None:
    """AUTH-4: that, and neither the secret nor the key derived from it."""
    error = refused(change(GOOD, (b"host", b"other")))
    assert (error.code, error.status) == ("SignatureDoesNotMatch", 403)
    names = ["AWSAccessKeyId", "StringToSign", "SignatureProvided", "StringToSignBytes"]
    assert list(error.elements) == [*names, "CanonicalRequest", "CanonicalRequestBytes"]
    assert error.elements["AWSAccessKeyId"] == ACCOUNT.access_key
    canonical = error.elements["CanonicalRequest"]
    assert canonical.startswith("GET\n/bucket/key\n\nhost:other\n")
    assert bytes.fromhex(error.elements["CanonicalRequestBytes"]) == canonical.encode()
    string = error.elements["StringToSign"]
    assert string.startswith("AWS4-HMAC-SHA256\n20130524T000000Z\n20130524/us-east-1/s3/")
    assert bytes.fromhex(error.elements["StringToSignBytes"]) == string.encode()
    for secret in (SECRET, signing_key().hex(), base64.b64encode(signing_key()).decode()):
        assert secret not in str(error.elements)


def test_an_error_is_always_a_readable_document() -> None:
    headers = [(b"host", b"h"), (b"x-amz-date", b"\0\x1f\xff\xef\xbf\xbf")]
    value = b"AWS4-HMAC-SHA256 Credential=\x01\xff/20130524/us-east-1/s3/aws4_request,"
    value += b"SignedHeaders=host,Signature=\x02"
    error = refused(request("GET", b"/b", [*headers, (b"authorization", value)]))
    document = ElementTree.fromstring(error_document(error, "/b", "id", "host"))
    assert document.findtext("Code") == "InvalidAccessKeyId"
    assert document.findtext("AWSAccessKeyId") == "\ufffd\ufffd"


def test_a_long_request_is_not_sent_back() -> None:
    given = change(GOOD, (b"host", b"h" * 20000))
    assert "CanonicalRequest" not in refused(given).elements


def test_a_wrong_secret() -> None:
    account = Account(ACCOUNT.access_key, "another secret", "1" * 64, "x")
    assert refused(sign("GET", URL, account=account)).code == "SignatureDoesNotMatch"
    accounts = {ACCOUNT.access_key: ACCOUNT}
    server = authenticator()
    server.accounts = accounts
    assert server.authenticate(GOOD, NOW_MS).account is ACCOUNT
    accounts[ACCOUNT.access_key] = account  # the held form and key must not outlive the secret
    with pytest.raises(S3Error) as error:
        server.authenticate(GOOD, NOW_MS)
    assert error.value.code == "SignatureDoesNotMatch"
    del accounts[ACCOUNT.access_key]
    with pytest.raises(S3Error) as error:
        server.authenticate(GOOD, NOW_MS)
    assert error.value.code == "InvalidAccessKeyId"


def test_a_session_token_that_nobody_issued() -> None:
    given = sign("GET", URL, {"X-Amz-Security-Token": "token"})
    error = refused(given)
    assert (error.code, error.status) == ("InvalidToken", 403)


def test_what_is_held_of_clients_is_bounded() -> None:
    server = authenticator()
    for number in range(1500):
        given = sign_by_hand(
            "GET",
            b"/b",
            [(b"host", b"h"), (b"x-amz-date", b"20130524T000000Z")]
            + [(b"x-amz-content-sha256", b"UNSIGNED-PAYLOAD")],
            b"h%d;host;x-amz-content-sha256;x-amz-date" % number,
        )
        assert server.authenticate(given, NOW_MS).account is ACCOUNT
    assert len(server._parsed) <= 1024 and len(server.forms) <= 1024
    # Nothing of a request that did not verify is held.
    fresh = authenticator()
    with pytest.raises(S3Error):
        fresh.authenticate(change(GOOD, (b"host", b"other")), NOW_MS)
    assert not fresh._parsed and not fresh.forms


def test_the_order_of_the_checks() -> None:
    """A request with everything wrong is repaired step by step; each repair shows the next code."""
    given = request(
        "PUT",
        b"/b/k",
        [
            (b"host", b"h"),
            (b"authorization", b"AWS4-HMAC-SHA256 nonsense"),
            (b"x-amz-date", b"nonsense"),
            (b"x-amz-meta-a", b"1"),
            (b"x-amz-security-token", b"1"),
        ],
    )
    names = b"host;x-amz-content-sha256;x-amz-date"
    scope = b"20130524/%b/s3/aws4_request"
    form = b"AWS4-HMAC-SHA256 Credential=%b/" + scope + b",SignedHeaders=" + names
    form += b",Signature=" + b"0" * 64
    wrong_region = form % (b"NOBODY", b"elsewhere")
    unknown_key = form % (b"NOBODY", b"us-east-1")
    known = form % (ACCOUNT.access_key.encode(), b"us-east-1")
    all_signed = known.replace(names, names + b";x-amz-meta-a;x-amz-security-token")
    steps: list[tuple[str, list[tuple[bytes, bytes | None]]]] = [
        ("AuthorizationHeaderMalformed", []),
        ("AuthorizationHeaderMalformed", [(b"authorization", wrong_region)]),
        ("InvalidAccessKeyId", [(b"authorization", unknown_key)]),
        ("AccessDenied", [(b"authorization", known)]),
        ("RequestTimeTooSkewed", [(b"x-amz-date", b"20130524T010000Z")]),
        ("InvalidRequest", [(b"x-amz-date", b"20130524T000000Z")]),
        ("InvalidArgument", [(b"x-amz-content-sha256", b"?")]),
        ("AccessDenied", [(b"x-amz-content-sha256", b"UNSIGNED-PAYLOAD")]),
        ("SignatureDoesNotMatch", [(b"authorization", all_signed)]),
    ]
    for code, changes in steps:
        given = change(given, *changes)
        assert refused(given).code == code


# -- anonymous (CHK-9) ----------------------------------------------------------------------------
def test_chk_9_what_an_anonymous_body_may_be() -> None:
    def ask(value: bytes) -> Request:
        return request("PUT", b"/b/k", [(b"host", b"h"), (b"x-amz-content-sha256", value)])

    assert accepted(request("PUT", b"/b/k", [(b"host", b"h")])).payload.mode == "none"
    for value, mode in (
        (b"UNSIGNED-PAYLOAD", "unsigned"),
        (EMPTY.encode(), "hash"),
        (b"STREAMING-UNSIGNED-PAYLOAD-TRAILER", "unsigned-chunks-trailer"),
    ):
        assert accepted(ask(value), streaming=True).payload.mode == mode
    for value in (
        b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
    ):
        assert refused(ask(value), streaming=True).code == "InvalidRequest"
    assert refused(ask(b"x")).code == "InvalidArgument"


# -- anything at all ------------------------------------------------------------------------------
def test_a_query_with_a_broken_escape() -> None:
    for query in (b"a=%", b"a=%4", b"%zz", b"X-Amz-Signature=%g0"):
        error = refused(request("GET", b"/b?" + query, [(b"host", b"h")]))
        assert (error.code, error.status) == ("InvalidURI", 400)
    with pytest.raises(S3Error):
        parse_query(b"/?%")


def test_a_path_with_a_broken_escape_and_a_wrong_signature() -> None:
    assert refused(request("GET", b"/b/%zz", GOOD.headers)).code == "InvalidURI"


PIECES = st.sampled_from(
    [b"AWS4-HMAC-SHA256", b"AWS", b" ", b",", b"=", b"/", b";", b"\t", b"\xff", b"Credential="]
    + [b"SignedHeaders=", b"Signature=", b"host;x-amz-content-sha256;x-amz-date", b"0" * 64]
    + [CREDENTIAL.encode(), b"aws4_request", b"20130524", b"us-east-1", b"s3", b"\0"]
)


@given(value=st.lists(PIECES | st.binary(max_size=6), max_size=14).map(b"".join))
@example(value=b"AWS4-HMAC-SHA256 ")
@settings(max_examples=400, deadline=None)
def test_any_authorization_is_refused_with_an_s3_error(value: bytes) -> None:
    given = change(GOOD, (b"authorization", value))
    if given.index[b"authorization"] and value != AUTHORIZATION:
        error = refused(given)
        assert 400 <= error.status < 500


@given(
    target=st.binary(max_size=40),
    date=st.binary(max_size=20),
    content=st.binary(max_size=70),
    signed=st.binary(max_size=20),
)
@settings(max_examples=200, deadline=None)
def test_any_head_is_refused_with_an_s3_error(
    target: bytes, date: bytes, content: bytes, signed: bytes
) -> None:
    given = change(
        replaced(b"host;x-amz-content-sha256;x-amz-date", signed),
        (b"x-amz-date", date),
        (b"x-amz-content-sha256", content),
    )
    given.target = b"/" + target
    assert refused(given, streaming=True).status in (400, 403, 501)
