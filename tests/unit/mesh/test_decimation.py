"""Decimation keeps shape, closure and every part."""

from __future__ import annotations

import numpy as np
import pytest

from unit.mesh.shapes import affine, as_trimesh, assert_closed_manifold, ellipsoid, meshes_of
from voxelmill_mesh.decimation import decimate
from voxelmill_mesh.quality import MESH_QUALITY, MeshQuality, target_triangles
from voxelmill_shared.plan import Quality


@pytest.mark.parametrize("reduction", [0.5, 0.9, 0.97])
def test_a_decimated_sphere_is_still_that_sphere(reduction: float) -> None:
    """The wanted number of triangles, the volume within 1.5 %, no point far from the sphere."""
    whole = meshes_of(ellipsoid((24.4, 24.4, 24.4)))[1]
    target = round(len(whole.faces) * (1 - reduction))
    mesh = decimate(whole, target)
    assert target - 2 <= len(mesh.faces) <= target
    assert_closed_manifold(mesh)
    assert as_trimesh(mesh).volume == pytest.approx(4 / 3 * np.pi * 24.4**3, rel=0.015)
    distance = np.linalg.norm(mesh.vertices - 27.0, axis=1)
    assert abs(distance - 24.4).max() < 0.8


def test_every_part_of_a_label_survives() -> None:
    """Small islands beside a large part are not lost, however few triangles are asked for."""
    labels = np.zeros((30, 30, 60), np.uint8)
    labels[2:28, 2:28, 2:28] = 1
    for x in range(32, 58, 4):
        labels[10:12, 10:12, x : x + 2] = 1
    whole = meshes_of(labels)[1]
    mesh = decimate(whole, 4)
    assert as_trimesh(mesh).body_count == 8
    assert_closed_manifold(mesh)
    assert len(mesh.faces) < 200


def test_a_handle_survives() -> None:
    """A ring stays a ring: Euler characteristic 0."""
    labels = np.zeros((9, 24, 24), np.uint8)
    labels[3:6, 3:21, 3:21] = 1
    labels[3:6, 9:15, 9:15] = 0
    whole = meshes_of(labels)[1]
    assert as_trimesh(whole).euler_number == 0
    mesh = decimate(whole, 60)
    assert as_trimesh(mesh).euler_number == 0
    assert_closed_manifold(mesh)


def test_it_stays_in_the_bounding_box() -> None:
    """Optimal places may lie outside the surface, never outside its box."""
    whole = meshes_of(
        ellipsoid((9, 9, 9), margin=0), affine((0.7, 0, 0), (0, 0.7, 0), (0, 0, 2), origin=(500, 0, -900))
    )[1]
    mesh = decimate(whole, len(whole.faces) // 20)
    assert (mesh.vertices.min(axis=0) >= whole.vertices.min(axis=0) - 1e-4).all()
    assert (mesh.vertices.max(axis=0) <= whole.vertices.max(axis=0) + 1e-4).all()


def test_a_mesh_at_its_target_is_returned_as_it_is() -> None:
    """Nothing to do gives the same object."""
    whole = meshes_of(ellipsoid((4, 4, 4)))[1]
    assert decimate(whole, len(whole.faces)) is whole


def test_the_given_mesh_is_not_changed() -> None:
    """Decimation works on copies."""
    whole = meshes_of(ellipsoid((6, 6, 6)))[1]
    vertices, faces = whole.vertices.copy(), whole.faces.copy()
    decimate(whole, 50)
    np.testing.assert_array_equal(whole.vertices, vertices)
    np.testing.assert_array_equal(whole.faces, faces)


@pytest.mark.parametrize(
    ("triangles", "percent", "expected"), [(100_000, 90, 10_000), (5_000, 90, 2_000), (900, 90, 900), (5_000, 0, 5_000)]
)
def test_targets_keep_small_organs(triangles: int, percent: int, expected: int) -> None:
    """`reduction_percent` rules, but no segment goes below the least number, and none gets more than it has."""
    assert target_triangles(triangles, percent, MeshQuality(12, 2_000)) == expected


def test_every_quality_is_in_the_table() -> None:
    """Better quality smooths more and keeps more."""
    rows = [MESH_QUALITY[quality] for quality in (Quality.FAST, Quality.NORMAL, Quality.HIGH)]
    assert set(MESH_QUALITY) == set(Quality)
    assert [row.smoothing_iterations for row in rows] == sorted({row.smoothing_iterations for row in rows})
    assert [row.least_triangles for row in rows] == sorted({row.least_triangles for row in rows})
