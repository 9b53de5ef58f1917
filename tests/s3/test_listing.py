"""ListObjects, ListObjectsV2, ListObjectVersions: LIST-1 to LIST-15, VER-1 to VER-5."""

from __future__ import annotations

from urllib.parse import quote, unquote, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.bucket.record import Record
from ingot.s3.dates import iso
from ingot.s3.errors import S3Error
from ingot.s3.listing import decode_token, encode_token, group_of
from tests.s3.driver import OWNER, Driver
from tests.s3.fake_store import body_of

DELIMITED = ["a", "a/b", "a/c", "b", "b/", "b/x", "c/d/e", "c/f", "d"]


def filled(keys):
    driver = Driver()
    driver.bucket()
    body = body_of(b"x", ("crc64nvme",))
    for key in keys:
        raw = key.encode() if isinstance(key, str) else key
        driver.store.objects["bucket"][raw] = Record(
            raw, body, "e", driver.clock.ms, checksums=body.checksums
        )
    return driver


@pytest.fixture
def driver():
    return filled(DELIMITED)


def ask(driver, **parameters):
    query = urlencode({k.replace("_", "-"): v for k, v in parameters.items()}, quote_via=quote)
    answer = driver.ask("GET", "/bucket", query)
    assert answer.status == 200, answer.body
    return answer


def v2(driver, **parameters):
    return ask(driver, list_type="2", **parameters)


def keys(answer):
    return answer.texts("Contents/Key"), answer.texts("CommonPrefixes/Prefix")


def walk(driver, version, **parameters):
    """All pages: (item, is a group) in the order of the pages, and how many pages."""
    found, cursor, pages = [], {}, 0
    while True:
        answer = (v2 if version == 2 else ask)(driver, **parameters, **cursor)
        contents, groups = keys(answer)
        items = [(key, False) for key in contents] + [(group, True) for group in groups]
        found += sorted(items, key=lambda item: item[0].encode())
        pages += 1
        assert len(items) <= int(answer.text("MaxKeys"))
        if answer.text("IsTruncated") == "false":
            assert answer.text("NextContinuationToken") is None
            assert answer.text("NextMarker") is None
            return found, pages
        assert items, "a page with nothing on it leads on"
        if version == 2:
            cursor = {"continuation_token": answer.text("NextContinuationToken")}
        else:
            cursor = {"marker": answer.text("NextMarker") or contents[-1]}


def grouped(listed, prefix, delimiter):
    """What a listing must show, from the words of LIST-7."""
    found = []
    for key in sorted(listed, key=str.encode):
        if not key.startswith(prefix):
            continue
        at = key.find(delimiter, len(prefix)) if delimiter else -1
        item = (key[: at + len(delimiter)], True) if at >= 0 else (key, False)
        if item not in found:
            found.append(item)
    return found


def test_list_11_entries(driver):
    entry = v2(driver, prefix="d")
    ns = "Contents/"
    assert entry.text(ns + "Key") == "d"
    assert entry.text(ns + "LastModified") == iso(driver.clock.ms)
    assert entry.text(ns + "ETag") == '"e"'
    assert entry.text(ns + "Size") == "1"
    assert entry.text(ns + "StorageClass") == "STANDARD"
    assert entry.text(ns + "ChecksumAlgorithm") == "CRC64NVME"
    assert entry.text(ns + "ChecksumType") == "FULL_OBJECT"
    assert entry.text(ns + "Owner/ID") is None
    assert v2(driver, prefix="d", fetch_owner="true").text(ns + "Owner/ID") == OWNER.id
    assert ask(driver, prefix="d").text(ns + "Owner/DisplayName") == OWNER.display_name


def test_get_2_the_listing_and_head_show_one_time():
    driver = filled(["k"])
    driver.record("k").created_ms = 1_700_000_000_999
    assert v2(driver).text("Contents/LastModified") == "2023-11-14T22:13:20.000Z"
    head = driver.ask("HEAD", "/bucket/k").headers["last-modified"]
    assert head == "Tue, 14 Nov 2023 22:13:20 GMT"


def test_list_1_max_keys(driver):
    assert ask(driver, max_keys="5000").text("MaxKeys") == "1000"
    assert ask(driver, max_keys="").text("MaxKeys") == "1000"
    nothing = ask(driver, max_keys="0")
    assert (keys(nothing), nothing.text("IsTruncated")) == (([], []), "false")
    for value in ("-1", "x", "1.5", "99999999999", "+1", "1_0"):
        answer = driver.ask("GET", "/bucket", urlencode({"max-keys": value}))
        assert (answer.status, answer.code) == (400, "InvalidArgument")
        assert answer.xml.findtext("ArgumentName") == "max-keys"


