"""Where the service is, and who we are."""

from __future__ import annotations

import functools
import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import botocore
from botocore.configprovider import ConfiguredEndpointProvider, ConstantProvider
from botocore.loaders import create_loader

from lsst_lfa._urls import clean_endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from botocore.session import Session as BotoSession

    from lsst_lfa._mock.server import MockS3Server

__all__ = ["AddressingStyle", "Settings"]

AddressingStyle = Literal["path", "virtual", "auto"]

# Ceph RGW over https refuses botocore's default, streamed checksums.
_CHECKSUMS = ("request_checksum_calculation", "response_checksum_validation")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where the service is, and who we are. Its repr holds no secret.

    Attributes
    ----------
    anonymous : `bool` or `None`
        Whether requests are unsigned; `None`: only if there are no
        credentials.
    addressing_style : {"path", "virtual", "auto"} or `None`
        How a bucket is named: in the path, or in the host; `None`: as in the
        profile, otherwise in the path if there is an endpoint.
    trust_env : `bool`
        Whether to use the environment and the AWS configuration files. Not for
        the mock's client, which stays on this machine.
    """

    endpoint_url: str | None
    profile: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = None
    session_token: str | None = None
    region: str | None = None
    verify: bool | str | None = None
    anonymous: bool | None = False
    addressing_style: AddressingStyle | None = None
    trust_env: bool = True
    max_connections: int = 128
    connect_timeout: float = 3.0
    max_rate: float | None = None

    def __post_init__(self) -> None:
        problem = next(self._problems(), None)
        if problem is not None:
            raise ValueError(problem)

    def _problems(self) -> Iterator[str]:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            yield "access_key_id and secret_access_key go together: pass both or neither"
        if self.anonymous and self.access_key_id is not None:
            yield "anonymous requests have no credentials: pass either credentials or anonymous=True"
        if self.addressing_style not in {None, "path", "virtual", "auto"}:
            yield f'addressing_style is {self.addressing_style!r}; it must be "path", "virtual" or "auto"'
        if self.max_connections < 1:
            yield f"max_connections is {self.max_connections!r}; it must be 1 or more"
        if not 0 < self.connect_timeout < math.inf:
            yield f"connect_timeout is {self.connect_timeout!r}; it must be a finite number of seconds above 0"
        if self.max_rate is not None and not 0 < self.max_rate < math.inf:
            yield f"max_rate is {self.max_rate!r}; it must be a finite number of bytes per second above 0, or None"

    def __repr__(self) -> str:
        return f"Settings(endpoint_url={self.endpoint_url!r}, profile={self.profile!r})"

    @classmethod
    def from_environment(cls, profile: str | None = None) -> Self:
        """Read ``S3_ENDPOINT_URL`` now; the rest is in the AWS variables and files."""
        return cls(endpoint_url=clean_endpoint(os.environ.get("S3_ENDPOINT_URL")), profile=profile)

    @classmethod
    def for_mock(cls, server: MockS3Server) -> Self:
        """Use a mock server's own credentials, and nothing from the environment."""
        return cls(
            endpoint_url=server.endpoint_url,
            access_key_id=server.access_key_id,
            secret_access_key=server.secret_access_key,
            region="us-east-1",
            verify=True,
            trust_env=False,
        )

    def configure(self, session: BotoSession) -> None:
        """Apply these settings to a botocore session, sync or async."""
        if not self.trust_env:
            fixed = {name: default for name, (_, _, default, _) in session.SESSION_VARIABLES.items()}
            fixed |= {"config_file": os.devnull, "credentials_file": os.devnull, "s3": {}}
            for name, value in fixed.items():
                session.get_component("config_store").set_config_provider(name, ConstantProvider(value))
        elif self.profile is not None:
            session.set_config_variable("profile", self.profile)
        # For other things that botocore does, such as assuming a role: a profile may have no region.
        session.set_config_variable("region", self.region or session.get_config_variable("region") or "us-east-1")
        session.register_component("data_loader", _data_loader(session.get_config_variable("data_path")))

    def client_arguments(self, session: BotoSession) -> dict[str, Any]:
        """Return the arguments of ``create_client``, except ``config``."""
        return {
            "service_name": "s3",
            "endpoint_url": self._endpoint_url(session),
            "region_name": session.get_config_variable("region"),
            "aws_access_key_id": self.access_key_id,
            "aws_secret_access_key": self.secret_access_key,
            "aws_session_token": self.session_token,
            "verify": self.verify,
        }

    def _endpoint_url(self, session: BotoSession) -> str | None:
        """Return the endpoint, including one from the AWS settings, which may contain credentials as well."""
        ignored = not self.trust_env or session.get_config_variable("ignore_configured_endpoint_urls")
        if self.endpoint_url is not None or ignored:
            return self.endpoint_url
        config = {"full_config": session.full_config, "scoped_config": session.get_scoped_config()}
        return clean_endpoint(ConfiguredEndpointProvider(client_name="s3", **config).provide())

    def signs(self, find_credentials: Callable[[], object | None]) -> bool:
        """Whether requests are signed; credentials are looked for only if that depends on them."""
        if self.anonymous is None and self.access_key_id is None:
            return find_credentials() is not None
        return not self.anonymous

    def config_arguments(self, session: BotoSession, *, sign: bool) -> dict[str, Any]:
        """Return the arguments of botocore's ``Config``, the same for our client and boto3's.

        Raises
        ------
        ValueError
            If the profile contains something that botocore cannot read.
        """
        config: dict[str, Any] = {
            "signature_version": "s3v4" if sign else botocore.UNSIGNED,
            # Retries are our own: botocore's share a quota per client and skip 429 and 408.
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "connect_timeout": self.connect_timeout,
            "max_pool_connections": self.max_connections,
            # Fixed, because botocore would otherwise compose a long one for each request.
            "user_agent": f"lsst_lfa botocore/{botocore.__version__}",
        }
        style, has_style = self.addressing_style, self._has_style(session)
        if style is None and self.endpoint_url is not None and not has_style:
            style = "path"
        if style is not None:
            config["s3"] = {"addressing_style": style}
        if not self.trust_env:
            config["proxies"] = {}
        profile = session.get_scoped_config()  # read here, in a thread: botocore would read it on the event loop
        for name in _CHECKSUMS:
            # The user's explicit settings win.
            by_hand = f"AWS_{name.upper()}" in os.environ or name in profile
            if not (self.trust_env and by_hand):
                config[name] = "when_required"
        return config

    def _has_style(self, session: BotoSession) -> bool:
        """Whether the profile has an addressing style."""
        own = session.get_scoped_config().get("s3", {}) if self.trust_env else {}
        if not isinstance(own, dict):
            msg = f'the profile has "s3 = {own}", where indented lines belong ("addressing_style = path")'
            raise ValueError(msg)  # noqa: TRY004 - it is a text that the user wrote
        return "addressing_style" in own


@functools.cache
def _data_loader(path: str | None) -> Any:
    """Return the caching loader of botocore's models: 0.1 s, for the first session only, including boto3's."""
    return create_loader(path)
