"""Documents of a bucket's configuration: put, given back, deleted; and what is refused."""

from __future__ import annotations

import base64
import hashlib

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from ingot.limits import PARSED_BYTES_MAX
from ingot.s3 import cors
from ingot.s3.configuration import SUBJECTS, Parsed
from ingot.s3.errors import S3Error
from ingot.s3.tags import check_tags, read_tagging, write_tagging
from tests.s3.driver import NAMESPACE, OTHER, Driver

TAGS = "<Tagging><TagSet>{}</TagSet></Tagging>"
TAG = "<Tag><Key>{}</Key><Value>{}</Value></Tag>"
RULE = "<AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET</AllowedMethod>"
CORS = "<CORSConfiguration><CORSRule>{}</CORSRule></CORSConfiguration>"
SSE = (
    "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault>{}"
    "</ApplyServerSideEncryptionByDefault>{}</Rule></ServerSideEncryptionConfiguration>"
)
AES = "<SSEAlgorithm>AES256</SSEAlgorithm>"
BLOCKED = "<BlockedEncryptionTypes><EncryptionType>{}</EncryptionType></BlockedEncryptionTypes>"
OWNED = "<OwnershipControls>{}</OwnershipControls>"
OWNER_RULE = "<Rule><ObjectOwnership>{}</ObjectOwnership></Rule>"
BLOCK = "<PublicAccessBlockConfiguration>{}</PublicAccessBlockConfiguration>"
WEBSITE = "<WebsiteConfiguration>{}</WebsiteConfiguration>"
INDEX = "<IndexDocument><Suffix>index.html</Suffix></IndexDocument>"
LIFE = "<LifecycleConfiguration><Rule><ID>i</ID><Filter/><Status>Enabled</Status><Expiration>"
LIFE += "<Days>1</Days></Expiration></Rule></LifecycleConfiguration>"
GOOD = {
    "lifecycle": LIFE,
    "tagging": TAGS.format(TAG.format("k", "v")),
    "cors": CORS.format(RULE),
    "encryption": SSE.format(AES, ""),
    "ownershipControls": OWNED.format(OWNER_RULE.format("ObjectWriter")),
    "publicAccessBlock": BLOCK.format("<BlockPublicAcls>true</BlockPublicAcls>"),
    "website": WEBSITE.format(INDEX),
}


@pytest.fixture
def driver():
    made = Driver()
    made.bucket()
    return made


def put(driver, resource, body, **named):
    data = body.encode() if isinstance(body, str) else body
    md5 = base64.b64encode(hashlib.md5(data).digest()).decode()
    return driver.ask("PUT", "/bucket", resource, {"content-md5": md5}, data, **named)


# -- what all of them have in common ---------------------------------------------------------------


def test_every_subject_has_an_example():
    assert {name.decode() for name in SUBJECTS} == set(GOOD)


@pytest.mark.parametrize("resource", GOOD)
def test_put_get_delete(driver, resource):
    subject = SUBJECTS[resource.encode()]
    assert put(driver, resource, GOOD[resource]).status == subject.put_status
    shown = driver.ask("GET", "/bucket", resource)
    assert shown.status == 200 and shown.xml.tag.startswith(NAMESPACE)
    assert driver.ask("DELETE", "/bucket", resource).status == 204
    gone = driver.ask("GET", "/bucket", resource)
    assert (gone.status, gone.code) == (404, subject.absent)
    assert gone.xml.findtext("BucketName") == "bucket"
    assert driver.ask("DELETE", "/bucket", resource).status == 204
    assert put(driver, resource, shown.body).status == subject.put_status
    assert driver.ask("GET", "/bucket", resource).body == shown.body, "what was read may be put"


@pytest.mark.parametrize("resource", GOOD)
def test_what_is_refused_changes_nothing(driver, resource):
    assert put(driver, resource, GOOD[resource]).status < 300
    before = driver.ask("GET", "/bucket", resource).body
    document = GOOD[resource]
    for body, code in (
        (b"", "MissingRequestBodyError"),
        (b"<Wrong/>", "MalformedXML"),
        (document[:-3], "MalformedXML"),
        ("<!DOCTYPE x>" + document, "MalformedXML"),
        (document.replace("><", "><Unknown/><", 1), "MalformedXML"),
    ):
        answer = put(driver, resource, body)
        assert (answer.status, answer.code) == (400, code), body
    wrong = {"content-md5": base64.b64encode(bytes(16)).decode()}
    answer = driver.ask("PUT", "/bucket", resource, wrong, document.encode())
    assert answer.code == "BadDigest"
    answer = put(driver, resource, document + " " * 300_000)
    assert answer.code == "MaxMessageLengthExceeded"
    assert driver.ask("GET", "/bucket", resource).body == before


