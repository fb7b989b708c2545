"""`voxelmill weights list|download|import|verify|digest`: the networks of TotalSegmentator on this machine."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from voxelmill_cli.console import say
from voxelmill_cli.errors import EXIT_INPUT_FAILED, CommandError
from voxelmill_cli.options import JsonOption, OrganOption, QualityOption, ResolutionOption, TaskOption
from voxelmill_shared.plan import ModelName, Organ, Plan, Quality

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from voxelmill_segment.totalsegmentator.library import Network
    from voxelmill_segment.totalsegmentator.weights import WeightsFolder
    from voxelmill_segment.totalsegmentator.weights_import import Imported
    from voxelmill_shared.plan import Resolution
    from voxelmill_shared.storage.s3 import S3Store

weights_app = typer.Typer(
    name="weights", no_args_is_help=True, help="The networks of TotalSegmentator on this machine.",
    rich_markup_mode=None,
)  # fmt: skip
FETCHES = 4

FolderOption = Annotated[
    Path, typer.Option("--weights", envvar="VOXELMILL_WEIGHTS", help="the weights folder of this machine")
]
DEFAULT = Path("voxelmill-data/weights")
TasksArgument = Annotated[list[str] | None, typer.Argument(metavar="TASK…", help="tasks, total lung_vessels")]
ReplaceOption = Annotated[bool, typer.Option("--replace", help="put it in the place of what is there")]


@weights_app.command("list")
def list_command(tasks: TasksArgument = None, weights: FolderOption = DEFAULT, as_document: JsonOption = False) -> None:
    """List every data set that the tasks need: here or missing, its size, its digest."""
    from voxelmill_cli.app import call_sync, out, print_json  # noqa: PLC0415 - app imports this module

    rows = call_sync(describe, _folder(weights), tasks)
    if as_document:
        print_json(rows)
        return
    for row in rows:
        size = decimal(row["bytes"]) if row["sha256"] else "-"
        digest = row["sha256"][:12] or "-"
        say(out, f"{row['state']:<19} {size:>9}  {digest:<12}  {row['name']}  ({', '.join(row['tasks'])})")
    here = sum(bool(row["sha256"]) for row in rows)
    say(out, f"{here} of {len(rows)} data sets are in {_folder(weights).path}")


@weights_app.command()
def download(
    tasks: Annotated[list[str], typer.Argument(metavar="TASK…", help="tasks, total lung_vessels")],
    resolution: ResolutionOption = None,
    weights: FolderOption = DEFAULT,
    replace: ReplaceOption = False,
) -> None:
    """Fetch what tasks need from the library's own addresses; what is here already is not fetched."""
    from voxelmill_cli.app import call_sync, out  # noqa: PLC0415 - as above

    folder = _folder(weights)
    for network in call_sync(_needed, tasks, resolution):
        if not replace and not folder.missing([network]):
            say(out, f"{network.folder}: is here")
            continue
        with _bar(network.folder) as tell:
            done = call_sync(_download, folder, network, tell, replace)
        _say_imported([done])


@weights_app.command("import")
def import_command(
    source: Annotated[str, typer.Argument(metavar="PATH|ZIP|s3://…", help="a folder, a zip, or a prefix of a bucket")],
    weights: FolderOption = DEFAULT,
    replace: ReplaceOption = False,
) -> None:
    """Bring weights from a folder, a zip or a bucket, for machines that reach no publisher."""
    from voxelmill_cli.app import call, call_sync  # noqa: PLC0415 - as above

    folder = _folder(weights)
    if source.lower().startswith("s3:"):
        done = call(_import_bucket(folder, source, replace=replace))
    else:
        with _bar(Path(source).name) as tell:
            done = call_sync(_import, folder, source, replace, tell)
    _say_imported(done)


@weights_app.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(metavar="DATASET…", help="by default all that are here")] = None,
    weights: FolderOption = DEFAULT,
    as_document: JsonOption = False,
) -> None:
    """Read every byte and hold it to what was recorded when it was brought in."""
    from voxelmill_cli.app import call_sync, out, print_json  # noqa: PLC0415 - as above

    wrong = call_sync(_verify, _folder(weights), names)
    if as_document:
        print_json(wrong)
    else:
        for name, lines in wrong.items():
            say(out, f"{name}: {'as recorded' if not lines else 'WRONG'}")
            for line in lines:
                say(out, f"  {line}")
    raise typer.Exit(EXIT_INPUT_FAILED if any(wrong.values()) else 0)


@weights_app.command()
def digest(
    task: TaskOption = "",
    resolution: ResolutionOption = None,
    organ: OrganOption = Organ.ALL,
    quality: QualityOption = Quality.NORMAL,
    weights: FolderOption = DEFAULT,
) -> None:
    """Print the digest of the weights that such a job is computed with, for VOXELMILL_WEIGHTS_DIGEST."""
    from voxelmill_cli.app import call_sync, out  # noqa: PLC0415 - as above
    from voxelmill_cli.model import digest_of  # noqa: PLC0415 - the library is slow to import

    plan = Plan(model=ModelName.TOTALSEGMENTATOR, organ=organ, quality=quality, task=task, resolution=resolution)
    say(out, call_sync(digest_of, plan, _folder(weights)))


