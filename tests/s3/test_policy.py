"""Policies: what is refused when one is put, what one says of a request, and that it is enforced:
POL-1 to POL-4, ANON-1 to ANON-3, ACL-6."""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import re
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.bucket.versions import NewState
from ingot.limits import ACTION_PATTERNS_MAX, CONDITION_CHARS_MAX
from ingot.limits import POLICY_PATTERN_STEPS_MAX as MOST
from ingot.s3.actions import OF_BUCKETS, OF_OBJECTS, action_of
from ingot.s3.errors import S3Error
from ingot.s3.operations import OPERATIONS
from ingot.s3.pattern import Pattern
from ingot.s3.policy import ACTIONS_A_STEP, POLICY_BYTES_MAX, Asked, read, read_in_steps
from ingot.s3.policy_conditions import Condition
from tests.s3.driver import OTHER, OWNER, Driver
from tests.s3.store_driver import StoreDriver
from tests.s3.test_configuration import BLOCK, put

ALL = {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::bucket/*"}
KNOWN = {account.access_key: account.id for account in (OWNER, OTHER)}


def who(name):
    return name if re.fullmatch("[0-9a-f]{64}", name) else KNOWN.get(name)


def policy(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)}).encode()


def said(*statements, who_asks=OTHER.id, action="GetObject", resource="bucket/key", **context):
    found = {key.replace("__", ":").replace("_", "-"): v for key, v in context.items()}

    def values(key):
        value = found.get(key, ())
        return (value,) if isinstance(value, str) else value

    made = read(policy(*statements), "bucket", who)
    return made.verdict(Asked(who_asks, action, resource, values, {}))


# -- patterns --------------------------------------------------------------------------------------


@given(st.text("ab*?", max_size=8), st.text("ab\n", max_size=8))
def test_patterns_fit_as_fnmatch_says(pattern, text):
    assert Pattern(pattern).fits(text) == fnmatch.fnmatchcase(text, pattern)


@given(st.text("ab*?", max_size=12), st.text("ab\n\u4e2d", max_size=40))
def test_patterns_fit_longer_texts_as_fnmatch_says(pattern, text):
    assert Pattern(f"*{pattern}*").fits(text) == fnmatch.fnmatchcase(text, f"*{pattern}*")


class Counted(str):
    """A text that counts how often it is gone through."""

    def __new__(cls, text):
        made = super().__new__(cls, text)
        made.looks = 0
        return made

    def __iter__(self):
        self.looks += 1
        return super().__iter__()

    def find(self, *args):
        self.looks += 1
        return super().find(*args)


@pytest.mark.parametrize(
    "pattern",
    [
        "*" + "?" * 4000 + "b*",
        "*" + "a?" * 1500 + "b*",
        "*" + "a?a*" * 900 + "b",
        "*a" * 4000 + "b*",
        "*a?" * 1300 + "b*",
    ],
)
def test_no_piece_of_a_pattern_goes_through_a_text_twice(pattern):
    text = Counted("a" * CONDITION_CHARS_MAX)
    assert not Pattern(pattern).fits(text)
    assert text.looks <= pattern.count("*")


@pytest.mark.parametrize(
    ("pattern", "steps"),
    [
        ("", 1),
        ("key", 1),
        ("?key*?", 1),
        ("k?y", 4),
        ("*a?*b*", 5),
        ("*a?b*", 6),
        ("a?b*a?b*a?b", 12),
    ],
)
def test_the_steps_of_a_pattern(pattern, steps):
    assert Pattern(pattern).steps == steps


@pytest.mark.parametrize(
    "field",
    [
        {"Resource": [f"arn:aws:s3:::bucket/*a*{n}" for n in range(MOST // 3 + 1)]},
        {"Condition": {"StringLike": {"aws:UserAgent": ["*a" * (MOST // 2 + 2)]}}},
        {"Condition": {"StringNotLike": {"aws:Referer": ["*" + "a?" * (MOST // 2) + "b"]}}},
    ],
)
def test_a_policy_that_takes_long_to_match_is_refused(field):
    document = json.dumps({"Statement": [ALL | field]}, separators=(",", ":"))
    kept = read(document.encode(), "bucket", who)
    with pytest.raises(S3Error, match="steps to match at most") as caught:
        read(document.encode(), "bucket", who, strict=True)
    assert caught.value.elements["Detail"] == f"{kept.steps} steps"


def test_a_policy_is_read_in_steps():
    actions = [f"s3:*{a}*{b}*" for a in "eto" for b in "egtc"]
    likes = {"StringLike": {"aws:UserAgent": "a*", "aws:Referer": "b*"}}
    one = ALL | {"Action": actions, "Resource": "arn:aws:s3:::bucket*", "Condition": likes}
    steps = list(read_in_steps(policy(one, one, one), "bucket", who))
    assert len(steps) >= 3 * (len(actions) // ACTIONS_A_STEP + len(likes["StringLike"]) + 1)


# -- POL-1: what is refused ------------------------------------------------------------------------

BAD = [
    (b"[]", "first byte must be '{'"),
    (b"nonsense", "first byte must be '{'"),
    (b"{", "invalid Json"),
    (b'{"Statement": [], "Statement": []}', "invalid Json"),
    (b'{"a":' * 2000, "invalid Json"),
    (b"{\xff}", "invalid Json"),
    (b"{}", "Missing required field Statement"),
    (b'{"Statement": []}', "Statement is empty"),
    (b'{"Statement": "x"}', "Statement is empty"),
    (b'{"Statement": [{}]}', "Statement is empty"),
    (b'{"Statement": [1]}', "invalid Json"),
    (b'{"Version": "2020-01-01", "Statement": [{}]}', "valid version string"),
    (b'{"Other": 1, "Statement": [{}]}', "Unknown field Other"),
]
BAD_FIELDS = [
    ({"Effect": None}, "Missing required field Effect"),
    ({"Effect": "allow"}, "Invalid effect : allow"),
    ({"Principal": None}, "Missing required field Principal"),
    ({"Principal": "somebody"}, "Invalid principal in policy"),
    ({"Principal": {"AWS": []}}, "Invalid principal in policy"),
    ({"Principal": {"AWS": "AKIANOBODY"}}, "Invalid principal in policy"),
    ({"Principal": {"AWS": "arn:aws:iam::AKIANOBODY:root"}}, "Invalid principal in policy"),
    ({"Principal": {"Service": "s3.amazonaws.com"}}, "Invalid principal in policy"),
    ({"Principal": {"AWS": ["*", 1]}}, "Invalid principal in policy"),
    ({"NotPrincipal": "*"}, "invalid Json"),
    ({"Action": None}, "Missing required field Action"),
    ({"Action": "s3:Nothing"}, "Policy has invalid action"),
    ({"Action": "ec2:GetObject"}, "Policy has invalid action"),
    ({"Action": "GetObject"}, "Policy has invalid action"),
    ({"Action": []}, "Policy has invalid action"),
    ({"Resource": None}, "Missing required field Resource"),
    ({"Resource": "bucket/*"}, "Policy has invalid resource"),
    ({"Resource": "arn:aws:s3:::other/*"}, "Policy has invalid resource"),
    ({"Resource": "arn:aws:s3:::bucket2"}, "Policy has invalid resource"),
    ({"Resource": "arn:aws:s3:::bucket/${aws:username}"}, "Policy has invalid resource"),
    ({"Action": "s3:ListBucket"}, "Action does not apply to any resource"),
    ({"Resource": "arn:aws:s3:::bucket", "Action": "s3:GetObject"}, "does not apply to any"),
    ({"Extra": 1}, "Unknown field Extra"),
    ({"\ud800": 1}, "Unknown field ?"),  # which no UTF-8 can say
    ({"Condition": {"\udfff": {"s3:prefix": "a"}}}, "Invalid Condition type : ?"),
    ({"Sid": 1}, "invalid Json"),
    ({"Condition": []}, "invalid Json"),
    ({"Condition": {"StringEquals": {}}}, "invalid Json"),
    ({"Condition": {"StringEqual": {"s3:prefix": "a"}}}, "Invalid Condition type : StringEqual"),
    ({"Condition": {"All:StringEquals": {"s3:prefix": "a"}}}, "Invalid Condition type"),
    ({"Condition": {"StringEquals": {"s3:nothing": "a"}}}, "invalid condition key"),
    ({"Condition": {"StringEquals": {"aws:SourceVpc": "a"}}}, "invalid condition key"),
    ({"Condition": {"IpAddress": {"aws:SourceIp": "here"}}}, "Invalid IP address in Conditions"),
    ({"Condition": {"NumericEquals": {"s3:max-keys": "nan"}}}, "invalid condition value"),
    ({"Condition": {"Bool": {"aws:SecureTransport": "yes"}}}, "invalid condition value"),
    ({"Condition": {"Null": {"s3:prefix": "yes"}}}, "invalid condition value"),
    ({"Condition": {"StringEquals": {"s3:prefix": []}}}, "invalid condition value"),
    ({"Condition": {"StringEquals": {"s3:prefix": {}}}}, "invalid condition value"),
    ({"Condition": {"StringEquals": {"s3:prefix": "${aws:username}"}}}, "invalid condition value"),
]


@pytest.fixture
def driver():
    made = Driver()
    made.bucket()
    made.put("key", b"bytes")
    return made


@pytest.mark.parametrize(("body", "text"), BAD)
def test_pol_1_malformed(driver, body, text):
    answer = put(driver, "policy", body)
    assert (answer.status, answer.code) == (400, "MalformedPolicy")
    assert text in answer.xml.findtext("Message")
    assert driver.ask("GET", "/bucket", "policy").code == "NoSuchBucketPolicy"


@pytest.mark.parametrize(("fields", "text"), BAD_FIELDS)
def test_pol_1_malformed_statements(driver, fields, text):
    statement = {name: v for name, v in (ALL | fields).items() if v is not None}
    answer = put(driver, "policy", policy(ALL, statement))
    assert (answer.status, answer.code) == (400, "MalformedPolicy")
    assert text in answer.xml.findtext("Message")


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"Principal": {"AWS": ["*", "AKIANOBODY"]}}, "AKIANOBODY"),
        ({"Principal": {"Service": "s3.amazonaws.com"}}, '{"Service": "s3.amazonaws.com"}'),
        ({"Resource": ["arn:aws:s3:::bucket/*", "arn:aws:s3:::other"]}, "arn:aws:s3:::other"),
        ({"Action": ["s3:GetObject", "s3:GetNothing"]}, "s3:getnothing"),
        ({"Action": ["s3:GetObject", "ec2:Run"]}, "ec2:Run"),
        ({"Condition": {"StringEquals": {"aws:SourceVpc": "a"}}}, "aws:SourceVpc"),
        ({"Condition": {"IpAddress": {"aws:SourceIp": "here"}}}, "aws:SourceIp"),
    ],
)
def test_pol_1_what_is_malformed_is_named(driver, fields, detail):
    answer = put(driver, "policy", policy(ALL | fields))
    assert answer.code == "MalformedPolicy"
    assert answer.xml.findtext("Detail") == detail


def test_pol_1_size(driver):
    body = policy(ALL)
    largest = body + b" " * (POLICY_BYTES_MAX - len(body))
    assert put(driver, "policy", largest).status == 204
    assert put(driver, "policy", largest + b" ").code == "MalformedPolicy"
    assert put(driver, "policy", b"").code == "MissingRequestBodyError"


def test_pol_1_byte_identical(driver):
    body = b'\n{ "Statement":' + json.dumps(ALL).encode() + b', "Id":"\xc3\xa9"}\n'
    assert put(driver, "policy", body).status == 204
    answer = driver.ask("GET", "/bucket", "policy")
    assert (answer.body, answer.headers["content-type"]) == (body, "application/json")
    assert driver.ask("DELETE", "/bucket", "policy").status == 204
    assert driver.ask("GET", "/bucket", "policy").code == "NoSuchBucketPolicy"
    assert driver.ask("DELETE", "/bucket", "policy").status == 204


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from([*ALL, "Statement", "Version", "Condition", "AWS", "StringLike"]),
                inner,
                max_size=5,
            )
        ),
    )
)
def test_pol_1_anything_is_read_or_malformed(found):
    for document in (found, {"Statement": found}, {"Statement": [{**ALL, "Condition": found}]}):
        try:
            read(json.dumps(document).encode(), "bucket", who)
        except S3Error as error:
            assert error.code == "MalformedPolicy"


@pytest.fixture
def matches(monkeypatch):
    """How often a pattern was matched against a text."""
    counted = []
    fits = Pattern.fits

    def count(pattern, text):
        counted.append(text)
        return fits(pattern, text)

    monkeypatch.setattr(Pattern, "fits", count)
    return counted


def test_pol_1_actions_times_resources_are_not_matched(matches):
    document = policy(
        ALL
        | {
            "Action": ["s3:getb*g"] * 600,
            "Resource": ["arn:aws:s3:::*/"] * 600 + ["arn:aws:s3:::*"],
        }
    )
    assert len(document) <= POLICY_BYTES_MAX
    read(document, "bucket", who)
    assert len(matches) <= len(OF_BUCKETS | OF_OBJECTS) + 2 * 2


