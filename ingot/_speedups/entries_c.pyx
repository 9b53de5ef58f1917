# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""The entries of a listing, compiled; ``entries_py`` is the specification.

Read here are records as we write them: fields in order, texts that need no escaping. Whatever is
otherwise in the least is handed to the twin, which shows it or says what is wrong with it; so this
module has no errors of its own, and never shows what the layout refuses.
"""

from collections.abc import Sequence

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.stdint cimport uint8_t, uint16_t, uint64_t
from libc.string cimport memcmp, memcpy, memset, strlen

from ingot._speedups.cbor_c cimport BYTES, MAP, TEXT, UINT, Head, Reader, read_head, span
from ingot._speedups.layout_c cimport skip

from ingot._speedups.cbor_c import encode
from ingot._speedups.entries_py import ALGORITHMS, SUMMARY_BYTES, SUMMARY_KIND, entry, summarized
from ingot._speedups.layout_py import Layout
from ingot.errors import FormatError
from ingot.limits import CBOR_BYTES_MAX

ctypedef const uint8_t *Bytes

cdef enum:
    ENTRY = 256  # a time, a size and the tags of one entry have fewer bytes
    SUMMARY = 36
    MD5 = 16
    COMPOSITE_BIT = 128

cdef enum Field:  # those that are shown, in their order
    OTHER
    ETAG
    SIZE
    CREATED
    CHECKSUMS
    COMPOSITE

cdef Py_ssize_t BLOCK_MAX = CBOR_BYTES_MAX
cdef uint8_t[256] ODD  # 0 for letters, digits, hyphen and underscore
for _code in range(256):
    ODD[_code] = not (_code < 128 and (chr(_code).isalnum() or chr(_code) in "-_"))
cdef uint64_t CREATED_MAX = 253402300799999  # the end of the year 9999
cdef uint8_t KIND = SUMMARY_KIND
cdef const char *DIGITS = b"0123456789abcdef"
cdef list NAMES = [name.encode() for name in ALGORITHMS]
assert SUMMARY_BYTES == SUMMARY


cdef struct Shown:
    # What an entry shows of a record; the pointers are into its block
    Bytes etag
    Bytes algorithm
    Py_ssize_t etag_size
    Py_ssize_t algorithm_size
    uint64_t size
    uint64_t created
    bint composite
    char[40] text  # where ``etag`` points to, of a summary


cdef struct Out:
    char *data  # owned by ``write``, which frees it
    Py_ssize_t used
    Py_ssize_t room


def write(
    summary: Layout,
    names: Sequence[bytes],
    blocks: Sequence[bytes],
    before: bytes,
    between: bytes,
    after: bytes,
) -> bytes:
    """One entry a record: ``before``, its name, ``between``, then when it was made and what follows
    that, its ETag, checksum and size, ``after``. What is given is XML already, and for a record its
    block or its summary.

    ``summary`` picks etag, size, created, checksums and composite, in this order. FormatError for a
    block that it refuses, OverflowError for a time behind the year 9999.
    """
    cdef bytes prefix = b"\xa1" + encode(summary.name)
    cdef Py_ssize_t around = len(before) + len(between) + len(after) + ENTRY
    cdef bytes text
    cdef Shown shown
    cdef Out out
    out.data, out.used, out.room = NULL, 0, 0
    try:
        for name, block in zip(names, blocks, strict=True):
            if not is_summary(block, &shown) and not is_ours(block, prefix, &shown):
                text = entry(summary, name, block, before, between, after)
                make_room(&out, len(text))
                put_bytes(&out, text)
                continue
            text = name
            make_room(&out, around + len(text) + shown.etag_size + shown.algorithm_size)
            put_bytes(&out, before)
            put_bytes(&out, text)
            put_bytes(&out, between)
            put_entry(&out, &shown)
            put_bytes(&out, after)
        return PyBytes_FromStringAndSize(out.data, out.used)
    finally:
        PyMem_Free(out.data)


def summaries(summary: Layout, blocks: Sequence[bytes]) -> list[bytes]:
    """The summary of each record, or its block where it has none. FormatError for a block that
    ``summary`` refuses."""
    cdef bytes prefix = b"\xa1" + encode(summary.name)
    cdef Shown shown
    cdef uint8_t[SUMMARY] packed
    cdef list found = []
    for block in blocks:
        if is_ours(block, prefix, &shown) and pack(&shown, packed):
            found.append(PyBytes_FromStringAndSize(<char *>packed, SUMMARY))
        else:
            found.append(summarized(summary, block))
    return found


# -- summaries ------------------------------------------------------------------------------------

cdef bint pack(Shown *shown, uint8_t *packed) noexcept:
    """Whether the record has a summary by what is usual; then ``packed`` is it."""
    cdef Py_ssize_t at
    cdef uint64_t parts = 0
    cdef uint16_t short
    cdef int high, low
    if shown.etag_size < 2 * MD5 or shown.etag_size > 2 * MD5 + 6:
        return False
    packed[0], packed[1] = KIND, 0
    for at in range(MD5):
        high, low = digit(shown.etag[2 * at]), digit(shown.etag[2 * at + 1])
        if high < 0 or low < 0:
            return False
        packed[4 + at] = <uint8_t>(high * 16 + low)
    if shown.etag_size > 2 * MD5:
        if shown.etag[2 * MD5] != 0x2D or shown.etag_size == 2 * MD5 + 1:
            return False
        for at in range(2 * MD5 + 1, shown.etag_size):
            if not 0x30 <= shown.etag[at] <= 0x39 or (parts == 0 and shown.etag[at] == 0x30):
                return False
            parts = parts * 10 + shown.etag[at] - 0x30
        if parts > 0xFFFF:
            return False
    short = <uint16_t>parts
    memcpy(packed + 2, &short, 2)
    if shown.algorithm != NULL:
        for at in range(len(NAMES)):
            if shown.algorithm_size == PyBytes_GET_SIZE(<bytes>NAMES[at]) and not memcmp(
                shown.algorithm, PyBytes_AS_STRING(<bytes>NAMES[at]), shown.algorithm_size
            ):
                packed[1] = <uint8_t>(at + 1)
                break
        else:
            return False
    if shown.composite:
        packed[1] |= COMPOSITE_BIT
    memcpy(packed + 20, &shown.size, 8)
    memcpy(packed + 28, &shown.created, 8)
    return True


cdef bint is_summary(object block, Shown *shown) noexcept:
    """Whether ``summaries`` can have made this; then ``shown`` is filled."""
    cdef Bytes packed
    cdef Py_ssize_t at
    cdef uint16_t parts
    cdef int number
    if type(block) is not bytes or PyBytes_GET_SIZE(block) != SUMMARY:
        return False
    packed = <Bytes>PyBytes_AS_STRING(block)
    if packed[0] != KIND or (packed[1] & ~COMPOSITE_BIT) > PyList_GET_SIZE(NAMES):
        return False
    memcpy(&shown.created, packed + 28, 8)
    if shown.created > CREATED_MAX:
        return False
    for at in range(MD5):
        shown.text[2 * at] = DIGITS[packed[4 + at] >> 4]
        shown.text[2 * at + 1] = DIGITS[packed[4 + at] & 15]
    shown.etag, shown.etag_size = <Bytes>shown.text, 2 * MD5
    memcpy(&parts, packed + 2, 2)
    if parts:
        shown.text[2 * MD5] = 0x2D
        shown.etag_size += 1 + decimal(parts, 1, shown.text + 2 * MD5 + 1)
    number = packed[1] & ~COMPOSITE_BIT
    shown.algorithm, shown.algorithm_size = NULL, 0
    if number:
        shown.algorithm = <Bytes>PyBytes_AS_STRING(<bytes>NAMES[number - 1])
        shown.algorithm_size = PyBytes_GET_SIZE(<bytes>NAMES[number - 1])
    shown.composite = packed[1] != number
    memcpy(&shown.size, packed + 20, 8)
    return True


cdef inline int digit(uint8_t character) noexcept:
    """Of a hexadecimal number in small letters; -1 for another character."""
    if 0x30 <= character <= 0x39:
        return character - 0x30
    return character - 0x61 + 10 if 0x61 <= character <= 0x66 else -1


# -- reading --------------------------------------------------------------------------------------

cdef bint is_ours(object block, bytes prefix, Shown *shown) except -1:
    """Whether the block is a record as we write it; then ``shown`` is filled."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(prefix)
    cdef Reader data
    if type(block) is not bytes or not size <= PyBytes_GET_SIZE(block) <= BLOCK_MAX:
        return False
    data.start = <Bytes>PyBytes_AS_STRING(block)
    data.end = data.start + PyBytes_GET_SIZE(block)
    data.at = data.start + size
    if memcmp(data.start, PyBytes_AS_STRING(prefix), size) != 0:
        return False
    try:
        return read_fields(&data, shown)
    except FormatError:
        return False


