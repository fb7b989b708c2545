"""Events about dead letters: what an operator did with them."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from voxelmill_shared.events.envelope import Event
from voxelmill_shared.events.series import Stage


class DeadLetterEvent(Event):
    """What is known of a dead letter that somebody took out of its queue. Never anything of its content but UIDs.

    The UIDs and the job are empty when the message was about an object, or could not be decoded.
    """

    stage: Stage = Field(description="whose queue it is")
    queue: str = Field(description="the queue that it came from")
    handle: str = Field(description="the dead letter's own name")
    who: str = Field(description="the account that asked for it, user@host")
    error_class: str = ""
    attempts: int = 0
    message_type: str = ""
    message_id: str = ""
    object_address: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    job_id: str = ""
    replays: int = Field(0, ge=0, description="how often it had been replayed before")

    def subject(self) -> str:
        """The series, else the object, else the queue."""
        return self.series_instance_uid or self.object_address or self.queue

    def content_key(self) -> str:
        """Which letter it was, after which replay. Whoever asks again after a crash says the same."""
        return f"{self.queue}:{self.handle}:{self.replays}"

    def job(self) -> str | None:
        """The job, if the message belonged to one."""
        return self.job_id or None


class DeadLetterReplayed(DeadLetterEvent):
    """A dead letter goes back onto the queue that it came from, to be tried anew."""

    type: ClassVar[str] = "dead-letter.replayed.v1"


class DeadLetterDropped(DeadLetterEvent):
    """A dead letter is given up: it is in no queue any more."""

    type: ClassVar[str] = "dead-letter.dropped.v1"
