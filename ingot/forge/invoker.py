"""Asking a service to do something: one signed invocation, sent, and the receipt that answers it.

An answer is believed when the service that was asked signed a receipt for the very task. Its
refusal is Refused, with its name for the error, or Unavailable where the name stands for something
that passes. A container without such a receipt is BadAnswer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from ingot.codec import cid
from ingot.codec.dag_cbor import Cid
from ingot.errors import FormatError, IngotError, Unavailable
from ingot.forge import container, token, validate, values
from ingot.forge.container import Container
from ingot.forge.errors import BadAnswer, Refused, UcanError
from ingot.forge.http import Http
from ingot.forge.identity import Identity
from ingot.forge.resolver import Resolver
from ingot.forge.token import Delegation, Invocation, Receipt, Token
from ingot.limits import (
    CONTAINER_BYTES_MAX,
    FORGE_PAGES_MAX,
    FORGE_RECEIPTS_MAX,
    UCAN_NONCE_BYTES,
    UCAN_TTL_S,
)

# Errors behind which something stands that passes: no node free, a handler that failed, a document
# that the service could not fetch, a node's own fault, clocks or queues that were slower than the
# token's life, a receipt that has not arrived.
PASSING: Final = (
    "CandidateUnavailable",
    "ConclusionReceiptNotFound",
    "DIDKeyResolutionError",
    "Expired",
    "HandlerExecutionError",
    "InternalServerError",
    "TooEarly",
)


@dataclass(frozen=True, slots=True)
class Service:
    """``did`` signs its receipts, invocations go to ``url``."""

    did: str
    url: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What a service said to one invocation, and all that came with it."""

    invocation: Invocation
    ok: object
    container: Container


