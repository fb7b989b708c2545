"""Events about the way back from de-identified copies."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from pydantic import Field

from voxelmill_shared.events.envelope import Event


class PseudonymDisclosed(Event):
    """Somebody was told what stands behind pseudonyms, or asked in vain. Never what was asked for or told."""

    type: ClassVar[str] = "pseudonym.disclosed.v1"

    project: str
    who: str = Field(description="the account that asked, user@host")
    pseudonyms: tuple[str, ...] = Field((), description="whose originals were told; empty: there were none")
    number: int = Field(ge=1, description="of the record that ingest keeps of it")
    occurred: datetime

    def subject(self) -> str:
        """The project."""
        return self.project

    def content_key(self) -> str:
        """The record of it, and its time: a database that is set up anew counts anew."""
        return f"{self.number}:{self.occurred.isoformat()}"
