"""The order of judgement, and what every answer has: sections 0 and 6, HTTP-2, HTTP-10, ANON-1."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.errors import Corruption, LeaseLost, RequestError, Unavailable
from ingot.messages import Request
from ingot.s3.errors import ERRORS
from tests.s3.driver import HOST, OTHER, OWNER, Answer, Driver
from tests.s3.fake_store import FakeBody


@pytest.fixture
def driver():
    made = Driver()
    made.bucket()
    made.put("key", b"value")
    return made


def test_http_2_every_answer_has_ids_and_they_differ(driver):
    first, second = driver.ask("GET", "/bucket/key"), driver.ask("GET", "/bucket/none")
    assert first.headers["x-amz-request-id"] != second.headers["x-amz-request-id"]
    assert first.headers["x-amz-id-2"] == second.headers["x-amz-id-2"]
    assert second.xml.findtext("RequestId") == second.headers["x-amz-request-id"]
    assert second.xml.findtext("HostId") == second.headers["x-amz-id-2"]
    assert second.xml.findtext("Resource") == "/bucket/none"


# Each request is wrong in every way from its own on; the first wrong thing is what is told.
@pytest.mark.parametrize(
    ("path", "account", "headers", "code"),
    [
        ("/Bad/key", None, {"x-amz-acl": "nonsense"}, "InvalidBucketName"),
        ("/bucket/%zz", None, {"x-amz-acl": "nonsense"}, "InvalidURI"),
        ("/absent/key", None, {"x-amz-acl": "nonsense"}, "AccessDenied"),
        ("/absent/key", OTHER, {"x-amz-acl": "nonsense"}, "InvalidArgument"),
        ("/absent/key", OTHER, {}, "NoSuchBucket"),
        ("/bucket/key", OTHER, {"if-none-match": "*"}, "AccessDenied"),
        ("/bucket/key", OWNER, {"if-none-match": "*"}, "PreconditionFailed"),
    ],
)
def test_precedence_of_a_put(driver, path, account, headers, code):
    answer = driver.ask("PUT", path, headers=headers, body=b"new", account=account)
    assert answer.code == code
    assert driver.body.reads == 0, "the body was read for a request that was refused"
    assert driver.record("key").body.inline == b"value"


def test_anon_1_anonymous_is_denied(driver):
    for method, path in (
        ("GET", "/"),
        ("GET", "/bucket"),
        ("GET", "/absent"),
        ("PUT", "/bucket/k"),
    ):
        answer = driver.ask(method, path, account=None)
        assert (answer.status, answer.code) == (403, "AccessDenied")


def test_another_account_is_denied_and_sees_nothing(driver):
    for method, path, query in (
        *(("GET", "/bucket", ""), ("GET", "/bucket/key", ""), ("PUT", "/bucket/new", "")),
        *(("DELETE", "/bucket/key", ""), ("DELETE", "/bucket", ""), ("GET", "/bucket", "acl")),
        *(("GET", "/bucket", "versions"), ("GET", "/bucket", "location")),
    ):
        answer = driver.ask(method, path, query, account=OTHER)
        assert (answer.status, answer.code) == (403, "AccessDenied")
    assert driver.keys() == [b"key"]


def test_wrong_secret(driver):
    from dataclasses import replace

    answer = driver.ask("GET", "/bucket/key", account=replace(OWNER, secret_key="wrong"))
    assert (answer.status, answer.code) == (403, "SignatureDoesNotMatch")


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        *(("GET", "/bucket/key", ""), ("HEAD", "/bucket/key", ""), ("PUT", "/bucket/key", "")),
        *(("DELETE", "/bucket/key", ""), ("GET", "/bucket", ""), ("HEAD", "/bucket", "")),
        *(("GET", "/bucket", "acl"), ("DELETE", "/bucket", ""), ("GET", "/bucket", "location")),
    ],
)
def test_http_10_expected_owner(driver, method, path, query):
    wrong = driver.ask(method, path, query, {"x-amz-expected-bucket-owner": OTHER.id})
    assert wrong.status == 403
    assert driver.keys() == [b"key"] and driver.record("key").body.inline == b"value"
    right = driver.ask(method, path, query, {"x-amz-expected-bucket-owner": OWNER.id})
    assert right.status in (200, 204, 409)


def test_not_built_is_501_and_well_formed(driver):
    answer = driver.ask("POST", "/bucket", "metadataTable")
    assert (answer.status, answer.code) == (501, "NotImplemented")
    assert driver.ask("POST", "/bucket", "metadataTable", account=None).status == 403
    twins = driver.ask("GET", "/bucket/key", "annotation")  # one request line
    assert twins.xml.findtext("Message") == (
        "The operation GetObjectAnnotation or ListObjectAnnotations is not implemented"
    )


def test_unrouted_is_authenticated_before_it_hears_why(driver):
    assert driver.ask("GET", "/bucket", "newthing").code == "NotImplemented"
    assert driver.ask("GET", "/bucket", "newthing", account=None).code == "AccessDenied"
    assert driver.ask("POST", "/bucket/key", account=None).code == "MethodNotAllowed"
    answer = driver.ask("PATCH", "/bucket/key")
    assert (answer.code, answer.headers["allow"]) == (
        *("MethodNotAllowed", "GET, HEAD, PUT, DELETE"),
    )


@pytest.mark.parametrize(
    ("origin", "method", "status", "code"),
    [
        ("", "GET", 400, "BadRequest"),
        ("http://a", "", 400, "BadRequest"),
        ("http://a", "PATCH", 400, "BadRequest"),
        ("http://a", "PUT", 403, "AccessForbidden"),
    ],
)
def test_cors_2_preflight_without_configuration(driver, origin, method, status, code):
    headers = {"origin": origin, "access-control-request-method": method}
    answer = driver.ask("OPTIONS", "/bucket/key", headers=headers, account=None)
    assert (answer.status, answer.code) == (status, code)


def test_auth_7_head_has_the_status_and_no_body(driver):
    for path, status in (("/bucket/none", 404), ("/absent/key", 404), ("/Bad/k", 400)):
        answer = driver.ask("HEAD", path)
        assert (answer.status, answer.body) == (status, b"")
        assert answer.headers["x-amz-request-id"]


@pytest.mark.parametrize(
    ("error", "status", "code", "retry"),
    [
        (Unavailable("log is full", 3), 503, "SlowDown", "3"),
        (LeaseLost("gone"), 503, "ServiceUnavailable", "1"),
        (Corruption("frame", 1, 2), 500, "InternalError", None),
        (ZeroDivisionError("bug"), 500, "InternalError", None),
        (RequestError("no"), 400, "InvalidRequest", None),
    ],
)
def test_failures_below_become_answers(driver, caplog, error, status, code, retry):
    driver.store.failures.append(error)
    with caplog.at_level(logging.WARNING):
        answer = driver.ask("PUT", "/bucket/key", body=b"new")
    assert (answer.status, answer.code) == (status, code)
    assert answer.headers.get("retry-after") == retry
    assert driver.record("key").body.inline == b"value"
    if status >= 500:
        assert str(error) in caplog.text and answer.headers["x-amz-request-id"] in caplog.text


def test_the_access_log_has_one_line_a_request(driver):
    driver.entries.clear()
    driver.ask("GET", "/bucket/key")
    driver.ask("GET", "/bucket/none", account=None)
    driver.ask("GET", "/Bad")
    good, anonymous, bad = driver.entries
    assert (good.operation, good.bucket, good.key, good.account, good.status, good.code) == (
        *("GetObject", "bucket", b"key", OWNER.id, 200, ""),
    )
    assert good.length == 5
    assert (anonymous.account, anonymous.status, anonymous.code) == ("", 403, "AccessDenied")
    assert (bad.operation, bad.code) == ("Unrouted", "InvalidBucketName")


def test_a_broken_access_log_costs_nobody_an_answer(caplog):
    def broken(entry):
        raise OSError("the log is gone")

    driver = Driver()
    driver.app._answers._access_log = broken
    assert driver.ask("GET", "/").status == 200
    assert "the log is gone" in caplog.text


def test_a_flood_of_refusals_is_counted_and_not_told_one_by_one(driver, caplog):
    for _ in range(50):
        driver.store.failures = [Unavailable("log is full")]
        assert driver.ask("GET", "/bucket/key").status == 503
    assert caplog.text.count("log is full") == 1
    driver.clock.ms += 5000
    driver.store.failures = [Unavailable("log is full")]
    driver.ask("GET", "/bucket/key")
    assert "50 such answers" in caplog.text


def test_what_is_no_request_is_answered_in_xml():
    """XML-1: in S3's words, with ours beside them."""
    driver = Driver()
    for kind, message in (
        ("RequestHeaderSectionTooLarge", ERRORS["RequestHeaderSectionTooLarge"][1]),
        ("BadRequest", "An error occurred when parsing the HTTP request."),
        ("MethodNotAllowed", "The specified method is not allowed against this resource."),
        ("Nonsense", "An error occurred when parsing the HTTP request."),
    ):
        response = driver.app.bad_request(kind, "too much")
        answer = Answer(response)
        assert response.close and answer.status == (405 if kind == "MethodNotAllowed" else 400)
        assert ("allow" in answer.headers) == (kind == "MethodNotAllowed")
        assert answer.code == (kind if kind in ERRORS else "BadRequest")
        assert answer.xml.findtext("Message") == message
        assert answer.xml.findtext("additionalMessage") == "too much"
    failed = Answer(driver.app.bad_request("InternalError", "internal error"))
    assert failed.xml.find("additionalMessage") is None


