"""One S3 request at a time: its place, its time limit, its attempts, its error."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, TypeVar

from lsst_lfa.errors import ProtocolError

from .diagnosis import Request, diagnose
from .retry import Pace, Retries

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lsst_lfa.config import TransferConfig

__all__ = ["Requests"]

T = TypeVar("T")

log = logging.getLogger(__name__)

# What shows that an answer is S3's, and that what was asked for is done. A
# proxy's web page has none of it, though its status be 200.
_PROOFS = {
    "create_multipart_upload": "UploadId",
    "get_object": "ETag",
    "head_object": "LastModified",
    "list_multipart_uploads": "IsTruncated",
    "list_objects_v2": "IsTruncated",
    "put_object": "ETag",
    "upload_part": "ETag",
}


class Requests:
    """Carries out one bucket's requests through an open client.

    Parameters
    ----------
    client
        An open aiobotocore client that does not retry by itself.
    places : `asyncio.Semaphore`
        Places at the client's pool of connections.
    endpoint_url : `str`
        For error messages.
    bucket : `str`
        The bucket's name.
    config : `TransferConfig`
        Limits.
    """

    def __init__(
        self, client: Any, places: asyncio.Semaphore, endpoint_url: str, bucket: str, config: TransferConfig
    ) -> None:
        self.client = client
        self.bucket = bucket
        self.config = config
        self._places = places
        self._endpoint_url = endpoint_url

    def request(self, operation: str, key: str | None) -> Request:
        """Name a request, for messages."""
        return Request(operation, self.bucket, key, self._endpoint_url)

    async def call(self, operation: str, key: str | None = None, *, patience: float = 0.0, **params: Any) -> Any:
        """Carry out a request whose answer is small, and return that answer.

        Parameters
        ----------
        operation : `str`
            The client's method, e.g. ``head_object``.
        key : `str` or `None`
            The object; `None` for the bucket itself.
        patience : `float`
            Seconds to wait for the answer beyond ``request_timeout``.
        **params
            The operation's other parameters.
        """
        if key is not None:
            params["Key"] = key

        async def attempt(_: Pace) -> Any:
            answer = await getattr(self.client, operation)(Bucket=self.bucket, **params)
            return self.proven(operation, key, answer)

        return await self.run(operation, key, attempt, patience=patience)

    def proven(self, operation: str, key: str | None, answer: Any) -> Any:
        """Return an answer that shows that it is one; raise `ProtocolError` if it does not."""
        proof = _PROOFS.get(operation)
        if proof is not None and answer.get(proof) in (None, ""):
            msg = f"{self.request(operation, key)} failed: the server's answer has no {proof}, so it proves nothing"
            raise ProtocolError(msg)
        return answer

    async def run(
        self, operation: str, key: str | None, attempt: Callable[[Pace], Awaitable[T]], *, patience: float = 0.0
    ) -> T:
        """Run ``attempt`` until it succeeds, or until it is no use any more.

        Raises
        ------
        LfaError
            The last attempt's failure. What is neither the network's nor the
            server's making comes through as it is.
        """
        retries = Retries(self.config)
        request = self.request(operation, key)
        while True:
            pace = Pace(self.config, patience)
            try:
                async with self._places, pace:
                    return await attempt(pace)
            except Exception as error:
                failure = diagnose(error, request)
                if failure is None:
                    raise
                delay = retries.delay_after(failure, pace)
                if delay is None:
                    if failure is error:
                        raise
                    raise failure from error
            log.debug("%s; trying again in %.1f s", failure, delay)
            await asyncio.sleep(delay)
