"""What a server needs from moto's internals: no other module uses these names.

moto keeps its state in tables of the process, and reads settings from the
environment. Here each server gets its own account in those tables, and its
requests see our environment, while other users of moto in the same process
notice nothing. If one of moto's names is missing, servers do without its
purpose; without the table of bucket names, they share their buckets.
"""

from __future__ import annotations

import functools
import itertools
import logging
import math
import os
import sys
import types
from collections.abc import MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from botocore.loaders import create_loader
from moto.backends import get_backend
from moto.moto_api import recorder
from moto.moto_server.werkzeug_app import create_backend_app

try:
    # It keeps the underscores in the names of an object's metadata; new after moto 5.2.0.
    from moto.moto_server.werkzeug_app import MotoRequestHandler as RequestHandler
except ImportError:
    from werkzeug.serving import WSGIRequestHandler as RequestHandler  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["RequestHandler", "Storage"]

log = logging.getLogger(__name__)

_REGION: Final = "us-east-1"
_AUTHORIZATION: Final = f"AWS4-HMAC-SHA256 Credential=MOCKACCESSKEYID00000/20000101/{_REGION}/s3/aws4_request"
"""The user of every request, signed or not: moto knows one user, who may do everything."""

_MIN_PART_SIZE: Final = 5 << 20
_ENVIRONMENT: Final = {"MOTO_S3_DEFAULT_KEY_BUFFER_SIZE": str(_MIN_PART_SIZE - 1024)}
"""The environment that requests see. moto would derive this from S3_UPLOAD_PART_MIN_SIZE, as it was at import."""

_SETTINGS: Final = {
    "INITIAL_NO_AUTH_ACTION_COUNT": math.inf,
    "PRETTIFY_RESPONSES": False,
    "S3_IGNORE_SUBDOMAIN_BUCKETNAME": True,
}
"""The values that requests see of the settings that moto reads from the environment when it is imported."""

_account_ids: Final = (f"{number:012d}" for number in itertools.count(1))
_serving: Final[ContextVar[Storage | None]] = ContextVar("_serving", default=None)
"""The server whose request this thread is working on."""

_open: Final[set[Storage]] = set()


class Storage:
    """The buckets of one server: an account of moto's, and a WSGI application on it.

    Create it, close it, and create buckets in one thread at a time, because
    these change moto's tables. The application may be called in any number of
    threads.
    """

    def __init__(self) -> None:
        self._application = _application()
        if _separate_bucket_names() and _account_is_ours():
            self.account_id = next(_account_ids)
        else:
            log.warning("Mock S3 servers share their buckets: this release of moto cannot keep them apart")
            self.account_id = os.environ.get("MOTO_ACCOUNT_ID", "000000000000")
        _open.add(self)

    @property
    def buckets(self) -> dict[str, Any]:
        """The buckets by name, in moto's own form."""
        return self._backend.buckets  # type: ignore[no-any-return]

    @property
    def _backend(self) -> Any:
        # Not kept: moto makes a new one whenever its own `mock_aws` begins or ends.
        return get_backend("s3")[self.account_id]["aws"]

    def create_bucket(self, name: str) -> None:
        """Create a bucket; it is not an error if it exists."""
        with self._served():
            if name not in self.buckets:
                self._backend.create_bucket(name, _REGION)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request."""
        environ["HTTP_AUTHORIZATION"] = _AUTHORIZATION
        environ["HTTP_X_MOTO_ACCOUNT_ID"] = self.account_id
        # moto takes the bucket from the percent-encoded path: "tenant%3Abucket".
        for name in {"RAW_URI", "REQUEST_URI"} & environ.keys():
            bucket, slash, key = environ[name][1:].partition("/")
            environ[name] = f"/{bucket.replace('%3A', ':')}{slash}{key}"
        with self._served():
            return self._application(environ, start_response)

    @contextmanager
    def _served(self) -> Iterator[None]:
        token = _serving.set(self)
        try:
            yield
        finally:
            _serving.reset(token)

    def close(self) -> None:
        """Free the memory and the temporary files, unless another server shares them."""
        _open.discard(self)
        if any(other.account_id == self.account_id for other in _open):
            return
        # Not backend.reset(): that closes the objects of every account.
        for bucket in self.buckets.values():
            _dispose(*bucket.keys.values(), *bucket.multiparts.values())
        # And overwritten objects: moto lists every object that it ever made.
        for model in _names("moto.s3.models").values():
            if isinstance(model, type):
                _forget_instances(model, self.account_id)
        for service in ("s3", "iam"):
            get_backend(service).pop(self.account_id, None)


def _names(module: str) -> dict[str, Any]:
    """Return the names in a module of moto; none if the module is gone."""
    return vars(sys.modules[module]) if module in sys.modules else {}


def _forget_instances(model: type, account_id: str) -> None:
    # The second name is that of moto 5.1.0.
    tracked: list[Any] = vars(model).get("instances_tracked") or vars(model).get("instances") or []
    # Backwards and in place, while other servers append to the list.
    for index in range(len(tracked) - 1, -1, -1):
        instance = tracked[index]
        # An object that another thread is still creating is already listed.
        if getattr(instance, "account_id", None) == account_id:
            del tracked[index]
            _dispose(instance)


def _dispose(*instances: Any) -> None:
    for instance in instances:
        if hasattr(instance, "dispose"):
            instance.dispose()


class _BucketOwners(MutableMapping[str, tuple[str, str]]):
    """moto's table of bucket names and their owners, in which a name exists only once for all accounts.

    A request to one of our servers sees that server's buckets in it.
    Everything else sees the original.
    """

    def __init__(self, original: dict[str, tuple[str, str]]) -> None:
        self._original = original

    def _table(self) -> dict[str, tuple[str, str]]:
        storage = _serving.get()
        if storage is None:
            return self._original
        # A new one each time: there is nothing to keep.
        return {name: (bucket.partition, bucket.account_id) for name, bucket in storage.buckets.items()}

    def __getitem__(self, name: str) -> tuple[str, str]:
        return self._table()[name]

    def __setitem__(self, name: str, owner: tuple[str, str]) -> None:
        self._table()[name] = owner

    def __delitem__(self, name: str) -> None:
        del self._table()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table())

    def __len__(self) -> int:
        return len(self._table())


def _separate_bucket_names() -> bool:
    """Let servers have buckets of the same name; return whether that is possible."""
    state = vars(get_backend("s3"))
    owners = state.get("bucket_accounts")
    if type(owners) is dict:
        state["bucket_accounts"] = owners = _BucketOwners(owners)
    return isinstance(owners, _BucketOwners)


def _account_is_ours() -> bool:
    """Return whether moto takes the account from a request's header; one in the environment would come first."""
    return "MOTO_ACCOUNT_ID" not in os.environ or isinstance(_names("moto.core.responses").get("os"), _Os)


