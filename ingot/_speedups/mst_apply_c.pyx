# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""One batch of mutations, from the caller's list to the new root: the frame around the steps.

Load the paths (``mst_paths_c``), rebuild the intervals (``mst_rebuild_c``), trim the top, encode
(``mst_encode_c``). Everything but the answer lives in the cache's arena.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t
from libc.stdlib cimport free
from libc.string cimport memset

from ingot._speedups.mst_batch cimport Batch, Emitted, Mutation, Ref
from ingot._speedups.mst_encode_c cimport encode
from ingot._speedups.mst_node cimport check_cid, compare, shared_length
from ingot._speedups.mst_parsed cimport Parsed, forget, parse
from ingot._speedups.mst_paths_c cimport load_paths
from ingot._speedups.mst_rebuild_c cimport Bound, Segment, rebuild
from ingot._speedups.mst_store_c cimport (
    Node,
    cid_of,
    find,
    finish,
    insert,
    layer_of,
    miss,
    reserve,
    take,
    to_bytes,
    visit,
)

from ingot.errors import Corruption
from ingot.limits import KEY_LAYER_WRITE_MAX, TREE_KEY_BYTES_MAX

cdef uint32_t KEY_MAX = TREE_KEY_BYTES_MAX
cdef int LAYER_WRITE_MAX = KEY_LAYER_WRITE_MAX


cdef tuple apply_batch(Store* store, const uint8_t* old, list mutations, bytes salt):
    """(digest of the new root or None, blocks, removed, previous, refused)."""
    cdef Emitted* emitted
    cdef Batch batch
    memset(&batch, 0, sizeof(Batch))
    batch.store = store
    batch.arena = &store.arena
    batch.top = -1
    try:
        take_mutations(&batch, mutations, salt)
        if batch.refused:
            return None, [], [], [], refused_of(&batch)
        return run(&batch, old, salt)
    finally:
        forget(&batch.loaded)
        emitted = batch.emitted
        while emitted != NULL:  # those that did not enter the cache
            free(emitted.node)
            emitted = emitted.next


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
        mutation.layer = layer_of(salt, mutation.key, mutation.length)
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


cdef tuple run(Batch* batch, const uint8_t* old, bytes salt):
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
        batch.top = layer_of(salt, parsed.items[0].suffix, parsed.items[0].suffix_length)
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
            return None, [], [], [], refused_of(batch)
    return result(batch, ref.digest)


cdef tuple result(Batch* batch, const uint8_t* new):
    """The answer, in Python objects; then the new nodes enter the cache."""
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
    root = None if new == NULL else cid_of(new)
    finish(store)
    while batch.emitted != NULL:
        emitted = batch.emitted
        batch.emitted = emitted.next
        if find(store, emitted.node.digest) == NULL:
            insert(store, emitted.node, False)
        else:
            free(emitted.node)
    return root, blocks, removed, previous, []


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
