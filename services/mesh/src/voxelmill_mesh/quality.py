"""What each quality means for a mesh: one table."""

from __future__ import annotations

from dataclasses import dataclass

from voxelmill_shared.plan import Quality


@dataclass(frozen=True, slots=True)
class MeshQuality:
    """How a mesh is made.

    Attributes
    ----------
    smoothing_iterations
        Pairs of Taubin steps. More of them take away wider stairs, of thick slices above all, and thin vessels with
        them.
    least_triangles
        A segment is not decimated below this number, whatever `reduction_percent` says, so small organs keep their
        shape.
    """

    smoothing_iterations: int
    least_triangles: int


MESH_QUALITY: dict[Quality, MeshQuality] = {
    Quality.FAST: MeshQuality(smoothing_iterations=5, least_triangles=1_000),
    Quality.NORMAL: MeshQuality(smoothing_iterations=9, least_triangles=2_000),
    Quality.HIGH: MeshQuality(smoothing_iterations=18, least_triangles=4_000),
}


COARSE_SHARE = 0.3
"""A label of which no larger part of the triangles shall stay is made coarser in blocks first (`clusters`), which
leaves a quarter."""


def target_triangles(triangles: int, reduction_percent: int, quality: MeshQuality) -> int:
    """Return how many triangles a surface of so many shall have after decimation; never more than it has."""
    wanted = round(triangles * (100 - reduction_percent) / 100)
    return min(triangles, max(wanted, quality.least_triangles))
