"""What the tests of the gateway's reading routes have in common: a catalog with finished jobs, and a gateway over it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx
from sqlalchemy import insert

from voxelmill_gateway.access.callers import Role
from voxelmill_gateway.gateway import open_gateway
from voxelmill_gateway.server import serve
from voxelmill_gateway.settings import GatewaySettings
from voxelmill_shared.catalog.names import fold_name
from voxelmill_shared.catalog.tables import (
    ARTEFACTS,
    AUDIT,
    HEADERS,
    INSTANCES,
    JOBS,
    METADATA,
    OBJECTS,
    PROGRESS,
    SERIES,
    STAGES,
)
from voxelmill_shared.database import open_database, transaction
from voxelmill_shared.parts import open_parts
from voxelmill_shared.plan import Plan
from voxelmill_shared.results import ResultKeys

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
STL = bytes(range(256)) * 8192
"""2 MiB: more than one piece of an answer."""
STATISTICS = {
    "unit": "HU",
    "segments": [
        {"number": 2, "name": "lung_left", "mean": -801.67, "flags": ["cut-by-border"]},
        {"number": 3, "name": "airways", "mean": None, "flags": []},
    ],
}
FILES = {
    "thumbnails/preview.webp": ("thumbnail", "image/webp", b"RIFF preview"),
    "segmentation/labelmap.nii.gz": ("segment", "application/gzip", b"\x1f\x8b labels"),
    "segmentation/statistics.json": ("segment", "application/json", json.dumps(STATISTICS).encode()),
    "meshes/lung_left.stl": ("mesh", "model/stl", STL),
    "meshes/lung_left.obj": ("mesh", "model/obj", b"o lung_left\n"),
    "meshes/meshes.zip": ("mesh", "application/zip", b"PK of meshes"),
}
MEASUREMENTS = {
    "segments": [
        {"number": 3, "name": "airways", "rgb": [90, 200, 170], "volume_ml": 0.0},
        {"number": 2, "name": "lung_left", "rgb": [120, 170, 220], "volume_ml": 1693.711},
    ]
}
RECEIPT = b'{"job_id": "1"}\n'


def sha256(body):
    return hashlib.sha256(body).hexdigest()


@dataclass(frozen=True)
class Job:
    """A finished job of one series."""

    number: int
    project: str = "default"
    patient: str = "Phantom^Chest"
    stages: tuple[str, ...] = ("ingest", "thumbnail", "segment", "mesh", "index")
    upload: str | None = None

    @property
    def uid(self):
        return f"1.2.{self.number}"

    @property
    def study(self):
        return f"1.2.{self.number}.0"

    @property
    def job_id(self):
        return Plan().job_id([f"content-{self.number}"])

    @property
    def keys(self):
        return ResultKeys(self.uid, 1, self.job_id)

    @property
    def names(self):
        return {"series_instance_uid": self.uid, "revision": 1, "job_id": self.job_id}

    @property
    def complete(self):
        return "index" in self.stages

    @property
    def files(self):
        return {name: file for name, file in FILES.items() if file[0] in self.stages}


def source(number):
    return {"event_time": NOON, "event_id": f"event-{number}"}


async def add_job(connection, job):
    """Write the rows of a job."""
    seen = NOON + timedelta(minutes=job.number)
    prefix = "" if job.project == "default" else f"projects/{job.project}/"
    address = f"inbox/{prefix}{job.number}.dcm"
    await connection.execute(
        insert(SERIES).values(
            series_instance_uid=job.uid, study_instance_uid=job.study, modality="CT", known_from=1,
            project=job.project, first_seen=seen,
        )
    )  # fmt: skip
    header = {column.name: "" for column in HEADERS.columns}
    header |= {
        "series_instance_uid": job.uid, "study_instance_uid": job.study, "project": job.project,
        "patient_id": f"ID{job.number}", "patient_name": job.patient, "patient_name_folded": fold_name(job.patient),
        "study_date": "20260102", "modality": "CT", "series_number": job.number, "series_description": "chest",
        "study_json": {"00100020": {"vr": "LO", "Value": [f"ID{job.number}"]}}, "series_json": {}, **source(job.number),
    }  # fmt: skip
    await connection.execute(insert(HEADERS).values(header))
    uids = {"study_instance_uid": job.study, "series_instance_uid": job.uid, "sop_instance_uid": f"{job.uid}.1"}
    await connection.execute(
        insert(OBJECTS).values(
            address=address, etag="e", size=1, kind="dicom", status="validated", reason="", detail="", modality="CT",
            members=0, warnings=[], upload_id=job.upload, **uids, **source(job.number),
        )
    )  # fmt: skip
    await connection.execute(
        insert(INSTANCES).values(
            series_instance_uid=job.uid, sop_instance_uid=f"{job.uid}.1", sop_class_uid="", transfer_syntax_uid="",
            instance_number=1, rows=2, columns=2, frames=1, object_address=address, size=1, **source(job.number),
        )
    )  # fmt: skip
    await connection.execute(
        insert(JOBS).values(
            **job.names, study_instance_uid=job.study, status="complete" if job.complete else "processing",
            validated_at=seen, modality="CT", instances=1, evidence="upload", plan=Plan().model_dump(mode="json"),
            manifest_key=job.keys.manifest, manifest_sha256="0" * 64, trace_id="ab" * 16,
            indexed_at=seen if job.complete else None, receipt_key=job.keys.receipt if job.complete else "",
            receipt_sha256=sha256(RECEIPT) if job.complete else "",
        )
    )  # fmt: skip
    for stage in job.stages:
        measured = MEASUREMENTS if stage == "segment" else {}
        await connection.execute(
            insert(STAGES).values(
                **job.names, stage=stage, outcome="done", weight=3, reason="", error_class="", attempts=1, replays=0,
                record_key="", record_sha256="", service_version="1", started=NOON, finished=NOON + timedelta(seconds=3),
                seconds={"domain": 3.0}, measurements=measured, warnings=[], **source(job.number),
            )
        )  # fmt: skip
    for name, (stage, media_type, body) in job.files.items():
        await connection.execute(
            insert(ARTEFACTS).values(
                **job.names, name=name, stage=stage, media_type=media_type, size=len(body), sha256=sha256(body)
            )
        )


async def add_files(store, job):
    """Write the files of a job."""
    for name, (_, media_type, body) in job.files.items():
        await store.write(job.keys.artefact(name), body, media_type)
    if job.complete:
        await store.write(job.keys.receipt, RECEIPT, "application/json")


async def add_record(connection, number, what, job=None, **fields):
    """Append to the audit trail, as index does (without the chain, which nobody looks at here)."""
    row = {column.name: "" for column in AUDIT.columns} | {
        "number": number, "event_id": f"record-{number}", "who": "voxelmill/test", "what": what, "subject": "s",
        "outcome": "done", "occurred": NOON, "recorded": NOON + timedelta(minutes=number), "caused_by": None,
    }  # fmt: skip
    if job:
        row |= {"series_instance_uid": job.uid, "study_instance_uid": job.study, "job_id": job.job_id}
    await connection.execute(insert(AUDIT).values(row | fields))


async def add_progress(connection, job, stage, step, percent, recorded):
    """Say how far a stage is; what it has said before is forgotten."""
    await connection.execute(PROGRESS.delete().where(PROGRESS.c.job_id == job.job_id, PROGRESS.c.stage == stage))
    await connection.execute(
        insert(PROGRESS).values(
            **job.names, stage=stage, attempt=1, step=step, done=0, total=0, percent=percent, recorded=recorded,
            **source(job.number),
        )
    )  # fmt: skip


def settings_for(folder, **changed):
    """Settings that put everything under one folder."""
    return GatewaySettings(**{
        "broker_url": f"embedded://{folder}/broker.db",
        "inbox_url": str(folder / "inbox"),
        "work_url": str(folder / "work"),
        "results_url": str(folder / "results"),
        "database_url": f"sqlite:///{folder}/voxelmill.db",
        "scratch": folder / "scratch",
        "scratch_free_mib": 0,
        "gateway_events_seconds": 0.02,
        **changed,
    })  # fmt: skip


@asynccontextmanager
async def opened(settings, jobs=()):
    """Open a gateway over a catalog with some jobs."""
    engine = open_database(settings.database_url)
    async with transaction(engine) as connection:
        await connection.run_sync(METADATA.create_all)
        for job in jobs:
            await add_job(connection, job)
    await engine.dispose()
    async with open_parts(settings) as parts:
        for job in jobs:
            await add_files(parts.stores.results, job)
        async with open_gateway(parts, settings) as gateway:
            yield gateway


@asynccontextmanager
async def served(settings, jobs=()):
    """Serve such a gateway; give it and a client of it."""
    async with (
        opened(settings, jobs) as gateway,
        serve(gateway, "127.0.0.1", 0) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
    ):
        yield gateway, client


@asynccontextmanager
async def acting(gateway, client, role=Role.ADMIN, *projects, name="somebody"):
    """Be a caller of some projects, or of all if none is named, at a gateway that asks who calls."""
    _, text = await gateway.keys.create(name, role, frozenset(projects) or None, by="test")
    async with httpx.AsyncClient(base_url=client.base_url, timeout=20, headers={"X-API-Key": text}) as other:
        yield other


async def eventually(condition, seconds=10.0):
    """Ask until something is so; give it back."""
    until = time.monotonic() + seconds
    while not (found := await condition()):
        assert time.monotonic() < until, "it never came to be so"
        await asyncio.sleep(0.01)
    return found
