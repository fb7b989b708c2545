"""What index gives to search by: projects, headers, segmentations as DICOM, progress, and who has seen what."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import JSON, column, insert, table

from integration.index_kit import NOON, Index, Series
from integration.search_kit import a_series, find, rows, take
from unit.index.test_headers import dataset, written
from voxelmill_index.progress import RecordProgress
from voxelmill_index.service import migrate
from voxelmill_index.tables import VERSION_TABLE
from voxelmill_shared.catalog import ObjectStatus, Scope, audit, search
from voxelmill_shared.catalog.fhir import audit_event
from voxelmill_shared.catalog.scope import EVERYTHING
from voxelmill_shared.catalog.tables import DERIVED, HEADERS, OBJECTS, PROGRESS, SERIES
from voxelmill_shared.catalog.verification import verify_trail
from voxelmill_shared.database import UtcDateTime, open_database, reading, transaction
from voxelmill_shared.events import (
    AccessRecorded,
    Envelope,
    JobProgressed,
    ObjectKind,
    ObjectRef,
    ObjectValidated,
    Stage,
    cause,
)
from voxelmill_shared.migrations import upgrade
from voxelmill_shared.outcome import Done

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Insert

SEG = "segmentation/segmentation.dcm"


async def test_the_header_of_the_first_instance_is_what_people_search_by(index: Index) -> None:
    """One row for the series, under the UIDs that ingest says; and none of it in the audit trail."""
    series = await a_series(index, "projects/lungs/", PatientName="Grün^Eva", PatientID="P-77")
    await take(index, await series.validated())
    (row,) = await rows(index, HEADERS, series_instance_uid=series.uid)
    assert (row.patient_name, row.patient_name_folded, row.patient_id) == ("Grün^Eva", "grun^eva", "P-77")
    assert (row.project, row.study_date, row.series_number) == ("lungs", "20200304", 3)
    assert (row.study_instance_uid, row.study_json["0020000D"]["Value"]) == (series.study, [series.study])
    assert row.study_json["00100010"]["Value"] == [{"Alphabetic": "Grün^Eva"}]
    assert await find(index, patient_name="GRUN") == [series.uid]
    assert await find(index, text="eva chest p-77") == [series.uid]
    assert await find(index, text="eva other") == []
    assert await find(index, study_date_from="20200304", study_date_to="20200304") == [series.uid]
    assert await find(index, study_date_from="20200305") == []
    async with reading(index.engine) as connection:
        trail = repr(await audit(connection))
    assert "P-77" not in trail
    assert "Eva" not in trail


@pytest.mark.parametrize("body", [b"no DICOM at all", b""], ids=["broken", "empty"])
async def test_a_header_that_cannot_be_read_costs_only_its_row(
    index: Index, body: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """The series is there all the same, in its project, and a line says what happened."""
    series = await a_series(index, "projects/lungs/")
    await series.put_bytes(1, body)
    await take(index, *await series.all())
    assert await rows(index, HEADERS, series_instance_uid=series.uid) == []
    async with reading(index.engine) as connection:
        found = await search.find_series(connection, Scope(frozenset({"lungs"})), series.uid)
    assert found is not None
    assert (found.patient_id, found.series_number, found.attributes) == ("", None, {})
    assert found.job is not None
    assert found.job.status == "complete"
    assert await find(index, study_uid=series.study) == [series.uid]
    assert "series.header-unreadable" in "".join(capsys.readouterr())


async def test_an_instance_that_is_gone_or_replaced_gives_no_header(index: Index) -> None:
    """What lies there now is not what was validated: its own revision has its header."""
    gone, replaced = await a_series(index), await a_series(index)
    events = [await gone.validated(), await replaced.validated()]
    await index.handler.stores.inbox.delete(gone.reference(1).key)
    await index.handler.stores.inbox.write(replaced.reference(1).key, written(dataset(PatientID="other")))
    await take(index, *events)
    assert await rows(index, HEADERS) == []


async def test_a_project_that_is_known_is_not_forgotten(index: Index) -> None:
    """A manifest that was replaced tells nothing of whose the series is; what its objects said stands."""
    series = await a_series(index, "projects/lungs/")
    validated = await series.validated()
    await take(index, *series.objects())
    await index.store.delete(series.keys.manifest)
    await take(index, validated)
    (row,) = await rows(index, SERIES, series_instance_uid=series.uid)
    assert (row.project, row.known_from) == ("lungs", 1)


@pytest.mark.parametrize("seed", range(4))
async def test_every_order_gives_the_same_rows(index: Index, seed: int) -> None:
    """Whatever comes first, the project is known, and the headers of the series and of its segmentation stand."""
    series = await a_series(index, "projects/lungs/")
    events = [*series.objects(), await series.validated(), await series.segmented(f"{series.uid}.9")]
    events += [await series.done(Stage.THUMBNAIL), await series.done(Stage.MESH)]
    if seed:
        random.Random(seed).shuffle(events)
    else:
        events.reverse()
    await take(index, *events, *events)
    headers = await rows(index, HEADERS, study_instance_uid=series.study)
    assert sorted((row.series_instance_uid, row.project, row.modality, row.derived_from_job) for row in headers) == [
        (series.uid, "lungs", "CT", ""),
        (f"{series.uid}.9.0", "lungs", "SEG", series.keys.job_id),
    ]
    (derived,) = await rows(index, DERIVED, of_series_instance_uid=series.uid)
    assert (derived.sop_instance_uid, derived.frames, derived.job_id) == (f"{series.uid}.9", 12, series.keys.job_id)
    assert derived.result_key == series.keys.artefact(SEG)
    (row,) = await rows(index, SERIES, series_instance_uid=series.uid)
    assert (row.project, row.modality, row.study_instance_uid) == ("lungs", "CT", series.study)


async def test_a_segmentation_is_found_like_a_series(index: Index) -> None:
    """Beside the series that it was made of, in the same study and project, with the job that made it."""
    series = await a_series(index, "projects/lungs/", PatientID="P-5")
    await take(index, await series.validated(), await series.segmented(f"{series.uid}.9", PatientID="P-5"))
    made = f"{series.uid}.9.0"
    assert await find(index, patient_id="P-5") == [series.uid]
    assert await find(index, patient_id="P-5", derived=True) == [made]
    assert sorted(await find(index, patient_id="P-5", derived=None)) == sorted([series.uid, made])
    async with reading(index.engine) as connection:
        found = await search.find_series(connection, Scope(frozenset({"lungs"})), made)
        assert await search.find_series(connection, Scope(frozenset({"bones"})), made) is None
    assert found is not None
    assert (found.modality, found.derived_from_job, found.view.instances) == ("SEG", series.keys.job_id, 1)
    assert found.job is not None
    assert found.job.keys == series.keys


async def test_a_segmentation_that_was_made_anew_takes_the_place_of_the_old_one(index: Index) -> None:
    """The rows of the one before are gone, and those of a record without any too."""
    series = await a_series(index)
    await take(index, await series.validated(), await series.segmented(f"{series.uid}.8"))
    await take(index, await series.segmented(f"{series.uid}.9"))
    assert [row.sop_instance_uid for row in await rows(index, DERIVED)] == [f"{series.uid}.9"]
    assert await find(index, derived=True) == [f"{series.uid}.9.0"]
    await take(index, await series.segmented(""))
    assert await rows(index, DERIVED) == []
    assert await find(index, derived=None) == [series.uid]


async def test_of_another_project_there_is_nothing_to_be_found(index: Index) -> None:
    """Series, jobs, artefacts, uploads and progress: as if they did not exist."""
    mine, theirs = await a_series(index, "projects/a/"), await a_series(index, "projects/b/")
    for series in (mine, theirs):
        await take(index, *series.objects(), *[await series.done(stage) for stage in (Stage.THUMBNAIL,)])
        await take(index, await series.validated(), await series.segmented(f"{series.uid}.9"))
        await progress(index, series, 1)
    scope = Scope(frozenset({"a"}))
    assert await find(index, scope, derived=None) == await find(index, scope, derived=None, text="1.2.827")
    assert set(await find(index, scope, derived=None)) == {mine.uid, f"{mine.uid}.9.0"}
    assert await find(index, Scope(frozenset()), derived=None) == []
    async with reading(index.engine) as connection:
        assert await search.find_series(connection, scope, theirs.uid) is None
        several = await search.find_each(connection, scope, [f"{mine.uid}.9.0", theirs.uid, "1.2.3", mine.uid])
        assert [one.view.series_instance_uid for one in several] == [f"{mine.uid}.9.0", mine.uid]
        assert await search.series_jobs(connection, scope, theirs.uid) == []
        assert len(await search.series_jobs(connection, scope, mine.uid)) == 1
        assert [one.keys for one in await search.progress_since(connection, scope, NOON)] == [mine.keys]
        assert await search.progress_since(connection, scope, NOON, series=theirs.uid) == []


async def test_the_jobs_of_another_project_are_not_there(index: Index) -> None:
    """A job's name says nothing of whose it is, so it is looked up with its series."""
    series = await a_series(index, "projects/b/")
    await take(index, await series.validated(), await series.done(Stage.THUMBNAIL))
    async with reading(index.engine) as connection:
        for scope, there in ((Scope(frozenset({"a"})), False), (Scope(frozenset({"b"})), True), (EVERYTHING, True)):
            assert (await search.find_job(connection, scope, series.keys.job_id) is not None) is there


