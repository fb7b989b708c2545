"""Series, jobs, files and archives over HTTP, of a catalog with finished jobs."""

from __future__ import annotations

import io
import json
import zipfile

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import event, select

from integration.gateway_kit import (
    FILES,
    NOON,
    RECEIPT,
    STL,
    Job,
    acting,
    add_progress,
    served,
    settings_for,
    sha256,
)
from voxelmill_gateway.access.callers import Role
from voxelmill_gateway.tables import OUTBOX
from voxelmill_shared.database import reading, transaction

ONE, TWO, OTHER = Job(1), Job(2, upload="a" * 32), Job(3, project="trial", patient="Müller^Jörg")
WORKING = Job(4, stages=("ingest", "thumbnail"))
JOBS = (ONE, TWO, OTHER, WORKING)


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory):
    """A gateway over four series of two projects, and a client who may do everything; nobody changes anything."""
    async with served(settings_for(tmp_path_factory.mktemp("world")), JOBS) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def fresh(tmp_path):
    """The same for a test that changes something."""
    async with served(settings_for(tmp_path), JOBS) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def asking(tmp_path_factory):
    """The same gateway, which asks who calls."""
    settings = settings_for(tmp_path_factory.mktemp("asking"), gateway_auth="on")
    async with served(settings, JOBS) as opened:
        yield opened


async def recorded(gateway):
    """What was written down of who saw what and is not published yet, or was."""
    async with reading(gateway.engine) as connection:
        bodies = (await connection.execute(select(OUTBOX.c.body))).scalars().all()
    return [json.loads(body)["data"] for body in bodies]


async def test_a_job_tells_its_stages_files_and_segments(world):
    """Everything that a page needs in one answer; addresses lead somewhere."""
    _, client = world
    answer = await client.get(f"/jobs/{ONE.job_id}")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    job = answer.json()
    assert (job["series_instance_uid"], job["status"], job["percent"], job["superseded"]) == (
        "1.2.1",
        "complete",
        100,
        False,
    )
    assert [stage["stage"] for stage in job["stages"]] == ["ingest", "thumbnail", "segment", "mesh", "index"]
    assert job["stages"][2] | {"warnings": None} == {
        "stage": "segment", "outcome": "done", "percent": 100, "step": "", "reason": "", "error_class": "",
        "attempts": 1, "replays": 0, "seconds": 3.0, "seconds_by_step": {"domain": 3.0},
        "started": "2026-01-02T12:00:00Z", "finished": "2026-01-02T12:00:03Z", "service_version": "1", "warnings": None,
    }  # fmt: skip
    assert {file["name"]: file["sha256"] for file in job["artefacts"]} == {
        name: sha256(body) for name, (_, _, body) in FILES.items()
    }
    left, airways = job["segments"]
    base = f"/files/{ONE.job_id}/meshes/lung_left"
    assert left == {
        "number": 2, "name": "lung_left", "label": "Lung left", "colour": "#78aadc", "opacity": 0.6,
        "volume_ml": 1693.711, "mean_hu": -801.67, "flags": ["cut-by-border"],
        "meshes": {"stl": f"{base}.stl", "obj": f"{base}.obj"},
    }  # fmt: skip
    assert (airways["opacity"], airways["mean_hu"], airways["meshes"]) == (1.0, None, {})
    for address in (job["preview_url"], job["receipt_url"], job["archive_url"], *left["meshes"].values()):
        assert (await client.get(address)).status_code == 200


async def test_a_job_whose_statistics_were_deleted_has_no_mean(fresh):
    """Whoever tidies up the store loses what was there, and not the job's page."""
    gateway, client = fresh
    await gateway.stores.results.delete(ONE.keys.artefact("segmentation/statistics.json"))
    segments = (await client.get(f"/jobs/{ONE.job_id}")).json()["segments"]
    assert [segment["mean_hu"] for segment in segments] == [None, None]
    assert segments[0]["volume_ml"] == 1693.711