@pytest.mark.parametrize("version", [1, 2])
def test_list_2_and_3_groups_count_and_truncation_is_exact(driver, version):
    listing = v2 if version == 2 else ask
    everything = grouped(DELIMITED, "", "/")
    for limit in range(1, len(everything) + 2):
        answer = listing(driver, delimiter="/", max_keys=str(limit))
        contents, groups = keys(answer)
        assert len(contents) + len(groups) == min(limit, len(everything))
        assert answer.text("IsTruncated") == ("true" if limit < len(everything) else "false")
        assert walk(driver, version, delimiter="/", max_keys=str(limit))[0] == everything


def test_list_4_v1_markers(driver):
    first = ask(driver, max_keys="2")
    assert first.text("Marker") == "" and first.text("NextMarker") is None
    assert first.text("IsTruncated") == "true"
    grouped_page = ask(driver, delimiter="/", max_keys="2")
    assert grouped_page.text("NextMarker") == "a/"
    assert keys(ask(driver, marker="b/x"))[0] == ["c/d/e", "c/f", "d"]


def test_list_5_a_finished_group_never_comes_back(driver):
    """The marker and the start "a/" stand behind the group, "a/b" stands in it."""
    assert keys(ask(driver, delimiter="/", marker="a/")) == (["b", "d"], ["b/", "c/"])
    assert keys(v2(driver, delimiter="/", start_after="a/b")) == (["b", "d"], ["a/", "b/", "c/"])
    assert keys(v2(driver, delimiter="/", start_after="a/c")) == (["b", "d"], ["b/", "c/"])
    assert keys(v2(driver, delimiter="/", start_after="a/")) == (["b", "d"], ["b/", "c/"])
    inside = v2(driver, prefix="a/", delimiter="/", start_after="a/")
    assert keys(inside) == (["a/b", "a/c"], []), "that is no group there"
    last = v2(driver, delimiter="/", start_after="b/", max_keys="2")
    assert (keys(last), last.text("IsTruncated")) == ((["d"], ["c/"]), "false")
    assert keys(ask(driver, delimiter="/", marker="a/b")) == (["b", "d"], ["a/", "b/", "c/"])
    only = v2(driver, delimiter="/", start_after="a/b", max_keys="1")
    assert (keys(only), only.text("IsTruncated")) == (([], ["a/"]), "true")
    token = only.text("NextContinuationToken")
    assert keys(v2(driver, delimiter="/", continuation_token=token)) == (["b", "d"], ["b/", "c/"])
    last = v2(driver, delimiter="/", prefix="c", start_after="c/d", max_keys="1")
    assert (keys(last), last.text("IsTruncated")) == (([], ["c/"]), "false")


def test_list_6_v2_echoes(driver):
    answer = v2(driver, prefix="c/", delimiter="/", start_after="b", max_keys="7")
    shown = {name: answer.text(name) for name in ("Name", "Prefix", "Delimiter", "StartAfter")}
    assert shown == {"Name": "bucket", "Prefix": "c/", "Delimiter": "/", "StartAfter": "b"}
    assert (answer.text("MaxKeys"), answer.text("KeyCount")) == ("7", "2")
    assert answer.text("ContinuationToken") is None
    empty = v2(driver, continuation_token="", start_after="c")
    assert empty.text("ContinuationToken") == ""
    assert keys(empty)[0] == ["c/d/e", "c/f", "d"]
    token = v2(driver, max_keys="1").text("NextContinuationToken")
    both = v2(driver, continuation_token=token, start_after="zzz")
    assert both.text("ContinuationToken") == token and keys(both)[0][0] == "a/b"
    assert v2(driver, delimiter="").text("Delimiter") is None
    assert v2(driver, prefix="nothing").text("KeyCount") == "0"


def test_list_6_list_type(driver):
    answer = driver.ask("GET", "/bucket", "list-type=3")
    assert answer.code == "InvalidArgument"


@pytest.mark.parametrize("token", ["x", "!!!!", "AWs", "AWtiY", "Ag", "é", "AWti YQ"])
def test_list_6_unreadable_tokens(driver, token):
    answer = driver.ask("GET", "/bucket", "list-type=2&continuation-token=" + quote(token))
    assert (answer.status, answer.code) == (400, "InvalidArgument")
    assert answer.xml.findtext("Message") == "The continuation token provided is incorrect"


