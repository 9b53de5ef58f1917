"""Multipart uploads as values: their keys in a bucket's uploads tree, and the blocks they name.

    key ‖ 00 ‖ upload id                  ingot/upload@1      what was said when it was created
    key ‖ 00 ‖ upload id ‖ 00 ‖ "00001"   ingot/part@1        one part, body and digests
    00 ‖ upload id                        ingot/completed@1   what a finished upload became

An S3 key is not empty and has no NUL, so the three never meet, and the tree's order is: keys in
byte order, an upload's parts behind it in their order. An upload's block is written once and never
again, a marker too: whoever holds the CID of an upload can tell at a commit whether it still
stands. Absent means left out. Pure.

    ingot/upload@1 = { key: text, id: text, created: uint (unix ms), initiator: text (canonical id),
                       initiator_name: text, headers: {text: text}, metadata: {text: text},
                       algorithm: text, composite: true, state: {...} (as in ingot/state@1) }
    ingot/part@1 = { etag: text, size: uint, created: uint, sha256: 32 bytes,
                     checksums: {algorithm: digest},
                     inline: bytes  or  chunks: [[link, byte length]], depth: uint }
    ingot/completed@1 = { key: text, etag: text, parts: uint (how many), created: uint (when it was
                          completed), asked: 32 bytes (digest of the list that was asked for),
                          checksums: {algorithm: digest}, composite: true }

An upload id is 36 letters and digits, opaque to clients: the time of creation, so that a key's
uploads stand in that order, 100 random bits, and a check over the key, so that an id shows whether
it was ever issued for that key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from ingot.body.checksums import SIZES
from ingot.bucket.leaf import State, read_state, state_fields
from ingot.codec import dag_cbor
from ingot.codec.cid import RAW_PREFIX, Cid, of_structure
from ingot.codec.fields import Fields, open_envelope
from ingot.errors import Corruption, NotFound, RequestError
from ingot.limits import (
    BODY_NODE_ENTRIES_MAX,
    INLINE_BYTES_MAX,
    KEY_BYTES_MAX,
    PARTS_MAX,
    TREE_KEY_BYTES_MAX,
)
from ingot.messages import Body

UPLOAD: Final = "ingot/upload@1"
PART: Final = "ingot/part@1"
COMPLETED: Final = "ingot/completed@1"

SEPARATOR: Final = b"\x00"
BEYOND: Final = b"\x01"  # behind an upload's key: above all of its parts, below any other upload
ID_CHARACTERS: Final = 36
ID_RANDOM_BYTES: Final = 13

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # in byte order
_TIME_CHARACTERS: Final = 10
_RANDOM_CHARACTERS: Final = 20
_PART_DIGITS: Final = 5

assert KEY_BYTES_MAX + 1 + ID_CHARACTERS + 1 + _PART_DIGITS <= TREE_KEY_BYTES_MAX
assert PARTS_MAX < 10**_PART_DIGITS


class NoSuchUpload(NotFound):
    """No open upload has this id at this key: never made, completed or aborted."""

    def __init__(self, upload_id: str) -> None:
        super().__init__(f"no upload {upload_id}")
        self.upload_id = upload_id


class PartsChanged(RequestError):
    """A part was replaced between being chosen for the object and the commit. Look again."""


# -- keys of the tree ---------------------------------------------------------------------------


def make_upload_id(key: bytes, created_ms: int, random: bytes) -> str:
    """A new id; ``random`` is ID_RANDOM_BYTES that nobody can guess."""
    assert len(random) == ID_RANDOM_BYTES
    number = int.from_bytes(random, "big") >> (8 * ID_RANDOM_BYTES - 5 * _RANDOM_CHARACTERS)
    stem = _base32(created_ms, _TIME_CHARACTERS) + _base32(number, _RANDOM_CHARACTERS)
    return stem + _check(key, stem)


def id_fits(key: bytes, upload_id: str) -> bool:
    """Whether ``upload_id`` is one that was made for ``key``; what is open only the tree knows."""
    stem = upload_id[: _TIME_CHARACTERS + _RANDOM_CHARACTERS]
    return (
        upload_id.isascii()
        and len(upload_id) == ID_CHARACTERS
        and (upload_id[len(stem) :] == _check(key, stem))
    )


def _check(key: bytes, stem: str) -> str:
    digest = sha256(stem.encode() + key).digest()
    rest = ID_CHARACTERS - len(stem)
    return _base32(int.from_bytes(digest, "big") >> (256 - 5 * rest), rest)


def _base32(number: int, characters: int) -> str:
    assert 0 <= number < 32**characters
    shifts = range(5 * (characters - 1), -1, -5)
    return "".join([_ALPHABET[number >> shift & 31] for shift in shifts])


def upload_key(key: bytes, upload_id: str) -> bytes:
    return key + SEPARATOR + upload_id.encode()


def part_key(upload: bytes, number: int) -> bytes:
    """The key of a part; ``upload`` is its upload's."""
    assert 1 <= number <= PARTS_MAX
    return b"%b\x00%05d" % (upload, number)


