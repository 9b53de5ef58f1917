"""A bucket's website configuration: validated, kept, given back; there is no website host. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from ingot.limits import XML_LIST_ELEMENTS_MAX
from ingot.s3.errors import S3Error
from ingot.s3.xml import Element, document, element, malformed, parse

ROUTES_MAX: Final = 50
_ROOT: Final = "WebsiteConfiguration"
_PROTOCOLS: Final = ("http", "https")
_CONDITION: Final = ("HttpErrorCodeReturnedEquals", "KeyPrefixEquals")
_REDIRECT: Final = (
    "HostName",
    "HttpRedirectCode",
    "Protocol",
    "ReplaceKeyPrefixWith",
    "ReplaceKeyWith",
)


def canonical(body: bytes) -> bytes:
    """The document to keep; MalformedXML, InvalidArgument, InvalidRequest."""
    root = parse(body, _ROOT, XML_LIST_ELEMENTS_MAX)
    root.only(("RedirectAllRequestsTo", "IndexDocument", "ErrorDocument", "RoutingRules"))
    whole = root.child("RedirectAllRequestsTo")
    if whole is not None:
        if len(root.children) > 1:
            raise S3Error(
                "InvalidRequest",
                "RedirectAllRequestsTo cannot be provided in conjunction with other Routing Rules.",
            )
        if not whole.value("HostName"):
            raise malformed()
        _check_protocol(whole)
        return document(_ROOT, _copied(whole, ("HostName", "Protocol")))
    index = root.child("IndexDocument")
    if index is None:
        raise _invalid(
            "IndexDocument",
            "A value for IndexDocument Suffix must be provided if RedirectAllRequestsTo is empty",
        )
    suffix = index.value("Suffix")
    if not suffix or "/" in suffix:
        raise _invalid("IndexDocument", "The IndexDocument Suffix is not well formed")
    content = _copied(index, ("Suffix",))
    error = root.child("ErrorDocument")
    if error is not None:
        if not error.value("Key"):
            raise malformed()
        content += _copied(error, ("Key",))
    return document(_ROOT, content + _routes(root))


def _routes(root: Element) -> str:
    listed = root.child("RoutingRules")
    if listed is None:
        return ""
    listed.only(("RoutingRule",))
    if not listed.children:
        raise malformed()
    if len(listed.children) > ROUTES_MAX:
        raise S3Error(
            "InvalidRequest",
            f"{len(listed.children)} routing rules provided, the number of routing rules in a "
            f"website configuration is limited to {ROUTES_MAX}.",
        )
    return f"<RoutingRules>{''.join(map(_route, listed.children))}</RoutingRules>"


def _route(rule: Element) -> str:
    rule.only(("Condition", "Redirect"))
    condition, redirect = rule.child("Condition"), rule.child("Redirect")
    if redirect is None or not redirect.children:
        raise malformed()
    content = ""
    if condition is not None:
        if not condition.children:
            raise malformed()
        code = condition.value("HttpErrorCodeReturnedEquals")
        if code is not None and not (len(code) == 3 and code[0] in "45" and code.isdigit()):
            raise S3Error(
                "InvalidRequest",
                f"The provided HTTP error code ({code}) is not valid. Valid codes are 4XX or 5XX.",
            )
        content = _copied(condition, _CONDITION)
    _check_protocol(redirect)
    status = redirect.value("HttpRedirectCode")
    if status is not None and not (re.fullmatch("3[0-9][0-9]", status) and status != "300"):
        raise S3Error(
            "InvalidRequest",
            f"The provided HTTP redirect code ({status}) is not valid. Valid codes are 3XX except "
            "300.",
        )
    if redirect.child("ReplaceKeyWith") and redirect.child("ReplaceKeyPrefixWith"):
        raise S3Error(
            "InvalidRequest",
            "You can only define ReplaceKeyPrefix or ReplaceKey but not both.",
        )
    return f"<RoutingRule>{content}{_copied(redirect, _REDIRECT)}</RoutingRule>"


def _check_protocol(node: Element) -> None:
    protocol = node.value("Protocol")
    if protocol is not None and protocol not in _PROTOCOLS:
        raise S3Error(
            "InvalidRequest",
            "Invalid protocol, protocol can be http or https. If not defined the "
            "protocol will be selected automatically.",
        )


def _copied(node: Element, names: Sequence[str]) -> str:
    """The element with those of its children that it may have, each at most once."""
    node.only(names)
    values = [(name, node.value(name)) for name in names]
    inner = "".join(element(name, value) for name, value in values if value is not None)
    return f"<{node.name}>{inner}</{node.name}>"


def _invalid(name: str, message: str) -> S3Error:
    return S3Error("InvalidArgument", message, ArgumentName=name)
