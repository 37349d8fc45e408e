"""What each exception and each error response becomes."""

from __future__ import annotations

import copy
import errno
import pickle
import ssl
from typing import Any

import aiohttp
import pytest
from botocore.exceptions import ClientError, NoCredentialsError, ParamValidationError, ProfileNotFound
from botocore.parsers import ResponseParserError

from lsst_lfa import errors
from lsst_lfa._transfer.failures import RequestInfo, TransportError, one_line, translate_error

REQUEST = RequestInfo("put_object", "b", "k", "http://host")


def error_response(status: int, code: str) -> ClientError:
    response = {"Error": {"Code": code, "Message": None}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "PutObject")


@pytest.mark.parametrize(
    ("status", "code", "kind", "transient"),
    [
        (404, "NoSuchKey", errors.KeyNotFoundError, False),
        (404, "NoSuchBucket", errors.BucketNotFoundError, False),
        (404, "NoSuchUpload", errors.UploadNotFoundError, False),
        (409, "BucketAlreadyExists", errors.BucketTakenError, False),
        (403, "AccessDenied", errors.AccessDeniedError, False),
        (403, "403", errors.AccessDeniedError, False),
        (403, "InvalidAccessKeyId", errors.UnknownKeyIdError, False),
        (403, "SignatureDoesNotMatch", errors.WrongSecretError, False),
        (400, "ExpiredToken", errors.ExpiredCredentialsError, False),
        (403, "RequestTimeTooSkewed", errors.ClockSkewError, False),
        (412, "PreconditionFailed", errors.KeyExistsError, False),
        (409, "ConditionalRequestConflict", errors.ServiceError, True),
        (413, "413", errors.TooLargeError, False),
        (400, "EntityTooLarge", errors.TooLargeError, False),
        (500, "InternalError", errors.UnavailableError, True),
        (503, "SlowDown", errors.UnavailableError, True),
        (425, "425", errors.UnavailableError, True),
        (522, "522", errors.UnavailableError, True),
        (429, "429", errors.UnavailableError, True),
        (408, "408", errors.UnavailableError, True),
        (400, "RequestTimeout", errors.UnavailableError, True),
        (400, "BadDigest", errors.DigestRefusedError, True),
        (400, "InvalidArgument", errors.ServiceError, False),
        (501, "NotImplemented", errors.ServiceError, False),
        (418, "BrandNewCode", errors.ServiceError, False),
    ],
)
def test_each_error_response_has_its_error(
    status: int, code: str, kind: type[errors.LfaError], *, transient: bool
) -> None:
    error = translate_error(error_response(status, code), REQUEST)
    assert type(error) is kind
    assert error is not None
    assert error.transient is transient
    assert isinstance(error, ClientError)
    for word in ("put_object", "s3://b/k", "http://host", code):
        assert word in str(error)
    assert f"{status} {status}" not in str(error)


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ("complete_multipart_upload", errors.KeyExistsError),
        ("copy_object", errors.ObjectChangedError),
        ("get_object", errors.ObjectChangedError),
    ],
)
def test_a_failed_precondition_means_what_the_request_was_for(operation: str, kind: type[errors.LfaError]) -> None:
    request = REQUEST._replace(operation=operation)
    for code in ("PreconditionFailed", "412"):
        assert type(translate_error(error_response(412, code), request)) is kind


@pytest.mark.parametrize(
    ("raised", "kind", "transient"),
    [
        (NoCredentialsError(), errors.MissingCredentialsError, False),
        (ProfileNotFound(profile="none"), errors.ConfigurationError, False),
        (ssl.SSLCertVerificationError("self-signed"), errors.CertificateError, False),
        (aiohttp.ClientPayloadError("cut"), errors.UnreachableError, True),
        (aiohttp.ConnectionTimeoutError(), errors.UnreachableError, True),
        (ConnectionResetError("reset"), errors.UnreachableError, True),
        (TimeoutError(), errors.TransferTimeoutError, True),
        (ResponseParserError("not XML"), errors.ProtocolError, True),
        (TransportError(errors.RedirectRefusedError, "redirect", "check"), errors.RedirectRefusedError, False),
    ],
)
def test_each_failure_has_its_error(raised: Exception, kind: type[errors.LfaError], *, transient: bool) -> None:
    error = translate_error(raised, REQUEST)
    assert type(error) is kind
    assert error is not None
    assert error.transient is transient


@pytest.mark.parametrize(
    "bug",
    [
        OSError(28, "No space left on device"),
        ValueError("bug"),
        KeyError("ETag"),
        ParamValidationError(report="bug"),
        RuntimeError("bug"),
    ],
    ids=repr,
)
def test_what_nobody_foresaw_is_left_alone(bug: Exception) -> None:
    assert translate_error(bug, REQUEST) is None


def test_a_bug_with_a_network_error_beneath_it_is_a_bug() -> None:
    bug = ValueError("bug")
    bug.__cause__ = ConnectionResetError()
    assert translate_error(bug, REQUEST) is None


