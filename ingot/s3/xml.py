"""XML in and out: hardened parsing of request documents, fast writing of answers.

*In*: expat with a plain element tree. DTDs, and with them entities, are refused where they begin;
size, depth and count of elements and their attributes are bounded, by the kind of the document, and
the length of a tag with its attributes, which expat takes microseconds each for; encodings other
than UTF-8 are refused; namespaces and prefixes are dropped, because clients send any or none. A
long document is read in steps, between which others may have their turn (``ingot.s3.documents``).
*Out*: strings joined by hand; ``escape`` makes every text safe, and ``key_texts`` tests a whole
page of keys at once, so that plain ones cost next to nothing. Pure; called by every operation with
a document.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Final, NoReturn, TypeVar, cast
from urllib.parse import quote_from_bytes
from xml.parsers import expat

from ingot.limits import (
    ECHOED_CHARS_MAX,
    XML_DEPTH_MAX,
    XML_ELEMENTS_MAX,
    XML_STEP_BYTES,
    XML_TAG_BYTES_MAX,
)
from ingot.s3.errors import S3Error

T = TypeVar("T")

DECLARATION: Final = '<?xml version="1.0" encoding="UTF-8"?>\n'
NAMESPACE: Final = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'

_NAMED: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"}
# A parser turns raw CR, LF and tab into something else, and the other controls are no XML at all.
# References to the latter are refused by strict parsers too, but nothing better exists.
_REFERENCES: Final = {chr(n): f"&#{n};" for n in range(0x20)} | {
    "\x7f": "&#127;",
    "\ufffe": "&#65534;",
    "\uffff": "&#65535;",
}
_ESCAPES: Final = str.maketrans(_NAMED | _REFERENCES)
_UNSAFE: Final = re.compile("[\x00-\x1f\x7f&<>\"'\ufffe\uffff]")
# What stands for itself in nearly all keys.
_URL_PLAIN: Final = f"/-._~{string.digits}{string.ascii_letters}".encode()
_XML_PLAIN: Final = bytes(code for code in range(0x20, 0x7F) if chr(code) not in _NAMED)
_NOT_XML: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


def is_xml(text: str) -> bool:
    """Whether XML 1.0 can carry ``text`` at all, with or without references."""
    return _NOT_XML.search(text) is None


def escape(text: str) -> str:
    return text.translate(_ESCAPES) if _UNSAFE.search(text) else text


def escape_bytes(value: bytes) -> str:
    """Of a client's bytes, which need not be UTF-8."""
    return escape(value.decode("utf-8", "replace"))


def url_encode(key: bytes) -> str:
    """``encoding-type=url``: a blank becomes %20, which every client's decoder understands."""
    return quote_from_bytes(key, "/")


def key_texts(keys: Sequence[bytes], encoded: bool) -> list[bytes]:
    """Keys as they stand in a document: encoded for URLs, or escaped."""
    plain, text = (_URL_PLAIN, url_encode) if encoded else (_XML_PLAIN, escape_bytes)
    if b"".join(keys).translate(None, plain):
        return [text(key).encode() for key in keys]
    return list(keys)


def element(name: str, text: str) -> str:
    return f"<{name}>{escape(text)}</{name}>"


def boolean(value: bool) -> str:
    return "true" if value else "false"


def document(root: str, content: str, rest: Iterable[bytes] = ()) -> bytes:
    """An answer: the root in S3's namespace around ``content`` and ``rest``, both XML already."""
    start = f"{DECLARATION}<{root} {NAMESPACE}>{content}".encode()
    return b"".join([start, *rest, f"</{root}>".encode()])


def error_document(error: S3Error, resource: str, request_id: str, host_id: str) -> bytes:
    """The root has no namespace: clients look for a literal ``Error``."""
    elements = {**error.elements}
    elements.setdefault("Resource", resource)
    extra = "".join([element(name, _cut(text)) for name, text in elements.items()])
    return (
        f"{DECLARATION}<Error><Code>{error.code}</Code>{element('Message', error.message)}{extra}"
        f"<RequestId>{request_id}</RequestId><HostId>{host_id}</HostId></Error>"
    ).encode("utf-8", "replace")  # JSON can say what no UTF-8 can: lone surrogates


def _cut(text: str) -> str:
    """What is echoed grows sixfold when it is escaped: nobody may make us send that much."""
    return text if len(text) <= ECHOED_CHARS_MAX else f"{text[:ECHOED_CHARS_MAX]}..."


