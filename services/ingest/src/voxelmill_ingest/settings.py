"""This service's settings, beside those that every service has."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path  # noqa: TC003 - pydantic needs it at run time

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, SecretStr, ValidationInfo, field_validator

from voxelmill_ingest.assembly import Patience
from voxelmill_ingest.deidentify.profile import Option
from voxelmill_ingest.unpack import Bounds
from voxelmill_shared.plan import (
    MODEL_REVISIONS,
    TASK_PATTERN,
    MeshFormat,
    ModelName,
    Organ,
    Plan,
    Quality,
    Resolution,
)
from voxelmill_shared.settings import SharedSettings

COPIED_GRACE = timedelta(seconds=2)
"""A file that is still being copied into a folder is written to more often than that."""
NOTIFIED_GRACE = timedelta(minutes=2)
"""A notification that has not led anywhere by then is late or lost; announcing its object twice does no harm."""

SHORTEST_KEY = 32
"""Characters: 128 bits of a hexadecimal number."""
_CHOICES = (Option.DATES, Option.DESCRIPTORS, Option.DEVICE)


class IngestSettings(SharedSettings):
    """What ingest asks of the stages after it, how long it waits, and what it unpacks."""

    model: ModelName = Field(ModelName.THRESHOLD, description="the segmentation model of every job")
    organ: Organ = Field(Organ.ALL, description="what is segmented")
    quality: Quality = Field(Quality.NORMAL, description="time against fineness")
    reduction_percent: int = Field(90, ge=0, le=99, description="how many of a mesh's triangles are taken away")
    max_error_mm: float | None = Field(
        None,
        gt=0,
        le=100,
        description="how far a mesh may be from the smooth boundary of its voxels, mm; not set: no bound",
    )
    formats: tuple[MeshFormat, ...] = Field(
        Plan().formats, min_length=1, description="JSON list of mesh formats: stl, ply, obj, glb, mz3"
    )
    task: str = Field("", description="the model's task, `lung_vessels`; empty: its usual one, by organ and modality")
    resolution: Resolution | None = Field(
        None, description="the model's working grid, normal, fast or fastest; not set: fast where the quality is fast"
    )
    weights_digest: str = Field(
        "",
        pattern=r"^([0-9a-f]{64}(\+[0-9a-f]{64})*)?$",
        description="the weights that jobs must be computed with (`voxelmill weights digest`); empty: any",
    )

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
    ingest_queue_limit: int = Field(
        100_000,
        ge=0,
        description="the most messages that may wait for ingest before sources are held back; 0: no limit",
    )
    concurrency: PositiveInt = Field(32, description="how many messages are in hand at a time")

    archive_members: PositiveInt = Field(100_000, description="the most members of an archive")
    archive_bytes: PositiveInt = Field(20 << 30, description="the most bytes that an archive may unpack to")
    archive_ratio: PositiveInt = Field(200, description="the most that an archive may unpack to, in times its size")

    ingest_deidentify: str = Field(
        "off", description="off, or basic, with any of +dates, +descriptors and +device: docs/deidentification.md"
    )
    ingest_project: str = Field("default", description="pseudonyms and new UIDs are the same within a project")
    ingest_deidentify_key_file: Path | None = Field(None, description="a file that holds the key")
    ingest_deidentify_key: SecretStr | None = Field(
        None, validate_default=True, description="the secret that pseudonyms are made with: 32 characters or more"
    )

    @field_validator("resolution", "max_error_mm", mode="before")
    @classmethod
    def _none_if_empty(cls, value: object) -> object:
        return None if value == "" else value  # compose files hand on variables that are not set as empty ones

    @field_validator("task")
    @classmethod
    def _a_task(cls, value: str, info: ValidationInfo) -> str:
        if value and info.data.get("model") is ModelName.THRESHOLD:
            raise ValueError("the model threshold has no tasks; set VOXELMILL_MODEL=totalsegmentator, or leave it out")
        if re.fullmatch(TASK_PATTERN, value) is None:
            raise ValueError("no name of a task; `voxelmill weights list` names them")
        return value

    @field_validator("ingest_deidentify")
    @classmethod
    def _a_profile(cls, value: str) -> str:
        value = value.strip().lower() or "off"
        basic, *options = value.split("+")
        if value != "off" and (basic != "basic" or not set(options) <= set(_CHOICES)):
            raise ValueError(f"write off, basic, or basic+{'+'.join(_CHOICES)} with any of the three")
        return value

    @field_validator("ingest_project")
    @classmethod
    def _a_project(cls, value: str) -> str:
        if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", value) is None:
            raise ValueError("write 1 to 64 letters, digits, dots, underscores or hyphens")
        return value

    @field_validator("ingest_deidentify_key_file", mode="before")
    @classmethod
    def _no_file(cls, value: object) -> object:
        return None if value == "" else value  # compose files hand on variables that are not set as empty ones

    @field_validator("ingest_deidentify_key")
    @classmethod
    def _a_key(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if info.data.get("ingest_deidentify", "off") == "off":
            return value
        file: Path | None = info.data.get("ingest_deidentify_key_file")
        key = value.get_secret_value().strip() if value else ""
        if not key and file is not None:
            try:
                key = file.read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                why = error.strerror if isinstance(error, OSError) else "no text"
                raise ValueError(f"{file} cannot be read ({why}); name a file that holds the key") from None
        if not key:
            raise ValueError(
                "de-identification needs the project's key: set it, or name its file in"
                " VOXELMILL_INGEST_DEIDENTIFY_KEY_FILE; `openssl rand -hex 32` makes a new one"
            )
        if len(key) < SHORTEST_KEY:
            raise ValueError(f"shorter than {SHORTEST_KEY} characters; `openssl rand -hex 32` makes a good one")
        return SecretStr(key)

    def deidentify_options(self) -> frozenset[Option] | None:
        """The options of the profile that are on; None if nothing is de-identified."""
        if self.ingest_deidentify == "off":
            return None
        return frozenset({Option.PRIVATE, *(Option(one) for one in self.ingest_deidentify.split("+")[1:])})

    def plan(self) -> Plan:
        """The plan of every job."""
        return Plan(
            model=self.model,
            organ=self.organ,
            quality=self.quality,
            reduction_percent=self.reduction_percent,
            max_error_mm=self.max_error_mm,
            formats=self.formats,
            model_revision=MODEL_REVISIONS[self.model],
            weights_digest=self.weights_digest,
            task=self.task,
            resolution=self.resolution,
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
