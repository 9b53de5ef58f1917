# cython: language_level=3
"""The reader and the writer of ``cbor_c``, for the extensions that read formats without a dict."""

from libc.stdint cimport uint8_t, uint64_t

cdef enum:
    STACK_BYTES = 1024  # most blocks fit, so most never touch the heap

cdef enum:
    UINT = 0
    NINT = 1
    BYTES = 2
    TEXT = 3
    ARRAY = 4
    MAP = 5
    TAG = 6
    OTHER = 7


cdef struct Writer:
    uint8_t *data  # ``stack``, or a heap block that ``encode`` frees
    Py_ssize_t used
    Py_ssize_t room
    uint8_t[STACK_BYTES] stack


cdef enum:
    CANONICAL = 0
    SORTED = 1
    BINARY = 2


cdef struct Reader:
    int keys  # CANONICAL, SORTED or BINARY: what map keys to take
    const uint8_t *start
    const uint8_t *at
    const uint8_t *end


cdef struct Head:
    int major
    uint64_t argument


# Room for that many bytes more at ``data[used]``.
cdef int grow(Writer *out, Py_ssize_t more) except -1
# A head, and room for the ``more`` bytes that follow it.
cdef int write_head(Writer *out, int major, uint64_t argument, Py_ssize_t more) except -1
cdef int write_span(Writer *out, int major, const char *span, Py_ssize_t size) except -1
cdef int write(Writer *out, object value, int depth) except -1
cdef int write_int(Writer *out, object value) except -1
cdef int write_link(Writer *out, const uint8_t *cid, Py_ssize_t size) except -1

# All of these start at ``data.at`` and leave it behind what they read.
cdef int read_head(Reader *data, Head *head) except -1
cdef object read(Reader *data, int depth)
cdef object read_other(Reader *data)
# These two stand behind a head that began at ``begin``; ``span`` only checks the length.
cdef object read_text(Reader *data, const uint8_t *begin, uint64_t length)
cdef Py_ssize_t span(Reader *data, const uint8_t *begin, uint64_t length) except -1
