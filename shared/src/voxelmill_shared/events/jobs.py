"""Events about a job while it is being worked on."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from voxelmill_shared.events.series import SeriesEvent, Stage


class JobProgressed(SeriesEvent):
    """How far a stage is with a series. Nobody need listen: no queue of ours does, and what nobody wants is dropped.

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
