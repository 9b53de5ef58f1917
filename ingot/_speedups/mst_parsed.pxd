# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The entries of a node, for calls that look at it more than once, and fingers that move over them.

Keys are compared without being put together: ``known`` bytes agree with the entry before, and an
entry's prefix tells whether it can differ from that one within them.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from ingot._speedups.mst_node cimport Entry, read_entry, shared_length
from ingot._speedups.mst_store_c cimport Arena, Node, entries_of, left_of, take


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


cdef inline Parsed* parse(Arena* arena, Loaded* loaded, Node* node) except NULL:
    """The node's entries, found once a call. Whole keys are put together only where needed."""
    cdef Parsed* parsed = <Parsed*> node.parsed
    cdef const uint8_t* at = entries_of(node)
    cdef Entry entry
    cdef Item* item
    cdef uint32_t _n
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
    for _n in range(node.count):
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


cdef inline void forget(Loaded* loaded) noexcept nogil:
    """The call ends: what it parsed is gone with the arena."""
    cdef Parsed* parsed = loaded.first
    while parsed != NULL:
        parsed.node.parsed = NULL
        parsed = parsed.next


cdef inline const uint8_t* child_at(Parsed* parsed, uint32_t at) noexcept nogil:
    """The child left of key ``at``, or right of all keys."""
    return parsed.left if at == 0 else parsed.items[at - 1].child


cdef inline uint32_t key_length(Item* item) noexcept nogil:
    return item.prefix + item.suffix_length


cdef inline const uint8_t* spell(Arena* arena, Parsed* parsed, uint32_t at) except NULL:
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


cdef inline bint advance(
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


cdef inline int place(
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
