"""The quick way to a header against pydicom, its referee: the same answer, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from unit.shared.imaging_files import along_z, image, numbered, save, write_series
from voxelmill_shared.imaging import DicomImage, lay_out, open_image
from voxelmill_shared.imaging.frames import modality_transform_of
from voxelmill_shared.imaging.geometry import plane_of
from voxelmill_shared.imaging.opening import read_with_pydicom
from voxelmill_shared.imaging.walker import KEYWORDS, walk
from voxelmill_shared.work import UnsupportedSeriesError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

FIELDS = (
    "transfer_syntax", "rows", "columns", "samples", "frames", "bits_allocated", "bits_stored", "high_bit", "signed",
    "planar", "photometric", "padding", "keyword", "little_endian", "compressed", "value_offset", "value_length",
    "frame_bytes",
)  # fmt: skip
TEXTS = ("SOPClassUID", "SOPInstanceUID", "Modality", "SeriesInstanceUID", "FrameOfReferenceUID", "RescaleType")


def geometry_of(image_: DicomImage) -> Any:
    try:
        plane = plane_of(image_, 0, 0)
    except UnsupportedSeriesError as error:
        return error.code, error.reason
    return (*plane.position, *plane.along_row, *plane.along_column, *plane.spacing)


def transform_of(image_: DicomImage) -> Any:
    try:
        return modality_transform_of(image_, 0)
    except UnsupportedSeriesError as error:
        return error.code


def opened(read: Callable[[Path | bytes, str], DicomImage], source: Path | bytes, name: str) -> DicomImage | str:
    try:
        return read(source, name)
    except UnsupportedSeriesError as error:
        return f"{error.code}: {error.reason}"


def agrees(source: Path | bytes, name: str) -> bool:
    """Hold the quick way against pydicom, and return whether the quick way was taken."""
    quick = opened(open_image, source, name)
    if isinstance(quick, str):
        assert quick == opened(read_with_pydicom, source, name)
        return False
    if quick.elements is None:
        return False
    referee = read_with_pydicom(source, name)
    for field in FIELDS:
        assert getattr(quick, field) == getattr(referee, field), (name, field)
    for keyword in TEXTS:
        assert quick.text(keyword) == referee.text(keyword).strip(), (name, keyword)
    assert ("LOCALIZER" in quick.text("ImageType")) == ("LOCALIZER" in referee.text("ImageType"))
    assert geometry_of(quick) == geometry_of(referee), name
    assert transform_of(quick) == transform_of(referee), name
    assert quick.encoded([0])[0] == referee.encoded([0])[0], name
    return True


@pytest.mark.data
def test_every_real_file_is_read_as_pydicom_reads_it(data: Path) -> None:
    """Over all test data, broken files too: size, cells, texts, geometry, transform, pixels' bytes, from disk and memory.

    Of the plain slices nearly all go the quick way; else it would be of no use.
    """
    quick = count = 0
    for path in sorted(data.rglob("*")):
        if path.is_dir() or "nifti" in path.parts or path.suffix in {".tsv", ".json", ".txt", ".md"}:
            continue
        count += 1
        quick += agrees(path, path.name)
        if path.stat().st_size < 1 << 20:
            agrees(path.read_bytes(), path.name)
    assert count > 300
    assert quick > 0.6 * count


text = st.text(alphabet="ABCXYZ0123456789 .-", max_size=20)


@settings(max_examples=80, deadline=None)
@given(
    syntax=st.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian]),
    undefined=st.booleans(),
    depth=st.integers(0, 3),
    private=st.binary(max_size=40),
    elements=st.fixed_dictionaries(
        {},
        optional={
            "RescaleSlope": st.sampled_from(["1", "0", "0.5", " 2", "1e-1", ""]),
            "RescaleIntercept": st.sampled_from(["-1024", "0", "3.5", "", None]),
            "ImagePositionPatient": st.sampled_from([["1", "2", "3"], ["1 ", " 2.5", "-3e1"], ["1", "2"], [], None]),
            "ImageOrientationPatient": st.sampled_from([[1, 0, 0, 0, 1, 0], [1, 0, 0], [1, 0, 0, 1, 0, 0], None]),
            "PixelSpacing": st.sampled_from([["0.5", "0.7"], ["0.5"], ["0", "1"], None]),
            "NumberOfFrames": st.sampled_from(["1", "", None]),
            "PixelPaddingValue": st.sampled_from([-2000, 63536, 0]),
            "PixelPaddingRangeLimit": st.sampled_from([-1000, 65000]),
            "BitsStored": st.sampled_from([12, 16]),
            "HighBit": st.sampled_from([11, 15, None]),
            "Modality": st.sampled_from(["CT", "MR", "", None]),
            "SeriesInstanceUID": st.sampled_from(["1.2.3", "", None]),
            "ImageType": st.sampled_from(["ORIGINAL\\PRIMARY\\LOCALIZER", "DERIVED", None]),
            "PatientComments": text,
            "PhotometricInterpretation": st.sampled_from(["MONOCHROME1", "MONOCHROME2 ", ""]),
        },
    ),
    cut=st.integers(0, 400),
)
def test_any_made_up_header_is_read_as_pydicom_reads_it(
    tmp_path_factory: pytest.TempPathFactory,
    syntax: str,
    depth: int,
    private: bytes,
    elements: dict[str, Any],
    cut: int,
    *,
    undefined: bool,
) -> None:
    """Syntax, nested sequences of known or unknown length, private bytes, odd values, and files that are cut off."""
    padding = {name: elements.pop(name) for name in list(elements) if "Padding" in name}
    dataset = image(np.arange(20, dtype=np.int16).reshape(4, 5), **elements)
    for name, value in padding.items():
        dataset.add_new(name, "SS" if value < 0 else "US", value)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.private_block(0x0029, "VOXELMILL", create=True).add_new(0x10, "OB", private + bytes(len(private) % 2))
    inner = dataset
    for _ in range(depth):
        below = Dataset()
        below.RescaleSlope = "7"  # not the image's own
        inner.ReferencedImageSequence = Sequence([below, Dataset()])
        inner["ReferencedImageSequence"].is_undefined_length = undefined
        below.is_undefined_length_sequence_item = undefined
        inner = below
    path = save(dataset, tmp_path_factory.mktemp("file") / "image.dcm")
    agrees(path, "image.dcm")
    agrees(path.read_bytes()[: -cut or None], "image.dcm")


@pytest.mark.parametrize("depth", [0, 40, 139, 200, 350, 600])
def test_a_cut_header_has_no_quick_answer(tmp_path: Path, depth: int) -> None:
    """Bytes that end before the pixel data's head are not enough, wherever they end."""
    whole = write_series(tmp_path, numbered(1), along_z(1))[0].read_bytes()
    assert walk(whole) is not None
    assert walk(whole[:depth]) is None


