"""NIfTI volumes of any orientation and type, label maps there and back, and what is refused."""

from __future__ import annotations

import gzip
import struct
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxelmill_shared.imaging import (
    Volume,
    looks_like_ct,
    read_nifti,
    read_nifti_volumes,
    write_label_map,
)
from voxelmill_shared.imaging.nifti import read_array
from voxelmill_shared.work import UnsupportedSeriesError

if TYPE_CHECKING:
    from pathlib import Path

RAS_TO_LPS = np.diag([-1.0, -1, 1, 1])
OBLIQUE = np.array([[0.5, -0.1, 0.0, 7], [0.1, 0.5, -0.2, -8], [0.0, 0.1, 2.0, 9], [0, 0, 0, 1]])


def refused(path: Path) -> str:
    with pytest.raises(UnsupportedSeriesError) as error:
        read_nifti(path)
    assert path.name in error.value.reason
    return error.value.code


def write(path: Path, array: Any, affine: Any = OBLIQUE, kind: Any = nib.Nifti1Image, **header: Any) -> Path:
    made = kind(array, affine)
    for field, value in header.items():
        made.header[field] = value
    nib.save(made, path)
    return path


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_voxels_and_places_are_nibabels(tmp_path: Path, kind: Any, suffix: str) -> None:
    """Each voxel is nibabel's, and its place in LPS is nibabel's place in RAS with two signs changed."""
    array = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    volume = read_nifti(write(tmp_path / f"a.{suffix}", array, kind=kind))
    assert volume.voxels.shape == (6, 5, 4)
    assert volume.voxels.dtype == np.int16
    for i, j, k in ((0, 0, 0), (3, 1, 5), (2, 4, 0)):
        assert volume.voxels[k, j, i] == array[i, j, k]
        ras = OBLIQUE @ (i, j, k, 1)
        np.testing.assert_allclose(volume.affine @ (i, j, k, 1), RAS_TO_LPS @ ras, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        ("u1", [0, 255], np.int16),
        (">i2", [-5, 300], np.int16),
        ("i4", [-1024, 3000], np.int16),
        ("i4", [0, 70000], np.float32),
        ("u2", [0, 65535], np.float32),
        ("f8", [-1000.0, 2000.0], np.int16),
        ("f4", [0.25, 1.0], np.float32),
    ],
)
def test_types_are_narrowed_without_loss(tmp_path: Path, dtype: str, values: list[float], expected: Any) -> None:
    """Whole numbers that fit are int16 whatever the file's type and byte order, others float32."""
    array = np.resize(np.array(values), (3, 3, 3)).astype(dtype)
    kind = nib.Nifti1Image(array, OBLIQUE)
    if dtype.startswith(">"):
        kind = nib.Nifti1Image(array, OBLIQUE, nib.Nifti1Header(endianness=">"))
    nib.save(kind, tmp_path / "a.nii")
    volume = read_nifti(tmp_path / "a.nii")
    assert volume.voxels.dtype == expected
    np.testing.assert_array_equal(volume.voxels, array.T)


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    """scl_slope and scl_inter, which nibabel applies too."""
    made = nib.Nifti1Image(np.arange(27, dtype=np.float64).reshape(3, 3, 3) * 0.5 - 3, OBLIQUE)
    made.header.set_data_dtype(np.int16)
    nib.save(made, tmp_path / "a.nii.gz")
    expected = nib.load(tmp_path / "a.nii.gz").get_fdata()
    np.testing.assert_allclose(read_nifti(tmp_path / "a.nii.gz").voxels, expected.T, rtol=1e-6)


def test_metres_become_millimetres(tmp_path: Path) -> None:
    """Lengths in metres are converted."""
    path = write(tmp_path / "a.nii", np.zeros((3, 3, 3), np.int16), np.diag([0.001, 0.001, 0.002, 1]), xyzt_units=1)
    np.testing.assert_allclose(read_nifti(path).spacing, (1, 1, 2), rtol=1e-5)


