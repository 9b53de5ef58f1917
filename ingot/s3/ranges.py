"""The ``Range`` header of a read and the ``partNumber`` parameter: which bytes are wanted.

A range that cannot be understood is ignored and the whole object answered, one that lies outside
the object is refused. Called by GetObject and HeadObject. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ingot.s3.errors import S3Error

PART_NUMBER_MAX: Final = 10_000
_DIGITS_MAX: Final = 19  # any longer number lies beyond every object


def parse_range(header: bytes, size: int) -> tuple[int, int] | None:
    """The bytes [start, stop) of an object of ``size``, or None to answer the whole of it.

    Raises InvalidRange when the range is well-formed and no byte of the object lies in it.
    """
    unit, equals, spec = header.partition(b"=")
    if not equals or unit.lower() != b"bytes":
        return None
    first, dash, last = spec.partition(b"-")
    if not dash or (first and not first.isdigit()) or (last and not last.isdigit()):
        return None
    if first:
        start = _number(first)
        stop = size if not last else min(_number(last) + 1, size)
        if last and _number(last) < start:
            return None
        if start >= size:
            raise _unsatisfiable(header, size)
        return start, stop
    if not last:
        return None
    suffix = _number(last)
    if suffix == 0:
        raise _unsatisfiable(header, size)
    if size == 0:
        return None
    return max(0, size - suffix), size


def part_number(text: bytes) -> int:
    """InvalidArgument for what is none."""
    number = _number(text) if text.isdigit() else 0
    if not 1 <= number <= PART_NUMBER_MAX:
        raise S3Error(
            "InvalidArgument",
            "Part number must be an integer between 1 and 10000, inclusive",
            ArgumentName="partNumber",
            ArgumentValue=text.decode("latin-1"),
        )
    return number


def part_range(text: bytes, size: int, parts: Sequence[int]) -> tuple[int, int]:
    """The bytes of part ``text``; an object that was not put together from parts is one part."""
    number = part_number(text)
    count = len(parts) or 1
    if number > count:
        raise S3Error(
            "InvalidPartNumber", ActualPartCount=str(count), PartNumberRequested=str(number)
        )
    if not parts:
        return 0, size
    start = sum(parts[: number - 1])
    return start, start + parts[number - 1]


def content_range(start: int, stop: int, size: int) -> bytes:
    return b"bytes %d-%d/%d" % (start, stop - 1, size)


def _number(digits: bytes) -> int:
    significant = digits.lstrip(b"0")
    return int(significant or b"0") if len(significant) <= _DIGITS_MAX else 10**_DIGITS_MAX


def _unsatisfiable(header: bytes, size: int) -> S3Error:
    return S3Error(
        "InvalidRange",
        headers=((b"Content-Range", b"bytes */%d" % size),),
        RangeRequested=header.decode("latin-1"),
        ActualObjectSize=str(size),
    )
