"""Volumes of a tilted gantry: set upright for the model, and the labels back where the patient was acquired."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from unit.segment.torso import SPACING, silent, tilted_torso, torso
from voxelmill_segment.device import segment_volume
from voxelmill_segment.segmenter import open_segmenter
from voxelmill_segment.statistics import measure
from voxelmill_segment.upright import Upright
from voxelmill_shared.imaging.volume import Volume
from voxelmill_shared.plan import Plan
from voxelmill_shared.work import StepClock


def sheared(lean: tuple[float, float], slices: int = 9) -> Volume:
    """Return a volume whose values are a linear function of the place in the patient."""
    affine = np.array([[0.5, 0, 2 * lean[1], -7], [0, 0.75, 2 * lean[0], 9], [0, 0, 2, 5], [0, 0, 0, 1]])
    k, j, i = np.meshgrid(range(slices), range(20), range(24), indexing="ij")
    places = np.stack([i, j, k, np.ones(k.shape)], axis=-1) @ affine.T
    return Volume((places[..., :3] @ [20.0, -30.0, 10.0]).astype(np.float32), affine, "CT")


@pytest.mark.parametrize("lean", [(0.3, 0.0), (-0.3, 0.0), (0.0, 0.4), (0.25, -0.2)])
def test_values_stay_where_they_were_in_the_patient(lean: tuple[float, float]) -> None:
    """On the upright grid each voxel lies within half a pixel of its place; the grid's axes are at right angles."""
    volume = sheared(lean)
    upright = Upright.of(volume)
    assert upright is not None
    moved = upright.volume(volume)
    axes = moved.affine[:3, :3]
    np.testing.assert_allclose(axes.T @ axes, np.diag(np.diag(axes.T @ axes)), atol=1e-9)
    assert np.linalg.det(axes) == pytest.approx(np.linalg.det(volume.affine[:3, :3]))
    seen = 0
    for index in np.argwhere(moved.voxels > volume.voxels.min()):
        place = moved.affine @ (*index[::-1], 1)
        value = float(place[:3] @ [20.0, -30.0, 10.0])
        assert abs(moved.voxels[tuple(index)] - value) <= 0.5 * (20 * 0.5 + 30 * 0.75) + 0.01
        seen += 1
    assert seen == volume.voxels.size - 1


def test_labels_come_back_to_the_voxels_that_they_were_found_in() -> None:
    """There and back again, every voxel is its own."""
    volume = sheared((0.3, -0.2))
    numbers = np.random.default_rng(3).integers(0, 255, volume.voxels.shape).astype(np.float32)
    upright = Upright.of(volume)
    assert upright is not None
    moved = upright.volume(replace(volume, voxels=numbers)).voxels.astype(np.uint8)
    np.testing.assert_array_equal(upright.labels(moved, numbers.shape), numbers)


def test_an_upright_volume_is_left_alone() -> None:
    """Without a tilt nothing is resampled."""
    assert Upright.of(torso()) is None


@pytest.mark.parametrize("lean", [0.27, -0.2])
def test_organs_of_a_tilted_patient_have_their_volumes(lean: float) -> None:
    """15 and 11 degrees of gantry tilt: lungs, bones and body within 1 % of the same patient's upright scan."""
    found = {}
    for volume in (torso(), tilted_torso(lean)):
        label_map = segment_volume(open_segmenter(Plan()), volume, Plan(), StepClock(silent))
        np.testing.assert_array_equal(label_map.affine, volume.affine)
        assert label_map.labels.shape == volume.voxels.shape
        found[volume.affine[1, 2]] = {segment.name: segment for segment in measure(volume.voxels, label_map)}
    upright, tilted = found[0.0], found[lean * SPACING[0]]
    for name in ("lung_left", "lung_right", "bones", "soft_tissue"):
        assert tilted[name].volume_ml == pytest.approx(upright[name].volume_ml, rel=0.01), name
        assert tilted[name].centroid_mm == pytest.approx(upright[name].centroid_mm, abs=1.0), name
