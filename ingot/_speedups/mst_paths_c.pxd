# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Loading the old nodes of a batch."""

from libc.stdint cimport uint8_t

from ingot._speedups.mst_batch cimport Batch, Mutation
from ingot._speedups.mst_parsed cimport Parsed


cdef Parsed* load(Batch* batch, const uint8_t* digest, int layer) except? NULL
cdef int load_paths(Batch* batch, const uint8_t* root) except -1
cdef object wrong_layer(Mutation* mutation, int layer)
