"""Times as texts: rules GET-2, XML-6."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.s3.dates import http_date, iso, parse_date

MOMENTS = st.integers(0, 253402300799)  # until the end of the year 9999


@given(MOMENTS, st.integers(0, 999))
def test_both_forms_show_the_same_whole_second(seconds, rest):
    ms = seconds * 1000 + rest
    assert http_date(ms) == formatdate(seconds, usegmt=True)
    assert iso(ms) == datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z").zfill(
        24
    )
    assert parse_date(http_date(ms)) == parse_date(iso(ms)) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "1994-11-06T08:49:37Z",
        "1994-11-06T08:49:37.999Z",
        "1994-11-06T09:49:37+01:00",
    ],
)
def test_forms_that_are_read(text):
    assert parse_date(text) == 784111777


@pytest.mark.parametrize(
    "text",
    [
        *("", "yesterday", "Sun, 31 Feb 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49 GMT"),
        *("Sun, 06 Nov 1994 08:49:37 EST", "Sun, 06 Foo 1994 08:49:37 GMT", "1994", "1994-13-01"),
    ],
)
def test_forms_that_are_not(text):
    assert parse_date(text) is None


@given(st.text(max_size=40))
def test_any_text_is_a_time_or_none(text):
    found = parse_date(text)
    assert found is None or isinstance(found, int)
