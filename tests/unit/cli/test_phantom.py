"""The phantom: what it holds, and how well the model `threshold` finds it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from voxelmill_cli.phantom import Phantom, PhantomPlan, make_phantom
from voxelmill_segment import labels as table
from voxelmill_segment.threshold import ThresholdSegmenter
from voxelmill_shared.imaging.volume import Volume
from voxelmill_shared.plan import Plan

SMALL = PhantomPlan(rows=256, columns=256, pixel_mm=1.5, slices=60, slice_mm=5.0)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(SMALL)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def test_the_same_seed_gives_the_same_phantom() -> None:
    """To the bit; another seed gives another body."""
    tiny = PhantomPlan(rows=64, columns=64, pixel_mm=6.0, slices=12, slice_mm=24.0)
    one, other = make_phantom(tiny), make_phantom(tiny)
    np.testing.assert_array_equal(one.voxels, other.voxels)
    np.testing.assert_array_equal(one.labels, other.labels)
    third = make_phantom(PhantomPlan(seed=1, rows=64, columns=64, pixel_mm=6.0, slices=12, slice_mm=24.0))
    assert (one.labels != third.labels).any()


def test_its_organs_have_the_volumes_of_an_adult(phantom: Phantom) -> None:
    """Millilitres of a thorax of 300 mm."""
    volumes = phantom.volumes_ml
    assert 1200 < volumes["lung_left"] < 3000
    assert volumes["lung_left"] < volumes["lung_right"] < 3200
    assert 30 < volumes["airways"] < 120
    assert 450 < volumes["bones"] < 1500
    assert sum(volumes[s.name] for s in table.SEGMENTS if s is not table.BODY) <= volumes["body"]


def test_its_densities_are_those_of_tissue(phantom: Phantom) -> None:
    """Mean HU by segment, and noise that a scanner would be content with."""
    means = {s.name: phantom.voxels[phantom.labels == s.number].mean() for s in table.SEGMENTS if s is not table.BODY}
    assert -900 < means["lung_left"] < -780
    assert means["airways"] < -900
    assert means["bones"] > 250
    assert 20 < means["soft_tissue"] < 70
    assert -120 < means["subcutaneous_fat"] < -90
    heart = phantom.voxels[30, 90:100, 135:145]
    assert phantom.labels[30, 90:100, 135:145].tolist() == [[table.SOFT_TISSUE.number] * 10] * 10
    assert 8 < heart.std() < 24


def test_left_is_left_and_the_heart_is_on_the_left(phantom: Phantom) -> None:
    """The left lung lies at positive L, and the heart makes it smaller."""
    columns = phantom.affine[0, 3] + phantom.affine[0, 0] * np.nonzero(phantom.labels == table.LUNG_LEFT.number)[2]
    assert columns.min() > 0


def test_the_model_finds_what_the_phantom_holds(phantom: Phantom) -> None:
    """Dice against the phantom's own truth: lungs 0.95, bones 0.85, airways 0.8; volumes within 5 % for lungs."""
    volume = Volume(voxels=phantom.voxels, affine=phantom.affine, modality="CT")
    steps: list[str] = []
    found = ThresholdSegmenter().segment(volume, Plan(), steps.append).labels
    for segment, least in (
        (table.LUNG_LEFT, 0.95),
        (table.LUNG_RIGHT, 0.95),
        (table.AIRWAYS, 0.8),
        (table.BONES, 0.85),
        (table.SOFT_TISSUE, 0.93),
        (table.SUBCUTANEOUS_FAT, 0.9),
        (table.TORSO_FAT, 0.75),
    ):
        score = dice(found == segment.number, phantom.labels == segment.number)
        assert score >= least, f"{segment.name}: {score:.3f}"
    lungs = np.isin(found, (2, 3)).sum() / np.isin(phantom.labels, (2, 3)).sum()
    assert 0.95 < lungs < 1.05


def test_contrast_medium_is_no_bone() -> None:
    """A phantom with 250 HU of contrast in its blood: the aorta and the heart stay soft tissue."""
    phantom = make_phantom(replace(SMALL, slices=36, contrast_hu=250.0))  # 180 mm around the heart
    volume = Volume(voxels=phantom.voxels, affine=phantom.affine, modality="CT")
    found = ThresholdSegmenter().segment(volume, Plan(), lambda _: None).labels
    assert dice(found == table.BONES.number, phantom.labels == table.BONES.number) >= 0.85
