"""Buckets: NAME-2 to NAME-6, XML-8, and the account that owns them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from botocore.exceptions import ClientError

from ingot.bucket.model import BucketConfig
from tests.s3.driver import OTHER, OWNER, REGION, Driver


@pytest.fixture
def driver():
    return Driver()


def configuration(content):
    return f"<CreateBucketConfiguration>{content}</CreateBucketConfiguration>".encode()


def located(region):
    return configuration(f"<LocationConstraint>{region}</LocationConstraint>")


def test_name_3_create(driver):
    answer = driver.ask("PUT", "/bucket")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["location"] == "/bucket"
    assert answer.headers["x-amz-bucket-arn"] == "arn:aws:s3:::bucket"
    config = driver.store.rows["bucket"].config
    assert (config.owner, config.owner_name, config.region) == (OWNER.id, "owner", REGION)
    assert config.created_ms == driver.clock.ms


@pytest.mark.parametrize(
    ("region", "setting", "status", "code"),
    [
        ("us-east-1", "aws", 200, None),
        ("eu-north-1", "aws", 409, "BucketAlreadyOwnedByYou"),
        ("us-east-1", "idempotent", 200, None),
        ("eu-north-1", "idempotent", 200, None),
    ],
)
def test_name_2_one_s_own_again(region, setting, status, code):
    driver = Driver(region, recreate_own_bucket=setting)
    driver.bucket()
    driver.put("key")
    answer = driver.ask("PUT", "/bucket")
    assert answer.status == status and (code is None or answer.code == code)
    assert driver.keys() == [b"key"]


@pytest.mark.parametrize(
    ("first", "again", "same"),
    [
        ({}, {"x-amz-object-ownership": "BucketOwnerEnforced"}, True),
        ({}, {"x-amz-object-ownership": "ObjectWriter"}, False),
        ({"x-amz-object-ownership": "ObjectWriter"}, {}, True),
        (*({"x-amz-object-ownership": "ObjectWriter"},) * 2, True),
        ({}, {"x-amz-bucket-object-lock-enabled": "false"}, True),
        ({}, {"x-amz-bucket-object-lock-enabled": "true"}, False),
        (*({"x-amz-bucket-object-lock-enabled": "true"},) * 2, True),
        ({"x-amz-bucket-object-lock-enabled": "true"}, {}, True),
        ({"x-amz-object-ownership": "ObjectWriter", "x-amz-acl": "private"}, {}, True),
        ({"x-amz-object-ownership": "ObjectWriter", "x-amz-acl": "public-read"}, {}, False),
        (*({"x-amz-object-ownership": "ObjectWriter", "x-amz-acl": "public-read"},) * 2, True),
    ],
)
def test_name_2_again_with_or_without_a_difference(first, again, same):
    driver = Driver(recreate_own_bucket="idempotent")
    assert driver.ask("PUT", "/bucket", headers=first).status == 200
    before = driver.store.rows["bucket"]
    answer = driver.ask("PUT", "/bucket", headers=again)
    assert (answer.status, "" if same else answer.code) == (
        (200, "") if same else (409, "BucketAlreadyExists")
    )
    assert driver.store.rows["bucket"] is before


def test_name_2_again_with_tags():
    driver = Driver(recreate_own_bucket="idempotent")
    tags = "<Tags><Tag><Key>a</Key><Value>{}</Value></Tag></Tags>"
    for value, status in (("b", 200), ("b", 200), ("c", 409)):
        body = configuration(tags.format(value))
        assert driver.ask("PUT", "/bucket", body=body).status == status
    assert driver.ask("PUT", "/bucket").status == 200


def test_name_2_somebody_else_s(driver):
    driver.bucket()
    answer = driver.ask("PUT", "/bucket", account=OTHER)
    assert (answer.status, answer.code) == (409, "BucketAlreadyExists")
    assert answer.xml.findtext("BucketName") == "bucket"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (located(REGION), None),
        (located(""), None),
        (configuration(""), None),
        (configuration("<Tags/>"), None),
        (located("eu-west-1"), "IllegalLocationConstraintException"),
        (located("us-east-1"), "InvalidLocationConstraint"),
        (located("nowhere"), "InvalidLocationConstraint"),
        (configuration("<Tags><Tag><Key>a</Key><Value>b</Value></Tag></Tags>"), None),
        (configuration("<Tags><Tag><Key>a</Key></Tag></Tags>"), "MalformedXML"),
        (configuration("<Bucket><Type>Directory</Type></Bucket>"), "NotImplemented"),
        (configuration("<Other/>"), "MalformedXML"),
        (b"garbage", "MalformedXML"),
    ],
)
def test_name_2_configurations(driver, body, code):
    answer = driver.ask("PUT", "/bucket", body=body)
    if code is None:
        assert answer.status == 200
    else:
        assert answer.code == code
    assert ("bucket" in driver.store.rows) == (code is None)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"x-amz-acl": "private"}, None),
        ({"x-amz-bucket-object-lock-enabled": "false"}, None),
        ({"x-amz-object-ownership": "BucketOwnerEnforced"}, None),
        ({"x-amz-bucket-object-lock-enabled": "true"}, None),
        ({"x-amz-bucket-object-lock-enabled": "maybe"}, "InvalidArgument"),
        ({"x-amz-object-ownership": "ObjectWriter"}, None),
        ({"x-amz-object-ownership": "Nobody"}, "InvalidArgument"),
        ({"x-amz-acl": "public-read"}, "InvalidBucketAclWithObjectOwnership"),
        ({"x-amz-acl": "nonsense"}, "InvalidArgument"),
        ({"x-amz-grant-read": "id=1"}, "InvalidBucketAclWithObjectOwnership"),
        ({"x-amz-acl": "private", "x-amz-grant-read": "id=1"}, "InvalidRequest"),
    ],
)
def test_name_3_headers(driver, headers, code):
    answer = driver.ask("PUT", "/bucket", headers=headers)
    assert answer.status == 200 if code is None else answer.code == code
    assert ("bucket" in driver.store.rows) == (code is None)


def test_name_4_head(driver):
    driver.bucket()
    for path in ("/bucket", "/bucket/"):
        answer = driver.ask("HEAD", path)
        assert answer.status == 200
        assert answer.headers["x-amz-bucket-region"] == REGION
        assert answer.headers["x-amz-access-point-alias"] == "false"
    stranger = driver.ask("HEAD", "/bucket", account=OTHER)
    assert (stranger.status, stranger.headers["x-amz-bucket-region"]) == (403, REGION)
    assert driver.ask("HEAD", "/absent").status == 404
    for path in ("/bucket", "/absent"):  # some SDKs ask for the region without a signature
        nobody = driver.ask("HEAD", path, account=None)
        assert (nobody.status, nobody.headers["x-amz-bucket-region"]) == (403, REGION)
    assert "x-amz-bucket-region" not in driver.ask("GET", "/bucket", account=None).headers


def test_name_5_delete(driver):
    driver.bucket()
    driver.put("key")
    answer = driver.ask("DELETE", "/bucket")
    assert (answer.status, answer.code) == (409, "BucketNotEmpty")
    assert answer.xml.findtext("BucketName") == "bucket"
    driver.ask("DELETE", "/bucket/key")
    assert driver.ask("DELETE", "/bucket").status == 204
    assert driver.ask("DELETE", "/bucket").code == "NoSuchBucket"
    driver.bucket()
    assert driver.keys() == []


def test_name_6_list(driver):
    for name in ("ccc", "aaa", "bbb"):
        driver.bucket(name)
    driver.bucket("theirs", OTHER)
    answer = driver.ask("GET", "/")
    assert answer.texts("Buckets/Bucket/Name") == ["aaa", "bbb", "ccc"]
    assert answer.texts("Owner/ID") == [OWNER.id]
    assert answer.texts("Owner/DisplayName") == ["owner"]
    assert answer.text("Buckets/Bucket/CreationDate").endswith(".000Z")
    assert answer.text("ContinuationToken") is answer.text("Prefix") is None
    assert driver.ask("GET", "/", account=OTHER).texts("Buckets/Bucket/Name") == ["theirs"]


def test_name_6_paging(driver):
    names = [f"bucket-{number}" for number in range(5)]
    for name in names:
        driver.bucket(name)
    seen, token = [], ""
    while True:
        answer = driver.ask("GET", "/", "max-buckets=2" + token)
        page = answer.texts("Buckets/Bucket/Name")
        assert answer.texts("Buckets/Bucket/BucketRegion") == [REGION] * len(page)
        seen += page
        if answer.text("ContinuationToken") is None:
            break
        token = "&continuation-token=" + answer.text("ContinuationToken")
    assert seen == names
    exact = driver.ask("GET", "/", "max-buckets=5")
    assert exact.text("ContinuationToken") is None
    some = driver.ask("GET", "/", "prefix=bucket-3")
    assert (some.texts("Buckets/Bucket/Name"), some.text("Prefix")) == (["bucket-3"], "bucket-3")
    assert driver.ask("GET", "/", "bucket-region=nowhere").texts("Buckets/Bucket/Name") == []
    for query in ("max-buckets=0", "max-buckets=10001", "max-buckets=x", "continuation-token=x"):
        assert driver.ask("GET", "/", query).code == "InvalidArgument"


@pytest.mark.parametrize(("region", "text"), [("us-east-1", ""), ("eu-north-1", "eu-north-1")])
def test_xml_8_location(region, text):
    driver = Driver(region)
    driver.bucket()
    answer = driver.ask("GET", "/bucket", "location")
    assert (answer.xml.text or "") == text
    assert answer.xml.tag.endswith("}LocationConstraint")


def test_region_discovery_may_sign_for_us_east_1():
    driver = Driver("eu-north-1")
    driver.bucket()
    driver.region = "us-east-1"  # what the client signs with
    assert driver.ask("HEAD", "/bucket").headers["x-amz-bucket-region"] == "eu-north-1"
    assert driver.ask("GET", "/bucket", "location").status == 200
    wrong = driver.ask("GET", "/bucket/key")
    assert wrong.code == "AuthorizationHeaderMalformed"
    assert wrong.xml.findtext("Region") == "eu-north-1"


def test_a_bucket_is_where_the_gateway_is(driver):
    """One that was made under another setting too: clients sign for what they hear."""
    driver.bucket()
    moved = Driver("eu-central-7")
    moved.store.rows, moved.store.objects = driver.store.rows, driver.store.objects
    assert moved.ask("HEAD", "/bucket").headers["x-amz-bucket-region"] == "eu-central-7"
    assert moved.ask("GET", "/bucket", "location").xml.text == "eu-central-7"
    for query in ("max-buckets=5", "bucket-region=eu-central-7"):
        listed = moved.ask("GET", "/", query)
        assert listed.texts("Buckets/Bucket/BucketRegion") == ["eu-central-7"]
    assert moved.ask("GET", "/", f"bucket-region={REGION}").texts("Buckets/Bucket/Name") == []


def test_with_boto3(driver):
    client = driver.client()
    client.create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": REGION})
    assert client.get_bucket_location(Bucket="bucket")["LocationConstraint"] == REGION
    assert [b["Name"] for b in client.list_buckets()["Buckets"]] == ["bucket"]
    client.head_bucket(Bucket="bucket")
    with pytest.raises(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket="bucket")
    client.delete_bucket(Bucket="bucket")
    with pytest.raises(ClientError):
        client.head_bucket(Bucket="bucket")


def test_a_bucket_whose_configuration_is_lost_says_so_to_its_owner(driver):
    """Nobody can tell whose it is, so AccessDenied would be a guess."""
    driver.bucket()
    driver.put("a")
    lost = BucketConfig(owner="", owner_name="", created_ms=0, region="")
    driver.store.rows["bucket"] = replace(driver.store.rows["bucket"], config=lost)
    driver.bucket("other")
    for method, path, headers in [
        ("GET", "/bucket", {}),
        ("GET", "/bucket/a", {}),
        ("PUT", "/bucket/b", {}),
        ("DELETE", "/bucket/a", {}),
        ("PUT", "/other/b", {"x-amz-copy-source": "bucket/a"}),
        ("GET", "/bucket", {"x-amz-expected-bucket-owner": OWNER.id}),
    ]:
        answer = driver.ask(method, path, headers=headers)
        assert (answer.status, answer.code) == (500, "InternalError"), (method, path)
        assert "configuration of this bucket is damaged" in (answer.xml.findtext("Message") or "")
    head = driver.ask("HEAD", "/bucket")
    assert head.status == 500 and "x-amz-bucket-region" not in head.headers
    assert driver.ask("PUT", "/bucket").code == "BucketAlreadyExists"
    assert driver.ask("GET", "/").texts("Buckets/Bucket/Name") == ["other"]


def test_an_account_has_so_many_buckets(driver, monkeypatch):
    monkeypatch.setattr("ingot.s3.buckets.BUCKETS_OF_ACCOUNT_MAX", 2)
    driver.bucket("theirs", OTHER)
    for name in ("one", "two"):
        driver.bucket(name)
    answer = driver.ask("PUT", "/three")
    assert (answer.status, answer.code) == (400, "TooManyBuckets")
    assert driver.ask("PUT", "/two").code == "BucketAlreadyOwnedByYou"
    assert driver.ask("PUT", "/theirs").code == "BucketAlreadyExists"
    driver.bucket("others", OTHER)
    assert driver.ask("DELETE", "/one").status == 204
    driver.bucket("three")
