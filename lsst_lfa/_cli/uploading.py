"""What ``put`` does."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from lsst_lfa._transfer.concurrency import in_thread
from lsst_lfa._transfer.folders import LocalFile, look_at, walk

from .many import tell_failures
from .progress import tally
from .targets import Service, is_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lsst_lfa import AsyncS3Bucket
    from lsst_lfa._urls import ObjectUrl

    from .output import Output
    from .progress import Tally
    from .targets import Places

__all__ = ["Uploads", "plan", "upload_all"]

_AT_ONCE: Final = 32
_STDIN: Final = "-"


@dataclass(frozen=True, kw_only=True, slots=True)
class Uploads:
    """What goes where.

    Attributes
    ----------
    files : `list` of `LocalFile`
        Files, by their keys.
    folders : `list` of `tuple` [`pathlib.Path`, `str`]
        Folders, and the prefix of the keys of what is in them.
    stdin : `str` or `None`
        The key of the standard input.
    """

    files: list[LocalFile]
    folders: list[tuple[Path, str]]
    stdin: str | None = None


def plan(paths: Sequence[str], key: str) -> Uploads:
    """Decide which keys files get: in a folder, "" or one that ends with "/", their own names. It looks at them.

    Raises
    ------
    OSError
        If a file is not there.
    click.UsageError
        If several would have the same key.
    """
    inside = not key or key.endswith("/")
    if not inside and len(paths) > 1:
        raise click.UsageError('several files need a folder as their destination: end it with "/"')
    if _STDIN in paths:
        if inside or len(paths) > 1:
            raise click.UsageError("the standard input must be the only source, and needs a key")
        return Uploads(files=[], folders=[], stdin=key)
    files, folders = [], []
    for path in map(Path, paths):
        if path.is_dir():
            name = "" if path.name in {"", ".."} else f"{path.name}/"
            folders.append((path.resolve(), key + name if inside else f"{key}/"))
        else:
            files.append(look_at(path, key + path.name if inside else key))
    taken = Counter([file.name for file in files] + [prefix for _, prefix in folders])
    for name, count in taken.items():
        if count > 1:
            msg = f"two of these would be stored as {name!r}: upload them to different folders"
            raise click.UsageError(msg)
    return Uploads(files=files, folders=folders)


def destination(places: Places, paths: Sequence[str], key: str | None) -> tuple[ObjectUrl, Sequence[str]]:
    """Return where all goes, and what: the last argument is the destination, if it is a URL."""
    if not is_url(paths[-1]):
        return places.prefix(key), paths
    if key is not None or places.bucket is not None:
        raise click.UsageError("pass either the URL of the destination, or --bucket and --key")
    if len(paths) == 1:
        raise click.UsageError("pass files to upload before the destination")
    return places.prefix(paths[-1]), paths[:-1]


async def upload_all(
    output: Output,
    places: Places,
    *,
    paths: Sequence[str],
    key: str | None,
    as_json: bool,
    if_none_match: bool,
    content_type: str | None,
) -> None:
    """Upload what was planned, and tell the URL of each object."""
    where, paths = destination(places, paths, key)
    uploads = await in_thread(plan, paths, where.key)
    extra_args = {"ContentType": content_type} if content_type is not None else {}
    options: dict[str, Any] = {"if_none_match": if_none_match, "extra_args": extra_args}
    what = paths[0] if len(paths) == 1 else f"{len(paths)} files"
    async with Service(anonymous=False) as service:
        bucket = service.bucket(where)
        with tally(output, f"put {what}") as counted:

            def tell(prefix: str) -> Callable[[str, int | None], None]:
                def on_file(name: str, size: int | None) -> None:
                    counted.done(size)
                    url = bucket.url(prefix + name)
                    if as_json:
                        output.json({"url": url, "size": size, "skipped": size is None})
                    else:
                        output.name(url)

                return on_file

            if uploads.stdin is not None:
                size = await _upload_stdin(bucket, uploads.stdin, counted, **options)
                return tell("")(uploads.stdin, size)
            failures = await _upload_files(bucket, uploads, counted, tell, options)
    if len(failures) == len(paths) == 1 and uploads.files:
        raise failures[0]
    return tell_failures(output, failures)


async def _upload_files(
    bucket: AsyncS3Bucket,
    uploads: Uploads,
    counted: Tally,
    tell: Callable[[str], Callable[[str, int | None], None]],
    options: dict[str, Any],
) -> list[Exception]:
    if counted.visible:
        counted.expect(sum(file.size for file in uploads.files))
        for folder, _ in uploads.folders:
            counted.expect(await in_thread(lambda folder=folder: sum(file.size for file in _files_in(folder))))
    groups = [(iter(uploads.files), "", False)] if uploads.files else []
    groups += [(_files_in(folder), prefix, True) for folder, prefix in uploads.folders]
    failures: list[Exception] = []
    for files, prefix, skip_equal in groups:
        summary = await bucket._upload_files(  # noqa: SLF001 - internal to this package
            files,
            prefix,
            counted.advance,
            max_files=_AT_ONCE,
            skip_equal=skip_equal,
            on_file=tell(prefix),
            **options,
        )
        failures += summary.failed.values()
    return failures


def _files_in(folder: Path) -> Iterator[LocalFile]:
    """Find all files in a folder; one that cannot be read is a failure like that of a file, and stops no other."""
    try:
        yield from walk(folder)
    except OSError as error:
        yield LocalFile("", folder, 0, error)


async def _upload_stdin(bucket: AsyncS3Bucket, key: str, counted: Tally, **options: Any) -> int:
    if sys.stdin is None:
        raise click.UsageError("the standard input is closed")
    size = 0

    def advance(count: int) -> None:
        nonlocal size
        size += count
        counted.advance(count)

    await bucket.upload(sys.stdin.buffer, key, advance, **options)
    return size