async def test_the_series_of_an_upload_are_those_of_its_archives_too(index: Index) -> None:
    """Not those of an upload whose id begins alike, not what was rejected, not another project's."""
    for number, (upload, prefix) in enumerate(
        (("up", ""), ("up/archive-0a", ""), ("up2", ""), ("up", "projects/b/"), (None, "")), start=1
    ):
        reference = ObjectRef(bucket="inbox", key=f"{prefix}{number}.dcm", etag="e", size=1)
        event = ObjectValidated(
            object=reference,
            kind=ObjectKind.DICOM,
            study_instance_uid="9",
            series_instance_uid=f"9.{number}",
            sop_instance_uid=f"9.{number}.1",
            upload_id=upload,
        )
        await take(index, Envelope.wrap(event, "test"))
    async with reading(index.engine) as connection:
        assert await search.upload_series(connection, Scope(frozenset({"default"})), "up") == ["9.1", "9.2"]
        assert await search.upload_series(connection, EVERYTHING, "up") == ["9.1", "9.2", "9.4"]
        assert await search.upload_series(connection, EVERYTHING, "u") == []


async def progress(index: Index, series: Series, done: int, minutes: int = 0, stage: Stage = Stage.SEGMENT) -> None:
    """Say how far a stage is, as it was said at a time."""
    event = JobProgressed(**series.names, stage=stage, step="tiles", done=done, total=8, percent=done * 12)
    envelope = Envelope.wrap(event, "test").model_copy(update={"time": NOON + timedelta(minutes=minutes)})
    token = cause.set(envelope)
    try:
        assert await RecordProgress(index.engine)(event) == Done()
    finally:
        cause.reset(token)


