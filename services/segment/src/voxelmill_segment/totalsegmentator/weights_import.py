"""Bringing weights into the weights folder: from a folder or a zip, whole or not at all.

A data set is put together in a folder of its own under `.incoming`, checked and recorded there, and renamed into its
place as the last step. Two imports at once do not disturb each other; what a killed one left is removed by the next.

A checkpoint is a pickle, of which nothing but numbers is loaded (`predictor`): code in it is not run, here or there.
"""

from __future__ import annotations

import fcntl
import lzma
import os
import secrets
import shutil
import stat
import zipfile
import zlib
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from voxelmill_segment.totalsegmentator.weights import (
    CHECKPOINT,
    DATASET,
    RECORD,
    Dataset,
    WeightsFolder,
    trained_models,
    write_record,
)
from voxelmill_shared.errors import VoxelmillError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_INCOMING = ".incoming"
_LOCK = ".lock"
_BLOCK = 1 << 20
_UNREADABLE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError)
"""What zipfile raises for damage; RuntimeError where a password is asked for, NotImplementedError: unknown packing."""
_MOST_MEMBERS = 100_000
_SPARE_BYTES = 64 << 20
"""What is left free on the disk."""


class WeightsRefusedError(VoxelmillError):
    """What was to be imported holds no weights, or is damaged, or would be written to where it must not."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a data set: `imported`, `replaced`, `recorded` (it lay there), `present` (the same lay there)."""

    dataset: Dataset
    outcome: str


def import_path(
    weights: WeightsFolder,
    source: Path,
    *,
    origin: str = "",
    replace: bool = False,
    report: Callable[[int], None] = lambda _: None,
) -> tuple[Imported, ...]:
    """Import every data set that a folder or a zip holds.

    Parameters
    ----------
    weights
        Where they go.
    source
        A folder named `Dataset…`, one that holds such folders at any depth, or a zip of the like. The weights folder
        itself: what lies there already is recorded.
    origin
        What the record says they came from, if not the path.
    replace
        Whether a data set that is there with other content gives way.
    report
        Is told how many bytes more were copied.

    Raises
    ------
    WeightsRefusedError
        If there are no data sets, or one is damaged, or is there with other content; those before it stay imported.
    OSError
        If the source cannot be read or the weights folder not written.
    """
    if source.is_dir():
        if source.resolve() == weights.path.resolve():
            return tuple(_record_in_place(weights))
        return tuple(_import_folders(weights, source, replace=replace, report=report))
    if not source.is_file():
        raise WeightsRefusedError(f"{source}: no such folder or zip; check the path")
    if not zipfile.is_zipfile(source):
        raise WeightsRefusedError(f"{source}: neither a folder nor a zip, or its end is missing; fetch it again")
    return tuple(_import_zip(weights, source, origin or source.name, replace=replace, report=report))


def adopt_folder(weights: WeightsFolder, source: Path, origin: str, *, replace: bool = False) -> tuple[Imported, ...]:
    """Import every data set of a folder that `staging` gave, without copying: the files are moved.

    Parameters
    ----------
    weights, source, replace
        As for `import_path`; the folder is on the disk of the weights.
    origin
        What the record says they came from, `s3://bucket/prefix`.
    """
    done: list[Imported] = []
    for archive in sorted(source.rglob("*.zip")):
        done += _import_zip(weights, archive, f"{origin}: {archive.name}", replace=replace, report=lambda _: None)
    done += [_finish(weights, folder, origin, replace=replace) for folder in _dataset_folders(source)]
    if not done:
        raise WeightsRefusedError(_nothing_in(origin))
    return tuple(done)


@contextmanager
def staging(weights: WeightsFolder) -> Iterator[Path]:
    """Give a folder on the weights' disk that is gone at the end, or, if this process dies, at the next import."""
    incoming = weights.path / _INCOMING
    incoming.mkdir(parents=True, exist_ok=True)
    folder = incoming / secrets.token_hex(8)
    with ExitStack() as stack:
        with _locked(weights):
            _remove_left_over(incoming)
            folder.mkdir()
            own = stack.enter_context((folder / _LOCK).open("wb"))
            fcntl.flock(own, fcntl.LOCK_EX)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder


@contextmanager
def _locked(weights: WeightsFolder) -> Iterator[None]:
    """Hold the weights folder for the moment of a change."""
    with (weights.path / _LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _record_in_place(weights: WeightsFolder) -> Iterator[Imported]:
    found = [folder for folder in _dataset_folders(weights.path) if folder.parent == weights.path]
    if not found:
        raise WeightsRefusedError(_nothing_in(str(weights.path)))
    for folder in found:
        _check_whole(folder)
        yield Imported(write_record(folder, "found in the weights folder"), "recorded")


def _import_folders(
    weights: WeightsFolder, source: Path, *, replace: bool, report: Callable[[int], None]
) -> Iterator[Imported]:
    folders = _dataset_folders(source)
    if not folders:
        raise WeightsRefusedError(_nothing_in(str(source)))
    for folder in folders:
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != RECORD]
        with staging(weights) as stage:
            _check_room(weights.path, sum(path.stat().st_size for path in files))
            for path in files:
                with path.open("rb") as content:
                    _copy(content, stage / folder.name / path.relative_to(folder), report)
            yield _finish(weights, stage / folder.name, str(source), replace=replace)


