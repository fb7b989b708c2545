"""Where frames lie, whether they make a volume, and the affine of that volume: on stacks whose geometry is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxelmill_shared.imaging.geometry import FramePlane, stack
from voxelmill_shared.imaging.volume import Volume
from voxelmill_shared.work import UnsupportedSeriesError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def rotation(angles: tuple[float, float, float]) -> NDArray[np.float64]:
    x, y, z = angles
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def planes(positions: Any, directions: Any = None, spacing: tuple[float, float] = (1.0, 1.0)) -> list[FramePlane]:
    directions = np.eye(3) if directions is None else directions
    return [
        FramePlane(k, 0, np.array(position, float), directions[:, 0], directions[:, 1], spacing)
        for k, position in enumerate(positions)
    ]


def code_of(positions: list[tuple[float, float, float]]) -> tuple[str, str]:
    with pytest.raises(UnsupportedSeriesError) as error:
        stack(planes(positions))
    return error.value.code, error.value.reason


angle = st.floats(-np.pi, np.pi)
millimetres = st.floats(0.1, 10)


@settings(max_examples=60, deadline=None)
@given(
    angles=st.tuples(angle, angle, angle),
    spacing=st.tuples(millimetres, millimetres),
    gap=millimetres,
    shear=st.floats(-0.5, 0.5),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
    order=st.permutations(range(6)),
)
def test_affine_gives_every_voxel_its_place(
    angles: tuple[float, float, float],
    spacing: tuple[float, float],
    gap: float,
    shear: float,
    origin: tuple[float, float, float],
    order: list[int],
) -> None:
    """In any orientation, tilt and order of files, index (column, row, slice) maps to the DICOM equation's place."""
    directions = rotation(angles)
    step = gap * directions[:, 2] + gap * shear * directions[:, 1]
    positions = np.array([np.array(origin) + k * step for k in order])
    stacked = stack(planes(positions, directions, spacing))
    assert [plane.image for plane in stacked.planes] == list(np.argsort(order))
    for k, plane in enumerate(stacked.planes):
        for column, row in ((0, 0), (3, 0), (0, 5), (7, 2)):
            # PS3.3 C.7.6.2.1.1: position + row direction * column spacing * column + column direction * ...
            expected = (
                positions[plane.image] + directions[:, 0] * spacing[1] * column + directions[:, 1] * spacing[0] * row
            )
            np.testing.assert_allclose((stacked.affine @ (column, row, k, 1))[:3], expected, atol=1e-9 * 1e3)
    assert np.linalg.det(stacked.affine[:3, :3]) > 0
    assert bool(stacked.warnings) == (abs(np.degrees(np.arctan(shear))) > 0.1)


@settings(max_examples=60, deadline=None)
@given(angles=st.tuples(angle, angle, angle), flips=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))
def test_reordering_to_lps_moves_no_voxel(
    angles: tuple[float, float, float], flips: tuple[float, float, float]
) -> None:
    """`to_lps` gives axes that run left, back and up, and each value stays where it was in the patient."""
    affine = np.eye(4)
    affine[:3, :3] = rotation(angles) @ np.diag([0.5, 0.75, 2.0]) @ np.diag(flips)
    affine[:3, 3] = (10, -20, 30)
    voxels = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    turned = Volume(voxels, affine, instance_order=(0, 1), frame_order=(0, 0)).to_lps()
    assert turned.orientation == "LPS"
    for index in np.ndindex(turned.voxels.shape):
        place = turned.affine @ (*index[::-1], 1)
        source = np.rint(np.linalg.solve(affine, place)[:3]).astype(int)
        np.testing.assert_allclose(affine @ (*source, 1), place, atol=1e-9)
        assert voxels[tuple(source[::-1])] == turned.voxels[index]


def test_one_missing_slice_is_named() -> None:
    """A gap of one slice is `missing-slices`, and the reason says between which places."""
    code, reason = code_of([(0, 0, z) for z in (0, 2, 4, 8, 10)])
    assert code == "missing-slices"
    assert reason.startswith("1 slice is missing between 4.00 and 8.00 mm")


def test_several_missing_slices_are_counted() -> None:
    """Slices missing at several places are counted together."""
    code, reason = code_of([(0, 0, z) for z in (0, 1, 2, 3, 6, 7, 8, 10, 11)])
    assert code == "missing-slices"
    assert reason.startswith("3 slices are missing")


def test_uneven_spacing_is_refused() -> None:
    """Spacing without a rule is no volume."""
    assert code_of([(0, 0, z) for z in (0, 1, 2.5, 3.2, 7)])[0] == "uneven-spacing"


def test_sideways_drift_is_refused() -> None:
    """A slice aside of the line through the stack would be drawn in the wrong place."""
    assert code_of([(0, 0, 0), (0, 0.5, 1), (0, 0, 2)])[0] == "uneven-spacing"


def test_rounded_positions_are_accepted() -> None:
    """Positions that jitter by a few hundredths of the spacing are a scanner's rounding."""
    stacked = stack(planes([(0, 0, z) for z in (0, 6.96, 14.03, 21.0)]))
    np.testing.assert_allclose(stacked.affine[:3, 2], (0, 0, 7))


def test_different_slices_at_one_position_are_refused() -> None:
    """Two images at one position, and nobody knows which is right."""
    code, reason = code_of([(0, 0, 0), (0, 0, 1), (0, 0, 1), (0, 0, 2)])
    assert code == "duplicate-positions"
    assert "1.00 mm" in reason


def test_time_series_is_refused() -> None:
    """Where every position repeats, the series has another dimension."""
    code, reason = code_of([(0, 0, z) for z in (0, 1, 2)] * 4)
    assert code == "repeated-positions"
    assert "3 slice positions holds 4 images" in reason


def test_images_of_one_place_are_no_volume() -> None:
    """However many."""
    assert code_of([(0, 0, 0)] * 3)[0] == "duplicate-positions"


def test_two_orientations_are_refused() -> None:
    """Slices that are not parallel are several volumes."""
    mixed = planes([(0, 0, 0), (0, 0, 1)]) + planes([(0, 0, 2)], rotation((0.3, 0, 0)))
    with pytest.raises(UnsupportedSeriesError) as error:
        stack(mixed)
    assert error.value.code == "mixed-orientations"


def test_a_turned_scanner_image_is_another_orientation() -> None:
    """Parallel planes whose rows run in another direction are not the same orientation."""
    mixed = planes([(0, 0, 0), (0, 0, 1)]) + planes([(0, 0, 2)], rotation((0, 0, np.pi)))
    with pytest.raises(UnsupportedSeriesError) as error:
        stack(mixed)
    assert error.value.code == "mixed-orientations"
