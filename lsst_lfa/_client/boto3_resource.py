"""boto3's synchronous resource on a session's endpoint and credentials."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import botocore.session
from botocore.config import Config

from .factory import install_handlers

if TYPE_CHECKING:
    from collections.abc import Callable

    from .settings import Settings

__all__ = ["service_resource"]


def service_resource(settings: Settings, endpoint_url: str | None) -> Any:
    """Return a ``boto3.resources.factory.s3.ServiceResource``, created when more than its endpoint is accessed.

    Creating it blocks for 0.1 to 0.2 s, and most users read only
    ``meta.client.meta.endpoint_url``, on the event loop.
    """
    make = functools.cache(functools.partial(_make, settings))
    if endpoint_url is None:
        return make()
    client_meta = _Lazy(lambda: make().meta.client.meta, endpoint_url=endpoint_url)
    client = _Lazy(lambda: make().meta.client, meta=client_meta)
    return _Lazy(make, meta=_Lazy(lambda: make().meta, client=client))


def _make(settings: Settings) -> Any:
    import boto3

    session = botocore.session.Session()
    settings.configure(session)
    arguments = settings.client_arguments(session)
    sign = settings.signs(session.get_credentials)
    options = settings.config_arguments(session, sign=sign) | {"retries": {"mode": "standard"}}
    resource = boto3.Session(botocore_session=session).resource(config=Config(**options), **arguments)
    install_handlers(resource.meta.client)
    # boto3 has added its own folder of models, as it does each time.
    paths = session.get_component("data_loader").search_paths
    paths[:] = dict.fromkeys(paths)
    return resource


class _Lazy:
    """A proxy of an object, some of whose attributes are ``known`` before it is created."""

    def __init__(self, make: Callable[[], Any], **known: Any) -> None:
        vars(self).update(known, _make_it=make)

    @property
    def __class__(self) -> type:
        """The class that `isinstance` should see."""
        return type(self._make_it())

    @__class__.setter
    def __class__(self, kind: type) -> None:
        self._make_it().__class__ = kind

    def __getattr__(self, name: str) -> Any:
        if name == "_make_it":  # of a copy that is not filled yet
            raise AttributeError(name)
        return getattr(self._make_it(), name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._make_it(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._make_it(), name)

    def __dir__(self) -> list[str]:
        return dir(self._make_it())

    def __repr__(self) -> str:
        return repr(self._make_it())

    def __eq__(self, other: object) -> bool:
        return bool(self._make_it() == (other._make_it() if type(other) is _Lazy else other))

    def __hash__(self) -> int:
        return hash(self._make_it())