def test_not_a_number_becomes_the_lowest_value(tmp_path: Path) -> None:
    """Voxels outside of a mask are often NaN: they become the lowest value, and a warning counts them."""
    array = np.full((3, 3, 3), 0.5, np.float32)
    array[0, 0, 0], array[1, 1, 1] = np.nan, -2.5
    volume = read_nifti(write(tmp_path / "a.nii", array))
    assert volume.voxels[0, 0, 0] == -2.5
    assert volume.warnings[-1:] == ("1 voxels were not finite and are -2.5 now, the lowest value",)


def test_a_trailing_axis_of_one_is_no_time_series(tmp_path: Path) -> None:
    """Some writers add a fourth axis of length 1."""
    assert read_nifti(write(tmp_path / "a.nii", np.zeros((3, 4, 5, 1), np.int16))).voxels.shape == (5, 4, 3)


@pytest.mark.parametrize(
    ("array", "code"),
    [
        (np.zeros((3, 3, 3, 1, 2), np.int16), "not-one-volume"),
        (np.zeros((3, 3, 3, 2, 2), np.int16), "not-one-volume"),
        (np.full((3, 3, 3), 1e300), "unsupported-values"),
        (np.zeros((3, 3, 1), np.int16), "too-few-slices"),
        (np.zeros((3, 3), np.int16), "too-few-slices"),
        (np.zeros((3, 3, 3), np.complex64), "unsupported-values"),
        (np.zeros((3, 3, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "unsupported-values"),
        (np.full((3, 3, 3), np.nan, np.float32), "unsupported-values"),
    ],
)
def test_what_is_no_volume_is_refused(tmp_path: Path, array: Any, code: str) -> None:
    """Channels, single slices, complex and colour voxels, nothing finite: each with its code."""
    path = write(tmp_path / "a.nii", array)
    with pytest.raises(UnsupportedSeriesError) as error:
        read_nifti(path)
    assert error.value.code == code


def test_a_file_without_orientation_is_refused(tmp_path: Path) -> None:
    """With neither qform nor sform nobody knows left from right."""
    path = write(tmp_path / "a.nii", np.zeros((3, 3, 3), np.int16))
    whole = bytearray(path.read_bytes())
    whole[252:256] = bytes(4)  # qform_code and sform_code
    path.write_bytes(whole)
    assert refused(path) == "no-geometry"


def test_a_cut_file_is_truncated(tmp_path: Path) -> None:
    """Plain and compressed files that end early are refused, not padded."""
    path = write(tmp_path / "a.nii", np.zeros((20, 20, 20), np.int16))
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert refused(path) == "truncated-pixels"
    packed = tmp_path / "b.nii.gz"
    packed.write_bytes(gzip.compress(whole)[:-30])
    assert refused(packed) in {"truncated-pixels", "unreadable-header"}
    path.write_bytes(whole[:100])
    assert refused(path) == "unreadable-header"
    path.write_bytes(b"")
    assert refused(path) == "unreadable-header"


def test_damaged_compression_is_refused(tmp_path: Path) -> None:
    """A flipped byte in a gzip stream is an error of the file."""
    noise = np.random.default_rng(3).integers(0, 1000, (20, 20, 20)).astype(np.int16)
    path = write(tmp_path / "a.nii.gz", noise)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2 : len(damaged) // 2 + 64] = b"\xff" * 64
    path.write_bytes(damaged)
    assert refused(path) in {"unreadable-header", "truncated-pixels"}


def test_a_header_that_claims_terabytes_is_refused(tmp_path: Path) -> None:
    """32,767 cubed voxels in a file of a kilobyte: refused before anything is allocated."""
    path = write(tmp_path / "a.nii", np.zeros((5, 5, 5), np.int16))
    whole = bytearray(path.read_bytes())
    whole[42:48] = np.array([32767] * 3, "<i2").tobytes()
    path.write_bytes(whole)
    assert refused(path) == "implausible-size"
    whole[42:48] = np.array([1200] * 3, "<i2").tobytes()
    path.write_bytes(whole)
    assert refused(path) == "truncated-pixels"


def test_other_files_are_refused(tmp_path: Path) -> None:
    """Text, and the header of a two-file pair, are no NIfTI volume."""
    path = tmp_path / "a.nii"
    path.write_bytes(b"hello " * 200)
    assert refused(path) == "unreadable-header"
    nib.save(nib.Nifti1Pair(np.zeros((3, 3, 3), np.int16), OBLIQUE), tmp_path / "pair.img")
    assert refused(tmp_path / "pair.hdr") == "unreadable-header"


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "orientation", "ct"),
    [
        ("totalseg/example_ct.nii.gz", "RAS", True),
        ("totalseg/example_ct_sm.nii.gz", "RAS", True),
        ("totalseg/example_mr_sm.nii.gz", "LPS", False),
        ("totalseg/example_seg.nii.gz", "RAS", False),
        ("nibabel/anatomical.nii", "LAS", False),
    ],
)
def test_real_files_equal_nibabel(data: Path, name: str, orientation: str, ct: bool) -> None:
    """Values, orientation and whether the values are Hounsfield units."""
    volume = read_nifti(data / "nifti" / name)
    loaded = nib.load(data / "nifti" / name)
    np.testing.assert_array_equal(volume.voxels, np.asarray(loaded.dataobj).T)
    np.testing.assert_allclose(volume.affine, RAS_TO_LPS @ loaded.affine, atol=1e-4)
    assert volume.orientation == orientation
    assert looks_like_ct(volume) is ct