@pytest.mark.parametrize("resource", GOOD)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_whose_bucket_it_is_comes_first(driver, resource, method):
    body = GOOD[resource].encode() if method == "PUT" else b""
    md5 = {"content-md5": base64.b64encode(hashlib.md5(body).digest()).decode()}
    assert driver.ask(method, "/absent", resource, md5, body).code == "NoSuchBucket"
    assert driver.ask(method, "/bucket", resource, md5, body, OTHER).code == "AccessDenied"
    assert driver.ask(method, "/bucket", resource, md5, body, None).code == "AccessDenied"
    assert driver.store.bucket("bucket").config.documents == {}


@pytest.mark.parametrize("resource", GOOD)
def test_a_checksum_where_s3_requires_one(driver, resource):
    """SUM-7: of old clients' documents no more is asked than S3 itself insists on."""
    answer = driver.ask("PUT", "/bucket", resource, body=GOOD[resource].encode())
    if resource in ("lifecycle", "cors"):
        assert (answer.status, answer.code) == (400, "InvalidRequest")
    else:
        assert answer.status in (200, 204)


def test_boto3_puts_and_gets_them_all(driver):
    client = driver.client()
    tags = [{"Key": "b", "Value": "2"}, {"Key": "a", "Value": ""}]
    client.put_bucket_tagging(Bucket="bucket", Tagging={"TagSet": tags})
    assert client.get_bucket_tagging(Bucket="bucket")["TagSet"] == tags[::-1]
    rules = [
        {
            "ID": "one",
            "AllowedOrigins": ["https://*.example", "http://b"],
            "AllowedMethods": ["GET", "PUT"],
            "AllowedHeaders": ["x-*"],
            "ExposeHeaders": ["ETag"],
            "MaxAgeSeconds": 0,
        },
        {"AllowedOrigins": ["*"], "AllowedMethods": ["HEAD"]},
    ]
    client.put_bucket_cors(Bucket="bucket", CORSConfiguration={"CORSRules": rules})
    assert client.get_bucket_cors(Bucket="bucket")["CORSRules"] == rules
    flags = {"BlockPublicAcls": True, "IgnorePublicAcls": False, "BlockPublicPolicy": True}
    client.put_public_access_block(Bucket="bucket", PublicAccessBlockConfiguration=flags)
    found = client.get_public_access_block(Bucket="bucket")["PublicAccessBlockConfiguration"]
    assert found == {**flags, "RestrictPublicBuckets": False}
    controls = {"Rules": [{"ObjectOwnership": "BucketOwnerPreferred"}]}
    client.put_bucket_ownership_controls(Bucket="bucket", OwnershipControls=controls)
    found = client.get_bucket_ownership_controls(Bucket="bucket")
    assert found["OwnershipControls"] == controls
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    encryption = {"Rules": [{**rule, "BucketKeyEnabled": True}]}
    client.put_bucket_encryption(Bucket="bucket", ServerSideEncryptionConfiguration=encryption)
    found = client.get_bucket_encryption(Bucket="bucket")
    assert found["ServerSideEncryptionConfiguration"] == encryption
    website = {
        "IndexDocument": {"Suffix": "index.html"},
        "ErrorDocument": {"Key": "error.html"},
        "RoutingRules": [
            {
                "Condition": {"KeyPrefixEquals": "docs/", "HttpErrorCodeReturnedEquals": "404"},
                "Redirect": {"ReplaceKeyPrefixWith": "documents/", "HttpRedirectCode": "302"},
            },
            {"Redirect": {"HostName": "example.com", "Protocol": "https", "ReplaceKeyWith": ""}},
        ],
    }
    client.put_bucket_website(Bucket="bucket", WebsiteConfiguration=website)
    found = client.get_bucket_website(Bucket="bucket")
    del found["ResponseMetadata"]
    assert found == website
    moved = {"RedirectAllRequestsTo": {"HostName": "example.com", "Protocol": "http"}}
    client.put_bucket_website(Bucket="bucket", WebsiteConfiguration=moved)
    found = client.get_bucket_website(Bucket="bucket")
    assert found["RedirectAllRequestsTo"] == moved["RedirectAllRequestsTo"]
    for name in ("tagging", "cors", "ownership_controls", "encryption", "website"):
        getattr(client, f"delete_bucket_{name}")(Bucket="bucket")
    client.delete_public_access_block(Bucket="bucket")
    with pytest.raises(ClientError, match="NoSuchTagSet"):
        client.get_bucket_tagging(Bucket="bucket")


