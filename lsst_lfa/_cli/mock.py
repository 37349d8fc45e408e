"""``mock``: an S3 server for tests, until Ctrl-C."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .command import command, json_option

if TYPE_CHECKING:
    from .output import Output

__all__ = ["mock"]


@command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The port; by default one that is free.")
@click.option("--bucket", "buckets", metavar="BUCKET", multiple=True, help="A bucket to create; by default: test.")
@json_option
async def mock(output: Output, *, port: int, buckets: tuple[str, ...], as_json: bool) -> None:
    """Run an S3 server for tests on this machine, until Ctrl-C.

    It prints the settings to paste into another shell. It keeps everything in
    memory, or in temporary files without a name: nothing is left when it ends.
    """
    import asyncio  # twice the time of all else that the help needs

    from lsst_lfa import MockS3Server
    from lsst_lfa._transfer.concurrency import in_thread
    from lsst_lfa.naming import check_bucket

    names = [check_bucket(name) for name in buckets or ("test",)]
    async with MockS3Server(port=port) as server:
        for name in names:
            await in_thread(server.create_bucket, name)
        settings = {
            "S3_ENDPOINT_URL": server.endpoint_url,
            "AWS_ACCESS_KEY_ID": server.access_key_id,
            "AWS_SECRET_ACCESS_KEY": server.secret_access_key,
        }
        if as_json:
            output.json(settings | {"buckets": names})
        else:
            for name, value in settings.items():
                output.line(f"export {name}={value}")
        output.flush()
        output.note(f"serving {', '.join(f's3://{name}' for name in names)} until Ctrl-C")
        await asyncio.Event().wait()
