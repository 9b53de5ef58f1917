"""Losing Postgres in every way: nothing hangs, nothing is taken for done that is not."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from ingot import limits
from ingot.errors import LeaseLost, RootMoved, Unavailable
from ingot.messages import CommitRef, Head, HeadMove
from ingot.registry import line, statements
from ingot.registry import postgres as module
from ingot.registry.embedded import EmbeddedPostgres
from ingot.registry.postgres import Postgres
from tests.registry.support import Relay

A, B = b"a" * 16, b"b" * 16


def step(n: int, bucket: bytes = A, name: str = "photos") -> HeadMove:
    """From sequence n to n + 1; the heads say so."""
    old = Head(n, bytes([n]) * 36 if n else None)
    return HeadMove(bucket, name, old, Head(n + 1, bytes([n + 1]) * 36))


def at(commit: int) -> CommitRef:
    return CommitRef(commit, bytes([commit]) * 36)


CREATE = HeadMove(A, "photos", None, Head(0))


async def until(condition: Callable[[], Any], limit_s: float = 20.0) -> None:
    """Let the loop run until ``condition`` holds."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.002)


async def persist(call: Callable[[], Any], limit_s: float = 20.0) -> Any:
    """Repeat ``call`` while it is Unavailable."""
    deadline = time.monotonic() + limit_s
    while True:
        try:
            return await call()
        except Unavailable:
            assert time.monotonic() < deadline, "Postgres never came back"
            await asyncio.sleep(0.01)


