# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A tree node as a block of bytes: check it, read it, write it. The layout is drawn in ``mst_py``.

Only ``check_block`` sees bytes from outside; it moves no pointer before it knows that the bytes are
there. All other functions read blocks that passed it, and trust them.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy


cdef extern from *:
    """
    /* Of two words loaded from memory, x their exclusive or and not 0: how many bytes agree. */
    static inline int ingot_bytes_agreeing(unsigned long long x) {
    #if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        return __builtin_ctzll(x) >> 3;
    #else
        return __builtin_clzll(x) >> 3;
    #endif
    }
    """
    int ingot_bytes_agreeing(unsigned long long x) noexcept nogil


cdef enum:
    LINK_BYTES = 41  # a link or a value of the usual kind, tag and head included
    LINK_HEAD_BYTES = 9  # of which stand before the digest
    NODE_FRAME_BYTES = 6  # a node beside its array head, entries and left link

# What ``check_block`` found wrong: the position of the text in ``mst_c.EXPECTED``.
cdef enum Fault:
    FINE
    NOT_A_MAP
    NOT_FIELD_E
    NOT_A_LIST
    TOO_MANY
    NOT_AN_ENTRY
    NOT_FIELD_K
    NOT_BYTES
    NOT_FIELD_P
    NOT_A_NUMBER
    BAD_PREFIX
    BAD_SUFFIX
    SHORT_PREFIX
    NOT_ABOVE
    NOT_FIELD_T
    NOT_A_LINK
    NOT_FIELD_V
    NOT_A_VALUE
    NOT_FIELD_L
    NOT_THE_END


cdef struct Entry:
    # One entry as it stands in its block.
    const uint8_t* suffix
    const uint8_t* value  # the CID
    const uint8_t* child  # digest of the right child, or NULL
    uint32_t prefix
    uint32_t suffix_length
    uint32_t value_length


cdef inline uint32_t shared_length(
    const uint8_t* a, uint32_t a_length, const uint8_t* b, uint32_t b_length
) noexcept nogil:
    """How many leading bytes agree."""
    cdef uint32_t end = a_length if a_length < b_length else b_length
    cdef uint32_t at = 0
    cdef uint64_t x, y
    while at + 8 <= end:
        memcpy(&x, a + at, 8)
        memcpy(&y, b + at, 8)
        if x != y:
            return at + ingot_bytes_agreeing(x ^ y)
        at += 8
    while at < end and a[at] == b[at]:
        at += 1
    return at


cdef inline int compare(
    const uint8_t* a, uint32_t a_length, const uint8_t* b, uint32_t b_length
) noexcept nogil:
    """Below, at or above 0 as ``a`` sorts before, with or after ``b``."""
    cdef uint32_t end = a_length if a_length < b_length else b_length
    cdef int order = memcmp(a, b, end)
    if order == 0:
        order = (a_length > b_length) - (a_length < b_length)
    return order


# -- reading a block that was checked -----------------------------------------------------------


cdef inline const uint8_t* read_head(const uint8_t* at, uint32_t* value) noexcept nogil:
    """The argument of a head of any major type, and where the next item begins."""
    cdef uint8_t low = at[0] & 0x1F
    if low < 24:
        value[0] = low
        return at + 1
    if low == 24:
        value[0] = at[1]
        return at + 2
    value[0] = (<uint32_t> at[1] << 8) | at[2]
    return at + 3


cdef inline const uint8_t* read_entry(const uint8_t* at, Entry* entry) noexcept nogil:
    """Read the entry at ``at``; returns where the next one begins."""
    cdef uint32_t length
    at = read_head(at + 3, &entry.suffix_length)
    entry.suffix = at
    at = read_head(at + entry.suffix_length + 2, &entry.prefix)
    if at[2] == 0xF6:
        entry.child = NULL
        at += 3
    else:
        entry.child = at + 2 + LINK_HEAD_BYTES
        at += 2 + LINK_BYTES
    at = read_head(at + 4, &length)
    entry.value = at + 1
    entry.value_length = length - 1
    return at + length


# -- checking a block ---------------------------------------------------------------------------


