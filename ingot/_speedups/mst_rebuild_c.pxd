# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The middle of ``apply``: the content of a key interval, rebuilt from old nodes and mutations."""

from libc.stdint cimport uint8_t, uint32_t

from ingot._speedups.mst_batch cimport Batch, Ref
from ingot._speedups.mst_parsed cimport Parsed


cdef struct Bound:
    # An end of a key interval: a key, or entry ``at`` of ``source`` whose key is not put together
    # yet, or open when both are NULL.
    const uint8_t* key
    Parsed* source
    uint32_t length
    uint32_t at


cdef struct Segment:
    # An old subtree with the old separators around it.
    const uint8_t* digest
    Bound lower
    Bound upper


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
) except -1
