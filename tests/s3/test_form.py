"""Form uploads: section 2.7 of the surface, POST-1 to POST-9."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.bucket.leaf import State
from ingot.ports import AccessQuestion, Decision
from ingot.s3.configuration import POLICY
from tests.s3.driver import OTHER, OWNER, REGION, Driver
from tests.s3.fake_store import FakeBody
from tests.s3.test_authorizing import Host
from tests.support import form
from tests.support.form import TYPE, encode, policy, sign_v2, sign_v4, v4_fields


@pytest.fixture
def driver():
    made = Driver()
    made.bucket()
    return made


def open_to_all(driver, **fields):
    """Let anybody put objects, by the bucket's policy."""
    statement = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:PutObject",
        "Resource": "arn:aws:s3:::bucket/*",
        **fields,
    }
    body = json.dumps({"Statement": statement}).encode()
    assert driver.ask("PUT", "/bucket", "policy", body=body).status == 204


def post(driver, body, kind=TYPE, path="/bucket", piece=1 << 20, **headers):
    named = {"content-type": kind, **headers} if kind else headers
    stream = FakeBody(body, piece=piece, taken=False)
    named = {name.replace("_", "-"): value for name, value in named.items()}
    return driver.ask("POST", path, headers=named, body=body, account=None, stream=stream)


def signed(conditions, fields, version=4, secret=OWNER.secret_key, **policy_fields):
    """The fields of a form, with a policy of these conditions and its signature."""
    if version == 2:
        encoded = policy(*conditions, **policy_fields)
        return {**fields, **sign_v2(encoded, OWNER.access_key, secret)}
    ours = v4_fields(OWNER.access_key, REGION)
    encoded = policy(*conditions, *[{k: v} for k, v in ours.items()], **policy_fields)
    return {**fields, **sign_v4(encoded, secret, ours)}


KEY = ["starts-with", "$key", ""]
BUCKET = {"bucket": "bucket"}


@pytest.mark.parametrize("version", [2, 4])
def test_a_signed_form(driver, version):
    fields = signed([KEY, BUCKET], {"key": "a/k"}, version)
    answer = post(driver, encode(fields))
    assert answer.status == 204 and answer.body == b""
    etag = hashlib.md5(b"bytes").hexdigest()
    assert answer.headers["etag"] == f'"{etag}"'
    assert answer.headers["location"] == "http://s3.test/bucket/a%2Fk"
    record = driver.record("a/k")
    assert record.body.inline == b"bytes"
    assert record.headers == {"content-type": "binary/octet-stream"}
    assert driver.entries[-1].operation == "PostObject"
    assert (driver.entries[-1].key, driver.entries[-1].account) == (b"a/k", OWNER.id)


@pytest.mark.parametrize("piece", [1, 7, 61, 4096])
def test_a_form_in_pieces_of_any_size(driver, piece):
    """A boundary, or what looks like one, may be split anywhere."""
    data = (b"\r\n--" + form.BOUNDARY.encode()[:-1] + b"\r\n--\r\n") * 40
    body = encode(signed([KEY, BUCKET], {"key": "k"}), data)
    assert post(driver, body, piece=piece).status == 204
    assert driver.record("k").body.size == len(data)
    assert driver.record("k").etag == hashlib.md5(data).hexdigest()


@pytest.mark.parametrize(
    ("conditions", "more"),
    [
        ([KEY, BUCKET, ["\ud800", "$key", ""]], {}),
        ([KEY, BUCKET, ["eq", "\ud800", ""]], {}),
        ([KEY, BUCKET], {"\ud800": 1}),
        ([KEY, BUCKET], {"expiration": "\ud800"}),
        ([KEY, BUCKET, {"\ud800": "a"}], {}),
        ([KEY, BUCKET, ["eq", "$acl", "\ud800"]], {}),
    ],
)
def test_a_policy_with_half_of_a_character(driver, conditions, more):
    """JSON can say it, UTF-8 cannot: the refusal can still be told."""
    answer = post(driver, encode(signed(conditions, {"key": "k"}, **more)))
    assert answer.code in ("InvalidPolicyDocument", "AccessDenied")
    assert "?" in answer.xml.findtext("Message")


