# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# distutils: libraries = crypto
"""The Merkle Search Tree of a bucket, compiled: what ``mst_py`` specifies, made for speed.

A tree of a million keys is bound by memory latency, so a cached node is one allocation that holds
its block as it is stored, found through an open-addressing table of C pointers; entries are read
in place, with the length that is known to agree instead of whole keys. A batch touches all its paths
layer by layer, fetching ahead, before it rebuilds anything. Everything that lives for one call
only is in the cache's arena. No Python object is made but the answer.

Whoever calls holds the GIL throughout. Pointers into nodes and into the arena live until the end of
the call that made them; nothing is evicted or freed while a call is under way (``Store.busy``).
"""

from collections.abc import Iterable
from typing import NamedTuple

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from ingot._speedups.mst_node cimport (
    FINE,
    NODE_FRAME_BYTES,
    Entry,
    Fault,
    check_block,
    check_cid,
    compare,
    entry_size,
    head_size,
    read_entry,
    shared_length,
    write_entry,
    write_head,
    write_link,
)

from ingot.errors import Corruption, FormatError, Missing
from ingot.limits import (
    KEY_LAYER_READ_MAX,
    KEY_LAYER_WRITE_MAX,
    NODE_BYTES_READ_MAX,
    NODE_BYTES_WRITE_MAX,
    NODE_ENTRIES_MAX,
    TREE_KEY_BYTES_MAX,
)


cdef extern from *:
    """
    #ifndef OPENSSL_SUPPRESS_DEPRECATED
    #define OPENSSL_SUPPRESS_DEPRECATED  /* SHA256_* cost a third of EVP_* at this size */
    #endif
    #include <openssl/sha.h>
    #define ingot_prefetch(p) __builtin_prefetch(p)
    """
    ctypedef struct SHA256_CTX:
        pass
    int SHA256_Init(SHA256_CTX* state) nogil
    int SHA256_Update(SHA256_CTX* state, const void* data, size_t length) nogil
    int SHA256_Final(uint8_t* digest, SHA256_CTX* state) nogil
    void ingot_prefetch(const void* p) noexcept nogil


cdef enum:
    NODE_CHARGE = 128  # bytes a cached node takes beside its block: header, allocator, table slots
    CREDIT_LOW = 1  # sweeps that a node outlives untouched
    CREDIT_HIGH = 7  # the same at layer 2 and above
    NAMES_MAX = 256  # missing nodes that a walk names at once
    ARENA_BYTES = 262144  # of the chunk that is kept between calls: it stays in the CPU's cache
    LINE_BYTES = 64
    FETCH_LINES = 12  # fetched ahead of each node; a block on a path has 600 to 700 bytes
    KEY_ROOM = 2048  # of the buffers that keys are put together in

cdef uint32_t ENTRIES_MAX = NODE_ENTRIES_MAX
cdef uint32_t READ_MAX = NODE_BYTES_READ_MAX
cdef uint32_t WRITE_MAX = NODE_BYTES_WRITE_MAX
cdef uint32_t KEY_MAX = TREE_KEY_BYTES_MAX
cdef int LAYER_WRITE_MAX = KEY_LAYER_WRITE_MAX
cdef int DEPTH_MAX = KEY_LAYER_READ_MAX + 1
assert KEY_MAX <= KEY_ROOM
cdef const char* CID_HEAD = b"\x01\x71\x12\x20"

# By ``Fault``.
EXPECTED = (
    "",
    "a map of two fields",
    'field "e"',
    "a list of entries",
    f"at most {NODE_ENTRIES_MAX} entries",
    "an entry of four fields",
    'field "k"',
    "a byte string",
    'field "p"',
    "an unsigned integer",
    "a prefix of the key before",
    f"a suffix that makes a key of 1 to {TREE_KEY_BYTES_MAX} bytes",
    "the longest prefix shared with the key before",
    "a key above the one before",
    'field "t"',
    "a node link or null",
    'field "v"',
    "a link to a value",
    'field "l"',
    "the end of the block",
)


# -- memory for one call ------------------------------------------------------------------------


cdef struct Chunk:
    Chunk* before
    size_t size


cdef struct Arena:
    Chunk* chunk  # the newest; the first one is kept between calls
    uint8_t* at
    uint8_t* end


cdef void* take(Arena* arena, size_t size) except NULL:
    """``size`` bytes, aligned to 8, not cleared, valid until ``release``."""
    cdef uint8_t* at = arena.at
    cdef Chunk* chunk
    cdef size_t room
    size = (size + 7) & ~<size_t> 7
    if arena.chunk == NULL or <size_t> (arena.end - at) < size:
        room = ARENA_BYTES if arena.chunk == NULL else 2 * arena.chunk.size
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
        at = <uint8_t*> (chunk + 1)
        arena.end = at + room
    arena.at = at + size
    return at


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


# -- the cache ----------------------------------------------------------------------------------


cdef struct Node:
    # One allocation, the block behind the header. ``height`` is layer + 1 as far as known (a lower
    # bound), 0 while nothing is known: a node without links counts as layer 0, and a visit teaches
    # parent and child about each other. It needs no layer function, so readers need no salt.
    uint8_t digest[32]
    Parsed* parsed  # while a call that needs its entries is under way
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


cdef void finish(Store* store) noexcept:
    store.epoch += 1
    store.owed = 0


cdef Store* idle(NodeCache cache) except NULL:
    """The cache's store. Only a finalizer that runs inside a call can find it busy."""
    if cache.store.busy:
        raise RuntimeError("the node cache is in use by a call that has not returned")
    return &cache.store


cdef Store* begin(NodeCache cache) except NULL:
    """Start a call that keeps pointers: until ``end`` nothing may change the table."""
    cdef Store* store = idle(cache)
    store.busy = True
    return store


cdef void end(Store* store) noexcept:
    release(&store.arena, True)
    store.busy = False
    shrink(store)


cdef class NodeCache:
    """Nodes of any number of trees, bounded to ``budget`` bytes; nodes never change once added.

    Eviction is CLOCK; nodes of layer 2 and above go last. What the last unfinished call touched,
    and the blocks it named as missing once they are added, stay until some call has finished, over
    the budget if need be: so a retry always gets further than the call before it.
    """

    cdef Store store

    def __cinit__(self, budget: int):
        if budget <= 0:
            raise ValueError("a cache needs a budget above 0 bytes")
        memset(&self.store, 0, sizeof(Store))
        self.store.slots = <Slot*> calloc(1024, sizeof(Slot))
        if self.store.slots == NULL:
            raise MemoryError
        self.store.mask = 1023
        self.store.budget = budget
        self.store.epoch = 1

    def __dealloc__(self):
        cdef uint64_t at
        if self.store.slots != NULL:
            for at in range(self.store.mask + 1):
                free(self.store.slots[at].node)
            free(self.store.slots)
        release(&self.store.arena, False)

    @property
    def budget(self) -> int:
        """How many bytes the nodes may take."""
        return self.store.budget

    @property
    def bytes_used(self) -> int:
        """How many bytes the nodes take, table and allocator counted in."""
        return self.store.bytes_used

    def add(self, cid: bytes, block: bytes) -> None:
        """Hold ``block``, whose hash the caller has checked against ``cid``; FormatError."""
        cdef const uint8_t* digest = digest_of(cid)
        cdef Store* store = idle(self)
        cdef Node* node
        cdef bint owed = store.owed > 0
        if find(store, digest) != NULL:
            return
        reserve(store, 1)
        node = checked_node(digest, block)
        if owed:
            store.owed -= 1
        insert(store, node, owed)
        shrink(store)

    def discard(self, cids: Iterable[bytes]) -> None:
        """Drop those of ``cids`` that are held, such as the removed nodes of a published batch."""
        cdef Store* store
        cdef const uint8_t* digest
        cdef uint64_t tag, at
        cdef Node* node
        for cid in cids:
            digest = digest_of(cid)
            store = idle(self)
            node = find(store, digest)
            if node != NULL:
                memcpy(&tag, digest, 8)
                at = tag & store.mask
                while store.slots[at].node != node:
                    at = (at + 1) & store.mask
                remove_at(store, at)

    def block(self, cid: bytes) -> bytes | None:
        """The block of a node that is held, else None."""
        cdef Node* node = find(&self.store, digest_of(cid))
        return None if node == NULL else node.block[:node.length]

    def __contains__(self, cid: bytes) -> bool:
        return find(&self.store, digest_of(cid)) != NULL

    def __len__(self) -> int:
        return self.store.count


# -- nodes as blocks ----------------------------------------------------------------------------


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


cdef inline bytes to_bytes(const uint8_t* at, Py_ssize_t length):
    return PyBytes_FromStringAndSize(<const char*> at, length)


