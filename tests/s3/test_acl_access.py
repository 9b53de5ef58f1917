"""What grants allow, and policies beside them: ACL-4, ANON-1 to ANON-3, POL-2."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.bucket.leaf import Acl, State
from ingot.ports import Decision
from ingot.s3 import acl, ownership
from ingot.s3.actions import OF_BUCKETS, OF_OBJECTS
from tests.s3.acl_driver import (
    ACCOUNTS,
    ANYBODY,
    TAGS,
    grants_document,
    make,
    set_acl,
    set_policy,
    sha256_of,
    shown,
    status,
)
from tests.s3.driver import OTHER, OWNER, THIRD, Driver
from tests.s3.test_configuration import BLOCK
from tests.s3.test_policy import policy


@pytest.fixture
def driver():
    return make()


# -- ACL-4: what a grant allows --------------------------------------------------------------------

WHO = {"other": OTHER, "third": THIRD, "nobody": None}
GRANTEES = {
    f"id={OTHER.id}": {"other"},
    ACCOUNTS: {"other", "third"},
    ANYBODY: {"other", "third", "nobody"},
    f'uri="{acl.LOG_DELIVERY}"': set(),
}
IN_BUCKET = {
    "read": [("GET", "/bucket", ""), ("HEAD", "/bucket", ""), ("GET", "/bucket", "versions")],
    "write": [("PUT", "/bucket/new", ""), ("DELETE", "/bucket/new", "")],
    "read-acp": [("GET", "/bucket", "acl")],
    "write-acp": [("PUT", "/bucket", "acl")],
}
ON_OBJECT = {
    "read": [("GET", "/bucket/key", ""), ("HEAD", "/bucket/key", "")],
    "write": [],
    "read-acp": [("GET", "/bucket/key", "acl")],
    "write-acp": [("PUT", "/bucket/key", "acl")],
}


def may(driver, who, asks, **headers):
    found = set()
    for method, path, query in asks:
        sent = headers if query == "acl" and method == "PUT" else {}
        answer = driver.ask(method, path, query, sent, account=WHO[who])
        assert answer.status in (200, 204, 403), answer.body
        if answer.status != 403:
            found.add((method, path, query))
    return found


@pytest.mark.parametrize("permission", [*IN_BUCKET, "full-control"])
@pytest.mark.parametrize("grantee", GRANTEES)
@pytest.mark.parametrize("of_object", [False, True], ids=["bucket", "object"])
def test_acl_4_a_grant_allows_its_grantees_what_it_says(permission, grantee, of_object):
    table, path = (ON_OBJECT, "/bucket/key") if of_object else (IN_BUCKET, "/bucket")
    granted = {f"x-amz-grant-{permission}": grantee}
    every = [ask for asks in (*IN_BUCKET.values(), *ON_OBJECT.values()) for ask in asks]
    for who in WHO:
        driver = make()
        assert driver.ask("PUT", path, "acl", granted).status == 200
        allowed = set()
        if who in GRANTEES[grantee]:
            names = table if permission == "full-control" else (permission,)
            allowed = {ask for name in names for ask in table[name]}
            if who == "nobody":
                allowed.discard(("PUT", "/bucket", "acl"))  # ANON-2
        assert may(driver, who, every, **granted) == allowed


def test_acl_4_no_grant_reaches_further(driver):
    """Configuration, locks, versions and tags are the owner's, or the policy's to give."""
    set_acl(driver, "/bucket", grant_full_control=f"id={OTHER.id}")
    set_acl(driver, "/bucket/key", grant_full_control=f"id={OTHER.id}")
    md5 = {"content-md5": "1B2M2Y8AsgTpgAmY7PhCfg=="}
    for method, path, query in (
        *(("GET", "/bucket", "policy"), ("PUT", "/bucket", "policy"), ("DELETE", "/bucket", "")),
        *(("PUT", "/bucket", "ownershipControls"), ("PUT", "/bucket", "publicAccessBlock")),
        *(("GET", "/bucket", "location"), ("PUT", "/bucket", "versioning")),
        *(("PUT", "/bucket/key", "tagging"), ("DELETE", "/bucket/key", "tagging")),
        *(("PUT", "/bucket/key", "retention"), ("DELETE", "/bucket/key", "versionId=null")),
    ):
        body = TAGS if (method, query) == ("PUT", "tagging") else b""
        headers = {} if body else md5
        answer = driver.ask(method, path, query, headers, body, OTHER)
        assert answer.code == "AccessDenied", (method, path, query)
    assert not set(acl.OF_BUCKETS) - OF_BUCKETS - OF_OBJECTS
    assert set(acl.OF_OBJECTS) <= OF_OBJECTS


@pytest.mark.parametrize("account", [OTHER, None], ids=["other", "nobody"])
def test_acl_4_several_objects_are_deleted(driver, account):
    body = b"<Delete><Object><Key>key</Key></Object></Delete>"
    sent = {"x-amz-checksum-sha256": sha256_of(body)}
    refused = driver.ask("POST", "/bucket", "delete", sent, body, account)
    if account is None:  # hears it at once, for whatever he would name
        assert (refused.status, refused.code) == (403, "AccessDenied")
        assert driver.body.reads == 0
    else:
        assert refused.texts("Error/Code") == ["AccessDenied"]
    set_acl(driver, "/bucket", acl="public-read-write")
    done = driver.ask("POST", "/bucket", "delete", sent, body, account)
    assert done.texts("Deleted/Key") == ["key"]


def test_acl_4_an_owner_needs_no_grant(driver):
    for path in ("/bucket", "/bucket/key"):
        assert driver.ask("PUT", path, "acl", {}, grants_document()).status == 200
        assert shown(driver, path) == (OWNER.id, [])
    assert driver.ask("GET", "/bucket/key").body == b"bytes"
    assert driver.ask("GET", "/bucket").status == 200
    driver.put("key", b"more")


@pytest.mark.parametrize("account", [OTHER, None], ids=["other", "nobody"])
def test_anon_3_a_missing_object_is_told_to_those_who_may_list(driver, account):
    for method, query in (("GET", ""), ("HEAD", ""), ("GET", "acl")):
        for asked in (query, "versionId=null" + ("&acl" if query else "")):
            assert status(driver, method, "/bucket/none", account, asked) == 403
    set_acl(driver, "/bucket", acl="public-read")
    for method, query in (("GET", ""), ("HEAD", ""), ("GET", "acl")):
        for asked in (query, "versionId=null" + ("&acl" if query else "")):
            assert status(driver, method, "/bucket/none", account, asked) == 404
    assert driver.ask("GET", "/bucket/none", account=account).code == "NoSuchKey"
    assert driver.ask("GET", "/bucket/key", account=account).code == "AccessDenied"


@pytest.mark.parametrize("account", [OTHER, None], ids=["other", "nobody"])
def test_anon_1_nothing_by_default(driver, account):
    for method, path, query in (
        *(("GET", "/bucket", ""), ("HEAD", "/bucket", ""), ("GET", "/bucket/key", "")),
        *(("PUT", "/bucket/key", ""), ("DELETE", "/bucket/key", ""), ("GET", "/bucket", "acl")),
        *(("PUT", "/bucket/key", "acl"), ("PUT", "/bucket", "acl")),
    ):
        headers = {"x-amz-acl": "public-read"} if query == "acl" else {}
        assert status(driver, method, path, account, query, headers=headers) == 403
    assert driver.keys() == [b"key"]


def test_anon_2_nobody_changes_a_buckets_acl_without_a_signature(driver):
    set_acl(driver, "/bucket", grant_full_control=ANYBODY)
    answer = driver.ask("PUT", "/bucket", "acl", {"x-amz-acl": "private"}, account=None)
    assert answer.code == "AccessDenied"
    assert answer.xml.findtext("Message").startswith("Anonymous users cannot invoke this API")
    set_acl(driver, "/bucket", OTHER, acl="private")


def test_no_grant_is_left_when_the_object_is_another(driver):
    set_acl(driver, "/bucket/key", acl="public-read")
    assert driver.ask("GET", "/bucket/key", account=None).status == 200
    driver.put("key", b"secret")
    assert driver.ask("GET", "/bucket/key", account=None).status == 403


# -- with a policy ---------------------------------------------------------------------------------


def test_pol_2_a_denial_outweighs_every_grant(driver):
    set_acl(driver, "/bucket", acl="public-read-write")
    set_acl(driver, "/bucket/key", acl="public-read")
    denied = ("GetObject", "PutObject", "ListBucket")
    set_policy(driver, "Deny", *denied, principal={"AWS": OTHER.access_key})
    for account, wanted in ((OTHER, 403), (THIRD, 200), (None, 200), (OWNER, 200)):
        assert status(driver, "GET", "/bucket/key", account) == wanted
        assert status(driver, "GET", "/bucket", account) == wanted
        assert status(driver, "PUT", f"/bucket/{wanted}", account) == wanted


def test_pol_2_either_of_the_two_allows(driver):
    set_policy(driver, "Allow", "GetObject", principal={"AWS": OTHER.access_key})
    set_acl(driver, "/bucket/key", grant_read=f"id={THIRD.id}")
    assert status(driver, "GET", "/bucket/key", OTHER) == 200
    assert status(driver, "GET", "/bucket/key", THIRD) == 200
    assert status(driver, "GET", "/bucket/key", None) == 403
    set_policy(driver, "Allow", "ListBucket", principal={"AWS": THIRD.access_key})
    assert status(driver, "GET", "/bucket/none", THIRD) == 404
    assert status(driver, "GET", "/bucket/none", OTHER) == 403


def test_pol_2_tags_are_asked_for_beside(driver):
    driver.put("key", b"bytes", x_amz_tagging="a=b")
    condition = {"StringEquals": {"s3:ExistingObjectTag/a": "b"}}
    set_acl(driver, "/bucket/key", acl="public-read")
    set_policy(driver, "Deny", "GetObject", Condition=condition)
    assert status(driver, "GET", "/bucket/key", OTHER) == 403


def test_the_policy_cannot_give_away_what_others_own(driver):
    set_acl(driver, "/bucket", grant_write=f"id={OTHER.id}")
    assert status(driver, "PUT", "/bucket/theirs", OTHER, body=b"x") == 200
    set_policy(driver, "Allow", "GetObject", "GetObjectAcl")
    for account, wanted in ((THIRD, 403), (None, 403), (OWNER, 403), (OTHER, 200)):
        assert status(driver, "GET", "/bucket/theirs", account) == wanted
        assert status(driver, "GET", "/bucket/theirs", account, "acl") == wanted
    assert status(driver, "GET", "/bucket/key", None) == 200


class Host:
    """Decides about the actions that it has an answer for."""

    def __init__(self):
        self.answers = {}

    def decide(self, question):
        return self.answers.get(question.action, Decision.USUAL)


def test_a_host_that_decides_has_the_word_before_every_grant():
    host = Host()
    driver = Driver(default_ownership="ObjectWriter", authorizer=host)
    driver.bucket()
    driver.put("key", b"bytes")
    public = {"x-amz-acl": "public-read"}
    assert status(driver, "GET", "/bucket/key", OTHER) == 403
    host.answers["s3:GetObject"] = Decision.ALLOW
    assert status(driver, "GET", "/bucket/key", OTHER) == 200
    host.answers["s3:GetObject"] = Decision.DENY
    assert driver.ask("PUT", "/bucket/key", "acl", public).status == 200
    assert status(driver, "GET", "/bucket/key", None) == 403
    host.answers = {"s3:PutObjectAcl": Decision.DENY}
    assert status(driver, "GET", "/bucket/key", None) == 200
    assert status(driver, "PUT", "/bucket/new", OWNER, headers=public) == 403
    assert status(driver, "PUT", "/bucket/new", OWNER) == 200
    host.answers = {"s3:PutObject": Decision.ALLOW}
    assert status(driver, "PUT", "/bucket/new", None, headers=public) == 403
    host.answers["s3:PutObjectAcl"] = Decision.ALLOW
    assert status(driver, "PUT", "/bucket/new", None, headers=public) == 200
    assert status(driver, "GET", "/bucket/new", THIRD) == 200


# -- all of it together, against the rules said plainly --------------------------------------------

NAMES = {OWNER.id: OWNER, OTHER.id: OTHER, THIRD.id: THIRD}
SOMEBODY = st.sampled_from([*NAMES, acl.ALL_USERS, acl.AUTHENTICATED_USERS])
GRANTS = st.lists(
    st.tuples(SOMEBODY, st.sampled_from(acl.PERMISSIONS)), unique=True, max_size=3
).map(tuple)
ASKS = {
    "GetObject": ("GET", "/bucket/key", ""),
    "GetObjectAcl": ("GET", "/bucket/key", "acl"),
    "ListBucket": ("GET", "/bucket", ""),
    "GetBucketAcl": ("GET", "/bucket", "acl"),
    "PutObject": ("PUT", "/bucket/new", ""),
}
STATEMENTS = st.none() | st.tuples(
    st.sampled_from(["Allow", "Deny"]),
    st.sampled_from(["*", OTHER.access_key]),
    st.sampled_from(["*", *ASKS]),
)
NEEDS = {"GetObject": "READ", "ListBucket": "READ", "PutObject": "WRITE"}


def rule(action, who, enforced, ignored, statement, of_bucket, owner, of_object):
    """Whether ``who`` (a canonical id, None for nobody) may do it."""
    if statement is not None:
        effect, principal, named = statement
        fits = principal == "*" or who == OTHER.id
        effect = effect if fits and named in ("*", action) else None
        if effect == "Deny":
            return False
    else:
        effect = None
    about_object = action.startswith("GetObject")
    if enforced:
        return who == OWNER.id or effect == "Allow"
    theirs = owner if about_object else OWNER.id
    if who == theirs or (effect == "Allow" and theirs == OWNER.id):
        return True
    groups = {who} if ignored else {who, acl.ALL_USERS}
    if not ignored and who is not None:
        groups.add(acl.AUTHENTICATED_USERS)
    wanted = {NEEDS.get(action, "READ_ACP"), "FULL_CONTROL"}
    return any(a in groups and b in wanted for a, b in (of_object if about_object else of_bucket))


@settings(deadline=None, max_examples=40)
@given(
    *[st.booleans(), st.booleans(), STATEMENTS, GRANTS, st.sampled_from([OWNER, OTHER]), GRANTS],
)
def test_acl_4_against_the_rules(enforced, ignored, statement, of_bucket, owner, of_object):
    driver = make("ObjectWriter")
    bucket = driver.store.bucket("bucket")
    documents = {"acl": acl.write(Acl(OWNER.id, "owner", of_bucket), lambda _: None)}
    if not enforced:
        documents["ownership"] = ownership.write("ObjectWriter")
    if ignored:
        documents["public-access"] = BLOCK.format("<IgnorePublicAcls>true</IgnorePublicAcls>")
        documents["public-access"] = documents["public-access"].encode()
    if statement is not None:
        effect, principal, named = statement
        fields = {"Effect": effect, "Action": f"s3:{named}"}
        fields["Principal"] = "*" if principal == "*" else {"AWS": principal}
        fields["Resource"] = ["arn:aws:s3:::bucket", "arn:aws:s3:::bucket/*"]
        documents["policy"] = policy(fields)
    driver.store.rows["bucket"] = replace(
        bucket, config=replace(bucket.config, documents=documents)
    )
    state = State(acl=Acl(owner.id, owner.display_name, of_object))
    driver.store.standing["bucket", b"key"] = state
    for action, (method, path, query) in ASKS.items():
        for account in (OWNER, OTHER, THIRD, None):
            who = None if account is None else account.id
            may = rule(action, who, enforced, ignored, statement, of_bucket, owner.id, of_object)
            found = status(driver, method, path, account, query)
            assert found == (200 if may else 403), (action, account)
