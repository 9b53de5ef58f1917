"""Rooms with shares, and the bounds of all request documents together."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from ingot.errors import Unavailable
from ingot.limits import (
    CHECKED_KEYS_PER_TURN,
    DOCUMENT_ARRIVAL_S,
    DOCUMENTS_SHARE_BYTES,
    OPEN_DOCUMENT_BYTES_MAX,
    XML_BYTES_MAX,
    XML_STEP_BYTES,
    XML_TAGS_ELEMENTS_MAX,
)
from ingot.messages import Request
from ingot.s3 import cors, documents, lifecycle, policy_operations
from ingot.s3.access import Access
from ingot.s3.errors import S3Error
from ingot.s3.room import Room
from tests.s3.driver import OTHER, OWNER, Answer
from tests.s3.fake_store import FakeBody
from tests.s3.store_driver import StoreDriver


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Asking:
    """Who has been let in, in order."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.into: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    def ask(self, name: str, units: int) -> asyncio.Task[None]:
        """``name`` is the holder and, behind a dot, whatever."""

        async def wait() -> None:
            await self.room.acquire(name.partition(".")[0], units)
            self.into.append(name)

        self.tasks.append(asyncio.create_task(wait()))
        return self.tasks[-1]


def run(work: Any) -> None:
    asyncio.run(work)


def test_holders_take_turns_and_each_is_served_in_order() -> None:
    async def work() -> None:
        room = Room("test", 1, 1, 60)
        asking = Asking(room)
        for name in ("a.1", "a.2", "a.3", "b.1", "b.2", "c.1"):
            asking.ask(name, 1)
        await turns()
        while len(asking.into) < 6:
            assert room.held == 1
            room.release(asking.into[-1][0], 1)
            await turns()
        assert asking.into == ["a.1", "a.2", "b.1", "c.1", "a.3", "b.2"]

    run(work())


def test_a_share_is_all_that_one_gets() -> None:
    async def work() -> None:
        room = Room("test", 10, 4, 60)
        asking = Asking(room)
        for name, units in (("a.1", 3), ("a.2", 3), ("b.1", 4), ("c.1", 3), ("d.1", 1)):
            asking.ask(name, units)
        await turns()
        assert asking.into == ["a.1", "b.1", "c.1"] and room.held == 10 and room.waiting == 2
        room.release("b", 4)
        await turns()
        assert asking.into[3:] == ["d.1"], "what a holds of his share is still held"
        room.release("a", 3)
        await turns()
        assert asking.into[4:] == ["a.2"] and room.waiting == 0

    run(work())


def test_who_goes_away_or_waits_too_long_holds_nothing() -> None:
    async def work() -> None:
        room = Room("test", 2, 2, 60)
        asking = Asking(room)
        asking.ask("a", 2)
        gone, given = asking.ask("b", 2), asking.ask("c", 2)
        last = asking.ask("d", 1)
        await turns()
        await turns()
        gone.cancel()
        room.release("a", 2)  # given to c, who is cancelled before he goes on
        given.cancel()
        await asyncio.wait([last])
        assert asking.into == ["a", "d"] and room.held == 1 and room.waiting == 0

        late = [asyncio.create_task(room.acquire("b", 2)) for _ in range(2)]
        await turns()
        for waiter in room._waiting["b"]:
            room._give_up(waiter.future)
        room.release("d", 1)  # before they hear it
        for task in late:
            with pytest.raises(Unavailable, match="test"):
                await task
        assert room.held == 0 and room.waiting == 0

        hasty = Room("test", 1, 1, 0)
        with pytest.raises(Unavailable, match="test"):
            await hasty.acquire("c", 1)
            await hasty.acquire("d", 1)
        assert hasty.held == 1 and hasty.waiting == 0

    run(work())


# -- documents -------------------------------------------------------------------------------------

SMALL = {
    "publicAccessBlock": "PublicAccessBlockConfiguration",
    "ownershipControls": "OwnershipControls",
    "versioning": "VersioningConfiguration",
    "encryption": "ServerSideEncryptionConfiguration",
    "tagging": "Tagging",
}