cdef int check(bytes block, uint32_t* count, uint8_t* left, uint8_t* links) except -1:
    """FormatError unless ``block`` is a node as an encoder writes it."""
    cdef uint8_t key[KEY_ROOM]
    cdef uint32_t at = 0
    cdef Fault fault
    if PyBytes_GET_SIZE(block) > READ_MAX:
        raise FormatError(
            NODE_BYTES_READ_MAX, f"at most {NODE_BYTES_READ_MAX} bytes", f"{len(block)} bytes"
        )
    fault = check_block(
        <const uint8_t*> PyBytes_AS_STRING(block),
        <uint32_t> PyBytes_GET_SIZE(block),
        ENTRIES_MAX,
        KEY_MAX,
        key,
        &at,
        count,
        left,
        links,
    )
    if fault != FINE:
        raise FormatError(at, EXPECTED[<int> fault], block[at : at + 8].hex() or "the end")
    return 0


cdef Node* checked_node(const uint8_t* digest, bytes block) except NULL:
    cdef uint32_t count = 0
    cdef uint8_t left = 0, links = 0
    cdef Node* node
    check(block, &count, &left, &links)
    node = new_node(digest, <uint32_t> PyBytes_GET_SIZE(block))
    memcpy(node.block, PyBytes_AS_STRING(block), node.length)
    node.count = count
    node.left = left
    node.height = 0 if links else 1
    return node


def decode_node(block: bytes) -> tuple[bytes | None, list[tuple[bytes, bytes, bytes | None]]]:
    """``block`` as (left link, [(key, value, right link), ...]); FormatError unless canonical.

    Checks all that one block can show without the layer function: exact encoding, ascending keys
    of 1 to TREE_KEY_BYTES_MAX bytes, longest prefixes, the reader's limits. Which keys a tree
    admits beyond that, and their layers, are ``ingot.mst.verify``'s.
    """
    cdef uint32_t count = 0, n
    cdef uint8_t left = 0, links = 0
    cdef const uint8_t* at = <const uint8_t*> PyBytes_AS_STRING(block)
    cdef const uint8_t* last = at + PyBytes_GET_SIZE(block) - 32
    cdef Entry entry
    cdef bytes key = b""
    cdef list entries = []
    check(block, &count, &left, &links)
    at += 3 + head_size(count)
    for n in range(count):
        at = read_entry(at, &entry)
        key = key[: entry.prefix] + to_bytes(entry.suffix, entry.suffix_length)
        entries.append(
            (
                key,
                to_bytes(entry.value, entry.value_length),
                None if entry.child == NULL else cid_of(entry.child),
            )
        )
    return (cid_of(last) if left else None), entries


def encode_node(left: bytes | None, entries: list[tuple[bytes, bytes, bytes | None]]) -> bytes:
    """The block of a node: the inverse of ``decode_node``. Links are node CIDs, keys ascend.

    ValueError for content that no node has; the limits on entries and bytes are the caller's.
    """
    cdef const uint8_t* child
    cdef const uint8_t* name
    cdef const uint8_t* cid
    cdef uint8_t head[48]
    cdef uint32_t prefix, length, size
    cdef bytes before = b""
    cdef bytes key, value, part
    cdef list parts = []
    head[0] = 0xA2
    head[1] = 0x61
    head[2] = 0x65
    parts.append(to_bytes(head, write_head(&head[3], 4, <uint32_t> len(entries)) - head))
    for key, value, right in entries:
        if not before < key or len(key) > KEY_MAX:
            raise ValueError(f"keys must ascend and have 1 to {TREE_KEY_BYTES_MAX} bytes")
        cid = <const uint8_t*> PyBytes_AS_STRING(value)
        if len(value) > READ_MAX or not check_cid(cid, <uint32_t> len(value)):
            raise ValueError("a value must be a CIDv1")
        child = NULL if right is None else digest_of(right)
        name = <const uint8_t*> PyBytes_AS_STRING(key)
        length = <uint32_t> len(key)
        prefix = shared_length(
            <const uint8_t*> PyBytes_AS_STRING(before), <uint32_t> len(before), name, length
        )
        size = entry_size(prefix, length - prefix, child != NULL, <uint32_t> len(value))
        part = PyBytes_FromStringAndSize(NULL, size)
        write_entry(
            <uint8_t*> PyBytes_AS_STRING(part),
            prefix,
            name + prefix,
            length - prefix,
            child,
            cid,
            <uint32_t> len(value),
        )
        parts.append(part)
        before = key
    child = NULL if left is None else digest_of(left)
    head[0] = 0x61
    head[1] = 0x6C
    parts.append(to_bytes(head, write_link(&head[2], child) - head))
    return b"".join(parts)


cdef int layer_of(
    const uint8_t* salt, size_t salt_length, const uint8_t* key, size_t length
) noexcept nogil:
    cdef SHA256_CTX state
    cdef uint8_t digest[32]
    cdef int n
    SHA256_Init(&state)
    SHA256_Update(&state, salt, salt_length)
    SHA256_Update(&state, key, length)
    SHA256_Final(digest, &state)
    for n in range(32):
        if digest[n] != 0:
            return 4 * n + (digest[n] < 64) + (digest[n] < 16) + (digest[n] < 4)
    return 128


def key_layer(key: bytes, salt: bytes = b"") -> int:
    """The layer of ``key``: half the leading zero bits of sha256(salt + key), 0 to 128."""
    return layer_of(
        <const uint8_t*> PyBytes_AS_STRING(salt),
        PyBytes_GET_SIZE(salt),
        <const uint8_t*> PyBytes_AS_STRING(key),
        PyBytes_GET_SIZE(key),
    )


EMPTY_BLOCK = bytes.fromhex("a2616580616cf6")
EMPTY_ROOT = bytes.fromhex("017112209dfefe61dd76ea3dcae5023880b08379d57adf20482d6fdbe2759289f647677b")


cdef const uint8_t* root_digest(bytes root) except? NULL:
    """The digest of a root; NULL for the empty tree."""
    return NULL if root is None or root == EMPTY_ROOT else digest_of(root)


cdef object miss(Store* store, const uint8_t** digests, uint32_t count):
    """The exception to raise for ``count`` missing nodes."""
    cdef uint32_t n
    store.owed += count
    return Missing([cid_of(digests[n]) for n in range(count)])


cdef object too_deep():
    return Corruption("a tree", f"at most {DEPTH_MAX} layers", "a longer path")


def get(cache: NodeCache, root: bytes | None, key: bytes) -> bytes | None:
    """The value CID of ``key``, or None; raises Missing."""
    cdef Store* store = idle(cache)
    cdef const uint8_t* digest = root_digest(root)
    cdef const uint8_t* name = <const uint8_t*> PyBytes_AS_STRING(key)
    cdef uint32_t length = <uint32_t> PyBytes_GET_SIZE(key)
    cdef const uint8_t* at
    cdef Node* parent = NULL
    cdef Node* node
    cdef Entry entry
    cdef uint32_t n, known, agreeing
    cdef int depth = 0
    cdef bytes value
    while digest != NULL:
        node = descend(store, digest, parent)
        if node == NULL:
            raise miss(store, &digest, 1)
        depth += 1
        if depth > DEPTH_MAX:
            raise too_deep()
        digest = left_of(node)
        at = entries_of(node)
        known = 0  # leading bytes that ``key`` shares with the entry before
        for n in range(node.count):
            at = read_entry(at, &entry)
            if entry.prefix < known:
                break
            if entry.prefix == known:
                agreeing = shared_length(
                    entry.suffix, entry.suffix_length, name + known, length - known
                )
                known += agreeing
                if known == length:
                    if agreeing == entry.suffix_length:
                        value = to_bytes(entry.value, entry.value_length)
                        finish(store)
                        shrink(store)
                        return value
                    break
                if agreeing < entry.suffix_length and name[known] < entry.suffix[agreeing]:
                    break
            digest = entry.child
        if digest != NULL:
            fetch_slot(store, digest)
        parent = node
    finish(store)
    shrink(store)
    return None


# -- entries of a node, for calls that look at it more than once ----------------------------------


cdef struct Item:
    const uint8_t* key  # the whole key; NULL until someone needed it
    const uint8_t* suffix
    const uint8_t* value
    const uint8_t* child  # digest of the child right of it, or NULL
    uint32_t prefix
    uint32_t suffix_length
    uint32_t value_length


cdef struct Parsed:
    Node* node
    Item* items
    const uint8_t* left
    Parsed* next  # in the order of loading
    uint32_t count
    bint kept  # the new tree still has this node


cdef struct Loaded:
    Parsed* first
    Parsed* last


cdef Parsed* parse(Arena* arena, Loaded* loaded, Node* node) except NULL:
    """The node's entries, found once a call. Whole keys are put together only where needed."""
    cdef Parsed* parsed = node.parsed
    cdef const uint8_t* at = entries_of(node)
    cdef Entry entry
    cdef Item* item
    cdef uint32_t n
    if parsed != NULL:
        return parsed
    parsed = <Parsed*> take(arena, sizeof(Parsed) + node.count * sizeof(Item))
    item = <Item*> (parsed + 1)
    parsed.node = node
    parsed.items = item
    parsed.left = left_of(node)
    parsed.next = NULL
    parsed.count = node.count
    parsed.kept = False
    for n in range(node.count):
        at = read_entry(at, &entry)
        item.key = entry.suffix if entry.prefix == 0 else NULL
        item.suffix = entry.suffix
        item.value = entry.value
        item.child = entry.child
        item.prefix = entry.prefix
        item.suffix_length = entry.suffix_length
        item.value_length = entry.value_length
        item += 1
    if loaded.last == NULL:
        loaded.first = parsed
    else:
        loaded.last.next = parsed
    loaded.last = parsed
    node.parsed = parsed
    return parsed