cdef inline int check_head(
    const uint8_t* block, uint32_t length, uint32_t* at, uint8_t major, uint32_t* value
) noexcept nogil:
    """Read a head in its shortest form, argument below 65536, and move on; 0 when it is not one."""
    cdef const uint8_t* here = block + at[0]
    cdef uint32_t left = length - at[0]
    cdef uint32_t low
    if left < 1 or here[0] >> 5 != major:
        return 0
    low = here[0] & 0x1F
    if low < 24:
        value[0] = low
        at[0] += 1
    elif low == 24 and left > 1 and here[1] >= 24:
        value[0] = here[1]
        at[0] += 2
    elif low == 25 and left > 2 and here[1] > 0:
        value[0] = (<uint32_t> here[1] << 8) | here[2]
        at[0] += 3
    else:
        return 0
    return 1


cdef inline int check_literal(
    const uint8_t* block, uint32_t length, uint32_t* at, const char* literal, uint32_t size
) noexcept nogil:
    if length - at[0] < size or memcmp(block + at[0], literal, size) != 0:
        return 0
    at[0] += size
    return 1


cdef inline int check_link(
    const uint8_t* block, uint32_t length, uint32_t* at, uint8_t* present
) noexcept nogil:
    present[0] = 0
    if at[0] < length and block[at[0]] == 0xF6:
        at[0] += 1
        return 1
    if length - at[0] < LINK_BYTES:
        return 0
    if memcmp(block + at[0], b"\xd8\x2a\x58\x25\x00\x01\x71\x12\x20", LINK_HEAD_BYTES) != 0:
        return 0
    present[0] = 1
    at[0] += LINK_BYTES
    return 1


