"""GET /series: the worklist and its search; GET /series/{uid}: one series with all of its jobs."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from voxelmill_gateway.access.callers import Viewer
from voxelmill_gateway.gateway import Gate
from voxelmill_gateway.problems import not_found
from voxelmill_gateway.rest.fields import Limit, Offset, SeriesUid, Word
from voxelmill_gateway.rest.links import next_page
from voxelmill_gateway.rest.models import SeriesDetail, SeriesPage
from voxelmill_gateway.rest.views import job_brief, series_answer
from voxelmill_shared.catalog import JobStatus, search
from voxelmill_shared.catalog.search import SeriesFilter
from voxelmill_shared.database import reading

router = APIRouter(tags=["series"])

Day = Annotated[dt.date | None, Query(description="of the study, this day included")]


def _written(day: dt.date | None) -> str:
    return day.strftime("%Y%m%d").rjust(8, "0") if day else ""


@router.get("/series", operation_id="list_series", summary="Search series, newest first")
async def list_series(
    request: Request,
    response: Response,
    gate: Gate,
    caller: Viewer,
    text: Word = "",
    patient_id: Word = "",
    patient_name: Word = "",
    accession_number: Word = "",
    modality: Word = "",
    status: JobStatus | None = None,
    study: Word = "",
    first: Annotated[Day, Query(alias="from")] = None,
    last: Annotated[Day, Query(alias="to")] = None,
    derived: Annotated[bool | None, Query(description="the segmentations that were made as DICOM")] = False,
    limit: Limit = 50,
    offset: Offset = 0,
) -> SeriesPage:
    """Answer the series of the caller's projects that fit every filter.

    `text` is words, each of which stands in the patient's name or ID, the accession number, a description, the modality
    or begins a UID. `patient_name` is how the name begins; all other texts are the whole value.
    """
    wanted = SeriesFilter(
        text=text,
        patient_id=patient_id,
        patient_name=patient_name,
        study_uid=study,
        modality=modality,
        status=status,
        accession_number=accession_number,
        study_date_from=_written(first),
        study_date_to=_written(last),
        derived=derived,
    )
    async with reading(gate.engine) as connection:
        found, total = await search.search_series(connection, caller.scope(), wanted, limit=limit, offset=offset)
        told = await search.progress_of(connection, [one.job.keys for one in found if one.job])
    await gate.trail.record(caller, "search")
    response.headers["Cache-Control"] = "private, no-cache"
    more = offset + len(found)
    return SeriesPage(
        items=[series_answer(one, told[one.job.keys] if one.job else {}) for one in found],
        total=total,
        next=next_page(request, limit=limit, offset=more) if found and more < total else None,
    )


@router.get("/series/{uid}", operation_id="get_series", summary="One series with all of its jobs")
async def get_series(uid: SeriesUid, response: Response, gate: Gate, caller: Viewer) -> SeriesDetail:
    """Answer one series, its jobs and its header's attributes."""
    async with reading(gate.engine) as connection:
        found = await search.find_series(connection, caller.scope(), uid)
        if found is None:
            raise not_found(f"series {uid}")
        jobs = await search.series_jobs(connection, caller.scope(), uid)
        if found.derived_from_job and found.job:
            jobs = [found.job]
        told = await search.progress_of(connection, [job.keys for job in jobs])
    await gate.trail.record(caller, "read", study=found.study_instance_uid, series=uid)
    response.headers["Cache-Control"] = "no-store"
    brief = series_answer(found, told[found.job.keys] if found.job else {})
    return SeriesDetail(
        **brief.model_dump(),
        jobs=[job_brief(job, told[job.keys]) for job in jobs],
        attributes=dict(found.attributes),
    )
