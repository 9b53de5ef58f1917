"""DeleteObject and DeleteObjects: DEL-1 to DEL-5, SUM-7."""

from __future__ import annotations

import base64
import hashlib
from xml.sax.saxutils import escape

import pytest

from ingot.bucket.model import KeyRefused
from ingot.errors import Unavailable
from ingot.s3.dates import http_date
from tests.s3.driver import NAMESPACE, OTHER, Driver


@pytest.fixture
def driver():
    made = Driver()
    made.bucket()
    for key in ("a", "b", "c"):
        made.put(key, key.encode())
    return made


def delete(driver, body, headers=None, query="delete", **settings):
    if isinstance(body, str):
        body = body.encode()
    md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
    headers = {"content-md5": md5} if headers is None else headers
    return driver.ask("POST", "/bucket", query, headers, body, **settings)


def listed(*keys, quiet=None, extra=""):
    objects = "".join(f"<Object><Key>{escape(key)}</Key>{extra}</Object>" for key in keys)
    said = "" if quiet is None else f"<Quiet>{quiet}</Quiet>"
    return f"<Delete>{said}{objects}</Delete>"


def test_del_1_deleting_is_idempotent(driver):
    for _ in range(2):
        answer = driver.ask("DELETE", "/bucket/a")
        assert (answer.status, answer.body) == (204, b"")
        assert "x-amz-delete-marker" not in answer.headers
    assert driver.keys() == [b"b", b"c"]
    assert driver.ask("DELETE", "/absent/a").code == "NoSuchBucket"


def test_del_1_versions_of_an_unversioned_bucket(driver):
    assert driver.ask("DELETE", "/bucket/a", "versionId=01G65Z755AFWAKHE12NY0CQ9FH").status == 204
    assert driver.ask("DELETE", "/bucket/a", "versionId=bad_id").code == "InvalidArgument"
    assert driver.keys() == [b"a", b"b", b"c"]
    assert driver.ask("DELETE", "/bucket/a", "versionId=null").status == 204
    assert driver.keys() == [b"b", b"c"]


@pytest.mark.parametrize(
    ("key", "headers", "status", "code"),
    [
        ("a", {"if-match": "ETAG"}, 204, None),
        ("a", {"if-match": '"ETAG"'}, 204, None),
        ("a", {"if-match": "*"}, 204, None),
        ("a", {"if-match": '"x"'}, 412, "PreconditionFailed"),
        ("none", {"if-match": "*"}, 404, "NoSuchKey"),
        ("none", {"if-match": '"x"'}, 404, "NoSuchKey"),
        ("a", {"x-amz-if-match-size": "1"}, 204, None),
        ("a", {"x-amz-if-match-size": "2"}, 412, "PreconditionFailed"),
        ("none", {"x-amz-if-match-size": "2"}, 204, None),
        ("a", {"x-amz-if-match-last-modified-time": "TIME"}, 204, None),
        ("a", {"x-amz-if-match-last-modified-time": http_date(0)}, 412, "PreconditionFailed"),
        ("a", {"x-amz-if-match-last-modified-time": "never"}, 400, "InvalidArgument"),
    ],
)
def test_del_2_conditions(driver, key, headers, status, code):
    record = driver.record("a")
    known = {"ETAG": record.etag, "TIME": http_date(record.created_ms)}
    for word, value in known.items():
        headers = {name: text.replace(word, value) for name, text in headers.items()}
    answer = driver.ask("DELETE", f"/bucket/{key}", headers=headers)
    assert answer.status == status
    if code:
        assert answer.code == code
    assert (b"a" in driver.keys()) == (status != 204 or key != "a")


def test_del_2_is_decided_at_the_commit(driver):
    """The object is replaced after its size was looked at."""
    driver.store.before_commit.append(lambda: setattr(driver.record("a"), "etag", "new"))
    answer = driver.ask("DELETE", "/bucket/a", headers={"x-amz-if-match-size": "1"})
    assert (answer.status, answer.code) == (412, "PreconditionFailed")
    assert b"a" in driver.keys()


