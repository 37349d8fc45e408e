"""A client apart from the one under test, to prepare and inspect what a test is about."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.handlers import validate_bucket_name

__all__ = ["Credentials", "plain_client"]


@dataclass(frozen=True)
class Credentials:
    """The key pair of one S3 user."""

    access_key_id: str
    secret_access_key: str = field(repr=False)


def plain_client(endpoint_url: str, credentials: Credentials, ca_file: str | None) -> Any:
    """Return a synchronous botocore client that takes nothing from the environment, and tries once.

    Parameters
    ----------
    endpoint_url : `str`
        The endpoint.
    credentials : `Credentials`
        Whose client.
    ca_file : `str` or None
        Certificate authority to trust.

    Returns
    -------
    client : `botocore.client.BaseClient`
        The client; close it.
    """
    # A profile of the environment that does not exist, or a broken configuration file, would be an error here.
    session = botocore.session.Session(session_vars={"profile": (None, None, None, None)})
    session.set_config_variable("config_file", os.devnull)
    session.set_config_variable("credentials_file", os.devnull)
    # The bucket names of tenants, "tenant:bucket", are not AWS's.
    session.unregister("before-parameter-build.s3", validate_bucket_name)
    return session.create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=endpoint_url,
        aws_access_key_id=credentials.access_key_id,
        aws_secret_access_key=credentials.secret_access_key,
        verify=ca_file,
        config=Config(
            connect_timeout=5,
            # Longer than the slowest first response of a server: the pools of a fresh RGW are made on demand.
            read_timeout=60,
            proxies={},
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
