"""Fixed answers: section 1.6, and 501 for everything that is not built."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from ingot.s3.operations import BUCKET, ERROR, FIXED, OPERATIONS, REFUSED
from tests.s3.driver import NAMESPACE, OTHER, Driver

ABSENT = {
    "policy": "NoSuchBucketPolicy",
    "policyStatus": "NoSuchBucketPolicy",
    "cors": "NoSuchCORSConfiguration",
    "website": "NoSuchWebsiteConfiguration",
    "lifecycle": "NoSuchLifecycleConfiguration",
    "replication": "ReplicationConfigurationNotFoundError",
    "encryption": "ServerSideEncryptionConfigurationNotFoundError",
    "object-lock": "ObjectLockConfigurationNotFoundError",
    "tagging": "NoSuchTagSet",
    "publicAccessBlock": "NoSuchPublicAccessBlockConfiguration",
}


@pytest.fixture
def driver():
    made = Driver()
    made.bucket()
    made.put("key")
    return made


def target(row):
    path = "/bucket" if row.level == BUCKET else "/bucket/key"
    return path, row.resource.decode().replace("+id", "&id=1").replace("+x-amz-copy-source", "")


@pytest.mark.parametrize(("resource", "code"), ABSENT.items())
def test_what_terraform_takes_for_absent(driver, resource, code):
    answer = driver.ask("GET", "/bucket", resource)
    assert (answer.status, answer.code) == (404, code)
    assert answer.xml.findtext("BucketName") == "bucket"


@pytest.mark.parametrize(
    "resource", ["acl", "versioning", "logging", "accelerate", "requestPayment", "notification"]
)
def test_what_terraform_needs_to_be_there(driver, resource):
    answer = driver.ask("GET", "/bucket", resource)
    assert answer.status == 200 and answer.xml.tag.startswith(NAMESPACE)


@pytest.mark.parametrize(
    "row", [r for r in OPERATIONS if r.kind in (ERROR, FIXED)], ids=lambda r: r.name
)
def test_fixed_rows_look_for_bucket_and_object_first(driver, row):
    path, query = target(row)
    assert driver.ask(row.method, path, query).status in (200, 204, 400, 403, 404)
    assert driver.ask(row.method, path.replace("bucket", "absent"), query).code == "NoSuchBucket"
    assert driver.ask(row.method, path, query, account=OTHER).code == "AccessDenied"
    if row.level != BUCKET:
        assert driver.ask(row.method, "/bucket/none", query).code == "NoSuchKey"


@pytest.mark.parametrize(
    "row",
    [r for r in OPERATIONS if r.kind == REFUSED and r.name != "WriteGetObjectResponse"],
    ids=lambda r: r.name,
)
def test_not_built_is_501(driver, row):
    path, query = target(row)
    if row.name.startswith("UploadPart"):
        query = "partNumber=1&uploadId=u"
    headers = {"x-amz-copy-source": "bucket/key"} if row.name == "UploadPartCopy" else None
    answer = driver.ask(row.method, path, query, headers)
    assert (answer.status, answer.code) == (501, "NotImplemented")
    assert row.name in answer.xml.findtext("Message")
    assert driver.keys() == [b"key"]


@pytest.mark.parametrize(
    ("resource", "body", "status"),
    [
        (
            "accelerate",
            "<AccelerateConfiguration><Status>Suspended</Status></AccelerateConfiguration>",
            200,
        ),
        (
            "accelerate",
            "<AccelerateConfiguration><Status>Enabled</Status></AccelerateConfiguration>",
            501,
        ),
        ("logging", "<BucketLoggingStatus/>", 200),
        ("logging", "<BucketLoggingStatus><LoggingEnabled/></BucketLoggingStatus>", 501),
        ("notification", "<NotificationConfiguration/>", 200),
        (
            "notification",
            "<NotificationConfiguration><QueueConfiguration/></NotificationConfiguration>",
            501,
        ),
        (
            "requestPayment",
            "<RequestPaymentConfiguration><Payer>BucketOwner</Payer></RequestPaymentConfiguration>",
            200,
        ),
        (
            "requestPayment",
            "<RequestPaymentConfiguration><Payer>Requester</Payer></RequestPaymentConfiguration>",
            501,
        ),
        ("logging", "<Wrong/>", 400),
        ("logging", "", 400),
    ],
)
def test_writing_the_state_a_bucket_is_in(driver, resource, body, status):
    answer = driver.ask("PUT", "/bucket", resource, body=body.encode())
    assert answer.status == status
    if status == 501:
        assert answer.code == "NotImplemented"


def test_boto3_parses_every_fixed_document(driver):
    client = driver.client()
    for row in OPERATIONS:
        if row.kind != FIXED or not row.answer:
            continue
        parameters = {"Bucket": "bucket"} | ({} if row.level == BUCKET else {"Key": "key"})
        name = "".join("_" + c.lower() if c.isupper() else c for c in row.name).lstrip("_")
        getattr(client, name)(**parameters)
    assert client.get_bucket_ownership_controls(Bucket="bucket")["OwnershipControls"] == {
        "Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]
    }
    assert client.get_object_tagging(Bucket="bucket", Key="key")["TagSet"] == []
    assert client.get_bucket_request_payment(Bucket="bucket")["Payer"] == "BucketOwner"
    assert "Status" not in client.get_bucket_versioning(Bucket="bucket")


def test_lock_reads_name_what_is_missing(driver):
    with pytest.raises(ClientError, match="Bucket is missing Object Lock Configuration"):
        driver.client().get_object_retention(Bucket="bucket", Key="key")