cdef void forget(Loaded* loaded) noexcept:
    cdef Parsed* parsed = loaded.first
    while parsed != NULL:
        parsed.node.parsed = NULL
        parsed = parsed.next


cdef inline const uint8_t* child_at(Parsed* parsed, uint32_t at) noexcept nogil:
    """The child left of key ``at``, or right of all keys."""
    return parsed.left if at == 0 else parsed.items[at - 1].child


cdef inline uint32_t key_length(Item* item) noexcept nogil:
    return item.prefix + item.suffix_length


cdef const uint8_t* spell(Arena* arena, Parsed* parsed, uint32_t at) except NULL:
    """The whole key of an entry: its prefix is taken from those before it, back to a whole one."""
    cdef Item* item = &parsed.items[at]
    cdef Item* before = item
    cdef uint32_t needed = item.prefix
    cdef uint8_t* key
    if item.key != NULL:
        return item.key
    key = <uint8_t*> take(arena, key_length(item))
    memcpy(key + needed, item.suffix, item.suffix_length)
    while needed > 0:
        before -= 1
        if before.key != NULL:
            memcpy(key, before.key, needed)
            break
        if before.prefix < needed:
            memcpy(key + before.prefix, before.suffix, needed - before.prefix)
            needed = before.prefix
    item.key = key
    return key


cdef struct Finger:
    # A place in a node on the way right: ``at`` is the first entry not below the key last looked
    # for, ``known`` how many leading bytes the key shares with the entry before it.
    uint32_t at
    uint32_t known


cdef bint advance(
    Parsed* parsed, Finger* finger, uint32_t last, const uint8_t* key, uint32_t length
) noexcept nogil:
    """Move to the first entry at or above ``key``, at most to ``last``; whether it is the key."""
    cdef Item* item
    cdef uint32_t known = finger.known, agreeing
    while finger.at < last:
        item = &parsed.items[finger.at]
        if item.prefix < known:
            break
        if item.prefix == known:
            agreeing = shared_length(item.suffix, item.suffix_length, key + known, length - known)
            if known + agreeing == length:
                finger.known = known
                return agreeing == item.suffix_length
            if agreeing < item.suffix_length and key[known + agreeing] < item.suffix[agreeing]:
                break
            known += agreeing
        finger.at += 1
    finger.known = known
    return False


cdef int place(
    Arena* arena, Parsed* parsed, Finger* finger, uint32_t at, const uint8_t* key, uint32_t length
) except -1:
    """Put the finger at entry ``at``, the entry before which is below ``key``."""
    cdef const uint8_t* before
    finger.at = at
    finger.known = 0
    if at > 0:
        before = spell(arena, parsed, at - 1)
        finger.known = shared_length(before, key_length(&parsed.items[at - 1]), key, length)
    return 0


# -- one batch of mutations ---------------------------------------------------------------------


class Applied(NamedTuple):
    """What a batch made of a tree. When ``refused`` is not empty, nothing else is valid."""

    root: bytes
    """EMPTY_ROOT when no key is left."""
    blocks: list[tuple[bytes, bytes]]
    """(CID, block) of every node of the new tree that the old one has not; children first."""
    removed: list[bytes]
    """The nodes of the old tree that the new one has not."""
    previous: list[bytes | None]
    """For each mutation the value its key had."""
    refused: list[int]
    """Mutations that the writer's limits do not admit: leave them out and call again."""


cdef struct Mutation:
    const uint8_t* key
    const uint8_t* value  # 36 bytes, or NULL to delete
    const uint8_t* previous
    uint32_t length
    uint32_t shared  # leading bytes that the key shares with the mutation before
    uint32_t previous_length
    int layer
    bint ended  # nothing of its path lies deeper
    bint refused


cdef struct Bound:
    # An end of a key interval: a key, or entry ``at`` of ``source`` whose key is not put together
    # yet, or open when both are NULL.
    const uint8_t* key
    Parsed* source
    uint32_t length
    uint32_t at


cdef struct Segment:
    # An old subtree with the old separators around it.
    const uint8_t* digest
    Bound lower
    Bound upper


cdef struct Ref:
    # An old node by digest, or one being built; no node when both are NULL.
    const uint8_t* digest
    Fresh* fresh


cdef struct Piece:
    # A key of a node being built: entry ``at`` of ``source``, or one that mutation ``inserted``
    # brought. ``prefix`` and ``suffix`` are set when the node is measured.
    const uint8_t* key
    Parsed* source
    const uint8_t* value
    const uint8_t* suffix
    uint32_t length
    uint32_t at
    uint32_t value_length
    uint32_t prefix
    uint32_t suffix_length
    int32_t inserted


cdef struct Fresh:
    # A node being built. ``links`` has one more than ``count`` in the end; [first, last) are the
    # mutations in its key range; ``base`` the old node that has the same keys, or NULL.
    Piece* pieces
    Ref* links
    Parsed* base
    uint32_t count
    uint32_t first
    uint32_t last
    int layer
    uint8_t digest[32]


cdef struct Gap:
    # The gap that is open while a node is built from left to right.
    Segment* segments
    uint32_t count
    uint32_t room
    uint32_t start  # first mutation in it
    Bound lower


cdef struct Emitted:
    Node* node
    Emitted* next


cdef struct Batch:
    # One call of ``apply``.
    Store* store
    Arena* arena
    Mutation* mutations
    const uint8_t** missing
    Emitted* emitted
    Emitted* last_emitted
    Loaded loaded
    uint32_t count
    uint32_t missing_count
    uint32_t missing_room
    uint32_t emitted_count
    int top  # layer of the old root, -1 for an empty tree
    bint refused


def apply(
    cache: NodeCache,
    root: bytes | None,
    mutations: list[tuple[bytes, bytes | None]],
    salt: bytes = b"",
) -> Applied:
    """Apply ``mutations``, (key, value CID or None to delete), sorted by key, each key once.

    One pass: every old node on a path is read once, every new node encoded and hashed once. The
    content of key intervals is rebuilt layer by layer from segments of old nodes. New nodes enter
    the cache; the removed ones stay until they are discarded, for readers of the old root. Raises
    Missing with all nodes that the paths of the whole batch are known to need. Deletes are
    refused only where they would join nodes to one that no reader accepts.
    """
    cdef const uint8_t* old = root_digest(root)
    cdef list held = list(mutations)  # owns the keys and values pointed at
    cdef Store* store = begin(cache)
    cdef Emitted* emitted
    cdef Batch batch
    memset(&batch, 0, sizeof(Batch))
    batch.store = store
    batch.arena = &store.arena
    batch.top = -1
    try:
        take_mutations(&batch, held, salt)
        if batch.refused:
            return Applied(b"", [], [], [], refused_of(&batch))
        return run(&batch, root, old, salt)
    finally:
        forget(&batch.loaded)
        emitted = batch.emitted
        while emitted != NULL:  # those that did not enter the cache
            free(emitted.node)
            emitted = emitted.next
        end(store)


cdef int take_mutations(Batch* batch, list held, bytes salt) except -1:
    cdef Py_ssize_t n, count = len(held)
    cdef Mutation* mutation = NULL
    cdef const uint8_t* before
    cdef tuple pair
    cdef object key, value
    batch.count = <uint32_t> count
    batch.mutations = <Mutation*> take(batch.arena, count * sizeof(Mutation) + 1)
    memset(batch.mutations, 0, count * sizeof(Mutation))
    for n in range(count):
        pair = held[n]
        key, value = pair
        if not isinstance(key, bytes):
            raise TypeError(f"a key is bytes, not {type(key).__name__}")
        if not 1 <= len(key) <= KEY_MAX:
            raise ValueError(f"a key has 1 to {TREE_KEY_BYTES_MAX} bytes")
        mutation = &batch.mutations[n]
        mutation.key = <const uint8_t*> PyBytes_AS_STRING(key)
        mutation.length = <uint32_t> PyBytes_GET_SIZE(key)
        if n > 0:
            before = (mutation - 1).key
            if compare(before, (mutation - 1).length, mutation.key, mutation.length) >= 0:
                raise ValueError("mutations must be sorted and their keys unique")
            mutation.shared = shared_length(
                before, (mutation - 1).length, mutation.key, mutation.length
            )
        mutation.layer = layer_of(
            <const uint8_t*> PyBytes_AS_STRING(salt),
            PyBytes_GET_SIZE(salt),
            mutation.key,
            mutation.length,
        )
        if value is None:
            continue
        if not isinstance(value, bytes):
            raise TypeError(f"a value is bytes, not {type(value).__name__}")
        mutation.value = <const uint8_t*> PyBytes_AS_STRING(value)
        if (
            PyBytes_GET_SIZE(value) != 36
            or not check_cid(mutation.value, 36)
            or mutation.value[2] != 0x12
            or mutation.value[3] != 0x20
        ):
            raise ValueError("a value is a sha2-256 CID of 36 bytes")
        if mutation.layer > LAYER_WRITE_MAX:
            mutation.refused = True
            batch.refused = True
    return 0