def test_del_3_one_commit_and_an_answer_each(driver):
    driver.store.commits.clear()
    answer = delete(driver, listed("c", "none", "a", "a"))
    assert answer.status == 200
    assert answer.texts("Deleted/Key") == ["c", "none", "a", "a"]
    assert driver.keys() == [b"b"]
    assert driver.store.commits == [("bucket", [b"c", b"none", b"a", b"a"])]


def test_del_3_quiet(driver):
    answer = delete(driver, listed("a", "k" * 1025, quiet="true"))
    assert answer.texts("Deleted/Key") == []
    assert answer.texts("Error/Code") == ["KeyTooLongError"]
    assert driver.keys() == [b"b", b"c"]


def test_del_3_keys_are_unescaped(driver):
    key = "x <&>\"'\u00e9\r\n\t"
    driver.store.objects["bucket"][key.encode()] = driver.record("a")
    reference = escape(key).replace("\r", "&#13;").replace("\n", "&#xA;").replace("\t", "&#9;")
    body = f'<Delete xmlns="urn:any"><Object><Key>{reference}</Key></Object></Delete>'
    answer = delete(driver, body)
    assert answer.texts("Deleted/Key") == [key]
    assert driver.keys() == [b"a", b"b", b"c"]


CONTROLS = [*range(1, 9), 0xB, 0xC, *range(0xE, 0x20), 0xFFFE, 0xFFFF]


def test_del_3_controls_come_as_references(driver):
    """Which no parser of XML 1.0 takes. Beside them stand characters like those that stand for
    them meanwhile."""
    hexed = "".join(f"&#x{code:x};" for code in CONTROLS)
    numbers = "".join(f"&#{code:05};" for code in CONTROLS)
    odd = "&#xF0001;&#983105;\U000f0085&#13;&#x41;"
    keys = [name + text for name, text in (("x", hexed), ("n", numbers), ("o", odd + "&#1;"))]
    body = "".join(f"<Object><Key>{key}</Key></Object>" for key in keys)
    controls = "".join(map(chr, CONTROLS))
    meant = ["x" + controls, "n" + controls, "o\U000f0001\U000f0041\U000f0085\rA\x01", "b"]
    for key in meant:
        driver.store.objects["bucket"][key.encode()] = driver.record("a")
    body = f"<Delete>{body}<Object><Key>b</Key></Object></Delete>"
    answer = delete(driver, body)
    assert answer.status == 200
    text = answer.body.decode()
    assert text.count("<Deleted>") == 4 and "o\U000f0001\U000f0041\U000f0085&#13;A&#1;<" in text
    assert driver.keys() == [b"a", b"c"]


@pytest.mark.parametrize(
    "key",
    [
        *("&#0;", "&#x1F;&#x0;", "<![CDATA[&#1;]]>&#1;", "<!-- -->&#1;", "&#1", "&#x1", "&# 1;"),
        *("&#xD800;&#1;", "&#x110000;&#1;", "&#1;" * 10_001),
    ],
)
def test_del_3_what_is_no_reference_to_a_control(driver, key):
    answer = delete(driver, f"<Delete><Object><Key>{key}</Key></Object></Delete>")
    assert answer.code == "MalformedXML"


def test_del_3_versions(driver):
    body = (
        "<Delete><Object><Key>a</Key><VersionId>null</VersionId></Object>"
        "<Object><Key>b</Key><VersionId>01G65Z755AFWAKHE12NY0CQ9FH</VersionId></Object>"
        "<Object><Key>c</Key><VersionId>bad_id</VersionId></Object></Delete>"
    )
    answer = delete(driver, body)
    assert answer.texts("Deleted/VersionId") == ["null", "01G65Z755AFWAKHE12NY0CQ9FH"]
    assert answer.texts("Error/Key") == ["c"]
    assert answer.texts("Error/Code") == ["InvalidArgument"]
    assert driver.keys() == [b"b", b"c"]