def describe(weights: WeightsFolder, tasks: Sequence[str] | None) -> list[dict[str, Any]]:
    """Describe every data set that tasks need, or, if none are named, that any task needs or that is here."""
    from voxelmill_segment.totalsegmentator.tasks import networks_of, offered  # noqa: PLC0415 - as above

    _check(tasks or (), to_use=False)
    needed: dict[str, list[Network]] = {}
    used: dict[str, list[str]] = {}
    for task in tasks or offered():
        for network in networks_of(task):
            needed.setdefault(network.folder, []).append(network)
            used.setdefault(network.folder, []).append(task)
    here = {one.name: one for one in weights.datasets()}
    rows = []
    for name in sorted({*needed, *(() if tasks else here)}):
        found = here.get(name)
        if found is None or weights.missing(needed.get(name, ())):
            state = "missing" if found is None else "incomplete"
        else:
            state = "here" if found.recorded else "here, not recorded"
        rows.append(
            {
                "name": name,
                "state": state,
                "bytes": found.size if found else 0,
                "sha256": found.digest if found else "",
                "tasks": used.get(name, []),
            }
        )
    return rows


def _folder(path: Path) -> WeightsFolder:
    from voxelmill_segment.totalsegmentator.weights import WeightsFolder  # noqa: PLC0415 - as above

    return WeightsFolder(path.absolute())


def _check(tasks: Sequence[str], *, to_use: bool = True) -> None:
    """Refuse what is no task of Voxelmill, and, if it is to be used, what needs a licence that was not given."""
    from voxelmill_cli.model import licences  # noqa: PLC0415 - as above
    from voxelmill_segment.totalsegmentator import library  # noqa: PLC0415 - as above
    from voxelmill_segment.totalsegmentator.tasks import (  # noqa: PLC0415 - as above
        LicenceRequiredError,
        UnfitPlanError,
        check_licence,
    )

    try:
        library.require()
        for task in tasks:
            try:
                check_licence(task, licences())
            except LicenceRequiredError:
                if to_use:
                    raise
    except (library.NotInstalledError, UnfitPlanError) as error:
        raise CommandError(str(error)) from None


def _needed(tasks: Sequence[str], resolution: Resolution | None) -> list[Network]:
    """The networks of tasks, each data set once."""
    from voxelmill_segment.totalsegmentator.tasks import UnfitPlanError, networks_of  # noqa: PLC0415 - as above

    _check(tasks)
    try:
        return list({one.dataset: one for task in tasks for one in networks_of(task, resolution)}.values())
    except UnfitPlanError as error:
        raise CommandError(str(error)) from None


def _download(weights: WeightsFolder, network: Network, tell: Callable[[int, int], None], replace: bool) -> Imported:
    from voxelmill_segment.totalsegmentator.library import download_address  # noqa: PLC0415 - as above
    from voxelmill_segment.totalsegmentator.weights_download import download as fetch  # noqa: PLC0415 - as above

    address = download_address(network)
    if address is None:
        raise CommandError(
            f"{network.folder}: its publisher gives it out for a licence number alone: fetch it with the library's own"
            " totalseg_download_weights, then `voxelmill weights import`"
        )
    return fetch(weights, network.folder, address, tell, replace=replace)


def _import(
    weights: WeightsFolder, source: str, replace: bool, tell: Callable[[int, int], None]
) -> tuple[Imported, ...]:
    from voxelmill_segment.totalsegmentator.weights_import import import_path  # noqa: PLC0415 - as above

    copied = 0

    def count(more: int) -> None:
        nonlocal copied
        copied += more
        tell(copied, 0)

    return import_path(weights, Path(source), replace=replace, report=count)


async def _import_bucket(weights: WeightsFolder, address: str, *, replace: bool) -> tuple[Imported, ...]:
    """Fetch everything under a prefix into a staging folder, verified, and import it from there."""
    from voxelmill_cli.storage.places import find_objects  # noqa: PLC0415 - as above
    from voxelmill_segment.totalsegmentator.weights_import import adopt_folder, staging  # noqa: PLC0415 - as above
    from voxelmill_shared.concurrency import each  # noqa: PLC0415 - as above

    place = await find_objects(address)
    try:
        with staging(weights) as stage:

            async def fetch(key: str) -> None:
                await _fetch(place.store, key, stage)

            await each(fetch, [stat.key for stat in place.found], FETCHES)
            return adopt_folder(weights, stage / "objects", place.address, replace=replace)
    finally:
        await place.store.close()


async def _fetch(store: S3Store, key: str, stage: Path) -> None:
    """Bring one object to its place under `objects`; a store's key has no part that would lead out of it."""
    fetched = await store.fetch(key, stage / "fetched" / os.urandom(8).hex())
    target = stage / "objects" / key
    target.parent.mkdir(parents=True, exist_ok=True)
    fetched.rename(target)


def _verify(weights: WeightsFolder, names: Sequence[str] | None) -> dict[str, list[str]]:
    here = [one.name for one in weights.datasets()]
    if unknown := sorted(set(names or ()) - set(here)):
        raise CommandError(f"{', '.join(unknown)}: not in {weights.path}; see `voxelmill weights list`")
    if not here:
        raise CommandError(f"{weights.path}: holds no weights; `voxelmill weights import` brings them")
    return {name: list(weights.verify(name)) for name in names or here}


def _say_imported(done: Sequence[Imported]) -> None:
    from voxelmill_cli.app import out  # noqa: PLC0415 - as above

    for one in done:
        word = {"present": "is here already, the same", "recorded": "recorded where it lies"}.get(
            one.outcome, one.outcome
        )
        say(out, f"{one.dataset.name}: {word}, {decimal(one.dataset.size)}, SHA-256 {one.dataset.digest[:12]}")


@contextmanager
def _bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """Show how many bytes are here: a bar on a terminal, nothing elsewhere (what came is said at the end)."""
    from voxelmill_cli.app import out  # noqa: PLC0415 - as above

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as progress:
        task = progress.add_task(name, total=None)
        yield lambda here, total: progress.update(task, completed=here, total=total or None)
