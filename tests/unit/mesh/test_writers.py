"""Mesh files: read back they are the meshes that were written, and the same meshes give the same bytes."""

from __future__ import annotations

import json
import struct
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import trimesh

from unit.mesh.shapes import affine, as_trimesh, ellipsoid, meshes_of
from voxelmill_mesh.normals import vertex_normals
from voxelmill_mesh.surface import Mesh
from voxelmill_mesh.writers.archive import write_zip
from voxelmill_mesh.writers.gltf import LPS_TO_SCENE, linear, write_glb
from voxelmill_mesh.writers.obj import write_materials, write_obj
from voxelmill_mesh.writers.ply import write_ply
from voxelmill_mesh.writers.segment import ColouredMesh, opacity_of
from voxelmill_mesh.writers.stl import write_stl

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

MATRIX = affine((0.8, 0, 0), (0, 0.8, 0), (0, 0, 2.0), origin=(-150.0, -120.0, 400.0))


@pytest.fixture(scope="module")
def segments() -> list[ColouredMesh]:
    """A translucent lung on the patient's right and an opaque bone on the left."""
    labels = np.zeros((24, 30, 60), np.uint8)
    ball = ellipsoid((8, 10, 12), margin=0)
    labels[: ball.shape[0], : ball.shape[1], : ball.shape[2]] = ball
    labels[5:15, 5:15, 40:50] = 2
    meshes = meshes_of(labels, MATRIX, reduction=0.5)
    return [
        ColouredMesh("lung_right", (150, 205, 240), opacity_of("lung_right"), meshes[1]),
        ColouredMesh("bones", (241, 232, 205), opacity_of("bones"), meshes[2]),
    ]


def in_scene(points: NDArray[np.floating]) -> NDArray[np.floating]:
    """Patient millimetres to the scene's metres, spelled out: right-handed, Y up, anterior towards +Z."""
    return np.column_stack([points[:, 0], points[:, 2], -points[:, 1]]) / 1000


def test_stl_read_back_is_the_mesh(segments: list[ColouredMesh], tmp_path: Path) -> None:
    """Same triangles in the same order, normals outwards, closed once vertices are joined."""
    path = tmp_path / "a.stl"
    write_stl(segments[0].mesh, path)
    assert path.stat().st_size == 84 + 50 * len(segments[0].mesh.faces)
    assert not path.read_bytes().startswith(b"solid")
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


def read_glb(path: Path) -> tuple[dict[str, Any], bytes]:
    """Split a GLB into its document and its binary chunk, and check the frame (glTF 2.0, 4.4)."""
    body = path.read_bytes()
    magic, version, length = struct.unpack_from("<III", body)
    assert (magic, version, length) == (0x46546C67, 2, len(body))
    json_length, json_kind = struct.unpack_from("<II", body, 12)
    assert json_kind == 0x4E4F534A
    assert json_length % 4 == 0
    bin_length, bin_kind = struct.unpack_from("<II", body, 20 + json_length)
    assert bin_kind == 0x004E4942
    assert bin_length % 4 == 0
    binary = body[28 + json_length :]
    assert len(binary) == bin_length
    return json.loads(body[20 : 20 + json_length]), binary


