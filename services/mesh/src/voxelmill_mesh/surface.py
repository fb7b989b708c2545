"""The surface of each label: closed, oriented, in patient millimetres."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from voxelmill_mesh.compiled import compiled
from voxelmill_mesh.manifold import make_manifold

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from voxelmill_mesh.compiled import Array


@dataclass(frozen=True, slots=True)
class Mesh:
    """A triangle mesh in the patient's LPS system.

    Attributes
    ----------
    vertices
        (n, 3) float32, millimetres.
    faces
        (m, 3) int32, anticlockwise as seen from outside.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class SideIndex:
    """Which faces of a complex bound which label.

    `order[offsets[l] : offsets[l + 1]]` are those of label l: the face's number f where the label is its first side,
    ~f where it is its second.
    """

    order: NDArray[np.int32]
    offsets: NDArray[np.int64]

    def faces_of(self, label: int) -> NDArray[np.int32]:
        """Return the faces around a label; none if it has no voxels."""
        return self.order[self.offsets[label] : self.offsets[label + 1]]


@compiled
def _count_sides(sides: Array, counts: Array) -> None:
    for f in range(sides.shape[0]):
        counts[sides[f, 0]] += 1
        counts[sides[f, 1]] += 1


def count_sides(sides: NDArray[np.unsignedinteger], label_count: int) -> NDArray[np.int64]:
    """Return how many of some faces bound each label, from 0 (background) on."""
    counts = np.zeros(label_count, np.int64)
    _count_sides(sides, counts)
    return counts


@compiled
def _sort_sides(sides: Array, label_count: int) -> tuple[Array, Array]:
    offsets = np.zeros(label_count + 1, np.int64)
    for f in range(sides.shape[0]):
        for side in range(2):
            if sides[f, side]:
                offsets[sides[f, side] + 1] += 1
    offsets = np.cumsum(offsets)
    place = offsets.copy()
    order = np.empty(offsets[label_count], np.int32)
    for f in range(sides.shape[0]):
        for side in range(2):
            label = sides[f, side]
            if label:
                order[place[label]] = ~f if side else f
                place[label] += 1
    return order, offsets


def index_sides(sides: NDArray[np.unsignedinteger], label_count: int) -> SideIndex:
    """Sort faces by the labels that they bound; labels are 0 (background) to `label_count` - 1.

    Parameters
    ----------
    sides
        (m, 2) the labels on both sides of each face.
    label_count
        One more than the highest label.
    """
    return SideIndex(*_sort_sides(sides, label_count))


@compiled
def _gather(vertices: Array, faces: Array, order: Array) -> tuple[Array, Array]:
    """Return the vertices and faces of one label, its faces seen from outside, in their order."""
    own = np.empty((order.size, 3), np.int32)
    low = vertices.shape[0]
    high = -1
    for i in range(order.size):
        f = order[i]
        second = f < 0
        if second:
            f = ~f
        own[i, 0] = faces[f, 0]
        own[i, 1] = faces[f, 2] if second else faces[f, 1]
        own[i, 2] = faces[f, 1] if second else faces[f, 2]
        for k in range(3):
            low = min(low, own[i, k])
            high = max(high, own[i, k])
    # A label's vertices lie together, so a table from its first to its last is a small one.
    local = np.full(max(high - low + 1, 0), -1, np.int32)
    placed = np.empty((3 * order.size, 3), np.float32)
    count = 0
    for i in range(order.size):
        for k in range(3):
            v = own[i, k]
            if local[v - low] < 0:
                local[v - low] = count
                for axis in range(3):
                    placed[count, axis] = vertices[v, axis]
                count += 1
            own[i, k] = local[v - low]
    return placed[:count].copy(), own


def label_surface(
    vertices: NDArray[np.float32], faces: NDArray[np.int32], order: NDArray[np.int32], gap: float
) -> Mesh:
    """Return the surface of one label as a closed manifold.

    Parameters
    ----------
    vertices
        (n, 3) float32: the complex's vertices, patient millimetres.
    faces
        (m, 3) int32: the complex's faces.
    order
        The label's faces, from `SideIndex.faces_of`.
    gap
        How far parts of the label that touch at an edge or a corner are moved apart, millimetres.
    """
    return Mesh(*make_manifold(*_gather(vertices, faces, order), gap))
