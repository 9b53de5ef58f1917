"""A lane, compiled and twin: the steps, their order and failures, who owns the buffers, the end."""

from __future__ import annotations

import contextlib
import errno
import gc
import hashlib
import os
import resource
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingot._speedups import digest_c, digest_py, lane_c, lane_py

TWINS = [(lane_c, digest_c), (lane_py, digest_py)]


class Rig:
    """A lane and a file; ``run`` does a job and waits on the eventfd, as a loop would."""

    def __init__(self, modules: tuple[Any, Any], path: Path) -> None:
        self.lanes, self.digest = modules
        self.lane = self.lanes.Lane("ingot-test")
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        self.path = path

    def wait(self, finished: Callable[[], bool]) -> None:
        while not finished():
            ready, _, _ = select.select([self.lane.fileno()], [], [], 30)
            assert ready, "the lane announced nothing for 30 s"
            self.lane.drain()

    def run(self, job: Any) -> Any:
        done: list[Any] = []
        self.lane.submit(job, done.append)
        self.wait(lambda: bool(done))
        assert done == [job]
        return job

    def close(self) -> None:
        self.lane.close()
        os.close(self.fd)


@pytest.fixture(params=TWINS, ids=["compiled", "twin"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    made = Rig(request.param, tmp_path / "file")
    yield made
    made.close()


def test_steps_run_in_order_on_one_file(rig: Rig) -> None:
    job = rig.lane.job()
    into = bytearray(6)
    hasher = rig.digest.Hasher("sha256")
    job.pwrite(rig.fd, 0, b"abcdef")
    job.pwrite(rig.fd, 2, b"XY")
    job.fdatasync(rig.fd)
    job.sync_file_range(rig.fd, 0, 6)
    job.pread(rig.fd, 0, into)
    job.update(hasher, into)
    job.token = "mine"
    assert (job.bytes, job.error, job.failed_step) == (6 + 2 + 6 + 6, 0, -1)
    rig.run(job)
    assert (job.error, job.failed_step, job.token) == (0, -1, "mine")
    assert into == b"abXYef"
    assert hasher.digest() == hashlib.sha256(b"abXYef").digest()


def test_a_job_without_steps_completes_in_its_turn(rig: Rig) -> None:
    assert rig.run(rig.lane.job()).error == 0


def test_jobs_complete_in_the_order_of_submission(rig: Rig) -> None:
    seen: list[int] = []
    for number in range(200):
        job = rig.lane.job()
        job.token = number
        job.pwrite(rig.fd, 0, b"%03d" % number)
        rig.lane.submit(job, lambda job: seen.append(job.token))
    assert rig.lane.jobs == 200 and rig.lane.bytes == 600
    rig.wait(lambda: len(seen) == 200)
    assert seen == list(range(200))
    assert os.pread(rig.fd, 3, 0) == b"199"
    assert (rig.lane.jobs, rig.lane.bytes) == (0, 0)


def test_completions_are_delivered_on_the_thread_that_drains(rig: Rig) -> None:
    threads: list[int] = []
    rig.lane.submit(rig.lane.job(), lambda job: threads.append(threading.get_ident()))
    rig.wait(lambda: bool(threads))
    assert threads == [threading.get_ident()]


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_the_first_failure_ends_the_job_and_is_named(rig: Rig, failing: int) -> None:
    bad = os.open(rig.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        job = rig.lane.job()
        for step in range(3):
            job.pwrite(bad if step == failing else rig.fd, step, b"x")
        rig.run(job)
    finally:
        os.close(bad)
    assert (job.error, job.failed_step) == (errno.EBADF, failing)
    assert os.fstat(rig.fd).st_size == failing
    # The lane goes on with the next job.
    job = rig.lane.job()
    job.pwrite(rig.fd, 0, b"y")
    assert rig.run(job).error == 0


def test_reading_past_the_end_is_eio(rig: Rig) -> None:
    os.pwrite(rig.fd, b"abc", 0)
    job = rig.lane.job()
    into = bytearray(4)
    job.pread(rig.fd, 0, into)
    rig.run(job)
    assert (job.error, job.failed_step) == (errno.EIO, 0)


@pytest.mark.parametrize("step", ["fdatasync", "sync_file_range"])
def test_sync_errors_are_reported(rig: Rig, step: str) -> None:
    reader, writer = os.pipe()
    try:
        job = rig.lane.job()
        if step == "fdatasync":
            job.fdatasync(writer)
        else:
            job.sync_file_range(writer, 0, 1)
        rig.run(job)
    finally:
        os.close(reader)
        os.close(writer)
    assert job.error in (errno.EINVAL, errno.ESPIPE) and job.failed_step == 0


@contextlib.contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """Writes past ``limit`` are cut short, then refused: the kernel's own short writes."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("limit", [0, 1, 9, 10, 11, 25, 29, 30])
def test_a_short_write_goes_on_and_then_names_the_step_that_failed(rig: Rig, limit: int) -> None:
    job = rig.lane.job()
    for step in range(3):
        job.pwrite(rig.fd, 10 * step, b"0123456789")
    with file_size_limit(limit):
        rig.run(job)
    if limit < 30:
        assert (job.error, job.failed_step) == (errno.EFBIG, limit // 10)
    else:
        assert (job.error, job.failed_step) == (0, -1)
    assert os.fstat(rig.fd).st_size == limit


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    writes=st.lists(
        st.tuples(st.integers(0, 300), st.binary(max_size=40), st.booleans()), max_size=30
    )
)
def test_any_writes_leave_what_single_writes_would(
    rig: Rig, writes: list[tuple[int, bytes, bool]]
) -> None:
    os.ftruncate(rig.fd, 0)
    os.pwrite(rig.fd, b"\0" * 2000, 0)
    image, end = bytearray(2000), 0
    job = rig.lane.job()
    for offset, data, adjacent in writes:
        offset = end if adjacent else offset
        end = offset + len(data)
        job.pwrite(rig.fd, offset, data)
        image[offset:end] = data
    assert rig.run(job).error == 0
    assert os.pread(rig.fd, 3000, 0) == image


def test_more_adjacent_writes_than_one_call_takes(rig: Rig) -> None:
    data = bytes(range(256)) * 20
    job = rig.lane.job()
    for at in range(len(data)):
        job.pwrite(rig.fd, at, data[at : at + 1])
    assert rig.run(job).error == 0
    assert os.pread(rig.fd, len(data) + 1, 0) == data


def test_adjacent_writes_to_two_files_are_kept_apart(rig: Rig, tmp_path: Path) -> None:
    other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        job = rig.lane.job()
        job.pwrite(rig.fd, 0, b"aa")
        job.pwrite(other, 2, b"bb")
        job.pwrite(other, 4, b"cc")
        job.pwrite(rig.fd, 2, b"dd")
        assert rig.run(job).error == 0
        assert os.pread(rig.fd, 9, 0) == b"aadd"
        assert os.pread(other, 9, 0) == b"\0\0bbcc"
    finally:
        os.close(other)


def test_buffers_belong_to_the_job_until_the_completion(rig: Rig) -> None:
    data = bytearray(b"kept")
    job = rig.lane.job()
    job.pwrite(rig.fd, 0, data)
    with pytest.raises(BufferError):
        data.append(1)
    states: list[str] = []

    def done(job: Any) -> None:
        data.append(1)  # given back by now
        states.append("done")

    rig.lane.submit(job, done)
    rig.wait(lambda: bool(states))
    assert data == b"kept\x01"


def test_an_abandoned_job_gives_its_buffers_back(rig: Rig) -> None:
    data = bytearray(b"kept")
    job = rig.lane.job()
    job.pwrite(rig.fd, 0, data)
    del job
    gc.collect()
    data.append(1)


def test_a_buffer_that_nobody_else_holds_outlives_the_job(rig: Rig) -> None:
    job = rig.lane.job()
    for at in range(50):
        job.pwrite(rig.fd, at * 1000, bytes([at]) * 1000)
    done: list[Any] = []
    rig.lane.submit(job, done.append)
    del job
    gc.collect()
    rig.wait(lambda: bool(done))
    assert os.pread(rig.fd, 50_000, 0) == b"".join(bytes([at]) * 1000 for at in range(50))


def test_a_hasher_is_the_jobs_while_it_is_in_flight(rig: Rig) -> None:
    hasher = rig.digest.Hasher("md5")
    job = rig.lane.job()
    job.update(hasher, b"a" * 100_000)
    job.update(hasher, b"b")
    seen: list[bytes] = []
    rig.lane.submit(job, lambda job: seen.append(hasher.digest()))
    assert hasher.held == 2
    for use in (hasher.digest, hasher.copy, lambda: hasher.update(b"c")):
        with pytest.raises(RuntimeError, match="belongs to a job"):
            use()
    rig.wait(lambda: bool(seen))
    assert seen == [hashlib.md5(b"a" * 100_000 + b"b").digest()]
    hasher.update(b"c")


def test_what_a_job_refuses(rig: Rig) -> None:
    job = rig.lane.job()
    with pytest.raises((BufferError, TypeError)):
        job.pread(rig.fd, 0, b"read-only")
    with pytest.raises(TypeError):
        job.pwrite(rig.fd, 0, "text")
    with pytest.raises((TypeError, AttributeError)):
        job.update(None, b"")
        rig.lane.submit(job, print)
    job = rig.lane.job()
    rig.run(job)
    with pytest.raises(RuntimeError, match="submitted already"):
        job.fdatasync(rig.fd)
    with pytest.raises(RuntimeError, match="submitted already"):
        rig.lane.submit(job, print)


def test_a_failing_callback_hides_no_other_completion(rig: Rig) -> None:
    seen: list[int] = []

    def done(job: Any) -> None:
        seen.append(job.token)
        if job.token % 2:
            raise ValueError(job.token)

    for number in range(4):
        job = rig.lane.job()
        job.token = number
        rig.lane.submit(job, done)
    failures = []
    while len(seen) < 4:
        select.select([rig.lane.fileno()], [], [], 30)
        try:
            rig.lane.drain()
        except ValueError as error:
            failures.append(error.args[0])
    assert seen == [0, 1, 2, 3]
    assert failures and set(failures) <= {1, 3}


def test_closing_finishes_what_was_submitted(rig: Rig) -> None:
    seen: list[int] = []
    for number in range(20):
        job = rig.lane.job()
        job.token = number
        job.pwrite(rig.fd, number * 100_000, b"x" * 100_000)
        rig.lane.submit(job, lambda job: seen.append(job.token))
    rig.lane.close()
    assert seen == list(range(20))
    assert os.fstat(rig.fd).st_size == 2_000_000
    assert rig.lane.fileno() == -1
    with pytest.raises(RuntimeError, match="closed"):
        rig.lane.submit(rig.lane.job(), print)
    rig.lane.drain()
    rig.lane.close()


def test_a_completion_may_submit_and_close(rig: Rig) -> None:
    seen: list[str] = []

    def again(job: Any) -> None:
        seen.append("first")
        rig.lane.submit(rig.lane.job(), lambda job: seen.append("second"))
        rig.lane.close()

    rig.lane.submit(rig.lane.job(), again)
    rig.wait(lambda: bool(seen))
    assert seen == ["first", "second"]


def test_a_lane_that_nobody_closed_says_so(rig: Rig) -> None:
    lane = rig.lanes.Lane("forgotten")
    if rig.lanes is lane_py:  # its thread holds it, so only an explicit finaliser can tell
        with pytest.warns(ResourceWarning, match="forgotten"):
            lane.__del__()
        return
    with pytest.warns(ResourceWarning, match="forgotten"):
        del lane
        gc.collect()


def test_the_thread_is_named_and_blocks_every_signal(tmp_path: Path) -> None:
    rig = Rig((lane_c, digest_c), tmp_path / "file")
    rig.run(rig.lane.job())
    threads = {}
    for task in os.listdir("/proc/self/task"):
        status = Path(f"/proc/self/task/{task}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        threads[fields["Name"]] = int(fields["SigBlk"], 16)
    rig.close()
    assert all(
        threads["ingot-test"] >> (number - 1) & 1
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPROF)
    )


def test_descriptors_are_close_on_exec(rig: Rig) -> None:
    assert not os.get_inheritable(rig.lane.fileno())


def test_a_lane_is_dead_in_a_forked_child(rig: Rig) -> None:
    rig.run(rig.lane.job())
    child = os.fork()
    if child == 0:
        status = 1
        try:
            rig.lane.submit(rig.lane.job(), print)
        except RuntimeError:
            rig.lane.drain()
            rig.lane.close()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert status == 0
    job = rig.lane.job()
    job.pwrite(rig.fd, 0, b"parent")
    assert rig.run(job).error == 0


def test_a_busy_interpreter_does_not_stop_the_compiled_lane(tmp_path: Path) -> None:
    """The thread works while this one holds the GIL without a pause."""
    rig = Rig((lane_c, digest_c), tmp_path / "file")
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        seen: list[Any] = []
        os.pwrite(rig.fd, b"x", 0)
        into = bytearray(1)
        job = rig.lane.job()
        job.pread(rig.fd, 0, into)
        rig.lane.submit(job, seen.append)
        turns = 0
        while not into[0] and turns < 200_000_000:  # no call that lets go of the GIL
            turns += 1
        assert into == b"x"
        rig.wait(lambda: bool(seen))
    finally:
        sys.setswitchinterval(before)
        rig.close()


def test_a_recorded_job_is_a_list_that_others_can_interpret() -> None:
    job = lane_py.RecordedJob()
    hasher = digest_py.Hasher("sha1")
    job.pwrite(3, 10, b"data")
    job.pread(3, 20, bytearray(2))
    job.fdatasync(3)
    job.sync_file_range(3, 0, 100)
    job.update(hasher, b"more")
    assert [step[0] for step in job.steps] == [
        "pwrite",
        "pread",
        "fdatasync",
        "sync_file_range",
        "update",
    ]
    assert job.steps[0][1:3] == (3, 10) and bytes(job.steps[0][3]) == b"data"
    assert job.steps[2] == ("fdatasync", 3) and job.steps[3] == ("sync_file_range", 3, 0, 100)
    assert job.steps[4][1] is hasher
