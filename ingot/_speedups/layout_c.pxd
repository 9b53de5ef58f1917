# cython: language_level=3
"""What other extensions need of ``layout_c``: stepping over values that they do not show."""

from ingot._speedups.cbor_c cimport Reader


# Past one value whose lengths are looked at and nothing else; FormatError.
cdef int skip(Reader *data) except -1