@given(st.binary(min_size=1, max_size=60), st.booleans())
def test_tokens_come_back(key, group):
    assert decode_token(encode_token(key, group).encode()) == (key, group)


@given(st.binary(max_size=30))
def test_any_token_is_read_or_refused(token):
    try:
        key, group = decode_token(token)
    except S3Error as error:
        assert error.code == "InvalidArgument"
        return
    assert encode_token(key, group).encode() == token.rstrip(b"=")


@pytest.mark.parametrize(
    ("prefix", "delimiter"),
    [
        *(("", "/"), ("a", "/"), ("a/", "/"), ("b/", "/"), ("c/", "/"), ("", "xx"), ("zz", "/")),
        *(("", "%"), ("", " "), ("", "\n"), ("", "é"), ("c/d", "/"), ("", ""), ("c/d/e", "/")),
    ],
)
def test_list_7_groups(prefix, delimiter):
    names = [*DELIMITED, "x%y", "x z", "m\nn", "éé", "wxxwxx", "wxxv"]
    driver = filled(names)
    for version in (1, 2):
        found, _ = walk(driver, version, prefix=prefix, delimiter=delimiter)
        assert found == grouped(names, prefix, delimiter)


KEYS = st.lists(st.text("ab/é", min_size=1, max_size=5), unique=True, max_size=12)