def test_an_empty_file_is_an_object(driver):
    assert post(driver, encode(signed([KEY, BUCKET], {"key": "k"}), b"")).status == 204
    assert driver.record("k").body.size == 0


# -- POST-1: the form ---------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_another_kind_of_body(driver, kind):
    answer = post(driver, b"key=k", kind)
    assert (answer.status, answer.code) == (412, "PreconditionFailed")
    assert answer.xml.findtext("Condition").endswith("enclosure-type multipart/form-data")
    assert driver.body.reads == 0


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", encode({"key": "k"})),
        ("multipart/form-data; boundary=", encode({"key": "k"})),
        (f"multipart/form-data; boundary={'b' * 71}", encode({"key": "k"})),
        ("multipart/form-data; boundary=other", encode({"key": "k"})),
        (TYPE, b""),
        (TYPE, b"no form at all"),
        (TYPE, encode({"key": "k"})[:-6]),  # without its end
        (TYPE, encode({"key": "k"})[:200]),
        (TYPE, f"--{form.BOUNDARY}\r\nX: y\r\n\r\nvalue\r\n--{form.BOUNDARY}--".encode()),
        (TYPE, f"--{form.BOUNDARY}\r\n{'X' * 9000}\r\n\r\n".encode()),
        (TYPE, b"".join(form.part(f"x-ignore-{n}", b"") for n in range(300))),
    ],
    ids=range(11),
)
def test_what_is_no_form(driver, kind, body):
    open_to_all(driver)
    answer = post(driver, body, kind)
    assert (answer.status, answer.code) == (400, "MalformedPOSTRequest")
    assert driver.keys() == []


def test_a_form_without_a_file(driver):
    answer = post(driver, encode({"key": "k"}, None))
    assert (answer.status, answer.code) == (400, "InvalidArgument")
    assert answer.xml.findtext("ArgumentName") == "file"


# -- POST-2: fields -----------------------------------------------------------------------------
def test_names_in_any_case_and_nothing_counts_behind_the_file(driver):
    open_to_all(driver)
    after = form.part("key", b"other") + form.part("acl", b"public-read-write")
    body = encode({"kEy": "k", "X-Ignore-Me": "x"}, after=after)
    assert post(driver, body).status == 204
    assert driver.keys() == [b"k"]


def test_what_stands_behind_the_file_is_bounded(driver):
    open_to_all(driver)
    some, much = form.part("a", bytes(900_000)), form.part("a", bytes(4_000_000))
    assert post(driver, encode({"key": "k"}, after=some), piece=60_000).status == 204
    answer = post(driver, encode({"key": "l"}, after=much), piece=60_000)
    assert (answer.status, answer.code) == (400, "MalformedPOSTRequest")
    assert driver.body.reads < 30 and driver.keys() == [b"k"]


@pytest.mark.parametrize(
    ("filename", "key"),
    [
        ("f.txt", "a/f.txt"),
        ("C:\\\\some\\\\dir\\\\f.txt", "a/f.txt"),
        ("/etc/../f.txt", "a/f.txt"),
        ("ä b.txt", "a/ä b.txt"),
    ],
)
def test_the_files_name_in_the_key(driver, filename, key):
    open_to_all(driver)
    assert post(driver, encode({"key": "a/${filename}"}, filename=filename)).status == 204
    assert driver.keys() == [key.encode()]


def test_a_key_there_must_be(driver):
    open_to_all(driver)
    answer = post(driver, encode({"acl": "private"}))
    assert (answer.status, answer.code) == (400, "InvalidArgument")
    assert answer.xml.findtext("ArgumentName") == "key"
    assert post(driver, encode({"key": "${filename}"}, filename="")).code == "InvalidArgument"
    assert post(driver, encode({"key": "k" * 1025})).code == "KeyTooLongError"
    assert post(driver, encode({"key": b"\xff"})).code == "InvalidURI"
    assert post(driver, encode([("key", "a"), ("KEY", "b")])).code == "InvalidArgument"


