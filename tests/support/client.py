"""A small blocking S3 client for tests: raw requests, signed here, nothing retried or hidden."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import http.client
import urllib.parse
from dataclasses import dataclass

UNSIGNED = "UNSIGNED-PAYLOAD"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]  # lower-case names
    body: bytes

    @property
    def code(self) -> str:
        """The S3 error code of the body, or ''."""
        start = self.body.find(b"<Code>")
        return "" if start < 0 else self.body[start + 6 : self.body.find(b"</Code>")].decode()


class Client:
    """One keep-alive connection; not for sharing between threads."""

    def __init__(self, url: str, access_key: str, secret_key: str, region: str = "us-east-1"):
        parts = urllib.parse.urlsplit(url)
        assert parts.hostname is not None
        self.host, self.port = parts.hostname, parts.port or 80
        self.access_key, self.secret_key, self.region = access_key, secret_key, region
        self.connection = http.client.HTTPConnection(self.host, self.port, timeout=60)

    def close(self) -> None:
        self.connection.close()

    __del__ = close

    def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        query: str = "",
    ) -> Answer:
        """``path`` is sent as given (percent-encode it yourself); ``query`` likewise."""
        sent = self.sign(method, path, query, headers or {})
        target = path + ("?" + query if query else "")
        self.connection.request(method, target, body, sent)
        response = self.connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, response.read())

    def put(self, path: str, body: bytes, **headers: str) -> Answer:
        return self.request("PUT", path, body, {k.replace("_", "-"): v for k, v in headers.items()})

    def get(self, path: str, query: str = "", **headers: str) -> Answer:
        named = {k.replace("_", "-"): v for k, v in headers.items()}
        return self.request("GET", path, b"", named, query)

    def put_tag(self, bucket: str, value: str) -> Answer:
        """Give the bucket one tag."""
        tag = f"<Tag><Key>tag</Key><Value>{value}</Value></Tag>"
        body = f"<Tagging><TagSet>{tag}</TagSet></Tagging>".encode()
        md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
        return self.request("PUT", f"/{bucket}", body, {"content-md5": md5}, "tagging")

    def get_tag(self, bucket: str) -> str | None:
        answer = self.get(f"/{bucket}", "tagging")
        if answer.code in ("NoSuchTagSet", "NoSuchBucket"):
            return None
        assert answer.status == 200, answer
        return answer.body.split(b"<Value>")[1].split(b"</Value>")[0].decode()

    def delete(self, path: str) -> Answer:
        return self.request("DELETE", path)

    def list_all(self, bucket: str) -> dict[str, int]:
        """Every key and its size, through ListObjectsV2 pages."""
        import xml.etree.ElementTree as ET

        found: dict[str, int] = {}
        token = ""
        while True:
            query = "list-type=2"
            if token:
                query = "continuation-token=" + urllib.parse.quote(token, safe="") + "&" + query
            answer = self.get(f"/{bucket}", query)
            assert answer.status == 200, answer
            root = ET.fromstring(answer.body)
            space = root.tag[: root.tag.index("}") + 1]
            for entry in root.iter(f"{space}Contents"):
                size = entry.findtext(f"{space}Size")
                found[entry.findtext(f"{space}Key") or ""] = int(size or -1)
            token = root.findtext(f"{space}NextContinuationToken") or ""
            if not token:
                return found

    def sign(
        self, method: str, path: str, query: str, headers: dict[str, str], payload: str = UNSIGNED
    ) -> dict[str, str]:
        """``headers`` with Host, X-Amz-Date, X-Amz-Content-Sha256 and Authorization added."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        all_headers = {name.lower(): value.strip() for name, value in headers.items()}
        all_headers.setdefault("x-amz-content-sha256", payload)
        all_headers |= {"host": f"{self.host}:{self.port}", "x-amz-date": now}
        names = ";".join(sorted(all_headers))
        pairs = sorted(
            piece if "=" in piece else piece + "=" for piece in query.split("&") if piece
        )
        lines = [method, path, "&".join(pairs)]
        lines += [f"{name}:{all_headers[name]}" for name in sorted(all_headers)]
        lines += ["", names, all_headers["x-amz-content-sha256"]]
        scope = f"{now[:8]}/{self.region}/s3/aws4_request"
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        to_sign = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{digest}"
        key = b"AWS4" + self.secret_key.encode()
        for part in (now[:8], self.region, "s3", "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
        all_headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}, "
            f"SignedHeaders={names}, Signature={signature}"
        )
        return all_headers
