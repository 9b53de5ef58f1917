"""Accounts that a host keeps: looked up in its store when a request names one, held for a while.

An account that was found is believed for ``ACCOUNT_LIFETIME_S``, so a key that the host revokes
stops within that time; that there is none, for ``UNKNOWN_KEY_LIFETIME_S``. What is held is bounded,
and unknown keys cannot push out known ones. One that is in use is looked up anew before its time is
over, while requests go on. A store that fails, is too slow or answers nonsense makes the request
Unavailable (503): nothing is let in on an answer that has run out. ``get`` never waits; NotHeld
says that the store has to be asked first, which ``judged`` does for a judgement that can be made
again.
Requests that name one key at a time share one look-up. Anybody can name a key that nobody has: so
look-ups of keys that were not found before are bounded for each peer, and all of them leave some to
keys that were. Made by ``ingot.server``; asked by ``ingot.s3.auth`` and the express lane.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from ingot.credentials import ANONYMOUS, Account
from ingot.errors import AccountsFailed, IngotError, Unavailable
from ingot.limits import (
    ACCESS_KEY_CHARS_MAX,
    ACCOUNT_LIFETIME_S,
    ACCOUNT_LOOKUP_S,
    ACCOUNT_LOOKUPS_MAX,
    ACCOUNT_LOOKUPS_NEW_MAX,
    ACCOUNT_LOOKUPS_PEER_MAX,
    ACCOUNT_REFRESH_AGAIN_S,
    ACCOUNT_REFRESH_S,
    ACCOUNTS_HELD_MAX,
    UNKNOWN_KEY_LIFETIME_S,
    UNKNOWN_KEYS_HELD_MAX,
)
from ingot.ports import AccountStore, Clock

T = TypeVar("T")
_TRIES = 3  # of a judgement; the second one finds what was looked up


class NotHeld(IngotError):
    """It is not known now whether there is such an account: wait for ``look_up``, which takes the
    address of who sent the request, and ask again."""

    def __init__(self, look_up: Callable[[str], Awaitable[None]]) -> None:
        super().__init__("the account has to be looked up")
        self.look_up = look_up


class _Held:
    """An account, until when it is believed, and from when on it is looked up anew (boottime)."""

    __slots__ = ("account", "refresh", "until")

    def __init__(self, account: Account, now: float) -> None:
        self.account = account
        self.until = now + ACCOUNT_LIFETIME_S
        self.refresh = self.until - ACCOUNT_REFRESH_S


class HeldAccounts:
    """The accounts of one ``store``. Belongs to one server and its loop."""

    def __init__(self, store: AccountStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        # Oldest first, which is the order in which they run out: on CLOCK_BOOTTIME, for a machine
        # that slept must not go on believing. One that ran out stays, as a key that was found.
        self._known: dict[str, _Held] = {}
        self._unknown: dict[str, float] = {}
        self._lookups: dict[str, asyncio.Task[None]] = {}
        self._new: Counter[str] = Counter()  # look-ups of keys that were not found before, by peer

    def get(self, access_key: str) -> Account | None:
        """The account, or None where there is none. NotHeld where the store has to be asked."""
        held = self._known.get(access_key)
        if held is not None:
            now = self._clock.boottime()
            if now < held.until:
                if now >= held.refresh:
                    self._refresh(access_key, held, now)
                return held.account
        if not _may_be_a_key(access_key):
            return None
        until = self._unknown.get(access_key)
        if until is not None and self._clock.boottime() < until:
            return None
        raise NotHeld(lambda peer: self._look_up(access_key, peer))

    def _refresh(self, access_key: str, held: _Held, now: float) -> None:
        """Begin to look up anew an account that is held still. Where that fails it is tried again
        later; meanwhile what is held runs out as ever."""
        held.refresh = now + ACCOUNT_REFRESH_AGAIN_S
        if access_key not in self._lookups and len(self._lookups) < ACCOUNT_LOOKUPS_MAX:
            self._begin(access_key, None)

    async def _look_up(self, access_key: str, peer: str) -> None:
        """Wait until the store has answered. Unavailable where it does not."""
        task = self._lookups.get(access_key)
        if task is None:
            if len(self._lookups) >= ACCOUNT_LOOKUPS_MAX:
                raise Unavailable(f"{ACCOUNT_LOOKUPS_MAX} accounts are being looked up already")
            new = None if access_key in self._known else peer
            if new is not None:
                self._check_new(new)
            task = self._begin(access_key, new)
        await asyncio.shield(task)  # others may wait for it too

    def _check_new(self, peer: str) -> None:
        if self._new[peer] >= ACCOUNT_LOOKUPS_PEER_MAX:
            raise Unavailable(f"{ACCOUNT_LOOKUPS_PEER_MAX} new keys of {peer} are being looked up")
        if self._new.total() >= ACCOUNT_LOOKUPS_NEW_MAX:
            raise Unavailable(f"{ACCOUNT_LOOKUPS_NEW_MAX} new keys are being looked up already")

    def _begin(self, access_key: str, new: str | None) -> asyncio.Task[None]:
        """``new``: the peer that asks for a key which was not found before."""
        if new is not None:
            self._new[new] += 1
        task = asyncio.ensure_future(self._ask(access_key))
        self._lookups[access_key] = task
        task.add_done_callback(lambda done: self._ended(access_key, new, done))
        return task

    def _ended(self, access_key: str, new: str | None, task: asyncio.Task[None]) -> None:
        del self._lookups[access_key]
        if new is not None:
            self._new[new] -= 1
            if not self._new[new]:
                del self._new[new]
        if not task.cancelled():
            task.exception()  # whoever waited has heard it

    async def _ask(self, access_key: str) -> None:
        try:
            async with asyncio.timeout(ACCOUNT_LOOKUP_S):
                found = await self._store.get(access_key)
        except Exception as error:
            said = f"no answer in {ACCOUNT_LOOKUP_S:g} s"
            if not isinstance(error, TimeoutError):
                said = f"{type(error).__name__}: {error}"
            raise AccountsFailed(f"the account store failed: {said}") from error
        self._known.pop(access_key, None)
        self._unknown.pop(access_key, None)
        now = self._clock.boottime()
        if found is None:
            if len(self._unknown) >= UNKNOWN_KEYS_HELD_MAX:
                del self._unknown[next(iter(self._unknown))]
            self._unknown[access_key] = now + UNKNOWN_KEY_LIFETIME_S
            return
        wrong = _fault(found, access_key)
        if wrong:
            raise AccountsFailed(f"the account store answered with what is no account: {wrong}")
        if len(self._known) >= ACCOUNTS_HELD_MAX:
            del self._known[next(iter(self._known))]
        self._known[access_key] = _Held(found, now)

    def close(self) -> None:
        """End what is being looked up."""
        for task in list(self._lookups.values()):
            task.cancel()


class Accounts(Protocol):
    """Where access keys are looked up."""

    def get(self, access_key: str, /) -> Account | None:
        """None where there is no such key. NotHeld where it has to be fetched first."""
        ...


async def judged(judge: Callable[[], T], peer: str) -> T:
    """What ``judge`` gives about a request of ``peer``, once every account that it asks for is
    held. It is called again after each look-up, so it must not change anything before it has asked.
    """
    for _ in range(_TRIES):
        try:
            return judge()
        except NotHeld as wanted:
            await wanted.look_up(peer)
    raise Unavailable("the accounts that were looked up were forgotten at once")


def _may_be_a_key(text: str) -> bool:
    """Whether the host's store is asked at all: clients may send anything."""
    return 1 <= len(text) <= ACCESS_KEY_CHARS_MAX and text.isascii() and text.isprintable()


def _fault(found: object, access_key: str) -> str:
    """What is wrong with the answer of a host's store; never its secrets."""
    if not isinstance(found, Account):
        return f"a {type(found).__name__}"
    if found.access_key != access_key:
        return "another access key than the one asked about"
    texts = (found.secret_key, found.id, found.display_name)
    if not all(isinstance(text, str) for text in texts) or not found.secret_key or not found.id:
        return "a secret key, id or display name that is empty or no string"
    if found.id == ANONYMOUS.id:
        return f"the id {ANONYMOUS.id!r}, which stands for nobody"
    return ""
