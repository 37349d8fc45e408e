"""The one interface of every S3 server the tests can start."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self

from botocore.exceptions import BotoCoreError, ClientError

from .client import Credentials, plain_client
from .ready import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from .process import Daemon
    from .tls import TlsFiles

__all__ = ["Credentials", "S3Server"]

START_TIMEOUT = 90.0
"""Seconds; a cold machine that runs other things at the same time needs most of them."""
_PROBE_BUCKET = "probe-of-the-start"


class S3Server(ABC):
    """An S3 server on loopback ports that lives as long as a ``with`` block, and no longer than the test run.

    Parameters
    ----------
    folder : `~pathlib.Path`
        A folder of the server's own, made if absent: its data, configuration and logs. The data are removed by
        `stop`, the logs stay.
    tls : `TlsFiles`, optional
        Serve https as well, with this certificate.

    Attributes
    ----------
    endpoint_url : `str`
        The http endpoint.
    https_endpoint_url : `str` or None
        The https endpoint of the same server; None without `tls`.
    access_key_id, secret_access_key : `str`
        A user who may do everything with buckets of their own.
    ca_file : `str` or None
        Certificate authority to trust for https; None without `tls`.
    version : `str`
        The server's name and version.
    """

    name: ClassVar[str]
    """Short name, as in a test's id."""

    endpoint_url: str
    https_endpoint_url: str | None = None
    access_key_id: str = "testaccess"
    # Not that of any account: the servers listen on the loopback interface while a test runs, nowhere else.
    secret_access_key: str = "testsecret123"
    version: str

    def __init__(self, folder: Path, *, tls: TlsFiles | None = None) -> None:
        self.folder = folder
        self.tls = tls
        self.ca_file = str(tls.ca) if tls else None
        # In the order in which they were started. The last one serves S3 requests; all of them must run meanwhile.
        self._daemons: list[Daemon] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server, and return when it stores objects.

        Raises
        ------
        ServerStartError
            If it does not come up; the message has the end of its log.
        """
        try:
            self._prepare()
            self.restart()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server and remove its data. No effect if it does not run."""
        while self._daemons:
            self.kill()
        shutil.rmtree(self._data, ignore_errors=True)

    def kill(self) -> None:
        """End the process that serves S3 requests, as ``kill -9`` does. The data stay."""
        self._daemons.pop().kill()

    def restart(self) -> None:
        """Start what `kill` has ended, on the same ports, and return when it responds."""
        self._serve()
        self._await(self._exercise, self.version, https=self.tls is not None)

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _prepare(self) -> None:
        """Prepare what must be there before the process that serves S3 requests."""
        self._data.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def _serve(self) -> None:
        """Start what serves S3 requests, without waiting for it."""

    def add_user(self, uid: str, tenant: str | None = None) -> Credentials:
        """Make one more user, to whom nothing of the first user's is open.

        Parameters
        ----------
        uid : `str`
            The user's name, of letters and digits. Where a server knows no owners, the user may only use buckets
            whose names start with ``{uid}-``: let all tests keep to that.
        tenant : `str`, optional
            Tenant the user belongs to, on a server that has tenants.

        Returns
        -------
        credentials : `Credentials`
            The user's keys.
        """
        message = f"{self.name} makes no user {uid!r} of tenant {tenant!r}"
        raise NotImplementedError(message)

    def client(self, credentials: Credentials | None = None, *, https: bool = False) -> Any:
        """Return a synchronous botocore client for preparing and inspecting what a test is about.

        It is as forgiving as possible, and takes nothing from the environment.

        Parameters
        ----------
        credentials : `Credentials`, optional
            Whose client; the first user's if not given.
        https : `bool`, optional
            Talk to the https endpoint.

        Returns
        -------
        client : `botocore.client.BaseClient`
            The client; close it.
        """
        who = credentials or Credentials(self.access_key_id, self.secret_access_key)
        endpoint_url = self.https_endpoint_url if https else self.endpoint_url
        if endpoint_url is None:
            message = f"{self.name} was started without https"
            raise ValueError(message)
        return plain_client(endpoint_url, who, self.ca_file)

    def _await(
        self, probe: Callable[[Any], object], what: str, credentials: Credentials | None = None, *, https: bool = False
    ) -> None:
        """Wait until something that is asked of the server works."""
        # One client for all attempts: to make one takes more than 0.1 s of CPU.
        client = self.client(credentials, https=https)

        def works() -> bool:
            try:
                probe(client)
            except (BotoCoreError, ClientError):
                return False
            return True

        try:
            wait_until(works, what, seconds=START_TIMEOUT, daemons=self._daemons)
        finally:
            client.close()

    def _exercise(self, client: Any) -> None:
        """Make the server do all that a test asks for, so that it has made what it makes on demand."""
        names = {"Bucket": _PROBE_BUCKET, "Key": "probe"}
        client.create_bucket(Bucket=_PROBE_BUCKET)
        client.put_object(**names, Body=b"probe")
        upload = client.create_multipart_upload(**names)["UploadId"]
        client.upload_part(**names, UploadId=upload, PartNumber=1, Body=b"probe")
        client.abort_multipart_upload(**names, UploadId=upload)
        client.delete_object(**names)
        client.delete_bucket(Bucket=_PROBE_BUCKET)
