"""A bucket's policy: read strictly, and what it says of a request. Pure.

    Policy    = { Version?, Id?, Statement: one or several }
    Statement = { Sid?, Effect: Allow | Deny, Principal | NotPrincipal, Action | NotAction,
                  Resource | NotResource, Condition? }

A policy that has anything else in it is refused: what is not understood would grant or deny what
nobody meant. A Deny that fits outweighs every Allow; where nothing fits the policy says nothing. A
principal is a canonical id, an access key, an ARN with one of these, or ``*``, which is everybody
and nobody in particular; ``Who`` tells the canonical id that a name stands for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, Final, NamedTuple

from ingot.limits import ACTION_PATTERNS_MAX, KIB, POLICY_PATTERN_STEPS_MAX
from ingot.s3.actions import OF_BUCKETS, OF_OBJECTS
from ingot.s3.errors import S3Error
from ingot.s3.pattern import Pattern
from ingot.s3.policy_conditions import (
    BAD_VALUE,
    OBJECT_TAG,
    OF_RESOURCE,
    Condition,
    Context,
    networks_are_narrow,
)
from ingot.s3.xml import at_once

POLICY_BYTES_MAX: Final = 20 * KIB
ACTIONS_A_STEP: Final = 8  # looked up among all names: a millisecond
VERSIONS: Final = ("2012-10-17", "2008-10-17")
ARN: Final = "arn:aws:s3:::"
EVERYBODY: Final = "*"
EVERYWHERE: Final = ("0.0.0.0/0",)

NOT_JSON: Final = "This policy contains invalid Json"
NOT_A_POLICY: Final = "Policies must be valid JSON and the first byte must be '{'"
TOO_LARGE: Final = (
    f"Normalized policy document exceeds the maximum allowed size of {POLICY_BYTES_MAX} bytes"
)
BAD_VERSION: Final = "The policy must contain a valid version string"
NO_STATEMENT: Final = "Missing required field Statement"
EMPTY: Final = "Could not parse the policy: Statement is empty!"
BAD_PRINCIPAL: Final = "Invalid principal in policy"
BAD_ACTION: Final = "Policy has invalid action"
BAD_RESOURCE: Final = "Policy has invalid resource"
TOO_MUCH_TO_MATCH: Final = (
    "The patterns of a policy, in resources and in conditions, may take "
    f"{POLICY_PATTERN_STEPS_MAX} steps to match at most: one for each, two for each piece "
    "between two of its stars, and one for each letter of a piece with question marks between "
    "its letters"
)
TOO_MANY_ACTIONS: Final = (
    f"A policy may have {ACTION_PATTERNS_MAX} different actions with wildcards at most"
)
MISMATCH: Final = "Action does not apply to any resource(s) in statement"

Who = Callable[[str], str | None]

_POLICY: Final = ("Version", "Id", "Statement")
_STATEMENT: Final = (
    *("Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource"),
    *("NotResource", "Condition"),
)
_IDENTITY: Final = re.compile(r"arn:aws:iam::([^:]*):(?:root|user/(?:[^:]*/)?([^:/]+))")


def malformed(message: str, detail: object = None) -> S3Error:
    """``detail``: what of the policy is meant, where the message does not name it."""
    if detail is None:
        return S3Error("MalformedPolicy", message)
    text = detail if isinstance(detail, str) else json.dumps(detail)
    return S3Error("MalformedPolicy", message, Detail=text)


class Asked(NamedTuple):
    """What a policy is asked about. ``who`` is a canonical id, None for nobody in particular."""

    who: str | None
    action: str  # without s3:
    resource: str  # bucket, or bucket/key
    context: Context
    known: dict[Condition, bool]  # verdicts of conditions that are of the request, not the resource


class Statement:
    """One statement; ``actions`` are the names that its patterns stand for, resources are without
    their ARN."""

    __slots__ = (
        *("actions", "allow", "conditions", "not_action", "not_principal", "not_resource"),
        *("principals", "resources"),
    )

    def __init__(
        self,
        allow: bool,
        principals: frozenset[str],
        not_principal: bool,
        actions: frozenset[str],
        not_action: bool,
        resources: Sequence[Pattern],
        not_resource: bool,
        conditions: Sequence[Condition],
    ) -> None:
        self.allow = allow
        self.principals, self.not_principal = principals, not_principal
        self.actions, self.not_action = actions, not_action
        self.resources, self.not_resource = resources, not_resource
        self.conditions = conditions

    def fits(self, asked: Asked) -> bool:
        named = EVERYBODY in self.principals or asked.who in self.principals
        return (
            named is not self.not_principal
            and (asked.action in self.actions) is not self.not_action
            and any(one.fits(asked.resource) for one in self.resources) is not self.not_resource
            and all(_holds(condition, asked) for condition in self.conditions)
        )

    def may_fit(self, who: str | None, action: str) -> bool:
        """As ``fits``, as far as it is known who asks and for what."""
        named = EVERYBODY in self.principals or who in self.principals
        return named is not self.not_principal and (action in self.actions) is not self.not_action

    @property
    def steps(self) -> int:
        """Of matching the patterns of resources and conditions, at worst."""
        of_resources = sum([pattern.steps for pattern in self.resources])
        return of_resources + sum([condition.steps for condition in self.conditions])

    @property
    def addresses(self) -> Sequence[str] | None:
        """The networks from where anybody at all is granted something, ``EVERYWHERE`` where the
        statement does not say. None where it grants nothing, or to some that are written down."""
        if not self.allow or not (self.not_principal or EVERYBODY in self.principals):
            return None
        networks: Sequence[str] = EVERYWHERE
        for condition in self.conditions:
            if not condition.restricts:
                continue
            if condition.key == "aws:userid" and all(Pattern(v).fixed for v in condition.values):
                return None
            if condition.key == "aws:sourceip":
                networks = condition.values
        return networks


def _holds(condition: Condition, asked: Asked) -> bool:
    """A request about many keys has its headers looked at once."""
    if condition.key in OF_RESOURCE or condition.key.startswith(OBJECT_TAG):
        return condition.holds(asked.context)
    found = asked.known.get(condition)
    if found is None:
        found = asked.known[condition] = condition.holds(asked.context)
    return found


class Policy:
    """A bucket's policy, ready to be asked."""

    def __init__(self, statements: Sequence[Statement]) -> None:
        self.statements = statements
        # Statements add up: what is granted from one network each is granted from all of them.
        networks = {text for one in statements for text in one.addresses or ()}
        self.is_public = not networks_are_narrow(networks)
        self.steps = sum([one.steps for one in statements])
        """Of a judgement, at worst."""
        keys = [condition.key for one in statements for condition in one.conditions]
        self.asks_object_tags = any(key.startswith(OBJECT_TAG) for key in keys)

    def may_allow(self, who: str | None, action: str) -> bool:
        """Whether there is anything to which ``action`` may be allowed."""
        return any(one.allow and one.may_fit(who, action) for one in self.statements)

    def verdict(self, asked: Asked) -> bool | None:
        """True: allowed; False: denied; None: nothing is said."""
        allowed: bool | None = None
        for statement in self.statements:
            if (statement.allow and allowed) or not statement.fits(asked):
                continue
            if not statement.allow:
                return False
            allowed = True
        return allowed


