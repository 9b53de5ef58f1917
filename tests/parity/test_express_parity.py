"""The compiled express lane and its twin: the same requests recognised, and the same found."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingot._speedups import express_py, sigv4_py
from tests.support import heads as made

express_c: Any = pytest.importorskip("ingot._speedups.express_c")

FIELDS = express_py.Everyday._fields
DAY_MS = sigv4_py.parse_stamp(made.STAMP[:8] + b"T000000Z")


def form(module: Any, start: bytes) -> Any:
    listed = start[start.index(b"SignedHeaders=") + 14 : start.index(b", Signature=")]
    names = tuple(listed.split(b";"))
    return module.Form(
        made.ACCESS_KEY, made.SECRET_KEY, made.KEY, made.SCOPE, DAY_MS, listed, names
    )


def found(module: Any, head: bytes, start: bytes, now_ms: int) -> dict[str, Any] | None:
    forms = {start: form(module, start)}
    everyday = module.recognise(head, forms, now_ms, 900_000)
    if everyday is None:
        return None
    assert everyday.form is forms[start]
    return {name: getattr(everyday, name) for name in FIELDS if name != "form"}


def both(head: bytes, start: bytes, now_ms: int = made.NOW_MS) -> dict[str, Any] | None:
    compiled = found(express_c, head, start, now_ms)
    assert compiled == found(express_py, head, start, now_ms)
    return compiled


def start_of(head: bytes) -> bytes:
    return head[head.index(b"AWS4-HMAC-SHA256") : head.index(b"Signature=") + 10]


def test_names_signatures_and_docstrings() -> None:
    assert express_c.NAMES == express_py.NAMES and express_c.CHECKSUMS == express_py.CHECKSUMS
    assert express_c.OF_PUT == express_py.OF_PUT and express_c.OF_GET == express_py.OF_GET
    assert str(inspect.signature(express_c.recognise)) == str(
        inspect.signature(express_py.recognise)
    )
    assert inspect.getdoc(express_c.recognise) == inspect.getdoc(express_py.recognise)
    assert inspect.getdoc(express_c.Form) == inspect.getdoc(express_py.Form)


def test_everyday_requests_are_recognised() -> None:
    head = made.get_head((b"x-amz-checksum-mode", b"ENABLED"))
    asked = both(head, start_of(head))
    assert asked is not None and asked["checksum_mode"] and not asked["put"]
    assert (asked["bucket"], asked["key"]) == (b"photos", b"a/b.jpg")
    head = made.put_head(
        b"12345",
        (b"x-amz-checksum-crc32", b"AAAAAA=="),
        (b"x-amz-sdk-checksum-algorithm", b"CRC32"),
        (b"Content-Type", b"a/b"),
    )
    asked = both(head, start_of(head))
    assert asked is not None and asked["put"] and asked["length"] == 5
    assert (asked["algorithm"], asked["content_type"]) == ("crc32", b"a/b")


@pytest.mark.slow
@given(made.heads(), st.sampled_from([0, 900_000, -900_000, 900_001, -900_001]))
@example((made.signed(b"PUT", b"/b/k", made.base(made.UNSIGNED)), b""), 0)
@settings(max_examples=1500, deadline=None)
def test_any_head(case: tuple[bytes, bytes], off_ms: int) -> None:
    head, start = case
    both(head, start or start_of(head), made.NOW_MS + off_ms)


@pytest.mark.slow
@given(st.sampled_from([made.get_head(), made.put_head(b"12345")]), st.data())
@settings(max_examples=600, deadline=None)
def test_one_byte_off(head: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(head) - 1))
    byte = data.draw(st.integers(0, 255))
    both(head[:at] + bytes([byte]) + head[at + 1 :], start_of(head))
    both(head[:at], start_of(head))


def test_signed_twice_is_left_to_others() -> None:
    names = (b"host", b"host", b"x-amz-content-sha256", b"x-amz-date")
    head = made.signed(b"GET", b"/b/k", made.base(made.EMPTY), names)
    assert both(head, start_of(head)) is None


def test_a_form_that_is_none() -> None:
    head = made.get_head()
    with pytest.raises(TypeError):
        express_c.recognise(head, {start_of(head): object()}, made.NOW_MS, 900_000)
