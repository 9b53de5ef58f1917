# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# distutils: libraries = crypto
"""Signature Version 4 as bytes in, bytes out: canonical requests, signing keys, percent-encoding.

The compiled form of ``sigv4_py``, which is the specification. One request costs one pass over its
parts into a buffer on the stack, one SHA-256 of that buffer, and an HMAC from saved states (the
low-level ``SHA256_*`` calls: the one-shot and EVP forms look their algorithm up at each call).
"""

cimport cython
from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_CheckExact,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdlib cimport free, malloc, qsort, realloc
from libc.string cimport memchr, memcmp, memcpy, memset

cdef extern from *:
    """
    #ifndef OPENSSL_SUPPRESS_DEPRECATED
    #define OPENSSL_SUPPRESS_DEPRECATED
    #endif
    """

cdef extern from "openssl/sha.h" nogil:
    ctypedef struct SHA256_CTX:
        pass
    int SHA256_Init(SHA256_CTX *state)
    int SHA256_Update(SHA256_CTX *state, const void *data, size_t length)
    int SHA256_Final(unsigned char *digest, SHA256_CTX *state)

cdef extern from "openssl/crypto.h" nogil:
    int CRYPTO_memcmp(const void *one, const void *other, size_t length)
    void OPENSSL_cleanse(void *data, size_t length)

ctypedef unsigned char byte

ALGORITHM = b"AWS4-HMAC-SHA256"

cdef enum:
    STACK_BYTES = 4096
    STACK_PIECES = 32

cdef byte[256] KEPT  # 1: unreserved, 2: the slash, 0: encode
cdef signed char[256] DIGIT  # value of a hex digit, else -1
cdef byte *HEX_LOWER = b"0123456789abcdef"
cdef byte *HEX_UPPER = b"0123456789ABCDEF"


cdef void fill_tables() noexcept:
    cdef int code
    for code in range(256):
        KEPT[code] = 0
        DIGIT[code] = -1
    for code in range(10):
        KEPT[48 + code] = 1
        DIGIT[48 + code] = <signed char>code
    for code in range(26):
        KEPT[65 + code] = 1
        KEPT[97 + code] = 1
    for code in range(6):
        DIGIT[65 + code] = <signed char>(10 + code)
        DIGIT[97 + code] = <signed char>(10 + code)
    for code in (45, 46, 95, 126):
        KEPT[code] = 1
    KEPT[47] = 2


fill_tables()


cdef struct Buffer:
    byte *data
    size_t used
    size_t room
    byte *heap  # owned; NULL while the data stands in ``first``
    byte[STACK_BYTES] first


cdef struct Piece:  # one encoded query pair, as offsets into a buffer
    const byte *base
    size_t name
    size_t name_length
    size_t value
    size_t value_length


cdef inline void start(Buffer *out) noexcept nogil:
    out.data = out.first
    out.used = 0
    out.room = STACK_BYTES
    out.heap = NULL


cdef int grow(Buffer *out, size_t more) except -1:
    cdef size_t room = out.room * 2
    cdef byte *moved
    while room < out.used + more:
        room *= 2
    moved = <byte *>realloc(out.heap, room)
    if moved == NULL:
        raise MemoryError
    if out.heap == NULL:
        memcpy(moved, out.first, out.used)
    out.heap = out.data = moved
    out.room = room
    return 0


cdef inline int reserve(Buffer *out, size_t more) except -1:
    if out.room - out.used < more:
        grow(out, more)
    return 0


cdef inline int put(Buffer *out, const void *data, size_t length) except -1:
    reserve(out, length)
    memcpy(out.data + out.used, data, length)
    out.used += length
    return 0


cdef inline int put_byte(Buffer *out, byte value) except -1:
    reserve(out, 1)
    out.data[out.used] = value
    out.used += 1
    return 0


cdef int put_quoted(Buffer *out, const byte *data, size_t length, byte slash) except -1:
    """Decode ``data`` and encode it strictly again; ``slash`` keeps ``/`` as it is."""
    cdef size_t at = 0
    cdef byte value, kept
    reserve(out, 3 * length)
    while at < length:
        value = data[at]
        at += 1
        if value == 37:
            value = unescape(data, at, length)
            at += 2
        kept = KEPT[value]
        if kept == 1 or (kept == 2 and slash):
            out.data[out.used] = value
            out.used += 1
        else:
            out.data[out.used] = 37
            out.data[out.used + 1] = HEX_UPPER[value >> 4]
            out.data[out.used + 2] = HEX_UPPER[value & 15]
            out.used += 3
    return 0


