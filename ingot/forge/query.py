"""Asking the indexer where blocks are, and what its answer proves.

    answer = CARv1, its one root last; blocks: claims (whole tokens) and index archives
    root   = { index/query/result@0.1: { claims: [link, ...], indexes: { context: link, ... } } }

A context is a multihash, of the sha2-256 of a space's DID and a content's multihash, written as a
*text* that is not UTF-8. ``decode`` reads an answer, ``encode`` writes one (for a fake indexer).
``commitments`` verifies it, and ``locate`` finds where to fetch a block from:

    a location commitment (/assert/location) is a node's word that it has a blob for a space: where,
    and of which bytes. An index (``index``) says in which bytes of which blob a block lies. A block
    lies where a blob lies whose index has it, or it is a blob itself.

The indexer is trusted with nothing: claims' signatures are verified here, ranges are absolute in
the blob, URLs are opaque, and whoever fetches has to hash the bytes. What is refused is kept with
its reason. Pure; ``now`` is in Unix seconds, ``documents`` as in ``signature``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final, TypeVar
from urllib.parse import quote

from ingot.codec import car, cid, dag_cbor, multihash
from ingot.codec.dag_cbor import Cid
from ingot.errors import Corruption, FormatError, IngotError
from ingot.forge import did, index, signature, token, values
from ingot.forge.document import Document
from ingot.forge.errors import Expired, InvalidSubject, Malformed, TooLarge
from ingot.forge.index import Index
from ingot.forge.token import Invocation, Token
from ingot.limits import (
    FORGE_PLACES_MAX,
    FORGE_QUERY_BYTES_MAX,
    FORGE_QUERY_CLAIMS_MAX,
    FORGE_QUERY_INDEXES_MAX,
    UCAN_ENTRIES_MAX,
    UCAN_FIELDS_MAX,
)

T = TypeVar("T")

FORMAT: Final = "index/query/result@0.1"
LOCATION: Final = "/assert/location"


@dataclass(frozen=True, slots=True)
class Location:
    """A node's word that it has some bytes: ``start`` to ``end``, both inclusive, of ``blob``.

    ``end`` is None where the claim does not say it, which is to the blob's end.
    """

    node: str
    space: str
    blob: bytes  # its multihash
    urls: tuple[str, ...]
    start: int
    end: int | None
    claim: Invocation


@dataclass(frozen=True, slots=True)
class Answer:
    """Claims and indexes by their CIDs; ``refused``: blocks that are not what they should be."""

    claims: Mapping[bytes, Token]
    indexes: Mapping[bytes, Index]
    refused: list[tuple[bytes, IngotError]]


def path(multihashes: Iterable[bytes], spaces: Iterable[str], kind: str = "standard") -> str:
    """The path and query that ask for some blocks: ``standard``, ``location``,
    ``index_or_location`` or ``standard_compressed``."""
    asked = [f"multihash={multihash.to_text(name)}" for name in multihashes]
    asked += [f"spaces={quote(space, safe=':')}" for space in spaces]
    return f"/claims?{'&'.join([f'type={kind}', *asked])}"


def context(space: str, content: bytes) -> bytes:
    """The name of an index in an answer."""
    return multihash.of(space.encode() + content)


def location_of(claim: Token) -> Location:
    """What a location commitment says, nothing verified; Malformed when it is none."""
    if not isinstance(claim, Invocation) or claim.command != LOCATION:
        raise Malformed((), "a location commitment", claim.command)
    if claim.subject != claim.issuer:
        raise Malformed((), "a location commitment about its issuer", claim.subject)
    said = claim.arguments
    urls = values.take(said, list, "location")
    span = values.get(said, dict, "range") or {}
    start = values.get(span, int, "start") or 0
    end = values.get(span, int, "end")
    if start < 0 or (end is not None and end < start):
        raise Malformed(("range",), "a first byte, and a last one behind it", f"{start}, {end}")
    if not urls:
        raise Malformed(("location",), "at least one URL", "none")
    return Location(
        node=claim.issuer,
        space=did.check(values.take(said, str, "space")),
        blob=values.take(said, bytes, "content"),
        urls=tuple(values.take(said, str, "location", at) for at in range(len(urls))),
        start=start,
        end=end,
        claim=claim,
    )


def commitments(
    answer: Answer, spaces: Collection[str], now: int, documents: Mapping[str, Document]
) -> tuple[list[Location], list[tuple[bytes, IngotError]]]:
    """The location commitments for ``spaces`` that hold, and the claims that do not, with why.

    It takes a tenth of a millisecond a claim, so off the loop for an answer of many.
    """
    good, refused = [], []
    for name, claim in answer.claims.items():
        if claim.command != LOCATION:
            continue
        try:
            place = location_of(claim)
            if place.space not in spaces:
                raise InvalidSubject(f"a location for {place.space}, which was not asked about")
            if claim.expires is not None and now >= claim.expires:
                raise Expired(f"the location commitment expired at {claim.expires}")
            signature.check(claim, now, documents)
        except IngotError as error:
            refused.append((name, error))
        else:
            good.append(place)
    return good, refused


def locate(wanted: bytes, places: Iterable[Location], indexes: Collection[Index]) -> list[Location]:
    """Places of the block whose multihash is ``wanted``: of itself first, then in a larger blob.
    No more than a reader would ask, so that it costs claims and indexes added, not multiplied."""
    held = list(places)
    found = [place for place in held if place.blob == wanted][:FORGE_PLACES_MAX]
    spans: dict[bytes, list[tuple[int, int]]] = {}  # of the block, by the blob it is in
    for shards in indexes:
        for blob, slices in shards.items():
            span = slices.get(wanted)
            known = spans.setdefault(blob, []) if span is not None else []
            if span is not None and span not in known and len(known) < FORGE_PLACES_MAX:
                known.append(span)
    for place in held:
        for start, end in spans.get(place.blob, ()):
            if len(found) >= FORGE_PLACES_MAX:
                return found
            if place.start <= start and (place.end is None or end <= place.end):
                found.append(replace(place, start=start, end=end))
    return found


def decode(data: bytes) -> Answer:
    """An indexer's answer; FormatError when it is none, Corruption when its root block is not what
    its CID says. Another block that is not, or that is no claim or index, is set aside in
    ``refused``, as is what comes behind the first so many. What is named twice is read once."""
    if len(data) > FORGE_QUERY_BYTES_MAX:
        raise FormatError(FORGE_QUERY_BYTES_MAX, "the end of the answer", f"{len(data)} bytes")
    roots, offset = car.decode_header(data)
    if len(roots) != 1:
        raise FormatError(0, "one root", str(len(roots)))
    blocks = {bytes(one.cid): data[one.block : one.end] for one in car.frames(data, offset)}
    root = blocks.get(roots[0], b"")
    car.check_block(roots[0], root, "the root block of the answer")
    value = dag_cbor.decode(root, dag_cbor.BINARY_KEYS)
    refused: list[tuple[bytes, IngotError]] = []
    with values.located(root):
        listed = len(values.take(value, list, FORMAT, "claims"))
        named = values.take(value, dict, FORMAT, "indexes")
        if listed > UCAN_ENTRIES_MAX or len(named) > UCAN_FIELDS_MAX:
            raise Malformed((), "as many claims and indexes as a token may have", "more")
        claims = [values.take(value, Cid, FORMAT, "claims", at) for at in range(listed)]
        if any(type(link) is not Cid for link in named.values()):
            raise Malformed((FORMAT, "indexes"), "links to indexes", "another value")
    links = list(map(bytes, named.values()))
    for what, names, most in (
        ("claims", claims, FORGE_QUERY_CLAIMS_MAX),
        ("indexes", links, FORGE_QUERY_INDEXES_MAX),
    ):
        if len(names) > most:
            refused.append((names[most], TooLarge(f"one of {len(names)} {what}, {most} are read")))
    return Answer(
        dict(_read(claims[:FORGE_QUERY_CLAIMS_MAX], blocks, token.decode, refused)),
        dict(_read(links[:FORGE_QUERY_INDEXES_MAX], blocks, index.decode, refused)),
        refused,
    )


def _read(
    names: Iterable[bytes],
    blocks: Mapping[bytes, bytes],
    read: Callable[[bytes], T],
    refused: list[tuple[bytes, IngotError]],
) -> Iterator[tuple[bytes, T]]:
    for name in dict.fromkeys(map(bytes, names)):
        try:
            block = blocks.get(name)
            if block is None:
                raise FormatError(0, f"an answer with the block {cid.to_text(name)}", "none such")
            car.check_block(name, block, f"the block {cid.to_text(name)}")
            yield name, read(block)
        except (FormatError, Corruption) as error:
            refused.append((name, error))


def encode(claims: Sequence[Token], indexes: Mapping[bytes, bytes]) -> bytes:
    """An answer of some claims, and of index archives by their ``context``."""
    if len(claims) > UCAN_ENTRIES_MAX or len(indexes) > UCAN_FIELDS_MAX:
        raise TooLarge(f"{len(claims)} claims and {len(indexes)} indexes in one answer")
    archives = {name: cid.of_archive(sha256(data).digest()) for name, data in indexes.items()}
    entries = b"".join(
        _as_text(name) + dag_cbor.encode(Cid(archives[name])) for name in sorted(archives)
    )
    # The codec writes no text that is not UTF-8, so this map is put together by hand.
    root = (
        b"\xa1"
        + dag_cbor.encode(FORMAT)
        + b"\xa2"
        + dag_cbor.encode("claims")
        + dag_cbor.encode([Cid(claim.cid) for claim in claims])
        + dag_cbor.encode("indexes")
        + _as_map(len(archives))
        + entries
    )
    name = cid.of_structure(root)
    blocks = [(claim.cid, claim.data) for claim in claims]
    blocks += [(archives[key], indexes[key]) for key in sorted(archives)]
    answer = car.encode_archive([name], [*blocks, (name, root)])
    if len(answer) > FORGE_QUERY_BYTES_MAX:
        raise TooLarge(f"an answer of {len(answer)} bytes; readers take {FORGE_QUERY_BYTES_MAX}")
    return answer


def _as_text(data: bytes) -> bytes:
    """``data`` as a text: a byte string whose head is turned into that of a text."""
    encoded = dag_cbor.encode(data)
    return bytes([encoded[0] | 0x20]) + encoded[1:]


def _as_map(entries: int) -> bytes:
    """The head of a map: that of as large an array, turned into one."""
    head = dag_cbor.encode([0] * entries)[: -entries or None]
    return bytes([head[0] | 0x20]) + head[1:]
