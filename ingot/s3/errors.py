"""Every S3 error: its code, its status, AWS's own words; and what our own errors become.

``ERRORS`` is the only table of codes. Nothing else in ingot knows a status of an error. Clients and
conformance suites compare codes and texts, so a text changes here or not at all. ``S3Error`` is
raised anywhere in ``ingot.s3``; ``translate`` turns what the stages below raise into one. The
document is made by ``ingot.s3.xml``. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from ingot.bucket.model import (
    BucketExists,
    BucketNotEmpty,
    IsDeleteMarker,
    KeyRefused,
    Locked,
    NoSuchBucket,
    NoSuchVersion,
    PreconditionFailed,
)
from ingot.bucket.part import NoSuchUpload
from ingot.errors import (
    AccountsFailed,
    LeaseLost,
    NotFound,
    RequestError,
    Unavailable,
    Unserved,
)
from ingot.messages import Header

ERRORS: Mapping[str, tuple[int, str]] = MappingProxyType(
    {
        "AccessControlListNotSupported": (400, "The bucket does not allow ACLs"),
        "AccessDenied": (403, "Access Denied"),
        "AccessForbidden": (
            403,
            "CORSResponse: This CORS request is not allowed. This is usually because the "
            "evalution of Origin, request method / Access-Control-Request-Method or "
            "Access-Control-Request-Headers are not whitelisted by the resource's CORS spec.",
        ),
        "AuthorizationHeaderMalformed": (
            400,
            "The authorization header that you provided is not valid.",
        ),
        "AuthorizationQueryParametersError": (
            400,
            "The authorization query parameters that you provided are not valid.",
        ),
        "BadDigest": (400, "The Content-MD5 you specified did not match what we received."),
        "BadRequest": (400, "An error occurred when parsing the HTTP request."),
        "BucketAlreadyExists": (
            409,
            "The requested bucket name is not available. The bucket namespace is shared by all "
            "users of the system. Please select a different name and try again.",
        ),
        "BucketAlreadyOwnedByYou": (
            409,
            "Your previous request to create the named bucket succeeded and you already own it.",
        ),
        "BucketNotEmpty": (409, "The bucket you tried to delete is not empty"),
        "ConditionalRequestConflict": (
            409,
            "The conditional request cannot succeed due to a conflicting operation against this "
            "resource.",
        ),
        "EntityTooLarge": (400, "Your proposed upload exceeds the maximum allowed size"),
        "EntityTooSmall": (
            400,
            "Your proposed upload is smaller than the minimum allowed size",
        ),
        "ExpiredToken": (400, "The provided token has expired."),
        "IllegalLocationConstraintException": (
            400,
            "The location constraint is incompatible for the region specific endpoint this "
            "request was sent to.",
        ),
        "IllegalVersioningConfigurationException": (
            400,
            "The versioning configuration specified in the request is invalid.",
        ),
        "IncompleteBody": (
            400,
            "You did not provide the number of bytes specified by the Content-Length HTTP header",
        ),
        "InsufficientStorage": (507, "There is no space left to store the object."),
        "InternalError": (500, "We encountered an internal error. Please try again."),
        "InvalidAccessKeyId": (
            403,
            "The AWS Access Key Id you provided does not exist in our records.",
        ),
        "InvalidArgument": (400, "Invalid Argument"),
        "InvalidBucketAclWithObjectOwnership": (
            400,
            "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting",
        ),
        "InvalidBucketName": (400, "The specified bucket is not valid."),
        "InvalidBucketState": (
            409,
            "The request is not valid with the current state of the bucket.",
        ),
        "InvalidChunkSizeError": (
            400,
            "Only the last chunk is allowed to have a size less than 8192 bytes",
        ),
        "InvalidDigest": (400, "The Content-MD5 you specified was invalid."),
        "InvalidEncryptionAlgorithmError": (
            400,
            "The encryption request that you specified is not valid. The valid value is AES256.",
        ),
        "InvalidLocationConstraint": (400, "The specified location-constraint is not valid"),
        "InvalidObjectState": (
            403,
            "The operation is not valid for the object's storage class",
        ),
        "InvalidPart": (
            400,
            "One or more of the specified parts could not be found.  The part may not have been "
            "uploaded, or the specified entity tag may not match the part's entity tag.",
        ),
        "InvalidPartNumber": (416, "The requested partnumber is not satisfiable"),
        "InvalidPartOrder": (
            400,
            "The list of parts was not in ascending order. Parts must be ordered by part number.",
        ),
        "InvalidPolicyDocument": (
            400,
            "The content of the form does not meet the conditions specified in the policy "
            "document.",
        ),
        "InvalidRange": (416, "The requested range is not satisfiable"),
        "InvalidRedirectLocation": (
            400,
            "The website redirect location must have a prefix of 'http://' or 'https://' or '/'.",
        ),
        "InvalidRequest": (400, "Invalid Request"),
        "InvalidStorageClass": (400, "The storage class you specified is not valid"),
        "InvalidTag": (400, "The tag provided was not a valid tag."),
        "InvalidToken": (403, "The provided token is malformed or otherwise invalid."),
        "InvalidURI": (400, "Couldn't parse the specified URI."),
        "KeyTooLongError": (400, "Your key is too long"),
        "MalformedACLError": (
            400,
            "The XML you provided was not well-formed or did not validate against our published "
            "schema",
        ),
        "MalformedPOSTRequest": (
            400,
            "The body of your POST request is not well-formed multipart/form-data.",
        ),
        "MalformedPolicy": (400, "This policy contains invalid Json"),
        "MalformedTrailerError": (
            400,
            "The request contained trailing data that was not well-formed or did not conform to "
            "our published schema.",
        ),
        "MalformedXML": (
            400,
            "The XML you provided was not well-formed or did not validate against our published "
            "schema",
        ),
        "MaxMessageLengthExceeded": (400, "Your request was too big."),
        "MaxPostPreDataLengthExceededError": (
            400,
            "Your POST request fields preceding the upload file were too large.",
        ),
        "MetadataTooLarge": (
            400,
            "Your metadata headers exceed the maximum allowed metadata size",
        ),
        "MethodNotAllowed": (
            405,
            "The specified method is not allowed against this resource.",
        ),
        "MissingContentLength": (411, "You must provide the Content-Length HTTP header."),
        "MissingRequestBodyError": (400, "Request Body is empty"),
        "MissingSecurityHeader": (400, "Your request was missing a required header"),
        "NoSuchBucket": (404, "The specified bucket does not exist"),
        "NoSuchBucketPolicy": (404, "The bucket policy does not exist"),
        "NoSuchCORSConfiguration": (404, "The CORS configuration does not exist"),
        "NoSuchConfiguration": (404, "The specified configuration does not exist."),
        "NoSuchKey": (404, "The specified key does not exist."),
        "NoSuchLifecycleConfiguration": (
            404,
            "The lifecycle configuration does not exist",
        ),
        "NoSuchObjectLockConfiguration": (
            404,
            "The specified object does not have a ObjectLock configuration",
        ),
        "NoSuchPublicAccessBlockConfiguration": (
            404,
            "The public access block configuration was not found",
        ),
        "NoSuchTagSet": (404, "The TagSet does not exist"),
        "NoSuchUpload": (
            404,
            "The specified upload does not exist. The upload ID may be invalid, or the upload "
            "may have been aborted or completed.",
        ),
        "NoSuchVersion": (404, "The specified version does not exist."),
        "NoSuchWebsiteConfiguration": (
            404,
            "The specified bucket does not have a website configuration",
        ),
        "NotImplemented": (
            501,
            "A header you provided implies functionality that is not implemented",
        ),
        "NotModified": (304, "Not Modified"),
        "ObjectLockConfigurationNotFoundError": (
            404,
            "Object Lock configuration does not exist for this bucket",
        ),
        "OperationAborted": (
            409,
            "A conflicting conditional operation is currently in progress against this resource. "
            "Please try again.",
        ),
        "OwnershipControlsNotFoundError": (
            404,
            "The bucket ownership controls were not found",
        ),
        "PreconditionFailed": (
            412,
            "At least one of the pre-conditions you specified did not hold",
        ),
        "QuotaExceeded": (403, "Your request would exceed the quota of the bucket."),
        "ReplicationConfigurationNotFoundError": (
            404,
            "The replication configuration was not found",
        ),
        "RequestHeaderSectionTooLarge": (
            400,
            "Your request header section exceeds the maximum allowed request header section size.",
        ),
        "RequestTimeTooSkewed": (
            403,
            "The difference between the request time and the current time is too large.",
        ),
        "RequestTimeout": (
            400,
            "Your socket connection to the server was not read from or written to within the "
            "timeout period. Idle connections will be closed.",
        ),
        "ServerSideEncryptionConfigurationNotFoundError": (
            404,
            "The server side encryption configuration was not found",
        ),
        "ServiceUnavailable": (
            503,
            "Service is unable to handle request. Please try again later.",
        ),
        "SignatureDoesNotMatch": (
            403,
            "The request signature we calculated does not match the signature you provided. "
            "Check your key and signing method.",
        ),
        "SlowDown": (503, "Please reduce your request rate."),
        "TooManyBuckets": (400, "You have attempted to create more buckets than allowed."),
        "UnexpectedContent": (400, "This request does not support content"),
        "UnresolvableGrantByEmailAddress": (
            400,
            "The e-mail address you provided does not match any account on record.",
        ),
        "XAmzContentSHA256Mismatch": (
            400,
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        ),
    }
)


class S3Error(RequestError):
    """An answer that is an error document: a code of ``ERRORS`` and what belongs to it.

    ``elements`` are the extra XML elements in order, such as ``BucketName="b"``; names that are no
    Python names come by ``**{"X-Amz-Expires": ...}``. ``headers`` are added to the response.
    """

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        headers: Sequence[Header] = (),
        **elements: str,
    ) -> None:
        self.code = code
        self.status, default = ERRORS[code]
        self.message = default if message is None else message
        self.headers = tuple(headers)
        self.elements = elements
        super().__init__(f"{code}: {self.message}")


def retry_after(seconds: int) -> Header:
    return (b"Retry-After", b"%d" % max(1, seconds))


def translate(error: BaseException, bucket: str = "", key: str = "", method: str = "") -> S3Error:
    """What the client is told about ``error``; the request's ``bucket``, ``key`` and ``method``
    fill the elements it names.

    Anything unknown is InternalError, and so is Corruption: the client learns no more than that,
    and the caller logs the error itself.
    """
    if isinstance(error, S3Error):
        return error
    if isinstance(error, NoSuchBucket):
        return S3Error("NoSuchBucket", BucketName=bucket)
    if isinstance(error, NoSuchUpload):
        return S3Error("NoSuchUpload", UploadId=error.upload_id)
    if isinstance(error, NoSuchVersion):
        return S3Error("NoSuchVersion", Key=key, VersionId=error.version)
    if isinstance(error, NotFound):
        return S3Error("NoSuchKey", Key=key)
    if isinstance(error, IsDeleteMarker):
        marker = ((b"x-amz-delete-marker", b"true"), (b"x-amz-version-id", error.version.encode()))
        headers = (*marker, (b"Allow", b"DELETE"))
        return S3Error(
            "MethodNotAllowed", headers=headers, Method=method, ResourceType="DeleteMarker"
        )
    if isinstance(error, Locked):
        return S3Error("AccessDenied", "Access Denied because object protected by object lock.")
    if isinstance(error, PreconditionFailed):
        return S3Error("PreconditionFailed", Condition=error.condition)
    if isinstance(error, BucketExists):
        return S3Error("BucketAlreadyExists", BucketName=bucket)
    if isinstance(error, BucketNotEmpty):
        return S3Error("BucketNotEmpty", BucketName=bucket)
    if isinstance(error, KeyRefused):
        return S3Error("InvalidArgument", str(error), ArgumentName="key", ArgumentValue=key)
    if isinstance(error, Unserved | AccountsFailed):
        return S3Error("ServiceUnavailable", headers=(retry_after(error.retry_after_s),))
    if isinstance(error, Unavailable):
        return S3Error("SlowDown", headers=(retry_after(error.retry_after_s),))
    if isinstance(error, LeaseLost):
        return S3Error("ServiceUnavailable", headers=(retry_after(1),))
    # The errors of a request's body carry their code as ``kind``. They are defined by the stage
    # above this one, which must not be imported here.
    kind = getattr(error, "kind", None)
    if isinstance(error, RequestError) and isinstance(kind, str) and kind in ERRORS:
        return S3Error(kind)
    if isinstance(error, RequestError):
        return S3Error("InvalidRequest", str(error) or None)
    return S3Error("InternalError")
