"""Opens mesh files with VTK, MeshLab (pymeshlab) and trimesh: `python read.py FOLDER`, one JSON line for each.

Runs in an environment of its own, in which nothing of Voxelmill is. pymeshlab is GPL: it is used here and nowhere else.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pymeshlab
import trimesh
import vtk

VTK_READERS = {".stl": vtk.vtkSTLReader, ".ply": vtk.vtkPLYReader, ".obj": vtk.vtkOBJReader}


def with_vtk(file: Path) -> dict[str, list[object]]:
    """Read one segment's file; whether there are colours is asked of PLY alone, the others cannot say."""
    reader = VTK_READERS[file.suffix]()
    reader.SetFileName(str(file))
    reader.Update()
    mesh = reader.GetOutput()
    measure = vtk.vtkMassProperties()
    measure.SetInputData(mesh)
    coloured = file.suffix != ".ply" or mesh.GetPointData().GetArray("RGB") is not None
    return {file.stem: [mesh.GetNumberOfPolys(), measure.GetVolume() / 1000, coloured]}


def with_meshlab(file: Path) -> dict[str, list[object]]:
    """Read one segment's file, or a scene, whose meshes come in the order of the file and without their nodes."""
    meshes = pymeshlab.MeshSet(verbose=False)
    meshes.load_new_mesh(str(file))
    if file.suffix == ".glb":
        return {mesh.label(): [mesh.face_number(), None, True] for mesh in meshes}
    volume = meshes.get_geometric_measures()["mesh_volume"] / 1000
    mesh = meshes.current_mesh()
    return {file.stem: [mesh.face_number(), volume, file.suffix != ".ply" or mesh.has_vertex_color()]}


def with_trimesh(file: Path) -> dict[str, list[object]]:
    """Read one segment's file, or a scene with its nodes."""
    if file.suffix == ".glb":
        scene = trimesh.load_scene(file)
        found = {}
        for node in scene.graph.nodes_geometry:
            matrix, name = scene.graph[node]
            mesh = scene.geometry[name].copy()
            mesh.apply_transform(matrix)
            found[node] = [len(mesh.faces), mesh.volume * 1e6, mesh.visual.material.name == node]
        return found
    mesh = trimesh.load_mesh(file, process=False)
    coloured = file.suffix == ".stl" or mesh.visual.defined
    return {file.stem: [len(mesh.faces), mesh.volume / 1000, bool(coloured)]}


def main() -> None:
    """Read every file of the folder with every program that knows its format."""
    folder = Path(sys.argv[1])
    for file in sorted(folder.iterdir()):
        programs = []
        if file.suffix in VTK_READERS:
            programs += [("VTK", with_vtk), ("MeshLab", with_meshlab), ("trimesh", with_trimesh)]
        elif file.name == "scene.glb":
            programs += [("MeshLab", with_meshlab), ("trimesh", with_trimesh)]
        for program, read in programs:
            print(json.dumps({"program": program, "file": file.name, "segments": read(file)}), flush=True)


if __name__ == "__main__":
    main()
