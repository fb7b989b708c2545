"""Events about people: who saw or did what through the gateway."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from pydantic import Field

from voxelmill_shared.events.envelope import Event


class AccessRecorded(Event):
    """Somebody read patient data, did something or was refused. UIDs alone, never an attribute of a patient.

    The same read again within one period is the same event.
    """

    type: ClassVar[str] = "access.recorded.v1"

    who: str = Field(min_length=1, description="the caller: a token's subject, an API key's name, user@host")
    action: str = Field(pattern=r"^[a-z][a-z-]{0,31}$", description="read, search, download, uploaded, login …")
    project: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    sop_instance_uid: str = ""
    job_id: str = ""
    outcome: str = Field("done", description="done, refused or failed")
    detail: str = Field("", description="a word or two for people: the name of an artefact, a reason")
    period_start: datetime = Field(description="when it happened, or when the minute that holds it began")

    def subject(self) -> str:
        """The narrowest UID, else the job, else the project, else the action."""
        uid = self.sop_instance_uid or self.series_instance_uid or self.study_instance_uid
        return uid or self.job_id or self.project or self.action

    def content_key(self) -> str:
        """Who did what, on what, how it ended, and in which period."""
        what = (self.project, self.study_instance_uid, self.series_instance_uid, self.sop_instance_uid, self.job_id)
        parts = (self.who, self.action, *what, self.outcome, self.detail, self.period_start.isoformat())
        return "\n".join(parts)

    def job(self) -> str | None:
        """The job, if it was about one."""
        return self.job_id or None
