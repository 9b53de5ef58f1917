"""Lifecycle rules of a bucket: what goes by itself, and when. Pure.

Rules are validated strictly and kept in the order and form in which they came; a rule without an id
gets one. Transitions are refused, for there is one storage class. ``ingot.expiring`` does what
rules say, ``ingot.s3.expiration`` shows when.

A day ends at midnight UTC: what is to go after so many days goes at the first midnight behind them.
``day_ms`` is a day's length; a shorter one, for tests, knows no midnight.
"""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from ingot.limits import XML_RULES_ELEMENTS_MAX
from ingot.s3.dates import http_date, iso, parse_date
from ingot.s3.errors import S3Error
from ingot.s3.tags import check_tags, tag_pairs
from ingot.s3.xml import Element, at_once, boolean, document, element, malformed, parse_in_steps

DAY_MS: Final = 86_400_000
RULES_MAX: Final = 1000
RULES_A_STEP: Final = 25
ID_CHARS_MAX: Final = 255
TAGS_MAX: Final = 10
NEWER_MAX: Final = 100
_PRINTABLE: Final = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")  # as it is in a header
_ROOT: Final = "LifecycleConfiguration"
_RULE: Final = (
    *("ID", "Prefix", "Filter", "Status", "Expiration", "NoncurrentVersionExpiration"),
    *("AbortIncompleteMultipartUpload", "Transition", "NoncurrentVersionTransition"),
)
_TESTS: Final = ("Prefix", "Tag", "ObjectSizeGreaterThan", "ObjectSizeLessThan")
_EXPIRATION: Final = ("Days", "Date", "ExpiredObjectDeleteMarker")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which objects a rule is about. ``form`` is the element it came in: "Prefix" of the rule
    itself, or "Filter" with one test, or "And" with several."""

    prefix: str | None = None  # None: it says none
    tags: tuple[tuple[str, str], ...] = ()
    larger_than: int | None = None
    smaller_than: int | None = None
    form: str = "Filter"

    def fits(self, key: bytes, size: int, tags: Mapping[str, str]) -> bool:
        return (
            key.startswith((self.prefix or "").encode())
            and (self.larger_than is None or size > self.larger_than)
            and (self.smaller_than is None or size < self.smaller_than)
            and all(tags.get(name) == value for name, value in self.tags)
        )


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. Days and counts are 1 at least, None where the rule does not say."""

    id: str
    enabled: bool
    filter: Filter
    days: int | None = None
    date_ms: int | None = None  # a midnight
    marker: bool | None = None  # delete markers with nothing behind them go (or, False, do not)
    noncurrent_days: int | None = None
    newer: int | None = None  # so many noncurrent versions stay in any case
    abort_days: int | None = None

    def expires_ms(self, created_ms: int, day_ms: int = DAY_MS) -> int | None:
        """When a current version goes; None: by this rule never."""
        if self.date_ms is not None:
            return self.date_ms
        return None if self.days is None else due(created_ms, self.days, day_ms)