cdef list refused_of(Batch* batch):
    cdef uint32_t m
    return [m for m in range(batch.count) if batch.mutations[m].refused]


cdef object run(Batch* batch, bytes root, const uint8_t* old, bytes salt):
    cdef Store* store = batch.store
    cdef Segment segment
    cdef Bound open_end
    cdef Parsed* parsed
    cdef Node* node
    cdef Ref ref
    cdef uint32_t m
    cdef int top = 0
    memset(&open_end, 0, sizeof(Bound))
    if old != NULL:
        node = visit(store, old)
        if node == NULL:
            raise miss(store, &old, 1)
        if node.count == 0:
            raise Corruption("a root", "a node with keys", "a node without")
        parsed = parse(batch.arena, &batch.loaded, node)
        batch.top = layer_of(
            <const uint8_t*> PyBytes_AS_STRING(salt),
            PyBytes_GET_SIZE(salt),
            parsed.items[0].suffix,
            parsed.items[0].suffix_length,
        )
        load_paths(batch, old)
        top = batch.top
        segment.digest = old
        segment.lower = segment.upper = open_end
    for m in range(batch.count):
        if batch.mutations[m].value != NULL and batch.mutations[m].layer > top:
            top = batch.mutations[m].layer
    rebuild(batch, top, &open_end, &open_end, &segment, old != NULL, 0, batch.count, &ref)
    if batch.missing_count > 0:
        raise miss(store, batch.missing, batch.missing_count)
    trim(batch, &ref)
    if ref.fresh != NULL:
        encode(batch, ref.fresh)
        ref.digest = ref.fresh.digest
        if batch.refused:
            return Applied(b"", [], [], [], refused_of(batch))
    return result(batch, root, old, ref.digest)


cdef object result(Batch* batch, bytes root, const uint8_t* old, const uint8_t* new):
    cdef Store* store = batch.store
    cdef Emitted* emitted = batch.emitted
    cdef Parsed* parsed = batch.loaded.first
    cdef Mutation* mutation
    cdef uint32_t m
    cdef list blocks = []
    cdef list removed = []
    cdef list previous = []
    reserve(store, batch.emitted_count)
    while emitted != NULL:
        blocks.append(
            (cid_of(emitted.node.digest), to_bytes(emitted.node.block, emitted.node.length))
        )
        emitted = emitted.next
    while parsed != NULL:
        if not parsed.kept:
            removed.append(cid_of(parsed.node.digest))
        parsed = parsed.next
    for m in range(batch.count):
        mutation = &batch.mutations[m]
        previous.append(
            None
            if mutation.previous == NULL
            else to_bytes(mutation.previous, mutation.previous_length)
        )
    if new == NULL and old != NULL:
        blocks.append((EMPTY_ROOT, EMPTY_BLOCK))
    if new != NULL and root == EMPTY_ROOT:
        removed.append(EMPTY_ROOT)
    answer = Applied(EMPTY_ROOT if new == NULL else cid_of(new), blocks, removed, previous, [])
    finish(store)
    while batch.emitted != NULL:
        emitted = batch.emitted
        batch.emitted = emitted.next
        if find(store, emitted.node.digest) == NULL:
            insert(store, emitted.node, False)
        else:
            free(emitted.node)
    return answer


cdef Parsed* load(Batch* batch, const uint8_t* digest, int layer) except? NULL:
    """The old node, checked for what its layer demands; NULL and noted when it is missing."""
    cdef Node* node = find(batch.store, digest)
    cdef Parsed* parsed
    cdef uint32_t n
    if node == NULL:
        note_missing(batch, digest)
        return NULL
    parsed = node.parsed
    if parsed != NULL and node.height == layer + 1:
        return parsed
    node.epoch = batch.store.epoch
    node.height = <uint8_t> (layer + 1)
    credit(node)
    if node.count == 0 and not node.left:
        raise Corruption("a node below the root", "a key or a link", "an empty node")
    parsed = parse(batch.arena, &batch.loaded, node)
    if layer == 0:
        for n in range(parsed.count + 1):
            if child_at(parsed, n) != NULL:
                raise Corruption("a node at layer 0", "no links", "a link")
    return parsed


cdef int note_missing(Batch* batch, const uint8_t* digest) except -1:
    cdef const uint8_t** room
    cdef uint32_t n
    for n in range(batch.missing_count):
        if memcmp(batch.missing[n], digest, 32) == 0:
            return 0
    if batch.missing_count == batch.missing_room:
        batch.missing_room = batch.missing_room * 2 + 64
        room = <const uint8_t**> take(batch.arena, batch.missing_room * sizeof(void*))
        if batch.missing_count > 0:
            memcpy(room, batch.missing, batch.missing_count * sizeof(void*))
        batch.missing = room
    batch.missing[batch.missing_count] = digest
    batch.missing_count += 1
    return 0


cdef object wrong_layer(Mutation* mutation, int layer):
    return Corruption("a key's layer", mutation.layer, layer)


# -- the paths, one layer at a time -------------------------------------------------------------


cdef struct Visit:
    # An old node that the paths of mutations [first, last) lead to.
    const uint8_t* digest
    uint32_t first
    uint32_t last


cdef int load_paths(Batch* batch, const uint8_t* root) except -1:
    """Touch the paths of all mutations, one layer at a time, and report all that is missing.

    Each layer's table slots and nodes are fetched ahead of their use: a batch waits for memory
    once a layer instead of once a node.
    """
    cdef Visit* level = <Visit*> take(batch.arena, (batch.count + 1) * sizeof(Visit))
    cdef Visit* below = <Visit*> take(batch.arena, (batch.count + 1) * sizeof(Visit))
    cdef Visit* swap
    cdef uint32_t count = 1, below_count, n
    cdef int layer = batch.top
    level[0].digest = root
    level[0].first = 0
    level[0].last = batch.count
    while count > 0:
        for n in range(count):
            fetch_node(batch.store, level[n].digest)
        below_count = 0
        for n in range(count):
            visit_paths(batch, &level[n], layer, below, &below_count)
        swap = level
        level = below
        below = swap
        count = below_count
        layer -= 1
    if batch.missing_count > 0:
        raise miss(batch.store, batch.missing, batch.missing_count)
    return 0


cdef int visit_paths(
    Batch* batch, Visit* item, int layer, Visit* below, uint32_t* below_count
) except -1:
    """Follow the paths through one node.

    A path ends where its key is found, or is missed by a delete at the key's own layer. A new key
    goes on to the bottom, since it cuts the nodes below it in two.
    """
    cdef Parsed* parsed = load(batch, item.digest, layer)
    cdef const uint8_t* child
    cdef Mutation* mutation
    cdef Visit* last = NULL
    cdef Finger finger
    cdef uint32_t m, gap = 0
    cdef bint found
    if parsed == NULL:
        return 0
    finger.at = finger.known = 0
    for m in range(item.first, item.last):
        mutation = &batch.mutations[m]
        if m > item.first and finger.known > mutation.shared:
            finger.known = mutation.shared
        if mutation.ended:
            continue
        found = advance(parsed, &finger, parsed.count, mutation.key, mutation.length)
        if found and mutation.layer != layer:
            raise wrong_layer(mutation, layer)
        if found:
            finger.at += 1
            finger.known = mutation.length
        if found or (mutation.layer >= layer and mutation.value == NULL):
            mutation.ended = True
            continue
        child = child_at(parsed, finger.at)
        if child == NULL:
            continue
        if last == NULL or gap != finger.at:
            last = &below[below_count[0]]
            below_count[0] += 1
            last.digest = child
            last.first = m
            gap = finger.at
            fetch_slot(batch.store, child)
        last.last = m + 1
    return 0


# -- rebuilding key intervals -------------------------------------------------------------------


cdef inline bint is_open(const Bound* bound) noexcept nogil:
    return bound.key == NULL and bound.source == NULL


cdef int write_out(Batch* batch, Bound* bound) except -1:
    if bound.key == NULL:
        bound.key = spell(batch.arena, bound.source, bound.at)
        bound.length = key_length(&bound.source.items[bound.at])
    return 0


cdef int order(Batch* batch, Bound* a, Bound* b) except? -2:
    """Compare two ends that are not open. The ends of a segment mostly are those around it."""
    if a.source != NULL and a.source == b.source and a.at == b.at:
        return 0
    write_out(batch, a)
    write_out(batch, b)
    return compare(a.key, a.length, b.key, b.length)


cdef bint cut_below(Batch* batch, Bound* lower, Segment* segment) except? -1:
    """Whether the segment reaches below the interval's lower end."""
    if is_open(lower):
        return False
    if is_open(&segment.lower):
        return True
    return order(batch, &segment.lower, lower) < 0


cdef bint cut_above(Batch* batch, Bound* upper, Segment* segment) except? -1:
    if is_open(upper):
        return False
    if is_open(&segment.upper):
        return True
    return order(batch, upper, &segment.upper) < 0


