"""Finding the proofs for what one wants to do, among the delegations one has.

Used by a client before it signs, and by a service that needs the chain for a right it was given.
Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from ingot.forge import command as commands
from ingot.forge.errors import MatchError, ResolutionError
from ingot.forge.token import Delegation


def find(
    delegations: Iterable[Delegation],
    *,
    issuer: str,
    subject: str,
    command: str,
    now: int,
    arguments: Mapping[str, object] | None = None,
) -> list[Delegation] | None:
    """The shortest chain, root first, that lets ``issuer`` use ``command`` on ``subject``.

    Empty where the issuer is the subject itself, None where there is no chain. Commands of a chain
    that all cover the wanted one also cover one another in some order, as ``validate`` wants it.
    Delegations that are not valid now are passed over, and those whose policy does not hold for
    ``arguments``, where these are known. Signatures are not looked at.
    """
    if issuer == subject:
        return []
    given: dict[str, list[Delegation]] = {}
    for one in delegations:
        about = one.subject in (subject, None) and commands.covers(one.command, command)
        expired = one.expires is not None and now >= one.expires
        early = one.not_before and now <= one.not_before
        if about and not expired and not early and _holds(one, arguments):
            given.setdefault(one.audience, []).append(one)
    waiting: deque[tuple[str, list[Delegation]]] = deque([(issuer, [])])
    seen = {issuer}  # each is met only once, so that circles end
    while waiting:
        audience, chain = waiting.popleft()
        for one in given.get(audience, []):
            longer = [one, *chain]
            if one.issuer == one.subject:
                return longer
            if one.issuer not in seen:
                seen.add(one.issuer)
                waiting.append((one.issuer, longer))
    return None


def _holds(one: Delegation, arguments: Mapping[str, object] | None) -> bool:
    if arguments is None:
        return True
    try:
        one.policy.check(arguments)
    except (MatchError, ResolutionError):
        return False
    return True
