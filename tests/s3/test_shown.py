"""What answers say of encryption and of expiration, whichever operation wrote the object."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterator

import pytest

from ingot.s3 import lifecycle
from ingot.s3.dates import http_date
from ingot.s3.lifecycle import Filter, Rule
from tests.s3.driver import Answer
from tests.s3.store_driver import StoreDriver
from tests.s3.test_multipart import complete, etag, part

SSE = "x-amz-server-side-encryption"
DEFAULT = (
    b"<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault>"
    b"<SSEAlgorithm>AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule>"
    b"</ServerSideEncryptionConfiguration>"
)
EXPIRATION = "x-amz-expiration"


@pytest.fixture
def driver() -> Iterator[StoreDriver]:
    with StoreDriver() as made:
        made.bucket()
        yield made


def says(answer: Answer) -> str | None:
    assert answer.status == 200, answer.body
    return answer.headers.get(SSE)


def upload(driver: StoreDriver, key: str, **headers: str) -> list[Answer]:
    """The answers to each step of an upload, the last of which is repeated."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    created = driver.ask("POST", f"/bucket/{key}", "uploads", named)
    name = created.text("UploadId")
    steps = [created, part(driver, name, 1, b"part", key=key)]
    steps += [complete(driver, name, (1, etag(b"part")), key=key) for _ in range(2)]
    return steps


def assemble(driver: StoreDriver, key: str, **headers: str) -> list[str | None]:
    """What each step of an upload says of encryption."""
    return [says(answer) for answer in upload(driver, key, **headers)]


def copy(driver: StoreDriver, source: str, key: str, **headers: str) -> str | None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named["x-amz-copy-source"] = f"/bucket/{source}"
    return says(driver.ask("PUT", f"/bucket/{key}", headers=named))


def read(driver: StoreDriver, key: str) -> str | None:
    get, head = (says(driver.ask(method, f"/bucket/{key}")) for method in ("GET", "HEAD"))
    assert get == head
    return get


def test_nothing_is_said_where_nobody_asked(driver: StoreDriver) -> None:
    assert says(driver.put("k")) is None
    assert assemble(driver, "m") == [None] * 4
    assert copy(driver, "k", "c") is None
    assert [read(driver, key) for key in "kmc"] == [None] * 3


def test_an_object_keeps_what_was_asked(driver: StoreDriver) -> None:
    asked = {"x_amz_server_side_encryption": "AES256"}
    assert says(driver.put("k", **asked)) == "AES256"
    assert assemble(driver, "m", **asked) == ["AES256"] * 4
    driver.put("plain")
    assert copy(driver, "plain", "c", **asked) == "AES256"
    assert [read(driver, key) for key in "kmc"] == ["AES256"] * 3
    assert says(driver.put("k")) is None
    assert read(driver, "k") is None, "another object now"


def test_a_copy_has_not_its_sources(driver: StoreDriver) -> None:
    driver.put("k", x_amz_server_side_encryption="AES256", content_type="text/a")
    assert copy(driver, "k", "c") is None
    assert read(driver, "c") is None
    assert driver.ask("HEAD", "/bucket/c").headers["content-type"] == "text/a"
    assert copy(driver, "k", "d", x_amz_metadata_directive="REPLACE") is None


def test_a_buckets_default(driver: StoreDriver) -> None:
    driver.put("before")
    assert driver.ask("PUT", "/bucket", "encryption", body=DEFAULT).status == 200
    assert says(driver.put("k")) == "AES256"
    assert assemble(driver, "m") == ["AES256"] * 4
    assert copy(driver, "before", "c") == "AES256"
    assert [read(driver, key) for key in "kmc"] == ["AES256"] * 3
    assert read(driver, "before") is None
    assert driver.ask("DELETE", "/bucket", "encryption").status == 204
    assert says(driver.put("l")) is None
    assert read(driver, "k") == "AES256"


def put_rules(driver: StoreDriver, rules: list[Rule]) -> None:
    body = lifecycle.write(rules)
    md5 = b64encode(hashlib.md5(body).digest()).decode()
    put = driver.ask("PUT", "/bucket", "lifecycle", {"content-md5": md5}, body)
    assert put.status == 200


def test_life_3_every_write_says_when_its_object_expires(driver: StoreDriver) -> None:
    put_rules(driver, [Rule("all", True, Filter(), days=3)])
    driver.put("k")
    copied = driver.ask("PUT", "/bucket/c", headers={"x-amz-copy-source": "/bucket/k"})
    *_, ended, repeated = upload(driver, "m")
    for key, answer in (("c", copied), ("m", ended), ("m", repeated)):
        shown = driver.ask("HEAD", f"/bucket/{key}").headers[EXPIRATION]
        assert answer.headers[EXPIRATION] == shown and 'rule-id="all"' in shown


def test_mpu_1_an_upload_says_when_it_is_aborted(driver: StoreDriver) -> None:
    rules = [
        Rule("a later one", True, Filter("m"), abort_days=5),
        Rule("50% ä", True, Filter("m"), abort_days=2),
        Rule("off", False, Filter("m"), abort_days=1),
        Rule("others", True, Filter("n"), abort_days=1),
    ]
    put_rules(driver, rules)
    created = driver.ask("POST", "/bucket/m", "uploads")
    listed = driver.ask("GET", "/bucket/m", f"uploadId={created.text('UploadId')}")
    day = driver.clock.ms // lifecycle.DAY_MS + 3  # the midnight after two whole days
    for answer in (created, listed):
        assert answer.headers["x-amz-abort-rule-id"] == "50%25 %C3%A4"
        assert answer.headers["x-amz-abort-date"] == http_date(day * lifecycle.DAY_MS)
    assert "x-amz-abort-date" not in driver.ask("POST", "/bucket/k", "uploads").headers


def test_life_3_writes_are_told_by_the_tags_they_stored(driver: StoreDriver) -> None:
    put_rules(driver, [Rule("tagged", True, Filter(tags=(("k", "v"),)), days=2)])
    answers = [driver.put("a", x_amz_tagging="k=v")]
    answers.append(driver.ask("PUT", "/bucket/b", headers={"x-amz-copy-source": "/bucket/a"}))
    answers += upload(driver, "c", x_amz_tagging="k=v")[2:]
    for answer in answers:
        assert 'rule-id="tagged"' in answer.headers[EXPIRATION]
    assert EXPIRATION not in driver.put("a", x_amz_tagging="k=w").headers
