"""Where frames lie in the patient, and whether they make a volume: the checks that come before any pixel is decoded.

All positions are millimetres in the patient's LPS system (PS3.3 C.7.6.2.1.1).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from voxelmill_shared.imaging.image import HEADER_ERRORS, DicomImage
from voxelmill_shared.imaging.reasons import Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

_DIRECTION_TOLERANCE = 1e-3
"""Cosines of parallel slices may differ by this: half a pixel across 512."""
_SAME_POSITION_MM = 5e-3
_SPACING_TOLERANCE = 0.05
"""How far a slice may be from its place in an even stack, as a part of the spacing. Scanners round positions: one real
series of 7 mm spacing jitters by 0.06 mm."""
_DRIFT_TOLERANCE = 0.25
"""How far a slice may be from the straight line through the stack, sideways, in pixels."""
_TILT_DEGREES = 0.1


@dataclass(frozen=True, eq=False)
class FramePlane:
    """Where one frame lies: `image` is its number in the series as given, `frame` its number in the image from 0.

    `along_row` is the unit direction in which the column index grows, `along_column` that of the row index;
    `spacing` is between rows and between columns, in mm (PS3.3 10.7.1.3).
    """

    image: int
    frame: int
    position: NDArray[np.float64]
    along_row: NDArray[np.float64]
    along_column: NDArray[np.float64]
    spacing: tuple[float, float]

    @property
    def normal(self) -> NDArray[np.float64]:
        """The unit normal of the slice."""
        return np.cross(self.along_row, self.along_column)


@dataclass(frozen=True, eq=False)
class SliceStack:
    """Frames that make a volume, sorted along the normal, and the affine of that volume."""

    planes: tuple[FramePlane, ...]
    affine: NDArray[np.float64]
    warnings: tuple[str, ...]


def plane_of(image: DicomImage, number: int, frame: int) -> FramePlane:
    """Read where a frame lies, from its functional groups (PS3.3 C.7.6.16.2) or the data set (C.7.6.2).

    Raises
    ------
    UnsupportedSeriesError
        With the code `no-geometry` or `bad-geometry`.
    """
    try:
        spacing = _element(image, frame, "PixelMeasuresSequence", "PixelSpacing", 2)
        directions = _element(image, frame, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
        position = _element(image, frame, "PlanePositionSequence", "ImagePositionPatient", 3)
    except HEADER_ERRORS as error:
        raise Unsupported.BAD_GEOMETRY.error(f"{image.name}: its geometry makes no sense ({error})") from None
    along_row, along_column = directions[:3], directions[3:]
    lengths = np.linalg.norm(along_row), np.linalg.norm(along_column)
    if not np.allclose(lengths, 1, atol=1e-2) or abs(along_row @ along_column) > 1e-2:
        raise Unsupported.BAD_GEOMETRY.error(
            f"{image.name}: the directions {_text(directions)} are not two unit vectors at right angles"
        )
    if not np.isfinite(position).all() or not (np.isfinite(spacing).all() and min(spacing) > 0):
        raise Unsupported.BAD_GEOMETRY.error(
            f"{image.name}: position {_text(position)} or pixel spacing {_text(spacing)} makes no sense"
        )
    return FramePlane(
        number,
        frame,
        position,
        along_row / lengths[0],
        along_column / lengths[1],
        (float(spacing[0]), float(spacing[1])),
    )


def _element(image: DicomImage, frame: int, group: str, keyword: str, count: int) -> NDArray[np.float64]:
    source: Any = image.functional_group(frame, group)
    if source is None:
        # Several frames share the data set's one position only where there is nothing to stack.
        source = image.header if image.frames == 1 or keyword != "ImagePositionPatient" else {}
    value = source.get(keyword)
    if value is None or value == "" or len(value) != count:
        raise Unsupported.NO_GEOMETRY.error(f"{image.name}: it has no {keyword}")
    return np.array([float(number) for number in value])


def stack(planes: Sequence[FramePlane], same_content: Callable[[FramePlane, FramePlane], bool]) -> SliceStack:
    """Sort frames along their normal and find the affine, or say why they are no volume.

    Parameters
    ----------
    planes
        Where the frames lie, in any order.
    same_content
        Whether two frames hold the same pixels; asked only for frames at one position.

    Returns
    -------
    SliceStack
        Its affine maps (column, row, slice) indices to mm. The slice axis is the step from slice to slice, so a
        gantry tilt is a shear in the affine and not a resampling of the voxels.

    Raises
    ------
    UnsupportedSeriesError
        With a code about sizes, orientations, positions or spacing.
    """
    if len(planes) < 2:
        raise Unsupported.TOO_FEW_SLICES.error("there is only one slice" if planes else "there are no slices")
    first = planes[0]
    _check_parallel(planes)
    height = {id(plane): float(plane.position @ first.normal) for plane in planes}
    ordered = sorted(planes, key=lambda plane: height[id(plane)])
    kept, warnings = _without_copies(ordered, height, same_content)
    positions = np.array([plane.position for plane in kept])
    step = (positions[-1] - positions[0]) / (len(kept) - 1)
    _check_even(positions, step, first)
    affine = np.eye(4)
    affine[:3, 0] = kept[0].along_row * first.spacing[1]
    affine[:3, 1] = kept[0].along_column * first.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    tilt = np.degrees(np.arccos(np.clip(step @ first.normal / np.linalg.norm(step), -1, 1)))
    if tilt > _TILT_DEGREES:
        warnings.append(f"the slices are sheared by {tilt:.1f} degrees (gantry tilt); the affine keeps the shear")
    return SliceStack(tuple(kept), affine, tuple(warnings))


def _check_parallel(planes: Sequence[FramePlane]) -> None:
    first = planes[0]
    groups: list[FramePlane] = []
    for plane in planes:
        if not any(_parallel(plane, known) for known in groups):
            groups.append(plane)
    if len(groups) > 1:
        raise Unsupported.MIXED_ORIENTATIONS.error(
            f"the slices have {len(groups)} different orientations: they are several blocks, not one volume"
        )
    for plane in planes:
        if not np.allclose(plane.spacing, first.spacing, rtol=1e-3):
            raise Unsupported.MIXED_SIZES.error(
                f"the pixel spacing changes within the series: {_text(first.spacing)} and {_text(plane.spacing)} mm"
            )


def _parallel(one: FramePlane, other: FramePlane) -> bool:
    difference = np.abs([one.along_row - other.along_row, one.along_column - other.along_column])
    return bool(difference.max() < _DIRECTION_TOLERANCE)


def _without_copies(
    ordered: Sequence[FramePlane],
    height: dict[int, float],
    same_content: Callable[[FramePlane, FramePlane], bool],
) -> tuple[list[FramePlane], list[str]]:
    """Leave out identical copies, and refuse other frames that share a position."""
    positions: list[list[FramePlane]] = []
    copies = 0
    for plane in ordered:
        if not positions or height[id(plane)] - height[id(positions[-1][0])] > _SAME_POSITION_MM:
            positions.append([plane])
        elif any(_is_copy(plane, known, same_content) for known in positions[-1]):
            copies += 1
        else:
            positions[-1].append(plane)
    counts = Counter(len(group) for group in positions)
    if set(counts) != {1}:
        if len(counts) == 1:
            (count,) = counts
            raise Unsupported.REPEATED_POSITIONS.error(
                f"each of the {len(positions)} slice positions holds {count} images (a time series, echoes or phases)"
            )
        crowded = [group for group in positions if len(group) > 1]
        where = height[id(crowded[0][0])]
        raise Unsupported.DUPLICATE_POSITIONS.error(
            f"{len(crowded)} of {len(positions)} slice positions hold more than one image of different content, "
            f"the first at {where:.2f} mm along the normal"
        )
    if len(positions) < 2:
        raise Unsupported.TOO_FEW_SLICES.error("there is only one slice, several times over")
    warnings = [f"{copies} identical copies of slices were left out"] if copies else []
    return [group[0] for group in positions], warnings


def _is_copy(one: FramePlane, other: FramePlane, same_content: Callable[[FramePlane, FramePlane], bool]) -> bool:
    return bool(np.abs(one.position - other.position).max() < _SAME_POSITION_MM) and same_content(one, other)


def _check_even(positions: NDArray[np.float64], step: NDArray[np.float64], first: FramePlane) -> None:
    heights = positions @ first.normal
    gaps = np.diff(heights)
    places = positions[0] + np.arange(len(positions))[:, None] * step
    off = positions - places
    if np.abs(off @ first.normal).max() > _SPACING_TOLERANCE * gaps.mean():
        raise _uneven(heights, gaps)
    sideways = off - np.outer(off @ first.normal, first.normal)
    if np.linalg.norm(sideways, axis=1).max() > _DRIFT_TOLERANCE * min(first.spacing):
        raise Unsupported.UNEVEN_SPACING.error(
            f"the slices do not lie on a straight line: one is {np.linalg.norm(sideways, axis=1).max():.2f} mm aside"
        )


def _uneven(heights: NDArray[np.float64], gaps: NDArray[np.float64]) -> Exception:
    """Tell absent slices (gaps of whole slices) from spacing that has no rule."""
    usual = float(np.sort(gaps)[(len(gaps) - 1) // 2])
    steps = np.rint(gaps / usual)
    if (steps >= 1).all() and np.abs(gaps - steps * usual).max() <= 2 * _SPACING_TOLERANCE * usual:
        wide = np.flatnonzero(steps > 1)
        where = ", ".join(f"{heights[k]:.2f} and {heights[k + 1]:.2f}" for k in wide[:3])
        more = f" and {len(wide) - 3} more places" if len(wide) > 3 else ""
        count = int((steps - 1).sum())
        return Unsupported.MISSING_SLICES.error(
            f"{count} {'slice is' if count == 1 else 'slices are'} missing between {where} mm along the normal{more} "
            f"(spacing {usual:.2f} mm)"
        )
    return Unsupported.UNEVEN_SPACING.error(
        f"the distance between slices varies from {gaps.min():.2f} to {gaps.max():.2f} mm"
    )


def _text(numbers: Any) -> str:
    return "\\".join(f"{number:g}" for number in numbers)