cdef inline void entry_bound(Bound* bound, Parsed* source, uint32_t at) noexcept nogil:
    bound.key = NULL
    bound.source = source
    bound.length = 0
    bound.at = at


cdef inline void key_bound(Bound* bound, Mutation* mutation) noexcept nogil:
    bound.key = mutation.key
    bound.source = NULL
    bound.length = mutation.length
    bound.at = 0


cdef int rebuild(
    Batch* batch,
    int layer,
    Bound* lower,
    Bound* upper,
    Segment* segments,
    uint32_t segment_count,
    uint32_t first,
    uint32_t last,
    Ref* ref,
) except -1:
    """The content of the open interval (lower, upper) at ``layer``.

    ``segments`` are the old subtrees of this layer that meet the interval, in order; ``[first,
    last)`` the mutations inside it, of which those of higher layers are done.
    """
    cdef Fresh* fresh = new_fresh(batch, layer, segments, segment_count, first, last)
    cdef bint same = segment_count == 1 and layer <= batch.top  # has the old node's keys
    cdef uint32_t m = first, n
    cdef Parsed* parsed = NULL
    cdef Gap gap
    memset(&gap, 0, sizeof(Gap))
    gap.lower = lower[0]
    gap.start = first
    if layer > batch.top:
        for n in range(segment_count):
            push_segment(batch, &gap, &segments[n])
    else:
        for n in range(segment_count):
            parsed = load(batch, segments[n].digest, layer)
            if parsed == NULL:
                same = False
            else:
                pass_segment(batch, fresh, &gap, parsed, &segments[n], lower, upper, &m, &same)
    while m < last:
        if batch.mutations[m].layer == layer and batch.mutations[m].value != NULL:
            divide(batch, fresh, &gap, m)
            same = False
        m += 1
    close_gap(batch, fresh, &gap, upper, last)
    ref.digest = NULL
    ref.fresh = NULL
    if same:
        if unchanged(fresh, parsed):
            parsed.kept = True
            ref.digest = parsed.node.digest
            return 0
        fresh.base = parsed
    if fresh.count > 0 or fresh.links[0].digest != NULL or fresh.links[0].fresh != NULL:
        ref.fresh = fresh
    return 0


cdef Fresh* new_fresh(
    Batch* batch,
    int layer,
    Segment* segments,
    uint32_t segment_count,
    uint32_t first,
    uint32_t last,
) except NULL:
    """Room for all keys that a node over these segments and mutations can get."""
    cdef uint64_t room = 0
    cdef uint32_t n
    cdef Node* node
    cdef Fresh* fresh
    if layer <= batch.top:
        for n in range(segment_count):
            node = find(batch.store, segments[n].digest)
            room += 0 if node == NULL else node.count
    for n in range(first, last):
        room += batch.mutations[n].layer == layer
    fresh = <Fresh*> take(
        batch.arena, sizeof(Fresh) + room * sizeof(Piece) + (room + 1) * sizeof(Ref)
    )
    fresh.pieces = <Piece*> (fresh + 1)
    fresh.links = <Ref*> (fresh.pieces + room)
    fresh.base = NULL
    fresh.count = 0
    fresh.first = first
    fresh.last = last
    fresh.layer = layer
    return fresh


cdef bint unchanged(Fresh* fresh, Parsed* parsed) noexcept:
    """Whether a node with the old keys has the old values and links too."""
    cdef uint32_t n
    cdef Ref* link
    cdef Item* item
    cdef const uint8_t* child
    for n in range(fresh.count + 1):
        link = &fresh.links[n]
        child = child_at(parsed, n)
        if link.fresh != NULL or (link.digest == NULL) != (child == NULL):
            return False
        if link.digest != child and memcmp(link.digest, child, 32) != 0:
            return False
    for n in range(fresh.count):
        item = &parsed.items[n]
        if fresh.pieces[n].value != item.value and (
            fresh.pieces[n].value_length != item.value_length
            or memcmp(fresh.pieces[n].value, item.value, item.value_length) != 0
        ):
            return False
    return True


cdef int pass_segment(
    Batch* batch,
    Fresh* fresh,
    Gap* gap,
    Parsed* parsed,
    Segment* segment,
    Bound* lower,
    Bound* upper,
    uint32_t* mutation_at,
    bint* same,
) except -1:
    """Merge the keys of one old node with the mutations among them."""
    cdef uint32_t m = mutation_at[0], at = 0, stop = parsed.count
    cdef Mutation* mutation
    cdef Finger finger
    cdef bint found, placed = False
    if cut_below(batch, lower, segment):
        same[0] = False
        write_out(batch, lower)
        finger.at = finger.known = 0
        found = advance(parsed, &finger, stop, lower.key, lower.length)
        at = finger.at + found
    if cut_above(batch, upper, segment):
        same[0] = False
        write_out(batch, upper)
        finger.at = finger.known = 0
        advance(parsed, &finger, stop, upper.key, upper.length)
        stop = finger.at
    push_child(batch, gap, parsed, at, segment)
    finger.at = finger.known = 0
    while True:
        found = False
        finger.at = at
        mutation = &batch.mutations[m]
        if m == fresh.last:
            finger.at = stop
        else:
            if not placed:
                place(batch.arena, parsed, &finger, at, mutation.key, mutation.length)
                placed = True
            found = advance(parsed, &finger, stop, mutation.key, mutation.length)
        if finger.at > at:
            keep(batch, fresh, gap, parsed, at, finger.at, segment, m)
            at = finger.at
        if at == stop:
            break  # what is left of the mutations lies beyond this segment
        if found:
            if mutation.layer != fresh.layer:
                raise wrong_layer(mutation, fresh.layer)
            take_place(batch, fresh, gap, parsed, at, segment, m, same)
            at += 1
            finger.known = mutation.length
        elif mutation.layer == fresh.layer and mutation.value != NULL:
            divide(batch, fresh, gap, m)
            same[0] = False
        m += 1
        if m < fresh.last and finger.known > batch.mutations[m].shared:
            finger.known = batch.mutations[m].shared
    mutation_at[0] = m
    return 0


cdef int keep(
    Batch* batch,
    Fresh* fresh,
    Gap* gap,
    Parsed* parsed,
    uint32_t at,
    uint32_t stop,
    Segment* segment,
    uint32_t m,
) except -1:
    """The old keys [at, stop) stay; the gaps between them, which nothing touches, with them."""
    cdef Bound bound
    cdef Item* item
    cdef Piece* piece
    cdef Ref* link
    cdef uint32_t n
    entry_bound(&bound, parsed, at)
    close_gap(batch, fresh, gap, &bound, m)
    for n in range(at, stop):
        item = &parsed.items[n]
        piece = &fresh.pieces[fresh.count]
        piece.key = NULL
        piece.source = parsed
        piece.at = n
        piece.value = item.value
        piece.value_length = item.value_length
        piece.inserted = -1
        fresh.count += 1
        if n + 1 < stop:
            link = &fresh.links[fresh.count]
            link.digest = item.child
            link.fresh = NULL
    entry_bound(&gap.lower, parsed, stop - 1)
    gap.count = 0
    gap.start = m
    push_child(batch, gap, parsed, stop, segment)
    return 0


cdef int take_place(
    Batch* batch,
    Fresh* fresh,
    Gap* gap,
    Parsed* parsed,
    uint32_t at,
    Segment* segment,
    uint32_t m,
    bint* same,
) except -1:
    """Mutation ``m`` meets its own key: a new value, or the gap goes on over a deleted key."""
    cdef Mutation* mutation = &batch.mutations[m]
    cdef Item* item = &parsed.items[at]
    cdef Piece* piece
    mutation.previous = item.value
    mutation.previous_length = item.value_length
    if mutation.value == NULL:
        same[0] = False
        push_child(batch, gap, parsed, at + 1, segment)
        return 0
    keep(batch, fresh, gap, parsed, at, at + 1, segment, m)
    gap.start = m + 1
    piece = &fresh.pieces[fresh.count - 1]
    piece.value = mutation.value
    piece.value_length = 36
    return 0


cdef int divide(Batch* batch, Fresh* fresh, Gap* gap, uint32_t m) except -1:
    """A new key of this layer divides the open gap."""
    cdef Mutation* mutation = &batch.mutations[m]
    cdef uint32_t count = gap.count, left = 0, beyond = 0
    cdef Segment* segment
    cdef Piece* piece
    cdef Bound bound
    key_bound(&bound, mutation)
    while left < count:
        segment = &gap.segments[left]
        if not is_open(&segment.lower) and order(batch, &segment.lower, &bound) >= 0:
            break
        left += 1
    while beyond < count:
        segment = &gap.segments[beyond]
        if is_open(&segment.upper) or order(batch, &segment.upper, &bound) > 0:
            break
        beyond += 1
    gap.count = left
    close_gap(batch, fresh, gap, &bound, m)
    gap.segments += beyond
    gap.room -= beyond
    gap.count = count - beyond
    gap.lower = bound
    gap.start = m + 1
    piece = &fresh.pieces[fresh.count]
    piece.key = mutation.key
    piece.length = mutation.length
    piece.source = NULL
    piece.value = mutation.value
    piece.value_length = 36
    piece.inserted = m
    fresh.count += 1
    return 0


