"""Asking for jobs, over a real catalog."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import insert

from unit.gateway.uploads.kit import DICOM
from unit.gateway.uploads.test_prototype import requests
from voxelmill_gateway.requests import find_requested
from voxelmill_shared.catalog import Scope
from voxelmill_shared.catalog.tables import JOBS, OBJECTS, SERIES
from voxelmill_shared.database import reading, transaction
from voxelmill_shared.events import ObjectKind, ObjectRef
from voxelmill_shared.plan import Plan
from voxelmill_shared.results import ManifestInstance, ResultKeys, SeriesManifest

UID, STUDY = "1.2.3.4", "1.2.3"
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
SOURCE = {"event_time": NOON, "event_id": "e"}


@pytest.fixture
def kind():
    """Where the inbox is does not matter."""
    return "folder"


def reference(key="uploads/x/000000.dcm"):
    return ObjectRef(bucket="inbox", key=key, etag="abc", size=5)


async def put_series(gateway, *, project="default", key="a.dcm", plan=None):
    """Write a series with one instance and its current job into the catalog; return the job's id."""
    plan = plan or Plan()
    job_id = plan.job_id([reference().content()])
    async with transaction(gateway.engine) as connection:
        row = {"series_instance_uid": UID, "study_instance_uid": STUDY, "modality": "CT", "project": project}
        await connection.execute(insert(SERIES).values(**row, known_from=1, first_seen=NOON))
    await put_job(gateway, plan, key)
    return job_id


async def put_job(gateway, plan, key="a.dcm", status="complete", at=NOON):
    """Write a job of the series into the catalog, and its manifest into the store."""
    job_id = plan.job_id([reference().content()])
    keys = ResultKeys(UID, 1, job_id)
    manifest = SeriesManifest(
        study_instance_uid=STUDY,
        series_instance_uid=UID,
        revision=1,
        job_id=job_id,
        modality="CT",
        kind=ObjectKind.DICOM,
        plan=plan,
        instances=(ManifestInstance(object=reference(key), sop_instance_uid="1.2.3.4.5"),),
    )
    await gateway.stores.results.write(keys.manifest, manifest.to_json())
    empty = dict.fromkeys(("manifest_sha256", "trace_id", "receipt_key", "receipt_sha256"), "")
    async with transaction(gateway.engine) as connection:
        await connection.execute(
            insert(JOBS).values(
                series_instance_uid=UID,
                revision=1,
                job_id=job_id,
                study_instance_uid=STUDY,
                status=status,
                validated_at=at,
                modality="CT",
                instances=1,
                evidence="upload",
                plan=plan.model_dump(mode="json"),
                manifest_key=keys.manifest,
                **empty,
            )
        )


async def ask(client, status=202, **asked):
    return await client.ask("POST", "/process", status, json=asked)


async def test_the_job_that_is_there_is_not_asked_for_again(client, gateway):
    """The same plan as that of the series' job: its name and where it is, and ingest is left alone."""
    job_id = await put_series(gateway)
    answer = await ask(client, series_instance_uid=UID)
    assert answer == {"job_id": job_id, "status": "complete", "url": f"/jobs/{job_id}"}
    assert await requests(gateway) == []


async def test_the_same_request_gives_the_same_job(client, gateway):
    """Another plan: the name is known at once; however often, and in whichever order its formats stand."""
    job_id = await put_series(gateway)
    first = await ask(client, series_instance_uid=UID, organ="lungs", formats=["stl", "ply"])
    again = await ask(client, series_instance_uid=UID, organ="lungs", formats=["ply", "stl"])
    assert first == again
    assert first["job_id"] not in {None, job_id}
    assert first["status"] == "requested"
    (request, *more) = await requests(gateway)
    assert not more
    assert (request.series_instance_uid, request.project, request.who) == (UID, "default", "local@loopback")
    assert request.plan.job_id([reference().content()]) == first["job_id"]
    other = await ask(client, series_instance_uid=UID, organ="lungs", formats=["stl"])
    assert other["job_id"] != first["job_id"]


async def test_a_job_that_was_asked_for_is_there_at_once(client, gateway):
    """Before ingest has taken it up: processing, nothing settled; for nobody of another project."""
    await put_series(gateway)
    asked = await ask(client, series_instance_uid=UID, organ="lungs")
    await ask(client, series_instance_uid=UID, organ="lungs")
    job = await client.ask("GET", asked["url"], 200)
    assert (job["job_id"], job["series_instance_uid"], job["status"]) == (asked["job_id"], UID, "processing")
    assert (job["percent"], job["instances"], job["plan"]["organ"], job["artefacts"]) == (0, 1, "lungs", [])
    assert {stage["outcome"] for stage in job["stages"]} == {"pending"}
    async with reading(gateway.engine) as connection:
        assert await find_requested(connection, Scope(frozenset({"chest"})), asked["job_id"]) is None
        assert await find_requested(connection, Scope(frozenset({"default"})), asked["job_id"]) is not None


