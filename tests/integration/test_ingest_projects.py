"""Projects in ingest: what an object becomes stays in the project that its key names."""

from __future__ import annotations

import gzip
import io
import zipfile
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
from sqlalchemy import text

from integration.ingest_kit import Clock, Ingest, of
from voxelmill_ingest.archive import member_name
from voxelmill_ingest.service import MIGRATIONS, VERSION_TABLE
from voxelmill_shared.database import open_database, reading, transaction
from voxelmill_shared.events import ObjectRejected, ObjectUploaded, ObjectValidated
from voxelmill_shared.migrations import upgrade
from voxelmill_shared.projects import project_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give the address of an empty database of each kind in turn."""
    address: str = (
        request.getfixturevalue("database") if request.param == "postgresql" else f"sqlite:///{tmp_path}/ledger.db"
    )
    return address


@pytest.fixture
async def ingest(tmp_path: Path, url: str) -> AsyncIterator[Ingest]:
    service = await Ingest(tmp_path, url, Clock()).open()
    yield service
    await service.close()


@pytest.fixture
def slices(data: Path) -> dict[str, bytes]:
    """Return three slices of one series."""
    folder = data / "geometry" / "gap_ge_4slices"
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())[:3]}


def under(prefix: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{prefix}{name}": body for name, body in files.items()}


async def test_a_series_belongs_to_the_project_that_it_came_in_first(ingest: Ingest, slices: dict[str, bytes]) -> None:
    """In another one it is rejected, before and after it is complete, and the event says nothing of either."""
    (first, *others) = sorted(slices)
    await ingest.upload(under("projects/lungs/", {first: slices[first]}))
    stranger = await ingest.upload(under("projects/bones/", {first: slices[first]}), "upload-b")
    nobody = await ingest.upload(under("", {others[0]: slices[others[0]]}))
    for rejected in of(ObjectRejected, [*stranger, *nobody]):
        assert rejected.reason == "series-in-two-projects"
        assert (rejected.study_instance_uid, rejected.series_instance_uid, rejected.sop_instance_uid) == ("", "", "")
        assert "lungs" not in rejected.detail
    assert len(of(ObjectRejected, [*stranger, *nobody])) == 2
    assert await ingest.completed() == []
    assert of(ObjectRejected, await ingest.upload(under("projects/lungs/", slices), "upload-a")) == []
    (event,) = await ingest.completed()
    manifest = await ingest.manifest(event)
    assert {project_of(one.object.key) for one in manifest.instances} == {"lungs"}
    again = await ingest.upload(under("projects/bones/", slices), "upload-c")
    assert len(of(ObjectRejected, again)) == 3
    assert await ingest.completed() == []


async def test_both_projects_at_once_and_one_of_them_has_the_series(ingest: Ingest, slices: dict[str, bytes]) -> None:
    """Within one transaction too: the first row that is made decides, and the other project gets nothing in."""
    (name, body) = next(iter(slices.items()))
    published = await ingest.upload({f"projects/{project}/{name}": body for project in ("a", "b", "c")}, "upload-1")
    assert len(of(ObjectValidated, published)) == 1
    assert len(of(ObjectRejected, published)) == 2


async def test_an_archive_is_unpacked_within_its_project(ingest: Ingest, slices: dict[str, bytes]) -> None:
    """Its members lie under its prefix, so the same archive in another project shares nothing with it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, body in slices.items():
            archive.writestr(f"study/{name}", body)
    published = await ingest.upload({"projects/lungs/a.zip": buffer.getvalue()}, "upload-1")
    keys = [event.object.key for event in of(ObjectUploaded, published)]
    assert len(keys) == 3
    assert all(key.startswith("projects/lungs/archives/") for key in keys)
    (event,) = await ingest.completed()
    assert {project_of(one.object.key) for one in (await ingest.manifest(event)).instances} == {"lungs"}
    digest = keys[0].split("/")[3]
    assert member_name(keys[0], {digest: "a.zip"}).startswith("a.zip!study/")
    published = await ingest.upload({"a.zip": buffer.getvalue()}, "upload-2")
    assert all(event.object.key.startswith("archives/") for event in of(ObjectUploaded, published))
    assert len(of(ObjectRejected, published)) == 3


async def test_the_same_nifti_volume_in_two_projects_is_two_series(ingest: Ingest) -> None:
    """Its UIDs are made from its content and its project; without a project they are those of every version before."""
    image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    body = gzip.compress(image.to_bytes(), mtime=0)
    published = await ingest.upload({f"{prefix}v.nii.gz": body for prefix in ("", "projects/a/", "projects/b/")})
    uids = {event.object.key: event.series_instance_uid for event in of(ObjectValidated, published)}
    assert len(set(uids.values())) == 3
    assert of(ObjectRejected, published) == []


async def test_series_of_an_earlier_version_get_the_project_of_their_keys(url: str) -> None:
    """A ledger that stands goes on: most series are default's, those under `projects/…` that project's."""
    await upgrade(url, package=MIGRATIONS, version_table=VERSION_TABLE, target="0005")
    engine = open_database(url)
    keys = {"1.1": "study/1.dcm", "1.2": "projects/lungs/1.dcm", "1.3": "projects/Not A Name/1.dcm"}
    async with transaction(engine) as connection:
        for uid, key in keys.items():
            await connection.execute(
                text(
                    "INSERT INTO ingest_series (series_instance_uid, study_instance_uid, changed_at, touches, revision,"
                    " contents, job_id) VALUES (:uid, '1', '2026-01-01 00:00:00', 0, 1, '', '')"
                ),
                {"uid": uid},
            )
            await connection.execute(
                text(
                    "INSERT INTO ingest_instances (series_instance_uid, sop_instance_uid, bucket, key, etag, size,"
                    " facts) VALUES (:uid, '1', 'inbox', :key, 'e', 1, '{}')"
                ),
                {"uid": uid, "key": key},
            )
    await upgrade(url, package=MIGRATIONS, version_table=VERSION_TABLE)
    async with reading(engine) as connection:
        rows = await connection.execute(text("SELECT series_instance_uid, project FROM ingest_series ORDER BY 1"))
        assert [tuple(row) for row in rows] == [("1.1", "default"), ("1.2", "lungs"), ("1.3", "default")]
    await engine.dispose()
