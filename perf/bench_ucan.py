"""Tokens and indexes of the Forge protocol: what one request to its services costs us.

A request signs one invocation and packs it with its chain; an answer is unpacked and its receipt
verified; a fake service validates the chain. An index is written once a segment and read once a
query. With ``--benchmark-disable`` every case runs once, as a test.

    pytest perf/bench_ucan.py --benchmark-columns=min,median,ops
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from ingot.codec import multihash
from ingot.forge import container, index, signature, token
from ingot.forge.keys import Signer
from ingot.forge.validate import validate, validate_receipt

NOW = 1767225600
NONCE = bytes(16)
SPACE, OWNER, AGENT, SERVICE = (Signer.from_seed(bytes([at]) * 32) for at in range(4))
BLOB = {"size": 67_108_864, "digest": multihash.of(b"segment")}


def grant(giver: Signer, audience: Signer, command: str) -> token.Delegation:
    return token.delegate(
        giver,
        audience=audience.did,
        subject=SPACE.did,
        command=command,
        expires=None,
        nonce=NONCE,
        policy=[["==", ".blob.digest", BLOB["digest"]]] if command == "/blob/add" else [],
    )


CHAIN = [
    grant(SPACE, OWNER, "/"),
    grant(OWNER, Signer.from_seed(bytes([9]) * 32), "/blob"),
    grant(Signer.from_seed(bytes([9]) * 32), AGENT, "/blob/add"),
]


def invoke() -> token.Invocation:
    return token.invoke(
        AGENT,
        audience=SERVICE.did,
        subject=SPACE.did,
        command="/blob/add",
        arguments={"blob": BLOB},
        proofs=[proof.cid for proof in CHAIN],
        expires=NOW + 30,
        nonce=NONCE,
    )


INVOCATION = invoke()
RECEIPT = token.answer(SERVICE, ran=INVOCATION.task, out={"ok": {}}, expires=None, nonce=NONCE)
TOKENS = [INVOCATION, *CHAIN]
BODY = container.encode(TOKENS)
HEADER = container.to_header(TOKENS)
PROOFS = {proof.cid: proof for proof in CHAIN}
MESSAGE = INVOCATION.envelope.signed
SIGNED = AGENT.sign(MESSAGE)
KEY = AGENT.public
SHARD = multihash.of(b"shard")
BLOCKS = [(multihash.of(at.to_bytes(4, "big")), 8192 * at, 8000) for at in range(8000)]
(INDEX,) = index.archives(SHARD, BLOCKS)

CASES: dict[str, Callable[[], Any]] = {
    "sign": lambda: AGENT.sign(MESSAGE),
    "verify": lambda: KEY.verify(SIGNED, MESSAGE),
    "encode an invocation, signing it": invoke,
    "decode an invocation": lambda: token.decode(INVOCATION.data),
    "check an invocation's signature": lambda: signature.check(INVOCATION, NOW, {}),
    "validate a chain of three": lambda: validate(INVOCATION, PROOFS, NOW, {}),
    "validate a receipt": lambda: validate_receipt(
        RECEIPT, task=INVOCATION.task, executor=SERVICE.did, now=NOW, documents={}
    ),
    "encode a body of four tokens": lambda: container.encode(TOKENS),
    "decode a body of four tokens": lambda: container.decode(BODY),
    "encode a header of four tokens": lambda: container.to_header(TOKENS),
    "decode a header of four tokens": lambda: container.from_header(HEADER),
    "write an index of 8,000 slices": lambda: index.archives(SHARD, BLOCKS),
    "read an index of 8,000 slices": lambda: index.decode(INDEX),
}


@pytest.mark.parametrize("name", CASES)
def test_case(benchmark: BenchmarkFixture, name: str) -> None:
    benchmark(CASES[name])
