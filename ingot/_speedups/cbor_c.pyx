# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""Strict canonical DAG-CBOR, compiled; ``cbor_py`` is the specification.

A reader is three pointers into a bytes object that its caller keeps alive; a writer is a buffer
that starts on the stack and moves to the heap. Lengths from the block are compared with what is
left before a pointer moves. ``ingot.codec`` calls this, and no one else.
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

from collections.abc import Sequence
from typing import Any

from ingot._speedups.cbor_py import KINDS, Cid, foreign
from ingot.errors import FormatError
from ingot.limits import CBOR_BYTES_MAX, CBOR_DEPTH_MAX

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    uint64_t PyLong_AsUnsignedLongLong(object number) except? 0xFFFFFFFFFFFFFFFF
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow) except? -1

cdef enum:
    STACK_BYTES = 1024  # most blocks fit, so most never touch the heap

cdef Py_ssize_t BYTES_MAX = CBOR_BYTES_MAX
cdef int DEPTH_MAX = CBOR_DEPTH_MAX
cdef object CID = Cid

cdef enum:
    UINT = 0
    NINT = 1
    BYTES = 2
    TEXT = 3
    ARRAY = 4
    MAP = 5
    TAG = 6
    OTHER = 7


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


def decode(block: bytes | bytearray | memoryview) -> object:
    """The value of a whole canonical block; FormatError for anything else. Links become Cid."""
    cdef Reader data
    cdef object owner = block if type(block) is bytes else bytes(block)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(owner)
    if size > BYTES_MAX:
        raise FormatError(BYTES_MAX, "the end of the block", f"{size} bytes in all")
    data.start = data.at = <const uint8_t *>PyBytes_AS_STRING(owner)
    data.end = data.start + size
    value = read(&data, 0)
    if data.at != data.end:
        raise FormatError(
            data.at - data.start, "the end of the block", f"{data.end - data.at} more bytes"
        )
    return value


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

cdef struct Writer:
    uint8_t *data  # ``stack``, or a heap block that ``encode`` frees
    Py_ssize_t used
    Py_ssize_t room
    uint8_t[STACK_BYTES] stack


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


cdef inline int write_head(Writer *out, int major, uint64_t argument, Py_ssize_t more) except -1:
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


