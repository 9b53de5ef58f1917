"""Finding proofs: a chain that is found is valid, and one that exists is found."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.forge import chain, validate
from ingot.forge.errors import UcanError
from ingot.forge.token import Delegation
from tests.forge.builders import ask, grant
from tests.forge.support import NOW, person

PEOPLE = [person(number) for number in range(1, 5)]
SPACE, AGENT = PEOPLE[0], PEOPLE[1]
COMMANDS = ["/", "/blob", "/blob/add", "/index"]


@st.composite
def delegations(draw: st.DrawFn) -> Delegation:
    return grant(
        draw(st.sampled_from(PEOPLE)),
        draw(st.sampled_from(PEOPLE)).did,
        draw(st.sampled_from([None, SPACE.did, SPACE.did, PEOPLE[2].did])),
        draw(st.sampled_from(COMMANDS)),
        draw(st.sampled_from([None, None, NOW + 1, NOW])),
        not_before=draw(st.sampled_from([None, None, NOW - 1, NOW])),
    )


def is_valid(proofs: list[Delegation], command: str) -> bool:
    asked = ask(AGENT, SPACE.did, command, *proofs)
    try:
        validate.validate(asked, {proof.cid: proof for proof in proofs}, NOW, {})
    except UcanError:
        return False
    return True


@pytest.mark.slow
@given(st.lists(delegations(), max_size=4), st.sampled_from(COMMANDS))
def test_beside_every_possible_chain(held: list[Delegation], command: str) -> None:
    found = chain.find(held, issuer=AGENT.did, subject=SPACE.did, command=command, now=NOW)
    possible = [
        list(proofs)
        for length in range(len(held) + 1)
        for proofs in permutations(held, length)
        if is_valid(list(proofs), command)
    ]
    if found is None:
        assert not possible
    else:
        assert is_valid(found, command)
        assert len(found) == min(map(len, possible))


def test_the_issuer_is_the_subject() -> None:
    assert chain.find([], issuer=SPACE.did, subject=SPACE.did, command="/x", now=NOW) == []


def test_root_first() -> None:
    a, b, c = PEOPLE[1:]
    held = [
        grant(b, c.did, None, "/blob/add"),
        grant(SPACE, a.did, SPACE.did, "/"),
        grant(a, b.did, SPACE.did, "/blob"),
    ]
    found = chain.find(held, issuer=c.did, subject=SPACE.did, command="/blob/add", now=NOW)
    assert found == [held[1], held[2], held[0]]
    for command in ("/blob", "/index"):
        found = chain.find(held, issuer=c.did, subject=SPACE.did, command=command, now=NOW)
        assert found is None


def test_circles_end() -> None:
    a, b = PEOPLE[1:3]
    held = [grant(a, b.did, None), grant(b, a.did, None), grant(a, a.did, SPACE.did)]
    assert chain.find(held, issuer=a.did, subject=SPACE.did, command="/x", now=NOW) is None
    held.append(grant(SPACE, b.did, SPACE.did))
    found = chain.find(held, issuer=a.did, subject=SPACE.did, command="/x", now=NOW)
    assert found == [held[3], held[1]]


def test_a_wide_and_tangled_wallet_is_searched_in_no_time() -> None:
    """Every state is visited once: with each layer connected to the next there are 3**60 ways."""
    layers = [[person(10 + 3 * at + side) for side in range(3)] for at in range(20)]
    held = [
        grant(giver, taker.did, None)
        for above, below in zip(layers, layers[1:], strict=False)
        for giver in above
        for taker in below
    ]
    who = layers[-1][0].did
    assert chain.find(held, issuer=who, subject=SPACE.did, command="/x", now=NOW) is None
    held.append(grant(SPACE, layers[0][1].did, SPACE.did))
    found = chain.find(held, issuer=who, subject=SPACE.did, command="/x", now=NOW)
    assert found is not None and len(found) == 20


def test_policies_choose_where_the_arguments_are_known() -> None:
    held = [
        grant(SPACE, AGENT.did, SPACE.did, policy=[["==", ".blob.digest", digest]])
        for digest in (b"one", b"two")
    ]

    def found(arguments: dict[str, object] | None) -> list[Delegation] | None:
        return chain.find(
            held, issuer=AGENT.did, subject=SPACE.did, command="/x", now=NOW, arguments=arguments
        )

    assert found({"blob": {"digest": b"two"}}) == [held[1]]
    assert found(None) == [held[0]]
    assert found({"blob": {"digest": b"three"}}) is None and found({}) is None
