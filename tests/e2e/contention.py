"""Many clients, one key: conditions are decided once, whoever comes at the same time.
``python -m tests.e2e.contention --clients 200 --rounds 100 --increments 20``

- ``If-None-Match: *``, all at once, by PUT and by Complete: one is answered 200, the others 412,
  and what is there is the winner's. A DELETE under ``If-Match``, all at once: one deletes.
- A counter under ``If-Match``, by PUT and by Complete: no increment is lost or counted twice.
- A mutex of a conditional PUT and a conditional DELETE never has two holders.
- A counter over gateways, each killed while the next waits for its place: every increment that was
  acknowledged counts once, each that was under way once or not at all.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tests.support.client import Answer
from tests.support.process import Gateway
from tests.support.s3 import S3, Lost, Piece, joined_etag

PLAIN, KEPT = "contention", "contention-kept"  # the second has versions
SIZES = (100, 4096, 4097, 65_536, 65_537)
ANY = {"if-none-match": "*"}
TAKE_OVER_S = 60.0
WAITS = "standby: "  # what a gateway logs that waits for its place

T = TypeVar("T")
Write = Callable[[S3, str, bytes, str], bool]
"""Writes a text under a key if that has the ETag; whether it had."""


@contextmanager
def connections(gateway: Gateway, bucket: str, count: int) -> Iterator[list[S3]]:
    made = [S3(gateway.client(), bucket) for _ in range(count)]
    try:
        yield made
    finally:
        for each in made:
            each.close()


def at_once(work: Sequence[Callable[[], T]]) -> list[T]:
    """Each by a thread of its own; none begins before all are there."""
    gate = threading.Barrier(len(work))

    def one(call: Callable[[], T]) -> T:
        gate.wait()
        return call()

    with ThreadPoolExecutor(len(work)) as pool:
        return list(pool.map(one, work))


def prepare(gateway: Gateway) -> None:
    with connections(gateway, PLAIN, 1) as (s3,):
        s3.make()
    with connections(gateway, KEPT, 1) as (s3,):
        s3.make()
        s3.set_versioning("Enabled")


# -- one winner --------------------------------------------------------------------------------


def winner(answers: Sequence[Answer], good: int, refused: int) -> int:
    """The place of the one that was answered ``good``."""
    won = [place for place, answer in enumerate(answers) if answer.status == good]
    others = {answer.status for place, answer in enumerate(answers) if place not in won}
    assert len(won) == 1, f"{len(won)} were answered {good}"
    assert others <= {refused}, f"the others heard {others}, not {refused}"
    return won[0]


def puts(all_s3: Sequence[S3], key: str, source: random.Random) -> None:
    pieces = [Piece.of(source, source.choice(SIZES)) for _ in all_s3]
    answers = at_once(
        [
            lambda s3=s3, piece=piece: s3.ask("PUT", key, "", piece.data, ANY)
            for s3, piece in zip(all_s3, pieces, strict=True)
        ]
    )
    won = pieces[winner(answers, 200, 412)]
    assert all_s3[0].read(key) == won.data, f"{key} is not the winner's"
    (seen,) = all_s3[0].versions(key)[key]
    assert (seen.etag, seen.size) == (won.etag, won.size), (key, seen, won)


def completes(all_s3: Sequence[S3], key: str, source: random.Random) -> None:
    """The uploads of those that lose stay, with their parts."""
    pieces = [Piece.of(source, source.choice(SIZES)) for _ in all_s3]
    ids = [s3.create_upload(key) for s3 in all_s3]
    for s3, id, piece in zip(all_s3, ids, pieces, strict=True):
        s3.put_part(key, id, 1, piece)
    answers = at_once(
        [
            lambda s3=s3, id=id, piece=piece: s3.complete(key, id, [(1, piece)], ANY)
            for s3, id, piece in zip(all_s3, ids, pieces, strict=True)
        ]
    )
    won = winner(answers, 200, 412)
    s3 = all_s3[0]
    assert s3.read(key) == pieces[won].data, f"{key} is not the winner's"
    (seen,) = s3.versions(key)[key]
    assert seen.etag == joined_etag([pieces[won]]), (key, seen)
    assert s3.uploads(key) == {(key, id) for place, id in enumerate(ids) if place != won}
    for place, id in enumerate(ids):
        if place != won:
            assert s3.parts(key, id) == {1: (pieces[place].etag, pieces[place].size)}
            assert s3.abort(key, id).status == 204


def deletes(all_s3: Sequence[S3], key: str) -> None:
    """In a bucket with versions the one that deleted has made a marker, and the others met it."""
    etag = all_s3[0].etag(key)
    assert etag is not None
    answers = at_once(
        [lambda s3=s3: s3.ask("DELETE", key, headers={"if-match": etag}) for s3 in all_s3]
    )
    winner(answers, 204, 412 if all_s3[0].bucket == KEPT else 404)
    assert all_s3[0].read(key) is None
    markers = [each for each in all_s3[0].versions(key).get(key, []) if each.marker]
    assert len(markers) == (all_s3[0].bucket == KEPT), markers


# -- counters ----------------------------------------------------------------------------------


def read_count(s3: S3, key: str) -> tuple[int, str]:
    """The number, and the ETag that it had."""
    answer = s3.must(200, "GET", key)
    return int(answer.body.split()[0]), answer.headers["etag"]


def by_put(s3: S3, key: str, text: bytes, etag: str) -> bool:
    answer = s3.ask("PUT", key, "", text, {"if-match": etag})
    assert answer.status in (200, 412), answer
    return answer.status == 200


def by_complete(s3: S3, key: str, text: bytes, etag: str) -> bool:
    id = s3.create_upload(key)
    part = s3.must(200, "PUT", key, f"partNumber=1&uploadId={id}", text).headers["etag"]
    body = f"<Part><PartNumber>1</PartNumber><ETag>{part}</ETag></Part>"
    body = f"<CompleteMultipartUpload>{body}</CompleteMultipartUpload>"
    answer = s3.ask("POST", key, f"uploadId={id}", body.encode(), {"if-match": etag})
    assert answer.status in (200, 412), answer
    if answer.status == 412:
        assert s3.abort(key, id).status == 204
    return answer.status == 200


def counter(all_s3: Sequence[S3], key: str, increments: int, write: Write) -> int:
    """Each client increments so many times; how often one came too late. Each write is told apart
    by its writer, so that no two have the same ETag."""
    all_s3[0].must(200, "PUT", key, body=b"0 start")

    def client(number: int, s3: S3) -> list[int]:
        reached: list[int] = []
        late = 0
        while len(reached) < increments:
            count, etag = read_count(s3, key)
            if write(s3, key, b"%d by %d, %d" % (count + 1, number, late), etag):
                reached.append(count + 1)
            else:
                late += 1
        return [late, *reached]

    done = at_once([lambda n=n, s3=s3: client(n, s3) for n, s3 in enumerate(all_s3)])
    total = increments * len(all_s3)
    reached = sorted(count for late, *counts in done for count in counts)
    assert reached == list(range(1, total + 1)), f"{key}: some increments were counted twice"
    assert read_count(all_s3[0], key)[0] == total, f"{key}: increments are lost"
    versions = all_s3[0].versions(key)[key]
    assert len(versions) == (total + 1 if all_s3[0].bucket == KEPT else 1)
    return sum(late for late, *_ in done)


def mutex(all_s3: Sequence[S3], key: str, turns: int) -> int:
    """Whoever makes the key holds the mutex, and lets it go by deleting what it made; how often
    somebody found it taken. Nothing but the mutex guards the counter beside it."""
    guarded = f"{key}-guarded"
    all_s3[0].must(200, "PUT", guarded, body=b"0")
    inside = threading.Lock()

    def client(number: int, s3: S3) -> int:
        taken = 0
        stale = '"00000000000000000000000000000000"'
        for turn in range(turns):
            text = b"%d, %d" % (number, turn)
            while (answer := s3.ask("PUT", key, "", text, ANY)).status == 412:
                taken += 1
            assert answer.status == 200, answer
            assert inside.acquire(blocking=False), f"{key} has two holders"
            late = s3.ask("DELETE", key, headers={"if-match": stale})
            assert late.status == 412, f"a DELETE of what was there before: {late}"
            stale = answer.headers["etag"]
            s3.must(200, "PUT", guarded, body=b"%d" % (read_count(s3, guarded)[0] + 1))
            inside.release()
            s3.must(204, "DELETE", key, headers={"if-match": stale})
        return taken

    found = at_once([lambda n=n, s3=s3: client(n, s3) for n, s3 in enumerate(all_s3)])
    assert read_count(all_s3[0], guarded)[0] == turns * len(all_s3)
    return sum(found)


# -- one gateway after the other ---------------------------------------------------------------


class Relay:
    """Clients increment one counter through whichever gateway serves."""

    key = "relay"

    def __init__(self, data: Path, gateway: Gateway) -> None:
        self.data, self.gateway = data, gateway
        self.started = [gateway]
        self.changed = threading.Condition()
        self.ending = False
        self.acknowledged: dict[str, int] = {}  # what each write made of the counter
        self.doubtful: set[str] = set()
        self.away_s: list[float] = []  # how long nobody served, once each gateway was killed

    def client(self, number: int) -> None:
        turn = 0
        while not self.ending:
            gateway = self.gateway
            s3 = S3(gateway.client(), KEPT)
            try:
                while not self.ending:
                    count, etag = read_count(s3, self.key)
                    turn += 1
                    write = f"{number}-{turn}"
                    self.doubtful.add(write)
                    if by_put(s3, self.key, f"{count + 1} {write}".encode(), etag):
                        self.acknowledged[write] = count + 1
                    self.doubtful.remove(write)
            except Lost:
                self._wait_for_another(gateway)
            finally:
                s3.close()

    def _wait_for_another(self, gateway: Gateway) -> None:
        with self.changed:
            self.changed.wait_for(lambda: self.gateway is not gateway or self.ending, TAKE_OVER_S)

    def _start(self) -> Gateway:
        made = Gateway(self.data)
        self.started.append(made)
        return made

    def hand_over(self, pool: ThreadPoolExecutor, load_s: float) -> None:
        """Kill the gateway when the next waits for its place, and wait until that serves."""
        log = Path(self.gateway.log.name)
        before = log.read_text().count(WAITS)
        following: Future[Gateway] = pool.submit(self._start)
        deadline = time.monotonic() + TAKE_OVER_S
        while log.read_text().count(WAITS) == before:
            assert time.monotonic() < deadline and not following.done(), "it does not wait"
            time.sleep(0.01)
        time.sleep(load_s)  # how long the load runs, not what it waits for
        began = time.monotonic()
        self.gateway.kill()
        made = following.result(TAKE_OVER_S)
        with self.changed:
            self.gateway = made
            self.changed.notify_all()
        self.away_s.append(time.monotonic() - began)

    def kill(self) -> None:
        for gateway in self.started:
            if gateway.process.poll() is None:
                gateway.kill()

    def end(self) -> None:
        with self.changed:
            self.ending = True
            self.changed.notify_all()

    def check(self) -> None:
        """Each version of the counter is one more than the one before, and one write made it."""
        with connections(self.gateway, KEPT, 1) as (s3,):
            versions = s3.versions(self.key)[self.key]
            texts = [(s3.read(self.key, each.id) or b"").decode().split() for each in versions]
        made = {write: int(count) for count, write in texts}
        counts = [int(count) for count, _ in reversed(texts)]
        assert counts == list(range(len(texts))), f"increments are lost or counted twice: {counts}"
        assert len(made) == len(texts), "a write was made twice"
        for write, count in self.acknowledged.items():
            assert made.get(write) == count, f"{write} made {count}, there is {made.get(write)}"
        others = set(made) - set(self.acknowledged) - {"start"}
        assert others <= self.doubtful, f"{others - self.doubtful} were refused"


def relay(data: Path, gateway: Gateway, clients: int, times: int, load_s: float) -> Relay:
    """The gateway that serves at the end is ``Relay.gateway``."""
    made = Relay(data, gateway)
    with connections(gateway, KEPT, 1) as (s3,):
        s3.must(200, "PUT", made.key, body=b"0 start")
    try:
        with ThreadPoolExecutor(clients + 1) as pool:
            working = [pool.submit(made.client, number) for number in range(clients)]
            try:
                for _ in range(times):
                    made.hand_over(pool, load_s)
                time.sleep(load_s)  # how long the load runs, not what it waits for
            except BaseException:
                made.kill()  # or the next would wait for its place for ever
                raise
            finally:
                made.end()
            for each in working:
                each.result()
        made.check()
    except BaseException:
        made.kill()
        raise
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--increments", type=int, default=20)
    parser.add_argument("--takeovers", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="ingot-contention-"))
    directory.chmod(0o755)
    source = random.Random(options.seed)
    gateway = Gateway(directory / "data")
    try:
        prepare(gateway)
        for bucket in (PLAIN, KEPT):
            with connections(gateway, bucket, options.clients) as all_s3:
                run(all_s3, options.rounds, options.increments, source)
        made = relay(directory / "data", gateway, 8, options.takeovers, 2.0)
        gateway = made.gateway
        print(
            f"{options.takeovers} gateways killed and taken over from: "
            f"{len(made.acknowledged)} increments acknowledged, each counts once; nobody served "
            f"for {max(made.away_s, default=0):.1f} s at most",
            flush=True,
        )
        assert gateway.stop() == 0
    except BaseException:
        print(f"what was left, with the gateway's log: {directory}", flush=True)
        raise
    finally:
        if gateway.process.poll() is None:
            gateway.kill()
    shutil.rmtree(directory)


def run(all_s3: Sequence[S3], rounds: int, increments: int, source: random.Random) -> None:
    """All of it in one bucket, and what was seen."""
    few, bucket, many = all_s3[:32], all_s3[0].bucket, len(all_s3)
    began = time.monotonic()
    for number in range(rounds):
        puts(all_s3, f"put-{number:04}", source)
    print(f"{bucket}: {rounds} times one of {many} PUTs won", flush=True)
    for number in range(rounds // 4):
        completes(few, f"complete-{number:04}", source)
        deletes(few, f"complete-{number:04}")
    print(
        f"{bucket}: {rounds // 4} times one of {len(few)} Completes, and DELETEs, won", flush=True
    )
    for name, write in (("PUT", by_put), ("Complete", by_complete)):
        late = counter(few, f"count-by-{name}", increments, write)
        total = increments * len(few)
        print(f"{bucket}: {total} increments by {name}, {late} came too late", flush=True)
    taken = mutex(few[:8], "mutex", increments)
    print(
        f"{bucket}: {increments * 8} times a mutex was held, {taken} times it was found taken; "
        f"{time.monotonic() - began:.0f} s in all",
        flush=True,
    )


if __name__ == "__main__":
    main()
