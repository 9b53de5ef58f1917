# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The load generator's loop: one thread, one epoll, no Python object while it runs.

Every connection has one request under way. Requests come ready-made; the next one in the list goes
out on whichever connection is free. A response's body is received in full (copied, as a client
would) by its Content-Length and nothing of it is looked at. Every latency, from before the first
send to after the last byte, is counted in a histogram of 64 steps an octave (1.6 %).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, ECONNRESET, EINPROGRESS, EINTR, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

cdef extern from "sys/epoll.h" nogil:
    enum:
        EPOLLIN
        EPOLLOUT
        EPOLL_CTL_ADD
        EPOLL_CTL_MOD
        EPOLL_CLOEXEC
    union epoll_data_t:
        uint32_t u32
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int fd, epoll_event *event)
    int epoll_wait(int epoll, epoll_event *events, int count, int timeout)

cdef extern from "sys/uio.h" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "sys/socket.h" nogil:
    enum:
        AF_INET
        SOCK_STREAM
        SOCK_NONBLOCK
        SOCK_CLOEXEC
        SOL_SOCKET
        SO_ERROR
        MSG_NOSIGNAL
        MSG_DONTWAIT
    ctypedef unsigned int socklen_t
    struct sockaddr:
        pass
    struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
    int socket(int domain, int kind, int protocol)
    int connect(int fd, const sockaddr *address, socklen_t size)
    int setsockopt(int fd, int level, int option, const void *value, socklen_t size)
    int getsockopt(int fd, int level, int option, void *value, socklen_t *size)
    ssize_t sendmsg(int fd, const msghdr *message, int flags)
    ssize_t recv(int fd, void *buffer, size_t size, int flags)

cdef extern from "netinet/in.h" nogil:
    enum:
        IPPROTO_TCP
    struct in_addr:
        uint32_t s_addr
    struct sockaddr_in:
        unsigned short sin_family
        unsigned short sin_port
        in_addr sin_addr
    unsigned short htons(unsigned short port)

cdef extern from "netinet/tcp.h" nogil:
    enum:
        TCP_NODELAY

cdef extern from "arpa/inet.h" nogil:
    int inet_pton(int family, const char *text, void *address)

cdef extern from "unistd.h" nogil:
    int close(int fd)

cdef extern from "time.h" nogil:
    enum:
        CLOCK_MONOTONIC
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *now)

cdef extern from "string.h" nogil:
    void *memmem(const void *hay, size_t hay_size, const void *needle, size_t size)
    int strncasecmp(const char *a, const char *b, size_t size)

cdef extern from *:
    """
    static inline int msb(uint64_t value) { return 63 - __builtin_clzll(value | 1); }
    """
    int msb(uint64_t value) nogil

cdef enum:
    HEAD_BYTES = 16384
    SCRATCH_BYTES = 1 << 20
    STEPS = 64  # of the histogram, an octave
    SLOTS = 60 * STEPS
    SLICES = 36000  # of a tenth of a second: an hour
    RECVS_A_TURN = 16  # of one connection, before the others get theirs
    EVENTS = 512

cdef enum State:
    CONNECTING
    SENDING
    HEAD
    BODY
    IDLE

cdef struct Connection:
    int fd
    State state
    uint32_t events  # that epoll watches for
    uint32_t tries  # connects since the last response
    size_t request
    size_t sent
    size_t held  # bytes in ``head``
    uint64_t left  # bytes of the response body still to come
    uint64_t began
    int status
    bint last  # the server closes after this response
    char *head

cdef struct Load:
    sockaddr_in address
    int epoll
    const char *heads
    const uint64_t *ends  # of head i: ends[i] to ends[i + 1]
    const char *body
    const uint64_t *body_at  # request i's body starts here in ``body``
    size_t body_size
    size_t count  # of requests
    size_t issued
    bint once
    size_t active  # connections with a request under way
    uint64_t warm_until
    uint64_t stop_at
    uint64_t started  # of the measured part
    uint64_t last
    uint64_t now
    uint64_t measured
    uint64_t received
    uint64_t sum_ns
    uint64_t min_ns
    uint64_t max_ns
    uint64_t reconnects
    uint64_t broken  # requests that ended without a whole response
    int refused  # errno of the last connect that failed
    int fatal  # errno of what ended the run
    size_t sample_size
    char *scratch
    uint64_t[SLOTS] histogram
    uint32_t[SLICES] slices
    uint32_t[1000] statuses
    char[600] sample  # the start of the first response that was not 2xx


