"""Series from files to volumes: made ones whose every number is known, and every trap among the real ones."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unit.shared.imaging_files import along_z, enhanced, image, numbered, save, write_series
from voxelmill_shared.imaging import looks_like_ct, read_series
from voxelmill_shared.imaging.reasons import Unsupported
from voxelmill_shared.work import UnsupportedSeriesError

if TYPE_CHECKING:
    from pathlib import Path

    from voxelmill_shared.imaging import Volume

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def refused(paths: list[Path]) -> tuple[str, str]:
    with pytest.raises(UnsupportedSeriesError) as error:
        read_series(paths)
    assert error.value.code in set(Unsupported)
    assert "\n" not in error.value.reason
    return error.value.code, error.value.reason


def by_series(folder: Path) -> list[list[Path]]:
    series = defaultdict(list)
    for path in sorted(folder.iterdir()):
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        series[str(header.SeriesInstanceUID)].append(path)
    return [paths for _, paths in sorted(series.items(), key=lambda item: -len(item[1]))]


def same_as_pydicom(volume: Volume, paths: list[Path], place_mm: float = 1e-3) -> None:
    for k, (number, frame) in enumerate(zip(volume.instance_order, volume.frame_order, strict=True)):
        dataset = pydicom.dcmread(paths[number])
        pixels = dataset.pixel_array
        stored = pixels[frame] if pixels.ndim == 3 else pixels
        expected = stored * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))
        if "PixelPaddingValue" in dataset:  # off the scale of tissue in this data, so it becomes air
            expected[stored == dataset.PixelPaddingValue] = -1024 if dataset.Modality == "CT" else 0
        np.testing.assert_array_equal(volume.voxels[k], expected)
        position = np.array(dataset.ImagePositionPatient, float)
        assert np.linalg.norm((volume.affine @ (0, 0, k, 1))[:3] - position) <= place_mm


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(7)))
def test_slices_are_sorted_by_position(tmp_path_factory: pytest.TempPathFactory, order: list[int]) -> None:
    """Whatever order the files come in, slices go along the normal and `instance_order` says which file is which."""
    folder = tmp_path_factory.mktemp("series")
    paths = write_series(folder, numbered(7), along_z(7))
    volume = read_series([paths[k] for k in order])
    np.testing.assert_array_equal(volume.voxels, numbered(7) - 1024)
    assert [order[n] for n in volume.instance_order] == list(range(7))
    assert volume.voxels.dtype == np.int16
    assert volume.spacing == (1, 1, 2)
    assert volume.orientation == "LPS"
    np.testing.assert_array_equal(volume.affine[:3, 3], (-10, -20, 5))


def test_enhanced_frames_are_sorted(tmp_path: Path) -> None:
    """An Enhanced file's frames may come in any order and hold their geometry in functional groups."""
    order = [3, 0, 4, 1, 2]
    path = save(enhanced(numbered(5), along_z(5, 1.5), order), tmp_path / "enhanced.dcm")
    volume = read_series([path])
    np.testing.assert_array_equal(volume.voxels, numbered(5) - 1000)
    assert volume.frame_order == tuple(order.index(k) for k in range(5))
    assert volume.spacing == (0.75, 0.5, 1.5)


def test_rescale_of_each_frame_is_its_own(tmp_path: Path) -> None:
    """A slope per frame (PET) gives float values, each frame by its own slope."""
    slopes = [0.5, 1.25, 2.0]
    path = save(enhanced(numbered(3), along_z(3), [2, 0, 1], slopes), tmp_path / "pet.dcm")
    volume = read_series([path])
    assert volume.voxels.dtype == np.float32
    np.testing.assert_allclose(volume.voxels, numbered(3) * np.array(slopes)[:, None, None])


def test_rescale_of_each_instance_is_its_own(tmp_path: Path) -> None:
    """The same for classic files."""
    slopes = (0.5, 3, 0.25)
    for k, position in enumerate(along_z(3)):
        dataset = image(numbered(3)[k], ImagePositionPatient=list(position), RescaleSlope=slopes[k], Modality="PT")
        save(dataset, tmp_path / f"{k}.dcm")
    volume = read_series(sorted(tmp_path.iterdir()))
    np.testing.assert_allclose(volume.voxels, numbered(3) * np.array(slopes)[:, None, None] - 1024)


