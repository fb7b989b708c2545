"""Phases that a test steps through: what the children of a pipeline are called with in `test_pipeline`.

A folder is the stage: every phase leaves a file that says it has begun, and a computation goes on until the test puts
the file that lets it go. So what overlaps is seen, whatever the clock says.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from voxelmill_segment.labels import LUNG_LEFT
from voxelmill_segment.segmenter import ModelRefusedError
from voxelmill_segment.task import Admission, Completion, Computed, Preparation, Prepared, StoredVolume
from voxelmill_shared.work import NotApplicableError, OutputFile, Progress, WorkResult

if TYPE_CHECKING:
    from pathlib import Path

    from voxelmill_segment.task import Computation
    from voxelmill_shared.work import Report

SHAPE = (2, 3, 4)


def note(folder: Path, name: str) -> None:
    """Leave a mark; who left it stands in it."""
    temporary = folder / f".{name}-{os.getpid()}"
    temporary.write_text(json.dumps({"pid": os.getpid(), "device": os.environ.get("VOXELMILL_SEGMENT_DEVICE", "")}))
    temporary.rename(folder / name)


def act(request: Admission | Preparation | Completion | Computation, report: Report) -> object:
    """Do any phase."""
    if isinstance(request, Admission):
        return None
    if isinstance(request, Preparation):
        return prepare(request, report)
    if isinstance(request, Completion):
        return finish(request, report)
    return compute(request, report)


def prepare(request: Preparation, report: Report) -> Prepared | None:
    folder = request.task.paths[0].resolve().parent
    report("read")
    shape = (SHAPE[0], SHAPE[1], SHAPE[2] - len(request.refused))
    if shape[2] <= 2:
        return None
    note(folder, f"prepared-{len(request.refused)}")
    volume = StoredVolume(folder / "volume", shape, (), "CT", "", (), (), (), "")
    return Prepared(volume, (), {"read": 0.0})


def compute(request: Computation, report: Report) -> Computed:
    folder = request.volume.voxels.parent
    note(folder, "computing")
    word = (folder / "word").read_text() if (folder / "word").exists() else "wait"
    os.close(tempfile.mkstemp()[0])  # as libraries do, and a child that is killed in the end cannot remove it
    if word == "break":
        raise ModelRefusedError("the model gave no numbers")
    if word == "refuse":
        raise NotApplicableError(f"no meaning for {request.volume.shape[2]} columns")
    accidents = {
        "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
        "exit": lambda: sys.exit(3),
        "allocate": lambda: len(bytearray(1 << 40)),
        "hang": lambda: time.sleep(600),
    }
    if word in accidents:
        (folder / "word").write_text("go")  # once: the next attempt does well
        accidents[word]()
    number = 0
    while word != "go" and not (folder / "go").exists():
        number += 1
        report(Progress("predict", number, 1 << 30))
        time.sleep(0.002)
    note(folder, "computed")
    return Computed(folder / "labels", (LUNG_LEFT,), (), "test 1", {"predict": 0.0})


def finish(request: Completion, report: Report) -> WorkResult:
    folder = request.prepared.volume.voxels.parent
    report("write")
    note(folder, "finishing")
    while (folder / "hold").exists():
        time.sleep(0.002)
    path = request.task.output / "labels.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"labels")
    note(folder, "finished")
    facts = asdict(request.computed.segments[0])
    return WorkResult((OutputFile("segmentation/labels.bin", path, "application/octet-stream"),), {}, {"first": facts})
