"""The judge of the meshes' benchmark finds what is wrong with a surface."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import trimesh

from mesh_judge import Judge, Judgement

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SPACING = np.array([2.0, 1.0, 1.0])


def block() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the surface of the only label: 4 slices, 6 rows and 8 columns of voxels from (3, 3, 3) on."""
    solid = trimesh.creation.box((8.0, 6.0, 8.0))
    return solid.vertices + np.array([6.5, 5.5, 9.0]), np.asarray(solid.faces, np.int64)


def judged(vertices: NDArray[np.float64], faces: NDArray[np.int64], folder: Path) -> Judgement:
    """Judge one surface as that of the only label."""
    labels = np.zeros((10, 12, 14), np.uint8)
    labels[3:7, 3:9, 3:11] = 1
    np.save(folder / "1-after-vertices.npy", vertices)
    np.save(folder / "1-after-faces.npy", faces)
    return Judge(labels, SPACING, samples=200).judge(folder, "after")


def test_a_good_surface_is_sound(tmp_path: Path) -> None:
    """A box around its voxels has their volume and is near the marching cubes."""
    found = judged(*block(), tmp_path)
    assert (found.sound, found.closed, found.flat, found.inverted) == (1, 1, 0, 0)
    assert found.volume.max == pytest.approx(0, abs=1e-9)
    assert found.distance.p99 < np.linalg.norm(SPACING)


def test_a_surface_that_looks_inward_is_not_sound(tmp_path: Path) -> None:
    """It is closed, and its volume has the wrong sign."""
    vertices, faces = block()
    found = judged(vertices, faces[:, ::-1], tmp_path)
    assert (found.sound, found.closed, found.inverted) == (0, 1, 1)
    assert found.volume.max == pytest.approx(200)


def test_a_face_without_area_is_not_sound(tmp_path: Path) -> None:
    """A vertex in the middle of an edge, and a face of no height that closes the slit."""
    vertices, faces = block()
    a, b, c = faces[0]
    middle = len(vertices)
    split = np.array([(a, middle, c), (middle, b, c), (a, b, middle)])
    found = judged(np.vstack([vertices, (vertices[a] + vertices[b]) / 2]), np.vstack([faces[1:], split]), tmp_path)
    assert (found.sound, found.closed, found.flat) == (0, 1, 1)


def test_an_open_surface_is_not_sound(tmp_path: Path) -> None:
    """One face is missing."""
    vertices, faces = block()
    found = judged(vertices, faces[1:], tmp_path)
    assert (found.sound, found.closed, found.open_labels) == (0, 0, (1,))