def run(
    host: str,
    port: int,
    heads: bytes,
    ends: object,
    body: bytes,
    body_at: object,
    body_size: int,
    connections: int,
    warm_s: float,
    run_s: float,
    once: bool,
) -> dict:
    """Send ``heads[ends[i]:ends[i + 1]]`` and ``body_size`` bytes of ``body`` from ``body_at[i]``
    for i = 0, 1, ... (again from 0 after the last, unless ``once``), for ``run_s`` seconds after
    ``warm_s`` that are not counted. What is under way then is waited for, two minutes at most."""
    cdef const uint64_t[::1] ends_view = ends
    cdef const uint64_t[::1] body_view = body_at
    cdef Load *load
    cdef Connection *pool = NULL
    cdef Connection *each
    cdef Py_ssize_t index
    cdef size_t total = connections
    cdef bytes address = host.encode()
    if len(ends_view) != len(body_view) + 1 or len(body_view) == 0:
        raise ValueError("one end more than requests, and one request at least")
    load = <Load *>calloc(1, sizeof(Load))
    pool = <Connection *>calloc(total, sizeof(Connection))
    if load == NULL or pool == NULL:
        raise MemoryError
    try:
        load.address.sin_family = AF_INET
        load.address.sin_port = htons(port)
        if inet_pton(AF_INET, PyBytes_AS_STRING(address), &load.address.sin_addr) != 1:
            raise ValueError(f"not an IPv4 address: {host}")
        load.heads, load.ends = PyBytes_AS_STRING(heads), &ends_view[0]
        load.body, load.body_at = PyBytes_AS_STRING(body), &body_view[0]
        load.body_size, load.count, load.once = body_size, len(body_view), once
        whole = ends_view[len(ends_view) - 1] <= <uint64_t>PyBytes_GET_SIZE(heads)
        if not whole or max(body_at) + body_size > PyBytes_GET_SIZE(body):
            raise ValueError("requests run past their buffers")
        load.min_ns = <uint64_t>-1
        load.scratch = <char *>calloc(1, SCRATCH_BYTES)
        load.epoll = epoll_create1(EPOLL_CLOEXEC)
        if load.scratch == NULL or load.epoll < 0:
            raise MemoryError
        for index in range(<Py_ssize_t>total):
            pool[index].fd = -1
            pool[index].head = <char *>calloc(1, HEAD_BYTES)
            if pool[index].head == NULL:
                raise MemoryError
        with nogil:
            drive(load, pool, total, <uint64_t>(warm_s * 1e9), <uint64_t>(run_s * 1e9))
        if load.fatal:
            raise OSError(load.fatal, f"cannot go on against {host}:{port}")
        return report(load)
    finally:
        for index in range(<Py_ssize_t>total):
            each = &pool[index]
            if each.fd >= 0 and each.head != NULL:
                close(each.fd)
            free(each.head)
        if load.epoll > 0:
            close(load.epoll)
        free(load.scratch)
        free(pool)
        free(load)


cdef dict report(Load *load):
    cdef Py_ssize_t index
    return {
        "requests": load.measured,
        "elapsed_ns": load.last - load.started if load.last > load.started else 0,
        "received_bytes": load.received,
        "sum_ns": load.sum_ns,
        "min_ns": load.min_ns if load.measured else 0,
        "max_ns": load.max_ns,
        "reconnects": load.reconnects,
        "broken": load.broken,
        "issued": load.issued,
        "statuses": {
            index: load.statuses[index] for index in range(1000) if load.statuses[index]
        },
        "histogram": {
            index: load.histogram[index] for index in range(SLOTS) if load.histogram[index]
        },
        "tenths": trim([load.slices[index] for index in range(SLICES)]),
        "sample": PyBytes_FromStringAndSize(load.sample, load.sample_size),
    }


cdef list trim(list counts):
    cdef Py_ssize_t size = len(counts)
    while size and counts[size - 1] == 0:
        size -= 1
    return counts[:size]


cdef uint64_t clock() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint64_t>now.tv_sec * 1000000000 + <uint64_t>now.tv_nsec


