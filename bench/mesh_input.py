"""The label maps that are meshed: a real reference of 117 classes, made as fine as wanted, with 117 labels in it.

The reference of the test data with most labels has 61 of TotalSegmentator's 117 classes, on a grid of 3 mm. The largest
label is cut in two through the median of its voxels, across its longest axis, until there are 117: the parts have the
sizes of organs and touch each other in planes. A finer grid takes at each voxel the label whose indicator, interpolated
linearly between the reference's voxels, is largest, so that boundaries are no stairs of 3 mm; the cuts are made on it
anew, by the same planes. Nothing here is random.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import nibabel
import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

LABELS = 117
REFERENCE = "nifti/totalseg/example_seg_fast_force_split.nii.gz"
GRIDS = {"512x512x300": (300, 512, 512), "1.5 mm": (224, 202, 244), "512x512x1000": (1000, 512, 512)}
"""Slices, rows, columns. What is meshed has the reference's size in mm on each."""

_PLANES = 8
"""Slices made at a time: bounds the memory of the interpolation."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Of `label`, what lies beyond a plane becomes `beyond`; normal and offset in mm along (slice, row, column)."""

    label: int
    beyond: int
    normal: NDArray[np.float64]
    offset: float


@dataclass(frozen=True, slots=True)
class Reference:
    """The reference with its labels as 1, 2, 3 …, the size of a voxel in mm, and how it is cut."""

    labels: NDArray[np.uint8]
    spacing: NDArray[np.float64]
    cuts: tuple[Cut, ...]


def read_reference(data: Path) -> Reference:
    """Read the reference of the test data and find the cuts."""
    image = nibabel.nifti1.load(data / REFERENCE)
    voxels = np.asarray(image.dataobj).transpose(2, 1, 0)
    spacing = np.array(image.header.get_zooms()[2::-1], np.float64)
    numbers = np.unique(voxels)
    labels = np.searchsorted(numbers, voxels).astype(np.uint8)
    return Reference(labels, spacing, tuple(_cuts(labels, len(numbers) - 1, spacing)))


def _cuts(labels: NDArray[np.uint8], count: int, spacing: NDArray[np.float64]) -> Iterator[Cut]:
    places = {label: (np.argwhere(labels == label) + 0.5) * spacing for label in range(1, count + 1)}
    for beyond in range(count + 1, LABELS + 1):
        label = max(places, key=lambda each: (len(places[each]), -each))
        place = places[label]
        _, axes = np.linalg.eigh(np.cov(place.T))
        normal = axes[:, 2] * np.sign(axes[np.argmax(np.abs(axes[:, 2])), 2])
        along = place @ normal
        offset = float(np.median(along))
        places[label], places[beyond] = place[along <= offset], place[along > offset]
        yield Cut(label, beyond, normal, offset)


def make_labels(reference: Reference, shape: tuple[int, int, int]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Return the label map on a finer grid, (slices, rows, columns), and the size of its voxels in mm.

    Both grids fill the same box; outside the reference's outermost voxels its value goes on.
    """
    coarse = reference.labels.shape
    spacing = reference.spacing * np.array(coarse) / np.array(shape)
    steps = [_between(fine, few) for fine, few in zip(shape, coarse, strict=True)]
    boxes = ndimage.find_objects(reference.labels + 1)
    made = np.empty(shape, np.uint8)
    for first in range(0, shape[0], _PLANES):
        planes = range(first, min(first + _PLANES, shape[0]))
        block = _largest(
            reference.labels, boxes, [tuple(each[planes.start : planes.stop] for each in steps[0]), *steps[1:]]
        )
        _cut(block, first, spacing, reference.cuts)
        made[planes.start : planes.stop] = block
    return made, spacing


_Steps = tuple["NDArray[np.intp]", "NDArray[np.float32]"]


def _between(fine: int, few: int) -> _Steps:
    """Return, for each place of the fine grid, the reference's voxel before it and how far it is beyond that."""
    place = np.clip((np.arange(fine) + 0.5) * few / fine - 0.5, 0, few - 1)
    before = np.minimum(place.astype(np.intp), few - 2)
    return before, (place - before).astype(np.float32)


def _largest(labels: NDArray[np.uint8], boxes: list[tuple[slice, ...]], steps: list[_Steps]) -> NDArray[np.uint8]:
    """Return which label's indicator is largest at each place; of equals, the lowest label."""
    shape = tuple(len(before) for before, _ in steps)
    best = np.zeros(shape, np.float32)
    made = np.zeros(shape, np.uint8)
    for label, box in enumerate(boxes):
        found = []
        for (before, _), part in zip(steps, box, strict=True):
            hit = np.flatnonzero((before + 1 >= part.start) & (before < part.stop))
            found.append(slice(hit[0], hit[-1] + 1) if len(hit) else slice(0, 0))
        crop = tuple(found)
        if any(part.stop == part.start for part in crop):
            continue
        value: NDArray[np.float32] = np.empty(0, np.float32)
        low = steps[0][0][crop[0]].min()
        high = steps[0][0][crop[0]].max() + 2
        indicator = (labels[low:high] == label).astype(np.float32)
        for axis, (before, share) in enumerate(steps):
            at = before[crop[axis]] - (low if axis == 0 else 0)
            weight = share[crop[axis]].reshape([-1 if each == axis else 1 for each in range(3)])
            indicator = indicator.take(at, axis) * (1 - weight) + indicator.take(at + 1, axis) * weight
        value = indicator
        wins = value > best[crop]
        best[crop][wins] = value[wins]
        made[crop][wins] = label
    return made


def _cut(block: NDArray[np.uint8], first: int, spacing: NDArray[np.float64], cuts: tuple[Cut, ...]) -> None:
    present = np.bincount(block.ravel(), minlength=LABELS + 1) > 0
    for cut in cuts:
        if present[cut.label]:
            where = np.nonzero(block == cut.label)
            along = sum(
                (index + 0.5 + (first if axis == 0 else 0)) * (spacing[axis] * cut.normal[axis])
                for axis, index in enumerate(where)
            )
            beyond = along > cut.offset
            block[tuple(index[beyond] for index in where)] = cut.beyond
            present[cut.beyond] |= bool(beyond.any())
