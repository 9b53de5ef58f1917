# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# distutils: libraries = pthread
"""A lane: one native thread that runs jobs in order and reports through an eventfd.

The compiled form of ``lane_py``, which is the specification. The thread never takes the GIL: a
Python thread waits 5 ms and more for it on a busy loop. What the thread touches is C memory only:

    Shared   one a lane, malloc'ed: mutex, queues, eventfd. Freed by close() after the join.
    Work     inside each Job: its steps, its outcome, its place in a queue. The lane keeps a
             reference to the Job (an INCREF in submit, the DECREF in deliver) while it is queued.
    Step     malloc'ed one by one, since a Py_buffer must not move while it is exported.
"""

import os
import warnings

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EINTR, EIO, ENOSYS, errno
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free

from ingot._speedups.digest_c cimport Hasher, feed

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_t:
        pass
    ctypedef struct pthread_attr_t:
        pass
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    int pthread_attr_init(pthread_attr_t *attributes)
    int pthread_attr_destroy(pthread_attr_t *attributes)
    int pthread_attr_setstacksize(pthread_attr_t *attributes, size_t bytes)
    int pthread_create(
        pthread_t *thread, pthread_attr_t *attributes, void *(*run)(void *) noexcept nogil, void *
    )
    int pthread_join(pthread_t thread, void **result)
    int pthread_setname_np(pthread_t thread, const char *name)
    int pthread_mutex_init(pthread_mutex_t *mutex, void *attributes)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)
    int pthread_cond_init(pthread_cond_t *condition, void *attributes)
    int pthread_cond_destroy(pthread_cond_t *condition)
    int pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex)
    int pthread_cond_signal(pthread_cond_t *condition)

cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    int SIG_SETMASK
    int sigfillset(sigset_t *signals)
    int pthread_sigmask(int how, const sigset_t *signals, sigset_t *before)

cdef extern from "<sys/types.h>" nogil:
    ctypedef int pid_t
    ctypedef Py_ssize_t ssize_t

cdef extern from "<sys/eventfd.h>" nogil:
    int EFD_CLOEXEC
    int EFD_NONBLOCK
    int eventfd(unsigned int count, int flags)

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    ssize_t pwritev(int fd, const iovec *vector, int count, int64_t offset)

cdef extern from "<unistd.h>" nogil:
    ssize_t read(int fd, void *data, size_t length)
    ssize_t write(int fd, const void *data, size_t length)
    ssize_t pread(int fd, void *data, size_t length, int64_t offset)
    int fdatasync(int fd)
    int close(int fd)
    pid_t getpid()

cdef extern from "<fcntl.h>" nogil:
    unsigned int SYNC_FILE_RANGE_WRITE
    int sync_file_range(int fd, int64_t offset, int64_t length, unsigned int flags)


cdef enum:
    VECTOR_MAX = 1024  # IOV_MAX
    STACK_BYTES = 256 * 1024

cdef enum Kind:
    PWRITE
    PREAD
    FDATASYNC
    SYNC_FILE_RANGE
    UPDATE

cdef enum State:
    BUILDING
    SUBMITTED
    DONE

cdef struct Step:
    Kind kind
    int fd
    int64_t offset
    int64_t length
    unsigned char *data
    void *context  # a hasher's EVP_MD_CTX; the job keeps the hasher
    Py_buffer view
    bint exported  # ``view`` is to be released
    Step *next

cdef struct Work:
    Step *first
    int error
    int failed_step
    void *job  # the Job this stands in
    Work *next

cdef struct Shared:
    pthread_mutex_t mutex
    pthread_cond_t changed
    Work *pending
    Work *pending_last
    Work *finished
    Work *finished_last
    bint closing
    int event
    iovec vector[VECTOR_MAX]  # the thread's own


