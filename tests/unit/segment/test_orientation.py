"""Views along the patient's axes."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from unit.segment.torso import turned
from voxelmill_segment.orientation import PatientAxes
from voxelmill_shared.imaging.volume import Volume

ORIENTATIONS = list(product(permutations(range(3)), product((False, True), repeat=3)))


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
def test_every_orientation_comes_out_along_the_patients_axes(
    order: tuple[int, int, int], flips: tuple[bool, bool, bool]
) -> None:
    """All 48 ways to store a volume give the same patient's view, and the way back is exact."""
    affine = np.diag([0.7, 0.8, 2.5, 1.0])
    volume = Volume(voxels=np.arange(24, dtype=np.int16).reshape(2, 3, 4), affine=affine, modality="CT")
    stored = turned(volume, order, flips)
    axes = PatientAxes.of(stored.affine)
    view = axes.to_patient(stored.voxels)
    np.testing.assert_array_equal(view, volume.voxels)
    assert axes.spacing == pytest.approx((2.5, 0.8, 0.7))
    np.testing.assert_array_equal(axes.to_volume(view), stored.voxels)


def test_an_oblique_volume_goes_by_its_nearest_axes() -> None:
    """Thirty degrees of rotation about the body's axis change no side."""
    turn = np.radians(30)
    affine = np.eye(4)
    affine[:3, 0] = (-np.cos(turn), -np.sin(turn), 0)
    affine[:3, 1] = (np.sin(turn), -np.cos(turn), 0)
    axes = PatientAxes.of(affine)
    assert axes.order == (0, 1, 2)
    assert axes.flipped == (False, True, True)


def test_a_sheared_volume_keeps_its_axes() -> None:
    """A gantry tilt of 25 degrees moves each slice along the back; slices still run to the head."""
    affine = np.diag([0.5, 0.5, 5.0, 1.0])
    affine[1, 2] = 5.0 * np.tan(np.radians(25))
    assert PatientAxes.of(affine).order == (0, 1, 2)
