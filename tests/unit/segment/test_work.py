"""The domain half of the stage: files in, files out."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pydicom
import pytest

from unit.segment.torso import dice, series_task, silent, torso, write_series
from voxelmill_segment.work import DICOM_SEG, LABEL_MAP, STATISTICS, segment_series
from voxelmill_shared.child import Child, Limits
from voxelmill_shared.errors import NotEquippedError
from voxelmill_shared.events import ObjectKind
from voxelmill_shared.imaging.labelmap import write_label_map
from voxelmill_shared.imaging.nifti import read_array, read_nifti
from voxelmill_shared.plan import ModelName, Organ
from voxelmill_shared.work import NotApplicableError, UnsupportedSeriesError, WorkResult

if TYPE_CHECKING:
    from pathlib import Path

LUNG_LOBES = range(10, 15)
SKELETON = (25, 26, *range(27, 51), *range(69, 79), *range(91, 117))
"""Numbers of the reference labels (version 2 of the 117 classes of Wasserthal et al. 2023)."""


def names(result: WorkResult) -> set[str]:
    return {file.name for file in result.files}


async def test_a_series_is_segmented_in_a_child(tmp_path: Path) -> None:
    """Label map, DICOM SEG and statistics stand; the mesh stage finds numbers, names and colours."""
    volume = torso()
    paths = write_series(tmp_path / "in", volume)
    child = Child("voxelmill_segment.work:segment_series", Limits(memory_bytes=8 << 30, seconds=200))
    steps: list[str] = []
    try:
        result: WorkResult = await child.call(series_task(paths, tmp_path / "out"), steps.append)
    finally:
        await child.close()
    assert names(result) == {LABEL_MAP, DICOM_SEG, STATISTICS}
    assert all(file.path.stat().st_size for file in result.files)
    assert steps[0] == "read"
    assert set(result.seconds) == set(steps)
    label_map = read_array(tmp_path / "out" / LABEL_MAP)
    np.testing.assert_allclose(label_map.affine, volume.affine, atol=1e-4)
    assert label_map.values.shape == volume.voxels.shape
    segments = {segment["name"]: segment for segment in result.measurements["segments"]}
    assert set(segments) >= {"lung_left", "lung_right", "airways", "bones"}
    assert segments["lung_left"]["volume_ml"] < segments["lung_right"]["volume_ml"]
    assert len(segments["bones"]["rgb"]) == 3
    document = json.loads((tmp_path / "out" / STATISTICS).read_text())
    assert document["segments"][0]["volume_ml"] == segments["lung_left"]["volume_ml"]
    assert document["volume"] == result.measurements["volume"]
    assert document["unit"] == "HU"
    assert document["quality"] == result.measurements["quality"] == []
    assert all(segment["flags"] == [] for segment in document["segments"])
    assert json.loads(json.dumps(result.measurements)) == result.measurements


def test_an_mr_series_is_skipped_before_it_is_read(tmp_path: Path) -> None:
    """The model is for CT."""
    request = replace(series_task([tmp_path / "absent"], tmp_path), modality="MR")
    with pytest.raises(NotApplicableError, match="this series is MR"):
        segment_series(request, silent)


def test_the_readers_refusal_passes_through(tmp_path: Path) -> None:
    """A missing slice is the reader's reason, not ours."""
    paths = write_series(tmp_path / "in", torso())
    with pytest.raises(UnsupportedSeriesError):
        segment_series(series_task(paths[:10] + paths[14:], tmp_path / "out"), silent)


