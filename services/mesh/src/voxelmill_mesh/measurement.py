"""Measures of a mesh: volume, area, topology, extent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from voxelmill_mesh.surface import Mesh


@dataclass(frozen=True, slots=True)
class MeshMeasures:
    """What is measured on a mesh.

    Attributes
    ----------
    triangles, vertices
        Counts.
    volume_ml
        The enclosed volume by the divergence theorem, millilitres; positive if the faces look outwards.
    area_mm2
        The area of the surface, square millimetres.
    watertight
        Whether every edge has exactly two faces, which run along it in opposite directions.
    euler_characteristic
        Vertices - edges + faces: 2 for each closed part, less 2 for each handle.
    centroid_lps_mm
        The centre of mass of what is enclosed, patient millimetres.
    bounding_box_lps_mm
        Lowest and highest corner, patient millimetres.
    """

    triangles: int
    vertices: int
    volume_ml: float
    area_mm2: float
    watertight: bool
    euler_characteristic: int
    centroid_lps_mm: tuple[float, ...]
    bounding_box_lps_mm: tuple[tuple[float, ...], tuple[float, ...]]


def significant(value: float) -> float:
    """Return a value to nine significant digits: decimals would leave nothing of what is small."""
    return float(f"{value:.9g}")


def _count_edges(mesh: Mesh) -> tuple[int, bool]:
    """Return the number of edges, and whether each has exactly two faces that run along it in opposite directions."""
    first = mesh.faces.astype(np.int64).ravel()
    last = np.roll(mesh.faces, -1, axis=1).astype(np.int64).ravel()
    base = len(mesh.vertices)
    along = np.sort(first * base + last)
    against = np.sort(last * base + first)
    if (np.diff(along) > 0).all() and (along == against).all():
        return len(along) // 2, True
    return len(np.unique(np.minimum(first, last) * base + np.maximum(first, last))), False


def measure(mesh: Mesh) -> MeshMeasures:
    """Measure a mesh that has at least one face."""
    edges, watertight = _count_edges(mesh)
    low = mesh.vertices.min(axis=0)
    high = mesh.vertices.max(axis=0)
    # About the middle of the box: far from the origin the terms of the sum would be large and cancel.
    middle = (low.astype(np.float64) + high) / 2
    corners = (mesh.vertices - middle)[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    cones = np.einsum("ij,ij->i", corners[:, 0], normals) / 6  # from the middle to each face
    volume = cones.sum()
    centroid = middle + (cones @ corners.sum(axis=1) / 4 / volume if volume else 0)
    area = np.linalg.norm(normals, axis=1).sum() / 2
    return MeshMeasures(
        triangles=len(mesh.faces),
        vertices=len(mesh.vertices),
        volume_ml=significant(float(volume) / 1000),
        area_mm2=significant(float(area)),
        watertight=watertight,
        euler_characteristic=len(mesh.vertices) - edges + len(mesh.faces),
        centroid_lps_mm=_millimetres(centroid),
        bounding_box_lps_mm=(_millimetres(low), _millimetres(high)),
    )


def _millimetres(point: NDArray[np.floating[Any]]) -> tuple[float, ...]:
    return tuple(round(float(value), 3) for value in point)
