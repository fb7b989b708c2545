"""Voxels that touch at edges and corners: the surfaces are manifolds all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from unit.mesh.shapes import as_trimesh, assert_closed_manifold, meshes_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONTACTS = {
    "one voxel": [(1, 1, 1)],
    "two across an edge": [(1, 1, 1), (1, 2, 2)],
    "two across a corner": [(1, 1, 1), (2, 2, 2)],
    "a checkerboard": [(z, y, x) for z in (1, 2) for y in (1, 2) for x in (1, 2) if (z + y + x) % 2],
    "a ring closed by an edge": [
        (1, 1, 1),
        (1, 1, 2),
        (1, 2, 3),
        (2, 1, 1),
        (2, 1, 2),
        (2, 1, 3),
        (2, 2, 3),
        (1, 1, 4),
    ],
    "joined around both sides of an edge": [
        (1, 1, 1),
        (1, 2, 2),
        (2, 1, 1),
        (2, 2, 2),
        (2, 1, 2),
        (0, 1, 1),
        (0, 2, 2),
        (0, 2, 1),
    ],
}


@pytest.mark.parametrize("name", CONTACTS)
@pytest.mark.parametrize("iterations", [0, 12])
def test_contacts_give_a_closed_manifold(name: str, iterations: int) -> None:
    """Every edge has two faces, every vertex one fan, also for a reader that joins vertices at the same place."""
    labels = np.zeros((5, 5, 6), np.uint8)
    labels[tuple(zip(*CONTACTS[name], strict=True))] = 1
    mesh = meshes_of(labels, iterations=iterations)[1]
    assert_closed_manifold(mesh)
    assert as_trimesh(mesh).volume > 0


def test_diagonal_voxels_become_two_solids() -> None:
    """Voxels that touch at an edge are not joined: two closed parts, Euler characteristic 4."""
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[1, 1, 1] = labels[1, 2, 2] = 1
    judged = as_trimesh(meshes_of(labels, iterations=0)[1])
    assert judged.body_count == 2
    assert judged.euler_number == 4


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    arrays.arrays(np.uint8, st.tuples(*[st.integers(1, 6)] * 3), elements=st.integers(0, 3)),
    st.sampled_from([0, 8]),
    st.sampled_from([0.0, 0.9]),
    st.booleans(),
)
def test_noise_gives_closed_manifolds(
    labels: NDArray[np.uint8], iterations: int, reduction: float, coarse: bool
) -> None:
    """Random labels, the worst there is, give a closed manifold for each label, decimated or not."""
    for mesh in meshes_of(labels, iterations=iterations, reduction=reduction, coarse=coarse).values():
        assert_closed_manifold(mesh, merge=False)