# -- reading ---------------------------------------------------------------------------------------


def read(document: bytes, bucket: str, who: Who, strict: bool = False) -> Policy:
    """The policy in ``document``; MalformedPolicy. ``strict``: a principal that stands for nobody
    is refused too, else it fits nobody, for accounts come and go; and so are patterns that take too
    long to match, which one that was put before may have."""
    return at_once(read_in_steps(document, bucket, who, strict))


def read_in_steps(
    document: bytes, bucket: str, who: Who, strict: bool = False
) -> Generator[None, None, Policy]:
    """As ``read``, which takes up to 15 ms; each step is one or two."""
    if len(document) > POLICY_BYTES_MAX:
        raise malformed(TOO_LARGE)
    policy = _parsed(document)
    _only(policy, _POLICY)
    if policy.get("Version", VERSIONS[1]) not in VERSIONS:
        raise malformed(BAD_VERSION)
    if "Statement" not in policy:
        raise malformed(NO_STATEMENT)
    listed = policy["Statement"]
    if isinstance(listed, dict):
        listed = [listed]
    if not isinstance(listed, list) or not listed:
        raise malformed(EMPTY)
    actions = _Actions()
    statements = []
    for one in listed:
        statements.append((yield from _statement(one, bucket, who, strict, actions)))
        yield
    made = Policy(statements)
    if strict and made.steps > POLICY_PATTERN_STEPS_MAX:
        raise malformed(TOO_MUCH_TO_MATCH, f"{made.steps} steps")
    return made