def _import_zip(
    weights: WeightsFolder, source: Path, origin: str, *, replace: bool, report: Callable[[int], None]
) -> Iterator[Imported]:
    try:
        with zipfile.ZipFile(source) as archive, staging(weights) as stage:
            members = _members(archive, source.name)
            _check_room(weights.path, sum(entry.file_size for entry in members.values()))
            for path, entry in members.items():
                with archive.open(entry) as content:
                    _copy(content, stage.joinpath(*path.parts), report)
            for name in sorted({path.parts[0] for path in members}):
                yield _finish(weights, stage / name, origin, replace=replace)
    except _UNREADABLE as error:
        raise WeightsRefusedError(f"{source}: cannot be unpacked ({error}); fetch it again") from None


def _members(archive: zipfile.ZipFile, name: str) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """The files of a zip that belong to data sets, by their place in the weights folder. None can leave it."""
    found: dict[PurePosixPath, zipfile.ZipInfo] = {}
    entries = archive.infolist()
    if len(entries) > _MOST_MEMBERS:
        raise WeightsRefusedError(f"{name}: {len(entries)} members are no weights")
    for entry in entries:
        if entry.is_dir():
            continue
        parts = entry.filename.split("/")
        if {"", ".", ".."} & set(parts) or any("\\" in part or "\0" in part or ":" in part for part in parts):
            raise WeightsRefusedError(f"{name}: the member {entry.filename!r} would be written elsewhere; refused")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise WeightsRefusedError(f"{name}: the member {entry.filename!r} is a link; refused")
        start = next((i for i, part in enumerate(parts) if DATASET.fullmatch(part)), None)
        if start is None or start == len(parts) - 1 or parts[-1] == RECORD:
            continue
        path = PurePosixPath(*parts[start:])
        if path in found:
            raise WeightsRefusedError(f"{name}: holds {path} twice; refused")
        found[path] = entry
    if not found:
        raise WeightsRefusedError(_nothing_in(name))
    return found


def _finish(weights: WeightsFolder, folder: Path, origin: str, *, replace: bool) -> Imported:
    """Check and record a data set that lies in a staging folder, and rename it into its place."""
    _check_whole(folder)
    new = write_record(folder, origin)
    _settle_on_disk(folder)
    target = weights.path / folder.name
    with _locked(weights):
        outcome = "imported"
        if target.exists():
            # Digests are of contents, so the record of what is there is not asked: it may have been changed since.
            if trained_models(target) and not weights.verify(folder.name):
                if weights.dataset(folder.name).digest == new.digest:
                    return Imported(new, "present")
                if not replace:
                    raise WeightsRefusedError(
                        f"{folder.name}: is in {weights.path} with other content; --replace puts this in its place"
                    )
            elif not replace and trained_models(target):
                raise WeightsRefusedError(
                    f"{folder.name}: is in {weights.path}, unrecorded or damaged; --replace puts this in its place"
                )
            target.rename(folder.with_name(f"{folder.name}.old"))  # goes with the staging folder
            outcome = "replaced"
        folder.rename(target)
        _sync(weights.path)
    return Imported(new, outcome)


def _dataset_folders(source: Path) -> list[Path]:
    """The data sets at or below a folder that hold a trained model; not those of imports that are under way."""
    source = source.resolve()
    found = [source] if DATASET.fullmatch(source.name) and trained_models(source) else []
    if not found:
        found = [
            folder
            for folder in sorted(source.rglob("Dataset*"))
            if DATASET.fullmatch(folder.name)
            and folder.is_dir()
            and _INCOMING not in folder.relative_to(source).parts
            and trained_models(folder)
        ]
    return found


def _check_whole(folder: Path) -> None:
    """Refuse a data set that nnU-Net could not load."""
    models = trained_models(folder)
    if not models:
        raise WeightsRefusedError(
            f"{folder.name}: holds no trained model (dataset.json, plans.json, fold_0/{CHECKPOINT}); fetch it again"
        )
    for model in models:
        for checkpoint in model.glob(f"fold_*/{CHECKPOINT}"):
            if not zipfile.is_zipfile(checkpoint):  # torch.save writes zips; a cut off one has lost its directory
                raise WeightsRefusedError(
                    f"{folder.name}: {checkpoint.relative_to(folder)} is damaged or cut off; fetch it again"
                )


def _check_room(where: Path, size: int) -> None:
    free = shutil.disk_usage(where).free
    if size + _SPARE_BYTES > free:
        raise WeightsRefusedError(
            f"{where}: {size / 1e9:.2f} GB are to come and {free / 1e9:.2f} GB are free; make room, or choose another"
            " folder with --weights"
        )


def _copy(content: IO[bytes], target: Path, report: Callable[[int], None]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        while block := content.read(_BLOCK):
            file.write(block)
            report(len(block))


def _settle_on_disk(folder: Path) -> None:
    """Bring what was written to the disk, so that a data set that has its name has its content."""
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_left_over(incoming: Path) -> None:
    """Remove the folders of imports whose processes are gone: nobody holds their locks."""
    for folder in incoming.iterdir():
        with suppress(FileNotFoundError), (folder / _LOCK).open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
        shutil.rmtree(folder, ignore_errors=True)


def _nothing_in(source: str) -> str:
    return (
        f"{source}: holds no weights; expected are folders like"
        " Dataset297_…/nnUNetTrainer…__nnUNetPlans__3d_fullres/fold_0/checkpoint_final.pth"
    )
