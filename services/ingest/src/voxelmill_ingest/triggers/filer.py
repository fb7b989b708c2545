"""The filer's bridge, wired from settings."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import grpc

from voxelmill_ingest.duties import Duty
from voxelmill_ingest.triggers.filer_bridge import FilerBridge
from voxelmill_ingest.triggers.filer_entries import BUCKETS
from voxelmill_ingest.triggers.filer_stream import FilerStream

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from voxelmill_ingest.triggers.announcer import Announcer
    from voxelmill_ingest.triggers.settings import IngestProcessSettings


def build_bridge(settings: IngestProcessSettings, announcer: Announcer, engine: AsyncEngine) -> FilerBridge:
    """Wire the bridge from `settings.seaweedfs_filer` to the announcer; its cursor is kept in the ledger's database."""
    bucket, _, prefix = settings.inbox_url.partition("://")[2].partition("/")
    prefix = prefix.strip("/")
    path = f"{BUCKETS}{bucket}/{prefix}/" if prefix else f"{BUCKETS}{bucket}/"
    return FilerBridge(
        FilerStream(settings.seaweedfs_filer, path, credentials_of(settings)),
        announcer,
        Duty(engine, f"seaweedfs {path}", f"{announcer.producer}/{secrets.token_hex(4)}"),
    )


def credentials_of(settings: IngestProcessSettings) -> grpc.ChannelCredentials | None:
    """Read the certificates that the settings name; None for a filer without TLS."""
    if settings.seaweedfs_filer_ca is None:
        return None
    key, certificate = settings.seaweedfs_filer_key, settings.seaweedfs_filer_cert
    return grpc.ssl_channel_credentials(
        settings.seaweedfs_filer_ca.read_bytes(),
        key.read_bytes() if key else None,
        certificate.read_bytes() if certificate else None,
    )
