# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Loading the old nodes of a batch: all paths together, one layer at a time.

What is missing is noted and passed over, so that one call names all that is known to be needed.
"""

from libc.string cimport memcmp, memcpy

from ingot._speedups.mst_parsed cimport Finger, advance, child_at, parse
from ingot._speedups.mst_store_c cimport (
    Node,
    credit,
    fetch_node,
    fetch_slot,
    find,
    miss,
    take,
    uint32_t,
)

from ingot.errors import Corruption


cdef struct Visit:
    # An old node that the paths of mutations [first, last) lead to.
    const uint8_t* digest
    uint32_t first
    uint32_t last


cdef Parsed* load(Batch* batch, const uint8_t* digest, int layer) except? NULL:
    """The old node, checked for what its layer demands; NULL and noted when it is missing."""
    cdef Node* node = find(batch.store, digest)
    cdef Parsed* parsed
    cdef uint32_t n
    if node == NULL:
        note_missing(batch, digest)
        return NULL
    parsed = <Parsed*> node.parsed
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
