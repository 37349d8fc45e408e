"""Upload a FITS file with a progress bar, download it, and verify every HDU.

Without arguments: the image of M13 that astropy ships, on an embedded mock
server. With --endpoint-url and --bucket: a real server, with the credentials
of the environment.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from contextlib import nullcontext
from importlib.resources import files
from pathlib import Path

from astropy.io import fits
from astropy.time import Time
from tqdm import tqdm

from lsst_lfa import AsyncS3Bucket, LfaError, S3Session

M13 = Path(str(files("astropy.io.fits.hdu.compressed.tests") / "data" / "m13.fits"))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=M13, metavar="FILE.fits", help="default: M13")
    parser.add_argument("--endpoint-url", help="a real S3 server; default: a mock in this process")
    parser.add_argument("--bucket", help="a bucket there; default: a new one, named by the annex's rules")
    parser.add_argument("--copies", type=int, default=1, metavar="N", help="N times the first HDU: a large file")
    return parser.parse_args()


def read_hdus(path: Path, copies: int) -> fits.HDUList:
    """Read a FITS file into memory, and add copies of its first HDU as extensions."""
    with fits.open(path, memmap=False, lazy_load_hdus=False) as file:
        hdus = fits.HDUList([hdu.copy() for hdu in file])
    hdus.extend(fits.ImageHDU(hdus[0].data, hdus[0].header) for _ in range(copies - 1))
    hdus.update_extend()  # as a FITS writer would
    return hdus


async def roundtrip(bucket: AsyncS3Bucket, hdus: fits.HDUList) -> None:
    key = bucket.make_key("ATCamera", "image", Time.now())

    start = time.perf_counter()
    with tqdm(desc="upload", unit="B", unit_scale=True) as bar:
        url = await bucket.upload_fits(hdus, key, callback=bar.update)
    with tqdm(desc="download", unit="B", unit_scale=True) as bar:
        copy = await bucket.download_fits(key, callback=bar.update)
    elapsed = time.perf_counter() - start

    difference = await asyncio.to_thread(fits.FITSDiff, hdus, copy)
    if not difference.identical:
        sys.exit(f"the copy differs:\n{difference.report()}")
    size = await bucket.size(key)
    print(f"url:  {url}")
    print(f"size: {size:,} bytes; headers and data of {len(copy)} HDU(s) are equal")
    print(f"time: {elapsed:.2f} s there and back, {2 * size / elapsed / 1e6:.0f} MB/s")


async def main() -> None:
    arguments = parse_arguments()
    hdus = await asyncio.to_thread(read_hdus, arguments.file, arguments.copies)
    name = arguments.bucket or AsyncS3Bucket.make_bucket_name("ATCamera", None, "Summit")
    mock = arguments.endpoint_url is None
    async with (
        nullcontext() if mock else S3Session(endpoint_url=arguments.endpoint_url) as session,
        AsyncS3Bucket(name, domock=mock, session=session, create=arguments.bucket is None) as bucket,
    ):
        await roundtrip(bucket, hdus)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except (LfaError, OSError) as error:
        sys.exit(str(error))