cdef inline int write_span(
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

cdef struct Reader:
    const uint8_t *start
    const uint8_t *at
    const uint8_t *end


cdef struct Head:
    int major
    uint64_t argument


cdef inline int read_head(Reader *data, Head *head) except -1:
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
    cdef int order
    cdef Head head
    for _ in range(count):
        begin = data.at
        read_head(data, &head)
        if head.major != TEXT:
            raise FormatError(
                begin - data.start, "a map key that is text", f"major type {head.major}"
            )
        key = read_text(data, begin, head.argument)
        size = <Py_ssize_t>head.argument
        if size <= previous_size:
            order = -1 if size < previous_size else memcmp(data.at - size, previous, size)
            if order <= 0:
                found = "the same key again" if order == 0 else "a key that sorts before it"
                raise FormatError(
                    begin - data.start, "a map key that sorts after the one before", found
                )
        previous, previous_size = data.at - size, size
        entries[key] = read(data, depth + 1)
    return entries


cdef inline Py_ssize_t span(Reader *data, const uint8_t *begin, uint64_t length) except -1:
    """``length`` when that many bytes are left."""
    cdef Py_ssize_t left = data.end - data.at
    if length > <uint64_t>left:
        raise FormatError(begin - data.start, f"a string of {length} bytes", f"{left} bytes")
    return <Py_ssize_t>length


cdef object read_text(Reader *data, const uint8_t *begin, uint64_t length):
    cdef Py_ssize_t size = span(data, begin, length)
    cdef const uint8_t *text = data.at
    data.at += size
    try:
        return PyUnicode_DecodeUTF8(<const char *>text, size, NULL)
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


# -- layouts ------------------------------------------------------------------------------------

cdef enum:
    FIELDS_MAX = 32

cdef enum Kind:
    K_UINT
    K_TEXT
    K_UTF8
    K_BYTES
    K_BYTES16
    K_BYTES32
    K_TRUE
    K_LINK
    K_TEXTS
    K_DIGESTS
    K_UINTS
    K_ENTRIES

cdef dict KIND_CODES = {
    "uint": K_UINT,
    "text": K_TEXT,
    "utf8": K_UTF8,
    "bytes": K_BYTES,
    "bytes16": K_BYTES16,
    "bytes32": K_BYTES32,
    "true": K_TRUE,
    "link": K_LINK,
    "texts": K_TEXTS,
    "digests": K_DIGESTS,
    "uints": K_UINTS,
    "entries": K_ENTRIES,
}
cdef list KIND_NAMES = list(KIND_CODES)


cdef struct Field:
    const char *name  # into ``Layout.encoded``: the name with its head
    Py_ssize_t size
    Kind kind
    bint optional


cdef class Layout:
    """The fields of one format: a map of one entry, the format's name, that holds a map of fields.

    ``fields`` are (name, kind) in canonical order; a kind is one of ``KINDS`` and ends in "?" when
    the field may be absent. An absent field is left out of the map and None in Python. Where a kind
    has an empty value other than the empty byte string, no block holds it: absent says the same.
    """

    cdef readonly str name
    cdef bytes prefix
    cdef list names
    cdef list encoded  # keeps what ``fields[i].name`` points to
    cdef Field[FIELDS_MAX] fields
    cdef Py_ssize_t count

    def __init__(self, name: str, fields: Sequence[tuple[str, str]]) -> None:
        cdef Py_ssize_t index
        cdef bytes text
        self.name = name
        self.prefix = b"\xa1" + encode(name)
        self.names = [field for field, _ in fields]
        self.encoded = [encode(field) for field in self.names]
        order = [(len(field.encode()), field.encode()) for field in self.names]
        kinds = [kind.removesuffix("?") for _, kind in fields]
        if sorted(set(order)) != order or not KIND_CODES.keys() >= set(kinds):
            raise ValueError(f"the fields of {name} are not in canonical order, or of no kind")
        if len(kinds) > FIELDS_MAX:
            raise ValueError("more than 32 fields")
        self.count = len(kinds)
        for index in range(self.count):
            text = self.encoded[index]
            self.fields[index].name = PyBytes_AS_STRING(text)
            self.fields[index].size = len(text)
            self.fields[index].kind = KIND_CODES[kinds[index]]
            self.fields[index].optional = fields[index][1].endswith("?")

    def encode(self, values: Sequence[object]) -> bytes:
        """The block of these values, one a field; TypeError or ValueError for a value that its
        field cannot hold."""
        cdef tuple items = values if type(values) is tuple else tuple(values)
        cdef Writer out
        if PyTuple_GET_SIZE(items) != self.count:
            raise ValueError(f"{self.name} has {self.count} fields, not {len(items)}")
        out.data, out.used, out.room = out.stack, 0, STACK_BYTES
        try:
            self.write_fields(&out, items)
            if out.used > BYTES_MAX:
                raise ValueError(f"the block has more than {BYTES_MAX} bytes")
            return PyBytes_FromStringAndSize(<char *>out.data, out.used)
        finally:
            if out.data != out.stack:
                PyMem_Free(out.data)

    cdef int write_fields(self, Writer *out, tuple items) except -1:
        cdef Py_ssize_t index, present = 0, size = PyBytes_GET_SIZE(self.prefix)
        cdef Field *field
        cdef object value
        for index in range(self.count):
            if items[index] is not None:
                present += 1
            elif not self.fields[index].optional:
                raise ValueError(f"{self.name} needs a field {self.names[index]!r}")
        if out.room - out.used < size:
            grow(out, size)
        memcpy(out.data, PyBytes_AS_STRING(self.prefix), size)
        out.used = size
        write_head(out, MAP, present, 0)
        for index in range(self.count):
            value = items[index]
            if value is None:
                continue
            field = &self.fields[index]
            if out.room - out.used < field.size:
                grow(out, field.size)
            memcpy(out.data + out.used, field.name, field.size)
            out.used += field.size
            if not write_kind(out, field.kind, value):
                raise ValueError(f"{self.name}, {self.names[index]!r}: {value!r:.99} is not "
                                 f"{KINDS[KIND_NAMES[<int>field.kind]]}")
        return 0

    def decode(self, block: bytes | bytearray | memoryview) -> tuple[Any, ...]:
        """The values of a whole block, one a field; FormatError for what ``encode`` would not
        write, naming the format where it is another one."""
        cdef object owner = block if type(block) is bytes else bytes(block)
        cdef Reader data
        cdef tuple values = self.read_fields(&data, owner, False)
        if data.at != data.end:
            raise FormatError(
                data.at - data.start, "the end of the block", f"{data.end - data.at} more bytes"
            )
        return values

    def pick(self, block: bytes | bytearray | memoryview) -> tuple[Any, ...]:
        """As ``decode``, for a layout that names only some of the format's fields: others are
        stepped over, and the block is read no further than the last field named."""
        cdef object owner = block if type(block) is bytes else bytes(block)
        cdef Reader data
        return self.read_fields(&data, owner, True)

    cdef tuple read_fields(self, Reader *data, object owner, bint some):
        cdef Py_ssize_t size = PyBytes_GET_SIZE(owner), skipped = PyBytes_GET_SIZE(self.prefix)
        cdef Py_ssize_t count, index, following = 0
        cdef const uint8_t *begin
        cdef Head head
        if size > BYTES_MAX:
            raise FormatError(BYTES_MAX, "the end of the block", f"{size} bytes in all")
        data.start = <const uint8_t *>PyBytes_AS_STRING(owner)
        data.end = data.start + size
        if size < skipped or memcmp(data.start, PyBytes_AS_STRING(self.prefix), skipped) != 0:
            raise foreign(owner, self.name)
        data.at = begin = data.start + skipped
        read_head(data, &head)
        if head.major != MAP:
            raise FormatError(begin - data.start, "a map of fields", f"major type {head.major}")
        cdef list found = [None] * self.count
        # A count beyond what is left runs into the end of the block: nothing is allocated by it.
        count = <Py_ssize_t>head.argument if head.argument <= <uint64_t>size else size
        for _ in range(count):
            if some and following == self.count:
                break
            begin = data.at
            index = self.find(data, following)
            if index < 0:
                name = read_name(data)
                if not some:
                    raise FormatError(
                        begin - data.start, f"a field of {self.name}, in order", repr(name)
                    )
                skip(data)
                continue
            self.check_absent(begin - data.start, following, index)
            found[index] = read_kind(data, self.fields[index].kind)
            following = index + 1
        self.check_absent(data.at - data.start, following, self.count)
        return tuple(found)

    cdef inline Py_ssize_t find(self, Reader *data, Py_ssize_t following) noexcept:
        """The index of the field whose name comes next, and step over the name; -1 for none."""
        cdef Py_ssize_t index
        cdef Field *field
        for index in range(following, self.count):
            field = &self.fields[index]
            if data.end - data.at >= field.size and memcmp(data.at, field.name, field.size) == 0:
                data.at += field.size
                return index
        return -1

    cdef int check_absent(self, Py_ssize_t at, Py_ssize_t first, Py_ssize_t last) except -1:
        cdef Py_ssize_t index
        for index in range(first, last):
            if not self.fields[index].optional:
                raise FormatError(at, f"the field {self.names[index]!r}", "none")
        return 0


cdef object read_name(Reader *data):
    cdef const uint8_t *begin = data.at
    cdef Head head
    read_head(data, &head)
    if head.major != TEXT:
        raise FormatError(begin - data.start, "a field's name", f"major type {head.major}")
    return read_text(data, begin, head.argument)


cdef object read_kind(Reader *data, Kind kind):
    """A field's value. The kinds that every record has are read in place; whatever is not as it
    should be is read again as any value, which finds what is wrong with it."""
    cdef const uint8_t *begin = data.at
    cdef Head head
    cdef Py_ssize_t size
    cdef object value = None
    cdef bint good = False
    if begin != data.end and begin[0] >> 5 == OTHER:
        value, good = True, kind == K_TRUE and begin[0] == 0xF5
    elif kind == K_ENTRIES:
        value = read_entries(data)
        good = value is not None
    elif kind <= K_BYTES32:
        read_head(data, &head)
        size = data.end - data.at
        if kind == K_UINT:
            if head.major == UINT:
                return head.argument
        elif head.argument > <uint64_t>size:
            pass
        elif kind >= K_BYTES:
            size = <Py_ssize_t>head.argument
            if head.major == BYTES and (
                kind == K_BYTES or size == (16 if kind == K_BYTES16 else 32)
            ):
                data.at += size
                return PyBytes_FromStringAndSize(<const char *>data.at - size, size)
        elif head.major == TEXT and head.argument > 0:
            value = read_text(data, begin, head.argument)
            if kind == K_TEXT:
                return value
            size = <Py_ssize_t>head.argument
            return PyBytes_FromStringAndSize(<const char *>data.at - size, size)
    else:
        value = read(data, 2)
        good = is_kind(kind, value)
        if kind == K_LINK and good:
            value = PyBytes_FromStringAndSize(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    if good:
        if value is True:
            data.at += 1
        return value
    data.at = begin
    value = read(data, 2)
    if kind == K_ENTRIES and is_kind(kind, value):
        return [(bytes(cid), length) for cid, length in value]
    raise FormatError(begin - data.start, KINDS[KIND_NAMES[<int>kind]], "another value")


cdef bint is_kind(Kind kind, object value) except -1:
    if kind == K_LINK:
        return type(value) is CID
    if kind == K_TEXTS or kind == K_DIGESTS:
        if type(value) is not dict or not value:
            return False
        wanted = str if kind == K_TEXTS else bytes
        for item in (<dict>value).values():
            if type(item) is not wanted:
                return False
        return True
    if type(value) is not list or not value:
        return False
    for item in <list>value:
        if kind == K_ENTRIES:
            if type(item) is not list or len(item) != 2 or type(item[0]) is not CID:
                return False
            item = item[1]
        if type(item) is not int or item < 0:
            return False
    return True


cdef list read_entries(Reader *data):
    """Entries whose links are CIDs as we write them, which is all of them; None for others."""
    cdef Head head
    cdef const uint8_t *at
    cdef Py_ssize_t count
    cdef list entries = []
    cdef object cid
    read_head(data, &head)
    if head.major != ARRAY or head.argument == 0 or head.argument > <uint64_t>(data.end - data.at):
        return None
    count = <Py_ssize_t>head.argument
    for _ in range(count):
        at = data.at
        if data.end - at < 43 or memcmp(at, b"\x82\xd8\x2a\x58\x25\x00\x01", 7) != 0:
            return None
        if (at[7] != 0x55 and at[7] != 0x71) or at[8] != 0x12 or at[9] != 0x20:
            return None
        data.at = at + 42
        if data.at[0] >> 5 != UINT:
            return None
        read_head(data, &head)
        cid = PyBytes_FromStringAndSize(<const char *>at + 6, 36)
        entries.append((cid, head.argument))
    return entries


cdef int skip(Reader *data) except -1:
    """Past one value whose lengths are looked at and nothing else."""
    cdef uint64_t pending = 1
    cdef const uint8_t *begin
    cdef Py_ssize_t left
    cdef Head head
    while pending:
        pending -= 1
        begin = data.at
        if begin != data.end and begin[0] >> 5 == OTHER:
            read_other(data)
            continue
        read_head(data, &head)
        left = data.end - data.at
        if head.major == BYTES or head.major == TEXT:
            data.at += span(data, begin, head.argument)
        elif head.major == ARRAY or head.major == MAP:
            if head.argument > <uint64_t>(left // 2 if head.major == MAP else left):
                raise FormatError(
                    begin - data.start, f"room for {head.argument} entries", f"{left} bytes"
                )
            pending += head.argument * (2 if head.major == MAP else 1)
        elif head.major == TAG:
            pending += 1
    return 0


cdef bint write_kind(Writer *out, Kind kind, object value) except -1:
    """Write a field's value; False when its kind cannot hold it."""
    cdef object exact = type(value)
    cdef Py_ssize_t size
    if kind == K_UINT:
        if exact is not int or value < 0:
            return False
        write_int(out, value)
    elif kind == K_TEXT:
        if exact is not str or not value:
            return False
        write(out, value, 2)
    elif kind == K_UTF8:
        if exact is not bytes or not value:
            return False
        PyUnicode_DecodeUTF8(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), NULL)
        write_span(out, TEXT, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    elif kind <= K_BYTES32:
        if exact is not bytes:
            return False
        size = PyBytes_GET_SIZE(value)
        if kind != K_BYTES and size != (16 if kind == K_BYTES16 else 32):
            return False
        write_span(out, BYTES, PyBytes_AS_STRING(value), size)
    elif kind == K_TRUE:
        if value is not True:
            return False
        write(out, value, 2)
    elif kind == K_LINK:
        if exact is not bytes:
            return False
        write_link(out, <const uint8_t *>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    elif kind == K_ENTRIES:
        return write_entries(out, value)
    else:
        if not is_kind(kind, value):
            return False
        write(out, value, 2)
    return True


cdef bint write_entries(Writer *out, object value) except -1:
    cdef object cid, length
    if type(value) is not list or not value:
        return False
    write_head(out, ARRAY, PyList_GET_SIZE(value), 0)
    for cid, length in <list>value:
        if not isinstance(cid, bytes) or type(length) is not int or length < 0:
            return False
        write_head(out, ARRAY, 2, 0)
        write_link(out, <const uint8_t *>PyBytes_AS_STRING(cid), PyBytes_GET_SIZE(cid))
        write_int(out, length)
    return True