class Slow(FakeBody):
    """A body that comes piece by piece; ``moved`` is called before each."""

    def __init__(self, data: bytes, moved: Any) -> None:
        super().__init__(data, piece=max(1, len(data) // 4), taken=False)
        self.moved = moved

    async def readinto(self, view: memoryview) -> int:
        await self.moved()
        return await super().readinto(view)


@pytest.fixture(name="driver")
def _driver() -> Iterator[StoreDriver]:
    with StoreDriver() as made:
        assert made.ask("PUT", "/bucket").status == 200
        yield made


def sums(data: bytes) -> dict[str, str]:
    return {"content-md5": base64.b64encode(hashlib.md5(data).digest()).decode()}


def post(driver: StoreDriver, data: bytes, account: Any = OWNER) -> Answer:
    return driver.ask("POST", "/bucket", "delete", sums(data), data, account)


def delete(count: int, padding: int = 0) -> bytes:
    keys = "".join(f"<Object><Key>{n}</Key></Object>" for n in range(count))
    return f"<Delete>{' ' * padding}{keys}</Delete>".encode()


def rooms(driver: StoreDriver) -> tuple[int, int, int]:
    held = driver.app._documents
    return held.room.held, held.open_room.held, held.lane.held


@pytest.mark.parametrize("resource", SMALL)
def test_a_document_of_a_small_kind_has_few_elements_and_bytes(
    driver: StoreDriver, resource: str
) -> None:
    for inner, code in (
        (b"<a/>" * XML_TAGS_ELEMENTS_MAX, "MalformedXML"),
        (b" " * XML_BYTES_MAX, "MaxMessageLengthExceeded"),
    ):
        name = SMALL[resource].encode()
        data = b"<%s>%s</%s>" % (name, inner, name)
        answer = driver.ask("PUT", "/bucket", resource, sums(data), data)
        assert (answer.status, answer.code) == (400, code)
    assert rooms(driver) == (0, 0, 0)


def test_of_long_documents_one_is_parsed_at_a_time(
    driver: StoreDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way = most = steps = 0
    before = documents.in_turns

    async def counted(work: Any) -> Any:
        nonlocal under_way, most, steps

        def each() -> Any:
            nonlocal steps
            while True:
                try:
                    next(work)
                except StopIteration as end:
                    return end.value
                steps += 1
                yield

        under_way += 1
        most = max(most, under_way)
        try:
            return await before(each())
        finally:
            under_way -= 1

    monkeypatch.setattr(documents, "in_turns", counted)
    data = delete(1000)
    answers = driver.together(*[lambda: post(driver, data) for _ in range(6)])
    assert {answer.status for answer in answers} == {200}
    assert most == 1 and steps >= 6 * len(data) // XML_STEP_BYTES
    assert rooms(driver) == (0, 0, 0)


def test_what_is_held_of_an_account_is_bounded_and_others_are_let_in(
    driver: StoreDriver,
) -> None:
    """While bodies of the largest size are on their way, one account holds no more than its share,
    and another's document is answered."""
    data = delete(1000, XML_BYTES_MAX - 60_000)
    small = delete(1)
    seen: list[int] = []
    asked: list[Request] = []

    async def moved() -> None:
        await turns()
        seen.append(rooms(driver)[0])
        if asked:
            assert (await driver.app.handle(asked.pop())).status == 200

    assert driver.ask("PUT", "/theirs", account=OTHER).status == 200
    driver.hold_back()
    for _ in range(8):
        post(driver, data)
    driver.ask("POST", "/theirs", "delete", sums(small), small, OTHER)
    requests = driver.held_back()
    asked.append(requests.pop())
    for request in requests:
        request.body = Slow(data, moved)

    async def all_of_them() -> list[int]:
        done = await asyncio.gather(*[driver.app.handle(request) for request in requests])
        return [response.status for response in done]

    assert driver.run(all_of_them()) == [200] * 8
    assert not asked and 0 < max(seen) <= DOCUMENTS_SHARE_BYTES
    assert rooms(driver) == (0, 0, 0)


def test_a_document_that_takes_too_long_makes_room(driver: StoreDriver) -> None:
    data = delete(10)

    async def moved() -> None:
        driver.clock.ms += int(DOCUMENT_ARRIVAL_S * 1000) // 3

    driver.hold_back()
    post(driver, data)
    (request,) = driver.held_back()
    request.body = Slow(data, moved)
    answer = Answer(driver.run(driver.app.handle(request)))
    assert (answer.status, answer.code) == (400, "RequestTimeout")
    assert rooms(driver) == (0, 0, 0)


class Turns:
    """Counts turns of the loop while the requests that were held back are handled."""

    turn = 0

    def handled(self, driver: StoreDriver) -> list[int]:
        requests = driver.held_back()

        async def all_of_them() -> list[int]:
            loop = asyncio.get_running_loop()

            def tick() -> None:
                nonlocal ticking
                self.turn += 1
                ticking = loop.call_soon(tick)

            ticking = loop.call_soon(tick)
            done = await asyncio.gather(*[driver.app.handle(request) for request in requests])
            ticking.cancel()
            return [response.status for response in done]

        return driver.run(all_of_them())


def policy(driver: StoreDriver, action: str) -> None:
    statement = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": action,
        "Resource": "arn:aws:s3:::bucket/*",
    }
    text = json.dumps({"Statement": statement}).encode()
    assert driver.ask("PUT", "/bucket", "policy", {}, text).status == 204


def test_nobody_who_may_delete_nothing_has_a_document_read(driver: StoreDriver) -> None:
    data = delete(2)
    policy(driver, "s3:GetObject")
    refused = post(driver, data, None)
    assert (refused.status, refused.code) == (403, "AccessDenied")
    assert driver.body.reads == 0
    tags = b"<Tagging><TagSet/></Tagging>"
    refused = driver.ask("PUT", "/bucket/k", "tagging", sums(tags), tags, None)
    assert refused.status == 403 and driver.body.reads == 0
    policy(driver, "s3:DeleteObject")
    assert post(driver, data, None).texts("Deleted/Key") == ["0", "1"]


def test_a_document_without_a_signature_is_small(driver: StoreDriver) -> None:
    policy(driver, "s3:DeleteObject")
    data = delete(2, OPEN_DOCUMENT_BYTES_MAX)
    refused = post(driver, data, None)
    assert (refused.status, refused.code) == (400, "MaxMessageLengthExceeded")
    assert driver.body.reads == 0
    assert post(driver, data).status == 200
    assert rooms(driver) == (0, 0, 0)


def test_of_the_keys_of_all_requests_some_are_judged_in_a_turn(
    driver: StoreDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy(driver, "s3:DeleteObject")
    before = Access._verdict
    counting, judged = Turns(), Counter[int]()

    def counted(*args: Any) -> bool | None:
        judged[counting.turn] += 1
        return before(*args)

    monkeypatch.setattr(Access, "_verdict", counted)
    driver.hold_back()
    for _ in range(8):
        post(driver, delete(20), OTHER)
    assert counting.handled(driver) == [200] * 8
    assert sum(judged.values()) >= 8 * 20
    assert max(judged.values()) <= 2 * CHECKED_KEYS_PER_TURN, "two batches at worst"


def test_rules_that_many_wait_for_are_read_once(
    driver: StoreDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = "<Rule><ID>{0}</ID><Filter><Prefix>{0}</Prefix></Filter><Status>Enabled</Status>"
    rule += "<Expiration><Days>1</Days></Expiration></Rule>"
    rules = "".join(rule.format(f"k{n}") for n in range(200))
    origin = "<AllowedOrigin>http://{}</AllowedOrigin>"
    origins = "".join(origin.format(n) for n in range(200))
    for resource, text in (
        ("lifecycle", f"<LifecycleConfiguration>{rules}</LifecycleConfiguration>"),
        (
            "cors",
            f"<CORSConfiguration><CORSRule>{origins}<AllowedMethod>GET</AllowedMethod></CORSRule>"
            "</CORSConfiguration>",
        ),
    ):
        data = text.encode()
        assert driver.ask("PUT", "/bucket", resource, sums(data), data).status == 200
    assert driver.ask("PUT", "/bucket/k7", body=b"x").status == 200
    read: list[str] = []

    def counted(name: str, before: Any) -> Any:
        def steps(*args: Any) -> Any:
            read.append(name)
            return before(*args)

        return steps

    lifecycle_read, cors_read = lifecycle.read_in_steps, cors.read_in_steps
    monkeypatch.setattr(lifecycle, "read_in_steps", counted("lifecycle", lifecycle_read))
    monkeypatch.setattr(cors, "read_in_steps", counted("cors", cors_read))
    sent = {"origin": "http://7"}
    answers = driver.together(*[lambda: driver.ask("GET", "/bucket/k7", "", sent)] * 10)
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == "http://7"
        assert 'rule-id="k7"' in answer.headers["x-amz-expiration"]
    assert read.count("cors") == 1 and read.count("lifecycle") <= 1


def test_what_is_refused_in_its_first_step_takes_a_turn_too(
    driver: StoreDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting, read = Turns(), Counter[int]()

    def refuses(*_: Any, **__: Any) -> Any:
        read[counting.turn] += 1
        raise S3Error("MalformedPolicy")
        yield

    monkeypatch.setattr(policy_operations, "read_in_steps", refuses)
    driver.hold_back()
    for _ in range(8):
        driver.ask("PUT", "/bucket", "policy", {}, b"{}")
    assert counting.handled(driver) == [400] * 8
    assert sum(read.values()) == 8 and max(read.values()) == 1
