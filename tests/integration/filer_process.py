"""A filer's bridge in a process of its own, for tests that kill it.

usage: filer_process.py BROKER_URL DATABASE_URL INBOX_URL FILER LEASE_SECONDS
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

from voxelmill_ingest.duties import Duty
from voxelmill_ingest.service import MIGRATIONS, VERSION_TABLE
from voxelmill_ingest.triggers import filer_bridge
from voxelmill_ingest.triggers.announcer import Announcer
from voxelmill_ingest.triggers.filer_bridge import FilerBridge
from voxelmill_ingest.triggers.filer_stream import FilerStream
from voxelmill_shared.database import open_database
from voxelmill_shared.errors import BrokerUnavailableError
from voxelmill_shared.migrations import upgrade
from voxelmill_shared.storage.connect import open_store
from voxelmill_shared.transport.connect import open_transport
from voxelmill_shared.transport.topology import TOPOLOGY

if TYPE_CHECKING:
    from voxelmill_shared.transport.base import Transport


def main() -> None:
    """Bridge until killed."""
    asyncio.run(bridge(*sys.argv[1:5], float(sys.argv[5])))


async def bridge(broker_url: str, database_url: str, inbox_url: str, filer: str, lease: float) -> None:
    """Do so without the overlap: the cursor alone must see to it that nothing is lost."""
    filer_bridge.OVERLAP = timedelta(0)
    await upgrade(database_url, package=MIGRATIONS, version_table=VERSION_TABLE)
    transport = open_transport(broker_url)
    await _declared(transport)
    stream = FilerStream(filer, f"/buckets/{inbox_url.removeprefix('s3://')}/")
    duty = Duty(open_database(database_url), "bridge", secrets.token_hex(4), timedelta(seconds=lease))
    await FilerBridge(stream, Announcer(open_store(inbox_url), transport, "test"), duty).run()


async def _declared(transport: Transport) -> None:
    """Wait for the broker: it may be just as dead as the bridge before this one."""
    while True:
        try:
            await transport.declare(TOPOLOGY)
        except BrokerUnavailableError:
            await asyncio.sleep(0.1)
        else:
            return


if __name__ == "__main__":
    main()
