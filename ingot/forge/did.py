"""DIDs as text: which kinds there are, and what their text maps to.

    did:key:z<base58btc>          the key itself: varint of its kind, then its bytes
    did:web:HOST[:PATH...]        a service; its document is at a URL made from the text
    did:mailto:DOMAIN:LOCAL       an account; no key, its tokens are attested by a service
    did:plc:...                   a tenant; its document is in a directory

Checks are as shallow as Forge's own, so that a token with a DID of a new kind still decodes;
whether a key can be used is found out when it is needed (``keys``). Faults are Malformed. Pure.
"""

from __future__ import annotations

import re
from urllib.parse import quote_plus, unquote_plus

from ingot.codec import base58
from ingot.errors import FormatError
from ingot.forge import values
from ingot.forge.errors import Malformed
from ingot.limits import UCAN_NAME_BYTES_MAX

_KEY = "did:key:"
_WEB = "did:web:"
_MAILTO = "did:mailto:"
_KEY_BODY = re.compile(f"z[{base58.ALPHABET}]*")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?:%3[Aa][0-9]{1,5})?")
_PATH_PART = re.compile(r"(?:[A-Za-z0-9_~-]|\.(?!\.?$))[A-Za-z0-9._~-]*")


def check(did: str) -> str:
    """The DID itself; Malformed when it has no method, is a did:key in another alphabet, or holds
    what does not print: DIDs stand in messages."""
    values.check_text(did, UCAN_NAME_BYTES_MAX)
    if not did.isprintable():
        raise Malformed((), "a DID that can be printed", repr(did[:99]))
    split(did)
    if did.startswith(_KEY) and not _KEY_BODY.fullmatch(did, len(_KEY)):
        raise Malformed((), "a did:key in base58btc", repr(did[:99]))
    return did


def split(did: str) -> tuple[str, str]:
    """(method, identifier)."""
    scheme, _, rest = did.partition(":")
    method, colon, identifier = rest.partition(":")
    if scheme != "did" or not method or not colon or not identifier:
        raise Malformed((), "a DID", repr(did[:99]))
    return method, identifier


def of_key(tagged: bytes) -> str:
    """The did:key of a public key behind the varint of its kind."""
    return f"{_KEY}z{base58.encode(tagged)}"


def tagged_key(did: str) -> bytes:
    """The bytes of a did:key: varint of the kind, then the public key."""
    if not did.startswith(_KEY + "z"):
        raise Malformed((), "a did:key in base58btc", repr(did[:99]))
    try:
        return base58.decode(did[len(_KEY) + 1 :])
    except FormatError as error:
        raise Malformed((), f"a did:key with {error.expected}", repr(did[:99])) from None


def is_key(did: str) -> bool:
    """Whether the DID is its own document."""
    return did.startswith(_KEY)


def web_url(did: str, insecure: bool = False) -> str:
    """Where the document of a did:web is; ``insecure`` gives http, for test networks.

    Host and path are taken only in the letters that mean nothing else in a URL.
    """
    method, identifier = split(did)
    host, *path = identifier.split(":")
    if method != "web" or not _HOST.fullmatch(host):
        raise Malformed((), "a did:web", repr(did[:99]))
    if not all(_PATH_PART.fullmatch(part) for part in path):
        raise Malformed((), "a did:web with a plain path", repr(did[:99]))
    scheme = "http" if insecure else "https"
    host = re.sub("%3[Aa]", ":", host)
    return f"{scheme}://{host}/{'/'.join(path) if path else '.well-known'}/did.json"


def is_account(did: str) -> bool:
    """Whether it is somebody's account with a service, and no space."""
    return split(did)[0] in ("mailto", "plc")


def of_email(email: str) -> str:
    """The account of an e-mail address."""
    local, at, domain = email.rpartition("@")
    if not at or not local or not domain:
        raise Malformed((), "an e-mail address", repr(email[:99]))
    return f"{_MAILTO}{quote_plus(domain, safe='')}:{quote_plus(local, safe='')}"


def email_of(did: str) -> str:
    """The e-mail address of an account."""
    domain, colon, local = did.removeprefix(_MAILTO).partition(":")
    if not did.startswith(_MAILTO) or not colon or not domain or not local or ":" in local:
        raise Malformed((), "a did:mailto", repr(did[:99]))
    return f"{unquote_plus(local)}@{unquote_plus(domain)}"