@settings(max_examples=60, deadline=None)
@given(KEYS, st.text("ab/", max_size=2), st.sampled_from(["", "/", "b", "//"]), st.integers(1, 4))
def test_list_12_pages_put_together_are_the_listing(names, prefix, delimiter, limit):
    driver = filled(names)
    parameters = {"prefix": prefix, "delimiter": delimiter, "max_keys": str(limit)}
    wanted = grouped(names, prefix, delimiter)
    found, pages = walk(driver, 2, **parameters)
    assert found == wanted and pages == max(1, -(-len(wanted) // limit))
    assert walk(driver, 1, **parameters)[0] == wanted


@settings(max_examples=20, deadline=None)
@given(KEYS.filter(bool), KEYS, st.integers(1, 3), st.sampled_from([1, 2]))
def test_list_12_what_stays_is_listed_once_whatever_changes(stays, others, limit, version):
    driver = filled(stays)
    held = driver.store.objects["bucket"]
    record = held[stays[0].encode()]
    changing = [name for name in others if name not in stays]
    found, cursor, more = [], {}, True
    while more:
        answer = (v2 if version == 2 else ask)(driver, max_keys=str(limit), **cursor)
        found += keys(answer)[0]
        more = answer.text("IsTruncated") == "true"
        if version == 2:
            cursor = {"continuation_token": answer.text("NextContinuationToken")}
        elif more:
            cursor = {"marker": found[-1]}
        for name in map(str.encode, changing):
            if held.pop(name, None) is None:
                held[name] = record
    assert [name for name in found if name in stays] == sorted(stays, key=str.encode)
    assert len(set(found)) == len(found)


@settings(max_examples=60, deadline=None)
@given(KEYS, st.text("ab/", max_size=1), st.sampled_from(["", "/"]), st.text("ab/", max_size=4))
def test_list_5_start_after_is_the_listing_of_the_keys_behind_it(names, prefix, delimiter, start):
    driver = filled(names)
    behind = [name for name in names if name.encode() > start.encode()]
    found, _ = walk(driver, 2, prefix=prefix, delimiter=delimiter, start_after=start, max_keys="2")
    assert found == [item for item in grouped(behind, prefix, delimiter) if item != (start, True)]


def test_list_14_order_is_by_bytes():
    names = ["\uffee", "\U00010000", "z", "é", "Z"]
    assert keys(v2(filled(names)))[0] == sorted(names, key=str.encode)


ODD = ["a b", "a+b", "a%b", "a&<>\"'b", "é/x", "t\tab", "n\nl", "c\rr"]


def test_list_10_odd_keys_without_encoding():
    assert keys(v2(filled(ODD)))[0] == sorted(ODD, key=str.encode)
    raw = ask(filled(["x\x01y", "\ufffe"])).response.body
    assert b"x&#1;y" in raw and b"&#65534;" in raw


def test_list_8_url_encoding():
    driver = filled([*ODD, "x\x01y"])
    answer = v2(driver, encoding_type="url", delimiter="/", prefix="", start_after=" ")
    contents, groups = keys(answer)
    assert answer.text("EncodingType") == "url"
    assert [unquote(key) for key in contents] == sorted({*ODD, "x\x01y"} - {"é/x"}, key=str.encode)
    assert groups == ["%C3%A9/"]
    assert (answer.text("Delimiter"), answer.text("StartAfter")) == ("/", "%20")
    assert "a%20b" in contents and "a%2Bb" in contents
    bad = driver.ask("GET", "/bucket", "encoding-type=base64")
    assert bad.code == "InvalidArgument"


@pytest.mark.parametrize("encoded", [{}, {"encoding_type": "url"}])
def test_list_10_a_group_that_ends_inside_a_character(encoded):
    """A delimiter is bytes, and need not be text."""
    contents, groups = keys(v2(filled(["éa", "b"]), delimiter=b"\xc3", **encoded))
    assert (contents, groups) == (["b"], ["%C3"] if encoded else ["\ufffd"])


def test_list_9_v1_leaves_the_prefix_as_it_is():
    answer = ask(filled(ODD), encoding_type="url", prefix="a+", marker="a ", delimiter="+")
    assert (answer.text("Prefix"), answer.text("Marker")) == ("a+", "a%20")
    assert answer.text("Delimiter") == "%2B"
    assert ask(filled(ODD), encoding_type="url", prefix="a\x01").text("Prefix") == "a%01"


def test_list_15_absent_and_empty(driver):
    assert driver.ask("GET", "/absent").code == "NoSuchBucket"
    empty = Driver()
    empty.bucket()
    answer = v2(empty)
    assert (keys(answer), answer.text("KeyCount")) == (([], []), "0")


def test_ver_1_to_5_versions_of_an_unversioned_bucket(driver):
    answer = driver.ask("GET", "/bucket", "versions&delimiter=%2F&max-keys=3")
    assert answer.texts("Version/Key") == ["a", "b"]
    assert answer.texts("Version/VersionId") == ["null", "null"]
    assert answer.texts("Version/IsLatest") == ["true", "true"]
    assert answer.texts("Version/Owner/ID") == [OWNER.id] * 2
    assert answer.texts("CommonPrefixes/Prefix") == ["a/"]
    assert (answer.text("KeyMarker"), answer.text("VersionIdMarker")) == ("", "")
    assert answer.text("NextKeyMarker") == "b" and answer.text("NextVersionIdMarker") == "null"
    rest = driver.ask(
        "GET", "/bucket", "versions&delimiter=%2F&key-marker=b&version-id-marker=null"
    )
    assert rest.texts("Version/Key") == ["d"]
    assert rest.texts("CommonPrefixes/Prefix") == ["b/", "c/"]
    group = driver.ask("GET", "/bucket", "versions&delimiter=%2F&max-keys=2")
    assert group.text("NextKeyMarker") == "a/" and group.text("NextVersionIdMarker") is None
    for query in ("version-id-marker=null", "key-marker=a&version-id-marker=bad_id"):
        assert driver.ask("GET", "/bucket", "versions&" + query).code == "InvalidArgument"
    assert driver.ask("GET", "/bucket", "versions&version-id-marker=").status == 200


def test_group_of():
    assert group_of(b"a/b/c", b"a/", b"/") == b"a/b/"
    assert (
        group_of(b"a/b", b"x", b"/")
        == group_of(b"ab", b"", b"/")
        == group_of(b"a", b"", b"")
        == b""
    )


def test_boto3_pages_and_tears_down(driver):
    client = driver.client()
    for name in ("list_objects", "list_objects_v2"):
        pages = client.get_paginator(name).paginate(
            Bucket="bucket", Delimiter="/", PaginationConfig={"PageSize": 2}
        )
        pages = list(pages)
        assert [k["Key"] for p in pages for k in p.get("Contents", [])] == ["a", "b", "d"]
        groups = [g["Prefix"] for page in pages for g in page.get("CommonPrefixes", [])]
        assert groups == ["a/", "b/", "c/"]
    for page in client.get_paginator("list_object_versions").paginate(Bucket="bucket"):
        doomed = [{"Key": v["Key"], "VersionId": v["VersionId"]} for v in page["Versions"]]
        assert not client.delete_objects(Bucket="bucket", Delete={"Objects": doomed}).get("Errors")
    client.delete_bucket(Bucket="bucket")


def test_a_page_of_a_thousand_keys():
    """Not a benchmark: all of a long page is there, in order."""
    names = [f"photos/2026/11/22/IMG_{number:08d}.jpeg" for number in range(1001)]
    driver = filled(names)
    answer = v2(driver)
    assert answer.texts("Contents/Key") == names[:1000] and answer.text("IsTruncated") == "true"
