# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""Layouts, compiled; ``layout_py`` is the specification.

Field names are compared with the bytes a block should have next, so that a record is read without
a dict, a key or a node of a tree between. ``cbor_c`` has the reader and the writer.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_SIZE
from cpython.mem cimport PyMem_Free
from cpython.tuple cimport PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcmp, memcpy

from ingot._speedups.cbor_c cimport (
    ARRAY,
    BYTES,
    CANONICAL,
    MAP,
    OTHER,
    STACK_BYTES,
    TAG,
    TEXT,
    UINT,
    Head,
    Reader,
    Writer,
    grow,
    read,
    read_head,
    read_other,
    read_text,
    span,
    write,
    write_head,
    write_int,
    write_link,
    write_span,
)

from collections.abc import Sequence
from typing import Any

from ingot._speedups.cbor_c import encode
from ingot._speedups.cbor_py import Cid
from ingot._speedups.layout_py import KINDS, foreign
from ingot.errors import FormatError
from ingot.limits import CBOR_BYTES_MAX

cdef Py_ssize_t BYTES_MAX = CBOR_BYTES_MAX
cdef object CID = Cid

cdef enum:
    FIELDS_MAX = 32
    LINKED = 42  # bytes of an entry as we write it, before its length

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
    K_PAIRS
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
    "pairs": K_PAIRS,
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
        data.keys = CANONICAL
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
    if kind == K_TRUE:
        return value is True
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
        if kind == K_PAIRS:
            if type(item) is not list or len(item) != 2:
                return False
            if type(item[0]) is not int or item[0] < 0:
                return False
            item = item[1]
        elif kind == K_ENTRIES:
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
        if data.end - begin > LINKED and memcmp(begin, b"\x82\xd8\x2a\x58\x25", 5) == 0:
            data.at += LINKED  # [link, something]: large bodies have hundreds
            pending += 1
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