cdef int run_writes(Step **at, int *index, iovec *vector) noexcept nogil:
    """Write the steps from ``at`` on that continue one another; 0 or an errno, ``at`` moved on."""
    cdef Step *step = at[0]
    cdef int fd = step.fd
    cdef int64_t offset = step.offset
    cdef int64_t end = offset
    cdef int count = 0
    cdef int begin = 0
    cdef ssize_t written
    while (
        step != NULL
        and count < VECTOR_MAX
        and step.kind == PWRITE
        and step.fd == fd
        and step.offset == end
    ):
        vector[count].iov_base = step.data
        vector[count].iov_len = <size_t>step.length
        end += step.length
        count += 1
        step = step.next
    at[0] = step
    while True:
        while begin < count and vector[begin].iov_len == 0:
            begin += 1
            index[0] += 1
        if begin == count:
            return 0
        written = pwritev(fd, vector + begin, count - begin, offset)
        if written < 0:
            if errno == EINTR:
                continue
            return errno
        if written == 0:
            return EIO
        offset += written
        while begin < count and <size_t>written >= vector[begin].iov_len:
            written -= <ssize_t>vector[begin].iov_len
            begin += 1
            index[0] += 1
        if written:
            vector[begin].iov_base = <unsigned char *>vector[begin].iov_base + written
            vector[begin].iov_len -= <size_t>written


cdef int run_read(Step *step) noexcept nogil:
    cdef unsigned char *data = step.data
    cdef int64_t left = step.length
    cdef int64_t offset = step.offset
    cdef ssize_t got
    while left:
        got = pread(step.fd, data, <size_t>left, offset)
        if got < 0:
            if errno == EINTR:
                continue
            return errno
        if got == 0:
            return EIO
        data += got
        offset += got
        left -= got
    return 0


cdef int run_step(Step *step) noexcept nogil:
    """One step that is not a write; 0 or an errno."""
    if step.kind == PREAD:
        return run_read(step)
    if step.kind == FDATASYNC:
        # Never repeated, whatever the error: a second sync of a failed file proves nothing.
        return errno if fdatasync(step.fd) < 0 else 0
    if step.kind == SYNC_FILE_RANGE:
        if sync_file_range(step.fd, step.offset, step.length, SYNC_FILE_RANGE_WRITE) < 0:
            return 0 if errno == ENOSYS else errno
        return 0
    return 0 if feed(step.context, step.data, <size_t>step.length) else EIO


cdef void run_work(Work *work, iovec *vector) noexcept nogil:
    cdef Step *step = work.first
    cdef int index = 0
    cdef int error
    while step != NULL:
        if step.kind == PWRITE:
            error = run_writes(&step, &index, vector)
        else:
            error = run_step(step)
            if not error:
                step = step.next
                index += 1
        if error:
            work.error = error
            work.failed_step = index
            return


cdef void *run_lane(void *argument) noexcept nogil:
    cdef Shared *shared = <Shared *>argument
    cdef Work *work
    cdef uint64_t one = 1
    cdef bint announce
    pthread_mutex_lock(&shared.mutex)
    while True:
        while shared.pending == NULL and not shared.closing:
            pthread_cond_wait(&shared.changed, &shared.mutex)
        work = shared.pending
        if work == NULL:
            break
        shared.pending = work.next
        pthread_mutex_unlock(&shared.mutex)
        run_work(work, shared.vector)
        pthread_mutex_lock(&shared.mutex)
        work.next = NULL
        announce = shared.finished == NULL
        if announce:
            shared.finished = work
        else:
            shared.finished_last.next = work
        shared.finished_last = work
        if announce:
            pthread_mutex_unlock(&shared.mutex)
            write(shared.event, &one, 8)
            pthread_mutex_lock(&shared.mutex)
    pthread_mutex_unlock(&shared.mutex)
    return NULL


