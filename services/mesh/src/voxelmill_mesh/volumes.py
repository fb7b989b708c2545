"""Giving each label the volume of its voxels, by a pressure in each.

Smoothing and decimation take a little of what bulges out, and of a small or thin organ more than a little. Here each
label gets a pressure, so that each piece of surface moves along its normal by the difference of the pressures on its
two sides: neighbours keep their common boundary, and what one gains the other loses. The pressures that mend all
volumes solve a linear system whose matrix is that of a graph: labels, joined by the areas of their boundaries. Where
labels are thin it holds only nearly, so it is done a few times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from voxelmill_mesh.compiled import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from voxelmill_mesh.compiled import Array
    from voxelmill_mesh.complexes import Complex

ROUNDS = 6
"""Each leaves a small part of the error that the one before left."""

REACH = 0.5
"""How far a vertex may go in all, in parts of the smallest step between voxels: only a label of a few voxels needs as
much."""

_SOLVER_STEPS = 200
_SOLVED = 1e-6


@compiled
def _measure(vertices: Array, faces: Array, sides: Array, volumes: Array) -> None:
    """Add up the volume of each label (the divergence theorem); normals point from the first side to the second."""
    for f in range(faces.shape[0]):
        a, b, c = vertices[faces[f, 0]], vertices[faces[f, 1]], vertices[faces[f, 2]]
        six = (
            a[0] * (b[1] * c[2] - b[2] * c[1]) + a[1] * (b[2] * c[0] - b[0] * c[2]) + a[2] * (b[0] * c[1] - b[1] * c[0])
        )
        volumes[sides[f, 0]] += six / 6
        volumes[sides[f, 1]] -= six / 6


@compiled
def _areas(vertices: Array, faces: Array, areas: Array) -> None:
    for f in range(faces.shape[0]):
        a, b, c = vertices[faces[f, 0]], vertices[faces[f, 1]], vertices[faces[f, 2]]
        px, py, pz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
        qx, qy, qz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
        areas[f] = 0.5 * np.sqrt((py * qz - pz * qy) ** 2 + (pz * qx - px * qz) ** 2 + (px * qy - py * qx) ** 2)


@compiled
def _moves(vertices: Array, faces: Array, sides: Array, pressures: Array, moves: Array, weights: Array) -> None:
    """Add up how each vertex moves: the mean of its faces' moves, by their areas."""
    for f in range(faces.shape[0]):
        a, b, c = vertices[faces[f, 0]], vertices[faces[f, 1]], vertices[faces[f, 2]]
        px, py, pz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
        qx, qy, qz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
        nx, ny, nz = py * qz - pz * qy, pz * qx - px * qz, px * qy - py * qx
        area = np.sqrt(nx * nx + ny * ny + nz * nz)
        difference = pressures[sides[f, 0]] - pressures[sides[f, 1]]
        for k in range(3):
            v = faces[f, k]
            weights[v] += area
            moves[v, 0] += difference * nx
            moves[v, 1] += difference * ny
            moves[v, 2] += difference * nz
    for v in range(vertices.shape[0]):
        if weights[v] > 0:
            for axis in range(3):
                moves[v, axis] /= weights[v]


@compiled
def _move(vertices: Array, start: Array, moves: Array, reach: float, inverse: Array, low: Array, high: Array) -> None:
    """Move each vertex, no further than `reach` from its start, and never over the image's outer faces."""
    index = np.empty(3)
    for v in range(vertices.shape[0]):
        far = 0.0
        for axis in range(3):
            far += (vertices[v, axis] + moves[v, axis] - start[v, axis]) ** 2
        share = 1.0 if far <= reach * reach else reach / np.sqrt(far)
        outside = False
        for axis in range(3):
            vertices[v, axis] = start[v, axis] + share * (vertices[v, axis] + moves[v, axis] - start[v, axis])
        for axis in range(3):
            index[axis] = inverse[axis, 3]
            for k in range(3):
                index[axis] += inverse[axis, k] * vertices[v, k]
            outside |= index[axis] < low[axis] or index[axis] > high[axis]
        if outside:
            for axis in range(3):
                index[axis] = min(max(index[axis], low[axis]), high[axis])
            for axis in range(3):
                vertices[v, axis] = 0.0
                for k in range(3):
                    vertices[v, axis] += inverse[axis + 4, k] * index[k]
                vertices[v, axis] += inverse[axis + 4, 3]


def _solve(pairs: NDArray[np.int64], areas: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the pressures that change the volumes as wanted, by conjugate gradients; that of the background is 0."""
    count = len(wanted)
    diagonal = np.bincount(pairs[:, 0], areas, count) + np.bincount(pairs[:, 1], areas, count)
    diagonal[diagonal == 0] = 1.0

    def apply(pressures: NDArray[np.float64]) -> NDArray[np.float64]:
        flow = areas * (pressures[pairs[:, 0]] - pressures[pairs[:, 1]])
        gained = np.bincount(pairs[:, 0], flow, count) - np.bincount(pairs[:, 1], flow, count)
        changed = gained.astype(np.float64)
        changed[0] = 0.0
        return changed

    pressures = np.zeros(count)
    rest = wanted.copy()
    rest[0] = 0.0
    ready = rest / diagonal
    direction = ready.copy()
    strength = float(rest @ ready)
    enough = _SOLVED * strength
    for _ in range(_SOLVER_STEPS):
        if strength <= enough:
            break
        applied = apply(direction)
        along = float(direction @ applied)
        if along <= 0:
            break  # labels that nothing joins to the background: no pressure changes their sum
        step = strength / along
        pressures += step * direction
        rest -= step * applied
        ready = rest / diagonal
        before, strength = strength, float(rest @ ready)
        direction = ready + strength / before * direction
    return pressures


def mend_volumes(
    complex_: Complex,
    volumes: NDArray[np.float64],
    affine: NDArray[np.float64],
    extent: tuple[NDArray[np.float64], NDArray[np.float64]],
    reach: float,
) -> NDArray[np.float64]:
    """Return the vertices of a complex moved so that each label has its volume, as far as that needs no large moves.

    Parameters
    ----------
    complex_
        The boundaries of all labels.
    volumes
        For each label from 0 on, the volume wanted in cubic millimetres. That of 0 does not matter.
    affine
        (4, 4) voxel index (column, row, slice) to patient millimetres.
    extent
        The lowest and the highest voxel index of the image's outer faces, which no vertex may cross.
    reach
        How far a vertex may go, millimetres.
    """
    count = len(volumes)
    vertices = complex_.vertices.copy()
    faces, sides = complex_.faces, complex_.sides
    about = affine.copy()
    about[:3, 3] -= complex_.origin
    transforms = np.concatenate([np.linalg.inv(about), about])
    keys = sides[:, 0].astype(np.int64) * count + sides[:, 1]
    found, inverse = np.unique(keys, return_inverse=True)
    pairs = np.stack([found // count, found % count], axis=1)
    face_areas = np.empty(len(faces))
    for _ in range(ROUNDS):
        have = np.zeros(count)
        _measure(vertices, faces, sides, have)
        _areas(vertices, faces, face_areas)
        between = np.bincount(inverse, face_areas, len(found)).astype(np.float64)
        pressures = _solve(pairs, between, volumes - have)
        moves = np.zeros(vertices.shape)
        _moves(vertices, faces, sides, pressures, moves, np.zeros(len(vertices)))
        _move(vertices, complex_.vertices, moves, reach, transforms, *extent)
    return vertices
