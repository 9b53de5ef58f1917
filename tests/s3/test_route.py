"""The table of operations and the way into it: sections 1 and 1.5, against botocore's own model."""

from __future__ import annotations

import botocore.session
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.s3.app import App
from ingot.s3.errors import S3Error
from ingot.s3.names import split_query, split_target
from ingot.s3.operations import BUILT, OPERATIONS
from ingot.s3.route import MEANT, resolve

MODEL = botocore.session.get_session().get_service_model("s3")
# Same request line as another operation; the parameters below tell these apart.
QUERIES = {
    "CompleteMultipartUpload": "uploadId=u",
    "AbortMultipartUpload": "uploadId=u",
    "ListParts": "uploadId=u",
    "UploadPart": "partNumber=1&uploadId=u",
    "UploadPartCopy": "uploadId=u&partNumber=1",
}
IDENTIFIED = ("Analytics", "IntelligentTiering", "Inventory", "Metrics")
COPIES = ("CopyObject", "UploadPartCopy")


def route(method, target, headers=()):
    bucket, key, raw = split_target(target.encode())
    return resolve(method, bucket, key, *split_query(raw), headers=headers)


def names_of(row):
    return (row.name, *row.twins)


def request_of(name):
    http = MODEL.operation_model(name).http
    target = (
        http["requestUri"]
        .replace("{Bucket}", "bucket")
        .replace("{Key+}", "k/e y".replace(" ", "+"))
    )
    extra = [QUERIES[name]] if name in QUERIES else []
    if name.startswith(("Get", "Put", "Delete")) and any(f"Bucket{w}C" in name for w in IDENTIFIED):
        extra.append("id=1")
    if extra:
        target += ("&" if "?" in target else "?") + "&".join(extra)
    return http["method"], target, (b"x-amz-copy-source",) if name in COPIES else ()


def test_the_table_names_every_operation_of_the_model_once():
    names = [name for row in OPERATIONS for name in names_of(row)]
    assert len(names) == len(set(names)) == 117
    assert set(names) == {*MODEL.operation_names, "PostObject"}  # which only browsers know
    assert len({(row.level, row.resource, row.method) for row in OPERATIONS}) == len(OPERATIONS)


@pytest.mark.parametrize("name", sorted(set(MODEL.operation_names) - {"WriteGetObjectResponse"}))
def test_every_operation_of_the_model_finds_its_row(name):
    method, target, headers = request_of(name)
    assert name in names_of(route(method, target, headers))
    spelled = target.replace("list-type=2", "list-type=2&x-id=" + name)
    assert name in names_of(route(method, spelled, headers))


@pytest.mark.parametrize(
    "name",
    sorted(
        n
        for n in MODEL.operation_names
        if n
        in (
            "GetBucketAcl",
            "DeleteObjects",
            "CreateMultipartUpload",
            "GetObjectTagging",
            "ListObjectVersions",
        )
    ),
)
@pytest.mark.parametrize("value", ["=", "=x"])
def test_a_sub_resource_is_one_with_any_value_or_none(name, value):
    method, target, headers = request_of(name)
    assert route(method, target + value, headers).name == name


def test_write_get_object_response_never_gets_here():
    with pytest.raises(S3Error) as caught:
        route("POST", "/WriteGetObjectResponse")
    assert caught.value.code == "InvalidBucketName"


def test_every_built_row_has_a_handler_and_every_handler_a_row():
    app = App(None, {}, "r", None)
    built = {row.name for row in OPERATIONS if row.kind == BUILT}
    assert built <= set(app._handlers)
    assert set(app._handlers) <= {row.name for row in OPERATIONS}


@pytest.mark.parametrize(
    ("method", "target", "name"),
    [
        ("GET", "/bucket/", "ListObjects"),
        ("HEAD", "/bucket/", "HeadBucket"),
        ("GET", "/?x-id=ListBuckets", "ListBuckets"),
        ("PUT", "/bucket/k/", "PutObject"),
        ("POST", "/bucket/?delete", "DeleteObjects"),
        ("POST", "/bucket", "PostObject"),
        ("POST", "/bucket/", "PostObject"),
        ("GET", "/bucket?list-type=2&prefix=acl&delimiter=", "ListObjectsV2"),
        ("GET", "/bucket?prefix=&marker=&max-keys=", "ListObjects"),
        ("GET", "/bucket?ACL=1", "ListObjects"),  # names are case-sensitive
        ("DELETE", "/bucket?x-id=DeleteBucket", "DeleteBucket"),
        ("GET", "/bucket/k?versionId=v&response-content-type=a", "GetObject"),
        ("GET", "/bucket/k?partNumber=1", "GetObject"),
        ("HEAD", "/bucket/k?partNumber=1", "HeadObject"),
        ("GET", "/bucket/k?12345", "GetObject"),
        ("GET", "/bucket?analytics", "ListBucketAnalyticsConfigurations"),
        ("GET", "/bucket?", "ListObjects"),
        ("GET", "/bucket?uploads&list-type=2", "ListMultipartUploads"),
    ],
)
def test_requests_that_are_in_no_model(method, target, name):
    assert route(method, target).name == name


