"""Bringing a job to its end: the receipt, then the catalog's rows and `series.indexed` in one transaction.

The receipt is written outside of any transaction, because a store can be slow. So what it was made from is read again,
under the job's lock, before it is believed: if another replica has learnt more meanwhile, the receipt is made anew.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import delete, select, update

from voxelmill_index.completion import EXPECTED, StageState
from voxelmill_index.receipt import JobState, make_receipt
from voxelmill_index.recording import IMPLIED_WEIGHT, WEIGHT, job_columns, lock_job, put_stage
from voxelmill_shared import outbox
from voxelmill_shared.catalog import JobStatus, StageOutcome
from voxelmill_shared.catalog.tables import ARTEFACTS, JOBS, STAGES
from voxelmill_shared.database import transaction
from voxelmill_shared.errors import ObjectMissingError
from voxelmill_shared.events import DocumentRef, Envelope, SeriesIndexed, Stage, Status
from voxelmill_shared.results import Artefact, ResultKeys, SeriesManifest, StageRecord
from voxelmill_shared.stage import read_document

if TYPE_CHECKING:
    from sqlalchemy import Table
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from voxelmill_shared.storage.base import ObjectStore

SOURCE = "voxelmill/index"
"""Who says `series.indexed`: the service, whichever replica it is."""


async def decide(connection: AsyncConnection, keys: ResultKeys) -> JobState | None:
    """Note in the catalog what follows from the stages of a job; return the job if every stage has settled.

    Called with the job's lock, in the transaction of the event that has changed it.
    """
    job = await read_job(connection, keys)
    implied = job.completion.implied if job else {}
    for stage, state in implied.items():
        fields = {"outcome": state.outcome, "reason": state.reason, "event_time": datetime.now(UTC), "event_id": ""}
        await put_stage(connection, keys, stage, fields, IMPLIED_WEIGHT)
    columns = job_columns(keys)
    if not implied:
        await connection.execute(delete(STAGES).filter_by(**columns, weight=IMPLIED_WEIGHT))
    if job and job.completion.status:
        return job
    await connection.execute(update(JOBS).filter_by(**columns).values(status=JobStatus.PROCESSING.value))
    return None


async def read_job(connection: AsyncConnection, keys: ResultKeys) -> JobState | None:
    """Read what the catalog knows of a job, or none if its series was not validated yet."""
    columns = job_columns(keys)
    row = (await connection.execute(select(JOBS).filter_by(**columns))).first()
    if row is None or row.validated_at is None:
        return None
    artefacts: dict[str, list[Artefact]] = {stage.value: [] for stage in Stage}
    for file in await connection.execute(select(ARTEFACTS).filter_by(**columns).order_by(ARTEFACTS.c.name)):
        artefacts[file.stage].append(
            Artefact(name=file.name, media_type=file.media_type, size=file.size, sha256=file.sha256)
        )
    told: dict[Stage, StageState] = {}
    records: dict[Stage, StageRecord] = {}
    stages = select(STAGES).filter_by(**columns).where(STAGES.c.weight > IMPLIED_WEIGHT, STAGES.c.stage.in_(EXPECTED))
    for line in await connection.execute(stages):
        stage = Stage(line.stage)
        told[stage] = StageState(StageOutcome(line.outcome), line.reason)
        if told[stage].outcome is StageOutcome.DONE:
            records[stage] = StageRecord(
                stage=stage,
                service_version=line.service_version,
                started=line.started,
                finished=line.finished,
                seconds=line.seconds,
                artefacts=tuple(artefacts[stage]),
                measurements=line.measurements,
                warnings=tuple(line.warnings),
            )
    return JobState(
        keys=keys,
        study_instance_uid=row.study_instance_uid,
        manifest=DocumentRef(key=row.manifest_key, sha256=row.manifest_sha256),
        trace_id=row.trace_id,
        told=told,
        records=records,
        written=DocumentRef(key=row.receipt_key, sha256=row.receipt_sha256) if row.receipt_key else None,
    )


@dataclass(frozen=True, slots=True)
class SettleJob:
    """Write the receipt of a job whose stages have all settled, and say so."""

    engine: AsyncEngine
    results: ObjectStore
    outbox: Table

    async def __call__(self, job: JobState) -> bool:
        """Bring the job to its end; return whether there is something new in the outbox.

        Raises
        ------
        ObjectMissingError, UnsupportedSeriesError
            If the manifest is not there, or is another one than the event named.
        """
        current: JobState | None = job
        while current and (status := current.completion.status):
            manifest = await read_document(self.results, current.manifest, SeriesManifest)
            body = make_receipt(current, manifest, status).to_json()
            receipt = DocumentRef(key=current.keys.receipt, sha256=hashlib.sha256(body).hexdigest())
            if not await self._stands(receipt):
                await self.results.write(receipt.key, body, "application/json")
            async with transaction(self.engine) as connection:
                await lock_job(connection, current.keys)
                known = await read_job(connection, current.keys)
                if known == current:
                    return await self._note(connection, current, status, receipt)
            current = known
        return False  # a stage is being done again, and its event will bring the job here once more

    async def _stands(self, receipt: DocumentRef) -> bool:
        try:
            return hashlib.sha256(await self.results.read(receipt.key)).hexdigest() == receipt.sha256
        except ObjectMissingError:
            return False

    async def _note(self, connection: AsyncConnection, job: JobState, status: Status, receipt: DocumentRef) -> bool:
        """Write the end of the job; `series.indexed` goes out whenever the receipt is another than the last one."""
        row = update(JOBS).filter_by(**job_columns(job.keys)).values(status=JobStatus(status.value).value)
        if job.written == receipt:
            await connection.execute(row)
            return False
        now = datetime.now(UTC)
        await connection.execute(row.values(indexed_at=now, receipt_key=receipt.key, receipt_sha256=receipt.sha256))
        event = SeriesIndexed(
            study_instance_uid=job.study_instance_uid,
            series_instance_uid=job.keys.series_instance_uid,
            revision=job.keys.revision,
            job_id=job.keys.job_id,
            status=status,
            receipt=receipt,
            failed_stages=job.completion.which(StageOutcome.FAILED),
            skipped_stages=job.completion.which(StageOutcome.SKIPPED),
        )
        done = {"outcome": StageOutcome.DONE, "finished": now, "event_time": now, "event_id": str(event.event_id())}
        await put_stage(connection, job.keys, Stage.INDEX, done, WEIGHT[StageOutcome.DONE])
        await outbox.add(connection, self.outbox, [Envelope.wrap(event, SOURCE)])
        return True