class _Os:
    """The module ``os``, but with another environment for a request to one of our servers."""

    def __getattr__(self, name: str) -> Any:
        return _ENVIRONMENT if name == "environ" and _serving.get() else getattr(os, name)


class _Settings(types.ModuleType):
    """moto's settings, but with other constants for a request to one of our servers."""

    def __getattribute__(self, name: str) -> Any:
        return _SETTINGS[name] if name in _SETTINGS and _serving.get() else super().__getattribute__(name)


@functools.cache
def _application() -> WSGIApplication:
    """Create moto's S3 application, which serves all accounts.

    Not moto's dispatcher for all AWS services, which guesses the service of an
    unsigned request from the bucket's name.
    """
    application: Any = _with_globals(create_backend_app, DISABLE_GLOBAL_CORS=False)("s3")
    application.request_class = _request_class(application.request_class)
    _replace_settings()
    _replace_min_part_size()
    _learn_service_name()
    if "MOTO_ENABLE_RECORDING" in os.environ:
        recorder.stop_recording()
    get_backend("iam")  # moto imports it with the first request, which would be slow
    return application  # type: ignore[no-any-return]


def _replace_settings() -> None:
    """Let requests to our servers see our environment and settings."""
    for module in ("moto.settings", "moto.core.responses"):
        names = _names(module)
        if names.get("os") is os:
            names["os"] = _Os()
    if settings := sys.modules.get("moto.settings"):
        settings.__class__ = _Settings


def _replace_min_part_size() -> None:
    """Require parts of 5 MiB in multipart uploads to our servers, whatever ``S3_UPLOAD_PART_MIN_SIZE`` says."""
    upload = _names("moto.s3.models").get("FakeMultipart")
    theirs = vars(upload).get("complete") if upload else None
    if not isinstance(theirs, types.FunctionType):
        return
    ours = _with_globals(theirs, S3_UPLOAD_PART_MIN_SIZE=_MIN_PART_SIZE)

    def complete(*args: Any) -> Any:
        return (ours if _serving.get() else theirs)(*args)

    setattr(upload, "complete", complete)  # noqa: B010 - a type checker refuses the assignment


def _learn_service_name() -> None:
    """Let moto look up and cache now what it would otherwise need the user's AWS configuration for.

    In a request that fails where ``AWS_PROFILE`` names no profile.
    """
    names = _names("moto.core.utils")
    original = names.get("Session")
    learn = names.get("service_name_from_moto_package_name")
    if original is None or learn is None:
        return
    names["Session"] = _Services
    try:
        learn("s3")
    finally:
        names["Session"] = original


class _Services:
    """The part of a botocore session that moto needs."""

    def get_available_services(self) -> list[str]:
        """Return the names of the AWS services, only from botocore's data files."""
        return create_loader().list_available_services("service-2")  # type: ignore[no-any-return]


def _request_class(base: type) -> type:
    """Allow forms of any size, whatever ``MOTO_MAX_FORM_MEMORY_SIZE`` says."""

    class Request(base):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.max_form_memory_size = sys.maxsize

    return Request


def _with_globals(function: Any, **values: object) -> Any:
    """Return a function with other values for some of its module's names."""
    names = {**function.__globals__, **values}
    closure = function.__closure__
    copy = types.FunctionType(function.__code__, names, function.__name__, function.__defaults__, closure)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy
