"""Shapes as label maps, and the way from a label map to meshes, for the tests of the mesh service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import trimesh

from voxelmill_mesh.clusters import merge_blocks
from voxelmill_mesh.complexes import make_complex
from voxelmill_mesh.decimation import decimate
from voxelmill_mesh.label_map import LabelMap, renumber, survey
from voxelmill_mesh.meshing import LabelMesh, make_meshes
from voxelmill_mesh.nets import surface_net
from voxelmill_mesh.smoothing import smooth
from voxelmill_mesh.surface import Mesh, index_sides, label_surface
from voxelmill_shared.plan import Plan
from voxelmill_shared.work import StepClock

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from voxelmill_mesh.complexes import Complex

IDENTITY = np.eye(4)


def affine(*columns: tuple[float, float, float], origin: tuple[float, float, float] = (0, 0, 0)) -> NDArray[np.float64]:
    """Return an affine from the steps (mm) of a column, a row and a slice."""
    result = np.eye(4)
    result[:3, :3] = np.array(columns, float).T
    result[:3, 3] = origin
    return result


def ellipsoid(radii: tuple[float, float, float], margin: int = 2) -> NDArray[np.uint8]:
    """Return a label map with an ellipsoid as 1; `radii` in voxels along (slice, row, column)."""
    half = [int(np.ceil(radius)) + margin for radius in radii]
    grids = np.ogrid[tuple(slice(-size, size + 1) for size in half)]
    return (sum((grid / radius) ** 2 for grid, radius in zip(grids, radii, strict=True)) <= 1).astype(np.uint8)


def with_margin(labels: NDArray[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    """Return a label map with the margin that a surface net wants."""
    return np.pad(labels, 1)


def complex_of(
    labels: NDArray[np.unsignedinteger],
    matrix: NDArray[np.float64] = IDENTITY,
    iterations: int = 9,
    coarse: bool = False,
) -> Complex:
    """Return the complex of all labels, not decimated; `coarse` merges vertices in blocks first."""
    padded = with_margin(labels)
    net = surface_net(padded)
    merged, count = np.arange(len(net.vertices), dtype=np.int32), len(net.vertices)
    if coarse:
        merged, count = merge_blocks(padded, net, np.ones(int(labels.max()) + 1, bool))
    return make_complex(smooth(net, iterations), net, merged, count, matrix)


def surfaces_of(whole: Complex, label_count: int) -> dict[int, Mesh]:
    """Return the mesh of each label of a complex."""
    sides = index_sides(whole.sides, label_count)
    vertices = (whole.vertices + whole.origin).astype(np.float32)
    return {
        label: label_surface(vertices, whole.faces, sides.faces_of(label), 0.001)
        for label in range(1, label_count)
        if len(sides.faces_of(label))
    }


def meshes_of(
    labels: NDArray[np.unsignedinteger],
    matrix: NDArray[np.float64] = IDENTITY,
    iterations: int = 9,
    reduction: float = 0.0,
    coarse: bool = False,
) -> dict[int, Mesh]:
    """Return the mesh of each label that has voxels, its volume not mended."""
    whole = complex_of(labels, matrix, iterations, coarse)
    count = int(labels.max()) + 1
    if reduction:
        targets = np.bincount(whole.sides.reshape(-1), minlength=count) * (1 - reduction)
        whole, _ = decimate(whole, np.round(targets).astype(np.int64), 1.0)
    return surfaces_of(whole, count)


def made_of(
    labels: NDArray[np.unsignedinteger], matrix: NDArray[np.float64] = IDENTITY, **plan: Any
) -> dict[int, LabelMesh]:
    """Return what the whole chain makes of each label that has voxels."""
    found = survey(labels)
    numbers = sorted(found.voxels)
    label_map = renumber(LabelMap(labels, matrix), numbers, found.box)
    voxels = np.array([0, *(found.voxels[number] for number in numbers)], np.int64)
    return dict(zip(numbers, make_meshes(label_map, voxels, Plan(**plan), StepClock(lambda _: None)), strict=True))


def as_trimesh(mesh: Mesh, *, merge: bool = False) -> trimesh.Trimesh:
    """Return the mesh for trimesh to judge; `merge` joins vertices at the same place, as a reader of STL must."""
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=merge, validate=False)


def assert_closed_manifold(mesh: Mesh, *, merge: bool = True) -> None:
    """Fail unless the mesh is closed, oriented and a manifold at every edge and vertex."""
    for merged in (False, True) if merge else (False,):
        judged = as_trimesh(mesh, merge=merged)
        assert judged.is_watertight
        assert judged.is_winding_consistent
    judged = as_trimesh(mesh)
    assert len(np.unique(mesh.faces)) == len(mesh.vertices), "a vertex that no face uses"
    assert (np.sort(mesh.faces, axis=1)[:, :2] != np.sort(mesh.faces, axis=1)[:, 1:]).all(), "a degenerate face"
    assert len(np.unique(np.sort(mesh.faces, axis=1), axis=0)) == len(mesh.faces), "the same face twice"
    # Around each vertex the faces form one ring: as many edges end there as faces, and they are connected.
    for vertex, count in enumerate(fan_counts(mesh)):
        assert count == 1, f"{count} fans meet at vertex {vertex}"


def fan_counts(mesh: Mesh) -> NDArray[np.int64]:
    """Return how many separate fans of faces meet at each vertex: components of its faces joined across edges."""
    faces = mesh.faces
    corner_of = {}
    for face, corners in enumerate(faces.tolist()):
        for k, corner in enumerate(corners):
            corner_of.setdefault(frozenset((corner, corners[(k + 1) % 3])), []).append(face)
    parent = np.arange(faces.size)

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    place = [{corner: 3 * face + k for k, corner in enumerate(corners)} for face, corners in enumerate(faces.tolist())]
    for edge, around in corner_of.items():
        for corner in edge:
            for other in around[1:]:
                parent[root(place[other][corner])] = root(place[around[0]][corner])
    counts = np.zeros(len(mesh.vertices), int)
    for item, corner in enumerate(faces.reshape(-1).tolist()):
        counts[corner] += root(item) == item
    return counts