def test_a_missing_slice_is_bridged_and_said(tmp_path: Path) -> None:
    """One of 64 slices is gone: all are segmented, the receipt names the place, the DICOM SEG has the real ones."""
    volume = torso()
    paths = write_series(tmp_path / "in", volume)
    whole = segment_series(series_task(paths, tmp_path / "whole"), silent)
    result = segment_series(series_task(paths[:30] + paths[31:], tmp_path / "out"), silent)
    assert f"1 slice is missing, at {volume.affine[2, 3] + 120:.2f} mm" in result.warnings[0]
    labels = read_array(tmp_path / "out" / LABEL_MAP).values
    assert labels.shape == volume.voxels.shape
    expected = read_array(tmp_path / "whole" / LABEL_MAP).values
    assert dice(labels > 0, expected > 0) > 0.99
    assert names(result) == names(whole)
    seg = pydicom.dcmread(tmp_path / "out" / DICOM_SEG)
    referred = {item.ReferencedSOPInstanceUID for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert len(referred) == 63
    heights = {float(f.PlanePositionSequence[0].ImagePositionPatient[2]) for f in seg.PerFrameFunctionalGroupsSequence}
    assert volume.affine[2, 3] + 120 not in heights
    assert volume.affine[2, 3] + 124 in heights


def test_the_largest_volume_is_segmented_and_the_others_are_named(tmp_path: Path) -> None:
    """Two time points and a scout: the first time point is segmented, and the receipt says what is not."""
    volume = torso()
    first = write_series(tmp_path / "a", volume, TemporalPositionIdentifier=1, ImageType=["ORIGINAL", "PRIMARY"])
    second = write_series(tmp_path / "b", torso(volume.voxels + np.int16(5)), TemporalPositionIdentifier=2)
    for number, path in enumerate(second):  # instances of their own
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.9.{number + 1}"
        dataset.save_as(path)
    scout = pydicom.dcmread(first[0])
    scout.ImageType, scout.ImageOrientationPatient = ["ORIGINAL", "PRIMARY", "LOCALIZER"], [1, 0, 0, 0, 0, -1]
    scout.SOPInstanceUID = "1.2.8"
    scout.save_as(tmp_path / "scout.dcm")
    paths = [*second, tmp_path / "scout.dcm", *first]
    result = segment_series(series_task(paths, tmp_path / "out", organ=Organ.LUNGS), silent)
    assert (
        result.warnings[0] == "of the series this volume was segmented: ImageType other, TemporalPositionIdentifier 1"
    )
    assert "not segmented: another volume of 64 x 84 x 108" in result.warnings[1]
    assert "TemporalPositionIdentifier 2" in result.warnings[1]
    assert "not segmented: 1 image of no volume (ImageType LOCALIZER" in result.warnings[2]
    seg = pydicom.dcmread(tmp_path / "out" / DICOM_SEG)
    referred = {item.ReferencedSOPInstanceUID for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert all(uid.startswith("1.2.3.") for uid in referred)


def test_what_is_unlikely_is_said_in_the_record_and_the_statistics(tmp_path: Path) -> None:
    """The upper half of a torso: the lungs are cut. A code for programs, a line for people, nothing fails."""
    volume = torso()
    paths = write_series(tmp_path / "in", replace(volume, voxels=volume.voxels[34:]))
    result = segment_series(series_task(paths, tmp_path / "out", organ=Organ.LUNGS), silent)
    (flag,) = (one for one in result.measurements["quality"] if one["code"] == "cut-by-border")
    assert flag["segments"] == ["lung_left", "lung_right"]
    assert f"quality, cut-by-border: {flag['line']}" in result.warnings
    document = json.loads((tmp_path / "out" / STATISTICS).read_text())
    assert document["quality"] == result.measurements["quality"]
    assert all("cut-by-border" in segment["flags"] for segment in document["segments"])
    assert document["segments"][0]["border_faces"] == ["I"]


def test_a_resampled_series_has_no_dicom_segmentation(tmp_path: Path) -> None:
    """Slices of uneven spacing: the label map lies between the instances, and the receipt says why there is no SEG."""
    volume = torso()
    paths = write_series(tmp_path / "in", volume)
    jitter = np.random.default_rng(2).uniform(-0.8, 0.8, len(paths))
    for path, off in zip(paths, jitter, strict=True):
        dataset = pydicom.dcmread(path)
        dataset.ImagePositionPatient[2] = float(f"{dataset.ImagePositionPatient[2] + off:.3f}")
        dataset.save_as(path)
    result = segment_series(series_task(paths, tmp_path / "out", organ=Organ.LUNGS), silent)
    assert names(result) == {LABEL_MAP, STATISTICS}
    assert "resampled to" in result.warnings[0]
    assert any(warning.startswith("no segmentation.dcm: the volume was resampled") for warning in result.warnings)


def test_what_this_worker_lacks_is_said_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the library or its weights no series is read; another worker may have them."""
    monkeypatch.setenv("VOXELMILL_WEIGHTS", str(tmp_path / "no weights"))
    with pytest.raises(NotEquippedError):
        segment_series(series_task([tmp_path / "absent"], tmp_path, model=ModelName.TOTALSEGMENTATOR), silent)


def test_nifti_has_no_dicom_segmentation(tmp_path: Path, data: Path) -> None:
    """There are no instances to refer to, and the record says so. Against the reference labels: lungs and bones."""
    folder = data / "nifti" / "totalseg"
    result = segment_series(series_task([folder / "example_ct.nii.gz"], tmp_path, ObjectKind.NIFTI), silent)
    assert names(result) == {LABEL_MAP, STATISTICS}
    assert any("no segmentation.dcm" in warning for warning in result.warnings)
    labels = np.asarray(nib.load(tmp_path / LABEL_MAP).dataobj)
    reference = np.asarray(nib.load(folder / "example_seg_fast_force_split.nii.gz").dataobj)
    assert dice(np.isin(labels, (2, 3)), np.isin(reference, LUNG_LOBES)) > 0.95
    assert dice(labels == 2, np.isin(reference, (10, 11))) > 0.94
    assert dice(labels == 5, np.isin(reference, SKELETON)) > 0.88


def test_an_abdomen_of_twenty_slices_has_no_lungs(tmp_path: Path, data: Path) -> None:
    """Gas in the stomach is no lung; the arms beside the body belong to it, the table does not."""
    paths = sorted((data / "totalseg_ct_dicom_20").iterdir())
    result = segment_series(series_task(paths, tmp_path), silent)
    volumes = {segment["name"]: segment["volume_ml"] for segment in result.measurements["segments"]}
    assert volumes["lung_left"] == volumes["lung_right"] == volumes["airways"] == 0
    assert 120 < volumes["bones"] < 320
    assert DICOM_SEG in names(result)
    labels = read_array(tmp_path / LABEL_MAP).values
    assert labels[:, 330:345, 480:485].any()
    assert not labels[:, 430:].any()


def test_a_nifti_in_any_orientation_gives_left_lungs_on_the_left(tmp_path: Path, data: Path) -> None:
    """The same CT stored mirrored gives the same volumes."""
    volume = read_nifti(data / "nifti" / "totalseg" / "example_ct.nii.gz")
    assert volume.orientation == "RAS"
    plain = segment_series(
        series_task(
            [data / "nifti" / "totalseg" / "example_ct.nii.gz"], tmp_path / "a", ObjectKind.NIFTI, organ=Organ.LUNGS
        ),
        silent,
    )
    mirrored = volume.to_lps()
    shifted = (mirrored.voxels.astype(np.int32) + 2000).astype(np.uint16)
    write_label_map(tmp_path / "ct.nii.gz", shifted, mirrored.affine)
    image = nib.load(tmp_path / "ct.nii.gz")
    hu = (np.asarray(image.dataobj).astype(np.int32) - 2000).astype(np.int16)
    nib.save(nib.Nifti1Image(hu, image.affine), tmp_path / "lps.nii")
    other = segment_series(
        series_task([tmp_path / "lps.nii"], tmp_path / "b", ObjectKind.NIFTI, organ=Organ.LUNGS), silent
    )
    assert plain.measurements["segments"] == other.measurements["segments"]
