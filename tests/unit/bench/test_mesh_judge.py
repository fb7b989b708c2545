"""The judge of surfaces finds what is wrong with them, and nothing where nothing is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import trimesh

from mesh_distance import Surface
from mesh_input import LABELS, make_labels, read_reference
from mesh_judge import Judge, Judgement

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SPACING = np.array([2.0, 1.0, 1.5])
BOXES = {1: (slice(4, 12), slice(4, 14), slice(4, 12)), 2: (slice(4, 12), slice(4, 14), slice(12, 20))}
"""Two labels that touch in a plane: slices, rows, columns."""


def box(part: tuple[slice, ...]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Vertices (column, row, slice) in mm and faces of exactly these voxels."""
    low = np.array([(each.start - 0.5) * size for each, size in zip(part, SPACING, strict=True)])[::-1]
    high = np.array([(each.stop - 0.5) * size for each, size in zip(part, SPACING, strict=True)])[::-1]
    made = trimesh.creation.box(bounds=[low, high])
    return np.asarray(made.vertices), np.asarray(made.faces)


@pytest.fixture
def judge() -> Judge:
    labels = np.zeros((16, 18, 24), np.uint8)
    for label, part in BOXES.items():
        labels[part] = label
    return Judge(labels, SPACING, samples=200)


def keep(folder: Path, label: int, vertices: NDArray[Any], faces: NDArray[Any]) -> None:
    np.save(folder / f"{label}-after-vertices.npy", vertices)
    np.save(folder / f"{label}-after-faces.npy", faces)


def judged(judge: Judge, folder: Path, vertices: NDArray[Any], faces: NDArray[Any]) -> Judgement:
    """What the judge says when the first label has this surface, and the second its own box."""
    keep(folder, 1, vertices, faces)
    keep(folder, 2, *box(BOXES[2]))
    return judge.judge(folder, "after")


def test_exact_boxes_are_right_in_everything(judge: Judge, tmp_path: Path) -> None:
    found = judged(judge, tmp_path, *box(BOXES[1]))
    assert (found.labels, found.closed, found.pinched, found.double, found.flat, found.inverted) == (2, 2, 0, 0, 0, 0)
    assert found.volume.max < 1e-9
    assert found.gap.max < 1e-9
    # Marching cubes cuts edges and corners: by less than half a voxel's diagonal.
    assert 0 < found.distance.max < np.linalg.norm(SPACING) / 2
    assert found.open_labels == ()


def test_a_missing_face_opens_a_surface(judge: Judge, tmp_path: Path) -> None:
    vertices, faces = box(BOXES[1])
    found = judged(judge, tmp_path, vertices, faces[:-1])
    assert found.closed == 1
    assert found.open_labels == (1,)


def test_a_face_turned_round_opens_a_surface(judge: Judge, tmp_path: Path) -> None:
    vertices, faces = box(BOXES[1])
    found = judged(judge, tmp_path, vertices, np.concatenate([faces[:-1], faces[-1:, ::-1]]))
    assert found.open_labels == (1,)


def test_a_surface_inside_out_is_closed_and_inverted(judge: Judge, tmp_path: Path) -> None:
    vertices, faces = box(BOXES[1])
    found = judged(judge, tmp_path, vertices, faces[:, ::-1])
    assert (found.closed, found.inverted) == (2, 1)


def test_parts_that_share_one_vertex_are_pinched(judge: Judge, tmp_path: Path) -> None:
    vertices, faces = box(BOXES[1])
    corner = int(np.argmax(vertices.sum(axis=1)))
    mirrored = 2 * vertices[corner] - vertices
    turned = np.where(np.arange(8) == corner, corner, np.arange(8) + 8)[faces][:, ::-1]
    found = judged(judge, tmp_path, np.concatenate([vertices, mirrored]), np.concatenate([faces, turned]))
    assert (found.closed, found.pinched) == (2, 1)


def test_two_faces_back_to_back_are_double(judge: Judge, tmp_path: Path) -> None:
    vertices, faces = box(BOXES[1])
    leaf = np.array([[8, 9, 10], [10, 9, 8]])
    away = vertices.mean(axis=0) + np.eye(3)
    found = judged(judge, tmp_path, np.concatenate([vertices, away]), np.concatenate([faces, leaf]))
    assert (found.closed, found.double) == (2, 1)


def test_a_shifted_neighbour_leaves_a_gap(judge: Judge, tmp_path: Path) -> None:
    vertices, faces = box(BOXES[1])
    found = judged(judge, tmp_path, vertices - [0.25, 0, 0], faces)
    assert found.gap.mean == pytest.approx(0.25)
    assert found.gap.p95 == pytest.approx(0.25)


def test_a_volume_that_is_off_is_named(judge: Judge, tmp_path: Path) -> None:
    vertices, faces = box(BOXES[1])
    centre = vertices.mean(axis=0)
    found = judged(judge, tmp_path, centre + (vertices - centre) * [1.1, 1, 1], faces)
    assert found.volume.max == pytest.approx(10)
    assert next(iter(found.worst)) == 1


def test_what_was_added_far_away_is_far(judge: Judge, tmp_path: Path) -> None:
    vertices, faces = box(BOXES[1])
    found = judged(
        judge, tmp_path, np.concatenate([vertices, vertices - [40, 0, 0]]), np.concatenate([faces, faces + 8])
    )
    assert next(iter(found.farthest)) == 1
    assert found.distance.max > 25


def test_a_part_that_is_lost_is_far(tmp_path: Path) -> None:
    labels = np.zeros((16, 18, 40), np.uint8)
    labels[BOXES[1]] = 1
    labels[4:12, 4:14, 30:36] = 1
    keep(tmp_path, 1, *box(BOXES[1]))
    assert Judge(labels, SPACING, samples=200).judge(tmp_path, "after").distance.max > 25


def test_a_label_without_a_surface_has_lost_all_its_volume(judge: Judge, tmp_path: Path) -> None:
    keep(tmp_path, 2, *box(BOXES[2]))
    found = judge.judge(tmp_path, "after")
    assert found.open_labels == (1,)
    assert found.volume.max == pytest.approx(100)


def test_distances_are_those_to_every_triangle() -> None:
    random = np.random.default_rng(5)
    vertices = random.normal(size=(60, 3))
    faces = random.integers(0, 60, (80, 3))
    faces[:3] = faces[:3, :1]  # points and needles are triangles too
    faces[3:6, 1] = faces[3:6, 0]
    points = random.normal(size=(100, 3)) * 2
    found = Surface(vertices, faces).distance(points)
    usual = faces[6:]
    least = np.full(len(points), np.inf)
    for triangle in vertices[usual]:
        nearest = trimesh.triangles.closest_point(np.repeat(triangle[None], len(points), axis=0), points)
        least = np.minimum(least, np.linalg.norm(nearest - points, axis=1))
    for a, b in [(a, c) for a, _, c in vertices[faces[:6]]]:
        share = np.clip(((points - a) @ (b - a)) / max(float((b - a) @ (b - a)), 1e-30), 0, 1)[:, None]
        least = np.minimum(least, np.linalg.norm(a + share * (b - a) - points, axis=1))
    np.testing.assert_allclose(found, least, atol=1e-12)


def test_the_reference_is_cut_into_labels_of_organs_sizes(data: Path) -> None:
    labels, spacing = make_labels(read_reference(data), (112, 101, 122))
    volumes = np.bincount(labels.ravel(), minlength=LABELS + 1)[1:] * np.prod(spacing) / 1000
    assert len(volumes) == LABELS
    assert volumes.min() > 1
    assert volumes.max() < 200
