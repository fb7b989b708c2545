"""The audit record of an event: who did what, on what, with which outcome, when.

Terms after DICOM PS3.15 A.5 and FHIR AuditEvent. Events hold UIDs and object keys, never a name otherwise; where a key
would stand, a record holds its digest (`privacy`), since a site may have put names into its keys.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from voxelmill_shared.catalog import ObjectStatus, StageOutcome
from voxelmill_shared.events import (
    AccessRecorded,
    DeadLetterDropped,
    DeadLetterEvent,
    DeadLetterReplayed,
    ObjectRejected,
    ObjectValidated,
    PseudonymDisclosed,
    SeriesIndexed,
    SeriesMeshed,
    SeriesSegmented,
    SeriesThumbnailed,
    SeriesValidated,
    Severity,
    Stage,
    StageFailed,
    StageSkipped,
)
from voxelmill_shared.privacy import object_digest, without_keys

if TYPE_CHECKING:
    from voxelmill_shared.events import Envelope, Event

STAGE_OF: dict[type[Event], Stage] = {
    ObjectValidated: Stage.INGEST,
    ObjectRejected: Stage.INGEST,
    SeriesValidated: Stage.INGEST,
    SeriesThumbnailed: Stage.THUMBNAIL,
    SeriesSegmented: Stage.SEGMENT,
    SeriesMeshed: Stage.MESH,
    SeriesIndexed: Stage.INDEX,
    PseudonymDisclosed: Stage.INGEST,
}
"""The stage that an event tells of, where its type alone says so."""
SETTLED_AS: dict[type[Event], str] = {DeadLetterReplayed: "replayed", DeadLetterDropped: "dropped"}
"""What an operator did with a dead letter."""


def audit_record(envelope: Envelope, event: Event) -> dict[str, Any]:
    """Return the row of the audit table for an event that is being consumed, without its place in the chain."""
    address = _object_address(event)
    outcome, reason = _outcome(event)
    return {
        "event_id": str(envelope.id),
        "who": getattr(event, "who", "") or envelope.source,
        "what": envelope.routing_key,
        "subject": object_digest(address) if address and envelope.subject == address else envelope.subject,
        "study_instance_uid": getattr(event, "study_instance_uid", ""),
        "series_instance_uid": getattr(event, "series_instance_uid", ""),
        "sop_instance_uid": getattr(event, "sop_instance_uid", ""),
        "object_address": object_digest(address),
        "job_id": event.job() or "",
        "stage": "" if isinstance(event, AccessRecorded) else stage_of(event).value,
        "outcome": outcome,
        "reason": without_keys(reason, [address] if address else ()),
        "occurred": envelope.time,
        "recorded": datetime.now(UTC),
        "trace_id": envelope.trace_id,
        "caused_by": str(envelope.causationid) if envelope.causationid else None,
    }


def stage_of(event: Event) -> Stage:
    """Return the stage that an event tells of."""
    return event.stage if isinstance(event, StageSkipped | StageFailed | DeadLetterEvent) else STAGE_OF[type(event)]


def _object_address(event: Event) -> str:
    if isinstance(event, ObjectValidated | ObjectRejected):
        return event.object.address()
    return event.object_address if isinstance(event, StageFailed | DeadLetterEvent) else ""


def _outcome(event: Event) -> tuple[str, str]:
    match event:
        case ObjectRejected(severity=severity, reason=word, detail=detail):
            outcome = ObjectStatus.SKIPPED if severity is Severity.SKIP else ObjectStatus.REJECTED
            return outcome.value, f"{word}: {detail}"
        case StageSkipped(reason=reason):
            return StageOutcome.SKIPPED.value, reason
        case StageFailed(error_class=error_class, reason=reason):
            return StageOutcome.FAILED.value, f"{error_class}: {reason}"
        case AccessRecorded(outcome=outcome, action=action, detail=detail):
            return outcome, f"{action}: {detail}" if detail else action
        case DeadLetterEvent(error_class=error_class):
            return SETTLED_AS[type(event)], error_class
        case _:
            return StageOutcome.DONE.value, _remark(event)


def _remark(event: Event) -> str:
    match event:
        case SeriesIndexed(status=status):
            return status.value
        case PseudonymDisclosed(pseudonyms=pseudonyms):
            return f"told of: {', '.join(pseudonyms)}" if pseudonyms else "nothing was found"
        case _:
            return ""
