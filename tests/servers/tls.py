"""Certificates for the tests, from a certificate authority of their own."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CertificateAuthority", "TlsFiles"]


@dataclass(frozen=True)
class TlsFiles:
    """What a server needs for https, and what its clients need to trust it: PEM files."""

    cert: Path
    """The server's certificate, with its chain."""

    key: Path
    """Its private key."""

    ca: Path
    """The certificate authority that vouches for it."""

    def context(self) -> ssl.SSLContext:
        """Return what a server in this process needs of them.

        Returns
        -------
        context : `ssl.SSLContext`
            Shows the certificate.
        """
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.cert, self.key)
        return context


class CertificateAuthority:
    """A certificate authority that nobody trusts who was not told to; make a second one for an untrusted one.

    Parameters
    ----------
    folder : `~pathlib.Path`
        Folder for the files, made if absent.

    Attributes
    ----------
    ca_file : `~pathlib.Path`
        The authority's own certificate.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._ca = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.ca_file))

    def valid(self) -> TlsFiles:
        """Return a certificate that is in order, for 127.0.0.1, ::1 and localhost.

        Returns
        -------
        files : `TlsFiles`
            The files.
        """
        return self._write("valid", self._ca.issue_cert("127.0.0.1", "::1", "localhost"))

    def expired(self) -> TlsFiles:
        """Return a certificate for the same hosts that ended yesterday.

        Returns
        -------
        files : `TlsFiles`
            The files.
        """
        now = datetime.now(UTC)
        cert = self._ca.issue_cert(
            "127.0.0.1", "::1", "localhost", not_before=now - timedelta(days=9), not_after=now - timedelta(days=1)
        )
        return self._write("expired", cert)

    def wrong_host(self) -> TlsFiles:
        """Return a certificate that is in order, but for another host.

        Returns
        -------
        files : `TlsFiles`
            The files.
        """
        return self._write("wrong_host", self._ca.issue_cert("elsewhere.example.org"))

    def _write(self, name: str, leaf: trustme.LeafCert) -> TlsFiles:
        """Write a certificate and its key under a name."""
        files = TlsFiles(self._folder / f"{name}.pem", self._folder / f"{name}.key", self.ca_file)
        files.cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        files.key.touch(mode=0o600)
        files.key.write_bytes(leaf.private_key_pem.bytes())
        return files
