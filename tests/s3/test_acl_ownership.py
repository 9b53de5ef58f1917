"""Whose objects are, and from one ownership to another: ACL-4 to ACL-6, ANON-4, NAME-3, COPY-4."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ingot.bucket.model import StateChanged
from ingot.s3 import ownership
from tests.s3.acl_driver import (
    ACCOUNTS,
    ANYBODY,
    TAGS,
    WRITES,
    make,
    private,
    set_acl,
    set_policy,
    shown,
    status,
)
from tests.s3.driver import OTHER, OWNER, REGION, THIRD, Driver
from tests.s3.test_configuration import BLOCK, OWNED, OWNER_RULE, put
from tests.s3.test_form import post
from tests.support.form import encode, sign_v4, v4_fields
from tests.support.form import policy as form_policy


@pytest.fixture
def driver():
    return make()


# -- ownership -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ownership", "canned", "owner", "grants"),
    [
        ("ObjectWriter", None, OTHER, ()),
        ("ObjectWriter", "private", OTHER, ()),
        ("ObjectWriter", "public-read", OTHER, [("AllUsers", "READ")]),
        ("ObjectWriter", "bucket-owner-read", OTHER, [(OWNER.id, "READ")]),
        ("ObjectWriter", "bucket-owner-full-control", OTHER, [(OWNER.id, "FULL_CONTROL")]),
        ("BucketOwnerPreferred", None, OTHER, ()),
        ("BucketOwnerPreferred", "bucket-owner-read", OTHER, [(OWNER.id, "READ")]),
        ("BucketOwnerPreferred", "bucket-owner-full-control", OWNER, ()),
    ],
)
def test_acl_4_whose_an_object_is(ownership, canned, owner, grants):
    driver = make(ownership, x_amz_grant_write=f"id={OTHER.id}")
    headers = {} if canned is None else {"x-amz-acl": canned}
    assert status(driver, "PUT", "/bucket/k", OTHER, headers=headers, body=b"theirs") == 200
    found = shown(driver, "/bucket/k", account=owner)
    assert found == (owner.id, [(owner.id, "FULL_CONTROL"), *grants])
    reads = owner is OWNER or len(grants) > 0
    assert status(driver, "GET", "/bucket/k", OWNER) == (200 if reads else 403)
    assert status(driver, "GET", "/bucket/k", OTHER) == (200 if owner is OTHER else 403)
    source = {"x-amz-copy-source": "bucket/k"}
    assert status(driver, "PUT", "/bucket/copy", OWNER, headers=source) == (200 if reads else 403)
    assert status(driver, "DELETE", "/bucket/k", OWNER) == 204, "the bucket is his"


def test_anon_4_what_others_write_into_an_enforced_bucket_is_its_owners():
    driver = make("BucketOwnerEnforced")
    set_policy(driver, "Allow", "PutObject")
    for account in (OTHER, None):
        for canned in ({}, {"x-amz-acl": "bucket-owner-full-control"}):
            assert status(driver, "PUT", "/bucket/k", account, headers=canned) == 200
            assert shown(driver, "/bucket/k") == private()
            assert not driver.store.states_of(driver.store.bucket("bucket"), b"k")


def test_what_nobody_in_particular_writes_is_the_bucket_owners(driver):
    set_acl(driver, "/bucket", acl="public-read-write")
    assert status(driver, "PUT", "/bucket/k", None, body=b"x") == 200
    assert shown(driver, "/bucket/k") == private()
    given = {"x-amz-acl": "bucket-owner-full-control"}
    assert status(driver, "PUT", "/bucket/k", None, headers=given) == 200
    public = {"x-amz-acl": "public-read"}
    assert status(driver, "PUT", "/bucket/k", None, headers=public) == 403, "not his to say"
    set_policy(driver, "Allow", "PutObjectAcl")
    assert status(driver, "PUT", "/bucket/k", None, headers=public) == 200
    set_policy(driver, "Deny", "PutObjectAcl")
    for account in (OTHER, OWNER):
        assert status(driver, "PUT", "/bucket/k", account, headers=public) == 403
        assert status(driver, "PUT", "/bucket/k", account) == 200


def test_copy_4_a_copy_has_an_acl_of_its_own(driver):
    set_acl(driver, "/bucket/key", acl="public-read")
    source = {"x-amz-copy-source": "bucket/key"}
    assert status(driver, "PUT", "/bucket/copy", OWNER, headers=source) == 200
    assert shown(driver, "/bucket/copy") == private()
    grants = {"x-amz-grant-read-acp": f"id={OTHER.id}", "x-amz-grant-read": ANYBODY}
    assert status(driver, "PUT", "/bucket/copy", OWNER, headers=source | grants) == 200
    wanted = [("AllUsers", "READ"), (OTHER.id, "READ_ACP")]
    assert shown(driver, "/bucket/copy") == (OWNER.id, wanted), "and nothing for its owner"
    set_acl(driver, "/bucket", grant_write=f"id={OTHER.id}")
    assert status(driver, "PUT", "/bucket/theirs", OTHER, headers=source) == 200
    assert shown(driver, "/bucket/theirs", account=OTHER) == private(OTHER)


def test_post_9_a_form_brings_an_acl(driver):
    nobodys = encode({"key": "form", "acl": "bucket-owner-full-control"})
    theirs = v4_fields(OTHER.access_key, REGION)
    named = {"bucket": "bucket", "key": "form", "acl": "public-read"}
    encoded = form_policy(*[{name: value} for name, value in (named | theirs).items()])
    sent = {"key": "form", "acl": "public-read", **sign_v4(encoded, OTHER.secret_key, theirs)}
    assert post(driver, nobodys).code == post(driver, encode(sent)).code == "AccessDenied"
    set_acl(driver, "/bucket", grant_write=f"{ANYBODY},id={OTHER.id}")
    assert post(driver, nobodys).status == 204
    assert shown(driver, "/bucket/form") == private()
    assert post(driver, encode(sent)).status == 204
    wanted = [(OTHER.id, "FULL_CONTROL"), ("AllUsers", "READ")]
    assert shown(driver, "/bucket/form", account=OTHER) == (OTHER.id, wanted)
    assert post(driver, encode({"key": "form", "acl": "public-read"})).code == "AccessDenied"


def test_an_acl_does_not_go_with_the_tags(driver):
    set_acl(driver, "/bucket/key", acl="public-read")
    assert status(driver, "PUT", "/bucket/key", OWNER, "tagging", body=TAGS) == 200
    assert status(driver, "GET", "/bucket/key", None) == 200
    set_acl(driver, "/bucket/key", acl="private")
    assert driver.ask("GET", "/bucket/key", "tagging").texts("TagSet/Tag/Key") == ["a"]


def test_an_acl_that_changes_while_it_is_changed_is_judged_anew(driver):
    """Whoever could change the old one need not be one who can change the new one."""
    set_acl(driver, "/bucket/key", grant_write_acp=f"id={OTHER.id}")
    public = {"x-amz-acl": "public-read"}
    real = driver.store.set_state

    def meanwhile(change):
        async def set_state(*arguments):
            driver.store.set_state = real
            change()
            return await real(*arguments)

        driver.store.set_state = set_state

    meanwhile(lambda: set_acl(driver, "/bucket/key", grant_read=f"id={OTHER.id}"))
    assert status(driver, "PUT", "/bucket/key", OTHER, "acl", headers=public) == 403
    assert shown(driver) == (OWNER.id, [(OTHER.id, "READ")])
    still = {"grant_write_acp": f"id={OTHER.id}", "grant_read": f"id={THIRD.id}"}
    set_acl(driver, "/bucket/key", grant_write_acp=f"id={OTHER.id}")
    meanwhile(lambda: set_acl(driver, "/bucket/key", **still))
    assert status(driver, "PUT", "/bucket/key", OTHER, "acl", headers=public) == 200

    async def never(*_):
        raise StateChanged("again")

    driver.store.set_state = never
    assert driver.ask("PUT", "/bucket/key", "acl", public).code == "SlowDown"


@pytest.mark.parametrize("copied", [False, True], ids=["read", "copied"])
def test_what_is_read_is_what_was_judged(driver, copied):
    """A private object that comes while a public one is asked for is not what is given out."""
    set_acl(driver, "/bucket", acl="public-read-write")
    set_acl(driver, "/bucket/key", acl="public-read")
    real = driver.store.look

    async def look(*arguments):
        found = await real(*arguments)
        driver.store.look = real
        driver.put("key", b"private")
        return found

    driver.store.look = look
    if copied:
        source = {"x-amz-copy-source": "bucket/key"}
        assert status(driver, "PUT", "/bucket/copy", OTHER, headers=source) == 200
        assert driver.ask("GET", "/bucket/copy", account=OTHER).body == b"bytes"
    else:
        assert driver.ask("GET", "/bucket/key", account=None).body == b"bytes"
    assert driver.record("key").body.inline == b"private"
    assert status(driver, "GET", "/bucket/key", OTHER) == 403


# -- ACL-5: from one ownership to another ----------------------------------------------------------


def set_ownership(driver, name):
    return put(driver, "ownershipControls", OWNED.format(OWNER_RULE.format(name)))


@pytest.mark.parametrize("granted", [ANYBODY, ACCOUNTS, f"id={OTHER.id}"])
def test_acl_5_a_bucket_with_grants_keeps_its_acls(driver, granted):
    set_acl(driver, "/bucket", grant_read=granted)
    answer = set_ownership(driver, "BucketOwnerEnforced")
    assert (answer.status, answer.code) == (400, "InvalidBucketAclWithObjectOwnership")
    assert set_ownership(driver, "BucketOwnerPreferred").status == 200
    set_acl(driver, "/bucket", acl="private")
    assert set_ownership(driver, "BucketOwnerEnforced").status == 200


def test_acl_5_acls_of_objects_rest_and_come_back(driver):
    set_acl(driver, "/bucket", grant_write=f"id={OTHER.id}")
    assert status(driver, "PUT", "/bucket/theirs", OTHER, body=b"x") == 200
    set_acl(driver, "/bucket/key", acl="public-read")
    set_acl(driver, "/bucket", acl="private")
    assert status(driver, "GET", "/bucket/theirs", OWNER) == 403
    assert set_ownership(driver, "BucketOwnerEnforced").status == 200
    assert driver.store.bucket("bucket").config.plain, "the express lane is open again"
    assert status(driver, "GET", "/bucket/key", None) == 403
    assert status(driver, "GET", "/bucket/theirs", OTHER) == 403
    assert driver.ask("GET", "/bucket/theirs").body == b"x"
    assert shown(driver, "/bucket/theirs") == shown(driver) == private()
    assert driver.ask("GET", "/bucket").texts("Contents/Owner/ID") == [OWNER.id] * 2
    assert set_ownership(driver, "ObjectWriter").status == 200
    assert not driver.store.bucket("bucket").config.plain
    assert status(driver, "GET", "/bucket/key", None) == 200
    assert status(driver, "GET", "/bucket/theirs", OWNER) == 403
    assert shown(driver, "/bucket/theirs", account=OTHER) == private(OTHER)


def test_acl_5_deleted_controls_are_those_of_before_there_were_any():
    driver = make("BucketOwnerEnforced")
    assert status(driver, "DELETE", "/bucket", OWNER, "ownershipControls") == 204
    set_acl(driver, "/bucket/key", acl="public-read")
    assert status(driver, "GET", "/bucket/key", None) == 200


def test_acl_5_enforced_in_a_document_of_before_is_enforced():
    driver = make("BucketOwnerEnforced")
    bucket = driver.store.bucket("bucket")
    kept = {"ownership": ownership.write("BucketOwnerEnforced")}
    driver.store.rows["bucket"] = replace(bucket, config=replace(bucket.config, documents=kept))
    answer = driver.ask("PUT", "/bucket/key", "acl", {"x-amz-acl": "public-read"})
    assert answer.code == "AccessControlListNotSupported"
    assert (
        status(driver, "GET", "/bucket", None) == status(driver, "GET", "/bucket/key", OTHER) == 403
    )
    assert driver.ask("GET", "/bucket/key").body == b"bytes"
    assert driver.ask("GET", "/bucket").texts("Contents/Owner/ID") == [OWNER.id]


def test_acl_5_the_switch_is_judged_at_the_commit(driver):
    refused = lambda: set_acl(driver, "/bucket", acl="public-read")  # noqa: E731
    driver.store.before_commit.append(refused)
    answer = set_ownership(driver, "BucketOwnerEnforced")
    assert answer.code == "InvalidBucketAclWithObjectOwnership"
    set_acl(driver, "/bucket", acl="private")
    driver.store.before_commit.append(lambda: set_ownership(driver, "BucketOwnerEnforced"))
    answer = driver.ask("PUT", "/bucket", "acl", {"x-amz-acl": "public-read"})
    assert answer.code == "AccessControlListNotSupported"


@pytest.mark.parametrize(
    ("headers", "grants"),
    [
        ({}, [(OWNER.id, "FULL_CONTROL")]),
        ({"x-amz-acl": "public-read"}, [(OWNER.id, "FULL_CONTROL"), ("AllUsers", "READ")]),
        ({"x-amz-acl": "bucket-owner-read"}, [(OWNER.id, "FULL_CONTROL")]),
        ({"x-amz-grant-write": f"id={OTHER.id}"}, [(OTHER.id, "WRITE")]),
        ({"x-amz-grant-read": "id=1"}, "InvalidArgument"),
        ({"x-amz-grant-read": "emailAddress=a@b"}, "UnresolvableGrantByEmailAddress"),
        ({"x-amz-acl": "nonsense"}, "InvalidArgument"),
        ({"x-amz-acl": "private", "x-amz-grant-read": "id=1"}, "InvalidRequest"),
    ],
)
@pytest.mark.parametrize("by_default", [True, False])
def test_name_3_the_acl_of_a_new_bucket(headers, grants, by_default):
    if by_default:
        driver = Driver(default_ownership="ObjectWriter")
    else:
        driver, headers = Driver(), {"x-amz-object-ownership": "ObjectWriter", **headers}
    answer = driver.ask("PUT", "/bucket", headers=headers)
    if isinstance(grants, str):
        assert answer.code == grants
    else:
        assert shown(driver, "/bucket") == (OWNER.id, grants)


# -- ACL-6: public access block --------------------------------------------------------------------


def block(driver, *flags):
    content = "".join(f"<{flag}>true</{flag}>" for flag in flags)
    assert put(driver, "publicAccessBlock", BLOCK.format(content)).status == 200


@pytest.mark.parametrize("granted", [ANYBODY, ACCOUNTS])
def test_acl_6_block_public_acls(driver, granted):
    block(driver, "BlockPublicAcls")
    headers = {"x-amz-grant-read": granted}
    for path in ("/bucket", "/bucket/key"):
        assert driver.ask("PUT", path, "acl", headers).code == "AccessDenied"
        set_acl(driver, path, grant_read=f"id={OTHER.id}")
    for _, path, query, sent in WRITES[:2]:
        assert driver.ask("PUT", path, query, headers | sent).code == "AccessDenied"
    assert driver.ask("POST", "/bucket/key", "uploads", headers).code == "AccessDenied"
    assert driver.ask("PUT", "/bucket/key", headers={"x-amz-acl": "public-read"}).status == 403


def test_acl_6_ignore_public_acls(driver):
    set_acl(driver, "/bucket", acl="public-read-write")
    set_acl(driver, "/bucket/key", grant_read=f"{ANYBODY},id={OTHER.id}")
    block(driver, "IgnorePublicAcls")
    assert status(driver, "GET", "/bucket/key", None) == 403
    assert status(driver, "GET", "/bucket/key", THIRD) == 403
    assert status(driver, "GET", "/bucket/key", OTHER) == 200
    for account in (OTHER, None):
        assert status(driver, "GET", "/bucket", account) == 403
        assert status(driver, "PUT", "/bucket/new", account) == 403
    assert ("AllUsers", "READ") in shown(driver)[1], "it is shown nevertheless"
    block(driver, "BlockPublicAcls")
    assert status(driver, "GET", "/bucket/key", None) == 200