async def test_the_newest_progress_of_each_stage_is_kept(index: Index) -> None:
    """Whatever order it comes in; it may come before the job's own row."""
    series = await a_series(index)
    before = datetime.now(UTC)
    await progress(index, series, 3, minutes=3)
    await progress(index, series, 2, minutes=2)
    await progress(index, series, 1, minutes=1, stage=Stage.MESH)
    async with reading(index.engine) as connection:
        assert await search.progress_since(connection, EVERYTHING, before) == []
        assert await search.progress_of(connection, [series.keys]) == {series.keys: {}}
    await take(index, await series.validated())
    async with reading(index.engine) as connection:
        (found,) = (await search.progress_of(connection, [series.keys])).values()
        told = await search.progress_since(connection, EVERYTHING, before, job_id=series.keys.job_id)
        assert await search.progress_since(connection, EVERYTHING, datetime.now(UTC) + timedelta(minutes=1)) == []
    assert {stage: view.done for stage, view in found.items()} == {Stage.SEGMENT: 3, Stage.MESH: 1}
    assert {view.stage for view in told} == {Stage.SEGMENT, Stage.MESH}
    assert len(await rows(index, PROGRESS)) == 2


async def test_who_has_seen_what_is_in_the_audit_trail(index: Index) -> None:
    """One record for each access, chained like every other, and with its own kind in FHIR."""
    uids = {"study_instance_uid": "1", "series_instance_uid": "1.2", "project": "lungs"}
    kinds = {
        "read": ("110103", "R", "0"),
        "search": ("110112", "E", "0"),
        "uploaded": ("110107", "C", "0"),
        "login": ("110114", "E", "0"),
        "key-created": ("110113", "C", "0"),
        "replayed": ("110100", "E", "0"),
        "refused": ("110113", "E", "4"),
    }
    for action in kinds:
        outcome = "refused" if action == "refused" else "done"
        event = AccessRecorded(
            who="ann@here", action=action, outcome=outcome, detail="meshes/x.stl", period_start=NOON, **uids
        )
        await take(index, Envelope.wrap(event, "voxelmill/gateway"), Envelope.wrap(event, "voxelmill/gateway"))
    async with reading(index.engine) as connection:
        found = await audit(connection, what="access.recorded.v1")
    report = await verify_trail(index.engine)
    assert (report.records, report.faulty) == (len(kinds), 0)
    assert [(one.who, one.reason, one.stage) for one in found] == [
        ("ann@here", f"{action}: meshes/x.stl", "") for action in kinds
    ]
    for record, (code, action, outcome) in zip(found, kinds.values(), strict=True):
        event = audit_event(record)
        assert (event["type"]["code"], event["action"], event["outcome"]) == (code, action, outcome)
        assert event["agent"][0]["name"] == event["agent"][0]["altId"] == "ann@here"
        assert event["agent"][0]["type"]["coding"][0]["code"] == "humanuser"
        assert {one["what"]["identifier"]["value"] for one in event["entity"]} == {"urn:oid:1", "urn:oid:1.2"}


