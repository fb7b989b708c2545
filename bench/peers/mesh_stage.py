"""Runs the whole work of Voxelmill's mesh stage, from a label map's file to the files of a job, and says what it took.

usage: python mesh_stage.py LABEL_MAP OUTPUT LABELS    LABEL_MAP is NIfTI, LABELS how many labels it has, from 1 on

The last line of the output is a JSON object: CPU and wall seconds by step, the peak of the process's resident memory in
MiB, the triangles of all meshes, and the bytes of all files.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mesh_worker import peak_mib

from voxelmill_mesh.task import MeshTask
from voxelmill_mesh.work import mesh_labels
from voxelmill_shared.plan import Plan

if TYPE_CHECKING:
    from voxelmill_shared.work import Progress


class StepCosts:
    """The `report` of a piece of work: counts what each of its steps takes."""

    def __init__(self) -> None:
        self.cpu: dict[str, float] = {}
        self.wall: dict[str, float] = {}
        self._step = ""
        self._since = (0.0, 0.0)

    def __call__(self, progress: Progress | str) -> None:
        """Note that a step begins, unless it goes on."""
        name = progress if isinstance(progress, str) else progress.step
        if name == self._step:
            return
        now = (time.process_time(), time.perf_counter())
        if self._step:
            self.cpu[self._step] = self.cpu.get(self._step, 0.0) + now[0] - self._since[0]
            self.wall[self._step] = self.wall.get(self._step, 0.0) + now[1] - self._since[1]
        self._step, self._since = name, now


def main() -> None:
    """Do the work once, with the plan that is used where nothing is asked for."""
    label_map, output, labels = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    segments = tuple(
        {"number": number, "name": f"organ_{number}", "rgb": [number * 53 % 256, number * 97 % 256, number * 193 % 256]}
        for number in range(1, labels + 1)
    )
    costs = StepCosts()
    result = mesh_labels(MeshTask(label_map, segments, Plan(), output), costs)
    costs("end")
    measured = result.measurements["segments"].values()
    found = {
        "cpu": costs.cpu,
        "wall": costs.wall,
        "peak_mib": peak_mib(),
        "triangles": sum(each["triangles"] for each in measured),
        "bytes": sum(file.path.stat().st_size for file in result.files),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
