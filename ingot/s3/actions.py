"""The actions that policies name, and which of them an operation needs. Pure.

Most operations are their own action; ``_OTHERS`` has the rest. An action is about a bucket or about
objects, as its operations are. With a ``versionId`` an operation on an object may be another one.
"""

from __future__ import annotations

from typing import Final

from ingot.s3.operations import BUCKET, OBJECT, OPERATIONS, Operation

_OTHERS: Final = {
    "ListBuckets": "ListAllMyBuckets",
    "HeadBucket": "ListBucket",
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "ListObjectVersions": "ListBucketVersions",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "DeleteBucketTagging": "PutBucketTagging",
    "GetBucketCors": "GetBucketCORS",
    "PutBucketCors": "PutBucketCORS",
    "DeleteBucketCors": "PutBucketCORS",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    "PutBucketLifecycleConfiguration": "PutLifecycleConfiguration",
    "DeleteBucketLifecycle": "PutLifecycleConfiguration",
    "GetObjectLockConfiguration": "GetBucketObjectLockConfiguration",
    "PutObjectLockConfiguration": "PutBucketObjectLockConfiguration",
    "DeleteBucketOwnershipControls": "PutBucketOwnershipControls",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
    "DeletePublicAccessBlock": "PutBucketPublicAccessBlock",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "PutBucketEncryption": "PutEncryptionConfiguration",
    "DeleteBucketEncryption": "PutEncryptionConfiguration",
    "GetBucketAccelerateConfiguration": "GetAccelerateConfiguration",
    "PutBucketAccelerateConfiguration": "PutAccelerateConfiguration",
    "GetBucketReplication": "GetReplicationConfiguration",
    "PutBucketReplication": "PutReplicationConfiguration",
    "DeleteBucketReplication": "PutReplicationConfiguration",
    "GetBucketNotificationConfiguration": "GetBucketNotification",
    "PutBucketNotificationConfiguration": "PutBucketNotification",
    "HeadObject": "GetObject",
    "PostObject": "PutObject",
    "CopyObject": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "UploadPartCopy": "PutObject",
    "CompleteMultipartUpload": "PutObject",
    "ListParts": "ListMultipartUploadParts",
    "SelectObjectContent": "GetObject",
}
for _what in ("Analytics", "IntelligentTiering", "Inventory", "Metrics"):
    _OTHERS[f"ListBucket{_what}Configurations"] = f"Get{_what}Configuration"
    _OTHERS[f"GetBucket{_what}Configuration"] = f"Get{_what}Configuration"
    _OTHERS[f"PutBucket{_what}Configuration"] = f"Put{_what}Configuration"
    _OTHERS[f"DeleteBucket{_what}Configuration"] = f"Put{_what}Configuration"

_OF_VERSION: Final = {
    "GetObject": "GetObjectVersion",
    "DeleteObject": "DeleteObjectVersion",
    "GetObjectAcl": "GetObjectVersionAcl",
    "PutObjectAcl": "PutObjectVersionAcl",
    "GetObjectTagging": "GetObjectVersionTagging",
    "PutObjectTagging": "PutObjectVersionTagging",
    "DeleteObjectTagging": "DeleteObjectVersionTagging",
    "GetObjectAttributes": "GetObjectVersionAttributes",
    "GetObjectTorrent": "GetObjectVersionTorrent",
}
# These are the same action with a ``versionId``, and about that version.
_OF_EITHER: Final = (
    *("GetObjectRetention", "PutObjectRetention", "GetObjectLegalHold", "PutObjectLegalHold"),
    *("BypassGovernanceRetention", "RestoreObject"),
)

_ACTIONS: Final = {row.name: _OTHERS.get(row.name, row.name) for row in OPERATIONS}
# An account's or of objects, not a bucket's: no policy speaks of them as actions on a bucket.
_ACCOUNT: Final = (
    *("ListBuckets", "CreateBucket", "WriteGetObjectResponse", "DeleteObjects", "PostObject"),
)

OF_BUCKETS: Final = frozenset(
    _ACTIONS[row.name] for row in OPERATIONS if row.level == BUCKET and row.name not in _ACCOUNT
)
OF_OBJECTS: Final = frozenset(
    (
        *(_ACTIONS[row.name] for row in OPERATIONS if row.level == OBJECT),
        *_OF_VERSION.values(),
        "BypassGovernanceRetention",
        # What no operation here needs, and many a policy names.
        *("ReplicateObject", "ReplicateDelete", "ReplicateTags", "InitiateReplication"),
        "ObjectOwnerOverrideToBucketOwner",
    )
)


def action_of(operation: Operation, of_version: bool = False) -> str:
    """The action, without ``s3:``, that a policy has to allow for this operation."""
    action = _ACTIONS[operation.name]
    return _OF_VERSION.get(action, action) if of_version else action


def is_of_version(action: str) -> bool:
    """Whether it is done to a version that a request names, and not to one that it makes."""
    return action in _OF_VERSION or action in _OF_EITHER or action in _VERSIONED


_VERSIONED: Final = frozenset(_OF_VERSION.values())