def test_del_3_conditions_of_entries_fail_alone(driver):
    etag = driver.record("a").etag
    body = (
        f"<Delete><Object><Key>a</Key><ETag>&quot;{etag}&quot;</ETag><Size>1</Size></Object>"
        "<Object><Key>b</Key><ETag>x</ETag></Object>"
        "<Object><Key>c</Key><Size>7</Size></Object>"
        "<Object><Key>none</Key><ETag>x</ETag></Object></Delete>"
    )
    answer = delete(driver, body)
    assert answer.texts("Deleted/Key") == ["a"]
    assert answer.texts("Error/Key") == ["b", "c", "none"]
    assert answer.texts("Error/Code") == ["PreconditionFailed", "PreconditionFailed", "NoSuchKey"]
    assert driver.keys() == [b"b", b"c"]


def test_del_4_a_key_the_store_refuses_fails_alone(driver, monkeypatch):
    async def refuse(bucket, removals, seen):
        return [KeyRefused("too deep") if each.key == b"b" else None for each in removals]

    monkeypatch.setattr(driver.store, "remove", refuse)
    answer = delete(driver, listed("a", "b", "c"))
    assert answer.texts("Deleted/Key") == ["a", "c"]
    assert answer.texts("Error/Message") == ["too deep"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("<Delete></Delete>", "MalformedXML"),
        ("<Delete><Quiet>true</Quiet></Delete>", "MalformedXML"),
        ("<Delete><Object></Object></Delete>", "MalformedXML"),
        ("<Delete><Object><Key/></Object></Delete>", "MalformedXML"),
        ("<Other/>", "MalformedXML"),
        ("no xml", "MalformedXML"),
        ("", "MissingRequestBodyError"),
        (listed(*map(str, range(1001))), "MalformedXML"),
    ],
)
def test_del_3_malformed(driver, body, code):
    answer = delete(driver, body)
    assert (answer.status, answer.code) == (400, code)
    assert len(driver.keys()) == 3


def test_del_5_a_thousand_long_keys_pass_and_more_bytes_do_not(driver):
    keys = [f"{number:04d}" + "&x" * 510 for number in range(1000)]
    assert len(delete(driver, listed(*keys)).texts("Deleted/Key")) == 1000
    answer = delete(driver, b"<Delete>" + b" " * (4 << 20))
    assert answer.code == "MaxMessageLengthExceeded"


def test_sum_7_a_digest_is_required_and_verified(driver):
    body = listed("a").encode()
    assert delete(driver, body, {}).code == "InvalidRequest"
    assert delete(driver, body, {"x-amz-checksum-crc32": "AAAAAA=="}).code == "BadDigest"
    wrong = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    assert delete(driver, body, {"content-md5": wrong}).code == "BadDigest"
    assert len(driver.keys()) == 3
    good = base64.b64encode(hashlib.sha256(body).digest()).decode()
    assert delete(driver, body, {"x-amz-checksum-sha256": good}).status == 200


def test_the_whole_request_fails_when_the_commit_does(driver):
    driver.store.failures = [Unavailable("later")]
    assert delete(driver, listed("a")).code == "SlowDown"
    assert delete(driver, listed("a"), account=OTHER).code == "AccessDenied"
    assert len(driver.keys()) == 3


def test_spelled_as_s5cmd_does(driver):
    assert delete(driver, listed("a"), query="delete=").status == 200


def test_with_boto3(driver):
    client = driver.client()
    answer = client.delete_objects(
        Bucket="bucket", Delete={"Objects": [{"Key": "a"}, {"Key": "b"}]}
    )
    assert [entry["Key"] for entry in answer["Deleted"]] == ["a", "b"]
    client.delete_object(Bucket="bucket", Key="c")
    assert driver.keys() == []


def test_the_answer_is_namespaced(driver):
    assert delete(driver, listed("a")).xml.tag == NAMESPACE + "DeleteResult"
