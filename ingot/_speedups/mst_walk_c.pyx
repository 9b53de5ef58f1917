# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Reading a tree: one key, or a cursor over many. Entries are read in place, in their blocks."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from ingot._speedups.mst_node cimport Entry, compare, read_entry, shared_length
from ingot._speedups.mst_store_c cimport (
    Node,
    descend,
    entries_of,
    fetch_node,
    fetch_slot,
    finish,
    left_of,
    miss,
    take,
    to_bytes,
)

from ingot.errors import Corruption
from ingot.limits import KEY_LAYER_READ_MAX, TREE_KEY_BYTES_MAX

cdef enum:
    NAMES_MAX = 256  # missing nodes that a walk names at once

cdef int DEPTH_MAX = KEY_LAYER_READ_MAX + 1
cdef uint32_t KEY_MAX = TREE_KEY_BYTES_MAX


cdef int require_depth(int depth) except -1:
    if depth > DEPTH_MAX:
        raise Corruption("a tree", f"at most {DEPTH_MAX} layers", "a longer path")
    return 0


cdef bytes look_up(Store* store, const uint8_t* digest, bytes key):
    """The value of ``key`` in the tree whose root has this digest, or None."""
    cdef const uint8_t* name = <const uint8_t*> PyBytes_AS_STRING(key)
    cdef uint32_t length = <uint32_t> PyBytes_GET_SIZE(key)
    cdef const uint8_t* at
    cdef Node* parent = NULL
    cdef Node* node
    cdef Entry entry
    cdef uint32_t _n, known, agreeing
    cdef int depth = 0
    cdef bytes value
    while digest != NULL:
        node = descend(store, digest, parent)
        if node == NULL:
            raise miss(store, &digest, 1)
        depth += 1
        require_depth(depth)
        digest = left_of(node)
        at = entries_of(node)
        known = 0  # leading bytes that ``key`` shares with the entry before
        for _n in range(node.count):
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
                        return value
                    break
                if agreeing < entry.suffix_length and name[known] < entry.suffix[agreeing]:
                    break
            digest = entry.child
        if digest != NULL:
            fetch_slot(store, digest)
        parent = node
    finish(store)
    return None


# -- the cursor ---------------------------------------------------------------------------------


cdef struct Frame:
    # A node on the way to the cursor, at its next key. ``key`` has KEY_MAX bytes.
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
        fetch_node(walker.store, digest)
        node = descend(walker.store, digest, parent)
        if node == NULL:
            pass_missing(walker, digest, parent)
            return 0
        depth += 1
        require_depth(depth)
        frame = &walker.frames[walker.depth]
        if frame.key == NULL:
            frame.key = <uint8_t*> take(&walker.store.arena, KEY_MAX)
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
    if order == 0:
        return NULL
    return child


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


# -- listings -----------------------------------------------------------------------------------


cdef bint list_page(
    Store* store,
    const uint8_t* root,
    list items,
    bytes prefix,
    bytes delimiter,
    bytes after,
    object limit,
) except? -1:
    """Append what one page lists to ``items``; whether more would follow."""
    cdef const uint8_t* stem = <const uint8_t*> PyBytes_AS_STRING(prefix)
    cdef uint32_t stem_length = <uint32_t> len(prefix)
    cdef uint64_t most = <uint64_t> min(limit, 1 << 62)
    cdef Py_ssize_t group
    cdef uint8_t* bound = <uint8_t*> take(&store.arena, KEY_MAX)
    cdef uint32_t bound_length
    cdef bint truncated = False
    cdef Walker walker
    cdef Frame* frame
    cdef bytes name = first_key(prefix, delimiter, after)
    if name is None:
        return False
    start_walk(&walker, store, root, name)
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
        items.append((to_bytes(frame.key, group), None))
        memcpy(bound, frame.key, group)
        bound_length = raise_prefix(bound, <uint32_t> group)
        if bound_length == 0:
            break
        seek(&walker, bound, bound_length)
    end_walk(&walker)
    return truncated


cdef bytes first_key(bytes prefix, bytes delimiter, bytes after):
    """Where a page begins; None when nothing can lie behind ``after``."""
    cdef Py_ssize_t group = -1
    if after is None or after < prefix:
        return prefix
    if after.startswith(prefix):
        group = group_length(
            <const uint8_t*> PyBytes_AS_STRING(after), len(after), prefix, delimiter
        )
    return above(after) if group == len(after) else after + b"\x00"


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


cdef uint32_t raise_prefix(uint8_t* prefix, uint32_t length) noexcept nogil:
    """As ``above``, in place; the new length, 0 when there is none."""
    while length > 0 and prefix[length - 1] == 0xFF:
        length -= 1
    if length > 0:
        prefix[length - 1] += 1
    return length


cdef int scan_range(
    Store* store, const uint8_t* root, list items, bytes start, bytes stop, object limit
) except -1:
    """Append at most ``limit`` (key, value) to ``items``."""
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