cdef void drive(
    Load *load, Connection *pool, size_t total, uint64_t warm, uint64_t length
) noexcept nogil:
    cdef epoll_event[EVENTS] events
    cdef size_t index
    cdef int count, at
    load.now = clock()
    load.warm_until = load.now + warm
    load.stop_at = load.warm_until + length
    load.started = load.warm_until
    for index in range(total):
        open_connection(load, pool, index)
    while load.active and not load.fatal:
        count = epoll_wait(load.epoll, events, EVENTS, 100)
        if count < 0 and errno != EINTR:
            load.fatal = errno
            return
        load.now = clock()
        if load.now > load.stop_at + <uint64_t>600000000000:
            load.broken += load.active
            return
        for at in range(count):
            turn(load, pool, events[at].data.u32, events[at].events)
            if load.fatal:
                return


# -- one connection -----------------------------------------------------------------------------

cdef void open_connection(Load *load, Connection *pool, size_t index) noexcept nogil:
    cdef Connection *each = &pool[index]
    cdef epoll_event event
    cdef int one = 1
    if each.tries > 20:
        load.fatal = load.refused if load.refused else ECONNRESET
        return
    each.tries += 1
    each.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if each.fd < 0:
        load.fatal = errno
        return
    setsockopt(each.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
    if connect(each.fd, <const sockaddr *>&load.address, sizeof(load.address)) < 0:
        if errno != EINPROGRESS and errno != EAGAIN:
            load.fatal = errno
            return
    each.state = CONNECTING
    each.events = EPOLLOUT
    event.events = EPOLLOUT
    event.data.u32 = <uint32_t>index
    epoll_ctl(load.epoll, EPOLL_CTL_ADD, each.fd, &event)
    load.active += 1


cdef void watch(Load *load, Connection *pool, size_t index, uint32_t events) noexcept nogil:
    cdef epoll_event event
    if pool[index].events != events:
        pool[index].events = events
        event.events = events
        event.data.u32 = <uint32_t>index
        epoll_ctl(load.epoll, EPOLL_CTL_MOD, pool[index].fd, &event)


cdef void turn(Load *load, Connection *pool, size_t index, uint32_t events) noexcept nogil:
    cdef Connection *each = &pool[index]
    cdef int error = 0
    cdef socklen_t size = sizeof(error)
    if each.state == CONNECTING:
        getsockopt(each.fd, SOL_SOCKET, SO_ERROR, &error, &size)
        if error:
            load.refused = error
            again(load, pool, index)
        else:
            begin(load, pool, index)
        return
    if events & EPOLLOUT:
        push(load, pool, index)
    if events & ~<uint32_t>EPOLLOUT and each.fd >= 0 and each.state != CONNECTING:
        pull(load, pool, index)


cdef void again(Load *load, Connection *pool, size_t index) noexcept nogil:
    """The connection is gone: open another in its place."""
    close(pool[index].fd)
    pool[index].fd = -1
    load.active -= 1
    load.reconnects += 1
    if load.now < load.stop_at:
        open_connection(load, pool, index)


cdef void begin(Load *load, Connection *pool, size_t index) noexcept nogil:
    """The next request, if there is one."""
    cdef Connection *each = &pool[index]
    if load.now >= load.stop_at or (load.once and load.issued == load.count):
        each.state = IDLE
        load.active -= 1
        watch(load, pool, index, 0)
        return
    each.request = load.issued % load.count
    load.issued += 1
    each.sent = each.held = 0
    each.state = SENDING
    each.began = clock()
    push(load, pool, index)


cdef void push(Load *load, Connection *pool, size_t index) noexcept nogil:
    cdef Connection *each = &pool[index]
    cdef size_t start = load.ends[each.request]
    cdef size_t head = load.ends[each.request + 1] - start
    cdef size_t total = head + load.body_size
    cdef iovec[2] parts
    cdef msghdr message
    cdef size_t done
    cdef ssize_t size
    if each.state != SENDING:
        return
    memset(&message, 0, sizeof(message))
    message.msg_iov = parts
    while each.sent < total:
        done = each.sent - head if each.sent > head else 0
        parts[1].iov_base = <void *>(load.body + load.body_at[each.request] + done)
        parts[1].iov_len = load.body_size - done
        if each.sent < head:
            parts[0].iov_base = <void *>(load.heads + start + each.sent)
            parts[0].iov_len = head - each.sent
        else:
            parts[0] = parts[1]
            parts[1].iov_len = 0
        message.msg_iovlen = 2 if parts[1].iov_len else 1
        size = sendmsg(each.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT)
        if size < 0:
            if errno == EAGAIN:
                watch(load, pool, index, EPOLLIN | EPOLLOUT)
                return
            if errno == EINTR:
                continue
            lost(load, pool, index)
            return
        each.sent += size
    each.state = HEAD
    watch(load, pool, index, EPOLLIN)


cdef void lost(Load *load, Connection *pool, size_t index) noexcept nogil:
    """The connection ended before its response did."""
    load.broken += 1
    again(load, pool, index)


cdef void pull(Load *load, Connection *pool, size_t index) noexcept nogil:
    cdef Connection *each = &pool[index]
    cdef ssize_t size
    cdef size_t room
    cdef int _
    for _ in range(RECVS_A_TURN):
        if each.state == BODY:
            room = SCRATCH_BYTES if each.left > SCRATCH_BYTES else each.left
            size = recv(each.fd, load.scratch, room, MSG_DONTWAIT)
        else:
            size = recv(each.fd, each.head + each.held, HEAD_BYTES - each.held, MSG_DONTWAIT)
        if size < 0 and (errno == EAGAIN or errno == EINTR):
            return
        if size <= 0:
            if each.state == IDLE:
                close(each.fd)
                each.fd = -1
            else:
                lost(load, pool, index)
            return
        if each.state == BODY:
            each.left -= size
            load.received += size
            if each.left == 0:
                finish(load, pool, index)
                return
            continue
        each.held += size
        if parse(load, each):
            if each.left == 0:
                finish(load, pool, index)
                return
            each.state = BODY
        elif each.held == HEAD_BYTES or each.status < 0:
            lost(load, pool, index)
            return


cdef bint parse(Load *load, Connection *each) noexcept nogil:
    """True when the head is whole. Sets ``status`` (-1: this is not HTTP), ``left``, ``last``."""
    cdef const char *end = <const char *>memmem(each.head, each.held, b"\r\n\r\n", 4)
    cdef const char *at
    cdef const char *line
    cdef size_t extra
    each.status = 0
    if end == NULL:
        return False
    if each.held < 12 or strncasecmp(each.head, b"HTTP/1.1 ", 9) != 0:
        each.status = -1
        return False
    each.status = (each.head[9] - 48) * 100 + (each.head[10] - 48) * 10 + (each.head[11] - 48)
    each.left = 0
    each.last = False
    at = each.head
    while at < end:
        line = <const char *>memmem(at, end + 2 - at, b"\r\n", 2) + 2
        if strncasecmp(line, b"content-length:", 15) == 0:
            at = line + 15
            while at[0] == 32:
                at += 1
            each.left = 0
            while 48 <= at[0] <= 57:
                each.left = each.left * 10 + <uint64_t>(at[0] - 48)
                at += 1
        elif strncasecmp(line, b"connection: close", 17) == 0:
            each.last = True
        at = line
    if not 200 <= each.status < 300 and load.sample_size == 0:
        load.sample_size = each.held if each.held < sizeof(load.sample) else sizeof(load.sample)
        memcpy(load.sample, each.head, load.sample_size)
    extra = each.held - (end + 4 - each.head)
    load.received += extra
    if extra > each.left:
        each.status = -1
        return False
    each.left -= extra
    return True


cdef void finish(Load *load, Connection *pool, size_t index) noexcept nogil:
    """A whole response is here: count it, and send the next request."""
    cdef Connection *each = &pool[index]
    cdef uint64_t now = clock()
    cdef uint64_t taken = now - each.began
    cdef uint64_t slice
    cdef size_t head = load.ends[each.request + 1] - load.ends[each.request]
    cdef int high, shift
    load.now = now
    each.tries = 0
    if each.began >= load.warm_until:
        load.measured += 1
        load.last = now
        load.sum_ns += taken
        if taken < load.min_ns:
            load.min_ns = taken
        if taken > load.max_ns:
            load.max_ns = taken
        high = msb(taken)
        shift = high - 6 if high > 6 else 0
        load.histogram[taken if high < 6 else (shift + 1) * STEPS + ((taken >> shift) & 63)] += 1
        load.statuses[each.status % 1000] += 1
        slice = (now - load.started) // 100000000
        if slice < SLICES:
            load.slices[slice] += 1
    if each.last or each.sent < head + load.body_size:
        again(load, pool, index)  # closing, or answered before it had all of the request
    else:
        begin(load, pool, index)
