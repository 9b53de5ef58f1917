# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""``apply``, on the C side of ``mst_c``."""

from libc.stdint cimport uint8_t

from ingot._speedups.mst_store_c cimport Store


cdef tuple apply_batch(Store* store, const uint8_t* old, list mutations, bytes salt)
