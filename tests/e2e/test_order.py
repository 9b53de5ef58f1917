"""What the kernel saw: 64 clients share syncs, and no swap goes out before its batch is synced."""

from __future__ import annotations

import json
import re
import shutil
import threading
from pathlib import Path

import pytest

from ingot.registry.embedded import EmbeddedPostgres
from tests.support.process import Gateway

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]

CLIENTS = 64
PUTS = 40
CALL = re.compile(
    r"^(?P<thread>\d+) +(?:(?P<name>\w+)\((?P<rest>.*)|<\.\.\. (?P<resumed>\w+) resumed>.*)$"
)


def load(gateway: Gateway) -> int:
    assert gateway.client().put("/box", b"").status == 200
    done: list[int] = []

    def write(number: int) -> None:
        client = gateway.client()
        for step in range(PUTS):
            done.append(client.put(f"/box/{number}/{step}", b"x" * 1024).status)
        client.close()

    writers = [threading.Thread(target=write, args=(number,)) for number in range(CLIENTS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert done == [200] * len(done)
    return len(done)


def read_trace(trace: Path, token: str) -> tuple[int, int, list[str]]:
    """(commits synced, swaps sent, breaches): each commit's write and sync on a log segment, and
    each message to Postgres that carries the lease token and a head."""
    written: dict[str, int] = {}  # log file -> commits written, not synced
    syncing: dict[str, tuple[str, int]] = {}  # thread -> what its running sync covers
    synced = swaps = 0
    breaches = []
    for line in trace.read_text().splitlines():
        found = CALL.match(line)
        if found is None:
            continue
        thread, name, rest = found["thread"], found["name"], found["rest"] or ""
        log_file = re.match(r"\d+<([^>]*/segments/log-[^>]*)>", rest)
        if name == "pwritev" and log_file and not NO_COMMIT.search(rest[:300]):
            written[log_file[1]] = written.get(log_file[1], 0) + 1
        elif name == "fdatasync" and log_file:
            syncing[thread] = (log_file[1], written.pop(log_file[1], 0))
            if "unfinished" not in rest:
                synced += syncing.pop(thread)[1]
        elif found["resumed"] == "fdatasync" and thread in syncing:
            synced += syncing.pop(thread)[1]
        elif name in ("sendto", "write", "writev", "sendmsg") and "socket:" in rest[:40]:
            if token in rest and HEAD in rest:
                swaps += 1
                if swaps > synced:
                    breaches.append(f"swap {swaps} was sent with {synced} commits synced: {line}")
    return synced, swaps, breaches


NO_COMMIT = re.compile(r'iov_base="(\\x00\\x00|\\x3a\\xa2)')  # zeros ahead of use, a file's header
HEAD = r"\x01\x71\x12\x20"  # a CID of a root, among the parameters of a swap


def test_sync_before_swap_and_eight_puts_a_sync(
    private_postgres: EmbeddedPostgres, private_path: Path
) -> None:
    dsn = private_postgres.start_blocking()
    trace, data = private_path / "trace", private_path / "gateway"
    calls = "trace=fdatasync,pwritev,sendto,sendmsg,write,writev"
    strace = ("strace", "-f", "-qq", "-y", "-x", "-s", "700", "-e", calls, "-o", str(trace))
    with Gateway(data, "--postgres", dsn, under=strace) as gateway:
        kept = json.loads((data / "LEASE").read_text())["token"]
        token = "".join(rf"\x{byte:02x}" for byte in bytes.fromhex(kept))
        puts = load(gateway)
        assert gateway.stop() == 0
    private_postgres.stop_blocking()
    synced, swaps, breaches = read_trace(trace, token)
    assert not breaches, breaches[0]
    assert swaps > 1
    assert synced == swaps + 1, "one sync and one swap a commit, and at the end the sealed root"
    print(f"{puts} PUTs, {swaps} commits, {puts / swaps:.1f} PUTs a sync")
    assert puts >= 8 * swaps
