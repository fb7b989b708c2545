"""The work of the mesh stage: a label map file in, mesh files out. Runs in a child process."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from voxelmill_mesh.label_map import read_label_map, renumber, survey
from voxelmill_mesh.measurement import measure, significant
from voxelmill_mesh.meshing import LabelMesh, make_meshes
from voxelmill_mesh.render import render
from voxelmill_mesh.writers.files import MEDIA_TYPES, write_meshes
from voxelmill_mesh.writers.gltf import LPS_TO_SCENE
from voxelmill_mesh.writers.png import write_png
from voxelmill_mesh.writers.segment import ColouredMesh
from voxelmill_shared.opacity import opacity_of
from voxelmill_shared.work import OutputFile, Progress, StepClock, UnsupportedSeriesError, WorkResult

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from voxelmill_mesh.task import MeshTask
    from voxelmill_shared.work import Report

FOLDER = "meshes"
PREVIEW = "preview.png"
FILLING = frozenset({"soft_tissue", "subcutaneous_fat", "torso_fat"})
"""The segments that fill the body and hide the others: whole names, for a muscle is worth seeing."""

_MOST_NAMED = 6
"""How many segments are named in a warning."""
_VOLUME_PERCENT = 3.0
"""A mesh whose volume is further than this from that of its voxels is warned of."""


class _Segment(BaseModel):
    """A segment as its number in the label map, the name of its files, and its colour (sRGB)."""

    model_config = ConfigDict(frozen=True, strict=True)

    number: Annotated[int, Field(ge=1, le=65535)]
    name: Annotated[str, Field(pattern=r"\A[A-Za-z0-9][A-Za-z0-9_-]*\z", max_length=100)]
    rgb: Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(min_length=3, max_length=3)]

    @property
    def colour(self) -> tuple[int, int, int]:
        return self.rgb[0], self.rgb[1], self.rgb[2]


_SEGMENTS = TypeAdapter(list[_Segment])


def mesh_labels(task: MeshTask, report: Report) -> WorkResult:
    """Mesh every segment of a label map and write the files that the plan asks for.

    The same task gives the same bytes. A segment without voxels is a warning and has no file; if none has voxels,
    there is no file at all, and nothing has failed.

    Parameters
    ----------
    task
        What to mesh.
    report
        Is told the name of each step when it begins, and of how many segments it is done.

    Returns
    -------
    WorkResult
        Files `meshes/{segment}.stl`, `.ply`, `.obj` with `materials.mtl`, `.mz3`, `scene.glb` with `scene-web.glb`,
        `meshes.json` (the measurements), `meshes.zip` (all of these), and `preview.png`. Measurements: `segments`, by
        name, what `MeshMeasures` says with `voxel_volume_ml`, `volume_error_percent` (of the mesh against the voxels),
        `sampled_deviation_mm` (`LabelMesh.deviation_mm`) and `touches_border` (the anatomy leaves the image, and the
        mesh is closed there by its border); `lps_to_scene`, the transform from
        patient millimetres to the scene's metres.

    Raises
    ------
    UnsupportedSeriesError
        If the label map cannot be used (`read_label_map`), or the segments are contradictory
        (`segments-invalid`).
    """
    clock = StepClock(report)
    segments = _read_segments(task.segments)
    clock.begin("read")
    label_map = read_label_map(task.label_map)
    found = survey(label_map.labels)
    voxels = found.voxels
    empty = [segment.name for segment in segments if segment.number not in voxels]
    warnings = [f"no voxels, so no mesh: {_listed(empty)}"] if empty else []
    unknown = sorted(set(voxels) - {segment.number for segment in segments})
    if unknown:
        listed = ", ".join(map(str, unknown))
        warnings.append(f"the label map has labels that no segment names, left out: {listed}")
    segments = [segment for segment in segments if segment.number in voxels]
    if not segments:
        clock.end()
        return WorkResult((), clock.seconds, {"segments": {}, "lps_to_scene": LPS_TO_SCENE}, tuple(warnings))
    voxel_ml = label_map.voxel_ml
    numbers = [segment.number for segment in segments]
    label_map = renumber(label_map, numbers, found.box)
    counts = np.array([0, *(voxels[number] for number in numbers)], np.int64)
    made = make_meshes(label_map, counts, task.plan, clock)
    coloured = [
        ColouredMesh(segment.name, segment.colour, opacity_of(segment.name), each.mesh)
        for segment, each in zip(segments, made, strict=True)
    ]
    measurements: dict[str, dict[str, Any]] = {}
    clock.begin("measure")
    for segment, each in zip(segments, made, strict=True):
        volume_ml = voxels[segment.number] * voxel_ml
        measurements[segment.name] = _measure(each, volume_ml, touches_border=segment.number in found.at_border)
        clock.tell(Progress("measure", len(measurements), len(segments)))
    warnings += [f"{name}: the mesh is not watertight" for name, each in measurements.items() if not each["watertight"]]
    warnings += _warn_of_volumes(measurements)
    clock.begin("write")
    measured = {"segments": measurements, "lps_to_scene": LPS_TO_SCENE}
    tell = partial(_tell, clock, "write", len(coloured))
    paths = write_meshes(coloured, task.plan.formats, task.output, measured, tell)
    clock.begin("preview")
    preview = task.output / PREVIEW
    shown = _worth_showing(coloured)
    write_png(render(shown, tell=partial(_tell, clock, "preview", len(shown))), preview)
    paths.append(preview)
    clock.end()
    files = tuple(OutputFile(f"{FOLDER}/{path.name}", path, MEDIA_TYPES[path.suffix]) for path in paths)
    return WorkResult(files, clock.seconds, measured, tuple(warnings))


def _tell(clock: StepClock, step: str, total: int, done: int) -> None:
    clock.tell(Progress(step, done, total))


def _listed(names: Sequence[str]) -> str:
    """Name a few of many segments: a model knows a hundred, and the label map says which of them have no voxels."""
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _read_segments(described: Sequence[dict[str, Any]]) -> list[_Segment]:
    try:
        segments = _SEGMENTS.validate_python(list(described))
    except ValidationError as error:
        # Where and why, without the value: it may be anything.
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UnsupportedSeriesError(
            "segments-invalid", f"segments of the label map: {place}: {first['msg']}"
        ) from error
    for what in ("number", "name"):
        values = [str(getattr(segment, what)).lower() for segment in segments]
        double = sorted({value for value in values if values.count(value) > 1})
        if double:
            raise UnsupportedSeriesError("segments-invalid", f"several segments have the {what} {double[0]}")
    return sorted(segments, key=lambda segment: segment.number)


def _measure(made: LabelMesh, voxel_volume_ml: float, *, touches_border: bool) -> dict[str, Any]:
    """Return what is measured on a mesh, beside what is known of its voxels."""
    measures = measure(made.mesh)
    return {
        **asdict(measures),
        "voxel_volume_ml": significant(voxel_volume_ml),
        "volume_error_percent": round(100 * (measures.volume_ml / voxel_volume_ml - 1), 4),
        "sampled_deviation_mm": round(made.deviation_mm, 3),
        "touches_border": touches_border,
    }


def _warn_of_volumes(measurements: Mapping[str, dict[str, Any]]) -> list[str]:
    """Name the segments whose meshes have not the volume of their voxels: too small to be smooth and as large."""
    errors = {name: each["volume_error_percent"] for name, each in measurements.items()}
    far = sorted((name for name in errors if abs(errors[name]) > _VOLUME_PERCENT), key=lambda name: -abs(errors[name]))
    if not far:
        return []
    listed = _listed([f"{name} ({errors[name]:+.1f} %)" for name in far])
    return [f"the mesh's volume is more than {_VOLUME_PERCENT:g} % off that of its voxels: {listed}"]


def _worth_showing(segments: Sequence[ColouredMesh]) -> Sequence[ColouredMesh]:
    """Leave what fills the body out of the preview where there is something that it would hide."""
    return [segment for segment in segments if segment.name not in FILLING] or segments
