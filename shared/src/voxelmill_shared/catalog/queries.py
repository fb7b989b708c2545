"""Reading the catalog: what the command and the gateway ask. Every function takes an open connection and only reads."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, func, inspect, or_, select

from voxelmill_shared.catalog.states import JobStatus, ObjectStatus, StageOutcome
from voxelmill_shared.catalog.tables import ARTEFACTS, AUDIT, INSTANCES, JOBS, OBJECTS, SERIES, STAGES, STUDIES
from voxelmill_shared.catalog.views import (
    ArtefactView,
    AuditView,
    Counts,
    JobView,
    ObjectView,
    SeriesView,
    StageView,
)
from voxelmill_shared.events import Severity, Stage
from voxelmill_shared.results import ResultKeys

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Row, Table
    from sqlalchemy.ext.asyncio import AsyncConnection


CURRENT_FIRST: Final = (
    JOBS.c.revision.desc(),
    JOBS.c.validated_at.is_(None),
    JOBS.c.validated_at.desc(),
    JOBS.c.job_id,
)
"""The order in which the first job of a series is its current one: see `JobView.superseded`."""


async def exists(connection: AsyncConnection) -> bool:
    """Tell whether the catalog's tables are there: index makes them when it first starts."""
    return await connection.run_sync(lambda synchronous: bool(inspect(synchronous).has_table(AUDIT.name)))


async def list_series(
    connection: AsyncConnection, study: str | None = None, limit: int = 100, offset: int = 0
) -> list[SeriesView]:
    """List series with their current jobs, newest first; of one study if `study` is a Study Instance UID."""
    query = select(SERIES).order_by(SERIES.c.first_seen.desc(), SERIES.c.series_instance_uid)
    if study is not None:
        query = query.where(SERIES.c.study_instance_uid == study)
    return await series_views(connection, (await connection.execute(query.limit(limit).offset(offset))).all())


async def get_series(connection: AsyncConnection, uid: str) -> SeriesView | None:
    """Return one series by its Series Instance UID, or none."""
    rows = (await connection.execute(select(SERIES).where(SERIES.c.series_instance_uid == uid))).all()
    found = await series_views(connection, rows)
    return found[0] if found else None


async def series_jobs(connection: AsyncConnection, uid: str) -> list[JobView]:
    """Return every job of a series, the current one first, superseded ones after it, newest first."""
    return await jobs_of(connection, [uid])


async def find_job(connection: AsyncConnection, job_id: str) -> JobView | None:
    """Return a job by its id, or none; if several revisions have had it, the newest."""
    query = select(JOBS.c.series_instance_uid).where(JOBS.c.job_id == job_id).distinct()
    jobs = await jobs_of(connection, (await connection.execute(query)).scalars().all())
    return next((job for job in jobs if job.job_id == job_id), None)


async def artefacts(connection: AsyncConnection, keys: ResultKeys) -> list[ArtefactView]:
    """Return the result files of a job by name."""
    query = select(ARTEFACTS).where(_is_job(ARTEFACTS, keys)).order_by(ARTEFACTS.c.name)
    return [artefact_view(row, keys) for row in await connection.execute(query)]


def artefact_view(row: Row[Any], keys: ResultKeys) -> ArtefactView:
    """Return a row of `ARTEFACTS` as the catalog shows it."""
    return ArtefactView(
        key=keys.artefact(row.name),
        name=row.name,
        stage=Stage(row.stage),
        media_type=row.media_type,
        size=row.size,
        sha256=row.sha256,
    )


async def objects(
    connection: AsyncConnection, status: ObjectStatus | None = None, limit: int = 1000, offset: int = 0
) -> list[ObjectView]:
    """List objects by address, with their last known status; only those of one status if it is given."""
    query = select(OBJECTS).order_by(OBJECTS.c.address)
    if status is not None:
        query = query.where(OBJECTS.c.status == status)
    return [_object(row) for row in await connection.execute(query.limit(limit).offset(offset))]


