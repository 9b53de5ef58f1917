"""What a person does with an S3 client, with each of them, against a gateway of its own.

Every flow looks at the gateway from two sides: through the client, and past it.
"""

from __future__ import annotations

import hashlib
import os
import urllib.request
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.clients.conftest import fill, new_name
from tests.clients.keys import KEYS
from tests.clients.port import MIB, S3Client
from tests.support.client import Client
from tests.support.process import Gateway

LARGE_BYTES = 20 * MIB + 1


def digest(data: bytes) -> str:
    """Of what is too long to be shown where it differs."""
    return hashlib.sha256(data).hexdigest()


def stored(observer: Client, bucket: str, key: str) -> bytes:
    answer = observer.get(f"/{bucket}/{quote(key)}")
    assert answer.status == 200, (key, answer.code)
    return answer.body


def etag_of(observer: Client, bucket: str, key: str) -> str:
    return observer.request("HEAD", f"/{bucket}/{quote(key)}").headers["etag"].strip('"')


def store(observer: Client, bucket: str, key: str, data: bytes) -> None:
    assert observer.put(f"/{bucket}/{quote(key)}", data).status == 200


def write(path: Path, data: bytes) -> None:
    """A file, older than any copy of it: S3's times are whole seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (1_700_000_000, 1_700_000_000))


def test_buckets(client: S3Client, observer: Client) -> None:
    name = new_name()
    client.make_bucket(name)
    assert observer.request("HEAD", f"/{name}").status == 200
    assert name in client.buckets()
    client.remove_bucket(name)
    assert observer.request("HEAD", f"/{name}").status == 404


def test_bodies(client: S3Client, observer: Client, bucket: str, tmp_path: Path) -> None:
    for size in (0, 1, 5 * MIB):
        data, key = os.urandom(size), f"body-{size}.bin"
        sent, back = tmp_path / "sent", tmp_path / f"back-{size}"
        sent.write_bytes(data)
        client.put(bucket, key, sent)
        assert digest(stored(observer, bucket, key)) == digest(data)
        client.get(bucket, key, back)
        assert digest(back.read_bytes()) == digest(data)


def test_multipart(client: S3Client, observer: Client, bucket: str, tmp_path: Path) -> None:
    data = os.urandom(LARGE_BYTES)
    (tmp_path / "sent").write_bytes(data)
    client.put(bucket, "large.bin", tmp_path / "sent")
    _, _, parts = etag_of(observer, bucket, "large.bin").partition("-")
    assert int(parts) >= 2
    assert digest(stored(observer, bucket, "large.bin")) == digest(data)
    client.get(bucket, "large.bin", tmp_path / "back")
    assert digest((tmp_path / "back").read_bytes()) == digest(data)


def test_sync(client: S3Client, observer: Client, bucket: str, tmp_path: Path) -> None:
    """What is the same on both sides by size and time, or by digest, is not sent again."""
    tree, place = tmp_path / "tree", client.place(bucket)
    names = ("top.txt", "a b/c+d.txt", "a b/\u00e9/100%.txt")
    for name in names:
        write(tree / name, os.urandom(1000))
    said = client.sync(tree, place)
    assert all(Path(name).name in said for name in names)
    said = client.sync(tree, place)
    assert not any(Path(name).name in said for name in names)

    write(tree / names[0], b"another size")
    (tree / names[1]).unlink()
    client.sync(tree, place)
    left = {name: (tree / name).read_bytes() for name in (names[0], names[2])}
    assert {key: stored(observer, bucket, key) for key in observer.list_all(bucket)} == left
    client.sync(place, tmp_path / "back")
    assert {name: (tmp_path / "back" / name).read_bytes() for name in left} == left


def test_range(client: S3Client, observer: Client, bucket: str) -> None:
    data = os.urandom(3 * MIB)
    store(observer, bucket, "k", data)
    first, count = MIB + 1, 70_000
    got = client.get_range(bucket, "k", first, count)
    assert digest(got) == digest(data[first : first + count])


def test_listing(client: S3Client, crowded: tuple[str, list[str]]) -> None:
    bucket, keys = crowded
    assert sorted(client.keys(bucket)) == keys


def test_levels(client: S3Client, crowded: tuple[str, list[str]]) -> None:
    bucket, keys = crowded
    assert client.level(bucket, "") == {"many/", "one/", "top", "wide/"}
    assert client.level(bucket, "many/") == {key for key in keys if key.startswith("many/")}
    assert client.level(bucket, "wide/") == {key[:-1] for key in keys if key.startswith("wide/")}


def test_copy(client: S3Client, observer: Client, bucket: str) -> None:
    source, target = "from/a b+\u00e9.txt", "to/c d+\u00e9.txt"
    store(observer, bucket, source, b"some bytes")
    client.copy(bucket, source, target)
    assert stored(observer, bucket, target) == stored(observer, bucket, source) == b"some bytes"


def test_large_copy(client: S3Client, observer: Client, bucket: str) -> None:
    data = os.urandom(LARGE_BYTES)
    store(observer, bucket, "source", data)
    client.copy_by_parts(bucket, "source", "target")
    assert "-" in etag_of(observer, bucket, "target")
    assert digest(stored(observer, bucket, "target")) == digest(data)


def test_presigned_get(client: S3Client, observer: Client, bucket: str) -> None:
    key = "shared/a b+\u00e9.txt"
    store(observer, bucket, key, b"for whoever has the URL")
    with urllib.request.urlopen(client.presigned_get(bucket, key), timeout=30) as answer:
        assert answer.read() == b"for whoever has the URL"


def test_presigned_put(client: S3Client, observer: Client, bucket: str) -> None:
    key = "given/a b+\u00e9.txt"
    url = client.presigned_put(bucket, key)
    # urllib gives a body a content type, which nobody signed: it may be anything.
    sent = urllib.request.Request(url, data=b"given", method="PUT")
    with urllib.request.urlopen(sent, timeout=30) as answer:
        assert answer.status == 200
    assert stored(observer, bucket, key) == b"given"


def test_keys(
    client: S3Client,
    observer: Client,
    bucket: str,
    tmp_path: Path,
    record_property: pytest.RecordProperty,
) -> None:
    """Each key comes into the bucket as it is, is listed as it is, and its bytes come back."""
    keys = {kind: key for kind, key in KEYS.items() if kind not in client.unsendable}
    for kind, reason in client.unsendable.items():
        record_property("unsendable", f"{kind}: {reason}")

    sent, back = (
        {key: tmp_path / (kind + end) for kind, key in keys.items()} for end in (".1", ".2")
    )
    for key, path in sent.items():
        path.write_bytes(key.encode())
    client.put_each(bucket, sent)
    assert set(observer.list_all(bucket)) == set(sent)
    assert set(client.keys(bucket)) == set(sent)
    client.get_each(bucket, back)
    assert {key: path.read_bytes() for key, path in back.items()} == {
        key: key.encode() for key in sent
    }


def test_removal(client: S3Client, gateway: Gateway, observer: Client, bucket: str) -> None:
    fill(gateway, bucket, [f"{number % 3}/{number:04}" for number in range(1050)] + ["top"])
    client.remove_all(bucket)
    assert observer.list_all(bucket) == {}


def test_tls(secure_client: S3Client, secure_bucket: str, tmp_path: Path) -> None:
    """Bodies come in other framings than without TLS, checksums in other places."""
    for size in (0, 300_000, LARGE_BYTES):
        data = os.urandom(size)
        sent, back = tmp_path / f"sent-{size}", tmp_path / f"back-{size}"
        sent.write_bytes(data)
        secure_client.put(secure_bucket, f"a b+{size}", sent)
        secure_client.get(secure_bucket, f"a b+{size}", back)
        assert digest(back.read_bytes()) == digest(data)
    assert len(secure_client.keys(secure_bucket)) == 3
