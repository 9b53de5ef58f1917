"""The way from a request to its row in the table of operations.

A request that is an operation which ingot does not have is refused as that operation and never
mistaken for another one. Pure; called by ``ingot.s3.app``.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Final

from ingot.s3.errors import S3Error
from ingot.s3.operations import BUCKET, OBJECT, OPERATIONS, SERVICE, Operation

# Cross-origin preflight: no operation of the model, answered before authentication.
PREFLIGHT: Final = Operation("OptionsPreflight", BUCKET, "OPTIONS", tier=2)
# Stands for a request that ``resolve`` refused, so that it is authenticated before it hears why.
UNROUTED: Final = Operation("Unrouted", SERVICE, "", takes_object=True)

_TABLE: Final = {(row.level, row.resource, row.method): row for row in OPERATIONS}
LIST_BUCKETS: Final = _TABLE[SERVICE, b"", "GET"]
# The common four need no query and no sub-resource: one look-up on the method.
PLAIN_OBJECT: Final = {
    row.method: row for row in OPERATIONS if row.level == OBJECT and not row.resource
}

_HEADER: Final = b"x-amz-copy-source"
_ORDINARY: Final = frozenset((b"list-type", b"partNumber", b"select-type", b"id"))


def _resources(level: str) -> tuple[bytes, ...]:
    """Sub-resource names of a level in the table's order, which is their precedence."""
    found: dict[bytes, None] = {}
    for row in OPERATIONS:
        name = row.resource.partition(b"+")[0]
        if row.level == level and name and name != _HEADER and name not in _ORDINARY:
            found[name] = None
    return tuple(found)


_BUCKET_RESOURCES: Final = _resources(BUCKET)
_OBJECT_RESOURCES: Final = _resources(OBJECT)
_RESOURCE_TYPES: Final = {b"policy": "BUCKETPOLICY", b"uploadId": "UPLOAD"}
PART_OF_NOTHING: Final = "A part needs its upload: partNumber goes with uploadId"
_METHODS: Final = ("GET", "HEAD", "PUT", "POST", "DELETE")
# Parameters that are not sub-resources although clients send some of them without a value.
_PARAMETERS: Final = frozenset(
    b"prefix delimiter marker max-keys encoding-type continuation-token start-after fetch-owner "
    b"key-marker version-id-marker upload-id-marker max-uploads part-number-marker max-parts "
    b"versionId x-id bucket-region max-buckets list-type partNumber select-type id allow-unordered "
    b"response-content-type response-content-language response-expires response-cache-control "
    b"response-content-disposition response-content-encoding annotationName".split()
)

# Whatever means something in a query. What a request asks for is then one value, the one by which
# it is judged as well as carried out.
MEANT: Final = _PARAMETERS.union(_BUCKET_RESOURCES, _OBJECT_RESOURCES)


def method_not_allowed(method: str, level: str, resource: bytes = b"") -> S3Error:
    rows = (row for row in OPERATIONS if row.level == level and row.method != method)
    methods = {row.method for row in rows if row.resource.partition(b"+")[0] == resource}
    allowed = ", ".join(name for name in _METHODS if name in methods)
    return S3Error(
        "MethodNotAllowed",
        headers=((b"Allow", allowed.encode()),),
        Method=method,
        ResourceType=_RESOURCE_TYPES.get(resource, level.upper()),
    )


def not_implemented(name: str = "") -> S3Error:
    what = f"The operation {name} is" if name else "This request is an operation that is"
    return S3Error("NotImplemented", f"{what} not implemented")


