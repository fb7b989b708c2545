"""What a plan means for a series: the task, its networks, its licence."""

from __future__ import annotations

from pathlib import Path

import pytest

from voxelmill_segment.totalsegmentator import library
from voxelmill_segment.totalsegmentator.table import document
from voxelmill_segment.totalsegmentator.tasks import (
    LicenceRequiredError,
    UnfitPlanError,
    licence_number,
    networks_of,
    offered,
    resolve,
)
from voxelmill_shared.plan import Organ, Plan, Quality, Resolution
from voxelmill_shared.work import NotApplicableError

pytestmark = pytest.mark.usefixtures("totalsegmentator")

NUMBER = "aca_0123456789ABCD"


def datasets(plan: Plan, modality: str = "CT") -> tuple[list[int], list[int]]:
    """The task's own networks, and those that say where to crop to."""
    request = resolve(plan, modality)
    return [one.dataset for one in request.networks], [one.dataset for one in request.rough]


@pytest.mark.parametrize(("modality", "task"), [("CT", "total"), ("MR", "total_mr"), ("", "total")])
def test_the_usual_task_follows_the_modality(modality: str, task: str) -> None:
    """All of its classes, with no crop."""
    request = resolve(Plan(), modality)
    assert request.task == task
    assert request.classes == library.classes(task)
    assert (request.subset, request.rough, request.roi_subset) == (False, (), None)


def test_only_the_networks_that_an_organ_needs_are_run() -> None:
    """Lungs are of one of the five, bones of three; what is cropped to is found at 6 mm, of an MR at 3 mm."""
    assert datasets(Plan(organ=Organ.LUNGS)) == ([291], [298])
    assert datasets(Plan(organ=Organ.BONES)) == ([292, 294, 295], [298])
    assert datasets(Plan(organ=Organ.LIVER), "MR") == ([850], [852])
    assert datasets(Plan(organ=Organ.LUNGS, resolution=Resolution.FAST)) == ([297], [298])


def test_a_subset_is_the_librarys_roi_subset_where_it_has_one() -> None:
    """Other tasks compute all of their classes, and the wanted ones are kept."""
    assert resolve(Plan(organ=Organ.SPLEEN), "CT").roi_subset == ("spleen",)
    airways = resolve(Plan(task="lung_vessels", organ=Organ.AIRWAYS), "CT")
    assert list(airways.classes.values()) == ["lung_airways", "lung_airways_wall"]
    assert airways.subset
    assert airways.roi_subset is None


def test_the_body_is_a_task_of_its_own() -> None:
    """`total` has no skin."""
    assert resolve(Plan(organ=Organ.BODY), "CT").task == "body"
    assert resolve(Plan(organ=Organ.BODY), "MR").task == "body_mr"


@pytest.mark.parametrize(
    ("quality", "resolution", "task", "found"),
    [
        (Quality.NORMAL, None, "", Resolution.NORMAL),
        (Quality.HIGH, None, "", Resolution.NORMAL),
        (Quality.FAST, None, "", Resolution.FAST),
        (Quality.FAST, Resolution.NORMAL, "", Resolution.NORMAL),
        (Quality.NORMAL, Resolution.FASTEST, "", Resolution.FASTEST),
        (Quality.FAST, None, "lung_vessels", Resolution.NORMAL),
        (Quality.NORMAL, Resolution.FASTEST, "body", Resolution.FAST),
        (Quality.NORMAL, Resolution.NORMAL, "lung_vessels", Resolution.NORMAL),
    ],
)
def test_the_resolution_is_the_one_asked_for_or_follows_the_quality(
    quality: Quality, resolution: Resolution | None, task: str, found: Resolution
) -> None:
    """A task with one grid has that one whatever the quality."""
    assert resolve(Plan(quality=quality, resolution=resolution, task=task), "CT").resolution is found


def test_a_resolution_that_the_task_lacks_is_refused() -> None:
    """It was asked for by name."""
    with pytest.raises(UnfitPlanError, match="the task lung_vessels has one resolution"):
        resolve(Plan(task="lung_vessels", resolution=Resolution.FAST), "CT")


