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
    from voxelmill_mesh.nets import SurfaceNet


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
    """Which quadrilaterals of a net bound which label.

    `order[offsets[l] : offsets[l + 1]]` are those of label l: the quad's number q where the label is its first side,
    ~q where it is its second.
    """

    order: NDArray[np.int32]
    offsets: NDArray[np.int64]

    def quads_of(self, label: int) -> NDArray[np.int32]:
        """Return the quads around a label; none if it has no voxels."""
        return self.order[self.offsets[label] : self.offsets[label + 1]]


@compiled
def _sort_sides(sides: Array, label_count: int) -> tuple[Array, Array]:
    offsets = np.zeros(label_count + 1, np.int64)
    for q in range(sides.shape[0]):
        for side in range(2):
            if sides[q, side]:
                offsets[sides[q, side] + 1] += 1
    offsets = np.cumsum(offsets)
    place = offsets.copy()
    order = np.empty(offsets[label_count], np.int32)
    for q in range(sides.shape[0]):
        for side in range(2):
            label = sides[q, side]
            if label:
                order[place[label]] = ~q if side else q
                place[label] += 1
    return order, offsets


def index_sides(net: SurfaceNet, label_count: int) -> SideIndex:
    """Sort the quads of a net by the labels that they bound; labels are 0 (background) to `label_count` - 1."""
    return SideIndex(*_sort_sides(net.sides, label_count))


@compiled
def _triangulate(vertices: Array, quads: Array, order: Array, flipped: bool) -> tuple[Array, Array]:
    local = np.full(vertices.shape[0], -1, np.int32)
    source = np.empty(min(vertices.shape[0], 4 * order.size), np.int32)
    faces = np.empty((2 * order.size, 3), np.int32)
    count = 0
    corners = np.empty(4, np.int32)
    for i in range(order.size):
        q = order[i]
        second = q < 0
        if second:
            q = ~q
        for k in range(4):
            v = quads[q, 3 - k] if second != flipped else quads[q, k]
            if local[v] < 0:
                local[v] = count
                source[count] = v
                count += 1
            corners[k] = v
        # The shorter diagonal, chosen from the shared positions: both labels of a boundary choose the same.
        first_length = np.float32(0)
        second_length = np.float32(0)
        for axis in range(3):
            first_length += (vertices[corners[0], axis] - vertices[corners[2], axis]) ** 2
            second_length += (vertices[corners[1], axis] - vertices[corners[3], axis]) ** 2
        # Of equals, the one with the lowest vertex: the other label sees the corners in another order.
        lowest = 0
        for k in range(1, 4):
            if corners[k] < corners[lowest]:
                lowest = k
        first_wins = first_length < second_length or (first_length == second_length and lowest % 2 == 0)
        start = 0 if first_wins else 1
        a = local[corners[start]]
        b = local[corners[start + 1]]
        c = local[corners[start + 2]]
        d = local[corners[(start + 3) % 4]]
        faces[2 * i, 0] = a
        faces[2 * i, 1] = b
        faces[2 * i, 2] = c
        faces[2 * i + 1, 0] = a
        faces[2 * i + 1, 1] = c
        faces[2 * i + 1, 2] = d
    return faces, source[:count].copy()


def to_patient(indices: NDArray[np.float32], affine: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return positions in mm from voxel indices (n, 3) (column, row, slice) and an affine (4, 4)."""
    return (indices @ affine[:3, :3].T.astype(np.float32) + affine[:3, 3].astype(np.float32)).astype(np.float32)


def label_surface(
    vertices: NDArray[np.float32], net: SurfaceNet, quads: NDArray[np.int32], affine: NDArray[np.float64]
) -> Mesh:
    """Return the surface of one label as a closed manifold, not yet decimated.

    Parameters
    ----------
    vertices
        (n, 3) float32: the net's vertices, smoothed, in patient millimetres.
    net
        The surface net.
    quads
        The label's quads, from `SideIndex.quads_of`.
    affine
        (4, 4) voxel index (column, row, slice) to millimetres. One that mirrors turns the winding round.
    """
    flipped = bool(np.linalg.det(affine[:3, :3]) < 0)
    faces, source = _triangulate(vertices, net.quads, quads, flipped)
    # Wide enough that files of float32 (0.06 um at 1 m) keep the parts apart, too narrow to be seen.
    gap = 0.01 * float(np.linalg.norm(affine[:3, :3], axis=0).min())
    return Mesh(*make_manifold(vertices[source], faces, gap))
