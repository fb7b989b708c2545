"""What an event about a series or a job writes into the catalog, in one transaction with its audit record.

Rows are taken in one order everywhere (study, series, instance, object, job, stage, and last the head of the audit
trail), so that replicas wait for each other and never block each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, or_, select, update

from voxelmill_index.audit import stage_of
from voxelmill_index.described import put_derived, put_series_header
from voxelmill_index.objects import object_failed, put_series
from voxelmill_index.upserts import insert_once, put_newest
from voxelmill_shared.catalog import JobStatus, StageOutcome
from voxelmill_shared.catalog.tables import ARTEFACTS, JOBS, STAGES
from voxelmill_shared.events import (
    SeriesSegmented,
    SeriesValidated,
    Stage,
    StageDone,
    StageFailed,
    StageSkipped,
)
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
    if isinstance(event, StageFailed) and event.stage is Stage.INGEST and event.object_address:
        await object_failed(connection, source, event)
    if keys := job_of(event):
        await _job(connection, source, event, keys, found.project)
        stands = await _stage(connection, source, event, keys, record)
        if isinstance(event, SeriesValidated):
            await _series_validated(connection, envelope, event, keys)
            await put_series_header(connection, source, event, found)
        if isinstance(event, SeriesSegmented) and stands:
            await put_derived(connection, source, keys, event.study_instance_uid, found)


async def _job(
    connection: AsyncConnection, source: dict[str, Any], event: Event, keys: ResultKeys, project: str
) -> None:
    """Make sure of the job's row and lock it, so that of two stages that settle at once one sees the other."""
    study: str = getattr(event, "study_instance_uid", "")
    modality, known_from = (event.modality, event.revision) if isinstance(event, SeriesValidated) else ("", 0)
    series: dict[str, Any] = {"series_instance_uid": keys.series_instance_uid, "study_instance_uid": study}
    series |= {"modality": modality, "known_from": known_from, "project": project, "first_seen": source["event_time"]}
    await put_series(connection, [series])
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
