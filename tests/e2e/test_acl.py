"""Two accounts and boto3 at a real gateway: what ACLs let whom do, over kill -9 and over the loss
of the database."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import Any

import boto3
import pytest
from botocore.config import Config as BotoConfig
from botocore.exceptions import ClientError

from ingot.credentials import canonical_id
from tests.support.process import ACCESS_KEY, SECRET_KEY, Gateway
from tests.support.store import Store

pytestmark = pytest.mark.slow

ALICE, BOB = canonical_id(ACCESS_KEY), "b" * 64  # she is root
ACCOUNTS = f"""
[[account]]
access_key = "BOBSKEY"
secret_key = "{SECRET_KEY}"
id = "{BOB}"
display_name = "bob"
"""


def client_of(gateway: Gateway, access_key: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=gateway.url,
        region_name="us-east-1",
        aws_access_key_id=access_key,
        aws_secret_access_key=SECRET_KEY,
        config=BotoConfig(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
    )


def fetch(gateway: Gateway, path: str) -> int | bytes:
    """What somebody without a signature gets: bytes, or a status."""
    try:
        with urllib.request.urlopen(f"{gateway.url}{path}", timeout=20) as answer:
            body: bytes = answer.read()
            return body
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def refused(call: Any, **named: Any) -> None:
    with pytest.raises(ClientError, match="AccessDenied"):
        call(**named)


def check(gateway: Gateway) -> None:
    """What holds of the bucket that ``test_…`` made, whoever asks."""
    alice, bob = client_of(gateway, ACCESS_KEY), client_of(gateway, "BOBSKEY")
    for client in (alice, bob):
        page = client.list_objects(Bucket="shared")["Contents"]
        owners = {each["Key"]: each["Owner"] for each in page}
        assert owners.pop("alices") == {"ID": ALICE, "DisplayName": "root"}
        assert set(owners) == {"bobs", "open", "big"}
        for owner in owners.values():
            assert owner == {"ID": BOB, "DisplayName": "bob"}
    assert bob.get_object(Bucket="shared", Key="bobs")["Body"].read() == b"bob's"
    refused(alice.get_object, Bucket="shared", Key="bobs")
    refused(alice.get_object_acl, Bucket="shared", Key="bobs")
    refused(bob.get_object, Bucket="shared", Key="alices")
    assert alice.get_object(Bucket="shared", Key="alices")["Body"].read() == b"alice's"
    assert fetch(gateway, "/shared/open") == b"for all"
    assert fetch(gateway, "/shared/bobs") == 403
    assert fetch(gateway, "/shared/none") == 403
    assert len(alice.get_object(Bucket="shared", Key="big")["Body"].read()) == 6_000_000
    found = bob.get_object_acl(Bucket="shared", Key="big")
    assert {(g["Grantee"]["ID"], g["Permission"]) for g in found["Grants"]} == {
        (BOB, "FULL_CONTROL"),
        (ALICE, "READ"),
    }
    assert alice.get_object_tagging(Bucket="shared", Key="open")["TagSet"] == [
        {"Key": "t", "Value": "v"}
    ]


def test_two_accounts_share_a_bucket(store: Store) -> None:
    credentials = store.data.parent / "accounts.toml"
    credentials.write_text(ACCOUNTS)
    credentials.chmod(0o600)
    named = "--credentials", str(credentials)
    gateway = store.serve(*named)
    alice, bob = client_of(gateway, ACCESS_KEY), client_of(gateway, "BOBSKEY")
    alice.create_bucket(Bucket="shared", ObjectOwnership="ObjectWriter")
    refused(bob.put_object, Bucket="shared", Key="bobs", Body=b"")
    alice.put_bucket_acl(Bucket="shared", GrantWrite=f"id={BOB}", GrantRead=f"id={BOB}")
    alice.put_object(Bucket="shared", Key="alices", Body=b"alice's")
    bob.put_object(Bucket="shared", Key="bobs", Body=b"bob's")
    bob.put_object(Bucket="shared", Key="open", Body=b"for all", ACL="public-read")
    tags = {"TagSet": [{"Key": "t", "Value": "v"}]}
    refused(bob.put_object_tagging, Bucket="shared", Key="open", Tagging=tags)
    alice.put_object_tagging(Bucket="shared", Key="open", Tagging=tags)
    upload = bob.create_multipart_upload(Bucket="shared", Key="big", ACL="bucket-owner-read")
    part = {"Bucket": "shared", "Key": "big", "UploadId": upload["UploadId"]}
    etag = bob.upload_part(**part, PartNumber=1, Body=bytes(6_000_000))["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    bob.complete_multipart_upload(**part, MultipartUpload=parts)
    modified = bob.head_object(Bucket="shared", Key="open")["LastModified"]
    bob.put_object_acl(Bucket="shared", Key="open", ACL="private")
    assert fetch(gateway, "/shared/open") == 403
    bob.put_object_acl(Bucket="shared", Key="open", ACL="public-read")
    assert bob.head_object(Bucket="shared", Key="open")["LastModified"] == modified
    check(gateway)
    gateway.kill()
    with store.serve(*named) as gateway:
        check(gateway)
    store.drop_schema()
    status, said = store.restore()
    assert status == 0, said
    status, said = store.run("fsck")
    assert status == 0, said
    with store.serve(*named) as gateway:
        check(gateway)
        alice = client_of(gateway, ACCESS_KEY)
        controls = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
        owned = {"Bucket": "shared", "OwnershipControls": controls}
        with pytest.raises(ClientError, match="InvalidBucketAclWithObjectOwnership"):
            alice.put_bucket_ownership_controls(**owned)
        alice.put_bucket_acl(Bucket="shared", ACL="private")
        alice.put_bucket_ownership_controls(**owned)
        assert alice.get_object(Bucket="shared", Key="bobs")["Body"].read() == b"bob's"
        assert fetch(gateway, "/shared/open") == 403