# -- tags ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ([("k" * 128, "v" * 256)], None),
        ([("Größe 大", "ü_.:/=+-@ 1")], None),
        ([("k", "")], None),
        ([("k" * 129, "v")], "InvalidTag"),
        ([("k", "v" * 257)], "InvalidTag"),
        ([("", "v")], "InvalidTag"),
        ([("k", "a&amp;b")], "InvalidTag"),
        ([("k\t", "v")], "InvalidTag"),
        ([("aws:k", "v")], "InvalidTag"),
        ([("AWS:k", "v")], "InvalidTag"),
        ([("k", "1"), ("k", "2")], "InvalidTag"),
        ([(f"k{n}", "") for n in range(50)], None),
        ([(f"k{n}", "") for n in range(51)], "BadRequest"),
    ],
)
def test_tag_1_limits(driver, tags, code):
    answer = put(driver, "tagging", TAGS.format("".join(TAG.format(*tag) for tag in tags)))
    assert answer.status == 204 if code is None else answer.code == code


@pytest.mark.parametrize(
    "body",
    [
        "<Tagging/>",
        "<Tagging><TagSet/><TagSet/></Tagging>",
        TAGS.format("<Tag><Key>k</Key></Tag>"),
        TAGS.format("<Tag><Value>k</Value></Tag>"),
        TAGS.format("<Tag><Key>k</Key><Key>l</Key><Value>k</Value></Tag>"),
        TAGS.format("<Other/>"),
    ],
)
def test_tag_1_malformed(driver, body):
    assert put(driver, "tagging", body).code == "MalformedXML"


def test_tag_2_sorted_and_replaced_whole(driver):
    put(driver, "tagging", TAGS.format(TAG.format("b", "1") + TAG.format("a", "2")))
    assert driver.ask("GET", "/bucket", "tagging").texts("TagSet/Tag/Key") == ["a", "b"]
    put(driver, "tagging", TAGS.format(TAG.format("c", "3")))
    assert driver.ask("GET", "/bucket", "tagging").texts("TagSet/Tag/Key") == ["c"]
    assert put(driver, "tagging", TAGS.format("")).status == 204
    assert driver.ask("GET", "/bucket", "tagging").code == "NoSuchTagSet"


@given(st.dictionaries(st.text(max_size=130), st.text(max_size=260), max_size=5))
def test_tag_1_what_passes_is_read_as_written(tags):
    try:
        kept = check_tags(tags.items(), 50, "")
    except S3Error as error:
        assert error.code == "InvalidTag"
        return
    assert kept == tags and list(kept) == sorted(tags)
    assert read_tagging(write_tagging(tags), 50, "") == tags


def test_name_3_tags_of_a_creation(driver):
    body = f"<CreateBucketConfiguration><Tags>{TAG.format('k', 'v')}</Tags>"
    body += "</CreateBucketConfiguration>"
    assert driver.ask("PUT", "/tagged", body=body.encode()).status == 200
    assert driver.ask("GET", "/tagged", "tagging").texts("TagSet/Tag/Value") == ["v"]
    twice = body.replace("<Tags>", "<Tags>" + TAG.format("k", "w"))
    assert driver.ask("PUT", "/other", body=twice.encode()).code == "InvalidTag"
    assert driver.ask("HEAD", "/other").status == 404


# -- ownership, public access ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "rules",
    [
        "",
        OWNER_RULE.format("Nobody"),
        OWNER_RULE.format(""),
        OWNER_RULE.format("ObjectWriter") * 2,
        "<Rule/>",
    ],
)
def test_acl_5_exactly_one_rule(driver, rules):
    assert put(driver, "ownershipControls", OWNED.format(rules)).code == "MalformedXML"


