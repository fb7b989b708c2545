"""The settings of the gateway."""

from __future__ import annotations

from pydantic import Field, PositiveFloat

from voxelmill_gateway.access.settings import AccessSettings


class GatewaySettings(AccessSettings):
    """What every service has, and who may do what; `host` and `port` are the gateway's own door."""

    port: int = Field(8000, ge=0, le=65535, description="the port of the HTTP door; 0 takes a free one and logs it")
    gateway_url: str = Field(
        "",
        pattern=r"^(https?://[^\s/?#@]+(/[^\s?#]*)?)?$",
        description="how clients call the gateway, https://name, where DICOMweb's answers name addresses; by default as"
        " each request does, which a proxy must then pass on",
    )
    gateway_children: int = Field(
        2, ge=1, le=64, description="how many processes decode frames and volumes for viewers"
    )
    gateway_headers_mib: int = Field(64, ge=1, description="how much metadata of instances is kept in memory, in MiB")
    gateway_volumes_mib: int = Field(
        2048, ge=0, description="how much of the scratch disk volumes for the viewer may take, in MiB"
    )
    gateway_redirect: bool = Field(
        True,
        description="whether result files in a bucket are fetched from there, by addresses that hold for five minutes;"
        " off where the callers do not reach the object store",
    )
    gateway_events_seconds: PositiveFloat = Field(
        1.0, description="how often the catalog is asked for news while somebody listens to GET /events"
    )
    gateway_upload_direct: bool = Field(
        True,
        description="whether clients write straight into a bucket, by presigned addresses; off where they do not reach"
        " the object store: then all goes through the gateway",
    )
    gateway_upload_files: int = Field(20_000, ge=1, le=20_000, description="the most files of one upload")
    gateway_upload_idle_seconds: PositiveFloat = Field(
        86_400.0, description="after how long that nobody sees to it an upload is aborted and what has come is removed"
    )
    gateway_upload_sweep_seconds: PositiveFloat = Field(
        300.0, description="how often the gateway looks for such uploads"
    )
    gateway_upload_url_seconds: int = Field(
        6 * 3600, ge=60, le=7 * 86_400, description="how long presigned addresses of uploads hold"
    )
