"""The compiled signatures and their twin: the same names, signatures, values and errors."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingot._speedups import sigv4_py

sigv4_c: Any = pytest.importorskip("ingot._speedups.sigv4_c")

NAMES = [
    *("ALGORITHM", "SigningKey", "SigningKeys", "canonical_request", "equal", "parse_query"),
    *("parse_stamp", "quote", "reencode_path", "sign_request", "split_authorization"),
    *("string_to_sign", "unquote", "unsigned_headers"),
]
ESCAPES = st.sampled_from([b"%", b"%4", b"%41", b"%2F", b"%2f", b"%zz", b"%C3%BC", b"+", b" "])
PARTS = st.sampled_from([b"/", b"?", b"&", b"=", b"a", b"b", b"-", b"~", b"X-Amz-Signature", b"\t"])
TARGETS = st.lists(ESCAPES | PARTS | st.binary(max_size=3), max_size=20).map(b"".join)
HEADERS = st.dictionaries(
    st.sampled_from([b"host", b"x-amz-a", b"x-amz-b", b"x-amz-", b"x-am", b"range", b"h"]),
    st.lists(st.sampled_from([b" ", b"\t", b"a", b"  ", b"\xff"]), max_size=6).map(b"".join),
)
LISTS = st.lists(
    st.sampled_from([b"host", b"x-amz-a", b"x-amz-b", b"range", b"none"]), max_size=5, unique=True
)


def outcome(function: Any, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except (ValueError, TypeError) as error:
        return type(error), str(error) if isinstance(error, ValueError) else ""


def same(name: str, *arguments: Any) -> Any:
    compiled = outcome(getattr(sigv4_c, name), *arguments)
    assert compiled == outcome(getattr(sigv4_py, name), *arguments)
    return compiled


def test_names_signatures_and_docstrings() -> None:
    def describe(module: ModuleType, name: str) -> dict[str, tuple[Any, str | None]]:
        member = getattr(module, name)
        if not callable(member):
            return {name: (member, None)}
        members = {name: member}
        if inspect.isclass(member):
            methods = {n: m for n, m in vars(member).items() if not n.startswith("_")}
            members = {f"{name}.{n}": m for n, m in methods.items()}
            members[f"{name}.__doc__"] = member.__doc__
        return {n: (shape(m), inspect.getdoc(m)) for n, m in members.items()}

    def shape(member: Any) -> Any:
        return str(inspect.signature(member)) if callable(member) else member

    for name in NAMES:
        assert describe(sigv4_c, name) == describe(sigv4_py, name)


@given(data=st.binary(max_size=300), keep=st.booleans())
def test_percent_encoding(data: bytes, keep: bool) -> None:
    encoded = same("quote", data, keep)
    assert same("unquote", encoded) == data
    same("unquote", data)


@given(target=TARGETS)
@example(target=b"?" + b"&".join(b"k%d=v" % at for at in range(100)))
@example(target=b"/" + b"\xff" * 5000 + b"?" + b"\xff" * 5000)
@settings(max_examples=200)
def test_targets(target: bytes) -> None:
    same("unquote", target)
    same("parse_query", target)
    same("reencode_path", target)


@given(
    method=st.sampled_from(["GET", "PUT", "", "GRÜN"]),
    target=TARGETS,
    index=HEADERS,
    names=LISTS,
    payload=st.binary(max_size=70),
    presigned=st.booleans(),
    stamp=st.binary(max_size=20),
    scope=st.binary(max_size=50),
)
@example("PUT", b"/" + b"%" * 9, {b"host": b"h" * 9000}, [b"host"], b"", False, b"s" * 5000, b"")
@example(
    *("GET", b"/b?" + b"&".join(b"%02d=\xe4&%02d=a" % (at, at) for at in range(60, 0, -1))),
    *({b"host": b" " * 3000 + b"h"}, [b"host", b"none"], b"p" * 3000, True, b"s", b"s" * 3000),
)
@settings(max_examples=250)
def test_requests(
    method: str,
    target: bytes,
    index: dict[bytes, bytes],
    names: list[bytes],
    payload: bytes,
    presigned: bool,
    stamp: bytes,
    scope: bytes,
) -> None:
    listed = b";".join(names)
    request = (method, target, index, listed, tuple(names), payload, presigned)
    canonical = same("canonical_request", *request)
    same("unsigned_headers", index, tuple(names))
    compiled = sigv4_c.SigningKey("secret", b"20130524", b"r")
    plain = sigv4_py.SigningKey("secret", b"20130524", b"r")
    signature = outcome(sigv4_c.sign_request, compiled, stamp, scope, *request)
    assert signature == outcome(sigv4_py.sign_request, plain, stamp, scope, *request)
    if isinstance(canonical, bytes):
        string = same("string_to_sign", stamp, scope, canonical)
        assert signature == compiled.sign(string) == plain.sign(string)


@given(secret=st.text(max_size=90), date=st.binary(max_size=80), region=st.binary(max_size=80))
def test_keys(secret: str, date: bytes, region: bytes) -> None:
    try:
        plain = sigv4_py.SigningKey(secret, date, region)
    except UnicodeEncodeError:
        with pytest.raises(UnicodeEncodeError):
            sigv4_c.SigningKey(secret, date, region)
        return
    compiled = sigv4_c.SigningKey(secret, date, region)
    for message in (b"", b"a" * 55, b"a" * 64, b"a" * 1000):
        assert compiled.sign(message) == plain.sign(message)


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.sampled_from([b"1", b"2"])),
        max_size=30,
    )
)
def test_the_caches_hold_the_same_number(calls: list[tuple[str, str, bytes]]) -> None:
    compiled, plain = sigv4_c.SigningKeys(3), sigv4_py.SigningKeys(3)
    for access_key, secret, date in calls:
        one = compiled.get(access_key, secret, date, b"r")
        other = plain.get(access_key, secret, date, b"r")
        assert one.sign(b"m") == other.sign(b"m")
        assert len(compiled) == len(plain) <= 3


AUTHORIZATION = st.sampled_from(
    [
        b"AWS4-HMAC-SHA256 ",
        b"Credential=",
        b"SignedHeaders=",
        b"Signature=",
        b",",
        b", ",
        b" ",
        b"=",
    ]
    + [b"\t", b"a", b"AWS4-HMAC-SHA256", b"Credential", b"\0"]
)


@given(st.lists(AUTHORIZATION, max_size=14).map(b"".join))
@example(b"AWS4-HMAC-SHA256 Credential=a, SignedHeaders=b,\tSignature=c ")
@example(b"AWS4-HMAC-SHA256 Credential=a,Credential=b,Signature=c")
@example(b"AWS4-HMAC-SHA256 Credential==,SignedHeaders==,Signature= =")
@settings(max_examples=300)
def test_authorizations(value: bytes) -> None:
    same("split_authorization", value)
    same("split_authorization", b"AWS4-HMAC-SHA256 " + value)


@given(st.binary(max_size=18) | st.from_regex(rb"[0-9]{8}T[0-9]{6}Z", fullmatch=True))
@settings(max_examples=300)
def test_stamps(value: bytes) -> None:
    same("parse_stamp", value)
    near = b"20%b9T235959Z" % value[:5]
    same("parse_stamp", near)


@given(st.binary(max_size=70), st.binary(max_size=70))
def test_comparison(one: bytes, other: bytes) -> None:
    assert same("equal", one, other) == (one == other)
    assert same("equal", one, bytes(bytearray(one))) is True
