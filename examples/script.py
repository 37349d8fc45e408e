"""A script: upload a file from disk, list, download, presign."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import timedelta
from pathlib import Path

from lsst_lfa import AsyncS3Bucket


async def main(folder: Path) -> None:
    header = folder / "header.yaml"
    header.write_text("EXPTIME: 30.0\n")

    # domock=True: a mock server in this process. Leave it out for the server at S3_ENDPOINT_URL.
    async with AsyncS3Bucket("rubinobs-lfa-cp", domock=True) as bucket:
        key = bucket.make_key("ATHeaderService", "header", "2026-03-01T03:14:15.926")
        print("stored", await bucket.upload(header, key))

        async for item in bucket.list("2026/02/28/"):
            print("found", item.key, item.size, "bytes")

        copy = await bucket.download_file(key, folder / "copy.yaml")
        print("fetched", copy.read_text().strip())

        url = await bucket.presigned_url(key, expires=timedelta(minutes=10))
        print("for ten minutes at", url.partition("?")[0] + "?...")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(main(Path(name)))
