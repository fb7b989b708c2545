"""Volumes for the viewer: the same place in space as the label map, to the fraction of a voxel."""

from __future__ import annotations

import asyncio
import gzip
import hashlib

import httpx
import nibabel as nib
import numpy as np
import pytest
from sqlalchemy import insert

from unit.gateway.dicomweb.catalogue_kit import NOON, ct, encoded
from unit.shared.imaging_files import along_z, write_series
from voxelmill_gateway.task import BuildVolume
from voxelmill_gateway.volume_cache import VolumeSource
from voxelmill_gateway.volume_work import LONGEST_SIDE, MOST_VOXELS, factors_of, reduced, stepped, whole_numbers
from voxelmill_gateway.work import run
from voxelmill_shared.catalog.tables import JOBS, SERIES
from voxelmill_shared.database import transaction
from voxelmill_shared.events import ObjectKind, ObjectRef
from voxelmill_shared.imaging.labelmap import write_label_map
from voxelmill_shared.imaging.series import read_volumes
from voxelmill_shared.plan import Plan
from voxelmill_shared.results import ManifestInstance, SeriesManifest

LABELS = gzip.compress(nib.Nifti1Image(np.zeros((16, 16, 4), np.uint8), np.eye(4)).to_bytes())
OBLIQUE = [0.8, 0.6, 0, -0.36, 0.48, 0.8]


def ramp(shape, affine, gradient=(0.5, -0.75, 0.25)):
    """Return whole numbers that grow linearly in space: at a point of the patient they are its product with these."""
    slices, rows, columns = np.indices(shape)
    points = np.stack([columns, rows, slices, np.ones(shape)], axis=-1) @ affine.T
    return np.rint(points[..., :3] @ np.array(gradient) * 10).astype(np.int16)


@pytest.mark.parametrize("shape", [(300, 40, 50), (20, 500, 301), (7, 9, 1030)])
def test_previews_lie_where_the_volume_lies(shape):
    """Each voxel of a preview has the mean of what lies around its middle in the patient, wherever the axes point."""
    affine = np.array([[0.5, 0.1, 0.0, -90], [-0.1, 0.5, 0.2, 17], [0.0, -0.2, 1.1, 400], [0, 0, 0, 1.0]])
    voxels = ramp(shape, affine)
    smaller, place = reduced(voxels, affine)
    assert max(smaller.shape) <= LONGEST_SIDE
    whole = tuple(
        size // factor for size, factor in zip(shape, factors_of(shape, np.array([1.1, 0.54, 0.5])), strict=True)
    )
    inner = tuple(slice(0, count) for count in whole)  # blocks that the end cuts through are filled up
    np.testing.assert_allclose(smaller[inner].astype(float), ramp(smaller.shape, place)[inner], atol=1)