def test_an_mr_series_gets_the_tasks_kin_for_mr() -> None:
    """Where there is one."""
    assert resolve(Plan(task="liver_segments"), "MR").task == "liver_segments_mr"
    assert resolve(Plan(task="total"), "MR").task == "total_mr"
    with pytest.raises(NotApplicableError, match="the task lung_vessels is for CT; this series is MR"):
        resolve(Plan(task="lung_vessels"), "MR")
    with pytest.raises(NotApplicableError, match="the task total_mr is for MR; this series is CT"):
        resolve(Plan(task="total_mr"), "CT")


def test_other_modalities_are_skipped() -> None:
    """Nothing failed."""
    with pytest.raises(NotApplicableError, match="for CT and MR; this series is PT"):
        resolve(Plan(), "PT")


def test_an_organ_that_a_task_has_not_is_a_wrong_plan_if_the_task_was_named() -> None:
    """And no reason to fail for a series whose modality chose the task."""
    with pytest.raises(UnfitPlanError, match="the task lung_vessels has no class of the organ group heart"):
        resolve(Plan(task="lung_vessels", organ=Organ.HEART), "CT")
    with pytest.raises(NotApplicableError, match="the task total_mr has no class of the organ group ribs"):
        resolve(Plan(organ=Organ.RIBS), "MR")


@pytest.mark.parametrize(
    ("task", "needed"),
    [
        ("lung_vessels", {117, 297}),
        ("liver_segments_mr", {576, 852}),
        ("abdominal_muscles", {952, 300}),
        ("teeth", {113, 115, 298}),
        ("vertebrae_pp_refined", {803, 305}),
        ("headneck_muscles", {778, 779, 298}),
        ("body", {299}),
    ],
)
def test_a_request_names_every_data_set_that_its_chain_loads(task: str, needed: set[int]) -> None:
    """What crops, what crops for that, what mends: a worker must not find out in the middle that one is missing."""
    modality = library.modality(task)
    assert {one.dataset for one in resolve(Plan(task=task), modality).all_networks} == needed


def test_a_task_needs_the_networks_of_every_resolution_or_of_one() -> None:
    """For `voxelmill weights`: with those that a subset of organs would crop by."""
    assert {one.dataset for one in networks_of("total")} == {291, 292, 293, 294, 295, 297, 298}
    assert {one.dataset for one in networks_of("total", Resolution.FAST)} == {297, 298}
    assert {one.dataset for one in networks_of("body", Resolution.FASTEST)} == {300}


@pytest.mark.parametrize("licences", ["", "CC-BY-NC-4.0", "too short"])
def test_a_licensed_task_needs_a_number(licences: str) -> None:
    """The line says where one is to be had, and never repeats what was given."""
    with pytest.raises(
        LicenceRequiredError, match=r"needs a licence number .*license-academic.*set it in VOXELMILL_"
    ) as e:
        resolve(Plan(task="coronary_arteries"), "CT", licences)
    assert not licences or licences not in str(e.value)
    assert resolve(Plan(task="coronary_arteries"), "CT", NUMBER).networks


@pytest.mark.parametrize("licences", ["", NUMBER])
def test_weights_that_are_not_for_commerce_are_used_knowingly_or_not_at_all(licences: str) -> None:
    """The library itself does not ask; a licence number for other tasks is no answer."""
    with pytest.raises(LicenceRequiredError, match=r"brain_aneurysm: .*CC-BY-NC-4\.0, not for commercial use"):
        resolve(Plan(task="brain_aneurysm"), "MR", licences)
    assert resolve(Plan(task="brain_aneurysm"), "MR", f"{NUMBER}, CC-BY-NC-4.0").networks


@pytest.mark.parametrize(("task", "why"), [("total_v3", "not known to be open"), ("lungs2", "there is no such task")])
def test_what_is_not_offered_is_refused_with_the_reason_whatever_licence(task: str, why: str) -> None:
    """Our own list, and not the library's."""
    with pytest.raises(UnfitPlanError, match=why):
        resolve(Plan(task=task), "CT", NUMBER)
    assert task not in offered()


def test_the_licence_number_is_found_among_the_licences() -> None:
    """It goes into the private configuration of the library."""
    assert licence_number(f"CC-BY-NC-4.0,{NUMBER}") == NUMBER
    assert licence_number("CC-BY-NC-4.0") is None


def test_the_page_of_tasks_is_what_the_code_says() -> None:
    """If not: `python -m voxelmill_segment.totalsegmentator.table > docs/totalsegmentator-tasks.md`."""
    assert (Path(__file__).parents[3] / "docs" / "totalsegmentator-tasks.md").read_text(encoding="utf-8") == document()
