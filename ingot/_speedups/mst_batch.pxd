# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""One call of ``apply``: its mutations, what it has loaded, and the nodes it is building."""

from libc.stdint cimport int32_t, uint8_t, uint32_t

from ingot._speedups.mst_parsed cimport Loaded, Parsed
from ingot._speedups.mst_store_c cimport Arena, Node, Store


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
