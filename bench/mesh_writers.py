"""Time and size of every mesh format: Voxelmill's writers beside trimesh's, all labels of one label map."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import trimesh

from report import table
from voxelmill_mesh.writers.files import write_meshes
from voxelmill_mesh.writers.gltf import write_glb, write_web_glb
from voxelmill_mesh.writers.mz3 import write_mz3
from voxelmill_mesh.writers.obj import write_obj
from voxelmill_mesh.writers.ply import write_ply
from voxelmill_mesh.writers.segment import ColouredMesh
from voxelmill_mesh.writers.stl import write_stl
from voxelmill_shared.plan import MeshFormat

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from voxelmill_mesh.surface import Mesh

    Writer = Callable[[Path], object]

_THEIRS = "trimesh"


def compare_writers(meshes: list[Mesh], scratch: Path, runs: int) -> dict[str, Any]:
    """Write all meshes in every format, in turns; return CPU milliseconds (medians) and bytes, and the triangles."""
    segments = [
        ColouredMesh(f"organ_{number}", (number * 53 % 256, number * 97 % 256, number * 193 % 256), 1.0, mesh)
        for number, mesh in enumerate(meshes, 1)
    ]
    writers = {**_ours(segments), **_trimesh(segments)}
    spent: dict[str, list[float]] = {name: [] for name in writers}
    sizes: dict[str, int] = {}
    for turn in range(runs + 1):  # the first warms up
        for name, write in writers.items():
            folder = scratch / "written"
            folder.mkdir()
            before = time.process_time()
            write(folder)
            if turn:
                spent[name].append(1000 * (time.process_time() - before))
            sizes[name] = 0
            for path in folder.iterdir():
                sizes[name] += path.stat().st_size
                path.unlink()
            folder.rmdir()
    return {
        "triangles": sum(len(mesh.faces) for mesh in meshes),
        "writers": {name: {"cpu_ms": statistics.median(times), "bytes": sizes[name]} for name, times in spent.items()},
    }


def show_writers(figures: dict[str, Any]) -> None:
    """Print the table."""
    print(f"\nwriters, {figures['triangles']} triangles")
    table(
        ["writer", "CPU ms", "MB"],
        [[name, f"{one['cpu_ms']:.0f}", f"{one['bytes'] / 1e6:.1f}"] for name, one in figures["writers"].items()],
    )
    print()


def _ours(segments: list[ColouredMesh]) -> dict[str, Writer]:
    def each(ending: str, write: Callable[[ColouredMesh, Path], object]) -> Writer:
        def run(folder: Path) -> None:
            for segment in segments:
                write(segment, folder / f"{segment.name}.{ending}")

        return run

    return {
        "STL": each("stl", lambda segment, path: write_stl(segment.mesh, path)),
        "PLY": each("ply", write_ply),
        "OBJ": each("obj", write_obj),
        "GLB": lambda folder: write_glb(segments, folder / "scene.glb"),
        "GLB for the web": lambda folder: write_web_glb(segments, folder / "scene.glb"),
        "MZ3": each("mz3", write_mz3),
        "everything, with the zip": lambda folder: write_meshes(segments, frozenset(MeshFormat), folder),
    }


def _trimesh(segments: list[ColouredMesh]) -> dict[str, Writer]:
    made = {}
    for segment in segments:
        mesh = trimesh.Trimesh(segment.mesh.vertices, segment.mesh.faces, process=False)
        mesh.visual.vertex_colors = [*segment.rgb, 255]
        made[segment.name] = mesh
    bare = {name: trimesh.Trimesh(mesh.vertices, mesh.faces, process=False) for name, mesh in made.items()}

    def each(meshes: dict[str, Any], ending: str) -> Writer:
        def run(folder: Path) -> None:
            for name, mesh in meshes.items():
                # What a mesh has worked out once, its normals above all, would not be paid for again.
                mesh.copy().export(folder / f"{name}.{ending}")

        return run

    return {
        f"STL, {_THEIRS}": each(bare, "stl"),
        f"PLY, {_THEIRS}": each(made, "ply"),
        f"OBJ, {_THEIRS}": each(bare, "obj"),
        f"GLB, {_THEIRS}": lambda folder: trimesh.Scene(made).export(folder / "scene.glb"),
    }