def test_fields_are_bounded(driver):
    open_to_all(driver)
    fields = {"key": "k", "x-amz-meta-a": "v" * 1000}
    assert post(driver, encode({**fields, "x-ignore-a": "v" * 19_000})).status == 204
    refused = "MaxPostPreDataLengthExceededError"
    assert post(driver, encode({**fields, "x-ignore-a": "v" * 21_000})).code == refused
    many = [(f"x-ignore-{n}", "") for n in range(250)]
    long = [(f"x-ignore-{n:040}", "v" * 60) for n in range(210)]
    assert post(driver, encode([("key", "k"), *many])).status == 204
    assert post(driver, encode([("key", "k"), *long]), piece=100).code == refused


# -- POST-3, POST-4, POST-5: signatures ----------------------------------------------------------
@pytest.mark.parametrize("version", [2, 4])
def test_a_signature_is_there_whole_or_not_at_all(driver, version):
    open_to_all(driver)
    whole = signed([KEY, BUCKET], {"key": "k"}, version)
    for name in whole:
        if name != "key":
            answer = post(driver, encode({k: v for k, v in whole.items() if k != name}))
            assert (answer.status, answer.code) == (400, "InvalidArgument"), name
            assert answer.xml.findtext("ArgumentName") == name
            assert f"'{name}'" in answer.xml.findtext("Message")
    assert driver.keys() == []


def test_fields_of_two_signatures(driver):
    both = {**signed([KEY, BUCKET], {"key": "k"}, 2), **signed([KEY, BUCKET], {}, 4)}
    assert post(driver, encode(both)).code == "InvalidArgument"


@pytest.mark.parametrize("version", [2, 4])
def test_a_wrong_signature(driver, version):
    fields = signed([KEY, BUCKET], {"key": "k"}, version, secret="another-secret")
    answer = post(driver, encode(fields))
    assert (answer.status, answer.code) == (403, "SignatureDoesNotMatch")
    assert answer.xml.findtext("StringToSign") == fields["policy"]
    assert answer.xml.findtext("AWSAccessKeyId") == OWNER.access_key
    assert driver.keys() == []


@pytest.mark.parametrize(
    ("field", "value", "code", "argument"),
    [
        ("x-amz-algorithm", "AWS4-HMAC-SHA1", "InvalidArgument", "x-amz-algorithm"),
        ("x-amz-date", "20260101", "InvalidArgument", "x-amz-date"),
        ("x-amz-date", "20130524T000000Z", "InvalidArgument", "x-amz-credential"),
        ("x-amz-credential", "", "InvalidArgument", "x-amz-credential"),
        ("x-amz-credential", "A/20130524/r/s3", "InvalidArgument", "x-amz-credential"),
        ("x-amz-credential", "{k}/{d}/{r}/ec2/aws4_request", "InvalidArgument", "x-amz-credential"),
        ("x-amz-credential", "{k}/{d}/mars/s3/aws4_request", "InvalidArgument", "x-amz-credential"),
        ("x-amz-credential", "{k}/{d}/{r}/s3/aws3_request", "InvalidArgument", "x-amz-credential"),
        ("x-amz-credential", "{k}/x/{r}/s3/aws4_request", "InvalidArgument", "x-amz-credential"),
        ("x-amz-credential", "NOBODY/{d}/{r}/s3/aws4_request", "InvalidAccessKeyId", None),
        ("x-amz-signature", "0", "SignatureDoesNotMatch", None),
        ("x-amz-security-token", "token", "InvalidToken", None),
    ],
)
def test_what_can_be_wrong_with_a_signature(driver, field, value, code, argument):
    fields = signed([KEY, BUCKET], {"key": "k"})
    day = fields["x-amz-date"][:8]
    fields[field] = value.format(k=OWNER.access_key, d=day, r=REGION)
    answer = post(driver, encode(fields))
    assert (answer.code, answer.xml.findtext("ArgumentName")) == (code, argument)
    if "mars" in value:
        assert answer.xml.findtext("Region") == REGION


@pytest.mark.parametrize("days", [-8, 1])
def test_a_signature_of_another_week(driver, days):
    ours = v4_fields(OWNER.access_key, REGION, days)
    encoded = policy(KEY, BUCKET, *[{k: v} for k, v in ours.items()])
    fields = {"key": "k", **sign_v4(encoded, OWNER.secret_key, ours)}
    answer = post(driver, encode(fields))
    assert (answer.status, answer.code) == (403, "AccessDenied")