def test_glb_is_well_formed(segments: list[ColouredMesh], tmp_path: Path) -> None:
    """Alignment, ranges, counts and the least and greatest position are what glTF 2.0 (3.6) asks for."""
    write_glb(segments, tmp_path / "scene.glb")
    document, binary = read_glb(tmp_path / "scene.glb")
    assert document["asset"]["version"] == "2.0"
    assert document["extensionsRequired"] == ["KHR_mesh_quantization"]
    assert set(document["extensionsRequired"]) <= set(document["extensionsUsed"])
    kinds = {5120: np.int8, 5123: np.uint16, 5125: np.uint32}
    end = 0
    for view in document["bufferViews"]:
        assert view["byteOffset"] % 4 == 0
        assert view["byteOffset"] >= end
        end = view["byteOffset"] + view["byteLength"]
        assert view.get("byteStride", 4) % 4 == 0
    assert end <= document["buffers"][0]["byteLength"] == len(binary)
    arrays = []
    for accessor in document["accessors"]:
        view = document["bufferViews"][accessor["bufferView"]]
        kind = np.dtype(kinds[accessor["componentType"]])
        values = np.frombuffer(binary, kind, view["byteLength"] // kind.itemsize, view["byteOffset"])
        if accessor["type"] == "VEC3":
            values = values.reshape(accessor["count"], view["byteStride"] // kind.itemsize)[:, :3]
        assert len(values) == accessor["count"]
        arrays.append(values)
        if "min" in accessor:
            assert values.min(axis=0).tolist() == accessor["min"]
            assert values.max(axis=0).tolist() == accessor["max"]
    for mesh in document["meshes"]:
        (primitive,) = mesh["primitives"]
        positions, normals = (arrays[primitive["attributes"][name]] for name in ("POSITION", "NORMAL"))
        assert "min" in document["accessors"][primitive["attributes"]["POSITION"]]
        assert len(positions) == len(normals)
        assert arrays[primitive["indices"]].max() == len(positions) - 1
        np.testing.assert_allclose(np.linalg.norm(normals / 127, axis=1), 1, atol=0.02)


def test_glb_read_back_is_the_scene(segments: list[ColouredMesh], tmp_path: Path) -> None:
    """Named segments in metres, Y up, in their places; volumes positive, so nothing is mirrored; left is left."""
    write_glb(segments, tmp_path / "scene.glb")
    scene = trimesh.load_scene(tmp_path / "scene.glb")
    read = {}
    for node in scene.graph.nodes_geometry:
        matrix, name = scene.graph[node]
        mesh = scene.geometry[name].copy()
        assert node == name
        mesh.apply_transform(matrix)
        read[name] = mesh
    assert set(read) == {"lung_right", "bones"}
    for segment in segments:
        mesh = read[segment.name]
        written = segment.mesh
        places = in_scene(written.vertices)
        np.testing.assert_allclose(mesh.bounds, [places.min(axis=0), places.max(axis=0)], atol=1e-6)
        volume = as_trimesh(written).volume
        assert volume > 0
        assert mesh.volume * 1e9 == pytest.approx(volume, rel=2e-3)
    # The bone lies at higher columns, which is the patient's left here: +X in LPS and in the scene.
    assert read["bones"].centroid[0] > read["lung_right"].centroid[0]
    assert read["bones"].bounds[0][1] > 0.3, "the volume starts at 400 mm superior: Y is up"


def test_the_scene_is_turned_and_not_mirrored() -> None:
    """The rotation has determinant +1 (times the scale), and is the one that the test spells out."""
    matrix = np.array(LPS_TO_SCENE)
    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1e-9)
    points = np.array([[1.0, 2.0, 3.0], [-4.0, 5.0, -6.0]])
    np.testing.assert_allclose(points @ matrix[:3, :3].T, in_scene(points))


def test_glb_materials(segments: list[ColouredMesh], tmp_path: Path) -> None:
    """Colours are linear, what is translucent blends and comes after what is opaque."""
    write_glb(segments, tmp_path / "scene.glb")
    document, _ = read_glb(tmp_path / "scene.glb")
    opaque, lung = document["materials"]
    assert (opaque["name"], lung["name"]) == ("bones", "lung_right")
    assert "alphaMode" not in opaque
    assert lung["alphaMode"] == "BLEND"
    np.testing.assert_allclose(
        lung["pbrMetallicRoughness"]["baseColorFactor"], [linear(150), linear(205), linear(240), 0.6], atol=1e-6
    )
    assert linear(0) == 0
    assert linear(255) == 1
    assert linear(188) == pytest.approx(0.503, abs=0.001)


def test_large_meshes_get_wide_indices(tmp_path: Path) -> None:
    """Above 65,535 vertices indices take four bytes, at it two."""
    for count, kind in ((65_535, 5123), (65_536, 5125)):
        vertices = np.random.default_rng(1).random((count, 3)).astype(np.float32)
        faces = np.array([[0, 1, count - 1]], np.int32)
        write_glb([ColouredMesh("a", (1, 2, 3), 1.0, Mesh(vertices, faces))], tmp_path / "a.glb")
        document, _ = read_glb(tmp_path / "a.glb")
        assert document["accessors"][-1]["componentType"] == kind


def test_zip_holds_the_files_and_never_changes(tmp_path: Path) -> None:
    """Sorted, stored, without times: written twice, an hour apart by the files' own times, it is the same."""
    for name in ("b.stl", "a.obj"):
        (tmp_path / name).write_bytes(name.encode() * 1000)
    write_zip([tmp_path / "b.stl", tmp_path / "a.obj"], tmp_path / "one.zip")
    (tmp_path / "a.obj").touch()
    (tmp_path / "b.stl").chmod(0o600)
    write_zip([tmp_path / "a.obj", tmp_path / "b.stl"], tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert archive.namelist() == ["a.obj", "b.stl"]
        assert archive.testzip() is None
        assert archive.read("b.stl") == (tmp_path / "b.stl").read_bytes()


@pytest.mark.parametrize(
    ("name", "opacity"),
    [("skin", 0.15), ("lung_left", 0.6), ("subcutaneous_fat", 0.15), ("bones", 1.0), ("bodywork", 1.0), ("body", 0.15)],
)
def test_opacity_goes_by_the_words_of_a_name(name: str, opacity: float) -> None:
    """Whole words decide, not parts of them."""
    assert opacity_of(name) == opacity


def test_vertex_normals_are_unit_and_outward(segments: list[ColouredMesh]) -> None:
    """On a convex body they point away from the middle."""
    mesh = segments[0].mesh
    normals = vertex_normals(mesh)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    outward = mesh.vertices - mesh.vertices.mean(axis=0)
    assert (np.einsum("ij,ij->i", outward, normals) > 0).all()
