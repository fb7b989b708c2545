"""What each event writes into the catalog. All of it happens in one transaction per event, the audit record included.

Rows are taken in one order everywhere (study, series, job, stage, and last the head of the audit trail), so that
replicas wait for each other and never block each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, or_, select, update

from voxelmill_index.audit import stage_of
from voxelmill_index.described import put_derived, put_series_header
from voxelmill_index.upserts import insert_once, put_newest
from voxelmill_shared.catalog import JobStatus, ObjectStatus, StageOutcome
from voxelmill_shared.catalog.tables import ARTEFACTS, INSTANCES, JOBS, OBJECTS, SERIES, STAGES, STUDIES
from voxelmill_shared.events import (
    ObjectRejected,
    ObjectValidated,
    SeriesSegmented,
    SeriesValidated,
    Severity,
    Stage,
    StageDone,
    StageFailed,
    StageSkipped,
)
from voxelmill_shared.projects import project_of
from voxelmill_shared.results import ResultKeys

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from voxelmill_index.describing import Description
    from voxelmill_shared.events import Envelope, Event
    from voxelmill_shared.results import StageRecord

WEIGHT = {StageOutcome.FAILED: 1, StageOutcome.SKIPPED: 2, StageOutcome.DONE: 3}
"""What outweighs what, whatever arrives first: work that is done stays done, and a replay mends a failure."""
IMPLIED_WEIGHT = 0
"""Of an outcome that nobody told of, see `Completion.implied`."""


def job_of(event: Event) -> ResultKeys | None:
    """Return the job that an event brings forward, or none."""
    match event:
        case SeriesValidated() | StageDone() | StageSkipped():
            return ResultKeys.of(event)
        case StageFailed(series_instance_uid=uid, revision=revision, job_id=job) if uid and revision and job:
            return ResultKeys(uid, revision, job)
        case _:
            return None


def job_columns(keys: ResultKeys) -> dict[str, Any]:
    """Return the columns by which every table names a job."""
    return {"series_instance_uid": keys.series_instance_uid, "revision": keys.revision, "job_id": keys.job_id}


async def record_event(
    connection: AsyncConnection,
    envelope: Envelope,
    event: Event,
    record: StageRecord | None,
    found: Description,
) -> None:
    """Write all that an event says but its audit record, which comes last in the transaction (`trail.append`).

    Parameters
    ----------
    connection
        The transaction.
    envelope, event
        The message.
    record
        For an event that says a stage is done: the stage's record. None if the record was replaced since, by that of
        another attempt that has been indexed already; then only the audit trail learns of this event.
    found
        What was read on behalf of the event.
    """
    if isinstance(event, StageDone) and record is None:
        return
    source = {"event_time": envelope.time, "event_id": str(envelope.id)}
    match event:
        case ObjectValidated():
            await _object_validated(connection, source, event)
        case ObjectRejected():
            await _object_rejected(connection, source, event)
        case StageFailed(stage=Stage.INGEST, object_address=address) if address:
            await _object_failed(connection, source, event)
        case _:
            pass
    if keys := job_of(event):
        await _job(connection, source, event, keys, found.project)
        stands = await _stage(connection, source, event, keys, record)
        if isinstance(event, SeriesValidated):
            await _series_validated(connection, envelope, event, keys)
            await put_series_header(connection, source, event, found)
        if isinstance(event, SeriesSegmented) and stands:
            await put_derived(connection, source, keys, event.study_instance_uid, found)


async def _object_validated(connection: AsyncConnection, source: dict[str, Any], event: ObjectValidated) -> None:
    if event.series_instance_uid:
        project = project_of(event.object.key)
        await _series(
            connection, source, event.study_instance_uid, event.series_instance_uid, event.modality, project=project
        )
        await put_newest(
            connection,
            INSTANCES,
            {
                "series_instance_uid": event.series_instance_uid,
                "sop_instance_uid": event.sop_instance_uid,
                "sop_class_uid": event.sop_class_uid,
                "transfer_syntax_uid": event.transfer_syntax_uid,
                "instance_number": event.instance_number,
                "rows": event.rows,
                "columns": event.columns,
                "frames": event.frames,
                "object_address": event.object.address(),
                "size": event.object.size,
                **source,
            },
        )
    row = _object_row(event) | source
    row |= {"kind": event.kind.value, "members": event.members, "warnings": list(event.warnings)}
    await put_newest(connection, OBJECTS, row | {"status": ObjectStatus.VALIDATED.value})


async def _object_rejected(connection: AsyncConnection, source: dict[str, Any], event: ObjectRejected) -> None:
    status = ObjectStatus.SKIPPED if event.severity is Severity.SKIP else ObjectStatus.REJECTED
    row = _object_row(event) | source
    row |= {"status": status.value, "reason": event.reason, "detail": event.detail}
    await put_newest(connection, OBJECTS, row)


async def _object_failed(connection: AsyncConnection, source: dict[str, Any], event: StageFailed) -> None:
    row = _object_row(None) | source | {"address": event.object_address, "status": ObjectStatus.FAILED.value}
    await put_newest(connection, OBJECTS, row | {"reason": event.error_class, "detail": event.reason})


def _object_row(event: ObjectValidated | ObjectRejected | None) -> dict[str, Any]:
    row: dict[str, Any] = {"kind": "", "reason": "", "detail": "", "members": 0, "warnings": []}
    if event is None:
        uids = dict.fromkeys(("study_instance_uid", "series_instance_uid", "sop_instance_uid", "modality"), "")
        return row | uids | {"etag": "", "size": 0, "version_id": None, "upload_id": None}
    return row | {
        "address": event.object.address(),
        "etag": event.object.etag,
        "size": event.object.size,
        "version_id": event.object.version_id,
        "study_instance_uid": event.study_instance_uid,
        "series_instance_uid": event.series_instance_uid,
        "sop_instance_uid": event.sop_instance_uid,
        "modality": event.modality,
        "upload_id": event.upload_id,
    }


async def _series(
    connection: AsyncConnection,
    source: dict[str, Any],
    study: str,
    series: str,
    modality: str,
    known_from: int = 0,
    project: str = "",
) -> None:
    seen = {"first_seen": source["event_time"]}
    if study:
        await insert_once(connection, STUDIES, {"study_instance_uid": study, **seen}, "study_instance_uid")
    row = {"series_instance_uid": series, "study_instance_uid": study, "modality": modality, "known_from": known_from}
    row["project"] = project
    # A whole revision knows better than a single object, and a modality is better than none.
    order = ("known_from", "modality", "study_instance_uid", "project")
    await put_newest(connection, SERIES, row | seen, order, kept=("first_seen",), filled=("project",))


async def _job(
    connection: AsyncConnection, source: dict[str, Any], event: Event, keys: ResultKeys, project: str
) -> None:
    """Make sure of the job's row and lock it, so that of two stages that settle at once one sees the other."""
    study: str = getattr(event, "study_instance_uid", "")
    modality, known_from = (event.modality, event.revision) if isinstance(event, SeriesValidated) else ("", 0)
    await _series(connection, source, study, keys.series_instance_uid, modality, known_from, project)
    row = {
        **job_columns(keys),
        "study_instance_uid": study,
        "status": JobStatus.PROCESSING.value,
        "modality": "",
        "instances": 0,
        "evidence": "",
        "manifest_key": "",
        "manifest_sha256": "",
        "trace_id": "",
        "receipt_key": "",
        "receipt_sha256": "",
    }
    if not await insert_once(connection, JOBS, row, *job_columns(keys)):
        await lock_job(connection, keys)