cdef bint read_fields(Reader *data, Shown *shown) except -1:
    cdef Head head
    cdef uint64_t left
    cdef int field, last = OTHER
    cdef bint sized = False, dated = False
    cdef Bytes name
    cdef Py_ssize_t size
    memset(shown, 0, sizeof(Shown))
    read_head(data, &head)
    left = head.argument
    if head.major != MAP:
        return False
    while left:
        left -= 1
        size = read_word(data, &name)
        if size < 0:
            return False
        field = field_of(name, size)
        if field == OTHER:
            skip(data)
            continue
        if field <= last:  # twice, or not in its place
            return False
        last = field
        if field == CHECKSUMS:
            if not read_checksums(data, shown):
                return False
            continue
        if field == COMPOSITE:
            shown.composite = data.at != data.end and data.at[0] == 0xF5
            if not shown.composite:
                return False
            continue
        name = data.at
        read_head(data, &head)
        if field == ETAG:
            if head.major != TEXT or head.argument == 0:
                return False
            shown.etag_size = span(data, name, head.argument)
            shown.etag = data.at
            data.at += shown.etag_size
            if not is_plain(shown.etag, shown.etag_size):
                return False
        elif head.major != UINT:
            return False
        elif field == SIZE:
            shown.size, sized = head.argument, True
        else:
            shown.created, dated = head.argument, head.argument <= CREATED_MAX
    return sized and dated


