"""From a label map to the meshes of its labels: the steps in their order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from voxelmill_mesh.clusters import merge_blocks
from voxelmill_mesh.complexes import make_complex, transform
from voxelmill_mesh.decimation import decimate
from voxelmill_mesh.deviation import STRIDE, Samples, deviations, sampled_deviations, sampled_labels
from voxelmill_mesh.nets import surface_net
from voxelmill_mesh.parallel import in_parallel
from voxelmill_mesh.quality import COARSE_SHARE, MESH_QUALITY, target_triangles
from voxelmill_mesh.smoothing import smooth
from voxelmill_mesh.surface import Mesh, count_sides, index_sides, label_surface
from voxelmill_mesh.tiles import number_by_tiles, sort_by_tiles
from voxelmill_mesh.volumes import REACH, mend_volumes
from voxelmill_shared.work import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from voxelmill_mesh.complexes import Complex
    from voxelmill_mesh.label_map import LabelMap
    from voxelmill_shared.plan import Plan
    from voxelmill_shared.work import StepClock


BLUR = 0.25
"""`decimate`'s bound on the mean error, in parts of the smallest step between voxels."""


@dataclass(frozen=True, slots=True)
class LabelMesh:
    """The mesh of one label.

    Attributes
    ----------
    mesh
        Its surface, closed.
    deviation_mm
        The largest distance between the smoothed boundary of its voxels and the mesh that was found: from samples of
        the boundary, one vertex in 32; with a bound, from all vertices and middles of faces of both.
    """

    mesh: Mesh
    deviation_mm: float


@dataclass(frozen=True, slots=True)
class _Aim:
    """What the complex shall become: triangles and volumes (mm3) by label, within which voxels, how far off at most."""

    targets: NDArray[np.int64]
    volumes: NDArray[np.float64]
    affine: NDArray[np.float64]
    extent: tuple[NDArray[np.float64], NDArray[np.float64]]
    spacing: float
    max_error_mm: float | None

    @property
    def most(self) -> float:
        return np.inf if self.max_error_mm is None else self.max_error_mm

    def mended(self, complex_: Complex) -> Complex:
        reach = min(REACH * self.spacing, self.most / 4)
        return replace(complex_, vertices=mend_volumes(complex_, self.volumes, self.affine, self.extent, reach))


def _decimate(complex_: Complex, aim: _Aim, clock: StepClock) -> tuple[Complex, NDArray[np.int32]]:
    """Decimate and mend. The complex's quadrics are spent."""
    label_count = len(aim.targets)

    def tell(done: int) -> None:
        clock.tell(Progress("decimate", done, label_count - 1))

    left, heirs = decimate(complex_, aim.targets, BLUR * aim.spacing, tell=tell, spend=True)
    return aim.mended(left), heirs


_LOCAL_ROUNDS = 6
"""So often only the places that are too far are held. What is held in one place is made good in others, where something
may then be too far, so without an end to it the rounds could be many."""


def _decimate_within(
    complex_: Complex, aim: _Aim, bound: float, clock: StepClock
) -> tuple[Complex, NDArray[np.float64]]:
    """Decimate and mend, again and again, until nothing is further off than the bound where it is measured."""
    label_count = len(aim.targets)
    held = np.zeros(len(complex_.vertices), np.bool_)
    reached = 0

    def tell(done: int) -> None:
        nonlocal reached
        reached = max(reached, done)  # each round begins anew, and what is told never falls
        clock.tell(Progress("decimate", reached, label_count - 1))

    for round_ in range(_LOCAL_ROUNDS + label_count):
        left, heirs = decimate(complex_, aim.targets, BLUR * aim.spacing, bound / 2, held, tell)
        left = aim.mended(left)
        largest, far = deviations(complex_, left, heirs, label_count, bound)
        if not far.any():
            return left, largest
        # A collapse is judged by what went into its vertex; what those beside it add is seen only now.
        if round_ < _LOCAL_ROUNDS:
            if held[far[heirs]].all():
                far[left.faces[far[left.faces].any(axis=1)]] = True
            held |= far[heirs]
        else:  # a label that still is too far somewhere is not decimated at all
            held[complex_.faces[(largest > bound)[complex_.sides].any(axis=1)]] = True
    whole = aim.mended(complex_)
    own = np.arange(len(held), dtype=np.int32)
    return whole, deviations(complex_, whole, own, label_count, bound)[0]


