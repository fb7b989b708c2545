"""The settings of the index service."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from voxelmill_shared.settings import SharedSettings


class IndexSettings(SharedSettings):
    """What index needs beyond what every service needs."""

    model_config = SettingsConfigDict(env_prefix="VOXELMILL_", frozen=True, extra="ignore")

    index_prefetch: int = Field(32, ge=1, le=1000, description="how many events may be in hand at a time")
