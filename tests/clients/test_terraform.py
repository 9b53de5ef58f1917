"""What Terraform asks about a bucket, replayed by boto3: it reads everything after each change, and
stops at any answer but what was set or exactly the right "there is none"."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.clients.conftest import new_name
from tests.clients.libraries import Boto3
from tests.clients.port import Endpoint

# Operation -> the error that means "not set"; None: the answer must be there.
READS: dict[str, str | None] = {
    "head_bucket": None,
    "get_bucket_location": None,
    "get_bucket_acl": None,
    "get_bucket_versioning": None,
    "get_bucket_logging": None,
    "get_bucket_accelerate_configuration": None,
    "get_bucket_request_payment": None,
    "get_bucket_notification_configuration": None,
    "get_bucket_ownership_controls": None,
    "get_bucket_policy": "NoSuchBucketPolicy",
    "get_bucket_cors": "NoSuchCORSConfiguration",
    "get_bucket_website": "NoSuchWebsiteConfiguration",
    "get_bucket_lifecycle_configuration": "NoSuchLifecycleConfiguration",
    "get_bucket_replication": "ReplicationConfigurationNotFoundError",
    "get_bucket_encryption": "ServerSideEncryptionConfigurationNotFoundError",
    "get_object_lock_configuration": "ObjectLockConfigurationNotFoundError",
    "get_bucket_tagging": "NoSuchTagSet",
    "get_public_access_block": "NoSuchPublicAccessBlockConfiguration",
}
BY_ID = ("analytics", "intelligent_tiering", "inventory", "metrics")

LIFECYCLE = {
    "Rules": [
        {
            "ID": "second comes first",
            "Filter": {"And": {"Prefix": "logs/", "Tags": [{"Key": "a", "Value": "b"}]}},
            "Status": "Enabled",
            "Expiration": {"Days": 30},
        },
        {
            "ID": "first",
            "Filter": {"Prefix": ""},
            "Status": "Disabled",
            "NoncurrentVersionExpiration": {"NoncurrentDays": 7, "NewerNoncurrentVersions": 2},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 3},
        },
    ]
}
CORS = {
    "CORSRules": [
        {
            "ID": "z",
            "AllowedHeaders": ["*"],
            "AllowedMethods": ["PUT", "GET"],
            "AllowedOrigins": ["https://b.example", "https://a.example"],
            "ExposeHeaders": ["ETag"],
            "MaxAgeSeconds": 3000,
        },
        {"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]},
    ]
}
ENCRYPTION = {
    "Rules": [
        {
            "ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"},
            "BucketKeyEnabled": False,
        }
    ]
}
WEBSITE = {"IndexDocument": {"Suffix": "index.html"}, "ErrorDocument": {"Key": "error.html"}}
ACCESS_BLOCK = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}
TAGS = [{"Key": "Name", "Value": "a b/\u00e9"}, {"Key": "Environment", "Value": "tests"}]


@pytest.fixture
def s3(endpoint: Endpoint) -> Any:
    made = Boto3(endpoint)
    yield made.s3
    made.close()


def as_map(tags: list[dict[str, str]]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in tags}


def read_all(s3: Any, bucket: str) -> dict[str, Any]:
    """Every sub-resource by its operation; None where it is not set."""
    found: dict[str, Any] = {}
    for operation, absent in READS.items():
        try:
            answer = getattr(s3, operation)(Bucket=bucket)
        except ClientError as error:
            assert error.response["Error"]["Code"] == absent, (operation, error)
            assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 404
            found[operation] = None
        else:
            del answer["ResponseMetadata"]
            found[operation] = answer
    for kind in BY_ID:
        with pytest.raises(ClientError) as failed:
            getattr(s3, f"get_bucket_{kind}_configuration")(Bucket=bucket, Id="all")
        assert failed.value.response["Error"]["Code"] == "NoSuchConfiguration"
    return found


@pytest.mark.parametrize("name", ["boto3"])
def test_terraform(name: str, s3: Any) -> None:
    bucket = new_name()
    # Before it creates a bucket it looks whether there is one.
    with pytest.raises(ClientError) as failed:
        s3.head_bucket(Bucket=bucket)
    assert failed.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    s3.create_bucket(Bucket=bucket)
    fresh = read_all(s3, bucket)
    absent = {operation for operation, answer in fresh.items() if answer is None}
    assert absent == {operation for operation, error in READS.items() if error}
    assert fresh["get_bucket_request_payment"] == {"Payer": "BucketOwner"}
    assert fresh["get_bucket_accelerate_configuration"] == {}
    owner = fresh["get_bucket_acl"]["Owner"]["ID"]

    policy = (
        '{"Version": "2012-10-17", "Statement": [{"Sid": "x", "Effect": "Allow", "Principal": '
        f'{{"AWS": "arn:aws:iam::{owner}:root"}}, "Action": ["s3:GetObject"], '
        f'"Resource": ["arn:aws:s3:::{bucket}/*"]}}]}}'
    )
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": TAGS})
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=LIFECYCLE)
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration=CORS)
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=ENCRYPTION)
    s3.put_bucket_website(Bucket=bucket, WebsiteConfiguration=WEBSITE)
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=ACCESS_BLOCK)
    s3.put_bucket_policy(Bucket=bucket, Policy=policy)
    s3.put_bucket_ownership_controls(
        Bucket=bucket,
        OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
    )
    s3.put_bucket_acl(Bucket=bucket, ACL="private")
    s3.put_bucket_request_payment(
        Bucket=bucket, RequestPaymentConfiguration={"Payer": "BucketOwner"}
    )
    read = read_all(s3, bucket)
    assert as_map(read["get_bucket_tagging"]["TagSet"]) == as_map(TAGS)
    assert read["get_bucket_versioning"]["Status"] == "Enabled"
    assert read["get_bucket_lifecycle_configuration"]["Rules"] == LIFECYCLE["Rules"]
    assert read["get_bucket_cors"]["CORSRules"] == CORS["CORSRules"]
    assert read["get_bucket_encryption"]["ServerSideEncryptionConfiguration"] == ENCRYPTION
    assert read["get_bucket_website"] == WEBSITE
    assert read["get_public_access_block"]["PublicAccessBlockConfiguration"] == ACCESS_BLOCK
    assert read["get_bucket_policy"]["Policy"] == policy

    body = b"an object of Terraform's"
    s3.put_object(
        Bucket=bucket,
        Key="a/b c.txt",
        Body=body,
        ContentMD5=base64.b64encode(hashlib.md5(body).digest()).decode(),
        ServerSideEncryption="AES256",
        Tagging="Name=a%20b&Environment=tests",
    )
    head = s3.head_object(Bucket=bucket, Key="a/b c.txt", ChecksumMode="ENABLED")
    assert head["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
    tags = s3.get_object_tagging(Bucket=bucket, Key="a/b c.txt")["TagSet"]
    assert as_map(tags) == {"Name": "a b", "Environment": "tests"}
    s3.delete_object(Bucket=bucket, Key="a/b c.txt")

    # Taken away again, each is "not set" as in a fresh bucket.
    for subject in ("tagging", "lifecycle", "cors", "encryption", "website", "policy"):
        getattr(s3, f"delete_bucket_{subject}")(Bucket=bucket)
    s3.delete_public_access_block(Bucket=bucket)
    after = read_all(s3, bucket)
    assert {operation for operation, answer in after.items() if answer is None} == absent

    # force_destroy: versions and markers, page by page, each by its version.
    s3.put_object(Bucket=bucket, Key="left", Body=b"")
    for page in s3.get_paginator("list_object_versions").paginate(
        Bucket=bucket, PaginationConfig={"PageSize": 1}
    ):
        entries = page.get("Versions", []) + page.get("DeleteMarkers", [])
        doomed = [{"Key": entry["Key"], "VersionId": entry["VersionId"]} for entry in entries]
        answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": doomed, "Quiet": True})
        assert "Errors" not in answer
    s3.delete_bucket(Bucket=bucket)


@pytest.mark.parametrize("name", ["boto3"])
def test_force_destroy(name: str, s3: Any, bucket: str) -> None:
    """Of a bucket without versions, whose objects have the version "null"."""
    s3.put_object(Bucket=bucket, Key="a", Body=b"")
    (entry,) = s3.list_object_versions(Bucket=bucket)["Versions"]
    assert entry["VersionId"] == "null"
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "a", "VersionId": "null"}]})
    s3.delete_bucket(Bucket=bucket)
