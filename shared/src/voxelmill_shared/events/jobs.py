"""Events about a job before and while it is being worked on."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from voxelmill_shared.events.envelope import Event
from voxelmill_shared.events.series import SeriesEvent, Stage
from voxelmill_shared.plan import Plan


class JobRequested(Event):
    """Somebody wants a series, or every series of an upload, worked on after a plan of his own.

    Ingest makes the job: of the newest revision of the series, or, where a series of the upload is not complete yet,
    of the one that its completion makes.
    """

    type: ClassVar[str] = "job.requested.v1"

    series_instance_uid: str = ""
    upload_id: str = Field("", description="instead of the series")
    plan: Plan
    who: str = Field(min_length=1, description="the caller that asked for it")
    project: str = Field(min_length=1, description="whose the series is; a series of another project is not touched")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if bool(self.series_instance_uid) is bool(self.upload_id):
            raise ValueError("a request names a series or an upload, one of both")
        return self

    def subject(self) -> str:
        """The series, else the upload."""
        return self.series_instance_uid or self.upload_id

    def content_key(self) -> str:
        """Whose it is, the plan, and who asked. Whoever asks for the same again says the same."""
        return f"{self.project}:{self.plan.job_id(())}:{self.who}"


class JobProgressed(SeriesEvent):
    """How far a stage is with a series. Index keeps the newest of each stage; nothing is lost with one that is.

    Published seldom (every two seconds at most, by default), and always for the last part that was told. It never holds
    up the work: while the broker is away, progress is lost.
    """

    type: ClassVar[str] = "job.progressed.v1"

    stage: Stage
    attempt: int = Field(1, ge=1)
    step: str = Field(description="what is being done, a word or two in lower case")
    done: int = Field(0, ge=0, description="how many parts of the step (tiles, slices)")
    total: int = Field(0, ge=0, description="of how many; 0 where the step is not counted")
    percent: int | None = Field(None, ge=0, le=100, description="of the step, where it is counted")

    def content_key(self) -> str:
        """Revision, job, stage and attempt, and how far it is."""
        return f"r{self.revision}:{self.job_id}:{self.stage}:{self.attempt}:{self.step}:{self.done}/{self.total}"
