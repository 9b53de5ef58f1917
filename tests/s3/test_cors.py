"""Cross-origin rules and requests: CORS-1 to CORS-3."""

from __future__ import annotations

import pytest

from ingot.s3 import cors
from tests.s3.driver import OTHER, Driver
from tests.s3.test_configuration import CORS, RULE, put

CONFIG = """<CORSConfiguration>
<CORSRule><AllowedOrigin>https://*.example</AllowedOrigin><AllowedOrigin>http://exact</AllowedOrigin>
<AllowedMethod>GET</AllowedMethod><AllowedMethod>PUT</AllowedMethod>
<AllowedHeader>X-Amz-*</AllowedHeader><AllowedHeader>content-type</AllowedHeader>
<ExposeHeader>ETag</ExposeHeader><ExposeHeader>x-amz-request-id</ExposeHeader>
<MaxAgeSeconds>60</MaxAgeSeconds></CORSRule>
<CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET</AllowedMethod></CORSRule>
</CORSConfiguration>"""
VARY = "Origin, Access-Control-Request-Headers, Access-Control-Request-Method"


@pytest.fixture
def driver():
    made = Driver()
    made.bucket()
    made.put("key")
    assert put(made, "cors", CONFIG).status == 200
    return made


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (RULE, None),
        (RULE + "<MaxAgeSeconds>0</MaxAgeSeconds>", None),
        (RULE + "<AllowedHeader>*</AllowedHeader>", None),
        (RULE + "<MaxAgeSeconds>-1</MaxAgeSeconds>", None),
        (RULE + "<MaxAgeSeconds>--1</MaxAgeSeconds>", "MalformedXML"),
        (RULE + "<MaxAgeSeconds>x</MaxAgeSeconds>", "MalformedXML"),
        (RULE + "<MaxAgeSeconds>1</MaxAgeSeconds>" * 2, "MalformedXML"),
        (RULE + f"<ID>{'i' * 256}</ID>", "MalformedXML"),
        ("<AllowedOrigin>*</AllowedOrigin>", "MalformedXML"),
        ("<AllowedMethod>GET</AllowedMethod>", "MalformedXML"),
        (RULE.replace("GET", "PATCH"), "InvalidRequest"),
        (RULE.replace("GET", "get"), "InvalidRequest"),
        (RULE.replace("*", "a*b*"), "InvalidRequest"),
        (RULE.replace("*", "a b"), "InvalidRequest"),
        (RULE.replace("*", ""), "InvalidRequest"),
        (RULE + "<AllowedHeader>x*y*</AllowedHeader>", "InvalidRequest"),
        (RULE + "<AllowedHeader>x y</AllowedHeader>", "InvalidRequest"),
        (RULE + "<ExposeHeader>*</ExposeHeader>", "InvalidRequest"),
        (RULE + "<ExposeHeader>x&#10;y</ExposeHeader>", "InvalidRequest"),
    ],
)
def test_cors_1_rules(driver, rule, code):
    answer = put(driver, "cors", CORS.format(rule))
    assert answer.status == 200 if code is None else answer.code == code


def test_cors_1_names_the_method_and_counts_the_rules(driver):
    answer = put(driver, "cors", CORS.format(RULE.replace("GET", "PATCH")))
    assert "Unsupported method is PATCH" in answer.xml.findtext("Message")
    rule = f"<CORSRule>{RULE}</CORSRule>"
    for count, status in ((0, 400), (100, 200), (101, 400)):
        body = f"<CORSConfiguration>{rule * count}</CORSConfiguration>"
        assert put(driver, "cors", body).status == status


def preflight(driver, path="/bucket/key", **headers):
    pairs = {name.replace("_", "-"): value for name, value in headers.items()}
    pairs = {
        name if name == "origin" else f"access-control-request-{name}": value
        for name, value in pairs.items()
    }
    return driver.ask("OPTIONS", path, headers=pairs, account=None)


def allowed(answer):
    return {
        name.removeprefix("access-control-"): value
        for name, value in answer.headers.items()
        if name.startswith("access-control-")
    }


def test_cors_2_a_match(driver):
    asked = {"method": "PUT", "headers": "X-Amz-Date, Content-Type"}
    answer = preflight(driver, origin="https://a.example", **asked)
    assert answer.status == 200 and answer.body == b""
    assert allowed(answer) == {
        "allow-origin": "https://a.example",
        "allow-methods": "GET, PUT",
        "allow-headers": "x-amz-date, content-type",
        "expose-headers": "ETag, x-amz-request-id",
        "max-age": "60",
        "allow-credentials": "true",
    }
    assert answer.headers["vary"] == VARY


def test_cors_2_the_first_rule_that_matches(driver):
    answer = preflight(driver, origin="http://exact", method="GET")
    assert allowed(answer)["allow-methods"] == "GET, PUT"
    answer = preflight(driver, origin="http://other", method="GET")
    assert allowed(answer) == {"allow-origin": "*", "allow-methods": "GET"}
    assert answer.headers["vary"] == VARY


