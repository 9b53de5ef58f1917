# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Where blocks stand: a table for a segment that grows, sorted runs for those that do not.

The compiled form of ``index_py``, which is the specification. Called by segments only.

A table is open addressing kept in digest order: the slot is the digest's first eight bytes in
proportion to the capacity, and a newcomer shifts the greater ones of its cluster up by one. So a
table is written out as a sorted run by walking it, with no sort that would hold the loop. Blocks
mined to share a long prefix make one cluster as long as they are many: a memmove each, no more.
"""

from collections.abc import Container, Iterable, Sequence
from typing import Any

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memmove, memset

from ingot.errors import FormatError
from ingot.limits import NODE_BYTES_READ_MAX

cdef extern from *:
    """
    static inline unsigned long long ingot_load_big(const unsigned char* p) {
        unsigned long long v;
        __builtin_memcpy(&v, p, 8);
    #if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        v = __builtin_bswap64(v);
    #endif
        return v;
    }
    static inline unsigned long long ingot_load_little(const unsigned char* p) {
        unsigned long long v;
        __builtin_memcpy(&v, p, 8);
    #if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        v = __builtin_bswap64(v);
    #endif
        return v;
    }
    static inline unsigned int ingot_load_word(const unsigned char* p) {
        return p[0] | (unsigned int)p[1] << 8 | (unsigned int)p[2] << 16 | (unsigned int)p[3] << 24;
    }
    static inline void ingot_store_word(unsigned char* p, unsigned int v) {
        p[0] = v & 255; p[1] = v >> 8 & 255; p[2] = v >> 16 & 255; p[3] = v >> 24;
    }
    static inline void ingot_touch(unsigned char* p) {
        *(volatile unsigned char*)p = *(volatile unsigned char*)p;
    }
    static inline unsigned long long ingot_share(unsigned long long v, unsigned long long n) {
        return (unsigned long long)(((unsigned __int128)v * n) >> 64);
    }
    """
    uint64_t load_big "ingot_load_big"(const unsigned char* p) noexcept nogil
    uint64_t load_little "ingot_load_little"(const unsigned char* p) noexcept nogil
    uint32_t load_word "ingot_load_word"(const unsigned char* p) noexcept nogil
    void store_word "ingot_store_word"(unsigned char* p, uint32_t v) noexcept nogil
    void touch "ingot_touch"(unsigned char* p) noexcept nogil
    uint64_t share "ingot_share"(uint64_t v, uint64_t n) noexcept nogil
    void prefetch "__builtin_prefetch"(const void* p) noexcept nogil

ctypedef const unsigned char* Bytes

Buffer = Any  # contiguous bytes with the buffer protocol; typing has no word for it before 3.12

ENTRY_BYTES = 44
BLOCK_BYTES = 64
OFFSET_MAX = (1 << 32) - 1
LENGTH_MAX = (1 << 31) - 1

cdef enum:
    CID = 36
    ENTRY = 44
    BLOCK = 64
    ENTRIES_A_BLOCK = 42
    PROBES = 6
    AHEAD = 8  # so many blocks before it is looked at, memory is asked for
    SLOTS_MIN = 64
    INTERPOLATIONS_MAX = 12

cdef uint32_t VERIFIED = 0x80000000
cdef Py_ssize_t DATA_MAX = NODE_BYTES_READ_MAX


cdef struct Slot:
    unsigned char digest[32]
    uint32_t offset  # 0: the slot is empty; no block begins at byte 0 of a segment
    uint32_t length  # with VERIFIED on top


cdef struct Span:
    # Entries of a run among which a digest is: from ``low`` on, below ``high``; and where in what
    # is left of all digests it is
    Py_ssize_t low
    Py_ssize_t high
    uint64_t wanted
    uint64_t first
    uint64_t last
    int steps
    Py_ssize_t guess  # the next to be looked at


cdef struct Sought:
    # A block that is looked for among others, and where in a run it may be
    Bytes digest
    Py_ssize_t position
    Span span


cdef Bytes digest_of(cid, Py_buffer* view) except NULL:
    """The digest in a CID; the caller releases ``view``."""
    PyObject_GetBuffer(cid, view, PyBUF_SIMPLE)
    if view.len != CID:
        length = view.len
        PyBuffer_Release(view)
        raise ValueError(f"a CID has {CID} bytes, not {length}")
    return <Bytes>view.buf + 4


def filter_blocks(count: int) -> int:
    """How many blocks the filter of ``count`` entries has."""
    cdef Py_ssize_t number = count
    return max(1, (number + ENTRIES_A_BLOCK - 1) // ENTRIES_A_BLOCK)


cdef class Table:
    """The blocks of one segment that still grows; ``expected`` of them need no growing pains. Of a
    block that stands in it twice, the first counts."""

    cdef Slot* slots  # owned; capacity + spare of them
    cdef Py_ssize_t capacity
    cdef Py_ssize_t spare  # behind the last home slot, so that a cluster never wraps round
    cdef Py_ssize_t count

    def __cinit__(self, expected: int = 0) -> None:
        cdef Py_ssize_t number = expected
        self.capacity = max(SLOTS_MIN, number * 5 // 3 + 1)
        self.spare, self.count = SLOTS_MIN, 0
        self.slots = <Slot*>calloc(self.capacity + self.spare, sizeof(Slot))
        if self.slots == NULL:
            raise MemoryError

    def __init__(self, expected: int = 0) -> None:
        pass

    def __dealloc__(self) -> None:
        free(self.slots)

    def __len__(self) -> int:
        return self.count

    def __contains__(self, cid: Buffer) -> bool:
        cdef Py_buffer view
        cdef Bytes digest = digest_of(cid, &view)
        try:
            return self._find(digest) >= 0
        finally:
            PyBuffer_Release(&view)

    def add(self, cid: Buffer, offset: int, length: int, verified: bool) -> bool:
        """Enter a block's data; False when it was there."""
        cdef Py_buffer view
        cdef Bytes digest
        if not 0 < offset <= OFFSET_MAX or not 0 <= length <= LENGTH_MAX:
            raise ValueError(f"no place for a block: offset {offset}, length {length}")
        digest = digest_of(cid, &view)
        try:
            return self._add(digest, offset, length, verified)
        finally:
            PyBuffer_Release(&view)

    def add_frames(self, buffer: Buffer, start: int, stop: int, base: int, verified: bool) -> int:
        """Enter the whole frames in ``buffer[start:stop]``; ``buffer[start]`` is the file's byte
        ``base``. Returns how many blocks were new."""
        cdef Py_buffer view
        cdef Py_ssize_t at = start, limit = stop, shift = base - start, number, data, begin
        cdef Py_ssize_t added = 0
        cdef int index
        cdef Bytes p
        cdef unsigned char byte
        cdef bint hashed = verified
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
        try:
            if not 0 <= at <= limit <= view.len:
                raise ValueError("the span is not inside the buffer")
            p = <Bytes>view.buf
            while at < limit:
                begin, number, index, byte = at, 0, 0, 0x80
                while byte >= 0x80 and index < 4 and at < limit:
                    byte = p[at]
                    number |= (<Py_ssize_t>(byte & 0x7F)) << (7 * index)
                    index += 1
                    at += 1
                if byte >= 0x80 or number < CID or number > limit - at or number > CID + DATA_MAX:
                    raise FormatError(begin, "a whole frame", "something else")
                if p[at] != 0x01 or p[at + 2] != 0x12 or p[at + 3] != 0x20:
                    raise FormatError(begin, "a whole frame", "something else")
                data = at + CID + shift
                if not 0 < data <= <Py_ssize_t>0xFFFFFFFF:
                    raise ValueError(f"no place for a block: offset {data}, length {number - CID}")
                added += self._add(p + at + 4, data, number - CID, hashed)
                at += number
            return added
        finally:
            PyBuffer_Release(&view)

    def fresh(self, blocks: Iterable[tuple[bytes, Buffer]]) -> dict[bytes, Buffer]:
        """Those of ``blocks`` that are not here, each once, in order."""
        cdef dict out = {}
        cdef bytes name
        for cid, data in blocks:
            name = cid
            if len(name) != CID:
                raise ValueError(f"a CID has {CID} bytes, not {len(name)}")
            if self._find(<Bytes>PyBytes_AS_STRING(name) + 4) < 0:
                out[name] = data
        return out

    def warm(self) -> None:
        """Have the table's memory at hand, so that no insertion waits for the kernel. Takes long,
        without the GIL; nobody else may use the table meanwhile."""
        cdef Py_ssize_t at = 0, size = (self.capacity + self.spare) * sizeof(Slot)
        with nogil:
            while at < size:
                touch(<unsigned char*>self.slots + at)
                at += 4096

    def find(self, cid: Buffer) -> tuple[int, int, bool] | None:
        """(offset, length, verified) of the block's data."""
        cdef Py_buffer view
        cdef Bytes digest = digest_of(cid, &view)
        cdef Py_ssize_t at
        cdef Slot* slot
        try:
            at = self._find(digest)
            if at < 0:
                return None
            slot = self.slots + at
            return slot.offset, slot.length & ~VERIFIED, (slot.length & VERIFIED) != 0
        finally:
            PyBuffer_Release(&view)

    def verify(self, cid: Buffer) -> None:
        """Mark the block as hashed."""
        cdef Py_buffer view
        cdef Bytes digest = digest_of(cid, &view)
        cdef Py_ssize_t at
        try:
            at = self._find(digest)
            if at >= 0:
                self.slots[at].length |= VERIFIED
        finally:
            PyBuffer_Release(&view)

    def drop_from(self, offset: int) -> int:
        """Forget the blocks whose data begin at ``offset`` or later; how many those were."""
        cdef uint64_t bound = offset
        cdef Py_ssize_t before = self.count, at
        for at in range(self.capacity + self.spare):
            if self.slots[at].offset >= bound:
                self.slots[at].offset = 0
        self._rebuild(self.capacity, self.spare)
        return before - self.count

    def export(self, cursor: int, limit: int, segment: int) -> tuple[bytes, int]:
        """At most ``limit`` entries in order, and the cursor for the next call. Begin with 0; the
        end is reached when 0 comes back. The table must not change meanwhile."""
        cdef Py_ssize_t at = cursor, left = limit, end = self.capacity + self.spare, number
        cdef uint32_t name = segment
        cdef bytes out
        cdef unsigned char* p
        cdef Slot* slot
        if at < 0 or left < 0:
            raise ValueError("a cursor or limit below 0")
        if left > self.count:
            left = self.count
        out = PyBytes_FromStringAndSize(NULL, left * ENTRY)
        p = <unsigned char*>PyBytes_AS_STRING(out)
        number = 0
        with nogil:
            while at < end and number < left:
                slot = self.slots + at
                if slot.offset:
                    memcpy(p, slot.digest, 32)
                    store_word(p + 32, name)
                    store_word(p + 36, slot.offset)
                    store_word(p + 40, slot.length & ~VERIFIED)
                    p += ENTRY
                    number += 1
                at += 1
            while at < end and not self.slots[at].offset:
                at += 1
        return out[: number * ENTRY], at if at < end else 0

    cdef Py_ssize_t _find_all(
        self, Sought* left, Py_ssize_t count, segment, list places, list unverified
    ) except -1:
        """Enter those of ``left`` that are here; how many are left then."""
        cdef Py_ssize_t index, ahead, at, kept = 0
        cdef Slot* slot
        for index in range(-AHEAD, count):
            ahead = index + AHEAD
            if ahead < count:
                prefetch(self.slots + share(load_big(left[ahead].digest), self.capacity))
            if index < 0:
                continue
            at = self._find(left[index].digest)
            if at < 0:
                left[kept] = left[index]
                kept += 1
                continue
            slot = self.slots + at
            places[left[index].position] = segment, slot.offset, slot.length & ~VERIFIED
            if not slot.length & VERIFIED:
                unverified.append(left[index].position)
        return kept

    cdef Py_ssize_t _find(self, Bytes digest) noexcept nogil:
        cdef Py_ssize_t at = share(load_big(digest), self.capacity)
        cdef Py_ssize_t end = self.capacity + self.spare
        cdef int order
        while at < end and self.slots[at].offset:
            order = memcmp(self.slots[at].digest, digest, 32)
            if order == 0:
                return at
            if order > 0:
                return -1
            at += 1
        return -1

    cdef bint _add(self, Bytes digest, uint32_t offset, uint32_t length, bint verified) except -1:
        cdef Py_ssize_t at = 0, free_at = 0, end
        cdef int order
        if (self.count + 1) * 5 > self.capacity * 3:
            self._rebuild(self.capacity * 2, self.spare)
        while True:
            at = share(load_big(digest), self.capacity)
            end = self.capacity + self.spare
            while at < end and self.slots[at].offset:
                order = memcmp(self.slots[at].digest, digest, 32)
                if order == 0:
                    return False
                if order > 0:
                    break
                at += 1
            free_at = at
            while free_at < end and self.slots[free_at].offset:
                free_at += 1
            if free_at < end:
                break
            self._rebuild(self.capacity, self.spare * 2)
        memmove(self.slots + at + 1, self.slots + at, (free_at - at) * sizeof(Slot))
        memcpy(self.slots[at].digest, digest, 32)
        self.slots[at].offset = offset
        self.slots[at].length = length | (VERIFIED if verified else 0)
        self.count += 1
        return True

    cdef int _rebuild(self, Py_ssize_t capacity, Py_ssize_t spare) except -1:
        """Move the entries, which come in order, into a fresh array."""
        cdef Slot* old = self.slots
        cdef Slot* new = NULL
        cdef Py_ssize_t size = self.capacity + self.spare, at, home, low = 0, count = 0
        while True:
            new = <Slot*>calloc(capacity + spare, sizeof(Slot))
            if new == NULL:
                raise MemoryError
            low, count = 0, 0
            for at in range(size):
                if not old[at].offset:
                    continue
                home = share(load_big(old[at].digest), capacity)
                low = home if home > low else low
                if low == capacity + spare:
                    break
                new[low] = old[at]
                low += 1
                count += 1
            else:
                break
            free(new)
            spare *= 2
        self.slots, self.capacity, self.spare, self.count = new, capacity, spare, count
        free(old)
        return 0


