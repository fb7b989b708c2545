"""Making de-identified copies in the work store: originals are read in children, and nothing else of them is kept."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from voxelmill_ingest.deidentify.errors import NotDeidentifiableError
from voxelmill_ingest.deidentify.job import Copied, Job
from voxelmill_ingest.deidentify.keys import ProjectKeys
from voxelmill_ingest.deidentify.mapping import Mapping
from voxelmill_ingest.findings import Refusal
from voxelmill_ingest.ranges import FIRST_READ
from voxelmill_ingest.reasons import Reason
from voxelmill_ingest.settlement import ObjectChangedError
from voxelmill_shared.child import ChildPool
from voxelmill_shared.errors import ObjectMissingError
from voxelmill_shared.events import ObjectRef
from voxelmill_shared.projects import project_of, project_prefix

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncEngine

    from voxelmill_ingest.deidentify.job import Copy
    from voxelmill_ingest.deidentify.profile import Option
    from voxelmill_shared.parts import Parts, Scratch
    from voxelmill_shared.storage.stores import Stores

TARGET: Final = "voxelmill_ingest.deidentify.work:deidentify"
FOLDER: Final = "deidentified"
"""Where copies lie in the store for work, behind the prefix of their original's project."""
SUFFIXES: Final = (".dcm", ".nii", ".nii.gz")
_MOST_CHILDREN: Final = 4


@dataclass(frozen=True, slots=True)
class Deidentifier:
    """Makes copies of objects under names that do not tell the objects' own.

    `children` run `TARGET`; only in them are originals read.
    """

    stores: Stores
    scratch: Scratch
    children: ChildPool
    mapping: Mapping
    options: frozenset[Option]

    def is_copy(self, reference: ObjectRef) -> bool:
        """Whether an object is one that was written here. Nobody else writes into the work store."""
        return reference.bucket == self.stores.work.bucket and reference.key.startswith(_folder(reference.key))

    def folder(self, archive: ObjectRef) -> str:
        """Where the copies of an archive's members lie: for each content and each choice of options another place."""
        chosen = "+".join(sorted(self.options))
        return f"{_folder(archive.key)}{self.mapping.keys.place(f'{archive.address()} {archive.content()} {chosen}')}"

    async def __call__(self, original: ObjectRef) -> Copied | Refusal:
        """Copy an object; the same original gets the same place, and the same bytes in it.

        Raises
        ------
        ObjectChangedError
            If the original was replaced while it was read. Nothing is kept of it.
        """
        store = self.stores.of(original)
        with self.scratch.folder("deidentify") as folder:
            # Without its ETag, so that no cache of downloads keeps it.
            path = await store.fetch(original.key, folder / "original")
            written = folder / "copy"
            answer = await self.copy_file(path, original.key, written)
            if (await store.head(original.key)).etag != original.etag:
                raise ObjectChangedError(f"{original.address()}: replaced while it was de-identified")
            if isinstance(answer, Refusal):
                return answer
            place = f"{_folder(original.key)}{self.mapping.keys.place(original.address())}{answer.suffix}"
            return await self.keep(original.address(), place, answer, written)

    async def copy_file(self, source: Path, name: str, target: Path) -> Copy | Refusal:
        """Have a file copied by a child, or say why there is no copy of it."""
        job = Job(source, name, target, self.mapping.keys.secrets, self.options)
        try:
            answer: Copy | Refusal = await self.children.call(job)
        except NotDeidentifiableError as error:
            return Refusal(reason=Reason.NOT_DEIDENTIFIABLE, detail=str(error))
        return answer

    async def keep(self, address: str, place: str, copy: Copy, written: Path) -> Copied:
        """Write down where a copy comes from, then put it into the work store."""
        await self.mapping.keep(address, place, copy)
        stored = await self.stores.work.write_file(place, written)
        with written.open("rb") as file:
            head = file.read(FIRST_READ)
        bucket = self.stores.work.bucket
        return Copied(ObjectRef(bucket=bucket, key=place, etag=stored.etag, size=stored.size), head)

    async def others(self, original: ObjectRef, copy: ObjectRef | None = None) -> list[ObjectRef]:
        """Return the copies that an object's earlier contents had under other suffixes than `copy`, if any."""
        found = []
        for suffix in SUFFIXES:
            place = f"{_folder(original.key)}{self.mapping.keys.place(original.address())}{suffix}"
            if copy is not None and copy.key == place:
                continue
            try:
                stat = await self.stores.work.head(place)
            except ObjectMissingError:
                continue
            found.append(ObjectRef(bucket=self.stores.work.bucket, key=place, etag=stat.etag, size=stat.size))
        return found

    async def delete(self, copy: ObjectRef) -> None:
        """Delete a copy. First the ledger must know that it is gone: who dies in between will find it here again."""
        await self.stores.work.delete(copy.key)


def _folder(key: str) -> str:
    """Return where the copy of an object lies, by its key; for a copy's own key, where it should."""
    return f"{project_prefix(project_of(key))}{FOLDER}/"


def build_deidentifier(
    parts: Parts, engine: AsyncEngine, key: str, project: str, options: frozenset[Option], now: Callable[[], datetime]
) -> Deidentifier:
    """Wire it. The caller enters `children` and has `mapping` check its key before the first object."""
    children = ChildPool(TARGET, parts.limits, max(1, min(_MOST_CHILDREN, os.cpu_count() or 1)))
    mapping = Mapping(engine, ProjectKeys.derive(key, project), now)
    return Deidentifier(parts.stores, parts.scratch, children, mapping, options)
