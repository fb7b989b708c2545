"""Measures of segments against values that are known."""

from __future__ import annotations

import numpy as np
import pytest

from voxelmill_segment.labels import BONES, LUNG_LEFT
from voxelmill_segment.segmenter import LabelMap
from voxelmill_segment.statistics import measure

AFFINE = np.array([[0.5, 0, 0, -10], [0, 0.5, 0, -20], [0, 0, 2.0, 100], [0, 0, 0, 1]])


def block() -> tuple[np.ndarray, LabelMap]:
    labels = np.zeros((6, 8, 10), np.uint8)
    labels[2:4, 3:5, 4:9] = BONES.number
    voxels = np.full(labels.shape, -1000, np.int16)
    voxels[labels > 0] = np.arange(100, 120)
    return voxels, LabelMap(labels, AFFINE, (LUNG_LEFT, BONES))


def test_a_block_is_measured() -> None:
    """Volume, HU, centre and box of twenty voxels of half a cubic millimetre, in LPS."""
    bones = measure(*block())[1]
    assert (bones.name, bones.voxels, bones.volume_ml) == ("bones", 20, 0.01)
    assert (bones.hu_mean, bones.hu_std) == (109.5, round(float(np.std(np.arange(20))), 2))
    assert bones.hu_percentiles == {"p05": 100, "p25": 104, "p50": 109, "p75": 114, "p95": 118}
    assert bones.centroid_mm == (-7.0, -18.25, 105.0)
    assert bones.bounding_box_mm == ((-8.25, -18.75, 103.0), (-5.75, -17.75, 107.0))
    assert not bones.touches_border


def test_a_segment_without_voxels_has_no_values() -> None:
    """It is listed, so that nobody wonders where it is."""
    lung = measure(*block())[0]
    assert (lung.voxels, lung.volume_ml, lung.hu_mean, lung.centroid_mm) == (0, 0.0, None, None)


@pytest.mark.parametrize("index", [(0, 4, 4), (5, 4, 4), (3, 0, 4), (3, 7, 4), (3, 4, 0), (3, 4, 9)])
def test_touching_any_border_is_noted(index: tuple[int, int, int]) -> None:
    """The volume of what is cut is not the organ's."""
    voxels, label_map = block()
    label_map.labels[index] = BONES.number
    assert measure(voxels, label_map)[1].touches_border


def test_fractions_are_rounded() -> None:
    """Float HU are measured like whole ones, to half a unit."""
    voxels, label_map = block()
    assert measure(voxels.astype(np.float32) + 0.4, label_map) == measure(voxels, label_map)


def test_a_sheared_volume_has_its_true_volume() -> None:
    """With a gantry tilt the step from slice to slice is longer than their distance."""
    voxels, label_map = block()
    sheared = AFFINE.copy()
    sheared[1, 2] = 1.5
    assert measure(voxels, LabelMap(label_map.labels, sheared, (BONES,)))[0].volume_ml == 0.01
