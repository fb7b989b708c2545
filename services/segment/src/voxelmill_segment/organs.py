"""The one table of what `--organ` means: segments of the model `threshold`, classes of TotalSegmentator's tasks.

A group names classes of every task together: a task gives those of them that it has. `lungs` are five lobes in
`total`, two lungs in `total_mr` and one class in `lung_nodules`. `docs/totalsegmentator-tasks.md` shows the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from voxelmill_segment import labels as table
from voxelmill_shared.plan import Organ
from voxelmill_shared.work import NotApplicableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from voxelmill_segment.labels import Segment


@dataclass(frozen=True, slots=True)
class Group:
    """What one organ group is made of.

    Parameters
    ----------
    segments
        Of the model `threshold`; empty where it cannot tell the organ from its surroundings.
    classes
        Of TotalSegmentator's tasks, by name. `all` has none by name: it is every class of the task.
    """

    segments: tuple[Segment, ...] = ()
    classes: frozenset[str] = frozenset()


def _both(*names: str) -> set[str]:
    """Each name on the left and on the right."""
    return {f"{name}_{side}" for name in names for side in ("left", "right")}


_VERTEBRAE = {
    f"vertebrae_{region}{n}" for region, count in (("C", 7), ("T", 13), ("L", 6)) for n in range(1, count + 1)
}
_SPINE = {*_VERTEBRAE, "vertebrae_S1", "vertebrae", "vertebrae_body", "sacrum", "coccyx", "intervertebral_discs"}
_RIBS = {f"rib_{side}_{n}" for side in ("left", "right") for n in range(1, 13)}
_LIMB_BONES = _both("humerus", "scapula", "clavicula", "femur", "hip")
_HEAD_BONES = {"skull", "mandible", "lower_jawbone", "upper_jawbone", "hyoid"} | _both(
    "zygomatic_arch", "styloid_process"
)
_LOBES = {
    "lung_upper_lobe_left",
    "lung_lower_lobe_left",
    "lung_upper_lobe_right",
    "lung_middle_lobe_right",
    "lung_lower_lobe_right",
}
_KIDNEYS = _both("kidney", "kidney_cyst")  # a cyst within a kidney is a hole in it otherwise
_VESSELS = {
    "aorta",
    "pulmonary_vein",
    "brachiocephalic_trunk",
    "superior_vena_cava",
    "inferior_vena_cava",
    "portal_vein_and_splenic_vein",
    "lung_arteries",
    "lung_veins",
    "liver_vessels",
    *_both("subclavian_artery", "common_carotid_artery", "brachiocephalic_vein", "iliac_artery", "iliac_vena"),
    *_both("internal_carotid_artery", "internal_jugular_vein"),
}
_MUSCLES = _both("gluteus_maximus", "gluteus_medius", "gluteus_minimus", "autochthon", "iliopsoas")

GROUPS: dict[Organ, Group] = {
    Organ.LUNGS: Group((table.LUNG_LEFT, table.LUNG_RIGHT), frozenset({*_LOBES, "lung_left", "lung_right", "lung"})),
    Organ.BONES: Group(
        (table.BONES,), frozenset(_SPINE | _RIBS | _LIMB_BONES | _HEAD_BONES | {"sternum"}) - {"intervertebral_discs"}
    ),
    Organ.BODY: Group((table.BODY,), frozenset({"body_trunc", "body_extremities"})),
    Organ.AIRWAYS: Group(
        (table.AIRWAYS,), frozenset({"trachea", "lung_trachea_bronchia", "lung_airways", "lung_airways_wall"})
    ),
    Organ.HEART: Group(classes=frozenset({"heart", "atrial_appendage_left"})),
    Organ.AORTA: Group(classes=frozenset({"aorta"})),
    Organ.VESSELS: Group(classes=frozenset(_VESSELS)),
    Organ.LIVER: Group(classes=frozenset({"liver", *(f"liver_segment_{n}" for n in range(1, 9))})),
    Organ.SPLEEN: Group(classes=frozenset({"spleen"})),
    Organ.PANCREAS: Group(classes=frozenset({"pancreas"})),
    Organ.KIDNEYS: Group(classes=frozenset(_KIDNEYS)),
    Organ.DIGESTIVE: Group(classes=frozenset({"esophagus", "stomach", "duodenum", "small_bowel", "colon"})),
    Organ.URINARY: Group(classes=frozenset({*_KIDNEYS, "urinary_bladder"})),
    Organ.SPINE: Group(classes=frozenset(_SPINE)),
    Organ.RIBS: Group(classes=frozenset(_RIBS)),
    Organ.PELVIS: Group(classes=frozenset({"hip_left", "hip_right", "sacrum"})),
    Organ.MUSCLES: Group(classes=frozenset(_MUSCLES)),
    Organ.BRAIN: Group(classes=frozenset({"brain"})),
    # A voxel has one label, so `all` holds the parts of the body and not the body that is made of them.
    Organ.ALL: Group(tuple(segment for segment in table.SEGMENTS if segment is not table.BODY)),
}
"""What each organ group gives."""


def segments_of(organ: Organ) -> tuple[Segment, ...]:
    """Return the segments of the model `threshold` for an organ group.

    Raises
    ------
    NotApplicableError
        If the model cannot find the organ.
    """
    segments = GROUPS[organ].segments
    if not segments:
        able = ", ".join(one for one in Organ if GROUPS[one].segments)
        raise NotApplicableError(
            f"the model threshold cannot tell {organ} from its surroundings (it knows {able}):"
            " --model totalsegmentator can"
        )
    return segments


def classes_of(organ: Organ, classes: Mapping[int, str]) -> dict[int, str]:
    """Return those of a TotalSegmentator task's classes that an organ group asks for; none if the task has none."""
    if organ is Organ.ALL:
        return dict(classes)
    return {label: name for label, name in classes.items() if name in GROUPS[organ].classes}
