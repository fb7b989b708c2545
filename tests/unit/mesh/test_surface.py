"""From a label map to closed surfaces in patient millimetres."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from unit.mesh.shapes import (
    IDENTITY,
    affine,
    as_trimesh,
    assert_closed_manifold,
    ellipsoid,
    made_of,
    meshes_of,
    with_margin,
)
from voxelmill_mesh.complexes import transform
from voxelmill_mesh.nets import surface_net
from voxelmill_mesh.smoothing import smooth
from voxelmill_mesh.surface import index_sides

if TYPE_CHECKING:
    from numpy.typing import NDArray

AFFINES = {
    "identity": IDENTITY,
    "anisotropic": affine((0.7, 0, 0), (0, 0.7, 0), (0, 0, 2.5), origin=(-180, -170, -600)),
    "sheared": affine((0.5, 0, 0), (0, 0.5, 0), (0, 0.8, 2.4), origin=(10, 20, 30)),
    "mirrored": affine((-0.7, 0, 0), (0, 0.7, 0), (0, 0, 2)),
    "oblique": affine((0.6, 0.3, 0.1), (-0.3, 0.6, 0.2), (0.1, -0.2, 1.5)),
}


@pytest.mark.parametrize("name", AFFINES)
def test_an_ellipsoid_has_its_volume_whatever_the_affine(name: str) -> None:
    """The analytic volume within 1 %, and positive."""
    radii = (9.3, 14.2, 17.6)
    mesh = meshes_of(ellipsoid(radii), AFFINES[name])[1]
    expected = 4 / 3 * np.pi * np.prod(radii) * abs(np.linalg.det(AFFINES[name][:3, :3]))
    assert as_trimesh(mesh).volume == pytest.approx(expected, rel=0.01)
    assert_closed_manifold(mesh)


def test_a_sphere_has_its_area_and_no_stairs() -> None:
    """The area is the analytic one within 3 % (stairs add half), the faces lie within 10 degrees on average."""
    radius = 20.3
    stairs = as_trimesh(meshes_of(ellipsoid((radius,) * 3), iterations=0)[1])
    judged = as_trimesh(meshes_of(ellipsoid((radius,) * 3))[1])
    assert stairs.area > 1.4 * judged.area
    assert judged.area == pytest.approx(4 * np.pi * radius**2, rel=0.03)
    radial = judged.triangles_center - judged.center_mass
    radial /= np.linalg.norm(radial, axis=1, keepdims=True)
    angles = np.arccos(np.clip(np.einsum("ij,ij->i", radial, judged.face_normals), -1, 1))
    assert np.rad2deg(np.average(angles, weights=judged.area_faces)) < 10


def test_without_smoothing_the_surface_is_that_of_the_voxels() -> None:
    """The net itself encloses exactly the voxels: a box of 3 x 4 x 5 at its outer faces."""
    labels = np.zeros((8, 9, 10), np.uint8)
    labels[2:5, 3:7, 4:9] = 1
    mesh = meshes_of(labels, iterations=0)[1]
    judged = as_trimesh(mesh)
    assert judged.volume == pytest.approx(60)
    assert judged.area == pytest.approx(2 * (12 + 15 + 20))
    np.testing.assert_allclose(judged.bounds, [[3.5, 2.5, 1.5], [8.5, 6.5, 4.5]])


def test_a_label_that_fills_the_volume_is_closed_at_the_border_and_stays_within() -> None:
    """Every voxel is labelled: the surface is closed and on the outer faces of the voxels, not beyond them."""
    matrix = affine((1, 0, 0), (0, 1, 0), (0, 0, 3), origin=(5, 6, 7))
    mesh = made_of(np.ones((4, 6, 8), np.uint8), matrix, reduction_percent=0)[1].mesh
    assert_closed_manifold(mesh)
    assert (mesh.vertices.min(axis=0) >= np.array([4.5, 5.5, 5.5]) - 1e-4).all()
    assert (mesh.vertices.max(axis=0) <= np.array([12.5, 11.5, 17.5]) + 1e-4).all()
    assert as_trimesh(mesh).volume == pytest.approx(4 * 6 * 8 * 3, rel=0.1)


def test_neighbours_share_their_boundary_without_a_gap() -> None:
    """Two labels that touch have the very same triangles between them, the other way round."""
    labels = ellipsoid((9.5, 9.5, 9.5))
    labels[:, :, 13:] *= 2
    meshes = meshes_of(labels)
    corners = {label: mesh.vertices[mesh.faces] for label, mesh in meshes.items()}

    def oriented(triangles: NDArray[np.float32]) -> set[bytes]:
        """Each triangle with its lowest corner first, so that only the winding tells two of them apart."""
        first = np.array([min(range(3), key=lambda k: tuple(triangle[k])) for triangle in triangles])
        turned = triangles[np.arange(len(triangles))[:, None], (first[:, None] + np.arange(3)) % 3]
        return {triangle.tobytes() for triangle in np.ascontiguousarray(turned)}

    shared = oriented(corners[1][:, ::-1]) & oriented(corners[2])
    net = surface_net(with_margin(labels))
    between = int(((net.sides == (1, 2)) | (net.sides == (2, 1))).all(axis=1).sum())
    assert between > 100
    assert len(shared) == 2 * between
    total = sum(as_trimesh(mesh).volume for mesh in meshes.values())
    whole = as_trimesh(meshes_of((labels > 0).astype(np.uint8))[1]).volume
    assert total == pytest.approx(whole, rel=0.02)


def test_smoothing_keeps_each_vertex_in_its_cell() -> None:
    """No vertex leaves the cell between eight voxel centres, and where three labels meet the curve stays closed."""
    rng = np.random.default_rng(7)
    net = surface_net(with_margin(rng.integers(0, 4, (9, 10, 11)).astype(np.uint8)))
    moved = smooth(net, 30)
    assert np.abs(moved - net.vertices).max() <= 0.4901
    assert np.abs(moved - net.vertices).max() > 0.1


def test_smoothing_is_the_same_on_any_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The result does not depend on how the vertices are dealt out."""
    net = surface_net(with_margin(ellipsoid((8, 9, 10))))
    monkeypatch.setattr("voxelmill_mesh.smoothing.WORKERS", 1)
    alone = smooth(net, 5)
    monkeypatch.setattr("voxelmill_mesh.smoothing.WORKERS", 7)
    np.testing.assert_array_equal(smooth(net, 5), alone)


def test_sixteen_bit_labels_work_as_eight_bit_ones() -> None:
    """Labels above 255 give the same surface."""
    labels = ellipsoid((5, 6, 7))
    small = meshes_of(labels)[1]
    large = meshes_of(labels.astype(np.uint16) * 300)[300]
    np.testing.assert_array_equal(small.vertices, large.vertices)
    np.testing.assert_array_equal(small.faces, large.faces)


def test_a_label_without_voxels_has_no_quads() -> None:
    """Label 2 of 1 to 3 is missing: its list of quads is empty and the others' are whole."""
    labels = ellipsoid((4, 4, 4)) * 3
    labels[0, 0, 0] = 1
    sides = index_sides(surface_net(with_margin(labels)).sides, 4)
    assert len(sides.faces_of(2)) == 0
    assert len(sides.faces_of(1)) == 6


def test_positions_follow_the_affine() -> None:
    """(column, row, slice) times the affine, in that order."""
    matrix = affine((2, 0, 0), (0, 3, 0), (0, 1, 5), origin=(10, 20, 30))
    points = transform(np.array([[1, 2, 3]], np.float32), matrix, np.zeros(3))
    np.testing.assert_allclose(points, [[12, 29, 45]])