def test_http_5_options_of_the_server_as_a_whole(driver):
    request = Request("OPTIONS", b"*", [(b"host", b"s3.test")], {}, FakeBody(b""), "-", False)
    answer = driver.send(request)
    assert (answer.status, answer.body) == (200, b"") and "GET" in answer.headers["allow"]


def test_a_query_api_is_not_served(driver):
    """``POST /`` is how IAM and STS are asked."""
    body, kind = b"Action=ListUsers", {"content-type": "application/x-www-form-urlencoded"}
    assert driver.ask("POST", "/", headers=kind, body=body).status == 501
    answer = driver.ask("POST", "/", headers=kind, body=body, account=None)
    assert (answer.status, answer.code) == (405, "MethodNotAllowed")


TARGETS = st.one_of(
    st.binary(max_size=40),
    st.binary(max_size=40).map(lambda tail: b"/bucket/" + tail),
    st.binary(max_size=40).map(lambda tail: b"/bucket?" + tail),
)


@given(
    st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "TRACE"]),
    TARGETS,
    st.dictionaries(
        st.sampled_from(
            [b"range", b"if-match", b"authorization", b"x-amz-copy-source", b"x-amz-date"]
            + [b"content-length", b"x-amz-content-sha256", b"content-md5"]
        ),
        st.binary(max_size=20),
    ),
)
def test_any_request_has_an_answer(method, target, headers):
    driver = Driver()
    pairs = [(b"host", HOST.encode()), *headers.items()]
    answer = driver.send(Request(method, target, pairs, {}, FakeBody(b"x"), "-", False))
    assert 300 <= answer.status < 500 or answer.status == 501
