"""How AWS's library is used: what it tries again, how long it waits, and what all clients of a process share."""

from __future__ import annotations

from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from voxelmill_shared.storage.s3_descriptions import descriptions


def client_config(
    *, path_style: bool, tries: int, connect_seconds: float, read_seconds: float, connections: int
) -> AioConfig:
    """Configure a client of S3; see `S3Store` for the parameters.

    "standard" tries again, after waits that grow and are random, what broke on its way, 5xx and throttling. All that a
    store asks for may be asked for twice: reads, puts of the same bytes, parts, deletions. The one exception is the
    end of an upload in parts, whose answer may have been lost: `s3_upload` looks what stands.
    """
    return AioConfig(
        signature_version="s3v4",
        retries={"mode": "standard", "total_max_attempts": tries},
        connect_timeout=connect_seconds,
        read_timeout=read_seconds,
        max_pool_connections=connections,
        s3={"addressing_style": "path" if path_style else "virtual"},
        # The newer checksums are not understood by older servers (Ceph 16); we send Content-MD5 ourselves, and ask
        # for a checksum only where the ETag does not do.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )


def new_session() -> Any:
    """Return a session with credentials of its own, for the environment may have changed.

    What it knows of the services' interfaces is shared by all sessions of the process.
    """
    session = get_session()
    session.register_component("data_loader", descriptions())
    return session