cdef inline byte unescape(const byte *data, size_t at, size_t length) except? 255:
    """The byte that the two digits at ``at`` stand for."""
    if length - at < 2 or DIGIT[data[at]] < 0 or DIGIT[data[at + 1]] < 0:
        raise ValueError("invalid percent escape")
    return <byte>(DIGIT[data[at]] << 4 | DIGIT[data[at + 1]])


cdef bytes unquoted(const byte *data, size_t length):
    cdef bytes result
    cdef byte *to
    cdef size_t at = 0, used = 0
    cdef byte value
    if length == 0 or memchr(data, 37, length) == NULL:
        return PyBytes_FromStringAndSize(<const char *>data, <Py_ssize_t>length)
    result = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>length)
    to = <byte *>PyBytes_AS_STRING(result)
    while at < length:
        value = data[at]
        at += 1
        if value == 37:
            value = unescape(data, at, length)
            at += 2
        to[used] = value
        used += 1
    return result[:used]


cdef inline void to_hex(const byte *digest, byte *text) noexcept nogil:
    cdef int at
    for at in range(32):
        text[2 * at] = HEX_LOWER[digest[at] >> 4]
        text[2 * at + 1] = HEX_LOWER[digest[at] & 15]


cdef inline const byte *until(const byte *data, size_t length, byte stop) noexcept nogil:
    """Where ``stop`` stands first, or the end."""
    cdef const byte *found
    if length == 0:
        return data
    found = <const byte *>memchr(data, stop, length)
    return data + length if found == NULL else found


cdef inline const byte *query_of(bytes target, size_t *length) noexcept:
    """The query behind the first ``?``; its length is 0 when there is none."""
    cdef const byte *data = <const byte *>PyBytes_AS_STRING(target)
    cdef size_t size = <size_t>PyBytes_GET_SIZE(target)
    cdef const byte *mark = until(data, size, 63)
    if mark == data + size:
        length[0] = 0
        return mark
    length[0] = <size_t>(data + size - mark - 1)
    return mark + 1


# -- keys ---------------------------------------------------------------------------------------
cdef void set_key(
    SHA256_CTX *inner, SHA256_CTX *outer, const byte *key, size_t length
) noexcept nogil:
    """Load both HMAC states with ``key``; a key longer than a block is replaced by its digest."""
    cdef byte[64] block
    cdef int at
    memset(block, 0, 64)
    if length > 64:
        SHA256_Init(inner)
        SHA256_Update(inner, key, length)
        SHA256_Final(block, inner)
    else:
        memcpy(block, key, length)
    for at in range(64):
        block[at] ^= 0x36
    SHA256_Init(inner)
    SHA256_Update(inner, block, 64)
    for at in range(64):
        block[at] ^= 0x36 ^ 0x5C
    SHA256_Init(outer)
    SHA256_Update(outer, block, 64)
    OPENSSL_cleanse(block, 64)


cdef void mac(
    const SHA256_CTX *inner, const SHA256_CTX *outer, const void *data, size_t length, byte *digest
) noexcept nogil:
    cdef SHA256_CTX state = inner[0]
    SHA256_Update(&state, data, length)
    SHA256_Final(digest, &state)
    state = outer[0]
    SHA256_Update(&state, digest, 32)
    SHA256_Final(digest, &state)


@cython.final
@cython.freelist(16)
cdef class SigningKey:
    """The key derived for one access key, day and region, as two SHA-256 states ready to go on."""

    cdef SHA256_CTX inner
    cdef SHA256_CTX outer

    def __init__(self, secret_key: str, date: bytes, region: bytes) -> None:
        cdef bytes secret = ("AWS4" + secret_key).encode()
        cdef bytes part
        cdef byte[32] derived
        set_key(
            &self.inner,
            &self.outer,
            <const byte *>PyBytes_AS_STRING(secret),
            <size_t>PyBytes_GET_SIZE(secret),
        )
        for part in (date, region, b"s3", b"aws4_request"):
            mac(
                &self.inner,
                &self.outer,
                PyBytes_AS_STRING(part),
                <size_t>PyBytes_GET_SIZE(part),
                derived,
            )
            set_key(&self.inner, &self.outer, derived, 32)
        OPENSSL_cleanse(derived, 32)

    def __dealloc__(self):
        OPENSSL_cleanse(&self.inner, sizeof(SHA256_CTX))
        OPENSSL_cleanse(&self.outer, sizeof(SHA256_CTX))

    def sign(self, message: bytes) -> bytes:
        """HMAC-SHA256 of ``message``, 64 lower-case hex digits."""
        return signed_text(
            self, <const byte *>PyBytes_AS_STRING(message), <size_t>PyBytes_GET_SIZE(message)
        )


