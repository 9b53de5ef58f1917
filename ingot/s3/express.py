"""The express lane: everyday GETs and PUTs of small objects, from head to answer in few steps.

    head ─ recognise (compiled) ─┬─ GET: record at hand ─────────────────── answer
                                 └─ PUT: digests ─ record ─ batch ... ───── answer

It does what ``ingot.s3.app`` and ``ingot.s3.objects`` do for the same request, in the same order
and with the same outcome, and leaves to them whatever is not plain: ``take`` is False for a request
that has an unusual header or a bucket that is not plain (``BucketConfig.plain``), is not signed as
this client's last one, is refused for any reason, wants a block that is not in memory, or whose
body is not here yet. So there are no errors here but those of a commit that was queued. A PUT
costs no task: its waiter (``_Commit``) answers in the call in which the pipeline acknowledges the
batch. Called by the connection with every head.
"""

from __future__ import annotations

import logging
from binascii import b2a_base64
from typing import TYPE_CHECKING, Final

from ingot._speedups import digest, express
from ingot.body import checksums
from ingot.bucket.mutation import Answer, Change
from ingot.bucket.record import encode_inline
from ingot.errors import IngotError, Missing
from ingot.limits import CLOCK_SKEW_MS_MAX
from ingot.messages import Exchange, Header, Response
from ingot.s3.answers import Answers, Asked
from ingot.s3.headers import (
    DEFAULT_TYPE,
    ENCRYPTION,
    checksum_headers,
    checksum_lines,
    encrypt_by_default,
    encryption_headers,
    object_headers,
)
from ingot.s3.payload import DEFAULT_ALGORITHMS

if TYPE_CHECKING:
    from ingot._speedups.express_py import Everyday
    from ingot.bucket.store import Bucket, Store
    from ingot.credentials import Account
    from ingot.s3.auth import Authenticator

log = logging.getLogger("ingot.s3")

_DEFAULT_HEADERS: Final = {"content-type": DEFAULT_TYPE}
_DEFAULT_ALGORITHM: Final = DEFAULT_ALGORITHMS[0]


class ExpressLane:
    """``forms`` is shared with the authenticator, which fills it (``Authenticator.forms``)."""

    def __init__(self, store: Store, authenticator: Authenticator, answers: Answers) -> None:
        self._store = store
        self._accounts = authenticator.accounts
        self._forms = authenticator.forms
        self._answers = answers

    def take(self, head: bytes, exchange: Exchange, now_ms: int) -> bool:
        """Whether the request was taken: then ``exchange.answer`` is called once, maybe already.
        If not, nothing has happened. Never raises."""
        everyday = express.recognise(head, self._forms, now_ms, CLOCK_SKEW_MS_MAX)
        if everyday is None:
            return False
        name = everyday.bucket.decode()
        try:
            account = self._accounts.get(everyday.form.access_key)
            if account is None or account.secret_key != everyday.form.secret_key:
                return False
            if everyday.put:
                bucket = self._store.writable(name)
                config = bucket.config
                return (
                    config.owner == account.id
                    and config.plain
                    and self._put(everyday, bucket, account, exchange, now_ms)
                )
            bucket = self._store.bucket(name)
            config = bucket.config
            return (
                config.owner == account.id
                and config.plain
                and self._get(everyday, bucket, account, exchange, now_ms)
            )
        except (IngotError, Missing):
            return False  # the general way finds the same, and words it
        except Exception:
            log.exception("the express lane broke; the request goes the general way")
            return False

    def _get(
        self, asked: Everyday, bucket: Bucket, account: Account, exchange: Exchange, now_ms: int
    ) -> bool:
        record = self._store.find_now(bucket, asked.key)
        if record is None or record.body.inline is None:
            return False
        headers = object_headers(record)
        if asked.checksum_mode:
            headers += checksum_headers(record)
        answers = self._answers
        request_id = answers.next_id()
        response = answers.complete(Response(200, headers, record.body.inline), request_id)
        if answers.logs_access:
            whole = Asked(request_id, now_ms, "GET", asked.target, bucket.name, asked.key)
            answers.note(whole, exchange.peer, account.id, "GetObject", response, "")
        exchange.answer(response)
        return True

    def _put(
        self, asked: Everyday, bucket: Bucket, account: Account, exchange: Exchange, now_ms: int
    ) -> bool:
        data = exchange.peek(asked.length)
        if data is None or asked.content_type == b"":
            return False
        sha256, md5 = digest.sha256_md5(data)
        algorithm = asked.algorithm or _DEFAULT_ALGORITHM
        checksum = checksums.one_shot(algorithm, data)
        if (
            (asked.payload and sha256.hex().encode() != asked.payload)
            or (asked.md5 is not None and asked.md5 != b2a_base64(md5, newline=False))
            or (asked.algorithm and asked.checksum != b2a_base64(checksum, newline=False))
        ):
            return False
        headers = _DEFAULT_HEADERS
        if asked.content_type is not None:
            headers = {"content-type": asked.content_type.decode("latin-1")}
        if ENCRYPTION in bucket.config.documents:
            headers = dict(headers)
            encrypt_by_default(headers, bucket.config)
        etag, sums = md5.hex(), {algorithm: checksum}
        block = encode_inline(asked.key, data, md5, sha256, etag, now_ms, headers, sums)
        cid = digest.cid_dag_cbor(block)
        request_id = self._answers.next_id()
        whole = Asked(request_id, now_ms, "PUT", asked.target, bucket.name, asked.key)
        shown = [(b"ETag", b'"%b"' % etag.encode()), *checksum_lines(sums)]
        shown += encryption_headers(headers)
        waiter = _Commit(self._answers, exchange, whole, account.id, shown)
        change = Change(asked.key, cid, etag, None)
        self._store.submit_put(bucket, change, [(cid, block)], waiter)
        exchange.consume(asked.length)
        return True


class _Commit:
    """Waits for a PUT's commit and answers the request: a ``batch.Waiter``."""

    __slots__ = ("_account", "_answers", "_asked", "_done", "_exchange", "_headers")

    def __init__(
        self,
        answers: Answers,
        exchange: Exchange,
        asked: Asked,
        account: str,
        headers: list[Header],
    ) -> None:
        self._answers = answers
        self._exchange = exchange
        self._asked = asked
        self._account = account
        self._headers = headers
        self._done = False

    def done(self) -> bool:
        return self._done

    def set_result(self, result: list[Answer], /) -> None:
        outcome = result[0]
        if outcome is None:
            self._answer(Response(200, self._headers), "")
        elif isinstance(outcome, IngotError):
            self.set_exception(outcome)
        else:  # the bucket got versions while this was queued
            self._headers.append((b"x-amz-version-id", outcome.version.encode()))
            self._answer(Response(200, self._headers), "")

    def set_exception(self, exception: IngotError, /) -> None:
        refused = self._answers.refusal(exception, self._asked)
        self._answer(self._answers.error(refused, self._asked), refused.code)

    def _answer(self, response: Response, code: str) -> None:
        self._done = True
        answers, asked = self._answers, self._asked
        try:
            answers.complete(response, asked.request_id)
            if answers.logs_access:
                peer = self._exchange.peer
                answers.note(asked, peer, self._account, "PutObject", response, code)
            self._exchange.answer(response)
        except BaseException:
            self._exchange.close()  # a client that waits for ever is worse
            raise
