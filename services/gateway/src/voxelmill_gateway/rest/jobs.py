"""GET /jobs/{job_id}: one job, its stages, what came out of it."""

from __future__ import annotations

from fastapi import APIRouter, Response

from voxelmill_gateway.access.callers import Viewer
from voxelmill_gateway.gateway import Gate
from voxelmill_gateway.problems import not_found
from voxelmill_gateway.requests import find_requested
from voxelmill_gateway.rest.fields import JobId
from voxelmill_gateway.rest.models import JobOut
from voxelmill_gateway.rest.segments import segments_of
from voxelmill_gateway.rest.views import job_answer
from voxelmill_shared.catalog import queries, search
from voxelmill_shared.database import reading

router = APIRouter(tags=["jobs"])


@router.get("/jobs/{job_id}", operation_id="get_job", summary="One job: its stages, files and segments")
async def get_job(job_id: JobId, response: Response, gate: Gate, caller: Viewer) -> JobOut:
    """Answer where a job is and what came out of it.

    A job that has just been asked for is processing, with nothing settled, until its series has been taken up.
    """
    async with reading(gate.engine) as connection:
        job = await search.find_job(connection, caller.scope(), job_id)
        job = job or await find_requested(connection, caller.scope(), job_id)
        if job is None:
            raise not_found(f"job {job_id}")
        artefacts = await queries.artefacts(connection, job.keys)
        told = await search.progress_of(connection, [job.keys])
    measured = await gate.statistics.read(artefacts)
    await gate.trail.record(
        caller, "read", study=job.study_instance_uid, series=job.keys.series_instance_uid, job=job.job_id
    )
    response.headers["Cache-Control"] = "no-store"
    return job_answer(job, told[job.keys], artefacts, segments_of(job, artefacts, measured))
