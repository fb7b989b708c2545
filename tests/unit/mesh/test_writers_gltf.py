"""The scenes: what glTF 2.0 asks for, in its place, and the same packed as unpacked."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import trimesh

from unit.mesh.meshopt_reader import read_attributes, read_triangles, unfold
from unit.mesh.solids import as_trimesh, mesh_of, pair
from voxelmill_mesh.normals import vertex_normals
from voxelmill_mesh.surface import Mesh
from voxelmill_mesh.writers.gltf import LPS_TO_SCENE, lattice_step, linear, write_glb, write_web_glb
from voxelmill_mesh.writers.segment import ColouredMesh

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray


@pytest.fixture(scope="module")
def segments() -> list[ColouredMesh]:
    """A translucent lung on the patient's right and an opaque bone on the left."""
    return pair()


def in_scene(points: NDArray[np.floating]) -> NDArray[np.floating]:
    """Patient millimetres to the scene's metres, spelled out: right-handed, Y up, anterior towards +Z."""
    return np.column_stack([points[:, 0], points[:, 2], -points[:, 1]]) / 1000


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


def unpacked(path: Path) -> Iterator[tuple[str, NDArray[np.float64], NDArray[np.integer], NDArray[np.float64]]]:
    """Give each segment of a packed scene: name, vertices in mm, faces, normals."""
    document, binary = read_glb(path)
    packed = [view["extensions"]["EXT_meshopt_compression"] for view in document["bufferViews"]]
    streams = [binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]] for view in packed]
    for node in document["nodes"][:-1]:
        (primitive,) = document["meshes"][node["mesh"]]["primitives"]
        places = [primitive["attributes"]["POSITION"], primitive["attributes"]["NORMAL"], primitive["indices"]]
        positions, normals, indices = (document["accessors"][place]["bufferView"] for place in places)
        rows = read_attributes(streams[positions], packed[positions]["count"], 8)
        lattice = rows.view("<u2").reshape(-1, 4)[:, :3]
        accessor = document["accessors"][places[0]]
        assert [lattice.min(axis=0).tolist(), lattice.max(axis=0).tolist()] == [accessor["min"], accessor["max"]]
        folded = read_attributes(streams[normals], packed[normals]["count"], 4).view(np.int8)
        faces = read_triangles(streams[indices], packed[indices]["count"] // 3)
        yield node["name"], node["translation"] + lattice * np.array(node["scale"]), faces, unfold(folded.astype(float))


def test_the_packed_scene_is_the_scene(segments: list[ColouredMesh], tmp_path: Path) -> None:
    """Unpacked by the extension's text: the same triangles, no vertex farther away than 27 um, normals as they were."""
    write_web_glb(segments, tmp_path / "scene-web.glb")
    given = {segment.name: segment for segment in segments}
    for name, vertices, faces, normals in unpacked(tmp_path / "scene-web.glb"):
        mesh = given.pop(name).mesh
        near = np.abs(vertices[:, None] - mesh.vertices[None].astype(np.float64)).max(axis=2).argmin(axis=1)
        assert sorted(near.tolist()) == list(range(len(mesh.vertices))), "each vertex once"
        assert np.linalg.norm(vertices - mesh.vertices[near], axis=1).max() < 0.0271
        assert (np.einsum("ij,ij->i", normals, vertex_normals(mesh)[near]) > np.cos(np.deg2rad(1.5))).all()
        assert {frozenset(face) for face in near[faces].tolist()} == {frozenset(face) for face in mesh.faces.tolist()}
        assert as_trimesh(Mesh(vertices, faces)).volume == pytest.approx(as_trimesh(mesh).volume, rel=2e-3)
    assert not given


def test_the_packed_scene_is_well_formed(segments: list[ColouredMesh], tmp_path: Path) -> None:
    """The rules of EXT_meshopt_compression: two buffers, the second one for what is not there; aligned, in range."""
    write_web_glb(segments, tmp_path / "scene-web.glb")
    document, binary = read_glb(tmp_path / "scene-web.glb")
    name = "EXT_meshopt_compression"
    assert set(document["extensionsRequired"]) == set(document["extensionsUsed"]) == {name, "KHR_mesh_quantization"}
    stored, fallback = document["buffers"]
    assert stored["byteLength"] == len(binary)
    assert fallback["extensions"] == {name: {"fallback": True}}
    assert "uri" not in fallback
    for view in document["bufferViews"]:
        packed = view["extensions"][name]
        assert (view["buffer"], packed["buffer"]) == (1, 0)
        assert view["byteLength"] == packed["count"] * packed["byteStride"]
        assert view["byteOffset"] % 4 == packed["byteOffset"] % 4 == 0
        assert view["byteOffset"] + view["byteLength"] <= fallback["byteLength"]
        assert packed["byteOffset"] + packed["byteLength"] <= stored["byteLength"]
        if packed["mode"] == "TRIANGLES":
            assert packed["count"] % 3 == 0
            assert packed["byteStride"] in {2, 4}
            assert "filter" not in packed
            assert "byteStride" not in view
        else:
            assert packed["mode"] == "ATTRIBUTES"
            assert packed["byteStride"] == view["byteStride"]
            assert packed.get("filter", "NONE") == ("OCTAHEDRAL" if packed["byteStride"] == 4 else "NONE")
    plain = tmp_path / "scene.glb"
    write_glb(segments, plain)
    assert (tmp_path / "scene-web.glb").stat().st_size < 0.6 * plain.stat().st_size
    assert read_glb(plain)[0]["materials"] == document["materials"]


@pytest.mark.parametrize("write", [write_glb, write_web_glb])
def test_neighbours_share_their_boundary_in_the_scene(write: Callable[..., None], tmp_path: Path) -> None:
    """Two segments that have vertices in common have them at the very same places afterwards."""
    solid = trimesh.creation.icosphere(subdivisions=3, radius=33.3)
    solid.apply_translation((-70.07, 31.013, 812.7))
    upper = solid.triangles_center[:, 2] > 812.7
    halves = [solid.submesh([part], append=True) for part in (upper, ~upper)]
    given = [ColouredMesh(name, (9, 9, 9), 1.0, mesh_of(half)) for name, half in zip("ab", halves, strict=True)]
    first, second = ({tuple(vertex) for vertex in each.mesh.vertices.tolist()} for each in given)
    shared = len(first & second)
    assert shared > 50
    write(given, tmp_path / "scene.glb")
    if write is write_web_glb:
        places = [vertices for _, vertices, _, _ in unpacked(tmp_path / "scene.glb")]
    else:
        scene = trimesh.load_scene(tmp_path / "scene.glb", process=False)
        document, _ = read_glb(tmp_path / "scene.glb")
        places = [
            node["translation"]
            + trimesh.transform_points(scene.geometry[node["name"]].vertices, np.eye(4)) * node["scale"]
            for node in document["nodes"][:-1]
        ]
    first, second = ({tuple(vertex) for vertex in each.tolist()} for each in places)
    assert len(first & second) == shared


@pytest.mark.parametrize(("side", "step"), [(0.001, 2**-10), (60, 2**-10), (400, 2**-7), (511, 2**-7), (513, 2**-6)])
def test_the_lattice_is_as_fine_as_16_bits_allow(side: float, step: float) -> None:
    """A power of two, and no finer than a micrometre."""
    box = mesh_of(trimesh.creation.box((side, 1e-4, side / 2)))
    assert lattice_step([ColouredMesh("a", (1, 2, 3), 1.0, box)]) == step
    assert side / step <= 65_534
