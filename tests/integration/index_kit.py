"""What the tests of index have in common: a series with real documents in a real store, and events about it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from voxelmill_index.handler import IndexEvent
from voxelmill_index.settling import SettleJob
from voxelmill_index.tables import OUTBOX
from voxelmill_shared.catalog.tables import ARTEFACTS, INSTANCES, JOBS, OBJECTS, SERIES, STAGES, STUDIES
from voxelmill_shared.database import open_database, reading
from voxelmill_shared.events import (
    DocumentRef,
    Envelope,
    Event,
    Evidence,
    ObjectKind,
    ObjectRef,
    ObjectRejected,
    ObjectValidated,
    SeriesIndexed,
    SeriesMeshed,
    SeriesSegmented,
    SeriesThumbnailed,
    SeriesValidated,
    Severity,
    Stage,
    StageFailed,
    StageSkipped,
    cause,
    open_envelope,
)
from voxelmill_shared.plan import Plan
from voxelmill_shared.results import Artefact, ManifestInstance, Receipt, ResultKeys, SeriesManifest, StageRecord
from voxelmill_shared.storage.local import LocalStore
from voxelmill_shared.storage.stores import Stores

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncEngine

    from voxelmill_shared.outcome import Outcome
    from voxelmill_shared.storage.base import ObjectStore

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
FILES = {
    Stage.THUMBNAIL: {"thumbnails/axial.webp": b"axial", "preview.webp": b"preview"},
    Stage.SEGMENT: {"segmentation/labelmap.nii.gz": b"labels"},
    Stage.MESH: {"meshes/lung_left.stl": b"left", "meshes/lung_right.stl": b"right", "meshes/scene.glb": b"scene"},
}
DONE = {Stage.THUMBNAIL: SeriesThumbnailed, Stage.SEGMENT: SeriesSegmented, Stage.MESH: SeriesMeshed}
VOLATILE = {"digest", "event_id", "first_seen", "indexed_at", "manifest_sha256", "record_sha256", "receipt_sha256"}
"""Columns that hold a time of this run, or a digest over UIDs that each example has its own of."""


@dataclass
class Series:
    """One revision of a series with two instances. `minute` grows, so that every event has a time of its own."""

    store: ObjectStore
    uid: str
    revision: int = 1
    plan: Plan = field(default_factory=Plan)
    minute: int = 0

    @property
    def study(self) -> str:
        return f"{self.uid}.0"

    @property
    def keys(self) -> ResultKeys:
        job = self.plan.job_id([f"etag-{number}:{100 + number}" for number in range(1, 2 + self.revision)])
        return ResultKeys(self.uid, self.revision, job)

    @property
    def names(self) -> dict[str, Any]:
        keys = self.keys
        return {
            "study_instance_uid": self.study,
            "series_instance_uid": self.uid,
            "revision": self.revision,
            "job_id": keys.job_id,
        }

    def wrap(self, event: Event, *, replays: int = 0) -> Envelope:
        """Put an event into an envelope of which all is fixed that can be."""
        self.minute += 1
        time = NOON + timedelta(hours=self.revision, minutes=self.minute + replays)
        trace = f"00-{'ab' * 16}-{'cd' * 8}-01"
        return Envelope.wrap(event, "voxelmill/test").model_copy(update={"time": time, "traceparent": trace})

    def reference(self, number: int) -> ObjectRef:
        return ObjectRef(bucket="inbox", key=f"{self.uid}/{number}.dcm", etag=f"etag-{number}", size=100 + number)

    def objects(self) -> list[Envelope]:
        """Two slices that ingest takes, and a scout that it skips."""
        slices = [
            ObjectValidated(
                object=self.reference(number),
                kind=ObjectKind.DICOM,
                study_instance_uid=self.study,
                series_instance_uid=self.uid,
                sop_instance_uid=f"{self.uid}.{number}",
                modality="CT",
                instance_number=number,
                rows=512,
                columns=512,
                warnings=("odd",) if number == 2 else (),
            )
            for number in range(1, 2 + self.revision)
        ]
        scout = ObjectRejected(
            object=self.reference(0),
            severity=Severity.SKIP,
            reason="localizer",
            detail="a scout is no slice",
            study_instance_uid=self.study,
            modality="CT",
        )
        return [self.wrap(event) for event in (*slices, scout)]

    async def validated(self) -> Envelope:
        """Write the manifest and say that the series is complete."""
        keys = self.keys
        instances = tuple(
            ManifestInstance(object=self.reference(n), sop_instance_uid=f"{self.uid}.{n}", instance_number=n)
            for n in range(1, 2 + self.revision)
        )
        manifest = SeriesManifest(
            **self.names, modality="CT", kind=ObjectKind.DICOM, plan=self.plan, instances=instances
        )
        stored = await self.store.write(keys.manifest, manifest.to_json())
        return self.wrap(
            SeriesValidated(
                **self.names,
                modality="CT",
                instances=len(instances),
                manifest=DocumentRef(key=stored.key, sha256=stored.sha256),
                plan=self.plan,
                evidence=Evidence.UPLOAD,
            )
        )

    async def done(self, stage: Stage, seconds: float = 1.5) -> Envelope:
        """Write the artefacts and the record of a stage, and say that it is done."""
        keys = self.keys
        for name, body in FILES[stage].items():
            await self.store.write(keys.artefact(name), body)
        record = StageRecord(
            stage=stage,
            service_version="9.8.7",
            started=NOON,
            finished=NOON + timedelta(seconds=seconds),
            seconds={"domain": seconds},
            artefacts=tuple(
                Artefact(name=name, media_type="x/y", size=len(body), sha256=hashlib.sha256(body).hexdigest())
                for name, body in sorted(FILES[stage].items())
            ),
            measurements={"spacing_mm": [0.5, 0.5, 2.0]},
            warnings=(f"{stage} was odd",),
        )
        stored = await self.store.write(keys.stage_record(stage), record.to_json())
        document = DocumentRef(key=stored.key, sha256=stored.sha256)
        event = DONE[stage](**self.names, record=document, artefacts=len(record.artefacts), plan=self.plan)
        return self.wrap(event)

    def skipped(self, stage: Stage) -> Envelope:
        return self.wrap(StageSkipped(**self.names, stage=stage, reason="not for this series"))

    def failed(self, stage: Stage, replays: int = 0) -> Envelope:
        event = StageFailed(
            **self.names,
            stage=stage,
            queue=f"{stage}.queue",
            error_class="killed",
            reason=f"out of memory {replays}",
            attempts=5,
            message_id=f"message-{self.uid}",
            message_type="series.validated.v1",
            replays=replays,
        )
        return self.wrap(event, replays=replays)

    async def all(self) -> list[Envelope]:
        """Return every event of a job that goes well, in the usual order."""
        return [*self.objects(), await self.validated(), *[await self.done(stage) for stage in DONE]]


@dataclass
class Index:
    """One replica of index on a database and a store."""

    engine: AsyncEngine
    store: LocalStore
    handler: IndexEvent
    notified: list[bool]

    @classmethod
    def open(cls, url: str, folder: Path) -> Index:
        engine = open_database(url)
        store = LocalStore(folder, "results")
        inbox, work = (LocalStore(folder.parent / name, name) for name in ("inbox", "work"))
        notified: list[bool] = []
        settle = SettleJob(engine, store, OUTBOX)
        stores = Stores(inbox, work, store)
        return cls(engine, store, IndexEvent(engine, stores, settle, lambda: notified.append(True)), notified)

    async def take(self, envelope: Envelope) -> Outcome:
        """Give one message to the handler, as the runtime does."""
        token = cause.set(envelope)
        try:
            return await self.handler(open_envelope(envelope))
        finally:
            cause.reset(token)

    async def indexed(self, uid: str | None = None) -> list[SeriesIndexed]:
        """Return what waits in the outbox."""
        async with reading(self.engine) as connection:
            bodies = (await connection.execute(select(OUTBOX.c.body).order_by(OUTBOX.c.id))).scalars().all()
        events = [open_envelope(Envelope.decode(body)) for body in bodies]
        return [event for event in events if isinstance(event, SeriesIndexed) and uid in (None, event.subject())]

    async def receipt(self, event: SeriesIndexed) -> Receipt:
        """Read the receipt that an event names; its digest must be the one that the event says."""
        body = await self.store.read(event.receipt.key)
        assert hashlib.sha256(body).hexdigest() == event.receipt.sha256
        return Receipt.model_validate_json(body)

    async def contents(self, uid: str) -> dict[str, Any]:
        """Return all that the catalog holds about one series, with its UID and the times of this run taken out."""
        found: dict[str, Any] = {}
        async with reading(self.engine) as connection:
            for table in (STUDIES, SERIES, INSTANCES, OBJECTS, JOBS, STAGES, ARTEFACTS):
                rows = (await connection.execute(select(table))).mappings().all()
                lines = [_plain(dict(row)) for row in rows]
                found[table.name] = sorted(line.replace(uid, "UID") for line in lines if uid in line)
        return found


def _plain(row: dict[str, Any]) -> str:
    told = row.get("weight") != 0 and row.get("stage") != Stage.INDEX
    kept = {name: value for name, value in row.items() if name not in VOLATILE}
    if not told:
        kept = {name: value for name, value in kept.items() if name not in ("event_time", "finished")}
    return json.dumps(kept, sort_keys=True, default=str)