def ownership(driver, bucket="bucket"):
    answer = driver.ask("GET", f"/{bucket}", "ownershipControls")
    return answer.text("Rule/ObjectOwnership") if answer.status == 200 else answer.code


def test_acl_5_never_set_is_enforced_and_deleted_is_not_found(driver):
    assert ownership(driver) == "BucketOwnerEnforced"
    driver.ask("DELETE", "/bucket", "ownershipControls")
    assert ownership(driver) == "OwnershipControlsNotFoundError"
    put(driver, "ownershipControls", OWNED.format(OWNER_RULE.format("BucketOwnerEnforced")))
    assert ownership(driver) == "BucketOwnerEnforced"


def test_name_3_ownership_of_a_creation():
    driver = Driver(default_ownership="ObjectWriter")
    driver.bucket()
    assert ownership(driver) == "ObjectWriter"
    for name in ("BucketOwnerEnforced", "BucketOwnerPreferred"):
        headers = {"x-amz-object-ownership": name}
        assert driver.ask("PUT", f"/{name.lower()}", headers=headers).status == 200
        assert ownership(driver, name.lower()) == name
    headers = {"x-amz-object-ownership": "Nobody"}
    assert driver.ask("PUT", "/other", headers=headers).code == "InvalidArgument"


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        ("", "InvalidRequest"),
        ("<BlockPublicAcls>maybe</BlockPublicAcls>", "MalformedXML"),
        ("<BlockPublicAcls>true</BlockPublicAcls>" * 2, "MalformedXML"),
    ],
)
def test_acl_6_flags(driver, flags, code):
    assert put(driver, "publicAccessBlock", BLOCK.format(flags)).code == code


# -- encryption, website ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (SSE.format("<SSEAlgorithm>aws:kms</SSEAlgorithm>", ""), "NotImplemented"),
        (SSE.format("<SSEAlgorithm>aws:kms:dsse</SSEAlgorithm>", ""), "NotImplemented"),
        (SSE.format("<SSEAlgorithm>AES128</SSEAlgorithm>", ""), "MalformedXML"),
        (SSE.format("", ""), "MalformedXML"),
        (SSE.format(AES + "<KMSMasterKeyID>k</KMSMasterKeyID>", ""), "InvalidArgument"),
        (SSE.format(AES, "<BucketKeyEnabled>yes</BucketKeyEnabled>"), "MalformedXML"),
        (SSE.format(AES, "<BlockedEncryptionTypes/>"), "MalformedXML"),
        (SSE.format(AES, BLOCKED.format("aws:kms")), "MalformedXML"),
        ("<ServerSideEncryptionConfiguration/>", "MalformedXML"),
        ("<ServerSideEncryptionConfiguration><Rule/></ServerSideEncryptionConfiguration>",)
        + ("MalformedXML",),
    ],
)
def test_encryption_is_aes256_only(driver, body, code):
    assert put(driver, "encryption", body).code == code


@pytest.mark.parametrize("kind", ["SSE-C", "NONE"])
def test_keys_of_customers_may_be_blocked_or_not(driver, kind):
    """There are none in either case."""
    client = driver.client()
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    rule |= {"BucketKeyEnabled": False, "BlockedEncryptionTypes": {"EncryptionType": [kind]}}
    for sent in (rule, {"BlockedEncryptionTypes": rule["BlockedEncryptionTypes"]}):
        client.put_bucket_encryption(
            Bucket="bucket", ServerSideEncryptionConfiguration={"Rules": [sent]}
        )
        found = client.get_bucket_encryption(Bucket="bucket")
        assert found["ServerSideEncryptionConfiguration"] == {"Rules": [rule]}


def test_http_13_a_website_is_kept_and_not_hosted(driver):
    moved = ALL.format("<HostName>elsewhere</HostName>")
    assert put(driver, "website", WEBSITE.format(moved)).status == 200
    driver.put("index.html", x_amz_website_redirect_location="/other")
    assert driver.ask("GET", "/bucket/").text("Contents/Key") == "index.html"
    assert driver.ask("GET", "/bucket/index.html").status == 200
    assert driver.ask("GET", "/bucket/none").code == "NoSuchKey"


