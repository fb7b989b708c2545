"""Decimation keeps shape, closure and every part."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from mesh_distance import Surface
from unit.mesh.shapes import as_trimesh, assert_closed_manifold, complex_of, ellipsoid, made_of, surfaces_of
from voxelmill_mesh.complexes import Complex
from voxelmill_mesh.decimation import decimate
from voxelmill_mesh.label_map import LabelMap, renumber
from voxelmill_mesh.meshing import make_meshes
from voxelmill_mesh.quality import MESH_QUALITY, MeshQuality, target_triangles
from voxelmill_shared.plan import Plan, Quality
from voxelmill_shared.work import Progress, StepClock

if TYPE_CHECKING:
    from numpy.typing import NDArray


def decimated(whole: Complex, *targets: int, blur: float = 1.0, bound: float | None = None) -> Complex:
    """Decimate each label from 1 on to its target."""
    return decimate(whole, np.array([0, *targets]), blur, bound)[0]


@pytest.mark.parametrize("reduction", [0.5, 0.9, 0.97])
def test_a_decimated_sphere_is_still_that_sphere(reduction: float) -> None:
    """The wanted number of triangles, the volume within 1.5 %, no point far from the sphere."""
    whole = complex_of(ellipsoid((24.4, 24.4, 24.4)))
    target = round(len(whole.faces) * (1 - reduction))
    mesh = surfaces_of(decimated(whole, target), 2)[1]
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
    mesh = surfaces_of(decimated(complex_of(labels), 4, blur=100), 2)[1]
    assert as_trimesh(mesh).body_count == 8
    assert_closed_manifold(mesh)
    assert len(mesh.faces) < 200


def test_a_handle_survives() -> None:
    """A ring stays a ring: Euler characteristic 0."""
    labels = np.zeros((9, 24, 24), np.uint8)
    labels[3:6, 3:21, 3:21] = 1
    labels[3:6, 9:15, 9:15] = 0
    whole = complex_of(labels)
    assert as_trimesh(surfaces_of(whole, 2)[1]).euler_number == 0
    mesh = surfaces_of(decimated(whole, 60, blur=100), 2)[1]
    assert as_trimesh(mesh).euler_number == 0
    assert_closed_manifold(mesh)


def test_neighbours_are_decimated_together() -> None:
    """Three labels and background that meet in curves: after nine tenths are gone their boundaries are still the same.

    Each triangle belongs to two labels or to one and the background, so together they enclose their sum exactly.
    """
    labels = ellipsoid((17, 18, 19))
    labels[:, :, 20:] *= 2
    labels[:, 24:, :] *= 2
    labels = np.minimum(labels, 3).astype(np.uint8)
    whole = complex_of(labels)
    targets = np.bincount(whole.sides.reshape(-1), minlength=4) // 10
    left = decimated(whole, *targets[1:])
    assert (np.bincount(left.sides.reshape(-1), minlength=4)[1:] <= 1.02 * targets[1:]).all()
    meshes = surfaces_of(left, 4)
    for mesh in meshes.values():
        assert_closed_manifold(mesh)
    outside = Complex(
        *(getattr(left, name) for name in ("vertices", "faces")),
        np.minimum(left.sides, 1),
        left.kinds,
        left.quadrics,
        left.origin,
    )
    shell = outside.sides[:, 0] != outside.sides[:, 1]
    corners = outside.vertices[outside.faces[shell]]
    volume = -np.einsum("ij,ij->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
    assert sum(as_trimesh(mesh).volume for mesh in meshes.values()) == pytest.approx(volume, rel=1e-5)


def test_no_vertex_goes_further_than_the_bound() -> None:
    """With a bound fewer triangles go, and no vertex of the smooth surface is further from the mesh than it."""
    labels = ellipsoid((14, 15, 16))
    labels[:, :, 20:] *= 2
    bound = 0.1
    smooth = surfaces_of(complex_of(labels, iterations=MESH_QUALITY[Quality.FAST].smoothing_iterations), 3)
    held = made_of(labels, reduction_percent=98, quality="fast", max_error_mm=bound)
    free = made_of(labels, reduction_percent=98, quality="fast")
    for label, whole in smooth.items():
        assert len(free[label].mesh.faces) < len(held[label].mesh.faces) < 0.6 * len(whole.faces)
        far = {}
        for name, made in (("free", free[label]), ("held", held[label])):
            judge = Surface(made.mesh.vertices, made.mesh.faces)
            far[name] = judge.distance(whole.vertices.astype(np.float64)).max()
        assert far["held"] <= held[label].deviation_mm + 1e-4 <= bound + 1e-4
        assert far["free"] > bound


def cells(count: int, size: int = 34) -> NDArray[np.uint8]:
    """Return a ball that is parted into the cells of some points: every label has neighbours all around."""
    random = np.random.default_rng(3)
    grid = np.stack(np.meshgrid(*[np.arange(size)] * 3, indexing="ij"), axis=-1)
    points = random.uniform(size * 0.2, size * 0.8, (count, 3))
    nearest = ((grid[..., None, :] - points) ** 2).sum(axis=-1).argmin(axis=-1)
    inside = ((grid - (size - 1) / 2) ** 2).sum(axis=-1) <= (size / 2 - 3) ** 2
    return np.where(inside, nearest + 1, 0).astype(np.uint8)


def test_the_bound_holds_for_each_label_by_itself_there_and_back() -> None:
    """A neighbour's surface does not count as one's own, and the mesh may not bulge out either.

    The judge is the benchmark's search for nearest points, which shares nothing with the service's.
    """
    labels = cells(9)
    bound = 0.3
    whole = surfaces_of(complex_of(labels, iterations=MESH_QUALITY[Quality.FAST].smoothing_iterations), 10)
    told: list[int] = []

    def report(progress: Progress | str) -> None:
        if isinstance(progress, Progress) and progress.step == "decimate":
            told.append(progress.done)

    label_map = renumber(LabelMap(labels, np.eye(4)), range(1, 10))
    voxels = np.bincount(labels.reshape(-1), minlength=10)
    quality = replace(MESH_QUALITY[Quality.FAST], least_triangles=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MESH_QUALITY, Quality.FAST, quality)
        plan = Plan(reduction_percent=98, quality="fast", max_error_mm=bound)
        made = make_meshes(label_map, voxels, plan, StepClock(report))
    assert sum(len(each.mesh.faces) for each in made) < 0.5 * sum(len(mesh.faces) for mesh in whole.values())
    for label, each in enumerate(made, 1):
        for one, other in ((each.mesh, whole[label]), (whole[label], each.mesh)):
            points = np.concatenate([one.vertices, one.vertices[one.faces].mean(axis=1)])
            far = Surface(other.vertices, other.faces).distance(points.astype(np.float64)).max()
            assert far <= each.deviation_mm + 0.011  # parts that touch are moved a hundredth of a voxel apart
        assert each.deviation_mm <= bound
    assert told == sorted(told)


def test_thin_tips_stay() -> None:
    """A needle beside a large ball keeps its length: its tip has next to no area, but it is far from the rest."""
    labels = np.zeros((30, 30, 70), np.uint8)
    ball = ellipsoid((12, 12, 12))
    labels[: ball.shape[0], : ball.shape[1], : ball.shape[2]] = ball
    labels[14:16, 14:16, 25:65] = 1
    whole = complex_of(labels)
    tip = whole.vertices[:, 0].max()
    left = decimated(whole, len(whole.faces) // 20, blur=0.25)
    assert left.vertices[:, 0].max() > tip - 1.5


def test_blocks_are_merged_where_nothing_is_lost() -> None:
    """A ball has far fewer vertices, still one closed surface near the voxels'; noise stays as it is and is closed."""
    ball = ellipsoid((20.5, 20.5, 20.5))
    fine, coarse = complex_of(ball), complex_of(ball, coarse=True)
    assert len(coarse.vertices) < 0.35 * len(fine.vertices)
    mesh = surfaces_of(coarse, 2)[1]
    assert_closed_manifold(mesh)
    assert as_trimesh(mesh).euler_number == 2
    assert abs(np.linalg.norm(mesh.vertices - 23.0, axis=1) - 20.5).max() < 0.6
    noise = np.random.default_rng(3).integers(0, 4, (9, 9, 9)).astype(np.uint8)
    for mesh in surfaces_of(complex_of(noise, coarse=True), 4).values():
        assert_closed_manifold(mesh, merge=False)


def test_the_given_complex_is_not_changed() -> None:
    """Decimation works on copies."""
    whole = complex_of(ellipsoid((6, 6, 6)))
    vertices, faces = whole.vertices.copy(), whole.faces.copy()
    decimated(whole, 50)
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