cdef bytes signed_text(SigningKey key, const byte *data, size_t length):
    cdef byte[32] digest
    cdef bytes text = PyBytes_FromStringAndSize(NULL, 64)
    mac(&key.inner, &key.outer, data, length, digest)
    to_hex(digest, <byte *>PyBytes_AS_STRING(text))
    return text


@cython.final
cdef class SigningKeys:
    """At most ``limit`` signing keys, the oldest dropped first. Belongs to one server.

    A key is handed out only for the secret it was derived from, so a changed secret takes effect at
    once.
    """

    cdef dict keys
    cdef Py_ssize_t limit

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError("limit must be at least 1")
        self.limit = limit
        self.keys = {}

    def get(self, access_key: str, secret_key: str, date: bytes, region: bytes) -> SigningKey:
        """The key of ``access_key`` for that day and region, derived at the first call."""
        cdef tuple name = (access_key, date, region)
        cdef PyObject *found = PyDict_GetItem(self.keys, name)
        cdef tuple held
        if found != NULL:
            held = <tuple>found
            if held[0] is secret_key or held[0] == secret_key:
                return held[1]
        key = SigningKey(secret_key, date, region)
        if found == NULL and len(self.keys) >= self.limit:
            del self.keys[next(iter(self.keys))]
        self.keys[name] = (secret_key, key)
        return key

    def __len__(self) -> int:
        return len(self.keys)


# -- percent-encoding ---------------------------------------------------------------------------
def unquote(text: bytes) -> bytes:
    """Percent-decode once; a plus stays a plus. ValueError on an escape that is none."""
    return unquoted(<const byte *>PyBytes_AS_STRING(text), <size_t>PyBytes_GET_SIZE(text))


def quote(data: bytes, keep_slash: bool = False) -> bytes:
    """Percent-encode all but ``A-Za-z0-9-._~`` (and ``/`` if asked), with upper-case digits."""
    cdef Py_ssize_t at, length = PyBytes_GET_SIZE(data), size = 0, used = 0
    cdef const byte *source = <const byte *>PyBytes_AS_STRING(data)
    cdef byte least = 2 if keep_slash else 1
    cdef bytes result
    cdef byte *to
    for at in range(length):
        size += 1 if 1 <= KEPT[source[at]] <= least else 3
    result = PyBytes_FromStringAndSize(NULL, size)
    to = <byte *>PyBytes_AS_STRING(result)
    for at in range(length):
        if 1 <= KEPT[source[at]] <= least:
            to[used] = source[at]
            used += 1
        else:
            to[used] = 37
            to[used + 1] = HEX_UPPER[source[at] >> 4]
            to[used + 2] = HEX_UPPER[source[at] & 15]
            used += 3
    return result


def parse_query(target: bytes) -> list[tuple[bytes, bytes]]:
    """The decoded (name, value) pairs behind the first ``?``, in order, empty pieces dropped.

    ValueError on an escape that is none.
    """
    cdef size_t left = 0
    cdef const byte *at = query_of(target, &left)
    cdef const byte *end
    cdef const byte *equals
    cdef list pairs = []
    while left > 0:
        end = until(at, left, 38)
        if end != at:
            equals = until(at, <size_t>(end - at), 61)
            name = unquoted(at, <size_t>(equals - at))
            value = b"" if equals == end else unquoted(equals + 1, <size_t>(end - equals - 1))
            pairs.append((name, value))
        left -= <size_t>(end - at)
        if left > 0:
            left -= 1
            at = end + 1
    return pairs


def reencode_path(target: bytes) -> bytes:
    """``target`` with its path decoded and encoded again strictly; the query stays as it is.

    ValueError on an escape that is none.
    """
    cdef Buffer out
    cdef const byte *data = <const byte *>PyBytes_AS_STRING(target)
    cdef size_t size = <size_t>PyBytes_GET_SIZE(target)
    cdef size_t path = <size_t>(until(data, size, 63) - data)
    start(&out)
    try:
        put_quoted(&out, data, path, 1)
        put(&out, data + path, size - path)
        return PyBytes_FromStringAndSize(<char *>out.data, <Py_ssize_t>out.used)
    finally:
        free(out.heap)


