"""Mesh files: read back by another program they are the meshes that were written."""

from __future__ import annotations

import gzip
import json
import struct
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
import trimesh

from unit.mesh.solids import as_trimesh, ball, pair
from voxelmill_mesh.normals import vertex_normals
from voxelmill_mesh.surface import Mesh
from voxelmill_mesh.writers import obj as obj_writer
from voxelmill_mesh.writers import ply as ply_writer
from voxelmill_mesh.writers import stl as stl_writer
from voxelmill_mesh.writers.files import MEDIA_TYPES, write_meshes
from voxelmill_mesh.writers.mz3 import write_mz3
from voxelmill_mesh.writers.obj import write_materials, write_obj
from voxelmill_mesh.writers.ply import write_ply
from voxelmill_mesh.writers.segment import ColouredMesh
from voxelmill_mesh.writers.stl import write_stl
from voxelmill_shared.plan import MeshFormat

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def segments() -> list[ColouredMesh]:
    """A translucent lung on the patient's right and an opaque bone on the left."""
    return pair()


def test_stl_read_back_is_the_mesh(segments: list[ColouredMesh], tmp_path: Path) -> None:
    """Same triangles in the same order, normals outwards, closed once vertices are joined."""
    path = tmp_path / "a.stl"
    write_stl(segments[0].mesh, path)
    assert path.stat().st_size == 84 + 50 * len(segments[0].mesh.faces)
    assert not path.read_bytes().startswith(b"solid")
    assert b"SPACE=LPS" in path.read_bytes()[:80], "where 3D Slicer looks"
    read = trimesh.load_mesh(path, process=False)
    np.testing.assert_array_equal(read.triangles, segments[0].mesh.vertices[segments[0].mesh.faces])
    read.merge_vertices()
    assert read.is_watertight
    stored = np.frombuffer(path.read_bytes()[84:], np.dtype([("n", "<f4", 3), ("v", "<f4", 9), ("a", "<u2")]))["n"]
    np.testing.assert_allclose(stored, as_trimesh(segments[0].mesh).face_normals, atol=1e-4)


def test_ply_read_back_is_the_mesh_with_its_colour(segments: list[ColouredMesh], tmp_path: Path) -> None:
    """Vertices, faces and the colour at every vertex."""
    path = tmp_path / "a.ply"
    write_ply(segments[1], path)
    read = trimesh.load_mesh(path, process=False)
    np.testing.assert_array_equal(read.vertices.astype(np.float32), segments[1].mesh.vertices)
    np.testing.assert_array_equal(read.faces, segments[1].mesh.faces)
    assert np.unique(read.visual.vertex_colors[:, :3], axis=0).tolist() == [[241, 232, 205]]


def test_obj_read_back_is_the_mesh_with_its_material(segments: list[ColouredMesh], tmp_path: Path) -> None:
    """Vertices to 0.1 um, faces, and the diffuse colour and opacity of the shared materials."""
    for segment in segments:
        write_obj(segment, tmp_path / f"{segment.name}.obj")
    write_materials(segments, tmp_path / "materials.mtl")
    read = trimesh.load_mesh(tmp_path / "lung_right.obj", process=False, maintain_order=True)
    np.testing.assert_allclose(read.vertices, segments[0].mesh.vertices, atol=6e-5)
    np.testing.assert_array_equal(read.faces, segments[0].mesh.faces)
    np.testing.assert_allclose(read.visual.material.main_color[:3], (150, 205, 240), atol=1)
    assert (tmp_path / "materials.mtl").read_text().count("newmtl") == 2
    assert "d 0.60" in (tmp_path / "materials.mtl").read_text()


@pytest.mark.parametrize(
    ("position", "line"),
    [
        ((0.0, -0.0, 0.00004), b"v 0.0000 0.0000 0.0000"),
        ((-0.00006, 1.5, -123.4567), b"v -0.0001 1.5000 -123.4567"),
        ((9999.99996, -100000.0, 0.99999), b"v 10000.0000 -100000.0000 1.0000"),
    ],
)
def test_obj_numbers_are_rounded_and_carry_over(position: tuple[float, ...], line: bytes, tmp_path: Path) -> None:
    """Four decimals, nines that become a one more before the point, no lost sign."""
    mesh = Mesh(np.array([position] * 3, np.float32), np.array([[0, 1, 2]], np.int32))
    write_obj(ColouredMesh("a", (1, 2, 3), 1.0, mesh), tmp_path / "a.obj")
    assert (tmp_path / "a.obj").read_bytes().splitlines()[3] == line


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e13])
def test_obj_refuses_what_is_no_position(value: float, tmp_path: Path) -> None:
    """It would run over the line."""
    mesh = Mesh(np.full((3, 3), value, np.float32), np.array([[0, 1, 2]], np.int32))
    with pytest.raises(ValueError, match="no position"):
        write_obj(ColouredMesh("a", (1, 2, 3), 1.0, mesh), tmp_path / "a.obj")


