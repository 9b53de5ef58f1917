"""What lies in a segment directory, byte by byte. Pure; every module of this package reads it.

    log-<20 digits>.car     commits: records, tree nodes, chunks up to 64 KiB, commit records
    body-<20 digits>.car    larger chunks
    unit-<20 digits>.car    what is live of the log segments up to that number, in their place
    run-<20 digits>.idx     where the blocks of sealed segments stand (``runfile``)
    log-<20 digits>.car.damaged
                            a log segment that is damaged, and whose unit has what is good of it
    *.tmp                   a unit or run that was being written; removed at the next start

Numbers count up within a kind and are never used again for other content; they fit into 63 bits,
for the runs and the registry hold them. Everything else in the directory belongs to somebody else
and is left alone, and so is a name like these that is no file or may not be opened.

A segment is a CARv1 file that other IPLD tools can open:

    offset  bytes
    0       1      3a: the header is 58 bytes long
    1       58     {"roots": [CID], "version": 1} as DAG-CBOR
    14      36       of that, the one root
    59      n      frames: varint(36 + n) ‖ CID ‖ n bytes of data  (``ingot._speedups.frame_py``)
    L              the logical end. Behind it: nothing once sealed; while open zeros, written
                   beforehand so that a sync writes no metadata, or what a torn write left there

The root is a placeholder (the CID of the empty chunk) while a segment is open. When a log segment
has been closed and synced, its place takes the CID of the last commit record. A body segment keeps
the placeholder: no one block of it leads to the others, and the commits that need it name it.
Recovery reads neither.

A log segment consists of batches: frames, then the one commit record that counts and digests them.
The record names the segment's number, so that frames left over in a recycled file prove nothing.

A unit is made from log segments in a row (``compact``): their commit records, all of them, and the
blocks that are live, in their order. So the counts of its records no longer hold; it is under its
name only once it is whole and synced. Its number is that of the last segment it stands for.
"""

from __future__ import annotations

import re
from typing import Final

from ingot.codec import dag_cbor
from ingot.segments.commit import COMMIT

LOG: Final = "log"
BODY: Final = "body"
UNIT: Final = "unit"
RUN: Final = "run"
STREAMS: Final = (LOG, BODY)
SEGMENTS: Final = (LOG, BODY, UNIT)
COMMITS: Final = (LOG, UNIT)  # kinds of segments that hold commit records

HEADER_BYTES: Final = 59
ROOT_OFFSET: Final = 14
ROOT_BYTES: Final = 36
PLACEHOLDER: Final = bytes.fromhex(
    "01551220e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)
PAGE_BYTES: Final = 4096
NUMBER_MAX: Final = (1 << 63) - 1
COMMIT_MARK: Final = dag_cbor.envelope_prefix(COMMIT)  # how the data of every commit record begin

_BEFORE_ROOT: Final = b"\x3a\xa2\x65roots\x81\xd8\x2a\x58\x25\x00"
_AFTER_ROOT: Final = b"\x67version\x01"
_NAME: Final = re.compile(r"(log|body|unit)-([0-9]{20})\.car|(run)-([0-9]{20})\.idx")
_TEMPORARY_SUFFIX: Final = ".tmp"
_DAMAGED_SUFFIX: Final = ".damaged"

assert len(_BEFORE_ROOT) == ROOT_OFFSET
assert ROOT_OFFSET + ROOT_BYTES + len(_AFTER_ROOT) == HEADER_BYTES


def header(root: bytes = PLACEHOLDER) -> bytes:
    """The header of a segment whose root is ``root``."""
    assert len(root) == ROOT_BYTES
    return _BEFORE_ROOT + root + _AFTER_ROOT


def is_header(data: bytes) -> bool:
    """Whether ``data`` begins with a header of ours, whatever its root."""
    after = ROOT_OFFSET + ROOT_BYTES
    return data[:ROOT_OFFSET] == _BEFORE_ROOT and data[after:HEADER_BYTES] == _AFTER_ROOT


def root_of(data: bytes) -> bytes:
    """The root in a header."""
    return data[ROOT_OFFSET : ROOT_OFFSET + ROOT_BYTES]


def file_name(kind: str, number: int) -> str:
    """The name of segment or run ``number``."""
    return f"{kind}-{number:020d}.{'idx' if kind == RUN else 'car'}"


def unfinished_name(kind: str, number: int) -> str:
    """The name of a unit or run while it is written."""
    return file_name(kind, number) + _TEMPORARY_SUFFIX


def damaged_name(number: int) -> str:
    """The name of a damaged log segment once a unit stands for it."""
    return file_name(LOG, number) + _DAMAGED_SUFFIX


def damaged(name: str) -> int | None:
    """The number of a log segment by such a name."""
    parsed = parse_name(name.removesuffix(_DAMAGED_SUFFIX))
    return parsed[1] if parsed and name == damaged_name(parsed[1]) else None


def parse_name(name: str) -> tuple[str, int] | None:
    """(kind, number) of a name like those of our files; None for everybody else's."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    kind, number = match[1] or match[3], int(match[2] or match[4])
    return (kind, number) if number <= NUMBER_MAX else None


def unfinished(name: str) -> tuple[str, int] | None:
    """(kind, number) of a unit or run that was never finished, by its name."""
    parsed = parse_name(name.removesuffix(_TEMPORARY_SUFFIX))
    if parsed is None or parsed[0] in STREAMS or not name.endswith(_TEMPORARY_SUFFIX):
        return None
    return parsed
