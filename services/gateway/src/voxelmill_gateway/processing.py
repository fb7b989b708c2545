"""Asking for a job: the name that it has or will have, and the request to ingest to make it.

A job is named by the content of the series and by the plan. So the name is known before the job is there, and whoever
asks for the same again gets the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from voxelmill_gateway.problems import Problem, not_found
from voxelmill_gateway.requests import remember
from voxelmill_gateway.tables import OUTBOX
from voxelmill_gateway.uploads.model import UploadState
from voxelmill_gateway.uploads.outcome import outcome_of
from voxelmill_gateway.uploads.sessions import Sessions
from voxelmill_shared.catalog import JobStatus, search
from voxelmill_shared.database import reading, transaction
from voxelmill_shared.errors import ObjectMissingError
from voxelmill_shared.events import Envelope, JobRequested
from voxelmill_shared.outbox import add
from voxelmill_shared.projects import DEFAULT_PROJECT
from voxelmill_shared.results import SeriesManifest

if TYPE_CHECKING:
    from voxelmill_gateway.access.callers import Caller
    from voxelmill_gateway.gateway import Gateway
    from voxelmill_gateway.uploads.model import Upload
    from voxelmill_shared.catalog import JobView
    from voxelmill_shared.plan import Plan


class RequestStatus(StrEnum):
    """Where a job is that was asked for."""

    REQUESTED = "requested"
    PROCESSING = "processing"
    COMPLETE = "complete"
    PARTIAL = "partial"


@dataclass(frozen=True, slots=True)
class Requested:
    """What was asked for. `job_id` is none while nobody knows of what the job will be made."""

    job_id: str | None
    status: RequestStatus
    series_instance_uid: str = ""


async def request_for_series(gate: Gateway, caller: Caller, uid: str, plan: Plan) -> Requested:
    """Ask for a job of the newest revision of a series.

    Raises
    ------
    Problem
        404 if there is no such series that the caller may see; 409 if it is one that Voxelmill has made.
    """
    async with reading(gate.engine) as connection:
        found = await search.find_series(connection, caller.scope(), uid)
        if found is None:
            raise not_found(f"series {uid}")
        if found.derived_from_job:
            raise Problem(409, "Not an input", "Voxelmill has made this series; ask for the one that it was made of")
        jobs = await search.series_jobs(connection, caller.scope(), uid)
    job_id = await _job_id(gate, found.job, plan)
    standing = next((job for job in jobs if job.job_id == job_id and not job.superseded), None)
    await gate.trail.record(
        caller,
        "requested",
        project=found.project,
        study=found.study_instance_uid,
        series=uid,
        job=job_id or "",
        detail=_words(plan),
    )
    if standing is None:
        project = found.project or DEFAULT_PROJECT
        request = JobRequested(series_instance_uid=uid, plan=plan, who=caller.who, project=project)
        await _publish(gate, request, found.job, job_id)
    return Requested(job_id, _status(standing), uid)


async def request_for_upload(gate: Gateway, caller: Caller, upload_id: str, plan: Plan) -> Requested:
    """Ask for a job of every series of an upload; those that are not complete yet get it when they are.

    Raises
    ------
    Problem
        404 if there is no such upload that the caller may see; 409 if it was aborted.
    """
    upload = await Sessions(gate).find(caller.scope(), upload_id)
    if upload.state is UploadState.ABORTED:
        raise Problem(409, "The upload is aborted", "nothing of it is left; begin another one (POST /uploads)")
    only = await _only_job(gate, caller, upload)
    job_id = await _job_id(gate, only, plan)
    standing: JobView | None = None
    if only is not None and job_id is not None:
        async with reading(gate.engine) as connection:
            jobs = await search.series_jobs(connection, caller.scope(), only.keys.series_instance_uid)
        standing = next((job for job in jobs if job.job_id == job_id and not job.superseded), None)
    await gate.trail.record(
        caller,
        "requested",
        project=upload.project,
        series=only.keys.series_instance_uid if only else "",
        job=job_id or "",
        detail=f"upload {upload_id}, {_words(plan)}",
    )
    if standing is None:
        request = JobRequested(upload_id=upload_id, plan=plan, who=caller.who, project=upload.project)
        await _publish(gate, request, only, job_id)
    return Requested(job_id, _status(standing), only.keys.series_instance_uid if only else "")


async def _only_job(gate: Gateway, caller: Caller, upload: Upload) -> JobView | None:
    """Return the current job of the upload's series, if all of it is settled and it has one series only."""
    if upload.state is not UploadState.COMPLETE:
        return None
    async with reading(gate.engine) as connection:
        became = await outcome_of(connection, caller.scope(), upload.upload_id)
    if became.settled < (upload.objects or 0) or became.series_total != 1 or not became.series:
        return None
    job = became.series[0].job
    manifest = await _manifest(gate, job) if job else None
    # The revision that this upload makes may still be to come.
    with_it = manifest is not None and any(upload.upload_id in one.object.key for one in manifest.instances)
    return job if with_it else None


async def _job_id(gate: Gateway, current: JobView | None, plan: Plan) -> str | None:
    """Return the name of the plan's job for the instances of the current one."""
    manifest = await _manifest(gate, current) if current else None
    return plan.job_id(one.object.content() for one in manifest.instances) if manifest else None


async def _manifest(gate: Gateway, job: JobView) -> SeriesManifest | None:
    try:
        return SeriesManifest.model_validate_json(await gate.stores.results.read(job.keys.manifest))
    except ObjectMissingError:
        return None  # somebody has removed it; ingest makes it anew


async def _publish(gate: Gateway, request: JobRequested, current: JobView | None, job_id: str | None) -> None:
    """Ask ingest, and write down what there is to tell of the job until it is in the catalog."""
    async with transaction(gate.engine) as connection:
        if current is not None and job_id is not None:
            await remember(connection, job_id, current, request.plan, request.project)
        await add(connection, OUTBOX, [Envelope.wrap(request, gate.source)])
    gate.relay.notify()


def _status(standing: JobView | None) -> RequestStatus:
    match standing.status if standing else None:
        case JobStatus.PROCESSING:
            return RequestStatus.PROCESSING
        case JobStatus.COMPLETE:
            return RequestStatus.COMPLETE
        case JobStatus.PARTIAL:
            return RequestStatus.PARTIAL
        case None:
            return RequestStatus.REQUESTED


def _words(plan: Plan) -> str:
    return f"{plan.model} {plan.subject}"
