"""Jobs that were asked for, and are not in the catalog yet: for a moment, or as long as ingest is away."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite

from voxelmill_gateway.tables import REQUESTS
from voxelmill_shared.catalog import JobStatus, JobView, StageOutcome, StageView
from voxelmill_shared.database import is_sqlite
from voxelmill_shared.events import Stage
from voxelmill_shared.results import ResultKeys

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from voxelmill_shared.catalog import Scope
    from voxelmill_shared.plan import Plan


async def remember(connection: AsyncConnection, job_id: str, current: JobView, plan: Plan, project: str) -> None:
    """Write down that a job of the instances of the current one was asked for. Asked again, nothing changes."""
    row = {
        "job_id": job_id,
        "series_instance_uid": current.keys.series_instance_uid,
        "study_instance_uid": current.study_instance_uid,
        "project": project,
        "revision": current.revision,
        "modality": current.modality,
        "instances": current.instances,
        "plan": plan.model_dump(mode="json"),
        "created": datetime.now(UTC),
    }
    insert = sqlite.insert(REQUESTS) if is_sqlite(connection) else postgresql.insert(REQUESTS)
    await connection.execute(insert.on_conflict_do_nothing(), row)


async def find_requested(connection: AsyncConnection, scope: Scope, job_id: str) -> JobView | None:
    """Return a job that was asked for: processing, with no stage settled. None if nobody within the scope has."""
    query = scope.over(select(REQUESTS).where(REQUESTS.c.job_id == job_id), REQUESTS.c.project)
    row = (await connection.execute(query.order_by(REQUESTS.c.created.desc()).limit(1))).first()
    if row is None:
        return None
    return JobView(
        keys=ResultKeys(row.series_instance_uid, row.revision, row.job_id),
        study_instance_uid=row.study_instance_uid,
        status=JobStatus.PROCESSING,
        superseded=False,
        modality=row.modality,
        instances=row.instances,
        evidence="",
        plan=row.plan,
        validated_at=None,
        indexed_at=None,
        receipt_key="",
        receipt_sha256="",
        trace_id="",
        stages=tuple(StageView(stage, StageOutcome.PENDING) for stage in Stage),
    )
