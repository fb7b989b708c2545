"""Wiring: what the segment service is made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from voxelmill_segment.devices import devices
from voxelmill_segment.equipment import Equipment
from voxelmill_segment.handler import SegmentSeries
from voxelmill_segment.pipeline import Pipeline
from voxelmill_shared.child import ChildPool
from voxelmill_shared.events import SeriesValidated, Stage
from voxelmill_shared.service import Service, Subscription
from voxelmill_shared.stage import StageResults
from voxelmill_shared.transport.topology import SEGMENT

if TYPE_CHECKING:
    from voxelmill_segment.settings import SegmentSettings
    from voxelmill_shared.parts import Parts


@dataclass(frozen=True, slots=True)
class Targets:
    """What the children call: the phases of reading and writing, and that of computing."""

    helper: str = "voxelmill_segment.work:act"
    device: str = "voxelmill_segment.device:compute"


def build(parts: Parts, settings: SegmentSettings, targets: Targets | None = None) -> Service:
    """Build the service from its parts."""
    targets = targets or Targets()
    names = devices(settings.segment_device, settings.segment_concurrency)
    on_gpu = names[0] != "cpu"
    ahead = settings.segment_ahead if settings.segment_ahead is not None else 1 + on_gpu
    # A machine that is taken away has no time for a child that is in the middle of a part.
    limits = replace(parts.limits, stop_seconds=0.0) if settings.segment_spot else parts.limits

    temporary = parts.scratch.fresh("children")

    def environment(device: str) -> dict[str, str]:
        equipment = Equipment(settings.weights, device, settings.totalsegmentator_license, settings.segment_seg_type)
        # What a library takes for a temporary file holds a patient's voxels: it lies where ours do.
        return {**equipment.environment(), "TMPDIR": str(temporary.absolute())}

    together = not ahead and not on_gpu
    computing = ChildPool(
        targets.helper if together else targets.device,
        replace(limits, watched=on_gpu),
        len(names),
        warm=parts.children_at_start,
        environments=[environment(name) for name in names],
    )
    helping = (
        computing
        if together
        else ChildPool(
            targets.helper,
            limits,
            len(names) * max(1, ahead),
            warm=parts.children_at_start,
            environments=[environment("cpu")],
        )
    )
    pipeline = Pipeline(helping, computing, parts.scratch.hold(temporary), on_gpu=on_gpu)
    handler = SegmentSeries(results=StageResults(parts.stores, Stage.SEGMENT), pipeline=pipeline, scratch=parts.scratch)
    return Service(
        name="segment",
        stage=Stage.SEGMENT,
        subscriptions=(Subscription(SEGMENT, {SeriesValidated: handler}, prefetch=len(names) * (1 + ahead)),),
        resources=(pipeline,),
        checks={
            "inbox": parts.stores.inbox.check,
            "work": parts.stores.work.check,
            "results": parts.stores.results.check,
            "disk": parts.scratch.check,
        },
        grace=timedelta(0) if settings.segment_spot else None,
    )
