"""The model `threshold`: a classical segmentation of CT that needs no weights.

Each part of the method names its source in its module. The method works in the patient's axes (`orientation`), on a
coarse grid where anatomy is found (`body`, `airways`, `lungs`, `bones`, `tissue`), and refines the borders at full
resolution (`refine`). It is a preview: it knows no consolidated lung, no metal, and no organ but those of its table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from voxelmill_segment import labels as table
from voxelmill_segment.airways import find_airways
from voxelmill_segment.body import find_body
from voxelmill_segment.bones import find_bones
from voxelmill_segment.grid import AIR_HU, DENSEST_HU, Grid
from voxelmill_segment.lungs import LEFT, RIGHT, find_lung_air, optimal_threshold, smooth_lung, split_lungs
from voxelmill_segment.organs import segments_of
from voxelmill_segment.orientation import PatientAxes
from voxelmill_segment.refine import Anatomy, refine
from voxelmill_segment.segmenter import LabelMap
from voxelmill_segment.specks import merge_specks
from voxelmill_segment.tissue import find_torso
from voxelmill_shared.imaging.volume import looks_like_ct
from voxelmill_shared.plan import Organ, Quality
from voxelmill_shared.work import NotApplicableError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from voxelmill_segment.morphology import Mask, Spacing
    from voxelmill_shared.imaging.volume import Volume
    from voxelmill_shared.plan import Plan

LEAST_SLICES = 8
LEAST_EXTENT_MM = 20.0

_GRID_MM = {Quality.FAST: 3.0, Quality.NORMAL: 2.2, Quality.HIGH: 1.6}
_AIRWAY_GRID_MM = 1.2


class ThresholdSegmenter:
    """Body, lungs, airways, bones and tissues of a CT by thresholds, morphology and components."""

    name = "threshold"
    revision = "1"

    def segment(self, volume: Volume, plan: Plan, report: Callable[[str], None]) -> LabelMap:
        """Label the segments that the plan's organ group asks for.

        Raises
        ------
        NotApplicableError
            If the volume is no CT, or too small to hold anatomy, or the method cannot find the organ.
        """
        check_applicable(volume)
        wanted = segments_of(plan.organ)
        axes = PatientAxes.of(volume.affine)
        report("orient")
        hu = _integer_hu(axes.to_patient(volume.voxels))
        found = label_anatomy(hu, axes.spacing, plan.organ, plan.quality, report)
        labels = np.ascontiguousarray(axes.to_volume(found))
        # Slice by slice: it makes eight bytes of each voxel.
        present = sum((np.bincount(plane.ravel(), minlength=256) for plane in labels), np.zeros(256, np.int64))
        missing = [segment.name for segment in wanted if not present[segment.number]]
        warnings = (f"not found in this volume: {', '.join(missing)}",) if missing else ()
        return LabelMap(labels, volume.affine, wanted, warnings)


def check_applicable(volume: Volume) -> None:
    """Refuse what the method has no meaning for.

    Raises
    ------
    NotApplicableError
        If the modality is not CT, or, where none is known, the values are not those of a CT; if there are fewer than 8
        slices along any axis, or less than 20 mm.
    """
    if volume.modality and volume.modality != "CT":
        raise NotApplicableError(f"the model threshold is for CT; this series is {volume.modality}")
    if not volume.modality and not looks_like_ct(volume):
        raise NotApplicableError("the model threshold is for CT; the values of this volume are not Hounsfield units")
    steps = np.linalg.norm(np.asarray(volume.affine)[:3, :3], axis=0)[::-1]
    extent = steps * np.array(volume.voxels.shape)
    if min(volume.voxels.shape) < LEAST_SLICES:
        raise NotApplicableError(
            f"the model threshold needs at least {LEAST_SLICES} slices; this volume has {min(volume.voxels.shape)}"
        )
    if extent.min() < LEAST_EXTENT_MM:
        raise NotApplicableError(
            f"the model threshold needs at least {LEAST_EXTENT_MM:g} mm; this volume spans {extent.min():.1f} mm"
        )


def label_anatomy(
    hu: npt.NDArray[np.int16], spacing: Spacing, organ: Organ, quality: Quality, report: Callable[[str], None]
) -> npt.NDArray[np.uint8]:
    """Label a CT in the patient's axes.

    Parameters
    ----------
    hu
        int16 (superior, posterior, left), C-contiguous.
    spacing
        Millimetres between voxels.
    organ
        What is asked for; what nothing of it needs is not computed.
    quality
        How fine the working grid is.
    report
        Is told the name of each step as it begins.

    Returns
    -------
    numpy.ndarray
        uint8 of the same shape, with the numbers of `labels.SEGMENTS`.
    """
    report("body")
    grid = Grid.of(hu, spacing, _GRID_MM[quality])
    body = find_body(grid)
    core = np.zeros(grid.hu.shape, np.uint8)
    torso = np.zeros(grid.hu.shape, np.bool_)
    airway_grid, airways, air_hu = grid, np.zeros(grid.hu.shape, np.bool_), -500.0
    if organ in {Organ.LUNGS, Organ.AIRWAYS, Organ.ALL}:
        report("airways")
        air_hu = optimal_threshold(grid, body)
        lung_air = find_lung_air(grid, body, air_hu)
        airway_grid = Grid.of(hu, spacing, _AIRWAY_GRID_MM)
        airways = find_airways(
            airway_grid, _on(grid, body, airway_grid, hu.shape), _on(grid, lung_air, airway_grid, hu.shape)
        )
        if organ is not Organ.AIRWAYS:
            report("lungs")
            _add_lungs(core, grid, body, lung_air, _on(airway_grid, airways, grid, hu.shape))
    if organ in {Organ.BONES, Organ.ALL}:
        report("bones")
        core[find_bones(grid, body) & (core == 0)] = table.BONES.number
    if organ is Organ.ALL:
        report("tissue")
        torso = find_torso(grid, body, core > 0)
    report("refine")
    refined = refine(hu, Anatomy(grid, core, body, torso, airways, airway_grid), air_hu, spacing)
    if organ in {Organ.BONES, Organ.ALL}:
        refined.mend_bones(grid.spread(core, hu.shape), spacing)
    if organ is Organ.ALL:
        merge_specks(refined.labels, spacing)
        refined.add_skin(spacing)
    if organ is Organ.BODY:
        return refined.body.astype(np.uint8) * np.uint8(table.BODY.number)
    keep = np.zeros(256, np.uint8)
    for segment in segments_of(organ):
        keep[segment.number] = segment.number
    chosen: npt.NDArray[np.uint8] = keep[refined.labels]
    return chosen


def _add_lungs(core: npt.NDArray[np.uint8], grid: Grid, body: Mask, lung_air: Mask, airways: Mask) -> None:
    sides = split_lungs(lung_air & ~airways, body, grid.spacing)
    for side, segment, other in ((LEFT, table.LUNG_LEFT, RIGHT), (RIGHT, table.LUNG_RIGHT, LEFT)):
        barred = airways | ~body | (sides == other) | ((core != 0) & (core != segment.number))
        core[smooth_lung(sides == side, grid, barred)] = segment.number


def _on(source: Grid, mask: Mask, target: Grid, shape: tuple[int, ...]) -> Mask:
    """Carry a mask from one working grid to another of the same volume: each block takes its middle voxel's value."""
    picks = []
    for axis, size in enumerate(shape):
        middle = np.arange(target.hu.shape[axis]) * target.factors[axis] + target.factors[axis] // 2
        picks.append(np.minimum(middle, size - 1) // source.factors[axis])
    return np.ascontiguousarray(mask[np.ix_(*picks)])


def _integer_hu(voxels: npt.NDArray[np.int16] | npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    """Return C-contiguous int16 HU; a copy only if the voxels are not that already."""
    if voxels.dtype == np.int16:
        return np.ascontiguousarray(voxels)
    result = np.empty(voxels.shape, np.int16)
    for index in range(len(voxels)):
        plane = np.nan_to_num(voxels[index], nan=AIR_HU)
        result[index] = np.rint(np.clip(plane, AIR_HU, DENSEST_HU))
    return result