async def get_object(connection: AsyncConnection, address: str) -> ObjectView | None:
    """Return one object by its address, or none."""
    row = (await connection.execute(select(OBJECTS).where(OBJECTS.c.address == address))).first()
    return _object(row) if row else None


async def addresses(connection: AsyncConnection, digests: Sequence[str]) -> dict[str, str]:
    """Return the addresses of objects by the digests that log lines and audit records name them by (`privacy`)."""
    query = select(OBJECTS.c.digest, OBJECTS.c.address).where(OBJECTS.c.digest.in_(digests)).order_by(OBJECTS.c.address)
    return {row.digest: row.address for row in await connection.execute(query)}


async def counts(connection: AsyncConnection) -> Counts:
    """Count what the catalog holds."""

    async def total(table: Table) -> int:
        return (await connection.execute(select(func.count()).select_from(table))).scalar_one()

    async def by_status(table: Table) -> dict[str, int]:
        rows = await connection.execute(select(table.c.status, func.count()).group_by(table.c.status))
        return {row[0]: row[1] for row in rows}

    of_objects, of_jobs = await by_status(OBJECTS), await by_status(JOBS)
    return Counts(
        studies=await total(STUDIES),
        series=await total(SERIES),
        instances=await total(INSTANCES),
        objects={status: of_objects.get(status, 0) for status in ObjectStatus},
        jobs={status: of_jobs.get(status, 0) for status in JobStatus},
        artefacts=await total(ARTEFACTS),
        audit=await total(AUDIT),
    )


async def audit(
    connection: AsyncConnection,
    *,
    uid: str | None = None,
    job_id: str | None = None,
    what: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    after: int = 0,
    limit: int = 1000,
) -> list[AuditView]:
    """Read the audit trail in the order in which it was recorded.

    Parameters
    ----------
    uid
        Only records about this study, series or SOP instance.
    job_id
        Only records of this job.
    what
        Only records of this event type, `series.validated.v1`.
    since, until
        Only what was recorded then or later, and only what was recorded before.
    after
        Only records with a greater number: the last number of the page before.
    limit
        How many at most.
    """
    query = select(AUDIT).where(AUDIT.c.number > after).order_by(AUDIT.c.number).limit(limit)
    if uid is not None:
        columns = (AUDIT.c.study_instance_uid, AUDIT.c.series_instance_uid, AUDIT.c.sop_instance_uid)
        query = query.where(or_(*(column == uid for column in columns)))
    if job_id is not None:
        query = query.where(AUDIT.c.job_id == job_id)
    if what is not None:
        query = query.where(AUDIT.c.what == what)
    if since is not None:
        query = query.where(AUDIT.c.recorded >= since)
    if until is not None:
        query = query.where(AUDIT.c.recorded < until)
    return [AuditView(**row._asdict()) for row in await connection.execute(query)]


async def series_views(connection: AsyncConnection, rows: Sequence[Row[Any]]) -> list[SeriesView]:
    """Return series with their current jobs, in the order of their rows, which are those of `SERIES`."""
    uids = [row.series_instance_uid for row in rows]
    jobs: dict[str, list[JobView]] = defaultdict(list)
    for job in await jobs_of(connection, uids):
        jobs[job.keys.series_instance_uid].append(job)
    counting = (
        select(INSTANCES.c.series_instance_uid, func.count())
        .where(INSTANCES.c.series_instance_uid.in_(uids))
        .group_by(INSTANCES.c.series_instance_uid)
    )
    instances = {row[0]: row[1] for row in await connection.execute(counting)}
    return [
        SeriesView(
            series_instance_uid=row.series_instance_uid,
            study_instance_uid=row.study_instance_uid,
            modality=row.modality,
            instances=instances.get(row.series_instance_uid, 0),
            revisions=len({job.revision for job in jobs[row.series_instance_uid]}),
            first_seen=row.first_seen,
            job=next(iter(jobs[row.series_instance_uid]), None),
        )
        for row in rows
    ]


