"""S3 servers that the tests start: one class each, one interface."""

from __future__ import annotations

from .base import Credentials, S3Server
from .ceph import CephServer
from .moto import MotoServer
from .nginx import NginxProxy
from .ready import MissingProgramError, ServerStartError
from .seaweed import SeaweedServer
from .tls import CertificateAuthority, TlsFiles

__all__ = [
    "CephServer",
    "CertificateAuthority",
    "Credentials",
    "MissingProgramError",
    "MotoServer",
    "NginxProxy",
    "S3Server",
    "SeaweedServer",
    "ServerStartError",
    "TlsFiles",
]