ROUTE = "<RoutingRule><Redirect>{}</Redirect></RoutingRule>"
REDIRECT = f"<RoutingRules>{ROUTE}</RoutingRules>"
ALL = "<RedirectAllRequestsTo>{}</RedirectAllRequestsTo>"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("", "InvalidArgument"),
        ("<IndexDocument><Suffix>a/b</Suffix></IndexDocument>", "InvalidArgument"),
        ("<IndexDocument/>", "InvalidArgument"),
        (INDEX + "<ErrorDocument/>", "MalformedXML"),
        (INDEX + "<RoutingRules/>", "MalformedXML"),
        (INDEX + REDIRECT.format(""), "MalformedXML"),
        (INDEX + REDIRECT.format("<Protocol>ftp</Protocol>"), "InvalidRequest"),
        (INDEX + REDIRECT.format("<HttpRedirectCode>300</HttpRedirectCode>"), "InvalidRequest"),
        (INDEX + REDIRECT.format("<HttpRedirectCode>200</HttpRedirectCode>"), "InvalidRequest"),
        (
            INDEX
            + REDIRECT.format(
                "<ReplaceKeyWith>a</ReplaceKeyWith><ReplaceKeyPrefixWith>b</ReplaceKeyPrefixWith>"
            ),
            "InvalidRequest",
        ),
        (
            INDEX
            + REDIRECT.format("<HostName>h</HostName>").replace(
                "<Redirect>",
                "<Condition><HttpErrorCodeReturnedEquals>200</HttpErrorCodeReturnedEquals>"
                "</Condition><Redirect>",
            ),
            "InvalidRequest",
        ),
        (
            INDEX + f"<RoutingRules>{ROUTE.format('<HostName>h</HostName>') * 51}</RoutingRules>",
            "InvalidRequest",
        ),
        (ALL.format(""), "MalformedXML"),
        (ALL.format("<HostName>h</HostName>") + INDEX, "InvalidRequest"),
        (ALL.format("<HostName>h</HostName><Protocol>ftp</Protocol>"), "InvalidRequest"),
    ],
)
def test_website_validation(driver, content, code):
    assert put(driver, "website", WEBSITE.format(content)).code == code


# -- what is parsed --------------------------------------------------------------------------------


def test_documents_are_read_once(monkeypatch):
    reads = []
    parsed = Parsed(lambda document: reads.append(document) or document.upper())
    monkeypatch.setattr("ingot.s3.configuration.PARSED_DOCUMENTS_MAX", 2)
    for document in (b"a", b"a", b"b", b"a", b"c", b"a", b"b"):
        assert parsed(document) == document.upper()
    assert reads == [b"a", b"b", b"c", b"b"], "a bounded number is held, of those asked for last"


def test_what_is_read_of_documents_is_bounded_in_bytes():
    reads = []
    parsed = Parsed(lambda of: reads.append(of) or of, factor=100)
    large = PARSED_BYTES_MAX // 100
    documents = [(b"a" * (large // 2), "a"), (b"b" * (large // 2), "b"), (b"c", "c")]
    for document in (*documents, documents[1], documents[0], documents[2]):
        parsed(document)
    a, b, c = documents
    assert reads == [a, b, c, a, c], "what was not asked for the longest made room"
    for _ in range(2):
        parsed((b"d" * (2 * large), "d"))
    assert len(reads) == 6, "and one by itself is held, whatever it weighs"
    parsed(c)
    assert len(reads) == 7


TOKENS = st.text("abcXYZ-_019", min_size=1, max_size=8)
PATTERNS = st.one_of(TOKENS, st.tuples(TOKENS, TOKENS).map("*".join), st.just("*"))
RULES = st.builds(
    cors.Rule,
    st.none() | st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), max_size=255),
    st.lists(PATTERNS, min_size=1, max_size=3).map(tuple),
    st.lists(st.sampled_from(cors.METHODS), min_size=1, max_size=3).map(tuple),
    st.lists(PATTERNS, max_size=3).map(tuple),
    st.lists(TOKENS, max_size=3).map(tuple),
    st.none() | st.integers(0, 999_999_999),
)


@given(st.lists(RULES, min_size=1, max_size=4).map(tuple))
def test_cors_1_rules_are_read_as_written(rules):
    assert cors.read(cors.write(rules)) == rules
