"""Where frames lie in the patient, and whether they make a volume: the checks that come before any pixel is decoded.

All positions are millimetres in the patient's LPS system (PS3.3 C.7.6.2.1.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from voxelmill_shared.imaging.image import HEADER_ERRORS, DicomImage
from voxelmill_shared.imaging.reasons import Unsupported
from voxelmill_shared.imaging.transform import decimal
from voxelmill_shared.privacy import unquoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_DIRECTION_TOLERANCE = 1e-3
"""Cosines of parallel slices may differ by this: half a pixel across 512."""
SAME_POSITION_MM = 5e-3
_SPACING_TOLERANCE = 0.05
"""How far a slice may be from its place in an even stack, as a part of the spacing. Scanners round positions: one real
series of 7 mm spacing jitters by 0.06 mm."""
PLACE_MM = 0.1
"""No voxel of a volume is further than this from where the header of its own slice has it, however large pixels and
spacing are."""
DRIFT_TOLERANCE = 0.25
"""How far a slice may be from the straight line through the stack, sideways, in pixels."""
_TILT_DEGREES = 0.1
MAX_MISSING_IN_A_ROW = 3
"""How many neighbouring slices may be made up from those beside them. Three at the usual 1 to 2.5 mm leave 4 to 10 mm
bridged by a straight line, in which no organ comes or goes; more would be invention."""
MAX_MISSING_PART = 0.1
"""How much of a volume may be made up in all."""
_LEAST_GAP = 0.5
"""Slices nearer to each other than this part of the usual distance are two acquisitions, or one that was repeated."""
_LEAST_TO_RESAMPLE = 5
"""With fewer slices than this nobody can say which distance is the rule and which the exception."""


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
    """Frames that make a volume, sorted along the normal, and the affine of that volume.

    `places` says for each slice of the volume where it lies among the frames: 3.25 is a quarter of the way from the
    frame 3 to the frame 4. None where the slices are the frames themselves.
    """

    planes: tuple[FramePlane, ...]
    affine: NDArray[np.float64]
    warnings: tuple[str, ...]
    places: NDArray[np.float64] | None = None

    @property
    def slices(self) -> int:
        """How many slices the volume has."""
        return len(self.planes) if self.places is None else len(self.places)


def plane_of(image: DicomImage, number: int, frame: int) -> FramePlane:
    """Read where a frame lies, from its functional groups (PS3.3 C.7.6.16.2) or the data set (C.7.6.2).

    Raises
    ------
    UnsupportedSeriesError
        With the code `no-geometry` or `bad-geometry`.
    """
    try:
        spacing = _element(image, frame, "PixelMeasuresSequence", "PixelSpacing", 2)
        cosines = _element(image, frame, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
        position = _element(image, frame, "PlanePositionSequence", "ImagePositionPatient", 3)
    except HEADER_ERRORS as error:
        raise Unsupported.BAD_GEOMETRY.error(f"{image.name}: its geometry makes no sense ({unquoted(error)})") from None
    directions = _directions(cosines)
    if directions is None:
        raise Unsupported.BAD_GEOMETRY.error(
            f"{image.name}: the directions {_text(cosines)} are not two unit vectors at right angles"
        )
    if not all(map(isfinite, position + spacing)) or min(spacing) <= 0:
        raise Unsupported.BAD_GEOMETRY.error(
            f"{image.name}: position {_text(position)} or pixel spacing {_text(spacing)} makes no sense"
        )
    return FramePlane(number, frame, np.array(position), *directions, (spacing[0], spacing[1]))


@lru_cache(maxsize=64)
def _directions(cosines: tuple[float, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return the unit directions of rows and columns, or None if they are not at right angles."""
    along_row, along_column = np.array(cosines[:3]), np.array(cosines[3:])
    lengths = np.linalg.norm(along_row), np.linalg.norm(along_column)
    if not np.allclose(lengths, 1, atol=1e-2) or abs(along_row @ along_column) > 1e-2:
        return None
    return along_row / lengths[0], along_column / lengths[1]


def _element(image: DicomImage, frame: int, group: str, keyword: str, count: int) -> tuple[float, ...]:
    if image.elements is not None:
        text = image.elements.get(keyword, b"").strip(b"\0 ")
        value: Any = text.split(b"\\") if text else None
    else:
        source: Any = image.functional_group(frame, group)
        if source is None:
            # Several frames share the data set's one position only where there is nothing to stack.
            source = image.header if image.frames == 1 or keyword != "ImagePositionPatient" else {}
        value = source.get(keyword)
        value = [value] if isinstance(value, float) else value
    if value is None or value == "" or len(value) != count:
        raise Unsupported.NO_GEOMETRY.error(f"{image.name}: it has no {keyword}")
    return tuple(map(decimal, value))


