"""Signatures: botocore's, but with the digest of the body that a thread has computed."""

from __future__ import annotations

from typing import Any

import botocore.auth

from lsst_lfa._transfer.request_body import RequestBody

__all__ = ["choose_signer"]

_SIGNER = "lsst-lfa-s3v4"


class _Signer(botocore.auth.S3SigV4Auth):
    """botocore's signer, which uses the digest of a `RequestBody`.

    botocore would otherwise hash the body itself, on the event loop.
    """

    def payload(self, request: Any) -> str:
        if isinstance(request.data, RequestBody) and request.data.sha256:
            return request.data.sha256
        return str(super().payload(request))


# botocore's registry of signers by name. It is not documented: if it is missing, botocore's own signer reads a body
# and hashes it on the loop.
_signers = getattr(botocore.auth, "AUTH_TYPE_MAPS", {})
_signers[_SIGNER] = _Signer


def choose_signer(signature_version: str, **_: object) -> str | None:
    """Handle ``choose-signer``: use ours if botocore would sign as S3v4."""
    # Presigned URLs ask for "s3v4-query": those are botocore's.
    return _SIGNER if signature_version == "s3v4" and _SIGNER in getattr(botocore.auth, "AUTH_TYPE_MAPS", {}) else None
