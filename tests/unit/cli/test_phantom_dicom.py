"""The phantom as DICOM files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pydicom
import pytest

from voxelmill_cli.phantom import Phantom, PhantomPlan, make_phantom
from voxelmill_cli.phantom_dicom import write_series
from voxelmill_shared.imaging.series import read_series

if TYPE_CHECKING:
    from pathlib import Path

PLAN = PhantomPlan(rows=64, columns=80, pixel_mm=4.8, slices=14, slice_mm=20.0)

TYPE_1 = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "Modality", "SeriesInstanceUID", "FrameOfReferenceUID",
    "Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions", "ImageType", "PixelSpacing",
    "ImageOrientationPatient", "ImagePositionPatient", "SamplesPerPixel", "PhotometricInterpretation", "Rows",
    "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData", "RescaleIntercept",
    "RescaleSlope", "RescaleType", "WindowCenter", "WindowWidth", "PatientPosition",
)  # fmt: skip
TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "ReferringPhysicianName",
    "StudyID", "AccessionNumber", "SeriesNumber", "PositionReferenceIndicator", "InstanceNumber", "SliceThickness",
    "KVP", "AcquisitionNumber", "PatientOrientation", "ContentDate", "ContentTime",
)  # fmt: skip


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(PLAN)


def test_the_series_is_read_back_as_the_phantom(phantom: Phantom, tmp_path: Path) -> None:
    """Voxels, affine and modality are the same, whatever the order of the files."""
    paths = write_series(tmp_path, phantom)
    volume = read_series(sorted(paths))
    np.testing.assert_array_equal(volume.voxels, phantom.voxels)
    np.testing.assert_allclose(volume.affine, phantom.affine, atol=1e-3)
    assert volume.modality == "CT"
    assert not volume.warnings


def test_every_attribute_of_the_image_iod_is_there(phantom: Phantom, tmp_path: Path) -> None:
    """Type 1 with a value, Type 2 at least empty (PS3.3 A.3)."""
    for path in write_series(tmp_path, phantom):
        image = pydicom.dcmread(path)
        for keyword in TYPE_1:
            assert image[keyword].value not in (None, "", []), keyword
        for keyword in TYPE_2:
            assert keyword in image, keyword
        assert image.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
        assert image.PixelRepresentation == 0
        assert len(image.PixelData) == 64 * 80 * 2


def test_file_order_is_not_spatial_order(phantom: Phantom, tmp_path: Path) -> None:
    """Names are UIDs, so sorting by name shuffles the slices."""
    paths = write_series(tmp_path, phantom)
    assert len(set(paths)) == PLAN.slices
    assert sorted(paths) not in (paths, paths[::-1])


def test_the_same_plan_gives_the_same_bytes(phantom: Phantom, tmp_path: Path) -> None:
    """UIDs and dates are derived, not drawn."""
    one = write_series(tmp_path / "one", phantom)
    other = write_series(tmp_path / "other", make_phantom(PLAN))
    assert [path.name for path in one] == [path.name for path in other]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(one, other, strict=True))
    assert all(str(pydicom.dcmread(path).StudyInstanceUID).startswith("2.25.") for path in one[:1])
