"""Reading the catalog, on a catalog whose rows were written by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import insert

from voxelmill_shared import catalog
from voxelmill_shared.catalog import JobStatus, ObjectStatus, StageOutcome
from voxelmill_shared.catalog.tables import (
    ARTEFACTS,
    AUDIT,
    INSTANCES,
    JOBS,
    METADATA,
    OBJECTS,
    SERIES,
    STAGES,
    STUDIES,
)
from voxelmill_shared.database import open_database, reading, transaction
from voxelmill_shared.events import Stage
from voxelmill_shared.results import ResultKeys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sqlalchemy import Table
    from sqlalchemy.ext.asyncio import AsyncEngine

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
SOURCE: dict[str, Any] = {"event_time": NOON, "event_id": "e"}


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    """Give an empty catalog on each kind of database."""
    if request.param == "sqlite":
        engine = open_database(f"sqlite:///{tmp_path}/catalog.db")
    else:
        engine = open_database(request.getfixturevalue("database"))
    async with transaction(engine) as connection:
        await connection.run_sync(METADATA.create_all)
    yield engine
    await engine.dispose()


async def put(engine: AsyncEngine, table: Table, *rows: dict[str, Any]) -> None:
    async with transaction(engine) as connection:
        for row in rows:
            await connection.execute(insert(table).values(**row))


def series(uid: str, study: str, minute: int = 0) -> dict[str, Any]:
    seen = NOON + timedelta(minutes=minute)
    names = {"series_instance_uid": uid, "study_instance_uid": study}
    return {**names, "modality": "CT", "known_from": 1, "project": "default", "first_seen": seen}


def job(uid: str, revision: int, job_id: str, **more: Any) -> dict[str, Any]:
    return {
        "series_instance_uid": uid,
        "revision": revision,
        "job_id": job_id,
        "study_instance_uid": "1",
        "status": "processing",
        "modality": "CT",
        "instances": 3,
        "evidence": "upload",
        "manifest_key": "",
        "manifest_sha256": "",
        "trace_id": "",
        "receipt_key": "",
        "receipt_sha256": "",
        **more,
    }


def stage(uid: str, job_id: str, name: str, **more: Any) -> dict[str, Any]:
    texts = ("reason", "error_class", "record_key", "record_sha256", "service_version")
    return {
        "series_instance_uid": uid,
        "revision": 1,
        "job_id": job_id,
        "stage": name,
        "outcome": "done",
        "weight": 3,
        "attempts": 0,
        "replays": 0,
        "seconds": {},
        "measurements": {},
        "warnings": [],
        **dict.fromkeys(texts, ""),
        **SOURCE,
        **more,
    }


def artefact(uid: str, job_id: str, name: str, size: int) -> dict[str, Any]:
    return {
        "series_instance_uid": uid,
        "revision": 1,
        "job_id": job_id,
        "name": name,
        "stage": "mesh",
        "media_type": "model/stl",
        "size": size,
        "sha256": "0" * 64,
    }


def an_object(address: str, status: str) -> dict[str, Any]:
    texts = ("etag", "kind", "reason", "detail", "study_instance_uid", "series_instance_uid", "sop_instance_uid")
    return {
        "address": address,
        "status": status,
        "size": 1,
        "modality": "",
        "members": 0,
        "warnings": ["odd"],
        **dict.fromkeys(texts, ""),
        **SOURCE,
    }


async def test_a_catalog_that_was_never_made_is_told_apart_from_an_empty_one(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    """Whoever asks before index has ever run can say so, instead of showing an error of the database."""
    fresh = open_database(f"sqlite:///{tmp_path}/other.db")
    async with reading(fresh) as connection:
        assert not await catalog.exists(connection)
    await fresh.dispose()
    async with reading(engine) as connection:
        assert await catalog.exists(connection)
        assert await catalog.list_series(connection) == []
        assert await catalog.get_series(connection, "1.2") is None
        assert await catalog.find_job(connection, "job") is None
        counts = await catalog.counts(connection)
    assert counts.jobs == {JobStatus.PROCESSING: 0, JobStatus.COMPLETE: 0, JobStatus.PARTIAL: 0}
    assert (counts.studies, counts.series, counts.audit) == (0, 0, 0)


async def test_series_are_listed_newest_first_page_by_page_and_by_study(engine: AsyncEngine) -> None:
    """The order does not change between pages."""
    await put(engine, SERIES, *[series(f"1.{n}", f"{n % 2}", minute=n) for n in range(5)])
    async with reading(engine) as connection:
        pages = [await catalog.list_series(connection, limit=2, offset=offset) for offset in (0, 2, 4)]
        of_study = await catalog.list_series(connection, study="1")
    assert [view.series_instance_uid for page in pages for view in page] == ["1.4", "1.3", "1.2", "1.1", "1.0"]
    assert [view.series_instance_uid for view in of_study] == ["1.3", "1.1"]
    assert of_study[0].job is None
    assert of_study[0].first_seen == NOON + timedelta(minutes=3)


async def test_the_current_job_is_the_last_one_of_the_newest_revision(engine: AsyncEngine) -> None:
    """Of one revision, the job that was validated last; one that was not validated yet comes after it."""
    await put(engine, SERIES, series("1.2", "1"), series("1.3", "1"))
    jobs = [
        job("1.2", 2, "d"),
        job("1.2", 2, "c", validated_at=NOON, status="complete"),
        job("1.2", 2, "b", validated_at=NOON + timedelta(minutes=1)),
        job("1.2", 1, "a", validated_at=NOON + timedelta(minutes=9)),
        job("1.3", 1, "a", validated_at=NOON),
    ]
    await put(engine, JOBS, *jobs)
    async with reading(engine) as connection:
        view = await catalog.get_series(connection, "1.2")
        other = await catalog.get_series(connection, "1.3")
        history = await catalog.series_jobs(connection, "1.2")
        found = await catalog.find_job(connection, "c")
    assert view is not None
    assert other is not None
    assert [(past.job_id, past.superseded) for past in history] == [("b", False), ("c", True), ("d", True), ("a", True)]
    assert (view.job, view.revisions) == (history[0], 2)
    assert other.job is not None
    assert not other.job.superseded
    assert found == history[1]


async def test_a_job_shows_all_its_stages_with_times_and_files(engine: AsyncEngine) -> None:
    """Stages of which nothing is known are pending; sizes and numbers of files are per stage."""
    await put(engine, SERIES, series("1.2", "1"))
    await put(engine, JOBS, job("1.2", 1, "a", plan={"organ": "lungs"}))
    times = {"started": NOON, "finished": NOON + timedelta(seconds=2.5), "seconds": {"domain": 2.25}}
    failed = {"outcome": "failed", "reason": "out of memory", "error_class": "killed", "attempts": 5, "replays": 1}
    await put(
        engine, STAGES, stage("1.2", "a", "mesh", **times, warnings=["odd"]), stage("1.2", "a", "thumbnail", **failed)
    )
    await put(
        engine, ARTEFACTS, artefact("1.2", "a", "meshes/b.stl", 3_000_000_000), artefact("1.2", "a", "meshes/a.stl", 5)
    )
    async with reading(engine) as connection:
        view = await catalog.find_job(connection, "a")
        files = await catalog.artefacts(connection, ResultKeys("1.2", 1, "a"))
    assert view is not None
    assert [found.stage for found in view.stages] == list(Stage)
    mesh, thumbnail, segment = (view.stage(name) for name in (Stage.MESH, Stage.THUMBNAIL, Stage.SEGMENT))
    assert (mesh.elapsed, mesh.seconds, mesh.warnings) == (2.5, {"domain": 2.25}, ("odd",))
    assert (mesh.artefacts, mesh.size, view.artefacts) == (2, 3_000_000_005, 2)
    assert (thumbnail.outcome, thumbnail.error_class, thumbnail.attempts, thumbnail.replays) == (
        StageOutcome.FAILED,
        "killed",
        5,
        1,
    )
    assert (segment.outcome, segment.elapsed, segment.artefacts) == (StageOutcome.PENDING, None, 0)
    assert view.plan == {"organ": "lungs"}
    assert [(file.name, file.key) for file in files] == [
        ("meshes/a.stl", "1.2/r1/a/meshes/a.stl"),
        ("meshes/b.stl", "1.2/r1/a/meshes/b.stl"),
    ]


async def test_objects_are_listed_by_address_and_by_status(engine: AsyncEngine) -> None:
    """What was refused says whether it is broken or only not for us."""
    await put(engine, OBJECTS, *[an_object(f"inbox/{status}", status) for status in ObjectStatus])
    async with reading(engine) as connection:
        everything = await catalog.objects(connection)
        rejected = await catalog.objects(connection, ObjectStatus.REJECTED)
        page = await catalog.objects(connection, limit=1, offset=2)
    assert {view.address: view.severity for view in everything} == {
        "inbox/failed": "",
        "inbox/rejected": "reject",
        "inbox/skipped": "skip",
        "inbox/validated": "",
    }
    assert [view.address for view in rejected] == ["inbox/rejected"]
    assert [view.address for view in page] == ["inbox/skipped"]
    assert page[0].warnings == ("odd",)
    assert page[0].seen == NOON


async def test_counts_are_by_status(engine: AsyncEngine) -> None:
    """Every status is there, also those that nothing has."""
    await put(engine, STUDIES, {"study_instance_uid": "1", "first_seen": NOON})
    await put(engine, SERIES, series("1.2", "1"), series("1.3", "1"))
    texts = dict.fromkeys(("sop_class_uid", "transfer_syntax_uid", "object_address"), "")
    size = {"rows": 1, "columns": 1, "frames": 1, "size": 1}
    await put(engine, INSTANCES, {"series_instance_uid": "1.2", "sop_instance_uid": "1.2.1", **texts, **size, **SOURCE})
    await put(engine, JOBS, job("1.2", 1, "a", status="complete"), job("1.3", 1, "b", status="complete"))
    await put(engine, OBJECTS, an_object("inbox/a", "validated"), an_object("inbox/b", "skipped"))
    async with reading(engine) as connection:
        counts = await catalog.counts(connection)
    assert (counts.studies, counts.series, counts.instances, counts.artefacts) == (1, 2, 1, 0)
    assert counts.jobs[JobStatus.COMPLETE] == 2
    assert counts.objects == {
        ObjectStatus.VALIDATED: 1,
        ObjectStatus.REJECTED: 0,
        ObjectStatus.SKIPPED: 1,
        ObjectStatus.FAILED: 0,
    }


async def test_the_audit_trail_is_read_in_order_and_by_what_it_is_about(engine: AsyncEngine) -> None:
    """By study, series or instance; by job; by event; page by page."""
    texts = ("who", "subject", "object_address", "stage", "outcome", "reason", "trace_id", "hash")
    about = [("1", "1.2", "1.2.1", "", "object.validated.v1"), ("1", "1.3", "", "j", "series.meshed.v1")]
    for study, series_uid, sop, job_id, what in about:
        uids = {"study_instance_uid": study, "series_instance_uid": series_uid, "sop_instance_uid": sop}
        row = {**dict.fromkeys(texts, ""), **uids, "job_id": job_id, "what": what, "event_id": what}
        await put(engine, AUDIT, {**row, "occurred": NOON, "recorded": NOON})
    async with reading(engine) as connection:
        first, second = await catalog.audit(connection)
        for uid, expected in {"1": [first, second], "1.2": [first], "1.2.1": [first], "9": []}.items():
            assert await catalog.audit(connection, uid=uid) == expected
        assert await catalog.audit(connection, job_id="j") == [second]
        assert await catalog.audit(connection, what="object.validated.v1") == [first]
        assert await catalog.audit(connection, limit=1) == [first]
        assert await catalog.audit(connection, after=first.number) == [second]
    assert first.number < second.number
    assert first.occurred == NOON
    assert first.caused_by is None
