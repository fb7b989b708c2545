"""Numbering vertices and faces by cubes of the label map, so that what lies together in space lies together in memory.

A net's vertices come slice by slice. A vertex's neighbours in the next slice are then a whole slice away, which is more
than the cache next to a core holds; within a tile they are near.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from voxelmill_mesh.compiled import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from voxelmill_mesh.compiled import Array

_BITS = 5
"""A tile has 32 voxels along each side: with 16 or 64 decimation took a tenth longer."""


@compiled
def _find_tiles(centres: Array, merged: Array, rows: int, columns: int, tiles: Array) -> None:
    """Write the tile of each merged vertex: that of the last vertex that went into it."""
    for v in range(merged.size):
        x, y, z = int(centres[v, 0] + 0.5), int(centres[v, 1] + 0.5), int(centres[v, 2] + 0.5)
        tiles[merged[v]] = ((z >> _BITS) * rows + (y >> _BITS)) * columns + (x >> _BITS)


@compiled
def _sort(tiles: Array, starts: Array, numbers: Array, sorted_tiles: Array) -> None:
    """Write where each vertex goes, in the order of the tiles and within a tile in the old one (a counting sort)."""
    for m in range(tiles.size):
        starts[tiles[m] + 1] += 1
    for tile in range(1, starts.size):
        starts[tile] += starts[tile - 1]
    for m in range(tiles.size):
        number = starts[tiles[m]]
        starts[tiles[m]] += 1
        numbers[m] = number
        sorted_tiles[number] = tiles[m]


@compiled
def _rename(merged: Array, numbers: Array) -> None:
    for v in range(merged.size):
        merged[v] = numbers[merged[v]]


def number_by_tiles(
    centres: NDArray[np.float32], merged: NDArray[np.int32], count: int, shape: tuple[int, ...]
) -> NDArray[np.int32]:
    """Number merged vertices anew, in place, and return the tile of each new number, (count,) int32, in their order.

    Parameters
    ----------
    centres
        (n, 3) float32: the centres of the cells of a net's vertices (`SurfaceNet.vertices`).
    merged, count
        The vertex that each of these becomes, from 0 to before `count`.
    shape
        The label map's slices, rows and columns, with the margin.
    """
    layers, rows, columns = ((size >> _BITS) + 1 for size in shape)
    tiles = np.empty(count, np.int32)
    _find_tiles(centres, merged, rows, columns, tiles)
    numbers = np.empty(count, np.int32)
    sorted_tiles = np.empty(count, np.int32)
    _sort(tiles, np.zeros(layers * rows * columns + 1, np.int64), numbers, sorted_tiles)
    _rename(merged, numbers)
    return sorted_tiles


@compiled
def _sort_faces(faces: Array, sides: Array, tiles: Array, starts: Array, new_faces: Array, new_sides: Array) -> None:
    for f in range(faces.shape[0]):
        starts[tiles[faces[f, 0]] + 1] += 1
    for tile in range(1, starts.size):
        starts[tile] += starts[tile - 1]
    for f in range(faces.shape[0]):
        tile = tiles[faces[f, 0]]
        place = starts[tile]
        starts[tile] += 1
        for k in range(3):
            new_faces[place, k] = faces[f, k]
        for side in range(2):
            new_sides[place, side] = sides[f, side]


def sort_by_tiles(
    faces: NDArray[np.int32], sides: NDArray[np.unsignedinteger], tiles: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.unsignedinteger]]:
    """Return faces and their sides in the order of the tiles of their first vertices.

    Parameters
    ----------
    faces, sides
        (m, 3) vertices and (m, 2) labels.
    tiles
        The tile of each vertex, never falling (`number_by_tiles`).
    """
    new_faces, new_sides = np.empty_like(faces), np.empty_like(sides)
    starts = np.zeros(int(tiles[-1]) + 2 if len(tiles) else 1, np.int64)
    _sort_faces(faces, sides, tiles, starts, new_faces, new_sides)
    return new_faces, new_sides
