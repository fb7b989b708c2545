"""Events and their envelope: deterministic ids, traces that go on, and bodies that are no events of ours."""

from __future__ import annotations

import json
import re
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from voxelmill_shared.errors import UndecodableMessageError
from voxelmill_shared.events import (
    EVENT_TYPES,
    TYPE_PREFIX,
    AccessRecorded,
    DeadLetterDropped,
    DeadLetterReplayed,
    DocumentRef,
    Envelope,
    Event,
    Evidence,
    JobProgressed,
    JobRequested,
    ObjectKind,
    ObjectRef,
    ObjectRejected,
    ObjectUploaded,
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
    UploadCompleted,
    cause,
    open_envelope,
)
from voxelmill_shared.events.envelope import child_traceparent
from voxelmill_shared.events.schemas import event_schema
from voxelmill_shared.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Iterator

OBJECT = ObjectRef(bucket="inbox", key="a b/ä+.dcm", etag="e1", size=10)
SERIES: dict[str, Any] = {
    "study_instance_uid": "1.2",
    "series_instance_uid": "1.2.3",
    "revision": 2,
    "job_id": "job",
}
DOCUMENT = DocumentRef(key="k.json", sha256="0" * 64)
DONE: dict[str, Any] = {**SERIES, "record": DOCUMENT, "artefacts": 3, "plan": Plan()}
EVENTS: tuple[Event, ...] = (
    ObjectUploaded(object=OBJECT, found_by="command"),
    UploadCompleted(upload_id="u", objects=3),
    ObjectValidated(object=OBJECT, kind=ObjectKind.DICOM, series_instance_uid="1.2.3"),
    ObjectRejected(object=OBJECT, severity=Severity.SKIP, reason="localizer", detail="a scout"),
    SeriesValidated(**SERIES, modality="CT", instances=3, manifest=DOCUMENT, plan=Plan(), evidence=Evidence.GEOMETRY),
    SeriesThumbnailed(**DONE),
    SeriesSegmented(**DONE),
    SeriesMeshed(**DONE),
    StageSkipped(**SERIES, stage=Stage.SEGMENT, reason="not a CT"),
    StageFailed(stage=Stage.MESH, queue="mesh.x", error_class="killed", reason="r", attempts=5, message_id="m"),
    SeriesIndexed(**SERIES, status=Status.PARTIAL, receipt=DOCUMENT, failed_stages=(Stage.MESH,)),
    DeadLetterReplayed(stage=Stage.MESH, queue="mesh.x", handle="h", who="me@here", replays=1),
    DeadLetterDropped(stage=Stage.MESH, queue="mesh.x", handle="h", who="me@here", series_instance_uid="1.2.3"),
    PseudonymDisclosed(project="p", who="me@here", number=1, occurred=datetime(2030, 1, 1, tzinfo=UTC)),
    JobProgressed(**SERIES, stage=Stage.SEGMENT, step="tiles", done=3, total=8, percent=37),
    JobRequested(series_instance_uid="1.2.3", plan=Plan(organ="lungs"), who="me@here", project="default"),
    AccessRecorded(who="me@here", action="read", period_start=datetime(2030, 1, 1, tzinfo=UTC), study_instance_uid="1"),
)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def parent() -> Iterator[Envelope]:
    """An envelope that is being handled, as the runtime binds it."""
    envelope = Envelope.wrap(EVENTS[4], "test/parent").model_copy(update={"traceparent": TRACEPARENT})
    token = cause.set(envelope)
    yield envelope
    cause.reset(token)


