"""Finding the result file that an address names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from voxelmill_gateway.rest.links import RECEIPT
from voxelmill_shared.catalog import queries, search
from voxelmill_shared.database import reading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voxelmill_gateway.gateway import Gateway
    from voxelmill_shared.catalog import ArtefactView, JobView, Scope

_UPLOAD: Final = re.compile(r"[0-9a-f]{32}")
_FOLDERS: Final = ("meshes/", "segmentation/", "thumbnails/")
"""Where a bare name is looked for, in this order."""
MESHES_ZIP: Final = "meshes/meshes.zip"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a job. `size` is none where the store must be asked; `lasting`: it never has another content."""

    job: JobView
    key: str
    name: str
    media_type: str
    size: int | None
    sha256: str
    lasting: bool


async def find_file(gate: Gateway, scope: Scope, job_id: str, name: str) -> StoredFile | None:
    """Return the file that an address means, or none.

    The callers of the first prototype name an upload instead of a job, and files without their folder, and they ask for
    the meshes' archive by a name of their own that ends in `.zip`. What they get may be another file after the next
    upload.
    """
    async with reading(gate.engine) as connection:
        job = await search.find_job(connection, scope, job_id)
        by_upload = job is None and _UPLOAD.fullmatch(job_id) is not None
        if by_upload:
            for uid in await search.upload_series(connection, scope, job_id):
                job = next(iter(await search.series_jobs(connection, scope, uid)), None)
                if job is not None:
                    break
        if job is None:
            return None
        artefacts = await queries.artefacts(connection, job.keys)
    if name == RECEIPT:
        return _receipt(job)
    found = named(artefacts, name)
    if found is None:
        return None
    exact = found.name == name and not by_upload
    return StoredFile(job, found.key, found.name, found.media_type, found.size, found.sha256, lasting=exact)


def _receipt(job: JobView) -> StoredFile | None:
    if not job.receipt_key:
        return None
    # A replayed stage makes another receipt.
    return StoredFile(job, job.receipt_key, RECEIPT, "application/json", None, job.receipt_sha256, lasting=False)


def named(artefacts: Sequence[ArtefactView], name: str) -> ArtefactView | None:
    """Return the file of this name; else the one of this bare name; else, for an archive of any name, the meshes'."""
    by_name = {artefact.name: artefact for artefact in artefacts}
    wanted = [name]
    if "/" not in name:
        wanted += [folder + name for folder in _FOLDERS]
        if name.endswith(".zip"):
            wanted.append(MESHES_ZIP)
    return next((by_name[each] for each in wanted if each in by_name), None)
