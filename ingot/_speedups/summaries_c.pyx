# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""What listings show of records, kept by CID: the compiled form of ``summaries_py``.

A table of sets of eight slots, a power of two of them; the first four bytes of a digest choose the
set. A slot is one line of the processor's cache. A full set gives up one of its slots in turn: a
listing that goes round more keys than there is room for then finds many of them, where giving up
the oldest would find none.

A table that is half full is followed by one of twice the size. Its summaries move over some at each
call, not all at once, so that no step takes long.
"""

from collections.abc import Sequence

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy

from ingot._speedups.entries_py import SUMMARY_BYTES, SUMMARY_KIND

SLOT_BYTES = 64

cdef extern from *:
    void __builtin_prefetch(const void *) noexcept nogil

cdef enum:
    TAG = 28  # bytes of a digest that a slot holds
    VALUE = 36
    WAYS = 8
    MOVED = 4096  # slots of the smaller table at each call: a tenth of a millisecond or two
    FEWEST = 1024
    DIGEST = 4  # where a CID has it
    CID = 36

assert SUMMARY_BYTES == VALUE and TAG + VALUE == SLOT_BYTES and SUMMARY_KIND != 0

cdef uint8_t KIND = SUMMARY_KIND


cdef struct Slot:
    uint8_t[TAG] tag
    uint8_t[VALUE] value  # begins with 0 where the slot is free


cdef struct Table:
    void *memory  # of ``slots``, which begin at a line of the processor's cache; NULL: no table
    Slot *slots
    size_t size  # slots
    size_t used


cdef class Summaries:
    """Takes at most ``room`` bytes, and for a while half as much again when it has grown; it
    begins small. ValueError for room for fewer than 1,024 summaries."""

    cdef Table now
    cdef Table before  # half the size, while it has what ``now`` lacks
    cdef size_t moved  # slots of it
    cdef size_t most
    cdef uint32_t turn

    def __cinit__(self, room: int) -> None:
        self.now.memory = self.before.memory = NULL
        if room < FEWEST * SLOT_BYTES:
            raise ValueError(f"no room for summaries: {room} bytes")
        self.most = FEWEST
        while self.most * 2 * sizeof(Slot) <= <size_t>room:
            self.most *= 2
        make(&self.now, FEWEST)

    def __dealloc__(self) -> None:
        drop(&self.now)
        drop(&self.before)

    @property
    def bytes_used(self) -> int:
        """Memory that is taken, in bytes."""
        return (self.now.size + self.before.size) * sizeof(Slot)

    def find_many(self, cids: Sequence[bytes]) -> list[bytes | None]:
        """The summary of each of these records, None where there is none."""
        cdef const uint8_t *digest
        cdef Slot *slot
        cdef list found = []
        for cid in cids:  # the lines of memory are on their way before the first is looked at
            __builtin_prefetch(set_of(&self.now, digest_of(cid)))
        for cid in cids:
            digest = digest_of(cid)
            slot = look(&self.now, digest)
            if slot == NULL and self.before.memory != NULL:
                slot = look(&self.before, digest)
            if slot == NULL:
                found.append(None)
            else:
                found.append(PyBytes_FromStringAndSize(<char *>slot.value, VALUE))
        self.move()
        return found

    def add_many(self, cids: Sequence[bytes], summaries: Sequence[bytes]) -> None:
        """Keep the summary of each of these records; what is none, as a block, is not kept."""
        cdef const uint8_t *digest
        cdef bytes value
        cdef Table larger
        for cid, summary in zip(cids, summaries, strict=True):
            digest = digest_of(cid)
            value = summary
            if PyBytes_GET_SIZE(value) != VALUE or <uint8_t>PyBytes_AS_STRING(value)[0] != KIND:
                continue
            self.put(digest, <const uint8_t *>PyBytes_AS_STRING(value))
        self.move()
        if self.before.memory == NULL and self.now.size < self.most:
            if self.now.used * 2 > self.now.size:
                make(&larger, self.now.size * 2)
                self.before, self.now, self.moved = self.now, larger, 0

    cdef void move(self) noexcept:
        cdef size_t last = min(self.moved + MOVED, self.before.size)
        cdef Slot *slot
        while self.moved < last:
            slot = self.before.slots + self.moved
            if slot.value[0] != 0 and look(&self.now, slot.tag) == NULL:  # else it was added again
                self.put(slot.tag, slot.value)
            self.moved += 1
        if self.before.memory != NULL and last == self.before.size:
            drop(&self.before)

    cdef void put(self, const uint8_t *digest, const uint8_t *value) noexcept:
        cdef Slot *slot = look(&self.now, digest)
        cdef Slot *slots = set_of(&self.now, digest)
        cdef int at
        if slot == NULL:
            for at in range(WAYS):
                if slots[at].value[0] == 0:
                    slot = slots + at
                    self.now.used += 1
                    break
            else:
                slot = slots + self.turn % WAYS
                self.turn += 1
        memcpy(slot.tag, digest, TAG)
        memcpy(slot.value, value, VALUE)


cdef const uint8_t *digest_of(object cid) except NULL:
    if PyBytes_GET_SIZE(<bytes?>cid) != CID:
        raise ValueError(f"a CID has {CID} bytes, not {len(cid)}")
    return <const uint8_t *>PyBytes_AS_STRING(cid) + DIGEST


cdef inline Slot *set_of(Table *table, const uint8_t *digest) noexcept:
    cdef uint32_t number
    memcpy(&number, digest, sizeof(number))
    return table.slots + (number & (table.size // WAYS - 1)) * WAYS


cdef Slot *look(Table *table, const uint8_t *digest) noexcept:
    cdef Slot *slots = set_of(table, digest)
    cdef int at
    for at in range(WAYS):
        if slots[at].value[0] != 0 and memcmp(slots[at].tag, digest, TAG) == 0:
            return slots + at
    return NULL


cdef int make(Table *table, size_t size) except -1:
    """A table without summaries. Pages of its memory are taken when they are first written to."""
    table.memory = calloc(size * sizeof(Slot) + sizeof(Slot), 1)
    if table.memory == NULL:
        raise MemoryError
    table.slots = <Slot *>((<uintptr_t>table.memory + sizeof(Slot) - 1) & ~(sizeof(Slot) - 1))
    table.size, table.used = size, 0
    return 0


cdef void drop(Table *table) noexcept:
    free(table.memory)
    table.memory = NULL
    table.size = table.used = 0
