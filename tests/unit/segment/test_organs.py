"""What `--organ` means to each model."""

from __future__ import annotations

import pytest

from unit.segment.torso import silent, torso
from voxelmill_segment.organs import GROUPS, classes_of, segments_of
from voxelmill_segment.threshold import ThresholdSegmenter
from voxelmill_segment.totalsegmentator import library, tasks
from voxelmill_shared.plan import Organ, Plan
from voxelmill_shared.work import NotApplicableError


def test_every_organ_group_stands_in_the_table() -> None:
    """No group can be asked for that nothing was written down for, and every one gives something."""
    assert set(GROUPS) == set(Organ)
    assert all(group.segments or group.classes for group in GROUPS.values())


def test_threshold_refuses_organs_that_it_cannot_tell_apart_and_says_which_it_can() -> None:
    """The heart has the density of its neighbours: no result is better than a wrong one."""
    with pytest.raises(NotApplicableError, match=r"cannot tell heart .* lungs, bones, body, airways, all"):
        ThresholdSegmenter().segment(torso(), Plan(organ=Organ.HEART), silent)


def test_threshold_has_what_it_always_had() -> None:
    """The groups of the first release give the segments that they gave then."""
    given = {organ: [segment.number for segment in segments_of(organ)] for organ in list(Organ)[:4]}
    assert given == {Organ.LUNGS: [2, 3], Organ.BONES: [5], Organ.BODY: [1], Organ.AIRWAYS: [4]}
    assert [segment.number for segment in segments_of(Organ.ALL)] == [2, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.usefixtures("totalsegmentator")
def test_lungs_are_five_lobes_and_nothing_else() -> None:
    """Of a CT."""
    assert sorted(classes_of(Organ.LUNGS, library.classes("total")).values()) == [
        "lung_lower_lobe_left",
        "lung_lower_lobe_right",
        "lung_middle_lobe_right",
        "lung_upper_lobe_left",
        "lung_upper_lobe_right",
    ]


@pytest.mark.usefixtures("totalsegmentator")
def test_bones_are_every_bone_of_total() -> None:
    """62: 26 of the spine, 24 ribs, 10 of limbs and pelvis, skull, sternum; no cartilage, no cord."""
    bones = set(classes_of(Organ.BONES, library.classes("total")).values())
    assert len(bones) == 62
    assert {"skull", "sternum", "femur_left", "rib_right_12", "vertebrae_C1", "sacrum"} <= bones
    assert not {"costal_cartilages", "spinal_cord", "brain"} & bones


@pytest.mark.usefixtures("totalsegmentator")
def test_all_is_every_class() -> None:
    """Whatever the task."""
    for task in tasks.OPEN:
        assert classes_of(Organ.ALL, library.classes(task)) == library.classes(task)


@pytest.mark.usefixtures("totalsegmentator")
@pytest.mark.parametrize("organ", [organ for organ in Organ if organ is not Organ.ALL])
def test_every_class_of_a_group_exists(organ: Organ) -> None:
    """A name that no task has is a slip of the pen, or the library has renamed it."""
    known = {name for task in tasks.OPEN for name in library.classes(task).values()}
    rare = {"vertebrae_T13", "vertebrae_L6", "coccyx", "lung_trachea_bronchia"}
    """Variants of nature, and names of tasks that are not offered any more."""
    assert GROUPS[organ].classes - known <= rare


@pytest.mark.usefixtures("totalsegmentator")
@pytest.mark.parametrize("organ", [organ for organ in Organ if organ is not Organ.BODY])
def test_every_group_but_the_body_is_found_in_total(organ: Organ) -> None:
    """The body is a task of its own."""
    assert classes_of(organ, library.classes("total"))
