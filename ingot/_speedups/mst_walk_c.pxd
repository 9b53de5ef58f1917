# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""``get``, ``page`` and ``scan``, on the C side of ``mst_c``."""

from libc.stdint cimport uint8_t

from ingot._speedups.mst_store_c cimport Store


cdef bytes look_up(Store* store, const uint8_t* digest, bytes key)
cdef bint list_page(
    Store* store,
    const uint8_t* root,
    list items,
    bytes prefix,
    bytes delimiter,
    bytes after,
    object limit,
) except? -1
cdef int scan_range(
    Store* store, const uint8_t* root, list items, bytes start, bytes stop, object limit
) except -1
cdef int require_depth(int depth) except -1
