"""The upload service: whose word a client takes for where its blobs go, and who keeps the books.

    /blob/add        a node is found, the answer has everything that is to follow (``additions``)
    /ucan/conclude   the client's receipt for its put: the node is asked to accept
    /index/add       the indexer is sent to read an index archive, with a chain of delegations
    /blob/list, /blob/remove, /blob/abort, /upload/add, /upload/list, /upload/remove,
    /upload/shard/list, /space/info, /provider/add

A space that no account provisioned is refused, unless the network is ``open``: InsufficientStorage.
There are two generations of
``/ucan/conclude``: "seed" answers only that it is done (the accept receipt is asked for at
``GET /receipt``), "next" also answers with the accept receipts and what belongs to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from ingot.codec import cid, multihash
from ingot.codec.dag_cbor import Cid
from ingot.errors import FormatError, Unavailable
from ingot.forge import chain, did, values
from ingot.forge.errors import Malformed
from ingot.forge.network.additions import Additions, Registered
from ingot.forge.network.arguments import (
    Blob,
    Failure,
    did_of,
    digest_of,
    link_of,
    links_of,
    page_of,
)
from ingot.forge.network.faults import ExpiredDelegations, LateReceipts
from ingot.forge.network.records import held
from ingot.forge.network.service import Call, Service, links
from ingot.forge.network.state import Locks
from ingot.forge.token import Delegation, Receipt
from ingot.limits import UCAN_TTL_S

SEED: Final = "seed"
NEXT: Final = "next"
GENERATIONS: Final = (SEED, NEXT)


@dataclass(frozen=True, slots=True)
class Provision:
    """Of a space, by its DID."""

    providers: list[str]
    account: str


@dataclass(frozen=True, slots=True)
class Customer:
    """An account with a plan, by its DID."""

    plan: str


@dataclass(frozen=True, slots=True)
class Upload:
    """A DAG that a client named, by space and root."""

    index: bytes
    shards: list[bytes]


@dataclass(frozen=True, slots=True)
class Indexing:
    """Where the indexer is."""

    url: str
    did: str


class UploadService(Service):
    name = "upload"
    hands_on = ("/index/add",)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.generation = SEED
        self.open = False
        self._locks = Locks()
        self.indexing: Indexing | None = None
        self.additions = Additions(self)
        self.commands |= {
            "/blob/add": self._blob_add,
            "/blob/list": self._blob_list,
            "/blob/remove": self._blob_remove,
            "/blob/abort": self._blob_abort,
            "/ucan/conclude": self._conclude,
            "/index/add": self._index_add,
            "/upload/add": self._upload_add,
            "/upload/list": self._upload_list,
            "/upload/remove": self._upload_remove,
            "/upload/shard/list": self._shard_list,
            "/space/info": self._space_info,
            "/provider/add": self._provider_add,
        }
        self.declare()

    def no_receipt(self) -> web.Response:
        return web.json_response({"error": "receipt not found"}, status=404)

    # -- spaces -------------------------------------------------------------------------------

    async def provision(self, space: str, account: str = "") -> None:
        """Let ``space`` store here."""
        await self.state.write((space.encode(), Provision([self.did], account)))

    async def give_plan(self, account: str) -> None:
        """Let an account provision spaces."""
        await self.state.write((account.encode(), Customer("free")))

    async def _space_info(self, call: Call) -> object:
        found = await self.state.get(Provision, call.subject.encode())
        if found is None and not self.open:
            raise Failure("UnknownSpace", f"{call.subject} has no provider")
        return {"providers": found.providers if found else [self.did]}

    async def _provider_add(self, call: Call) -> object:
        account = call.subject
        space, provider = did_of(call.arguments, "consumer"), did_of(call.arguments, "provider")
        if did.split(account)[0] not in ("mailto", "plc"):
            raise Failure("InvalidAccount", f"{account} is no account")
        if provider != self.did:
            raise Failure("ProviderNotAllowed", f"{provider} is not {self.did}")
        if await self.state.get(Customer, account.encode()) is None:
            raise Failure("AccountPlanMissing", f"{account} has no plan")
        await self.provision(space, account)
        return {"id": multihash.to_text(multihash.of(f"{account} {space}".encode()))}

    async def _needs_provision(self, space: str) -> None:
        if not self.open and await self.state.get(Provision, space.encode()) is None:
            raise Failure("InsufficientStorage", f"{space} has no storage provider")

    # -- blobs --------------------------------------------------------------------------------

    async def _blob_add(self, call: Call) -> object:
        blob = Blob.read(call.arguments)
        await self._needs_provision(call.subject)
        addition = await self.additions.add(call.subject, blob, call.invocation.task)
        call.attached += addition.tokens()
        return {"site": values.promise(addition.accept().task)}

    async def _conclude(self, call: Call) -> object:
        names = self._concluded(call)
        receipts = [call.request.receipts.get(name) for name in names]
        if None in receipts:
            raise Failure("ConclusionReceiptNotFound", "a receipt was not sent along")
        for receipt in receipts:
            assert receipt is not None
            answer = await self.additions.conclude(receipt)
            if answer is None:
                continue  # of a task that nobody here has heard of
            if self.generation == NEXT:
                if not call.faults.get(LateReceipts):
                    call.attached += answer
            else:
                (accepted, *_) = answer
                assert isinstance(accepted, Receipt)
                accepted.result()
        return {}

    def _concluded(self, call: Call) -> list[bytes]:
        """Token CIDs of the receipts. Each generation reads its own argument."""
        if self.generation == SEED:
            return [link_of(call.arguments, "receipt")]
        return links_of(call.arguments, "receipts")

    async def _blob_list(self, call: Call) -> object:
        size, cursor = page_of(call.arguments)
        after = held(call.subject, _digest(cursor)) if cursor else b""
        rows = await self.state.page(Registered, held(call.subject, b""), after, size + 1)
        results = [
            {
                "blob": {"size": row.size, "digest": key[-_DIGEST_BYTES:]},
                "insertedAt": row.inserted,
            }
            for key, row in rows[:size]
        ]
        last = multihash.to_text(rows[:size][-1][0][-_DIGEST_BYTES:]) if rows else ""
        return _page(results, len(rows) > size, last)

    async def _blob_remove(self, call: Call) -> object:
        digest = digest_of(call.arguments, "digest")
        await self.additions.remove(call.subject, digest, call)
        return {}

    async def _blob_abort(self, call: Call) -> object:
        digest, cause = digest_of(call.arguments, "digest"), link_of(call.arguments, "cause")
        await self.additions.abort(call.subject, digest, cause)
        return {}

    # -- indexes ------------------------------------------------------------------------------

    async def _index_add(self, call: Call) -> object:
        index, space = link_of(call.arguments, "index"), call.subject
        await self._needs_provision(space)
        if not index.startswith(cid.CAR_PREFIX) or len(index) != len(cid.CAR_PREFIX) + 32:
            raise Malformed(("index",), "the CID of an archive", cid.to_text(index))
        digest = multihash.of_cid(index)
        if await self.state.get(Registered, held(space, digest)) is None:
            raise Failure("IndexNotFound", f"{multihash.to_text(digest)} is no blob of {space}")
        if self.indexing is None:
            raise Failure("IndexerNotConfigured", "this network has no indexer")
        proofs = self._right_to_read(call, space, digest)
        invocation = self.invoke(
            self.indexing.did,
            "/assert/index",
            {"index": Cid(index)},
            [],
            subject=self.did,
            meta={"retrievalAuth": links(proofs)},
        )
        receipt, _ = await self.peers.call(self.indexing.url, invocation, proofs)
        receipt.result()
        return {}

    def _right_to_read(self, call: Call, space: str, digest: bytes) -> list[Delegation]:
        """The chain by which the indexer may read the index: built from the tokens that came along,
        whatever the invocation lists."""
        assert self.indexing is not None
        command = "/content/retrieve"
        proofs = chain.find(
            call.request.delegations.values(),
            issuer=self.did,
            subject=space,
            command=command,
            now=self.now(),
            arguments={"blob": {"digest": digest}},
        )
        if proofs is None:
            raise Unavailable(f"no delegations that let {self.did} read from {space} were sent")
        expired = call.faults.get(ExpiredDelegations)
        expires = self.now() + (-UCAN_TTL_S if expired else UCAN_TTL_S)
        return [*proofs, self.delegate(self.indexing.did, command, space, expires)]

    # -- uploads ------------------------------------------------------------------------------

    async def _upload_add(self, call: Call) -> object:
        root = link_of(call.arguments, "root")
        index = values.get(call.arguments, Cid, "index")
        shards = links_of(call.arguments, "shards")
        await self._needs_provision(call.subject)
        key = held(call.subject, root)
        async with self._locks(key):
            earlier = await self.state.get(Upload, key)
            if earlier is not None:
                shards = list(dict.fromkeys([*earlier.shards, *shards]))
                index = index or Cid(earlier.index)
            await self.state.write((key, Upload(bytes(index or b""), shards)))
        return {}

    async def _upload_remove(self, call: Call) -> object:
        root = link_of(call.arguments, "root")
        await self.state.write(forget=[(Upload, held(call.subject, root))])
        return {}

    async def _upload_list(self, call: Call) -> object:
        size, cursor = page_of(call.arguments)
        prefix = held(call.subject, b"")
        after = prefix + _cid(cursor) if cursor else b""
        rows = await self.state.page(Upload, prefix, after, size + 1)
        results = []
        for key, row in rows[:size]:
            entry = {"root": Cid(key[len(prefix) :])}
            results.append(entry | ({"index": Cid(row.index)} if row.index else {}))
        last = cid.to_text(rows[:size][-1][0][len(prefix) :]) if rows else ""
        return _page(results, len(rows) > size, last)

    async def _shard_list(self, call: Call) -> object:
        size, cursor = page_of(call.arguments)
        found = await self.state.get(Upload, held(call.subject, link_of(call.arguments, "root")))
        shards = found.shards if found else []
        start = 0
        if cursor:
            name = _cid(cursor)
            start = shards.index(name) + 1 if name in shards else len(shards)
        page = shards[start : start + size]
        more = start + size < len(shards)
        return _page([Cid(name) for name in page], more, cid.to_text(page[-1]) if page else "")


_DIGEST_BYTES: Final = 34  # of a sha2-256 multihash


def _page(results: Sequence[object], more: bool, last: str) -> dict[str, object]:
    page: dict[str, object] = {"size": len(results), "results": list(results)}
    return page | ({"cursor": last} if more else {})


def _digest(cursor: str) -> bytes:
    try:
        return multihash.from_text(cursor)
    except FormatError as error:
        raise Malformed(("cursor",), "a cursor of an earlier page", str(error)) from None


def _cid(cursor: str) -> bytes:
    try:
        return bytes(cid.from_text(cursor))
    except FormatError as error:
        raise Malformed(("cursor",), "a cursor of an earlier page", str(error)) from None
