"""Which of TotalSegmentator's tasks may be asked for, and what a plan means for a series.

The list of open tasks is our own: the library asks for a licence number for some tasks, but it runs `brain_aneurysm`,
whose weights are not for commercial use, without a word, and a later version may bring others of that kind.
"""

from __future__ import annotations

from dataclasses import dataclass

from voxelmill_segment.organs import classes_of
from voxelmill_segment.totalsegmentator import library
from voxelmill_shared.errors import VoxelmillError
from voxelmill_shared.plan import Organ, Plan, Quality, Resolution
from voxelmill_shared.work import NotApplicableError

OPEN: tuple[str, ...] = (
    "total",
    "total_mr",
    "body",
    "body_mr",
    "vertebrae_body",
    "vertebrae_mr",
    "vertebrae_pp",
    "vertebrae_pp_refined",
    "lung_vessels",
    "lung_nodules",
    "pleural_pericard_effusion",
    "trunk_cavities",
    "breasts",
    "liver_vessels",
    "liver_segments",
    "liver_segments_mr",
    "liver_lesions",
    "liver_lesions_mr",
    "kidney_cysts",
    "abdominal_muscles",
    "hip_implant",
    "cerebral_bleed",
    "ventricle_parts",
    "oculomotor_muscles",
    "head_glands_cavities",
    "head_muscles",
    "headneck_bones_vessels",
    "headneck_muscles",
    "craniofacial_structures",
    "teeth",
)
"""Tasks that the library gives out without a licence number, under its own licence, Apache-2.0."""

NON_COMMERCIAL: dict[str, str] = {"brain_aneurysm": "CC-BY-NC-4.0"}
"""Tasks whose weights may be used, but not commercially, and the licence that they are under."""

REFUSED: dict[str, str] = {
    "total_v3": "its terms are not known to be open",
    "lung_vessels_LEGACY": "lung_vessels has taken its place",
    "coronary_arteries_LEGACY": "coronary_arteries has taken its place",
    "total_highres_test": "its weights are not published",
    "test": "it is the library's own test",
}
"""Tasks that the library offers and Voxelmill does not, and why."""

_WHOLE_BODY = frozenset({"total", "total_mr"})
"""Tasks that can be asked for a part of their classes; the volume is then cropped to it."""

LICENCE_VARIABLE = "VOXELMILL_TOTALSEGMENTATOR_LICENSE"
LICENCE_PAGE = "https://backend.totalsegmentator.com/license-academic/"
_LICENCE_NUMBER_LENGTH = 18
"""Of a licence number, as `config.has_valid_license_offline` has it."""


class UnfitPlanError(VoxelmillError):
    """The plan asks for what no series can be given: there is no such task, resolution or class, or it is not open."""

    error_class = "unfit-plan"


class LicenceRequiredError(UnfitPlanError):
    """The task needs a licence that was not given."""

    error_class = "licence-required"


@dataclass(frozen=True, slots=True)
class Request:
    """What TotalSegmentator is asked for a series.

    Parameters
    ----------
    task, modality
        The library's task, and `CT` or `MR`.
    resolution
        The working grid.
    classes
        The wanted classes by their label in the task.
    subset
        Whether those are fewer than the task has.
    networks
        The task's own networks that the wanted classes need, in the order in which they run.
    rough
        Networks that find where to crop to; the last of them is what `networks` are cropped by.
    refining
        Networks that mend the answer.
    """

    task: str
    modality: str
    resolution: Resolution
    classes: dict[int, str]
    subset: bool
    networks: tuple[library.Network, ...]
    rough: tuple[library.Network, ...] = ()
    refining: tuple[library.Network, ...] = ()

    @property
    def roi_subset(self) -> tuple[str, ...] | None:
        """The library's argument of that name: only `total` and `total_mr` know it."""
        return tuple(self.classes.values()) if self.subset and self.task in _WHOLE_BODY else None

    @property
    def all_networks(self) -> tuple[library.Network, ...]:
        """Every network whose weights must be there, each data set once."""
        return tuple({one.dataset: one for one in (*self.rough, *self.networks, *self.refining)}.values())


