"""The S3 operations that tests of crashes and of contention need, over the blocking client.

Every request either has an answer that says what happened or raises ``Lost``: then it may have
happened or not. A refusal that is not expected is an AssertionError with the answer.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import random
import urllib.parse
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from tests.support.client import Answer, Client

POOL = random.Random("pool").randbytes(6 << 20)
PART_MIN = 5 << 20  # of every part but the last


@lru_cache(maxsize=1 << 16)
def _md5(start: int, size: int) -> str:
    return hashlib.md5(POOL[start : start + size]).hexdigest()


class Lost(Exception):
    """No answer that says what happened: the connection died, or the gateway said 503."""


class Piece(NamedTuple):
    """Bytes, as a slice of POOL."""

    start: int
    size: int

    @property
    def data(self) -> bytes:
        return POOL[self.start : self.start + self.size]

    @property
    def etag(self) -> str:
        return _md5(self.start, self.size)

    @classmethod
    def of(cls, source: random.Random, size: int) -> Piece:
        return cls(source.randrange(len(POOL) - size + 1), size)


def joined_etag(pieces: Iterable[Piece]) -> str:
    """The ETag of an object that was put together from these parts."""
    digests = [bytes.fromhex(piece.etag) for piece in pieces]
    return f"{hashlib.md5(b''.join(digests)).hexdigest()}-{len(digests)}"


class Seen(NamedTuple):
    """A version, or a delete marker, as ListObjectVersions shows it."""

    id: str
    marker: bool
    etag: str
    size: int
    latest: bool


class S3:
    """One bucket over one connection; not for sharing between threads."""

    def __init__(self, client: Client, bucket: str) -> None:
        self.client, self.bucket = client, bucket

    def close(self) -> None:
        self.client.close()

    def ask(
        self,
        method: str,
        key: str = "",
        query: str = "",
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Keys are names of this project's tests: nothing in them needs to be escaped."""
        path = f"/{self.bucket}/{key}" if key else f"/{self.bucket}"
        try:
            answer = self.client.request(method, path, body, dict(headers or {}), query)
        except (OSError, http.client.HTTPException) as error:
            self.client.close()
            raise Lost(f"{method} {path}: {error!r}") from error
        if answer.status == 503:
            raise Lost(f"{method} {path}: {answer.code}")
        return answer

    def must(
        self,
        status: int,
        method: str,
        key: str = "",
        query: str = "",
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        answer = self.ask(method, key, query, body, headers)
        assert answer.status == status, (
            f"{method} /{self.bucket}/{key}?{query} {headers or ''}: {answer.status}, not "
            f"{status}: {answer.body[:500]!r}"
        )
        return answer

    # -- objects ---------------------------------------------------------------------------------

    def make(self) -> None:
        self.must(200, "PUT")

    def put(self, key: str, piece: Piece, tags: Mapping[str, str] | None = None) -> Answer:
        headers = {"x-amz-tagging": urllib.parse.urlencode(tags)} if tags else {}
        answer = self.must(200, "PUT", key, body=piece.data, headers=headers)
        assert answer.headers["etag"] == f'"{piece.etag}"', (key, answer)
        return answer

    def read(self, key: str, version: str = "") -> bytes | None:
        """The bytes; None where there is no object, or a delete marker is in front. Bytes and ETag
        of one PUT agree."""
        answer = self.ask("GET", key, f"versionId={version}" if version else "")
        if answer.status == 404:
            return None
        assert answer.status == 200, (key, version, answer)
        etag = answer.headers["etag"].strip('"')
        if "-" not in etag:
            assert hashlib.md5(answer.body).hexdigest() == etag, f"{key} {version}: torn bytes"
        return answer.body

    def etag(self, key: str) -> str | None:
        answer = self.ask("HEAD", key)
        assert answer.status in (200, 404), (key, answer)
        return answer.headers["etag"].strip('"') if answer.status == 200 else None

    def send_document(self, method: str, query: str, body: str, key: str = "") -> Answer:
        """With the digest that S3 wants of some documents."""
        md5 = base64.b64encode(hashlib.md5(body.encode()).digest()).decode()
        return self.ask(method, key, query, body.encode(), {"content-md5": md5})

    def configure(self, name: str, body: str) -> None:
        """Give the bucket a document; "" takes it away."""
        if body:
            answer = self.send_document("PUT", name, body)
        else:
            answer = self.ask("DELETE", query=name)
        assert answer.status == (200 if body else 204), (name, body, answer)

    def set_versioning(self, status: str) -> None:
        text = f"<VersioningConfiguration><Status>{status}</Status></VersioningConfiguration>"
        self.configure("versioning", text)

    def versioning(self) -> str:
        """ "" where it was never set."""
        root = ET.fromstring(self.must(200, "GET", query="versioning").body)
        return root.findtext("{*}Status") or ""

    def tags(self, key: str, version: str) -> dict[str, str] | None:
        """None where there is no such version."""
        answer = self.ask("GET", key, f"tagging&versionId={version}")
        if answer.status == 404:
            return None
        assert answer.status == 200, (key, version, answer)
        root = ET.fromstring(answer.body)
        return {
            tag.findtext("{*}Key") or "": tag.findtext("{*}Value") or ""
            for tag in root.findall(".//{*}Tag")
        }

    def set_tags(self, key: str, tags: Mapping[str, str], version: str = "") -> bool:
        """False where there is no such object or version."""
        query = "tagging" + (f"&versionId={version}" if version else "")
        text = "".join(
            f"<Tag><Key>{name}</Key><Value>{value}</Value></Tag>" for name, value in tags.items()
        )
        document = f"<Tagging><TagSet>{text}</TagSet></Tagging>"
        answer = self.send_document("PUT", query, document, key)
        assert answer.status in (200, 404), (key, version, answer)
        return answer.status == 200

    def delete_many(self, entries: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Keys, each with a version id or "", in one request; all of them must go. The ids of the
        delete markers that this made, by key."""
        text = "".join(
            f"<Object><Key>{key}</Key>"
            + (f"<VersionId>{version}</VersionId>" if version else "")
            + "</Object>"
            for key, version in entries
        )
        answer = self.send_document("POST", "delete", f"<Delete>{text}</Delete>")
        assert answer.status == 200, answer
        root = ET.fromstring(answer.body)
        assert root.find("{*}Error") is None, answer
        return {
            node.findtext("{*}Key") or "": node.findtext("{*}DeleteMarkerVersionId") or ""
            for node in root.findall(".//{*}Deleted")
            if node.find("{*}VersionId") is None
            and node.find("{*}DeleteMarkerVersionId") is not None
        }

    def versions(self, prefix: str = "") -> dict[str, list[Seen]]:
        """Every version of every key, the newest first."""
        found: dict[str, list[Seen]] = {}
        after = ""
        while True:
            query = f"prefix={_quoted(prefix)}{after}&versions"
            root = ET.fromstring(self.must(200, "GET", query=query).body)
            for node in root:
                name = node.tag.rpartition("}")[2]
                if name in ("Version", "DeleteMarker"):
                    found.setdefault(node.findtext("{*}Key") or "", []).append(_seen(name, node))
            if root.findtext("{*}IsTruncated") != "true":
                return found
            key = root.findtext("{*}NextKeyMarker") or ""
            version = root.findtext("{*}NextVersionIdMarker") or ""
            after = f"&key-marker={_quoted(key)}&version-id-marker={_quoted(version)}"

    # -- uploads ---------------------------------------------------------------------------------

    def create_upload(self, key: str) -> str:
        root = ET.fromstring(self.must(200, "POST", key, "uploads").body)
        return root.findtext("{*}UploadId") or ""

    def put_part(self, key: str, upload: str, number: int, piece: Piece) -> None:
        query = f"partNumber={number}&uploadId={upload}"
        answer = self.must(200, "PUT", key, query, piece.data)
        assert answer.headers["etag"] == f'"{piece.etag}"', (key, number, answer)

    def copy_part(self, key: str, upload: str, number: int, source: str, piece: Piece) -> None:
        """Of an object of this bucket whose bytes are POOL."""
        query = f"partNumber={number}&uploadId={upload}"
        headers = {
            "x-amz-copy-source": f"/{self.bucket}/{source}",
            "x-amz-copy-source-range": f"bytes={piece.start}-{piece.start + piece.size - 1}",
        }
        answer = self.must(200, "PUT", key, query, headers=headers)
        etag = ET.fromstring(answer.body).findtext("{*}ETag")
        assert etag == f'"{piece.etag}"', (key, number, answer)

    def abort(self, key: str, upload: str) -> Answer:
        """204, or 404 where it is no more."""
        answer = self.ask("DELETE", key, f"uploadId={upload}")
        assert answer.status == 204 or answer.code == "NoSuchUpload", (key, upload, answer)
        return answer

    def complete(
        self,
        key: str,
        upload: str,
        parts: Iterable[tuple[int, Piece]],
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Whatever it answers."""
        entries = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{piece.etag}</ETag></Part>"
            for number, piece in parts
        )
        body = f"<CompleteMultipartUpload>{entries}</CompleteMultipartUpload>".encode()
        return self.ask("POST", key, f"uploadId={upload}", body, headers)

    def parts(self, key: str, upload: str) -> dict[int, tuple[str, int]] | None:
        """ETag and size by number; None where the upload is no more."""
        answer = self.ask("GET", key, f"uploadId={upload}")
        if answer.code == "NoSuchUpload":
            return None
        assert answer.status == 200, (key, upload, answer)
        root = ET.fromstring(answer.body)
        assert root.findtext("{*}IsTruncated") == "false"
        return {
            int(node.findtext("{*}PartNumber") or 0): (
                (node.findtext("{*}ETag") or "").strip('"'),
                int(node.findtext("{*}Size") or -1),
            )
            for node in root.findall(".//{*}Part")
        }

    def uploads(self, prefix: str = "") -> set[tuple[str, str]]:
        """(key, upload id) of all that are open."""
        found: set[tuple[str, str]] = set()
        after = ""
        while True:
            query = f"{after}prefix={_quoted(prefix)}&uploads"
            root = ET.fromstring(self.must(200, "GET", query=query).body)
            for node in root.findall(".//{*}Upload"):
                found.add((node.findtext("{*}Key") or "", node.findtext("{*}UploadId") or ""))
            if root.findtext("{*}IsTruncated") != "true":
                return found
            key = root.findtext("{*}NextKeyMarker") or ""
            upload = root.findtext("{*}NextUploadIdMarker") or ""
            after = f"key-marker={_quoted(key)}&upload-id-marker={_quoted(upload)}&"


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")


def _seen(name: str, node: ET.Element) -> Seen:
    marker = name == "DeleteMarker"
    return Seen(
        node.findtext("{*}VersionId") or "",
        marker,
        "" if marker else (node.findtext("{*}ETag") or "").strip('"'),
        0 if marker else int(node.findtext("{*}Size") or -1),
        node.findtext("{*}IsLatest") == "true",
    )
