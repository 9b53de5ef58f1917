# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""``diff``, on the C side of ``mst_c``."""

from libc.stdint cimport uint8_t

from ingot._speedups.mst_store_c cimport Store


cdef int compare_trees(
    Store* store,
    const uint8_t* old,
    const uint8_t* new,
    list changes,
    object limit,
    bytes after,
    bytes salt,
) except -1