def test_what_is_walked_is_what_is_declared(tmp_path: Path) -> None:
    """Every element that the walk keeps is known by name, and comes back as its bytes."""
    walked = walk(write_series(tmp_path, numbered(1), along_z(1), RescaleType="HU")[0].read_bytes())
    assert walked is not None
    assert set(walked.elements) <= KEYWORDS
    assert walked.elements["RescaleType"] == b"HU"
    assert walked.elements["Rows"] == b"\x04\x00"


@pytest.mark.data
@pytest.mark.parametrize("folder", ["totalseg_ct_dicom_20", "ct_head_phantom_tilt_mixed_localizer"])
def test_volumes_by_both_ways_are_the_same(data: Path, folder: str) -> None:
    """Voxels and affine by the quick way and by pydicom."""
    paths = sorted((data / folder).iterdir())
    paths = [path for path in paths if pydicom.dcmread(path, specific_tags=["Rows"]).Rows == 512]
    paths = [path for path in paths if not str(path).endswith("S4010_I40")]
    quick = lay_out([open_image(path) for path in paths]).read()
    referee = lay_out([read_with_pydicom(path, path.name) for path in paths]).read()
    np.testing.assert_array_equal(quick.voxels, referee.voxels)
    np.testing.assert_array_equal(quick.affine, referee.affine)
    assert (quick.instance_order, quick.warnings) == (referee.instance_order, referee.warnings)