async def test_a_superseded_job_is_asked_for_again(client, gateway):
    """Its results may be old news: asking makes it the series' job once more."""
    job_id = await put_series(gateway)
    newer = Plan(organ="lungs")
    await put_job(gateway, newer, at=NOON.replace(hour=13), status="processing")
    current = await ask(client, series_instance_uid=UID, organ="lungs")
    assert current["status"] == "processing"
    assert await requests(gateway) == []
    assert await ask(client, series_instance_uid=UID) == {
        "job_id": job_id,
        "status": "requested",
        "url": f"/jobs/{job_id}",
    }
    assert len(await requests(gateway)) == 1


async def test_a_series_that_is_not_complete_yet(client, gateway):
    """Nobody knows of what the job will be made; it is asked for all the same."""
    async with transaction(gateway.engine) as connection:
        row = {"series_instance_uid": UID, "study_instance_uid": STUDY, "modality": "CT", "project": "default"}
        await connection.execute(insert(SERIES).values(**row, known_from=0, first_seen=NOON))
    answer = await ask(client, series_instance_uid=UID)
    assert answer == {"job_id": None, "status": "requested", "url": f"/series/{UID}"}
    assert len(await requests(gateway)) == 1


async def test_an_upload_that_is_still_open(client, gateway):
    """The request waits with ingest until the upload is complete."""
    begun = await client.begin(DICOM)
    answer = await ask(client, upload_id=begun["upload_id"], reduction_percent=50)
    assert answer == {"job_id": None, "status": "requested", "url": f"/uploads/{begun['upload_id']}"}
    (request,) = await requests(gateway)
    assert (request.upload_id, request.plan.reduction_percent) == (begun["upload_id"], 50)
    await client.ask("DELETE", f"/uploads/{begun['upload_id']}", 204)
    await ask(client, 409, upload_id=begun["upload_id"])


async def test_an_upload_that_is_indexed(client, gateway):
    """One series came with it: the job's name is known, and what became of the files is told.

    What an archive of it refused is no file of its own.
    """
    begun = await client.begin(DICOM, b"no image")
    for number, body in enumerate((DICOM, b"no image")):
        await client.send(begun, number, body)
    await client.complete(begun)
    upload_id = begun["upload_id"]
    before = await client.state(begun)
    assert (before["objects"]["expected"], before["objects"]["settled"], before["series"]) == (2, 0, [])
    job_id = await put_series(gateway, key=f"uploads/{upload_id}/000000.dcm")
    words = ("version_id", "study_instance_uid", "sop_instance_uid", "modality")
    async with transaction(gateway.engine) as connection:
        became = {
            "000000.dcm": ("validated", "", UID),
            "000001.dcm": ("rejected", "not-dicom", ""),
            "000001.zip!../0.dcm": ("rejected", "archive-unsafe-member", ""),
        }
        for name, (status, reason, uid) in became.items():
            await connection.execute(
                insert(OBJECTS).values(
                    address=f"inbox/uploads/{upload_id}/{name}",
                    etag="e",
                    size=1,
                    kind="dicom",
                    status=status,
                    reason=reason,
                    detail=reason,
                    series_instance_uid=uid,
                    members=0,
                    warnings=[],
                    upload_id=upload_id,
                    project="default",
                    **dict.fromkeys(words, ""),
                    **SOURCE,
                )
            )
    state = await client.state(begun)
    assert (state["objects"]["settled"], state["objects"]["members"]) == (2, 1)
    assert state["objects"]["refused"] == [
        {"number": 1, "status": "rejected", "reason": "not-dicom", "detail": "not-dicom"},
        {"number": None, "status": "rejected", "reason": "archive-unsafe-member", "detail": "archive-unsafe-member"},
    ]
    (series,) = state["series"]
    assert (series["series_instance_uid"], series["job"]["job_id"]) == (UID, job_id)
    assert (await ask(client, upload_id=upload_id))["job_id"] == job_id
    assert await requests(gateway) == []
    other = await ask(client, upload_id=upload_id, organ="lungs")
    assert (other["status"], other["job_id"]) == ("requested", Plan(organ="lungs").job_id([reference().content()]))
    assert [request.upload_id for request in await requests(gateway)] == [upload_id]


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"series_instance_uid": "9.9"}, 404),
        ({"upload_id": "0" * 32}, 404),
        ({"upload_id": "x"}, 404),
        ({}, 422),
        ({"series_instance_uid": UID, "upload_id": "0" * 32}, 422),
        ({"series_instance_uid": UID, "reduction_percent": 100}, 422),
        ({"series_instance_uid": UID, "formats": []}, 422),
        ({"series_instance_uid": UID, "model": "best"}, 422),
        ({"series_instance_uid": UID, "task": "../x"}, 422),
        ({"series_instance_uid": UID, "max_error_mm": 0}, 422),
        ({"series_instance_uid": UID, "colour": "red"}, 422),
        ({"series_instance_uid": UID, "task": "total"}, 422),
        ({"series_instance_uid": UID, "model": "threshold", "resolution": "fast"}, 422),
    ],
)
async def test_what_cannot_be_asked_for(client, gateway, asked, status):
    """No such series or upload, and what is not as the interface says; nothing is published."""
    await ask(client, status, **asked)
    assert await requests(gateway) == []
