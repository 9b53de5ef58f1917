"""Frames of a segment: pack blocks, verify what a file holds, find the next good frame.

The twin of ``frame_c`` and its specification. Called by segments only; pure.

    frame = varint(36 + n) ‖ CID (36 bytes) ‖ n bytes of data

The varint is unsigned LEB128 in its shortest form. The CID is ``01``, a codec (``55`` raw or ``71``
dag-cbor), ``12 20`` and the sha2-256 of the data. A zero byte, as behind the last frame of a file
written with zeros beforehand, begins no frame.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Any

from ingot.limits import NODE_BYTES_READ_MAX

Buffer = Any  # contiguous bytes with the buffer protocol; typing has no word for it before 3.12

CID_BYTES = 36
DATA_BYTES_MAX = NODE_BYTES_READ_MAX
FRAME_BYTES_MAX = 4 + CID_BYTES + DATA_BYTES_MAX

_PREFIXES = (b"\x01\x55\x12\x20", b"\x01\x71\x12\x20")
_DAG_CBOR = 0x71


def head(cid: bytes, length: int) -> bytes:
    """What stands before ``length`` bytes of data: the varint and the CID."""
    if len(cid) != CID_BYTES or bytes(cid[:4]) not in _PREFIXES:
        raise ValueError(f"not a CID of ours: {bytes(cid[:5]).hex()}")
    if not 0 <= length <= DATA_BYTES_MAX:
        raise ValueError(f"a block of {length} bytes is too large for a frame")
    number = CID_BYTES + length
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out) + bytes(cid)


def pack(blocks: Iterable[tuple[bytes, Buffer]]) -> bytes:
    """The frames of ``blocks``, one after the other."""
    parts: list[bytes | memoryview] = []
    for cid, data in blocks:
        view = memoryview(data)
        parts += (head(cid, view.nbytes), view)
    return b"".join(parts)


def _parse(view: memoryview, at: int, stop: int) -> tuple[int, int]:
    """(offset of the CID, offset after the frame); (-1, 0): no frame; (-1, n): n bytes wanted."""
    number = 0
    for index in range(4):
        if at + index >= stop:
            return -1, index + 1
        byte = view[at + index]
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            break
    else:
        return -1, 0
    start = at + index + 1
    if (byte == 0 and index) or not CID_BYTES <= number <= CID_BYTES + DATA_BYTES_MAX:
        return -1, 0
    prefix = bytes(view[start : min(start + 4, stop)])
    if not any(known.startswith(prefix) for known in _PREFIXES):
        return -1, 0
    if start + number > stop:
        return -1, start + number - at
    return start, start + number


def _matches(view: memoryview, cid: int, end: int) -> bool:
    return sha256(view[cid + CID_BYTES : end]).digest() == view[cid + 4 : cid + CID_BYTES]


class Tally:
    """The frames of a log since its last commit record: how many, and the sha256 of their CIDs.
    Carried by ``scan`` from span to span."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._count, self._hash = 0, sha256()

    def _add(self, cid: memoryview) -> None:
        self._count += 1
        self._hash.update(cid)

    def _take(self) -> tuple[int, bytes]:
        taken = self._count, self._hash.digest()
        self._reset()
        return taken


Mark = tuple[int, int, bytes, bytes, int, bytes]


def scan(
    buffer: Buffer, start: int, stop: int, mark: bytes, tally: Tally
) -> tuple[int, int, int, list[Mark]]:
    """Hash the frames of ``buffer[start:stop]`` in order until one is not good.

    Returns (offset after the last good frame, number of good frames, bytes wanted, marks). ``bytes
    wanted`` is how many the next frame needs from there when only the end of the span cuts it off,
    and 0 when what stands there is no frame. A mark is a frame of codec dag-cbor whose data begin
    with ``mark``: (offset, offset after, CID, data, count, digest), the last two of the frames
    since the mark before it.
    """
    view = memoryview(buffer)
    if not 0 <= start <= stop <= view.nbytes:
        raise ValueError("the span is not inside the buffer")
    count = 0
    marks: list[Mark] = []
    while True:
        cid, end = _parse(view, start, stop)
        if cid < 0:
            return start, count, end, marks
        if not _matches(view, cid, end):
            return start, count, 0, marks
        data = cid + CID_BYTES
        if view[cid + 1] == _DAG_CBOR and view[data : min(data + len(mark), end)] == mark:
            block = bytes(view[data:end])
            marks.append((start, end, bytes(view[cid:data]), block, *tally._take()))
        else:
            tally._add(view[cid:data])
        count += 1
        start = end


def find(buffer: Buffer, start: int, stop: int, budget: int) -> tuple[int, int]:
    """(offset of the first good frame in ``buffer[start:stop]`` or -1, what is left of ``budget``).

    ``budget`` bounds the bytes hashed in vain: whoever can write data can make it look like many
    frames. The search ends when it is used up.
    """
    view = memoryview(buffer)
    if not 0 <= start <= stop <= view.nbytes:
        raise ValueError("the span is not inside the buffer")
    for at in range(start + 1, stop - CID_BYTES + 1):
        if view[at] != 0x01 or bytes(view[at : at + 4]) not in _PREFIXES:
            continue
        for back in range(4, 0, -1):
            if at - back < start:
                continue
            cid, end = _parse(view, at - back, stop)
            if cid != at:
                continue
            if _matches(view, cid, end):
                return at - back, budget
            budget -= end - cid
            if budget < 0:
                return -1, 0
    return -1, budget
