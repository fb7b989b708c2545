"""The domain half of the stage: the files of a series in; label map, DICOM SEG and statistics out. Runs in a child."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from voxelmill_segment.dicom_seg import write_dicom_seg
from voxelmill_segment.segmenter import open_segmenter
from voxelmill_segment.statistics import measure
from voxelmill_shared.events import ObjectKind
from voxelmill_shared.imaging.labelmap import write_label_map
from voxelmill_shared.imaging.nifti import read_nifti
from voxelmill_shared.imaging.series import read_series
from voxelmill_shared.work import NotApplicableError, OutputFile, StepClock, WorkResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from voxelmill_segment.task import SegmentTask
    from voxelmill_shared.imaging.volume import Volume

LABEL_MAP = "segmentation/labelmap.nii.gz"
DICOM_SEG = "segmentation/segmentation.dcm"
STATISTICS = "segmentation/statistics.json"


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
    volume = read_nifti(task.paths[0]) if task.kind is ObjectKind.NIFTI else read_series(task.paths)
    label_map = segmenter.segment(volume, task.plan, clock.begin)
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
    warnings = [*volume.warnings, *label_map.warnings]
    if task.kind is ObjectKind.NIFTI:
        warnings.append("no segmentation.dcm: a NIfTI file has no source instances that it could refer to")
    else:
        clock.begin("dicom-seg")
        if write_dicom_seg(task.output / DICOM_SEG, label_map, volume, task, model):
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


def _about(volume: Volume) -> dict[str, Any]:
    return {
        "shape": list(volume.voxels.shape),
        "spacing": [round(step, 6) for step in volume.spacing],
        "affine": volume.affine.tolist(),
    }
