# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The end of ``apply``: new nodes become blocks."""

from ingot._speedups.mst_batch cimport Batch, Fresh


cdef int encode(Batch* batch, Fresh* fresh) except -1
