# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# distutils: libraries = crypto
"""Everyday requests known by their heads: one object, nothing unusual, a signature that verifies.

The compiled form of ``express_py``, which is the specification. One pass over the head notes where
each known header's value stands; the canonical request is put together from those places on the
stack, and no Python object is made before the signature is known to be right.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject
from libc.stdint cimport uint32_t
from libc.string cimport memchr, memcmp, memcpy

from ingot.limits import INLINE_BYTES_MAX

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

ctypedef const unsigned char* Bytes

CHECKSUMS = ("crc32", "crc32c", "crc64nvme")
NAMES = (
    *(b"host", b"user-agent", b"accept", b"accept-encoding", b"accept-language", b"connection"),
    *(b"authorization", b"x-amz-date", b"x-amz-content-sha256", b"x-amz-user-agent"),
    *(b"amz-sdk-invocation-id", b"amz-sdk-request", b"x-amz-checksum-mode"),
    *(b"content-length", b"content-type", b"content-md5", b"x-amz-sdk-checksum-algorithm"),
    *(b"x-amz-checksum-crc32", b"x-amz-checksum-crc32c", b"x-amz-checksum-crc64nvme"),
)
OF_PUT = frozenset(NAMES[13:])
OF_GET = frozenset((b"x-amz-checksum-mode",))

cdef enum:  # places in NAMES
    HOST = 0
    CONNECTION = 5
    AUTHORIZATION = 6
    DATE = 7
    CONTENT = 8
    MODE = 12
    LENGTH = 13
    TYPE = 14
    MD5 = 15
    SDK = 16
    SUMS = 17
    COUNT = 20
    NAME_MAX = 28  # the longest
    KEY_MAX = 1024
    CANONICAL = 8192  # more than any head that clients send
    SIGNATURE = 64

cdef struct Name:
    const char *text
    Py_ssize_t length

cdef struct Value:
    Bytes at  # NULL: not sent
    Py_ssize_t length

cdef Name KNOWN[COUNT]
cdef uint32_t AMAZON = 0  # the x-amz- ones, a bit each
cdef unsigned char LOWER[256]  # of the letters, digits and the dash; 0: may not stand in a name
cdef unsigned char IN_KEY[256]
cdef unsigned char HEX[256]
cdef Py_ssize_t BODY_MAX = INLINE_BYTES_MAX
cdef const char *DIGITS = b"0123456789abcdef"
cdef bytes EMPTY = b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


cdef void fill_tables() noexcept:
    global AMAZON
    cdef int code
    cdef bytes name
    for code in range(COUNT):
        name = NAMES[code]
        KNOWN[code].text = PyBytes_AS_STRING(name)  # NAMES lives as long as the module
        KNOWN[code].length = PyBytes_GET_SIZE(name)
        if name.startswith(b"x-amz-"):
            AMAZON |= <uint32_t>1 << code
    for code in range(256):
        LOWER[code] = 0
        if 48 <= code <= 57 or 97 <= code <= 122 or code == 45:
            LOWER[code] = <unsigned char>code
        elif 65 <= code <= 90:
            LOWER[code] = <unsigned char>(code + 32)
        IN_KEY[code] = LOWER[code] != 0 or code == 46 or code == 95 or code == 126 or code == 47
        HEX[code] = 48 <= code <= 57 or 97 <= code <= 102


fill_tables()


cdef class Form:
    """What of a verified Authorization a client's next requests repeat. ``day_ms`` is the unix
    time of the midnight that ``scope`` begins with."""

    cdef readonly str access_key
    cdef readonly str secret_key
    cdef readonly object key
    cdef readonly bytes scope
    cdef readonly long long day_ms
    cdef readonly bytes listed
    cdef readonly tuple names
    cdef uint32_t signed  # the known ones among ``names``
    cdef bint known  # all of them are
    cdef unsigned char order[COUNT]
    cdef int count

    def __init__(
        self,
        access_key: str,
        secret_key: str,
        key,
        scope: bytes,
        day_ms: int,
        listed: bytes,
        names: tuple[bytes, ...],
    ) -> None:
        cdef int place
        self.access_key = access_key
        self.secret_key = secret_key
        self.key = key
        self.scope = scope
        self.day_ms = day_ms
        self.listed = listed
        self.names = names
        self.signed = self.count = 0
        self.known = len(names) <= COUNT and len(scope) >= 8
        for name in names if self.known else ():
            if name not in NAMES:
                self.known = False
                break
            place = NAMES.index(name)
            if self.signed & <uint32_t>1 << place:  # each once, so that a head's room is enough
                self.known = False
                break
            self.order[self.count] = <unsigned char>place
            self.count += 1
            self.signed |= <uint32_t>1 << place


cdef class Everyday:
    """A recognised request."""

    cdef readonly Form form
    cdef readonly bint put  # or a GET
    cdef readonly bytes target
    cdef readonly bytes bucket
    cdef readonly bytes key
    cdef readonly Py_ssize_t length  # of the body
    cdef readonly bytes payload  # its sha256 in hex, b"" where it was not signed
    cdef readonly bytes content_type
    cdef readonly bytes md5  # in base64, as sent
    cdef readonly str algorithm  # of the checksum that was sent, or ""
    cdef readonly bytes checksum  # in base64, as sent
    cdef readonly bint checksum_mode  # the checksum is to be shown


cdef inline bytes taken(Value *value):
    return PyBytes_FromStringAndSize(<const char *>value.at, value.length)


cdef inline bint same(Value *value, const char *text, Py_ssize_t length) noexcept:
    """Whether a value is ``text``, which is in lower case, whatever its own case."""
    cdef Py_ssize_t i
    if value.length != length:
        return False
    for i in range(length):
        if LOWER[value.at[i]] != <unsigned char>text[i]:
            return False
    return True


cdef int place_of(Bytes at, Py_ssize_t length) noexcept:
    """Which of the known names this is; -1: none."""
    cdef unsigned char name[NAME_MAX]
    cdef Py_ssize_t i
    cdef int place
    if length < 1 or length > NAME_MAX:
        return -1
    for i in range(length):
        name[i] = LOWER[at[i]]
    for place in range(COUNT):
        if KNOWN[place].length == length and memcmp(KNOWN[place].text, name, length) == 0:
            return place
    return -1


cdef bint read_headers(Bytes at, Bytes end, Value *values) noexcept:
    """Note the value of each header line up to the empty line that ``end`` must stand behind."""
    cdef Bytes colon
    cdef Bytes stop
    cdef Bytes p
    cdef int place
    while True:
        stop = <Bytes>memchr(at, 13, end - at)
        if stop == NULL or stop + 1 >= end or stop[1] != 10:
            return False
        if stop == at:
            return stop + 2 == end
        colon = <Bytes>memchr(at, 58, stop - at)
        if colon == NULL:
            return False
        place = place_of(at, colon - at)
        if place < 0 or values[place].at != NULL:
            return False
        at = colon + 1
        colon = stop  # from here on the end of the value
        while at < colon and at[0] == 32:
            at += 1
        while colon > at and (colon - 1)[0] == 32:
            colon -= 1
        p = at
        while p < colon:
            if p[0] < 32 or p[0] > 126 or (p[0] == 32 and p[1] == 32):
                return False
            p += 1
        values[place].at = at
        values[place].length = colon - at
        at = stop + 2


cdef inline int two(Bytes text, int most) noexcept:
    """The number that two digits are; -1 where they are none, or more than ``most``."""
    cdef int number
    if not (48 <= text[0] <= 57 and 48 <= text[1] <= 57):
        return -1
    number = (text[0] - 48) * 10 + text[1] - 48
    return number if number <= most else -1


cdef bint timely(Form form, Value *stamp, long long now_ms, long long skew_ms) noexcept:
    cdef int hour, minute, second
    cdef long long late_ms
    if stamp.length != 16 or stamp.at[8] != 84 or stamp.at[15] != 90:
        return False
    if memcmp(stamp.at, PyBytes_AS_STRING(form.scope), 8) != 0:
        return False
    hour = two(stamp.at + 9, 23)
    minute = two(stamp.at + 11, 59)
    second = two(stamp.at + 13, 59)
    if hour < 0 or minute < 0 or second < 0:
        return False
    late_ms = now_ms - form.day_ms - ((hour * 60 + minute) * 60 + second) * <long long>1000
    return -skew_ms <= late_ms <= skew_ms


cdef bint is_content(Value *content) noexcept:
    cdef Py_ssize_t i
    if content.at == NULL:
        return False
    if content.length == 16:
        return memcmp(content.at, b"UNSIGNED-PAYLOAD", 16) == 0
    if content.length != 64:
        return False
    for i in range(64):
        if not HEX[content.at[i]]:
            return False
    return True


cdef inline unsigned char *appended(
    unsigned char *to, const void *data, Py_ssize_t length
) noexcept:
    memcpy(to, data, length)
    return to + length


cdef bint verified(
    Form form, Bytes head, Py_ssize_t size, Bytes path, Bytes path_end, Value *values
) except -1:
    """Whether the signature is right. Every signed header is there, values have single blanks."""
    cdef unsigned char room[CANONICAL]
    cdef unsigned char digest[32]
    cdef SHA256_CTX state
    cdef unsigned char *to = room
    cdef Value *value
    cdef int i, place
    cdef bytes ours
    cdef Py_ssize_t listed = PyBytes_GET_SIZE(form.listed), scope = PyBytes_GET_SIZE(form.scope)
    if size + listed + scope + 256 > CANONICAL:  # lines and target are shorter here than there
        return False
    to = appended(to, head, 3)
    to[0] = 10
    to = appended(to + 1, path, path_end - path)
    to[0] = to[1] = 10
    to += 2
    for i in range(form.count):
        place = form.order[i]
        value = &values[place]
        to = appended(to, KNOWN[place].text, KNOWN[place].length)
        to[0] = 58
        to = appended(to + 1, value.at, value.length)
        to[0] = 10
        to += 1
    to[0] = 10
    to = appended(to + 1, PyBytes_AS_STRING(form.listed), listed)
    to[0] = 10
    to = appended(to + 1, values[CONTENT].at, values[CONTENT].length)
    SHA256_Init(&state)
    SHA256_Update(&state, room, to - room)
    SHA256_Final(digest, &state)
    to = appended(room, b"AWS4-HMAC-SHA256\n", 17)
    to = appended(to, values[DATE].at, 16)
    to[0] = 10
    to = appended(to + 1, PyBytes_AS_STRING(form.scope), scope)
    to[0] = 10
    to += 1
    for i in range(32):
        to[0] = DIGITS[digest[i] >> 4]
        to[1] = DIGITS[digest[i] & 15]
        to += 2
    ours = form.key.sign(PyBytes_FromStringAndSize(<const char *>room, to - room))
    value = &values[AUTHORIZATION]
    return CRYPTO_memcmp(
        PyBytes_AS_STRING(ours), value.at + value.length - SIGNATURE, SIGNATURE
    ) == 0


def recognise(
    head: bytes, forms: dict[bytes, Form], now_ms: int, skew_ms: int
) -> Everyday | None:
    """The request whose whole head is ``head``, or None. ``forms`` by the beginning of their
    Authorization up to the signature; a stamp may be ``skew_ms`` away from ``now_ms``."""
    cdef Bytes start = <Bytes>PyBytes_AS_STRING(head)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(head)
    cdef Bytes end = start + size
    cdef Bytes bucket_end
    cdef Bytes path_end
    cdef Bytes p
    cdef Value values[COUNT]
    cdef Value *value
    cdef uint32_t present = 0
    cdef int place
    cdef bint put
    cdef Form form
    cdef PyObject *found
    if size < 20 or memcmp(start + 1, b"ET /" if start[0] == 71 else b"UT /", 4) != 0:
        return None
    put = start[0] == 80
    if not put and start[0] != 71:
        return None
    p = start + 5
    while p < end and IN_KEY[p[0]]:
        p += 1
    path_end = p
    if end - p < 11 or memcmp(p, b" HTTP/1.1\r\n", 11) != 0:
        return None
    bucket_end = <Bytes>memchr(start + 5, 47, path_end - start - 5)
    if bucket_end == NULL or bucket_end == start + 5:
        return None
    if path_end == bucket_end + 1 or path_end - bucket_end - 1 > KEY_MAX:
        return None
    for place in range(COUNT):
        values[place].at = NULL
        values[place].length = 0
    if not read_headers(p + 11, end, values):
        return None
    for place in range(COUNT):
        if values[place].at != NULL:
            present |= <uint32_t>1 << place
    value = &values[AUTHORIZATION]
    if values[HOST].length == 0 or value.length <= SIGNATURE or not is_content(&values[CONTENT]):
        return None
    if values[CONNECTION].at != NULL and not same(&values[CONNECTION], b"keep-alive", 10):
        return None
    found = PyDict_GetItem(
        forms, PyBytes_FromStringAndSize(<const char *>value.at, value.length - SIGNATURE)
    )
    if found == NULL:
        return None
    form = <object>found
    if not form.known or not form.signed & (1 << HOST) or form.signed & ~present:
        return None
    if present & AMAZON & ~form.signed or not timely(form, &values[DATE], now_ms, skew_ms):
        return None
    if put:
        if not well_formed_put(values):
            return None
    elif not well_formed_get(values):
        return None
    if not verified(form, start, size, start + 4, path_end, values):
        return None
    return described(form, put, start + 4, bucket_end, path_end, values)


cdef bint well_formed_get(Value *values) noexcept:
    cdef int place
    for place in range(LENGTH, COUNT):
        if values[place].at != NULL:
            return False
    return values[CONTENT].length == 16 or (
        memcmp(values[CONTENT].at, PyBytes_AS_STRING(EMPTY), 64) == 0
    )


cdef bint well_formed_put(Value *values) noexcept:
    """Content-Length is a small number, and there is one checksum at most, the one announced."""
    cdef int place = the_checksum(values)
    cdef Value *said = &values[SDK]
    cdef Py_ssize_t size = content_length(values)
    if values[MODE].at != NULL or place == -2 or size < 0 or size > BODY_MAX:
        return False
    if said.at == NULL:
        return True
    if place < 0:
        return said.length == 0
    return same(said, KNOWN[place].text + 15, KNOWN[place].length - 15)  # behind x-amz-checksum-


cdef int the_checksum(Value *values) noexcept:
    """The place of the one checksum that was sent; -1 for none, -2 for more."""
    cdef int place, found = -1
    for place in range(SUMS, COUNT):
        if values[place].at != NULL:
            if found >= 0:
                return -2
            found = place
    return found


cdef Py_ssize_t content_length(Value *values) noexcept:
    cdef Value *value = &values[LENGTH]
    cdef Py_ssize_t i, size = 0
    if value.length < 1 or value.length > 9:
        return -1
    for i in range(value.length):
        if not 48 <= value.at[i] <= 57:
            return -1
        size = size * 10 + value.at[i] - 48
    return size


cdef Everyday described(
    Form form, bint put, Bytes path, Bytes bucket_end, Bytes path_end, Value *values
):
    cdef Everyday made = Everyday.__new__(Everyday)
    cdef int place
    made.form = form
    made.put = put
    made.target = PyBytes_FromStringAndSize(<const char *>path, path_end - path)
    made.bucket = PyBytes_FromStringAndSize(<const char *>path + 1, bucket_end - path - 1)
    made.key = PyBytes_FromStringAndSize(<const char *>bucket_end + 1, path_end - bucket_end - 1)
    made.payload = made.checksum = b""
    made.algorithm = ""
    if not put:
        made.checksum_mode = same(&values[MODE], b"enabled", 7)
        return made
    made.length = content_length(values)
    if values[CONTENT].length == 64:
        made.payload = taken(&values[CONTENT])
    if values[TYPE].at != NULL:
        made.content_type = taken(&values[TYPE])
    if values[MD5].at != NULL:
        made.md5 = taken(&values[MD5])
    place = the_checksum(values)
    if place >= 0:
        made.algorithm = CHECKSUMS[place - SUMS]
        made.checksum = taken(&values[place])
    return made
