# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# distutils: libraries = crypto
"""The end of ``apply``: new nodes become blocks, children before parents, within the limits."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from ingot._speedups.mst_batch cimport Emitted, Mutation, Piece, Ref
from ingot._speedups.mst_node cimport (
    NODE_FRAME_BYTES,
    compare,
    entry_size,
    head_size,
    shared_length,
    write_entry,
    write_head,
    write_link,
)
from ingot._speedups.mst_parsed cimport Item, Parsed, child_at, key_length, spell
from ingot._speedups.mst_store_c cimport Node, find, new_node, take

from ingot.errors import Corruption
from ingot.limits import NODE_BYTES_READ_MAX, NODE_BYTES_WRITE_MAX, NODE_ENTRIES_MAX


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


cdef uint32_t ENTRIES_MAX = NODE_ENTRIES_MAX
cdef uint32_t READ_MAX = NODE_BYTES_READ_MAX
cdef uint32_t WRITE_MAX = NODE_BYTES_WRITE_MAX


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
        (<Parsed*> old.parsed).kept = True
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