def as_it_was(name: str, **values: Any) -> Insert:
    """Insert a row into a table of which only these columns are known."""
    types = {datetime: UtcDateTime(), list: JSON()}
    columns = [column(key, types.get(type(value))) for key, value in values.items()]
    return insert(table(name, *columns)).values(values)


async def test_a_catalog_of_an_earlier_version_goes_on(database_url: str, tmp_path: Path) -> None:
    """Objects and series get the projects of their keys; series without headers are found all the same."""
    await upgrade(database_url, package="voxelmill_index.migrations", version_table=VERSION_TABLE, target="index_0003")
    engine = open_database(database_url)
    keys = {"1.1": "study/1.dcm", "1.2": "projects/lungs/1.dcm", "1.3": "x/projects/lungs/1.dcm", "1.4": ""}
    async with transaction(engine) as connection:
        for uid, key in keys.items():
            named = {"series_instance_uid": uid, "study_instance_uid": "1", "modality": "CT"}
            await connection.execute(as_it_was("catalog_series", **named, known_from=1, first_seen=NOON))
            if not key:
                continue  # known from an event of a stage alone
            named |= {"sop_instance_uid": "9", "size": 1, "event_time": NOON, "event_id": "e"}
            texts = dict.fromkeys(("sop_class_uid", "transfer_syntax_uid"), "")
            seen = {**named, **texts, "rows": 1, "columns": 1, "frames": 1, "object_address": f"inbox/{key}"}
            del seen["study_instance_uid"], seen["modality"]
            await connection.execute(as_it_was("catalog_instances", **seen))
            texts = dict.fromkeys(("etag", "reason", "detail", "digest"), "")
            seen = {**named, **texts, "address": f"inbox/{key}", "kind": "dicom", "status": "validated"}
            await connection.execute(as_it_was("catalog_objects", **seen, members=0, warnings=[]))
    await engine.dispose()
    await migrate(database_url)
    index = Index.open(database_url, tmp_path / "results")
    assert {row.address: row.project for row in await rows(index, OBJECTS)} == {
        "inbox/study/1.dcm": "default",
        "inbox/projects/lungs/1.dcm": "lungs",
        "inbox/x/projects/lungs/1.dcm": "default",
    }
    assert {row.series_instance_uid: row.project for row in await rows(index, SERIES)} == {
        "1.1": "default",
        "1.2": "lungs",
        "1.3": "default",
        "1.4": "",
    }
    assert await find(index, Scope(frozenset({"lungs"}))) == ["1.2"]
    assert await find(index, study_uid="1") == ["1.1", "1.2", "1.3", "1.4"]
    assert {row.status for row in await rows(index, OBJECTS)} == {ObjectStatus.VALIDATED}
    await index.engine.dispose()
