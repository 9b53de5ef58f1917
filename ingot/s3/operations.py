"""The table of S3's operations: all of the model's, built or not, and the form upload, PostObject.

A row is a request line: method, sub-resource, tier, names and what happens; a heading gives the
level, an indented line continues the one before. ``x-amz-copy-source`` in place of a sub-resource
is the header; ``a+b`` needs both. A name after a bar is a twin on the same request line. Tier 1 is
what daily clients need, tier 3 what hardly anyone asks for.
What happens: *built* has a handler of that name; *501* is refused as that operation; *204* and
``<Document>`` are fixed answers; any other word is the error code answered once the bucket (and
the object) were found. ``ingot.s3.route`` looks rows up. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from ingot.s3.errors import ERRORS

SERVICE: Final = "service"
BUCKET: Final = "bucket"
OBJECT: Final = "object"

BUILT: Final = "built"
REFUSED: Final = "refused"
ERROR: Final = "error"
FIXED: Final = "fixed"


class Operation(NamedTuple):
    """One request line. ``answer`` is the error code or the document's root of a row not built."""

    name: str
    level: str
    method: str
    resource: bytes = b""
    tier: int = 1
    kind: str = BUILT
    answer: str = ""
    twins: tuple[str, ...] = ()  # further names of the same request line
    any_region: bool = False  # a client that does not know the region may sign with us-east-1
    takes_object: bool = False  # the body is an object's, which alone may come in signed chunks


