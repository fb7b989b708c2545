"""The domain half of the stage: the files of a series in; label map, DICOM SEG and statistics out. Runs in a child."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from voxelmill_segment.dicom_seg import UnreferableError, write_dicom_seg
from voxelmill_segment.segmenter import open_segmenter
from voxelmill_segment.statistics import measure
from voxelmill_segment.upright import Upright
from voxelmill_shared.events import ObjectKind
from voxelmill_shared.imaging.labelmap import write_label_map
from voxelmill_shared.imaging.nifti import read_nifti
from voxelmill_shared.imaging.series import lay_out_volumes, open_images
from voxelmill_shared.work import NotApplicableError, OutputFile, StepClock, WorkResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from voxelmill_segment.segmenter import LabelMap, Segmenter
    from voxelmill_segment.task import SegmentTask
    from voxelmill_shared.imaging.volume import Volume
    from voxelmill_shared.plan import Plan

LABEL_MAP = "segmentation/labelmap.nii.gz"
DICOM_SEG = "segmentation/segmentation.dcm"
STATISTICS = "segmentation/statistics.json"
_MOST_OTHERS = 20
"""How many other parts of a series are named one by one."""


def segment_series(task: SegmentTask, report: Callable[[str], None]) -> WorkResult:
    """Segment a series and write what comes of it.

    Parameters
    ----------
    task
        The series and what is asked for.
    report
        Is told the name of each step as it begins.

    Returns
    -------
    WorkResult
        `measurements["segments"]` names number, name, colour and volume of each segment (the mesh stage reads them),
        `measurements["volume"]` the shape (slices, rows, columns), the spacing (column, row, slice) and the affine.

    Raises
    ------
    NotApplicableError
        If the model has no meaning for this series.
    NotBuiltError
        If the model is not part of this version.
    UnsupportedSeriesError
        If the files make no volume.
    """
    segmenter = open_segmenter(task.plan)
    if task.kind is ObjectKind.DICOM and task.modality not in {"", "CT"}:
        raise NotApplicableError(f"the model {segmenter.name} is for CT; this series is {task.modality}")
    clock = StepClock(report)
    clock.begin("read")
    if task.kind is ObjectKind.NIFTI:
        others: tuple[str, ...] = ()
        volume = read_nifti(task.paths[0])
        label_map = _segment(segmenter, volume, task.plan, clock)
    else:
        volume, label_map, others = _segment_largest(segmenter, task, clock)
    clock.begin("statistics")
    statistics = [segment.to_json() for segment in measure(volume.voxels, label_map)]
    about = _about(volume)
    model = f"{segmenter.name} {segmenter.revision}"
    clock.begin("write")
    folder = task.output / "segmentation"
    folder.mkdir(parents=True, exist_ok=True)
    files = [OutputFile(LABEL_MAP, task.output / LABEL_MAP, "application/gzip")]
    write_label_map(files[0].path, label_map.labels, label_map.affine, description=f"Voxelmill {model}")
    document = {"model": model, "volume": about, "segments": statistics}
    (task.output / STATISTICS).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    files.append(OutputFile(STATISTICS, task.output / STATISTICS, "application/json"))
    warnings = [*volume.warnings, *others, *label_map.warnings]
    if task.kind is ObjectKind.NIFTI:
        warnings.append("no segmentation.dcm: a NIfTI file has no source instances that it could refer to")
    else:
        clock.begin("dicom-seg")
        try:
            written = write_dicom_seg(task.output / DICOM_SEG, label_map, volume, task, model)
        except UnreferableError as error:
            warnings.append(f"no segmentation.dcm: {error}")
        else:
            if written:
                files.append(OutputFile(DICOM_SEG, task.output / DICOM_SEG, "application/dicom"))
            else:
                warnings.append("no segmentation.dcm: nothing was found to put into it")
    clock.end()
    found = {segment["number"]: segment["volume_ml"] for segment in statistics}
    segments = [
        {
            "number": segment.number,
            "name": segment.name,
            "rgb": list(segment.rgb),
            "volume_ml": found[segment.number],
        }
        for segment in label_map.segments
    ]
    return WorkResult(
        files=tuple(files),
        seconds=clock.seconds,
        measurements={"segments": segments, "volume": about},
        warnings=tuple(warnings),
    )


def _segment_largest(
    segmenter: Segmenter, task: SegmentTask, clock: StepClock
) -> tuple[Volume, LabelMap, tuple[str, ...]]:
    """Segment the largest volume of a series that the model takes, of several alike the first.

    Returns
    -------
    tuple
        The volume, its label map, and a line for each other part of the series, which was not segmented.
    """
    found = lay_out_volumes(open_images(task.paths))
    refused: dict[tuple[int, int, int], NotApplicableError] = {}
    for layout in found.layouts:
        if layout.shape in refused:
            continue  # another of the same kind, a later time point
        volume = layout.read()
        try:
            label_map = _segment(segmenter, volume, task.plan, clock)
        except NotApplicableError as error:
            refused[layout.shape] = error
            clock.begin("read")
            continue
        lines = [f"not segmented: {line}" for line in found.others(layout)]
        if len(lines) > _MOST_OTHERS:
            lines[_MOST_OTHERS:] = [f"not segmented: {len(lines) - _MOST_OTHERS} other parts of the series"]
        if volume.distinction and lines:
            lines.insert(0, f"of the series this volume was segmented: {volume.distinction}")
        return volume, label_map, tuple(lines)
    raise next(iter(refused.values()))


def _segment(segmenter: Segmenter, volume: Volume, plan: Plan, clock: StepClock) -> LabelMap:
    """Segment a volume on a grid of right angles; the labels are on the grid that was acquired."""
    upright = Upright.of(volume)
    if upright is None:
        return segmenter.segment(volume, plan, clock.begin)
    clock.begin("upright")
    label_map = segmenter.segment(upright.volume(volume), plan, clock.begin)
    return replace(label_map, labels=upright.labels(label_map.labels, volume.voxels.shape), affine=volume.affine)


def _about(volume: Volume) -> dict[str, Any]:
    return {
        "shape": list(volume.voxels.shape),
        "spacing": [round(step, 6) for step in volume.spacing],
        "affine": volume.affine.tolist(),
    }
