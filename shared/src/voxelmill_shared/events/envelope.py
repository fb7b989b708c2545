"""The CloudEvents envelope, and the base of every event.

One message body is one CloudEvents 1.0 JSON document in structured mode (CloudEvents 1.0.2, JSON format 3.1). Ids are
deterministic, so the same fact published twice is the same event.
"""

from __future__ import annotations

import random
import re
import uuid
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from voxelmill_shared.errors import UndecodableMessageError
from voxelmill_shared.text import shown

TYPE_PREFIX = "org.voxelmill."
CONTENT_TYPE = "application/cloudevents+json"
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://voxelmill.org/events")

cause: ContextVar[Envelope | None] = ContextVar("voxelmill_cause", default=None)
"""The envelope of the message that is being handled; the runtime binds it, `Envelope.wrap` continues its trace."""


class Event(BaseModel):
    """Something that happened: plain data. Consumers ignore fields that they do not know."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: ClassVar[str]
    """Without the prefix, with the version: `series.validated.v1`. It is the routing key."""

    def subject(self) -> str:
        """Name what the event is about: an object's address or a UID."""
        raise NotImplementedError

    def content_key(self) -> str:
        """Tell apart two facts of the same type about the same subject; times and durations never belong here."""
        raise NotImplementedError

    def job(self) -> str | None:
        """Name the job that this event belongs to, if it belongs to one."""
        return None

    def event_id(self) -> uuid.UUID:
        """Return the deterministic id: UUIDv5 of type, subject and content key."""
        return uuid.uuid5(NAMESPACE, f"{self.type}\n{self.subject()}\n{self.content_key()}")


_TRACEPARENT = re.compile(r"^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$")


def child_traceparent(parent: str | None) -> str:
    """Return a W3C traceparent: a new span in the parent's trace, or a new trace (Trace Context 1, 3.2)."""
    match = _TRACEPARENT.match(parent or "")
    trace_id = match.group(1) if match else f"{random.getrandbits(128):032x}"
    return f"00-{trace_id}-{random.getrandbits(64):016x}-01"


class Envelope(BaseModel):
    """A CloudEvents 1.0 document with the extension attributes `traceparent`, `correlationid` and `causationid`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    specversion: Literal["1.0"] = "1.0"
    id: uuid.UUID
    source: str = Field(min_length=1)
    type: str = Field(min_length=1)
    subject: str
    time: datetime
    datacontenttype: Literal["application/json"] = "application/json"
    traceparent: str
    correlationid: str | None = None
    causationid: uuid.UUID | None = None
    data: dict[str, Any]

    @classmethod
    def wrap(cls, event: Event, source: str) -> Self:
        """Put an event into its envelope; trace, causation and correlation continue those of the message in hand."""
        parent = cause.get()
        return cls(
            id=event.event_id(),
            source=source,
            type=TYPE_PREFIX + event.type,
            subject=event.subject(),
            time=datetime.now(UTC),
            traceparent=child_traceparent(parent.traceparent if parent else None),
            correlationid=event.job() or (parent.correlationid if parent else None),
            causationid=parent.id if parent else None,
            data=event.model_dump(mode="json"),
        )

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Read a message body.

        Raises
        ------
        UndecodableMessageError
            If the body is no CloudEvents 1.0 JSON document of ours.
        """
        try:
            return cls.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "body"
            raise UndecodableMessageError(shown(f"not a CloudEvents document: {where}: {first['msg']}")) from error

    def encode(self) -> bytes:
        """Write the message body: UTF-8 JSON, attributes that are not set left out."""
        return self.model_dump_json(exclude_none=True).encode()

    @property
    def routing_key(self) -> str:
        """The type without the prefix."""
        return self.type.removeprefix(TYPE_PREFIX)

    @property
    def trace_id(self) -> str:
        """The 32 hex digits of the trace, or an empty string where the sender gave none that is valid."""
        match = _TRACEPARENT.match(self.traceparent)
        return match.group(1) if match else ""