def stack(planes: Sequence[FramePlane]) -> SliceStack:
    """Sort frames along their normal and find the affine, or say why they are no volume.

    Parameters
    ----------
    planes
        Where the frames lie, in any order; copies have been left out before.

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
    normal = first.normal
    _check_parallel(planes)
    every = np.array([plane.position for plane in planes])
    heights = every @ normal
    order = np.argsort(heights, kind="stable")
    _check_distinct(heights[order])
    kept = [planes[k] for k in order]
    positions = every[order]
    places, warnings = _places(positions, first, normal)
    count = len(kept) if places is None else len(places)
    step = (positions[-1] - positions[0]) / (count - 1)
    affine = np.eye(4)
    affine[:3, 0] = kept[0].along_row * first.spacing[1]
    affine[:3, 1] = kept[0].along_column * first.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    tilt = np.degrees(np.arccos(np.clip(step @ normal / np.linalg.norm(step), -1, 1)))
    if tilt > _TILT_DEGREES:
        warnings.append(f"the slices are sheared by {tilt:.1f} degrees (gantry tilt); the affine keeps the shear")
    return SliceStack(tuple(kept), affine, tuple(warnings), places)


def _check_parallel(planes: Sequence[FramePlane]) -> None:
    groups = parallel_groups(planes)
    if len(groups) > 1:
        raise Unsupported.MIXED_ORIENTATIONS.error(
            f"the slices have {len(groups)} different orientations: they are several blocks, not one volume"
        )
    first = planes[0]
    for plane in planes:
        if not same_spacing(plane.spacing, first.spacing):
            raise Unsupported.MIXED_SIZES.error(
                f"the pixel spacing changes within the series: {_text(first.spacing)} and {_text(plane.spacing)} mm"
            )


def parallel_groups(planes: Sequence[FramePlane]) -> list[list[FramePlane]]:
    """Sort frames by orientation: each group is parallel to its first, in the sense of rows and columns."""
    groups: list[list[FramePlane]] = []
    for plane in planes:
        for group in groups:
            if _parallel(plane, group[0]):
                group.append(plane)
                break
        else:
            groups.append([plane])
    return groups


def same_spacing(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Return whether two pixel spacings are the same but for rounding."""
    return one == other or all(abs(a - b) <= 1e-3 * b for a, b in zip(one, other, strict=True))


def _parallel(one: FramePlane, other: FramePlane) -> bool:
    if one.along_row is other.along_row and one.along_column is other.along_column:
        return True
    difference = np.abs([one.along_row - other.along_row, one.along_column - other.along_column])
    return bool(difference.max() < _DIRECTION_TOLERANCE)


