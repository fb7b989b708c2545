"""The segment service's pipeline, wired as the service wires it, job after job; `segment` and `segment_real_size` ask.

A job is a JSON line with `paths` of NIfTI files, a folder `output`, and a `resolution`. All paths are handed over at
once, and as many are in hand at a time as the broker would have given. The answer has, by path, where the label map is
and the seconds of each step.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxelmill_segment.pipeline import Pipeline
from voxelmill_segment.service import build
from voxelmill_segment.settings import SegmentSettings
from voxelmill_segment.task import SegmentTask
from voxelmill_shared.events import ObjectKind
from voxelmill_shared.parts import open_parts
from voxelmill_shared.plan import ModelName, Plan, Resolution

if TYPE_CHECKING:
    from collections.abc import Mapping


def task_of(path: Path, output: Path, resolution: str) -> SegmentTask:
    """Return what the service would be asked for."""
    return SegmentTask(
        paths=(path,),
        kind=ObjectKind.NIFTI,
        modality="",
        plan=Plan(model=ModelName.TOTALSEGMENTATOR, resolution=Resolution(resolution)),
        output=output,
        study_instance_uid="2.25.1",
        series_instance_uid="2.25.2",
        sop_instance_uids=("2.25.3",),
        sop_class_uids=("",),
    )


async def answer(job: Mapping[str, Any], pipeline: Pipeline, in_hand: asyncio.Semaphore) -> list[dict[str, Any]]:
    """Segment the volumes of a job."""

    async def one(number: int, path: str) -> dict[str, Any]:
        async with in_hand:
            output = Path(job["output"]) / str(number)
            result, _ = await pipeline.segment(task_of(Path(path), output, job["resolution"]), lambda _: None)
        return {
            "labels": str(next(file.path for file in result.files if file.name.endswith("labelmap.nii.gz"))),
            "seconds": result.seconds,
            "device_seconds": result.measurements["made_with"]["device_seconds"],
            "device": result.measurements["made_with"]["device"],
            "warnings": list(result.warnings),
        }

    return list(await asyncio.gather(*(one(number, path) for number, path in enumerate(job["paths"]))))


async def serve(folder: Path) -> None:
    """Answer jobs until there are none."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    settings = SegmentSettings(
        broker_url=f"embedded:{folder}/broker.db",
        inbox_url=str(folder / "inbox"),
        work_url=str(folder / "work"),
        results_url=str(folder / "results"),
        scratch=folder / "scratch",
    )
    async with open_parts(settings) as parts:
        parts.scratch.root.mkdir(parents=True)
        service = build(parts, settings)
        (pipeline,) = (resource for resource in service.resources if isinstance(resource, Pipeline))
        in_hand = asyncio.Semaphore(service.subscriptions[0].prefetch)
        async with pipeline:
            while line := await asyncio.to_thread(sys.stdin.readline):
                answers.write(json.dumps(await answer(json.loads(line), pipeline, in_hand)) + "\n")
                answers.flush()


def main() -> None:
    """Open the pipeline in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="voxelmill-bench-") as name:
        asyncio.run(serve(Path(name)))


if __name__ == "__main__":
    main()
