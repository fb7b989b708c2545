"""Laying a job's results flat into the user's folder (DESIGN: 4, last paragraph)."""

from __future__ import annotations

import asyncio
import fcntl
import re
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from voxelmill_cli.errors import CommandError
from voxelmill_shared.results import Receipt

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from voxelmill_shared.results import ResultKeys
    from voxelmill_shared.storage.base import ObjectStore


RECEIPT = "receipt.json"
_TAIL = 12
"""How much of a UID's end tells folders of one name apart; more where that is not enough."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A job's results on disk, and where they were sent from there, if they were."""

    folder: Path
    receipt: Receipt
    address: str | None = None

    @property
    def place(self) -> str:
        """Where the user finds them."""
        return self.address or str(self.folder)


def flat_name(name: str, organ: str) -> str:
    """Give an artefact's name in the flat folder: `meshes/lung_left.ply` becomes `lungs_lung_left_colored.ply`."""
    path = PurePosixPath(name)
    if path.parts[0] == "meshes" and path.suffix in {".stl", ".ply", ".obj", ".mz3"}:
        colored = "_colored" if path.suffix == ".ply" else ""
        return f"{organ}_{path.stem}{colored}{path.suffix}"
    if path.parts[0] in {"meshes", "segmentation"}:
        return PurePosixPath(*path.parts[1:]).as_posix()
    return name


def folder_names(datasets: dict[str, str], organ: str) -> dict[str, str]:
    """Name one folder for each series: `{organ}_segmentation_{dataset}`, and the UID's end where two would be one.

    Parameters
    ----------
    datasets
        The data set's name by Series Instance UID.
    """
    clean = {uid: re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._") or "series" for uid, name in datasets.items()}
    alike: dict[str, list[str]] = {}
    for uid, name in clean.items():
        alike.setdefault(name.lower(), []).append(uid)
    names: dict[str, str] = {}
    for uid, name in clean.items():
        others = [other for other in alike[name.lower()] if other != uid]
        length = _TAIL
        while any(other[-length:] == uid[-length:] for other in others):
            length += 1
        names[uid] = f"{organ}_segmentation_{name}" + (f"_{uid[-length:].lstrip('.')}" if others else "")
    return names


def other_names(name: str, series_instance_uid: str) -> Iterator[str]:
    """Give names for the folder of a series, the best first: `name`, then with ever more of the UID's end."""
    yield name
    for length in count(_TAIL):
        yield f"{name}_{series_instance_uid[-length:].lstrip('.')}"


def own_folder(folder: Path, series_instance_uid: str) -> Path:
    """Give the folder, or one with the UID's end where it holds the results of another series (of another source)."""
    candidates = (folder.with_name(name) for name in other_names(folder.name, series_instance_uid))
    return next(one for one in candidates if _series_in(one) in {None, series_instance_uid})


def _series_in(folder: Path) -> str | None:
    try:
        return Receipt.model_validate_json((folder / RECEIPT).read_bytes()).series_instance_uid
    except (OSError, ValueError):
        return None


@contextmanager
def one_at_a_time(state: Path) -> Iterator[None]:
    """Let the runs into one destination lay out their results one after the other."""
    with (state / "export.lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


async def export(store: ObjectStore, keys: ResultKeys, organ: str, folder: Path) -> Exported:
    """Copy a job's artefacts and its receipt into `folder`; what an earlier run left there of other jobs goes.

    Copies, not links: who edits an exported mesh in place must not change the stored one.

    Raises
    ------
    CommandError
        If the folder cannot be written.
    """
    receipt = Receipt.model_validate_json(await store.read(keys.receipt))
    renamed = tuple(
        artefact.model_copy(update={"name": flat_name(artefact.name, organ)}) for artefact in receipt.artefacts
    )
    flat_receipt = receipt.model_copy(update={"artefacts": renamed})
    with tempfile.TemporaryDirectory(prefix="voxelmill-export-") as scratch:
        copies = [
            (await store.fetch(keys.artefact(artefact.name), Path(scratch) / str(number)), folder / flat.name)
            for number, (artefact, flat) in enumerate(zip(receipt.artefacts, renamed, strict=True))
        ]
        try:
            await asyncio.to_thread(_lay_out, folder, copies, flat_receipt)
        except OSError as error:
            where = error.filename or folder
            raise CommandError(f"{where}: {error.strerror}; make room there or choose another folder", 1) from None
    return Exported(folder, flat_receipt)


def _lay_out(folder: Path, copies: list[tuple[Path, Path]], receipt: Receipt) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _remove_earlier(folder)
    for path, target in copies:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    # Last, so that where a receipt stands the files that it names stand too.
    (folder / RECEIPT).write_bytes(receipt.to_json())


def _remove_earlier(folder: Path) -> None:
    """Remove the files that an earlier receipt in this folder names, and no others."""
    earlier = folder / RECEIPT
    if not earlier.exists():
        return
    try:
        names: Iterable[str] = [
            artefact.name for artefact in Receipt.model_validate_json(earlier.read_bytes()).artefacts
        ]
    except ValueError:
        return  # not a receipt of ours: nothing here is ours to remove
    for name in names:
        path = folder / name
        if path.resolve().is_relative_to(folder.resolve()):
            path.unlink(missing_ok=True)
    earlier.unlink()
