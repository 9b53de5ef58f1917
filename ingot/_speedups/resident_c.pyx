# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Reads of what is in the page cache, and of nothing else: no read here waits for a disk.

The compiled form of ``resident_py``, which is the specification. Called by
``ingot.segments.files``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_SetFromErrno
from libc.errno cimport EAGAIN, errno
from posix.types cimport off_t

cdef extern from "<sys/uio.h>" nogil:
    int RWF_NOWAIT
    struct iovec:
        void* iov_base
        size_t iov_len
    Py_ssize_t preadv2(int fd, const iovec* parts, int count, off_t offset, int flags)

cdef enum:
    GIL_BYTES_MAX = 32768  # copied from the page cache faster than the GIL changes hands


def read(fd: int, length: int, offset: int) -> bytes | None:
    """The bytes of a file if all of them are in memory (RWF_NOWAIT), else None; OSError."""
    return read_one(fd, length, offset)


def read_many(
    fds: Mapping[Any, int], places: Sequence[tuple[Any, int, int] | None], room: int
) -> list[bytes | None]:
    """As ``read``, of each (file, offset, length), None for None; ``fds`` has the descriptors. Up
    to the one that has ``room`` bytes read in all."""
    cdef list found = []
    cdef Py_ssize_t left = room, length
    for place in places:
        if left <= 0:
            break
        if place is None:
            found.append(None)
            continue
        file, offset, length = <tuple?>place
        found.append(read_one(fds[file], length, offset))
        left -= length
    return found


cdef bytes read_one(int fd, Py_ssize_t size, off_t offset):
    cdef Py_ssize_t got = -1
    cdef iovec part
    cdef bytes data
    if size < 0:
        raise ValueError("a negative length")
    data = PyBytes_FromStringAndSize(NULL, size)
    part.iov_base, part.iov_len = PyBytes_AS_STRING(data), size
    if size <= GIL_BYTES_MAX:
        got = preadv2(fd, &part, 1, offset, RWF_NOWAIT)
    else:
        with nogil:
            got = preadv2(fd, &part, 1, offset, RWF_NOWAIT)
    if got < 0 and errno != EAGAIN:
        PyErr_SetFromErrno(OSError)
    return data if got == size else None
