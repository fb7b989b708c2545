"""Wiring: what the mesh service is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from voxelmill_mesh.handler import MeshSeries
from voxelmill_shared.child import ChildPool
from voxelmill_shared.events import SeriesSegmented, Stage
from voxelmill_shared.service import Service, Subscription
from voxelmill_shared.stage import StageResults
from voxelmill_shared.transport.topology import MESH

if TYPE_CHECKING:
    from voxelmill_mesh.settings import MeshSettings
    from voxelmill_shared.parts import Parts


def build(parts: Parts, settings: MeshSettings) -> Service:
    """Build the service from its parts."""
    children = ChildPool(
        "voxelmill_mesh.work:mesh_labels", parts.limits, settings.mesh_concurrency, warm=parts.children_at_start
    )
    handler = MeshSeries(
        results=StageResults(parts.stores, Stage.MESH),
        children=children,
        scratch=parts.scratch,
    )
    return Service(
        name="mesh",
        stage=Stage.MESH,
        subscriptions=(Subscription(MESH, {SeriesSegmented: handler}, prefetch=settings.mesh_concurrency),),
        resources=(children,),
        checks={"results": parts.stores.results.check, "disk": parts.scratch.check},
    )
