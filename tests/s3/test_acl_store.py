"""ACLs over the real store: owners in listings, versions and uploads; LIST-11, VER-2, MPU-1."""

from __future__ import annotations

import itertools

import pytest

from tests.s3.acl_driver import (
    ANYBODY,
    private,
    set_acl,
    set_policy,
    sha256_of,
    shown,
    status,
)
from tests.s3.driver import OTHER, OWNER, THIRD
from tests.s3.store_driver import StoreDriver


@pytest.fixture
def real():
    with StoreDriver(default_ownership="ObjectWriter") as made:
        made.bucket()
        set_acl(made, "/bucket", grant_write=f"id={OTHER.id},id={THIRD.id}", grant_read=ANYBODY)
        yield made


def owners(answer, *tags):
    """(key, owner, name) of all that a listing shows, in order."""
    found = []
    for child in answer.xml:
        if child.tag.rpartition("}")[2] in (tags or ("Contents", "Version", "DeleteMarker")):
            texts = {each.tag.rpartition("}")[2]: each for each in child}
            owner = texts.get("Owner")
            named = () if owner is None else (owner[0].text, owner[1].text)
            found.append((texts["Key"].text, *named))
    return found


def enable(driver):
    body = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    assert driver.ask("PUT", "/bucket", "versioning", body=body).status == 200


@pytest.mark.parametrize("versioned", [False, True])
def test_list_11_owners_of_a_listing(real, versioned):
    if versioned:
        enable(real)
    accounts = itertools.cycle([OWNER, OTHER, OTHER, THIRD])
    wanted = []
    for n in range(30):
        account = next(accounts)
        headers = {"x-amz-acl": "public-read"} if n % 5 == 0 else {}
        assert status(real, "PUT", f"/bucket/k{n:02}", account, headers=headers) == 200
        wanted.append((f"k{n:02}", account.id, account.display_name))
    assert owners(real.ask("GET", "/bucket")) == wanted
    assert owners(real.ask("GET", "/bucket", "list-type=2&fetch-owner=true")) == wanted
    assert owners(real.ask("GET", "/bucket", "versions")) == wanted
    bare = [(key,) for key, *_ in wanted]
    assert owners(real.ask("GET", "/bucket", "list-type=2")) == bare
    assert owners(real.ask("GET", "/bucket", "max-keys=7&marker=k10")) == wanted[11:18]
    grouped = real.ask("GET", "/bucket", "delimiter=1&versions")
    assert owners(grouped) == [each for each in wanted if "1" not in each[0]]


def test_ver_2_owners_of_versions_and_markers(real):
    enable(real)
    for account in (OWNER, OTHER, THIRD):
        assert status(real, "PUT", "/bucket/k", account, body=b"x") == 200
    for account in (OTHER, OWNER):
        assert status(real, "DELETE", "/bucket/k", account) == 204
    body = b"<Delete><Object><Key>k</Key></Object></Delete>"
    checksum = {"x-amz-checksum-sha256": sha256_of(body)}
    assert status(real, "POST", "/bucket", THIRD, "delete", headers=checksum, body=body) == 200
    found = owners(real.ask("GET", "/bucket", "versions"))
    newest_first = [THIRD, OWNER, OTHER, THIRD, OTHER, OWNER]
    assert found == [("k", account.id, account.display_name) for account in newest_first]
    assert owners(real.ask("GET", "/bucket", "versions&max-keys=3")) == found[:3]