async def lock_job(connection: AsyncConnection, keys: ResultKeys) -> None:
    """Wait for whoever else is changing the job, and keep others waiting until the transaction ends.

    SQLite has one writer at a time anyway, and ignores the clause.
    """
    await connection.execute(select(JOBS.c.job_id).filter_by(**job_columns(keys)).with_for_update())


async def _series_validated(
    connection: AsyncConnection, envelope: Envelope, event: SeriesValidated, keys: ResultKeys
) -> None:
    # The same fact published again changes nothing, not even the trace. Another manifest does, if it is newer.
    known = JOBS.c.validated_at
    newer = (JOBS.c.manifest_sha256 != event.manifest.sha256) & (known < envelope.time)
    await connection.execute(
        update(JOBS)
        .filter_by(**job_columns(keys))
        .where(or_(known.is_(None), newer))
        .values(
            validated_at=envelope.time,
            study_instance_uid=event.study_instance_uid,
            modality=event.modality,
            instances=event.instances,
            evidence=event.evidence.value,
            plan=event.plan.model_dump(mode="json"),
            manifest_key=event.manifest.key,
            manifest_sha256=event.manifest.sha256,
            trace_id=envelope.trace_id,
        )
    )


async def _stage(
    connection: AsyncConnection, source: dict[str, Any], event: Event, keys: ResultKeys, record: StageRecord | None
) -> bool:
    """Write how a stage ended; tell whether that stands now, and did not before."""
    match event:
        case StageSkipped(reason=reason):
            fields: dict[str, Any] = {"outcome": StageOutcome.SKIPPED, "reason": reason}
        case StageFailed():
            names = ("reason", "error_class", "attempts", "replays")
            fields = {"outcome": StageOutcome.FAILED, **event.model_dump(include=set(names))}
        case StageDone(record=document) if record is not None:
            fields = {"outcome": StageOutcome.DONE, "record_key": document.key, "record_sha256": document.sha256}
            fields |= record.model_dump(include={"service_version", "started", "finished", "seconds", "measurements"})
            fields["warnings"] = list(record.warnings)
        case _:  # series.validated: the stage before all of them
            fields = {"outcome": StageOutcome.DONE, "finished": source["event_time"]}
    stage = stage_of(event)
    changed = await put_stage(connection, keys, stage, fields | source, WEIGHT[fields["outcome"]])
    if changed and record is not None:
        await _artefacts(connection, keys, record)
    return changed


async def put_stage(
    connection: AsyncConnection, keys: ResultKeys, stage: Stage, fields: dict[str, Any], weight: int
) -> bool:
    """Write how a stage ended, unless something that outweighs it is known; tell whether it was written."""
    row: dict[str, Any] = {
        **job_columns(keys),
        "stage": stage.value,
        "weight": weight,
        "reason": "",
        "error_class": "",
        "attempts": 0,
        "replays": 0,
        "record_key": "",
        "record_sha256": "",
        "service_version": "",
        "started": None,
        "finished": None,
        "seconds": {},
        "measurements": {},
        "warnings": [],
        **fields,
    }
    row["outcome"] = StageOutcome(row["outcome"]).value
    return await put_newest(connection, STAGES, row, ("weight", "event_time", "event_id"))


async def _artefacts(connection: AsyncConnection, keys: ResultKeys, record: StageRecord) -> None:
    columns = job_columns(keys)
    await connection.execute(delete(ARTEFACTS).filter_by(**columns, stage=record.stage.value))
    rows = [{**columns, "stage": record.stage.value, **artefact.model_dump()} for artefact in record.artefacts]
    if rows:
        await connection.execute(insert(ARTEFACTS), rows)