# -- requests -----------------------------------------------------------------------------------
def split_authorization(value: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Credential, SignedHeaders and Signature of a header-form Authorization; None if malformed.

    The three may come in any order, each once, separated by a comma and optional blanks. Their
    names are case-sensitive and their values must not be empty.
    """
    cdef const byte *at = <const byte *>PyBytes_AS_STRING(value)
    cdef const byte *stop = at + PyBytes_GET_SIZE(value)
    cdef const byte *end
    cdef const byte *last
    cdef bytes credential = None, listed = None, signature = None
    cdef int parts = 0
    if stop - at < 18 or memcmp(at, b"AWS4-HMAC-SHA256 ", 17) != 0 or at[17] == 32:
        return None
    at += 17
    while True:
        parts += 1
        if parts > 3:
            return None
        end = last = until(at, <size_t>(stop - at), 44)
        while at < last and (at[0] == 32 or at[0] == 9):
            at += 1
        while last > at and ((last - 1)[0] == 32 or (last - 1)[0] == 9):
            last -= 1
        if last - at > 11 and memcmp(at, b"Credential=", 11) == 0:
            credential = at[11:last - at]
        elif last - at > 14 and memcmp(at, b"SignedHeaders=", 14) == 0:
            listed = at[14:last - at]
        elif last - at > 10 and memcmp(at, b"Signature=", 10) == 0:
            signature = at[10:last - at]
        else:
            return None
        if end == stop:
            break
        at = end + 1
    if credential is None or listed is None or signature is None:
        return None
    return credential, listed, signature


cdef inline bint is_amazon(bytes name) noexcept:
    return PyBytes_GET_SIZE(name) >= 6 and memcmp(PyBytes_AS_STRING(name), b"x-amz-", 6) == 0


def unsigned_headers(index: dict[bytes, bytes], names: tuple[bytes, ...]) -> list[bytes]:
    """What should be in ``names`` and is not: ``host`` and every ``x-amz-`` header of ``index``."""
    cdef Py_ssize_t wanted = 0
    cdef bint host = False
    cdef bytes name
    for name in index:
        wanted += is_amazon(name)
    for name in names:
        if is_amazon(name):
            wanted -= PyDict_GetItem(index, name) != NULL
        elif PyBytes_GET_SIZE(name) == 4 and memcmp(PyBytes_AS_STRING(name), b"host", 4) == 0:
            host = True
    if host and wanted == 0:
        return []
    missing = [] if host else [b"host"]
    missing += [name for name in index if is_amazon(name) and name not in names]
    return missing


cdef int compare_pieces(const void *one, const void *other) noexcept nogil:
    cdef const Piece *a = <const Piece *>one
    cdef const Piece *b = <const Piece *>other
    cdef size_t shorter = min(a.name_length, b.name_length)
    cdef int order = memcmp(a.base + a.name, b.base + b.name, shorter)
    if order == 0 and a.name_length != b.name_length:
        return -1 if a.name_length < b.name_length else 1
    if order == 0:
        shorter = min(a.value_length, b.value_length)
        order = memcmp(a.base + a.value, b.base + b.value, shorter)
        if order == 0 and a.value_length != b.value_length:
            return -1 if a.value_length < b.value_length else 1
    return order


cdef size_t encode_pieces(
    Buffer *scratch, const byte *at, size_t left, bint presigned, Piece *pieces
) except? 0:
    """Encode each query pair into ``scratch`` and describe it in ``pieces``; returns how many."""
    cdef const byte *end
    cdef const byte *equals
    cdef Piece *piece
    cdef size_t count = 0
    while left > 0:
        end = until(at, left, 38)
        if end != at:
            equals = until(at, <size_t>(end - at), 61)
            piece = &pieces[count]
            piece.name = scratch.used
            put_quoted(scratch, at, <size_t>(equals - at), 0)
            piece.name_length = scratch.used - piece.name
            piece.value = scratch.used
            if equals != end:
                put_quoted(scratch, equals + 1, <size_t>(end - equals - 1), 0)
            piece.value_length = scratch.used - piece.value
            if not (
                presigned
                and piece.name_length == 15
                and memcmp(scratch.data + piece.name, b"X-Amz-Signature", 15) == 0
            ):
                count += 1
        left -= <size_t>(end - at)
        if left > 0:
            left -= 1
            at = end + 1
    return count


cdef int put_query(Buffer *out, bytes target, bint presigned) except -1:
    """The canonical query: decoded, encoded strictly, sorted by encoded name, then value."""
    cdef Buffer scratch
    cdef Piece[STACK_PIECES] few
    cdef Piece *pieces = few
    cdef Piece *many = NULL
    cdef size_t length = 0, count, at, most = 1
    cdef const byte *query = query_of(target, &length)
    if length == 0:
        return 0
    for at in range(length):
        most += query[at] == 38
    start(&scratch)
    try:
        if most > STACK_PIECES:
            pieces = many = <Piece *>malloc(most * sizeof(Piece))
            if many == NULL:
                raise MemoryError
        count = encode_pieces(&scratch, query, length, presigned, pieces)
        for at in range(count):  # the scratch has stopped moving
            pieces[at].base = scratch.data
        if count > 1:
            qsort(pieces, count, sizeof(Piece), compare_pieces)
        for at in range(count):
            if at:
                put_byte(out, 38)
            put(out, scratch.data + pieces[at].name, pieces[at].name_length)
            put_byte(out, 61)
            put(out, scratch.data + pieces[at].value, pieces[at].value_length)
    finally:
        free(scratch.heap)
        free(many)
    return 0


cdef int put_value(Buffer *out, const byte *data, size_t length) except -1:
    """A header value: no blanks at the ends, one blank for each inner run."""
    cdef size_t at
    cdef bint blank = False
    cdef byte *to
    reserve(out, length)
    while length > 0 and (data[length - 1] == 32 or data[length - 1] == 9):
        length -= 1
    while length > 0 and (data[0] == 32 or data[0] == 9):
        data += 1
        length -= 1
    if length == 0:
        return 0
    if memchr(data, 32, length) == NULL and memchr(data, 9, length) == NULL:
        memcpy(out.data + out.used, data, length)
        out.used += length
        return 0
    to = out.data + out.used
    for at in range(length):
        if data[at] == 32 or data[at] == 9:
            if not blank:
                to[0] = 32
                to += 1
            blank = True
        else:
            to[0] = data[at]
            to += 1
            blank = False
    out.used = <size_t>(to - out.data)
    return 0


cdef int put_request(
    Buffer *out,
    str method,
    bytes target,
    dict index,
    bytes listed,
    tuple names,
    bytes payload,
    bint presigned,
) except -1:
    cdef Py_ssize_t length = 0
    cdef const char *word = PyUnicode_AsUTF8AndSize(method, &length)
    cdef const byte *data
    cdef size_t size
    cdef PyObject *value
    cdef bytes name
    put(out, word, <size_t>length)
    put_byte(out, 10)
    data = <const byte *>PyBytes_AS_STRING(target)
    size = <size_t>PyBytes_GET_SIZE(target)
    put(out, data, <size_t>(until(data, size, 63) - data))
    put_byte(out, 10)
    put_query(out, target, presigned)
    put_byte(out, 10)
    for name in names:
        put(out, PyBytes_AS_STRING(name), <size_t>PyBytes_GET_SIZE(name))
        put_byte(out, 58)
        value = PyDict_GetItem(index, name)
        if value != NULL:
            if not PyBytes_CheckExact(<object>value):
                raise TypeError("header values are bytes")
            put_value(
                out,
                <const byte *>PyBytes_AS_STRING(<object>value),
                <size_t>PyBytes_GET_SIZE(<object>value),
            )
        put_byte(out, 10)
    put_byte(out, 10)
    put(out, PyBytes_AS_STRING(listed), <size_t>PyBytes_GET_SIZE(listed))
    put_byte(out, 10)
    put(out, PyBytes_AS_STRING(payload), <size_t>PyBytes_GET_SIZE(payload))
    return 0


cdef int put_string(
    Buffer *out, bytes stamp, bytes scope, const byte *canonical, size_t length
) except -1:
    """The string to sign, of a canonical request of ``length`` bytes."""
    cdef SHA256_CTX state
    cdef byte[32] digest
    put(out, b"AWS4-HMAC-SHA256\n", 17)
    put(out, PyBytes_AS_STRING(stamp), <size_t>PyBytes_GET_SIZE(stamp))
    put_byte(out, 10)
    put(out, PyBytes_AS_STRING(scope), <size_t>PyBytes_GET_SIZE(scope))
    put_byte(out, 10)
    SHA256_Init(&state)
    SHA256_Update(&state, canonical, length)
    SHA256_Final(digest, &state)
    reserve(out, 64)
    to_hex(digest, out.data + out.used)
    out.used += 64
    return 0


def canonical_request(
    method: str,
    target: bytes,
    index: dict[bytes, bytes],
    listed: bytes,
    names: tuple[bytes, ...],
    payload: bytes,
    presigned: bool = False,
) -> bytes:
    """The canonical request. ``listed`` is the list as sent, ``names`` its parts.

    A listed header that is absent signs as empty. ``presigned`` leaves X-Amz-Signature out of the
    query. ValueError on an escape that is none.
    """
    cdef Buffer out
    start(&out)
    try:
        put_request(&out, method, target, index, listed, names, payload, presigned)
        return PyBytes_FromStringAndSize(<char *>out.data, <Py_ssize_t>out.used)
    finally:
        free(out.heap)


def string_to_sign(stamp: bytes, scope: bytes, canonical: bytes) -> bytes:
    """What the signing key signs for the request whose canonical form is ``canonical``."""
    cdef Buffer out
    start(&out)
    try:
        put_string(
            &out,
            stamp,
            scope,
            <const byte *>PyBytes_AS_STRING(canonical),
            <size_t>PyBytes_GET_SIZE(canonical),
        )
        return PyBytes_FromStringAndSize(<char *>out.data, <Py_ssize_t>out.used)
    finally:
        free(out.heap)


def sign_request(
    key: SigningKey,
    stamp: bytes,
    scope: bytes,
    method: str,
    target: bytes,
    index: dict[bytes, bytes],
    listed: bytes,
    names: tuple[bytes, ...],
    payload: bytes,
    presigned: bool = False,
) -> bytes:
    """The signature a request must carry: ``canonical_request`` to hex digits in one call."""
    cdef Buffer out
    cdef size_t length
    start(&out)
    try:
        put_request(&out, method, target, index, listed, names, payload, presigned)
        length = out.used
        # The string to sign goes behind the canonical request, which stays where it is: room for it
        # is made first.
        reserve(&out, <size_t>(PyBytes_GET_SIZE(stamp) + PyBytes_GET_SIZE(scope)) + 128)
        put_string(&out, stamp, scope, out.data, length)
        return signed_text(key, out.data + length, out.used - length)
    finally:
        free(out.heap)


def equal(one: bytes, other: bytes) -> bool:
    """Compare in a time that does not tell where the two differ."""
    cdef Py_ssize_t length = PyBytes_GET_SIZE(one)
    if length != PyBytes_GET_SIZE(other):
        return False
    return CRYPTO_memcmp(PyBytes_AS_STRING(one), PyBytes_AS_STRING(other), <size_t>length) == 0


cdef inline int two(const byte *text) noexcept nogil:
    """The number that two digits are; -10000 where they are none."""
    if not (48 <= text[0] <= 57 and 48 <= text[1] <= 57):
        return -10000
    return (text[0] - 48) * 10 + text[1] - 48


cdef int *MONTHS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]


def parse_stamp(value: bytes) -> int:
    """Unix milliseconds of ``yyyymmddThhmmssZ``, or -1 when it is no such moment from 1970 on."""
    cdef const byte *text = <const byte *>PyBytes_AS_STRING(value)
    cdef int century, year, month, day, hour, minute, second, at, before
    cdef bint leap
    cdef long long days
    if PyBytes_GET_SIZE(value) != 16 or text[8] != 84 or text[15] != 90:
        return -1
    century, year, month, day = two(text), two(text + 2), two(text + 4), two(text + 6)
    hour, minute, second = two(text + 9), two(text + 11), two(text + 13)
    if century < 0 or year < 0:
        return -1
    year += century * 100
    if year < 1970 or not 1 <= month <= 12 or day < 1:
        return -1
    if not 0 <= hour <= 23 or not 0 <= minute <= 59 or not 0 <= second <= 59:
        return -1
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if day > MONTHS[month - 1] + (month == 2 and leap):
        return -1
    before = year - 1
    days = before * 365 + before // 4 - before // 100 + before // 400 - 719162
    for at in range(month - 1):
        days += MONTHS[at] + (at == 1 and leap)
    return (((days + day - 1) * 24 + hour) * 60 + minute) * 60000 + second * 1000
