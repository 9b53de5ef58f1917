# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# distutils: libraries = crypto
"""Frames of a segment: pack blocks, verify what a file holds, find the next good frame.

The compiled form of ``frame_py``, which is the specification. Called by segments only. Hashing runs
without the GIL; a length read from a file is checked against what is left before a pointer moves.
"""

from collections.abc import Iterable
from typing import Any

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.string cimport memchr, memcmp, memcpy

from ingot.limits import NODE_BYTES_READ_MAX

cdef extern from *:
    """
    #ifndef OPENSSL_SUPPRESS_DEPRECATED
    #define OPENSSL_SUPPRESS_DEPRECATED
    #endif
    """

# The SHA256_* calls take 87 ns for a small block; the EVP ones fetch or allocate (362 ns).
cdef extern from "openssl/sha.h" nogil:
    ctypedef struct SHA256_CTX:
        pass
    int SHA256_Init(SHA256_CTX* context)
    int SHA256_Update(SHA256_CTX* context, const void* data, size_t length)
    int SHA256_Final(unsigned char* digest, SHA256_CTX* context)

ctypedef const unsigned char* Bytes

Buffer = Any  # contiguous bytes with the buffer protocol; typing has no word for it before 3.12

CID_BYTES = 36
DATA_BYTES_MAX = NODE_BYTES_READ_MAX
FRAME_BYTES_MAX = 4 + CID_BYTES + DATA_BYTES_MAX

cdef enum:
    CID = 36
    DAG_CBOR = 0x71

cdef Py_ssize_t DATA_MAX = NODE_BYTES_READ_MAX


cdef bint is_prefix(Bytes p, Py_ssize_t length) noexcept nogil:
    """Whether the first ``length`` (at most 4) bytes may begin a CID of ours."""
    if length > 0 and p[0] != 0x01:
        return False
    if length > 1 and p[1] != 0x55 and p[1] != 0x71:
        return False
    if length > 2 and p[2] != 0x12:
        return False
    return length <= 3 or p[3] == 0x20


cdef Py_ssize_t parse(
    Bytes p, Py_ssize_t at, Py_ssize_t stop, Py_ssize_t* end
) noexcept nogil:
    """The offset of the CID, and ``end`` after the frame; or -1, and ``end`` the bytes wanted."""
    cdef Py_ssize_t number = 0, start
    cdef int index = 0
    cdef unsigned char byte = 0
    while True:
        if index == 4:
            end[0] = 0
            return -1
        if at + index >= stop:
            end[0] = index + 1
            return -1
        byte = p[at + index]
        number |= (<Py_ssize_t>(byte & 0x7F)) << (7 * index)
        if byte < 0x80:
            break
        index += 1
    start = at + index + 1
    end[0] = 0
    if (byte == 0 and index) or number < CID or number > CID + DATA_MAX:
        return -1
    if not is_prefix(p + start, stop - start if stop - start < 4 else 4):
        return -1
    if number > stop - start:
        end[0] = start + number - at
        return -1
    end[0] = start + number
    return start


cdef bint matches(Bytes p, Py_ssize_t cid, Py_ssize_t end) noexcept nogil:
    cdef SHA256_CTX context
    cdef unsigned char digest[32]
    SHA256_Init(&context)
    SHA256_Update(&context, p + cid + CID, end - cid - CID)
    SHA256_Final(digest, &context)
    return memcmp(digest, p + cid + 4, 32) == 0


cdef Py_ssize_t head_length(Py_ssize_t number) noexcept nogil:
    cdef Py_ssize_t length = 1
    while number >= 0x80:
        number >>= 7
        length += 1
    return length + CID


cdef Py_ssize_t put_head(unsigned char* p, Bytes cid, Py_ssize_t length) noexcept nogil:
    cdef Py_ssize_t number = CID + length, at = 0
    while number >= 0x80:
        p[at] = <unsigned char>(number & 0x7F | 0x80)
        number >>= 7
        at += 1
    p[at] = <unsigned char>number
    memcpy(p + at + 1, cid, CID)
    return at + 1 + CID


cdef int check(bytes cid, Py_ssize_t length) except -1:
    if len(cid) != CID or not is_prefix(<Bytes>PyBytes_AS_STRING(cid), 4):
        raise ValueError(f"not a CID of ours: {cid[:5].hex()}")
    if length < 0 or length > DATA_MAX:
        raise ValueError(f"a block of {length} bytes is too large for a frame")
    return 0


def head(cid: bytes, length: int) -> bytes:
    """What stands before ``length`` bytes of data: the varint and the CID."""
    cdef bytes name = bytes(cid)
    cdef Py_ssize_t size = length
    check(name, size)
    cdef bytes out = PyBytes_FromStringAndSize(NULL, head_length(CID + size))
    put_head(<unsigned char*>PyBytes_AS_STRING(out), <Bytes>PyBytes_AS_STRING(name), size)
    return out