def _parsed(document: bytes) -> dict[str, Any]:
    if document.lstrip()[:1] != b"{":
        raise malformed(NOT_A_POLICY)
    try:
        found = json.loads(document.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise malformed(NOT_JSON) from None
    assert isinstance(found, dict)
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")  # which of the two holds nobody could say
    return found


def _only(found: dict[str, Any], names: Iterable[str]) -> None:
    for name in found:
        if name not in names:
            raise malformed(f"Unknown field {name[:100]}")


def _statement(
    found: Any, bucket: str, who: Who, strict: bool, actions: _Actions
) -> Generator[None, None, Statement]:
    if not isinstance(found, dict):
        raise malformed(NOT_JSON)
    if not found:
        raise malformed(EMPTY)
    _only(found, _STATEMENT)
    effect = found.get("Effect")
    if effect is None:
        raise malformed("Missing required field Effect")
    if effect not in ("Allow", "Deny"):
        raise malformed(f"Invalid effect : {str(effect)[:100]}")
    if not isinstance(found.get("Sid", ""), str):
        raise malformed(NOT_JSON)
    named, not_principal = _either(found, "Principal")
    wanted, not_action = _either(found, "Action")
    places, not_resource = _either(found, "Resource")
    named_actions = set()
    for place, text in enumerate(_texts(wanted, BAD_ACTION), 1):
        named_actions.add(actions(text))
        if place % ACTIONS_A_STEP == 0:
            yield
    resources = [_resource(text, bucket) for text in dict.fromkeys(_texts(places, BAD_RESOURCE))]
    if not not_action and not not_resource:
        _check_that_all_apply(named_actions, resources, bucket)
    return Statement(
        effect == "Allow",
        _principals(named, who, strict),
        not_principal,
        frozenset().union(*named_actions),
        not_action,
        resources,
        not_resource,
        (yield from _conditions(found.get("Condition", {}))),
    )


def _either(found: dict[str, Any], name: str) -> tuple[Any, bool]:
    """The value of a field or of its negation, of which there is one; whether it is the latter."""
    if (name in found) is (f"Not{name}" in found):
        raise malformed(f"Missing required field {name}" if name not in found else NOT_JSON)
    return (found[name], False) if name in found else (found[f"Not{name}"], True)


def _texts(found: Any, message: str) -> list[str]:
    listed = [found] if isinstance(found, str) else found
    if not isinstance(listed, list) or not listed or not all(isinstance(x, str) for x in listed):
        raise malformed(message, found)
    return listed


def _principals(found: Any, who: Who, strict: bool) -> frozenset[str]:
    if found == EVERYBODY:
        return frozenset((EVERYBODY,))
    if not isinstance(found, dict) or not found or not found.keys() <= {"AWS", "CanonicalUser"}:
        raise malformed(BAD_PRINCIPAL, found)
    names = set()
    for listed in found.values():
        for text in _texts(listed, BAD_PRINCIPAL):
            name = EVERYBODY if text == EVERYBODY else _identity(text, who)
            if name is not None:
                names.add(name)
            elif strict:
                raise malformed(BAD_PRINCIPAL, text)
    return frozenset(names)


def _identity(text: str, who: Who) -> str | None:
    """The canonical id that a principal stands for. In an ARN a user's name is an access key of the
    account before it, which may be left out."""
    match = _IDENTITY.fullmatch(text)
    if match is None:
        return who(text)
    account, user = match.groups()
    if user is None:
        return who(account)
    found = who(user)
    return found if not account or who(account) == found else None


class _Actions:
    """The names of actions that the patterns of one policy stand for, each looked up once."""

    def __init__(self) -> None:
        self._found: dict[str, frozenset[str]] = {}
        self._left = ACTION_PATTERNS_MAX

    def __call__(self, text: str) -> frozenset[str]:
        service, colon, name = text.partition(":")
        if text == "*":
            name = "*"
        elif not colon or service.lower() != "s3" or not name:
            raise malformed(BAD_ACTION, text)
        lower = name.lower()
        found = self._found.get(lower)
        if found is None:
            found = self._found[lower] = self._look(lower)
        return found

    def _look(self, lower: str) -> frozenset[str]:
        pattern = Pattern(lower)
        if pattern.fixed:
            names = [_LOWER[lower]] if lower in _LOWER else []
        else:
            self._left -= 1
            if self._left < 0:
                raise malformed(TOO_MANY_ACTIONS)
            names = [name for one, name in _LOWER.items() if pattern.fits(one)]
        if not names:
            raise malformed(BAD_ACTION, f"s3:{lower}")
        return frozenset(names)


_LOWER: Final = {name.lower(): name for name in OF_BUCKETS | OF_OBJECTS}


def _resource(text: str, bucket: str) -> Pattern:
    """Of this bucket or what is in it. Variables (``${...}``) are not known here."""
    place = text.removeprefix(ARN)
    if place == text or "${" in place or not Pattern(place.partition("/")[0]).fits(bucket):
        raise malformed(BAD_RESOURCE, text)
    return Pattern(place)


def _check_that_all_apply(
    actions: Iterable[frozenset[str]], resources: Iterable[Pattern], bucket: str
) -> None:
    """MalformedPolicy where an action is about nothing that the resources name."""
    about: set[str] = set()
    if any(one.fits(bucket) for one in resources):
        about |= OF_BUCKETS
    if any("/" in one.text or "*" in one.text for one in resources):
        about |= OF_OBJECTS
    if any(about.isdisjoint(names) for names in actions):
        raise malformed(MISMATCH)


def _conditions(found: Any) -> Generator[None, None, list[Condition]]:
    if not isinstance(found, dict):
        raise malformed(NOT_JSON)
    made = []
    for operator, keys in found.items():
        if not isinstance(keys, dict) or not keys:
            raise malformed(NOT_JSON)
        for key, values in keys.items():
            made.append(Condition(operator, key, _values(values)))
            yield
    return made


def _values(found: Any) -> list[str]:
    listed = found if isinstance(found, list) else [found]
    texts = []
    for value in listed:
        if isinstance(value, bool):
            texts.append("true" if value else "false")
        elif isinstance(value, str | int | float) and "${" not in str(value):
            texts.append(str(value))
        else:
            raise malformed(BAD_VALUE, value)
    if not texts:
        raise malformed(BAD_VALUE, found)
    return texts
