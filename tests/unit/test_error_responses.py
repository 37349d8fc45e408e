"""Error responses: read as botocore reads them, also under status 200; anything else is refused."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from lsst_lfa._client.error_responses import check_response, client_error

SLOW = b"<Error><Code>SlowDown</Code><Message>Please</Message></Error>"


@pytest.mark.parametrize(
    "body", [b"", b"<PutObjectResult/>", b'<PutObjectResult xmlns="urn:x"><ETag/></PutObjectResult>']
)
def test_a_body_without_an_error_is_a_success(body: bytes) -> None:
    check_response(200, {}, body, "PutObject")


@pytest.mark.parametrize(
    "body", [SLOW, b'<?xml version="1.0"?>\n' + SLOW, SLOW.replace(b"<Error>", b'<Error xmlns="urn:x">')]
)
def test_an_error_under_status_200_is_an_error_of_the_server(body: bytes) -> None:
    with pytest.raises(ClientError, match="SlowDown") as caught:
        check_response(200, {}, body, "PutObject")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500


@pytest.mark.parametrize(
    "body",
    [b"ok", b"<html>", b"<Error>", b"\x00", b"<?xml version='1.0' encoding='none'?><a/>", b"<a/>" + b" " * 70_000],
)
def test_a_body_that_s3_would_not_send_is_refused(body: bytes) -> None:
    with pytest.raises(ResponseParserError):
        check_response(200, {}, body, "PutObject")


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (404, b"<Error><Code>NoSuchKey</Code></Error>", "NoSuchKey"),
        (503, b"<html>Busy</html>", "503"),
        (403, b"", "403"),
        (500, b"<Error><Code>a</Code><Code>b</Code><Message>m</Message></Error>", None),
    ],
)
def test_an_error_is_read_as_botocore_reads_it(status: int, body: bytes, code: str | None) -> None:
    response = client_error(status, {"x-amz-request-id": "1"}, body, "GetObject").response
    assert response["Error"].get("Code") == code
    assert response["ResponseMetadata"]["HTTPStatusCode"] == status


def test_an_error_that_is_nested_too_deeply_is_unreadable() -> None:
    body = b"<Error>" + b"<a>" * 6000 + b"</a>" * 6000 + b"</Error>"
    with pytest.raises(ResponseParserError):
        client_error(400, {}, body, "GetObject")
