# cython: language_level=3
"""What other extensions need of ``digest_c``: a hasher's state, and feeding it without the GIL."""

cdef extern from "openssl/evp.h" nogil:
    ctypedef struct EVP_MD_CTX:
        pass


cdef class Hasher:
    cdef EVP_MD_CTX *context  # owned; made in __cinit__, freed in __dealloc__
    cdef EVP_MD_CTX *scratch  # owned; takes the copy that digest() finalises
    cdef readonly str name
    cdef readonly int digest_size
    cdef readonly int held  # jobs in flight that feed it; nobody else may touch it meanwhile
    cdef int check(self) except 0


# ``context`` is an EVP_MD_CTX. 1, or 0 when OpenSSL refused.
cdef int feed(void *context, const unsigned char *data, size_t length) noexcept nogil
