"""The ways to TotalSegmentator's label map that `segment` compares, each from a NIfTI file to a NIfTI file.

command: `TotalSegmentator`, a new process each time. api: its Python API in a process that stays. ours: the segment
service's pipeline in a process that stays, with its children.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import nibabel as nib
import numpy as np

from process_tree import PeakMemory, cpu_seconds
from voxelmill_segment.totalsegmentator.library import installed_version
from voxelmill_shared.imaging.nifti import RAS_TO_LPS
from voxelmill_shared.imaging.series import lay_out_volumes, open_images

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

HERE = Path(__file__).parent
COMMAND, API, OURS = "command", "api", "ours"
MOST_SECONDS = 1800.0
"""After which a tool that has not answered is ended."""


class ToolFailedError(RuntimeError):
    """A tool ended, or gave no answer; the end of what it has said tells why."""


@dataclass(frozen=True, slots=True)
class Case:
    """A volume in a NIfTI file, and the resolution that is asked for."""

    name: str
    path: Path
    resolution: str

    @property
    def arguments(self) -> dict[str, bool]:
        """The resolution as the package takes it."""
        return {self.resolution: True} if self.resolution in {"fast", "fastest"} else {}


@dataclass(frozen=True, slots=True)
class Run:
    """One label map: seconds, bytes (0 if they were not looked at), where it is, and what the tool has said of it."""

    wall: float
    cpu: float
    peak: int
    labels: Path
    answer: Any = None


def need_totalsegmentator() -> None:
    """End with a clear line if the package is not there."""
    if installed_version() is None:
        print("TotalSegmentator is not installed: run tools/setup totalsegmentator and try again", file=sys.stderr)
        raise SystemExit(3)


def environment(folder: Path, weights: Path) -> dict[str, str]:
    """Return the variables of every tool: a home without statistics, temporary files in `folder`, the weights."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    settings = {
        "totalseg_id": "totalseg_none",
        "send_usage_stats": False,
        "prediction_counter": 0,
        "statistics_disclaimer_shown": True,
    }
    (home / "config.json").write_text(json.dumps(settings))
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("nnUNet_", "TOTALSEG_"))},
        "HOME": str(home),
        "TMPDIR": str(folder),
        "TOTALSEG_HOME_DIR": str(home),
        "TOTALSEG_WEIGHTS_PATH": str(weights),
        "VOXELMILL_WEIGHTS": str(weights),
        "PYTHONWARNINGS": "ignore",
    }