def test_every_registered_event_is_tried_here() -> None:
    """A new event must be added to this file's examples."""
    assert {type(event) for event in EVENTS} == set(EVENT_TYPES)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_event_survives_the_wire(event: Event) -> None:
    """What is wrapped and encoded is decoded and opened as the same event."""
    envelope = Envelope.wrap(event, "test")
    decoded = Envelope.decode(envelope.encode())
    assert decoded == envelope
    assert open_envelope(decoded) == event
    assert decoded.routing_key == event.type
    assert decoded.type == TYPE_PREFIX + event.type


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_what_is_written_fits_its_schema(event: Event) -> None:
    """The body validates against the envelope's schema, its data against the event's; with a field missing it fails."""
    body = json.loads(Envelope.wrap(event, "test").encode())
    jsonschema.validate(body, event_schema(Envelope))
    jsonschema.validate(body["data"], event_schema(type(event)))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({}, event_schema(type(event)))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_the_same_fact_is_the_same_event(event: Event) -> None:
    """Published twice, an event has the same id both times, and no other event's."""
    twin = type(event).model_validate(event.model_dump())
    assert Envelope.wrap(twin, "elsewhere").id == Envelope.wrap(event, "test").id == event.event_id()
    assert [other.event_id() for other in EVENTS].count(event.event_id()) == 1


def test_ids_are_stable_between_releases() -> None:
    """This id was computed once; if it changes, a fact published before an update is another fact after it."""
    assert EVENTS[1].event_id() == uuid.UUID("a00c0c0d-54e3-577b-8336-f373825f94f0")


@pytest.mark.parametrize(
    ("event", "change"),
    [
        (EVENTS[0], {"object": OBJECT.model_copy(update={"etag": "e2"})}),
        (EVENTS[0], {"object": OBJECT.model_copy(update={"version_id": "v2"})}),
        (EVENTS[0], {"upload_id": "again"}),
        (EVENTS[1], {"objects": 4}),
        (EVENTS[3], {"reason": "dicomdir"}),
        (EVENTS[4], {"revision": 3}),
        (EVENTS[4], {"job_id": "other"}),
        (EVENTS[8], {"stage": Stage.THUMBNAIL}),
        (EVENTS[9], {"replays": 1}),
        (EVENTS[10], {"receipt": DocumentRef(key="k.json", sha256="1" * 64)}),
    ],
)
def test_another_content_is_another_event(event: Event, change: dict[str, Any]) -> None:
    """What tells two facts apart is part of the id."""
    assert event.model_copy(update=change).event_id() != event.event_id()


@pytest.mark.parametrize(
    ("event", "change"),
    [
        (EVENTS[0], {"found_by": "reconciler"}),
        (EVENTS[3], {"detail": "another wording"}),
        (EVENTS[4], {"evidence": Evidence.QUIET}),
        (EVENTS[5], {"record": DocumentRef(key="k.json", sha256="1" * 64)}),
        (EVENTS[9], {"attempts": 9}),
    ],
)
def test_circumstances_do_not_make_another_event(event: Event, change: dict[str, Any]) -> None:
    """How a fact was found, worded or timed does not change which fact it is."""
    assert event.model_copy(update=change).event_id() == event.event_id()


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_unknown_fields_are_ignored(event: Event) -> None:
    """A newer publisher may add fields, to the envelope and to the data."""
    body = json.loads(Envelope.wrap(event, "test").encode())
    body["newattribute"] = "x"
    body["data"]["new_field"] = {"deep": [1]}
    assert open_envelope(Envelope.decode(json.dumps(body).encode())) == event


def test_events_cannot_be_changed() -> None:
    """An event is a fact: assigning to it is an error."""
    with pytest.raises(ValidationError, match="frozen"):
        EVENTS[1].objects = 5  # type: ignore[attr-defined] # assigning is what must fail


@given(body=st.binary(max_size=64))
def test_any_bytes_are_decoded_or_refused_with_a_reason(body: bytes) -> None:
    """Garbage is one error of one kind, never a crash."""
    with pytest.raises(UndecodableMessageError, match="not a CloudEvents document"):
        Envelope.decode(body)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"id": "not-a-uuid"}, "id"),
        ({"specversion": "0.3"}, "specversion"),
        ({"source": ""}, "source"),
        ({"data": "text"}, "data"),
        ({"time": "yesterday"}, "time"),
    ],
)
def test_a_wrong_envelope_is_undecodable_and_says_where(change: dict[str, Any], where: str) -> None:
    """The error names the attribute, so that the dead letter explains itself."""
    body = json.loads(Envelope.wrap(EVENTS[0], "test").encode()) | change
    with pytest.raises(UndecodableMessageError, match=f"document: {where}: "):
        Envelope.decode(json.dumps(body).encode())


