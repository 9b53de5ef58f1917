"""Cross-origin rules of a bucket: which browsers may show its answers to which sites. Pure.

Nothing is refused by them but the preflight (``ingot.s3.preflight``): a browser asks, and keeps an
answer to itself that does not allow its page's origin. The first rule that matches counts.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from ingot.messages import Header
from ingot.s3.errors import S3Error
from ingot.s3.xml import Element, at_once, document, element, malformed, parse_in_steps

RULES_MAX: Final = 100
ELEMENTS_MAX: Final = 3000  # more than 64 KiB have of those there are
PATTERNS_MAX: Final = 100  # of headers; each is tried with each name that a preflight asks for,
NAMES_MAX: Final = 100  # and anybody may ask: 3 ms
ID_CHARS_MAX: Final = 255
METHODS: Final = ("GET", "PUT", "POST", "DELETE", "HEAD")
VARY: Final[Header] = (
    b"Vary",
    b"Origin, Access-Control-Request-Headers, Access-Control-Request-Method",
)
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]*")  # what a header's name may be made of
_ORIGIN: Final = re.compile(r"[\x21-\x7e]+")
_AGE: Final = re.compile(r"-?[0-9]{1,9}")  # browsers read less than zero as zero


@dataclass(frozen=True)
class Rule:
    """One CORSRule; patterns have at most one ``*``."""

    id: str | None
    origins: tuple[str, ...]
    methods: tuple[str, ...]
    headers: tuple[str, ...]
    exposed: tuple[str, ...]
    age_s: int | None

    @cached_property
    def header_names(self) -> frozenset[str]:
        """Of the allowed headers those that are no patterns, in lower case."""
        return frozenset(name.lower() for name in self.headers if "*" not in name)

    @cached_property
    def header_patterns(self) -> frozenset[str]:
        return frozenset(name.lower() for name in self.headers if "*" in name)

    def allows(self, origin: str, method: str) -> bool:
        return method in self.methods and any(_fits(one, origin) for one in self.origins)


class _Asked:
    """Names of headers that a preflight asks for, in lower case. A pattern is matched with them
    once, however many rules have it."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)
        self._fit: dict[str, frozenset[str]] = {}

    def are_allowed(self, rule: Rule) -> bool:
        left = self.names - rule.header_names
        for pattern in rule.header_patterns:
            if not left:
                break
            fit = self._fit.get(pattern)
            if fit is None:
                fit = self._fit[pattern] = _fitting(pattern, self.names)
            left = left - fit if fit else left
        return not left


def _fitting(pattern: str, names: frozenset[str]) -> frozenset[str]:
    head, _, tail = pattern.partition("*")
    least = len(head) + len(tail)
    return frozenset(
        name
        for name in names
        if name.startswith(head) and name.endswith(tail) and len(name) >= least
    )


def _fits(pattern: str, text: str) -> bool:
    head, star, tail = pattern.partition("*")
    if not star:
        return pattern == text
    return len(text) >= len(head) + len(tail) and text.startswith(head) and text.endswith(tail)


# -- the document ----------------------------------------------------------------------------------


def canonical(body: bytes) -> bytes:
    """The document to keep; MalformedXML or InvalidRequest for what is no configuration."""
    return at_once(canonical_in_steps(body))


def canonical_in_steps(body: bytes) -> Generator[None, None, bytes]:
    return write((yield from read_in_steps(body)))


def read(body: bytes) -> tuple[Rule, ...]:
    return at_once(read_in_steps(body))


def read_in_steps(body: bytes) -> Generator[None, None, tuple[Rule, ...]]:
    """As ``read``, which takes two thousand headers 10 ms."""
    root = yield from parse_in_steps(body, "CORSConfiguration", ELEMENTS_MAX)
    root.only(("CORSRule",))
    if not root.children:
        raise malformed()
    if len(root.children) > RULES_MAX:
        raise S3Error(
            "InvalidRequest",
            f"The number of CORS rules should not exceed allowed limit of {RULES_MAX} rules.",
        )
    made = []
    for node in root.children:
        made.append(_rule(node))
        yield
    rules = tuple(made)
    if len({pattern for rule in rules for pattern in rule.header_patterns}) > PATTERNS_MAX:
        raise S3Error(
            "InvalidRequest",
            f"A CORS configuration may have {PATTERNS_MAX} different AllowedHeader with wildcards.",
        )
    return rules