def test_the_older_signature_can_be_turned_off():
    driver = Driver(form_signature_v2=False)
    driver.bucket()
    assert post(driver, encode(signed([KEY, BUCKET], {"key": "k"}, 2))).code == "InvalidRequest"
    assert post(driver, encode(signed([KEY, BUCKET], {"key": "k"}, 4))).status == 204


def test_a_form_is_signed_in_its_fields_only(driver):
    body = encode(signed([KEY, BUCKET], {"key": "k"}))
    answer = driver.ask("POST", "/bucket", headers={"content-type": TYPE}, body=body)
    assert (answer.status, answer.code) == (400, "InvalidRequest")
    assert driver.keys() == []


# -- POST-6: policies ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    "change",
    [
        {"expiration": None},
        {"conditions": None},
        {"expiration": None, "Expiration": "2126-01-01T00:00:00Z"},
        {"conditions": None, "CONDITIONS": []},
        {"expiration": "tomorrow"},
        {"expiration": 4_000_000_000},
        {"expiration": "2126-01-01"},
        {"conditions": "all"},
        {"conditions": [{}]},
        {"conditions": [[]]},
        {"conditions": [["eq", "$key"]]},
        {"conditions": [["eq", "key", "k"]]},
        {"conditions": [["eq", "$key", 1]]},
        {"conditions": [{"key": 1}]},
        {"conditions": [["matches", "$key", "k"]]},
        {"conditions": [["content-length-range", 1]]},
        {"conditions": [["content-length-range", -1, 5]]},
        {"conditions": [["content-length-range", 5, 1]]},
        {"conditions": [["content-length-range", "a", "b"]]},
        {"conditions": [["content-length-range", 0, True]]},
        {"extra": 1},
    ],
    ids=range(21),
)
def test_a_policy_that_is_none(driver, change):
    encoded = policy(**change)
    answer = post(
        driver,
        encode({"key": "k", **sign_v2(encoded, OWNER.access_key, OWNER.secret_key)}),
    )
    assert (answer.status, answer.code) == (400, "InvalidPolicyDocument")
    assert driver.keys() == []


@pytest.mark.parametrize(
    "encoded", ["", "%%%", base64.b64encode(b"{").decode(), base64.b64encode(b"[" * 9000).decode()]
)
def test_a_policy_that_is_no_json(driver, encoded):
    fields = {"key": "k", **sign_v2(encoded, OWNER.access_key, OWNER.secret_key)}
    assert post(driver, encode(fields)).code == "InvalidPolicyDocument"


def test_names_of_conditions_in_any_case(driver):
    conditions = [{"bUcKeT": "bucket"}, ["StArTs-WiTh", "$KeY", "k"], {"AcL": "private"}]
    fields = signed(conditions, {"kEy": "k", "aCl": "private"})
    assert post(driver, encode(fields)).status == 204


@pytest.mark.parametrize(
    ("conditions", "fields"),
    [
        ([KEY, {"bucket": "other"}], {}),
        ([["eq", "$key", "other"], BUCKET], {}),
        ([["starts-with", "$key", "user/"], BUCKET], {}),
        ([KEY, BUCKET, ["eq", "$x-amz-meta-a", "v"]], {}),
        ([KEY, BUCKET, ["starts-with", "$x-amz-meta-a", "v"]], {"x-amz-meta-a": "w"}),
        ([KEY, BUCKET], {"x-amz-meta-a": "v"}),
        ([KEY, BUCKET], {"acl": "private"}),
        ([KEY, BUCKET], {"success_action_status": "201"}),
        ([BUCKET], {}),
        ([], {}),
        (
            [KEY, BUCKET, ["starts-with", "$Content-Type", "image/"]],
            {"Content-Type": "image/png,text/html"},
        ),
    ],
    ids=range(11),
)
def test_a_form_that_its_policy_does_not_allow(driver, conditions, fields):
    answer = post(driver, encode(signed(conditions, {"key": "k", **fields})))
    assert (answer.status, answer.code) == (403, "AccessDenied")
    assert "Invalid according to Policy" in answer.xml.findtext("Message")
    assert driver.keys() == []


