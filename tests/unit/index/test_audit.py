"""The audit record of each kind of event."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from voxelmill_index.audit import audit_record
from voxelmill_shared.catalog.tables import AUDIT
from voxelmill_shared.events import (
    DeadLetterDropped,
    DeadLetterReplayed,
    DocumentRef,
    Envelope,
    Event,
    Evidence,
    ObjectKind,
    ObjectRef,
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
    Status,
    cause,
)
from voxelmill_shared.plan import Plan
from voxelmill_shared.privacy import object_digest

OBJECT = ObjectRef(bucket="inbox", key="a.dcm", etag="e", size=1)
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
DOCUMENT = DocumentRef(key="k", sha256="0" * 64)
SERIES: dict[str, Any] = {"study_instance_uid": "1", "series_instance_uid": "1.2", "revision": 1, "job_id": "j"}
DONE: dict[str, Any] = {**SERIES, "record": DOCUMENT, "artefacts": 1, "plan": Plan()}
LETTER: dict[str, Any] = {"stage": Stage.MESH, "queue": "q", "handle": "h", "who": "me@here", "error_class": "killed"}


@pytest.mark.parametrize(
    ("event", "stage", "outcome", "reason"),
    [
        (ObjectValidated(object=OBJECT, kind=ObjectKind.DICOM), "ingest", "done", ""),
        (
            ObjectRejected(object=OBJECT, severity=Severity.REJECT, reason="truncated", detail="cut"),
            "ingest",
            "rejected",
            "truncated: cut",
        ),
        (
            ObjectRejected(object=OBJECT, severity=Severity.SKIP, reason="localizer", detail="a scout"),
            "ingest",
            "skipped",
            "localizer: a scout",
        ),
        (
            SeriesValidated(
                **SERIES, modality="CT", instances=1, manifest=DOCUMENT, plan=Plan(), evidence=Evidence.QUIET
            ),
            "ingest",
            "done",
            "",
        ),
        (SeriesThumbnailed(**DONE), "thumbnail", "done", ""),
        (SeriesSegmented(**DONE), "segment", "done", ""),
        (SeriesMeshed(**DONE), "mesh", "done", ""),
        (StageSkipped(**SERIES, stage=Stage.SEGMENT, reason="an MR"), "segment", "skipped", "an MR"),
        (
            StageFailed(stage=Stage.MESH, queue="q", error_class="killed", reason="hung", attempts=5),
            "mesh",
            "failed",
            "killed: hung",
        ),
        (DeadLetterReplayed(**LETTER), "mesh", "replayed", "killed"),
        (DeadLetterDropped(**LETTER), "mesh", "dropped", "killed"),
        (
            PseudonymDisclosed(project="p", who="ann@here", pseudonyms=("A", "B"), number=1, occurred=NOON),
            "ingest",
            "done",
            "told of: A, B",
        ),
        (SeriesIndexed(**SERIES, status=Status.PARTIAL, receipt=DOCUMENT), "index", "done", "partial"),
    ],
    ids=lambda value: value.type if isinstance(value, Event) else None,
)
def test_every_event_tells_stage_outcome_and_reason(event: Event, stage: str, outcome: str, reason: str) -> None:
    """Each kind of event that index consumes has a record that fills every column but the number."""
    row = audit_record(Envelope.wrap(event, "voxelmill/test"), event)
    assert (row["stage"], row["outcome"], row["reason"]) == (stage, outcome, reason)
    assert set(row) == {column.name for column in AUDIT.columns} - {"number", "hash"}
    assert row["what"] == event.type
    assert row["who"] == getattr(event, "who", "voxelmill/test")


def test_the_record_names_object_series_job_and_cause() -> None:
    """What an auditor looks for: on what, in which trace, because of which event before."""
    before = Envelope.wrap(ObjectValidated(object=OBJECT, kind=ObjectKind.DICOM), "voxelmill/test")
    token = cause.set(before)
    event = SeriesMeshed(**DONE)
    envelope = Envelope.wrap(event, "voxelmill/test")
    cause.reset(token)
    row = audit_record(envelope, event)
    assert (row["study_instance_uid"], row["series_instance_uid"], row["job_id"]) == ("1", "1.2", "j")
    assert row["caused_by"] == str(before.id)
    assert row["trace_id"] == before.trace_id
    assert row["occurred"] == envelope.time <= row["recorded"]
    rejected = ObjectRejected(object=OBJECT, severity=Severity.SKIP, reason="r", detail="d", sop_instance_uid="1.2.3")
    row = audit_record(Envelope.wrap(rejected, "x"), rejected)
    assert (row["object_address"], row["sop_instance_uid"], row["caused_by"]) == (
        object_digest("inbox/a.dcm"),
        "1.2.3",
        None,
    )
    assert row["subject"] == row["object_address"]
