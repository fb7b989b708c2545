"""Jobs that somebody asks for: of a series, of an upload that is still coming, and of an archive."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select

from integration.ingest_kit import PATIENCE, Clock, Ingest, of
from voxelmill_ingest.requested import KEPT, RequestJob
from voxelmill_ingest.tables import requests
from voxelmill_shared.database import reading
from voxelmill_shared.events import Envelope, JobRequested, ObjectUploaded, SeriesValidated, UploadCompleted, cause
from voxelmill_shared.outcome import Done, Outcome, Reject
from voxelmill_shared.plan import Organ, Plan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

LUNGS = Plan(organ=Organ.LUNGS, reduction_percent=50)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
async def ingest(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ingest]:
    """Give a replica of ingest on each kind of database."""
    url = request.getfixturevalue("database") if request.param == "postgresql" else f"sqlite:///{tmp_path}/ledger.db"
    service = await Ingest(tmp_path, url, Clock()).open()
    yield service
    await service.close()


@pytest.fixture
def slices(data: Path) -> dict[str, bytes]:
    """Return the slices of one series."""
    folder = data / "geometry" / "gap_ge_4slices"
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


async def ask(ingest: Ingest, event: JobRequested) -> Outcome:
    """Give a request to its handler, as the runtime does."""
    token = cause.set(Envelope.wrap(event, "voxelmill/gateway"))
    try:
        return await RequestJob(ingest.ledger, ingest.assembler.kick)(event)
    finally:
        cause.reset(token)


def of_series(uid: str, plan: Plan = LUNGS, project: str = "default") -> JobRequested:
    return JobRequested(series_instance_uid=uid, plan=plan, who="ann@here", project=project)


def of_upload(upload_id: str, project: str = "default") -> JobRequested:
    return JobRequested(upload_id=upload_id, plan=LUNGS, who="ann@here", project=project)


async def served(ingest: Ingest) -> list[SeriesValidated]:
    """Let the assembler serve the requests that are due; return the jobs."""
    await ingest.assembler.requests.serve_due()
    return of(SeriesValidated, await ingest.published())


async def waiting(ingest: Ingest) -> int:
    async with reading(ingest.engine) as connection:
        return int((await connection.execute(select(func.count()).select_from(requests))).scalar_one())


async def complete(ingest: Ingest, slices: dict[str, bytes], upload_id: str = "upload-1") -> SeriesValidated:
    await ingest.upload(slices, upload_id)
    (event,) = await ingest.completed()
    return event


async def test_another_plan_is_another_job_of_the_same_revision(ingest: Ingest, slices: dict[str, bytes]) -> None:
    """Its name is known to whoever has the manifest, its manifest is its own, and the series' own job stays."""
    first = await complete(ingest, slices)
    manifest = await ingest.manifest(first)
    assert await ask(ingest, of_series(first.series_instance_uid)) == Done()
    (event,) = await served(ingest)
    assert event.job_id == LUNGS.job_id(one.object.content() for one in manifest.instances) != first.job_id
    assert (event.revision, event.plan, event.evidence) == (first.revision, LUNGS, first.evidence)
    wanted = await ingest.manifest(event)
    assert wanted == manifest.model_copy(update={"plan": LUNGS, "job_id": event.job_id})
    assert await waiting(ingest) == 0
    await ingest.upload(slices, "upload-2")
    assert await ingest.completed() == [first]


async def test_the_same_request_again_is_the_same_event(ingest: Ingest, slices: dict[str, bytes]) -> None:
    """Twice in a row, and again after it was served: nobody is refused, and nothing new comes into being."""
    first = await complete(ingest, slices)
    request = of_series(first.series_instance_uid)
    await ask(ingest, request)
    await ask(ingest, request)
    (event,) = await served(ingest)
    await ask(ingest, request)
    (again,) = await served(ingest)
    assert again == event
    assert again.event_id() == event.event_id()


async def test_the_plan_that_the_series_has_publishes_its_event_again(ingest: Ingest, slices: dict[str, bytes]) -> None:
    """A job that was made already is said once more, not made once more."""
    first = await complete(ingest, slices)
    await ask(ingest, of_series(first.series_instance_uid, Plan()))
    assert await served(ingest) == [first]


async def test_a_series_that_the_project_does_not_have_is_a_dead_letter(
    ingest: Ingest, slices: dict[str, bytes]
) -> None:
    """That of another project is answered as one that is not there."""
    first = await complete(ingest, slices)
    answers = [
        await ask(ingest, of_series(first.series_instance_uid, project="lungs")),
        await ask(ingest, of_series("1.2.3", project="lungs")),
    ]
    assert [isinstance(answer, Reject) and answer.error_class for answer in answers] == ["unknown-series"] * 2
    assert await waiting(ingest) == 0