def test_blocks_leave_no_seam(segments: list[ColouredMesh], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written a hundred rows at a time, a file is the same as written at once."""

    def write(folder: Path) -> dict[str, bytes]:
        folder.mkdir()
        write_stl(segments[0].mesh, folder / "a.stl")
        write_ply(segments[0], folder / "a.ply")
        write_obj(segments[0], folder / "a.obj")
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    whole = write(tmp_path / "whole")
    for writer in (stl_writer, ply_writer, obj_writer):
        monkeypatch.setattr(writer, "_ROWS", 100)
    assert write(tmp_path / "parts") == whole


def test_mz3_read_back_is_the_mesh_in_ras(segments: list[ColouredMesh], tmp_path: Path) -> None:
    """Header, faces, positions in NIfTI's system, colour and opacity at each vertex; the winding stays outward."""
    lung = segments[0]
    write_mz3(lung, tmp_path / "a.mz3")
    body = gzip.decompress((tmp_path / "a.mz3").read_bytes())
    magic, kinds, face_count, vertex_count, skipped = struct.unpack_from("<HHIII", body)
    assert (magic, kinds, skipped) == (23117, 7, 0)
    faces = np.frombuffer(body, "<i4", 3 * face_count, 16).reshape(-1, 3)
    vertices = np.frombuffer(body, "<f4", 3 * vertex_count, 16 + faces.nbytes).reshape(-1, 3)
    colours = np.frombuffer(body, np.uint8, offset=16 + faces.nbytes + vertices.nbytes).reshape(-1, 4)
    np.testing.assert_array_equal(faces, lung.mesh.faces)
    np.testing.assert_array_equal(vertices, lung.mesh.vertices * (-1, -1, 1))
    assert len(colours) == vertex_count
    assert np.unique(colours, axis=0).tolist() == [[150, 205, 240, 153]]
    assert as_trimesh(Mesh(vertices, faces)).volume == pytest.approx(as_trimesh(lung.mesh).volume)


def test_every_format_of_every_segment_is_written(segments: list[ColouredMesh], tmp_path: Path) -> None:
    """In a fixed order, each with a media type; the archive holds all of them but itself."""
    paths = write_meshes(segments, tuple(MeshFormat), tmp_path / "new", {"segments": {"bones": {"volume_ml": 1.5}}})
    names = [path.name for path in paths]
    assert names == [
        *(f"{name}.{ending}" for name in ("lung_right", "bones") for ending in ("stl", "ply", "obj", "mz3")),
        *("materials.mtl", "scene.glb", "scene-web.glb", "meshes.json", "meshes.zip"),
    ]
    assert all(path.suffix in MEDIA_TYPES for path in paths)
    with zipfile.ZipFile(paths[-1]) as archive:
        assert sorted(archive.namelist()) == sorted(names[:-1])
        assert archive.testzip() is None
        stored = {entry.filename for entry in archive.infolist() if entry.compress_type == zipfile.ZIP_STORED}
    assert stored == {"scene-web.glb", "lung_right.mz3", "bones.mz3"}
    assert json.loads((tmp_path / "new" / "meshes.json").read_bytes()) == {"segments": {"bones": {"volume_ml": 1.5}}}


def test_the_same_meshes_give_the_same_bytes(segments: list[ColouredMesh], tmp_path: Path) -> None:
    """Every file, the archive too."""
    one, two = (write_meshes(segments, tuple(MeshFormat), tmp_path / name, {"a": 1}) for name in ("one", "two"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_a_large_mesh_is_written_by_parts(tmp_path: Path) -> None:
    """A ball of more triangles than a block takes reads back whole."""
    mesh = ball(100, subdivisions=7)
    assert len(mesh.faces) > 1 << 18
    write_stl(mesh, tmp_path / "a.stl")
    read = trimesh.load_mesh(tmp_path / "a.stl", process=False)
    np.testing.assert_array_equal(read.triangles, mesh.vertices[mesh.faces])


def test_vertex_normals_are_unit_and_outward(segments: list[ColouredMesh]) -> None:
    """On a convex body they point away from the middle."""
    mesh = segments[0].mesh
    normals = vertex_normals(mesh)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    outward = mesh.vertices - mesh.vertices.mean(axis=0)
    assert (np.einsum("ij,ij->i", outward, normals) > 0).all()
