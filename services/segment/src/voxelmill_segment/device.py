"""The second phase, in a child that has the device: a volume in, labels out. Networks stay loaded between calls."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from voxelmill_segment.passing import open_volume, write_array
from voxelmill_segment.segmenter import open_segmenter
from voxelmill_segment.task import Computed
from voxelmill_segment.upright import Upright
from voxelmill_shared.work import StepClock

if TYPE_CHECKING:
    from voxelmill_segment.segmenter import LabelMap, Segmenter
    from voxelmill_segment.task import Computation
    from voxelmill_shared.imaging.volume import Volume
    from voxelmill_shared.plan import Plan
    from voxelmill_shared.work import Report


def compute(request: Computation, report: Report) -> Computed:
    """Label a volume.

    Parameters
    ----------
    request
        The volume, the plan, and where to write.
    report
        Is told how far it is; may raise `WorkCancelledError`.

    Raises
    ------
    NotApplicableError
        If the model has no meaning for this volume.
    NotEquippedError
        If this worker lacks a library, weights or the device.
    DeviceMemoryError
        If the device has too little memory, whatever was tried.
    """
    segmenter = open_segmenter(request.plan)
    clock = StepClock(report)
    label_map = segment_volume(segmenter, open_volume(request.volume), request.plan, clock)
    clock.begin("hand over")
    write_array(request.labels, label_map.labels)
    clock.end()
    return Computed(
        labels=request.labels,
        segments=label_map.segments,
        warnings=label_map.warnings,
        model=f"{segmenter.name} {segmenter.revision}",
        seconds=clock.seconds,
        facts={**label_map.facts, "device_seconds": round(sum(clock.seconds.values()), 4)},
    )


def segment_volume(segmenter: Segmenter, volume: Volume, plan: Plan, clock: StepClock) -> LabelMap:
    """Segment a volume on a grid of right angles; the labels are on the grid that was acquired."""
    upright = Upright.of(volume)
    if upright is None:
        return segmenter.segment(volume, plan, clock.tell)
    clock.begin("upright")
    label_map = segmenter.segment(upright.volume(volume), plan, clock.tell)
    return replace(label_map, labels=upright.labels(label_map.labels, volume.voxels.shape), affine=volume.affine)
