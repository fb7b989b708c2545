"""What the SOP classes demand beside pixels: place, scale, units and functional groups (PS3.3 A.3, A.4, A.21, A.36).

Nothing here refuses an object: a picture can be made of it all the same. What the volume lacks is said.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from voxelmill_ingest import tags
from voxelmill_ingest.cautions import Caution
from voxelmill_ingest.values import asked_once, decimals, is_present, text
from voxelmill_shared.privacy import coded

if TYPE_CHECKING:
    from voxelmill_ingest.elements import Elements
    from voxelmill_ingest.findings import Cosines, Vector

_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."
CT, MR, PET = f"{_STORAGE}2", f"{_STORAGE}4", f"{_STORAGE}128"
CLASSIC: Final = {CT: "CT", MR: "MR", PET: "PT"}
"""The single-frame SOP classes that volumes are made of, each with its modality."""
ENHANCED: Final = {
    f"{_STORAGE}2.1": "CT",  # Enhanced CT
    f"{_STORAGE}2.2": "CT",  # Legacy Converted Enhanced CT
    f"{_STORAGE}4.1": "MR",  # Enhanced MR
    f"{_STORAGE}4.3": "MR",  # Enhanced MR Color
    f"{_STORAGE}4.4": "MR",  # Legacy Converted Enhanced MR
    f"{_STORAGE}128.1": "PT",  # Legacy Converted Enhanced PET
    f"{_STORAGE}130": "PT",  # Enhanced PET
    f"{_STORAGE}6.2": "US",  # Enhanced US Volume
    f"{_STORAGE}13.1.1": "XA",  # X-Ray 3D Angiographic
    f"{_STORAGE}13.1.2": "",  # X-Ray 3D Craniofacial, of several modalities
    f"{_STORAGE}13.1.3": "MG",  # Breast Tomosynthesis
}
"""The SOP classes whose frames have functional groups, each with its modality."""
_UNIT_TOLERANCE = 0.01
"""How far from 1 the length of a direction, and from 0 the product of two, may be: they are written with few digits."""


def position_of(found: Elements, warnings: list[str]) -> Vector | None:
    """Return Image Position (Patient) in mm, LPS; none where it is absent or no point."""
    match decimals(found, tags.IMAGE_POSITION_PATIENT):
        case [x, y, z]:
            return (x, y, z)
        case []:
            return None
    warnings.append(Caution.INVALID_POSITION.about("Image Position (Patient) is no point"))
    return None


def orientation_of(found: Elements, warnings: list[str]) -> Cosines | None:
    """Return Image Orientation (Patient), the directions of rows and columns; none where it is absent or senseless."""
    orientation, said = _orientation(found)
    warnings += said
    return orientation


@asked_once(tags.IMAGE_ORIENTATION_PATIENT)
def _orientation(found: Elements) -> tuple[Cosines | None, tuple[str, ...]]:
    match decimals(found, tags.IMAGE_ORIENTATION_PATIENT):
        case []:
            return None, ()
        case [a, b, c, d, e, f]:
            product = a * d + b * e + c * f
            lengths = math.hypot(a, b, c), math.hypot(d, e, f)
            if max(abs(product), *(abs(length - 1) for length in lengths)) <= _UNIT_TOLERANCE:
                return (a, b, c, d, e, f), ()
    return None, (
        Caution.INVALID_POSITION.about("Image Orientation (Patient) is no pair of unit vectors at right angles"),
    )


def about_modules(found: Elements, sop_class: str, frame_of_reference: str) -> list[str]:
    """Return the warnings about what an image of a SOP class lacks. `frame_of_reference` is its UID, if it is one."""
    modality = CLASSIC.get(sop_class, ENHANCED.get(sop_class))
    spacing = _about_spacing(found, demanded=sop_class in CLASSIC)
    if modality is None:
        return spacing
    said = []
    given = text(found, tags.MODALITY)
    if modality and given != modality:
        said.append(
            Caution.MODALITY_MISMATCH.about(f"Modality is {coded(given) or 'absent'}, the SOP Class {modality}")
        )
    if not is_present(found, tags.IMAGE_TYPE):
        said.append(Caution.MISSING_IMAGE_TYPE.about("Image Type is absent"))
    if not frame_of_reference:
        how = "no UID" if is_present(found, tags.FRAME_OF_REFERENCE_UID) else "absent"
        said.append(Caution.MISSING_FRAME_OF_REFERENCE.about(f"Frame of Reference UID is {how}"))
    if sop_class in ENHANCED:
        return said + _about_functional_groups(found)
    for tag, name in (
        (tags.IMAGE_POSITION_PATIENT, "Image Position (Patient)"),
        (tags.IMAGE_ORIENTATION_PATIENT, "Image Orientation (Patient)"),
    ):
        if not is_present(found, tag):
            said.append(Caution.MISSING_POSITION.about(f"{name} is absent"))
    said += spacing
    if sop_class != MR:
        said += _about_rescale(found)
    if sop_class == PET and not text(found, tags.UNITS):
        said.append(Caution.MISSING_UNITS.about("Units is absent"))
    return said


def _about_spacing(found: Elements, *, demanded: bool) -> list[str]:
    match decimals(found, tags.PIXEL_SPACING):
        case [between_rows, between_columns] if between_rows > 0 and between_columns > 0:
            return []
        case []:
            return [Caution.MISSING_PIXEL_SPACING.about("Pixel Spacing is absent")] if demanded else []
    return [Caution.INVALID_PIXEL_SPACING.about("Pixel Spacing is not two numbers above 0")]


def _about_rescale(found: Elements) -> list[str]:
    said = []
    for tag, name in ((tags.RESCALE_SLOPE, "Rescale Slope"), (tags.RESCALE_INTERCEPT, "Rescale Intercept")):
        values = decimals(found, tag)
        if values == ():
            if not is_present(found, tags.MODALITY_LUT_SEQUENCE):  # which stands for both (PS3.3 C.11.1)
                said.append(Caution.MISSING_RESCALE.about(f"{name} is absent"))
        elif values is None or (tag == tags.RESCALE_SLOPE and values[0] == 0):
            said.append(Caution.INVALID_RESCALE.about(f"{name} is {'0' if values else 'no number'}"))
    return said


def _about_functional_groups(found: Elements) -> list[str]:
    said = []
    if not text(found, tags.NUMBER_OF_FRAMES):
        said.append(Caution.MISSING_PIXEL_DESCRIPTION.about("Number of Frames is absent"))
    for tag, name in (
        (tags.SHARED_FUNCTIONAL_GROUPS, "Shared Functional Groups Sequence"),
        (tags.PER_FRAME_FUNCTIONAL_GROUPS, "Per-Frame Functional Groups Sequence"),
    ):
        if not is_present(found, tag):
            said.append(Caution.MISSING_FUNCTIONAL_GROUPS.about(f"{name} is absent"))
    return said