@pytest.mark.parametrize(
    "asked",
    [
        {"origin": "http://other", "method": "PUT"},
        {"origin": "https://example", "method": "PUT"},
        {"origin": "https://a.example.org", "method": "PUT"},
        {"origin": "HTTP://EXACT", "method": "PUT"},
        {"origin": "http://exact", "method": "DELETE"},
        {"origin": "http://exact", "method": "PUT", "headers": "x-other"},
        {"origin": "http://other", "method": "GET", "headers": "content-type"},
    ],
)
def test_cors_2_no_match(driver, asked):
    answer = preflight(driver, **asked)
    assert (answer.status, answer.code) == (403, "AccessForbidden")
    assert answer.xml.findtext("Method") == asked["method"]
    assert answer.xml.findtext("ResourceType") == "OBJECT"
    assert not allowed(answer)


@pytest.mark.parametrize(
    "asked",
    [
        {"method": "GET"},
        {"origin": "http://exact"},
        {"origin": "http://exact", "method": "PATCH"},
        {"origin": "http://exact", "method": "GET", "headers": "a b"},
    ],
)
def test_cors_2_no_question(driver, asked):
    assert preflight(driver, **asked).code == "BadRequest"


def test_cors_2_texts_tell_which(driver):
    driver.bucket("plain")
    for path, text in (
        ("/plain", "CORSResponse: CORS is not enabled for this bucket."),
        ("/absent", "CORSResponse: CORS is not enabled for this bucket."),
        ("/bucket", "This CORS request is not allowed"),
    ):
        answer = preflight(driver, path, origin="http://other", method="PUT")
        assert (answer.status, answer.code) == (403, "AccessForbidden")
        assert text in answer.xml.findtext("Message")
        assert answer.xml.findtext("ResourceType") == "BUCKET"


@pytest.mark.parametrize("account", ["owner", "other", "nobody"])
@pytest.mark.parametrize(("path", "status"), [("/bucket/key", 200), ("/bucket/none", 404)])
def test_cors_3_actual_requests(driver, account, path, status):
    """On errors too."""
    named = {} if account == "owner" else {"account": OTHER if account == "other" else None}
    answer = driver.ask("GET", path, headers={"origin": "http://exact"}, **named)
    assert answer.status == (status if account == "owner" else 403)
    assert allowed(answer) == {
        "allow-origin": "http://exact",
        "allow-methods": "GET, PUT",
        "expose-headers": "ETag, x-amz-request-id",
        "max-age": "60",
        "allow-credentials": "true",
    }
    assert answer.headers["vary"] == VARY


def test_cors_3_a_method_that_is_named_counts(driver):
    """Browsers name it in a preflight only; tools that try rules out do so in the request too."""
    for method, named, matches in (
        ("PUT", "GET", True),
        ("GET", "DELETE", False),
        ("DELETE", "PUT", True),
    ):
        headers = {"origin": "http://exact", "access-control-request-method": named}
        answer = driver.ask(method, "/bucket/key", headers=headers, account=OTHER)
        assert answer.status == 403 and bool(allowed(answer)) is matches


def test_cors_3_never_blocked(driver):
    for method, origin, path in (
        ("DELETE", "http://exact", "/bucket/other"),
        ("PUT", "http://other", "/bucket/other"),
        ("GET", "http://exact", "/"),
    ):
        answer = driver.ask(method, path, headers={"origin": origin})
        assert answer.status in (200, 204) and not allowed(answer)
    assert not allowed(driver.ask("GET", "/bucket/key"))
    assert not allowed(driver.ask("GET", "/bucket/key", headers={"origin": ""}))
    answer = driver.ask("GET", "/absent/key", headers={"origin": "http://exact"})
    assert answer.code == "NoSuchBucket" and not allowed(answer)


def test_a_pattern_is_not_matched_twice():
    assert not cors.Rule(None, ("ab*ba",), ("GET",), (), (), None).allows("aba", "GET")
    assert cors.Rule(None, ("ab*ba",), ("GET",), (), (), None).allows("abba", "GET")


@pytest.fixture
def matches(monkeypatch):
    """With how many names each pattern of headers was matched."""
    counted = []
    fitting = cors._fitting

    def count(pattern, names):
        counted.append(len(names))
        return fitting(pattern, names)

    monkeypatch.setattr(cors, "_fitting", count)
    return counted


def test_cors_2_what_a_preflight_costs_is_bounded(driver, matches):
    """At the most rules, patterns and names that are allowed, all of them tried."""
    patterns = [f"{n}*" for n in range(cors.PATTERNS_MAX - 1)] + ["b*"]
    headers = "".join(f"<AllowedHeader>{one}</AllowedHeader>" for one in patterns)
    many = f"<CORSRule>{RULE}{headers}</CORSRule>" * 18
    assert put(driver, "cors", f"<CORSConfiguration>{many}</CORSConfiguration>").status == 200
    names = [f"b{n}" for n in range(cors.NAMES_MAX - 1)] + ["x"]
    for asked, status in ((names[:-1], 200), (names, 403)):
        del matches[:]
        answer = preflight(driver, origin="http://a", method="GET", headers=",".join(asked))
        assert answer.status == status
        assert sum(matches) <= cors.PATTERNS_MAX * cors.NAMES_MAX
    answer = preflight(driver, origin="http://a", method="GET", headers=",".join([*names, "y"]))
    assert (answer.status, answer.code) == (400, "BadRequest")
    one_more = f"<CORSRule>{RULE}<AllowedHeader>z*</AllowedHeader></CORSRule>"
    answer = put(driver, "cors", f"<CORSConfiguration>{many}{one_more}</CORSConfiguration>")
    assert (answer.status, answer.code) == (400, "InvalidRequest")
