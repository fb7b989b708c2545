"""Measures of segments against values that are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from voxelmill_segment.labels import BONES, LUNG_LEFT
from voxelmill_segment.segmenter import LabelMap
from voxelmill_segment.statistics import measure, value_unit
from voxelmill_shared.imaging.volume import Volume

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
    assert (bones.mean, bones.std) == (109.5, round(float(np.std(np.arange(20))), 2))
    assert bones.percentiles == {"p05": 100, "p25": 104, "p50": 109, "p75": 114, "p95": 118}
    assert bones.centroid_mm == (-7.0, -18.25, 105.0)
    assert bones.bounding_box_mm == ((-8.25, -18.75, 103.0), (-5.75, -17.75, 107.0))
    assert not bones.touches_border


def test_a_segment_without_voxels_has_no_values() -> None:
    """It is listed, so that nobody wonders where it is."""
    lung = measure(*block())[0]
    assert (lung.voxels, lung.volume_ml, lung.mean, lung.centroid_mm) == (0, 0.0, None, None)


@pytest.mark.parametrize(
    ("index", "face"),
    [((0, 4, 4), "I"), ((5, 4, 4), "S"), ((3, 0, 4), "A"), ((3, 7, 4), "P"), ((3, 4, 0), "R"), ((3, 4, 9), "L")],
)
def test_the_faces_of_the_border_that_are_touched_are_named(index: tuple[int, int, int], face: str) -> None:
    """The volume of what is cut is not the organ's."""
    voxels, label_map = block()
    label_map.labels[index] = BONES.number
    bones = measure(voxels, label_map)[1]
    assert bones.touches_border
    assert bones.border_faces == (face,)


def test_faces_follow_the_affine() -> None:
    """Rows from the back to the front, slices from the head to the feet."""
    voxels, label_map = block()
    label_map.labels[0, 0, 4] = BONES.number
    turned = LabelMap(label_map.labels, AFFINE @ np.diag([1.0, -1.0, -1.0, 1.0]), label_map.segments)
    assert measure(voxels, turned)[1].border_faces == ("P", "S")


@pytest.mark.parametrize("scale", [1.0, 1e-5, 3e6])
def test_fractions_of_any_size_are_measured(scale: float) -> None:
    """A quantitative map of 0 to 1 is measured as finely as Hounsfield units, or as activity in Bq/mL."""
    voxels, label_map = block()
    values = (voxels.astype(np.float32) + 0.25) * np.float32(scale)
    bones = measure(values, label_map)[1]
    inside = values[label_map.labels > 0].astype(np.float64)
    tolerance = float(np.ptp(values)) / 65_534
    assert bones.mean == pytest.approx(inside.mean(), abs=tolerance)
    assert bones.std == pytest.approx(inside.std(), abs=tolerance)
    assert bones.percentiles["p95"] == pytest.approx(np.percentile(inside, 95, method="inverted_cdf"), abs=tolerance)


def test_what_is_no_number_has_a_volume_and_no_value() -> None:
    """Padding outside the reconstruction, say: it neither moves the mean nor becomes a zero."""
    voxels, label_map = block()
    values = voxels.astype(np.float32)
    values[2, 3, 4], values[2, 3, 5] = np.nan, np.inf
    bones = measure(values, label_map)[1]
    assert bones.voxels == 20
    assert bones.mean == pytest.approx(np.arange(102, 120).mean(), abs=0.02)
    values[label_map.labels > 0] = np.nan
    bones = measure(values, label_map)[1]
    assert (bones.voxels, bones.mean, bones.percentiles) == (20, None, {})


def test_all_segments_are_measured_like_each_alone() -> None:
    """Random labels, every number that there is, against numpy on each mask."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 256, (7, 40, 50)).astype(np.uint8)
    voxels = rng.integers(-32768, 32768, labels.shape).astype(np.int16)
    segments = tuple(replace(BONES, number=number) for number in range(1, 256))
    for found in measure(voxels, LabelMap(labels, AFFINE, segments)):
        mask = labels == found.number
        values = voxels[mask]
        assert found.voxels == mask.sum()
        assert found.mean == pytest.approx(values.mean(), abs=0.01)
        assert found.std == pytest.approx(values.std(), abs=0.01)
        ranks = np.percentile(values, (5, 25, 50, 75, 95), method="inverted_cdf")
        assert list(found.percentiles.values()) == ranks.tolist()
        middle = np.argwhere(mask).mean(0)[::-1]
        np.testing.assert_allclose(found.centroid_mm, AFFINE[:3, :3] @ middle + AFFINE[:3, 3], atol=1e-3)


def test_labels_outside_the_table_are_left_alone() -> None:
    """A label that no segment has is measured by nobody, and writes nowhere that it should not."""
    voxels, label_map = block()
    before = measure(voxels, label_map)
    label_map.labels[0, 0, 0] = 255
    assert measure(voxels, label_map) == before


@pytest.mark.parametrize(
    ("modality", "unit"), [("CT", "HU"), ("MR", "arbitrary"), ("PT", "as in Units (0054,1001)"), ("", "arbitrary")]
)
def test_the_unit_is_that_of_the_modality(modality: str, unit: str) -> None:
    """Only CT has Hounsfield units; a file that names no modality has them if it looks like a CT."""
    voxels, _ = block()
    assert value_unit(Volume(np.abs(voxels), AFFINE, modality)) == unit


def test_a_sheared_volume_has_its_true_volume() -> None:
    """With a gantry tilt the step from slice to slice is longer than their distance."""
    voxels, label_map = block()
    sheared = AFFINE.copy()
    sheared[1, 2] = 1.5
    assert measure(voxels, LabelMap(label_map.labels, sheared, (BONES,)))[0].volume_ml == 0.01