def test_pol_1_so_many_patterns_of_actions(matches):
    actions = [f"s3:{'*' * n}" for n in range(1, ACTION_PATTERNS_MAX + 2)]
    read(policy(ALL | {"Action": [*actions[:-1], "s3:GetObject"]}), "bucket", who)
    assert len(matches) <= ACTION_PATTERNS_MAX * len(OF_BUCKETS | OF_OBJECTS) + 2
    with pytest.raises(S3Error, match="100 different actions with wildcards"):
        read(policy(*(ALL | {"Action": action} for action in actions)), "bucket", who)


# -- POL-2: what it says ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "asked", "verdict"),
    [
        ({}, {}, True),
        ({"Effect": "Deny"}, {}, False),
        ({"Principal": {"AWS": "*"}}, {"who_asks": None}, True),
        ({"Principal": {"AWS": OTHER.id}}, {}, True),
        ({"Principal": {"AWS": [OTHER.access_key]}}, {}, True),
        ({"Principal": {"CanonicalUser": OTHER.id}}, {}, True),
        ({"Principal": {"AWS": f"arn:aws:iam::{OTHER.id}:root"}}, {}, True),
        ({"Principal": {"AWS": f"arn:aws:iam:::user/{OTHER.access_key}"}}, {}, True),
        ({"Principal": {"AWS": f"arn:aws:iam::{OTHER.id}:user/x/{OTHER.access_key}"}}, {}, True),
        ({"Principal": {"AWS": f"arn:aws:iam::{OWNER.id}:user/{OTHER.access_key}"}}, {}, None),
        ({"Principal": {"AWS": OWNER.id}}, {}, None),
        ({"Principal": {"AWS": OTHER.id}}, {"who_asks": None}, None),
        ({"Principal": None, "NotPrincipal": {"AWS": OWNER.id}}, {}, True),
        ({"Principal": None, "NotPrincipal": {"AWS": OTHER.id}}, {}, None),
        ({"Action": "s3:Get*"}, {}, True),
        ({"Action": "S3:getobject"}, {}, True),
        ({"Action": "*"}, {}, True),
        ({"Action": "s3:?etObject"}, {}, True),
        ({"Action": ["s3:PutObject", "s3:GetObject"]}, {}, True),
        ({"Action": "s3:PutObject"}, {}, None),
        ({"Action": None, "NotAction": "s3:PutObject"}, {}, True),
        ({"Action": None, "NotAction": "s3:Get*"}, {}, None),
        ({"Resource": "arn:aws:s3:::bucket/k?y"}, {}, True),
        ({"Resource": "arn:aws:s3:::bucket/other*"}, {}, None),
        ({"Resource": ["arn:aws:s3:::bucket", "arn:aws:s3:::bucket/key"]}, {}, True),
        ({"Resource": "arn:aws:s3:::*"}, {}, True),
        (
            {"Resource": "arn:aws:s3:::bucket*"},
            {"resource": "bucket", "action": "ListBucket"},
            True,
        ),
        ({}, {"resource": "bucket"}, None),
        ({"Resource": None, "NotResource": "arn:aws:s3:::bucket/x*"}, {}, True),
        ({"Resource": None, "NotResource": "arn:aws:s3:::bucket/k*"}, {}, None),
    ],
)
def test_pol_2_one_statement(fields, asked, verdict):
    statement = {name: v for name, v in (ALL | fields).items() if v is not None}
    assert said(statement, **asked) is verdict


