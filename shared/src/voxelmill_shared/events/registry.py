"""Which class reads which type."""

from __future__ import annotations

from pydantic import ValidationError

from voxelmill_shared.errors import UndecodableMessageError
from voxelmill_shared.events.access import AccessRecorded
from voxelmill_shared.events.dead_letters import DeadLetterDropped, DeadLetterReplayed
from voxelmill_shared.events.envelope import TYPE_PREFIX, Envelope, Event
from voxelmill_shared.events.jobs import JobProgressed, JobRequested
from voxelmill_shared.events.objects import ObjectRejected, ObjectUploaded, ObjectValidated, UploadCompleted
from voxelmill_shared.events.pseudonyms import PseudonymDisclosed
from voxelmill_shared.events.series import (
    SeriesIndexed,
    SeriesMeshed,
    SeriesSegmented,
    SeriesThumbnailed,
    SeriesValidated,
    StageFailed,
    StageSkipped,
)
from voxelmill_shared.text import shown

EVENT_TYPES: tuple[type[Event], ...] = (
    ObjectUploaded,
    UploadCompleted,
    ObjectValidated,
    ObjectRejected,
    SeriesValidated,
    SeriesThumbnailed,
    SeriesSegmented,
    SeriesMeshed,
    StageSkipped,
    StageFailed,
    SeriesIndexed,
    DeadLetterReplayed,
    DeadLetterDropped,
    PseudonymDisclosed,
    JobProgressed,
    JobRequested,
    AccessRecorded,
)
_BY_TYPE = {TYPE_PREFIX + event_type.type: event_type for event_type in EVENT_TYPES}


def open_envelope(envelope: Envelope) -> Event:
    """Return the typed event of an envelope.

    Raises
    ------
    UndecodableMessageError
        If the type is unknown here or the data do not fit it.
    """
    event_type = _BY_TYPE.get(envelope.type)
    if event_type is None:
        raise UndecodableMessageError(shown(f"unknown event type {envelope.type!r}"))
    try:
        return event_type.model_validate(envelope.data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UndecodableMessageError(shown(f"{envelope.type}: {where}: {first['msg']}")) from error