cdef int push_child(
    Batch* batch, Gap* gap, Parsed* parsed, uint32_t at, Segment* parent
) except -1:
    """Child ``at`` of an old node lies in the open gap."""
    cdef Segment segment
    segment.digest = child_at(parsed, at)
    if segment.digest == NULL:
        return 0
    if at > 0:
        entry_bound(&segment.lower, parsed, at - 1)
    else:
        segment.lower = parent.lower
    if at < parsed.count:
        entry_bound(&segment.upper, parsed, at)
    else:
        segment.upper = parent.upper
    return push_segment(batch, gap, &segment)


cdef int push_segment(Batch* batch, Gap* gap, Segment* segment) except -1:
    cdef Segment* room
    if gap.count == gap.room:
        gap.room = gap.count * 2 + 2
        room = <Segment*> take(batch.arena, gap.room * sizeof(Segment))
        if gap.count > 0:
            memcpy(room, gap.segments, gap.count * sizeof(Segment))
        gap.segments = room
    gap.segments[gap.count] = segment[0]
    gap.count += 1
    return 0


cdef int close_gap(Batch* batch, Fresh* fresh, Gap* gap, Bound* upper, uint32_t stop) except -1:
    """The gap ends at ``upper``, before mutation ``stop``: find what becomes of it."""
    cdef Ref* link = &fresh.links[fresh.count]
    cdef Mutation* mutation
    cdef bint pending = False, puts = False
    cdef uint32_t m
    link.digest = NULL
    link.fresh = NULL
    for m in range(gap.start, stop):
        mutation = &batch.mutations[m]
        if mutation.layer < fresh.layer:
            pending = True
            if mutation.value != NULL:
                puts = True
                break
    if gap.count == 0 and not puts:
        return 0
    if gap.count == 1 and not pending:
        if not cut_below(batch, &gap.lower, gap.segments):
            if not cut_above(batch, upper, gap.segments):
                link.digest = gap.segments.digest
                return 0
    return rebuild(
        batch,
        fresh.layer - 1,
        &gap.lower,
        upper,
        gap.segments,
        gap.count,
        gap.start,
        stop,
        link,
    )


cdef int trim(Batch* batch, Ref* ref) except -1:
    """Drop nodes without keys off the top; an old node is loaded only to look for its keys."""
    cdef Node* node
    cdef Parsed* parsed
    while True:
        if ref.fresh != NULL:
            if ref.fresh.count > 0:
                return 0
            ref[0] = ref.fresh.links[0]
            continue
        if ref.digest == NULL:
            return 0
        node = visit(batch.store, ref.digest)
        if node == NULL:
            raise miss(batch.store, &ref.digest, 1)
        parsed = parse(batch.arena, &batch.loaded, node)
        parsed.kept = node.count > 0
        if parsed.kept:
            return 0
        if parsed.left == NULL:
            raise Corruption("a node below the root", "a key or a link", "an empty node")
        ref.digest = parsed.left


# -- encoding -----------------------------------------------------------------------------------


cdef int encode(Batch* batch, Fresh* fresh) except -1:
    """Encode and hash ``fresh`` and what is new below it, children first; sets the digest."""
    cdef uint64_t size = 0
    cdef uint32_t n
    cdef Ref* link
    cdef Node* node
    cdef Node* old
    cdef Emitted* emitted
    cdef SHA256_CTX state
    for n in range(fresh.count + 1):
        link = &fresh.links[n]
        if link.fresh != NULL:
            encode(batch, link.fresh)
            link.digest = link.fresh.digest
    memset(fresh.digest, 0, 32)
    if fresh.count > ENTRIES_MAX:
        refuse(batch, fresh, 0)
        return 0
    emitted = <Emitted*> take(batch.arena, sizeof(Emitted))
    if same_shape(fresh):
        node = patched(fresh)
    else:
        size = measure(batch, fresh)
        if size > WRITE_MAX and (fresh.base == NULL or size > fresh.base.node.length):
            if refuse(batch, fresh, size):
                return 0
        node = written(fresh, <uint32_t> size)
    SHA256_Init(&state)
    SHA256_Update(&state, node.block, node.length)
    SHA256_Final(fresh.digest, &state)
    old = find(batch.store, fresh.digest)
    if old != NULL and old.parsed != NULL:  # rebuilt as it was
        old.parsed.kept = True
        free(node)
        return 0
    memcpy(node.digest, fresh.digest, 32)
    node.height = <uint8_t> (fresh.layer + 1)
    emitted.node = node
    emitted.next = NULL
    if batch.last_emitted == NULL:
        batch.emitted = emitted
    else:
        batch.last_emitted.next = emitted
    batch.last_emitted = emitted
    batch.emitted_count += 1
    return 0


cdef bint same_shape(Fresh* fresh) noexcept:
    """Whether the old block serves, with CIDs overwritten in place: most nodes above the lowest."""
    cdef Parsed* base = fresh.base
    cdef uint32_t n
    if base == NULL:
        return False
    for n in range(fresh.count + 1):
        if (fresh.links[n].digest == NULL) != (child_at(base, n) == NULL):
            return False
    for n in range(fresh.count):
        if fresh.pieces[n].value_length != base.items[n].value_length:
            return False
    return True


cdef Node* patched(Fresh* fresh) except NULL:
    cdef Parsed* base = fresh.base
    cdef Node* node = new_node(NULL, base.node.length)
    cdef const uint8_t* origin = base.node.block
    cdef const uint8_t* child
    cdef Item* item
    cdef uint32_t n
    memcpy(node.block, origin, node.length)
    node.count = base.node.count
    node.left = base.node.left
    for n in range(fresh.count + 1):
        child = child_at(base, n)
        if child != fresh.links[n].digest:
            memcpy(node.block + (child - origin), fresh.links[n].digest, 32)
    for n in range(fresh.count):
        item = &base.items[n]
        if item.value != fresh.pieces[n].value:
            memcpy(node.block + (item.value - origin), fresh.pieces[n].value, item.value_length)
    return node


cdef uint64_t measure(Batch* batch, Fresh* fresh) except 0:
    """The size of the node's block; settles what each key shares with the one before.

    Entries that follow one another in an old node keep their prefix. Whole keys are put together
    only where neighbours are new to each other.
    """
    cdef Piece* piece
    cdef Piece* before = NULL
    cdef Item* item
    cdef uint32_t n
    cdef uint64_t size = NODE_FRAME_BYTES + head_size(fresh.count)
    size += 40 if fresh.links[0].digest != NULL else 0
    for n in range(fresh.count):
        piece = &fresh.pieces[n]
        item = NULL if piece.source == NULL else &piece.source.items[piece.at]
        if item != NULL and (
            piece.at == 0
            if before == NULL
            else before.source == piece.source and before.at + 1 == piece.at
        ):
            piece.prefix = item.prefix
            piece.suffix = item.suffix
            piece.suffix_length = item.suffix_length
        else:
            spell_piece(batch, piece)
            piece.prefix = 0
            if before != NULL:
                spell_piece(batch, before)
                if compare(before.key, before.length, piece.key, piece.length) >= 0:
                    raise Corruption("neighbouring nodes", "ascending keys", "keys out of range")
                piece.prefix = shared_length(before.key, before.length, piece.key, piece.length)
            piece.suffix = piece.key + piece.prefix
            piece.suffix_length = piece.length - piece.prefix
        size += entry_size(
            piece.prefix,
            piece.suffix_length,
            fresh.links[n + 1].digest != NULL,
            piece.value_length,
        )
        before = piece
    return size


cdef int spell_piece(Batch* batch, Piece* piece) except -1:
    if piece.key == NULL:
        piece.key = spell(batch.arena, piece.source, piece.at)
        piece.length = key_length(&piece.source.items[piece.at])
    return 0


cdef Node* written(Fresh* fresh, uint32_t size) except NULL:
    cdef Node* node = new_node(NULL, size)
    cdef uint8_t* to = node.block
    cdef Piece* piece
    cdef uint32_t n
    memcpy(to, b"\xa2\x61\x65", 3)
    to = write_head(to + 3, 4, fresh.count)
    for n in range(fresh.count):
        piece = &fresh.pieces[n]
        to = write_entry(
            to,
            piece.prefix,
            piece.suffix,
            piece.suffix_length,
            fresh.links[n + 1].digest,
            piece.value,
            piece.value_length,
        )
    memcpy(to, b"\x61\x6c", 2)
    to = write_link(to + 2, fresh.links[0].digest)
    assert to == node.block + size
    node.count = fresh.count
    node.left = fresh.links[0].digest != NULL
    return node


