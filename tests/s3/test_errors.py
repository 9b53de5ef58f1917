"""The error catalogue, the error document, and what errors from below become."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from ingot.bucket.model import (
    BucketExists,
    BucketNotEmpty,
    KeyRefused,
    NoSuchBucket,
    PreconditionFailed,
)
from ingot.errors import (
    AccountsFailed,
    Corruption,
    LeaseLost,
    NotFound,
    RequestError,
    Unavailable,
    Unserved,
)
from ingot.s3.errors import ERRORS, S3Error, translate
from ingot.s3.xml import error_document

CATALOGUE = """
400 AccessControlListNotSupported AuthorizationHeaderMalformed AuthorizationQueryParametersError
400 BadDigest BadRequest EntityTooLarge EntityTooSmall ExpiredToken IncompleteBody InvalidArgument
400 IllegalVersioningConfigurationException InvalidBucketAclWithObjectOwnership InvalidBucketName
400 InvalidChunkSizeError InvalidDigest InvalidEncryptionAlgorithmError InvalidLocationConstraint
400 IllegalLocationConstraintException InvalidPart InvalidPartOrder InvalidPolicyDocument
400 InvalidRedirectLocation InvalidRequest InvalidStorageClass InvalidTag InvalidURI KeyTooLongError
400 MalformedACLError MalformedXML MalformedPolicy MalformedPOSTRequest MalformedTrailerError
400 MaxMessageLengthExceeded MaxPostPreDataLengthExceededError MetadataTooLarge
400 MissingRequestBodyError MissingSecurityHeader
400 RequestHeaderSectionTooLarge RequestTimeout TooManyBuckets
400 UnexpectedContent UnresolvableGrantByEmailAddress
400 XAmzContentSHA256Mismatch
403 AccessDenied AccessForbidden InvalidAccessKeyId InvalidObjectState InvalidToken QuotaExceeded
403 RequestTimeTooSkewed SignatureDoesNotMatch
404 NoSuchBucket NoSuchKey NoSuchUpload NoSuchVersion NoSuchBucketPolicy NoSuchCORSConfiguration
404 NoSuchLifecycleConfiguration NoSuchWebsiteConfiguration NoSuchTagSet NoSuchConfiguration
404 NoSuchPublicAccessBlockConfiguration OwnershipControlsNotFoundError
404 NoSuchObjectLockConfiguration
404 ObjectLockConfigurationNotFoundError ReplicationConfigurationNotFoundError
404 ServerSideEncryptionConfigurationNotFoundError
405 MethodNotAllowed
409 BucketAlreadyExists BucketAlreadyOwnedByYou BucketNotEmpty ConditionalRequestConflict
409 InvalidBucketState OperationAborted
411 MissingContentLength
412 PreconditionFailed
416 InvalidPartNumber InvalidRange
304 NotModified
500 InternalError
501 NotImplemented
503 SlowDown ServiceUnavailable
507 InsufficientStorage
"""
ROWS = {
    code: int(status)
    for status, *codes in (line.split() for line in CATALOGUE.strip().splitlines())
    for code in codes
}


def test_every_code_of_the_catalogue_has_its_status_and_a_text():
    assert {code: status for code, (status, _) in ERRORS.items()} == ROWS
    assert all(text for _, text in ERRORS.values())


def test_the_texts_are_those_clients_and_suites_compare():
    assert ERRORS["NoSuchKey"][1] == "The specified key does not exist."
    assert ERRORS["NoSuchBucket"][1] == "The specified bucket does not exist"
    assert ERRORS["AccessDenied"][1] == "Access Denied"
    assert ERRORS["PreconditionFailed"][1] == (
        "At least one of the pre-conditions you specified did not hold"
    )


@pytest.mark.parametrize("code", sorted(ERRORS))
def test_xml_1_the_document_of_every_code(code):
    error = S3Error(code, Extra="a<b")
    root = ElementTree.fromstring(
        error_document(error, "/b/k&\x01", "ID", "HOST").replace(b"&#1;", b"")
    )
    assert root.tag == "Error"  # no namespace: botocore looks for this very tag
    assert [child.tag for child in root] == [
        *("Code", "Message", "Extra", "Resource", "RequestId", "HostId")
    ]
    assert [child.text for child in root] == [code, error.message, "a<b", "/b/k&", "ID", "HOST"]


def test_a_message_of_its_own_and_names_that_are_no_python_names():
    error = S3Error("AccessDenied", "Request has expired", **{"X-Amz-Expires": "5"})
    assert error.message == "Request has expired"
    assert b"<X-Amz-Expires>5</X-Amz-Expires>" in error_document(error, "/", "", "")


def test_an_unknown_code_is_our_mistake():
    with pytest.raises(KeyError):
        S3Error("NoSuchCode")


class BodyError(RequestError):
    """As the HTTP stage raises them."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


@pytest.mark.parametrize(
    ("error", "status", "code", "elements"),
    [
        (NoSuchBucket("b"), 404, "NoSuchBucket", {"BucketName": "b"}),
        (NotFound("If-Match"), 404, "NoSuchKey", {"Key": "k"}),
        (PreconditionFailed("If-Match"), 412, "PreconditionFailed", {"Condition": "If-Match"}),
        (BucketExists("x"), 409, "BucketAlreadyExists", {"BucketName": "b"}),
        (BucketNotEmpty(), 409, "BucketNotEmpty", {"BucketName": "b"}),
        (Unavailable("full", 7), 503, "SlowDown", {}),
        (LeaseLost(), 503, "ServiceUnavailable", {}),
        (Unserved("lost"), 503, "ServiceUnavailable", {}),
        (AccountsFailed("down"), 503, "ServiceUnavailable", {}),
        (Corruption("x", 1, 2), 500, "InternalError", {}),
        (RuntimeError("bug"), 500, "InternalError", {}),
        (BodyError("RequestTimeout"), 400, "RequestTimeout", {}),
        (BodyError("IncompleteBody"), 400, "IncompleteBody", {}),
        (BodyError("EntityTooLarge"), 400, "EntityTooLarge", {}),
        (BodyError("BadRequest"), 400, "BadRequest", {}),
        (RequestError("what"), 400, "InvalidRequest", {}),
    ],
)
def test_errors_from_below(error, status, code, elements):
    found = translate(error, "b", "k")
    assert (found.status, found.code, found.elements) == (status, code, elements)


def test_a_refused_key_says_why():
    found = translate(KeyRefused("the tree would grow a tower"), "b", "k")
    assert (found.status, found.code, found.message) == (
        *(400, "InvalidArgument", "the tree would grow a tower"),
    )


def test_unavailable_says_when_to_come_back():
    assert translate(Unavailable("full", 7)).headers == ((b"Retry-After", b"7"),)
    assert translate(LeaseLost()).headers == ((b"Retry-After", b"1"),)


def test_an_s3_error_stays_itself():
    error = S3Error("InvalidTag")
    assert translate(error, "b", "k") is error


def test_what_is_echoed_is_bounded():
    error = S3Error("NoSuchBucket", BucketName="&" * 50_000)
    assert len(error_document(error, "/" + "&" * 50_000, "ID", "HOST")) < 16_000