async def test_a_request_waits_for_its_upload(ingest: Ingest, slices: dict[str, bytes]) -> None:
    """It may come before the first object; it is served when the series closes, and is gone with the upload's end."""
    await ask(ingest, of_upload("upload-1"))
    assert await served(ingest) == []
    *some, last = sorted(slices)
    for name in some:
        reference = await ingest.put(name, slices[name])
        await ingest.handle(ObjectUploaded(object=reference, found_by="gateway", upload_id="upload-1"))
    ingest.clock.wait(1)
    assert await served(ingest) == []
    reference = await ingest.put(last, slices[last])
    await ingest.handle(ObjectUploaded(object=reference, found_by="gateway", upload_id="upload-1"))
    await ingest.handle(UploadCompleted(upload_id="upload-1", objects=len(slices)))
    (first,) = await ingest.completed()
    (event,) = await served(ingest)
    assert (event.plan, event.revision) == (LUNGS, first.revision)
    assert await waiting(ingest) == 0


async def test_what_is_added_to_a_series_is_in_the_job(ingest: Ingest, slices: dict[str, bytes]) -> None:
    """The revision before the upload is not what was asked for."""
    names = sorted(slices)
    first = await complete(ingest, {name: slices[name] for name in names[:-1]})
    reference = await ingest.put(names[-1], slices[names[-1]])
    await ask(ingest, of_upload("upload-2"))
    await ingest.handle(ObjectUploaded(object=reference, found_by="gateway", upload_id="upload-2"))
    assert await served(ingest) == []
    await ingest.handle(UploadCompleted(upload_id="upload-2", objects=1))
    (second,) = await ingest.completed()
    (event,) = await served(ingest)
    assert (first.revision, second.revision, event.revision) == (1, 2, 2)
    assert event.instances == len(slices)


async def test_a_series_is_served_from_its_revision_while_it_changes(ingest: Ingest, slices: dict[str, bytes]) -> None:
    """Whoever asked has computed the job's name from the manifest that stands."""
    names = sorted(slices)
    first = await complete(ingest, {name: slices[name] for name in names[:-1]})
    await ingest.upload({names[-1]: slices[names[-1]]})
    await ask(ingest, of_series(first.series_instance_uid))
    (event,) = await served(ingest)
    assert (event.revision, event.instances) == (1, len(slices) - 1)


async def test_an_archives_series_are_those_of_its_upload(ingest: Ingest, slices: dict[str, bytes]) -> None:
    """Between the archive's own end and that of its members the request still waits."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, body in slices.items():
            archive.writestr(name, body)
    await ask(ingest, of_upload("upload-1"))
    reference = await ingest.put("a.zip", buffer.getvalue())
    assert (
        await ingest.ingest_object(ObjectUploaded(object=reference, found_by="gateway", upload_id="upload-1")) == Done()
    )
    members = await ingest.published()
    assert await ingest.complete(UploadCompleted(upload_id="upload-1", objects=1)) == Done()
    ingest.clock.wait(PATIENCE.upload.total_seconds() + 1)
    assert await served(ingest) == []
    assert await waiting(ingest) == 1
    for event in members:
        if isinstance(event, ObjectUploaded | UploadCompleted):
            await ingest.handle(event)
    await ingest.completed()
    (event,) = await served(ingest)
    assert (event.plan, event.instances) == (LUNGS, len(slices))
    assert await waiting(ingest) == 0


async def test_a_job_is_published_once_while_the_rest_of_the_upload_comes(
    ingest: Ingest, slices: dict[str, bytes], data: Path
) -> None:
    """The row remembers what it has published, however often it is looked at."""
    await ask(ingest, of_upload("upload-1"))
    for name, body in slices.items():
        reference = await ingest.put(name, body)
        await ingest.handle(ObjectUploaded(object=reference, found_by="gateway", upload_id="upload-1"))
    ingest.clock.wait(PATIENCE.upload.total_seconds() + 1)
    await ingest.completed()  # closed by quiet: the upload has not ended
    assert len(await served(ingest)) == 1
    ingest.clock.wait(PATIENCE.upload.total_seconds() + 1)
    assert await served(ingest) == []
    assert await waiting(ingest) == 1
    ingest.clock.wait(KEPT.total_seconds() + 1)
    assert await served(ingest) == []
    assert await waiting(ingest) == 0


async def test_a_manifest_that_was_deleted_is_made_again(ingest: Ingest, slices: dict[str, bytes]) -> None:
    """The ledger knows what the revision was made of, as long as nothing has changed since."""
    first = await complete(ingest, slices)
    before = await ingest.manifest(first)
    await ingest.stores.results.delete(first.manifest.key)
    await ask(ingest, of_series(first.series_instance_uid))
    (event,) = await served(ingest)
    assert (await ingest.manifest(event)).instances == before.instances


async def test_another_projects_series_in_an_upload_is_not_touched(ingest: Ingest, slices: dict[str, bytes]) -> None:
    """An upload's id is no key to what others have sent under it."""
    await ingest.upload({f"projects/lungs/{name}": body for name, body in slices.items()}, "upload-1")
    await ingest.completed()
    await ask(ingest, of_upload("upload-1", project="bones"))
    assert await served(ingest) == []
    await ask(ingest, of_upload("upload-1", project="lungs"))
    assert len(await served(ingest)) == 1