STATEMENTS = st.fixed_dictionaries(
    {
        "Effect": st.sampled_from(["Allow", "Deny"]),
        "Principal": st.sampled_from(["*", {"AWS": OTHER.id}, {"AWS": OWNER.id}]),
        "Action": st.sampled_from(["s3:GetObject", "s3:Get*", "s3:PutObject", "s3:*"]),
        "Resource": st.sampled_from(["arn:aws:s3:::bucket/*", "arn:aws:s3:::bucket/k*"]),
    }
)


@given(st.lists(STATEMENTS, min_size=1, max_size=5), st.sampled_from([OTHER.id, None]))
def test_pol_2_deny_over_allow_over_nothing(statements, asking):
    alone = [said(statement, who_asks=asking) for statement in statements]
    expected = False if False in alone else True if True in alone else None
    assert said(*statements, who_asks=asking) is expected


def test_every_operation_has_an_action():
    for row in OPERATIONS:
        action = action_of(row)
        if row.level != "service" and row.name not in ("CreateBucket", "DeleteObjects"):
            of_bucket = row.level == "bucket" and row.name != "PostObject"
            assert action in (OF_BUCKETS if of_bucket else OF_OBJECTS), row.name
    assert not OF_BUCKETS & OF_OBJECTS
    names = {row.name: row for row in OPERATIONS}
    assert action_of(names["HeadObject"]) == "GetObject"
    assert action_of(names["HeadObject"], of_version=True) == "GetObjectVersion"
    assert action_of(names["ListParts"], of_version=True) == "ListMultipartUploadParts"


# -- POL-3: conditions -----------------------------------------------------------------------------

PREFIX = "s3:prefix"


@pytest.mark.parametrize(
    ("operator", "values", "fits", "not_", "absent"),
    [
        ("StringEquals", ["a", "b"], ["a", "b"], ["A", "c", ""], False),
        ("StringNotEquals", ["a", "b"], ["c", "A"], ["a", "b"], True),
        ("StringEqualsIgnoreCase", ["a"], ["a", "A"], ["b"], False),
        ("StringNotEqualsIgnoreCase", ["a"], ["b"], ["a", "A"], True),
        ("StringLike", ["a*", "?b"], ["a", "ax", "cb"], ["b", "ccb"], False),
        ("StringNotLike", ["a*"], ["b"], ["a", "ax"], True),
        ("StringEqualsIfExists", ["a"], ["a"], ["b"], True),
        ("StringNotEqualsIfExists", ["a"], ["b"], ["a"], True),
        ("NumericEquals", ["5"], ["5", "5.0"], ["6", "x"], False),
        ("NumericNotEquals", ["5"], ["6", "x"], ["5"], True),
        ("NumericLessThan", ["5"], ["4", "-1"], ["5", "x"], False),
        ("NumericLessThanEquals", [5], ["5"], ["6"], False),
        ("NumericGreaterThan", ["5"], ["6"], ["5"], False),
        ("NumericGreaterThanEquals", ["5"], ["5"], ["4"], False),
        ("DateLessThan", ["2026-01-02T00:00:00Z"], ["2026-01-01T23:59:59.000Z"], ["x"], False),
        ("DateGreaterThan", ["2026-01-02"], ["2026-01-02T00:00:01Z"], ["2026-01-02"], False),
        ("Bool", [True], ["true"], ["false"], False),
        ("IpAddress", ["10.0.0.0/8", "2001:db8::/32"], ["10.1.2.3", "2001:db8::1"], ["1.1.1.1"], 0),
        ("IpAddress", ["10.1.2.3"], ["10.1.2.3", "::ffff:10.1.2.3"], ["x", "::1"], False),
        ("NotIpAddress", ["10.0.0.0/8"], ["1.1.1.1"], ["10.0.0.1"], True),
        ("Null", ["true"], [], ["a", "b"], True),
        ("Null", [False], ["a"], [], False),
        ("ForAnyValue:StringEquals", ["a"], ["a"], ["b"], False),
        ("ForAllValues:StringEquals", ["a"], ["a"], ["b"], True),
        ("ForAnyValue:StringNotEquals", ["a"], ["b"], ["a"], False),
    ],
)
def test_pol_3_operators(operator, values, fits, not_, absent):
    statement = {**ALL, "Condition": {operator: {PREFIX: values}}}
    for value in fits:
        assert said(statement, s3__prefix=value) is True, value
    for value in not_:
        assert said(statement, s3__prefix=value) is None, value
    assert (said(statement) is True) is bool(absent)