cdef class Run:
    """A sorted run over ``buffer``, which holds ``count`` entries at ``entries`` and a filter of
    ``blocks`` blocks at ``filter``. Keeps one bit an entry: hashed since the start."""

    cdef Py_buffer view  # held until release or the end
    cdef bint held
    cdef Bytes entries
    cdef Bytes filter
    cdef Py_ssize_t count
    cdef Py_ssize_t blocks
    cdef unsigned char* bits  # owned

    def __init__(self, buffer: Buffer, entries: int, count: int, filter: int, blocks: int) -> None:
        cdef Py_ssize_t at = entries, number = count, filter_at = filter, filter_count = blocks
        if self.held:
            raise RuntimeError("a run is made once")
        PyObject_GetBuffer(buffer, &self.view, PyBUF_SIMPLE)
        self.held = True
        if not (0 <= at <= self.view.len and 0 <= number <= (self.view.len - at) // ENTRY):
            raise ValueError("the entries are not inside the buffer")
        if not 0 <= filter_at <= self.view.len:
            raise ValueError("the filter is not inside the buffer")
        if not 0 < filter_count <= (self.view.len - filter_at) // BLOCK:
            raise ValueError("the filter is not inside the buffer")
        self.bits = <unsigned char*>calloc((number + 8) // 8, 1)
        if self.bits == NULL:
            raise MemoryError
        self.entries = <Bytes>self.view.buf + at
        self.filter = <Bytes>self.view.buf + filter_at
        self.count, self.blocks = number, filter_count

    def __dealloc__(self) -> None:
        self._release()

    def __len__(self) -> int:
        return self.count

    def find(self, cid: Buffer) -> int:
        """The first position of the block's digest, or -1."""
        cdef Py_buffer view
        cdef Bytes digest = digest_of(cid, &view)
        try:
            if self.count == 0 or not self._maybe(digest):
                return -1
            return self._search(digest)
        finally:
            PyBuffer_Release(&view)

    def holds(self, position: int, cid: Buffer) -> bool:
        """Whether the entry at ``position`` is of this block; False behind the last."""
        cdef Py_buffer view
        cdef Bytes digest
        cdef Py_ssize_t at = position
        if at < 0:
            raise ValueError("a position is not negative")
        digest = digest_of(cid, &view)
        try:
            return at < self.count and memcmp(self.entries + at * ENTRY, digest, 32) == 0
        finally:
            PyBuffer_Release(&view)

    def entry(self, position: int) -> tuple[int, int, int]:
        """(segment, offset, length) at ``position``."""
        cdef Bytes p = self.entries + self._check(position) * ENTRY
        return load_word(p + 32), load_word(p + 36), load_word(p + 40)

    def lookup(self, cid: Buffer) -> tuple[int, int, int, bool] | None:
        """(segment, offset, length, verified) of the block's first entry."""
        cdef Py_buffer view
        cdef Bytes digest = digest_of(cid, &view)
        cdef Bytes p
        cdef Py_ssize_t at = -1
        if self.count and self._maybe(digest):
            at = self._search(digest)
        PyBuffer_Release(&view)
        if at < 0:
            return None
        p = self.entries + at * ENTRY
        verified = (self.bits[at >> 3] >> (at & 7)) & 1 == 1
        return load_word(p + 32), load_word(p + 36), load_word(p + 40), verified

    def verified(self, position: int) -> bool:
        """Whether the block was hashed since the start."""
        cdef Py_ssize_t at = self._check(position)
        return (self.bits[at >> 3] >> (at & 7)) & 1 == 1

    def verify(self, position: int) -> None:
        """Mark the block as hashed."""
        cdef Py_ssize_t at = self._check(position)
        self.bits[at >> 3] |= 1 << (at & 7)

    def release(self) -> None:
        """Let go of the buffer; the run is not used any more."""
        self._release()

    cdef void _release(self) noexcept:
        self.count = 0
        free(self.bits)
        self.bits = NULL
        if self.held:
            self.held = False
            PyBuffer_Release(&self.view)

    cdef Py_ssize_t _check(self, position) except -1:
        cdef Py_ssize_t at = position
        if not 0 <= at < self.count:
            raise IndexError("no such entry")
        return at

    cdef Py_ssize_t _find_all(
        self,
        Sought* left,
        Sought* searches,
        Py_ssize_t count,
        segments,
        list places,
        list unverified,
    ) except -1:
        """Enter those of ``left`` that are here; how many are left then. Steps of all searches go
        round in turn, so that one's memory comes while others are looked at."""
        cdef Py_ssize_t index, ahead, kept = 0, under_way = 0, still = 0
        cdef Sought one
        cdef int order
        if self.count == 0:
            return count
        for index in range(-AHEAD, count):
            ahead = index + AHEAD
            if ahead < count:
                prefetch(self._block(left[ahead].digest))
            if index < 0:
                continue
            one = left[index]
            if self._maybe(one.digest):
                self._begin(&one.span, one.digest)
                prefetch(self.entries + one.span.guess * ENTRY)
                searches[under_way] = one
                under_way += 1
            else:
                left[kept] = one
                kept += 1
        while under_way:
            still = 0
            for index in range(under_way):
                one = searches[index]
                order = self._narrow(&one.span, one.digest)
                if order == 0:
                    self._enter(&one, segments, places, unverified)
                elif one.span.low >= one.span.high:
                    left[kept] = one
                    kept += 1
                else:
                    prefetch(self.entries + one.span.guess * ENTRY)
                    searches[still] = one
                    still += 1
            under_way = still
        return kept

    cdef int _enter(self, Sought* one, segments, list places, list unverified) except -1:
        cdef Py_ssize_t at = self._first(one.span.guess, one.digest)
        cdef Bytes p = self.entries + at * ENTRY
        cdef uint32_t name = load_word(p + 32)
        if name < <uint64_t>len(segments):
            places[one.position] = segments[name], load_word(p + 36), load_word(p + 40)
            if not (self.bits[at >> 3] >> (at & 7)) & 1:
                unverified.append(one.position)
        return 0

    cdef Bytes _block(self, Bytes digest) noexcept nogil:
        """The block of the filter that knows of this digest."""
        return self.filter + share(load_big(digest), self.blocks) * BLOCK

    cdef bint _maybe(self, Bytes digest) noexcept nogil:
        cdef Bytes block = self._block(digest)
        cdef uint64_t word = load_little(digest + 8)
        cdef int probe, bit
        for probe in range(PROBES):
            bit = (word >> (9 * probe)) & 511
            if not block[bit >> 3] >> (bit & 7) & 1:
                return False
        return True

    cdef Py_ssize_t _search(self, Bytes digest) noexcept nogil:
        cdef Span span
        self._begin(&span, digest)
        while span.low < span.high:
            if self._narrow(&span, digest) == 0:
                return self._first(span.guess, digest)
        return -1

    cdef void _begin(self, Span* span, Bytes digest) noexcept nogil:
        span.low, span.high, span.steps = 0, self.count, 0
        span.wanted, span.first, span.last = load_big(digest), 0, ~(<uint64_t>0)
        guess(span)

    cdef int _narrow(self, Span* span, Bytes digest) noexcept nogil:
        """Look at the entry that was guessed: 0 when it is the one, else there is less to look
        through, and another guess."""
        cdef Bytes p = self.entries + span.guess * ENTRY
        cdef int order = memcmp(p, digest, 32)
        if order < 0:
            span.low, span.first = span.guess + 1, load_big(p)
        elif order > 0:
            span.high, span.last = span.guess, load_big(p)
        if order != 0:
            guess(span)
        return order

    cdef Py_ssize_t _first(self, Py_ssize_t at, Bytes digest) noexcept nogil:
        """The first of equal entries."""
        while at > 0 and memcmp(self.entries + (at - 1) * ENTRY, digest, 32) == 0:
            at -= 1
        return at


cdef void guess(Span* span) noexcept nogil:
    """Interpolation, since digests are spread evenly; halving after some steps, in case the file or
    its makers saw to it that they are not."""
    cdef Py_ssize_t width = span.high - span.low
    if (
        span.steps < INTERPOLATIONS_MAX
        and span.last > span.first
        and span.first <= span.wanted <= span.last
    ):
        span.guess = span.low + <Py_ssize_t>share(
            <uint64_t>((<double>(span.wanted - span.first) / <double>(span.last - span.first))
                       * 18446744073709549568.0), width)
        if span.guess >= span.high:
            span.guess = span.high - 1
    else:
        span.guess = span.low + width // 2
    span.steps += 1


def find_many(
    tables: Sequence[tuple[Table, Any]],
    runs: Sequence[tuple[Run, Sequence[Any]]],
    trusted: Container[Any],
    cids: Sequence[bytes],
) -> tuple[list[tuple[Any, int, int] | None], list[int]]:
    """(segment, offset, length) of each block, from the first table or run that has it, None for a
    block that is nowhere; and the positions in ``cids`` of those that have yet to be hashed.

    A table stands beside its segment, a run beside those that its entries number; one that numbers
    none of them is nowhere. What stands in a ``trusted`` segment need not be hashed.
    """
    cdef Py_ssize_t count = len(cids), at
    cdef list places = [None] * count, unverified = []
    cdef list names = list(cids)
    # Those not found yet, and behind them room for the searches of a run.
    cdef Sought* left = <Sought*>calloc(2 * count + 1, sizeof(Sought))
    cdef Sought* searches = left + count
    if left == NULL:
        raise MemoryError
    try:
        for at in range(count):
            left[at].position = at
            if len(<bytes?>names[at]) != CID:
                raise ValueError(f"a CID has {CID} bytes, not {len(names[at])}")
            left[at].digest = <Bytes>PyBytes_AS_STRING(names[at]) + 4
        for table, segment in tables:
            count = (<Table?>table)._find_all(left, count, segment, places, unverified)
        for run, segments in runs:
            count = (<Run?>run)._find_all(
                left, searches, count, segments, places, unverified
            )
    finally:
        free(left)
    return places, [at for at in sorted(unverified) if places[at][0] not in trusted]


cdef class Filter:
    """Builds the filter of a run while its entries are written in order."""

    cdef Py_ssize_t blocks
    cdef Py_ssize_t block
    cdef unsigned char word[64]

    def __init__(self, count: int) -> None:
        self.blocks = filter_blocks(count)
        self.block = 0
        memset(self.word, 0, BLOCK)

    def add(self, entries: Buffer) -> bytes:
        """Take the next entries; the blocks that are complete now."""
        cdef Py_buffer view
        cdef Py_ssize_t at = 0, block, last, size
        cdef uint64_t word
        cdef int probe, bit
        cdef Bytes p
        cdef bytes out
        cdef unsigned char* q
        PyObject_GetBuffer(entries, &view, PyBUF_SIMPLE)
        try:
            if view.len % ENTRY:
                raise ValueError("half an entry")
            if view.len == 0:
                return b""
            p = <Bytes>view.buf
            last = share(load_big(p + view.len - ENTRY), self.blocks)
            size = (last - self.block) * BLOCK if last > self.block else 0
            out = PyBytes_FromStringAndSize(NULL, size)
            q = <unsigned char*>PyBytes_AS_STRING(out)
            memset(q, 0, size)
            while at < view.len:
                block = share(load_big(p + at), self.blocks)
                if block < self.block or block > last:
                    raise FormatError(at, "entries in order", p[at : at + 32].hex())
                if block > self.block:
                    memcpy(q, self.word, BLOCK)
                    memset(self.word, 0, BLOCK)
                    q += (block - self.block) * BLOCK
                    self.block = block
                word = load_little(p + at + 8)
                for probe in range(PROBES):
                    bit = (word >> (9 * probe)) & 511
                    self.word[bit >> 3] |= 1 << (bit & 7)
                at += ENTRY
            return out
        finally:
            PyBuffer_Release(&view)

    def finish(self) -> bytes:
        """The blocks that are left."""
        cdef bytes out = bytes(self.word[:BLOCK]) + bytes((self.blocks - self.block - 1) * BLOCK)
        self.block = self.blocks
        memset(self.word, 0, BLOCK)
        return out


cdef class Merge:
    """Merges sorted entries of several runs into one order, a piece at a time.

    ``segments[i][n]`` is what segment ``n`` of source ``i`` is called in the result.
    """

    cdef Py_ssize_t sources
    cdef list pieces  # the bytes fed and not yet used up; None: ended
    cdef list names
    cdef Bytes* heads  # owned; the next entry of each source, NULL where it has none
    cdef Py_ssize_t* lefts  # owned; entries left in its piece
    cdef unsigned char* lasts  # owned; the digest before

    def __cinit__(self, segments: Sequence[Sequence[int]]) -> None:
        cdef Py_ssize_t count = len(segments)
        self.heads = <Bytes*>calloc(count + 1, sizeof(Bytes))
        self.lefts = <Py_ssize_t*>calloc(count + 1, sizeof(Py_ssize_t))
        self.lasts = <unsigned char*>calloc(count + 1, 32)
        if self.heads == NULL or self.lefts == NULL or self.lasts == NULL:
            raise MemoryError
        self.sources = count
        self.pieces = [b""] * count
        self.names = [[int(name) for name in names] for names in segments]

    def __init__(self, segments: Sequence[Sequence[int]]) -> None:
        pass

    def __dealloc__(self) -> None:
        free(self.heads)
        free(self.lefts)
        free(self.lasts)

    def hungry(self) -> int:
        """The first source that must be fed before the next step, or -1."""
        cdef Py_ssize_t source
        for source in range(self.sources):
            if self.lefts[source] == 0 and self.pieces[source] is not None:
                return source
        return -1

    def feed(self, source: int, entries: Buffer) -> None:
        """The next entries of ``source``; none: it has ended."""
        cdef Py_ssize_t at = source
        cdef bytes piece
        if not 0 <= at < self.sources:
            raise IndexError("no such source")
        if self.lefts[at] or self.pieces[at] is None:
            raise ValueError("the source is not hungry")
        piece = bytes(entries)
        if len(piece) % ENTRY:
            raise ValueError("half an entry")
        self.pieces[at] = piece if piece else None
        self.heads[at] = <Bytes>PyBytes_AS_STRING(piece) if piece else NULL
        self.lefts[at] = len(piece) // ENTRY

    def step(self, limit: int) -> bytes:
        """At most ``limit`` merged entries; fewer when a source is hungry, none at the end.
        FormatError when a source is out of order or names a segment that it does not have."""
        cdef Py_ssize_t room = limit, number = 0, source, best, total = 0
        cdef uint32_t segment
        cdef list names
        cdef bytes out
        cdef unsigned char* q
        if self.hungry() >= 0:
            return b""
        for source in range(self.sources):
            total += self.lefts[source]
        room = total if total < room else room
        if room <= 0:
            return b""
        out = PyBytes_FromStringAndSize(NULL, room * ENTRY)
        q = <unsigned char*>PyBytes_AS_STRING(out)
        while number < room:
            best = -1
            for source in range(self.sources):
                if self.lefts[source] and (
                    best < 0 or memcmp(self.heads[source], self.heads[best], 32) < 0
                ):
                    best = source
            segment = load_word(self.heads[best] + 32)
            names = <list>self.names[best]
            if memcmp(self.heads[best], self.lasts + 32 * best, 32) < 0:
                raise FormatError(
                    self._offset(best), "entries in order", self.heads[best][:32].hex()
                )
            if segment >= <uint64_t>len(names):
                raise FormatError(
                    self._offset(best), f"one of {len(names)} segments", str(segment)
                )
            memcpy(self.lasts + 32 * best, self.heads[best], 32)
            memcpy(q, self.heads[best], ENTRY)
            store_word(q + 32, names[segment])
            q += ENTRY
            number += 1
            self.heads[best] += ENTRY
            self.lefts[best] -= 1
            if self.lefts[best] == 0:
                break
        return out[: number * ENTRY]

    cdef Py_ssize_t _offset(self, Py_ssize_t source):
        cdef bytes piece = <bytes>self.pieces[source]
        return self.heads[source] - <Bytes>PyBytes_AS_STRING(piece)
