"""The windows that radiologists look at CT with, and which of them suit the part of the body."""

from __future__ import annotations

from typing import TYPE_CHECKING

from voxelmill_shared.imaging.frames import Window
from voxelmill_shared.imaging.volume import looks_like_ct

if TYPE_CHECKING:
    from voxelmill_shared.imaging.volume import Volume

CT_PRESETS = {
    "lung": Window(-600, 1500),
    "bone": Window(400, 1800),
    "soft-tissue": Window(40, 400),
    "brain": Window(40, 80),
}
"""Window centre and width in HU; the pictures are `axial-lung` and so on."""

_REGIONS = {
    ("lung", "bone", "soft-tissue"): ("CHEST", "THORA", "LUNG", "HEART", "CARDIAC", "CORONARY", "RIB", "STERNUM"),
    ("bone", "soft-tissue", "brain"): ("HEAD", "BRAIN", "SKULL", "ORBIT", "FACE", "SINUS", "EAR", "NECK"),
    ("bone", "soft-tissue"): (
        *("ABDOMEN", "PELVI", "LIVER", "PANCREAS", "KIDNEY", "COLON", "BLADDER", "SPINE", "HIP", "KNEE", "ANKLE"),
        *("FOOT", "HAND", "WRIST", "ELBOW", "SHOULDER", "LEG", "ARM", "FOREARM", "FEMUR", "EXTREMITY"),
    ),
}
"""Presets by what the name of the body part holds (PS3.16 Annex L: HEADNECK, LSPINE, CHESTABDPELVIS ...)."""
_PARTS = {part: presets for presets, parts in _REGIONS.items() for part in parts}


def presets_for(body_part: str) -> tuple[str, ...]:
    """Return the names of the presets that suit a body part, in the order of `CT_PRESETS`.

    A name that holds several parts gets the presets of all. All four where nothing is known: a picture too many
    costs 10 ms, one too few costs a look at the original.
    """
    name = body_part.upper()
    wanted: set[str] = set()
    # The longest first, and each only once: HEART and FOREARM are no EAR.
    for part, presets in sorted(_PARTS.items(), key=lambda item: -len(item[0])):
        if part in name:
            name = name.replace(part, " ")
            wanted.update(presets)
    return tuple(preset for preset in CT_PRESETS if preset in wanted or not wanted)


def is_in_hu(volume: Volume) -> bool:
    """Say whether windows in HU make sense: a CT, or a file that names no modality and looks like one."""
    return volume.modality == "CT" if volume.modality else looks_like_ct(volume)
