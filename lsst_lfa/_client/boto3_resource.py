"""boto3's synchronous resource on a session's endpoint and credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import botocore.session
from botocore.config import Config

from .factory import install_handlers

if TYPE_CHECKING:
    from .settings import Settings

__all__ = ["service_resource"]


def service_resource(settings: Settings) -> Any:
    """Make a ``boto3.resources.factory.s3.ServiceResource``.

    It blocks: 0.1 to 0.2 s for making it, and for each request it makes.
    """
    import boto3

    session = botocore.session.Session()
    settings.configure(session)
    arguments = settings.client_arguments(session)
    config = Config(**settings.config_arguments(session) | {"retries": {"mode": "standard"}})
    resource = boto3.Session(botocore_session=session).resource(config=config, **arguments)
    install_handlers(resource.meta.client)
    # boto3 has added its own folder of models, as it does each time.
    paths = session.get_component("data_loader").search_paths
    paths[:] = dict.fromkeys(paths)
    return resource
