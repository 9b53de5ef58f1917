"""A form upload's body, multipart/form-data, read as it comes: the fields, then the file.

``read_form`` reads until the file begins, so that a policy is judged before a byte of the file is
taken. The file is a ``BodyStream`` and never held whole: what is in memory is one read of the body.
It ends where its boundary says so and the form has been read to its end; a form that ends without
one is MalformedPOSTRequest there, before anything is committed. What follows the file is read and
passed over. There is a bound for the fields together, for all that stands before the file, and for
what stands behind it. The parsing is the package multipart's, which sees bytes and no socket.
Called by ``ingot.s3.posting``.
"""

from __future__ import annotations

from collections import deque
from typing import Final, TypeAlias

from multipart import (
    MultipartError,
    MultipartSegment,
    PushMultipartParser,
    parse_options_header,
)

from ingot.errors import RequestError
from ingot.limits import (
    FORM_BUFFER_BYTES,
    FORM_FIELDS_BYTES_MAX,
    FORM_HEAD_BYTES_MAX,
    FORM_LINE_BYTES_MAX,
    FORM_PARTS_MAX,
    FORM_REST_BYTES_MAX,
)
from ingot.messages import BodyStream
from ingot.s3.errors import S3Error

FILE: Final = "file"
ENCLOSURE: Final = "Bucket POST must be of the enclosure-type multipart/form-data"
ONE_FILE: Final = "POST requires exactly one file upload per request."
TOO_MUCH: Final = "There is too much behind the file, which has to come last"
TWICE: Final = "A form field of this name may be there once"
_BOUNDARY_CHARS_MAX: Final = 70  # RFC 2046
_IGNORED: Final = "x-ignore-"


class FormFile:
    """The bytes of a form's file: a ``BodyStream`` of a length that is not known before its end.

    ``bound`` sets how many they may be: EntityTooLarge as soon as there are more, EntityTooSmall at
    the end of fewer.
    """

    __slots__ = ("_least", "_most", "_parts", "_pieces", "length", "size")

    def __init__(self, parts: _Parts) -> None:
        self.length: int | None = None
        self.size = 0  # of what has come
        self._parts = parts
        self._pieces: deque[memoryview] = deque()
        self._least, self._most = 0, 0

    def bound(self, least: int, most: int) -> None:
        self._least, self._most = least, most

    async def readinto(self, view: memoryview) -> int:
        """Fill ``view`` from its start with what is there; wait for one byte at least; 0: the end,
        and all that stands behind the file has been read too."""
        while not self._pieces:
            if not await self._parts.more(self._pieces):
                if self.size < self._least:
                    raise S3Error(
                        "EntityTooSmall",
                        ProposedSize=str(self.size),
                        MinSizeAllowed=str(self._least),
                    )
                return 0
        piece = self._pieces[0]
        count = min(len(view), len(piece))
        view[:count] = piece[:count]
        if count == len(piece):
            self._pieces.popleft()
        else:
            self._pieces[0] = piece[count:]
        self.size += count
        if self.size > self._most:
            raise S3Error(
                "EntityTooLarge", ProposedSize=str(self.size), MaxSizeAllowed=str(self._most)
            )
        return count

    def take(self) -> bytes | None:
        return None

    async def read(self, limit: int) -> bytes:
        """The whole file; RequestError when it is longer than ``limit`` bytes."""
        collected = bytearray()
        with memoryview(bytearray(FORM_BUFFER_BYTES)) as buffer:
            while count := await self.readinto(buffer):
                collected += buffer[:count]
                if len(collected) > limit:
                    raise RequestError(f"the file is longer than {limit} bytes")
        return bytes(collected)


class Form:
    """The fields before the file by their names in lower case, and the file."""

    __slots__ = ("fields", "file", "filename")

    def __init__(self, fields: dict[str, bytes], file: FormFile, filename: str) -> None:
        self.fields = fields
        self.file = file
        self.filename = filename  # without directories; "" where the client named none


