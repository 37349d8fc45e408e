"""nginx in front of another S3 server, set up as the ingress of an observatory."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from .base import S3Server
from .process import Daemon
from .ready import find_program, free_ports

if TYPE_CHECKING:
    from pathlib import Path

    from .tls import TlsFiles

__all__ = ["NginxProxy"]

# The settings of Kubernetes' ingress-nginx where they matter to a client: a request is read to its end before it goes
# on to the server, a response is passed on as it comes; HTTP/1.1 to the server, Host and URI as the client signed them
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
  client_body_temp_path data/body;
  proxy_temp_path data/proxy;
  fastcgi_temp_path data/fastcgi;
  uwsgi_temp_path data/uwsgi;
  scgi_temp_path data/scgi;
  server_tokens off;
  keepalive_timeout 75s;
  upstream s3 {{
    server {upstream};
    keepalive 32;
  }}
  server {{
    listen 127.0.0.1:{http};
    listen 127.0.0.1:{https} ssl;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_certificate {cert};
    ssl_certificate_key {key};
    client_max_body_size {max_body};
    location / {{
      proxy_pass http://s3;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_request_buffering on;
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
    tls : `TlsFiles`
        See `S3Server`.
    max_body_bytes : `int`
        The largest request body; a larger one is refused with 413. The observatory has 1024 MiB.

    Raises
    ------
    MissingProgramError
        If nginx is not installed.
    """

    name = "nginx"

    def __init__(self, folder: Path, upstream: S3Server, *, tls: TlsFiles, max_body_bytes: int) -> None:
        super().__init__(folder, tls=tls)
        self._nginx = find_program("nginx", "apt-get install --no-install-recommends nginx-light")
        said = subprocess.run([self._nginx, "-v"], capture_output=True, text=True, check=True).stderr
        self.version = f"nginx {said.split('/')[-1].strip()} before {upstream.version}"
        self.access_key_id = upstream.access_key_id
        self.secret_access_key = upstream.secret_access_key
        http, https = free_ports(2)
        self.endpoint_url = f"http://127.0.0.1:{http}"
        self.https_endpoint_url = f"https://127.0.0.1:{https}"
        self._configuration = _CONFIGURATION.format(
            # Started by root its workers would be somebody else, who may not write in the folder.
            user="user root;" if os.geteuid() == 0 else "",
            upstream=upstream.endpoint_url.removeprefix("http://"),
            http=http,
            https=https,
            cert=tls.cert,
            key=tls.key,
            max_body=max_body_bytes,
        )

    def _serve(self) -> None:
        (self.folder / "nginx.conf").write_text(self._configuration)
        command = [self._nginx, "-p", str(self.folder), "-e", "stderr", "-c", str(self.folder / "nginx.conf")]
        self._daemons.append(Daemon(command, self.folder))
