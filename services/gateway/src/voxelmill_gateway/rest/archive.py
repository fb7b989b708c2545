"""GET /jobs/{job_id}/archive.zip: every result file of a job, packed while it is sent."""

from __future__ import annotations

import io
import zipfile
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from fastapi import APIRouter
from fastapi.responses import Response

from voxelmill_gateway.access.callers import Viewer
from voxelmill_gateway.gateway import Gate
from voxelmill_gateway.problems import Problem, not_found
from voxelmill_gateway.rest.artefacts import MESHES_ZIP
from voxelmill_gateway.rest.fields import JobId
from voxelmill_gateway.rest.links import RECEIPT
from voxelmill_gateway.streaming import Stream, begun, pieces_of
from voxelmill_shared.catalog import queries, search
from voxelmill_shared.database import reading

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from _typeshed import ReadableBuffer

    from voxelmill_shared.storage.base import ObjectStore

router = APIRouter(tags=["files"])

_NO_TIME: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest that a zip can hold: the same files make the same bytes."""
_READABLE: Final = 0o100644 << 16
_LARGE: Final = 1 << 31
"""From this size on an entry gets fields of eight bytes at once: once it has begun they cannot be added."""


class _Sink(io.RawIOBase):
    """What is written to is kept until it is taken. It cannot be gone back in, so that no header waits for its file."""

    def __init__(self) -> None:
        super().__init__()
        self._kept = bytearray()

    def writable(self) -> bool:
        """It can be written to."""
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        """Keep data."""
        piece = memoryview(data)
        self._kept += piece
        return piece.nbytes

    def take(self) -> bytes:
        """Give what was kept."""
        kept = bytes(self._kept)
        self._kept.clear()
        return kept


async def zipped(store: ObjectStore, files: Sequence[tuple[str, str, int | None]]) -> AsyncGenerator[bytes, None]:
    """Pack objects into a zip, stored and not compressed: what is large among the results is compressed already.

    At most two pieces of 1 MiB are in memory, whatever the files' size.

    Parameters
    ----------
    store
        Where they are.
    files
        Of each its name in the archive, its key, and its size in bytes if it is known.

    Raises
    ------
    VoxelmillError
        As `pieces_of`. What was given until then is no archive: the list of its entries stands at the end.
    """
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for name, key, size in files:
            entry = zipfile.ZipInfo(name, _NO_TIME)
            entry.external_attr = _READABLE
            with archive.open(entry, "w", force_zip64=size is None or size >= _LARGE) as target:
                async with aclosing(pieces_of(store, key, size=size)) as pieces:
                    async for piece in pieces:
                        target.write(piece)
                        yield sink.take()
            yield sink.take()
    yield sink.take()


@router.get(
    "/jobs/{job_id}/archive.zip",
    operation_id="get_archive",
    summary="Every result file of a job as one zip",
    response_class=Response,
    responses={200: {"description": "the archive", "content": {"application/zip": {}}}},
)
async def get_archive(job_id: JobId, gate: Gate, caller: Viewer) -> Response:
    """Answer the files that stand, and the receipt once there is one; the archive is made while it is sent."""
    async with reading(gate.engine) as connection:
        job = await search.find_job(connection, caller.scope(), job_id)
        if job is None:
            raise not_found(f"job {job_id}")
        artefacts = await queries.artefacts(connection, job.keys)
    # What is in the meshes' own archive stands here anyway.
    files: list[tuple[str, str, int | None]] = [
        (file.name, file.key, file.size) for file in artefacts if file.name != MESHES_ZIP
    ]
    if job.receipt_key:
        files.append((RECEIPT, job.receipt_key, None))
    if not files:
        raise Problem(409, "Nothing is there yet", "no stage of this job has written a file; ask again when one has")
    await gate.trail.record(
        caller, "download", study=job.study_instance_uid, series=job.keys.series_instance_uid, job=job.job_id
    )
    headers = {
        "Cache-Control": "no-store",
        "Content-Disposition": f'attachment; filename="{job.job_id}.zip"',
    }
    return Stream(await begun(zipped(gate.stores.results, files)), 200, headers, "application/zip")
