# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# distutils: libraries = crypto
"""sha2-256, MD5 and SHA-1: running hashers, one-shots and the CIDs made of them.

The compiled form of ``digest_py``, which is the specification. Algorithms are fetched from OpenSSL
once, since a fetch costs more than hashing 300 bytes. Small one-shots share two contexts: they run
from start to end under the GIL. Spans of GIL_RELEASE_BYTES and more get a context of their own and
let other threads run. ``lane_c`` feeds hashers on its own thread through ``feed``.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.string cimport memcmp

cdef extern from "openssl/evp.h" nogil:
    ctypedef struct EVP_MD:
        pass
    EVP_MD *EVP_MD_fetch(void *library, const char *name, const char *properties)
    EVP_MD_CTX *EVP_MD_CTX_new()
    void EVP_MD_CTX_free(EVP_MD_CTX *context)
    int EVP_MD_CTX_copy_ex(EVP_MD_CTX *to, const EVP_MD_CTX *source)
    int EVP_DigestInit_ex2(EVP_MD_CTX *context, const EVP_MD *algorithm, const void *parameters)
    int EVP_DigestUpdate(EVP_MD_CTX *context, const void *data, size_t length)
    int EVP_DigestFinal_ex(EVP_MD_CTX *context, unsigned char *digest, unsigned int *length)


cdef Py_ssize_t GIL_RELEASE_BYTES = 64 * 1024
cdef unsigned char RAW = 0x55
cdef unsigned char DAG_CBOR = 0x71


cdef EVP_MD *fetch(const char *name) except NULL:
    cdef EVP_MD *algorithm = EVP_MD_fetch(NULL, name, NULL)
    if algorithm == NULL:
        raise RuntimeError(f"OpenSSL offers no {(<bytes>name).decode()}, which ingot needs")
    return algorithm


cdef EVP_MD_CTX *context_of(const EVP_MD *algorithm) except NULL:
    cdef EVP_MD_CTX *context = EVP_MD_CTX_new()
    if context == NULL:
        raise MemoryError
    if not EVP_DigestInit_ex2(context, algorithm, NULL):
        EVP_MD_CTX_free(context)
        raise RuntimeError("OpenSSL could not start a digest")
    return context


# Held for the life of the process: extension modules are never unloaded.
cdef EVP_MD *SHA256 = fetch(b"SHA256")
cdef EVP_MD *MD5 = fetch(b"MD5")
cdef EVP_MD *SHA1 = fetch(b"SHA1")
cdef EVP_MD_CTX *shared_sha256 = context_of(SHA256)
cdef EVP_MD_CTX *shared_md5 = context_of(MD5)


cdef int feed(void *context, const unsigned char *data, size_t length) noexcept nogil:
    return EVP_DigestUpdate(<EVP_MD_CTX *>context, data, length)


cdef int whole(
    EVP_MD_CTX *context, const unsigned char *data, size_t length, unsigned char *digest
) noexcept nogil:
    """One digest from start to end in ``context``, whose algorithm is set already."""
    return (
        EVP_DigestInit_ex2(context, NULL, NULL)
        and EVP_DigestUpdate(context, data, length)
        and EVP_DigestFinal_ex(context, digest, NULL)
    )


cdef int one_shot(
    const EVP_MD *algorithm,
    EVP_MD_CTX *shared,
    const unsigned char *data,
    Py_ssize_t length,
    unsigned char *digest,
) except 0:
    cdef EVP_MD_CTX *own
    cdef int done
    if length < GIL_RELEASE_BYTES:
        done = whole(shared, data, <size_t>length, digest)
    else:
        own = context_of(algorithm)
        with nogil:
            done = whole(own, data, <size_t>length, digest)
        EVP_MD_CTX_free(own)
    if not done:
        raise RuntimeError("OpenSSL could not finish a digest")
    return 1


cdef class Hasher:
    """A running digest: "sha256", "md5" or "sha1".

    While a lane's job feeds it, it belongs to that job: using it then is a RuntimeError.
    """

    def __cinit__(self, str name):
        cdef const EVP_MD *algorithm
        if name == "sha256":
            algorithm = SHA256
            self.digest_size = 32
        elif name == "md5":
            algorithm = MD5
            self.digest_size = 16
        elif name == "sha1":
            algorithm = SHA1
            self.digest_size = 20
        else:
            raise ValueError(f"no hasher is called {name!r}")
        self.name = name
        self.context = context_of(algorithm)

    def __dealloc__(self):
        EVP_MD_CTX_free(self.context)
        EVP_MD_CTX_free(self.scratch)

    def update(self, buffer) -> None:
        """Hash ``buffer`` after what came before."""
        cdef Py_buffer view
        cdef int done
        self.check()
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
        try:
            if view.len < GIL_RELEASE_BYTES:
                done = EVP_DigestUpdate(self.context, view.buf, <size_t>view.len)
            else:
                self.held += 1
                with nogil:
                    done = EVP_DigestUpdate(self.context, view.buf, <size_t>view.len)
                self.held -= 1
        finally:
            PyBuffer_Release(&view)
        if not done:
            raise RuntimeError("OpenSSL could not update a digest")

    def digest(self) -> bytes:
        """The digest of everything so far; the hasher can go on."""
        cdef unsigned char digest[32]
        self.check()
        if self.scratch == NULL:
            self.scratch = EVP_MD_CTX_new()
            if self.scratch == NULL:
                raise MemoryError
        if not (
            EVP_MD_CTX_copy_ex(self.scratch, self.context)
            and EVP_DigestFinal_ex(self.scratch, digest, NULL)
        ):
            raise RuntimeError("OpenSSL could not finish a digest")
        return PyBytes_FromStringAndSize(<char *>digest, self.digest_size)

    def copy(self) -> Hasher:
        """A second hasher in the same state."""
        cdef Hasher other
        self.check()
        other = Hasher(self.name)
        if not EVP_MD_CTX_copy_ex(other.context, self.context):
            raise RuntimeError("OpenSSL could not copy a digest")
        return other

    cdef int check(self) except 0:
        if self.held:
            raise RuntimeError("the hasher belongs to a job in flight")
        return 1


def sha256(data) -> bytes:
    """The sha2-256 of ``data``."""
    cdef Py_buffer view
    cdef unsigned char digest[32]
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        one_shot(SHA256, shared_sha256, <unsigned char *>view.buf, view.len, digest)
    finally:
        PyBuffer_Release(&view)
    return PyBytes_FromStringAndSize(<char *>digest, 32)


def sha256_md5(data) -> tuple[bytes, bytes]:
    """The sha2-256 and the MD5 of ``data``."""
    cdef Py_buffer view
    cdef unsigned char first[32]
    cdef unsigned char second[16]
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        one_shot(SHA256, shared_sha256, <unsigned char *>view.buf, view.len, first)
        one_shot(MD5, shared_md5, <unsigned char *>view.buf, view.len, second)
    finally:
        PyBuffer_Release(&view)
    return (
        PyBytes_FromStringAndSize(<char *>first, 32),
        PyBytes_FromStringAndSize(<char *>second, 16),
    )


cdef bytes cid_of(data, unsigned char codec):
    cdef bytes cid = PyBytes_FromStringAndSize(NULL, 36)
    cdef unsigned char *out = <unsigned char *>PyBytes_AS_STRING(cid)
    cdef Py_buffer view
    out[0] = 0x01
    out[1] = codec
    out[2] = 0x12
    out[3] = 0x20
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        one_shot(SHA256, shared_sha256, <unsigned char *>view.buf, view.len, out + 4)
    finally:
        PyBuffer_Release(&view)
    return cid


def cid_raw(data) -> bytes:
    """The CID of ``data`` as a chunk: 36 bytes, codec raw."""
    return cid_of(data, RAW)


def cid_dag_cbor(data) -> bytes:
    """The CID of ``data`` as a structured block: 36 bytes, codec dag-cbor."""
    return cid_of(data, DAG_CBOR)


def cid_matches(cid, data) -> bool:
    """Whether ``data`` hashes to ``cid``, a CIDv1 of any codec with a sha2-256 multihash."""
    cdef Py_buffer name
    cdef Py_buffer view
    cdef const unsigned char *end
    cdef unsigned char digest[32]
    cdef bint equal = False
    PyObject_GetBuffer(cid, &name, PyBUF_SIMPLE)
    try:
        end = <const unsigned char *>name.buf + name.len
        if name.len < 36 or (<const unsigned char *>name.buf)[0] != 0x01:
            return False
        if (end - 34)[0] != 0x12 or (end - 33)[0] != 0x20:
            return False
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            one_shot(SHA256, shared_sha256, <unsigned char *>view.buf, view.len, digest)
        finally:
            PyBuffer_Release(&view)
        equal = memcmp(digest, end - 32, 32) == 0
    finally:
        PyBuffer_Release(&name)
    return equal