def test_twelve_bits_with_rubbish_above(tmp_path: Path) -> None:
    """Bits above Bits Stored are not part of the value, and a 12-bit sign is extended."""
    clean = np.arange(-20, 20, dtype=np.int16).reshape(2, 4, 5)
    dirty = (clean.view(np.uint16) & 0x0FFF | 0xA000).view(np.int16)
    paths = write_series(tmp_path, dirty, along_z(2), BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read_series(paths).voxels, clean - 1024)


def test_unsigned_values_that_need_17_bits_become_float(tmp_path: Path) -> None:
    """A value that does not fit int16 is kept, as float32."""
    stored = np.full((2, 4, 5), 65535, np.uint16)
    paths = write_series(tmp_path, stored, along_z(2), RescaleIntercept=0, Modality="MR")
    volume = read_series(paths)
    assert volume.voxels.dtype == np.float32
    assert (volume.voxels == 65535).all()


@pytest.mark.parametrize(("padding", "expected"), [(-2000, -1024), (0, -1024), (1000, -24)])
def test_padding_off_the_scale_becomes_air(tmp_path: Path, padding: int, expected: Any) -> None:
    """CT padding beyond the scale of tissue becomes air; padding that could be tissue keeps its value."""
    stored = np.full((2, 4, 5), 1100, np.int16)
    stored[:, 0, 0] = padding
    volume = read_series(write_series(tmp_path, stored, along_z(2), PixelPaddingValue=padding))
    assert (volume.voxels[:, 0, 0] == expected).all()
    assert (volume.voxels[:, 1:] == 76).all()


def test_unsigned_padding_above_bits_stored(tmp_path: Path) -> None:
    """Padding of 63,536 in 12-bit unsigned pixels is padding, not the tissue that its low bits would be."""
    stored = np.full((2, 4, 5), 1100, np.uint16)
    stored[:, 0, 0] = 63536
    paths = write_series(tmp_path, stored, along_z(2), BitsStored=12, HighBit=11, PixelPaddingValue=63536)
    assert (read_series(paths).voxels[:, 0, 0] == -1024).all()


def test_identical_copy_is_left_out(tmp_path: Path) -> None:
    """A file that is there twice is no reason to refuse a series, and the volume says that it was left out."""
    paths = write_series(tmp_path, numbered(3), along_z(3))
    copy = tmp_path / "copy.dcm"
    copy.write_bytes(paths[1].read_bytes())
    volume = read_series([*paths, copy])
    np.testing.assert_array_equal(volume.voxels, numbered(3) - 1024)
    assert volume.warnings == ("1 identical copies of slices were left out",)


def test_same_position_with_other_pixels_is_refused(tmp_path: Path) -> None:
    """Two different images at one position: refused."""
    paths = write_series(tmp_path, numbered(3), along_z(3))
    other = save(image(numbered(3)[0], ImagePositionPatient=list(along_z(3)[1])), tmp_path / "other.dcm")
    assert refused([*paths, other])[0] == "duplicate-positions"


