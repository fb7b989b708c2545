"""What can be measured of each segment: volume, values, place, and whether it is whole.

One pass over the volume for all segments together, in threads that hold no lock of Python's, and beside it one over the
labels alone (`components`). The memory is that of a histogram for each thread, 256 x 65,536 counts of 4 bytes, of which
the system gives only the pages that are used.
"""

from __future__ import annotations

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numba import njit

from voxelmill_segment.components import find_components
from voxelmill_shared.imaging.volume import axis_codes, looks_like_ct

if TYPE_CHECKING:
    import numpy.typing as npt

    from voxelmill_segment.segmenter import LabelMap
    from voxelmill_shared.imaging.volume import Volume

_PERCENTILES = (5, 25, 50, 75, 95)
_LABELS = 256
_BINS = 65_536
_OFFSET = 32_768
"""int16 has this many values below zero: the histogram's first bin is -32768."""
_NO_VALUE = 32_767
"""The code of what is no number (NaN, infinity) in a volume of fractions."""
_MOST_THREADS = 4
_OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "I": "S", "S": "I"}

HOUNSFIELD = "HU"
ARBITRARY = "arbitrary"
ACTIVITY = "as in Units (0054,1001)"

Point = tuple[float, float, float]


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
    mean, std
        Of its values, in the unit that `value_unit` names: null without voxels.
    percentiles
        `p05` to `p95`, by nearest rank. Of fractions to 1/65,534 of the volume's range.
    touches_border
        Whether it reaches the edge of the volume: then it is cut, and its volume is a part of the organ's.
    border_faces
        Which edges those are, as the patient's directions: `("I", "S")`.
    components
        How many parts it has that do not touch each other, not even by a corner.
    largest_component
        The share of its voxels that the largest part has; null without voxels.
    centroid_mm
        The mean of its voxels' centres, LPS millimetres.
    bounding_box_mm
        Least and greatest L, P and S of its voxels, their full extent included.
    """

    number: int
    name: str
    voxels: int = 0
    volume_ml: float = 0.0
    mean: float | None = None
    std: float | None = None
    percentiles: dict[str, float] = field(default_factory=dict)
    touches_border: bool = False
    border_faces: tuple[str, ...] = ()
    components: int = 0
    largest_component: float | None = None
    centroid_mm: Point | None = None
    bounding_box_mm: tuple[Point, Point] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return asdict(self)


def value_unit(volume: Volume) -> str:
    """Name the unit of a volume's values.

    `HU` for CT and for what looks like one; PET has the unit that its attribute names; MR and all else have none that
    means the same in two series.
    """
    if volume.modality == "CT" or (not volume.modality and looks_like_ct(volume)):
        return HOUNSFIELD
    return ACTIVITY if volume.modality == "PT" else ARBITRARY


def measure(voxels: npt.NDArray[np.int16] | npt.NDArray[np.float32], label_map: LabelMap) -> list[SegmentStatistics]:
    """Measure every segment of a label map, also those without voxels.

    Parameters
    ----------
    voxels
        Values (slices, rows, columns), as many as there are labels. Of whole numbers the measures are exact; fractions
        are rounded to 1/65,534 of the volume's range, and what is no number counts for the volume alone.
    label_map
        The labels.
    """
    labels = np.ascontiguousarray(label_map.labels)
    scale = _Scale.of(voxels)
    threads = max(1, min(_MOST_THREADS, os.cpu_count() or 1, len(labels)))
    edges = np.linspace(0, len(labels), threads + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        parts = [_Sums() for _ in range(threads)]
        components = pool.submit(find_components, labels)
        for done in [
            pool.submit(part.add, voxels, labels, scale, first, last)
            for part, (first, last) in zip(parts, itertools.pairwise(edges), strict=True)
        ]:
            done.result()
        number, largest = components.result()
    sums = _Sums.together(parts)
    voxel_ml = float(abs(np.linalg.det(label_map.affine[:3, :3]))) / 1000.0
    results = []
    for segment in label_map.segments:
        label = segment.number
        count = int(sums.counts[label])
        if count == 0:
            results.append(SegmentStatistics(label, segment.name))
            continue
        mean, std, percentiles = scale.describe(sums.histogram[label])
        faces = _faces(label_map, sums.low[label], sums.high[label])
        results.append(
            SegmentStatistics(
                number=label,
                name=segment.name,
                voxels=count,
                volume_ml=round(count * voxel_ml, 3),
                mean=mean,
                std=std,
                percentiles=percentiles,
                touches_border=bool(faces),
                border_faces=faces,
                components=int(number[label]),
                largest_component=round(int(largest[label]) / count, 4),
                centroid_mm=_point(label_map.affine, sums.places[label] / count),
                bounding_box_mm=_box(label_map.affine, sums.low[label], sums.high[label]),
            )
        )
    return results


@dataclass(frozen=True, slots=True)
class _Scale:
    """How values become the histogram's bins: `value = origin + step * (code + 32768)`, the codes int16."""

    origin: float
    step: float
    whole: bool

    @classmethod
    def of(cls, voxels: npt.NDArray[np.int16] | npt.NDArray[np.float32]) -> Self:
        if voxels.dtype == np.int16:
            return cls(-_OFFSET, 1.0, whole=True)
        least, most = np.inf, -np.inf
        for plane in voxels:
            finite = plane[np.isfinite(plane)]
            if finite.size:
                least, most = min(least, float(finite.min())), max(most, float(finite.max()))
        if least > most:
            return cls(0.0, 1.0, whole=False)
        return cls(least, (most - least) / (_BINS - 2) or 1.0, whole=False)

    def codes(self, plane: npt.NDArray[np.int16] | npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
        """Return the codes of a slice."""
        if self.whole:
            return np.ascontiguousarray(plane, np.int16)
        places = (plane.astype(np.float64) - self.origin) / self.step - _OFFSET
        return np.where(np.isfinite(places), np.rint(places), _NO_VALUE).astype(np.int16)

    def describe(self, bins: npt.NDArray[np.uint32]) -> tuple[float | None, float | None, dict[str, float]]:
        """Return mean, standard deviation and percentiles of a histogram."""
        if not self.whole:
            bins = bins[: _NO_VALUE + _OFFSET]
        used = np.flatnonzero(bins)
        if not used.size:
            return None, None, {}
        counts = bins[used].astype(np.float64)
        total = counts.sum()
        mean = float((counts * used).sum() / total)
        std = float(np.sqrt((counts * (used - mean) ** 2).sum() / total))
        ranks = used[np.searchsorted(np.cumsum(counts), np.ceil(np.array(_PERCENTILES) / 100.0 * total))]
        digits = 0 if self.whole else max(0, int(np.ceil(-np.log10(self.step))))
        percentiles = {
            f"p{p:02d}": round(self.origin + self.step * int(rank), digits)
            for p, rank in zip(_PERCENTILES, ranks, strict=True)
        }
        more = max(2, digits)
        return round(self.origin + self.step * mean, more), round(self.step * std, more), percentiles


class _Sums:
    """What is added up of each label: a histogram, places, and the box of indices (column, row, slice)."""

    __slots__ = ("counts", "high", "histogram", "low", "places")

    def __init__(self) -> None:
        self.histogram = np.zeros((_LABELS, _BINS), np.uint32)
        self.counts = np.zeros(_LABELS, np.int64)
        self.places = np.zeros((_LABELS, 3), np.int64)
        self.low = np.full((_LABELS, 3), np.iinfo(np.int64).max, np.int64)
        self.high = np.full((_LABELS, 3), -1, np.int64)

    def add(
        self,
        voxels: npt.NDArray[np.int16] | npt.NDArray[np.float32],
        labels: npt.NDArray[np.uint8],
        scale: _Scale,
        first: int,
        last: int,
    ) -> None:
        """Add the slices from `first` up to, without, `last`."""
        for index in range(first, last):
            codes = scale.codes(voxels[index])
            _accumulate(codes, labels[index], index, self.histogram, self.counts, self.places, self.low, self.high)

    @classmethod
    def together(cls, parts: list[_Sums]) -> _Sums:
        """Return the sum of all parts, in the first of them."""
        whole = parts[0]
        for part in parts[1:]:
            for label in np.flatnonzero(part.counts):
                whole.histogram[label] += part.histogram[label]
            whole.counts += part.counts
            whole.places += part.places
            np.minimum(whole.low, part.low, out=whole.low)
            np.maximum(whole.high, part.high, out=whole.high)
        return whole


def _faces(label_map: LabelMap, low: npt.NDArray[np.int64], high: npt.NDArray[np.int64]) -> tuple[str, ...]:
    """Return the edges of the volume that a box of indices reaches, as the directions of the patient."""
    ends = axis_codes(label_map.affine)
    size = label_map.labels.shape[::-1]
    faces = [_OPPOSITE[end] for end, least in zip(ends, low, strict=True) if least == 0]
    faces += [end for end, most, n in zip(ends, high, size, strict=True) if most == n - 1]
    return tuple(sorted(set(faces)))


def _point(affine: npt.NDArray[np.float64], index: npt.NDArray[np.float64]) -> Point:
    x, y, z = affine[:3, :3] @ index + affine[:3, 3]
    return round(float(x), 3), round(float(y), 3), round(float(z), 3)


def _box(
    affine: npt.NDArray[np.float64], low: npt.NDArray[np.int64], high: npt.NDArray[np.int64]
) -> tuple[Point, Point]:
    corners = [
        _point(affine, np.array(corner))
        for corner in itertools.product(*zip((low - 0.5).tolist(), (high + 0.5).tolist(), strict=True))
    ]
    least, most = np.min(corners, axis=0), np.max(corners, axis=0)
    return (float(least[0]), float(least[1]), float(least[2])), (float(most[0]), float(most[1]), float(most[2]))


@njit(cache=True, nogil=True)
def _accumulate(
    codes: npt.NDArray[np.int16],
    labels: npt.NDArray[np.uint8],
    slice_index: int,
    histogram: npt.NDArray[np.uint32],
    counts: npt.NDArray[np.int64],
    places: npt.NDArray[np.int64],
    low: npt.NDArray[np.int64],
    high: npt.NDArray[np.int64],
) -> None:
    """Add a slice, run by run: what is the same for all voxels of a run is added once."""
    columns = labels.shape[1]
    for row in range(labels.shape[0]):
        column = 0
        while column < columns:
            number = labels[row, column]
            if number == 0:
                column += 1
                continue
            start = column
            while column < columns and labels[row, column] == number:
                histogram[number, int(codes[row, column]) + _OFFSET] += 1
                column += 1
            run = column - start
            counts[number] += run
            places[number, 0] += run * (start + column - 1) // 2
            places[number, 1] += run * row
            places[number, 2] += run * slice_index
            low[number, 0] = min(low[number, 0], start)
            high[number, 0] = max(high[number, 0], column - 1)
            low[number, 1] = min(low[number, 1], row)
            high[number, 1] = max(high[number, 1], row)
            low[number, 2] = min(low[number, 2], slice_index)
            high[number, 2] = max(high[number, 2], slice_index)
