"""How opaque a segment is shown, by its name: the same in a mesh file and on a page."""

from __future__ import annotations

OPACITIES: dict[str, float] = {
    "skin": 0.15,
    "body": 0.15,
    "fat": 0.15,
    "cavity": 0.15,
    "muscle": 0.2,
    "tissue": 0.2,
    "mediastinum": 0.3,
    "pericardium": 0.3,
    "effusion": 0.4,
    "breast": 0.4,
    "lung": 0.6,
}
"""How opaque a segment is shown whose name has this word in it (words are parted by `_`), so that what is inside can
be seen. Every other segment is opaque. STL knows no opacity, and of PLY's readers few do."""

SOLID = frozenset({"vertebrae", "vessels", "arteries", "veins", "airways", "trachea", "nodules", "nasal"})
"""Words that make a segment opaque all the same: `lung_vessels` and `vertebrae_body` are what one wants to see."""


def opacity_of(name: str) -> float:
    """Return how opaque a segment of this name is shown, from 0 to 1."""
    words = name.lower().split("_")
    if not SOLID.isdisjoint(words):
        return 1.0
    return min((OPACITIES[word] for word in words if word in OPACITIES), default=1.0)
