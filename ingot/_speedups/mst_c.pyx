# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The Merkle Search Tree of a bucket, compiled: what ``mst_py`` specifies, made for speed.

A tree of a million keys is bound by memory latency, so a cached node is one allocation that holds
its block as it is stored, found through an open-addressing table of C pointers; entries are read in
place, with the length that is known to agree instead of whole keys. A batch touches all its paths
layer by layer, fetching ahead, before it rebuilds anything. Everything that lives for one call only
is in the cache's arena. No Python object is made but the answer.

This module is the surface. The parts, lowest first: ``mst_node`` the bytes of a node,
``mst_store_c`` the table, ``mst_parsed`` entries, ``mst_walk_c`` and ``mst_diff_c`` the readers;
``mst_paths_c``, ``mst_rebuild_c``, ``mst_encode_c`` and ``mst_apply_c`` the steps of a batch.
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from ingot._speedups.mst_apply_c cimport apply_batch
from ingot._speedups.mst_diff_c cimport compare_trees
from ingot._speedups.mst_node cimport (
    FINE,
    Entry,
    Fault,
    check_block,
    check_cid,
    entry_size,
    head_size,
    read_entry,
    shared_length,
    write_entry,
    write_head,
    write_link,
)
from ingot._speedups.mst_store_c cimport (
    Node,
    Store,
    cid_of,
    close_store,
    digest_of,
    drop,
    find,
    insert,
    layer_of,
    new_node,
    open_store,
    release,
    reserve,
    shrink,
    to_bytes,
)
from ingot._speedups.mst_walk_c cimport list_page, look_up, scan_range

from ingot.errors import FormatError
from ingot.limits import NODE_BYTES_READ_MAX, NODE_ENTRIES_MAX, TREE_KEY_BYTES_MAX

EMPTY_BLOCK = bytes.fromhex("a2616580616cf6")
EMPTY_ROOT = b"\x01\x71\x12\x20" + sha256(EMPTY_BLOCK).digest()

cdef enum:
    KEY_ROOM = 2048  # of the buffer that keys are put together in

cdef uint32_t ENTRIES_MAX = NODE_ENTRIES_MAX
cdef uint32_t READ_MAX = NODE_BYTES_READ_MAX
cdef uint32_t KEY_MAX = TREE_KEY_BYTES_MAX
assert KEY_MAX <= KEY_ROOM

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


def key_layer(key: bytes, salt: bytes = b"") -> int:
    """The layer of ``key``: half the leading zero bits of sha256(salt + key), 0 to 128."""
    return layer_of(salt, <const uint8_t*> PyBytes_AS_STRING(key), <uint32_t> len(key))


# -- nodes as blocks ----------------------------------------------------------------------------


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
    cdef uint32_t count = 0, _n
    cdef uint8_t left = 0, links = 0
    cdef const uint8_t* at = <const uint8_t*> PyBytes_AS_STRING(block)
    cdef const uint8_t* last = at + PyBytes_GET_SIZE(block) - 32
    cdef Entry entry
    cdef bytes key = b""
    cdef list entries = []
    check(block, &count, &left, &links)
    at += 3 + head_size(count)
    for _n in range(count):
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
        child = NULL
        if right is not None:
            child = digest_of(right)
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
    child = NULL
    if left is not None:
        child = digest_of(left)
    head[0] = 0x61
    head[1] = 0x6C
    parts.append(to_bytes(head, write_link(&head[2], child) - head))
    return b"".join(parts)


# -- the cache ----------------------------------------------------------------------------------


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
        open_store(&self.store, min(budget, 1 << 60))

    def __dealloc__(self):
        close_store(&self.store)

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
        cdef Store* store = idle(self)
        cdef const uint8_t* digest = digest_of(cid)
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
        for cid in cids:
            drop(idle(self), digest_of(cid))

    def block(self, cid: bytes) -> bytes | None:
        """The block of a node that is held, else None."""
        cdef Node* node = find(&self.store, digest_of(cid))
        return None if node == NULL else node.block[:node.length]

    def __contains__(self, cid: bytes) -> bool:
        return find(&self.store, digest_of(cid)) != NULL

    def __len__(self) -> int:
        return self.store.count


cdef Store* idle(NodeCache cache) except NULL:
    """The cache's store. Only a finalizer that runs inside a call can find it busy."""
    if cache.store.busy:
        raise RuntimeError("the node cache is in use by a call that has not returned")
    return &cache.store


cdef int begin(NodeCache cache) except -1:
    """Start a call that keeps pointers: until ``end`` nothing may change the table."""
    idle(cache).busy = True
    return 0


cdef void end(NodeCache cache) noexcept:
    release(&cache.store.arena, True)
    cache.store.busy = False
    shrink(&cache.store)


# -- trees --------------------------------------------------------------------------------------


cdef const uint8_t* root_digest(bytes root) except? NULL:
    """The digest of a root; NULL for the empty tree."""
    if root is None or root == EMPTY_ROOT:
        return NULL
    return digest_of(root)


def get(cache: NodeCache, root: bytes | None, key: bytes) -> bytes | None:
    """The value CID of ``key``, or None; raises Missing."""
    cdef Store* store = idle(cache)
    cdef bytes value = look_up(store, root_digest(root), key)
    if store.bytes_used > store.budget:
        shrink(store)
    return value


class Applied(NamedTuple):
    """What a batch made of a tree. When ``refused`` is not empty, nothing else is valid.

    ``root`` is EMPTY_ROOT when no key is left; ``blocks`` (CID, block) of every node of the new
    tree that the old one has not, children before parents; ``removed`` the nodes of the old tree
    that the new one has not; ``previous`` for each mutation the value its key had; ``refused`` the
    mutations that the writer's limits do not admit: leave them out and call again.
    """

    root: bytes
    blocks: list[tuple[bytes, bytes]]
    removed: list[bytes]
    previous: list[bytes | None]
    refused: list[int]


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
    begin(cache)
    try:
        new, blocks, removed, previous, refused = apply_batch(&cache.store, old, held, salt)
    finally:
        end(cache)
    if refused:
        return Applied(b"", [], [], [], refused)
    if new is None and old != NULL:
        blocks.append((EMPTY_ROOT, EMPTY_BLOCK))
    if new is not None and root == EMPTY_ROOT:
        removed.append(EMPTY_ROOT)
    return Applied(EMPTY_ROOT if new is None else new, blocks, removed, previous, [])


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
    cdef list items = []
    if limit <= 0:
        return items, False
    begin(cache)
    try:
        return items, list_page(&cache.store, digest, items, prefix, delimiter, after, limit)
    finally:
        end(cache)


def scan(
    cache: NodeCache, root: bytes | None, start: bytes, stop: bytes | None, limit: int
) -> list[tuple[bytes, bytes]]:
    """At most ``limit`` (key, value CID) with start <= key < stop, in order; raises Missing."""
    cdef const uint8_t* digest = root_digest(root)
    cdef list items = []
    if limit <= 0:
        return items
    begin(cache)
    try:
        scan_range(&cache.store, digest, items, start, stop, limit)
    finally:
        end(cache)
    return items


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
    cdef const uint8_t* old = root_digest(a)
    cdef const uint8_t* new = root_digest(b)
    cdef list changes = []
    if a == b:
        return changes
    begin(cache)
    try:
        compare_trees(&cache.store, old, new, changes, limit, after, salt)
    finally:
        end(cache)
    return changes
