"""``uploads``: unfinished multipart uploads."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from .command import TARGET_OPTIONS, add_options, command, json_option

if TYPE_CHECKING:
    from datetime import timedelta

    from lsst_lfa import PendingUpload

    from .output import Output

__all__ = ["uploads"]

_PREFIX = click.argument("target", metavar="[s3://BUCKET[/PREFIX]]", required=False)


@click.group()
def uploads() -> None:
    """List or abort unfinished multipart uploads.

    A process that is killed leaves these behind. Their parts take up space,
    and no listing of objects shows them.
    """


@command(name="list")
@_PREFIX
@click.option("--older-than", "age", metavar="AGE", default="0s", help="Minimum age: 7d, 36h.")
@add_options(TARGET_OPTIONS)
@json_option
async def list_(
    output: Output,
    *,
    target: str | None,
    age: str,
    site: str | None,
    bucket: str | None,
    profile: str | None,
    as_json: bool,
) -> None:
    """List unfinished multipart uploads, including those that are in progress."""
    from .durations import parse_duration
    from .targets import Places, Service

    url = Places(site, bucket, profile).prefix(target)
    async with Service() as service:
        pending = service.bucket(url).list_uploads(url.key, older_than=parse_duration(age))
        _show(output, url.bucket, [upload async for upload in pending], as_json=as_json)


@command()
@_PREFIX
@click.option(
    "--older-than",
    "age",
    metavar="AGE",
    required=True,
    help="Minimum age, more than your longest upload takes: 7d, 36h.",
)
@click.option("--dry-run", is_flag=True, help="Only list them.")
@add_options(TARGET_OPTIONS)
@json_option
async def abort(
    output: Output,
    *,
    target: str | None,
    age: str,
    dry_run: bool,
    site: str | None,
    bucket: str | None,
    profile: str | None,
    as_json: bool,
) -> None:
    """Abort old unfinished uploads, and free the space that their parts take up.

    Warning: an upload that is still in progress fails if it is older.
    """
    from .durations import parse_duration
    from .targets import Places, Service

    url = Places(site, bucket, profile).prefix(target)
    older_than: timedelta = parse_duration(age)
    async with Service() as service:
        holder = service.bucket(url)
        pending = [upload async for upload in holder.list_uploads(url.key, older_than=older_than)]
        _show(output, url.bucket, pending, as_json=as_json)
        if dry_run:
            output.note(f"{len(pending)} would be aborted")
        elif pending:
            count = await holder.abort_stale_uploads(older_than, prefix=url.key)
            output.note(f"{count} aborted")


def _show(output: Output, bucket: str, pending: list[PendingUpload], *, as_json: bool) -> None:
    from .durations import age_text

    if as_json:
        for upload in pending:
            output.json({"bucket": bucket} | upload._asdict())
        return
    if not pending:
        output.note("none")
        return
    now = datetime.now(UTC)
    rows = [
        (f"{upload.initiated:%Y-%m-%d %H:%M:%S}", age_text(now - upload.initiated), upload.upload_id, upload.key)
        for upload in pending
    ]
    output.table(("BEGUN (UTC)", "AGE", "UPLOAD ID", "KEY"), rows)


uploads.add_command(list_)
uploads.add_command(abort)
