"""Cross-origin rules of a bucket: which browsers may show its answers to which sites. Pure.

Nothing is refused by them but the preflight (``ingot.s3.preflight``): a browser asks, and keeps an
answer to itself that does not allow its page's origin. The first rule that matches counts.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from ingot.messages import Header
from ingot.s3.errors import S3Error
from ingot.s3.xml import Element, document, element, malformed, parse

RULES_MAX: Final = 100
ID_CHARS_MAX: Final = 255
METHODS: Final = ("GET", "PUT", "POST", "DELETE", "HEAD")
VARY: Final[Header] = (
    b"Vary",
    b"Origin, Access-Control-Request-Headers, Access-Control-Request-Method",
)
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]*")  # what a header's name may be made of
_ORIGIN: Final = re.compile(r"[\x21-\x7e]+")
_AGE: Final = re.compile(r"[0-9]{1,9}")


class Rule(NamedTuple):
    """One CORSRule; patterns have at most one ``*``."""

    id: str | None
    origins: tuple[str, ...]
    methods: tuple[str, ...]
    headers: tuple[str, ...]
    exposed: tuple[str, ...]
    age_s: int | None

    def allows(self, origin: str, method: str) -> bool:
        return method in self.methods and any(_fits(one, origin) for one in self.origins)

    def allows_header(self, name: str) -> bool:
        return any(_fits(one.lower(), name.lower()) for one in self.headers)


def _fits(pattern: str, text: str) -> bool:
    head, star, tail = pattern.partition("*")
    if not star:
        return pattern == text
    return len(text) >= len(head) + len(tail) and text.startswith(head) and text.endswith(tail)


# -- the document ----------------------------------------------------------------------------------


def canonical(body: bytes) -> bytes:
    """The document to keep; MalformedXML or InvalidRequest for what is no configuration."""
    return write(read(body))


def read(body: bytes) -> tuple[Rule, ...]:
    root = parse(body, "CORSConfiguration")
    root.only(("CORSRule",))
    if not root.children:
        raise malformed()
    if len(root.children) > RULES_MAX:
        raise S3Error(
            "InvalidRequest",
            f"The number of CORS rules should not exceed allowed limit of {RULES_MAX} rules.",
        )
    return tuple(_rule(node) for node in root.children)


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
    ``asked`` are the headers that a preflight asks for, each of which a rule has to allow."""
    text = origin.decode("latin-1")
    wanted = asked or []
    for rule in rules:
        if rule.allows(text, method) and all(map(rule.allows_header, wanted)):
            break
    else:
        return None
    anybody = "*" in rule.origins
    headers = [
        (b"Access-Control-Allow-Origin", b"*" if anybody else origin),
        (b"Access-Control-Allow-Methods", ", ".join(rule.methods).encode()),
    ]
    if wanted:
        allowed = ", ".join(name.lower() for name in wanted)
        headers.append((b"Access-Control-Allow-Headers", allowed.encode()))
    if rule.exposed:
        headers.append((b"Access-Control-Expose-Headers", ", ".join(rule.exposed).encode()))
    if rule.age_s is not None:
        headers.append((b"Access-Control-Max-Age", b"%d" % rule.age_s))
    if not anybody:
        headers.append((b"Access-Control-Allow-Credentials", b"true"))
    headers.append(VARY)
    return headers


def asked_headers(value: bytes) -> list[str]:
    """The names in Access-Control-Request-Headers; BadRequest for what is no name."""
    names = [name.strip() for name in value.decode("latin-1").split(",")]
    for name in names:
        if not _TOKEN.fullmatch(name):
            raise S3Error(
                "BadRequest", f"Access-Control-Request-Headers: {name} contains invalid character."
            )
    return [name for name in names if name]
