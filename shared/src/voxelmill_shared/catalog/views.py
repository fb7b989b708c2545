"""What the catalog shows: plain, frozen data for the command and the gateway."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from voxelmill_shared.catalog.states import JobStatus, ObjectStatus, StageOutcome
    from voxelmill_shared.events import Stage
    from voxelmill_shared.results import ResultKeys


@dataclass(frozen=True, slots=True)
class StageView:
    """How one stage of a job ended. `seconds` are wall times by step; `size` is the artefacts' total in bytes."""

    stage: Stage
    outcome: StageOutcome
    reason: str = ""
    error_class: str = ""
    attempts: int = 0
    replays: int = 0
    service_version: str = ""
    started: datetime | None = None
    finished: datetime | None = None
    seconds: Mapping[str, float] | None = None
    measurements: Mapping[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    artefacts: int = 0
    size: int = 0

    @property
    def elapsed(self) -> float | None:
        """Wall time of the whole stage in seconds, where it has one."""
        return (self.finished - self.started).total_seconds() if self.started and self.finished else None


@dataclass(frozen=True, slots=True)
class JobView:
    """One job of one revision of a series. `stages` holds every stage, the pending ones too, in their order.

    `superseded` is set when a newer revision of the series, or a later job of the same revision, takes its place.
    `plan` and `evidence` are empty until `series.validated` has come; `receipt_key` until all stages have settled.
    """

    keys: ResultKeys
    study_instance_uid: str
    status: JobStatus
    superseded: bool
    modality: str
    instances: int
    evidence: str
    plan: Mapping[str, Any] | None
    validated_at: datetime | None
    indexed_at: datetime | None
    receipt_key: str
    receipt_sha256: str
    trace_id: str
    stages: tuple[StageView, ...]

    @property
    def job_id(self) -> str:
        """The job's content key."""
        return self.keys.job_id

    @property
    def revision(self) -> int:
        """The revision of the series, from 1."""
        return self.keys.revision

    @property
    def artefacts(self) -> int:
        """How many result files stand."""
        return sum(stage.artefacts for stage in self.stages)

    def stage(self, stage: Stage) -> StageView:
        """Return one of the stages."""
        return next(view for view in self.stages if view.stage is stage)


@dataclass(frozen=True, slots=True)
class SeriesView:
    """One series with its current job; `job` is none while no revision is complete.

    `instances` counts the instances that ingest has taken, `revisions` the revisions that are known.
    """

    series_instance_uid: str
    study_instance_uid: str
    modality: str
    instances: int
    revisions: int
    first_seen: datetime
    job: JobView | None


@dataclass(frozen=True, slots=True)
class FoundSeries:
    """One series as people search for it: what its header says, and the series with its current job.

    Where no header could be read, its fields are empty, `series_number` is none and `attributes` is empty. Dates and
    times are as DICOM writes them, `YYYYMMDD` and `HHMMSS.FFFFFF`. `derived_from_job` is the job of a DICOM
    segmentation that Voxelmill has made; its `view` has that job, and counts the segmentation's instances.
    """

    view: SeriesView
    project: str
    modality: str
    derived_from_job: str = ""
    patient_id: str = ""
    patient_name: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    study_date: str = ""
    study_time: str = ""
    accession_number: str = ""
    referring_physician_name: str = ""
    study_id: str = ""
    study_description: str = ""
    series_number: int | None = None
    series_description: str = ""
    body_part_examined: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def series_instance_uid(self) -> str:
        """The Series Instance UID."""
        return self.view.series_instance_uid

    @property
    def study_instance_uid(self) -> str:
        """The Study Instance UID."""
        return self.view.study_instance_uid

    @property
    def job(self) -> JobView | None:
        """The current job, none while no revision is complete."""
        return self.view.job


@dataclass(frozen=True, slots=True)
class ProgressView:
    """How far a stage was when it last said so: `done` parts of `total` of the step, 0 where it is not counted."""

    keys: ResultKeys
    study_instance_uid: str
    project: str
    stage: Stage
    attempt: int
    step: str
    done: int
    total: int
    percent: int | None
    recorded: datetime


@dataclass(frozen=True, slots=True)
class ArtefactView:
    """One result file. `key` is its key in the result store, `name` the same within its job; `size` in bytes."""

    key: str
    name: str
    stage: Stage
    media_type: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ObjectView:
    """One object of a bucket and what became of it. `reason` is a word of ingest's catalogue, `detail` a line."""

    address: str
    status: ObjectStatus
    severity: str
    reason: str
    detail: str
    kind: str
    size: int
    series_instance_uid: str
    sop_instance_uid: str
    members: int
    warnings: tuple[str, ...]
    seen: datetime


@dataclass(frozen=True, slots=True)
class AuditView:
    """One audit record: who did what, on what, with which outcome, when (DICOM PS3.15 A.5).

    Objects are named by their digests; `hash` is over the record and the hash of the one before (`catalog.chain`).
    """

    number: int
    event_id: str
    who: str
    what: str
    subject: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    object_address: str
    job_id: str
    stage: str
    outcome: str
    reason: str
    occurred: datetime
    recorded: datetime
    trace_id: str
    caused_by: str | None
    hash: str


@dataclass(frozen=True, slots=True)
class Counts:
    """How much the catalog holds. A status that no object or job has is there with 0."""

    studies: int
    series: int
    instances: int
    objects: Mapping[ObjectStatus, int]
    jobs: Mapping[JobStatus, int]
    artefacts: int
    audit: int
