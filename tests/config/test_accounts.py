"""Accounts of a host's own store: what is held, for how long, and what a store may not do to us."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ingot import accounts, limits
from ingot.accounts import HeldAccounts, NotHeld, judged
from ingot.credentials import Account
from ingot.errors import Unavailable

ALICE = Account("ALICE", "alices-secret", "a" * 64, "Alice")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def now_ms(self) -> int:
        return int(self.now * 1000)

    def monotonic(self) -> float:
        return 0.0  # of a machine that sleeps

    def boottime(self) -> float:
        return self.now


class Store:
    """The host's. ``answers`` by key: an account, None, or an exception."""

    def __init__(self, **answers: Any) -> None:
        self.answers: dict[str, Any] = answers
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def get(self, access_key: str) -> Account | None:
        self.asked.append(access_key)
        await self.gate.wait()
        answer = self.answers.get(access_key)
        if isinstance(answer, BaseException):
            raise answer
        return answer


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def find(held: HeldAccounts, key: str, peer: str = "192.0.2.1") -> Account | None:
    return await judged(lambda: held.get(key), peer)


async def test_an_account_is_looked_up_once_and_then_held(clock: Clock) -> None:
    store = Store(ALICE=ALICE)
    held = HeldAccounts(store, clock)
    with pytest.raises(NotHeld):
        held.get("ALICE")
    assert await find(held, "ALICE") == ALICE
    assert held.get("ALICE") is ALICE
    assert store.asked == ["ALICE"]


async def test_a_revoked_key_stops_within_the_lifetime(clock: Clock) -> None:
    store = Store(ALICE=ALICE)
    held = HeldAccounts(store, clock)
    await find(held, "ALICE")
    store.answers["ALICE"] = None
    clock.now += limits.ACCOUNT_LIFETIME_S - 0.1
    assert held.get("ALICE") is ALICE
    clock.now += 0.2
    with pytest.raises(NotHeld):
        held.get("ALICE")
    assert await find(held, "ALICE") is None


async def test_unknown_keys_are_held_for_a_moment(clock: Clock) -> None:
    store = Store()
    held = HeldAccounts(store, clock)
    for _ in range(3):
        assert await find(held, "NEW") is None
    assert store.asked == ["NEW"]
    store.answers["NEW"] = Account("NEW", "secret-of-new", "b" * 64, "new")
    clock.now += limits.UNKNOWN_KEY_LIFETIME_S + 0.1
    assert (await find(held, "NEW")) is not None


@pytest.mark.parametrize(
    "answer",
    [
        RuntimeError("the database is away"),
        TimeoutError(),
        "ALICE",
        Account("OTHER", "secret", "a" * 64, "x"),
        Account("ALICE", "", "a" * 64, "x"),
        Account("ALICE", "secret", "", "x"),
        Account("ALICE", "secret", "anonymous", "x"),
        Account("ALICE", b"secret", "a" * 64, "x"),  # type: ignore[arg-type]
    ],
    ids=range(8),
)
async def test_a_store_that_fails_lets_nobody_in(clock: Clock, answer: Any) -> None:
    store = Store(ALICE=answer)
    held = HeldAccounts(store, clock)
    for _ in range(2):
        with pytest.raises(Unavailable) as caught:
            await find(held, "ALICE")
        assert "secret" not in str(caught.value) or "secret key" in str(caught.value)
    store.answers["ALICE"] = ALICE
    assert await find(held, "ALICE") == ALICE


async def test_a_failing_store_does_not_prolong_what_is_held(clock: Clock) -> None:
    store = Store(ALICE=ALICE)
    held = HeldAccounts(store, clock)
    await find(held, "ALICE")
    store.answers["ALICE"] = RuntimeError()
    clock.now += limits.ACCOUNT_LIFETIME_S + 1
    with pytest.raises(Unavailable):
        await find(held, "ALICE")


async def test_a_slow_store(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "ACCOUNT_LOOKUP_S", 0.01)
    store = Store(ALICE=ALICE)
    store.gate.clear()
    with pytest.raises(Unavailable, match="no answer in 0.01 s"):
        await find(HeldAccounts(store, clock), "ALICE")


async def test_requests_with_one_key_share_a_look_up(clock: Clock) -> None:
    store = Store(ALICE=ALICE)
    store.gate.clear()
    held = HeldAccounts(store, clock)
    waiting = [asyncio.ensure_future(find(held, "ALICE")) for _ in range(5)]
    await asyncio.sleep(0)
    waiting[0].cancel()  # a client that goes away takes the answer from nobody
    await asyncio.sleep(0)
    store.gate.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError) and found[1:] == [ALICE] * 4
    assert store.asked == ["ALICE"]