def part_number(tree_key: bytes) -> int:
    """Of a part's key."""
    return int(tree_key[-_PART_DIGITS:])


def marker_key(upload_id: str) -> bytes:
    return SEPARATOR + upload_id.encode()


def marker_range(created_before_ms: int) -> tuple[bytes, bytes]:
    """Where the markers of uploads stand that were created before then: [start, stop)."""
    return SEPARATOR, SEPARATOR + _base32(max(created_before_ms, 0), _TIME_CHARACTERS).encode()


def split_key(tree_key: bytes) -> tuple[bytes, str, int]:
    """(key, upload id, part number) of any key of the tree: number 0 for an upload, key b"" for a
    marker. Corruption for a key that nothing of ours has."""
    key, _, rest = tree_key.partition(SEPARATOR)
    upload_id, separator, number = rest.partition(SEPARATOR)
    good = len(upload_id) == ID_CHARACTERS and upload_id.isalnum()
    if separator:
        good = good and key != b"" and len(number) == _PART_DIGITS and number.isdigit()
    if not good:
        raise Corruption("key of the uploads tree", "an upload, a part or a marker", tree_key)
    return key, upload_id.decode(), int(number or b"0")


# -- an upload ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Upload:
    """An open upload; everything that its object takes over from the creation."""

    key: bytes
    id: str
    created_ms: int
    initiator: str  # canonical id
    initiator_name: str
    headers: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    algorithm: str = ""  # declared for its checksums; "" where none was
    composite: bool = False  # the object's checksum is to be one over those of the parts
    state: State = field(default_factory=State)
    cid: bytes = b""  # of its block, where it was read from the tree

    @property
    def tree_key(self) -> bytes:
        return upload_key(self.key, self.id)


def encode_upload(upload: Upload) -> bytes:
    fields: dict[str, object] = {
        "key": upload.key.decode(),
        "id": upload.id,
        "created": upload.created_ms,
        "initiator": upload.initiator,
        "initiator_name": upload.initiator_name,
    }
    _put(fields, "headers", upload.headers)
    _put(fields, "metadata", upload.metadata)
    _put(fields, "algorithm", upload.algorithm)
    _put(fields, "composite", upload.composite)
    _put(fields, "state", state_fields(upload.state))
    return dag_cbor.wrap(UPLOAD, fields)


def decode_upload(block: bytes) -> Upload:
    """FormatError for anything that ``encode_upload`` would not write."""
    fields = open_envelope(block, UPLOAD)
    upload = Upload(
        key=fields.need("key", str).encode(),
        id=fields.need("id", str),
        created_ms=fields.need_uint("created"),
        initiator=fields.need("initiator", str),
        initiator_name=fields.need("initiator_name", str),
        headers=_texts(fields, "headers"),
        metadata=_texts(fields, "metadata"),
        algorithm=_algorithm(fields),
        composite=_flag(fields, "composite"),
        state=_state(fields),
        cid=of_structure(block),
    )
    fields.done()
    if upload.composite and not upload.algorithm:
        fields.refuse("composite", "an algorithm with it", "none")
    return upload


def _state(fields: Fields) -> State:
    inner = fields.get_fields("state")
    if inner is None:
        return State()
    state = read_state(inner)
    if not state:
        fields.refuse("state", "fields, or no field", "an empty map")
    return state


# -- a part -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """One uploaded part. Its ETag is the MD5 of its bytes in hexadecimal."""

    body: Body
    created_ms: int
    checksums: dict[str, bytes] = field(default_factory=dict)
    cid: bytes = b""  # of its block, where it was read from the tree

    @property
    def etag(self) -> str:
        return self.md5.hex()

    @property
    def md5(self) -> bytes:
        assert self.body.md5 is not None
        return self.body.md5


def encode_part(part: Part) -> bytes:
    body = part.body
    fields: dict[str, object] = {
        "etag": part.etag,
        "size": body.size,
        "created": part.created_ms,
    }
    _put(fields, "sha256", body.sha256)
    _put(fields, "checksums", part.checksums)
    if body.inline is not None:
        fields["inline"] = body.inline
    else:
        fields["chunks"] = [[Cid(cid), length] for cid, length in body.chunks]
    _put(fields, "depth", body.depth)
    return dag_cbor.wrap(PART, fields)