def test_what_a_policy_allows(driver):
    conditions = [
        KEY,
        BUCKET,
        ["starts-with", "$Content-Type", "image/"],
        ["starts-with", "$x-amz-meta-a", ""],
        ["eq", "$success_action_status", "200"],
    ]
    fields = {
        "key": "\\$k",
        "Content-Type": "image/png, image/gif",
        "success_action_status": "200",
        "x-ignore-this": "x",
    }
    assert post(driver, encode(signed(conditions, fields))).status == 200
    assert driver.keys() == [b"\\$k"]


def test_a_policy_expires(driver):
    answer = post(driver, encode(signed([KEY, BUCKET], {"key": "k"}, valid_s=-1)))
    assert (answer.status, answer.code) == (403, "AccessDenied")
    assert answer.xml.findtext("Message").endswith("Policy expired.")


def test_the_policy_is_for_this_bucket(driver):
    driver.bucket("other-bucket")
    fields = signed([KEY, BUCKET], {"key": "k"})
    assert post(driver, encode(fields), path="/other-bucket").code == "AccessDenied"


# -- POST-7: the size ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("least", "most", "code", "named"),
    [
        (0, 4, "EntityTooLarge", "MaxSizeAllowed"),
        ("6", "1000", "EntityTooSmall", "MinSizeAllowed"),
        (5, 5, "", ""),
    ],
)
def test_the_files_size(driver, least, most, code, named):
    conditions = [KEY, BUCKET, ["Content-Length-Range", least, most]]
    answer = post(driver, encode(signed(conditions, {"key": "k"})))
    if not code:
        assert answer.status == 204
        return
    assert (answer.status, answer.code) == (400, code)
    assert answer.xml.findtext("ProposedSize") == "5"
    assert answer.xml.findtext(named) in ("4", "6")
    assert driver.keys() == []


def test_a_file_that_is_too_large_is_not_read_to_its_end(driver):
    conditions = [KEY, BUCKET, ["content-length-range", 0, 100_000]]
    body = encode(signed(conditions, {"key": "k"}), bytes(4_000_000))
    assert post(driver, body, piece=50_000).code == "EntityTooLarge"
    assert driver.body.reads < 10


# -- POST-8: answers ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("wanted", "status"), [("200", 200), ("201", 201), ("204", 204), ("404", 204), ("", 204)]
)
def test_the_status_that_a_form_wants(driver, wanted, status):
    open_to_all(driver)
    answer = post(driver, encode({"key": "a b/ä", "success_action_status": wanted}))
    assert answer.status == status
    location = "http://s3.test/bucket/a%20b%2F%C3%A4"
    assert answer.headers["location"] == location
    assert driver.ask("GET", location.removeprefix("http://s3.test")).body == b"bytes"
    if status != 201:
        assert answer.body == b""
        return
    root = ElementTree.fromstring(answer.body)
    assert root.tag == "PostResponse"
    etag = answer.headers["etag"]
    assert {child.tag: child.text for child in root} == {
        **{"Location": location, "Bucket": "bucket", "Key": "a b/ä", "ETag": etag}
    }


@pytest.mark.parametrize("field", ["success_action_redirect", "redirect"])
@pytest.mark.parametrize("target", ["https://a.example/done", "http://a.example/done?x=1#top"])
def test_a_redirect(driver, field, target):
    open_to_all(driver)
    fields = {"key": "a/k", field: target, "success_action_status": "201"}
    answer = post(driver, encode(fields))
    assert answer.status == 303
    went = urlsplit(answer.headers["location"])
    assert went._replace(query="", fragment="").geturl() == target.partition("?")[0]
    assert went.fragment == urlsplit(target).fragment
    told = parse_qs(went.query)
    etag = f'"{hashlib.md5(b"bytes").hexdigest()}"'
    assert told.pop("x", ["1"]) == ["1"]
    assert told == {"bucket": ["bucket"], "key": ["a/k"], "etag": [etag]}


@pytest.mark.parametrize(
    "target", ["", "/done", "ftp://a/", "https://", "http://[", "http://a/\r\nX: y", "http://ä/"]
)
def test_a_redirect_to_nowhere_counts_as_absent(driver, target):
    open_to_all(driver)
    answer = post(driver, encode({"key": "k", "success_action_redirect": target}))
    assert answer.status == 204
    assert answer.headers["location"] == "http://s3.test/bucket/k"


