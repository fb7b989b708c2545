"""Voxelmill's own surfaces, as its mesh service makes them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from voxelmill_mesh.label_map import LabelMap, renumber, survey
from voxelmill_mesh.meshing import make_meshes
from voxelmill_shared.plan import Plan, Quality
from voxelmill_shared.work import StepClock

if TYPE_CHECKING:
    from mesh_worker import Work

    from voxelmill_shared.work import Progress


def run(work: Work) -> None:
    """Make all surfaces at normal quality, then those before decimation, which are not timed."""
    step, cpu, wall = "crop", time.process_time(), time.perf_counter()

    def report(progress: Progress | str) -> None:
        nonlocal step, cpu, wall
        name = progress if isinstance(progress, str) else progress.step
        if name != step:
            work.add(step, time.process_time() - cpu, time.perf_counter() - wall)
            step, cpu, wall = name, time.process_time(), time.perf_counter()

    affine = np.diag([*work.spacing[::-1], 1.0])
    found = survey(work.labels)
    numbers = sorted(found.voxels)
    voxels = np.array([0, *(found.voxels[number] for number in numbers)])
    label_map = renumber(LabelMap(work.labels, affine), numbers, found.box)
    plan = Plan(quality=Quality.NORMAL, reduction_percent=work.reduction_percent)
    meshes = make_meshes(label_map, voxels, plan, StepClock(report))
    report("end")
    for label, made in zip(numbers, meshes, strict=True):
        work.keep(label, "after", made.mesh.vertices, made.mesh.faces)
    if work.folder is not None:
        del meshes
        whole = Plan(quality=Quality.NORMAL, reduction_percent=0)
        for label, made in zip(numbers, make_meshes(label_map, voxels, whole, StepClock(lambda _: None)), strict=True):
            work.keep(label, "before", made.mesh.vertices, made.mesh.faces)
