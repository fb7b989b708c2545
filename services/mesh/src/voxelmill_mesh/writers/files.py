"""All files of one job: which there are, what they are called, how they are written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from voxelmill_mesh.parallel import in_parallel
from voxelmill_mesh.writers.archive import write_zip
from voxelmill_mesh.writers.gltf import write_glb, write_web_glb
from voxelmill_mesh.writers.mz3 import write_mz3
from voxelmill_mesh.writers.obj import MATERIALS, write_materials, write_obj
from voxelmill_mesh.writers.ply import write_ply
from voxelmill_mesh.writers.stl import write_stl
from voxelmill_shared.plan import MeshFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from voxelmill_mesh.writers.segment import ColouredMesh

SCENE = "scene.glb"
WEB_SCENE = "scene-web.glb"
MEASUREMENTS = "meshes.json"
ARCHIVE = "meshes.zip"

MEDIA_TYPES = {
    ".stl": "model/stl",
    ".ply": "model/ply",
    ".obj": "model/obj",
    ".mtl": "model/mtl",
    ".glb": "model/gltf-binary",
    ".mz3": "application/octet-stream",
    ".json": "application/json",
    ".zip": "application/zip",
    ".png": "image/png",
}
"""Of every file of this stage, by its ending."""


def _write_segment(segment: ColouredMesh, formats: Collection[MeshFormat], folder: Path) -> list[Path]:
    paths = []
    for kind in (MeshFormat.STL, MeshFormat.PLY, MeshFormat.OBJ, MeshFormat.MZ3):
        if kind not in formats:
            continue
        path = folder / f"{segment.name}.{kind}"
        match kind:
            case MeshFormat.STL:
                write_stl(segment.mesh, path)
            case MeshFormat.PLY:
                write_ply(segment, path)
            case MeshFormat.OBJ:
                write_obj(segment, path)
            case MeshFormat.MZ3:
                write_mz3(segment, path)
        paths.append(path)
    return paths


def write_measurements(measurements: Mapping[str, Any], path: Path) -> None:
    """Write what was measured on the meshes as JSON, in the order in which it is given."""
    path.write_text(json.dumps(measurements, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def write_meshes(
    segments: Sequence[ColouredMesh],
    formats: Collection[MeshFormat],
    folder: Path,
    measurements: Mapping[str, Any] | None = None,
    tell: Callable[[int], None] = lambda _: None,
) -> list[Path]:
    """Write the files of a job into a folder, which is made if missing.

    Parameters
    ----------
    segments
        At least one, each with a face at least.
    formats
        What is written: of each segment an STL, PLY, OBJ or MZ3; `materials.mtl` with OBJ; with GLB `scene.glb` and
        `scene-web.glb`. In the end `meshes.zip` with all of these.
    measurements
        Written as `meshes.json`; none if not given.
    tell
        Hears of how many segments the files are written. What it raises ends the work.

    Returns
    -------
    list of Path
        The files in a fixed order, the archive last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with in_parallel() as run:
        paths = [
            path
            for each in run(_write_segment, ((segment, formats, folder) for segment in segments), tell)
            for path in each
        ]
    if MeshFormat.OBJ in formats:
        write_materials(segments, folder / MATERIALS)
        paths.append(folder / MATERIALS)
    if MeshFormat.GLB in formats:
        write_glb(segments, folder / SCENE)
        write_web_glb(segments, folder / WEB_SCENE)
        paths += [folder / SCENE, folder / WEB_SCENE]
    if measurements is not None:
        write_measurements(measurements, folder / MEASUREMENTS)
        paths.append(folder / MEASUREMENTS)
    packed = {path.name for path in paths if path.suffix == ".mz3" or path.name == WEB_SCENE}
    write_zip(paths, folder / ARCHIVE, packed)
    return [*paths, folder / ARCHIVE]
