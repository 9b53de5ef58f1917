# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# distutils: libraries = crypto
"""The node table, its eviction and the arena: see ``mst_store_c.pxd``; tested through ``mst_c``."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from ingot.errors import Missing


cdef extern from *:
    """
    #ifndef OPENSSL_SUPPRESS_DEPRECATED
    #define OPENSSL_SUPPRESS_DEPRECATED  /* SHA256_* cost a third of EVP_* at this size */
    #endif
    #include <openssl/sha.h>
    """
    ctypedef struct SHA256_CTX:
        pass
    int SHA256_Init(SHA256_CTX* state)
    int SHA256_Update(SHA256_CTX* state, const void* data, size_t length)
    int SHA256_Final(uint8_t* digest, SHA256_CTX* state)


cdef enum:
    SLOTS_AT_FIRST = 1024
    ARENA_BYTES = 262144  # of the chunk that is kept between calls: it stays in the CPU's cache

cdef const char* CID_HEAD = b"\x01\x71\x12\x20"


cdef int open_store(Store* store, int64_t budget) except -1:
    memset(store, 0, sizeof(Store))
    store.slots = <Slot*> calloc(SLOTS_AT_FIRST, sizeof(Slot))
    if store.slots == NULL:
        raise MemoryError
    store.mask = SLOTS_AT_FIRST - 1
    store.budget = budget
    store.epoch = 1
    return 0


cdef void close_store(Store* store) noexcept:
    cdef uint64_t at
    if store.slots != NULL:
        for at in range(store.mask + 1):
            free(store.slots[at].node)
        free(store.slots)
    release(&store.arena, False)


cdef void* grow(Arena* arena, size_t size) except NULL:
    """What ``take`` does when the newest chunk is full."""
    cdef size_t room = ARENA_BYTES if arena.chunk == NULL else 2 * arena.chunk.size
    cdef Chunk* chunk
    if room > 64 * ARENA_BYTES:
        room = 64 * ARENA_BYTES
    if room < size:
        room = size
    chunk = <Chunk*> malloc(sizeof(Chunk) + room)
    if chunk == NULL:
        raise MemoryError
    chunk.before = arena.chunk
    chunk.size = room
    arena.chunk = chunk
    arena.at = <uint8_t*> (chunk + 1) + size
    arena.end = <uint8_t*> (chunk + 1) + room
    return chunk + 1


cdef void release(Arena* arena, bint keep) noexcept:
    """Forget everything; ``keep`` one chunk of ordinary size for the next call."""
    cdef Chunk* chunk = arena.chunk
    cdef Chunk* before
    while chunk != NULL and not (keep and chunk.before == NULL and chunk.size == ARENA_BYTES):
        before = chunk.before
        free(chunk)
        chunk = before
    arena.chunk = chunk
    arena.at = arena.end = NULL
    if chunk != NULL:
        arena.at = <uint8_t*> (chunk + 1)
        arena.end = arena.at + chunk.size


# -- the table ----------------------------------------------------------------------------------


cdef Node* new_node(const uint8_t* digest, uint32_t length) except NULL:
    """A node whose block is still to be written."""
    cdef Node* node = <Node*> malloc(<size_t> (<Node*> NULL).block + length)
    if node == NULL:
        raise MemoryError
    memset(node, 0, <size_t> (<Node*> NULL).block)
    if digest != NULL:
        memcpy(node.digest, digest, 32)
    node.length = length
    return node


cdef int reserve(Store* store, uint64_t extra) except -1:
    """Make room in the table for ``extra`` more nodes."""
    cdef uint64_t size = store.mask + 1
    cdef uint64_t at, to
    cdef Slot* slots
    if (store.count + extra) * 4 <= size * 3:
        return 0
    while (store.count + extra) * 4 > size * 3:
        size *= 2
    slots = <Slot*> calloc(size, sizeof(Slot))
    if slots == NULL:
        raise MemoryError
    for at in range(store.mask + 1):
        if store.slots[at].node != NULL:
            to = store.slots[at].tag & (size - 1)
            while slots[to].node != NULL:
                to = (to + 1) & (size - 1)
            slots[to] = store.slots[at]
    free(store.slots)
    store.slots = slots
    store.mask = size - 1
    store.hand = 0
    return 0


cdef void insert(Store* store, Node* node, bint protect) noexcept:
    """Own ``node``, which is not held yet; there is room."""
    cdef uint64_t tag, at
    memcpy(&tag, node.digest, 8)
    at = tag & store.mask
    while store.slots[at].node != NULL:
        at = (at + 1) & store.mask
    store.slots[at].tag = tag
    store.slots[at].node = node
    store.count += 1
    store.bytes_used += node.length + NODE_CHARGE
    node.epoch = store.epoch - (0 if protect else 1)
    credit(node)
    if not protect:
        store.stuck = 0


cdef void remove_at(Store* store, uint64_t at) noexcept:
    """Free the node in slot ``at`` and move up those behind it that belong further forward."""
    cdef Node* node = store.slots[at].node
    cdef uint64_t hole = at, home
    store.bytes_used -= node.length + NODE_CHARGE
    store.count -= 1
    free(node)
    while True:
        at = (at + 1) & store.mask
        if store.slots[at].node == NULL:
            break
        home = store.slots[at].tag & store.mask
        if ((at - home) & store.mask) >= ((at - hole) & store.mask):
            store.slots[hole] = store.slots[at]
            hole = at
    store.slots[hole].node = NULL


cdef void drop(Store* store, const uint8_t* digest) noexcept:
    """Free the node if it is held."""
    cdef Node* node = find(store, digest)
    cdef uint64_t at
    if node == NULL:
        return
    memcpy(&at, digest, 8)
    at &= store.mask
    while store.slots[at].node != node:
        at = (at + 1) & store.mask
    remove_at(store, at)


cdef void shrink(Store* store) noexcept:
    """Evict down to the budget. What the running epoch touched or was owed is spared."""
    cdef uint64_t spared = 0
    cdef Node* node
    while store.bytes_used > store.budget and store.stuck != store.epoch:
        store.hand &= store.mask
        node = store.slots[store.hand].node
        if node == NULL or node.epoch == store.epoch:
            spared += 1
            store.hand += 1
            if spared > store.mask:
                store.stuck = store.epoch
        elif node.credit > 0:
            node.credit -= 1
            spared = 0
            store.hand += 1
        else:
            remove_at(store, store.hand)
            spared = 0


# -- CIDs and layers ----------------------------------------------------------------------------


cdef const uint8_t* digest_of(object cid) except NULL:
    """The digest in a node's CID; it lives as long as ``cid``."""
    cdef const uint8_t* at
    if not isinstance(cid, bytes):
        raise TypeError(f"a CID is bytes, not {type(cid).__name__}")
    at = <const uint8_t*> PyBytes_AS_STRING(cid)
    if PyBytes_GET_SIZE(cid) != 36 or memcmp(at, CID_HEAD, 4) != 0:
        raise ValueError("a node CID has 36 bytes: version 1, dag-cbor, sha2-256")
    return at + 4


