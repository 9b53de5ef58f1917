"""Times as S3 writes and reads them, at whole seconds everywhere.

A listing, a HEAD and a precondition must show one and the same time of an object, or mirroring
clients copy it for ever; so every text comes from ``created_ms // 1000`` by the functions here.
Pure; called by the operations and by ``ingot.s3.conditions``.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Final

_WEEKDAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun") + (
    "Jul",
    "Aug",
    "Sep",
    "Oct",
    "Nov",
    "Dec",
)
_MONTH_NUMBERS: Final = {name.lower(): number for number, name in enumerate(_MONTHS, 1)}
_EPOCH: Final = date(1970, 1, 1).toordinal()
_MINUTES: Final = tuple(f"{minute // 60:02d}:{minute % 60:02d}:" for minute in range(24 * 60))
_SECONDS: Final = tuple(f"{second:02d}" for second in range(60))


@lru_cache(maxsize=4096)
def _day_texts(day: int) -> tuple[str, str]:
    value = date.fromordinal(_EPOCH + day)
    rfc = f"{_WEEKDAYS[value.weekday()]}, {value.day:02d} {_MONTHS[value.month - 1]} "
    return f"{value.isoformat()}T", f"{rfc}{value.year:04d} "


def iso(ms: int) -> str:
    """``2026-11-22T08:13:57.000Z``, as in documents. Always three digits: .NET insists on them."""
    seconds = ms // 1000
    day, rest = divmod(seconds, 86400)
    return f"{_day_texts(day)[0]}{_MINUTES[rest // 60]}{_SECONDS[rest % 60]}.000Z"


def http_date(ms: int) -> str:
    """``Sun, 22 Nov 2026 08:13:57 GMT``, as in headers."""
    day, rest = divmod(ms // 1000, 86400)
    return f"{_day_texts(day)[1]}{_MINUTES[rest // 60]}{_SECONDS[rest % 60]} GMT"


def parse_date(text: str) -> int | None:
    """Unix seconds of an HTTP date (of all three forms) or an ISO 8601 time, else None."""
    words = text.replace(",", " ").split()
    try:
        if len(words) == 1:
            return _parse_iso(words[0])
        if len(words) == 5 and ":" in words[3]:  # asctime: Sun Nov  6 08:49:37 1994
            _, month, day, clock, year = words
        else:
            _, *rest = words
            if len(rest) == 3 and rest[0].count("-") == 2:  # RFC 850: 06-Nov-94
                rest = rest[0].split("-") + rest[1:]
            day, month, year, clock, zone = rest
            if zone.upper() not in ("GMT", "UTC", "Z", "+0000", "-0000"):
                return None
        hour, minute, second = clock.split(":")
        number = int(year)
        if len(year) == 2:
            number += 1900 if number >= 70 else 2000
        value = datetime(
            number, _MONTH_NUMBERS[month[:3].lower()], int(day), int(hour), int(minute), int(second)
        )
    except (ValueError, KeyError, OverflowError):
        return None
    return int(value.replace(tzinfo=UTC).timestamp())


def _parse_iso(word: str) -> int | None:
    value = datetime.fromisoformat(word)
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return int(value.timestamp() // 1)