async def test_a_job_at_work_tells_how_far_it_is(fresh):
    """Settled stages count whole, the one at work by its step; what it says after its end means nothing."""
    gateway, client = fresh
    before = (await client.get(f"/jobs/{WORKING.job_id}")).json()
    assert (before["status"], before["percent"], before["segments"]) == ("processing", 15, [])
    async with transaction(gateway.engine) as connection:
        await add_progress(connection, WORKING, "segment", "predict", 50, NOON)
        await add_progress(connection, WORKING, "thumbnail", "planes", None, NOON)
    job = (await client.get(f"/jobs/{WORKING.job_id}")).json()
    told = {stage["stage"]: (stage["percent"], stage["step"]) for stage in job["stages"]}
    assert told == {
        "ingest": (100, ""), "thumbnail": (100, ""), "segment": (49, "predict"), "mesh": (None, ""), "index": (None, ""),
    }  # fmt: skip
    assert job["percent"] == 15 + 49 // 2
    listed = (await client.get("/series", params={"status": "processing"})).json()["items"]
    assert [(one["series_instance_uid"], one["job"]["percent"]) for one in listed] == [("1.2.4", job["percent"])]


async def test_series_are_found_page_by_page(world):
    """Newest first; the next page's address holds what was asked for; the last page has none."""
    _, client = world
    first = await client.get("/series", params={"limit": 2, "modality": "CT"})
    assert first.headers["cache-control"] == "private, no-cache"
    page = first.json()
    assert ([one["series_instance_uid"] for one in page["items"]], page["total"]) == (["1.2.4", "1.2.3"], 4)
    last = (await client.get(page["next"])).json()
    assert ([one["series_instance_uid"] for one in last["items"]], last["next"]) == (["1.2.2", "1.2.1"], None)
    named = (await client.get("/series", params={"text": "muller chest"})).json()["items"]
    assert [(one["patient_name"], one["project"]) for one in named] == [("Müller^Jörg", "trial")]
    assert (await client.get("/series", params={"from": "2026-01-03"})).json()["total"] == 0
    assert (await client.get("/series", params={"to": "2026-01-02"})).json()["total"] == 4
    assert (await client.get("/series", params={"limit": 501})).status_code == 422


async def test_one_series_has_its_jobs_and_attributes(world):
    """The header as DICOM JSON, every job, the preview."""
    _, client = world
    series = (await client.get("/series/1.2.1")).json()
    assert series["attributes"]["00100020"]["Value"] == ["ID1"]
    assert [job["url"] for job in series["jobs"]] == [f"/jobs/{ONE.job_id}"]
    assert (await client.get(series["preview_url"])).content == FILES["thumbnails/preview.webp"][2]
    assert (await client.get("/series/1.2.99")).status_code == 404


async def test_a_page_of_series_asks_the_database_as_often_as_one_series(world):
    """However many series are listed, the number of statements is the same."""
    gateway, client = world
    statements = []
    event.listen(gateway.engine.sync_engine, "before_cursor_execute", lambda *said: statements.append(said[2]))

    async def count(limit):
        statements.clear()
        assert len((await client.get("/series", params={"limit": limit})).json()["items"]) == limit
        return sum(
            statement.lstrip().startswith("SELECT") and "gateway_outbox" not in statement for statement in statements
        )

    await count(1)
    assert await count(1) == await count(4)


async def test_a_file_comes_with_what_a_cache_needs(world):
    """ETag, type, a safe name; who has it gets no bytes again; HEAD says the same without them."""
    _, client = world
    address = f"/files/{ONE.job_id}/meshes/lung_left.stl"
    answer = await client.get(address)
    assert answer.content == STL
    etag = f'"{sha256(STL)}"'
    expected = {
        "etag": etag,
        "content-type": "model/stl",
        "content-length": str(len(STL)),
        "accept-ranges": "bytes",
        "cache-control": "private, max-age=31536000, immutable",
        "content-disposition": 'attachment; filename="lung_left.stl"',
        "x-content-type-options": "nosniff",
    }
    assert {name: answer.headers[name] for name in expected} == expected
    head = await client.head(address)
    assert (head.status_code, head.content) == (200, b"")
    assert {name: head.headers[name] for name in expected} == expected
    for held in (etag, f'"other", W/{etag}', "*"):
        again = await client.get(address, headers={"If-None-Match": held})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert (await client.get(address, headers={"If-None-Match": '"other"'})).status_code == 200


