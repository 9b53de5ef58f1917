"""The command as a shell sees it: output, exit statuses, signals; no traceback for a setting."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from ingot import __version__
from ingot.cli import build_parser, main
from ingot.messages import Shipment
from ingot.registry.postgres import Postgres
from tests.support.client import Client

ROOT = Path(__file__).parents[2]
KEYS = {"INGOT_ACCESS_KEY": "AKIATEST", "INGOT_SECRET_KEY": "test-secret"}


def command(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ingot.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
    )


class Serving:
    """``ingot serve`` as a child. ``ready`` is its line, None where it ended or waits."""

    def __init__(self, data_dir: Path, *arguments: str, wait: bool = True, **environ: str) -> None:
        read_end, write_end = os.pipe()
        self.errors = data_dir.with_name(f"{data_dir.name}-{os.urandom(2).hex()}.err")
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "ingot.cli", "serve", "--data-dir", str(data_dir)),
                    *("--listen", "127.0.0.1:0", "--ready-fd", str(write_end), *arguments),
                ],
                stdout=subprocess.PIPE,
                stderr=errors,
                pass_fds=[write_end],
                env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
            )
        os.close(write_end)
        self.read_end = os.fdopen(read_end)
        self.ready: dict[str, Any] | None = None
        if wait:
            line = self.read_end.readline()
            self.ready = json.loads(line) if line else None
            assert self.read_end.readline() == ""  # one line, then closed

    def connect(self) -> socket.socket:
        assert self.ready is not None
        parts = urlsplit(self.ready["url"])
        assert parts.hostname and parts.port
        return socket.create_connection((parts.hostname, parts.port), timeout=10)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        if self.process.poll() is None:
            self.process.send_signal(number)
        output = self.process.communicate(timeout=60)[0].decode()
        self.read_end.close()
        return self.process.returncode, output, self.errors.read_text()


@pytest.fixture
def data_dir(private_path: Path) -> Path:
    return private_path / "data"


@pytest.fixture
def dsn(postgres: str) -> Iterator[str]:
    """A database that is empty; a gateway on it needs no Postgres of its own."""

    async def empty() -> None:
        connection = await asyncpg.connect(postgres)
        await connection.execute("DROP SCHEMA IF EXISTS ingot CASCADE")
        await connection.close()

    with asyncio.Runner() as runner:
        runner.run(empty())
    yield postgres


# -- without a gateway ----------------------------------------------------------------------------


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"ingot {__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["fsck", "--help"]])
def test_help_teaches(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "INGOT_" in shown
    assert ("examples:" in shown and "ingot serve" in shown) is ("fsck" not in arguments)
    assert max(map(len, shown.splitlines())) <= 100
    assert ("exit status:" in shown) is ("fsck" in arguments)


def test_every_option_is_a_setting() -> None:
    arguments = vars(build_parser().parse_args(["serve"]))
    from ingot.config import Config

    known = set(Config.__dataclass_fields__) | {"config", "ready_fd", "command", "run"}
    assert set(arguments) <= known


@pytest.mark.parametrize("arguments", [[], ["sing"], ["serve", "--nonsense"], ["serve", "extra"]])
def test_wrong_usage(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--listen", "nowhere"], "--listen: "),
        (["--postgres", "mysql://x"], "--postgres: not a Postgres DSN"),
        (["--config", "/nonexistent.toml"], "/nonexistent.toml: No such file"),
        (["--batch-mutations", "0"], "--batch-mutations: "),
        (["--tls-certificate", "/x"], "go together"),
        (["--ready-fd", "987"], "--ready-fd 987"),
    ],
)
def test_a_wrong_setting_is_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    assert main(["serve", "--data-dir", str(tmp_path / "data"), *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("ingot: ") and shown.err.count("\n") == 1
    assert complaint in shown.err
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["fsck", "segments"])
def test_a_report_makes_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    assert main([name, "--data-dir", str(tmp_path / "data")]) == 2
    assert "no ingot data directory" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


# -- starts that fail -----------------------------------------------------------------------------


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ingot: ") and "Traceback" not in done.stderr
    return last


def test_somebody_elses_directory(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    line = one_line(command("serve", "--data-dir", str(tmp_path), **KEYS))
    assert "thesis.tex" in line and str(tmp_path) in line
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_database_that_cannot_be_reached(data_dir: Path) -> None:
    arguments = ["serve", "--data-dir", str(data_dir), "--listen", "127.0.0.1:0"]
    for dsn in ("postgresql://me:hunter2@127.0.0.1:1/db", "postgresql://me:hunter2@no.invalid/db"):
        line = one_line(command(*arguments, "--postgres", dsn, **KEYS))
        assert "Postgres at" in line and "hunter2" not in line


def test_a_port_that_is_in_use(data_dir: Path, dsn: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        line = one_line(
            command(
                *("serve", "--data-dir", str(data_dir), "--postgres", dsn, "--listen", listen),
                **KEYS,
            )
        )
    assert f"{listen} is in use" in line


# -- serving --------------------------------------------------------------------------------------


def test_it_serves_and_stops(data_dir: Path, dsn: str) -> None:
    serving = Serving(data_dir, "--postgres", dsn, **KEYS)
    assert serving.ready is not None
    assert serving.ready["pid"] == serving.process.pid
    assert serving.ready["access_key"] == "AKIATEST"
    assert serving.ready["data_dir"] == str(data_dir)
    with serving.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 ")
    status, output, _ = serving.end()
    assert status == 0
    assert output == f"ingot: serving {data_dir} at {serving.ready['url']}\n"


def test_generated_keys_are_shown_once(data_dir: Path, dsn: str) -> None:
    environ = {name: "" for name in KEYS}
    shown = []
    for _ in range(2):
        serving = Serving(data_dir, "--postgres", dsn, **environ)
        status, output, _ = serving.end(signal.SIGINT)
        assert status == 0
        shown.append((serving.ready or {}).get("access_key"))
        assert ("ingot: secret key" in output) is (len(shown) == 1)
        assert ("its secret key is in" in output) is (len(shown) == 2)
    assert shown[0] == shown[1] and shown[0]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_ends_the_drain(
    data_dir: Path, dsn: str, number: signal.Signals, status: int
) -> None:
    serving = Serving(data_dir, "--postgres", dsn, **KEYS)
    with serving.connect() as client:  # a request that never gets its body keeps the drain waiting
        client.sendall(
            b"PUT /bucket/key HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nExpect: 100-continue\r\n"
        )
        os.kill(serving.process.pid, signal.SIGTERM)
        while b"stopping" not in serving.errors.read_bytes():
            assert serving.process.poll() is None
        assert serving.end(number)[0] == status


def test_a_standby_says_so_and_can_be_stopped(data_dir: Path, dsn: str) -> None:
    first = Serving(data_dir, "--postgres", dsn, **KEYS)
    second = Serving(data_dir, "--postgres", dsn, wait=False, **KEYS)
    while "standby" not in second.errors.read_text():
        assert second.process.poll() is None
    assert str(first.process.pid) in second.errors.read_text()
    assert second.end()[0] == 0
    done = command("fsck", "--data-dir", str(data_dir), "--postgres", dsn)
    assert f"process {first.process.pid} serves" in one_line(done)
    assert first.end()[0] == 0


def test_a_standby_takes_over(data_dir: Path, dsn: str) -> None:
    first = Serving(data_dir, "--postgres", dsn, **KEYS)
    second = Serving(data_dir, "--postgres", dsn, wait=False, **KEYS)
    while "standby" not in second.errors.read_text():
        assert second.process.poll() is None
    first.process.kill()
    assert json.loads(second.read_end.readline())["pid"] == second.process.pid
    assert first.end()[0] == -signal.SIGKILL
    assert second.end()[0] == 0


@pytest.mark.slow
def test_a_lost_lease_ends_it_with_status_1(data_dir: Path, dsn: str) -> None:
    async def take() -> None:
        connection = await asyncpg.connect(dsn)
        await connection.execute("UPDATE ingot.lease SET token = $1", b"t" * 16)
        await connection.close()

    serving = Serving(data_dir, "--postgres", dsn, **KEYS)
    asyncio.run(take())
    serving.process.wait(timeout=60)
    status, _, errors = serving.end()
    assert status == 1
    assert "ingot: stopped serving" in errors and "Traceback" not in errors


def test_fsck_and_segments(data_dir: Path, dsn: str) -> None:
    Serving(data_dir, "--postgres", dsn, **KEYS).end()
    done = command("fsck", "--data-dir", str(data_dir), "--postgres", dsn)
    assert done.returncode == 0, done.stderr
    assert "0 buckets, 0 keys" in done.stdout and "all good" in done.stdout
    assert "0 segments, 0 frames" in done.stdout
    strays = [data_dir / "segments" / f"log-{number:020d}.car" for number in (8, 9)]
    strays[0].mkdir()
    strays[1].symlink_to("nothing")
    done = command("segments", "--data-dir", str(data_dir), "--postgres", dsn)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].split() == ["segment", "state", "size", "commits"]
    assert "log-" in done.stdout and not any(stray.stem in done.stdout for stray in strays)
    assert "Forge" not in done.stdout
    asyncio.run(ship_something(dsn))
    done = command("segments", "--data-dir", str(data_dir), "--postgres", dsn)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("unit-")]
    assert line.split()[1:4] == ["unlisted,", "no", "file"] and "stored" in line
    assert "Forge has everything up to commit 7" in done.stdout
    done = command("segments", "--data-dir", str(data_dir), "--postgres", dsn, "--json")
    assert json.loads(done.stdout)["files"]["stored"] == 1
    end, writing = os.pipe()
    os.close(end)  # as "| head" does when it has seen enough
    done = subprocess.run(
        [sys.executable, "-m", "ingot.cli", "segments", "--data-dir", data_dir, "--postgres", dsn],
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    os.close(writing)
    assert done.returncode == 1 and b"Traceback" not in done.stderr and b"ipe" not in done.stderr


def test_a_misspelt_variable_is_warned_of(data_dir: Path) -> None:
    done = command("whoami", "--data-dir", str(data_dir), INGOT_DATA_DIRR="x", INGOT_PURE="")
    assert done.returncode == 0
    assert "INGOT_DATA_DIRR means nothing; is it INGOT_DATA_DIR?" in done.stderr
    assert "INGOT_PURE" not in done.stderr


async def ship_something(dsn: str) -> None:
    registry = Postgres(dsn)
    await registry.open()
    token = await registry.acquire("tests", 60.0)
    assert token is not None
    row = Shipment("unit", 5, "stored", b"\x12\x20" + bytes(32), (b"token",), 9, 8, 9)
    await registry.put_shipment(token, row)
    await registry.advance_forge(token, 7, [])
    await registry.close()


@pytest.mark.slow
def test_fsck_tells_damage_by_its_status(data_dir: Path, dsn: str) -> None:
    serving = Serving(data_dir, "--postgres", dsn, **KEYS)
    assert serving.ready is not None
    client = Client(serving.ready["url"], KEYS["INGOT_ACCESS_KEY"], KEYS["INGOT_SECRET_KEY"])
    for path, body in (("", b""), ("/a", b"superseded"), ("/a", b"the newer"), ("/b", b"other")):
        assert client.put(f"/box{path}", body).status == 200
    client.close()
    assert serving.end()[0] == 0
    check = ("fsck", "--data-dir", str(data_dir), "--postgres", dsn)
    done = command(*check)
    assert done.returncode == 0, done.stdout
    assert "commits 1 to 4" in done.stdout and "all good" in done.stdout
    log = min((data_dir / "segments").glob("log-*.car"))
    for what, status in ((b"superseded", 3), (b"the newer", 1)):
        data = bytearray(log.read_bytes())
        data[data.index(what)] ^= 1
        log.write_bytes(data)
        done = command(*check)
        assert done.returncode == status, done.stdout
        assert "damaged, and " in done.stdout
    assert "key 'a'" in done.stdout and "1 that harm nothing" in done.stdout


@pytest.mark.slow
def test_with_a_private_postgres(data_dir: Path) -> None:
    serving = Serving(data_dir, **KEYS)
    listed = command("segments", "--data-dir", str(data_dir))  # beside the gateway that runs
    assert listed.returncode == 0, listed.stderr
    serving.process.kill()
    serving.end()
    serving = Serving(data_dir, **KEYS)  # adopts what the killed one left
    status, _, errors = serving.end()
    assert status == 0 and "adopted" in errors
    assert not (data_dir / "postgres" / "data" / "postmaster.pid").exists()
    done = command("fsck", "--data-dir", str(data_dir))
    assert done.returncode == 0, done.stderr
    assert not (data_dir / "postgres" / "data" / "postmaster.pid").exists()
