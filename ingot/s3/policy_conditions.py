"""Conditions of a policy's statement: operators, and the keys of a request that they look at. Pure.

``{operator: {key: values}}``; all of them have to hold, of the values of one any. What is not known
here is refused when the policy is put, because a condition that is passed over would grant or deny
what nobody meant. ``Context`` gives a request's values, none for a key that the request lacks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, collapse_addresses, ip_address, ip_network
from typing import Any, Final, Protocol

from ingot.s3.errors import S3Error
from ingot.s3.pattern import Pattern

BAD_KEY: Final = "Policy has an invalid condition key"
BAD_VALUE: Final = "Policy has an invalid condition value"
BAD_ADDRESS: Final = "Invalid IP address in Conditions"

# Keys are compared in lower case, but for what follows a slash: that is the key of a tag. Each has
# a way to be answered in ``ingot.s3.access``.
OBJECT_TAG: Final = "s3:existingobjecttag/"
REQUEST_TAG: Final = "s3:requestobjecttag/"
REQUEST_TAG_KEYS: Final = "s3:requestobjecttagkeys"
OF_RESOURCE: Final = ("s3:prefix", "s3:versionid")  # and of the object's tags: may differ by key
KEYS: Final = frozenset(
    (
        *("aws:sourceip", "aws:securetransport", "aws:referer", "aws:useragent"),
        *("aws:currenttime", "aws:epochtime", "aws:userid", "aws:principaltype"),
        *("s3:prefix", "s3:delimiter", "s3:max-keys", "s3:versionid"),
        *("s3:x-amz-acl", "s3:x-amz-grant-read", "s3:x-amz-grant-write", "s3:x-amz-grant-read-acp"),
        *("s3:x-amz-grant-write-acp", "s3:x-amz-grant-full-control", "s3:x-amz-copy-source"),
        *("s3:x-amz-metadata-directive", "s3:x-amz-server-side-encryption"),
        *("s3:x-amz-server-side-encryption-aws-kms-key-id", "s3:x-amz-storage-class"),
        *("s3:x-amz-content-sha256", "s3:x-amz-website-redirect-location"),
        *("s3:if-match", "s3:if-none-match"),
        *("s3:authtype", "s3:signatureversion", "s3:signatureage"),
        *(OBJECT_TAG, REQUEST_TAG, REQUEST_TAG_KEYS),
    )
)


class Context(Protocol):
    """What a request says under a condition key, as ``Condition.key`` spells it."""

    def __call__(self, key: str) -> Sequence[str]: ...


class Condition:
    """One operator on one key."""

    __slots__ = (
        *("_absent", "_every", "_fits", "_negated", "_null"),
        *("key", "operator", "steps", "values"),
    )

    def __init__(self, operator: str, key: str, values: list[str]) -> None:
        """S3Error (MalformedPolicy) for an operator, key or value that is not known."""
        general, slash, tag = key.partition("/")
        if general.lower() + slash not in KEYS or (slash and not tag):
            raise _malformed(BAD_KEY, key)
        self.operator, self.key, self.values = operator, general.lower() + slash + tag, values
        quantifier, colon, plain = operator.rpartition(":")
        if colon and quantifier not in ("ForAllValues", "ForAnyValue"):
            raise _unknown(operator)
        self._every = quantifier == "ForAllValues"
        if_exists = plain.endswith("IfExists") and plain != "NullIfExists"
        plain = plain.removesuffix("IfExists") if if_exists else plain
        self._null: bool | None = None
        if plain == "Null":
            if colon or not set(values) <= {"true", "false"} or len(values) != 1:
                raise _malformed(BAD_VALUE, key)
            self._null = values[0] == "true"
            self._negated = self._absent = False
            self._fits: Fits = lambda found: False
            self.steps = 0
            return
        found = _OPERATORS.get(plain)
        if found is None:
            raise _unknown(operator)
        make, self._negated = found
        try:
            self._fits, self.steps = make(values)
        except ValueError:
            raise _malformed(BAD_ADDRESS if make is _network else BAD_VALUE, key) from None
        # What a request does not say is no match; so a negation holds, and what may be absent.
        self._absent = self._every or if_exists or (self._negated and not colon)

    @property
    def restricts(self) -> bool:
        """Whether only so many values that are written down can fulfil it."""
        return self._null is None and not (self._negated or self._absent)

    def holds(self, context: Context) -> bool:
        found = context(self.key)
        if self._null is not None:
            return self._null is (not found)
        if not found:
            return self._absent
        verdicts = [self._fits(value) for value in found]
        if self._negated:
            plain = ":" not in self.operator
            verdicts = [not verdict for verdict in verdicts]
            return all(verdicts) if plain or self._every else any(verdicts)
        return all(verdicts) if self._every else any(verdicts)


def _malformed(message: str, detail: str) -> S3Error:
    return S3Error("MalformedPolicy", message, Detail=detail)


def _unknown(operator: str) -> S3Error:
    return _malformed(f"Invalid Condition type : {operator}", operator)


# -- operators: from a policy's values to whether what a request says is one of them --------------
# A request's value is read once, however many a policy has: anybody may ask. Beside what decides
# stand the steps that it takes at worst, as of ``Pattern``.

Fits = Callable[[str], bool]
Made = tuple[Fits, int]


def _equals(wanted: Sequence[str]) -> Made:
    return frozenset(wanted).__contains__, 1


def _equals_ignoring_case(wanted: Sequence[str]) -> Made:
    folded = frozenset([value.casefold() for value in wanted])
    return (lambda found: found.casefold() in folded), 1


def _like(wanted: Sequence[str]) -> Made:
    patterns = [Pattern(value) for value in wanted]
    steps = sum([pattern.steps for pattern in patterns])
    return (lambda found: any(pattern.fits(found) for pattern in patterns)), steps


def _bool(wanted: Sequence[str]) -> Made:
    if not {"true", "false"}.issuperset(wanted):
        raise ValueError(wanted)
    return frozenset(wanted).__contains__, 1


def _network(wanted: Sequence[str]) -> Made:
    by_length: dict[tuple[int, int], set[int]] = {}  # beginnings of addresses
    for text in wanted:
        network = ip_network(text, strict=False)
        rest = network.max_prefixlen - network.prefixlen
        beginnings = by_length.setdefault((network.version, rest), set())
        beginnings.add(int(network.network_address) >> rest)

    def fits(found: str) -> bool:
        address = _address(found)
        if address is None:
            return False
        number = int(address)
        return any(
            version == address.version and number >> rest in beginnings
            for (version, rest), beginnings in by_length.items()
        )

    return fits, 1


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def networks_are_narrow(texts: Iterable[str]) -> bool:
    """Whether they are so small a part of all addresses that they are not the public: each, and all
    of them together, for many small ones are a large one. False for a pattern of addresses."""
    found: dict[int, list[Any]] = {4: [], 6: []}
    try:
        for text in texts:
            network = ip_network(text, strict=False)
            found[network.version].append(network)
    except ValueError:
        return False
    return all(
        all(network.prefixlen >= _NARROW[version] for network in networks)
        and sum(network.num_addresses for network in collapse_addresses(networks))
        <= _TOGETHER << (networks[0].max_prefixlen - _NARROW[version])
        for version, networks in found.items()
        if networks
    )


_NARROW: Final = {4: 8, 6: 32}  # prefixes as long as that are what AWS takes for not public
_TOGETHER: Final = 4  # as many of that size: room for all private networks, 1.6 % of IPv4


def _number(text: str) -> float:
    number = float(text)
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError(text)
    return number


def _time(text: str) -> float:
    """Seconds since 1970 of a time in ISO 8601 or in such seconds."""
    try:
        return _number(text)
    except ValueError:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()


def _compared(
    read: Callable[[str], float], verdict: Callable[[float, frozenset[float]], bool]
) -> Callable[[Sequence[str]], Made]:
    def make(wanted: Sequence[str]) -> Made:
        limits = frozenset([read(value) for value in wanted])

        def fits(found: str) -> bool:
            try:
                return verdict(read(found), limits)
            except ValueError:
                return False

        return fits, 1

    return make


_OPERATORS: Final[dict[str, tuple[Callable[[Sequence[str]], Made], bool]]] = {
    "StringEquals": (_equals, False),
    "StringNotEquals": (_equals, True),
    "StringEqualsIgnoreCase": (_equals_ignoring_case, False),
    "StringNotEqualsIgnoreCase": (_equals_ignoring_case, True),
    "StringLike": (_like, False),
    "StringNotLike": (_like, True),
    "Bool": (_bool, False),
    "IpAddress": (_network, False),
    "NotIpAddress": (_network, True),
}
for _kind, _read in (("Numeric", _number), ("Date", _time)):
    for _name, _verdict, _not in (
        ("Equals", lambda found, limits: found in limits, False),
        ("NotEquals", lambda found, limits: found in limits, True),
        ("LessThan", lambda found, limits: found < max(limits), False),
        ("LessThanEquals", lambda found, limits: found <= max(limits), False),
        ("GreaterThan", lambda found, limits: found > min(limits), False),
        ("GreaterThanEquals", lambda found, limits: found >= min(limits), False),
    ):
        _OPERATORS[_kind + _name] = (_compared(_read, _verdict), _not)