async def jobs_of(connection: AsyncConnection, uids: Sequence[str]) -> list[JobView]:
    """Return all jobs of some series: newest revision first, within it the job that was validated last."""
    query = (
        select(JOBS).where(JOBS.c.series_instance_uid.in_(uids)).order_by(JOBS.c.series_instance_uid, *CURRENT_FIRST)
    )
    rows = (await connection.execute(query)).all()
    stages: dict[ResultKeys, dict[Stage, Row[Any]]] = defaultdict(dict)
    for row in await connection.execute(select(STAGES).where(STAGES.c.series_instance_uid.in_(uids))):
        stages[_keys(row)][Stage(row.stage)] = row
    files = await _artefact_totals(connection, uids)
    views: list[JobView] = []
    for row in rows:
        keys = _keys(row)
        superseded = bool(views) and views[-1].keys.series_instance_uid == keys.series_instance_uid
        found = (_stage(stage, stages[keys].get(stage), files.get((keys, stage), (0, 0))) for stage in Stage)
        views.append(_job(row, keys, found, superseded=superseded))
    return views


async def _artefact_totals(
    connection: AsyncConnection, uids: Sequence[str]
) -> dict[tuple[ResultKeys, Stage], tuple[int, int]]:
    key = (ARTEFACTS.c.series_instance_uid, ARTEFACTS.c.revision, ARTEFACTS.c.job_id, ARTEFACTS.c.stage)
    query = (
        select(*key, func.count().label("files"), func.sum(ARTEFACTS.c.size).label("total"))
        .where(ARTEFACTS.c.series_instance_uid.in_(uids))
        .group_by(*key)
    )
    return {(_keys(row), Stage(row.stage)): (row.files, int(row.total)) for row in await connection.execute(query)}


def _is_job(table: Table, keys: ResultKeys) -> ColumnElement[bool]:
    return (
        (table.c.series_instance_uid == keys.series_instance_uid)
        & (table.c.revision == keys.revision)
        & (table.c.job_id == keys.job_id)
    )


def _keys(row: Row[Any]) -> ResultKeys:
    return ResultKeys(row.series_instance_uid, row.revision, row.job_id)


def _job(row: Row[Any], keys: ResultKeys, stages: Iterable[StageView], *, superseded: bool) -> JobView:
    return JobView(
        keys=keys,
        study_instance_uid=row.study_instance_uid,
        status=JobStatus(row.status),
        superseded=superseded,
        modality=row.modality,
        instances=row.instances,
        evidence=row.evidence,
        plan=row.plan,
        validated_at=row.validated_at,
        indexed_at=row.indexed_at,
        receipt_key=row.receipt_key,
        receipt_sha256=row.receipt_sha256,
        trace_id=row.trace_id,
        stages=tuple(stages),
    )


def _stage(stage: Stage, row: Row[Any] | None, files: tuple[int, int]) -> StageView:
    if row is None:
        return StageView(stage, StageOutcome.PENDING)
    return StageView(
        stage=stage,
        outcome=StageOutcome(row.outcome),
        reason=row.reason,
        error_class=row.error_class,
        attempts=row.attempts,
        replays=row.replays,
        service_version=row.service_version,
        started=row.started,
        finished=row.finished,
        seconds=row.seconds,
        measurements=row.measurements,
        warnings=tuple(row.warnings),
        artefacts=files[0],
        size=files[1],
    )


def _object(row: Row[Any]) -> ObjectView:
    status = ObjectStatus(row.status)
    severity = {ObjectStatus.REJECTED: Severity.REJECT, ObjectStatus.SKIPPED: Severity.SKIP}.get(status, "")
    return ObjectView(
        address=row.address,
        status=status,
        severity=severity,
        reason=row.reason,
        detail=row.detail,
        kind=row.kind,
        size=row.size,
        series_instance_uid=row.series_instance_uid,
        sop_instance_uid=row.sop_instance_uid,
        members=row.members,
        warnings=tuple(row.warnings),
        seen=row.event_time,
    )
