"""Requests that carry an object's data, made without botocore.

botocore needs more than 1 ms of the event loop to make such a request and to read its response, most of it for what is
the same each time. So it prepares one request for each bucket, which is never sent, and whose URL and signer serve for
the bucket's objects. Whatever is not as plain as that is left to botocore.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import botocore
from botocore.awsrequest import AWSPreparedRequest
from botocore.exceptions import ClientError
from multidict import CIMultiDict

from .error_responses import check_response
from .signing import SIGNATURE_VERSION, DataSigner

if TYPE_CHECKING:
    from collections.abc import Mapping

    import aiohttp

    from .http import HttpSession

__all__ = ["S3DataRequests"]

_OPERATIONS = {"put_object": "PutObject", "upload_part": "UploadPart"}
_HEADERS = {"ContentMD5": "Content-MD5", "ContentType": "Content-Type", "IfNoneMatch": "If-None-Match"}
_QUERY = {"PartNumber": "partNumber", "UploadId": "uploadId"}
_PLAIN = {*_HEADERS, *_QUERY, "Metadata"}
# botocore finds the bucket's region, and signs again.
_OTHER_REGION = {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
# The key of the request that is only prepared. No object has it.
_UNSENT = f"lsst_lfa-{secrets.token_hex(16)}"


class _Template(NamedTuple):
    """What the requests for a bucket's objects have in common.

    Attributes
    ----------
    url : `str`
        All of the URL but the key.
    headers : `dict`
        Headers that do not depend on the object.
    signer : `DataSigner` or `None`
        `None` if requests are not signed.
    """

    url: str
    headers: dict[str, str]
    signer: DataSigner | None


class _PreparedError(Exception):
    """Stops botocore before it signs and sends the request that was only to be prepared."""

    def __init__(self, template: _Template) -> None:
        super().__init__("this request was only prepared")
        self.template = template


class S3DataRequests:
    """Sends and receives the data of objects.

    Parameters
    ----------
    client
        An open aiobotocore client.
    http : `HttpSession`
        The session behind it.
    """

    def __init__(self, client: Any, http: HttpSession) -> None:
        self._client = client
        self._http = http
        self._templates: dict[str, _Template | None] = {}
        config = client.meta.config
        # Other checksums are botocore's, if the user has asked for them.
        self._plain_puts = config.request_checksum_calculation == "when_required"
        self._plain_gets = config.response_checksum_validation == "when_required"
        client.meta.events.register("before-sign.s3.GetObject", _stop)

    async def get(self, bucket: str, key: str, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """Send a GET; see `RangeReader.open`."""
        response = await self._send("GetObject", bucket, quote(key, safe="/~"), headers) if self._plain_gets else None
        if response is not None:
            raw: aiohttp.ClientResponse = response.raw
            return raw
        params = {name.replace("-", ""): value for name, value in headers.items()}
        body = (await self._client.get_object(Bucket=bucket, Key=key, **params))["Body"]
        # aiobotocore 3.7 has a proxy of the response that our HTTP session returned, later ones have the response
        # itself.
        opened: aiohttp.ClientResponse = getattr(body, "raw_stream", body)
        return opened

    async def put(self, operation: str, bucket: str, key: str, body: Any, **params: Any) -> Mapping[str, Any]:
        """Send a body.

        Parameters
        ----------
        operation : {"put_object", "upload_part"}
            The client's method.
        bucket, key : `str`
            The object.
        body : `RequestBody` or `bytes`
            The data.
        **params
            The operation's other parameters.

        Returns
        -------
        response : mapping
            With its ``ETag``; `None`, or missing, if the server sent none.

        Raises
        ------
        botocore.exceptions.ClientError
            If the server responds with an error.
        """
        if self._plain_puts and _is_plain(params):
            headers = {"Content-Length": str(len(body))}
            headers |= {header: params[name] for name, header in _HEADERS.items() if name in params}
            headers |= {f"x-amz-meta-{name}": value for name, value in params.get("Metadata", {}).items()}
            query = "&".join(
                f"{_QUERY[name]}={quote(str(params[name]), safe='~')}" for name in params if name in _QUERY
            )
            path = quote(key, safe="/~") + (query and f"?{query}")
            sent = await self._send(_OPERATIONS[operation], bucket, path, headers, body)
            if sent is not None:
                return {"ETag": sent.headers.get("ETag")}
        call = getattr(self._client, operation)
        response: Mapping[str, Any] = await call(Bucket=bucket, Key=key, Body=body, ContentLength=len(body), **params)
        return response

    async def _send(
        self, operation: str, bucket: str, path: str, headers: Mapping[str, str], body: Any = None
    ) -> Any | None:
        """Send a request, and check its response; `None` if it is left to botocore."""
        if bucket not in self._templates:
            self._templates[bucket] = await self._prepare(bucket)
        template = self._templates[bucket]
        if template is None:
            return None
        method = "GET" if body is None else "PUT"
        url, headers = template.url + path, template.headers | dict(headers)
        if template.signer is not None:
            headers = await template.signer.sign(method, url, headers, body)
        prepared = AWSPreparedRequest(method, url, CIMultiDict(headers), body, stream_output=body is None)
        # A hook may respond in the network's place, as moto's does.
        _, response = await self._client.meta.events.emit_until_response(
            f"before-send.s3.{operation}", request=prepared
        )
        if response is None:
            response = await self._http.send(prepared)
        # The data of an object are left to whoever asked for it.
        content = b"" if prepared.stream_output and response.status_code < 300 else await response.content  # noqa: PLR2004
        try:
            check_response(response.status_code, response.headers, content, operation)
        except ClientError as error:
            if error.response["Error"].get("Code") not in _OTHER_REGION:
                raise
            self._templates[bucket] = None
            return None
        return response

    async def _prepare(self, bucket: str) -> _Template | None:
        """Return what requests for a bucket's objects have in common; `None` if all of them are left to botocore."""
        try:
            response = await self._client.get_object(Bucket=bucket, Key=_UNSENT)
        except _PreparedError as prepared:
            return prepared.template
        except ClientError:  # it was sent, and refused
            return None
        response["Body"].close()
        return None


def _is_plain(params: Mapping[str, Any]) -> bool:
    """Whether there is nothing in them that botocore would have to check or to convert."""
    return params.keys() <= _PLAIN and all(isinstance(params[name], str) for name in _HEADERS if name in params)


def _stop(request: Any, request_signer: Any, signature_version: Any, **_: object) -> None:
    """Handle ``before-sign``: take what other requests need from the one that is only prepared."""
    url = request.url.partition("?")[0]
    context = getattr(request, "context", None)
    if url.endswith(_UNSENT) and isinstance(context, dict):
        signer = None
        if signature_version is not botocore.UNSIGNED:
            if signature_version != SIGNATURE_VERSION:
                return
            given = context.get("signing", {})
            service = given.get("signing_name") or request_signer.signing_name
            signer = DataSigner(request_signer, service, given.get("region") or request_signer.region_name)
        headers = {"User-Agent": request.headers["User-Agent"]}
        raise _PreparedError(_Template(url.removesuffix(_UNSENT), headers, signer))
