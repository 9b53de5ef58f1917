"""A form upload's policy: what whoever signed it allows the form to say. Pure.

    Policy    = { expiration, conditions: [Condition, ...] }
    Condition = { field: value, ... } | ["eq" | "starts-with", "$field", value]
              | ["content-length-range", least, most]

Names of fields and operators are read in any case, the two names of the policy as they stand here.
Every field of the form needs a condition, but for the signature and what ``EXEMPT`` names, so that
nobody can add one to a form that was signed for him. A condition on a field that is not there is
judged on "". Called by ``ingot.s3.posting``.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from ingot.limits import PUT_BYTES_MAX
from ingot.s3.dates import parse_date
from ingot.s3.errors import S3Error

EXEMPT: Final = frozenset(("policy", "x-amz-signature", "signature", "awsaccesskeyid"))
IGNORED: Final = "x-ignore-"
_RANGE: Final = "content-length-range"
_OPERATORS: Final = ("eq", "starts-with")
_DIGITS_MAX: Final = 18


class Condition(NamedTuple):
    """What one field has to be. ``field`` is in lower case and without the dollar sign."""

    operator: str  # "eq" or "starts-with"
    field: str
    value: bytes

    def holds(self, given: bytes) -> bool:
        if self.operator == "eq":
            return given == self.value
        if self.field == "content-type" and b"," in given:  # a list, each of which must begin so
            return all(each.strip().startswith(self.value) for each in given.split(b","))
        return given.startswith(self.value)

    def text(self) -> str:
        words = [self.operator, f"${self.field}", self.value.decode("utf-8", "replace")]
        return json.dumps(words, ensure_ascii=False)


class FormPolicy(NamedTuple):
    """What a form may say until ``expires_ms``, and how many bytes its file may have."""

    expires_ms: int
    conditions: tuple[Condition, ...]
    least: int
    most: int

    def check(self, fields: Mapping[str, bytes], bucket: str, now_ms: int) -> None:
        """AccessDenied unless a form with these fields may be sent to ``bucket`` now."""
        if now_ms >= self.expires_ms:
            raise _denied("Policy expired.")
        given = {**fields, "bucket": bucket.encode()}
        for condition in self.conditions:
            if not condition.holds(given.get(condition.field, b"")):
                raise _denied(f"Policy Condition failed: {condition.text()}")
        judged = {condition.field for condition in self.conditions}
        extra = [
            name
            for name in fields
            if name not in judged and name not in EXEMPT and not name.startswith(IGNORED)
        ]
        if extra:
            raise _denied(f"Extra input fields: {', '.join(extra)}")


def read(encoded: bytes) -> FormPolicy:
    """The policy that a form brings along, in base64; InvalidPolicyDocument."""
    try:
        document = json.loads(base64.b64decode(encoded))
    except (binascii.Error, ValueError, RecursionError):
        raise _invalid("Invalid JSON.") from None
    if not isinstance(document, dict):
        raise _invalid("Invalid JSON.")
    if "expiration" not in document:
        raise _invalid("Policy missing expiration.")
    if not isinstance(document.get("conditions"), list):
        raise _invalid("Policy missing conditions.")
    for name in document:
        if name not in ("expiration", "conditions"):
            raise _invalid(f"Unexpected: '{name}'")
    conditions: list[Condition] = []
    least, most = 0, PUT_BYTES_MAX
    for item in document["conditions"]:
        if isinstance(item, list) and item and str(item[0]).lower() == _RANGE:
            low, high = _range(item)
            least, most = max(least, low), min(most, high)
        else:
            conditions += _conditions(item)
    return FormPolicy(_expiration(document["expiration"]), tuple(conditions), least, most)


def _expiration(value: Any) -> int:
    """Unix milliseconds of a time in ISO 8601 with its zone."""
    seconds = None
    if isinstance(value, str) and value[:4].isdigit() and "T" in value and value.endswith("Z"):
        seconds = parse_date(value)
    if seconds is None:
        raise _invalid(f"Invalid 'expiration' value: '{value}'")
    return seconds * 1000


def _conditions(item: Any) -> list[Condition]:
    """Those of one entry: an object may have several."""
    if isinstance(item, dict) and item:
        found = []
        for name, value in item.items():
            if not isinstance(value, str):
                raise _invalid("Invalid Simple-Condition: value must be a string.")
            found.append(Condition("eq", name.lower(), value.encode("utf-8", "replace")))
        return found
    if not isinstance(item, list) or len(item) != 3:
        raise _invalid("Invalid Condition: neither a field with its value nor a list of three.")
    operator, field, value = item
    if not isinstance(operator, str) or operator.lower() not in _OPERATORS:
        raise _invalid(f"Invalid Condition: unknown operation '{operator}'.")
    if not isinstance(field, str) or not isinstance(value, str) or field[:1] != "$":
        raise _invalid(f"Invalid Condition: '{field}' is no field such as $key, or has no value.")
    return [Condition(operator.lower(), field[1:].lower(), value.encode("utf-8", "replace"))]


def _range(item: list[Any]) -> tuple[int, int]:
    """The bounds of a content-length-range, which may come as numbers or as digits."""
    bounds = [each for each in map(_count, item[1:]) if each is not None]
    if len(bounds) != 2 or len(item) != 3 or bounds[0] > bounds[1]:
        raise _invalid("Invalid content-length-range: two numbers, the lower one first.")
    return bounds[0], bounds[1]


def _count(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    text = str(value) if isinstance(value, int | str) else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX else None


def _invalid(detail: str) -> S3Error:
    return S3Error("InvalidPolicyDocument", f"Invalid Policy: {detail}")


def _denied(detail: str) -> S3Error:
    return S3Error("AccessDenied", f"Invalid according to Policy: {detail}")