class Element:
    """One element of a request document; ``name`` is without prefix and namespace."""

    __slots__ = ("attributes", "children", "name", "text")

    def __init__(self, name: str, attributes: dict[str, str]) -> None:
        self.name = name
        self.attributes = attributes
        self.children: list[Element] = []
        self.text = ""

    def all(self, name: str) -> Iterator[Element]:
        return (child for child in self.children if child.name == name)

    def child(self, name: str) -> Element | None:
        """The only child of that name; MalformedXML when there are several."""
        found = [child for child in self.children if child.name == name]
        if len(found) > 1:
            raise malformed()
        return found[0] if found else None

    def value(self, name: str) -> str | None:
        """The text of the only child of that name, None where there is none."""
        found = self.child(name)
        return None if found is None else found.text

    def only(self, names: Iterable[str]) -> None:
        """MalformedXML when a child has another name."""
        if not {child.name for child in self.children}.issubset(names):
            raise malformed()


def malformed(message: str | None = None) -> S3Error:
    return S3Error("MalformedXML", message)


class _Builder:
    """Collects expat's events into elements and refuses what goes over the bounds."""

    def __init__(self, elements_max: int, each: Callable[[Element], None] | None) -> None:
        self.each = each
        self.root: Element | None = None
        self.stack: list[Element] = []
        self.texts: list[list[str]] = []
        self.left = elements_max

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.left -= 1 + len(attributes)
        if len(self.stack) >= XML_DEPTH_MAX or self.left < 0:
            raise malformed()
        if attributes:
            attributes = {_local(k): v for k, v in attributes.items()}
        node = Element(_local(name), attributes)
        if self.stack:
            self.stack[-1].children.append(node)
        else:
            self.root = node
        self.stack.append(node)
        self.texts.append([])

    def namespace(self, prefix: str | None, uri: str) -> None:
        self.left -= 1  # an attribute, too

    def end(self, name: str) -> None:
        node = self.stack.pop()
        node.text = "".join(self.texts.pop())
        if self.each is not None and len(self.stack) == 1:
            self.stack[0].children.pop()
            self.each(node)

    def data(self, text: str) -> None:
        self.texts[-1].append(text)

    def refuse(self, *_: object) -> NoReturn:
        raise malformed()

    def declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        if encoding is not None and encoding.lower() not in ("utf-8", "utf8", "us-ascii"):
            raise malformed()


def _local(name: str) -> str:
    return name.rpartition(" ")[2]


def parse(body: bytes, root: str, elements_max: int = XML_ELEMENTS_MAX) -> Element:
    """The document's root element, which must be called ``root``; MalformedXML otherwise, and for
    more elements than its kind has."""
    return at_once(parse_in_steps(body, root, elements_max))


def at_once(steps: Generator[None, None, T]) -> T:
    """What comes of steps that are taken without a pause."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast("T", end.value)


def parse_in_steps(
    body: bytes,
    root: str,
    elements_max: int = XML_ELEMENTS_MAX,
    each: Callable[[Element], None] | None = None,
) -> Generator[None, None, Element]:
    """As ``parse``; each step is at most two milliseconds of work. ``each`` is given the root's
    children as they end, and the root has none then: a hundred thousand elements at a time would be
    30 MiB, and tens of milliseconds whenever Python looks for garbage."""
    if b"\0" in body:  # UTF-16 and UTF-32, whatever they declare
        raise malformed()
    builder = _Builder(elements_max, each)
    parser = expat.ParserCreate("utf-8", namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.StartNamespaceDeclHandler = builder.namespace
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.XmlDeclHandler = builder.declaration
    parser.StartDoctypeDeclHandler = builder.refuse
    parser.EntityDeclHandler = builder.refuse
    parser.ExternalEntityRefHandler = builder.refuse
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    try:
        for at in range(0, len(body), XML_STEP_BYTES):
            parser.Parse(body[at : at + XML_STEP_BYTES], False)
            began = parser.CurrentByteIndex  # of what is not complete: a tag or a comment; or -1
            if 0 <= began < min(at + XML_STEP_BYTES, len(body)) - XML_TAG_BYTES_MAX:
                raise malformed()
            yield
        parser.Parse(b"", True)
    except (expat.ExpatError, UnicodeError):
        raise malformed() from None
    if builder.root is None or builder.root.name != root:
        raise malformed()
    return builder.root