def test_an_unknown_type_is_undecodable() -> None:
    """A type of a later version is not misread as one of ours."""
    envelope = Envelope.wrap(EVENTS[0], "test").model_copy(update={"type": TYPE_PREFIX + "object.uploaded.v2"})
    with pytest.raises(UndecodableMessageError, match=r"unknown event type 'org\.voxelmill\.object\.uploaded\.v2'"):
        open_envelope(envelope)


def test_data_that_do_not_fit_their_type_are_undecodable() -> None:
    """The error names type and field, and never shows the data, which may hold anything."""
    envelope = Envelope.wrap(EVENTS[0], "test").model_copy(update={"data": {"object": "DOE^JANE"}})
    with pytest.raises(UndecodableMessageError, match=r"object\.uploaded\.v1: object: ") as caught:
        open_envelope(envelope)
    assert "DOE" not in str(caught.value)


def test_no_attribute_is_written_that_is_not_set() -> None:
    """CloudEvents JSON leaves out what is absent; null is not a value of an attribute."""
    body = json.loads(Envelope.wrap(EVENTS[1], "test").encode())
    assert "causationid" not in body
    assert "correlationid" not in body


def test_an_event_continues_the_trace_of_its_cause(parent: Envelope) -> None:
    """Trace id, causation and correlation go on; the span is a new one."""
    child = Envelope.wrap(EVENTS[3], "test")
    assert child.trace_id == parent.trace_id == TRACEPARENT.split("-")[1]
    assert child.traceparent.split("-")[2] != TRACEPARENT.split("-")[2]
    assert child.causationid == parent.id
    assert child.correlationid == parent.correlationid == "job"


def test_an_event_with_a_job_of_its_own_keeps_it(parent: Envelope) -> None:
    """Correlation is the event's own job before its cause's."""
    assert parent.correlationid == "job"
    other = SeriesMeshed(**(DONE | {"job_id": "other"}))
    assert Envelope.wrap(other, "test").correlationid == "other"


@pytest.mark.parametrize(
    "wrong",
    [None, "", "00-abc-def-01", TRACEPARENT.upper(), TRACEPARENT + "-more", "ff" + TRACEPARENT[2:]],
)
def test_a_broken_traceparent_begins_a_new_trace(wrong: str | None) -> None:
    """W3C Trace Context 1, 3.2.2: what cannot be read is not continued."""
    first, second = child_traceparent(wrong), child_traceparent(wrong)
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", first)
    assert first != second


def test_an_invalid_traceparent_has_no_trace_id() -> None:
    """Whoever asks an envelope for its trace gets none rather than a wrong one."""
    envelope = Envelope.wrap(EVENTS[0], "test")
    assert envelope.trace_id in envelope.traceparent
    assert envelope.model_copy(update={"traceparent": "none"}).trace_id == ""


def test_failures_are_about_the_series_else_the_object_else_the_queue() -> None:
    """A dead letter is found under the most telling name that is known."""
    failed = StageFailed(stage=Stage.INGEST, queue="q", error_class="c", reason="r", attempts=1)
    assert failed.subject() == "q"
    assert failed.job() is None
    about_object = failed.model_copy(update={"object_address": "inbox/a"})
    assert about_object.subject() == "inbox/a"
    assert about_object.model_copy(update={"series_instance_uid": "1.2"}).subject() == "1.2"


def test_objects_with_the_same_bytes_have_the_same_content_name() -> None:
    """Content is ETag and size, wherever the object lies."""
    assert OBJECT.content() == OBJECT.model_copy(update={"key": "other"}).content()
    assert OBJECT.address() == "inbox/a b/ä+.dcm"