cdef class Job:
    """Steps for a lane, in order. A job runs once."""

    cdef Work work
    cdef Step *last
    cdef State state
    cdef list hashers
    cdef object done
    cdef readonly Py_ssize_t bytes  # in all its buffers
    cdef public object token  # the submitter's own

    def __cinit__(self):
        self.work.failed_step = -1
        self.work.job = <void *>self

    def __dealloc__(self):
        self.free_steps()

    @property
    def error(self) -> int:
        """errno of the failed step, 0 when all went well"""
        return self.work.error

    @property
    def failed_step(self) -> int:
        """index of that step, -1 when all went well"""
        return self.work.failed_step

    def pwrite(self, int fd, int64_t offset, buffer) -> None:
        """Write all of ``buffer`` at ``offset``."""
        self.add(PWRITE, fd, offset, buffer, PyBUF_SIMPLE)

    def pread(self, int fd, int64_t offset, buffer) -> None:
        """Fill the whole (writable) buffer; a short file is EIO."""
        self.add(PREAD, fd, offset, buffer, PyBUF_WRITABLE)

    def fdatasync(self, int fd) -> None:
        """Make what was written to ``fd`` durable."""
        self.add(FDATASYNC, fd, 0, None, 0)

    def sync_file_range(self, int fd, int64_t offset, int64_t length) -> None:
        """Start writing a range back; a hint, which a file system may not know."""
        self.add(SYNC_FILE_RANGE, fd, offset, None, 0).length = length

    def update(self, Hasher hasher not None, buffer) -> None:
        """Feed ``hasher``, which belongs to the job from its submission to its completion."""
        self.add(UPDATE, -1, 0, buffer, PyBUF_SIMPLE).context = hasher.context
        if self.hashers is None:
            self.hashers = []
        self.hashers.append(hasher)

    cdef Step *add(self, Kind kind, int fd, int64_t offset, buffer, int flags) except NULL:
        cdef Step *step
        if self.state != BUILDING:
            raise RuntimeError("the job was submitted already")
        step = <Step *>calloc(1, sizeof(Step))
        if step == NULL:
            raise MemoryError
        step.kind = kind
        step.fd = fd
        step.offset = offset
        if buffer is not None:
            try:
                PyObject_GetBuffer(buffer, &step.view, flags)
            except BaseException:
                free(step)
                raise
            step.exported = True
            step.data = <unsigned char *>step.view.buf
            step.length = step.view.len
            self.bytes += step.view.len
        if self.last == NULL:
            self.work.first = step
        else:
            self.last.next = step
        self.last = step
        return step

    cdef int hold(self, int count) except -1:
        cdef Hasher hasher
        if self.hashers is not None:
            for hasher in self.hashers:
                hasher.held += count
        return 0

    cdef void free_steps(self) noexcept:
        """Give the buffers back; the lane no longer knows this job."""
        cdef Step *step = self.work.first
        cdef Step *following
        self.work.first = self.last = NULL
        while step != NULL:
            following = step.next
            if step.exported:
                PyBuffer_Release(&step.view)
            free(step)
            step = following