def test_no_error_keeps_what_was_signed() -> None:
    response = error_response(403, "SignatureDoesNotMatch")
    response.response["Error"] |= {"CanonicalRequest": "x-amz-security-token:TOKEN", "StringToSign": "TOKEN"}
    error = translate_error(response, REQUEST)
    assert "TOKEN" not in f"{error!r} {vars(error)} {response!r} {vars(response)}"


def test_a_quota_that_is_used_up_is_not_taken_for_a_stranger_s_bucket() -> None:
    error = translate_error(error_response(403, "QuotaExceeded"), REQUEST)
    assert type(error) is errors.QuotaExceededError
    assert "quota" in str(error)
    assert "another account" not in str(error)


def test_an_account_with_too_many_buckets_is_not_told_to_delete_objects() -> None:
    error = translate_error(error_response(400, "TooManyBuckets"), REQUEST)
    assert type(error) is errors.QuotaExceededError
    assert "too many buckets" in str(error)
    assert "objects" not in str(error)


def test_the_wrong_region_is_told_with_the_right_one() -> None:
    response = error_response(400, "AuthorizationHeaderMalformed")
    response.response["Error"]["Region"] = "eu-south-9"
    assert "eu-south-9" in str(translate_error(response, REQUEST))


def test_errors_are_kin_to_the_built_in_ones_and_can_be_pickled() -> None:
    error = translate_error(error_response(404, "NoSuchKey"), REQUEST)
    assert error is not None
    error.add_note("raised during a test")
    copy = pickle.loads(pickle.dumps(error))
    assert copy.__notes__ == ["raised during a test"]
    assert type(copy) is errors.KeyNotFoundError
    assert isinstance(copy, FileNotFoundError)
    assert str(copy) == str(error)
    assert isinstance(error, errors.KeyNotFoundError)
    assert copy.response == error.response
    assert copy.errno == error.errno == errno.ENOENT
    assert issubclass(errors.TransferTimeoutError, TimeoutError)
    assert issubclass(errors.AccessDeniedError, PermissionError)
    assert issubclass(errors.UnreachableError, ConnectionError)
    assert all(issubclass(getattr(errors, name), errors.LfaError) for name in errors.__all__)
    assert errors.__all__ == sorted(errors.__all__)


KINDS = [getattr(errors, name) for name in errors.__all__]
RESPONSE = {"Error": {"Code": "Some", "Message": "words"}, "ResponseMetadata": {"HTTPStatusCode": 400}}


def made(kind: type[errors.LfaError]) -> errors.LfaError:
    error = (
        kind("what happened", RESPONSE, "PutObject") if issubclass(kind, errors.ServiceError) else kind("what happened")
    )
    error.transient = True
    error.add_note("a note")
    return error


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("repeat", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_a_copy_of_an_error_is_as_good(kind: type[errors.LfaError], repeat: Any) -> None:
    error = made(kind)
    again = repeat(error)
    assert type(again) is kind
    assert (str(again), again.args, again.transient) == (str(error), error.args, True)
    assert again.__notes__ == ["a note"]
    assert getattr(again, "response", None) == getattr(error, "response", None)
    assert getattr(again, "operation_name", None) == getattr(error, "operation_name", None)
    if isinstance(error, OSError):
        assert isinstance(again, OSError)
        assert again.errno == error.errno


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        (errors.KeyNotFoundError, errno.ENOENT),
        (errors.BucketNotFoundError, errno.ENOENT),
        (errors.BucketTakenError, errno.EEXIST),
        (errors.AccessDeniedError, errno.EACCES),
        (errors.ExpiredUrlError, errno.EACCES),
        (errors.MissingCredentialsError, errno.EACCES),
        (errors.TransferTimeoutError, errno.ETIMEDOUT),
    ],
)
def test_errors_of_the_systems_kinds_have_their_numbers(kind: type[errors.LfaError], number: int) -> None:
    error = made(kind)
    assert isinstance(error, OSError)
    assert error.errno == number


def test_what_others_write_is_shown_in_one_short_line() -> None:
    assert one_line("a\n\tb\x7f\x85c\u2028d") == "a b c d"
    assert len(one_line("x" * 10_000)) < 600
    assert one_line("https://h/b/k?X-Amz-Signature=SECRET") == "(withheld: it seems to contain a signature)"
    assert one_line("x" * 600 + "?X-Amz-Signature=SECRET").find("SECRET") == -1


def test_an_error_response_without_text_is_told_by_its_status() -> None:
    error = translate_error(
        ClientError(
            {"Error": {"Code": ["a", "b"], "Message": {"x": "y"}}, "ResponseMetadata": {"HTTPStatusCode": 403}},
            "PutObject",
        ),
        REQUEST,
    )
    assert type(error) is errors.AccessDeniedError
    assert "no reason given" in str(error)


def test_the_quota_is_nobody_elses() -> None:
    error = translate_error(error_response(403, "QuotaExceeded"), REQUEST)
    assert type(error) is errors.QuotaExceededError
    assert "another account" not in str(error)