@pytest.mark.parametrize(
    ("asked", "status", "first", "last"),
    [
        ("bytes=0-0", 206, 0, 0),
        ("bytes=1048570-1048585", 206, 1048570, 1048585),
        ("bytes=2097000-", 206, 2097000, 2097151),
        ("bytes=2097000-9999999", 206, 2097000, 2097151),
        ("bytes=-100", 206, 2097052, 2097151),
        ("bytes=-99999999", 206, 0, 2097151),
    ],
)
async def test_a_range_of_a_file(world, asked, status, first, last):
    """These bytes and no others (RFC 9110, 14)."""
    _, client = world
    answer = await client.get(f"/files/{ONE.job_id}/meshes/lung_left.stl", headers={"Range": asked})
    assert answer.status_code == status
    assert answer.content == STL[first : last + 1]
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(STL)}"


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "lines=1-2", "bytes=5-2", "bytes=-", "bytes=x-", "bytes=٣-"])
async def test_what_is_no_single_range_gets_the_whole(world, asked):
    """Which is always allowed."""
    _, client = world
    headers = {"Range": asked.encode("utf-8")}
    answer = await client.get(f"/files/{ONE.job_id}/meshes/lung_left.obj", headers=headers)
    assert (answer.status_code, answer.content) == (200, b"o lung_left\n")


async def test_a_range_behind_the_end_or_of_another_content(world):
    """416 with the size; the whole where If-Range names what is no longer there."""
    _, client = world
    address = f"/files/{ONE.job_id}/meshes/lung_left.obj"
    for asked in ("bytes=12-", "bytes=-0", "bytes=99999999999999999999-"):
        answer = await client.get(address, headers={"Range": asked})
        expected = 200 if len(asked) > 25 else 416
        assert answer.status_code == expected
        if expected == 416:
            assert answer.headers["content-range"] == "bytes */12"
            assert answer.headers["content-type"] == "application/problem+json"
    etag = f'"{sha256(b"o lung_left" + bytes([10]))}"'
    for held, status in ((etag, 206), ('"other"', 200), (f"W/{etag}", 200), ("Fri, 02 Jan 2026 12:00:00 GMT", 200)):
        answer = await client.get(address, headers={"Range": "bytes=0-0", "If-Range": held})
        assert answer.status_code == status, held


async def test_a_file_may_be_asked_for_as_a_download(world):
    """A picture is shown, unless it is to be saved."""
    _, client = world
    address = f"/files/{ONE.job_id}/thumbnails/preview.webp"
    assert (await client.get(address)).headers["content-disposition"] == 'inline; filename="preview.webp"'
    saved = await client.get(address, params={"download": True})
    assert saved.headers["content-disposition"] == 'attachment; filename="preview.webp"'


async def test_the_receipt_may_change(world):
    """A replay makes another one, so that nobody keeps it without asking."""
    _, client = world
    answer = await client.get(f"/files/{ONE.job_id}/receipt.json")
    assert (answer.content, answer.headers["cache-control"]) == (RECEIPT, "private, no-cache")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("lung_left.stl", "meshes/lung_left.stl"),
        ("statistics.json", "segmentation/statistics.json"),
        ("preview.webp", "thumbnails/preview.webp"),
        ("anything.zip", "meshes/meshes.zip"),
    ],
)
async def test_the_prototypes_names(world, name, found):
    """An upload's id in the place of a job's, and names without a folder; none of them lasts for ever."""
    _, client = world
    for job in (TWO.upload, TWO.job_id):
        answer = await client.get(f"/files/{job}/{name}")
        assert answer.content == FILES[found][2]
        assert answer.headers["cache-control"] == "private, no-cache"
    assert (await client.get(f"/files/{'b' * 32}/{name}")).status_code == 404


@pytest.mark.parametrize(
    "name",
    [
        "../receipt.json",
        "%2e%2e/receipt.json",
        "meshes",
        "manifest.json",
        "stages/mesh.json",
        "//etc/passwd",
        "meshes/%00",
    ],
)
async def test_only_what_the_catalog_names_is_served(world, name):
    """A name leads to a row of the catalog and never to a path."""
    _, client = world
    assert (await client.get(f"/files/{ONE.job_id}/{name}")).status_code in {404, 422}