cdef class Lane:
    """One thread with a FIFO of jobs; see ``ingot.ports.Lane``.

    ``fileno()`` turns readable when completions wait; ``drain()`` delivers them on the caller's
    thread. ``jobs`` and ``bytes`` count what was submitted and not yet delivered. In a child after
    a fork the thread is gone: ``submit`` refuses, everything else does nothing.
    """

    cdef Shared *shared  # owned; NULL once closed
    cdef pthread_t thread
    cdef pid_t pid
    cdef readonly str name
    cdef readonly Py_ssize_t jobs
    cdef readonly Py_ssize_t bytes

    def __cinit__(self, str name):
        cdef Shared *shared
        self.name = name
        self.pid = getpid()
        shared = <Shared *>calloc(1, sizeof(Shared))
        if shared == NULL:
            raise MemoryError
        pthread_mutex_init(&shared.mutex, NULL)
        pthread_cond_init(&shared.changed, NULL)
        shared.event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if shared.event < 0:
            number = errno
            free(shared)
            raise OSError(number, os.strerror(number))
        self.shared = shared
        number = self.start(name.encode()[:15])
        if number:
            self.free_shared()
            raise OSError(number, os.strerror(number))

    cdef int start(self, bytes label) except -1:
        """Start the thread with every signal blocked; 0 or an errno."""
        cdef pthread_attr_t attributes
        cdef sigset_t every
        cdef sigset_t before
        cdef int number
        sigfillset(&every)
        pthread_attr_init(&attributes)
        pthread_attr_setstacksize(&attributes, STACK_BYTES)
        pthread_sigmask(SIG_SETMASK, &every, &before)  # the new thread inherits the mask
        number = pthread_create(&self.thread, &attributes, run_lane, self.shared)
        pthread_sigmask(SIG_SETMASK, &before, NULL)
        pthread_attr_destroy(&attributes)
        if not number:
            pthread_setname_np(self.thread, label)
        return number

    def __del__(self):
        if self.shared != NULL and self.pid == getpid():
            try:
                warnings.warn(f"lane {self.name} was never closed", ResourceWarning, stacklevel=2)
            finally:
                self.close()

    def job(self) -> Job:
        """A new, empty job."""
        return Job.__new__(Job)

    def fileno(self) -> int:
        """The eventfd; -1 once closed."""
        return -1 if self.shared == NULL else self.shared.event

    def submit(self, Job job not None, done) -> None:
        """Run ``job`` after those before it; ``drain`` calls ``done(job)`` afterwards."""
        cdef Shared *shared = self.shared
        if self.pid != getpid():
            raise RuntimeError("the lane belongs to the parent of this process")
        if shared == NULL or shared.closing:
            raise RuntimeError("the lane is closed")
        if job.state != BUILDING:
            raise RuntimeError("the job was submitted already")
        job.state = SUBMITTED
        job.done = done
        job.hold(1)
        self.jobs += 1
        self.bytes += job.bytes
        Py_INCREF(job)  # the partner is in deliver()
        job.work.next = NULL
        pthread_mutex_lock(&shared.mutex)
        if shared.pending == NULL:
            shared.pending = &job.work
        else:
            shared.pending_last.next = &job.work
        shared.pending_last = &job.work
        pthread_mutex_unlock(&shared.mutex)
        pthread_cond_signal(&shared.changed)

    def drain(self) -> None:
        """Deliver every completion that waits; then raise what the first failed callback raised."""
        cdef Shared *shared = self.shared
        cdef Work *work
        cdef Work *following
        cdef uint64_t count = 0
        if shared == NULL or self.pid != getpid():
            return
        # Before the list is taken: a completion after this line announces itself anew.
        read(shared.event, &count, 8)
        pthread_mutex_lock(&shared.mutex)
        work = shared.finished
        shared.finished = shared.finished_last = NULL
        pthread_mutex_unlock(&shared.mutex)
        failure = None
        while work != NULL:
            following = work.next
            try:
                self.deliver(<Job>work.job)
            except BaseException as error:
                if failure is None:
                    failure = error
            work = following
        if failure is not None:
            raise failure

    cdef int deliver(self, Job job) except -1:
        done = job.done
        job.state = DONE
        job.done = None
        self.jobs -= 1
        self.bytes -= job.bytes
        job.hold(-1)
        job.hashers = None
        job.free_steps()
        Py_DECREF(job)  # the partner is in submit(); the argument holds one still
        done(job)
        return 0

    def close(self) -> None:
        """Finish what was submitted, deliver completions, join the thread."""
        cdef Shared *shared = self.shared
        if shared == NULL or shared.closing:
            return
        if self.pid != getpid():
            # The mutex may be held by a thread that does not exist here: nothing is touched.
            self.shared = NULL
            close(shared.event)
            return
        pthread_mutex_lock(&shared.mutex)
        shared.closing = True
        pthread_mutex_unlock(&shared.mutex)
        pthread_cond_signal(&shared.changed)
        with nogil:
            pthread_join(self.thread, NULL)
        try:
            self.drain()
        finally:
            self.free_shared()

    cdef int free_shared(self) except -1:
        cdef Shared *shared = self.shared
        self.shared = NULL
        close(shared.event)
        pthread_cond_destroy(&shared.changed)
        pthread_mutex_destroy(&shared.mutex)
        free(shared)
        return 0
