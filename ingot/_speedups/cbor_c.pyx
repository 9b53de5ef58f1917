# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""Strict canonical DAG-CBOR, compiled; ``cbor_py`` is the specification.

A reader is three pointers into a bytes object that its caller keeps alive; a writer is a buffer
that starts on the stack and moves to the heap. Lengths from the block are compared with what is
left before a pointer moves. Called by ``ingot.codec``; ``layout_c`` uses the reader and writer.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Next
from cpython.float cimport PyFloat_AS_DOUBLE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.math cimport isfinite
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcmp, memcpy

from ingot._speedups.cbor_py import CANONICAL_KEYS, Cid
from ingot.errors import FormatError
from ingot.limits import CBOR_BYTES_MAX, CBOR_DEPTH_MAX

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    uint64_t PyLong_AsUnsignedLongLong(object number) except? 0xFFFFFFFFFFFFFFFF
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow) except? -1

cdef Py_ssize_t BYTES_MAX = CBOR_BYTES_MAX
cdef int DEPTH_MAX = CBOR_DEPTH_MAX
cdef object CID = Cid


def encode(value: object) -> bytes:
    """The canonical block of ``value``.

    Takes exactly None, bool, int (64 bits and a sign), finite float, str, bytes, Cid, list, tuple
    and dict with str keys. Another type is a TypeError; a value without an encoding (or beyond the
    limits of size and depth) a ValueError.
    """
    cdef Writer out
    out.data, out.used, out.room = out.stack, 0, STACK_BYTES
    try:
        write(&out, value, 0)
        if out.used > BYTES_MAX:
            raise ValueError(f"the block has more than {BYTES_MAX} bytes")
        return PyBytes_FromStringAndSize(<char *>out.data, out.used)
    finally:
        if out.data != out.stack:
            PyMem_Free(out.data)


def decode(block: bytes | bytearray | memoryview, keys: int = CANONICAL_KEYS) -> object:
    """The value of a whole canonical block; FormatError for anything else. Links become Cid.

    ``keys`` is the one leniency, for blocks of other writers: SORTED_KEYS takes a map whose keys
    ascend bytewise as well as one in canonical order; BINARY_KEYS takes such maps, and keys that
    are not UTF-8, whose bytes become surrogate escapes.
    """
    cdef Reader data
    cdef object owner = block if type(block) is bytes else bytes(block)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(owner)
    if size > BYTES_MAX:
        raise FormatError(BYTES_MAX, "the end of the block", f"{size} bytes in all")
    data.keys = keys
    data.start = data.at = <const uint8_t *>PyBytes_AS_STRING(owner)
    data.end = data.start + size
    value = read(&data, 0)
    if data.at != data.end:
        raise FormatError(
            data.at - data.start, "the end of the block", f"{data.end - data.at} more bytes"
        )
    return value


def links(block: bytes) -> list[bytes]:
    """The CIDs that a block links to, in order and as often as it does. FormatError for what no
    decoder takes; but order of keys, depth and UTF-8 are not looked at."""
    cdef Reader data
    cdef Head head
    cdef const uint8_t *begin
    cdef list found = []
    data.keys = CANONICAL
    data.start = data.at = <const uint8_t *>PyBytes_AS_STRING(block)
    data.end = data.start + PyBytes_GET_SIZE(block)
    while data.at < data.end:
        begin = data.at
        if begin[0] >> 5 == OTHER:
            read_other(&data)
            continue
        read_head(&data, &head)
        if head.major == TAG:
            found.append(bytes(read_link(&data, begin, head.argument)))
        elif head.major == BYTES or head.major == TEXT:
            data.at += span(&data, begin, head.argument)
    return found


def check_cid(cid: bytes) -> int:
    """-1 when ``cid`` is a binary CIDv1, its varints minimal and its digest as long as it says;
    else the offset of what is wrong."""
    return cid_fault(<const uint8_t *>PyBytes_AS_STRING(cid), PyBytes_GET_SIZE(cid))


