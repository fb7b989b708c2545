"""This service's settings, beside those that every service has."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from voxelmill_ingest.assembly import Patience
from voxelmill_ingest.unpack import Bounds
from voxelmill_shared.plan import MeshFormat, ModelName, Organ, Plan, Quality
from voxelmill_shared.settings import SharedSettings

COPIED_GRACE = timedelta(seconds=2)
"""A file that is still being copied into a folder is written to more often than that."""
NOTIFIED_GRACE = timedelta(minutes=2)
"""A notification that has not led anywhere by then is late or lost; announcing its object twice does no harm."""


class IngestSettings(SharedSettings):
    """What ingest asks of the stages after it, how long it waits, and what it unpacks."""

    model: ModelName = Field(ModelName.THRESHOLD, description="the segmentation model of every job")
    organ: Organ = Field(Organ.ALL, description="what is segmented")
    quality: Quality = Field(Quality.NORMAL, description="time against fineness")
    reduction_percent: int = Field(90, ge=0, le=99, description="how many of a mesh's triangles are taken away")
    formats: tuple[MeshFormat, ...] = Field(tuple(MeshFormat), min_length=1, description="JSON list of mesh formats")

    geometry_seconds: PositiveFloat = Field(5.0, description="how long a series without gaps stays open")
    quiet_seconds: PositiveFloat = Field(30.0, description="how long any other series stays open")
    upload_seconds: PositiveFloat = Field(60.0, description="how long a series waits for its upload to be completed")
    regular_slices: PositiveInt = Field(10, description="how many evenly spaced slices say that there are no gaps")
    lease_seconds: PositiveFloat = Field(60.0, description="how long a replica holds a series that it completes")
    reconcile_seconds: NonNegativeFloat = Field(
        0.0, description="the pause between two listings of the inbox, for what no notification told of; 0: never"
    )
    reconcile_grace_seconds: NonNegativeFloat | None = Field(
        None, description="how old an object must be for that; if not set 2, or 120 where notifications are listened to"
    )
    concurrency: PositiveInt = Field(32, description="how many messages are in hand at a time")

    archive_members: PositiveInt = Field(100_000, description="the most members of an archive")
    archive_bytes: PositiveInt = Field(20 << 30, description="the most bytes that an archive may unpack to")
    archive_ratio: PositiveInt = Field(200, description="the most that an archive may unpack to, in times its size")

    def plan(self) -> Plan:
        """The plan of every job."""
        return Plan(
            model=self.model,
            organ=self.organ,
            quality=self.quality,
            reduction_percent=self.reduction_percent,
            formats=self.formats,
        )

    def patience(self) -> Patience:
        """How long series stay open."""
        return Patience(
            geometry=timedelta(seconds=self.geometry_seconds),
            quiet=timedelta(seconds=self.quiet_seconds),
            upload=timedelta(seconds=self.upload_seconds),
            regular_slices=self.regular_slices,
        )

    def sources(self) -> tuple[str, ...]:
        """The sources of notifications that are on, by their names in the metrics."""
        return ()

    def reconcile_grace(self) -> timedelta:
        """How old an object must be to be announced by the reconciler."""
        given = self.reconcile_grace_seconds
        if given is not None:
            return timedelta(seconds=given)
        return NOTIFIED_GRACE if self.sources() else COPIED_GRACE

    def bounds(self) -> Bounds:
        """How much an archive may hold."""
        return Bounds(self.archive_members, self.archive_bytes, self.archive_ratio)
