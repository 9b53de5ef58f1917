"""Access control lists as they are said and shown: ACL-1 to ACL-3."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from ingot.bucket.leaf import Acl
from ingot.credentials import CredentialStore
from ingot.s3 import acl
from ingot.s3.acls import Acls
from ingot.s3.errors import S3Error
from tests.s3.acl_driver import (
    ANYBODY,
    WRITES,
    grants_document,
    make,
    private,
    set_acl,
    shown,
)
from tests.s3.driver import OTHER, OWNER
from tests.s3.store_driver import StoreDriver


@pytest.fixture
def driver():
    return make()


# -- documents, names and headers, by themselves ---------------------------------------------------

EVERYBODY = st.sampled_from([OWNER.id, OTHER.id, *acl.GROUPS])
GRANTS = st.lists(
    st.tuples(EVERYBODY, st.sampled_from(acl.PERMISSIONS)), unique=True, max_size=9
).map(tuple)


@given(GRANTS)
def test_acl_2_a_document_is_read_as_written(grants):
    document = acl.write(Acl(OWNER.id, "ow<ner", grants), {OTHER.id: "o&ther"}.get)
    assert acl.read(document, OWNER.id, lambda _: True) == acl.kept(document) == grants


@pytest.mark.parametrize(
    ("name", "of_object", "of_bucket"),
    [
        ("private", [], []),
        ("public-read", [("all", "READ")], [("all", "READ")]),
        *[("public-read-write", *[[("all", "READ"), ("all", "WRITE")]] * 2)],
        ("authenticated-read", [("some", "READ")], [("some", "READ")]),
        ("bucket-owner-read", [("bucket", "READ")], []),
        ("bucket-owner-full-control", [("bucket", "FULL_CONTROL")], []),
        ("aws-exec-read", [], []),
        ("log-delivery-write", None, [("log", "WRITE"), ("log", "READ_ACP")]),
    ],
)
def test_acl_2_canned(name, of_object, of_bucket):
    names = {"all": acl.ALL_USERS, "some": acl.AUTHENTICATED_USERS, "log": acl.LOG_DELIVERY}
    index = {b"x-amz-acl": name.encode()}
    acl.check_headers(index)
    for bucket_owner, wanted in (("bucket", of_object), (None, of_bucket)):
        if wanted is None:
            with pytest.raises(S3Error):
                acl.in_headers(index, "writer", bucket_owner, lambda _: True)
            continue
        found = acl.in_headers(index, "writer", bucket_owner, lambda _: True)
        rest = [(names.get(who, who), given) for who, given in wanted]
        assert found == (("writer", "FULL_CONTROL"), *rest)
    assert acl.in_headers({b"x-amz-acl": b"bucket-owner-read"}, "o", "o", bool) == acl.private("o")


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("id=a", ["a"]),
        ('id="a"', ["a"]),
        (' ID = "a" , id=b,id="c"', ["a", "b", "c"]),
        (f'id="a", {ANYBODY}', ["a", acl.ALL_USERS]),
        (f"uri={acl.LOG_DELIVERY}", [acl.LOG_DELIVERY]),
        ("id=a, id=a", ["a"]),
        ("", "InvalidArgument"),
        ("a", "InvalidArgument"),
        ("id=", "InvalidArgument"),
        ("id=a,", "InvalidArgument"),
        ("id=a id=b", "InvalidArgument"),
        ('id="a', "InvalidArgument"),
        ("id=unknown", "InvalidArgument"),
        ("id=" + "a" * 257, "InvalidArgument"),
        ("name=a", "InvalidArgument"),
        ("uri=http://acs.amazonaws.com/groups/global/Nobody", "InvalidArgument"),
        (f"id={acl.ALL_USERS}", "InvalidArgument"),
        ('emailAddress="a@b.example"', "UnresolvableGrantByEmailAddress"),
        (",".join(f"id=a{n}" for n in range(100)), [f"a{n}" for n in range(100)]),
        (",".join(f"id=a{n}" for n in range(101)), "InvalidRequest"),
    ],
)
def test_acl_3_grant_headers(value, wanted):
    def read():
        index = {b"x-amz-grant-read": value.encode()}
        return acl.in_headers(index, "o", "b", lambda id: id != "unknown")

    if isinstance(wanted, list):
        assert read() == tuple((who, "READ") for who in wanted)
    else:
        with pytest.raises(S3Error) as caught:
            read()
        assert caught.value.code == wanted


TO_OTHER = ("CanonicalUser", f"<ID>{OTHER.id}</ID>", "READ")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (grants_document(TO_OTHER), None),
        (grants_document(), None),
        (grants_document(TO_OTHER).replace(b"<Permission>", b"<New/><Permission>"), None),
        (b"nonsense", "MalformedACLError"),
        (b"<Other/>", "MalformedACLError"),
        (b"<AccessControlPolicy/>", "MalformedACLError"),
        (grants_document(TO_OTHER)[:-4], "MalformedACLError"),
        (grants_document(TO_OTHER).replace(b"Owner>", b"Person>"), "MalformedACLError"),
        (grants_document(("CanonicalUser", "", "READ")), "MalformedACLError"),
        (grants_document(("Nobody", f"<ID>{OTHER.id}</ID>", "READ")), "MalformedACLError"),
        (grants_document(("CanonicalUser", "<ID>a</ID>", "DELETE")), "MalformedACLError"),
        (grants_document(TO_OTHER).replace(b"xsi:type=", b"xsi:kind="), "MalformedACLError"),
        (grants_document(("CanonicalUser", f"<ID>{'4' * 64}</ID>", "READ")), "InvalidArgument"),
        (grants_document(("Group", "<URI>http://a.example</URI>", "READ")), "InvalidArgument"),
        (
            grants_document(
                ("AmazonCustomerByEmail", "<EmailAddress>a@b.c</EmailAddress>", "READ")
            ),
            "UnresolvableGrantByEmailAddress",
        ),
        (grants_document(TO_OTHER, owner=OTHER.id), "AccessDenied"),
        (b"<AccessControlPolicy>" + b"x" * 300_000, "MaxMessageLengthExceeded"),
    ],
)
@pytest.mark.parametrize("path", ["/bucket", "/bucket/key"])
def test_acl_3_documents(driver, path, body, code):
    before = shown(driver, path)
    answer = driver.ask("PUT", path, "acl", {}, body)
    if code is None:
        assert answer.status == 200
        listed = [(OTHER.id, "READ")] if b"<Grant>" in body else []
        assert shown(driver, path) == (OWNER.id, listed)
    else:
        assert answer.code == code
        assert shown(driver, path) == before


@pytest.mark.parametrize(
    ("headers", "body", "code"),
    [
        ({"x-amz-acl": "private", "x-amz-grant-read": "id=1"}, b"", "InvalidRequest"),
        ({"x-amz-acl": "nonsense"}, b"", "InvalidArgument"),
        ({"x-amz-acl": "private"}, grants_document(), "UnexpectedContent"),
        ({"x-amz-grant-read": f"id={OTHER.id}"}, grants_document(), "UnexpectedContent"),
        ({"x-amz-grant-read": f"id={'4' * 64}"}, b"", "InvalidArgument"),
        ({}, b"", "MissingSecurityHeader"),
    ],
)
@pytest.mark.parametrize("path", ["/bucket", "/bucket/key"])
def test_acl_3_one_way_to_say_it(driver, path, headers, body, code):
    assert driver.ask("PUT", path, "acl", headers, body).code == code
    assert shown(driver, path) == private()


def test_acl_3_nothing_but_the_acl_changes(driver):
    before = driver.ask("HEAD", "/bucket/key").headers
    driver.clock.ms += 60_000
    set_acl(driver, "/bucket/key", acl="public-read")
    after = driver.ask("HEAD", "/bucket/key").headers
    for name in ("last-modified", "etag"):
        assert after[name] == before[name]


def test_acl_2_boto3(driver):
    client = driver.client()
    grants = [
        {"Grantee": {"Type": "CanonicalUser", "ID": OTHER.id}, "Permission": "WRITE_ACP"},
        {"Grantee": {"Type": "Group", "URI": acl.ALL_USERS}, "Permission": "READ"},
    ]
    for named in ({"Bucket": "bucket"}, {"Bucket": "bucket", "Key": "key"}):
        kind = "object" if "Key" in named else "bucket"
        given = {"Owner": {"ID": OWNER.id}, "Grants": grants}
        getattr(client, f"put_{kind}_acl")(**named, AccessControlPolicy=given)
        found = getattr(client, f"get_{kind}_acl")(**named)
        assert found["Owner"] == {"ID": OWNER.id, "DisplayName": "owner"}
        other = {"Type": "CanonicalUser", "ID": OTHER.id, "DisplayName": "other"}
        assert found["Grants"] == [{**grants[0], "Grantee": other}, grants[1]]
        own = {"Owner": found["Owner"], "Grants": found["Grants"]}
        getattr(client, f"put_{kind}_acl")(**named, AccessControlPolicy=own)
        email = {"Type": "AmazonCustomerByEmail", "EmailAddress": "a@b.example"}
        given["Grants"] = [{"Grantee": email, "Permission": "READ"}]
        with pytest.raises(ClientError, match="UnresolvableGrantByEmailAddress"):
            getattr(client, f"put_{kind}_acl")(**named, AccessControlPolicy=given)


def test_acl_3_what_was_read_may_be_put_back_when_an_account_is_gone(driver):
    for path in ("/bucket", "/bucket/key"):
        set_acl(driver, path, grant_read=f"id={OTHER.id}")
        body = driver.ask("GET", path, "acl").body
        driver.app._access.acls = Acls(CredentialStore([OWNER]))
        before = shown(driver, path)
        assert driver.ask("PUT", path, "acl", {}, body).status == 200
        assert shown(driver, path) == before
        set_acl(driver, path, acl="private")
        assert driver.ask("PUT", path, "acl", {}, body).code == "InvalidArgument"
        driver.app._access.acls = Acls(CredentialStore([OWNER, OTHER]))


GOOD = grants_document(TO_OTHER, ("Group", f"<URI>{acl.ALL_USERS}</URI>", "WRITE"))


@given(st.integers(0, len(GOOD)), st.integers(0, 30), st.binary(max_size=30))
def test_acl_3_a_damaged_document_is_refused_or_read(at, length, put):
    try:
        found = acl.read(GOOD[:at] + put + GOOD[at + length :], OWNER.id, lambda _: True)
    except S3Error:
        return
    assert all(given in acl.PERMISSIONS for _, given in found)


@given(st.text(st.sampled_from('iduri="a, \t\\\x7f:é'), max_size=40))
def test_acl_3_a_strange_header_is_refused_or_read(value):
    try:
        index = {b"x-amz-grant-read": value.encode("latin-1")}
        found = acl.in_headers(index, "o", "b", lambda _: True)
    except S3Error:
        return
    assert found and all(who and given == "READ" for who, given in found)


# -- ACL-1: where ACLs do not count ----------------------------------------------------------------

ENFORCED = pytest.mark.parametrize("path", ["/bucket", "/bucket/key"])


@ENFORCED
def test_acl_1_reading(path):
    assert shown(make("BucketOwnerEnforced"), path) == private()


@ENFORCED
@pytest.mark.parametrize(
    ("headers", "body", "code"),
    [
        ({"x-amz-acl": "private"}, b"", None),
        ({"x-amz-acl": "bucket-owner-full-control"}, b"", None),
        ({"x-amz-acl": "public-read"}, b"", "AccessControlListNotSupported"),
        ({"x-amz-acl": "nonsense"}, b"", "InvalidArgument"),
        ({"x-amz-grant-read": "id=1"}, b"", "AccessControlListNotSupported"),
        ({"x-amz-grant-read": "id=1", "x-amz-acl": "private"}, b"", "InvalidRequest"),
        ({}, b"", "AccessControlListNotSupported"),
        ({}, b"<AccessControlPolicy/>", "AccessControlListNotSupported"),
        ({}, b"nonsense", "AccessControlListNotSupported"),
        ({"x-amz-acl": "private"}, b"<AccessControlPolicy/>", "UnexpectedContent"),
    ],
)
def test_acl_1_writing(path, headers, body, code):
    driver = make("BucketOwnerEnforced")
    answer = driver.ask("PUT", path, "acl", headers, body)
    assert answer.status == 200 if code is None else answer.code == code
    assert driver.store.bucket("bucket").config.documents == {}
    assert not driver.store.states_of(driver.store.bucket("bucket"), b"key")


@ENFORCED
def test_acl_1_what_was_read_may_be_put_back(path):
    """s3cmd does, after every copy."""
    driver = make("BucketOwnerEnforced")
    body = driver.ask("GET", path, "acl").body
    assert driver.ask("PUT", path, "acl", {}, body).status == 200
    grant = body[body.index(b"<Grant>") : body.index(b"</Grant>") + len(b"</Grant>")]
    for other in (
        body.replace(b"FULL_CONTROL", b"READ"),
        body.replace(grant, grant.replace(OWNER.id.encode(), OTHER.id.encode())),
        body.replace(grant, grant + grant.replace(b"FULL_CONTROL", b"READ")),
        body.replace(grant, b""),
        body[:-5],
    ):
        assert driver.ask("PUT", path, "acl", {}, other).code == "AccessControlListNotSupported"


@pytest.mark.parametrize(("method", "path", "query", "headers"), WRITES)
def test_acl_1_writes_of_objects(method, path, query, headers):
    driver = StoreDriver() if query else make("BucketOwnerEnforced")
    if query:
        driver.bucket()
    for sent, code in (
        ({"x-amz-acl": "private"}, None),
        ({"x-amz-acl": "bucket-owner-full-control"}, None),
        ({"x-amz-acl": "public-read"}, "AccessControlListNotSupported"),
        ({"x-amz-acl": "nonsense"}, "InvalidArgument"),
        ({"x-amz-grant-read": "id=1"}, "AccessControlListNotSupported"),
        ({"x-amz-grant-read": "id=1", "x-amz-acl": "private"}, "InvalidRequest"),
    ):
        answer = driver.ask(method, path, query, headers | sent)
        assert answer.status == 200 if code is None else answer.code == code
    if not query:
        assert not driver.store.states_of(driver.store.bucket("bucket"), b"new"), "costs nothing"
    else:
        driver.__exit__()


def test_acl_1_a_part_has_no_acl(driver):
    query, headers = "partNumber=1&uploadId=u", {"x-amz-acl": "public-read"}
    answer = driver.ask("PUT", "/bucket/new", query, headers)
    assert answer.code == "AccessControlListNotSupported"
