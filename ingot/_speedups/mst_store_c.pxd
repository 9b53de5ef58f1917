# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The nodes that a cache holds, as C sees them: an open-addressing table of one-allocation nodes.

Whoever calls holds the GIL. Pointers into nodes and into the arena live until the end of the call
that made them; nothing is evicted or freed while a call is under way (``Store.busy``).
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from ingot._speedups.mst_node cimport head_size


cdef extern from *:
    """
    #define ingot_prefetch(p) __builtin_prefetch(p)
    """
    void ingot_prefetch(const void* p) noexcept nogil


cdef enum:
    NODE_CHARGE = 128  # bytes a cached node takes beside its block: header, allocator, table slots
    CREDIT_LOW = 1  # sweeps that a node outlives untouched
    CREDIT_HIGH = 7  # the same at layer 2 and above
    LINE_BYTES = 64
    FETCH_LINES = 12  # fetched ahead of each node; a block on a path has 600 to 700 bytes


cdef struct Chunk:
    Chunk* before
    size_t size


cdef struct Arena:
    Chunk* chunk  # the newest; the first one is kept between calls
    uint8_t* at
    uint8_t* end


cdef struct Node:
    # One allocation, the block behind the header. ``height`` is layer + 1 as far as known (a lower
    # bound), 0 while nothing is known: a node without links counts as layer 0, and a visit teaches
    # parent and child about each other. It needs no layer function, so readers need no salt.
    uint8_t digest[32]
    void* parsed  # its entries, while a call that needs them is under way
    uint32_t epoch  # of the cache when it was last touched
    uint32_t length
    uint32_t count
    uint8_t height
    uint8_t credit
    uint8_t left  # whether there is a left link
    uint8_t block[1]


cdef struct Slot:
    uint64_t tag  # the digest's first 8 bytes
    Node* node


cdef struct Store:
    Slot* slots
    uint64_t mask
    uint64_t count
    uint64_t hand  # of the CLOCK
    int64_t bytes_used
    int64_t budget
    uint64_t owed  # named as missing since a call last finished, and not added yet
    uint32_t epoch  # grows whenever a call finishes
    uint32_t stuck  # epoch in which nothing was left to evict
    bint busy
    Arena arena


cdef int open_store(Store* store, int64_t budget) except -1
cdef void close_store(Store* store) noexcept
cdef void* grow(Arena* arena, size_t size) except NULL
cdef void release(Arena* arena, bint keep) noexcept
cdef Node* new_node(const uint8_t* digest, uint32_t length) except NULL
cdef int reserve(Store* store, uint64_t extra) except -1
cdef void insert(Store* store, Node* node, bint protect) noexcept
cdef void drop(Store* store, const uint8_t* digest) noexcept
cdef void shrink(Store* store) noexcept
cdef const uint8_t* digest_of(object cid) except NULL
cdef bytes cid_of(const uint8_t* digest)
cdef bytes to_bytes(const uint8_t* at, Py_ssize_t length)
cdef object miss(Store* store, const uint8_t** digests, uint32_t count)
cdef int layer_of(bytes salt, const uint8_t* key, uint32_t length) noexcept


cdef inline void* take(Arena* arena, size_t size) except NULL:
    """``size`` bytes, aligned to 8, not cleared, valid until ``release``."""
    cdef uint8_t* at = arena.at
    size = (size + 7) & ~<size_t> 7
    if <size_t> (arena.end - at) < size:
        return grow(arena, size)
    arena.at = at + size
    return at


cdef inline Node* find(Store* store, const uint8_t* digest) noexcept nogil:
    cdef uint64_t tag, at
    cdef Slot* slot
    memcpy(&tag, digest, 8)
    at = tag & store.mask
    while True:
        slot = &store.slots[at]
        if slot.node == NULL:
            return NULL
        if slot.tag == tag and memcmp(slot.node.digest, digest, 32) == 0:
            return slot.node
        at = (at + 1) & store.mask


cdef inline void fetch_slot(Store* store, const uint8_t* digest) noexcept nogil:
    cdef uint64_t tag
    memcpy(&tag, digest, 8)
    ingot_prefetch(&store.slots[tag & store.mask])


cdef inline void fetch_node(Store* store, const uint8_t* digest) noexcept nogil:
    """Fetch what is likely the node's memory, without waiting for any of it."""
    cdef uint64_t tag
    cdef const uint8_t* at
    cdef int n
    memcpy(&tag, digest, 8)
    at = <const uint8_t*> store.slots[tag & store.mask].node
    if at != NULL:
        for n in range(FETCH_LINES):
            ingot_prefetch(at + n * LINE_BYTES)


cdef inline void credit(Node* node) noexcept nogil:
    node.credit = CREDIT_HIGH if node.height > 2 else CREDIT_LOW


cdef inline Node* visit(Store* store, const uint8_t* digest) noexcept nogil:
    cdef Node* node = find(store, digest)
    if node != NULL:
        node.epoch = store.epoch
        credit(node)
    return node


cdef inline Node* descend(Store* store, const uint8_t* digest, Node* parent) noexcept nogil:
    cdef Node* node = visit(store, digest)
    if node != NULL and parent != NULL:
        if parent.height > 0 and node.height < parent.height - 1:
            node.height = parent.height - 1
        if node.height > 0 and parent.height < node.height + 1:
            parent.height = node.height + 1
    return node


cdef inline const uint8_t* entries_of(Node* node) noexcept nogil:
    return node.block + 3 + head_size(node.count)


cdef inline const uint8_t* left_of(Node* node) noexcept nogil:
    return node.block + node.length - 32 if node.left else NULL


cdef inline void finish(Store* store) noexcept nogil:
    """A call got its answer: what it was spared for may go."""
    store.epoch += 1
    store.owed = 0