@pytest.mark.parametrize(
    ("operator", "found", "holds"),
    [
        ("ForAnyValue:StringEquals", ("a", "x"), True),
        ("ForAnyValue:StringEquals", ("x", "y"), False),
        ("ForAllValues:StringEquals", ("a", "b"), True),
        ("ForAllValues:StringEquals", ("a", "x"), False),
        ("ForAnyValue:StringNotEquals", ("a", "x"), True),
        ("ForAnyValue:StringNotEquals", ("a", "b"), False),
        ("ForAllValues:StringNotEquals", ("a", "x"), False),
        ("ForAllValues:StringNotEquals", ("x", "y"), True),
        ("StringEquals", ("x", "a"), True),
        ("StringNotEquals", ("x", "a"), False),
    ],
)
def test_pol_3_several_values(operator, found, holds):
    assert Condition(operator, PREFIX, ["a", "b"]).holds(lambda key: found) is holds


def test_pol_3_all_conditions_have_to_hold():
    condition = {
        "StringEquals": {"s3:PREFIX": "a", "s3:delimiter": "/"},
        "Bool": {"aws:SecureTransport": "false"},
    }
    good = {"s3__prefix": "a", "s3__delimiter": "/", "aws__securetransport": "false"}
    statement = {**ALL, "Condition": condition}
    assert said(statement, **good) is True
    for name in good:
        assert said(statement, **{**good, name: "other"}) is None


# -- POL-4: public ---------------------------------------------------------------------------------

PRIVATE = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "10.1.0.0/16"]
ALL_OF_THEM = range(256)
EVEN = range(0, 256, 2)
IP = {"IpAddress": {"aws:SourceIp": ["10.0.0.0/8", "2001:db8::/32"]}}


