# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The middle of ``apply``: the content of a key interval, rebuilt from old nodes and mutations.

Nothing is split or merged. A segment is an old subtree with the old separators around it; an
interval of the new tree takes what lies inside it from the segments that meet it, layer by layer
downwards. A segment that lies in its gap whole and meets no mutation is not even loaded.
"""

from libc.string cimport memcmp, memcpy, memset

from ingot._speedups.mst_batch cimport Fresh, Mutation, Piece
from ingot._speedups.mst_node cimport compare
from ingot._speedups.mst_parsed cimport Finger, Item, advance, child_at, key_length, place, spell
from ingot._speedups.mst_paths_c cimport load, wrong_layer
from ingot._speedups.mst_store_c cimport Node, find, take, uint64_t


cdef struct Gap:
    # The gap that is open while a node is built from left to right.
    Segment* segments
    uint32_t count
    uint32_t room
    uint32_t start  # first mutation in it
    Bound lower


# -- ends of intervals --------------------------------------------------------------------------


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


# -- one node of the new tree -------------------------------------------------------------------


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


# -- the gap that is open -----------------------------------------------------------------------


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
