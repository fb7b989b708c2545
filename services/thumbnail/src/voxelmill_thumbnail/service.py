"""Wiring: what the thumbnail service is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from voxelmill_shared.child import ChildPool
from voxelmill_shared.events import SeriesValidated, Stage
from voxelmill_shared.service import Service, Subscription
from voxelmill_shared.stage import StageResults
from voxelmill_shared.transport.topology import THUMBNAIL
from voxelmill_thumbnail.handler import ThumbnailSeries

if TYPE_CHECKING:
    from voxelmill_shared.parts import Parts
    from voxelmill_thumbnail.settings import ThumbnailSettings


def build(parts: Parts, settings: ThumbnailSettings) -> Service:
    """Build the service from its parts."""
    children = ChildPool(
        "voxelmill_thumbnail.work:make_thumbnails",
        parts.limits,
        settings.thumbnail_concurrency,
        warm=parts.children_at_start,
    )
    handler = ThumbnailSeries(
        results=StageResults(parts.stores, Stage.THUMBNAIL),
        children=children,
        scratch=parts.scratch,
    )
    return Service(
        name="thumbnail",
        stage=Stage.THUMBNAIL,
        subscriptions=(Subscription(THUMBNAIL, {SeriesValidated: handler}, prefetch=settings.thumbnail_concurrency),),
        resources=(children,),
        checks={
            "inbox": parts.stores.inbox.check,
            "work": parts.stores.work.check,
            "results": parts.stores.results.check,
            "disk": parts.scratch.check,
        },
    )
