"""From a volume to a label map in memory, for the tasks `total` and `total_mr`: the steps of `nnUNet_predict_image`.

The package writes the volume and each answer to files and hands them to processes; here every step takes the last
one's array. The canonical orientation is a view, the volume is never copied as float64, the labels grow by look-ups
along each axis, and where to crop to is read from the rough answer on its own coarse grid. The arithmetic is the
package's own, so are the labels (`tests/integration/test_totalsegmentator_agreement.py`); nibabel does the geometry
there, so it does here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np

from voxelmill_segment.totalsegmentator import library
from voxelmill_segment.totalsegmentator.kernels import nearest_indices, resample_linear
from voxelmill_segment.totalsegmentator.window import Told
from voxelmill_shared.imaging.nifti import RAS_TO_LPS

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from voxelmill_segment.totalsegmentator.library import Network
    from voxelmill_segment.totalsegmentator.predictor import Predictor
    from voxelmill_segment.totalsegmentator.tasks import Request
    from voxelmill_shared.imaging.volume import Volume
    from voxelmill_shared.work import Report

nib: Any = nibabel  # carries no types
orientations: Any = nibabel.orientations
Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

ROI_MARGIN_MM = 20.0
"""Around what a volume is cropped to (`crop_addon` of python_api.totalsegmentator)."""
SPLIT_VOXELS = 512 * 512 * 900
"""A task of several networks takes a larger image in three parts…"""
SPLIT_SLICES = 200
"""…if it has more slices than this…"""
SPLIT_MARGIN = 20
"""…that overlap by this many slices on either side."""


@dataclass(frozen=True, slots=True)
class Source:
    """A volume as the package sees it: (x, y, z) with an affine in RAS millimetres. No voxel is copied."""

    image: Any
    orientation: npt.NDArray[np.float64]

    @classmethod
    def of(cls, volume: Volume) -> Source:
        """Take a volume as a NIfTI image."""
        affine = RAS_TO_LPS @ volume.affine
        back = orientations.ornt_transform(orientations.axcodes2ornt("RAS"), orientations.io_orientation(affine))
        return cls(nib.Nifti1Image(volume.voxels.T, affine), back)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(x, y, z)."""
        x, y, z = self.image.shape
        return x, y, z

    def crop(self, box: Box) -> Source:
        """Return a part of it; voxels that are no whole numbers are cut to them, as the package does."""
        affine = np.copy(self.image.affine)
        affine[:3, 3] = np.dot(affine, np.array([*(first for first, _ in box), 1]))[:3]
        part = np.asanyarray(self.image.dataobj)[tuple(slice(first, last) for first, last in box)]
        if part.dtype.kind == "f":
            part = part.astype(np.int32)
        return Source(nib.Nifti1Image(part, affine), self.orientation)


