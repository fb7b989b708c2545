"""Where the input of `voxelmill run` comes from: a folder, a file, an archive, or `s3://bucket/prefix`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pydantic import ValidationError

from voxelmill_cli.errors import CommandError
from voxelmill_cli.export import RECEIPT
from voxelmill_cli.storage.places import BucketAddress, parse_address, reach
from voxelmill_shared.errors import ObjectMissingError, TransientError
from voxelmill_shared.results import Receipt
from voxelmill_shared.storage.connect import open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from voxelmill_shared.storage.base import ObjectStat, ObjectStore

INBOX = "inbox"
"""The name that events use for the source's store."""
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


async def open_source(address: str, destination: Path | None) -> Source:
    """Open a source. Results that lie inside it, of this run or of others, are left out.

    Raises
    ------
    CommandError
        If there is nothing there, or it cannot be read.
    """
    if not address.strip():
        raise CommandError("the source is empty; name a folder, a file, or s3://bucket/prefix")
    parsed = parse_address(address)
    if isinstance(parsed, BucketAddress):
        return await _open_bucket(parsed)
    return _open_path(address, parsed, destination)


async def _open_bucket(address: BucketAddress) -> Source:
    """Open a part of a bucket, or one object of it."""
    store = open_store(address.url, bucket=INBOX)
    try:
        await reach(store)
        above, _, name = address.prefix.rpartition("/")
        if not name or await anext(store.list(), None) is not None:
            return Source(store, name or address.bucket, address.url)
    except BaseException:
        await store.close()
        raise
    await store.close()
    folder = BucketAddress(address.bucket, above)
    store = open_store(folder.url, bucket=INBOX)
    try:
        await store.head(name)
    except BaseException as error:
        await store.close()
        if isinstance(error, ObjectMissingError):
            raise CommandError(f"{address.url}: holds no files; see `voxelmill storage list`") from None
        raise
    return Source(store, dataset_name(name), folder.url, only=name)


def _open_path(address: str, path: Path, destination: Path | None) -> Source:
    if not path.exists():
        raise CommandError(f"{address}: no such file or folder; check the path")
    path = path.resolve()
    if not os.access(path, os.R_OK):
        raise CommandError(f"{address}: permission denied; make it readable for this user")
    if path.is_dir():
        leave_out: tuple[str, ...] = ()
        if destination is not None and destination != path and destination.is_relative_to(path):
            leave_out = (destination.relative_to(path).as_posix() + "/",)
        return Source(open_store(str(path), bucket=INBOX), path.name or "root", str(path), leave_out=leave_out)
    if not path.is_file():
        raise CommandError(f"{address}: neither a file nor a folder; give one of them")
    return Source(open_store(str(path.parent), bucket=INBOX), dataset_name(path.name), str(path.parent), only=path.name)


def dataset_name(file_name: str) -> str:
    """Take the endings that say what a file is off its name: `chest.nii.gz` is the data set `chest`."""
    name = file_name
    for ending in (".gz", ".bz2", ".xz", ".tar", ".tgz", ".zip", ".nii", ".dcm"):
        if name.lower().endswith(ending) and len(name) > len(ending):
            name = name[: -len(ending)]
    return name
