"""GET /audit: the audit trail, in the order in which it was recorded."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from sqlalchemy import func, select

from voxelmill_gateway.access.callers import InstallationAdmin
from voxelmill_gateway.gateway import Gate
from voxelmill_gateway.rest.fields import Limit, Moment, Word
from voxelmill_gateway.rest.links import next_page
from voxelmill_gateway.rest.models import Answer
from voxelmill_shared import catalog
from voxelmill_shared.catalog.tables import AUDIT
from voxelmill_shared.database import reading

router = APIRouter(tags=["audit"])


class AuditRecord(Answer):
    """Who did what, on what, with which outcome, when (DICOM PS3.15 A.5). Objects are named by their digests."""

    number: int
    event_id: str
    who: str
    what: str
    subject: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    object_address: str
    job_id: str
    stage: str
    outcome: str
    reason: str
    occurred: datetime
    recorded: datetime
    trace_id: str
    caused_by: str | None
    hash: str = Field(description="over the record and the hash of the one before it")


class AuditPage(Answer):
    """A page of the audit trail."""

    items: list[AuditRecord]
    total: int = Field(description="the number of the trail's last record, whatever was looked for")
    next: str | None = Field(description="the address of the next page")


@router.get("/audit", operation_id="list_audit", summary="The audit trail, the oldest record first")
async def list_audit(
    request: Request,
    response: Response,
    gate: Gate,
    caller: InstallationAdmin,
    after: Annotated[int, Query(ge=0, le=2**63 - 1, description="only records with a greater number")] = 0,
    limit: Limit = 100,
    uid: Annotated[Word, Query(description="of this study, series or SOP instance")] = "",
    job: Annotated[Word, Query(description="of this job")] = "",
    what: Annotated[Word, Query(description="of this event type, series.validated.v1")] = "",
    since: Annotated[Moment | None, Query(description="recorded then or later")] = None,
    until: Annotated[Moment | None, Query(description="recorded before")] = None,
) -> AuditPage:
    """Answer records of the whole installation. That they were read is one of the records to come."""
    await gate.trail.record(caller, "read", detail="the audit trail")
    async with reading(gate.engine) as connection:
        records = await catalog.audit(
            connection,
            uid=uid or None,
            job_id=job or None,
            what=what or None,
            since=since,
            until=until,
            after=after,
            limit=limit,
        )
        total = (await connection.execute(select(func.coalesce(func.max(AUDIT.c.number), 0)))).scalar_one()
    response.headers["Cache-Control"] = "no-store"
    return AuditPage(
        items=[AuditRecord.model_validate(record, from_attributes=True) for record in records],
        total=total,
        next=next_page(request, after=records[-1].number) if len(records) == limit else None,
    )
