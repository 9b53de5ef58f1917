"""Versions, tags and markers of a real gateway: over kill -9, and over the loss of its database."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.config import Config as BotoConfig

from tests.support.process import ACCESS_KEY, SECRET_KEY, Gateway
from tests.support.store import Store

pytestmark = pytest.mark.slow


def client_of(gateway: Gateway) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=gateway.url,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=BotoConfig(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
    )


def seen(client: Any) -> list[tuple[Any, ...]]:
    """Every version with its bytes and tags, and every marker, in the order of the listing."""
    page = client.list_object_versions(Bucket="versions")
    found: list[tuple[Any, ...]] = []
    for each in page.get("Versions", []):
        named = {"Bucket": "versions", "Key": each["Key"], "VersionId": each["VersionId"]}
        body = client.get_object(**named)["Body"].read()
        tags = client.get_object_tagging(**named)["TagSet"]
        found.append((each["Key"], each["VersionId"], each["IsLatest"], body, tags))
    for each in page.get("DeleteMarkers", []):
        found.append((each["Key"], each["VersionId"], each["IsLatest"]))
    return found


def test_versions_survive_a_crash_and_a_lost_database(store: Store) -> None:
    gateway = store.serve()
    client = client_of(gateway)
    client.create_bucket(Bucket="versions")
    client.put_object(Bucket="versions", Key="a", Body=b"before")
    enabled = {"Status": "Enabled"}
    client.put_bucket_versioning(Bucket="versions", VersioningConfiguration=enabled)
    for n in range(20):
        body = b"%d" % n * (1 + n * 8000)  # in the record, and in chunks
        client.put_object(Bucket="versions", Key="ab"[n % 2], Body=body, Tagging=f"n={n}")
    dropped = client.put_object(Bucket="versions", Key="b", Body=b"dropped")["VersionId"]
    client.delete_object(Bucket="versions", Key="b", VersionId=dropped)
    client.delete_object(Bucket="versions", Key="b")
    client.put_object_tagging(
        Bucket="versions", Key="a", Tagging={"TagSet": [{"Key": "t", "Value": "v"}]}
    )
    before = seen(client)
    assert len(before) == 22
    gateway.kill()
    with store.serve() as gateway:
        assert seen(client_of(gateway)) == before
    store.drop_schema()
    status, said = store.restore()
    assert status == 0, said
    status, said = store.run("fsck")
    assert status == 0, said
    with store.serve() as gateway:
        client = client_of(gateway)
        assert seen(client) == before
        status_now = client.get_bucket_versioning(Bucket="versions")["Status"]
        assert status_now == "Enabled"
