"""POST /process: another job for a series that is there, or for all that comes with an upload."""

from __future__ import annotations

from typing import Self

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from voxelmill_gateway.access.callers import Uploader
from voxelmill_gateway.gateway import Gate
from voxelmill_gateway.processing import RequestStatus, request_for_series, request_for_upload
from voxelmill_gateway.rest.links import job_url
from voxelmill_gateway.rest.models import Answer
from voxelmill_shared.plan import MODEL_REVISIONS, TASK_PATTERN, MeshFormat, ModelName, Organ, Plan, Quality, Resolution

router = APIRouter(tags=["jobs"])


class JobAsked(BaseModel):
    """The series or the upload that a job is wanted of, and its plan."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    series_instance_uid: str = Field("", max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")
    upload_id: str = Field("", max_length=64, pattern=r"^[0-9A-Za-z-]*$", description="instead of the series")
    model: ModelName = ModelName.THRESHOLD
    organ: Organ = Organ.ALL
    quality: Quality = Quality.NORMAL
    reduction_percent: int = Field(90, ge=0, le=99, description="how many of a mesh's triangles are taken away")
    formats: tuple[MeshFormat, ...] = Field(Plan().formats, min_length=1, max_length=len(MeshFormat))
    task: str = Field("", pattern=TASK_PATTERN, description="the model's task; empty: its usual one")
    resolution: Resolution | None = None
    max_error_mm: float | None = Field(
        None, gt=0, le=100, allow_inf_nan=False, description="how far a mesh may be from the smooth boundary, mm"
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if bool(self.series_instance_uid) is bool(self.upload_id):
            raise ValueError("name a series_instance_uid or an upload_id, one of both")
        if self.model is ModelName.THRESHOLD and (self.task or self.resolution):
            raise ValueError("the model threshold has no tasks and no resolutions; leave them out")
        return self

    def plan(self) -> Plan:
        """Return the plan. Formats stand in one order, so that the same ones in another are the same request."""
        return Plan(
            model=self.model,
            model_revision=MODEL_REVISIONS[self.model],
            organ=self.organ,
            quality=self.quality,
            reduction_percent=self.reduction_percent,
            formats=tuple(kind for kind in MeshFormat if kind in self.formats),
            task=self.task,
            resolution=self.resolution,
            max_error_mm=self.max_error_mm,
        )


class JobRequestedOut(Answer):
    """The job, and where to look at it. `job_id` is null while nobody knows of what it will be made."""

    job_id: str | None
    status: RequestStatus
    url: str


@router.post("/process", status_code=202, operation_id="request_job", summary="Ask for a job")
async def request_job(asked: JobAsked, response: Response, gate: Gate, caller: Uploader) -> JobRequestedOut:
    """Ask for a job of the newest revision of a series, or of every series of an upload when it is complete.

    The same request gives the same job, which is worked on once. The series' job before it is superseded.
    """
    if asked.series_instance_uid:
        requested = await request_for_series(gate, caller, asked.series_instance_uid, asked.plan())
    else:
        requested = await request_for_upload(gate, caller, asked.upload_id, asked.plan())
    response.headers["Cache-Control"] = "no-store"
    if requested.job_id:
        url = job_url(requested.job_id)
    else:
        url = f"/uploads/{asked.upload_id}" if asked.upload_id else f"/series/{asked.series_instance_uid}"
    return JobRequestedOut(job_id=requested.job_id, status=requested.status, url=url)
