"""Turns a label map into the surface of every label by one way, once, and says what it cost.

usage: python mesh_worker.py WAY JOB    JOB is a JSON object: `labels` (a .npy of uint8, slices x rows x columns),
`spacing` (mm, in that order), `reduction_percent`, `least_triangles`, `keep` (a folder for the meshes, or null)

The last line of the output is a JSON object: CPU seconds of all threads and wall seconds by step, and the peak of the
process's resident memory in MiB when the last step had ended. Everything is imported, compiled and run on a coarser
label map first; reading the label map and keeping the meshes is not timed.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULES = {
    "voxelmill": "mesh_voxelmill",
    "scikit-image": "mesh_skimage",
    "VTK flying edges": "mesh_vtk_edges",
    "VTK surface nets": "mesh_vtk_nets",
    "zmesh": "mesh_zmesh",
}

_WARM_UP = 100
"""About the voxels along the longest side of the label map that is meshed to warm up."""


def peak_mib() -> float:
    """Return the peak of this process's resident memory; `getrusage` would count what its parent had at the fork."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise RuntimeError("this kernel tells no peak of resident memory: no VmHWM in /proc/self/status")
    return int(found[1]) / 1024


@dataclass
class Work:
    """One label map, what is wanted of it, and what it cost so far.

    Attributes
    ----------
    labels
        (slices, rows, columns) uint8; 0 is no label.
    spacing
        The size of a voxel along these axes, mm.
    reduction_percent
        How many of a surface's triangles are to be taken away.
    least_triangles
        A surface is not to be decimated below this number.
    folder
        Where meshes are kept: `{label}-{before|after}-{vertices|faces}.npy`; None if they are not.
    """

    labels: Any
    spacing: tuple[float, float, float]
    reduction_percent: int
    least_triangles: int
    folder: Path | None = None
    cpu: dict[str, float] = field(default_factory=dict)
    wall: dict[str, float] = field(default_factory=dict)
    peak_mib: float = 0.0

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what stands inside; a step that comes again adds to its time."""
        cpu, wall = time.process_time(), time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.process_time() - cpu, time.perf_counter() - wall)

    def add(self, name: str, cpu: float, wall: float) -> None:
        """Count time that a step has taken."""
        self.cpu[name] = self.cpu.get(name, 0.0) + cpu
        self.wall[name] = self.wall.get(name, 0.0) + wall
        self.peak_mib = peak_mib()

    def keep(self, label: int, phase: str, vertices: Any, faces: Any) -> None:
        """Keep a mesh for the judge: vertices in mm along (column, row, slice) from the centre of the first voxel."""
        if self.folder is not None:
            np.save(self.folder / f"{label}-{phase}-vertices.npy", vertices)
            np.save(self.folder / f"{label}-{phase}-faces.npy", faces)

    def target(self, triangles: int) -> int:
        """Return how many triangles a surface of so many shall have."""
        wanted = round(triangles * (100 - self.reduction_percent) / 100)
        return min(triangles, max(wanted, self.least_triangles))


def main() -> None:
    """Run once to warm up and once in earnest."""
    warnings.simplefilter("ignore")
    job = json.loads(sys.argv[2])
    labels = np.load(job["labels"])
    way = importlib.import_module(MODULES[sys.argv[1]])
    asked = (job["reduction_percent"], job["least_triangles"])
    few = max(1, max(labels.shape) // _WARM_UP)  # coarse, yet with surfaces that are large enough to be decimated
    way.run(
        Work(np.ascontiguousarray(labels[::few, ::few, ::few]), tuple(few * each for each in job["spacing"]), *asked)
    )
    work = Work(labels, tuple(job["spacing"]), *asked, job["keep"] and Path(job["keep"]))
    way.run(work)
    print(json.dumps({"cpu": work.cpu, "wall": work.wall, "peak_mib": work.peak_mib}))


if __name__ == "__main__":
    main()
