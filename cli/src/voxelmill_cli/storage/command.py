"""`voxelmill storage upload|download|list|usage`: their options, and how they answer."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from voxelmill_cli.console import cell, say
from voxelmill_cli.errors import EXIT_USAGE
from voxelmill_cli.options import JsonOption

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from voxelmill_cli.storage.transfer import Tally, Tell

storage_app = typer.Typer(
    name="storage", no_args_is_help=True, help="Files into a bucket and out of it, and what lies there.",
    rich_markup_mode=None,
)  # fmt: skip
_SAY_EVERY_SECONDS = 5.0

BucketArgument = Annotated[str, typer.Argument(metavar="s3://BUCKET[/PREFIX]", help="a bucket, or a part of one")]
FileArgument = Annotated[str, typer.Argument(metavar="PATH", help="a folder or a file of this machine")]
FolderArgument = Annotated[str, typer.Argument(metavar="FOLDER", help="a folder of this machine; made if missing")]
JobsOption = Annotated[int, typer.Option(min=1, max=64, help="how many files at a time")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="look, and transfer nothing")]


@storage_app.command()
def upload(
    source: FileArgument,
    destination: BucketArgument,
    jobs: JobsOption = 8,
    dry_run: DryRunOption = False,
    as_document: JsonOption = False,
) -> None:
    """Put a folder or a file into a bucket; what is there is not sent again, and large files go on where they were."""
    from voxelmill_cli.app import call, out  # noqa: PLC0415 - app imports this module
    from voxelmill_cli.storage import transfer  # noqa: PLC0415 - the stores are slow to import

    with _display(out, quiet=as_document) as begin:
        tally = call(transfer.upload(source, destination, jobs=jobs, dry_run=dry_run, begin=begin))
    _answer(tally, "sent", destination, dry_run=dry_run, as_document=as_document)


@storage_app.command()
def download(
    source: BucketArgument,
    destination: FolderArgument,
    jobs: JobsOption = 8,
    dry_run: DryRunOption = False,
    as_document: JsonOption = False,
) -> None:
    """Bring a bucket, a part of it or one object into a folder, verified; what is there is not fetched again."""
    from voxelmill_cli.app import call, out  # noqa: PLC0415 - as above
    from voxelmill_cli.storage import transfer  # noqa: PLC0415 - likewise

    with _display(out, quiet=as_document) as begin:
        tally = call(transfer.download(source, destination, jobs=jobs, dry_run=dry_run, begin=begin))
    _answer(tally, "fetched", destination, dry_run=dry_run, as_document=as_document)


@storage_app.command("list")
def list_command(address: BucketArgument, as_document: JsonOption = False) -> None:
    """List the objects with size, time and ETag."""
    from voxelmill_cli.app import call, out, print_json  # noqa: PLC0415 - as above
    from voxelmill_cli.storage.usage import list_objects  # noqa: PLC0415 - likewise

    found = call(list_objects(address))
    if as_document:
        print_json(
            [
                {"key": one.key, "size": one.size, "modified": one.modified.isoformat(), "etag": one.etag}
                for one in found
            ]
        )
        return
    for one in found:
        say(out, f"{one.modified:%Y-%m-%d %H:%M:%S}  {one.size:>12}  {one.etag:<34}  {one.key}")
    say(out, f"{len(found)} objects, {decimal(sum(one.size for one in found))}")


@storage_app.command("usage")
def usage_command(address: BucketArgument, as_document: JsonOption = False) -> None:
    """Count objects and bytes by series and kind, and what unfinished uploads hold."""
    from voxelmill_cli.app import call, out, print_json  # noqa: PLC0415 - as above
    from voxelmill_cli.storage.usage import usage  # noqa: PLC0415 - likewise

    found = call(usage(address))
    if as_document:
        print_json(found)
        return
    table = Table(box=None)
    for title in ("series or folder", "kind"):
        table.add_column(title)
    for title in ("objects", "size"):
        table.add_column(title, justify="right")
    for row in found["by_kind"]:
        table.add_row(cell(row["name"]), cell(row["kind"]), str(row["objects"]), decimal(row["bytes"]))
    out.print(table)
    say(out, f"{found['objects']} objects, {decimal(found['bytes'])}")
    for one in found["unfinished_uploads"]:
        say(
            out,
            f"unfinished since {one['begun']}: {one['key']}, {decimal(one['bytes'])}; upload the file again to go on, "
            "or let `voxelmill bucket connect` set a rule that removes such parts",
        )


def _not_built(name: str) -> None:
    @storage_app.command(name, hidden=True, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
    def command(_: typer.Context) -> None:
        from voxelmill_cli.app import fail  # noqa: PLC0415 - as above

        raise fail(f"`voxelmill storage {name}` is not built yet; use your store's own tools", EXIT_USAGE)


for _name in ("migrate", "tier", "cost"):
    _not_built(_name)


def _answer(tally: Tally, verb: str, destination: str, *, dry_run: bool, as_document: bool) -> None:
    """Say what became of a transfer, and end with its exit code."""
    from voxelmill_cli.app import out, print_json  # noqa: PLC0415 - as above

    if as_document:
        print_json({**tally.as_document(), "dry_run": dry_run})
    else:
        for key, reason in tally.failed:
            say(out, f"failed: {key}: {reason}")
        if dry_run:
            verb = f"would be {verb}"
        say(
            out,
            f"{tally.sent} {verb} ({decimal(tally.sent_bytes)}), {tally.present} there already, "
            f"{len(tally.failed)} failed: {destination}",
        )
    raise typer.Exit(tally.exit_code)


@contextmanager
def _display(out: Console, *, quiet: bool) -> Iterator[Callable[[int, int], Tell]]:
    """Show how far a transfer is: a bar on a terminal, a line now and then elsewhere, nothing beside JSON."""
    if quiet:
        yield lambda _, __: _tell_nobody
    elif out.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, TimeRemainingColumn(), console=out, transient=True) as progress:

            def begin(files: int, size: int) -> Tell:
                task = progress.add_task(f"{files} files", total=size)
                return lambda _, size: progress.advance(task, size)

            yield begin
    else:
        yield lambda files, size: _Lines(out, files, size)


def _tell_nobody(files: int, size: int) -> None:
    """Keep silent: there is one document, and it comes at the end."""


class _Lines:
    """Says every few seconds how much is settled."""

    def __init__(self, out: Console, files: int, size: int) -> None:
        self._out, self._files, self._size = out, files, size
        self._settled_files = self._settled = 0
        self._said = time.monotonic()

    def __call__(self, files: int, size: int) -> None:
        self._settled_files += files
        self._settled += size
        if time.monotonic() - self._said >= _SAY_EVERY_SECONDS:
            self._said = time.monotonic()
            done = f"{self._settled_files} of {self._files} files"
            say(self._out, f"{done}, {decimal(self._settled)} of {decimal(self._size)}")