def boundary_of(content_type: bytes) -> str:
    """The boundary that a Content-Type names: PreconditionFailed for another kind of body,
    MalformedPOSTRequest without a boundary that may be."""
    kind, options = parse_options_header(content_type.decode("latin-1"))
    if kind.strip().lower() != "multipart/form-data":
        raise S3Error("PreconditionFailed", Condition=ENCLOSURE)
    boundary: str = options.get("boundary", "")
    if not 1 <= len(boundary) <= _BOUNDARY_CHARS_MAX or not boundary.isascii():
        raise S3Error("MalformedPOSTRequest")
    return boundary


async def read_form(body: BodyStream, boundary: str) -> Form:
    """Everything up to the file's first byte. MalformedPOSTRequest; InvalidArgument where there is
    no file or a field twice; MaxPostPreDataLengthExceededError for too much before the file."""
    parts = _Parts(body, boundary)
    fields = await parts.fields()
    name = parts.filename.replace("\\", "/").rpartition("/")[2]
    return Form(fields, FormFile(parts), name)


Event: TypeAlias = MultipartSegment | bytes | None
"""What the parser says: a part begins, bytes of it, its end."""


class _Parts:
    """The parser and the body that feeds it: first up to the file, then on through it."""

    def __init__(self, body: BodyStream, boundary: str) -> None:
        self._body = body
        self._parser = PushMultipartParser(
            boundary,
            max_header_size=FORM_LINE_BYTES_MAX,
            max_segment_count=FORM_PARTS_MAX,
        )
        self._buffer = memoryview(bytearray(FORM_BUFFER_BYTES))
        self._events: deque[Event] = deque()
        self._in_file = False
        self._passed_over = 0  # behind the file
        self.filename = ""

    async def fields(self) -> dict[str, bytes]:
        """The fields before the file."""
        fields: dict[str, bytes] = {}
        name, value = "", bytearray()
        fed = held = 0
        while True:
            while self._events:
                event = self._events.popleft()
                if isinstance(event, MultipartSegment):
                    name, value = event.name.lower(), bytearray()
                    if name == FILE:
                        self.filename = event.filename or ""
                        self._in_file = True
                        return fields
                    held += len(name)
                elif event is None:
                    if name in fields and not name.startswith(_IGNORED):
                        raise S3Error("InvalidArgument", TWICE, ArgumentName=name)
                    fields[name] = bytes(value)
                else:
                    held += len(event)
                    value += event
                if held > FORM_FIELDS_BYTES_MAX:
                    raise S3Error("MaxPostPreDataLengthExceededError")
            if fed > FORM_HEAD_BYTES_MAX:
                raise S3Error("MaxPostPreDataLengthExceededError")
            count = await self._feed()
            if count == 0:
                raise S3Error("InvalidArgument", ONE_FILE, ArgumentName=FILE, ArgumentValue="0")
            fed += count

    async def more(self, pieces: deque[memoryview]) -> bool:
        """Add what came of the file to ``pieces``; False at the end of the form."""
        while True:
            while self._events:
                event = self._events.popleft()
                if event is None:
                    self._in_file = False
                elif self._in_file and not isinstance(event, MultipartSegment):
                    pieces.append(memoryview(event))
            if pieces:
                return True
            count = await self._feed()
            if count == 0:
                return False
            self._passed_over += 0 if self._in_file else count
            if self._passed_over > FORM_REST_BYTES_MAX:
                raise S3Error("MalformedPOSTRequest", TOO_MUCH)

    async def _feed(self) -> int:
        """Let the parser see what comes; 0 when the form has ended as it should."""
        parser = self._parser
        if parser.error is not None:
            raise S3Error("MalformedPOSTRequest")
        if parser.closed:
            return 0
        count = await self._body.readinto(self._buffer)
        try:
            if count == 0:
                parser.close()
            else:
                self._events.extend(parser.parse(bytes(self._buffer[:count])))
        except MultipartError:
            raise S3Error("MalformedPOSTRequest") from None
        return count
