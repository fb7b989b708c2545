"""The model `threshold`: what it finds, on which side, and what it does not invent."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from unit.segment.torso import dice, silent, torso, torso_hu, turned
from voxelmill_segment import labels as table
from voxelmill_segment.organs import GROUPS
from voxelmill_segment.threshold import ThresholdSegmenter
from voxelmill_shared.imaging.volume import Volume
from voxelmill_shared.plan import Organ, Plan, Quality
from voxelmill_shared.work import NotApplicableError

if TYPE_CHECKING:
    from voxelmill_segment.segmenter import LabelMap


def segment(volume: Volume, organ: Organ = Organ.ALL, quality: Quality = Quality.NORMAL) -> LabelMap:
    return ThresholdSegmenter().segment(volume, Plan(organ=organ, quality=quality), silent)


@pytest.fixture(scope="module")
def whole() -> LabelMap:
    return segment(torso())


def test_the_parts_of_a_torso_are_found(whole: LabelMap) -> None:
    """Lungs with their vessels, airway, bones and tissues have voxels where they were drawn."""
    hu = torso_hu()
    lungs = np.isin(whole.labels, (table.LUNG_LEFT.number, table.LUNG_RIGHT.number))
    assert dice(lungs, (hu < -700) & (hu > -930) & lungs) > 0.9
    assert not whole.warnings
    assert (whole.labels[:, 40] == table.BONES.number).any()
    trachea = whole.labels[58, 44, 54]
    assert trachea == table.AIRWAYS.number


def test_left_is_left(whole: LabelMap) -> None:
    """In LPS the left lung has the greater first coordinate; here it is also the smaller one."""
    columns = np.arange(whole.labels.shape[2])[None, None, :]
    left, right = whole.labels == table.LUNG_LEFT.number, whole.labels == table.LUNG_RIGHT.number
    assert (columns * left).sum() / left.sum() > (columns * right).sum() / right.sum()
    assert 0.6 < left.sum() / right.sum() < 0.95


@pytest.mark.parametrize(
    ("order", "flips"),
    [
        ((0, 1, 2), (True, False, False)),
        ((0, 1, 2), (False, True, True)),
        ((2, 0, 1), (False, True, False)),
        ((1, 0, 2), (True, False, True)),
    ],
    ids=["head-first-downwards", "prone", "sagittal", "coronal"],
)
def test_the_stored_orientation_changes_nothing(
    whole: LabelMap, order: tuple[int, int, int], flips: tuple[bool, bool, bool]
) -> None:
    """The same patient stored otherwise has the same labels at the same places."""
    stored = turned(torso(), order, flips)
    expected = turned(Volume(voxels=whole.labels, affine=whole.affine, modality="CT"), order, flips)
    found = segment(stored)
    np.testing.assert_array_equal(found.labels, expected.voxels)
    np.testing.assert_allclose(found.affine, expected.affine)


@pytest.mark.parametrize("organ", [organ for organ in Organ if GROUPS[organ].segments])
def test_only_what_is_asked_for_has_labels(organ: Organ) -> None:
    """Each organ group gives its segments and no other number."""
    found = segment(torso(), organ, Quality.FAST)
    assert found.segments == GROUPS[organ].segments
    numbers = set(np.unique(found.labels)) - {0}
    assert numbers == {segment.number for segment in found.segments}


def test_the_body_holds_its_lungs_and_not_the_table() -> None:
    """The body is everything within the skin."""
    body = segment(torso(), Organ.BODY).labels == table.BODY.number
    assert body[40, 42, 35:40].all()
    assert not body[:, 75:].any()


def test_bowel_gas_is_no_lung() -> None:
    """A belly with gas and no chest has no lung and no airway, and says so."""
    found = segment(replace(torso(), voxels=np.ascontiguousarray(torso_hu()[:14])))
    assert not np.isin(found.labels, (2, 3, 4)).any()
    assert found.warnings == ("not found in this volume: lung_left, lung_right, airways",)


def test_lungs_at_the_border_are_found() -> None:
    """A field of view that cuts through both lungs, above and at the sides, does not lose them."""
    hu = np.ascontiguousarray(torso_hu()[26:44, :, 25:84])
    found = segment(replace(torso(), voxels=hu), Organ.LUNGS)
    air = (hu > -930) & (hu < -700)
    assert dice(np.isin(found.labels, (2, 3)), air) > 0.8


def test_air_alone_is_answered_with_nothing_found() -> None:
    """No body, no crash."""
    found = segment(replace(torso(), voxels=np.full((20, 40, 40), -1000, np.int16)))
    assert not found.labels.any()
    assert len(found.warnings) == 1


def test_tissue_alone_is_answered() -> None:
    """A crop inside an organ has no edge of a body and no air."""
    found = segment(replace(torso(), voxels=np.full((20, 40, 40), 50, np.int16)))
    assert not np.isin(found.labels, (2, 3, 4, 5)).any()


def test_float_voxels_and_padding_are_understood(whole: LabelMap) -> None:
    """HU with fractions, NaN and padding far below air give the same labels."""
    hu = torso_hu().astype(np.float32)
    hu[:, 0, 0], hu[:, 0, 1] = np.nan, -3024
    found = segment(replace(torso(), voxels=hu))
    assert (found.labels != whole.labels).mean() < 1e-4


def test_the_brain_is_no_marrow() -> None:
    """A skull encloses the brain as a bone encloses its marrow."""
    z, y, x = np.meshgrid(*[np.arange(-n, n) * 3.0 for n in (24, 34, 30)], indexing="ij")
    radius = np.sqrt((x / 70) ** 2 + (y / 85) ** 2)
    hu = np.full(radius.shape, -1000, np.int16)
    hu[radius < 1] = 40
    hu[(radius < 0.93) & (radius > 0.84)] = 900
    found = segment(Volume(voxels=hu, affine=np.diag([3.0, 3.0, 3.0, 1.0]), modality="CT"), Organ.BONES)
    assert not found.labels[(radius < 0.75)].any()
    assert (found.labels[(radius < 0.91) & (radius > 0.86)] == table.BONES.number).mean() > 0.9
    assert z.shape == hu.shape


def test_a_dry_skull_is_a_body() -> None:
    """A phantom of bone and air is thinner than many a table, but it is closed."""
    z, y, x = np.meshgrid(*[np.arange(-n, n) * 3.0 for n in (12, 40, 30)], indexing="ij")
    radius = np.sqrt((x / 70) ** 2 + (y / 85) ** 2)
    hu = np.full(z.shape, -1000, np.int16)
    skull = (radius < 0.93) & (radius > 0.84)
    hu[skull] = 900
    hu[abs(y - 105) < 4] = 400  # a dense table top
    found = segment(Volume(voxels=hu, affine=np.diag([3.0, 3.0, 3.0, 1.0]), modality="CT"), Organ.BONES)
    assert (found.labels[skull] == table.BONES.number).mean() > 0.9
    assert not found.labels[y > 95].any()


@pytest.mark.parametrize(
    ("volume", "reason"),
    [
        (torso(modality="MR"), "for CT; this series is MR"),
        (replace(torso(), voxels=torso_hu()[:7]), "at least 8 slices; this volume has 7"),
        (
            replace(torso(), voxels=torso_hu()[:12], affine=np.diag([3.5, 3.5, 1.0, 1.0])),
            "at least 20 mm; this volume spans 12.0 mm",
        ),
        (replace(torso(modality=""), voxels=np.abs(torso_hu())), "not Hounsfield units"),
    ],
    ids=["mr", "few-slices", "thin", "no-hu"],
)
def test_what_the_method_has_no_meaning_for_is_skipped(volume: Volume, reason: str) -> None:
    """The reason is one sentence for people."""
    with pytest.raises(NotApplicableError, match=reason):
        segment(volume)


def test_hounsfield_units_without_a_modality_are_taken() -> None:
    """NIfTI names no modality; the values decide."""
    assert segment(torso(modality=""), Organ.BODY).labels.any()


def test_numbers_and_names_are_unique() -> None:
    """A label number never means two things."""
    assert len({segment.number for segment in table.SEGMENTS}) == len(table.SEGMENTS)
    assert len({segment.name for segment in table.SEGMENTS}) == len(table.SEGMENTS)