def test_acls_are_of_versions(real):
    enable(real)
    ids = [real.put("k", b"%d" % n).headers["x-amz-version-id"] for n in range(3)]
    answer = real.ask("PUT", "/bucket/k", f"acl&versionId={ids[0]}", {"x-amz-acl": "public-read"})
    assert answer.headers["x-amz-version-id"] == ids[0]
    for n, wanted in ((0, 200), (1, 403), (2, 403)):
        assert status(real, "GET", "/bucket/k", None, f"versionId={ids[n]}") == wanted
    assert status(real, "GET", "/bucket/k", None) == 403
    set_acl(real, "/bucket/k", acl="public-read")
    assert real.ask("GET", "/bucket/k", account=None).body == b"2"
    assert shown(real, "/bucket/k", f"acl&versionId={ids[1]}") == private()
    absent = "f" * 40
    assert real.ask("GET", "/bucket/k", f"acl&versionId={absent}").code == "NoSuchVersion"
    public = {"x-amz-acl": "private"}
    assert real.ask("PUT", "/bucket/k", f"acl&versionId={absent}", public).code == "NoSuchVersion"
    marker = real.ask("DELETE", "/bucket/k").headers["x-amz-version-id"]
    assert real.ask("PUT", "/bucket/k", "acl", public).code == "NoSuchKey"
    query = f"acl&versionId={marker}"
    assert real.ask("PUT", "/bucket/k", query, public).code == "MethodNotAllowed"
    assert status(real, "GET", "/bucket/k", None) == 404, "he may list the bucket"


def test_mpu_1_the_acl_of_the_creation_is_the_objects(real):
    headers = {"x-amz-acl": "public-read"}
    begun = real.ask("POST", "/bucket/big", "uploads", headers, account=OTHER)
    upload = begun.text("UploadId")
    query = f"partNumber=1&uploadId={upload}"
    etag = real.ask("PUT", "/bucket/big", query, body=b"x", account=OTHER).headers["etag"]
    listed = real.ask("GET", "/bucket", "uploads", account=OTHER)
    assert listed.texts("Upload/Owner/ID") == listed.texts("Upload/Initiator/ID") == [OTHER.id]
    parts = real.ask("GET", "/bucket/big", f"uploadId={upload}", account=OTHER)
    assert (parts.text("Owner/ID"), parts.text("Owner/DisplayName")) == (OTHER.id, "other")
    body = f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>"
    body = (body + "</CompleteMultipartUpload>").encode()
    done = real.ask("POST", "/bucket/big", f"uploadId={upload}", body=body, account=OTHER)
    assert done.status == 200
    wanted = [(OTHER.id, "FULL_CONTROL"), ("AllUsers", "READ")]
    assert shown(real, "/bucket/big", account=OTHER) == (OTHER.id, wanted)
    assert real.ask("GET", "/bucket/big", account=None).body == b"x"


def test_an_upload_is_its_initiators(real):
    """Else somebody might make an object that is another's, with bytes of his own."""
    set_acl(real, "/bucket", acl="public-read-write")
    upload = real.ask("POST", "/bucket/big", "uploads", account=OTHER).text("UploadId")
    named, part = f"uploadId={upload}", f"partNumber=1&uploadId={upload}"
    etag = real.ask("PUT", "/bucket/big", part, body=b"x", account=OTHER).headers["etag"]
    body = f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>"
    body = (body + "</CompleteMultipartUpload>").encode()
    source = {"x-amz-copy-source": "bucket/src"}
    real.put("src", b"mine", x_amz_acl="public-read")
    for account in (OWNER, THIRD, None):
        assert status(real, "PUT", "/bucket/big", account, part, body=b"mine") == 403
        assert status(real, "PUT", "/bucket/big", account, part, headers=source) == 403
        assert status(real, "POST", "/bucket/big", account, named, body=body) == 403
    for account, wanted in ((THIRD, 403), (None, 403), (OWNER, 200), (OTHER, 200)):
        assert status(real, "GET", "/bucket/big", account, named) == wanted
    assert status(real, "DELETE", "/bucket/big", THIRD, named) == 403
    set_policy(real, "Allow", "AbortMultipartUpload", principal={"AWS": THIRD.access_key})
    assert status(real, "DELETE", "/bucket/big", THIRD, named) == 204
    again = real.ask("POST", "/bucket/big", "uploads", account=OTHER).text("UploadId")
    assert status(real, "DELETE", "/bucket/big", OWNER, f"uploadId={again}") == 204
    assert real.keys() == [b"src"]
