"""Headers of objects: PUT-2, PUT-3, PUT-5 to PUT-7, CHK-6, GET-7."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.bucket.record import Record
from ingot.messages import Body
from ingot.s3.errors import S3Error
from ingot.s3.headers import object_headers, override_headers, write_headers

NOW = 1_700_000_000_000


def written(**headers):
    return write_headers({n.encode(): v for n, v in headers.items()}, NOW)


def refused(**headers):
    with pytest.raises(S3Error) as caught:
        written(**headers)
    return caught.value


def test_put_2_the_default_type_and_what_is_stored():
    assert written(host=b"x").headers == {"content-type": "binary/octet-stream"}
    stored = written(
        **{"content-type": b"not a / type", "cache-control": b"no-store", "expires": b"never"},
        **{"content-disposition": b"x", "content-language": b"de", "content-encoding": b"gzip"},
        **{"x-amz-date": b"d", "content-length": b"3"},
    )
    assert stored.headers == {
        **{"content-type": "not a / type", "cache-control": "no-store", "expires": "never"},
        **{"content-disposition": "x", "content-language": "de", "content-encoding": "gzip"},
    }


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        (b"aws-chunked", None),
        (b"gzip,aws-chunked", "gzip"),
        (b"aws-chunked, gzip", "gzip"),
        (b"AWS-Chunked", None),
        (b"gzip", "gzip"),
        (b"", None),
        (b"a, b", "a,b"),
    ],
)
def test_chk_6_the_framing_is_not_stored(sent, stored):
    assert written(**{"content-encoding": sent}).headers.get("content-encoding") == stored


@given(st.binary(max_size=60).filter(lambda v: not any(b < 32 or b == 127 for b in v)))
def test_put_3_metadata_comes_back_byte_for_byte(value):
    stored = written(**{"x-amz-meta-a_b": value, "x-amz-meta-empty": b""})
    record = Record(b"k", Body(0, None, None), "e", NOW, stored.headers, stored.metadata)
    shown = dict(object_headers(record))
    assert shown[b"x-amz-meta-a_b"] == value
    assert shown[b"x-amz-meta-empty"] == b""


@pytest.mark.parametrize("value", [b"a\nb", b"a\rb", b"\x00", b"\x7f"])
def test_put_3_control_characters(value):
    assert refused(**{"x-amz-meta-a": value}).code == "InvalidArgument"


def test_name_9_two_kib_of_metadata():
    written(**{"x-amz-meta-abc": b"x" * 2045})
    error = refused(**{"x-amz-meta-abc": b"x" * 2046})
    assert error.code == "MetadataTooLarge"
    assert error.elements == {"Size": "2049", "MaxSizeAllowed": "2048"}


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("x-amz-acl", b"nonsense", "InvalidArgument"),
        ("x-amz-storage-class", b"GLACIER", "InvalidStorageClass"),
        ("x-amz-tagging", b"a=b&a=c", "InvalidArgument"),
        ("x-amz-tagging", b"a=%zz", "InvalidArgument"),
        ("x-amz-tagging", b"&".join([b"%d=x" % n for n in range(11)]), "BadRequest"),
        ("x-amz-server-side-encryption", b"aws:kms", "NotImplemented"),
        ("x-amz-server-side-encryption", b"aws:kms:dsse", "NotImplemented"),
        ("x-amz-server-side-encryption", b"DES", "InvalidEncryptionAlgorithmError"),
        ("x-amz-server-side-encryption-aws-kms-key-id", b"k", "NotImplemented"),
        ("x-amz-server-side-encryption-bucket-key-enabled", b"true", "NotImplemented"),
        ("x-amz-server-side-encryption-customer-algorithm", b"AES256", "NotImplemented"),
        ("x-amz-server-side-encryption-customer-key", b"k", "NotImplemented"),
        ("x-amz-copy-source-server-side-encryption-customer-key", b"k", "NotImplemented"),
        ("x-amz-website-redirect-location", b"nowhere", "InvalidRedirectLocation"),
        ("x-amz-website-redirect-location", b"/there\nX: y", "InvalidRedirectLocation"),
        ("x-amz-write-offset-bytes", b"0", "NotImplemented"),
        ("x-amz-object-lock-legal-hold", b"MAYBE", "InvalidArgument"),
        ("x-amz-object-lock-mode", b"GOVERNANCE", "InvalidArgument"),
        ("x-amz-object-lock-retain-until-date", b"2099-01-01T00:00:00Z", "InvalidArgument"),
    ],
)
def test_put_4_to_7_nothing_is_dropped_in_silence(name, value, code):
    """PUT-6: there is one storage class, and a redirect leads to a path or a URL."""
    error = refused(**{name: value})
    assert error.code == code
    if code == "NotImplemented":
        assert error.elements["Header"] == name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("x-amz-acl", b"private"), ("x-amz-acl", b"bucket-owner-full-control")),
        *(("x-amz-storage-class", b"STANDARD"), ("x-amz-tagging", b"")),
        ("x-amz-server-side-encryption-bucket-key-enabled", b"false"),
        *(("x-amz-request-payer", b"requester"), ("x-amz-decoded-content-length", b"1")),
    ],
)
def test_habits_that_must_not_be_refused(name, value):
    assert not written(**{name: value}).lock


def test_put_7_aes256_is_acknowledged():
    assert written(**{"x-amz-server-side-encryption": b"AES256"}).encrypted
    assert not written().encrypted


def test_put_5_lock_headers():
    until = b"2099-01-01T00:00:00Z"
    lock = {"x-amz-object-lock-mode": b"GOVERNANCE", "x-amz-object-lock-retain-until-date": until}
    assert written(**lock).lock
    assert written(**{"x-amz-object-lock-legal-hold": b"OFF"}).lock
    assert refused(**lock | {"x-amz-object-lock-mode": b"governance"}).code == "InvalidArgument"
    for date in (b"2001-01-01T00:00:00Z", b"tomorrow", b"Sun, 06 Nov 2094 08:49:37 GMT"):
        error = refused(**lock | {"x-amz-object-lock-retain-until-date": date})
        assert error.elements["ArgumentName"] == "x-amz-object-lock-retain-until-date"
        past = date.startswith(b"2001")
        assert error.message.endswith("in the future!" if past else "in ISO 8601 format")


def test_get_7_overrides():
    headers = [(b"ETag", b"e"), (b"Content-Type", b"a")]
    asked = [(b"response-content-type", b"b"), (b"response-expires", b"never"), (b"x", b"y")]
    assert override_headers(headers, asked) == [
        *((b"ETag", b"e"), (b"Content-Type", b"b"), (b"Expires", b"never")),
    ]
    for value in (b"a\r\nSet-Cookie: x", b"a\x00", b"\n"):
        with pytest.raises(S3Error):
            override_headers(headers, [(b"response-content-type", value)])