def due(since_ms: int, days: int, day_ms: int = DAY_MS) -> int:
    """The first midnight when so many days have gone by since a time."""
    at = since_ms + days * day_ms
    return at if day_ms != DAY_MS else -(-at // DAY_MS) * DAY_MS


# -- reading ---------------------------------------------------------------------------------------


def canonical(body: bytes) -> bytes:
    """The document to keep; MalformedXML, InvalidArgument, InvalidRequest, NotImplemented."""
    return at_once(canonical_in_steps(body))


def canonical_in_steps(body: bytes) -> Generator[None, None, bytes]:
    rules = yield from read_in_steps(body)
    texts: list[str] = []
    for at in range(0, len(rules), RULES_A_STEP):
        texts += map(_rule_text, rules[at : at + RULES_A_STEP])
        yield
    return document(_ROOT, "".join(texts))


def read(body: bytes) -> tuple[Rule, ...]:
    return at_once(read_in_steps(body))


def read_in_steps(body: bytes) -> Generator[None, None, tuple[Rule, ...]]:
    """As ``read``, which takes a thousand rules 60 ms; each step is some of them."""
    root = yield from parse_in_steps(body, _ROOT, XML_RULES_ELEMENTS_MAX)
    root.only(("Rule",))
    if not 1 <= len(root.children) <= RULES_MAX:
        raise malformed()
    rules = []
    for node in root.children:
        rules.append(_rule(node))
        if len(rules) % RULES_A_STEP == 0:
            yield
    if len({rule.id for rule in rules}) != len(rules):
        raise _argument("Rule ID must be unique. Found same ID for more than one rule", "ID")
    return tuple(rules)


def _rule(node: Element) -> Rule:
    node.only(_RULE)
    for name in ("Transition", "NoncurrentVersionTransition"):
        if node.child(name) is not None:
            raise S3Error(
                "NotImplemented", f"{name} is not implemented: there is one storage class"
            )
    identity = node.value("ID") or secrets.token_urlsafe(18)
    if len(identity) > ID_CHARS_MAX:
        raise _argument(f"ID length should not exceed allowed limit of {ID_CHARS_MAX}", "ID")
    status = node.value("Status")
    if status not in ("Enabled", "Disabled"):
        raise malformed()
    about = _filter(node)
    days, date_ms, marker = _expiration(node.child("Expiration"))
    noncurrent, newer = _noncurrent(node.child("NoncurrentVersionExpiration"))
    abort = None
    aborting = node.child("AbortIncompleteMultipartUpload")
    if aborting is not None:
        aborting.only(("DaysAfterInitiation",))
        abort = _days(aborting, "DaysAfterInitiation", "AbortIncompleteMultipartUpload")
    sized = about.larger_than is not None or about.smaller_than is not None
    if about.tags and (marker is not None or abort is not None):
        what = (
            "AbortIncompleteMultipartUpload" if abort is not None else "ExpiredObjectDeleteMarker"
        )
        raise S3Error("InvalidRequest", f"{what} cannot be specified with Tags.")
    if sized and abort is not None:
        raise S3Error(
            "InvalidRequest",
            "AbortIncompleteMultipartUpload cannot be specified with object sizes.",
        )
    if all(one is None for one in (days, date_ms, marker, noncurrent, abort)):
        raise S3Error("InvalidRequest", "At least one action needs to be specified in a rule.")
    enabled = status == "Enabled"
    return Rule(identity, enabled, about, days, date_ms, marker, noncurrent, newer, abort)


def _filter(node: Element) -> Filter:
    """There is exactly one: the prefix of the rule, as of old, or a filter."""
    prefix, found = node.value("Prefix"), node.child("Filter")
    if (prefix is None) is (found is None):
        raise malformed()
    if found is None:
        return Filter(prefix, form="Prefix")
    found.only((*_TESTS, "And"))
    if len(found.children) > 1:
        raise malformed()
    both = found.child("And")
    tests, form = (found, "Filter") if both is None else (both, "And")
    tests.only(_TESTS)
    if both is not None and not both.children:
        raise malformed()
    listed = Element("TagSet", {})
    listed.children = list(tests.all("Tag"))
    tags = check_tags(tag_pairs(listed), TAGS_MAX, f"A rule may name {TAGS_MAX} tags at most")
    larger, smaller = _size(tests, "ObjectSizeGreaterThan"), _size(tests, "ObjectSizeLessThan")
    if larger is not None and smaller is not None and larger >= smaller:
        raise S3Error(
            "InvalidRequest",
            "'ObjectSizeLessThan' has to be a value greater than 'ObjectSizeGreaterThan'.",
        )
    return Filter(tests.value("Prefix"), tuple(tags.items()), larger, smaller, form)


def _size(node: Element, name: str) -> int | None:
    value = node.value(name)
    if value is None:
        return None
    if not _is_number(value):
        raise malformed()
    return int(value)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 15


def _expiration(node: Element | None) -> tuple[int | None, int | None, bool | None]:
    if node is None:
        return None, None, None
    node.only(_EXPIRATION)
    if len(node.children) != 1:
        raise malformed()
    if node.child("Days") is not None:
        return _days(node, "Days", "Expiration"), None, None
    flag = node.value("ExpiredObjectDeleteMarker")
    if flag is not None:
        if flag.strip().lower() not in ("true", "false"):
            raise malformed()
        return None, None, flag.strip().lower() == "true"
    seconds = parse_date((node.value("Date") or "").strip())
    if seconds is None:
        raise malformed()
    if seconds * 1000 % DAY_MS:
        raise _argument("'Date' must be at midnight GMT", "Date")
    return None, seconds * 1000, None


def _noncurrent(node: Element | None) -> tuple[int | None, int | None]:
    if node is None:
        return None, None
    node.only(("NoncurrentDays", "NewerNoncurrentVersions"))
    days = _days(node, "NoncurrentDays", "NoncurrentVersionExpiration")
    value = node.value("NewerNoncurrentVersions")
    if value is None:
        return days, None
    if not _is_number(value) or not 1 <= int(value) <= NEWER_MAX:
        raise _argument(
            f"'NewerNoncurrentVersions' must be between 1 and {NEWER_MAX}",
            "NewerNoncurrentVersions",
        )
    return days, int(value)


def _days(node: Element, name: str, action: str) -> int:
    value = (node.value(name) or "").strip()
    if not _is_number(value.removeprefix("-")):
        raise malformed()
    if not 1 <= int(value) < 2**31:
        raise _argument(f"'{name}' for {action} action must be a positive integer", name)
    return int(value)


def _argument(message: str, name: str) -> S3Error:
    return S3Error("InvalidArgument", message, ArgumentName=name)


# -- writing ---------------------------------------------------------------------------------------


def write(rules: Iterable[Rule]) -> bytes:
    """The document of ``rules``, as readers get it."""
    return document(_ROOT, "".join(map(_rule_text, rules)))


def _rule_text(rule: Rule) -> str:
    status = "Enabled" if rule.enabled else "Disabled"
    text = element("ID", rule.id) + _filter_text(rule.filter) + element("Status", status)
    inner = _number_text("Days", rule.days)
    if rule.date_ms is not None:
        inner += element("Date", iso(rule.date_ms))
    if rule.marker is not None:
        inner += element("ExpiredObjectDeleteMarker", boolean(rule.marker))
    text += f"<Expiration>{inner}</Expiration>" if inner else ""
    if rule.noncurrent_days is not None:
        inner = _number_text("NoncurrentDays", rule.noncurrent_days)
        inner += _number_text("NewerNoncurrentVersions", rule.newer)
        text += f"<NoncurrentVersionExpiration>{inner}</NoncurrentVersionExpiration>"
    if rule.abort_days is not None:
        inner = _number_text("DaysAfterInitiation", rule.abort_days)
        text += f"<AbortIncompleteMultipartUpload>{inner}</AbortIncompleteMultipartUpload>"
    return f"<Rule>{text}</Rule>"


def _filter_text(about: Filter) -> str:
    prefix = "" if about.prefix is None else element("Prefix", about.prefix)
    if about.form == "Prefix":
        return prefix
    text = prefix + "".join(
        f"<Tag>{element('Key', key)}{element('Value', value)}</Tag>" for key, value in about.tags
    )
    text += _number_text("ObjectSizeGreaterThan", about.larger_than)
    text += _number_text("ObjectSizeLessThan", about.smaller_than)
    if about.form == "And":
        text = f"<And>{text}</And>"
    return f"<Filter>{text}</Filter>"


def _number_text(name: str, value: int | None) -> str:
    return "" if value is None else element(name, str(value))


# -- what a client is told -------------------------------------------------------------------------


def abort_headers(rules: Iterable[Rule], key: bytes, created_ms: int) -> list[tuple[bytes, bytes]]:
    """``x-amz-abort-date`` and ``-rule-id`` of an open upload: the rule that aborts it first."""
    found = [
        (due(created_ms, rule.abort_days), rule.id)
        for rule in rules
        if rule.enabled and rule.abort_days is not None and rule.filter.fits(key, 0, {})
    ]
    if not found:
        return []
    at, rule_id = min(found)
    return [
        (b"x-amz-abort-date", http_date(at).encode()),
        (b"x-amz-abort-rule-id", quote(rule_id, safe=_PRINTABLE).encode()),
    ]


def expiration_header(
    rules: Iterable[Rule], key: bytes, size: int, created_ms: int, tags: Mapping[str, str]
) -> bytes | None:
    """``x-amz-expiration`` of a current version: the rule by which it goes first."""
    first: tuple[int, str] | None = None
    for rule in rules:
        at = rule.expires_ms(created_ms) if rule.enabled else None
        if at is not None and rule.filter.fits(key, size, tags) and (not first or at < first[0]):
            first = at, rule.id
    if first is None:
        return None
    return f'expiry-date="{http_date(first[0])}", rule-id="{quote(first[1], safe="")}"'.encode()
