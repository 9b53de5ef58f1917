# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Heads of messages: the lines of a request taken apart, those of an answer put together.

The compiled form of ``head_py``, which is the specification. Called by ``ingot.http`` and
``ingot.s3``.

``Scanner`` finds the lower-case form of a name in a small table of names seen before, so that a
usual header costs one new object, its value. The table never grows beyond its slots and looks at a
few of them only, whatever names clients make up.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t
from libc.stdio cimport snprintf
from libc.string cimport memchr, memcmp, memcpy

from ingot.limits import KEY_BYTES_MAX

PLAIN = 1
COUNTED = 2
METHODS = ("GET", "PUT", "HEAD", "POST", "DELETE", "OPTIONS", "PATCH")
FRAMING = frozenset({b"connection", b"expect", b"transfer-encoding", b"upgrade"})
OWN = frozenset(
    {b"content-length", b"transfer-encoding", b"connection", b"date", b"server"}
)

ctypedef const unsigned char* Bytes

cdef enum:
    SLOTS = 512  # a power of two
    PROBES = 4
    NAME_MAX = 64  # of a name that is remembered
    NUMBER = 40  # a Content-Length line
    FRAMES = 1  # kinds of names
    COUNTS = 2

cdef dict _METHODS = {name.encode(): name for name in METHODS}
cdef bytes _HOST = b"host"
cdef bytes _LENGTH = b"content-length"
cdef Py_ssize_t KEY_MAX = KEY_BYTES_MAX
cdef unsigned char LOWER[256]
cdef unsigned char TOKEN[256]
cdef unsigned char ENDING[256]


cdef void _tables() noexcept:
    cdef int code
    cdef bytes marks = b"!#$%&'*+-.^_`|~"
    for code in range(256):
        LOWER[code] = code + 32 if 65 <= code <= 90 else code
        TOKEN[code] = 48 <= code <= 57 or 65 <= code <= 90 or 97 <= code <= 122
        ENDING[code] = code == 0 or code == 10 or code == 13
    for code in range(15):
        TOKEN[<unsigned char>PyBytes_AS_STRING(marks)[code]] = 1


_tables()


cdef class Scanner:
    """Takes request heads apart; remembers header names, since clients send the same few."""

    cdef list names  # in their slots; None: free
    cdef unsigned char kinds[SLOTS]

    def __cinit__(self) -> None:
        self.names = [None] * SLOTS

    def scan(
        self, head: bytes
    ) -> tuple[str, bytes, list[tuple[bytes, bytes]], dict[bytes, bytes], int]:
        """Method, target, headers, index and flags of a head that has been found grammatical.

        Names are lower-case, values trimmed. Of a name that comes twice the index holds the last
        value. ValueError where the lines are those of no head.
        """
        cdef Bytes at = <Bytes>PyBytes_AS_STRING(head)
        cdef Bytes end = at + PyBytes_GET_SIZE(head)
        cdef Bytes stop = _line_end(at, end)
        cdef Bytes method_end = <Bytes>memchr(at, 32, stop - at)
        cdef Bytes version = stop
        cdef Bytes colon
        cdef list headers = []
        cdef dict index = {}
        cdef bytes name, value, target
        cdef int kinds = 0
        cdef bint plain
        while version > at and (version - 1)[0] != 32:
            version -= 1
        if method_end == NULL or version <= method_end + 1:
            raise ValueError("the first line has no three parts")
        raw = at[: method_end - at]
        method = _METHODS.get(raw)
        plain = method is not None and stop - version == 8 and memcmp(version, b"HTTP/1.1", 8) == 0
        if method is None:
            method = raw.decode("latin-1")
        target = _trimmed(method_end + 1, version - 1, False)
        while stop + 4 <= end and not (stop[2] == 13 and stop[3] == 10):
            at = stop + 2
            stop = _line_end(at, end)
            colon = <Bytes>memchr(at, 58, stop - at)
            if colon == NULL:
                raise ValueError("a line has no colon")
            name = self._name(at, colon - at, &kinds)
            value = _trimmed(colon + 1, stop, True)
            headers.append((name, value))
            index[name] = value
        plain = plain and not kinds & FRAMES and len(index) == len(headers) and _HOST in index
        plain = plain and PyBytes_AS_STRING(target)[0] == 47
        return method, target, headers, index, (2 if kinds & COUNTS else 1) if plain else 0

    cdef bytes _name(self, Bytes at, Py_ssize_t length, int* kinds):
        """The name in lower case; what kind it is of is added to ``kinds``."""
        cdef uint32_t mixed = 2166136261
        cdef Py_ssize_t i, slot
        cdef bytes name
        cdef Bytes known
        if length > NAME_MAX:
            return at[:length].lower()
        for i in range(length):
            mixed = (mixed ^ LOWER[at[i]]) * 16777619
        mixed ^= mixed >> 15
        for probe in range(PROBES):
            slot = (mixed + probe) & (SLOTS - 1)
            found = self.names[slot]
            if found is None:
                name = at[:length].lower()
                self.names[slot] = name
                self.kinds[slot] = _kind(name)
                break
            name = <bytes>found
            if PyBytes_GET_SIZE(name) == length:
                known = <Bytes>PyBytes_AS_STRING(name)
                for i in range(length):
                    if known[i] != LOWER[at[i]]:
                        break
                else:
                    break
        else:
            name = at[:length].lower()
            kinds[0] |= _kind(name)
            return name
        kinds[0] |= self.kinds[slot]
        return name


