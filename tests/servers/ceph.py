"""Ceph's RADOS gateway over the smallest cluster there is: one monitor, one disk."""

from __future__ import annotations

import secrets
import subprocess
import uuid
from typing import TYPE_CHECKING

from ._ceph_conf import CONFIGURATION
from .base import START_TIMEOUT, Credentials, S3Server
from .process import Daemon
from .ready import ServerStartError, find_program, free_ports

if TYPE_CHECKING:
    from pathlib import Path

    from .tls import TlsFiles

__all__ = ["CephServer"]

_INSTALL = "apt-get install --no-install-recommends radosgw ceph-mon ceph-osd ceph-common"
_PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")


class CephServer(S3Server):
    """Ceph RGW over http and https at once.

    Parameters
    ----------
    folder : `~pathlib.Path`
        See `S3Server`.
    tls : `TlsFiles`, optional
        See `S3Server`.
    size : `int`, optional
        Capacity in bytes. Not reserved: memory or disk is taken by what is stored, and by what was deleted in the
        last half minute.
    in_memory : `bool`, optional
        Keep objects in memory, which starts in 2 s. On disk, in a sparse file, it takes 9 s.

    Raises
    ------
    MissingProgramError
        If Ceph is not installed.
    """

    name = "ceph"

    def __init__(
        self, folder: Path, *, tls: TlsFiles | None = None, size: int = 20 * 1024**3, in_memory: bool = True
    ) -> None:
        super().__init__(folder, tls=tls)
        self._programs = {name: find_program(name, _INSTALL) for name in _PROGRAMS}
        said = subprocess.run([self._programs["radosgw"], "--version"], capture_output=True, text=True, check=True)
        words = said.stdout.split()
        self.version = f"Ceph RGW {words[2]} ({words[4]})"
        self._size = size
        self._store = "memstore" if in_memory else "bluestore"
        self._fsid = str(uuid.uuid4())
        self._ports = free_ports(3)
        self.endpoint_url = f"http://127.0.0.1:{self._ports[0]}"
        if tls is not None:
            self.https_endpoint_url = f"https://127.0.0.1:{self._ports[1]}"

    def _write_configuration(self) -> None:
        """Write ceph.conf."""
        http, https, mon = self._ports
        # Without tcp_nodelay a small GET takes 40 ms.
        frontends = f"beast tcp_nodelay=1 endpoint=127.0.0.1:{http}"
        if self.tls is not None:
            frontends += f" ssl_endpoint=127.0.0.1:{https}"
            frontends += f" ssl_certificate={self.tls.cert} ssl_private_key={self.tls.key}"
        text = CONFIGURATION.format(
            fsid=self._fsid,
            mon=f"v2:127.0.0.1:{mon}",
            folder=self.folder,
            store=self._store,
            size=self._size,
            frontends=frontends,
        )
        (self.folder / "ceph.conf").write_text(text)

    def _spawn(self, program: str, *arguments: str) -> Daemon:
        """Start one of Ceph's programs on this cluster."""
        return Daemon([self._programs[program], "-c", str(self.folder / "ceph.conf"), *arguments], self.folder)

    def _finish(self, tool: Daemon) -> None:
        """Wait for a program to end, and insist on success."""
        if status := tool.wait(START_TIMEOUT):
            message = f"{tool.name} ended with status {status}\n{tool.log_tail()}"
            raise ServerStartError(message)

    def _run(self, program: str, *arguments: str) -> None:
        """Run one of Ceph's tools."""
        self._finish(self._spawn(program, *arguments))

    def _prepare(self) -> None:
        super()._prepare()
        for name in ("mon", "osd", "rgw"):
            (self._data / name).mkdir(exist_ok=True)
        self._write_configuration()
        disk = str(uuid.uuid4())
        making_disk = self._spawn("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk, "--no-mon-config")
        monmap = str(self._data / "monmap")
        address = f"[v2:127.0.0.1:{self._ports[2]}]"
        self._run("monmaptool", "--create", "--fsid", self._fsid, "--addv", "a", address, monmap)
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)
        self._daemons.append(self._spawn("ceph-mon", "-f", "-i", "a"))
        self._run("ceph", "--connect-timeout", "30", "osd", "new", disk, "0")
        self._finish(making_disk)
        self._daemons.append(self._spawn("ceph-osd", "-f", "-i", "0"))
        self._make_user("test", Credentials(self.access_key_id, self.secret_access_key))

    def _serve(self) -> None:
        self._daemons.append(self._spawn("radosgw", "-f", "-n", "client.rgw.a"))

    def _make_user(self, uid: str, credentials: Credentials, tenant: str | None = None) -> None:
        """Make a user with given keys."""
        keys = ["--access-key", credentials.access_key_id, "--secret-key", credentials.secret_access_key]
        of_tenant = ["--tenant", tenant] if tenant else []
        self._run("radosgw-admin", "user", "create", "--uid", uid, "--display-name", uid, *keys, *of_tenant)

    def add_user(self, uid: str, tenant: str | None = None) -> Credentials:
        """Make one more user.

        Parameters
        ----------
        uid : `str`
            The user's name.
        tenant : `str`, optional
            Tenant the user belongs to; its buckets are ``{tenant}:{bucket}`` to users of other tenants.

        Returns
        -------
        credentials : `Credentials`
            The user's keys.
        """
        user = Credentials(f"{tenant or ''}{uid}access", secrets.token_hex(16))
        self._make_user(uid, user, tenant)
        return user