cdef inline int check_cid(const uint8_t* cid, uint32_t length) noexcept nogil:
    """A CIDv1: version, codec, hash function and digest length as shortest varints, then digest."""
    cdef uint64_t field = 0
    cdef uint32_t at = 0
    cdef int n, shift
    cdef uint8_t byte
    for n in range(4):
        field = 0
        shift = 0
        while True:
            if at == length or shift == 63:
                return 0
            byte = cid[at]
            at += 1
            field |= <uint64_t> (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if byte == 0 and shift > 7:
            return 0
        if n == 0 and field != 1:
            return 0
    return field == length - at


cdef inline int check_value(const uint8_t* block, uint32_t length, uint32_t* at) noexcept nogil:
    cdef uint32_t here = at[0]
    cdef uint32_t size = 0
    if not check_literal(block, length, &here, b"\xd8\x2a", 2):
        return 0
    if not check_head(block, length, &here, 2, &size):
        at[0] = here
        return 0
    if size == 0 or length - here < size or block[here] != 0:
        return 0
    if not check_cid(block + here + 1, size - 1):
        return 0
    at[0] = here + size
    return 1


cdef inline Fault check_entry(
    const uint8_t* block,
    uint32_t length,
    uint32_t* at,
    uint32_t key_max,
    uint8_t* key,  # the key before; becomes this one
    uint32_t* key_length,
    uint8_t* links,  # set to 1 when there is a link
) noexcept nogil:
    """Check one entry and move behind it. On a fault ``at`` is where it lies."""
    cdef uint32_t k_at, p_at, size = 0, prefix = 0
    cdef const uint8_t* suffix
    cdef uint8_t present = 0
    if not check_literal(block, length, at, b"\xa4", 1):
        return NOT_AN_ENTRY
    if not check_literal(block, length, at, b"\x61\x6b", 2):
        return NOT_FIELD_K
    k_at = at[0]
    if not check_head(block, length, at, 2, &size):
        return NOT_BYTES
    if length - at[0] < size:
        at[0] = k_at
        return NOT_BYTES
    suffix = block + at[0]
    at[0] += size
    if not check_literal(block, length, at, b"\x61\x70", 2):
        return NOT_FIELD_P
    p_at = at[0]
    if not check_head(block, length, at, 0, &prefix):
        return NOT_A_NUMBER
    if prefix > key_length[0]:
        at[0] = p_at
        return BAD_PREFIX
    if size < 1 or size + prefix > key_max:
        at[0] = k_at
        return BAD_SUFFIX
    if prefix < key_length[0]:
        if suffix[0] == key[prefix]:
            at[0] = p_at
            return SHORT_PREFIX
        if suffix[0] < key[prefix]:
            at[0] = k_at
            return NOT_ABOVE
    memcpy(key + prefix, suffix, size)
    key_length[0] = prefix + size
    if not check_literal(block, length, at, b"\x61\x74", 2):
        return NOT_FIELD_T
    if not check_link(block, length, at, &present):
        return NOT_A_LINK
    links[0] |= present
    if not check_literal(block, length, at, b"\x61\x76", 2):
        return NOT_FIELD_V
    if not check_value(block, length, at):
        return NOT_A_VALUE
    return FINE


cdef inline Fault check_block(
    const uint8_t* block,
    uint32_t length,
    uint32_t entries_max,
    uint32_t key_max,
    uint8_t* key,  # room for key_max bytes
    uint32_t* at,
    uint32_t* count,
    uint8_t* left,  # 1 when there is a left link
    uint8_t* links,  # 1 when there is any link
) noexcept nogil:
    """Whether ``block`` is what an encoder writes; on a fault ``at`` is where it lies."""
    cdef uint32_t list_at, _n, key_length = 0
    cdef Fault fault
    at[0] = 0
    links[0] = 0
    if not check_literal(block, length, at, b"\xa2", 1):
        return NOT_A_MAP
    if not check_literal(block, length, at, b"\x61\x65", 2):
        return NOT_FIELD_E
    list_at = at[0]
    if not check_head(block, length, at, 4, count):
        return NOT_A_LIST
    if count[0] > entries_max:
        at[0] = list_at
        return TOO_MANY
    for _n in range(count[0]):
        fault = check_entry(block, length, at, key_max, key, &key_length, links)
        if fault != FINE:
            return fault
    if not check_literal(block, length, at, b"\x61\x6c", 2):
        return NOT_FIELD_L
    if not check_link(block, length, at, left):
        return NOT_A_LINK
    links[0] |= left[0]
    if at[0] != length:
        return NOT_THE_END
    return FINE


# -- writing a block ----------------------------------------------------------------------------


cdef inline uint32_t head_size(uint32_t value) noexcept nogil:
    return 1 if value < 24 else 2 if value < 256 else 3


cdef inline uint8_t* write_head(uint8_t* to, uint8_t major, uint32_t value) noexcept nogil:
    if value < 24:
        to[0] = <uint8_t> (major << 5 | value)
        return to + 1
    if value < 256:
        to[0] = <uint8_t> (major << 5 | 24)
        to[1] = <uint8_t> value
        return to + 2
    to[0] = <uint8_t> (major << 5 | 25)
    to[1] = <uint8_t> (value >> 8)
    to[2] = <uint8_t> value
    return to + 3


cdef inline uint8_t* write_link(uint8_t* to, const uint8_t* digest) noexcept nogil:
    if digest == NULL:
        to[0] = 0xF6
        return to + 1
    memcpy(to, b"\xd8\x2a\x58\x25\x00\x01\x71\x12\x20", LINK_HEAD_BYTES)
    memcpy(to + LINK_HEAD_BYTES, digest, 32)
    return to + LINK_BYTES


cdef inline uint32_t entry_size(
    uint32_t prefix, uint32_t suffix_length, int linked, uint32_t value_length
) noexcept nogil:
    return (
        12
        + head_size(suffix_length)
        + suffix_length
        + head_size(prefix)
        + (LINK_BYTES if linked else 1)
        + head_size(value_length + 1)
        + value_length
    )


cdef inline uint8_t* write_entry(
    uint8_t* to,
    uint32_t prefix,
    const uint8_t* suffix,
    uint32_t suffix_length,
    const uint8_t* child,
    const uint8_t* value,
    uint32_t value_length,
) noexcept nogil:
    memcpy(to, b"\xa4\x61\x6b", 3)
    to = write_head(to + 3, 2, suffix_length)
    memcpy(to, suffix, suffix_length)
    to += suffix_length
    memcpy(to, b"\x61\x70", 2)
    to = write_head(to + 2, 0, prefix)
    memcpy(to, b"\x61\x74", 2)
    to = write_link(to + 2, child)
    memcpy(to, b"\x61\x76\xd8\x2a", 4)
    to = write_head(to + 4, 2, value_length + 1)
    to[0] = 0
    memcpy(to + 1, value, value_length)
    return to + 1 + value_length