class Invoker:
    """Signs as an identity, sends, and judges what comes back."""

    def __init__(
        self,
        http: Http,
        resolver: Resolver,
        identity: Identity,
        now_ms: Callable[[], int],
        random: Callable[[int], bytes],
    ) -> None:
        self.http, self.resolver, self.identity = http, resolver, identity
        self._now_ms, self.random = now_ms, random

    def now(self) -> int:
        return self._now_ms() // 1000

    def nonce(self) -> bytes:
        return self.random(UCAN_NONCE_BYTES)

    def invocation(
        self,
        audience: str,
        command: str,
        arguments: Mapping[str, object],
        subject: str | None = None,
        meta: Mapping[str, object] | None = None,
    ) -> tuple[Invocation, list[Delegation]]:
        """A fresh invocation about the space, or ``subject``, with the proofs to send along.
        ConfigError where the identity has no right to it."""
        now, identity = self.now(), self.identity
        about = identity.space if subject is None else subject
        proofs = identity.proofs(command, now, about, arguments)
        made = token.invoke(
            identity.agent,
            subject=about,
            audience=audience,
            command=command,
            arguments=arguments,
            proofs=[proof.cid for proof in proofs],
            expires=now + UCAN_TTL_S,
            nonce=self.nonce(),
            meta=meta,
        )
        return made, proofs

    def grant(
        self,
        audience: str,
        command: str,
        lasts_s: int,
        policy: Iterable[object] = (),
    ) -> list[Delegation]:
        """The chain, root first, that lets ``audience`` use ``command`` on the space for a while:
        ours, and one more."""
        now, identity = self.now(), self.identity
        held = identity.proofs(command, now)
        made = token.delegate(
            identity.agent,
            audience=audience,
            subject=identity.space,
            command=command,
            policy=list(policy),
            expires=now + lasts_s,
            nonce=self.nonce(),
        )
        return [*held, made]

    async def ask(
        self,
        service: Service,
        command: str,
        arguments: Mapping[str, object],
        *,
        subject: str | None = None,
        meta: Mapping[str, object] | None = None,
        along: Iterable[Token] = (),
    ) -> Reply:
        """What the service says to one invocation; its errors are raised."""
        made, proofs = self.invocation(service.did, command, arguments, subject, meta)
        answer = await self.http.call(
            "POST",
            service.url,
            headers={"Content-Type": container.CONTENT_TYPE},
            body=container.encode([made, *proofs, *along]),
            bytes_max=CONTAINER_BYTES_MAX,
        )
        found = read(answer.headers.get("Content-Type"), answer.body, service.url)
        receipt = await self.receipt_in(found, made.task, service.did)
        if receipt is None:
            others = sorted({one.issuer for one in found.receipts.values()}) or ["nobody"]
            raise BadAnswer(
                service.url,
                f"no receipt for {command}, only from {', '.join(others[:3])}; a service that "
                f"goes by another DID than {service.did}, or cannot read a token, says nothing",
            )
        return Reply(made, result(receipt, command), found)

    async def receipt_in(self, found: Container, task: bytes, executor: str) -> Receipt | None:
        """The executor's receipt for a task, verified; None where there is none for the task.
        BadAnswer where all there are were made by others or are not signed rightly.

        Of many only a few are looked at, the executor's first. A document is fetched once for all
        of them; one that did not help is fetched again for the next answer."""
        receipts = sorted(found.receipts_of(task), key=lambda one: one.issuer != executor)
        receipts = receipts[:FORGE_RECEIPTS_MAX]
        # A stranger's document is not fetched: only who was asked is looked at.
        issued = [one for one in receipts if one.issuer == executor]
        documents = await self.resolver.documents(issued)
        fault: UcanError | None = None
        for receipt in receipts:
            try:
                validate.validate_receipt(
                    receipt, task=task, executor=executor, now=self.now(), documents=documents
                )
            except UcanError as error:
                fault = error
            else:
                return receipt
        if fault is not None:
            self.resolver.forget(documents)
            raise BadAnswer(executor, f"a receipt that is not believed: {fault}") from fault
        return None

    async def stored_receipt(
        self, url: str, task: bytes, executor: str
    ) -> tuple[Receipt, Container] | None:
        """What a receipt endpoint has for a task; None where it has nothing yet."""
        answer = await self.http.call(
            "GET",
            f"{url.rstrip('/')}/{cid.to_text(task)}",
            bytes_max=CONTAINER_BYTES_MAX,
            statuses=(200, 404),
        )
        if answer.status == 404:
            return None
        found = read(answer.headers.get("Content-Type"), answer.body, url)
        receipt = await self.receipt_in(found, task, executor)
        return None if receipt is None else (receipt, found)


def read(content_type: str | None, body: bytes, url: str) -> Container:
    """The container of an answer; BadAnswer when it is none."""
    if content_type != container.CONTENT_TYPE:
        raise BadAnswer(url, f"an answer of content type {content_type!r:.99}")
    try:
        return container.decode(body)
    except FormatError as error:
        raise BadAnswer(url, f"an answer that is no container: {error}") from error


def result(receipt: Receipt, command: str) -> object:
    """The ``ok`` of a receipt, else the executor's error: Refused, or Unavailable from it."""
    try:
        return receipt.result()
    except Refused as error:
        if error.name in PASSING:
            raise Unavailable(f"{error.service} does not {command} now: {error}") from error
        raise


def link(value: object, *path: str) -> bytes:
    """The CID that is linked to at ``path``; Malformed when there is none."""
    return bytes(values.take(value, Cid, *path))


class Pages:
    """The pages of one listing of a service, which must come to an end."""

    def __init__(self, service: str, command: str) -> None:
        self._service, self._command = service, command
        self._cursors: set[str] = set()

    def follow(self, cursor: str) -> str:
        """``cursor`` of the page that was read. BadAnswer for one that came before, or one too
        many."""
        if cursor in self._cursors:
            raise BadAnswer(self._service, f"{self._command} repeats the cursor {cursor[:100]!r}")
        if len(self._cursors) >= FORGE_PAGES_MAX:
            raise BadAnswer(self._service, f"{self._command} has more than {FORGE_PAGES_MAX} pages")
        self._cursors.add(cursor)
        return cursor


def bad(service: str, what: str, error: IngotError) -> BadAnswer:
    return BadAnswer(service, f"{what}: {error}")
