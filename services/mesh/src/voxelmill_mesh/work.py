"""The work of the mesh stage: a label map file in, mesh files out. Runs in a child process."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from voxelmill_mesh.decimation import decimate
from voxelmill_mesh.label_map import LabelMap, count_voxels, labels_at_border, read_label_map, renumber
from voxelmill_mesh.measurement import measure
from voxelmill_mesh.nets import surface_net
from voxelmill_mesh.parallel import in_parallel
from voxelmill_mesh.quality import MESH_QUALITY, target_triangles
from voxelmill_mesh.render import render
from voxelmill_mesh.smoothing import smooth
from voxelmill_mesh.surface import Mesh, index_sides, label_surface, to_patient
from voxelmill_mesh.writers.files import MEDIA_TYPES, write_meshes
from voxelmill_mesh.writers.gltf import LPS_TO_SCENE
from voxelmill_mesh.writers.png import write_png
from voxelmill_mesh.writers.segment import ColouredMesh, opacity_of
from voxelmill_shared.work import OutputFile, StepClock, UnsupportedSeriesError, WorkResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voxelmill_mesh.task import MeshTask
    from voxelmill_shared.plan import Plan
    from voxelmill_shared.work import Report

FOLDER = "meshes"
PREVIEW = "preview.png"
_MOST_NAMED = 6
"""How many segments without voxels are named in a warning."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class _Segment:
    number: int
    name: str
    rgb: tuple[int, int, int]


def mesh_labels(task: MeshTask, report: Report) -> WorkResult:
    """Mesh every segment of a label map and write the files that the plan asks for.

    The same task gives the same bytes. A segment without voxels is a warning and has no file; if none has voxels,
    there is no file at all, and nothing has failed.

    Parameters
    ----------
    task
        What to mesh.
    report
        Is told the name of each step when it begins.

    Returns
    -------
    WorkResult
        Files `meshes/{segment}.stl`, `.ply`, `.obj` with `materials.mtl`, `.mz3`, `scene.glb` with `scene-web.glb`,
        `meshes.json` (the measurements), `meshes.zip` (all of these), and `preview.png`. Measurements: `segments`, by
        name, what `MeshMeasures` says with `voxel_volume_ml` and
        `touches_border`; `lps_to_scene`, the transform from patient millimetres to the scene's metres.

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
    voxels = count_voxels(label_map.labels)
    at_border = labels_at_border(label_map.labels)
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
    label_map = renumber(label_map, [segment.number for segment in segments])
    meshes = _make_meshes(label_map, task.plan, clock)
    coloured = [
        ColouredMesh(segment.name, segment.rgb, opacity_of(segment.name), mesh)
        for segment, mesh in zip(segments, meshes, strict=True)
    ]
    clock.begin("measure")
    measurements = {
        segment.name: {
            **asdict(measure(mesh)),
            "voxel_volume_ml": round(voxels[segment.number] * voxel_ml, 4),
            "touches_border": segment.number in at_border,
        }
        for segment, mesh in zip(segments, meshes, strict=True)
    }
    warnings += [f"{name}: the mesh is not watertight" for name, each in measurements.items() if not each["watertight"]]
    clock.begin("write")
    measured = {"segments": measurements, "lps_to_scene": LPS_TO_SCENE}
    paths = write_meshes(coloured, task.plan.formats, task.output, measured)
    clock.begin("preview")
    preview = task.output / PREVIEW
    write_png(render(_worth_showing(coloured)), preview)
    paths.append(preview)
    clock.end()
    files = tuple(OutputFile(f"{FOLDER}/{path.name}", path, MEDIA_TYPES[path.suffix]) for path in paths)
    return WorkResult(files, clock.seconds, measured, tuple(warnings))


def _listed(names: Sequence[str]) -> str:
    """Name a few of many segments: a model knows a hundred, and the label map says which of them have no voxels."""
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _read_segments(described: Sequence[dict[str, Any]]) -> list[_Segment]:
    segments = [
        _Segment(
            int(each["number"]), str(each["name"]), (int(each["rgb"][0]), int(each["rgb"][1]), int(each["rgb"][2]))
        )
        for each in described
    ]
    for segment in segments:
        if not _NAME.fullmatch(segment.name) or segment.number < 1:
            raise UnsupportedSeriesError(
                "segments-invalid", f"segment {segment.number}, {segment.name!r}: no number and name for files"
            )
    for what in ("number", "name"):
        values = [str(getattr(segment, what)).lower() for segment in segments]
        double = sorted({value for value in values if values.count(value) > 1})
        if double:
            raise UnsupportedSeriesError("segments-invalid", f"several segments have the {what} {double[0]}")
    return sorted(segments, key=lambda segment: segment.number)


def _make_meshes(label_map: LabelMap, plan: Plan, clock: StepClock) -> list[Mesh]:
    """Return the mesh of each label from 1 on."""
    quality = MESH_QUALITY[plan.quality]
    label_count = int(label_map.labels.max()) + 1
    clock.begin("extract")
    net = surface_net(label_map.labels)
    sides = index_sides(net, label_count)
    clock.begin("smooth")
    vertices = to_patient(smooth(net, quality.smoothing_iterations), label_map.affine)

    def make(label: int) -> Mesh:
        mesh = label_surface(vertices, net, sides.quads_of(label), label_map.affine)
        return decimate(mesh, target_triangles(len(mesh.faces), plan.reduction_percent, quality))

    clock.begin("decimate")
    with in_parallel() as run:
        # The largest first: whatever is left for the end is short.
        order = sorted(range(1, label_count), key=lambda label: -len(sides.quads_of(label)))
        made = dict(zip(order, run(make, ((label,) for label in order)), strict=True))
    return [made[label] for label in range(1, label_count)]


def _worth_showing(segments: Sequence[ColouredMesh]) -> Sequence[ColouredMesh]:
    """Leave fat and soft tissue out of the preview where there is something that they would hide."""
    filling = {"fat", "muscle", "tissue"}
    shown = [segment for segment in segments if filling.isdisjoint(segment.name.lower().split("_"))]
    return shown or segments