def test_previews_are_small_and_as_even_as_can_be():
    """What a preview leaves out it leaves out where voxels are nearest to each other."""
    factors = factors_of((300, 512, 512), np.array([1.25, 0.7, 0.7]))
    assert (
        factors == (2, 3, 3)
        or np.prod([-(-s // f) for s, f in zip((300, 512, 512), factors, strict=True)]) <= MOST_VOXELS
    )
    assert factors_of((60, 128, 128), np.array([5, 1.5, 1.5])) == (1, 1, 1)
    assert max(factors_of((10, 256, 256), np.array([5, 1, 1]))) == 1


def test_values_of_previews_are_near():
    """A preview tells values in steps: 8 HU in a CT, none in a narrow range; they never wrap."""
    voxels = np.random.default_rng(1).integers(-1024, 3072, (8, 64, 64)).astype(np.int16)
    assert np.abs(stepped(voxels).astype(int) - voxels).max() <= 4
    assert set(np.unique(stepped(voxels) % 8)) == {0}
    narrow = (voxels % 100).astype(np.int16)
    np.testing.assert_array_equal(stepped(narrow), narrow)
    extreme = np.array([[[-32768, 32767, 0, 0]]], np.int16)
    assert np.abs(stepped(extreme).astype(int) - extreme).max() <= 128


def test_values_with_fractions_keep_them():
    """Values that are no whole numbers come with a slope and an intercept that give them back."""
    values = np.linspace(-3.25, 17.5, 1000, dtype=np.float32).reshape(10, 10, 10)
    stored, slope, intercept = whole_numbers(values)
    np.testing.assert_allclose(stored * slope + intercept, values, atol=slope)
    flat, slope, intercept = whole_numbers(np.full((2, 2, 2), 2.5, np.float32))
    np.testing.assert_allclose(flat * slope + intercept, 2.5)


def test_volume_and_label_map_have_one_geometry(tmp_path):
    """The volume's file says what the label map's says; of several volumes it is the one that the label map lies in."""
    stored = np.arange(6 * 4 * 5, dtype=np.int16).reshape(6, 4, 5)
    paths = write_series(tmp_path, stored, along_z(6), ImageOrientationPatient=OBLIQUE, PixelSpacing=[0.7, 0.9])
    small = tmp_path / "small"
    small.mkdir()
    paths += write_series(small, stored[:3, :3, :3] + 500, along_z(3, 4.0), ImageOrientationPatient=OBLIQUE)
    volumes = read_volumes(paths).volumes
    assert len(volumes) == 2
    for volume in volumes:
        labels = tmp_path / "labelmap.nii.gz"
        write_label_map(labels, (volume.voxels > 0).astype(np.uint8), volume.affine)
        preview, full = tmp_path / "preview.nii.gz", tmp_path / "full.nii.gz"
        reports = []
        run(BuildVolume(tuple(paths), False, labels, preview, full), reports.append)
        assert reports == ["preview"]
        wanted, found = nib.load(labels), nib.load(full)
        np.testing.assert_array_equal(found.affine, wanted.affine)
        assert found.shape == wanted.shape
        assert found.get_data_dtype() == np.int16
        np.testing.assert_array_equal(np.asarray(found.dataobj), volume.voxels.transpose(2, 1, 0))
        np.testing.assert_array_equal(nib.load(preview).affine, wanted.affine)


@pytest.fixture
async def job(gateway):
    """A job of a series of four slices, with a label map."""
    instances = []
    for number in (1, 2, 3, 4):
        body = encoded(ct(number=number))
        stored = await gateway.stores.inbox.write(f"{number}.dcm", body)
        reference = ObjectRef(bucket="inbox", key=stored.key, etag=stored.etag, size=stored.size)
        instances.append(ManifestInstance(object=reference, sop_instance_uid=f"1.2.3.4.{number}"))
    names = {"series_instance_uid": "1.2.3.4", "revision": 1, "job_id": "job-1"}
    manifest = SeriesManifest(
        **names,
        study_instance_uid="1.2.3",
        modality="CT",
        kind=ObjectKind.DICOM,
        plan=Plan(),
        instances=tuple(instances),
    )
    key = "1.2.3.4/r1/job-1/manifest.json"
    stored = await gateway.stores.results.write(key, manifest.to_json())
    async with transaction(gateway.engine) as connection:
        of = {"study_instance_uid": "1.2.3", "modality": "CT"}
        await connection.execute(
            insert(SERIES).values(series_instance_uid="1.2.3.4", known_from=1, first_seen=NOON, project="alpha", **of)
        )
        await connection.execute(
            insert(JOBS).values(
                **names, **of, status="complete", instances=4, evidence="upload", manifest_key=key,
                manifest_sha256=stored.sha256, trace_id="", receipt_key="", receipt_sha256="", validated_at=NOON,
            )
        )  # fmt: skip
    return names


async def test_volume_is_made_once_and_kept(gateway, address, job):
    """Many who ask at a time get one volume that is made once; who has it already gets no bytes."""
    calls = []
    call = gateway.children.call

    async def counted(task, on_progress=None):
        calls.append(task)
        return await call(task, on_progress)

    object.__setattr__(gateway.volumes, "_children", type("Counted", (), {"call": staticmethod(counted)}))
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:
        url = "/jobs/job-1/volume.nii.gz"
        asked = [client.get(url, params={"size": size}) for size in ("preview", "full") * 3]
        answers = await asyncio.gather(*asked)
        assert [answer.status_code for answer in answers] == [200] * 6
        assert len(calls) == 1
        volume = nib.Nifti1Image.from_bytes(gzip.decompress(answers[1].content))
        assert volume.shape == (16, 16, 4)
        assert int(answers[1].headers["content-length"]) == len(answers[1].content)
        again = await client.get(url, headers={"If-None-Match": answers[1].headers["etag"]})
        assert again.status_code == 304
        assert (await client.get("/jobs/job-2/volume.nii.gz")).status_code == 404
        assert (await client.get(url, params={"size": "huge"})).status_code == 422


async def test_what_is_gone_or_no_volume_is_said(gateway, address, job):
    """A volume whose instances are gone, and a series of one slice, give a reason; the next one may succeed."""
    await gateway.stores.inbox.delete("2.dcm")
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:
        response = await client.get("/jobs/job-1/volume.nii.gz")
        assert (response.status_code, response.json()["title"]) == (410, "Gone")
        await gateway.stores.inbox.write("2.dcm", encoded(ct(number=2)))
        assert (await client.get("/jobs/job-1/volume.nii.gz")).status_code in {200, 409}


async def test_what_was_asked_for_longest_ago_goes_first(gateway, job, monkeypatch):
    """The volumes on the disk take no more than their share but for the one made last, and one that is open is whole."""
    key = "1.2.3.4/r1/job-1/manifest.json"
    digest = hashlib.sha256(await gateway.stores.results.read(key)).hexdigest()
    labels = await gateway.stores.results.write("labelmap.nii.gz", LABELS)
    monkeypatch.setattr(gateway.volumes, "_limit", 1)
    first = VolumeSource(key, digest)
    second = VolumeSource(key, digest, labels.key, labels.sha256)
    with await gateway.volumes.opened(first, "full") as file, await gateway.volumes.opened(second, "full") as other:
        left = {path.name.partition("-")[0] for path in gateway.volumes._folder.iterdir()}
        assert left == {second.digest}
        assert gzip.decompress(other.read()) == gzip.decompress(file.read())
    with await gateway.volumes.opened(second, "preview") as file:
        assert file.read(2) == b"\x1f\x8b"
