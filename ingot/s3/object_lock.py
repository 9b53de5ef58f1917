"""What object lock says: the bucket's configuration, retention and legal hold, as documents. Pure.

A bucket's configuration turns the lock on, for good, and may give new versions a retention by
default. What a version is locked by is part of its state (``bucket/leaf.py``), and what that
forbids is judged at the commit (``bucket/versions.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ingot.bucket.leaf import MODES, Retention
from ingot.s3.dates import iso, parse_date
from ingot.s3.errors import S3Error
from ingot.s3.xml import Element, document, malformed, parse

DAY_MS: Final = 24 * 3600 * 1000
DAYS_MAX: Final = 36_500
YEARS_MAX: Final = 100
DAYS_A_YEAR: Final = 365
IN_THE_PAST: Final = "The retain until date must be in the future!"


@dataclass(frozen=True, slots=True)
class DefaultRetention:
    """What new versions begin with: so many ``Days`` or ``Years``."""

    mode: str
    unit: str
    count: int

    def at(self, now_ms: int) -> Retention:
        days = self.count * (DAYS_A_YEAR if self.unit == "Years" else 1)
        return Retention(self.mode, now_ms + days * DAY_MS)


def read_configuration(body: bytes) -> DefaultRetention | None:
    """The default retention of an ObjectLockConfiguration, None where it has no rule; MalformedXML,
    InvalidArgument for a period that is none."""
    root = parse(body, "ObjectLockConfiguration")
    root.only(("ObjectLockEnabled", "Rule"))
    if (root.value("ObjectLockEnabled") or "").strip() != "Enabled":
        raise malformed()
    rule = root.child("Rule")
    if rule is None:
        return None
    rule.only(("DefaultRetention",))
    default = rule.child("DefaultRetention")
    if default is None:
        raise malformed()
    default.only(("Mode", "Days", "Years"))
    mode = _mode(default)
    periods = [(unit, default.value(unit)) for unit in ("Days", "Years")]
    given = [(unit, text.strip()) for unit, text in periods if text is not None]
    if len(given) != 1:
        raise malformed()
    [(unit, text)] = given
    return DefaultRetention(mode, unit, _count(unit, text))


def write_configuration(default: DefaultRetention | None) -> bytes:
    """The document to keep."""
    rule = ""
    if default is not None:
        rule = (
            f"<Rule><DefaultRetention><Mode>{default.mode}</Mode>"
            f"<{default.unit}>{default.count}</{default.unit}></DefaultRetention></Rule>"
        )
    content = f"<ObjectLockEnabled>Enabled</ObjectLockEnabled>{rule}"
    return document("ObjectLockConfiguration", content)


def _mode(node: Element) -> str:
    mode = (node.value("Mode") or "").strip()
    if mode not in MODES:
        raise malformed()
    return mode


def _count(unit: str, text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise malformed()
    most = DAYS_MAX if unit == "Days" else YEARS_MAX
    count = int(text) if len(text) <= 10 else most + 1
    if count <= 0:
        message = "Default retention period must be a positive integer value."
    elif count > most:
        message = "Default retention period too large."
    else:
        return count
    raise S3Error("InvalidArgument", message, ArgumentName=unit, ArgumentValue=text)


def read_retention(body: bytes, now_ms: int) -> Retention | None:
    """Of a Retention document; an empty one is none. MalformedXML, InvalidArgument for a time that
    is over."""
    root = parse(body, "Retention")
    root.only(("Mode", "RetainUntilDate"))
    date = root.value("RetainUntilDate")
    if date is None and root.child("Mode") is None:
        return None
    mode = _mode(root)
    seconds = parse_date(date.strip()) if date is not None else None
    if seconds is None:
        raise malformed()
    if seconds * 1000 <= now_ms:
        raise S3Error(
            "InvalidArgument",
            IN_THE_PAST,
            ArgumentName="RetainUntilDate",
            ArgumentValue=date or "",
        )
    return Retention(mode, seconds * 1000)


def write_retention(retention: Retention) -> bytes:
    until = iso(retention.until_ms)
    content = f"<Mode>{retention.mode}</Mode><RetainUntilDate>{until}</RetainUntilDate>"
    return document("Retention", content)


def read_hold(body: bytes) -> bool:
    """Of a LegalHold document; MalformedXML."""
    root = parse(body, "LegalHold")
    root.only(("Status",))
    status = (root.value("Status") or "").strip()
    if status not in ("ON", "OFF"):
        raise malformed()
    return status == "ON"


def write_hold(hold: bool) -> bytes:
    return document("LegalHold", f"<Status>{'ON' if hold else 'OFF'}</Status>")