def decode_part(block: bytes) -> Part:
    """FormatError for anything that ``encode_part`` would not write, lengths that contradict one
    another included."""
    fields = open_envelope(block, PART)
    etag = fields.need("etag", str)
    size = fields.need_uint("size")
    created_ms = fields.need_uint("created")
    digest = fields.get_bytes("sha256", 32)
    checksums = _digests(fields)
    inline = fields.get("inline", bytes)
    depth = fields.get("depth", int)
    if depth is not None and depth < 1:
        fields.refuse("depth", "at least 1, or no field", str(depth))
    chunks = _entries(fields, depth or 0)
    fields.done()
    if len(etag) != 32 or etag.strip("0123456789abcdef"):
        fields.refuse("etag", "an MD5 in hexadecimal", repr(etag))
    if inline is not None:
        if chunks or depth or len(inline) != size or size > INLINE_BYTES_MAX:
            fields.refuse("inline", f"{size} bytes and no chunks", f"{len(inline)} bytes")
    elif not 0 < len(chunks) <= BODY_NODE_ENTRIES_MAX or sum(n for _, n in chunks) != size:
        fields.refuse("size", f"the sum of 1 to {BODY_NODE_ENTRIES_MAX} chunks", str(size))
    body = Body(size, bytes.fromhex(etag), digest, inline, chunks, depth or 0)
    return Part(body, created_ms, checksums, of_structure(block))


# -- what became of an upload -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Completed:
    """The answer of a Complete, kept for those who ask again."""

    key: bytes
    etag: str
    parts: int
    completed_ms: int
    asked: bytes  # sha256 of the list of parts that was asked for
    checksums: dict[str, bytes] = field(default_factory=dict)
    composite: bool = False


def encode_completed(completed: Completed) -> bytes:
    fields: dict[str, object] = {
        "key": completed.key.decode(),
        "etag": completed.etag,
        "parts": completed.parts,
        "asked": completed.asked,
        "created": completed.completed_ms,
    }
    _put(fields, "checksums", completed.checksums)
    _put(fields, "composite", completed.composite)
    return dag_cbor.wrap(COMPLETED, fields)


def decode_completed(block: bytes) -> Completed:
    """FormatError for anything that ``encode_completed`` would not write."""
    fields = open_envelope(block, COMPLETED)
    completed = Completed(
        key=fields.need("key", str).encode(),
        etag=fields.need("etag", str),
        parts=fields.need_uint("parts", 1),
        completed_ms=fields.need_uint("created"),
        asked=fields.need_bytes("asked", 32),
        checksums=_digests(fields),
        composite=_flag(fields, "composite"),
    )
    fields.done()
    return completed


# -- fields of several formats ------------------------------------------------------------------


def _put(fields: dict[str, object], name: str, value: object) -> None:
    """What is empty is left out."""
    if value:
        fields[name] = value


def _flag(fields: Fields, name: str) -> bool:
    value = fields.get(name, bool)
    if value is False:
        fields.refuse(name, "true, or no field", "false")
    return value is True


def _algorithm(fields: Fields) -> str:
    name = fields.get("algorithm", str)
    if name is not None and name not in SIZES:
        fields.refuse("algorithm", "the name of a checksum", repr(name))
    return name or ""


def _map(fields: Fields, name: str) -> dict[str, object]:
    value: dict[str, object] | None = fields.get(name, dict)
    if value == {}:
        fields.refuse(name, "entries, or no field", "an empty map")
    return value or {}


def _texts(fields: Fields, name: str) -> dict[str, str]:
    found = {}
    for key, value in _map(fields, name).items():
        if not isinstance(value, str):
            fields.refuse(name, "a text", repr(value), key)
        found[key] = value
    return found


def _digests(fields: Fields) -> dict[str, bytes]:
    found = {}
    for name, value in _map(fields, "checksums").items():
        if type(value) is not bytes or len(value) != SIZES.get(name):
            fields.refuse("checksums", "the digest of a known checksum", repr(value), name)
        found[name] = value
    return found


def _entries(fields: Fields, depth: int) -> list[tuple[bytes, int]]:
    found = []
    for index, item in enumerate(fields.get_list("chunks")):
        if not isinstance(item, list) or [type(each) for each in item] != [Cid, int]:
            fields.refuse("chunks", "[link, length]", repr(item), index)
        cid, length = bytes(item[0]), item[1]
        if length < 1 or (depth == 0 and cid[:4] != RAW_PREFIX):
            fields.refuse("chunks", "a chunk of at least 1 byte", repr(item), index)
        found.append((cid, length))
    return found
