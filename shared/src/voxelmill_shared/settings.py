"""The settings that every service has. All come from `VOXELMILL_*` environment variables, the same names everywhere."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path

from pydantic import Field, PositiveFloat, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from voxelmill_shared.database_limits import DEFAULT_LIMITS, DatabaseLimits
from voxelmill_shared.transport.topology import DEFAULT_LADDER


class SharedSettings(BaseSettings):
    """Where the broker, the stores and the database are, and how a service behaves.

    The defaults need no server: everything under `./voxelmill-data`.
    """

    model_config = SettingsConfigDict(env_prefix="VOXELMILL_", frozen=True, extra="ignore", allow_inf_nan=False)

    broker_url: str = Field("embedded:voxelmill-data/broker.db", description="embedded:///path or amqp://…")
    inbox_url: str = Field(
        "voxelmill-data/inbox", description="where users put objects: a folder or s3://bucket/prefix"
    )
    work_url: str = Field("voxelmill-data/work", description="what ingest unpacks from archives")
    results_url: str = Field("voxelmill-data/results", description="where results are written")
    database_url: str = Field("sqlite:///voxelmill-data/voxelmill.db", description="sqlite:///path or postgresql://…")
    database_pool_size: int = Field(
        DEFAULT_LIMITS.connections,
        ge=1,
        le=1000,
        description="the most connections of one process to PostgreSQL, whose max_connections bounds all together",
    )
    database_pool_seconds: PositiveFloat = Field(
        DEFAULT_LIMITS.wait_seconds, description="how long work waits for one of these connections"
    )
    database_connect_seconds: PositiveFloat = Field(
        DEFAULT_LIMITS.connect_seconds, description="how long a new connection may take"
    )
    database_statement_seconds: PositiveFloat = Field(
        DEFAULT_LIMITS.statement_seconds, description="how long one statement may take"
    )
    scratch: Path = Field(
        default_factory=lambda: Path(tempfile.gettempdir()) / "voxelmill",
        description="local folder for work in progress; what a killed process left there is removed at the next start",
    )
    scratch_free_mib: int = Field(
        512, ge=0, description="how much of its disk must be free for new work to begin; 0: nobody looks"
    )
    cache: Path | None = Field(
        None,
        description="local folder in which downloaded inputs stay for the next stage and the next run; services on one "
        "machine may share it; VOXELMILL_SCRATCH/cache if unset",
    )
    cache_bytes: int = Field(10 << 30, ge=0, description="the most bytes that it keeps; 0: nothing is kept")
    store_connections: int = Field(64, ge=1, le=1024, description="how many requests to one S3 store run at a time")
    ladder: tuple[PositiveFloat, ...] = Field(
        default_factory=lambda: tuple(rung.total_seconds() for rung in DEFAULT_LADDER),
        min_length=1,
        description="JSON list of the waits between attempts, in seconds",
    )
    grace_seconds: PositiveFloat = Field(25.0, description="how long SIGTERM waits for work in hand")
    progress_seconds: PositiveFloat = Field(2.0, description="the least time between two job.progressed of one job")
    host: str = Field("127.0.0.1", description="the address that /healthz, /readyz and /metrics listen on")
    port: int = Field(0, ge=0, le=65535, description="their port; 0 takes a free one and logs it")
    log_level: str = "INFO"
    child_memory_mib: int = Field(8192, ge=512, description="the most memory that one piece of work may use")
    children_at_start: bool = Field(
        False, description="whether a child process starts with the service instead of with its first work"
    )
    child_seconds: PositiveFloat = Field(1800.0, description="the longest that one piece of work may take")

    @field_validator("log_level")
    @classmethod
    def _upper(cls, value: str) -> str:
        return value.upper()

    def cache_folder(self) -> Path:
        """The folder of the download cache."""
        return self.cache or self.scratch / "cache"

    def database_limits(self) -> DatabaseLimits:
        """The bounds of the database's engine."""
        return DatabaseLimits(
            self.database_pool_size,
            self.database_pool_seconds,
            self.database_connect_seconds,
            self.database_statement_seconds,
        )

    def waits(self) -> tuple[timedelta, ...]:
        """The ladder as durations."""
        return tuple(timedelta(seconds=seconds) for seconds in self.ladder)