async def test_look_ups_at_a_time_are_bounded(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "ACCOUNT_LOOKUPS_MAX", 3)
    monkeypatch.setattr(accounts, "ACCOUNT_LOOKUPS_NEW_MAX", 3)
    store = Store(ALICE=ALICE)
    held = HeldAccounts(store, clock)
    await find(held, "ALICE")
    store.gate.clear()
    waiting = [asyncio.ensure_future(find(held, f"K{n}")) for n in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await find(held, "K9")
    assert held.get("ALICE") == ALICE
    store.gate.set()
    assert await asyncio.gather(*waiting) == [None] * 3
    held.close()


async def strangers(held: HeldAccounts, peers: int, each: int) -> list[asyncio.Future[Any]]:
    """Look-ups of keys that nobody has, begun and not answered."""
    named = [(f"X{peer}-{n}", f"198.51.100.{peer}") for peer in range(peers) for n in range(each)]
    waiting = [asyncio.ensure_future(find(held, *one)) for one in named]
    await _settled()
    return waiting


async def test_strangers_do_not_keep_out_who_was_known(clock: Clock) -> None:
    store = Store(ALICE=ALICE)
    held = HeldAccounts(store, clock)
    await find(held, "ALICE")
    clock.now += limits.ACCOUNT_LIFETIME_S + 1
    store.gate.clear()
    waiting = await strangers(held, 10, 64)
    assert len(store.asked) == 1 + limits.ACCOUNT_LOOKUPS_NEW_MAX
    alice = asyncio.ensure_future(find(held, "ALICE"))
    await asyncio.sleep(0)
    store.gate.set()
    assert await alice == ALICE
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(one) for one in found} == {type(None), Unavailable}
    assert await find(held, "LATER") is None, "the slots are free again"


async def test_one_peer_leaves_look_ups_of_new_keys_to_others(clock: Clock) -> None:
    store = Store(ALICE=ALICE)
    held = HeldAccounts(store, clock)
    store.gate.clear()
    waiting = await strangers(held, 1, 64)
    assert len(store.asked) == limits.ACCOUNT_LOOKUPS_PEER_MAX
    alice = asyncio.ensure_future(find(held, "ALICE"))
    await asyncio.sleep(0)
    store.gate.set()
    assert await alice == ALICE
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_an_account_in_use_is_looked_up_before_its_end(clock: Clock) -> None:
    store = Store(ALICE=ALICE)
    held = HeldAccounts(store, clock)
    await find(held, "ALICE")
    clock.now += limits.ACCOUNT_LIFETIME_S - limits.ACCOUNT_REFRESH_S
    store.answers["ALICE"] = RuntimeError("the database is away")
    for _ in range(3):  # which is no reason to ask it all the time
        assert held.get("ALICE") is ALICE
        await _settled()
    assert store.asked == ["ALICE"] * 2
    store.answers["ALICE"] = ALICE
    clock.now += limits.ACCOUNT_REFRESH_AGAIN_S
    assert held.get("ALICE") is ALICE
    await _settled()
    clock.now += limits.ACCOUNT_LIFETIME_S - limits.ACCOUNT_REFRESH_S - 1
    assert held.get("ALICE") is ALICE
    store.answers["ALICE"] = None
    clock.now += 1
    assert held.get("ALICE") is ALICE
    await _settled()
    assert held.get("ALICE") is None, "a key that was revoked"
    assert store.asked == ["ALICE"] * 4


async def _settled() -> None:
    """What was begun in the background has ended."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_is_held_is_bounded_and_unknown_keys_push_nobody_out(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "ACCOUNTS_HELD_MAX", 2)
    monkeypatch.setattr(accounts, "UNKNOWN_KEYS_HELD_MAX", 2)
    people = {f"P{n}": Account(f"P{n}", "secret-key", "a" * 64, "x") for n in range(3)}
    store = Store(**people)
    held = HeldAccounts(store, clock)
    for key in ("P0", "P1", "U0", "U1", "U2"):
        await find(held, key)
    assert held.get("P0") == people["P0"] and held.get("U2") is None
    with pytest.raises(NotHeld):
        held.get("U0")
    await find(held, "P2")
    assert held.get("P1") == people["P1"]
    with pytest.raises(NotHeld):
        held.get("P0")


@pytest.mark.parametrize("key", ["", "k" * 129, "a\nb", "ä", "\0"])
async def test_what_is_no_key_is_not_asked_about(clock: Clock, key: str) -> None:
    store = Store()
    assert HeldAccounts(store, clock).get(key) is None
    assert store.asked == []


async def test_closing_ends_look_ups(clock: Clock) -> None:
    store = Store()
    store.gate.clear()
    held = HeldAccounts(store, clock)
    waiting = asyncio.ensure_future(find(held, "ALICE"))
    await asyncio.sleep(0)
    held.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