cdef Py_ssize_t cid_fault(const uint8_t *cid, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t at = 0, begin
    cdef uint64_t number = 0
    cdef int field, shift
    cdef uint8_t byte = 0
    if size == 36 and memcmp(cid, b"\x01\x71\x12\x20", 4) == 0:  # what we write
        return -1
    for field in range(4):
        begin, shift, number = at, 0, 0
        while True:
            if at == size or shift > 56:
                return begin
            byte = cid[at]
            at += 1
            number |= <uint64_t>(byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        if byte == 0 and shift:
            return begin
        if field == 0 and number != 1:
            return begin
    return -1 if number == <uint64_t>(size - at) else at


# -- encoding -----------------------------------------------------------------------------------

cdef int grow(Writer *out, Py_ssize_t more) except -1:
    """Make room for ``more`` bytes; not for much more than a block may have."""
    cdef Py_ssize_t room = out.room
    cdef uint8_t *data
    if out.used + more > BYTES_MAX + 16:  # a head is given more room than most need
        raise ValueError(f"the block has more than {BYTES_MAX} bytes")
    while room < out.used + more:
        room *= 2
    if out.data == out.stack:
        data = <uint8_t *>PyMem_Malloc(room)
        if data != NULL:
            memcpy(data, out.stack, out.used)
    else:
        data = <uint8_t *>PyMem_Realloc(out.data, room)
    if data == NULL:
        raise MemoryError
    out.data, out.room = data, room
    return 0


cdef int write_head(Writer *out, int major, uint64_t argument, Py_ssize_t more) except -1:
    """A head, and room for the ``more`` bytes that follow it."""
    cdef uint8_t *at
    cdef int width, index
    if out.room - out.used < 9 + more:
        grow(out, 9 + more)
    at = out.data + out.used
    if argument < 24:
        at[0] = <uint8_t>(major << 5 | <int>argument)
        out.used += 1
        return 0
    if argument < 0x100:
        width = 1
        at[0] = <uint8_t>(major << 5 | 24)
    elif argument < 0x10000:
        width = 2
        at[0] = <uint8_t>(major << 5 | 25)
    elif argument < <uint64_t>0x100000000:
        width = 4
        at[0] = <uint8_t>(major << 5 | 26)
    else:
        width = 8
        at[0] = <uint8_t>(major << 5 | 27)
    for index in range(width, 0, -1):
        at[index] = <uint8_t>(argument & 0xFF)
        argument >>= 8
    out.used += 1 + width
    return 0


cdef int write_span(
    Writer *out, int major, const char *span, Py_ssize_t size
) except -1:
    write_head(out, major, size, size)
    memcpy(out.data + out.used, span, size)
    out.used += size
    return 0


cdef int write(Writer *out, object value, int depth) except -1:
    cdef object kind = type(value)
    cdef Py_ssize_t size, index
    cdef const char *text
    if kind is str:
        text = PyUnicode_AsUTF8AndSize(value, &size)
        write_span(out, TEXT, text, size)
    elif kind is bytes:
        write_span(out, BYTES, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    elif kind is int:
        write_int(out, value)
    elif kind is CID:
        write_link(out, <const uint8_t *>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    elif kind is dict:
        write_map(out, value, depth)
    elif kind is list:
        check_depth(depth)
        size = PyList_GET_SIZE(value)
        write_head(out, ARRAY, size, 0)
        for index in range(size):
            write(out, <object>PyList_GET_ITEM(value, index), depth + 1)
    elif kind is tuple:
        check_depth(depth)
        size = PyTuple_GET_SIZE(value)
        write_head(out, ARRAY, size, 0)
        for index in range(size):
            write(out, <object>PyTuple_GET_ITEM(value, index), depth + 1)
    elif value is None:
        write_head(out, OTHER, 22, 0)
    elif value is True:
        write_head(out, OTHER, 21, 0)
    elif value is False:
        write_head(out, OTHER, 20, 0)
    elif kind is float:
        write_float(out, PyFloat_AS_DOUBLE(value))
    else:
        raise TypeError(f"DAG-CBOR has no {kind.__name__}")
    return 0


cdef int check_depth(int depth) except -1:
    if depth >= DEPTH_MAX:
        raise ValueError(f"more than {DEPTH_MAX} levels of arrays and maps")
    return 0


cdef int write_int(Writer *out, object value) except -1:
    cdef int overflow = 0
    cdef long long number = PyLong_AsLongLongAndOverflow(value, &overflow)
    cdef uint64_t argument
    if overflow == 0:
        if number >= 0:
            return write_head(out, UINT, <uint64_t>number, 0)
        return write_head(out, NINT, <uint64_t>(-1 - number), 0)
    try:
        argument = PyLong_AsUnsignedLongLong(value if overflow > 0 else -1 - value)
    except OverflowError:
        raise ValueError("an integer needs more than 64 bits") from None
    return write_head(out, UINT if overflow > 0 else NINT, argument, 0)


cdef int write_float(Writer *out, double number) except -1:
    cdef uint64_t bits
    cdef uint8_t *at
    cdef int index
    if not isfinite(number):
        raise ValueError("a float is not finite")
    if out.room - out.used < 9:
        grow(out, 9)
    memcpy(&bits, &number, 8)
    at = out.data + out.used
    at[0] = 0xFB
    for index in range(8, 0, -1):
        at[index] = <uint8_t>(bits & 0xFF)
        bits >>= 8
    out.used += 9
    return 0


cdef int write_link(Writer *out, const uint8_t *cid, Py_ssize_t size) except -1:
    if cid_fault(cid, size) >= 0:
        raise ValueError(f"not a CIDv1: {PyBytes_FromStringAndSize(<const char *>cid, size).hex()}")
    write_head(out, TAG, 42, 0)
    write_head(out, BYTES, size + 1, size + 1)
    out.data[out.used] = 0
    memcpy(out.data + out.used + 1, cid, size)
    out.used += size + 1
    return 0


cdef int write_map(Writer *out, dict entries, int depth) except -1:
    """Entries are written as they come while they come in order, which formats see to; the first
    that does not sends the whole map through a sort."""
    cdef Py_ssize_t used = out.used, at = 0, size, previous_size = -1
    cdef const char *previous = NULL
    cdef const char *text
    cdef PyObject *key
    cdef PyObject *value
    check_depth(depth)
    write_head(out, MAP, len(entries), 0)
    while PyDict_Next(entries, &at, &key, &value):
        if type(<object>key) is not str:
            raise TypeError(f"a map key is {type(<object>key).__name__}, not str")
        text = PyUnicode_AsUTF8AndSize(<object>key, &size)
        if size < previous_size or (
            size == previous_size and memcmp(previous, text, size) > 0
        ):
            out.used = used
            return write_map_sorted(out, entries, depth)
        previous, previous_size = text, size
        write_span(out, TEXT, text, size)
        write(out, <object>value, depth + 1)
    return 0


cdef int write_map_sorted(Writer *out, dict entries, int depth) except -1:
    cdef list ordered = []
    cdef bytes text
    for key, value in entries.items():
        if type(key) is not str:
            raise TypeError(f"a map key is {type(key).__name__}, not str")
        text = key.encode()
        ordered.append((len(text), text, value))
    ordered.sort(key=first_two)
    write_head(out, MAP, len(ordered), 0)
    for _size, text, value in ordered:
        write_span(out, TEXT, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
        write(out, value, depth + 1)
    return 0


cdef first_two(entry):
    return entry[:2]


# -- decoding -----------------------------------------------------------------------------------

cdef int read_head(Reader *data, Head *head) except -1:
    cdef const uint8_t *at = data.at
    cdef int info
    if at == data.end:
        raise FormatError(at - data.start, "a value", "the end of the block")
    head.major = at[0] >> 5
    info = at[0] & 31
    if info < 24:
        head.argument = info
        data.at = at + 1
        return 0
    return read_long_head(data, head, info)


cdef int read_long_head(Reader *data, Head *head, int info) except -1:
    cdef const uint8_t *at = data.at
    cdef Py_ssize_t left = data.end - at - 1
    cdef uint64_t argument = 0
    cdef uint64_t least
    cdef int width, index
    if info > 27:
        found = "an indefinite one" if info == 31 else f"additional information {info}"
        raise FormatError(at - data.start, "a head of definite length", found)
    width = 1 << (info - 24)
    if left < width:
        raise FormatError(at - data.start, f"{width} bytes of argument", f"{left}")
    for index in range(1, width + 1):
        argument = argument << 8 | at[index]
    least = 24 if width == 1 else <uint64_t>1 << (4 * width)
    if argument < least:
        raise FormatError(at - data.start, "the shortest head", f"{width} bytes for {argument}")
    head.argument = argument
    data.at = at + 1 + width
    return 0


cdef object read(Reader *data, int depth):
    cdef const uint8_t *begin = data.at
    cdef Head head
    cdef Py_ssize_t left, size
    cdef list items
    if begin != data.end and begin[0] >> 5 == OTHER:
        return read_other(data)
    read_head(data, &head)
    if head.major == UINT:
        return head.argument
    if head.major == TEXT:
        return read_text(data, begin, head.argument)
    if head.major == BYTES:
        size = span(data, begin, head.argument)
        data.at += size
        return PyBytes_FromStringAndSize(<const char *>data.at - size, size)
    if head.major == NINT:
        if head.argument >> 63:
            return -1 - <object>head.argument
        return -1 - <long long>head.argument
    if head.major == TAG:
        return read_link(data, begin, head.argument)
    if depth >= DEPTH_MAX:
        raise FormatError(begin - data.start, f"at most {DEPTH_MAX} levels", "one more")
    left = data.end - data.at
    if head.argument > <uint64_t>(left // 2 if head.major == MAP else left):
        raise FormatError(
            begin - data.start, f"room for {head.argument} entries", f"{left} bytes"
        )
    size = <Py_ssize_t>head.argument
    if head.major == MAP:
        return read_map(data, size, depth)
    items = []
    for _ in range(size):
        items.append(read(data, depth + 1))
    return items


cdef dict read_map(Reader *data, Py_ssize_t count, int depth):
    cdef dict entries = {}
    cdef const uint8_t *begin
    cdef const uint8_t *previous = NULL
    cdef Py_ssize_t size, previous_size = -1
    cdef const char *errors = NULL
    cdef bint canonical = True, bytewise = data.keys != CANONICAL  # what order its keys may be in
    cdef int order
    cdef Head head
    if data.keys == BINARY:
        errors = b"surrogateescape"
    for _ in range(count):
        begin = data.at
        read_head(data, &head)
        if head.major != TEXT:
            raise FormatError(
                begin - data.start, "a map key that is text", f"major type {head.major}"
            )
        key = read_string(data, begin, head.argument, errors)
        size = <Py_ssize_t>head.argument
        if size <= previous_size or (bytewise and previous_size >= 0):
            order = memcmp(data.at - size, previous, min(size, previous_size))
            if order == 0:
                order = (size > previous_size) - (size < previous_size)
            if size < previous_size or (size == previous_size and order <= 0):
                canonical = False
            if order <= 0:
                bytewise = False
            if not canonical and not bytewise:
                found = "the same key again" if order == 0 else "a key that sorts before it"
                raise FormatError(
                    begin - data.start, "a map key that sorts after the one before", found
                )
        previous, previous_size = data.at - size, size
        entries[key] = read(data, depth + 1)
    return entries


cdef Py_ssize_t span(Reader *data, const uint8_t *begin, uint64_t length) except -1:
    """``length`` when that many bytes are left."""
    cdef Py_ssize_t left = data.end - data.at
    if length > <uint64_t>left:
        raise FormatError(begin - data.start, f"a string of {length} bytes", f"{left} bytes")
    return <Py_ssize_t>length


cdef object read_text(Reader *data, const uint8_t *begin, uint64_t length):
    return read_string(data, begin, length, NULL)


cdef object read_string(
    Reader *data, const uint8_t *begin, uint64_t length, const char *errors
):
    cdef Py_ssize_t size = span(data, begin, length)
    cdef const uint8_t *text = data.at
    data.at += size
    try:
        return PyUnicode_DecodeUTF8(<const char *>text, size, errors)
    except UnicodeDecodeError as error:
        fault = error.start
    raise FormatError(text - data.start + fault, "UTF-8", f"byte {text[<Py_ssize_t>fault]:02x}")


cdef object read_link(Reader *data, const uint8_t *begin, uint64_t tag):
    cdef Head head
    cdef Py_ssize_t size, fault
    cdef const uint8_t *at
    if tag != 42:
        raise FormatError(begin - data.start, "tag 42", f"tag {tag}")
    begin = data.at
    read_head(data, &head)
    if head.major != BYTES:
        raise FormatError(begin - data.start, "a link's byte string", f"major type {head.major}")
    size = span(data, begin, head.argument)
    at = data.at
    if size == 0 or at[0] != 0:
        found = f"{at[0]:02x}" if size else "nothing"
        raise FormatError(at - data.start, "00 before a link's CID", found)
    fault = cid_fault(at + 1, size - 1)
    if fault >= 0:
        wrong = PyBytes_FromStringAndSize(<const char *>at + 1, size - 1)[fault:][:8]
        raise FormatError(at - data.start + 1 + fault, "a CIDv1", wrong.hex() or "its end")
    data.at += size
    return CID(PyBytes_FromStringAndSize(<const char *>at + 1, size - 1))


cdef object read_other(Reader *data):
    cdef const uint8_t *at = data.at
    cdef Py_ssize_t left = data.end - at - 1
    cdef uint64_t bits = 0
    cdef double number
    cdef int index
    data.at += 1
    if at[0] == 0xF6:
        return None
    if at[0] == 0xF5:
        return True
    if at[0] == 0xF4:
        return False
    if at[0] != 0xFB:
        raise FormatError(
            at - data.start, "false, true, null or a 64-bit float", f"byte {at[0]:02x}"
        )
    if left < 8:
        raise FormatError(at - data.start, "8 bytes of float", f"{left}")
    for index in range(1, 9):
        bits = bits << 8 | at[index]
    memcpy(&number, &bits, 8)
    if not isfinite(number):
        raise FormatError(at - data.start, "a finite float", str(number))
    data.at += 8
    return number