def _rule(node: Element) -> Rule:
    node.only(
        ("ID", "AllowedHeader", "AllowedMethod", "AllowedOrigin", "ExposeHeader", "MaxAgeSeconds")
    )
    origins, methods = _texts(node, "AllowedOrigin"), _texts(node, "AllowedMethod")
    headers, exposed = _texts(node, "AllowedHeader"), _texts(node, "ExposeHeader")
    identity, age = node.value("ID"), node.value("MaxAgeSeconds")
    if not origins or not methods:
        raise malformed()
    if identity is not None and len(identity) > ID_CHARS_MAX:
        raise malformed()
    for method in methods:
        if method not in METHODS:
            raise S3Error(
                "InvalidRequest",
                f"Found unsupported HTTP method in CORS config. Unsupported method is {method}",
            )
    for name, patterns in (("AllowedOrigin", origins), ("AllowedHeader", headers)):
        for pattern in patterns:
            if pattern.count("*") > 1:
                raise S3Error(
                    "InvalidRequest", f'{name} "{pattern}" can not have more than one wildcard.'
                )
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise S3Error("InvalidRequest", f'AllowedOrigin "{origin}" contains invalid character.')
    for name in exposed:
        if "*" in name:
            raise S3Error(
                "InvalidRequest",
                f'ExposeHeader "{name}" contains wildcard. We currently do not support wildcard '
                "for ExposeHeader.",
            )
    for kind, names in (("AllowedHeader", headers), ("ExposeHeader", exposed)):
        for name in names:
            if not name or not _TOKEN.fullmatch(name):
                raise S3Error("InvalidRequest", f'{kind} "{name}" contains invalid character.')
    if age is not None and not _AGE.fullmatch(age.strip()):
        raise malformed()
    return Rule(identity, origins, methods, headers, exposed, None if age is None else int(age))


def _texts(node: Element, name: str) -> tuple[str, ...]:
    return tuple(child.text.strip() for child in node.all(name))


def write(rules: tuple[Rule, ...]) -> bytes:
    """The document of ``rules``, as readers get it."""
    return document("CORSConfiguration", "".join(map(_rule_text, rules)))


def _rule_text(rule: Rule) -> str:
    parts = [] if rule.id is None else [element("ID", rule.id)]
    for name, texts in (
        ("AllowedHeader", rule.headers),
        ("AllowedMethod", rule.methods),
        ("AllowedOrigin", rule.origins),
        ("ExposeHeader", rule.exposed),
    ):
        parts += [element(name, text) for text in texts]
    if rule.age_s is not None:
        parts.append(element("MaxAgeSeconds", str(rule.age_s)))
    return f"<CORSRule>{''.join(parts)}</CORSRule>"


# -- requests --------------------------------------------------------------------------------------


def answer_headers(
    rules: tuple[Rule, ...], origin: bytes, method: str, asked: list[str] | None = None
) -> list[Header] | None:
    """The headers that tell a browser what the first matching rule allows; None where none does.
    ``asked`` are the headers that a preflight asks for, in lower case; a rule has to allow all."""
    text = origin.decode("latin-1")
    wanted = asked or []
    names = _Asked(wanted)
    for rule in rules:
        if rule.allows(text, method) and names.are_allowed(rule):
            break
    else:
        return None
    anybody = "*" in rule.origins
    headers = [
        (b"Access-Control-Allow-Origin", b"*" if anybody else origin),
        (b"Access-Control-Allow-Methods", ", ".join(rule.methods).encode()),
    ]
    if wanted:
        headers.append((b"Access-Control-Allow-Headers", ", ".join(wanted).encode()))
    if rule.exposed:
        headers.append((b"Access-Control-Expose-Headers", ", ".join(rule.exposed).encode()))
    if rule.age_s is not None:
        headers.append((b"Access-Control-Max-Age", b"%d" % rule.age_s))
    if not anybody:
        headers.append((b"Access-Control-Allow-Credentials", b"true"))
    headers.append(VARY)
    return headers


def asked_headers(value: bytes) -> list[str]:
    """The names in Access-Control-Request-Headers, in lower case; BadRequest for what is no name,
    and for too many."""
    if value.count(b",") >= NAMES_MAX:
        raise S3Error(
            "BadRequest", f"Access-Control-Request-Headers: more than {NAMES_MAX} headers."
        )
    names = [name.strip() for name in value.decode("latin-1").split(",")]
    for name in names:
        if not _TOKEN.fullmatch(name):
            raise S3Error(
                "BadRequest",
                f'Access-Control-Request-Headers "{name}" contains invalid character.',
            )
    return [name.lower() for name in names if name]
