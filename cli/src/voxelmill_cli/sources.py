"""Where the input of `voxelmill run` comes from: a folder, a file, an archive, or `s3://bucket/prefix`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pydantic import ValidationError

from voxelmill_cli.errors import CommandError
from voxelmill_shared.errors import TransientError
from voxelmill_shared.results import Receipt
from voxelmill_shared.storage.connect import open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from voxelmill_shared.storage.base import ObjectStat, ObjectStore

RECEIPT = "receipt.json"
STATE_FOLDER = ".voxelmill"
"""Where a run keeps its broker, its catalog and its results, inside the destination."""


@dataclass(frozen=True, slots=True)
class Source:
    """An opened source.

    `url` opens its store again; `only` is the one key that is meant when the source is a single file.
    """

    store: ObjectStore
    name: str
    url: str
    only: str | None = None
    leave_out: tuple[str, ...] = ()

    async def objects(self) -> AsyncIterator[ObjectStat]:
        """List what is to be worked on."""
        if self.only is not None:
            yield await self.store.head(self.only)
            return
        found: list[ObjectStat] = []
        async for stat in self.store.list():
            parts = PurePosixPath(stat.key).parts
            if STATE_FOLDER not in parts and not any(stat.key.startswith(prefix) for prefix in self.leave_out):
                found.append(stat)
        ours = await self._results_of_runs([stat.key for stat in found if PurePosixPath(stat.key).name == RECEIPT])
        for stat in found:
            if stat.key not in ours:
                yield stat

    async def _results_of_runs(self, receipts: list[str]) -> set[str]:
        """Return the keys of what earlier runs have laid out in this source: what their receipts name."""
        ours: set[str] = set()
        for key in receipts:
            try:
                receipt = Receipt.model_validate_json(await self.store.read(key))
            except (ValidationError, TransientError):
                continue  # somebody else's file of that name: it is an input like any other
            folder = PurePosixPath(key).parent
            ours.update(str(folder / artefact.name) for artefact in receipt.artefacts)
            ours.add(key)
        return ours

    async def delete(self, key: str) -> None:
        """Remove one input (`--cleanup-input`)."""
        await self.store.delete(key)


def is_s3(address: str) -> bool:
    """Whether an address names an S3 bucket."""
    return address.startswith("s3://")


def open_source(address: str, destination: Path | None) -> Source:
    """Open a source. Results that lie inside it, of this run or of others, are left out.

    Raises
    ------
    CommandError
        If there is nothing there, or it cannot be read.
    """
    if not address.strip():
        raise CommandError("the source is empty; name a folder, a file, or s3://bucket/prefix")
    if is_s3(address):
        name = PurePosixPath(address.removeprefix("s3://")).name
        return Source(open_store(address, bucket="inbox"), name or "bucket", address)
    path = Path(address.removeprefix("file://"))
    if not path.exists():
        raise CommandError(f"{address}: no such file or folder; check the path")
    path = path.resolve()
    if not os.access(path, os.R_OK):
        raise CommandError(f"{address}: permission denied; make it readable for this user")
    if path.is_dir():
        leave_out: tuple[str, ...] = ()
        if destination is not None and destination != path and destination.is_relative_to(path):
            leave_out = (destination.relative_to(path).as_posix() + "/",)
        return Source(open_store(str(path), bucket="inbox"), path.name or "root", str(path), leave_out=leave_out)
    if not path.is_file():
        raise CommandError(f"{address}: neither a file nor a folder; give one of them")
    return Source(
        open_store(str(path.parent), bucket="inbox"), dataset_name(path.name), str(path.parent), only=path.name
    )


def dataset_name(file_name: str) -> str:
    """Take the endings that say what a file is off its name: `chest.nii.gz` is the data set `chest`."""
    name = file_name
    for ending in (".gz", ".bz2", ".xz", ".tar", ".tgz", ".zip", ".nii", ".dcm"):
        if name.lower().endswith(ending) and len(name) > len(ending):
            name = name[: -len(ending)]
    return name