@pytest.fixture
async def admin(postgres: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(postgres)
    await connection.execute(  # what a failed test left would stand in the way
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    await connection.execute("DROP SCHEMA IF EXISTS ingot CASCADE")
    yield connection
    await connection.close()


@pytest.fixture
async def relay(admin: Any, postgres: str, private_path: Path) -> AsyncIterator[Relay]:
    target = parse_qs(urlsplit(postgres).query)["host"][0]
    async with Relay(private_path, target) as made:
        yield made


@pytest.fixture
async def registry(relay: Relay) -> AsyncIterator[Postgres]:
    made = Postgres(relay.dsn)
    await made.open()
    yield made
    relay.answers.set()
    await made.close()


@pytest.fixture
async def token(registry: Postgres) -> bytes:
    token = await registry.acquire("one", 60.0)
    assert token is not None
    await registry.swap(token, at(1), [CREATE])
    return token


async def sequence(admin: Any, bucket: bytes = A) -> int:
    found: int = await admin.fetchval(
        "SELECT max(sequence) FROM ingot.heads WHERE bucket=$1", bucket
    )
    return found


# -- the price of a swap --------------------------------------------------------------------------


async def test_a_swap_is_one_round_trip(registry: Postgres, token: bytes, relay: Relay) -> None:
    await registry.swap(token, at(2), [step(0)])
    relay.chunks.clear()
    await registry.swap(token, at(3), [step(1)])
    directions = [direction for direction, _ in relay.chunks]
    assert directions.count("up") == 1 and directions[0] == "up"
    relay.chunks.clear()
    await registry.swap(token, at(4), [HeadMove(B, "b", None, Head(0))])
    await registry.swap(token, at(5), [HeadMove(B, "b", Head(0), None)])
    relay.chunks.clear()
    await registry.swap(token, at(6), [HeadMove(b"c" * 16, "c", None, Head(0))])
    assert [direction for direction, _ in relay.chunks].count("up") == 1


async def test_a_run_of_swaps_is_one_round_trip(
    registry: Postgres, token: bytes, relay: Relay, admin: Any
) -> None:
    relay.chunks.clear()
    await registry.swap_forward(token, [(at(2 + n), [step(n)]) for n in range(40)])
    assert [direction for direction, _ in relay.chunks].count("up") == 1
    assert await sequence(admin) == 40
    rows = await admin.fetch("SELECT commit, record FROM ingot.heads ORDER BY sequence")
    assert [CommitRef(*row) for row in rows] == [at(n) for n in range(1, 42)]


async def test_swaps_go_on_while_another_call_is_stuck(
    registry: Postgres, token: bytes, admin: Any
) -> None:
    async with admin.transaction():
        await admin.execute("LOCK TABLE ingot.segments IN ACCESS EXCLUSIVE MODE")
        stuck = asyncio.ensure_future(registry.segments())
        for n in range(5):
            await registry.swap(token, at(2 + n), [step(n)])
        assert not stuck.done()
    assert await stuck == []


# -- the line breaks ------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_swap_cut_on_its_way(
    registry: Postgres, token: bytes, relay: Relay, admin: Any, direction: str
) -> None:
    """Cut before the statement arrived, and before its answer did: Unavailable both times, and
    ``swapped`` tells them apart."""
    await registry.swap(token, at(2), [step(0)])
    for moves in ([step(1)], [step(2), HeadMove(B, "music", None, Head(0))]):
        await until(lambda: registry._swaps.connection)
        relay.cut = lambda way, chunk: way == direction
        with pytest.raises(Unavailable):
            await registry.swap(token, at(3), moves)
        relay.cut = lambda way, chunk: False
        done = await persist(lambda moves=moves: registry.swapped(moves))
        assert done is (direction == "down")
        if not done:
            await persist(lambda moves=moves: registry.swap(token, at(3), moves))
        assert await registry.swapped(moves) is True
    assert await sequence(admin) == 3


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_run_of_swaps_cut_on_its_way(
    registry: Postgres, token: bytes, relay: Relay, admin: Any, direction: str
) -> None:
    commits = [(at(2 + n), [step(n)]) for n in range(10)]
    relay.cut = lambda way, chunk: way == direction
    with pytest.raises(Unavailable):
        await registry.swap_forward(token, commits)
    relay.cut = lambda way, chunk: False
    done = await persist(lambda: registry.swapped([step(0)]))
    assert done is (direction == "down")
    assert await sequence(admin) == (10 if done else 0), "all of a run or nothing"


async def test_every_call_fails_at_once_while_postgres_is_away(
    registry: Postgres, token: bytes, relay: Relay
) -> None:
    relay.refuse = True
    relay.cut_all()
    calls: list[Callable[[], Any]] = [
        lambda: registry.swap(token, at(2), [step(0)]),
        lambda: registry.swapped([step(0)]),
        lambda: registry.renew(token, 60.0),
        lambda: registry.acquire("two", 60.0),
        lambda: registry.buckets(),
        lambda: registry.newest_commit(),
        lambda: registry.segments(),
        lambda: registry.store_id(),
        lambda: registry.prune(5),
    ]
    for _ in range(3):
        for call in calls:
            began = time.monotonic()
            with pytest.raises(Unavailable):
                await call()
            assert time.monotonic() - began < 0.5
    relay.refuse = False
    await persist(lambda: registry.swap(token, at(2), [step(0)]))
    await persist(lambda: registry.renew(token, 60.0))


async def test_an_idle_line_that_breaks_is_back_before_it_is_needed(
    registry: Postgres, token: bytes, relay: Relay
) -> None:
    swaps, calls = registry._swaps.connection, registry._calls.connection
    relay.cut_all()
    await until(lambda: registry._swaps.connection not in (None, swaps))
    await until(lambda: registry._calls.connection not in (None, calls))
    await registry.swap(token, at(2), [step(0)])
    await registry.renew(token, 60.0)


async def test_a_silent_postgres_is_given_up(
    registry: Postgres,
    token: bytes,
    relay: Relay,
    admin: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SWAP_TIMEOUT_S", 0.1)
    monkeypatch.setattr(module, "REGISTRY_CALL_S", 0.1)
    monkeypatch.setattr(line, "REGISTRY_CONNECT_S", 0.1)
    relay.answers.clear()
    began = time.monotonic()
    with pytest.raises(Unavailable):
        await registry.swap(token, at(2), [step(0)])
    for call in (registry.swapped([step(0)]), registry.renew(token, 60.0), registry.holder()):
        with pytest.raises(Unavailable):
            await call
    assert time.monotonic() - began < 3.0
    monkeypatch.undo()
    relay.answers.set()
    # The statement had arrived: the answer alone was lost.
    assert await persist(lambda: registry.swapped([step(0)])) is True
    assert await sequence(admin) == 1
    await persist(lambda: registry.swap(token, at(3), [step(1)]))


async def test_a_cancelled_call_leaves_a_line_that_works(
    registry: Postgres, token: bytes, relay: Relay
) -> None:
    relay.answers.clear()
    calls = [
        asyncio.ensure_future(registry.swap(token, at(2), [step(0)])),
        asyncio.ensure_future(registry.swapped([step(0)])),
    ]
    await until(lambda: registry._swaps.lock.locked() and registry._calls.lock.locked())
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    relay.answers.set()
    if not await persist(lambda: registry.swapped([step(0)])):
        await persist(lambda: registry.swap(token, at(2), [step(0)]))
    await persist(lambda: registry.swap(token, at(3), [step(1)]))


async def test_closing_while_postgres_is_away_ends_soon(relay: Relay, postgres: str) -> None:
    registry = Postgres(relay.dsn)
    await registry.open()
    relay.refuse = True
    relay.cut_all()
    await until(lambda: registry._swaps.connection is None)
    async with asyncio.timeout(3):
        await registry.close()
    with pytest.raises(Unavailable, match="not open"):
        await registry.store_id()


@pytest.mark.slow
async def test_cuts_at_every_chunk_of_a_workload(
    registry: Postgres, token: bytes, relay: Relay, admin: Any
) -> None:
    """Both lines are cut, and of what follows (connecting, preparing, swapping) the n-th chunk is
    cut too, for every n: swaps are repeated as the pipeline repeats them, and in the end every
    commit is there exactly once."""
    done, rounds, was_cut = 0, 0, True
    while was_cut:
        left, was_cut = rounds, False

        def cut(way: str, chunk: bytes) -> bool:
            nonlocal left, was_cut
            left -= 1
            was_cut = was_cut or left == -1
            return left == -1

        relay.cut_all()
        relay.cut = cut
        for _ in range(2):
            moves = [step(done)]
            while True:
                try:
                    await registry.swap(token, at(done + 2), moves)
                    break
                except Unavailable:
                    if await persist(lambda moves=moves: registry.swapped(moves)):
                        break
            done += 1
        rounds += 1
    assert rounds > 15
    assert await sequence(admin) == done
    assert await admin.fetchval("SELECT count(*) FROM ingot.heads") == done + 1


# -- the server dies ------------------------------------------------------------------------------


async def test_a_backend_terminated_in_the_middle_of_a_swap(
    registry: Postgres, token: bytes, admin: Any
) -> None:
    """The swap waits for the lease row, which a transaction of ours holds, and is killed there."""
    async with admin.transaction():
        await admin.execute("SELECT FROM ingot.lease FOR UPDATE")
        swap = asyncio.ensure_future(registry.swap(token, at(2), [step(0)]))
        pid = None
        await until_waiting(admin, "FOR SHARE")
        while pid is None:
            pid = await admin.fetchval(
                "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                "AND query LIKE '%FOR SHARE%' AND pid <> pg_backend_pid()"
            )
        await admin.execute("SELECT pg_terminate_backend($1)", pid)
        with pytest.raises(Unavailable):
            await swap
    assert await persist(lambda: registry.swapped([step(0)])) is False
    await persist(lambda: registry.swap(token, at(2), [step(0)]))
    assert await sequence(admin) == 1


async def test_a_swap_still_running_behind_a_lost_answer(
    registry: Postgres, token: bytes, relay: Relay, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client is gone, the backend goes on: ``swapped`` waits for it and sees what it did."""
    monkeypatch.setattr(module, "SWAP_TIMEOUT_S", 0.05)
    await admin.execute(
        "CREATE FUNCTION ingot.wait() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_advisory_xact_lock(99); RETURN NEW; END'"
    )
    await admin.execute(
        "CREATE TRIGGER wait BEFORE INSERT ON ingot.heads "
        "FOR EACH ROW EXECUTE FUNCTION ingot.wait()"
    )
    await admin.execute("SELECT pg_advisory_lock(99)")
    relay.cut = lambda way, chunk: way == "up" and len(chunk) == 16  # the cancel request
    with pytest.raises(Unavailable):
        await registry.swap(token, at(2), [step(0)])
    asking = asyncio.ensure_future(persist(lambda: registry.swapped([step(0)])))
    await until_waiting(admin, "FOR UPDATE")
    assert not asking.done()
    await admin.execute("SELECT pg_advisory_unlock(99)")
    assert await asking is True
    with pytest.raises(RootMoved):
        await persist(lambda: registry.swap(token, at(2), [step(0)]))


async def until_waiting(admin: Any, query: str) -> None:
    """Until a backend that runs ``query`` waits for a lock."""
    deadline = time.monotonic() + 10.0
    while not await admin.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
        "AND strpos(query, $1) > 0 AND pid <> pg_backend_pid()",
        query,
    ):
        assert time.monotonic() < deadline, f"nothing waits in {query!r}"


async def test_postgres_restarted(private_postgres: EmbeddedPostgres) -> None:
    server, dsn = private_postgres, await private_postgres.start()
    registry = Postgres(dsn)
    await registry.open()
    token = await registry.acquire("one", 60.0)
    assert token is not None
    await registry.swap(token, at(1), [CREATE])
    await server.stop()
    with pytest.raises(Unavailable):
        await registry.swap(token, at(2), [step(0)])
    await server.start()
    if not await persist(lambda: registry.swapped([step(0)])):
        await persist(lambda: registry.swap(token, at(2), [step(0)]))
    await persist(lambda: registry.renew(token, 60.0))
    await registry.close()
    await server.stop()


async def test_a_swap_survives_a_crash_of_postgres(private_postgres: EmbeddedPostgres) -> None:
    """With synchronous_commit off in the session, as a pooler may hand it out, and a WAL writer
    that sleeps: what was acknowledged is there after a kill -9 all the same, since the statement
    says so itself. (Without that, this test finds the old head.)"""
    server, dsn = private_postgres, await private_postgres.start()
    admin = await asyncpg.connect(dsn)
    await admin.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
    await admin.execute("SELECT pg_reload_conf()")
    registry = Postgres(dsn)
    await registry.open()
    token = await registry.acquire("one", 60.0)
    assert token is not None
    await registry._swaps.connection.execute("SET synchronous_commit = off")
    await registry.swap(token, at(1), [CREATE])
    await registry.swap(token, at(2), [step(0)])
    for pid in [server._pid, *await pids(admin)]:
        os.kill(pid, signal.SIGKILL)
    admin.terminate()
    found = await persist(lambda: registry.buckets())  # the server was started again by its guard
    assert [(row.head.sequence, row.commit) for row in found] == [(1, at(2))]
    await registry.close()
    await server.stop()


async def pids(admin: Any) -> list[int]:
    rows = await admin.fetch("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    return [row["pid"] for row in rows]


# -- another database than yesterday --------------------------------------------------------------


async def test_a_database_that_was_emptied(registry: Postgres, token: bytes, admin: Any) -> None:
    await admin.execute("DROP SCHEMA ingot CASCADE")
    for call in (registry.swap(token, at(2), [step(0)]), registry.renew(token, 60.0)):
        with pytest.raises(LeaseLost):
            await call
    with pytest.raises(LeaseLost):
        await registry.buckets()
    assert await admin.fetchval("SELECT to_regnamespace('ingot')") is None  # nothing was made anew


async def test_a_failover_that_lost_the_last_commits(
    registry: Postgres, token: bytes, admin: Any
) -> None:
    await registry.swap(token, at(2), [step(0)])
    await registry.swap(token, at(3), [step(1)])
    await admin.execute("DELETE FROM ingot.heads WHERE sequence = 2")
    with pytest.raises(RootMoved):
        await registry.swap(token, at(4), [step(2)])
    with pytest.raises(LeaseLost, match="lost commits"):
        await registry.swap(token, at(4), [HeadMove(B, "music", None, Head(0))])
    assert await registry.swapped([step(1)]) is False
    assert await registry.newest_commit() == at(2)
    await registry.swap(token, at(3), [step(1)])
    await registry.swap(token, at(4), [step(2)])


async def test_a_failover_to_before_the_lease(registry: Postgres, token: bytes, admin: Any) -> None:
    await admin.execute("UPDATE ingot.lease SET token = $1", b"x" * 16)
    with pytest.raises(LeaseLost):
        await registry.swap(token, at(2), [step(0)])
    with pytest.raises(LeaseLost):
        await registry.renew(token, 60.0)


# -- the fence ------------------------------------------------------------------------------------


async def test_a_paused_holder_cannot_swap_once_its_lease_is_taken(
    registry: Postgres, token: bytes, postgres: str, admin: Any
) -> None:
    """The taker has updated the row and not yet committed when the old holder's swap arrives: it
    waits, then sees the taker's token. A condition without the row's lock would let it pass."""
    taker = await asyncpg.connect(postgres)
    async with taker.transaction():
        await admin.execute("UPDATE ingot.lease SET expires_at = clock_timestamp()")
        taken = await taker.fetch(statements.ACQUIRE, b"t" * 16, "two", 60.0, None)
        assert taken
        swap = asyncio.ensure_future(registry.swap(token, at(2), [step(0)]))
        await until_waiting(admin, "FOR SHARE")
    with pytest.raises(LeaseLost):
        await swap
    assert await sequence(admin) == 0
    await taker.close()


async def test_a_taker_waits_for_a_swap_in_flight_and_sees_it(
    registry: Postgres, token: bytes, postgres: str, admin: Any
) -> None:
    """The swap has the row locked and has not committed: the taker gets the lease afterwards, and
    the heads it then reads have the swap's."""
    holder = await asyncpg.connect(postgres)
    other = Postgres(postgres)
    await other.open()
    await admin.execute("UPDATE ingot.lease SET expires_at = clock_timestamp()")
    columns = [[A], [1], [None], [None], [None], [b"x"], [None], [None]]
    async with holder.transaction():
        moved = await holder.fetch(statements.SWAP, token, None, None, 2, None, *columns)
        assert tuple(moved[0]) == (1, 1)
        taking = asyncio.ensure_future(other.acquire("two", 60.0))
        await until_waiting(admin, "UPDATE ingot.lease")
        assert not taking.done()
    assert await taking is not None
    assert [row.head.sequence for row in await other.buckets()] == [1]
    with pytest.raises(LeaseLost):
        await registry.swap(token, at(3), [step(1)])
    await other.close()
    await holder.close()


# -- what start-up says ---------------------------------------------------------------------------


async def test_unsafe_settings_are_reported(
    private_postgres: EmbeddedPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    server, dsn = private_postgres, await private_postgres.start()
    registry = Postgres(dsn)
    await registry.open()
    assert registry.warnings == []
    await registry.close()
    admin = await asyncpg.connect(dsn)
    await admin.execute("ALTER ROLE ingot SET synchronous_commit = off")
    await admin.close()
    with caplog.at_level(logging.WARNING):
        await registry.open()
    assert len(registry.warnings) == 1 and "synchronous_commit" in registry.warnings[0]
    assert "synchronous_commit" in caplog.text
    # Turned on for its own sessions all the same.
    shown = await registry._swaps.connection.fetchval("SHOW synchronous_commit")
    assert shown == "on"
    await registry.close()
    await server.stop()


async def test_a_postgres_that_is_starting_is_waited_for(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    relay.starting = 3
    registry = Postgres(relay.dsn)
    await registry.open()
    assert relay.starting == 0 and caplog.text.count("waiting for Postgres") == 1
    await registry.close()


async def test_pruning_goes_in_batches(
    registry: Postgres, token: bytes, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PRUNE_ROWS", 2)
    for n in range(9):
        await registry.swap(token, at(2 + n), [step(n)])
    assert await registry.prune(3) == 7
    assert await admin.fetchval("SELECT min(sequence) FROM ingot.heads") == 7


def test_a_slow_renewal_is_in_time() -> None:
    late = limits.LEASE_RENEW_S + limits.REGISTRY_CALL_S
    assert late < limits.LEASE_TTL_S - limits.LEASE_MARGIN_S


async def test_reconnecting_logs_once(
    registry: Postgres, relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    relay.refuse = True
    relay.cut_all()
    await until(lambda: caplog.text.count("cannot reach Postgres") >= 2)
    with contextlib.suppress(Unavailable):
        await registry.store_id()
    relay.refuse = False
    await until(lambda: registry._swaps.connection and registry._calls.connection)
    assert caplog.text.count("cannot reach Postgres") == 2  # one a line
    assert caplog.text.count("is back") == 2
