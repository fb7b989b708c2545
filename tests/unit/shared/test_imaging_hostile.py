"""One and the same patient written as DICOM in many ways: the volume is right voxel by voxel, or refused.

Each voxel's value is a known function of its place in the patient, so that whatever is turned, shifted, mirrored or
scaled wrongly shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from unit.shared.imaging_files import image, save
from unit.shared.test_imaging_geometry import rotation
from voxelmill_shared.imaging import Volume, read_series, read_volumes
from voxelmill_shared.imaging.geometry import MAX_MISSING_IN_A_ROW
from voxelmill_shared.work import UnsupportedSeriesError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

ROWS, COLUMNS = 5, 7


def value_at(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the patient's value at (..., 3) mm. It is linear, so that a straight line between slices is right."""
    return places @ np.array([3.0, -5.0, 7.0]) + 40.0


def places_of(affine: NDArray[np.float64], slices: int) -> NDArray[np.float64]:
    """Return the place of each voxel (slice, row, column)."""
    k, j, i = np.meshgrid(range(slices), range(ROWS), range(COLUMNS), indexing="ij")
    return np.stack([i, j, k, np.ones(k.shape)], axis=-1) @ affine.T[:, :3]


def write(
    folder: Path,
    positions: NDArray[np.float64],
    directions: NDArray[np.float64],
    *,
    spacing: tuple[float, float] = (1.0, 1.0),
    slopes: Any = None,
    intercept: float = 0.0,
    bits: int = 16,
    signed: bool = True,
    rubbish: bool = False,
    syntax: str = ExplicitVRLittleEndian,
    **elements: Any,
) -> list[Path]:
    """Write one file for each position; a list among `elements` holds a value for each."""
    paths = []
    for k, position in enumerate(positions):
        affine = np.eye(4)
        affine[:3, 0], affine[:3, 1] = directions[:, 0] * spacing[1], directions[:, 1] * spacing[0]
        affine[:3, 3] = position
        slope = 1.0 if slopes is None else slopes[k % len(slopes)]
        stored = np.rint((value_at(places_of(affine, 1))[0] - intercept) / slope).astype(np.int64)
        cells = (stored & ((1 << bits) - 1)).astype(np.uint16)
        if rubbish:
            cells |= np.uint16((0xA5A5 << bits) & 0xFFFF)
        dataset = image(
            cells,
            ImagePositionPatient=[f"{x:.10g}"[:16] for x in position],
            ImageOrientationPatient=[f"{x:.12f}"[:16] for x in (*directions[:, 0], *directions[:, 1])],
            PixelSpacing=[f"{mm:.10g}" for mm in spacing],
            RescaleSlope=f"{slope:g}",
            RescaleIntercept=f"{intercept:g}",
            BitsStored=bits,
            HighBit=bits - 1,
            **{name: value[k] if isinstance(value, list) else value for name, value in elements.items()},
        )
        dataset.PixelRepresentation = int(signed)
        dataset.file_meta.TransferSyntaxUID = syntax
        paths.append(save(dataset, folder / f"{(k * 37 + 11) % 101:03d}-{k}.dcm"))
    return paths


def along(directions: NDArray[np.float64], heights: Any, tilt: float = 0.0) -> NDArray[np.float64]:
    """Return positions at heights along the normal, leaning by `tilt` along the columns."""
    step = directions[:, 2] + tilt * directions[:, 1]
    return np.array([10.0, -20.0, 30.0]) + np.asarray(heights, float)[:, None] * step


def is_right(volume: Volume, tolerance: float) -> None:
    expected = value_at(places_of(volume.affine, len(volume.voxels)))
    np.testing.assert_allclose(volume.voxels, expected, atol=tolerance)


AXIAL = np.eye(3)
angle = st.floats(-3.14, 3.14)


