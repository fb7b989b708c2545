"""What happens in Voxelmill, as data. The whole list stands in `registry`; every event is imported from here."""

from voxelmill_shared.events.access import AccessRecorded
from voxelmill_shared.events.dead_letters import DeadLetterDropped, DeadLetterEvent, DeadLetterReplayed
from voxelmill_shared.events.envelope import CONTENT_TYPE, TYPE_PREFIX, Envelope, Event, cause
from voxelmill_shared.events.jobs import JobProgressed, JobRequested
from voxelmill_shared.events.objects import (
    ObjectKind,
    ObjectRef,
    ObjectRejected,
    ObjectUploaded,
    ObjectValidated,
    Severity,
    UploadCompleted,
)
from voxelmill_shared.events.pseudonyms import PseudonymDisclosed
from voxelmill_shared.events.registry import EVENT_TYPES, open_envelope
from voxelmill_shared.events.series import (
    DocumentRef,
    Evidence,
    QualityFlag,
    SeriesEvent,
    SeriesIndexed,
    SeriesMeshed,
    SeriesSegmented,
    SeriesThumbnailed,
    SeriesValidated,
    Stage,
    StageDone,
    StageFailed,
    StageSkipped,
    Status,
)

__all__ = [
    "CONTENT_TYPE",
    "EVENT_TYPES",
    "TYPE_PREFIX",
    "AccessRecorded",
    "DeadLetterDropped",
    "DeadLetterEvent",
    "DeadLetterReplayed",
    "DocumentRef",
    "Envelope",
    "Event",
    "Evidence",
    "JobProgressed",
    "JobRequested",
    "ObjectKind",
    "ObjectRef",
    "ObjectRejected",
    "ObjectUploaded",
    "ObjectValidated",
    "PseudonymDisclosed",
    "QualityFlag",
    "SeriesEvent",
    "SeriesIndexed",
    "SeriesMeshed",
    "SeriesSegmented",
    "SeriesThumbnailed",
    "SeriesValidated",
    "Severity",
    "Stage",
    "StageDone",
    "StageFailed",
    "StageSkipped",
    "Status",
    "UploadCompleted",
    "cause",
    "open_envelope",
]
