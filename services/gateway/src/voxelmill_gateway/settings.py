"""The settings of the gateway."""

from __future__ import annotations

from pydantic import Field

from voxelmill_shared.settings import SharedSettings


class GatewaySettings(SharedSettings):
    """What every service has; `host` and `port` are the gateway's own door."""

    port: int = Field(8000, ge=0, le=65535, description="the port of the HTTP door; 0 takes a free one and logs it")