# Reads of configuration that cannot exist yet answer exactly what AWS answers where none was set:
# tools that refresh a bucket's whole state stop at a 501. The path of WriteGetObjectResponse is a
# whole target on a host of its own; here it is no bucket name and refused as such.
_TABLE: Final = """
[service]
GET    -                          1 ListBuckets|ListDirectoryBuckets built
POST   WriteGetObjectResponse     3 WriteGetObjectResponse 501
[bucket]
PUT    -                          1 CreateBucket built
HEAD   -                          1 HeadBucket built
DELETE -                          1 DeleteBucket built
GET    location                   1 GetBucketLocation built
POST   delete                     1 DeleteObjects built
POST   -                          2 PostObject built
GET    -                          1 ListObjects built
GET    list-type                  1 ListObjectsV2 built
GET    versions                   1 ListObjectVersions built
GET    uploads                    1 ListMultipartUploads built
GET    versioning                 1 GetBucketVersioning built
GET    acl                        1 GetBucketAcl built
PUT    versioning                 2 PutBucketVersioning built
PUT    acl                        2 PutBucketAcl built
GET    tagging                    2 GetBucketTagging built
PUT    tagging                    2 PutBucketTagging built
DELETE tagging                    2 DeleteBucketTagging built
GET    policy                     2 GetBucketPolicy built
PUT    policy                     2 PutBucketPolicy built
DELETE policy                     2 DeleteBucketPolicy built
GET    policyStatus               2 GetBucketPolicyStatus built
GET    cors                       2 GetBucketCors built
PUT    cors                       2 PutBucketCors built
DELETE cors                       2 DeleteBucketCors built
GET    lifecycle                  2 GetBucketLifecycleConfiguration|GetBucketLifecycle built
PUT    lifecycle                  2 PutBucketLifecycleConfiguration|PutBucketLifecycle built
DELETE lifecycle                  2 DeleteBucketLifecycle built
GET    object-lock                2 GetObjectLockConfiguration built
PUT    object-lock                2 PutObjectLockConfiguration built
GET    ownershipControls          2 GetBucketOwnershipControls built
PUT    ownershipControls          2 PutBucketOwnershipControls built
DELETE ownershipControls          2 DeleteBucketOwnershipControls built
GET    publicAccessBlock          2 GetPublicAccessBlock built
PUT    publicAccessBlock          2 PutPublicAccessBlock built
DELETE publicAccessBlock          2 DeletePublicAccessBlock built
GET    encryption                 2 GetBucketEncryption built
PUT    encryption                 2 PutBucketEncryption built
DELETE encryption                 2 DeleteBucketEncryption built
GET    website                    2 GetBucketWebsite built
PUT    website                    2 PutBucketWebsite built
DELETE website                    2 DeleteBucketWebsite built
GET    logging                    2 GetBucketLogging <BucketLoggingStatus>
GET    requestPayment             2 GetBucketRequestPayment <RequestPaymentConfiguration>
GET    accelerate                 2 GetBucketAccelerateConfiguration <AccelerateConfiguration>
GET    replication                2 GetBucketReplication ReplicationConfigurationNotFoundError
GET    notification               2 GetBucketNotificationConfiguration|GetBucketNotification
                                    <NotificationConfiguration>
POST   metadataConfiguration      3 CreateBucketMetadataConfiguration 501
POST   metadataTable              3 CreateBucketMetadataTableConfiguration 501
GET    session                    3 CreateSession 501
DELETE metadataConfiguration      3 DeleteBucketMetadataConfiguration 501
DELETE metadataTable              3 DeleteBucketMetadataTableConfiguration 501
DELETE replication                3 DeleteBucketReplication 204
GET    abac                       3 GetBucketAbac 501
PUT    abac                       3 PutBucketAbac 501
GET    metadataConfiguration      3 GetBucketMetadataConfiguration 501
GET    metadataTable              3 GetBucketMetadataTableConfiguration 501
GET    analytics+id               3 GetBucketAnalyticsConfiguration NoSuchConfiguration
GET    analytics                  3 ListBucketAnalyticsConfigurations
                                    <ListBucketAnalyticsConfigurationResult>
PUT    analytics                  3 PutBucketAnalyticsConfiguration 501
DELETE analytics                  3 DeleteBucketAnalyticsConfiguration 501
GET    intelligent-tiering+id     3 GetBucketIntelligentTieringConfiguration NoSuchConfiguration
GET    intelligent-tiering        3 ListBucketIntelligentTieringConfigurations
                                    <ListBucketIntelligentTieringConfigurationsOutput>
PUT    intelligent-tiering        3 PutBucketIntelligentTieringConfiguration 501
DELETE intelligent-tiering        3 DeleteBucketIntelligentTieringConfiguration 501
GET    inventory+id               3 GetBucketInventoryConfiguration NoSuchConfiguration
GET    inventory                  3 ListBucketInventoryConfigurations
                                    <ListInventoryConfigurationsResult>
PUT    inventory                  3 PutBucketInventoryConfiguration 501
DELETE inventory                  3 DeleteBucketInventoryConfiguration 501
GET    metrics+id                 3 GetBucketMetricsConfiguration NoSuchConfiguration
GET    metrics                    3 ListBucketMetricsConfigurations
                                    <ListMetricsConfigurationsResult>
PUT    metrics                    3 PutBucketMetricsConfiguration 501
DELETE metrics                    3 DeleteBucketMetricsConfiguration 501
PUT    accelerate                 3 PutBucketAccelerateConfiguration built
PUT    logging                    3 PutBucketLogging built
PUT    notification               3 PutBucketNotificationConfiguration|PutBucketNotification built
PUT    replication                3 PutBucketReplication 501
PUT    requestPayment             3 PutBucketRequestPayment built
PUT    metadataAnnotationTable    3 UpdateBucketMetadataAnnotationTableConfiguration 501
PUT    metadataInventoryTable     3 UpdateBucketMetadataInventoryTableConfiguration 501
PUT    metadataJournalTable       3 UpdateBucketMetadataJournalTableConfiguration 501
[object]
PUT    -                          1 PutObject built
GET    -                          1 GetObject built
HEAD   -                          1 HeadObject built
DELETE -                          1 DeleteObject built
PUT    x-amz-copy-source          1 CopyObject built
POST   uploads                    1 CreateMultipartUpload built
PUT    uploadId                   1 UploadPart built
PUT    uploadId+x-amz-copy-source 1 UploadPartCopy built
POST   uploadId                   1 CompleteMultipartUpload built
DELETE uploadId                   1 AbortMultipartUpload built
GET    uploadId                   1 ListParts built
GET    acl                        1 GetObjectAcl built
GET    tagging                    1 GetObjectTagging built
PUT    tagging                    2 PutObjectTagging built
DELETE tagging                    2 DeleteObjectTagging built
GET    attributes                 2 GetObjectAttributes built
PUT    acl                        2 PutObjectAcl built
GET    retention                  2 GetObjectRetention built
PUT    retention                  2 PutObjectRetention built
GET    legal-hold                 2 GetObjectLegalHold built
PUT    legal-hold                 2 PutObjectLegalHold built
GET    annotation                 3 GetObjectAnnotation|ListObjectAnnotations 501
PUT    annotation                 3 PutObjectAnnotation 501
DELETE annotation                 3 DeleteObjectAnnotation 501
GET    torrent                    3 GetObjectTorrent 501
PUT    renameObject               3 RenameObject 501
POST   restore                    3 RestoreObject InvalidObjectState
POST   select                     3 SelectObjectContent 501
PUT    encryption                 3 UpdateObjectEncryption 501
"""

_ANY_REGION: Final = ("ListBuckets", "HeadBucket", "GetBucketLocation", "CreateBucket")
_TAKES_OBJECT: Final = ("PutObject", "UploadPart")


def _row(level: str, line: str) -> Operation:
    method, resource, tier, names, word = line.split()
    name, *twins = names.split("|")
    kind, answer = {"built": (BUILT, ""), "501": (REFUSED, ""), "204": (FIXED, "")}.get(
        word, (FIXED, word[1:-1]) if word[0] == "<" else (ERROR, word)
    )
    assert kind != ERROR or answer in ERRORS
    return Operation(
        name,
        level,
        method,
        b"" if resource == "-" else resource.encode(),
        int(tier),
        kind,
        answer,
        tuple(twins),
        name in _ANY_REGION,
        name in _TAKES_OBJECT,
    )


def _rows() -> Iterator[Operation]:
    for section in _TABLE.split("["):
        level, _, rows = section.strip().partition("]\n")
        for line in rows.replace("\n  ", " ").splitlines():
            yield _row(level, line)


OPERATIONS: Final = tuple(_rows())