@pytest.mark.data
@pytest.mark.parametrize("name", ["example4d.nii.gz", "functional.nii", "example_nifti2.nii.gz"])
def test_real_time_series_are_volumes_one_after_another(data: Path, name: str) -> None:
    """Four-dimensional files, one of them NIfTI-2: each volume is nibabel's, and the first one says what else there is."""
    path = data / "nifti/nibabel" / name
    loaded = nib.load(path)
    expected = np.moveaxis(np.asarray(loaded.dataobj, np.float32), -1, 0)
    volumes = list(read_nifti_volumes(path))
    assert len(volumes) == len(expected) > 1
    for volume, values in zip(volumes, expected, strict=True):
        np.testing.assert_allclose(volume.voxels, values.T, rtol=1e-6)
        np.testing.assert_allclose(volume.affine, RAS_TO_LPS @ loaded.affine, atol=1e-4)
    first = read_nifti(path)
    np.testing.assert_array_equal(first.voxels, volumes[0].voxels)
    assert first.distinction == f"volume 1 of {len(expected)}"
    assert "of the same size along its fourth axis" in first.warnings[-1]


def test_vectors_are_no_series_of_volumes(tmp_path: Path) -> None:
    """A field of displacements may have its components along the fourth axis: its intent tells (1006, nifti1.h)."""
    path = write(tmp_path / "a.nii", np.zeros((3, 3, 3, 3), np.float32), intent_code=1006)
    assert refused(path) == "not-one-volume"


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_a_series_whose_last_volume_is_cut_is_truncated(tmp_path: Path, suffix: str) -> None:
    """Though the first one, which is what is read, is there."""
    whole = write(tmp_path / "whole.nii", np.ones((8, 8, 8, 3), np.int16)).read_bytes()
    pack = gzip.compress if suffix.endswith("gz") else bytes
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(pack(whole[:-100]))
    assert refused(path) == "truncated-pixels"


@pytest.mark.parametrize("intercept", [np.nan, np.inf])
def test_a_slope_without_a_sane_intercept_is_refused(tmp_path: Path, intercept: float) -> None:
    """The values cannot be known then."""
    path = write(tmp_path / "a.nii", np.zeros((3, 3, 3), np.int16))
    damaged = bytearray(path.read_bytes())
    struct.pack_into("<2f", damaged, 112, 2.0, intercept)  # scl_slope and scl_inter
    path.write_bytes(damaged)
    assert refused(path) == "unreadable-header"


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*[st.integers(2, 6)] * 3),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    angle=st.floats(-3, 3),
    spacing=st.tuples(*[st.floats(0.2, 6)] * 3),
)
def test_label_maps_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int, int],
    dtype: Any,
    angle: float,
    spacing: tuple[float, float, float],
) -> None:
    """Any labels in any orientation are the same after writing and reading, here and in nibabel, qform and sform."""
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(spacing)
    affine[:3, 3] = (-100, 50, 25)
    labels = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    path = tmp_path_factory.mktemp("labels") / "labelmap.nii.gz"
    write_label_map(path, labels, affine)
    back = read_array(path)
    assert back.values.dtype == dtype
    np.testing.assert_array_equal(back.values, labels)
    np.testing.assert_allclose(back.affine, affine, atol=1e-4)
    loaded = nib.load(path)
    np.testing.assert_array_equal(np.asarray(loaded.dataobj).T, labels)
    np.testing.assert_allclose(loaded.get_sform(), RAS_TO_LPS @ affine, atol=1e-4)
    # A quaternion of float32 turns by up to 0.0007 rad where its first part is nearly 0, as in LPS.
    np.testing.assert_allclose(loaded.get_qform(), RAS_TO_LPS @ affine, atol=1e-3 * max(1.0, *spacing))


