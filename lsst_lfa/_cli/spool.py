"""``spool``: the files on this machine that wait until S3 has them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .command import add_options, command, json_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lsst_lfa._spool.survey import Kept

    from .output import Output

__all__ = ["spool"]

_DIR = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
_SERVICE = (
    click.option("--site", metavar="SITE", help="The site whose service to use."),
    click.option("--profile", metavar="NAME", help="A profile in the AWS configuration files."),
)
_BUCKET = click.option("--bucket", metavar="BUCKET", help="Only the files of this bucket.")
# What a drain does not end: it needs somebody to look at it.
_TROUBLE = frozenset({"lost", "damaged", "unreadable"})


@click.group()
def spool() -> None:
    """List, send or take over files that wait on this machine.

    DIR is the folder of a LargeFileAnnex's spool: a file is at DIR/BUCKET/KEY,
    and next to it is a sidecar that describes it.
    """


@command(name="list")
@_DIR
@_BUCKET
@json_option
async def list_(output: Output, *, folder: Path, bucket: str | None, as_json: bool) -> None:
    """List the files in the folder, oldest first; nothing is changed.

    waiting: to be sent. busy: a process is working on it. event due: S3 has
    it, but its component has yet to announce it. sent: its removal was
    interrupted. unfinished: it was never completely written. lost: it is gone,
    and only its sidecar is there. damaged: its sidecar cannot be understood.
    unreadable: its sidecar or its folder cannot be read. foreign: it has no
    sidecar; `spool adopt` takes it over.
    """
    found = await _survey(folder, bucket)
    if as_json:
        for kept in found:
            output.json(kept._asdict())
        return
    if found:
        columns = ("STATE", "SIZE", "PUBLISHED (UTC)", "COMPONENT", "BUCKET", "KEY")
        output.table(columns, [_row(kept) for kept in found])
    output.note(_summary(found))


@command(short_help="Send the waiting files, oldest first, and remove them from this machine.")
@_DIR
@_BUCKET
@add_options(_SERVICE)
@json_option
async def drain(
    output: Output, *, folder: Path, bucket: str | None, site: str | None, profile: str | None, as_json: bool
) -> None:
    """Send the waiting files, oldest first, as their component would, and remove each one from DIR once S3 has it.

    It ends when no files are waiting any more, or when S3 cannot be reached.
    Nothing is announced: files whose events are due stay listed until their
    component has sent the events. Files that a running component is working on
    are left to it.
    """
    from .draining import drain_bucket
    from .runner import PartlyFailedError
    from .targets import Places, Service

    found = await _survey(folder, bucket)
    places = Places(site, bucket, profile)
    failures: list[Exception] = []
    async with Service(anonymous=False) as service:
        for name in dict.fromkeys(kept.bucket for kept in found if kept.state != "foreign"):
            holder = service.bucket(places.object(f"s3://{name}/x"))
            failures += await drain_bucket(output, folder, holder, as_json=as_json)
    left = await _survey(folder, bucket)
    output.note(_summary(left))
    for kept in left:
        if kept.state in _TROUBLE:
            failures.append(OSError(kept.problem))
            output.error(f"{kept.path}: {kept.state}" + (f", {kept.problem}" if kept.problem else ""))
    if failures:
        raise PartlyFailedError(failures)


@command()
@_DIR
@_BUCKET
@click.option(
    "--from", "source", metavar="FOLDER", type=click.Path(path_type=Path), help="Move them from this folder to DIR."
)
@click.option("--dry-run", is_flag=True, help="Only list them.")
@json_option
async def adopt(
    output: Output, *, folder: Path, bucket: str | None, source: Path | None, dry_run: bool, as_json: bool
) -> None:
    """Take over files without a sidecar, DIR/BUCKET/KEY, that older software left.

    They get sidecars, and `spool drain`, or the next start of a component with
    this spool, sends them. They are not announced, because they are older than
    files that have already been announced.
    """
    from .draining import adopt_bucket
    from .runner import PartlyFailedError

    foreign = [kept for kept in await _survey(source or folder, bucket) if kept.state == "foreign"]
    _show_foreign(output, foreign, as_json=as_json)
    if dry_run or not foreign:
        output.note(f"{len(foreign)} would be taken over" if dry_run else "there is nothing to take over")
        return
    buckets = dict.fromkeys(kept.bucket for kept in foreign)
    count = sum([await adopt_bucket(output, folder, name, source) for name in buckets])
    output.note(f"{count} of {len(foreign)} were taken over; `lsst-lfa spool drain {folder}` sends them")
    if count < len(foreign):
        raise PartlyFailedError([OSError("some were not taken over")])


def _show_foreign(output: Output, foreign: Sequence[Kept], *, as_json: bool) -> None:
    from .output import human_size

    if as_json:
        for kept in foreign:
            output.json({"bucket": kept.bucket, "key": kept.key, "path": kept.path, "size": kept.size})
    elif foreign:
        output.table(("SIZE", "BUCKET", "KEY"), [(human_size(kept.size), kept.bucket, kept.key) for kept in foreign])


async def _survey(folder: Path, bucket: str | None) -> list[Kept]:
    from lsst_lfa._spool.survey import survey
    from lsst_lfa._transfer.concurrency import in_thread

    return [kept for kept in await in_thread(survey, folder) if bucket in {None, kept.bucket}]


def _row(kept: Kept) -> tuple[str, ...]:
    from .output import human_size

    size = human_size(kept.size) if kept.size >= 0 else "-"
    published = kept.published.replace("T", " ").removesuffix("Z") or "-"
    problem = f" ({kept.problem})" if kept.problem else ""
    return kept.state, size, published, kept.component or "-", kept.bucket, kept.key + problem


def _summary(found: Sequence[Kept]) -> str:
    """Say in a line how many files there are, and how they stand."""
    from .output import human_size

    if not found:
        return "nothing is waiting"
    counts = Counter(kept.state for kept in found)
    size = human_size(sum(kept.size for kept in found if kept.size > 0))
    return f"{', '.join(f'{count} {state}' for state, count in counts.items())}; {size}"


for _made in (list_, drain, adopt):
    spool.add_command(_made)