@contextlib.contextmanager
def started(arguments: Sequence[str], variables: Mapping[str, str], **pipes: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program; at the end it is gone, and whatever it has started is too."""
    process = subprocess.Popen(arguments, env=dict(variables), start_new_session=True, **pipes)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run_command(
    arguments: Sequence[str], variables: Mapping[str, str], log: Path, *, look: bool = False
) -> tuple[float, float, int]:
    """Run a program to its end; return seconds, processor seconds and, if they shall be looked at, the most bytes.

    Raises
    ------
    ToolFailedError
        If it fails.
    """
    with log.open("wb") as said, contextlib.ExitStack() as stack:
        begun = time.monotonic()
        pipes = {"stdin": subprocess.DEVNULL, "stdout": said, "stderr": subprocess.STDOUT}
        process = stack.enter_context(started(arguments, variables, **pipes))
        memory = stack.enter_context(PeakMemory(process.pid)) if look else None
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ToolFailedError(f"{log.stem} ended with {process.returncode}: {last_words(log)}")
    return wall, used.ru_utime + used.ru_stime, memory.bytes if memory else 0


@dataclass(frozen=True, slots=True)
class Command:
    """The `TotalSegmentator` command."""

    folder: Path
    variables: Mapping[str, str]
    device: str

    def run(self, case: Case, *, look: bool = False) -> Run:
        """Label a volume in a new process."""
        output = self.folder / f"{case.name}.command.nii.gz"
        arguments = [
            *(sys.executable, str(HERE / "peers" / "totalsegmentator_command.py")),
            *("-i", str(case.path), "-o", str(output), "--ml", "--device", self.device),
            *(f"--{name}" for name in case.arguments),
        ]
        return Run(*run_command(arguments, self.variables, self.folder / "command.log", look=look), output)


class Warm:
    """A process that answers jobs, a JSON line each."""

    def __init__(self, script: str, folder: Path, variables: Mapping[str, str]) -> None:
        self._script = script
        self._log = folder / f"{Path(script).stem}.log"
        self._variables = variables
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        said = self._stack.enter_context(self._log.open("wb"))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": said}
        arguments = [sys.executable, str(HERE / self._script)]
        self._process = self._stack.enter_context(started(arguments, self._variables, **pipes))
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(20)  # it ends by itself when there are no more jobs
        self._stack.close()

    def ask(self, job: Mapping[str, Any], *, look: bool = False) -> tuple[float, float, int, Any]:
        """Give a job; return seconds, processor seconds, the most bytes if they shall be looked at, and the answer.

        Raises
        ------
        ToolFailedError
            If the process ends or does not answer.
        """
        process = self._process
        assert process.stdin is not None  # noqa: S101 - Popen was given pipes
        assert process.stdout is not None  # noqa: S101 - as above
        before = cpu_seconds(process.pid)
        with PeakMemory(process.pid) if look else contextlib.nullcontext() as memory:
            begun = time.monotonic()
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                line = process.stdout.readline() if selector.select(MOST_SECONDS) else b""
            wall = time.monotonic() - begun
        if not line:
            raise ToolFailedError(f"{self._log.stem} gave no answer: {last_words(self._log)}")
        return wall, cpu_seconds(process.pid) - before, memory.bytes if memory else 0, json.loads(line)


class Api(Warm):
    """TotalSegmentator's Python API in a process that stays."""

    def __init__(self, folder: Path, variables: Mapping[str, str], device: str) -> None:
        super().__init__("peers/totalsegmentator_api.py", folder, variables)
        self._folder = folder
        self._device = device

    def run(self, case: Case, *, look: bool = False) -> Run:
        """Label a volume."""
        output = self._folder / f"{case.name}.api.nii.gz"
        arguments = {**case.arguments, "device": self._device}
        job = {"path": str(case.path), "output": str(output), "arguments": arguments}
        wall, cpu, peak, _ = self.ask(job, look=look)
        return Run(wall, cpu, peak, output)


class Ours(Warm):
    """The service's pipeline."""

    def __init__(self, folder: Path, variables: Mapping[str, str], device: str) -> None:
        super().__init__("segment_ours.py", folder, {**variables, "VOXELMILL_SEGMENT_DEVICE": device})
        self._folder = folder

    def run(self, case: Case, *, look: bool = False) -> Run:
        """Label a volume."""
        wall, cpu, peak, answers = self.run_row(case, 1, look=look)
        return Run(wall, cpu, peak, Path(answers[0]["labels"]), answers[0])

    def run_row(self, case: Case, count: int, *, look: bool = False) -> tuple[float, float, int, list[dict[str, Any]]]:
        """Label a volume so many times, as so many messages in the queue."""
        output = self._folder / f"{case.name}.ours"
        job = {"paths": [str(case.path)] * count, "output": str(output), "resolution": case.resolution}
        return self.ask(job, look=look)


def last_words(log: Path) -> str:
    """Return the end of what a tool has said, on one line."""
    return " | ".join(log.read_text(errors="replace").strip().splitlines()[-5:])


def differing(first: Path, second: Path) -> int:
    """Return how many voxels of two label maps are not the same; all of them if the grids are not."""
    one, other = nib.load(first), nib.load(second)  # type: ignore[attr-defined] # nibabel's types do not export it
    if one.shape != other.shape or not np.allclose(one.affine, other.affine, atol=1e-3):
        return int(np.prod(one.shape))
    return int(np.count_nonzero(np.asanyarray(one.dataobj) != np.asanyarray(other.dataobj)))


def write_large(series: Path, path: Path, slices: int) -> tuple[int, ...]:
    """Write a DICOM series as NIfTI, interpolated to so many slices over the same extent; return (x, y, z)."""
    volume = lay_out_volumes(open_images(sorted(series.iterdir()))).layouts[0].read()
    voxels = along_slices(volume.voxels, slices)
    affine = RAS_TO_LPS @ volume.affine
    affine[:3, 2] *= (len(volume.voxels) - 1) / (slices - 1)
    image = nib.Nifti1Image(voxels.T, affine)  # type: ignore[no-untyped-call] # it carries no types
    nib.save(image, path)  # type: ignore[attr-defined] # as above
    return voxels.shape[::-1]


def along_slices(voxels: npt.NDArray[Any], slices: int) -> npt.NDArray[np.int16]:
    """Interpolate a volume linearly to another number of slices; the first and the last stay where they are."""
    result = np.empty((slices, *voxels.shape[1:]), np.int16)
    for number, place in enumerate(np.linspace(0, len(voxels) - 1, slices)):
        below = min(int(place), len(voxels) - 2)
        part = place - below
        result[number] = np.rint(voxels[below] * (1 - part) + voxels[below + 1] * part)
    return result