cdef int _kind(bytes name) except -1:
    if name == _LENGTH:
        return COUNTS
    return FRAMES if name in FRAMING else 0


cdef inline Bytes _line_end(Bytes at, Bytes end) noexcept:
    """Where the CRLF of a line begins, or the end."""
    cdef Bytes found
    while True:
        found = <Bytes>memchr(at, 13, end - at)
        if found == NULL or found + 1 == end:
            return end
        if found[1] == 10:
            return found
        at = found + 1


cdef inline bytes _trimmed(Bytes at, Bytes end, bint tabs):
    while at < end and (at[0] == 32 or (tabs and at[0] == 9)):
        at += 1
    while end > at and ((end - 1)[0] == 32 or (tabs and (end - 1)[0] == 9)):
        end -= 1
    return PyBytes_FromStringAndSize(<const char*>at, end - at)


def split_plain(target: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Bucket, key and query of a target that is a path of ASCII without escapes; b"" for what is
    not there. None for any other, and for a NUL or a key of over ``KEY_BYTES_MAX``."""
    cdef Bytes at = <Bytes>PyBytes_AS_STRING(target)
    cdef Bytes end = at + PyBytes_GET_SIZE(target)
    cdef Bytes path_end, bucket_end, key, query, p
    cdef bint odd = False
    path_end = <Bytes>memchr(at, 63, end - at)
    query = end if path_end == NULL else path_end + 1
    path_end = end if path_end == NULL else path_end
    if at == path_end or at[0] != 47:
        return None
    at += 1
    p = at
    while p < path_end:
        odd |= p[0] >= 128 or p[0] == 37 or p[0] == 0
        p += 1
    bucket_end = <Bytes>memchr(at, 47, path_end - at)
    key = path_end if bucket_end == NULL else bucket_end + 1
    bucket_end = path_end if bucket_end == NULL else bucket_end
    if odd or path_end - key > KEY_MAX:
        return None
    return (
        PyBytes_FromStringAndSize(<const char*>at, bucket_end - at),
        PyBytes_FromStringAndSize(<const char*>key, path_end - key),
        PyBytes_FromStringAndSize(<const char*>query, end - query),
    )


def compose(
    start: bytes,
    headers: list[tuple[bytes, bytes]],
    length: int,
    connection: bytes,
    tail: bytes,
    body: bytes,
) -> bytes:
    """An answer: its first line, headers, Content-Length (none below 0), the lines that the
    connection adds, and a body.

    ValueError for a header that may not be sent: its name is no token or one of ``OWN``, its value
    contains CR, LF or NUL.
    """
    cdef char number[NUMBER]
    cdef long long counted = length
    cdef Py_ssize_t digits = 0, size
    cdef bytes name, value, out
    cdef char* at
    if counted >= 0:
        digits = snprintf(number, NUMBER, b"Content-Length: %lld\r\n", counted)
    size = len(start) + digits + len(connection) + len(tail) + len(body)
    for header in headers:
        name, value = header
        if name is None or value is None:
            raise TypeError("a header is two bytes objects")
        size += PyBytes_GET_SIZE(name) + PyBytes_GET_SIZE(value) + 4
        _check(name, value)
    out = PyBytes_FromStringAndSize(NULL, size)
    at = _put(PyBytes_AS_STRING(out), start)
    for header in headers:
        name, value = header
        at = _put(at, name)
        memcpy(at, b": ", 2)
        at = _put(at + 2, value)
        memcpy(at, b"\r\n", 2)
        at += 2
    memcpy(at, number, digits)
    at = _put(at + digits, connection)
    at = _put(at, tail)
    _put(at, body)
    return out


cdef inline char* _put(char* at, bytes data) noexcept:
    memcpy(at, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    return at + PyBytes_GET_SIZE(data)


cdef int _check(bytes name, bytes value) except -1:
    cdef Bytes at = <Bytes>PyBytes_AS_STRING(name)
    cdef Py_ssize_t i, length = PyBytes_GET_SIZE(name)
    cdef bint bad = length == 0
    for i in range(length):
        bad |= not TOKEN[at[i]]
    if bad:
        raise ValueError("the name of a response header is no token")
    # The lengths of OWN: 4, 6, 10, 14 and 17.
    if (length == 4 or length == 6 or length == 10 or length == 14 or length == 17) and (
        name.lower() in OWN
    ):
        raise ValueError(f"{name.decode()} is written by the connection")
    at = <Bytes>PyBytes_AS_STRING(value)
    for i in range(PyBytes_GET_SIZE(value)):
        bad |= ENDING[at[i]]
    if bad:
        raise ValueError("a response header contains CR, LF or NUL")
    return 0
