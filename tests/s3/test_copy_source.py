"""The copy source: COPY-1."""

from __future__ import annotations

from urllib.parse import quote, quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.s3.copy_source import parse_copy_source
from ingot.s3.errors import S3Error


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (b"bucket/key", ("bucket", b"key", None)),
        (b"/bucket/key", ("bucket", b"key", None)),
        (b"bucket%2Fkey", ("bucket", b"key", None)),
        (b"%2Fbucket%2Fa%2Fb", ("bucket", b"a/b", None)),
        (b"bucket//key", ("bucket", b"/key", None)),
        (b"bucket/a+b", ("bucket", b"a b", None)),  # as url.QueryEscape of Go writes a blank
        (b"bucket/a%20b%2B", ("bucket", b"a b+", None)),
        (b"bucket/a%3FversionId%3Db", ("bucket", b"a?versionId=b", None)),
        (b"bucket/key?versionId=null", ("bucket", b"key", "null")),
        (b"bucket/a?b", ("bucket", b"a?b", None)),
        (b"bucket/a?versionId=b?versionId=c", ("bucket", b"a?versionId=b", "c")),
        (b"bucket/%C3%A9", ("bucket", "é".encode(), None)),
        ("bucket/é".encode(), ("bucket", "é".encode(), None)),
    ],
)
def test_copy_1_forms(value, wanted):
    assert parse_copy_source(value) == wanted


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"bucket", "Copy Source must mention"),
        (b"", "Copy Source must mention"),
        (b"/bucket", "Copy Source must mention"),
        (b"bucket/", "Invalid copy source object key"),
        (b"bucket/%ff", "Invalid copy source object key"),
        (b"bucket/%00", "Invalid copy source object key"),
        (b"Bucket/k", "Invalid copy source bucket name"),
        (b"//k", "Invalid copy source bucket name"),
        (b"bucket/%zz", "Invalid copy source encoding"),
    ],
)
def test_copy_1_refusals(value, message):
    with pytest.raises(S3Error) as caught:
        parse_copy_source(value)
    error = caught.value
    assert error.code == "InvalidArgument" and error.message.startswith(message)
    assert error.elements["ArgumentName"] == "x-amz-copy-source"


@given(
    st.text(
        st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=40
    )
)
def test_copy_1_any_key_in_either_encoding(key):
    raw = key.encode()
    assert parse_copy_source(b"bucket/" + quote(key).encode()).key == raw
    assert parse_copy_source(quote_from_bytes(b"bucket/" + raw, "").encode()).key == raw