cdef bytes cid_of(const uint8_t* digest):
    cdef bytes cid = PyBytes_FromStringAndSize(NULL, 36)
    cdef uint8_t* at = <uint8_t*> PyBytes_AS_STRING(cid)
    memcpy(at, CID_HEAD, 4)
    memcpy(at + 4, digest, 32)
    return cid


cdef bytes to_bytes(const uint8_t* at, Py_ssize_t length):
    return PyBytes_FromStringAndSize(<const char*> at, length)


cdef object miss(Store* store, const uint8_t** digests, uint32_t count):
    """The exception to raise for ``count`` missing nodes."""
    cdef uint32_t n
    store.owed += count
    return Missing([cid_of(digests[n]) for n in range(count)])


cdef int layer_of(bytes salt, const uint8_t* key, uint32_t length) noexcept:
    """Half the leading zero bits of sha256(salt + key)."""
    cdef SHA256_CTX state
    cdef uint8_t digest[32]
    cdef int n
    SHA256_Init(&state)
    SHA256_Update(&state, PyBytes_AS_STRING(salt), PyBytes_GET_SIZE(salt))
    SHA256_Update(&state, key, length)
    SHA256_Final(digest, &state)
    for n in range(32):
        if digest[n] != 0:
            return 4 * n + (digest[n] < 64) + (digest[n] < 16) + (digest[n] < 4)
    return 128
