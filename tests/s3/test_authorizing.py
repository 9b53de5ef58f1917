"""A host that decides: it is asked about every right, has the last word, and lets nobody in where
it fails."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest

from ingot.errors import NotFound
from ingot.ports import AccessQuestion, Decision
from ingot.s3.operations import OPERATIONS, REFUSED
from tests.s3.driver import OTHER, OWNER, Driver

ALLOW, DENY, USUAL = Decision.ALLOW, Decision.DENY, Decision.USUAL


class Host:
    """Answers by action, and ``otherwise``."""

    def __init__(self):
        self.answers = {}
        self.otherwise = USUAL
        self.asked: list[AccessQuestion] = []

    def decide(self, question):
        self.asked.append(question)
        answer = self.answers.get(question.action, self.otherwise)
        if isinstance(answer, Exception):
            raise answer
        return answer(question) if callable(answer) else answer


@pytest.fixture
def host():
    return Host()


@pytest.fixture
def driver(host):
    made = Driver(authorizer=host)
    made.bucket()
    made.put("k", b"bytes")
    host.asked.clear()
    return made


def test_it_is_asked_about_the_owners_requests_too(driver, host):
    assert driver.app.express is None
    assert driver.ask("GET", "/bucket/k").status == 200
    assert host.asked == [AccessQuestion(OWNER.id, "GetObject", "s3:GetObject", "bucket", "k")]
    host.answers["s3:GetObject"] = DENY
    assert driver.ask("GET", "/bucket/k").code == "AccessDenied"
    assert driver.ask("HEAD", "/bucket/k").status == 403


def test_usual_is_what_the_bucket_says(driver, host):
    assert driver.ask("GET", "/bucket/k", account=OTHER).code == "AccessDenied"
    assert driver.ask("GET", "/bucket/k", account=None).code == "AccessDenied"
    assert [question.account for question in host.asked] == [OTHER.id, None]


def test_allow_lets_in_whom_the_bucket_does_not(driver, host):
    host.answers["s3:GetObject"] = ALLOW
    for account in (OTHER, None):
        answer = driver.ask("GET", "/bucket/k", account=account)
        assert (answer.status, answer.body) == (200, b"bytes")
    assert driver.ask("GET", "/none/k", account=None).code == "AccessDenied"
    assert driver.ask("GET", "/none/k", account=OTHER).code == "NoSuchBucket"


@pytest.mark.parametrize(("decision", "status"), [(DENY, 403), (ALLOW, 200)])
def test_its_word_is_final(driver, host, decision, status):
    effect = "Allow" if decision is DENY else "Deny"
    statement = {
        "Effect": effect,
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": "arn:aws:s3:::bucket/*",
    }
    body = json.dumps({"Statement": statement}).encode()
    assert driver.ask("PUT", "/bucket", "policy", body=body).status == 204
    host.answers["s3:GetObject"] = decision
    for account in (OWNER, OTHER, None):
        assert driver.ask("GET", "/bucket/k", account=account).status == status


def test_a_denial_holds_for_the_policy_itself(driver, host):
    host.answers["s3:PutBucketPolicy"] = DENY
    assert driver.ask("PUT", "/bucket", "policy", body=b"{}").code == "AccessDenied"


def test_operations_that_are_about_no_bucket(driver, host):
    assert driver.ask("GET", "/").status == 200
    assert driver.ask("PUT", "/other").status == 200
    create = AccessQuestion(OWNER.id, "CreateBucket", "s3:CreateBucket", "other", "")
    assert host.asked == [
        AccessQuestion(OWNER.id, "ListBuckets", "s3:ListAllMyBuckets", "", ""),
        *(create, create),  # again when its body is there
    ]
    host.answers |= {"s3:ListAllMyBuckets": DENY, "s3:CreateBucket": DENY}
    assert driver.ask("GET", "/").code == "AccessDenied"
    assert driver.ask("PUT", "/third").code == "AccessDenied"
    host.answers |= {"s3:ListAllMyBuckets": ALLOW, "s3:CreateBucket": ALLOW}
    assert driver.ask("GET", "/", account=None).code == "AccessDenied", "nobody owns nothing"
    assert driver.ask("PUT", "/third", account=None).code == "AccessDenied"


def test_every_right_that_an_operation_needs(driver, host):
    driver.ask("PUT", "/bucket/copy", headers={"x-amz-copy-source": "/bucket/k"})
    assert [(q.action, q.key) for q in host.asked] == [
        ("s3:PutObject", "copy"),
        ("s3:GetObject", "k"),
        ("s3:PutObject", "copy"),  # again when the source is read
    ]
    host.answers["s3:GetObject"] = DENY
    copy = driver.ask("PUT", "/bucket/copy", headers={"x-amz-copy-source": "/bucket/k"})
    assert copy.code == "AccessDenied"
    host.asked.clear()
    host.answers["s3:DeleteObject"] = lambda question: DENY if question.key == "k" else USUAL
    answer = driver.client().delete_objects(
        Bucket="bucket", Delete={"Objects": [{"Key": "k"}, {"Key": "copy"}]}
    )
    assert [e["Key"] for e in answer["Errors"]] == ["k"]
    assert [d["Key"] for d in answer["Deleted"]] == ["copy"]
    assert [q.key for q in host.asked if q.action == "s3:DeleteObject"] == ["k", "copy"]


def test_no_operation_is_carried_out_unasked(driver, host):
    """Of the owner, on a bucket that the everyday way would be enough for."""
    host.otherwise = DENY
    for row in OPERATIONS:
        path = {"service": "/", "bucket": "/bucket"}.get(row.level, "/bucket/k")
        if row.name in ("WriteGetObjectResponse", "PostObject", "DeleteObjects"):
            continue  # no request, and those that have tests of their own
        path = "/new" if row.name == "CreateBucket" else path
        query = (
            row.resource.decode()
            .replace("list-type", "list-type=2")
            .replace("+id", "&id=1")
            .replace("+x-amz-copy-source", "")
            .replace("uploadId", "partNumber=1&uploadId=u" if row.method == "PUT" else "uploadId=u")
        )
        headers, body = {"content-md5": "1B2M2Y8AsgTpgAmY7PhCfg=="}, b""
        if row.name == "PutObjectTagging":  # the right to it may depend on what is in there
            headers, body = {}, b"<Tagging><TagSet/></Tagging>"
        if row.resource.endswith(b"x-amz-copy-source"):
            query = query.replace("x-amz-copy-source", "")
            headers["x-amz-copy-source"] = "/bucket/k"
        host.asked.clear()
        answer = driver.ask(row.method, path, query, headers, body)
        if row.kind == REFUSED:
            assert answer.status == 501
            continue
        assert answer.status == 403, (row.name, answer.body)
        assert host.asked[0].operation == row.name
    assert driver.keys() == [b"k"] and list(driver.store.rows) == ["bucket"]


def test_a_missing_key_is_told_to_those_who_may_list(driver, host):
    assert driver.ask("GET", "/bucket/none").code == "NoSuchKey"
    host.answers["s3:ListBucket"] = DENY
    assert driver.ask("GET", "/bucket/none").code == "AccessDenied"


@pytest.mark.parametrize("answer", [RuntimeError("broken"), PermissionError(), True, None, "allow"])
def test_one_that_fails_decides_nothing(driver, host, answer, caplog):
    host.answers["s3:GetObject"] = lambda _: answer
    if isinstance(answer, Exception):
        host.answers["s3:GetObject"] = answer
    for account in (OWNER, OTHER, None):
        refused = driver.ask("GET", "/bucket/k", account=account)
        assert (refused.status, refused.code) == (500, "InternalError")
        assert b"broken" not in refused.body
    assert "the authorizer" in caplog.text and "s3:GetObject" in caplog.text
    assert "Traceback" not in caplog.text
    if isinstance(answer, Exception):
        assert f"raised {type(answer).__name__}: {answer}, at " in caplog.text


def test_failures_of_ours_are_not_taken_for_answers(driver, host):
    """A host's exception may be one of those that ingot answers clients with."""
    host.answers["s3:GetObject"] = NotFound("the host's own")
    assert driver.ask("GET", "/bucket/k").code == "InternalError"
    host.answers["s3:DeleteObject"] = NotFound("the host's own")
    body = b"<Delete><Object><Key>k</Key></Object></Delete>"
    headers = {"content-md5": base64.b64encode(hashlib.md5(body).digest()).decode()}
    answer = driver.ask("POST", "/bucket", "delete", headers, body)
    assert (answer.status, answer.code) == (500, "InternalError")