def pack(blocks: Iterable[tuple[bytes, Buffer]]) -> bytes:
    """The frames of ``blocks``, one after the other."""
    cdef list names = []
    cdef list views = []
    cdef Py_ssize_t total = 0, size, at = 0, index
    cdef bytes out, name
    cdef Py_buffer view
    cdef unsigned char* p
    for cid, data in blocks:
        name = bytes(cid)
        size = len(data) if type(data) is bytes else memoryview(data).nbytes
        check(name, size)
        names.append(name)
        views.append(data)
        total += head_length(CID + size) + size
    out = PyBytes_FromStringAndSize(NULL, total)
    p = <unsigned char*>PyBytes_AS_STRING(out)
    for index in range(len(names)):
        name = <bytes>names[index]
        PyObject_GetBuffer(views[index], &view, PyBUF_SIMPLE)
        try:
            if at + head_length(CID + view.len) + view.len > total:
                raise ValueError("a block changed its length while it was packed")
            at += put_head(p + at, <Bytes>PyBytes_AS_STRING(name), view.len)
            memcpy(p + at, view.buf, view.len)
            at += view.len
        finally:
            PyBuffer_Release(&view)
    if at != total:
        raise ValueError("a block changed its length while it was packed")
    return out


cdef class Tally:
    """The frames of a log since its last commit record: how many, and the sha256 of their CIDs.
    Carried by ``scan`` from span to span."""

    cdef Py_ssize_t count
    cdef SHA256_CTX context

    def __cinit__(self) -> None:
        self.reset()

    cdef void reset(self) noexcept nogil:
        self.count = 0
        SHA256_Init(&self.context)

    cdef inline void add(self, Bytes cid) noexcept nogil:
        self.count += 1
        SHA256_Update(&self.context, cid, CID)


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
    cdef Py_buffer view
    cdef Py_ssize_t at = start, limit = stop, cid = 0, end = 0, count = 0, data
    cdef Py_ssize_t sign_length = len(mark)
    cdef Bytes sign = <Bytes>PyBytes_AS_STRING(mark)
    cdef Bytes p
    cdef bint marked
    cdef unsigned char digest[32]
    cdef bytes name, block
    cdef list marks = []
    PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
    try:
        if not 0 <= at <= limit <= view.len:
            raise ValueError("the span is not inside the buffer")
        p = <Bytes>view.buf
        while True:
            marked = False
            with nogil:
                while not marked:
                    cid = parse(p, at, limit, &end)
                    if cid < 0:
                        break
                    if not matches(p, cid, end):
                        end = 0
                        cid = -1
                        break
                    data = cid + CID
                    marked = (
                        p[cid + 1] == DAG_CBOR
                        and end - data >= sign_length
                        and memcmp(p + data, sign, sign_length) == 0
                    )
                    count += 1
                    if not marked:
                        tally.add(p + cid)
                        at = end
            if cid < 0:
                return at, count, end, marks
            SHA256_Final(digest, &tally.context)
            name = PyBytes_FromStringAndSize(<const char*>p + cid, CID)
            block = PyBytes_FromStringAndSize(<const char*>p + cid + CID, end - cid - CID)
            marks.append((at, end, name, block, tally.count, digest[:32]))
            tally.reset()
            at = end
    finally:
        PyBuffer_Release(&view)


cdef Py_ssize_t search(
    Bytes p, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t* budget
) noexcept nogil:
    cdef Py_ssize_t at = start + 1, cid, end = 0
    cdef int back
    cdef Bytes hit
    while at <= stop - CID:
        hit = <Bytes>memchr(p + at, 0x01, stop - CID + 1 - at)
        if hit == NULL:
            return -1
        at = hit - p
        if is_prefix(p + at, 4):
            for back in range(4, 0, -1):
                if at - back < start:
                    continue
                cid = parse(p, at - back, stop, &end)
                if cid != at:
                    continue
                if matches(p, cid, end):
                    return at - back
                budget[0] -= end - cid
                if budget[0] < 0:
                    budget[0] = 0
                    return -1
        at += 1
    return -1


def find(buffer: Buffer, start: int, stop: int, budget: int) -> tuple[int, int]:
    """(offset of the first good frame in ``buffer[start:stop]`` or -1, what is left of ``budget``).

    ``budget`` bounds the bytes hashed in vain: whoever can write data can make it look like many
    frames. The search ends when it is used up.
    """
    cdef Py_buffer view
    cdef Py_ssize_t first = start, limit = stop, left = budget, found
    PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
    try:
        if not 0 <= first <= limit <= view.len:
            raise ValueError("the span is not inside the buffer")
        with nogil:
            found = search(<Bytes>view.buf, first, limit, &left)
        return found, left
    finally:
        PyBuffer_Release(&view)
