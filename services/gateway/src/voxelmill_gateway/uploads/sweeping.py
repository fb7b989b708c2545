"""Ending uploads that nobody sees to any more, and removing what is left of those that were aborted.

Any number of gateways may do so: what one of them has done, the others find done.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog

from voxelmill_gateway.uploads import rows
from voxelmill_gateway.uploads.model import UploadState
from voxelmill_gateway.uploads.sessions import Sessions
from voxelmill_shared.database import reading, transaction
from voxelmill_shared.errors import TransientError

if TYPE_CHECKING:
    from voxelmill_gateway.gateway import Gateway
    from voxelmill_gateway.uploads.model import Upload

log = structlog.get_logger("voxelmill")

_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True)
class Sweep:
    """Works in the background of a gateway."""

    gate: Gateway

    async def run(self) -> None:
        """Sweep again and again until cancelled; an outage of store or database is waited for."""
        while True:
            try:
                await self.once()
            except TransientError as error:
                log.warning("uploads.sweep-waits", error_class=error.error_class, reason=str(error))
            await asyncio.sleep(self.gate.settings.gateway_upload_sweep_seconds)

    async def once(self, now: datetime | None = None) -> int:
        """Abort what is idle, and clear what was aborted; return how many uploads that were.

        What was aborted is cleared once more when the last address that somebody may have got for it has ended: he may
        have written by it until then.
        """
        now = now or datetime.now(UTC)
        settings = self.gate.settings
        since = now - timedelta(seconds=settings.gateway_upload_idle_seconds)
        async with reading(self.gate.engine) as connection:
            idle = await rows.idle(connection, since, _AT_ONCE)
        for upload in idle:
            await self._abort(upload, now, since)
        async with reading(self.gate.engine) as connection:
            left = await rows.uncleared(
                connection, now - timedelta(seconds=settings.gateway_upload_url_seconds), _AT_ONCE
            )
        for upload in left:
            await self._clear(upload)
        return len({upload.upload_id for upload in (*idle, *left)})

    async def _abort(self, upload: Upload, now: datetime, since: datetime) -> None:
        async with transaction(self.gate.engine) as connection:
            mine = await rows.close(connection, upload.upload_id, UploadState.ABORTED, now, before=since)
            files = await rows.files_of(connection, upload.upload_id) if mine else []
        if mine:
            log.info("uploads.aborted", upload_id=upload.upload_id, files=len(files), reason="nobody saw to it")
            await Sessions(self.gate).inbox.discard(upload, files)

    async def _clear(self, upload: Upload) -> None:
        async with reading(self.gate.engine) as connection:
            files = await rows.files_of(connection, upload.upload_id)
        await Sessions(self.gate).inbox.discard(upload, files)
        async with transaction(self.gate.engine) as connection:
            await rows.forget_files(connection, upload.upload_id)
