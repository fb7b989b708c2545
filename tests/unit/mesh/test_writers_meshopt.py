"""Packed streams: a reader written by the extension's text gets back what was packed."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from unit.mesh.meshopt_reader import read_attributes, read_triangles, unfold
from unit.mesh.solids import ball, mesh_of
from voxelmill_mesh.writers.meshopt import encode_attributes, encode_triangles, octahedral
from voxelmill_mesh.writers.ordering import walk


def turned(faces: np.ndarray) -> np.ndarray:
    """Turn each face so that its lowest corner is first; the winding stays."""
    first = faces.argmin(axis=1)[:, None]
    return np.take_along_axis(faces, (first + np.arange(3)) % 3, axis=1)


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 600),
    stride=st.sampled_from([4, 8, 12, 64]),
    spread=st.sampled_from([0, 1, 2, 8, 128]),
    seed=st.integers(0, 1 << 16),
)
def test_attributes_read_back(count: int, stride: int, spread: int, seed: int) -> None:
    """Whatever the length of the last block, and whether differences are nothing, small or anything at all."""
    steps = np.random.default_rng(seed).integers(-spread, spread + 1, (count, stride))
    rows = np.cumsum(steps, axis=0).astype(np.uint8)
    stream = encode_attributes(rows).tobytes()
    np.testing.assert_array_equal(read_attributes(stream, count, stride), rows)


def test_attributes_of_slow_changes_are_short() -> None:
    """A column that does not change takes two bits for 16 vertices."""
    assert len(encode_attributes(np.full((256, 4), 7, np.uint8))) == 1 + 4 * 4 + 32
    rough = np.random.default_rng(1).integers(0, 256, (256, 4)).astype(np.uint8)
    assert len(encode_attributes(rough)) <= 1 + 4 * (4 + 256) + 32


@pytest.mark.parametrize("shape", [(0, 4), (3, 6), (3, 260)])
def test_what_cannot_be_packed_is_refused(shape: tuple[int, int]) -> None:
    """No vertex, or one whose size the extension does not allow."""
    with pytest.raises(ValueError, match="cannot be packed"):
        encode_attributes(np.zeros(shape, np.uint8))


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 200), vertices=st.sampled_from([3, 5, 40, 100_000]), seed=st.integers(0, 1 << 16))
def test_any_triangles_read_back(count: int, vertices: int, seed: int) -> None:
    """In no order at all, whatever they share; corners may be turned, the winding stays."""
    random = np.random.default_rng(seed)
    faces = np.array([random.choice(vertices, 3, replace=False) for _ in range(count)], np.int32)
    stream = encode_triangles(faces).tobytes()
    np.testing.assert_array_equal(turned(read_triangles(stream, count)), turned(faces))


@pytest.mark.parametrize(
    "mesh",
    [
        ball(10, subdivisions=4),
        mesh_of(trimesh.util.concatenate([trimesh.creation.torus(9, 3), trimesh.creation.box((1, 2, 3))])),
        mesh_of(trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]])),
        mesh_of(
            trimesh.Trimesh([[i % 3, i // 3, i] for i in range(5)], [[0, 1, 2], [0, 1, 3], [1, 0, 4]], process=False)
        ),
    ],
    ids=["ball", "two parts", "one triangle", "three faces at an edge"],
)
def test_a_walked_surface_is_the_same_surface_in_few_bytes(mesh) -> None:
    """Every face once, its corners at the same places; a closed surface takes about a byte for each triangle."""
    faces, source = walk(mesh.faces, len(mesh.vertices))
    assert sorted(map(tuple, turned(source[faces]).tolist())) == sorted(map(tuple, turned(mesh.faces).tolist()))
    first = np.unique(faces, return_index=True)[1]
    assert (np.diff(first) > 0).all(), "vertices are numbered as they are met"
    stream = encode_triangles(faces).tobytes()
    np.testing.assert_array_equal(turned(read_triangles(stream, len(faces))), turned(faces))
    assert len(stream) < 17 + 4 + 1.35 * len(faces)


def test_a_vertex_that_no_face_uses_is_left_out() -> None:
    """The walk never meets it."""
    faces, source = walk(np.array([[5, 1, 3]], np.int32), 9)
    assert faces.tolist() == [[0, 1, 2]]
    assert sorted(source.tolist()) == [1, 3, 5]


def test_octahedral_normals_point_where_they_did() -> None:
    """Within a degree, in all octants and along the axes."""
    random = np.random.default_rng(3).normal(size=(2000, 3))
    vectors = np.concatenate([random, np.eye(3), -np.eye(3)])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    packed = octahedral(vectors.astype(np.float32))
    assert (packed[:, 2] == 127).all()
    assert not packed[:, 3].any()
    assert (np.einsum("ij,ij->i", unfold(packed.astype(float)), vectors) > np.cos(np.deg2rad(1))).all()
