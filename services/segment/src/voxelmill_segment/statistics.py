"""What can be measured of each segment: volume, Hounsfield units, place."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    import numpy.typing as npt

    from voxelmill_segment.segmenter import LabelMap

_PERCENTILES = (5, 25, 50, 75, 95)
_OFFSET = 32768
"""int16 has this many values below zero: the histogram's first bin is -32768 HU."""


@dataclass(frozen=True, slots=True)
class SegmentStatistics:
    """The measures of one segment.

    Parameters
    ----------
    number, name
        The segment's number in the voxels, and its name.
    voxels
        How many voxels it has.
    volume_ml
        Their volume in millilitres.
    hu_mean, hu_std
        Mean and standard deviation of the Hounsfield units; null without voxels.
    hu_percentiles
        `p05` to `p95`, by nearest rank.
    touches_border
        Whether it reaches the edge of the volume: then it is cut, and its volume is a part of the organ's.
    centroid_mm
        The mean of its voxels' centres, LPS millimetres.
    bounding_box_mm
        Least and greatest L, P and S of its voxels, their full extent included.
    """

    number: int
    name: str
    voxels: int
    volume_ml: float
    hu_mean: float | None
    hu_std: float | None
    hu_percentiles: dict[str, int]
    touches_border: bool
    centroid_mm: tuple[float, float, float] | None
    bounding_box_mm: tuple[tuple[float, float, float], tuple[float, float, float]] | None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return asdict(self)


def measure(voxels: npt.NDArray[np.int16] | npt.NDArray[np.float32], label_map: LabelMap) -> list[SegmentStatistics]:
    """Measure every segment of a label map, also those without voxels.

    Parameters
    ----------
    voxels
        HU (slices, rows, columns), as many as there are labels. Fractions are rounded.
    label_map
        The labels.
    """
    count = 1 + max(segment.number for segment in label_map.segments)
    histogram = np.zeros((count, 2 * _OFFSET), np.int64)
    sums = np.zeros((count, 3), np.float64)
    low = np.full((count, 3), np.iinfo(np.int64).max, np.int64)
    high = np.full((count, 3), -1, np.int64)
    for index, labels in enumerate(label_map.labels):
        plane = voxels[index]
        if plane.dtype != np.int16:
            plane = np.rint(np.clip(np.nan_to_num(plane), -_OFFSET, _OFFSET - 1)).astype(np.int16)
        _accumulate(np.ascontiguousarray(plane), labels, index, histogram, sums, low, high)
    voxel_ml = float(abs(np.linalg.det(label_map.affine[:3, :3]))) / 1000.0
    results = []
    for segment in label_map.segments:
        number = segment.number
        bins = histogram[number]
        total = int(bins.sum())
        if total == 0:
            results.append(
                SegmentStatistics(
                    number,
                    segment.name,
                    0,
                    0.0,
                    None,
                    None,
                    {},
                    touches_border=False,
                    centroid_mm=None,
                    bounding_box_mm=None,
                )
            )
            continue
        hu = np.arange(-_OFFSET, _OFFSET)
        mean = float((bins * hu).sum()) / total
        std = float(np.sqrt((bins * (hu - mean) ** 2).sum() / total))
        ranks = np.searchsorted(np.cumsum(bins), np.ceil(np.array(_PERCENTILES) / 100.0 * total))
        size = np.array(label_map.labels.shape[::-1])
        results.append(
            SegmentStatistics(
                number=number,
                name=segment.name,
                voxels=total,
                volume_ml=round(total * voxel_ml, 3),
                hu_mean=round(mean, 2),
                hu_std=round(std, 2),
                hu_percentiles={f"p{p:02d}": int(r) - _OFFSET for p, r in zip(_PERCENTILES, ranks, strict=True)},
                touches_border=bool((low[number] == 0).any() or (high[number] == size - 1).any()),
                centroid_mm=_point(label_map.affine, sums[number] / total),
                bounding_box_mm=_box(label_map.affine, low[number], high[number]),
            )
        )
    return results


def _point(affine: npt.NDArray[np.float64], index: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = affine[:3, :3] @ index + affine[:3, 3]
    return round(float(x), 3), round(float(y), 3), round(float(z), 3)


def _box(
    affine: npt.NDArray[np.float64], low: npt.NDArray[np.int64], high: npt.NDArray[np.int64]
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    corners = [
        _point(affine, np.array(corner))
        for corner in itertools.product(*zip((low - 0.5).tolist(), (high + 0.5).tolist(), strict=True))
    ]
    least, most = np.min(corners, axis=0), np.max(corners, axis=0)
    return (float(least[0]), float(least[1]), float(least[2])), (float(most[0]), float(most[1]), float(most[2]))


@njit(cache=True, nogil=True)
def _accumulate(
    hu: npt.NDArray[np.int16],
    labels: npt.NDArray[np.uint8],
    slice_index: int,
    histogram: npt.NDArray[np.int64],
    sums: npt.NDArray[np.float64],
    low: npt.NDArray[np.int64],
    high: npt.NDArray[np.int64],
) -> None:
    for row in range(labels.shape[0]):
        for column in range(labels.shape[1]):
            number = labels[row, column]
            if number == 0:
                continue
            histogram[number, int(hu[row, column]) + _OFFSET] += 1
            at = (column, row, slice_index)
            for axis in range(3):
                sums[number, axis] += at[axis]
                low[number, axis] = min(low[number, axis], at[axis])
                high[number, axis] = max(high[number, axis], at[axis])
