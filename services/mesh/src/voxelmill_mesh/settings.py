"""The settings of the mesh service."""

from __future__ import annotations

from pydantic import Field

from voxelmill_shared.settings import SharedSettings


class MeshSettings(SharedSettings):
    """What every service has, and how many series are worked on at a time."""

    mesh_concurrency: int = Field(1, ge=1, le=64, description="child processes, and so series worked on at a time")
