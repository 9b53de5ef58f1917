"""Access control lists: read from documents, canned names and grant headers, and written. Pure.

A list is a tuple of grants (``Grants``): who gets which permission. A grantee is a canonical id, or
a group by its URI. Nothing that is not understood is passed over: a list either says all that its
client asked for, or is refused. What a permission means is in two tables, by the actions that
policies name too. Called by ``ingot.s3.acls``, which knows whose object it is about.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

from ingot.bucket.leaf import Acl, Grants
from ingot.credentials import shown_name
from ingot.limits import ACL_GRANTS_MAX, GRANTEE_CHARS_MAX, XML_LIST_ELEMENTS_MAX
from ingot.s3.errors import S3Error
from ingot.s3.xml import Element, document, element, parse

Index = dict[bytes, bytes]
Knows = Callable[[str], bool]
"""Whether a canonical id may be somebody's."""

FULL_CONTROL: Final = "FULL_CONTROL"
READ: Final = "READ"
WRITE: Final = "WRITE"
READ_ACP: Final = "READ_ACP"
WRITE_ACP: Final = "WRITE_ACP"
PERMISSIONS: Final = (FULL_CONTROL, READ, WRITE, READ_ACP, WRITE_ACP)

ALL_USERS: Final = "http://acs.amazonaws.com/groups/global/AllUsers"
AUTHENTICATED_USERS: Final = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers"
LOG_DELIVERY: Final = "http://acs.amazonaws.com/groups/s3/LogDelivery"  # nobody is in it here
GROUPS: Final = (ALL_USERS, AUTHENTICATED_USERS, LOG_DELIVERY)
PUBLIC: Final = (ALL_USERS, AUTHENTICATED_USERS)

# The permission by which a bucket's ACL, or an object's, allows an action. What is in neither table
# no ACL can allow.
OF_BUCKETS: Final = {
    "ListBucket": READ,
    "ListBucketVersions": READ,
    "ListBucketMultipartUploads": READ,
    "PutObject": WRITE,
    "DeleteObject": WRITE,
    "AbortMultipartUpload": WRITE,
    "ListMultipartUploadParts": WRITE,
    "GetBucketAcl": READ_ACP,
    "PutBucketAcl": WRITE_ACP,
}
OF_OBJECTS: Final = {
    "GetObject": READ,
    "GetObjectVersion": READ,
    "GetObjectAttributes": READ,
    "GetObjectVersionAttributes": READ,
    "GetObjectAcl": READ_ACP,
    "GetObjectVersionAcl": READ_ACP,
    "PutObjectAcl": WRITE_ACP,
    "PutObjectVersionAcl": WRITE_ACP,
}

CANNED: Final = b"x-amz-acl"
GRANT_HEADERS: Final = {
    b"x-amz-grant-full-control": FULL_CONTROL,
    b"x-amz-grant-read": READ,
    b"x-amz-grant-write": WRITE,
    b"x-amz-grant-read-acp": READ_ACP,
    b"x-amz-grant-write-acp": WRITE_ACP,
}
OWNER_FULL_CONTROL: Final = b"bucket-owner-full-control"
OWNERS: Final = (b"private", OWNER_FULL_CONTROL)  # what says no more than who owns it
_LOG_WRITE: Final = b"log-delivery-write"
_TO_GROUPS: Final = {
    b"public-read": ((ALL_USERS, READ),),
    b"public-read-write": ((ALL_USERS, READ), (ALL_USERS, WRITE)),
    b"authenticated-read": ((AUTHENTICATED_USERS, READ),),
    _LOG_WRITE: ((LOG_DELIVERY, WRITE), (LOG_DELIVERY, READ_ACP)),
}
_TO_OWNER: Final = {b"bucket-owner-read": READ, OWNER_FULL_CONTROL: FULL_CONTROL}
_NAMES: Final = frozenset((b"private", b"aws-exec-read", *_TO_GROUPS, *_TO_OWNER))

