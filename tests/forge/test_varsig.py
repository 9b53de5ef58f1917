"""Varsig headers: the few that exist are read, nothing else is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.errors import FormatError
from ingot.forge import varsig
from ingot.forge.varsig import Algorithm
from tests.forge.support import load

NAMES = {
    "Ed25519 + DAG-CBOR": Algorithm.ED25519,
    "secp256k1 ES256K + DAG-CBOR": Algorithm.ES256K,
    "non-standard/absentee + DAG-CBOR": Algorithm.NONE,
    "authority attestation + DAG-CBOR": Algorithm.ATTESTED,
}


@pytest.mark.parametrize("row", load("varsig-headers.json")["headers"], ids=lambda row: row["name"])
def test_vectors(row: dict[str, Any]) -> None:
    assert varsig.decode(bytes.fromhex(row["hex"])) is NAMES[row["name"]]
    assert varsig.encode(NAMES[row["name"]]).hex() == row["hex"]


def test_headers_without_a_vector() -> None:
    assert varsig.encode(Algorithm.ES256).hex() == "3401ec0180241271"
    assert varsig.encode(Algorithm.RS256).hex() == "3401852412800271"
    for algorithm in Algorithm:
        assert varsig.decode(varsig.encode(algorithm)) is algorithm


@given(st.sampled_from(list(Algorithm)), st.integers(0, 9), st.binary(max_size=2))
def test_a_damaged_header_is_none(algorithm: Algorithm, at: int, inserted: bytes) -> None:
    header = varsig.encode(algorithm)
    damaged = header[:at] + inserted + header[at + 1 :]
    if damaged == header:
        return
    try:
        assert varsig.decode(damaged) is not algorithm
    except FormatError:
        pass


@given(st.binary(max_size=12))
def test_any_bytes_are_a_header_or_an_error_of_ours(header: bytes) -> None:
    try:
        assert varsig.encode(varsig.decode(header)) == header
    except FormatError:
        pass