async def test_a_file_that_is_not_what_the_catalog_says_is_no_answer(fresh):
    """Replaced or deleted behind our back: an error, and never other bytes under the old digest's length."""
    gateway, client = fresh
    name = "meshes/lung_left.obj"
    await gateway.stores.results.write(ONE.keys.artefact(name), b"longer than it was")
    assert (await client.get(f"/files/{ONE.job_id}/{name}")).status_code == 409
    await gateway.stores.results.delete(ONE.keys.artefact(name))
    answer = await client.get(f"/files/{ONE.job_id}/{name}")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


async def test_all_files_of_a_job_as_one_archive(world):
    """Every file and the receipt, sound, under their names; the meshes' own archive is not packed again."""
    _, client = world
    answer = await client.get(f"/jobs/{ONE.job_id}/archive.zip")
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"] == f'attachment; filename="{ONE.job_id}.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        found = {name: archive.read(name) for name in archive.namelist()}
    expected = {name: body for name, (_, _, body) in FILES.items() if name != "meshes/meshes.zip"}
    assert found == {**expected, "receipt.json": RECEIPT}


async def test_an_archive_that_cannot_be_finished_is_cut_off(fresh):
    """A file is gone in the middle: the client sees a broken answer, and no archive that lacks something."""
    gateway, client = fresh
    await gateway.stores.results.delete(ONE.keys.artefact("thumbnails/preview.webp"))
    with pytest.raises(httpx.RemoteProtocolError):
        await client.get(f"/jobs/{ONE.job_id}/archive.zip")
    assert (await client.get("/healthz")).status_code == 200


async def test_a_job_without_files_has_no_archive(tmp_path):
    """409 says what to do; its answer names no archive."""
    job = Job(1, stages=("ingest",))
    async with served(settings_for(tmp_path), [job]) as (_, client):
        assert (await client.get(f"/jobs/{job.job_id}/archive.zip")).status_code == 409
        assert (await client.get(f"/jobs/{job.job_id}")).json()["archive_url"] is None


async def test_another_projects_series_is_as_one_that_does_not_exist(asking):
    """No route tells one from the other: status, title and words are the same."""
    gateway, client = asking
    async with acting(gateway, client, Role.VIEWER, "default") as caller:
        listed = (await caller.get("/series")).json()
        assert ({one["project"] for one in listed["items"]}, listed["total"]) == ({"default"}, 3)
        nowhere = Job(77)
        for path in (
            "/series/{0.uid}",
            "/jobs/{0.job_id}",
            "/jobs/{0.job_id}/archive.zip",
            "/files/{0.job_id}/receipt.json",
        ):
            theirs, none = [(await caller.get(path.format(job))) for job in (OTHER, nowhere)]
            assert (theirs.status_code, none.status_code) == (404, 404)
            hide = {OTHER.job_id: "", OTHER.uid: "", nowhere.job_id: "", nowhere.uid: ""}
            texts = [answer.text for answer in (theirs, none)]
            for name, nothing in hide.items():
                texts = [text.replace(name, nothing) for text in texts]
            assert texts[0] == texts[1]
        assert (await caller.get(f"/jobs/{ONE.job_id}")).status_code == 200
    async with acting(gateway, client, Role.VIEWER, "trial") as caller:
        assert (await caller.get(f"/files/{OTHER.job_id}/receipt.json")).status_code == 200
        assert (await caller.get("/audit")).status_code == 403
        assert (await caller.get("/dead-letters")).status_code == 403


async def test_what_was_seen_is_written_down(asking):
    """Who read which series stands in the outbox when the answer is there, once for many reads."""
    gateway, client = asking
    async with acting(gateway, client, Role.VIEWER, "default", name="reader") as caller:
        for _ in range(4):
            await caller.get(f"/files/{ONE.job_id}/meshes/lung_left.stl")
            await caller.get(f"/jobs/{ONE.job_id}")
        await caller.get("/series", params={"text": "phantom"})
        await caller.get(f"/jobs/{OTHER.job_id}")
    # No index has ever run at this broker, so that nothing leaves the outbox.
    seen = [
        (one["action"], one["series_instance_uid"])
        for one in await recorded(gateway)
        if one["who"].startswith("reader@")
    ]
    assert set(seen) == {("download", "1.2.1"), ("read", "1.2.1"), ("search", ""), ("refused", "")}
    assert len(seen) <= 8  # once, and again where a minute has just ended
    assert "phantom" not in json.dumps(await recorded(gateway)).casefold()
