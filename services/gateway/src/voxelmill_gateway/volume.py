"""`GET /jobs/{job_id}/volume.nii.gz`: the voxels under a job's label map, for viewers that read NIfTI."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Final

from fastapi import APIRouter, Query, Request
from sqlalchemy import Select, select
from starlette.responses import Response

from voxelmill_gateway.access.callers import Viewer
from voxelmill_gateway.gateway import Gate
from voxelmill_gateway.problems import not_found
from voxelmill_gateway.ranges import has_it
from voxelmill_gateway.rest.fields import JobId
from voxelmill_gateway.streaming import Stream
from voxelmill_gateway.volume_cache import Size, VolumeSource
from voxelmill_shared.catalog.queries import artefacts
from voxelmill_shared.catalog.search import find_job, find_series
from voxelmill_shared.catalog.tables import JOBS
from voxelmill_shared.database import reading

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from voxelmill_shared.results import ResultKeys

router = APIRouter(tags=["results"])

_LABEL_MAP: Final = "segmentation/labelmap.nii.gz"
_PIECE: Final = 1 << 20


@router.get(
    "/jobs/{job_id}/volume.nii.gz",
    operation_id="get_volume",
    summary="The series' volume as NIfTI, HU in a CT; the same place in space as the label map",
    response_class=Response,
    responses={
        200: {"content": {"application/gzip": {}}, "description": "The volume"},
        404: {"description": "No such job"},
        422: {"description": "The series makes no volume"},
    },
)
async def get_volume(
    job_id: JobId,
    request: Request,
    gate: Gate,
    caller: Viewer,
    size: Annotated[
        Size, Query(description="`preview`: at most 256 voxels on any side and a few MB; `full`: every voxel")
    ] = "full",
) -> Response:
    """Give the volume that a job's label map lies in; the largest of its series if there is no label map."""
    async with reading(gate.engine) as connection:
        job = await find_job(connection, caller.scope(), job_id)
        series = await find_series(connection, caller.scope(), job.keys.series_instance_uid) if job else None
        files = await artefacts(connection, job.keys) if job else []
        manifest = (await connection.execute(_manifest_of(job.keys))).first() if job else None
    if job is None or manifest is None or not manifest.manifest_key:
        raise not_found(f"job {job_id}")
    label_map = next((file for file in files if file.name == _LABEL_MAP), None)
    source = VolumeSource(
        manifest_key=manifest.manifest_key,
        manifest_sha256=manifest.manifest_sha256,
        label_map_key=label_map.key if label_map else "",
        label_map_sha256=label_map.sha256 if label_map else "",
    )
    await gate.trail.record(
        caller,
        "read",
        project=series.project if series else "",
        study=job.study_instance_uid,
        series=job.keys.series_instance_uid,
        job=job_id,
    )
    headers = {"ETag": f'"{source.digest}-{size}"', "Cache-Control": "private, no-cache"}
    if has_it(request.headers, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    file = await gate.volumes.opened(source, size)
    headers["Content-Length"] = str(os.fstat(file.fileno()).st_size)
    return Stream(_pieces(file), headers=headers, media_type="application/gzip")


def _manifest_of(keys: ResultKeys) -> Select[Any]:
    return select(JOBS.c.manifest_key, JOBS.c.manifest_sha256).where(
        JOBS.c.series_instance_uid == keys.series_instance_uid,
        JOBS.c.revision == keys.revision,
        JOBS.c.job_id == keys.job_id,
    )


async def _pieces(file: BinaryIO) -> AsyncGenerator[bytes, None]:
    try:
        while piece := await asyncio.to_thread(file.read, _PIECE):
            yield piece
    finally:
        file.close()