def make_meshes(label_map: LabelMap, voxels: NDArray[np.int64], plan: Plan, clock: StepClock) -> list[LabelMesh]:
    """Return the mesh of each label from 1 on.

    Parameters
    ----------
    label_map
        Labels 1, 2, 3 …, none of them without voxels, with a margin (`label_map.renumber`).
    voxels
        How many voxels each label has, from label 0 on.
    plan
        `quality`, `reduction_percent` and `max_error_mm` matter.
    clock
        Is told each step, and how many labels are done in it.
    """
    label_count = len(voxels)
    if label_count == 1:
        return []
    quality = MESH_QUALITY[plan.quality]
    affine = label_map.affine
    spacing = float(np.linalg.norm(affine[:3, :3], axis=0).min())
    clock.begin("extract")
    net = surface_net(label_map.labels, label_map.extent)
    triangles = 2 * count_sides(net.sides, label_count)
    targets = np.array([target_triangles(int(each), plan.reduction_percent, quality) for each in triangles])
    clock.begin("smooth")
    smoothed = smooth(net, quality.smoothing_iterations)
    clock.begin("decimate")
    decimating = bool((targets[1:] < triangles[1:]).any())
    free = targets <= COARSE_SHARE * triangles
    free[0] = True
    if plan.max_error_mm is not None or not free[1:].any():
        merged, count = np.arange(len(smoothed), dtype=np.int32), len(smoothed)
    else:
        merged, count = merge_blocks(label_map.labels, net, free)
    if decimating:
        tiles = number_by_tiles(net.vertices, merged, count, label_map.labels.shape)
        complex_ = make_complex(smoothed, net, merged, count, affine)
        faces, face_sides = sort_by_tiles(complex_.faces, complex_.sides, tiles)
        complex_ = replace(complex_, faces=faces, sides=face_sides)
        del tiles, faces, face_sides
    else:
        complex_ = make_complex(smoothed, net, merged, count, affine, with_quadrics=False)
    points = transform(smoothed[::STRIDE].copy(), affine, complex_.origin)
    samples = Samples(points, sampled_labels(net), merged[::STRIDE].copy())
    extent = (net.extent[0].astype(np.float64), net.extent[1].astype(np.float64))
    del net, smoothed, merged  # most of the memory
    volumes = np.asarray(voxels * (label_map.voxel_ml * 1000), np.float64)
    aim = _Aim(targets, volumes, affine, extent, spacing, plan.max_error_mm)
    if decimating and plan.max_error_mm is not None:
        complex_, largest = _decimate_within(complex_, aim, plan.max_error_mm, clock)
    else:
        if decimating:
            complex_, heirs = _decimate(complex_, aim, clock)
            samples = replace(samples, heirs=heirs[samples.heirs])
        else:
            complex_ = aim.mended(complex_)
        largest = sampled_deviations(samples, complex_, label_count)
    clock.begin("surfaces")
    sides = index_sides(complex_.sides, label_count)
    vertices = (complex_.vertices + complex_.origin).astype(np.float32)
    # Wide enough that files of float32 (0.06 um at 1 m) keep the parts apart, too narrow to be seen.
    gap = 0.01 * spacing
    with in_parallel() as run:
        meshes = run(
            label_surface,
            ((vertices, complex_.faces, sides.faces_of(label), gap) for label in range(1, label_count)),
            lambda done: clock.tell(Progress("surfaces", done, label_count - 1)),
        )
    return [LabelMesh(mesh, float(each)) for mesh, each in zip(meshes, largest[1:], strict=True)]
