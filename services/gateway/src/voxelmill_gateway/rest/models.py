"""The answers of the reading routes. Times are in UTC; a value that is not known yet is null, a text empty."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from voxelmill_shared.catalog import JobStatus, StageOutcome
from voxelmill_shared.events import Stage


class Answer(BaseModel):
    """The base of all answers."""

    model_config = ConfigDict(frozen=True)


class StageBrief(Answer):
    """Where a stage is."""

    stage: Stage
    outcome: StageOutcome
    percent: int | None = Field(ge=0, le=100, description="how much of the stage is done; null: nobody has said")
    step: str = Field(description="what it is doing, a word or two; empty when it does nothing")


class StageOut(StageBrief):
    """How a stage went."""

    reason: str = Field(description="why it was skipped or failed")
    error_class: str
    attempts: int
    replays: int
    seconds: float | None = Field(description="wall time of the whole stage")
    seconds_by_step: dict[str, float]
    started: datetime | None
    finished: datetime | None
    service_version: str
    warnings: list[str]


class ArtefactOut(Answer):
    """One result file; `size` in bytes."""

    name: str
    stage: Stage
    media_type: str
    size: int
    sha256: str
    url: str


class SegmentOut(Answer):
    """One segment of the label map."""

    number: int = Field(description="its value in the label map's voxels")
    name: str
    label: str = Field(description="the name for people")
    colour: str = Field(pattern="^#[0-9a-f]{6}$", description="sRGB")
    opacity: float = Field(ge=0, le=1, description="how it is best shown, so that what is inside can be seen")
    volume_ml: float | None
    mean_hu: float | None = Field(description="the mean of its voxels; null where the values are not Hounsfield units")
    flags: list[str] = Field(description="what is unlikely about it: codes of the quality gate")
    meshes: dict[str, str] = Field(description="the address of its mesh, by format")


class JobBrief(Answer):
    """Where a job is. `percent` is that of `GET /jobs/{job_id}`."""

    job_id: str
    revision: int
    status: JobStatus
    superseded: bool
    percent: int = Field(ge=0, le=100)
    stages: list[StageBrief]
    url: str


class JobOut(Answer):
    """One job: what was asked for, where it is, what came out.

    `percent` is the work that is done of the work that there is: a settled stage counts whole, a stage that is at work
    by its own percent, each by how long it usually takes.
    """

    job_id: str
    series_instance_uid: str
    study_instance_uid: str
    revision: int
    status: JobStatus
    superseded: bool
    percent: int = Field(ge=0, le=100)
    modality: str
    instances: int
    evidence: str
    plan: dict[str, Any] | None
    validated_at: datetime | None
    indexed_at: datetime | None
    trace_id: str
    stages: list[StageOut]
    artefacts: list[ArtefactOut]
    segments: list[SegmentOut]
    archive_url: str | None
    volume_url: str | None
    preview_url: str | None
    receipt_url: str | None


class SeriesOut(Answer):
    """One series with its current job. What stands in no header, or in none that could be read, is empty."""

    series_instance_uid: str
    study_instance_uid: str
    project: str
    modality: str
    patient_name: str
    patient_id: str
    patient_birth_date: str
    patient_sex: str
    accession_number: str
    study_date: str = Field(description="YYYYMMDD")
    study_time: str
    study_description: str
    series_number: int | None
    series_description: str
    body_part_examined: str
    instances: int
    revisions: int
    first_seen: datetime
    derived_from_job: str = Field(description="the job that has made this series; empty for one that came in")
    preview_url: str | None
    job: JobBrief | None


class SeriesDetail(SeriesOut):
    """One series with all of its jobs, the current one first, and its header's attributes (DICOM JSON, PS3.18 F)."""

    jobs: list[JobBrief]
    attributes: dict[str, Any]


class SeriesPage(Answer):
    """A page of series, newest first."""

    items: list[SeriesOut]
    total: int = Field(description="how many fit altogether")
    next: str | None = Field(description="the address of the next page")