@dataclass(frozen=True, slots=True)
class Grid:
    """An image on the grid of a network's task.

    Parameters
    ----------
    voxels
        float32 (z, y, x), contiguous, canonical (RAS).
    spacing
        Millimetres along z, y, x.
    shape
        (x, y, z) of the canonical image that it was resampled from.
    orientation
        The nibabel orientation that takes an array of that shape back to the source's own.
    """

    voxels: npt.NDArray[np.float32]
    spacing: tuple[float, ...]
    shape: tuple[int, ...]
    orientation: npt.NDArray[np.float64]

    def restore(self, labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return labels (z, y, x) of this grid on the source's grid, (x, y, z) in its own orientation."""
        for axis, size in enumerate(self.shape):
            # First along x, where single voxels are copied, while there are few; last along z, where whole slices are.
            labels = np.take(labels, nearest_indices(labels.shape[2 - axis], size), axis=2 - axis)
        turned: npt.NDArray[np.uint8] = orientations.apply_orientation(labels.T, self.orientation)
        return turned

    def extent(self, mask: npt.NDArray[np.bool_]) -> list[tuple[int, int]] | None:
        """Return first and last voxel by axis of the source that a mask (z, y, x) reaches, None if none."""
        indices = [nearest_indices(n, m) for n, m in zip(mask.shape[::-1], self.shape, strict=True)]
        # A sample that no voxel of the source is nearest to is in no label map of the source.
        reached = mask[np.ix_(*(np.unique(one) for one in indices[::-1]))]
        if not reached.any():
            return None
        extent = [(0, 0)] * 3
        for axis, index in enumerate(indices):
            others = tuple(2 - other for other in range(3) if other != axis)
            present = np.zeros(mask.shape[2 - axis], np.bool_)
            present[np.unique(index)] = reached.any(axis=others)
            voxels = np.flatnonzero(present[index])
            first, last = int(voxels[0]), int(voxels[-1])
            target, direction = self.orientation[axis]
            if direction < 0:
                first, last = self.shape[axis] - 1 - last, self.shape[axis] - 1 - first
            extent[int(target)] = (first, last)
        return extent


def to_grid(source: Source, spacing: tuple[float, float, float] | None) -> Grid:
    """Resample a volume to a network's task, as `resampling.change_spacing` does."""
    canonical = nib.as_closest_canonical(source.image)
    voxels = np.asanyarray(canonical.dataobj)
    steps = np.array(canonical.header.get_zooms())
    affine = canonical.affine
    if spacing is None or np.array_equal(steps, np.array(spacing)):
        resampled = np.ascontiguousarray(voxels.T, np.float32)
    else:
        zoom = steps / np.array(spacing)
        affine = np.copy(affine)
        affine[:3, :3] /= zoom
        resampled = resample_linear(voxels, zoom)
    new = nib.Nifti1Image(np.broadcast_to(np.uint8(0), resampled.shape[::-1]), affine)
    back = tuple(float(step) for step in new.header.get_zooms()[::-1])
    return Grid(resampled, back, tuple(canonical.shape), source.orientation)


def label_total(source: Source, request: Request, predictor: Predictor, report: Report) -> npt.NDArray[np.uint8]:
    """Label a volume with the task `total` or `total_mr`.

    Parameters
    ----------
    source
        The volume.
    request
        The task, its networks and the wanted classes.
    predictor
        The networks.
    report
        Is told of steps and tiles; may raise to end the work.

    Returns
    -------
    ndarray
        uint8 (x, y, z) in the source's own grid: 0, or the label of a wanted class.
    """
    box: Box | None = None
    if request.subset:
        report("resample")
        network = request.rough[0]
        grid = to_grid(source, network.spacing)
        rough = answer(grid.voxels, grid.spacing, (network,), request.task, predictor, Told(report, "rough"))
        box = _crop_box(source, grid, np.isin(rough, list(request.classes)))
        if box is None:
            return np.zeros(source.shape, np.uint8, order="F")
        if request.networks == (network,) and _is_whole(box, source.shape) and _is_integer(source):
            return _finish(grid, rough, request, report)
        del grid, rough
    report("resample")
    part = source if box is None else source.crop(box)
    grid = to_grid(part, request.networks[0].spacing)
    tell = Told(report, "predict", len(request.networks))
    labels = answer(grid.voxels, grid.spacing, request.networks, request.task, predictor, tell)
    found = _finish(grid, labels, request, report)
    if box is None:
        return found
    whole = np.zeros(source.shape, np.uint8, order="F")
    whole[tuple(slice(first, last) for first, last in box)] = found
    return whole


def answer(
    voxels: npt.NDArray[np.float32],
    spacing: tuple[float, ...],
    networks: tuple[Network, ...],
    task: str,
    predictor: Predictor,
    tell: Told,
    *,
    split: bool | None = None,
) -> npt.NDArray[np.uint8]:
    """Label an image of the task's grid with all of the task's networks.

    Parameters
    ----------
    voxels
        float32 (z, y, x), contiguous.
    spacing
        Millimetres along z, y, x.
    networks
        One, whose labels are the task's, or several, each of which knows some of them; a later one rules.
    task
        The library's name of it.
    predictor
        The networks.
    tell
        Is told of tiles.
    split
        Whether to take the image in three parts; None: if it is too large, as the package decides it.

    Returns
    -------
    ndarray
        uint8 (z, y, x): the task's labels.
    """
    several = task in {"total", "total_mr"} and len(library.networks(task)) > 1 and _of_parts(networks, task)
    if split is None:
        split = several and voxels.size > SPLIT_VOXELS and len(voxels) > SPLIT_SLICES
    if not split:
        return _merged(voxels, spacing, networks, task, predictor, tell, several=several)
    third, margin = len(voxels) // 3, SPLIT_MARGIN
    parts = (
        slice(0, third + margin),
        slice(third + 1 - margin, third * 2 + margin),
        slice(third * 2 + 1 - margin, None),
    )
    kept = (slice(0, -margin), slice(margin - 1, -margin), slice(margin - 1, None))
    return np.concatenate(
        [
            _merged(np.ascontiguousarray(voxels[part]), spacing, networks, task, predictor, tell, several=several)[keep]
            for part, keep in zip(parts, kept, strict=True)
        ]
    )


def _merged(
    voxels: npt.NDArray[np.float32],
    spacing: tuple[float, ...],
    networks: tuple[Network, ...],
    task: str,
    predictor: Predictor,
    tell: Told,
    *,
    several: bool,
) -> npt.NDArray[np.uint8]:
    merged: npt.NDArray[np.uint8] | None = None
    for number, network in enumerate(networks):
        tell.before = number
        labels = predictor.labels(network, voxels[None], spacing, library.tile_step(task), tell)
        if not several:
            return labels
        table = np.zeros(256, np.uint8)
        for own, of_task in network.labels:
            table[own] = of_task
        mapped = table[labels]
        if merged is None:
            merged = mapped
        else:
            np.copyto(merged, mapped, where=mapped != 0)
    if merged is None:
        raise ValueError("no network to label with")
    return merged


def _of_parts(networks: Iterable[Network], task: str) -> bool:
    """Whether these are networks that each know a part of the task's classes."""
    parts = {network.dataset for network in library.networks(task)}
    return all(network.dataset in parts for network in networks)


def _finish(grid: Grid, labels: npt.NDArray[np.uint8], request: Request, report: Report) -> npt.NDArray[np.uint8]:
    report("restore")
    if request.subset:
        table = np.zeros(256, np.uint8)
        table[list(request.classes)] = list(request.classes)
        labels = table[labels]
    return grid.restore(labels)


def _crop_box(source: Source, grid: Grid, mask: npt.NDArray[np.bool_]) -> Box | None:
    """Return first and last + 1 by axis of the source: what a mask reaches, with a margin (cropping.crop_to_mask)."""
    extent = grid.extent(mask)
    if extent is None:
        return None
    margin = (np.array([ROI_MARGIN_MM] * 3) / source.image.header.get_zooms()).astype(int)
    x, y, z = (
        (max(0, first - int(more)), min(size, last + 1 + int(more)))
        for (first, last), more, size in zip(extent, margin, source.shape, strict=True)
    )
    return x, y, z


def _is_whole(box: Box, shape: tuple[int, int, int]) -> bool:
    return all(edge == (0, size) for edge, size in zip(box, shape, strict=True))


def _is_integer(source: Source) -> bool:
    return bool(np.asanyarray(source.image.dataobj).dtype.kind != "f")