# -- POST-9: fields that are headers -------------------------------------------------------------
def test_fields_that_are_headers(driver):
    open_to_all(driver)
    shown = {
        "Content-Type": "text/html; charset=utf-8",
        "Cache-Control": "max-age=5",
        "Content-Disposition": 'attachment; filename="a"',
        "Content-Encoding": "gzip",
        "Content-Language": "de",
        "Expires": "Thu, 01 Jan 2099 00:00:00 GMT",
        "x-amz-meta-Name": "ä",
        "x-amz-website-redirect-location": "/there",
    }
    answer = post(driver, encode({"key": "k", **shown, "x-amz-storage-class": "STANDARD"}))
    assert answer.status == 204
    found = driver.ask("GET", "/bucket/k").headers
    assert {name: found[name.lower()].encode("latin-1").decode() for name in shown} == shown


def test_checksums_and_digests_are_of_the_file(driver):
    open_to_all(driver)
    crc = base64.b64encode(zlib.crc32(b"bytes").to_bytes(4, "big")).decode()
    answer = post(driver, encode({"key": "k", "x-amz-checksum-crc32": crc}))
    assert (answer.status, answer.headers["x-amz-checksum-crc32"]) == (204, crc)
    assert (
        post(driver, encode({"key": "l", "x-amz-checksum-crc32": "AAAAAA=="})).code == "BadDigest"
    )
    assert post(driver, encode({"key": "l", "x-amz-checksum-crc32": "x"})).code == "InvalidRequest"
    md5 = base64.b64encode(hashlib.md5(b"bytes").digest()).decode()
    assert post(driver, encode({"key": "m", "Content-MD5": md5})).status == 204
    wrong = base64.b64encode(bytes(16)).decode()
    assert post(driver, encode({"key": "l", "Content-MD5": wrong})).code == "BadDigest"
    assert driver.keys() == [b"k", b"m"]


def test_tags_come_as_a_document(driver):
    tags = "<Tagging><TagSet><Tag><Key>a b</Key><Value>ä+= 1</Value></Tag></TagSet></Tagging>"
    fields = signed([KEY, BUCKET, ["starts-with", "$tagging", ""]], {"key": "k", "tagging": tags})
    assert post(driver, encode(fields)).status == 204
    assert driver.store.standing["bucket", b"k"] == State({"a b": "ä+= 1"})
    fields = signed([KEY, BUCKET, ["starts-with", "$tagging", ""]], {"key": "l", "tagging": "a=b"})
    assert post(driver, encode(fields)).code == "MalformedXML"


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("acl", "public-read", "AccessControlListNotSupported"),
        ("acl", "nobody", "InvalidArgument"),
        ("x-amz-storage-class", "GLACIER", "InvalidStorageClass"),
        ("x-amz-website-redirect-location", "nowhere", "InvalidRedirectLocation"),
        ("x-amz-server-side-encryption", "aws:kms", "NotImplemented"),
        ("x-amz-meta-a", "v\r\nSet-Cookie: x", "InvalidArgument"),
        ("Content-Type", "text/html\r\nX: y", "InvalidArgument"),
        ("x-amz-meta-a b", "v", "InvalidArgument"),
        ("x-amz-meta-a", "v" * 2100, "MetadataTooLarge"),
    ],
)
def test_fields_that_are_refused_as_headers_are(driver, field, value, code):
    open_to_all(driver)
    assert post(driver, encode({"key": "k", field: value})).code == code
    assert driver.keys() == []


@pytest.mark.parametrize(
    "header", ["x-amz-acl", "x-amz-meta-a", "x-amz-tagging", "content-md5", "x-amz-checksum-crc32"]
)
def test_headers_that_no_policy_could_have_allowed(driver, header):
    answer = post(driver, encode(signed([KEY, BUCKET], {"key": "k"})), **{header: "x"})
    assert (answer.status, answer.code) == (400, "InvalidRequest")
    assert answer.xml.findtext("Header") == header
    assert driver.body.reads == 0