@pytest.mark.parametrize(
    ("fields", "public"),
    [
        ({}, True),
        ({"Principal": {"AWS": ["*", OTHER.id]}}, True),
        ({"Principal": None, "NotPrincipal": {"AWS": OTHER.id}}, True),
        ({"Principal": {"AWS": OTHER.id}}, False),
        ({"Effect": "Deny"}, False),
        ({"Condition": IP}, False),
        ({"Condition": {"IpAddress": {"aws:SourceIp": ["10.0.0.0/8", "0.0.0.0/0"]}}}, True),
        ({"Condition": {"IpAddress": {"aws:SourceIp": PRIVATE}}}, False),
        (
            {"Condition": {"IpAddress": {"aws:SourceIp": [f"{n}.0.0.0/8" for n in ALL_OF_THEM]}}},
            True,
        ),
        ({"Condition": {"IpAddress": {"aws:SourceIp": [f"{n}.0.0.0/8" for n in EVEN]}}}, True),
        ({"Condition": {"IpAddress": {"aws:SourceIp": [f"2001:{n}::/32" for n in EVEN]}}}, True),
        ({"Condition": {"StringLike": {"aws:SourceIp": "10.*"}}}, True),
        ({"Condition": {"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}, True),
        ({"Condition": {"IpAddressIfExists": {"aws:SourceIp": "10.0.0.0/8"}}}, True),
        ({"Condition": {"StringLike": {"aws:Referer": "http://here/*"}}}, True),
        ({"Condition": {"StringEquals": {"aws:userid": OTHER.id}}}, False),
        ({"Condition": {"StringLike": {"aws:userid": "*"}}}, True),
    ],
)
def test_pol_4_status(driver, fields, public):
    statement = {name: v for name, v in (ALL | fields).items() if v is not None}
    assert put(driver, "policy", policy(statement)).status == 204
    answer = driver.ask("GET", "/bucket", "policyStatus")
    assert answer.text("IsPublic") == ("true" if public else "false")


def test_pol_4_statements_add_up(driver):
    for whole, public in ((range(4), "false"), (range(16), "true")):
        statements = [
            ALL | {"Condition": {"IpAddress": {"aws:SourceIp": f"{n * 16}.0.0.0/8"}}} for n in whole
        ]
        assert put(driver, "policy", policy(*statements)).status == 204
        assert driver.ask("GET", "/bucket", "policyStatus").text("IsPublic") == public


def test_pol_4_without_a_policy(driver):
    assert driver.ask("GET", "/bucket", "policyStatus").code == "NoSuchBucketPolicy"


# -- enforced --------------------------------------------------------------------------------------


def allow(*actions, resource="/*", principal="*", effect="Allow", **fields):
    return {
        **{"Effect": effect, "Principal": principal, "Action": [f"s3:{a}" for a in actions]},
        "Resource": [f"arn:aws:s3:::bucket{one}" for one in resource.split(",")],
        **fields,
    }


def set_policy(driver, *statements):
    answer = put(driver, "policy", policy(*statements))
    assert answer.status == 204, answer.body


READERS = pytest.mark.parametrize("account", [OTHER, None], ids=["other", "nobody"])


@READERS
def test_anon_1_nothing_without_a_policy(driver, account):
    for row in OPERATIONS:
        if row.level == "service" or row.name in ("CreateBucket", "PostObject"):
            continue  # a form says in its fields who sends it: test_form.py
        path = "/bucket" if row.level == "bucket" else "/bucket/key"
        query = (
            row.resource.decode()
            .replace("list-type", "list-type=2")
            .replace("+id", "&id=1")
            .replace("+x-amz-copy-source", "")
        )
        query = query.replace(
            "uploadId", "partNumber=1&uploadId=u" if row.method == "PUT" else "uploadId=u"
        )
        headers = {"content-md5": "1B2M2Y8AsgTpgAmY7PhCfg=="}
        if row.resource.endswith(b"x-amz-copy-source"):
            headers["x-amz-copy-source"] = "/bucket/key"
        answer = driver.ask(row.method, path, query, headers, account=account)
        wanted = (501, 403) if row.kind == "refused" and account else (403,)
        assert answer.status in wanted, (row.name, answer.body)
    assert driver.keys() == [b"key"]


@READERS
def test_anon_3_reading(driver, account):
    set_policy(driver, allow("GetObject"))
    assert driver.ask("GET", "/bucket/key", account=account).body == b"bytes"
    assert driver.ask("HEAD", "/bucket/key", account=account).status == 200
    for method, path, query in (
        *(("PUT", "/bucket/key", ""), ("DELETE", "/bucket/key", ""), ("GET", "/bucket", "")),
        *(("GET", "/bucket", "policy"), ("DELETE", "/bucket", ""), ("GET", "/", "")),
        *(("PUT", "/bucket/key", "uploadId=u&partNumber=1"), ("HEAD", "/bucket", "")),
        *(("GET", "/bucket/key", "versionId=null"), ("DELETE", "/bucket", "policy")),
    ):
        if (path, account) != ("/", OTHER):
            assert driver.ask(method, path, query, account=account).status == 403, (method, path)
    assert driver.keys() == [b"key"]


@READERS
def test_anon_3_a_missing_object_is_told_to_those_who_may_list(driver, account):
    set_policy(driver, allow("GetObject"))
    assert driver.ask("GET", "/bucket/none", account=account).code == "AccessDenied"
    set_policy(driver, allow("GetObject"), allow("ListBucket", resource=""))
    assert driver.ask("GET", "/bucket/none", account=account).code == "NoSuchKey"
    assert driver.ask("GET", "/bucket", account=account).texts("Contents/Key") == ["key"]
    assert driver.ask("HEAD", "/bucket", account=account).status == 200


@READERS
def test_anon_4_writing(driver, account):
    set_policy(driver, allow("PutObject", "DeleteObject", resource="/in/*"))
    assert driver.ask("PUT", "/bucket/in/a", body=b"new", account=account).status == 200
    assert driver.ask("GET", "/bucket/in/a").body == b"new", "it belongs to the bucket's owner"
    assert driver.ask("PUT", "/bucket/out", body=b"new", account=account).status == 403
    assert driver.ask("DELETE", "/bucket/in/a", account=account).status == 204
    assert driver.ask("DELETE", "/bucket/key", account=account).status == 403
    assert driver.keys() == [b"key"]


def test_nothing_of_a_body_is_read_for_whom_the_policy_denies(driver):
    set_policy(driver, allow("GetObject"))
    for account in (OTHER, None):
        driver.ask("PUT", "/bucket/key", body=b"new", account=account)
        assert driver.body.reads == 0
        body = b"<Delete><Object><Key>key</Key></Object></Delete>"
        driver.ask("PUT", "/bucket", "policy", body=body, account=account)
        assert driver.body.reads == 0


@READERS
def test_anon_2_what_nobody_may_do_anonymously(driver, account):
    set_policy(driver, allow("*", resource=",/*"))
    copied = driver.ask("PUT", "/bucket/b", "", {"x-amz-copy-source": "bucket/key"}, b"", account)
    begun = driver.ask("POST", "/bucket/b", "uploads", account=account)
    if account is None:
        assert (copied.code, begun.code) == ("AccessDenied", "AccessDenied")
        assert "copy objects" in copied.xml.findtext("Message")
        assert "multipart" in begun.xml.findtext("Message")
        assert driver.ask("PUT", "/new", account=None).code == "AccessDenied"
        assert driver.ask("GET", "/", account=None).code == "AccessDenied"
    else:
        assert copied.status == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("resource", ["ownershipControls", "publicAccessBlock"])
def test_anon_2_what_keeps_the_public_out_is_not_the_publics(driver, method, resource):
    set_policy(driver, allow("*", resource=",/*"))
    answer = driver.ask(method, "/bucket", resource, account=None)
    assert answer.code == "AccessDenied"
    message = answer.xml.findtext("Message")
    assert message.startswith("s3:") and message.endswith("does not support Anonymous requests!")


@READERS
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_pol_2_a_policy_does_not_give_itself_away(driver, method, account):
    set_policy(driver, allow("*", resource=",/*"))
    before = driver.ask("GET", "/bucket", "policy").body
    mine = policy(allow("*", resource=",/*", principal={"AWS": OTHER.id}))
    answer = driver.ask(method, "/bucket", "policy", body=mine, account=account)
    assert (answer.status, answer.code) == (405, "MethodNotAllowed")
    assert driver.body.reads == 0
    set_policy(driver, allow("GetObject"))
    answer = driver.ask(method, "/bucket", "policy", body=mine, account=account)
    assert (answer.status, answer.code) == (403, "AccessDenied")
    set_policy(driver, allow("*", resource=",/*"))
    assert driver.ask("GET", "/bucket", "policy").body == before


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_pre_6_nobody_chooses_headers_of_a_response(driver, method):
    set_policy(driver, allow("GetObject"))
    query = "response-content-type=text%2Fhtml"
    answer = driver.ask(method, "/bucket/key", query, account=None)
    assert answer.status == 400
    if method == "GET":
        assert answer.code == "InvalidRequest"
        assert answer.xml.findtext("Message") == (
            "Request specific response headers cannot be used for anonymous GET requests."
        )
    assert driver.ask(method, "/bucket/key", query).headers["content-type"] == "text/html"
    assert driver.ask(method, "/bucket/key", "x-id=GetObject", account=None).status == 200


@READERS
def test_delete_objects_asks_for_each_key(driver, account):
    driver.put("mine")
    set_policy(driver, allow("DeleteObject", resource="/mine"))
    listed = "".join(f"<Object><Key>{key}</Key></Object>" for key in ("key", "mine"))
    answer = put_delete(driver, f"<Delete>{listed}</Delete>", account)
    assert answer.texts("Deleted/Key") == ["mine"]
    assert answer.texts("Error/Key") == ["key"]
    assert answer.texts("Error/Code") == ["AccessDenied"]
    assert driver.keys() == [b"key"]


def put_delete(driver, text, account, query="delete"):
    import base64
    import hashlib

    body = text.encode()
    md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
    return driver.ask("POST", "/bucket", query, {"content-md5": md5}, body, account)


def test_a_copy_needs_both_rights(driver):
    driver.bucket("theirs", OTHER)
    copy = {"x-amz-copy-source": "bucket/key"}
    assert driver.ask("PUT", "/theirs/copy", "", copy, account=OTHER).code == "AccessDenied"
    set_policy(driver, allow("GetObject", principal={"AWS": OTHER.id}))
    assert driver.ask("PUT", "/theirs/copy", "", copy, account=OTHER).status == 200
    none = {"x-amz-copy-source": "bucket/none"}
    assert driver.ask("PUT", "/theirs/copy", "", none, account=OTHER).code == "AccessDenied"
    back = {"x-amz-copy-source": "theirs/copy"}
    assert driver.ask("PUT", "/bucket/back", "", back, account=OTHER).code == "AccessDenied"
    set_policy(
        driver,
        allow("PutObject", Condition={"StringLike": {"s3:x-amz-copy-source": "theirs/*"}}),
    )
    assert driver.ask("PUT", "/bucket/back", "", back, account=OTHER).status == 200
    assert driver.ask("PUT", "/bucket/other", "", copy, account=OTHER).code == "AccessDenied"
    assert driver.ask("PUT", "/bucket/other", body=b"x", account=OTHER).code == "AccessDenied"


def test_pol_2_a_denial_holds_for_the_owner_but_not_about_the_policy(driver):
    set_policy(driver, allow("*", resource=",/*", effect="Deny"))
    for method, path in (("GET", "/bucket/key"), ("PUT", "/bucket/key"), ("GET", "/bucket")):
        assert driver.ask(method, path).code == "AccessDenied"
    assert driver.ask("GET", "/bucket", "policyStatus").code == "AccessDenied"
    assert driver.ask("GET", "/bucket", "policy").status == 200
    assert driver.ask("DELETE", "/bucket", "policy").status == 204
    assert driver.ask("GET", "/bucket/key").status == 200


def test_a_policy_says_nothing_to_the_owner_that_it_allows_others(driver):
    set_policy(driver, allow("GetObject", principal={"AWS": OTHER.id}))
    assert driver.ask("PUT", "/bucket/key", body=b"new").status == 200
    assert driver.ask("GET", "/bucket", "policy", account=OTHER).code == "AccessDenied"
    assert driver.ask("GET", "/bucket/key", account=None).code == "AccessDenied"
    set_policy(driver, allow("*Policy*", resource=",/*", principal={"AWS": OTHER.id}))
    assert driver.ask("GET", "/bucket", "policy", account=OTHER).code == "MethodNotAllowed"


CONDITIONS = [
    ({"StringEquals": {"s3:prefix": "a/"}}, {"query": "prefix=a%2F"}, {"query": "prefix=b%2F"}),
    ({"StringEquals": {"s3:delimiter": "/"}}, {"query": "delimiter=%2F"}, {}),
    ({"NumericLessThanEquals": {"s3:max-keys": 10}}, {"query": "max-keys=10"}, {"query": ""}),
    ({"StringLike": {"aws:Referer": "http://a/*"}}, {"referer": "http://a/x"}, {"referer": "b"}),
    ({"StringLike": {"aws:UserAgent": "x*"}}, {"user-agent": "xyz"}, {"user-agent": "y"}),
    ({"Bool": {"aws:SecureTransport": "false"}}, {}, None),
    ({"Bool": {"aws:SecureTransport": "true"}}, None, {}),
    ({"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}, {"peer": "192.0.2.7"}, {"peer": "::1"}),
    ({"StringEquals": {"aws:PrincipalType": "Account"}}, {}, None),
    ({"StringEquals": {"aws:userid": OTHER.id}}, {}, None),
    ({"StringEquals": {"s3:authType": "REST-HEADER"}}, {}, None),
    ({"StringEquals": {"s3:signatureversion": "AWS4-HMAC-SHA256"}}, {}, None),
    ({"NumericLessThan": {"s3:signatureAge": 60000}}, {}, None),
    ({"DateGreaterThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}, {}, None),
    ({"NumericLessThan": {"aws:EpochTime": "1000"}}, None, {}),
    ({"Null": {"s3:x-amz-acl": "true"}}, {}, {"x-amz-acl": "private"}),
]


@pytest.mark.parametrize(("condition", "good", "bad"), CONDITIONS, ids=lambda v: str(v)[:40])
def test_pol_3_keys_of_a_request(driver, condition, good, bad):
    set_policy(driver, allow("ListBucket", resource="", Condition=condition))
    for asked, status in ((good, 200), (bad, 403)):
        if asked is not None:
            headers = {k: v for k, v in asked.items() if k not in ("query", "peer")}
            assert listing(driver, asked, headers).status == status, asked


def test_pol_3_a_listing_is_judged_by_what_it_lists(driver):
    condition = {"StringEquals": {"s3:prefix": "pub/"}, "NumericLessThan": {"s3:max-keys": 10}}
    set_policy(driver, allow("List*", resource="", Condition=condition))
    for kind in ("", "list-type=2&", "versions&"):
        usual = f"{kind}prefix=pub%2F&max-keys=5"
        assert driver.ask("GET", "/bucket", usual, account=OTHER).status == 200
        for more in ("prefix=sec%2F", "prefix=pub%2F", "max-keys=500"):
            for query in (f"{usual}&{more}", f"{kind}{more}&prefix=pub%2F&max-keys=5"):
                answer = driver.ask("GET", "/bucket", query, account=OTHER)
                assert (answer.status, answer.code) == (400, "InvalidArgument"), query
                assert driver.ask("GET", "/bucket", query, account=None).status in (400, 403)


def test_that_a_key_is_not_there_hears_who_may_list_it(driver):
    """Whatever the query says of prefixes."""
    condition = {"StringLike": {"s3:prefix": "pub/*"}}
    set_policy(driver, allow("ListBucket", resource="", Condition=condition), allow("GetObject"))
    for query in ("", "prefix=pub%2F", "prefix=sec%2F", "list-type=2&prefix=pub%2F"):
        assert driver.ask("GET", "/bucket/pub/no", query, account=OTHER).status in (400, 404)
        assert driver.ask("GET", "/bucket/sec/no", query, account=OTHER).status in (400, 403)
    assert driver.ask("GET", "/bucket/pub/no", "prefix=sec%2F", account=OTHER).code == "NoSuchKey"
    assert (
        driver.ask("GET", "/bucket/sec/no", "prefix=pub%2F", account=OTHER).code == "AccessDenied"
    )
    assert driver.ask("HEAD", "/bucket", "prefix=pub%2F", account=OTHER).status == 403


def listing(driver, asked, headers):
    send = driver.send

    def from_there(request):
        request.peer = asked.get("peer", "-")
        return send(request)

    driver.send = from_there
    try:
        return driver.ask("GET", "/bucket", asked.get("query", ""), headers, account=OTHER)
    finally:
        driver.send = send


@pytest.mark.parametrize(
    ("key", "header", "value"),
    [
        ("s3:x-amz-acl", "x-amz-acl", "bucket-owner-full-control"),
        ("s3:x-amz-server-side-encryption", "x-amz-server-side-encryption", "AES256"),
        ("s3:x-amz-storage-class", "x-amz-storage-class", "STANDARD"),
        ("s3:if-none-match", "if-none-match", "*"),
    ],
)
def test_pol_3_headers_of_a_put(driver, key, header, value):
    set_policy(driver, allow("PutObject", Condition={"StringEquals": {key: value}}))
    assert driver.ask("PUT", "/bucket/a", body=b"x", account=OTHER).code == "AccessDenied"
    answer = driver.ask("PUT", "/bucket/a", "", {header: value}, b"x", OTHER)
    assert answer.status == 200


def test_pol_3_puts_without_encryption_are_denied(driver):
    """The two statements that everybody copies."""
    key = "s3:x-amz-server-side-encryption"
    set_policy(
        driver,
        allow("PutObject", effect="Deny", Condition={"StringNotEquals": {key: "AES256"}}),
        allow("PutObject", effect="Deny", Condition={"Null": {key: "true"}}),
    )
    assert driver.ask("PUT", "/bucket/a", body=b"x").code == "AccessDenied"
    encrypted = {"x-amz-server-side-encryption": "AES256"}
    assert driver.ask("PUT", "/bucket/a", "", encrypted, b"x").status == 200


def test_presigned_urls_are_judged_too(driver):
    client = driver.client(OTHER, signature_version="s3v4")
    url = client.generate_presigned_url("get_object", {"Bucket": "bucket", "Key": "key"})
    path, query = url.split("s3.test", 1)[1].split("?")
    assert dict(parse_qsl(query))["X-Amz-Signature"]
    assert driver.ask("GET", path, query, account=None).code == "AccessDenied"
    age = {"NumericLessThan": {"s3:signatureAge": 600_000}}
    presigned = {"StringEquals": {"s3:authType": "REST-QUERY-STRING"}, **age}
    set_policy(driver, allow("GetObject", principal={"AWS": OTHER.id}, Condition=presigned))
    assert driver.ask("GET", path, query, account=None).body == b"bytes"
    assert driver.ask("GET", "/bucket/key", account=OTHER).code == "AccessDenied"


# -- ACL-6: the public access block ----------------------------------------------------------------


def test_acl_6_block_public_policy(driver):
    put(driver, "publicAccessBlock", BLOCK.format("<BlockPublicPolicy>true</BlockPublicPolicy>"))
    answer = put(driver, "policy", policy(ALL))
    assert (answer.status, answer.code) == (403, "AccessDenied")
    set_policy(driver, allow("GetObject", principal={"AWS": OTHER.id}))
    driver.ask("DELETE", "/bucket", "publicAccessBlock")
    set_policy(driver, ALL)


def test_acl_6_restrict_public_buckets(driver):
    flag = "<RestrictPublicBuckets>true</RestrictPublicBuckets>"
    set_policy(driver, ALL)
    put(driver, "publicAccessBlock", BLOCK.format(flag))
    for account, status in ((OWNER, 200), (OTHER, 403), (None, 403)):
        assert driver.ask("GET", "/bucket/key", account=account).status == status
    set_policy(driver, allow("GetObject", principal={"AWS": OTHER.id}))
    assert driver.ask("GET", "/bucket/key", account=OTHER).status == 200


def test_a_policy_that_cannot_be_read_refuses(driver):
    """As one that a later version wrote."""
    later = json.dumps({"Statement": [ALL], "Later": 1}).encode()
    from tests.s3.fake_store import run_now

    run_now(driver.store.configure(driver.store.bucket("bucket"), "policy", later))
    for account in (OWNER, OTHER, None):
        assert driver.ask("GET", "/bucket/key", account=account).status in (400, 403)
    assert driver.ask("DELETE", "/bucket", "policy").status == 204
    assert driver.ask("GET", "/bucket/key").status == 200


# -- tags ------------------------------------------------------------------------------------------


def test_pol_3_tag_keys_keep_their_case():
    found = {"s3:existingobjecttag/Team": ("a",)}
    for key, holds in (("S3:ExistingObjectTag/Team", True), ("s3:ExistingObjectTag/team", False)):
        assert Condition("StringEquals", key, ["a"]).holds(lambda k: found.get(k, ())) is holds
    for key in ("s3:ExistingObjectTag", "s3:ExistingObjectTag/", "s3:RequestObjectTag"):
        with pytest.raises(S3Error, match="invalid condition key"):
            Condition("StringEquals", key, ["a"])


def test_pol_3_tags_of_the_object():
    """Over the real store, which has tags."""
    condition = {"StringEquals": {"s3:ExistingObjectTag/team": "a"}}
    with StoreDriver() as driver:
        driver.bucket()
        store, run = driver.world.store, driver._runner.run
        for key, tags in (("a", {"team": "a"}), ("b", {"team": "b"}), ("none", {})):
            driver.put(key, b"bytes")
            run(store.set_state(store.bucket("bucket"), key.encode(), None, NewState(tags=tags), 0))
        set_policy(
            driver,
            allow("GetObject", "GetObjectTagging", "DeleteObject", Condition=condition),
            allow("ListBucket", resource=""),
        )
        for account in (OTHER, None):
            for key, status in (("a", 200), ("b", 403), ("none", 403), ("absent", 403)):
                assert driver.ask("GET", f"/bucket/{key}", account=account).status == status, key
        driver.bucket("theirs", OTHER)
        for key, status in (("a", 200), ("b", 403)):
            source = {"x-amz-copy-source": f"bucket/{key}"}
            answer = driver.ask("PUT", "/theirs/copy", "", source, account=OTHER)
            assert answer.status == status
        listed = "".join(f"<Object><Key>{key}</Key></Object>" for key in ("a", "b", "none"))
        answer = put_delete(driver, f"<Delete>{listed}</Delete>", OTHER)
        assert answer.texts("Deleted/Key") == ["a"]
        assert answer.texts("Error/Key") == ["b", "none"]


def test_vst_5_a_version_that_is_named_needs_another_right():
    """Each of these with ``versionId``, "null" too, and in an entry of DeleteObjects."""
    reads = ("GetObject", "GetObjectVersion")
    asked = (
        ("GET", "", reads),
        ("HEAD", "", reads),
        ("GET", "acl", ("GetObjectAcl", "GetObjectVersionAcl")),
        ("GET", "tagging", ("GetObjectTagging", "GetObjectVersionTagging")),
        ("PUT", "tagging", ("PutObjectTagging", "PutObjectVersionTagging")),
        ("DELETE", "tagging", ("DeleteObjectTagging", "DeleteObjectVersionTagging")),
        ("DELETE", "", ("DeleteObject", "DeleteObjectVersion")),
    )
    with StoreDriver() as driver:
        driver.bucket()
        for method, resource, actions in asked:
            body = b"<Tagging><TagSet></TagSet></Tagging>" if method == "PUT" else b""
            for granted, action in enumerate(actions):
                driver.put("key")
                set_policy(driver, allow(action))
                for named, query in enumerate((resource, f"{resource}&versionId=null".strip("&"))):
                    answer = driver.ask(method, "/bucket/key", query, {}, body, OTHER)
                    assert (answer.status == 403) is (named != granted), (method, query, action)
        set_policy(driver, allow("DeleteObject"))
        entry = "<Object><Key>key</Key><VersionId>null</VersionId></Object>"
        answer = put_delete(driver, f"<Delete>{entry}</Delete>", OTHER)
        assert answer.texts("Error/Code") == ["AccessDenied"]


@pytest.mark.parametrize("version", ["", "Version"])
def test_attr_1_is_no_way_round_the_right_to_read(driver, version):
    actions = (f"GetObject{version}", f"GetObject{version}Attributes")
    query = "attributes" + ("&versionId=null" if version else "")
    headers = {"x-amz-object-attributes": "ETag"}
    for granted, status in ((actions[:1], 403), (actions[1:], 403), (actions, 200)):
        set_policy(driver, allow(*granted))
        assert driver.ask("GET", "/bucket/key", query, headers, account=OTHER).status == status


def test_pol_3_the_version_is_the_one_that_is_acted_on():
    """In the query, of a copy's source, or of an entry of DeleteObjects."""
    enabled = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    with StoreDriver() as driver:
        driver.bucket()
        driver.bucket("theirs", OTHER)
        assert driver.ask("PUT", "/bucket", "versioning", body=enabled).status == 200
        put = [driver.put("key", text).headers["x-amz-version-id"] for text in (b"one", b"two")]
        secret, shown = put

        def copied(version, more=""):
            source = {"x-amz-copy-source": f"bucket/key?versionId={version}"}
            return driver.ask("PUT", "/theirs/copy", more, source, account=OTHER).status

        def deleted(version, more=""):
            entry = f"<Object><Key>key</Key><VersionId>{version}</VersionId></Object>"
            answer = put_delete(driver, f"<Delete>{entry}</Delete>", OTHER, f"delete{more}")
            return answer.texts("Error/Code") or answer.texts("Deleted/VersionId")

        actions = ("GetObjectVersion", "DeleteObjectVersion")
        condition = {"StringEquals": {"s3:VersionId": secret}}
        set_policy(
            driver,
            allow(*actions),
            allow(*actions, effect="Deny", principal={"AWS": OTHER.id}, Condition=condition),
        )
        assert driver.ask("GET", "/bucket/key", f"versionId={secret}", account=OTHER).status == 403
        assert (copied(secret), copied(secret, f"versionId={shown}")) == (403, 403)
        assert deleted(secret) == ["AccessDenied"]
        assert (copied(shown), copied(shown, f"versionId={secret}")) == (200, 200)
        set_policy(driver, allow(*actions, Condition={"StringEquals": {"s3:VersionId": shown}}))
        assert (copied(shown), copied(secret)) == (200, 403)
        assert deleted(secret, f"&versionId={shown}") == ["AccessDenied"]
        assert deleted(shown, f"&versionId={secret}") == [shown]


def test_pol_3_a_write_is_judged_by_the_version_that_it_replaces():
    """A parameter that it does not heed names no other one."""
    enabled = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    with StoreDriver() as driver:
        driver.bucket()
        assert driver.ask("PUT", "/bucket", "versioning", body=enabled).status == 200
        tagged = driver.put("key", b"one", x_amz_tagging="open=yes").headers["x-amz-version-id"]
        driver.put("key", b"two")
        condition = {"StringEquals": {"s3:ExistingObjectTag/open": "yes"}}
        set_policy(driver, allow("*Object", "GetObjectVersion", Condition=condition))
        query = f"versionId={tagged}"
        assert driver.ask("GET", "/bucket/key", query, account=OTHER).body == b"one"
        for more in ("", query):
            answer = driver.ask("PUT", "/bucket/key", more, body=b"three", account=OTHER)
            assert answer.code == "AccessDenied"


def test_a_copy_gives_tags_to_whom_may_give_them():
    """Else whoever may write could open what he writes to all whom a policy lets at such tags."""
    opened = {"StringEquals": {"s3:ExistingObjectTag/open": "yes"}}
    writer = {"AWS": OTHER.id}
    with StoreDriver() as driver:
        driver.bucket()
        driver.bucket("theirs", OTHER)
        for key, tags in (("plain", ""), ("open", "open=yes")):
            headers = {"x-amz-tagging": tags}
            put = driver.ask("PUT", f"/theirs/{key}", "", headers, b"x", account=OTHER)
            assert put.status == 200

        def copied(key, **headers):
            named = {f"x-amz-{k.replace('_', '-')}": v for k, v in headers.items()}
            named["x-amz-copy-source"] = f"theirs/{key}"
            return driver.ask("PUT", f"/bucket/{key}", "", named, account=OTHER).status

        readers = allow("GetObject", Condition=opened)
        set_policy(driver, readers, allow("PutObject", principal=writer))
        assert (copied("open"), copied("plain")) == (403, 200)
        assert copied("open", tagging_directive="REPLACE") == 200
        assert copied("open", tagging_directive="REPLACE", tagging="open=yes") == 403
        assert copied("plain", tagging="open=yes") == 200, "which is not stored"
        for key in ("open", "plain"):
            assert driver.ask("GET", f"/bucket/{key}", account=None).status == 403
        set_policy(driver, readers, allow("PutObject", "PutObjectTagging", principal=writer))
        assert copied("open") == 200
        assert driver.ask("GET", "/bucket/open", account=None).status == 200
        # By what will be stored, whatever the header says.
        wanted = {"StringEquals": {"s3:RequestObjectTag/open": "no"}}
        set_policy(driver, allow("PutObject*", principal=writer, Condition=wanted))
        assert copied("open", tagging="open=no") == 403
        assert copied("open", tagging="open=no", tagging_directive="REPLACE") == 200
        denied = {"StringEquals": {"s3:RequestObjectTag/open": "yes"}}
        for action in ("PutObject", "PutObjectTagging"):
            deny = allow(action, effect="Deny", principal=writer, Condition=denied)
            set_policy(driver, allow("PutObject*", principal=writer), deny)
            assert (copied("open"), copied("plain", tagging="open=yes")) == (403, 200)
        begun = driver.ask("POST", "/bucket/many", "uploads", account=OTHER)
        part = f"uploadId={begun.text('UploadId')}&partNumber=1"
        set_policy(driver, allow("PutObject", principal=writer, Condition=wanted))
        headers = {"x-amz-tagging": "open=no"}
        assert driver.ask("PUT", "/bucket/many", part, headers, b"x", OTHER).status == 403


def test_pol_3_tags_that_a_request_gives():
    """In a header, or in the body of a PUT of tags."""
    body = b"<Tagging><TagSet><Tag><Key>team</Key><Value>%b</Value></Tag></TagSet></Tagging>"
    condition = {
        "StringEquals": {"s3:RequestObjectTag/team": "a"},
        "ForAllValues:StringEquals": {"s3:RequestObjectTagKeys": ["team", "more"]},
    }
    with StoreDriver() as driver:
        driver.bucket()
        set_policy(driver, allow("PutObject", "PutObjectTagging", Condition=condition))
        for tags, status in (("team=a", 200), ("team=a&more=", 200), ("team=b", 403)) + (
            *(("team=a&other=", 403), ("", 403)),
        ):
            headers = {"x-amz-tagging": tags} if tags else {}
            answer = driver.ask("PUT", "/bucket/key", "", headers, b"x", OTHER)
            assert answer.status == status, tags
        for value, status in ((b"a", 200), (b"b", 403)):
            answer = driver.ask("PUT", "/bucket/key", "tagging", {}, body % value, OTHER)
            assert answer.status == status
        assert driver.ask("PUT", "/bucket/key", "tagging", {}, body % b"b").status == 200
        driver.ask("DELETE", "/bucket", "policy")
        answer = driver.ask("PUT", "/bucket/key", "tagging", {}, body % b"a", OTHER)
        assert answer.status == 403 and driver.body.reads == 0


def test_pol_3_what_a_request_says_is_looked_at_once_for_all_its_keys(driver, matches):
    agents = [f"*{'?' * n}b*" for n in range(20)]
    set_policy(driver, allow("DeleteObject", Condition={"StringLike": {"aws:UserAgent": agents}}))
    listed = "".join(f"<Object><Key>{n}</Key></Object>" for n in range(100))
    body, sent = f"<Delete>{listed}</Delete>".encode(), {"user-agent": "a" * 1000}
    sent["content-md5"] = base64.b64encode(hashlib.md5(body).digest()).decode()
    del matches[:]
    answer = driver.ask("POST", "/bucket", "delete", sent, body, OTHER)
    assert answer.texts("Error/Code") == ["AccessDenied"] * 100
    assert matches.count(sent["user-agent"]) == len(agents)


def test_pol_3_more_than_is_looked_at_is_refused(driver):
    """Where the policy asks for it, and by whomever: a Deny must not be passed by."""
    driver.put("key")
    long = {"user-agent": "a" * (CONDITION_CHARS_MAX + 1)}
    assert driver.ask("GET", "/bucket/key", "", long).status == 200
    condition = {"StringLike": {"aws:UserAgent": "a*"}}
    set_policy(driver, allow("GetObject", effect="Deny", Condition=condition))
    answer = driver.ask("GET", "/bucket/key", "", long)
    assert (answer.status, answer.code) == (400, "InvalidRequest")
    assert "aws:useragent" in answer.xml.findtext("Message")
    assert driver.ask("GET", "/bucket/key", "", {"user-agent": "a" * 1000}).status == 403
    condition = {"ForAllValues:StringLike": {"s3:RequestObjectTagKeys": "a*"}}
    set_policy(driver, allow("PutObject", Condition=condition))
    tags = {"x-amz-tagging": "&".join(f"a{n}=" for n in range(11))}
    answer = driver.ask("PUT", "/bucket/other", "", tags, b"x", OTHER)
    assert (answer.status, answer.code) == (400, "BadRequest")
