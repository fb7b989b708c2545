"""Wiring: what the segment service is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from voxelmill_segment.handler import SegmentSeries
from voxelmill_shared.child import ChildPool
from voxelmill_shared.events import SeriesValidated, Stage
from voxelmill_shared.service import Service, Subscription
from voxelmill_shared.stage import StageResults
from voxelmill_shared.transport.topology import SEGMENT

if TYPE_CHECKING:
    from voxelmill_segment.settings import SegmentSettings
    from voxelmill_shared.parts import Parts


def build(parts: Parts, settings: SegmentSettings) -> Service:
    """Build the service from its parts."""
    children = ChildPool(
        "voxelmill_segment.work:segment_series",
        parts.limits,
        settings.segment_concurrency,
        warm=parts.children_at_start,
    )
    handler = SegmentSeries(
        results=StageResults(parts.stores, Stage.SEGMENT),
        children=children,
        scratch=parts.scratch,
    )
    return Service(
        name="segment",
        stage=Stage.SEGMENT,
        subscriptions=(Subscription(SEGMENT, {SeriesValidated: handler}, prefetch=settings.segment_concurrency),),
        resources=(children,),
        checks={"results": parts.stores.results.check},
    )