def test_sheared_label_maps_have_no_qform(tmp_path: Path) -> None:
    """A qform cannot hold a gantry tilt, so it is left unset rather than wrong."""
    affine = np.eye(4)
    affine[1, 2] = 0.3
    path = tmp_path / "labelmap.nii.gz"
    write_label_map(path, np.ones((3, 4, 5), np.uint8), affine)
    header = nib.load(path).header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (0, 1)
    np.testing.assert_allclose(read_array(path).affine, affine, atol=1e-6)


def test_label_maps_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    """No time and no name in the file: the same labels have the same digest."""
    labels = np.random.default_rng(2).integers(0, 9, (5, 6, 7), dtype=np.uint8)
    for name in ("a.nii.gz", "b.nii.gz"):
        write_label_map(tmp_path / name, labels, np.eye(4))
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_a_view_of_labels_is_written_in_order(tmp_path: Path) -> None:
    """Labels that are not contiguous in memory are written as they are indexed."""
    labels = np.random.default_rng(4).integers(0, 9, (7, 6, 5), dtype=np.uint8).transpose(2, 0, 1)[::-1]
    write_label_map(tmp_path / "a.nii.gz", labels, np.eye(4))
    np.testing.assert_array_equal(read_array(tmp_path / "a.nii.gz").values, labels)


@pytest.mark.parametrize("labels", [np.zeros((2, 2), np.uint8), np.zeros((2, 2, 2), np.int16)])
def test_other_arrays_are_no_label_map(tmp_path: Path, labels: Any) -> None:
    """A wrong type is the caller's mistake."""
    with pytest.raises(ValueError, match="three-dimensional uint8 or uint16"):
        write_label_map(tmp_path / "a.nii.gz", labels, np.eye(4))


def test_hounsfield_units_are_recognised_by_air_and_water() -> None:
    """Air near -1000, tissue near 0 and something denser: without one of them the values are not called HU."""
    voxels = np.full((12, 12, 12), -1000, np.int16)
    voxels[3:9, 3:9, 3:9] = 40
    assert not looks_like_ct(Volume(voxels, np.eye(4)))
    voxels[6, 3:9, 3:9] = 700
    assert looks_like_ct(Volume(voxels, np.eye(4)))
    assert not looks_like_ct(Volume(voxels + np.int16(1000), np.eye(4)))
    assert not looks_like_ct(Volume(voxels.astype(np.float32) / 1000, np.eye(4)))


def test_sform_rules_over_qform_and_qform_over_nothing(tmp_path: Path) -> None:
    """Where both are set the sform holds; without it the qform does, mirrored by its qfac of -1, oblique as it is."""
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
    mirrored = np.eye(4)
    mirrored[:3, :3] = turn @ np.diag([2.0, 1.5, -3.0])  # left-handed: qfac is -1
    mirrored[:3, 3] = (5, -6, 7)
    plain = np.diag([2.0, 1.5, 3.0, 1.0])
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), plain)
    image.set_sform(plain, code=2)
    image.set_qform(mirrored, code=1)
    nib.save(image, tmp_path / "both.nii")
    np.testing.assert_allclose(read_nifti(tmp_path / "both.nii").affine, np.diag([-1, -1, 1, 1]) @ plain, atol=1e-5)
    image.set_sform(None, code=0)
    nib.save(image, tmp_path / "qform.nii")
    assert image.header["pixdim"][0] == -1
    np.testing.assert_allclose(read_nifti(tmp_path / "qform.nii").affine, np.diag([-1, -1, 1, 1]) @ mirrored, atol=1e-5)