def resolve(
    method: str,
    bucket: str,
    key: bytes,
    query: Sequence[tuple[bytes, bytes]] = (),
    bare: Sequence[bytes] = (),
    headers: Container[bytes] = (),
) -> Operation:
    """The row of a request. Raises S3Error where there is none: 405, 501, a nonsensical pair or a
    parameter given twice.

    ``bare`` are the parameters without a value; ``headers`` the names of the request's headers.
    """
    names = frozenset(name for name, _ in query)
    if len(names) != len(query):
        _refuse_repeated(query)
    if not bucket:
        return _service(method, names, bare)
    level = OBJECT if key else BUCKET
    # A presigned URL carries headers as parameters; they become headers once it has been verified.
    copies = _HEADER in headers or (
        b"X-Amz-Signature" in names and any(name.lower() == _HEADER for name in names)
    )
    if copies and (method != "PUT" or not key):
        raise S3Error(
            "InvalidArgument",
            "You can only specify a copy source header for copy requests.",
            ArgumentName="x-amz-copy-source",
        )
    resource = _resource(method, level, names, bare) if names else b""
    if level == BUCKET:
        spelled = _spell_bucket(method, resource, names)
    else:
        spelled = _spell_object(method, resource, names, copies)
    row = _TABLE.get((level, spelled, method))
    if row is None:
        raise method_not_allowed(method, level, resource)
    return row


def _refuse_repeated(query: Sequence[tuple[bytes, bytes]]) -> None:
    """InvalidArgument for a parameter that is given twice, whatever its values."""
    passed = set()
    for name, value in query:
        if name in passed:
            raise S3Error(
                "InvalidArgument",
                f"The query parameter {name.decode()} must not be given more than once",
                ArgumentName=name.decode(),
                ArgumentValue=value.decode("utf-8", "replace"),
            )
        if name in MEANT:
            passed.add(name)


def _service(method: str, names: frozenset[bytes], bare: Sequence[bytes]) -> Operation:
    if method == "POST" or b"events" in names or _is_unknown(bare):
        raise not_implemented()
    if method != "GET":
        raise method_not_allowed(method, SERVICE)
    return LIST_BUCKETS


def _resource(method: str, level: str, names: frozenset[bytes], bare: Sequence[bytes]) -> bytes:
    """The sub-resource of a request, the first in the table's order where there are several."""
    own, other = _BUCKET_RESOURCES, _OBJECT_RESOURCES
    if level == OBJECT:
        own, other = other, own
    found = next((name for name in own if name in names), None)
    foreign = next((name for name in other if name in names), None)
    if level == OBJECT and (found is None or (found == b"uploads" and method != "POST")):
        if foreign is not None:
            raise S3Error(
                "InvalidRequest",
                f"Key is not expected for the {method} method ?{foreign.decode()} subresource",
            )
    elif found is None and foreign is not None:
        raise not_implemented()
    if found is not None:
        return found
    reads_object = level == OBJECT and method in ("GET", "HEAD")
    if b"events" in names or (_is_unknown(bare) and not reads_object):
        # A name without a value looks like a sub-resource of tomorrow. Taking the request for the
        # plain one could list, overwrite or delete what it never meant.
        raise not_implemented()
    return b""


def _is_unknown(bare: Sequence[bytes]) -> bool:
    return any(name not in _PARAMETERS and name[:6].lower() != b"x-amz-" for name in bare)


def _spell_bucket(method: str, resource: bytes, names: frozenset[bytes]) -> bytes:
    """The resource as the table spells it, where a parameter tells two rows apart."""
    if not resource and method == "GET" and b"list-type" in names:
        return b"list-type"
    if b"id" in names and (BUCKET, resource + b"+id", method) in _TABLE:
        return resource + b"+id"
    return resource


def _spell_object(method: str, resource: bytes, names: frozenset[bytes], copies: bool) -> bytes:
    if method != "PUT":
        return resource
    if resource == b"uploadId" and b"partNumber" not in names:
        raise method_not_allowed(method, OBJECT, resource)
    if not resource and b"partNumber" in names:
        raise S3Error("InvalidArgument", PART_OF_NOTHING, ArgumentName="partNumber")
    if not copies:
        return resource
    return resource + b"+" + _HEADER if resource == b"uploadId" else resource or _HEADER