def resolve(plan: Plan, modality: str, licences: str = "") -> Request:
    """Say what a plan means for a series.

    Parameters
    ----------
    plan
        What is asked for.
    modality
        `CT` or `MR`; empty where it is not known: that of the plan's task, and CT where it names none.
    licences
        The value of VOXELMILL_TOTALSEGMENTATOR_LICENSE: a licence number, names of licences whose terms are accepted,
        or both, with commas between them.

    Raises
    ------
    NotInstalledError
        If the library is not there.
    UnfitPlanError
        If no series can be worked on like this.
    LicenceRequiredError
        If the task needs a licence that is not among `licences`.
    NotApplicableError
        If it has no meaning for this modality.
    """
    library.require()
    if modality not in {"", "CT", "MR"}:
        raise NotApplicableError(f"the model totalsegmentator is for CT and MR; this series is {modality}")
    task = _task(plan, modality)
    check_licence(task, licences)
    resolution = _resolution(plan, task)
    everything = library.classes(task)
    classes = classes_of(plan.organ, everything)
    if not classes:
        line = f"the task {task} has no class of the organ group {plan.organ}"
        if task == plan.task:
            raise UnfitPlanError(f"{line}: leave out the organ, or the task")
        raise NotApplicableError(line)
    subset = len(classes) < len(everything)
    networks = library.networks(task, resolution)
    if task in _WHOLE_BODY:
        networks = tuple(one for one in networks if any(label in classes for _, label in one.labels))
    return Request(
        task=task,
        modality=library.modality(task),
        resolution=resolution,
        classes=classes,
        subset=subset,
        networks=networks,
        rough=_rough(task) if subset or task not in _WHOLE_BODY else (),
        refining=library.refining_networks(task),
    )


def check_licence(task: str, licences: str) -> None:
    """Refuse a task that is not on the list of open ones, unless it is known and what it needs was given.

    Raises
    ------
    UnfitPlanError
        If Voxelmill does not offer the task.
    LicenceRequiredError
        If it needs a licence that is not among `licences`.
    """
    given = {one.strip() for one in licences.split(",")}
    if task in OPEN:
        return
    if task in REFUSED or task not in library.tasks():
        why = REFUSED.get(task, "there is no such task")
        raise UnfitPlanError(f"{task}: Voxelmill does not offer this task, {why}; `voxelmill weights list` names them")
    if task in NON_COMMERCIAL:
        terms = NON_COMMERCIAL[task]
        if terms not in given:
            raise LicenceRequiredError(
                f"{task}: its weights are under {terms}, not for commercial use; to use them on these terms set"
                f" {LICENCE_VARIABLE}={terms}"
            )
    elif not any(len(one) == _LICENCE_NUMBER_LENGTH for one in given):
        raise LicenceRequiredError(
            f"{task}: this task needs a licence number (free for non-commercial use: {LICENCE_PAGE}); set it in"
            f" {LICENCE_VARIABLE}"
        )


def licence_number(licences: str) -> str | None:
    """The licence number among the licences that were given."""
    return next((one for one in map(str.strip, licences.split(",")) if len(one) == _LICENCE_NUMBER_LENGTH), None)


def networks_of(task: str, resolution: Resolution | None = None) -> tuple[library.Network, ...]:
    """Every network that a task may need, at one resolution or at whatever, and for whatever organs."""
    wished = library.resolutions(task)
    if resolution is not None:
        wished = (_resolution(Plan(task=task, resolution=resolution), task),)
    own = [network for one in wished for network in library.networks(task, one)]
    return tuple({one.dataset: one for one in (*own, *_rough(task), *library.refining_networks(task))}.values())


def offered() -> tuple[str, ...]:
    """Every task that can be asked for: the open ones, then those that need a licence."""
    rest = [task for task in library.tasks() if task not in OPEN and task not in REFUSED]
    return (*OPEN, *rest)


def _rough(task: str) -> tuple[library.Network, ...]:
    """The networks that find where to crop to; for the whole body's tasks, where a part of it is asked for."""
    if crop_task := library.crop_task(task):
        return (*_rough(crop_task), *library.networks(crop_task))
    crop = library.crop_classes(task)
    return (library.rough_network(task, crop)[1],) if crop or task in _WHOLE_BODY else ()


def _task(plan: Plan, modality: str) -> str:
    """The library's task: the one that the plan names, its kin for MR, or the usual one."""
    if not plan.task:
        task = "body" if plan.organ is Organ.BODY else "total"
        return f"{task}_mr" if modality == "MR" else task
    if plan.task not in library.tasks():
        check_licence(plan.task, "")  # says that there is no such task
    if not modality or library.modality(plan.task) == modality:
        return plan.task
    if modality == "MR" and f"{plan.task}_mr" in offered():
        return f"{plan.task}_mr"
    raise NotApplicableError(f"the task {plan.task} is for {library.modality(plan.task)}; this series is {modality}")


def _resolution(plan: Plan, task: str) -> Resolution:
    has = library.resolutions(task)
    if plan.resolution is None:
        wished = Resolution.FAST if plan.quality is Quality.FAST else Resolution.NORMAL
        return wished if wished in has else Resolution.NORMAL
    if plan.resolution in has:
        return plan.resolution
    if plan.resolution is Resolution.FASTEST and Resolution.FAST in has:
        return Resolution.FAST  # as the library does
    if plan.task:
        raise UnfitPlanError(
            f"the task {task} has one resolution: leave out --resolution {plan.resolution} (VOXELMILL_RESOLUTION)"
        )
    return Resolution.NORMAL
