"""What is usual of an adult's organs: volumes with their sources, which are whole in one piece, what lies beside what.

`docs/quality-gate.md` explains the table. It knows the classes of TotalSegmentator and the segments of `threshold` by
their names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from voxelmill_segment.sides import split_side


@dataclass(frozen=True, slots=True)
class Range:
    """Millilitres between which an adult's organ lies as a rule."""

    low: float
    high: float
    source: str


def _around(mean: float, std: float, source: str) -> Range:
    """Return a third of the mean to four standard deviations above it: what is outside is rare even in patients."""
    return Range(round(mean / 3, 1), round(mean + 4 * std, 1), source)


def _between(woman: float, man: float, source: str) -> Range:
    """Return half of the reference woman's to twice the reference man's, where no spread is known."""
    return Range(round(woman / 2, 1), round(2 * man, 1), source)


_ICRP = "ICRP Publication 89 (2002), reference woman and man, at 1.05 g/mL"
_LUNGS = "ICRP Publication 89 (2002), total lung capacity; shares of the lobes: Yamada et al. 2020"
_CAPACITY_ML = (4970.0, 6980.0)


def _of_lungs(share: float) -> Range:
    """Return a third of the reference woman's full breath to one and a half of the man's, of a part of the lungs."""
    woman, man = _CAPACITY_ML
    return Range(round(woman / 3 * share), round(man * 1.5 * share), _LUNGS)


RANGES: dict[str, Range] = {
    "liver": _around(1505, 385, "Kromrey et al., Eur J Radiol 2018;106:32, MRI, 2,773 volunteers"),
    "spleen": _around(198, 88, "Caglar et al., Folia Morphol 2014;73:331, CT, 212 adults"),
    "kidney": _around(162, 34, "Kwon et al., Korean J Nephrol 2008;27:659, CT, 123 adults (men 177, women 146)"),
    "pancreas": _around(62.6, 19.1, "Healthc Inform Res 2020;26:321, CT, 1,003 subjects"),
    "adrenal_gland": _around(
        4.25, 1.33, "Wang et al., Chin Med Sci J 2012;27:220, CT, 81 adults; spread: SEMB 2021;55:333"
    ),
    "brain": _between(1300 / 1.05, 1450 / 1.05, _ICRP),
    "heart": _between(620 / 1.05, 840 / 1.05, _ICRP + ", with blood"),
    "thyroid_gland": _between(17 / 1.05, 20 / 1.05, _ICRP),
    "lung_left": _of_lungs(0.464),
    "lung_right": _of_lungs(0.536),
    "lung_upper_lobe_left": _of_lungs(0.231),
    "lung_lower_lobe_left": _of_lungs(0.232),
    "lung_upper_lobe_right": _of_lungs(0.179),
    "lung_middle_lobe_right": _of_lungs(0.093),
    "lung_lower_lobe_right": _of_lungs(0.265),
}
"""By the class's name, else by its name without the side."""

_WHOLE = {"gallbladder", "stomach", "urinary_bladder", "prostate", "duodenum", "lung", "lung_upper_lobe",
          "lung_middle_lobe", "lung_lower_lobe", *(split_side(name)[0] for name in RANGES)}  # fmt: skip
"""Organs, without their side, that are meant to be seen whole. Bones, vessels, muscles, gut, skin and fat run on."""

_MANY = re.compile(
    r"bones|soft_tissue|skin|.*_fat|skeletal_muscle|body_extremities|costal_cartilages|ribs|vertebrae|vertebrae_body"
    r"|intervertebral_discs|hip_implant|.*(vessels|arteries|veins|nodules|lesions|tumor|cyst|effusion|hemorrhage|implant)"
    r"|lung_airways.*|lung_pleural|teeth_.*|crown|bridge|breast|pulmonary_vein|tarsal|carpal|metatarsal|metacarpal"
    r"|phalanges.*|subarachnoid_space|venous_sinuses|sinus_.*|.*_sinus|thigh_.*"
)
"""What has many parts by its nature."""
_ONE_PIECE, _NEARLY = 0.9, 0.6

NEIGHBOURS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("liver", ("kidney_right", "lung_lower_lobe_right")),
    ("spleen", ("kidney_left", "lung_lower_lobe_left")),
    ("kidney_left", ("spleen", "hip_left")),
    ("kidney_right", ("liver", "hip_right")),
    ("pancreas", ("liver", "kidney_left", "kidney_right")),
    ("stomach", ("liver", "spleen", "pancreas")),
    ("heart", ("trachea", "liver")),
    ("aorta", ("heart", "liver")),
    ("trachea", ("lung_upper_lobe_left", "lung_upper_lobe_right", "heart")),
    ("urinary_bladder", ("sacrum", "hip_left", "hip_right", "femur_left", "femur_right")),
    ("lung_upper_lobe_left", ("lung_lower_lobe_left", "trachea")),
    ("lung_upper_lobe_right", ("lung_lower_lobe_right", "trachea")),
    ("lung_middle_lobe_right", ("lung_upper_lobe_right", "liver")),
    ("lung_lower_lobe_left", ("lung_upper_lobe_left", "liver")),
    ("lung_lower_lobe_right", ("lung_upper_lobe_right", "liver")),
    ("lung_left", ("lung_right", "airways")),
    ("lung_right", ("lung_left", "airways")),
    ("lung_left", ("lung_right", "heart", "liver")),
    ("lung_right", ("lung_left", "heart", "liver")),
    ("airways", ("lung_left", "lung_right")),
)
"""An organ, and those that cannot all be in the field of view without it."""

ROWS: tuple[tuple[str, ...], ...] = (
    (
        *(f"vertebrae_C{n}" for n in range(1, 8)),
        *(f"vertebrae_T{n}" for n in range(1, 13)),
        *(f"vertebrae_L{n}" for n in range(1, 6)),
        "vertebrae_S1",
    ),
    tuple(f"rib_left_{n}" for n in range(1, 13)),
    tuple(f"rib_right_{n}" for n in range(1, 13)),
)
"""What stands one after the other: of these none is missing between two that are there."""

MIDLINE = re.compile(r"vertebrae.*|sternum|sacrum|spinal_cord|trachea|airways|esophagus|skull|brain|mandible|hyoid")
"""What lies in the middle of the body."""
RIGHT_OF: tuple[tuple[str, str], ...] = (("liver", "spleen"), ("liver", "stomach"), ("gallbladder", "spleen"))
"""What lies right of what, unless the organs are mirrored (situs inversus, one in some 10,000)."""


def usual_range(name: str) -> Range | None:
    """Return the usual volume of a segment, None where there is none."""
    return RANGES.get(name) or RANGES.get(split_side(name)[0])


def is_whole(name: str) -> bool:
    """Say whether a segment is an organ that is meant to be seen whole."""
    return split_side(name)[0] in _WHOLE


def least_share(name: str) -> float:
    """Return the least share of a segment that its largest part has as a rule; 0 for what has many parts."""
    stem, _ = split_side(name)
    if _MANY.fullmatch(stem):
        return 0.0
    return _ONE_PIECE if is_whole(name) and stem not in {"duodenum", "stomach"} else _NEARLY