def same_heights(heights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Number the positions of sorted heights along the normal: heights nearer than rounding share a number."""
    numbers = np.zeros(len(heights), np.int64)
    if (np.diff(heights) > SAME_POSITION_MM).all():
        return np.arange(len(heights))
    start = heights[0]
    for k in range(1, len(heights)):
        new = heights[k] - start > SAME_POSITION_MM
        numbers[k] = numbers[k - 1] + int(new)
        start = heights[k] if new else start
    return numbers


def _check_distinct(heights: NDArray[np.float64]) -> None:
    """Refuse frames that share a position."""
    numbers = same_heights(heights)
    counts = np.bincount(numbers)
    if counts.max() == 1:
        return
    if len(counts) > 1 and counts.min() == counts.max():
        raise Unsupported.REPEATED_POSITIONS.error(
            f"each of the {len(counts)} slice positions holds {counts[0]} images (a time series, echoes or phases)"
            " and nothing in them tells which belong together"
        )
    crowded = np.flatnonzero(counts > 1)
    raise Unsupported.DUPLICATE_POSITIONS.error(
        f"{len(crowded)} of {len(counts)} slice positions hold more than one image of different content, "
        f"the first at {heights[numbers == crowded[0]][0]:.2f} mm along the normal"
    )


def _places(
    positions: NDArray[np.float64], first: FramePlane, normal: NDArray[np.float64]
) -> tuple[NDArray[np.float64] | None, list[str]]:
    """Return where an even stack's slices lie among frames that are no even stack, or None where they are one."""
    heights = positions @ normal
    gaps = np.diff(heights)
    along = (heights - heights[0]) / (heights[-1] - heights[0])
    sideways = positions - positions[0] - along[:, None] * (positions[-1] - positions[0])
    aside = np.linalg.norm(sideways, axis=1)
    if aside.max() > min(DRIFT_TOLERANCE * min(first.spacing), PLACE_MM):
        raise Unsupported.UNEVEN_SPACING.error(
            f"the slices do not lie on a straight line: one is {aside.max():.2f} mm aside"
        )
    limit = np.sqrt(PLACE_MM**2 - aside**2)  # aside and along together, of each slice by itself
    if _on_rungs(heights, np.arange(len(heights)), limit):
        return None, []
    rungs = rungs_of(heights, limit)
    return _even_out(heights, gaps, limit) if rungs is None else _fill(heights, gaps, rungs)


def _on_rungs(heights: NDArray[np.float64], rungs: NDArray[np.int64], limit: NDArray[np.float64] | float) -> bool:
    unit = (heights[-1] - heights[0]) / rungs[-1]
    off = np.abs(heights - heights[0] - rungs * unit)
    return bool((off <= np.minimum(_SPACING_TOLERANCE * unit, limit)).all())


def rungs_of(heights: NDArray[np.float64], limit: NDArray[np.float64] | float = PLACE_MM) -> NDArray[np.int64] | None:
    """Number the sorted heights by the even ladder that they lie on, rungs left out included; None if there is none.

    None of them lies further than `limit` mm, or its own one of them, beside its rung.
    """
    gaps = np.diff(heights)
    steps = np.rint(gaps / _usual(gaps)).astype(np.int64)
    rungs = np.concatenate([[0], np.cumsum(steps)])
    return rungs if (steps >= 1).all() and _on_rungs(heights, rungs, limit) else None


def _usual(gaps: NDArray[np.float64]) -> float:
    return float(np.sort(gaps)[(len(gaps) - 1) // 2])


def _fill(
    heights: NDArray[np.float64], gaps: NDArray[np.float64], rungs: NDArray[np.int64]
) -> tuple[NDArray[np.float64], list[str]]:
    """Place whole slices that are absent, or refuse where they are too many."""
    usual = _usual(gaps)
    ladder = np.arange(rungs[-1] + 1)
    absent = np.setdiff1d(ladder, rungs)
    is_or_are = "slice is" if len(absent) == 1 else "slices are"
    if _too_many(np.diff(rungs) - 1, len(ladder)):
        wide = np.flatnonzero(np.diff(rungs) > 1)
        where = ", ".join(f"{heights[k]:.2f} and {heights[k + 1]:.2f}" for k in wide[:3])
        more = f" and {len(wide) - 3} more places" if len(wide) > 3 else ""
        raise Unsupported.MISSING_SLICES.error(
            f"{len(absent)} {is_or_are} missing between {where} mm along the normal{more} (spacing {usual:.2f} mm)"
        )
    unit = (heights[-1] - heights[0]) / rungs[-1]
    names = ", ".join(f"{heights[0] + rung * unit:.2f}" for rung in absent[:10])
    more = f" and {len(absent) - 10} more" if len(absent) > 10 else ""
    warning = (
        f"{len(absent)} {is_or_are} missing, at {names}{more} mm along the normal (spacing {usual:.2f} mm): "
        "interpolated from the slices beside"
    )
    return np.interp(ladder, rungs, np.arange(len(rungs))), [warning]


def _even_out(
    heights: NDArray[np.float64], gaps: NDArray[np.float64], limit: NDArray[np.float64]
) -> tuple[NDArray[np.float64], list[str]]:
    """Place the slices of an even stack among frames of uneven spacing, or refuse where that bridges too much.

    A frame that lies within its `limit` mm of a place stays there as it was acquired: only between frames is
    interpolated.
    """
    usual = _usual(gaps)
    count = max(2, round((heights[-1] - heights[0]) / usual) + 1)
    varies = f"the distance between slices varies from {gaps.min():.2f} to {gaps.max():.2f} mm"
    repeated = gaps.min() < _LEAST_GAP * usual
    if len(heights) < _LEAST_TO_RESAMPLE or repeated or _too_many(np.rint(gaps / usual) - 1, count):
        raise Unsupported.UNEVEN_SPACING.error(varies)
    targets = np.linspace(heights[0], heights[-1], count)
    odd = np.flatnonzero(np.abs(gaps - usual) > 2 * _SPACING_TOLERANCE * usual)
    names = ", ".join(f"{heights[k]:.2f}" for k in odd[:10])
    where = (
        f" after the slices at {names}{f' and {len(odd) - 10} more' if len(odd) > 10 else ''} mm" if len(odd) else ""
    )
    warning = (
        f"{varies}{where}: resampled to {count} slices of {targets[1] - targets[0]:.2f} mm, along the normal in "
        "straight lines"
    )
    places = np.interp(targets, heights, np.arange(len(heights)))
    nearest = np.rint(places).astype(np.int64)
    acquired = np.abs(heights[nearest] - targets) <= limit[nearest]
    return np.where(acquired, nearest, places), [warning]


def _too_many(absent: NDArray[Any], count: int) -> bool:
    absent = np.maximum(absent, 0)
    return bool(absent.max() > MAX_MISSING_IN_A_ROW or absent.sum() > MAX_MISSING_PART * count)


def _text(numbers: Any) -> str:
    return "\\".join(f"{number:g}" for number in numbers)