cdef bint refuse(Batch* batch, Fresh* fresh, uint64_t size) except? -1:
    """Refuse the last keys that made a node too large; False where the node may pass.

    Without new keys in it, a node grows by links to new children or by deleted separators. The
    latter may take it over the writer's limits, not over the reader's.
    """
    cdef bint any_refused = False, grows, readable
    cdef bint measured = size > 0
    cdef uint32_t count = fresh.count, n, m
    cdef Piece* piece
    cdef Mutation* mutation
    for n in range(fresh.count):
        if count <= ENTRIES_MAX and size <= WRITE_MAX:
            break
        piece = &fresh.pieces[fresh.count - 1 - n]
        if piece.inserted >= 0:
            batch.mutations[piece.inserted].refused = any_refused = True
            count -= 1
            if measured:
                size -= entry_size(
                    piece.prefix,
                    piece.suffix_length,
                    fresh.links[fresh.count - n].digest != NULL,
                    piece.value_length,
                )
    readable = count <= ENTRIES_MAX and size <= READ_MAX
    if count > ENTRIES_MAX or size > WRITE_MAX:
        for m in range(fresh.first, fresh.last):
            mutation = &batch.mutations[m]
            if mutation.value != NULL:
                grows = mutation.layer < fresh.layer and mutation.previous == NULL
            else:
                grows = mutation.layer > fresh.layer and not readable
            if grows:
                mutation.refused = any_refused = True
    assert any_refused or readable
    batch.refused = batch.refused or any_refused
    return any_refused


# -- walks --------------------------------------------------------------------------------------


cdef struct Frame:
    # A node on the way to the cursor, at its next key. ``key`` has KEY_ROOM bytes.
    Node* node
    const uint8_t* rest  # the entries behind that key
    const uint8_t* child  # right of it
    const uint8_t* value
    uint8_t* key
    uint32_t length
    uint32_t value_length
    uint32_t left  # how many entries are behind it


cdef struct Walker:
    # A cursor over the keys of a tree: the frame on top holds the next key. A missing subtree is
    # noted and passed as if it were empty, so that one walk names much of what the next needs:
    # until ``guess``, the keys expected in what was passed, fills the answer, or the walk is
    # ``blind``, not knowing how large the subtree is.
    Store* store
    Frame* frames
    uint64_t guess
    int depth
    bint blind
    uint32_t missing_count
    const uint8_t* missing[NAMES_MAX]


cdef int start_walk(Walker* walker, Store* store, const uint8_t* root, bytes start) except -1:
    walker.store = store
    walker.frames = <Frame*> take(&store.arena, (DEPTH_MAX + 1) * sizeof(Frame))
    memset(walker.frames, 0, (DEPTH_MAX + 1) * sizeof(Frame))
    walker.guess = 0
    walker.depth = 0
    walker.blind = False
    walker.missing_count = 0
    return walk_down(
        walker, root, NULL, <const uint8_t*> PyBytes_AS_STRING(start), <uint32_t> len(start)
    )


cdef inline Frame* current(Walker* walker) noexcept nogil:
    """The frame with the next key; NULL at the end."""
    return NULL if walker.depth == 0 or walker.blind else &walker.frames[walker.depth - 1]


cdef inline bint next_entry(Frame* frame) noexcept nogil:
    cdef Entry entry
    if frame.left == 0:
        return False
    frame.rest = read_entry(frame.rest, &entry)
    frame.left -= 1
    memcpy(frame.key + entry.prefix, entry.suffix, entry.suffix_length)
    frame.length = entry.prefix + entry.suffix_length
    frame.child = entry.child
    frame.value = entry.value
    frame.value_length = entry.value_length
    return True


cdef int walk_down(
    Walker* walker, const uint8_t* digest, Node* parent, const uint8_t* key, uint32_t length
) except -1:
    """Go down to the first key at or above ``key`` below ``digest``."""
    cdef int depth = walker.depth
    cdef Node* node
    cdef Frame* frame
    while digest != NULL:
        node = descend(walker.store, digest, parent)
        if node == NULL:
            pass_missing(walker, digest, parent)
            return 0
        depth += 1
        if depth > DEPTH_MAX:
            raise too_deep()
        frame = &walker.frames[walker.depth]
        if frame.key == NULL:
            frame.key = <uint8_t*> take(&walker.store.arena, KEY_ROOM)
        frame.node = node
        frame.rest = entries_of(node)
        frame.left = node.count
        frame.child = left_of(node)
        digest = look_right(walker, frame, key, length)
        parent = node
    return 0


cdef const uint8_t* look_right(
    Walker* walker, Frame* frame, const uint8_t* key, uint32_t length
) noexcept nogil:
    """Move a frame to its next key at or above ``key`` and push it, unless it has none.

    Returns the child in the gap before that key, NULL where the key itself was found.
    """
    cdef const uint8_t* child = frame.child
    cdef int order = -1
    while next_entry(frame):
        order = compare(frame.key, frame.length, key, length)
        if order >= 0:
            walker.depth += 1
            break
        child = frame.child
    return NULL if order == 0 else child


cdef void pass_missing(Walker* walker, const uint8_t* digest, Node* parent) noexcept:
    cdef int height = 0 if parent == NULL else parent.height
    walker.missing[walker.missing_count] = digest
    walker.missing_count += 1
    if height == 0 or walker.missing_count >= NAMES_MAX:
        walker.blind = True
    else:
        height = 1 if height < 2 else 12 if height > 13 else height - 1
        walker.guess += <uint64_t> 1 << (2 * height)


cdef int step(Walker* walker) except -1:
    """Move to the next key."""
    cdef Frame* frame = &walker.frames[walker.depth - 1]
    cdef const uint8_t* child = frame.child
    cdef Node* node = frame.node
    if not next_entry(frame):
        walker.depth -= 1
    return walk_down(walker, child, node, b"", 0)


cdef int seek(Walker* walker, const uint8_t* key, uint32_t length) except -1:
    """Move forward to the first key at or above ``key``, from where the cursor stands."""
    cdef Frame* frame
    cdef const uint8_t* child
    while walker.depth > 1:
        frame = &walker.frames[walker.depth - 2]
        if compare(frame.key, frame.length, key, length) > 0:
            break
        walker.depth -= 1
    if walker.depth == 0:
        return 0
    frame = &walker.frames[walker.depth - 1]
    if compare(frame.key, frame.length, key, length) >= 0:
        return 0
    walker.depth -= 1
    child = look_right(walker, frame, key, length)
    return walk_down(walker, child, frame.node, key, length)


cdef int end_walk(Walker* walker) except -1:
    if walker.missing_count > 0:
        raise miss(walker.store, walker.missing, walker.missing_count)
    finish(walker.store)
    return 0


def page(
    cache: NodeCache,
    root: bytes | None,
    prefix: bytes,
    delimiter: bytes,
    after: bytes | None,
    limit: int,
) -> tuple[list[tuple[bytes, bytes | None]], bool]:
    """One page of a listing, in key order, and whether more would follow; raises Missing.

    Items are (key, value CID), or (common prefix, None) for all keys that share the bytes up to and
    including the first ``delimiter`` behind ``prefix``; such a group is passed with one seek.
    ``after`` is exclusive. When it is itself the name of a group, that group was answered and is
    skipped whole. An empty ``delimiter`` groups nothing; ``limit`` 0 answers nothing, untruncated.
    """
    cdef const uint8_t* digest = root_digest(root)
    cdef Store* store
    cdef list items = []
    cdef bytes start = prefix
    cdef Py_ssize_t group
    if limit <= 0:
        return items, False
    if after is not None and after >= prefix:
        group = -1
        if after.startswith(prefix):
            group = group_length(
                <const uint8_t*> PyBytes_AS_STRING(after), len(after), prefix, delimiter
            )
        start = above(after) if group == len(after) else after + b"\x00"
    if start is None:
        return items, False
    store = begin(cache)
    try:
        return items, fill_page(store, digest, items, start, prefix, delimiter, limit)
    finally:
        end(store)


cdef bint fill_page(
    Store* store,
    const uint8_t* root,
    list items,
    bytes start,
    bytes prefix,
    bytes delimiter,
    object limit,
) except? -1:
    cdef const uint8_t* stem = <const uint8_t*> PyBytes_AS_STRING(prefix)
    cdef uint32_t stem_length = <uint32_t> len(prefix)
    cdef uint64_t most = <uint64_t> min(limit, 1 << 62)
    cdef Py_ssize_t group
    cdef bint truncated = False
    cdef Walker walker
    cdef Frame* frame
    cdef bytes name
    start_walk(&walker, store, root, start)
    while True:
        frame = current(&walker)
        if frame == NULL or frame.length < stem_length:
            break
        if memcmp(frame.key, stem, stem_length) != 0:
            break
        if len(items) + walker.guess >= most:
            truncated = True
            break
        group = group_length(frame.key, frame.length, prefix, delimiter)
        if group < 0:
            items.append(
                (to_bytes(frame.key, frame.length), to_bytes(frame.value, frame.value_length))
            )
            step(&walker)
            continue
        name = to_bytes(frame.key, group)
        items.append((name, None))
        name = above(name)
        if name is None:
            break
        seek(&walker, <const uint8_t*> PyBytes_AS_STRING(name), <uint32_t> len(name))
    end_walk(&walker)
    return truncated


