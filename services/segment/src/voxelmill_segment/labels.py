"""The table of the model `threshold`: its segments with their numbers, names, colours and codes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept (PS3.3 8.8), of SNOMED CT where nothing else is said."""

    value: str
    meaning: str
    scheme: str = "SCT"


_STRUCTURE = Code("91723000", "Anatomical Structure")  # CID 7150
_TISSUE = Code("85756007", "Tissue")  # CID 7150
_LUNG = Code("39607008", "Lung")
LEFT = Code("7771000", "Left")  # CID 244
RIGHT = Code("24028007", "Right")  # CID 244


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a label map: its number in the voxels, its name in files, its colour and its codes.

    `category`, `type` and `modifier` are the Segmented Property Category, Type and Type Modifier of PS3.3 C.8.20.4.
    `meaning` says in one line what is inside; `rgb` is sRGB, 0 to 255.
    """

    number: int
    name: str
    rgb: tuple[int, int, int]
    category: Code
    type: Code
    modifier: Code | None
    meaning: str


BODY = Segment(1, "body", (222, 178, 150), _STRUCTURE, Code("38266002", "Entire body"), None, "all within the skin")
LUNG_LEFT = Segment(2, "lung_left", (120, 170, 220), _STRUCTURE, _LUNG, LEFT, "left lung with its inner vessels")
LUNG_RIGHT = Segment(3, "lung_right", (150, 205, 240), _STRUCTURE, _LUNG, RIGHT, "right lung with its inner vessels")
AIRWAYS = Segment(
    4, "airways", (90, 200, 170), _STRUCTURE, Code("89187006", "Airway structure"), None, "lumen of trachea and bronchi"
)
BONES = Segment(5, "bones", (241, 232, 205), _STRUCTURE, Code("272673000", "Bone"), None, "cortical bone and marrow")
SOFT_TISSUE = Segment(
    6, "soft_tissue", (192, 82, 74), _TISSUE, Code("87784001", "Soft tissue"), None, "muscle, organs and blood together"
)
SUBCUTANEOUS_FAT = Segment(
    7,
    "subcutaneous_fat",
    (240, 205, 105),
    _TISSUE,
    Code("71966008", "Subcutaneous tissue"),
    None,
    "fat between the skin and the body wall",
)
TORSO_FAT = Segment(
    8, "torso_fat", (225, 160, 60), _TISSUE, Code("55603005", "Adipose tissue"), None, "fat within the body wall"
)
SKIN = Segment(9, "skin", (224, 172, 140), _STRUCTURE, Code("39937001", "Skin"), None, "the body's outermost 2 mm")

SEGMENTS: tuple[Segment, ...] = (
    BODY,
    LUNG_LEFT,
    LUNG_RIGHT,
    AIRWAYS,
    BONES,
    SOFT_TISSUE,
    SUBCUTANEOUS_FAT,
    TORSO_FAT,
    SKIN,
)
"""Every segment of the model `threshold`, and of the phantom's own truth. A number never changes its meaning."""
