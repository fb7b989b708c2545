"""Does a worker stay as it is, series after series? And how much of the time is its device at work?

Many series in a row through one worker of the segment service, on the embedded broker and folders: the same small
phantom under another name each time, so that nothing of it is known. After each one the memory of the service's process
and of each of its children is read (what is their own of it: anonymous pages), and their open files are counted. The
slope is that of a straight line through the second half of the series, when caches are full: MiB for 100 series.

The busy share is the device's time over all time, from the first series' end to the last one's; at most 1, though the
second series is computed while the first is written. TotalSegmentator has its lowest resolution on a processor.

usage: python bench/soak.py [threshold] [totalsegmentator]     (VOXELMILL_BENCH_CASES=100, VOXELMILL_SEGMENT_DEVICE=cpu)

Without arguments: both models, where TotalSegmentator is installed; with the tiny weights of the tests, or those in
VOXELMILL_WEIGHTS.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pydicom

from report import Aim, end, table
from voxelmill_cli.phantom import PhantomPlan, make_phantom
from voxelmill_cli.phantom_dicom import write_series
from voxelmill_segment.service import build
from voxelmill_segment.settings import SegmentSettings
from voxelmill_segment.totalsegmentator.library import installed_version
from voxelmill_shared import logs
from voxelmill_shared.child import anonymous_bytes
from voxelmill_shared.events import DocumentRef, Envelope, Evidence, ObjectKind, ObjectRef, SeriesValidated, Stage
from voxelmill_shared.parts import open_parts
from voxelmill_shared.plan import ModelName, Plan, Quality, Resolution
from voxelmill_shared.results import ManifestInstance, ResultKeys, SeriesManifest, StageRecord
from voxelmill_shared.transport.base import Message
from voxelmill_shared.transport.topology import TOPOLOGY
from voxelmill_shared.worker import Settled, Worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voxelmill_shared.parts import Parts

CASES = int(os.environ.get("VOXELMILL_BENCH_CASES", "100"))
DEVICE = os.environ.get("VOXELMILL_SEGMENT_DEVICE", "cpu")
TINY = Path(__file__).parents[1] / "tests" / "weights"
MIB = 1 << 20
PHANTOM = PhantomPlan(rows=96, columns=96, slices=48, pixel_mm=4.0, slice_mm=6.0)


@dataclass(slots=True)
class Look:
    """What was seen of the worker after a series: when, and by process its bytes and open files."""

    at: float
    memory: dict[int, int]
    files: dict[int, int]


@dataclass(slots=True)
class Soak:
    """An observer that looks at the worker whenever a series is done, and knows when all are."""

    looks: list[Look] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, what: object) -> None:
        """Be told by the worker."""
        if not isinstance(what, Settled):
            return
        if what.outcome != "done":
            self.failures.append(f"{what.outcome}: {what.reason}")
        processes = [os.getpid(), *children(os.getpid())]
        memory = {pid: used for pid in processes if (used := anonymous_bytes(pid)) is not None}
        self.looks.append(Look(time.monotonic(), memory, {pid: open_files(pid) for pid in memory}))
        if len(self.looks) >= CASES or self.failures:
            self.done.set()


def children(pid: int) -> list[int]:
    """Return the children of a process that has one thread that starts them."""
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def open_files(pid: int) -> int:
    """Count a process' file handles."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def slope(values: Sequence[float]) -> float:
    """Return the rise for 100 series of the straight line through the second half."""
    late = np.asarray(values[len(values) // 2 :], float)
    return float(np.polyfit(np.arange(len(late)), late, 1)[0]) * 100 if len(late) > 1 else 0.0


async def announce(parts: Parts, paths: Sequence[Path], plan: Plan) -> list[SeriesValidated]:
    """Lay the series down once, and announce it as many times under other names."""
    instances = []
    for path in paths:
        stored = await parts.stores.inbox.write_file(f"ct/{path.name}", path, "application/dicom")
        reference = ObjectRef(bucket="inbox", key=stored.key, etag=stored.etag, size=stored.size)
        uid = str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)
        instances.append(ManifestInstance(object=reference, sop_instance_uid=uid))
    events = []
    for number in range(CASES):
        keys = ResultKeys(f"2.25.{1000 + number}", 1, f"job-{number}")
        manifest = SeriesManifest(
            study_instance_uid="2.25.1",
            series_instance_uid=keys.series_instance_uid,
            revision=1,
            job_id=keys.job_id,
            modality="CT",
            kind=ObjectKind.DICOM,
            plan=plan,
            instances=tuple(instances),
        )
        document = await parts.stores.results.write(keys.manifest, manifest.to_json(), "application/json")
        events.append(
            SeriesValidated(
                study_instance_uid=manifest.study_instance_uid,
                series_instance_uid=manifest.series_instance_uid,
                revision=1,
                job_id=keys.job_id,
                modality="CT",
                instances=len(instances),
                manifest=DocumentRef(key=document.key, sha256=document.sha256),
                plan=plan,
                evidence=Evidence.UPLOAD,
            )
        )
    envelopes = [Envelope.wrap(event, "bench") for event in events]
    await parts.transport.declare(TOPOLOGY)
    await parts.transport.publish([Message(one.encode(), one.routing_key, str(one.id)) for one in envelopes])
    return events


async def device_seconds(parts: Parts, events: Sequence[SeriesValidated]) -> list[float]:
    """Return how long each series had the device."""
    found = []
    for event in events:
        body = await parts.stores.results.read(ResultKeys.of(event).stage_record(Stage.SEGMENT))
        found.append(float(StageRecord.model_validate_json(body).measurements["made_with"]["device_seconds"]))
    return found


async def soak(model: ModelName, folder: Path, paths: Sequence[Path]) -> dict[str, float]:
    """Run the series and take the figures."""
    settings = SegmentSettings(
        broker_url=f"embedded://{folder}/broker.db",
        inbox_url=str(folder / "inbox"),
        work_url=str(folder / "work"),
        results_url=str(folder / "results"),
        scratch=folder / "scratch",
        weights=Path(os.environ.get("VOXELMILL_WEIGHTS", TINY)),
        segment_device=DEVICE,
    )
    resolution = Resolution.FASTEST if DEVICE == "cpu" and model is ModelName.TOTALSEGMENTATOR else None
    plan = Plan(model=model, quality=Quality.FAST, resolution=resolution)
    seen, stop = Soak(), asyncio.Event()
    async with open_parts(settings) as parts:
        events = await announce(parts, paths, plan)
        worker = Worker(
            build(parts, settings),
            parts.transport,
            ladder=settings.waits(),
            grace=timedelta(seconds=5),
            observers=[seen],
            patient=False,
        )
        running = asyncio.create_task(worker.run(stop))
        waiting = asyncio.create_task(seen.done.wait())
        await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        stop.set()
        await running
        if seen.failures:
            raise SystemExit(f"{model}: {seen.failures[0]}")
        busy = await device_seconds(parts, events)
    pids = seen.looks[-1].memory
    wall = seen.looks[-1].at - seen.looks[0].at  # without the first, which loads everything
    late = [look for look in seen.looks if set(pids) <= set(look.memory)]
    return {
        "seconds_per_case": wall / (CASES - 1),
        "device_seconds_per_case": statistics.median(busy),
        "busy_share": min(1.0, sum(busy[1:]) / wall),
        "mib_per_100": max(slope([look.memory[pid] / MIB for look in late]) for pid in pids),
        "handles_per_100": max(slope([look.files[pid] for look in late]) for pid in pids),
        "service_mib": pids[os.getpid()] / MIB,
        "children": len(pids) - 1,
        "children_mib": sum(used for pid, used in pids.items() if pid != os.getpid()) / MIB,
    }


def main() -> None:
    """Run the models that were asked for and print the figures."""
    logs.configure("WARNING")
    if CASES < 4:
        raise SystemExit("VOXELMILL_BENCH_CASES: a slope needs at least 4")
    models = [ModelName(name) for name in sys.argv[1:]] or list(ModelName)
    if ModelName.TOTALSEGMENTATOR in models and installed_version() is None:
        print("not run: totalsegmentator, which is not installed here")
        models.remove(ModelName.TOTALSEGMENTATOR)
    figures: dict[str, object] = {"cases": CASES, "device": DEVICE, "phantom": [PHANTOM.slices, PHANTOM.rows]}
    aims, rows = {}, []
    with tempfile.TemporaryDirectory(prefix="voxelmill-bench-") as name:
        paths = write_series(Path(name) / "series", make_phantom(PHANTOM))
        for model in models:
            told = asyncio.run(soak(model, Path(name) / model, paths))
            figures[model] = {key: round(value, 3) for key, value in told.items()}
            aims[f"{model}_mib_per_100"] = Aim(told["mib_per_100"], 10.0, at_most=True)
            aims[f"{model}_handles_per_100"] = Aim(told["handles_per_100"], 0.5, at_most=True)
            if DEVICE != "cpu":
                aims[f"{model}_busy_share"] = Aim(told["busy_share"], 0.85, at_most=False)
            rows.append([model, *(f"{value:.2f}" for value in told.values())])
    table(["model", *told], rows)
    end("soak", aims, figures)


if __name__ == "__main__":
    main()