cdef Py_ssize_t read_word(Reader *data, Bytes *word) noexcept:
    """Take a text of at most 23 plain characters; how many, -1 where there is something else."""
    cdef Py_ssize_t size
    if data.at == data.end or not 0x61 <= data.at[0] <= 0x77:
        return -1
    size = data.at[0] - 0x60
    word[0] = data.at + 1
    if data.end - word[0] < size or not is_plain(word[0], size):
        return -1
    data.at += 1 + size
    return size


cdef bint is_plain(Bytes text, Py_ssize_t size) noexcept:
    """Letters, digits, hyphens and underscores only."""
    cdef Py_ssize_t at
    cdef uint8_t odd = 0
    for at in range(size):
        odd |= ODD[text[at]]
    return odd == 0


cdef int field_of(Bytes name, Py_ssize_t size) noexcept:
    if size == 4:
        if memcmp(name, b"etag", 4) == 0:
            return ETAG
        return SIZE if memcmp(name, b"size", 4) == 0 else OTHER
    if size == 7:
        return CREATED if memcmp(name, b"created", 7) == 0 else OTHER
    if size == 9:
        if memcmp(name, b"checksums", 9) == 0:
            return CHECKSUMS
        return COMPOSITE if memcmp(name, b"composite", 9) == 0 else OTHER
    return OTHER