NO_CANNED: Final = "There is no canned ACL of this name"
OF_BUCKETS_ONLY: Final = "log-delivery-write is an ACL of buckets only"
TWO_WAYS: Final = "Specifying both Canned ACLs and Header Grants is not allowed"
XSI: Final = "http://www.w3.org/2001/XMLSchema-instance"
_ROOT: Final = "AccessControlPolicy"
_GRANTEE: Final = re.compile(r'\s*(id|uri|emailAddress)\s*=\s*(?:"([^"]*)"|([^",\s]*))\s*', re.I)


# -- what a list says ------------------------------------------------------------------------------


def private(owner: str) -> Grants:
    """The list that lets nobody but the owner do anything."""
    return ((owner, FULL_CONTROL),)


def is_public(grants: Grants) -> bool:
    return any(grantee in PUBLIC for grantee, _ in grants)


def permits(grants: Grants, who: str | None, permission: str, to_public: bool = True) -> bool:
    """Whether somebody (None: nobody in particular) gets a permission. Unless ``to_public``, what
    is granted to the public is not."""
    groups = PUBLIC if who is not None else (ALL_USERS,)
    return any(
        given in (permission, FULL_CONTROL)
        and (grantee == who or (to_public and grantee in groups))
        for grantee, given in grants
    )


# -- in headers ------------------------------------------------------------------------------------


def is_in(index: Index) -> bool:
    """Whether headers say an ACL in one way or another."""
    return CANNED in index or any(name in index for name in GRANT_HEADERS)


def check_headers(index: Index) -> None:
    """Refuse what is wrong with the headers wherever they go: InvalidRequest, InvalidArgument."""
    canned = index.get(CANNED)
    if canned is None:
        return
    if any(name in index for name in GRANT_HEADERS):
        raise S3Error("InvalidRequest", TWO_WAYS)
    if canned not in _NAMES:
        raise _invalid(NO_CANNED, CANNED.decode(), canned.decode("latin-1"))


def says_owner(index: Index) -> bool:
    """Whether headers ask for no more than that it is its owner's."""
    return not any(name in index for name in GRANT_HEADERS) and index.get(CANNED) in OWNERS


def in_headers(index: Index, owner: str, bucket_owner: str | None, knows: Knows) -> Grants | None:
    """The list that headers say, None where they say none. ``bucket_owner`` None: the list is a
    bucket's own. InvalidArgument, UnresolvableGrantByEmailAddress."""
    canned = index.get(CANNED)
    if canned is not None:
        return _of_canned(canned, owner, bucket_owner)
    found = [
        (grantee, permission)
        for name, permission in GRANT_HEADERS.items()
        if name in index
        for grantee in _grantees(name, index[name].decode("latin-1"), knows)
    ]
    return _bounded(found) if is_in(index) else None


def _of_canned(name: bytes, owner: str, bucket_owner: str | None) -> Grants:
    if bucket_owner is not None and name == _LOG_WRITE:
        raise _invalid(OF_BUCKETS_ONLY, CANNED.decode(), name.decode())
    grants = private(owner) + _TO_GROUPS.get(name, ())
    if name in _TO_OWNER and bucket_owner not in (None, owner):
        assert bucket_owner is not None
        grants += ((bucket_owner, _TO_OWNER[name]),)
    return grants


def _grantees(header: bytes, value: str, knows: Knows) -> Iterable[str]:
    at = 0
    while True:
        match = _GRANTEE.match(value, at)
        if match is None or value[match.end() : match.end() + 1] not in ("", ","):
            raise _invalid("Argument format not recognized", header.decode(), value)
        kind, quoted, bare = match.groups()
        yield _grantee(kind.lower(), bare if quoted is None else quoted, knows)
        at = match.end() + 1
        if at > len(value):
            return


