"""nginx in front of another S3 server, set up as the ingress of an observatory."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

from .base import Credentials, S3Server
from .process import Daemon
from .ready import find_program, free_ports

if TYPE_CHECKING:
    from pathlib import Path

    from .tls import TlsFiles

__all__ = ["NginxProxy"]

# The settings of Kubernetes' ingress-nginx where they matter to a client: a request is read to its end before it goes
# on to the server, an answer is passed on as it comes; HTTP/1.1 to the server, Host and URI as the client signed them
# (a proxy_pass without a path of its own leaves the URI alone).
_CONFIGURATION = """\
daemon off;
pid nginx.pid;
error_log stderr warn;
worker_processes 1;
{user}
events {{ worker_connections 1024; }}
http {{
  access_log access.log;
  client_body_temp_path temp/body;
  proxy_temp_path temp/proxy;
  fastcgi_temp_path temp/fastcgi;
  uwsgi_temp_path temp/uwsgi;
  scgi_temp_path temp/scgi;
  server_tokens off;
  keepalive_timeout 75s;
  upstream s3 {{
    server {upstream};
    keepalive 32;
  }}
  server {{
    listen 127.0.0.1:{http};
    {listen_https}
    client_max_body_size {max_body};
    location / {{
      proxy_pass http://s3;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_request_buffering {request_buffering};
      proxy_buffering off;
      proxy_connect_timeout 5s;
      proxy_send_timeout 60s;
      proxy_read_timeout 60s;
    }}
  }}
}}
"""


class NginxProxy(S3Server):
    """nginx that terminates TLS and caps the body of a request, in front of a server that runs already.

    Its credentials are those of the server behind it.

    Parameters
    ----------
    folder : `~pathlib.Path`
        See `S3Server`.
    upstream : `S3Server`
        The server behind it, started.
    tls : `TlsFiles`, optional
        See `S3Server`.
    max_body_bytes : `int`, optional
        The largest request body; a larger one is answered with 413. The observatory has 1024 MiB.
    request_buffering : `bool`, optional
        Read a request to its end before passing it on.

    Raises
    ------
    MissingProgramError
        If nginx is not installed.
    """

    name = "nginx"
    # Its certificate may be one that no client accepts, on purpose.
    _probe_https = False

    def __init__(
        self,
        folder: Path,
        upstream: S3Server,
        *,
        tls: TlsFiles | None = None,
        max_body_bytes: int = 16 * 1024**2,
        request_buffering: bool = True,
    ) -> None:
        super().__init__(folder, tls=tls)
        self._nginx = find_program("nginx", "apt-get install --no-install-recommends nginx-light")
        said = subprocess.run([self._nginx, "-v"], capture_output=True, text=True, check=True).stderr
        self.version = f"nginx {said.split('/')[-1].strip()} before {upstream.version}"
        self.upstream = upstream
        self.max_body_bytes = max_body_bytes
        self.request_buffering = request_buffering
        self.access_key_id = upstream.access_key_id
        self.secret_access_key = upstream.secret_access_key
        http, self._https_port = free_ports(2)
        self.endpoint_url = f"http://127.0.0.1:{http}"
        if tls is not None:
            self.https_endpoint_url = f"https://127.0.0.1:{self._https_port}"
        self._daemon: Daemon | None = None

    def _configuration(self) -> str:
        """Return the text of nginx.conf."""
        listen_https = ""
        if self.tls is not None:
            listen_https = (
                f"listen 127.0.0.1:{self._https_port} ssl; ssl_protocols TLSv1.2 TLSv1.3; "
                f"ssl_certificate {self.tls.cert}; ssl_certificate_key {self.tls.key};"
            )
        return _CONFIGURATION.format(
            # Started by root its workers would be somebody else, who may not write in the folder.
            user="user root;" if os.geteuid() == 0 else "",
            upstream=self.upstream.endpoint_url.removeprefix("http://"),
            http=self.endpoint_url.rpartition(":")[2],
            listen_https=listen_https,
            max_body=self.max_body_bytes,
            request_buffering="on" if self.request_buffering else "off",
        )

    def _start(self) -> None:
        (self.folder / "temp").mkdir(exist_ok=True)
        (self.folder / "nginx.conf").write_text(self._configuration())
        command = [self._nginx, "-p", str(self.folder), "-e", "stderr", "-c", str(self.folder / "nginx.conf")]
        self._daemon = Daemon(command, self.folder)

    def _daemons(self) -> list[Daemon]:
        return [self._daemon] if self._daemon else []

    def _exercise(self, client: Any) -> None:
        # The server behind it is known to work; to ask it for a list shows that the two are connected.
        client.list_buckets()

    def stop(self) -> None:
        """Stop nginx; the server behind it runs on. No effect if it does not run."""
        self.kill()
        shutil.rmtree(self.folder / "temp", ignore_errors=True)

    def kill(self) -> None:
        """End nginx, as ``kill -9`` does; the server behind it runs on."""
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon = None

    def restart(self) -> None:
        """Start what `kill` has ended, on the same ports, and return when it answers."""
        self.kill()
        self.start()

    def add_user(self, uid: str, tenant: str | None = None) -> Credentials:
        """Make one more user of the server behind it.

        Parameters
        ----------
        uid : `str`
            The user's name.
        tenant : `str`, optional
            Tenant the user belongs to.

        Returns
        -------
        credentials : `Credentials`
            The user's keys.
        """
        return self.upstream.add_user(uid, tenant)
