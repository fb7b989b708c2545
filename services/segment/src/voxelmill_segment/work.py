"""The domain half of the stage: the files of a series in; label map, DICOM SEG and statistics out. Runs in children.

Three phases, so that while the device computes one series the next is read and the last is written: `prepare` and
`finish` here, `compute` in `device`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from voxelmill_segment.dicom_seg import UnreferableError, write_dicom_seg
from voxelmill_segment.equipment import Equipment
from voxelmill_segment.passing import open_labels, open_volume, store_volume
from voxelmill_segment.quality import check
from voxelmill_segment.segmenter import LabelMap
from voxelmill_segment.statistics import measure, value_unit
from voxelmill_segment.task import LABELS, VOXELS, Admission, Completion, Computation, Preparation, Prepared
from voxelmill_segment.totalsegmentator.tasks import resolve
from voxelmill_segment.totalsegmentator.weights import WeightsFolder
from voxelmill_shared.events import ObjectKind
from voxelmill_shared.imaging.labelmap import write_label_map
from voxelmill_shared.imaging.nifti import read_nifti
from voxelmill_shared.imaging.series import lay_out_volumes, open_images
from voxelmill_shared.plan import ModelName
from voxelmill_shared.work import NotApplicableError, OutputFile, StepClock, WorkResult

if TYPE_CHECKING:
    from voxelmill_segment.task import Computed, SegmentTask, Shape
    from voxelmill_shared.imaging.volume import Volume
    from voxelmill_shared.work import Report

LABEL_MAP = "segmentation/labelmap.nii.gz"
DICOM_SEG = "segmentation/segmentation.dcm"
STATISTICS = "segmentation/statistics.json"
_MOST_OTHERS = 20
"""How many other parts of a series are named one by one."""


def act(
    request: Admission | Preparation | Computation | Completion, report: Report
) -> Prepared | Computed | WorkResult | None:
    """Do a phase: what a child that reads and writes is called with. It can also compute, where nobody else does."""
    if isinstance(request, Preparation):
        return prepare(request, report)
    if isinstance(request, Completion):
        return finish(request, report)
    if isinstance(request, Admission):
        admit(request)
        return None
    from voxelmill_segment.device import compute  # noqa: PLC0415 - what only computes is loaded only where it is done

    return compute(request, report)


def admit(request: Admission) -> None:
    """Refuse what this worker cannot do, before anything is fetched.

    Raises
    ------
    NotApplicableError
        If the model has no meaning for this modality.
    NotEquippedError
        If this worker lacks the library or weights, or has others than the plan asks for.
    UnfitPlanError
        If no worker can do it.
    """
    plan, modality = request.plan, request.modality if request.kind is ObjectKind.DICOM else ""
    if plan.model is ModelName.TOTALSEGMENTATOR:
        equipment = Equipment.of_environment()
        wanted = resolve(plan, modality, equipment.licences)
        WeightsFolder(equipment.weights).agree(plan.weights_digest, wanted.all_networks)
    elif modality not in {"", "CT"}:
        raise NotApplicableError(f"the model {plan.model} is for CT; this series is {modality}")


def prepare(request: Preparation, report: Report) -> Prepared | None:
    """Read a series and choose the volume to segment: the largest that the model has not refused, of several the first.

    Raises
    ------
    UnsupportedSeriesError
        If the files make no volume.
    """
    clock = StepClock(report)
    clock.begin("read")
    found = _choose(request.task, request.refused)
    if found is None:
        return None
    volume, others = found
    stored = store_volume(volume, request.task.output / VOXELS)
    clock.end()
    return Prepared(stored, others, clock.seconds)


def _choose(task: SegmentTask, refused: tuple[Shape, ...]) -> tuple[Volume, tuple[str, ...]] | None:
    if task.kind is ObjectKind.NIFTI:
        return None if refused else (read_nifti(task.paths[0]), ())
    found = lay_out_volumes(open_images(task.paths))
    for layout in found.layouts:
        if layout.shape in refused:
            continue  # another of the same kind, a later time point
        volume = layout.read()
        lines = [f"not segmented: {line}" for line in found.others(layout)]
        if len(lines) > _MOST_OTHERS:
            lines[_MOST_OTHERS:] = [f"not segmented: {len(lines) - _MOST_OTHERS} other parts of the series"]
        if volume.distinction and lines:
            lines.insert(0, f"of the series this volume was segmented: {volume.distinction}")
        return volume, tuple(lines)
    return None


def finish(request: Completion, report: Report) -> WorkResult:
    """Measure a label map and write what comes of the series.

    Returns
    -------
    WorkResult
        `measurements["segments"]` names number, name, colour and volume of each segment (the mesh stage reads them),
        `measurements["volume"]` the shape (slices, rows, columns), the spacing (column, row, slice) and the affine,
        `measurements["quality"]` the flags of the quality gate, `measurements["made_with"]` the model, what it says of
        itself (the digest of its weights) and how long it had the device.
    """
    task, computed = request.task, request.computed
    clock = StepClock(report)
    clock.begin("statistics")
    volume = open_volume(request.prepared.volume)
    label_map = LabelMap(open_labels(computed), volume.affine, computed.segments, computed.warnings, computed.facts)
    measured = measure(volume.voxels, label_map)
    flags = check(measured)
    statistics = [
        {**segment.to_json(), "flags": [str(flag.code) for flag in flags if segment.name in flag.segments]}
        for segment in measured
    ]
    quality = [flag.to_json() for flag in flags]
    about = _about(volume)
    clock.begin("write")
    folder = task.output / "segmentation"
    folder.mkdir(parents=True, exist_ok=True)
    files = [OutputFile(LABEL_MAP, task.output / LABEL_MAP, "application/gzip")]
    write_label_map(files[0].path, label_map.labels, label_map.affine, description=f"Voxelmill {computed.model}")
    document = {
        "model": computed.model,
        "volume": about,
        "unit": value_unit(volume),
        "quality": quality,
        "segments": statistics,
    }
    (task.output / STATISTICS).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    files.append(OutputFile(STATISTICS, task.output / STATISTICS, "application/json"))
    warnings = [*volume.warnings, *request.prepared.others, *label_map.warnings]
    warnings += [f"quality, {flag.code}: {flag.line}" for flag in flags]
    if task.kind is ObjectKind.NIFTI:
        warnings.append("no segmentation.dcm: a NIfTI file has no source instances that it could refer to")
    else:
        clock.begin("dicom-seg")
        try:
            kind = Equipment.of_environment().seg_type
            written = write_dicom_seg(task.output / DICOM_SEG, label_map, volume, task, computed.model, kind)
        except UnreferableError as error:
            warnings.append(f"no segmentation.dcm: {error}")
        else:
            if written:
                files.append(OutputFile(DICOM_SEG, task.output / DICOM_SEG, "application/dicom"))
            else:
                warnings.append("no segmentation.dcm: nothing was found to put into it")
    clock.end()
    found = {segment.number: segment.volume_ml for segment in measured}
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
        seconds=_together(request.prepared.seconds, computed.seconds, clock.seconds),
        measurements={
            "segments": segments,
            "volume": about,
            "quality": quality,
            "made_with": {"model": computed.model, **computed.facts},
        },
        warnings=tuple(warnings),
    )


def segment_series(task: SegmentTask, report: Report) -> WorkResult:
    """Do all three phases here, one after the other, in one process.

    Parameters
    ----------
    task
        The series and what is asked for.
    report
        Is told how far it is.

    Raises
    ------
    NotApplicableError
        If the model has no meaning for this series.
    NotEquippedError
        If this worker lacks what the model needs.
    UnsupportedSeriesError
        If the files make no volume.
    """
    from voxelmill_segment.device import compute  # noqa: PLC0415 - see `act`

    admit(Admission(task.plan, task.kind, task.modality))
    refused: tuple[Shape, ...] = ()
    refusal: NotApplicableError | None = None
    while (prepared := prepare(Preparation(task, refused), report)) is not None:
        try:
            computed = compute(Computation(prepared.volume, task.plan, task.output / LABELS), report)
        except NotApplicableError as error:
            refused, refusal = (*refused, prepared.volume.shape), refusal or error
            continue
        return finish(Completion(task, prepared, computed), report)
    raise refusal or AssertionError("a series that was read has a volume")


def _together(*phases: dict[str, float]) -> dict[str, float]:
    """Put the times of the phases together; a step that stands in two of them has both times."""
    seconds: dict[str, float] = {}
    for phase in phases:
        for step, spent in phase.items():
            seconds[step] = round(seconds.get(step, 0.0) + spent, 4)
    return seconds


def _about(volume: Volume) -> dict[str, Any]:
    return {
        "shape": list(volume.voxels.shape),
        "spacing": [round(step, 6) for step in volume.spacing],
        "affine": np.asarray(volume.affine).tolist(),
    }