@pytest.mark.parametrize(
    ("method", "target", "code"),
    [
        ("GET", "/bucket?newthing", "NotImplemented"),
        ("GET", "/bucket?newthing=", "NotImplemented"),
        ("DELETE", "/bucket?newthing", "NotImplemented"),
        ("PUT", "/bucket/k?newthing", "NotImplemented"),
        ("DELETE", "/bucket/k?newthing", "NotImplemented"),
        ("GET", "/bucket?events=s3:*", "NotImplemented"),
        ("GET", "/?events=s3:*", "NotImplemented"),
        ("DELETE", "/bucket?uploadId=u", "NotImplemented"),
        ("PUT", "/bucket?retention", "NotImplemented"),
        ("POST", "/", "NotImplemented"),
        ("GET", "/bucket/k?uploads", "InvalidRequest"),
        ("GET", "/bucket/k?versions", "InvalidRequest"),
        ("PUT", "/bucket/k?cors", "InvalidRequest"),
        ("PUT", "/bucket/k?partNumber=1", "InvalidArgument"),
        ("PUT", "/bucket/k?uploadId=u", "MethodNotAllowed"),
        ("PATCH", "/bucket/k", "MethodNotAllowed"),
        ("POST", "/bucket/k", "MethodNotAllowed"),
        ("POST", "/bucket?acl", "MethodNotAllowed"),
        ("PUT", "/", "MethodNotAllowed"),
    ],
)
def test_requests_that_are_no_operation(method, target, code):
    with pytest.raises(S3Error) as caught:
        route(method, target)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("method", "target", "allow", "kind"),
    [
        ("PUT", "/bucket/k?uploadId=u", "GET, POST, DELETE", "UPLOAD"),
        ("POST", "/bucket/k", "GET, HEAD, PUT, DELETE", "OBJECT"),
        ("PATCH", "/bucket", "GET, HEAD, PUT, POST, DELETE", "BUCKET"),
        ("POST", "/bucket?policy", "GET, PUT, DELETE", "BUCKETPOLICY"),
        ("DELETE", "/", "GET", "SERVICE"),
    ],
)
def test_405_says_what_is_allowed(method, target, allow, kind):
    with pytest.raises(S3Error) as caught:
        route(method, target)
    error = caught.value
    assert (error.status, error.headers) == (405, ((b"Allow", allow.encode()),))
    assert error.elements == {"Method": method, "ResourceType": kind}


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "POST"])
def test_a_copy_source_belongs_to_put(method):
    with pytest.raises(S3Error) as caught:
        route(method, "/bucket/k", (b"x-amz-copy-source",))
    assert caught.value.code == "InvalidArgument"


def test_a_copy_source_in_a_presigned_url_is_a_copy():
    target = "/bucket/k?x-amz-copy-source=b%2Fk&X-Amz-Signature=s"
    assert route("PUT", target).name == "CopyObject"
    assert route("PUT", "/bucket/k?x-amz-copy-source=b%2Fk").name == "PutObject"


@given(
    st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "X"]),
    st.sampled_from(["", "bucket"]),
    st.sampled_from([b"", b"k"]),
    st.lists(
        st.sampled_from([row.resource.partition(b"+")[0] for row in OPERATIONS]) | st.binary(),
        max_size=4,
    ),
)
def test_any_mixture_is_a_row_or_refused(method, bucket, key, names):
    try:
        row = resolve(method, bucket, key, [(name, b"") for name in names], names)
    except S3Error as error:
        assert error.status in (400, 405, 501)
        return
    assert row.method == method


MEANT_BY_OPERATIONS = set(
    b"prefix delimiter max-keys marker encoding-type list-type continuation-token start-after "
    b"fetch-owner key-marker version-id-marker upload-id-marker max-uploads max-parts "
    b"part-number-marker versionId partNumber uploadId max-buckets bucket-region id acl policy "
    b"tagging versions uploads delete response-content-type response-cache-control".split()
)


@pytest.mark.parametrize("name", sorted(set(MODEL.operation_names) - {"WriteGetObjectResponse"}))
def test_a_parameter_that_means_something_is_given_once(name):
    """By whichever of two values a request were judged, the other could be obeyed."""
    method, target, headers = request_of(name)
    more = "&" if "?" in target else "?"
    for parameter in sorted(MEANT | MEANT_BY_OPERATIONS):
        text = parameter.decode()
        for twice in (f"{text}=a&{text}=b", f"{text}=a&x-id=y&{text.replace('a', '%61')}=a"):
            with pytest.raises(S3Error, match="more than once") as raised:
                route(method, f"{target}{more}{twice}", headers)
            assert raised.value.code == "InvalidArgument"


def test_what_means_nothing_may_be_given_twice():
    assert route("GET", "/bucket?prefix=a&x=1&x=2").name == "ListObjects"
    assert route("GET", "/bucket?prefix=a&Prefix=b").name == "ListObjects"