def _grantee(kind: str, value: str, knows: Knows) -> str:
    if kind == "emailaddress":
        raise S3Error("UnresolvableGrantByEmailAddress")
    if kind == "uri":
        if value not in GROUPS:
            raise _invalid("Invalid group uri", "Group/URI", value)
    elif value in GROUPS or not 0 < len(value) <= GRANTEE_CHARS_MAX or not knows(value):
        raise _invalid("Invalid id", "CanonicalUser/ID", value)
    return value


def _bounded(found: Iterable[tuple[str, str]]) -> Grants:
    grants = tuple(dict.fromkeys(found))
    if len(grants) > ACL_GRANTS_MAX:
        raise S3Error(
            "InvalidRequest", f"The request contains more than {ACL_GRANTS_MAX} grants in its ACL"
        )
    return grants


def _invalid(message: str, name: str, value: str) -> S3Error:
    return S3Error("InvalidArgument", message, ArgumentName=name, ArgumentValue=value)


# -- in documents ----------------------------------------------------------------------------------


def read(body: bytes, owner: str, knows: Knows) -> Grants:
    """The list in a document. MalformedACLError; AccessDenied where the document names another
    owner, for that does not change; and what is wrong with a grantee."""
    try:
        root = parse(body, _ROOT, XML_LIST_ELEMENTS_MAX)
        named = root.child("Owner")
        listed = root.child("AccessControlList")
        grants = None if listed is None else [_grant(node) for node in listed.all("Grant")]
        of = None if named is None else named.value("ID")
    except S3Error as error:
        if error.code == "MalformedXML":
            raise S3Error("MalformedACLError") from None
        raise
    if of is None or grants is None:
        raise S3Error("MalformedACLError")
    if of.strip() != owner:
        raise S3Error("AccessDenied")
    return _bounded([(_grantee(kind, who, knows), given) for kind, who, given in grants])


_KINDS: Final = {
    "CanonicalUser": ("id", "ID"),
    "Group": ("uri", "URI"),
    "AmazonCustomerByEmail": ("emailaddress", "EmailAddress"),
}


def _grant(node: Element) -> tuple[str, str, str]:
    """Kind and value of a grantee, and the permission."""
    grantee, permission = node.child("Grantee"), (node.value("Permission") or "").strip()
    kind = None if grantee is None else _KINDS.get(grantee.attributes.get("type", ""))
    if grantee is None or kind is None or permission not in PERMISSIONS:
        raise S3Error("MalformedACLError")
    value = grantee.value(kind[1])
    if value is None:
        raise S3Error("MalformedACLError")
    return kind[0], value.strip(), permission


def kept(body: bytes) -> Grants:
    """The list in a document of ours."""
    root = parse(body, _ROOT, XML_LIST_ELEMENTS_MAX)
    listed = root.child("AccessControlList")
    assert listed is not None
    return tuple((who, given) for _, who, given in map(_grant, listed.all("Grant")))


def write(acl: Acl, name_of: Callable[[str], str | None]) -> bytes:
    """The document; ``name_of`` tells the name of whoever has a canonical id, if anybody knows."""
    grants = "".join(
        f"<Grant>{_grantee_element(grantee, name_of)}<Permission>{given}</Permission></Grant>"
        for grantee, given in acl.grants
    )
    owner = person("Owner", acl.owner, acl.name)
    return document(_ROOT, f"{owner}<AccessControlList>{grants}</AccessControlList>")


def _grantee_element(grantee: str, name_of: Callable[[str], str | None]) -> str:
    if grantee in GROUPS:
        kind, content = "Group", element("URI", grantee)
    else:
        kind, name = "CanonicalUser", name_of(grantee)
        content = element("ID", grantee)
        content += "" if name is None else element("DisplayName", shown_name(grantee, name))
    return f'<Grantee xmlns:xsi="{XSI}" xsi:type="{kind}">{content}</Grantee>'


def person(tag: str, id: str, name: str) -> str:
    """An account, as an element of an answer."""
    shown = element("DisplayName", shown_name(id, name))
    return f"<{tag}>{element('ID', id)}{shown}</{tag}>"
