"""Whether the slices of one stack fit together: what no slice alone shows to be wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from voxelmill_shared.imaging.geometry import PLACE_MM
from voxelmill_shared.imaging.reasons import Unsupported
from voxelmill_shared.text import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from voxelmill_shared.imaging.geometry import FramePlane, SliceStack
    from voxelmill_shared.imaging.image import DicomImage
    from voxelmill_shared.imaging.transform import ModalityTransform


def check_surplus(images: Sequence[DicomImage]) -> None:
    """Refuse an image with more pixel data than it says, by a row or more: then its size or its cells are not these.

    A few bytes too many are what some writers fill up with.

    Raises
    ------
    UnsupportedSeriesError
        With the code `unreadable-header`.
    """
    for image in images:
        needed = image.frame_bytes * image.frames
        surplus = 0 if image.compressed else image.value_length - needed
        if surplus > 1 and surplus * image.rows >= image.frame_bytes:
            raise Unsupported.UNREADABLE_HEADER.error(
                f"{image.name}: the pixels need {needed:,} bytes and there are {image.value_length:,}: "
                "Rows, Columns, Bits Allocated or Number of Frames is wrong"
            )


def check_directions(stack: SliceStack, rows: int, columns: int) -> None:
    """Refuse slices that are parallel only nearly, where that moves the last pixel of one by more than `PLACE_MM`.

    The affine has the directions and the pixel spacing of the first.

    Raises
    ------
    UnsupportedSeriesError
        With the code `mixed-orientations`.
    """

    def across(plane: FramePlane) -> NDArray[np.float64]:
        along_row = plane.along_row * (plane.spacing[1] * (columns - 1))
        return np.stack([along_row, plane.along_column * (plane.spacing[0] * (rows - 1))])

    different = {(id(plane.along_row), id(plane.along_column), plane.spacing): plane for plane in stack.planes}
    first = across(stack.planes[0])
    off = max(float(np.linalg.norm(across(plane) - first, axis=1).sum()) for plane in different.values())
    if off > PLACE_MM:
        raise Unsupported.MIXED_ORIENTATIONS.error(
            f"the slices are not quite parallel, or their pixel spacing is not quite the same: {off:.2f} mm at the edge"
        )


def about_transforms(transforms: Sequence[ModalityTransform]) -> list[str]:
    """Return what is odd about how the slices are rescaled, as lines for people.

    Raises
    ------
    UnsupportedSeriesError
        With the code `unreadable-header`, if some slices have no Rescale Slope and Intercept, and others have some that
        do something: which of them are in HU?
    """
    absent = [transform for transform in transforms if transform.note == "absent"]
    if absent and any(transform != absent[0] for transform in transforms):
        raise Unsupported.UNREADABLE_HEADER.error(
            f"{len(absent)} of {len(transforms)} slices have no Rescale Slope and Intercept, and the others have"
        )
    zero = sum(transform.note == "slope 0" for transform in transforms)
    return [f"the Rescale Slope of {zero} slice{'s' if zero > 1 else ''} is 0 and was taken as 1"] if zero else []


def about_units(images: Sequence[DicomImage]) -> list[str]:
    """Return a line for people where the values of a CT say of themselves that they are not HU (PS3.3 C.11.1)."""
    kinds = {(image.text("RescaleType") or "HU").upper() for image in images} - {"HU", "US"}
    return [f"the values are {shown(', '.join(sorted(kinds)), 100)} and not HU (Rescale Type)"] if kinds else []
