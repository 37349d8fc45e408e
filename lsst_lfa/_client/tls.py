"""TLS: which servers are trusted."""

from __future__ import annotations

import ssl
from pathlib import Path

import botocore.httpsession

from lsst_lfa import errors
from lsst_lfa._transfer.failures import TransportError

__all__ = ["make_tls_context"]


def _botocores_authorities() -> str | None:
    """Return botocore's file of certificate authorities; `None`, for the system's own, if botocore no longer tells."""
    find = getattr(botocore.httpsession, "get_cert_path", None)
    return str(find(verify=True)) if find is not None else None


def make_tls_context(
    verify: bool | str,  # noqa: FBT001 - as botocore has it
    client_cert: str | tuple[str, str] | None,
) -> ssl.SSLContext:
    """Create the context that verifies servers. This reads files, for 30 ms: call it in a thread.

    Raises
    ------
    TransportError
        If a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authorities = _botocores_authorities() if verify is True else verify
    try:
        if verify is True and authorities is None:
            context.load_default_certs()
        elif authorities:
            folder = Path(authorities).is_dir()
            context.load_verify_locations(capath=authorities) if folder else context.load_verify_locations(authorities)
        else:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if client_cert:
            context.load_cert_chain(*((client_cert,) if isinstance(client_cert, str) else client_cert))
    except (OSError, ssl.SSLError) as error:
        raise TransportError(
            errors.ConfigurationError,
            f"the file of certificate authorities {authorities} cannot be used ({error})",
            "Check AWS_CA_BUNDLE, or S3Session(verify=...).",
        ) from None
    return context