cdef Py_ssize_t group_length(
    const uint8_t* key, Py_ssize_t length, bytes prefix, bytes delimiter
) noexcept:
    """How long the name of the group is that a key with this prefix belongs to; -1 for none."""
    cdef const uint8_t* sought = <const uint8_t*> PyBytes_AS_STRING(delimiter)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(delimiter)
    cdef Py_ssize_t at = PyBytes_GET_SIZE(prefix)
    if size == 0:
        return -1
    while at + size <= length:
        if key[at] == sought[0] and memcmp(key + at, sought, size) == 0:
            return at + size
        at += 1
    return -1


cdef bytes above(bytes prefix):
    """The least string above all that start with ``prefix``; None when there is none."""
    cdef bytes stem = prefix.rstrip(b"\xff")
    cdef Py_ssize_t last = len(stem) - 1
    return stem[:last] + bytes((stem[last] + 1,)) if stem else None


def scan(
    cache: NodeCache, root: bytes | None, start: bytes, stop: bytes | None, limit: int
) -> list[tuple[bytes, bytes]]:
    """At most ``limit`` (key, value CID) with start <= key < stop, in order; raises Missing."""
    cdef const uint8_t* digest = root_digest(root)
    cdef Store* store
    cdef list items = []
    if limit <= 0:
        return items
    store = begin(cache)
    try:
        fill_scan(store, digest, items, start, stop, limit)
    finally:
        end(store)
    return items


cdef int fill_scan(
    Store* store, const uint8_t* root, list items, bytes start, bytes stop, object limit
) except -1:
    cdef const uint8_t* bound = NULL
    cdef uint32_t bound_length = 0
    cdef uint64_t most = <uint64_t> min(limit, 1 << 62)
    cdef Walker walker
    cdef Frame* frame
    if stop is not None:
        bound = <const uint8_t*> PyBytes_AS_STRING(stop)
        bound_length = <uint32_t> len(stop)
    start_walk(&walker, store, root, start)
    while len(items) + walker.guess < most:
        frame = current(&walker)
        if frame == NULL:
            break
        if bound != NULL and compare(frame.key, frame.length, bound, bound_length) >= 0:
            break
        items.append(
            (to_bytes(frame.key, frame.length), to_bytes(frame.value, frame.value_length))
        )
        if <uint64_t> len(items) < most:
            step(&walker)
    end_walk(&walker)
    return 0


# -- differences --------------------------------------------------------------------------------


cdef struct Thing:
    # A subtree by digest, with its layer; or, where that is NULL, entry ``at`` of ``source``.
    const uint8_t* digest
    Parsed* source
    uint32_t at
    int layer


cdef struct Side:
    # One side of ``diff``: what is left of its tree, the next thing on top of the stack.
    Thing* stack
    uint32_t count
    uint32_t room


cdef struct Comparison:
    Store* store
    Side old
    Side new
    const uint8_t* after
    uint32_t after_length
    const uint8_t* missing[2]
    uint32_t missing_count
    Loaded loaded


def diff(
    cache: NodeCache,
    a: bytes | None,
    b: bytes | None,
    limit: int | None = None,
    after: bytes = b"",
    salt: bytes = b"",
) -> list[tuple[bytes, bytes | None, bytes | None]]:
    """(key, value in ``a``, value in ``b``) of the keys whose values differ, in key order.

    Equal subtrees are not loaded. At most ``limit`` changes, of keys above ``after``: the last key
    of one call is the next call's ``after``. A wrong ``salt`` costs loads, the answer is the same.
    Raises Missing.
    """
    cdef Store* store
    cdef const uint8_t* old = root_digest(a)
    cdef const uint8_t* new = root_digest(b)
    cdef Comparison comparison
    cdef Comparison* both = &comparison
    cdef list changes = []
    cdef uint64_t most = <uint64_t> (1 << 62)
    if a == b:
        return changes
    if limit is not None:
        most = <uint64_t> max(0, min(limit, 1 << 62))
    store = begin(cache)
    memset(both, 0, sizeof(Comparison))
    both.store = store
    both.after = <const uint8_t*> PyBytes_AS_STRING(after)
    both.after_length = <uint32_t> len(after)
    try:
        start_side(both, &both.old, old, salt)
        start_side(both, &both.new, new, salt)
        while (both.old.count > 0 or both.new.count > 0) and <uint64_t> len(changes) < most:
            diff_step(both, changes)
            if both.missing_count > 0:
                raise miss(store, both.missing, both.missing_count)
        finish(store)
    finally:
        forget(&both.loaded)
        end(store)
    return changes


cdef int start_side(Comparison* both, Side* side, const uint8_t* root, bytes salt) except -1:
    cdef Node* node
    cdef Entry entry
    cdef int layer = 0
    if root == NULL:
        return 0
    node = visit(both.store, root)
    if node != NULL and node.count > 0:
        read_entry(entries_of(node), &entry)
        layer = layer_of(
            <const uint8_t*> PyBytes_AS_STRING(salt),
            PyBytes_GET_SIZE(salt),
            entry.suffix,
            entry.suffix_length,
        )
    return push_thing(both, side, root, NULL, 0, layer)


cdef int push_thing(
    Comparison* both, Side* side, const uint8_t* digest, Parsed* source, uint32_t at, int layer
) except -1:
    cdef Thing* room
    cdef Thing* thing
    if side.count == side.room:
        side.room = side.room * 2 + 64
        room = <Thing*> take(&both.store.arena, side.room * sizeof(Thing))
        if side.count > 0:
            memcpy(room, side.stack, side.count * sizeof(Thing))
        side.stack = room
    thing = &side.stack[side.count]
    thing.digest = digest
    thing.source = source
    thing.at = at
    thing.layer = layer
    side.count += 1
    return 0


cdef int expand(Comparison* both, Side* side) except -1:
    """Put the content of the subtree on top in its place."""
    cdef Thing thing = side.stack[side.count - 1]
    cdef Node* node = visit(both.store, thing.digest)
    cdef const uint8_t* child
    cdef Parsed* parsed
    cdef Finger finger
    cdef uint32_t at
    cdef bint found
    if node == NULL:
        both.missing[both.missing_count] = thing.digest
        both.missing_count += 1
        return 0
    side.count -= 1
    parsed = parse(&both.store.arena, &both.loaded, node)
    finger.at = finger.known = 0
    found = advance(parsed, &finger, parsed.count, both.after, both.after_length)
    at = parsed.count + 1
    while at > finger.at + found:
        at -= 1
        if at < parsed.count:
            push_thing(both, side, NULL, parsed, at, 0)
        child = child_at(parsed, at)
        if child != NULL:
            push_thing(both, side, child, NULL, 0, thing.layer - 1)
    return 0


cdef bint waits_for(Side* side, Thing* other) noexcept:
    """Whether a key is on top and right under it the very subtree that ``other`` is."""
    cdef Thing* below
    if side.count < 2:
        return False
    below = &side.stack[side.count - 2]
    return below.digest != NULL and memcmp(below.digest, other.digest, 32) == 0


cdef int diff_step(Comparison* both, list changes) except -1:
    cdef Side* old = &both.old
    cdef Side* new = &both.new
    cdef Thing* left = &old.stack[old.count - 1] if old.count > 0 else NULL
    cdef Thing* right = &new.stack[new.count - 1] if new.count > 0 else NULL
    cdef bint left_tree = left != NULL and left.digest != NULL
    cdef bint right_tree = right != NULL and right.digest != NULL
    cdef int left_layer, right_layer
    if left_tree and right_tree:
        if memcmp(left.digest, right.digest, 32) == 0:
            old.count -= 1
            new.count -= 1
            return 0
        left_layer = left.layer
        right_layer = right.layer
        if left_layer >= right_layer:
            expand(both, old)
        if right_layer >= left_layer:
            expand(both, new)
    elif left_tree and not waits_for(new, left):
        expand(both, old)
    elif right_tree and not waits_for(old, right):
        expand(both, new)
    else:
        diff_keys(
            both, NULL if left_tree else left, NULL if right_tree else right, changes
        )
    return 0


cdef int diff_keys(Comparison* both, Thing* left, Thing* right, list changes) except -1:
    """Report the lower of the keys on top, of which one may be NULL."""
    cdef Arena* arena = &both.store.arena
    cdef Item* a = NULL
    cdef Item* b = NULL
    cdef int order = 0
    if left != NULL:
        a = &left.source.items[left.at]
        spell(arena, left.source, left.at)
    if right != NULL:
        b = &right.source.items[right.at]
        spell(arena, right.source, right.at)
    if a == NULL or b == NULL:
        order = 1 if a == NULL else -1
    else:
        order = compare(a.key, key_length(a), b.key, key_length(b))
    if order <= 0:
        both.old.count -= 1
    if order >= 0:
        both.new.count -= 1
    if order == 0 and a.value_length == b.value_length:
        if memcmp(a.value, b.value, a.value_length) == 0:
            return 0
    changes.append(
        (
            to_bytes(a.key, key_length(a)) if order <= 0 else to_bytes(b.key, key_length(b)),
            to_bytes(a.value, a.value_length) if order <= 0 else None,
            to_bytes(b.value, b.value_length) if order >= 0 else None,
        )
    )
    return 0