@settings(max_examples=60, deadline=None)
@given(
    angles=st.tuples(angle, angle, angle),
    order=st.permutations(range(6)),
    spacing=st.tuples(st.floats(0.3, 3), st.floats(0.3, 3)),
    gap=st.floats(0.5, 4),
    tilt=st.floats(-0.4, 0.4),
    signed=st.booleans(),
    bits=st.sampled_from([12, 14, 16]),
    rubbish=st.booleans(),
    slopes=st.sampled_from([(1.0,), (2.0,), (0.5,), (0.5, 1.25, 2.0), (1.0, 3.0)]),
    syntax=st.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian]),
    in_memory=st.booleans(),
)
def test_every_way_of_writing_gives_the_same_patient(
    tmp_path_factory: pytest.TempPathFactory,
    angles: tuple[float, float, float],
    order: list[int],
    spacing: tuple[float, float],
    gap: float,
    tilt: float,
    slopes: tuple[float, ...],
    *,
    signed: bool,
    bits: int,
    rubbish: bool,
    syntax: str,
    in_memory: bool,
) -> None:
    """Any orientation, order, spacing, tilt, sign, width, rubbish above the value, slope of each slice, syntax."""
    directions = rotation(angles)
    positions = along(directions, np.array(order) * gap, tilt)
    folder = tmp_path_factory.mktemp("series")
    paths = write(
        folder,
        positions,
        directions,
        spacing=spacing,
        slopes=slopes,
        intercept=0.0 if signed else -1000.0,
        bits=bits,
        signed=signed,
        rubbish=rubbish and bits < 16,
        syntax=syntax,
    )
    volume = read_series([path.read_bytes() for path in paths] if in_memory else paths)
    is_right(volume, max(slopes) / 2 + 0.02)
    assert [order[n] for n in volume.instance_order] == list(range(6))
    assert volume.voxels.dtype == (np.int16 if all(slope.is_integer() for slope in slopes) else np.float32)


@settings(max_examples=30, deadline=None)
@given(
    absent=st.sets(st.integers(1, 38), min_size=1, max_size=4),
    angles=st.tuples(angle, angle, angle),
    tilt=st.sampled_from([0.0, 0.25]),
)
def test_a_few_missing_slices_are_made_up_and_named(
    tmp_path_factory: pytest.TempPathFactory, absent: set[int], angles: tuple[float, float, float], tilt: float
) -> None:
    """Up to a tenth, and three in a row: a straight line between the neighbours, and a warning with the positions."""
    directions = rotation(angles)
    heights = np.array([k for k in range(40) if k not in absent]) * 2.0
    paths = write(tmp_path_factory.mktemp("series"), along(directions, heights, tilt), directions)
    run = max(len(part) for part in "".join("x" if k in absent else " " for k in range(40)).split(" "))
    if run > MAX_MISSING_IN_A_ROW:
        with pytest.raises(UnsupportedSeriesError, match="missing"):
            read_volumes(paths)
        return
    (volume,) = read_volumes(paths).volumes
    assert len(volume.voxels) == 40
    is_right(volume, 1.05)
    assert {k for k, number in enumerate(volume.instance_order) if number < 0} == absent
    warning = next(line for line in volume.warnings if "missing" in line)
    start = along(directions, [0.0])[0] @ directions[:, 2]
    for k in absent:
        assert f"{start + 2 * k:.2f}" in warning


def test_too_many_missing_slices_are_refused(tmp_path: Path) -> None:
    """Five of twenty are gone, none beside another: more than a tenth would be invention."""
    heights = [2.0 * k for k in range(20) if k not in {3, 6, 9, 12, 15}]
    paths = write(tmp_path, along(AXIAL, heights), AXIAL)
    with pytest.raises(UnsupportedSeriesError, match="5 slices are missing") as error:
        read_volumes(paths)
    assert error.value.code == "missing-slices"


@settings(max_examples=20, deadline=None)
@given(jitter=st.lists(st.floats(-0.25, 0.25), min_size=20, max_size=20))
def test_uneven_slices_are_resampled(tmp_path_factory: pytest.TempPathFactory, jitter: list[float]) -> None:
    """Slices up to a quarter of the spacing beside their place: an even volume, right at each of its own places.

    Or a refusal, where two are as near as one, or a tenth of the slices may be missing between others.
    """
    heights = np.arange(20) * 3.0 + np.array(jitter) * 3.0
    paths = write(tmp_path_factory.mktemp("series"), along(AXIAL, heights), AXIAL)
    gaps = np.diff(heights) / np.median(np.diff(heights))
    bridged = np.rint(gaps - 0.99).clip(0).sum()
    try:
        (volume,) = read_volumes(paths).volumes
    except UnsupportedSeriesError as error:
        refused = error.code
    else:
        refused = None
    if refused is not None:
        assert refused == "uneven-spacing"
        assert gaps.min() < 0.51 or bridged > 2
        return
    # Within the tolerance of an even stack (5 %) a slice keeps its pixels: 0.15 mm of 7 HU per mm.
    is_right(volume, 1.05 + 7 * 0.05 * 3.3)
    even = all(number >= 0 for number in volume.instance_order)
    assert even or any("resampled" in line for line in volume.warnings)