@pytest.mark.parametrize(
    ("elements", "code"),
    [
        ({"ImagePositionPatient": None}, "no-geometry"),
        ({"PixelSpacing": None}, "no-geometry"),
        ({"PixelSpacing": [0, 1]}, "bad-geometry"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "bad-geometry"),
        ({"SeriesInstanceUID": "1.2.3"}, "mixed-series"),
        ({"FrameOfReferenceUID": "1.2.3"}, "mixed-frames-of-reference"),
        ({"PixelSpacing": [1, 1.5]}, "mixed-sizes"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, "derived-object"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colour-images"),
        ({"BitsStored": 17}, "unreadable-header"),
        ({"Rows": 60000, "Columns": 60000}, "implausible-size"),
        ({"Rows": 40}, "truncated-pixels"),
    ],
)
def test_one_wrong_instance_refuses_the_series(tmp_path: Path, elements: dict[str, Any], code: str) -> None:
    """One instance that does not fit gives a code and a line, never a volume without it."""
    paths = write_series(tmp_path, numbered(3), along_z(3))
    wrong = image(numbered(4)[3], **{"ImagePositionPatient": [-10, -20, 11], **elements})
    assert refused([*paths, save(wrong, tmp_path / "wrong.dcm")])[0] == code


def test_own_frame_of_reference_per_instance_is_an_anonymisers(tmp_path: Path) -> None:
    """A fresh frame of reference for each instance is taken as one, with a warning and no UID."""
    for k, position in enumerate(along_z(4)):
        dataset = image(numbered(4)[k], ImagePositionPatient=list(position), FrameOfReferenceUID=f"1.2.{k + 1}")
        save(dataset, tmp_path / f"{k}.dcm")
    volume = read_series(sorted(tmp_path.iterdir()))
    assert volume.frame_of_reference_uid == ""
    assert "frame of reference" in volume.warnings[0]


def test_other_sizes_are_refused(tmp_path: Path) -> None:
    """Slices of different size make no volume."""
    paths = write_series(tmp_path, numbered(2), along_z(2))
    other = save(image(numbered(1, 6, 6)[0], ImagePositionPatient=[-10, -20, 9]), tmp_path / "other.dcm")
    code, reason = refused([*paths, other])
    assert code == "mixed-sizes"
    assert "size 4 x 5; size 6 x 6" in reason


def test_no_files_and_one_file_are_too_few(tmp_path: Path) -> None:
    """A volume has two slices at least."""
    assert refused([])[0] == "too-few-slices"
    assert refused(write_series(tmp_path, numbered(1), along_z(1)))[0] == "too-few-slices"


def test_an_absent_file_is_not_called_broken(tmp_path: Path) -> None:
    """A file that cannot be opened is a fault of the machine, not of the series."""
    with pytest.raises(FileNotFoundError):
        read_series([tmp_path / "absent.dcm"])


@pytest.mark.data
def test_chest_of_138_jpeg_2000_slices(data: Path) -> None:
    """The demonstration chest: feet first, files out of order, JPEG 2000."""
    paths = sorted((data / "ct_chest_lidc0314_2mm_j2k").iterdir())[::6]
    code, _ = refused(paths)  # every sixth file is no even stack, because names are not in the order of space
    assert code in {"uneven-spacing", "missing-slices"}
    paths = sorted((data / "ct_chest_lidc0314_2mm_j2k").iterdir())
    volume = read_series(paths)
    assert volume.voxels.shape == (138, 512, 512)
    assert volume.voxels.dtype == np.int16
    np.testing.assert_allclose(volume.spacing, (0.78125, 0.78125, 2))
    assert sorted(volume.instance_order) == list(range(138))
    assert list(volume.instance_order) != list(range(138))
    assert looks_like_ct(volume)
    middle = pydicom.dcmread(paths[volume.instance_order[69]])
    np.testing.assert_array_equal(volume.voxels[69], middle.pixel_array * 1.0 - 1000)
    np.testing.assert_allclose((volume.affine @ (0, 0, 69, 1))[:3], middle.ImagePositionPatient, atol=1e-3)


@pytest.mark.data
@pytest.mark.parametrize("folder", ["totalseg_ct_dicom_20", "nonimage/dcmqi_liver_ct3", "mr_brain_ge_axial"])
def test_real_series_equal_pydicoms_pixels(data: Path, folder: str) -> None:
    """Voxels are pydicom's pixels times slope plus intercept, and the affine puts each slice where its header says."""
    paths = sorted((data / folder).iterdir())
    volume = read_series(paths)
    assert volume.warnings == ()
    if folder == "mr_brain_ge_axial":
        # Its positions jitter, by up to 0.086 mm along and aside together: less than the tenth that the affine may smooth.
        same_as_pydicom(volume, paths, place_mm=0.1)
        assert volume.spacing[2] == pytest.approx(7.0, abs=0.01)
        assert not looks_like_ct(volume)
    else:
        same_as_pydicom(volume, paths)
        assert looks_like_ct(volume)


@pytest.mark.data
def test_tilted_gantry_is_a_shear(data: Path) -> None:
    """58 tilted slices beside a scout and captures: the series by itself is a volume whose affine keeps the tilt."""
    axial, *others = by_series(data / "ct_head_phantom_tilt_mixed_localizer")
    volume = read_series(axial)
    assert volume.voxels.shape == (58, 512, 512)
    assert volume.warnings == ("the slices are sheared by 16.5 degrees (gantry tilt); the affine keeps the shear",)
    step, normal = volume.affine[:3, 2], np.cross(volume.affine[:3, 0], volume.affine[:3, 1])
    cosine = step @ normal / np.linalg.norm(step) / np.linalg.norm(normal)
    assert np.degrees(np.arccos(cosine)) == pytest.approx(16.5, abs=0.05)
    for paths in others:
        refused(paths)
    refused(sorted((data / "ct_head_phantom_tilt_mixed_localizer").iterdir()))


@pytest.mark.data
@pytest.mark.parametrize(
    ("path", "code", "word"),
    [
        ("ct_head_ge_tilt_irregular", "uneven-spacing", "block 1, -33.67 to 18.36 mm; block 2"),
        ("mr_spine_multi_block_one_series", "mixed-orientations", "4 parts"),
        ("geometry/gap_ge_4slices", "missing-slices", "1 slice is missing"),
        ("geometry/same_position_4", "repeated-positions", "AcquisitionNumber 12 (too few slices)"),
        ("geometry/two_orientations_4", "mixed-orientations", "2 parts"),
        ("geometry/mr_4d_epi_24", "repeated-positions", "InstanceNumber from 1;"),
        ("enhanced/siemens_vida_agfa", "repeated-positions", "TemporalPositionIndex 1;"),
        ("enhanced/philips_fMAP_64frames.dcm", "repeated-positions", "EchoTime 0; EchoTime 1.52"),
        ("enhanced/emri_small.dcm", "no-geometry", "PixelSpacing"),
        ("nonimage/rtdose.dcm", "derived-object", "dose"),
        ("nonimage/reportsi.dcm", "not-an-image", "no pixels"),
        ("broken/MR_truncated.dcm", "truncated-pixels", "8,192"),
        ("broken/badVR.dcm", "unreadable-header", "invalid literal"),
        ("broken/zipMR.gz", "not-an-image", "no pixels"),
        ("color_mono1_lut/gdcm-US-ALOKA-16.dcm", "colour-images", "PALETTE COLOR"),
        ("enhanced/eCT_Supplemental.dcm", "colour-images", "supplemental palette"),
    ],
)
def test_what_is_no_volume_is_refused_with_its_reason(data: Path, path: str, code: str, word: str) -> None:
    """Each trap among the real data: the right code, and a line that says what is wrong."""
    place = data / path
    found, reason = refused(sorted(place.iterdir()) if place.is_dir() else [place])
    assert found == code
    assert word in reason


@pytest.mark.data
@pytest.mark.parametrize(
    ("path", "shape", "spacing"),
    [
        ("enhanced/siemens_vida_agfa/011-0001.img", (25, 64, 64), (3.28125, 3.28125, 3.3)),
        ("enhanced/IM-0001-0170-0001.dcm", (8, 256, 256), (1, 1, 1.2)),
    ],
)
def test_real_enhanced_files_are_volumes(
    data: Path, path: str, shape: tuple[int, ...], spacing: tuple[float, ...]
) -> None:
    """Enhanced files of two makers: size, spacing, and each frame's pixels at its place by its own transform."""
    volume = read_series([data / path])
    assert volume.voxels.shape == shape
    np.testing.assert_allclose(volume.spacing, spacing, atol=1e-4)
    dataset = pydicom.dcmread(data / path)
    pixels, shared = dataset.pixel_array, dataset.SharedFunctionalGroupsSequence[0]
    for k, frame in enumerate(volume.frame_order):
        groups = dataset.PerFrameFunctionalGroupsSequence[frame]
        holder = groups if "PixelValueTransformationSequence" in groups else shared
        transform = holder.PixelValueTransformationSequence[0]
        expected = pixels[frame] * float(transform.RescaleSlope) + float(transform.RescaleIntercept)
        np.testing.assert_allclose(volume.voxels[k], expected, rtol=1e-6)
        position = groups.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose((volume.affine @ (0, 0, k, 1))[:3], position, atol=1e-2)


@pytest.mark.data
def test_a_file_that_cannot_be_decoded_is_named(data: Path, tmp_path: Path) -> None:
    """Of twenty slices one is damaged inside its codestream: the reason names that file."""
    paths = []
    for source in sorted((data / "totalseg_ct_dicom_20").iterdir()):
        paths.append(tmp_path / source.name)
        paths[-1].write_bytes(source.read_bytes())
    damaged = bytearray(paths[7].read_bytes())
    siz = damaged.index(b"\xff\x4f\xff\x51")
    damaged[siz + 8 : siz + 16] = (60_000).to_bytes(4, "big") * 2  # a codestream that claims 60,000 squared
    paths[7].write_bytes(damaged)
    code, reason = refused(paths)
    assert code == "undecodable-pixels"
    assert paths[7].name in reason
    assert "60000 x 60000" in reason


def test_every_code_is_explained() -> None:
    """The catalogue is documentation: each code is a word with one sentence."""
    for reason in Unsupported:
        assert reason.explanation.endswith(".")
        assert reason.value == reason.value.lower()
        assert " " not in reason.value