def test_headers_of_the_request_are_not_the_objects(driver):
    """Browsers say Cache-Control with every form that they send again."""
    open_to_all(driver)
    headers = {"cache-control": "max-age=0", "expires": "0", "content-language": "de"}
    owner = {"x-amz-expected-bucket-owner": OWNER.id, "x-amz-cf-id": "of a proxy"}
    assert post(driver, encode({"key": "k"}), **headers, **owner).status == 204
    assert driver.record("k").headers == {"content-type": "binary/octet-stream"}
    assert post(driver, encode({"key": "k"}), **{"if-none-match": "*"}).status == 412
    owner["x-amz-expected-bucket-owner"] = OTHER.id
    assert post(driver, encode({"key": "k"}), **owner).code == "AccessDenied"


# -- who may ------------------------------------------------------------------------------------
def test_anonymous_forms_need_a_bucket_that_lets_anybody_write(driver):
    body = encode({"key": "k"})
    assert post(driver, body).code == "AccessDenied"
    assert post(driver, body, path="/none").code == "AccessDenied"
    open_to_all(driver)
    assert post(driver, body).status == 204
    open_to_all(driver, Condition={"StringEquals": {"s3:x-amz-acl": "private"}})
    assert post(driver, body).code == "AccessDenied"
    assert post(driver, encode({"key": "k", "acl": "private"})).status == 204
    tagged = {"key": "k", "tagging": "<Tagging><TagSet/></Tagging>", "acl": "private"}
    assert post(driver, encode(tagged)).status == 204


def test_forms_and_acls(driver):
    owned = {"x-amz-object-ownership": "ObjectWriter", "x-amz-acl": "public-read-write"}
    assert driver.ask("PUT", "/shared", headers=owned).status == 200
    assert post(driver, encode({"key": "k", "acl": "private"}), path="/shared").status == 204
    conditions = [KEY, {"bucket": "shared"}, {"acl": "public-read"}]
    fields = signed(conditions, {"key": "l", "acl": "public-read"})
    assert post(driver, encode(fields), path="/shared").status == 204
    assert driver.ask("GET", "/shared/l", account=None).status == 200
    assert driver.ask("GET", "/shared/k", account=None).code == "AccessDenied"


def test_a_host_decides_about_forms_too():
    host = Host()
    driver = Driver(authorizer=host)
    driver.bucket()
    assert post(driver, encode({"key": "a"})).code == "AccessDenied"
    host.answers["s3:PutObject"] = Decision.ALLOW
    assert post(driver, encode({"key": "a"})).status == 204
    asked = AccessQuestion(None, "PostObject", "s3:PutObject", "bucket", "a")
    assert host.asked[-1] == asked
    host.answers["s3:PutObject"] = Decision.DENY
    assert post(driver, encode(signed([KEY, BUCKET], {"key": "k"}))).code == "AccessDenied"


@pytest.mark.slow
@given(st.data())
@settings(max_examples=150)
def test_a_form_that_was_tampered_with_is_refused_or_stored(data):
    """Whatever bytes come, in whatever pieces: no failure of ours, and nothing but whole files."""
    driver = Driver()
    driver.bucket()
    open_to_all(driver)
    body = bytearray(encode({"key": "k", "acl": "private"}, b"\r\n--file--\r\n" * 3))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(body)))
        gone = data.draw(st.integers(0, 4))
        body[at : at + gone] = data.draw(
            st.binary(max_size=4) | st.sampled_from([b"\r\n", b"--", form.BOUNDARY.encode()])
        )
    answer = post(driver, bytes(body), piece=data.draw(st.sampled_from([1, 3, 50, 9999])))
    assert answer.status < 500
    assert (answer.status == 204) == (len(driver.keys()) == 1)


def test_a_signer_must_be_allowed_to_write(driver):
    fields = signed([KEY, ["starts-with", "$bucket", ""]], {"key": "k"})
    assert post(driver, encode(fields), path="/none").code == "NoSuchBucket"
    config = driver.store.rows["bucket"].config
    assert POLICY not in config.documents
    deny = {"Effect": "Deny", "Condition": {"StringEquals": {"s3:authType": "POST"}}}
    open_to_all(driver, **deny)
    assert post(driver, encode(fields)).code == "AccessDenied"
    assert driver.put("k").status == 200