def test_blocks_of_other_spacing_are_volumes_of_their_own(tmp_path: Path) -> None:
    """The skull's base at 2 mm and its vault at 5 mm: two volumes, each with its own pixels."""
    paths = write(tmp_path, along(AXIAL, [*range(0, 20, 2), *range(23, 63, 5)]), AXIAL)
    low, high = read_volumes(paths).volumes
    assert (low.spacing[2], high.spacing[2]) == (2, 5)
    assert (len(low.voxels), len(high.voxels)) == (10, 8)
    for volume in (low, high):
        is_right(volume, 0.51)
    assert low.distinction.startswith("block 1")
    with pytest.raises(UnsupportedSeriesError, match="not one volume"):
        read_series(paths)


def test_blocks_far_apart_need_to_be_acquired_apart(tmp_path: Path) -> None:
    """A wide gap of whole slices is missing slices, unless each side is an acquisition of its own."""
    heights = [*range(10), *range(30, 38)]
    (tmp_path / "a").mkdir()
    with pytest.raises(UnsupportedSeriesError, match="20 slices are missing"):
        read_volumes(write(tmp_path / "a", along(AXIAL, heights), AXIAL, AcquisitionNumber=1))
    (tmp_path / "b").mkdir()
    numbers = [1] * 10 + [2] * 8
    found = read_volumes(write(tmp_path / "b", along(AXIAL, heights), AXIAL, AcquisitionNumber=numbers))
    assert [len(volume.voxels) for volume in found.volumes] == [10, 8]
    for volume in found.volumes:
        is_right(volume, 0.51)


def test_acquisitions_that_overlap_are_not_mixed(tmp_path: Path) -> None:
    """Two runs of the table whose slices lie between each other's: two volumes, not one of uneven slices."""
    heights = [*np.arange(0, 60, 5.0), *np.arange(31.5, 90, 5.0)]
    numbers = [1] * 12 + [2] * 12
    found = read_volumes(write(tmp_path, along(AXIAL, heights), AXIAL, AcquisitionNumber=numbers))
    assert [volume.distinction for volume in found.volumes] == ["AcquisitionNumber 1", "AcquisitionNumber 2"]
    for volume in found.volumes:
        assert volume.spacing[2] == 5
        is_right(volume, 0.51)


def test_two_reconstructions_are_not_mixed(tmp_path: Path) -> None:
    """A sharp and a soft kernel, their slices at alternate places: two volumes, not one of twice the slices."""
    kernels = ["B30f", "B70f"] * 6
    found = read_volumes(write(tmp_path, along(AXIAL, range(12)), AXIAL, ConvolutionKernel=kernels))
    assert [volume.distinction for volume in found.volumes] == ["ConvolutionKernel B30f", "ConvolutionKernel B70f"]
    assert [volume.spacing[2] for volume in found.volumes] == [2, 2]


def test_a_scout_is_split_off(tmp_path: Path) -> None:
    """A localizer of another orientation, and a picture in colour, are left out by name; the slices are a volume."""
    paths = write(tmp_path, along(AXIAL, range(8)), AXIAL)
    (tmp_path / "scout").mkdir()
    turned = rotation((1.57, 0, 0))
    scout = write(tmp_path / "scout", along(AXIAL, [400.0]), turned, ImageType="ORIGINAL\\PRIMARY\\LOCALIZER")
    colour = save(image(np.zeros((ROWS, COLUMNS, 3), np.uint8)), tmp_path / "colour.dcm")
    found = read_volumes([*scout, *paths, colour])
    (volume,) = found.volumes
    is_right(volume, 0.51)
    assert {number for rest in found.left_out for number, _ in rest.frames} == {0, 9}
    assert {rest.code for rest in found.left_out} == {"too-few-slices", "colour-images"}
    assert any("LOCALIZER" in rest.distinction for rest in found.left_out)


def test_the_order_of_the_files_makes_no_difference(tmp_path: Path) -> None:
    """Blocks of two orientations, in two orders of their files: the same volumes in the same order."""
    paths = write(tmp_path, along(AXIAL, range(5)), AXIAL)
    (tmp_path / "other").mkdir()
    paths += write(tmp_path / "other", along(AXIAL, range(50, 55)), rotation((0.3, 0.1, 0)))
    one, other = read_volumes(paths).volumes, read_volumes(paths[::-1]).volumes
    assert len(one) == 2
    for first, second in zip(one, other, strict=True):
        np.testing.assert_array_equal(first.affine, second.affine)
        np.testing.assert_array_equal(first.voxels, second.voxels)
        assert first.distinction == second.distinction