cdef bint read_checksums(Reader *data, Shown *shown) except -1:
    """A map of plain names to byte strings, in order; the first one's name is shown."""
    cdef Head head
    cdef uint64_t left
    cdef Bytes name
    cdef Bytes begin
    cdef Bytes previous = NULL
    cdef Py_ssize_t size, before = 0
    read_head(data, &head)
    left = head.argument
    if head.major != MAP or left == 0:
        return False
    while left:
        left -= 1
        size = read_word(data, &name)
        if size < before or (size == before and memcmp(previous, name, size) >= 0):
            return False
        begin = data.at
        read_head(data, &head)
        if head.major != BYTES:
            return False
        data.at += span(data, begin, head.argument)
        if previous == NULL:
            shown.algorithm, shown.algorithm_size = name, size
        previous, before = name, size
    return True


# -- writing --------------------------------------------------------------------------------------

cdef int make_room(Out *out, Py_ssize_t more) except -1:
    cdef Py_ssize_t room = out.room if out.room else 4096
    cdef char *data
    while room - out.used < more:
        room *= 2
    if room != out.room:
        data = <char *>PyMem_Realloc(out.data, room)
        if data == NULL:
            raise MemoryError
        out.data, out.room = data, room
    return 0


# What follows writes where ``make_room`` has been called before.

cdef inline void put_bytes(Out *out, bytes data) noexcept:
    put(out, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


cdef inline void put(Out *out, const char *text, Py_ssize_t size) noexcept:
    memcpy(out.data + out.used, text, size)
    out.used += size


cdef inline void put_text(Out *out, const char *text) noexcept:
    put(out, text, strlen(text))


cdef void put_entry(Out *out, Shown *shown) noexcept:
    cdef Py_ssize_t at
    cdef char *algorithm
    put_time(out, shown.created // 1000)
    put_text(out, b".000Z</LastModified><ETag>&quot;")
    put(out, <const char *>shown.etag, shown.etag_size)
    put_text(out, b"&quot;</ETag>")
    if shown.algorithm != NULL:
        put_text(out, b"<ChecksumAlgorithm>")
        algorithm = out.data + out.used
        put(out, <const char *>shown.algorithm, shown.algorithm_size)
        for at in range(shown.algorithm_size):
            if 97 <= algorithm[at] <= 122:
                algorithm[at] -= 32
        put_text(out, b"</ChecksumAlgorithm><ChecksumType>")
        if shown.composite:
            put_text(out, b"COMPOSITE")
        else:
            put_text(out, b"FULL_OBJECT")
        put_text(out, b"</ChecksumType>")
    put_text(out, b"<Size>")
    put_number(out, shown.size, 1)
    put_text(out, b"</Size>")


cdef void put_time(Out *out, uint64_t second) noexcept:
    """``2026-11-22T08:13:57``. Days are counted from March 1st of the year 0 on, so that the day of
    a leap year is the last of its year."""
    cdef uint64_t day = second // 86400 + 719468, rest = second % 86400
    cdef uint64_t era = day // 146097, of_era = day % 146097
    cdef uint64_t year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    cdef uint64_t of_year = of_era - (365 * year + year // 4 - year // 100)
    cdef uint64_t month = (5 * of_year + 2) // 153  # 0: March
    cdef uint64_t of_month = of_year - (153 * month + 2) // 5 + 1
    year += era * 400 + (1 if month >= 10 else 0)
    put_number(out, year, 4)
    put_text(out, b"-")
    put_number(out, month + 3 if month < 10 else month - 9, 2)
    put_text(out, b"-")
    put_number(out, of_month, 2)
    put_text(out, b"T")
    put_number(out, rest // 3600, 2)
    put_text(out, b":")
    put_number(out, rest // 60 % 60, 2)
    put_text(out, b":")
    put_number(out, rest % 60, 2)


cdef void put_number(Out *out, uint64_t number, int width) noexcept:
    """In at least ``width`` digits."""
    out.used += decimal(number, width, out.data + out.used)


cdef int decimal(uint64_t number, int width, char *text) noexcept:
    """Write a number in at least ``width`` digits; how many there are."""
    cdef char[20] digits
    cdef int at = 20
    while number or width > 0:
        at -= 1
        width -= 1
        digits[at] = <char>(48 + number % 10)
        number //= 10
    memcpy(text, digits + at, 20 - at)
    return 20 - at
