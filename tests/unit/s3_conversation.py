"""Ask two mock S3 servers many things and print the responses: a program, to be run in environments of all kinds."""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ET
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from lsst_lfa import MockS3Server

_MiB = 1 << 20
_FORM = b"""--x\r
Content-Disposition: form-data; name="key"\r
\r
from-a-form\r
--x\r
Content-Disposition: form-data; name="file"; filename="f"\r
\r
data\r
--x--\r
"""
_VARYING = re.compile(
    r"\d{4}-\d\d-\d\dT[\d:.]+Z|(?<=RequestId>)\w+|(?<=UploadId>)\w+|(?<=uploadId=)\w+|(?<=RequestID>)\w+"
)
_VARYING_HEADERS = {"content-length", "date", "last-modified", "x-amz-request-id", "x-amzn-requestid"}


class Conversation:
    """Requests to one server, and what came of them."""

    def __init__(self, server: MockS3Server) -> None:
        self._where = server.endpoint_url.removeprefix("http://")
        self.record: list[Any] = []

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[str, str]:
        """Send a request, and return the response's text and ETag."""
        connection = HTTPConnection(self._where, timeout=20)
        connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        fields = sorted(
            (name.lower(), value) for name, value in response.getheaders() if name.lower() not in _VARYING_HEADERS
        )
        said = re.sub(_VARYING, "*", text) if len(text) < _MiB else ""
        self.record.append([method, re.sub(_VARYING, "*", path), response.status, fields, said])
        return text, response.getheader("ETag") or ""

    def upload_in_parts(self, *sizes: int) -> None:
        """Upload an object in parts of these sizes."""
        upload = ET.fromstring(self.ask("POST", "/bucket/parts?uploads")[0]).findtext("{*}UploadId")
        parts = ""
        for number, size in enumerate(sizes, 1):
            _, etag = self.ask("PUT", f"/bucket/parts?partNumber={number}&uploadId={upload}", bytes(size))
            parts += f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
        order = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>"
        self.ask("POST", f"/bucket/parts?uploadId={upload}", order.encode())

    def hold(self) -> None:
        """Do a little of everything."""
        self.ask("GET", "/")
        for key in "abc":
            self.ask("PUT", f"/bucket/{key}", b"data" * 100)
        self.record.append(_temporary_files())
        for path in ("/bucket/a", "/bucket/missing", "/missing", "/bucket", "/bucket?list-type=2", "/bucket?versions"):
            self.ask("GET", path, Origin="http://example.org")
            self.ask("HEAD", path)
        self.ask("GET", "/bucket/a", Host="bucket.localhost")
        self.ask("PUT", "/bucket/form", b"a=b" * 100, Content_Type="application/x-www-form-urlencoded")
        self.ask("POST", "/bucket", _FORM, Content_Type="multipart/form-data; boundary=x")
        self.ask("GET", "/bucket/from-a-form")
        self.ask("PUT", "/other")
        self.ask("DELETE", "/other")
        self.upload_in_parts(5 * _MiB, 1)
        self.upload_in_parts(5 * _MiB - 1, 1)


def _temporary_files() -> int:
    """Count this process's open files that have no name any more."""
    targets = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile: a connection
            targets.append(str(descriptor.readlink()))
    return sum(target.endswith("(deleted)") for target in targets)


def _main() -> None:
    if "moto" in sys.argv:
        # moto is imported before, for somebody else.
        import moto.server
        import moto.settings

        assert moto.settings
    with MockS3Server() as one, MockS3Server() as other:
        records = []
        for server in (one, other):
            server.create_bucket("bucket")
            conversation = Conversation(server)
            conversation.hold()
            records += conversation.record
    print(json.dumps(records, indent=1))


if __name__ == "__main__":
    _main()
