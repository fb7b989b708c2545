"""One file through the code of ingest and thumbnail, as a child process does it (`voxelmill_shared.child`).

What ingest refuses goes no further in the product; here it does, for the readers must stand it all the same.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mutants.verdict import Task, Verdict
from voxelmill_ingest.findings import ArchiveFormat, Instance, Refusal
from voxelmill_ingest.inspection import inspect
from voxelmill_ingest.unpack import ArchiveRefusedError, Bounds, UnpackJob, unpack
from voxelmill_shared.events import ObjectKind, ObjectRef
from voxelmill_shared.imaging import read_nifti_volumes, read_volumes
from voxelmill_shared.work import UnsupportedSeriesError, WorkResult
from voxelmill_thumbnail.task import ThumbnailTask
from voxelmill_thumbnail.work import make_thumbnails

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from voxelmill_ingest.ranges import ByteRange
    from voxelmill_shared.imaging import Volume

_MEMBERS = 6
"""How many members of an archive are looked at; all are unpacked."""
MISPLACED_MM = 0.25
"""A voxel that lies further from its place than this, without a word, is a wrong volume."""


def probe(task: Task, report: Callable[[Any], None]) -> Verdict:  # noqa: ARG001 - the child's calling convention
    """Inspect a file, unpack it, draw it, read its volumes."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew (proc(5))
    verdict = Verdict()
    began = time.process_time()
    task.folder.mkdir()
    try:
        _judge(task, verdict)
    finally:
        shutil.rmtree(task.folder)
    verdict.seconds = time.process_time() - began
    status = Path("/proc/self/status").read_text()
    verdict.peak_mib = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    return verdict


def _judge(task: Task, verdict: Verdict) -> None:
    found = _inspected(task.path, task.key)
    if isinstance(found, ArchiveFormat):
        _unpacked(task, found, verdict)
        return
    inner = Verdict()
    if isinstance(found, Refusal):
        verdict.reject(found.reason.value, found.detail)
    else:
        verdict.say(found.warnings)
    _worked_on(task, found, inner)
    verdict.problems += inner.problems if verdict.reason == "" else [one for one in inner.problems if "line" in one]
    if not verdict.reason:
        verdict.outcome = inner.outcome if inner.outcome != "accepted" else verdict.outcome
        verdict.reason = inner.reason


def _inspected(path: Path, key: str) -> Instance | Refusal | ArchiveFormat:
    """Look at a file as ingest's handler does, range by range."""
    size = path.stat().st_size
    reading = inspect(ObjectRef(bucket="mutants", key=key, etag="etag", size=size))
    with path.open("rb") as file:
        return _driven(reading, file.seek, file.read)


def _driven(
    reading: Generator[ByteRange, bytes, Instance | Refusal | ArchiveFormat],
    seek: Callable[[int], int],
    read: Callable[[int], bytes],
) -> Instance | Refusal | ArchiveFormat:
    try:
        wanted = next(reading)
        while True:
            seek(wanted.start)
            wanted = reading.send(read(wanted.length))
    except StopIteration as end:
        found: Instance | Refusal | ArchiveFormat = end.value
        return found


def _unpacked(task: Task, kind: ArchiveFormat, verdict: Verdict) -> None:
    target = task.folder / "members"
    target.mkdir()
    try:
        contents = unpack(UnpackJob(task.path, kind, target, Bounds()), lambda _: None)
    except ArchiveRefusedError as error:
        verdict.reject(error.reason.value, str(error))
        return
    for refused in contents.refused:
        verdict.say((f"{refused.name}: {refused.detail}",))
    for member in contents.members:
        if not member.path.resolve().is_relative_to(target.resolve()) or member.path.is_symlink():
            verdict.problems.append(f"{member.name!r} lies outside of its folder")
    for n, member in enumerate(contents.members[:_MEMBERS]):
        found = _inspected(member.path, f"archives/0/{n}/{member.name}")
        if isinstance(found, Refusal):
            verdict.say((f"{found.reason.value}: {found.detail}",))
        elif isinstance(found, Instance):
            _worked_on(Task(member.path, member.name, task.folder / f"work-{n}"), found, verdict)


def _worked_on(task: Task, found: Instance | Refusal, verdict: Verdict) -> None:
    """Draw it and read its volumes, alone or among the slices that it belongs to."""
    by_name = ObjectKind.NIFTI if ".nii" in task.key else ObjectKind.DICOM
    kind = found.kind if isinstance(found, Instance) else by_name
    paths = (task.path, *task.beside)
    work = WorkResult(())
    try:
        work = make_thumbnails(ThumbnailTask(paths, kind, "CT", task.folder / "pictures"), lambda _: None)
        verdict.say(work.warnings)
        for file in work.files:
            if not file.path.stat().st_size:
                verdict.problems.append(f"{file.name} is empty")
    except UnsupportedSeriesError as error:
        verdict.reject(error.code, str(error))
    try:
        if kind is ObjectKind.NIFTI:
            for _ in zip(range(3), read_nifti_volumes(task.path), strict=False):
                pass
            return
        read = read_volumes(paths)
    except UnsupportedSeriesError as error:
        verdict.say((str(error),))
        return
    said = [*(line for volume in read.volumes for line in volume.warnings), *(rest.reason for rest in read.left_out)]
    verdict.say(tuple(said))
    if isinstance(found, Instance) and task.source is not None and task.beside:
        _compare(read.volumes[0], {*said, *work.warnings, *found.warnings}, task.source, task.beside, verdict)


def _compare(volume: Volume, said: set[str], source: Path, beside: tuple[Path, ...], verdict: Verdict) -> None:
    """See that a volume of which nothing is said that is not said of the sound files lies where theirs lies."""
    sound = _sound(source, beside)
    if sound is None or sound[0] != volume.voxels.shape or _nameless(said) - sound[2]:
        return
    slices, rows, columns = sound[0]
    corners = np.array([[i, j, k, 1] for i in (0, columns - 1) for j in (0, rows - 1) for k in (0, slices - 1)])
    apart = float(np.linalg.norm((corners @ (volume.affine - sound[1]).T)[:, :3], axis=1).max())
    if not apart <= MISPLACED_MM:
        verdict.problems.append(f"voxels lie up to {apart:.2f} mm from their place, and nothing is said")


@lru_cache(maxsize=256)
def _sound(source: Path, beside: tuple[Path, ...]) -> tuple[tuple[int, ...], Any, frozenset[str]] | None:
    """Return the volume's size, its affine and what is said of it; none if there is none, or are several."""
    try:
        read = read_volumes((source, *beside))
    except UnsupportedSeriesError:
        return None
    found = _inspected(source, source.name)
    if len(read.volumes) != 1 or read.left_out or not isinstance(found, Instance):
        return None
    with tempfile.TemporaryDirectory() as folder:
        task = ThumbnailTask((source, *beside), ObjectKind.DICOM, "CT", Path(folder) / "pictures")
        said = {*make_thumbnails(task, lambda _: None).warnings, *read.volumes[0].warnings, *found.warnings}
    return read.volumes[0].voxels.shape, read.volumes[0].affine, frozenset(_nameless(said))


def _nameless(lines: set[str]) -> set[str]:
    """Leave out of the lines which instance they are about."""
    return {line.partition(": ")[2] if line.startswith("instance") else line for line in lines}
