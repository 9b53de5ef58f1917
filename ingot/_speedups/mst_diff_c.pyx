# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What differs between two trees: two stacks of things, from which equal subtrees vanish unread."""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from ingot._speedups.mst_node cimport Entry, compare, read_entry
from ingot._speedups.mst_parsed cimport (
    Finger,
    Item,
    Loaded,
    Parsed,
    advance,
    child_at,
    forget,
    key_length,
    parse,
    spell,
)
from ingot._speedups.mst_store_c cimport (
    Arena,
    Node,
    entries_of,
    finish,
    layer_of,
    miss,
    take,
    to_bytes,
    visit,
)


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


cdef int compare_trees(
    Store* store,
    const uint8_t* old,
    const uint8_t* new,
    list changes,
    object limit,
    bytes after,
    bytes salt,
) except -1:
    """Append the differences to ``changes``."""
    cdef uint64_t most = <uint64_t> 1 << 62
    cdef Comparison comparison
    cdef Comparison* both = &comparison
    if limit is not None and limit < most:
        most = <uint64_t> max(0, limit)
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
    return 0


cdef int start_side(Comparison* both, Side* side, const uint8_t* root, bytes salt) except -1:
    cdef Node* node
    cdef Entry entry
    cdef int layer = 0
    if root == NULL:
        return 0
    node = visit(both.store, root)
    if node != NULL and node.count > 0:
        read_entry(entries_of(node), &entry)
        layer = layer_of(salt, entry.suffix, entry.suffix_length)
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
