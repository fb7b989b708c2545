"""The exact distance from points to a triangle mesh: the benchmark's own, so that no maker of meshes judges itself.

Triangles are sorted along a Z-order curve; boxes of eight of them, then of two boxes, and so on, make a tree that needs
no pointers. The point of a triangle next to another point is found as in C. Ericson, "Real-Time Collision Detection"
(2005), section 5.1.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import numba
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_LEAF = 8
Array = Any
Point = tuple[float, float, float]
FunctionT = TypeVar("FunctionT", bound="Callable[..., Any]")


def compiled(function: FunctionT) -> FunctionT:
    """Compile a function of numbers and arrays at its first call."""
    return cast("FunctionT", numba.njit(cache=True, nogil=True)(function))


@compiled
def _spread(value: int) -> int:
    """Put two zero bits between the ten lowest bits."""
    value = (value | (value << 16)) & 0x030000FF
    value = (value | (value << 8)) & 0x0300F00F
    value = (value | (value << 4)) & 0x030C30C3
    return (value | (value << 2)) & 0x09249249


@compiled
def _codes(vertices: Array, faces: Array) -> Array:
    low = np.full(3, np.inf)
    high = np.full(3, -np.inf)
    for v in range(vertices.shape[0]):
        for axis in range(3):
            low[axis] = min(low[axis], vertices[v, axis])
            high[axis] = max(high[axis], vertices[v, axis])
    codes = np.empty(faces.shape[0], np.int64)
    for f in range(faces.shape[0]):
        code = 0
        for axis in range(3):
            centre = (vertices[faces[f, 0], axis] + vertices[faces[f, 1], axis] + vertices[faces[f, 2], axis]) / 3
            extent = high[axis] - low[axis]
            code |= _spread(int((centre - low[axis]) / extent * 1023) if extent > 0 else 0) << axis
        codes[f] = code
    return codes


@compiled
def _boxes(vertices: Array, faces: Array, leaves: int) -> Array:
    """Return (2 * leaves, 6) boxes, low then high; node n has the children 2 n and 2 n + 1, the root is 1."""
    boxes = np.empty((2 * leaves, 6), np.float64)
    boxes[:, :3] = np.inf
    boxes[:, 3:] = -np.inf
    for f in range(faces.shape[0]):
        node = leaves + f // _LEAF
        for corner in range(3):
            for axis in range(3):
                value = vertices[faces[f, corner], axis]
                boxes[node, axis] = min(boxes[node, axis], value)
                boxes[node, 3 + axis] = max(boxes[node, 3 + axis], value)
    for node in range(leaves - 1, 0, -1):
        for axis in range(3):
            boxes[node, axis] = min(boxes[2 * node, axis], boxes[2 * node + 1, axis])
            boxes[node, 3 + axis] = max(boxes[2 * node, 3 + axis], boxes[2 * node + 1, 3 + axis])
    return boxes


@compiled
def _box_distance(boxes: Array, node: int, point: Array) -> float:
    """Return the squared distance from a point to a box; infinite if the box is empty."""
    squared = 0.0
    for axis in range(3):
        beyond = max(boxes[node, axis] - point[axis], point[axis] - boxes[node, 3 + axis], 0.0)
        squared += beyond * beyond
    return squared


@compiled
def _corner(vertices: Array, v: int, point: Array) -> Point:
    """Return a vertex as seen from a point."""
    return vertices[v, 0] - point[0], vertices[v, 1] - point[1], vertices[v, 2] - point[2]


@compiled
def _dot(a: Point, b: Point) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@compiled
def _step(a: Point, share: float, b: Point) -> Point:
    """Go a share of the way from a to b."""
    return a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1]), a[2] + share * (b[2] - a[2])


@compiled
def _on_triangle(a: Point, b: Point, c: Point) -> Point:  # noqa: PLR0911 - one return for each region
    """Return the point of a triangle next to the origin."""
    ab = (b[0] - a[0], b[1] - a[1], b[2] - a[2])
    ac = (c[0] - a[0], c[1] - a[1], c[2] - a[2])
    d1, d2 = -_dot(ab, a), -_dot(ac, a)
    if d1 <= 0 and d2 <= 0:
        return a
    d3, d4 = -_dot(ab, b), -_dot(ac, b)
    if d3 >= 0 and d4 <= d3:
        return b
    vc = d1 * d4 - d3 * d2
    if vc <= 0 and d1 >= 0 and d3 <= 0 and d1 != d3:
        return _step(a, d1 / (d1 - d3), b)
    d5, d6 = -_dot(ab, c), -_dot(ac, c)
    if d6 >= 0 and d5 <= d6:
        return c
    vb = d5 * d2 - d1 * d6
    if vb <= 0 and d2 >= 0 and d6 <= 0 and d2 != d6:
        return _step(a, d2 / (d2 - d6), c)
    va = d3 * d6 - d5 * d4
    if va <= 0 and d4 >= d3 and d5 >= d6 and (d4 - d3) + (d5 - d6) > 0:
        return _step(b, (d4 - d3) / ((d4 - d3) + (d5 - d6)), c)
    whole = va + vb + vc
    if whole == 0:
        return a
    v, w = vb / whole, vc / whole
    return a[0] + v * ab[0] + w * ac[0], a[1] + v * ab[1] + w * ac[1], a[2] + v * ab[2] + w * ac[2]


@compiled
def _nearest(points: Array, vertices: Array, faces: Array, boxes: Array, leaves: int) -> Array:
    found = np.empty_like(points)
    stack = np.empty(128, np.int64)
    for i in range(points.shape[0]):
        point = points[i]
        best = np.inf
        depth = 1
        stack[0] = 1
        while depth:
            depth -= 1
            node = stack[depth]
            if _box_distance(boxes, node, point) >= best:
                continue
            if node < leaves:
                left, right = 2 * node, 2 * node + 1
                nearer = _box_distance(boxes, left, point) <= _box_distance(boxes, right, point)
                stack[depth] = right if nearer else left  # the nearer one is looked at first: it lies on top
                stack[depth + 1] = left if nearer else right
                depth += 2
                continue
            first = (node - leaves) * _LEAF
            for f in range(first, min(first + _LEAF, faces.shape[0])):
                away = _on_triangle(
                    _corner(vertices, faces[f, 0], point),
                    _corner(vertices, faces[f, 1], point),
                    _corner(vertices, faces[f, 2], point),
                )
                squared = _dot(away, away)
                if squared < best:
                    best = squared
                    for axis in range(3):
                        found[i, axis] = point[axis] + away[axis]
    return found


class Surface:
    """A triangle mesh that can be asked which of its points is next to another.

    Parameters
    ----------
    vertices
        (n, 3), mm.
    faces
        (m, 3), at least one.
    """

    def __init__(self, vertices: NDArray[Any], faces: NDArray[Any]) -> None:
        self._vertices = np.ascontiguousarray(vertices, np.float64)
        order = np.argsort(_codes(self._vertices, faces), kind="stable")
        self._faces = np.ascontiguousarray(faces[order], np.int64)
        blocks = -(-len(faces) // _LEAF)
        self._leaves = 1 << max(0, (blocks - 1).bit_length())
        self._boxes = _boxes(self._vertices, self._faces, self._leaves)

    def nearest(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mesh's points next to some (k, 3) points."""
        points = np.ascontiguousarray(points, np.float64)
        return np.asarray(_nearest(points, self._vertices, self._faces, self._boxes, self._leaves))

    def distance(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how far (k, 3) points are from the mesh, in mm."""
        return np.asarray(np.linalg.norm(self.nearest(points) - points, axis=1))
