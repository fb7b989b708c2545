"""What the tests of STOW-RS share: instances, bodies, and what the gateway has written down of them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from unit.ingest.dicom_objects import dataset, encoded
from voxelmill_gateway.tables import OUTBOX, UPLOADS
from voxelmill_shared.database import reading
from voxelmill_shared.events import Envelope, Event, open_envelope

if TYPE_CHECKING:
    from collections.abc import Callable

    from voxelmill_gateway.gateway import Gateway

STUDY, SERIES = "1.2.3.4", "1.2.3.4.5"
TYPE = 'multipart/related; type="application/dicom"; boundary=a-boundary'


def instance(number: int, **values: Any) -> bytes:
    """Return an instance of the one series, as a file."""
    return encoded(dataset(SOPInstanceUID=f"1.2.3.{number}", InstanceNumber=number, **values))


def multipart(*parts: bytes, head: bytes = b"Content-Type: application/dicom\r\n", close: bool = True) -> bytes:
    """Write parts as one body."""
    body = b"".join(b"--a-boundary\r\n" + head + b"\r\n" + part + b"\r\n" for part in parts)
    return body + (b"--a-boundary--\r\n" if close else b"")


async def announced(gateway: Gateway) -> list[Event]:
    """Return what is in the outbox, where it stays: nobody has declared a queue for it."""
    async with reading(gateway.engine) as connection:
        rows = await connection.execute(select(OUTBOX).order_by(OUTBOX.c.id))
        return [open_envelope(Envelope.decode(row.body)) for row in rows]


async def uploads(gateway: Gateway) -> list[tuple[str, str, int | None]]:
    """Return kind, state and number of objects of every upload."""
    async with reading(gateway.engine) as connection:
        rows = await connection.execute(select(UPLOADS.c.kind, UPLOADS.c.state, UPLOADS.c.objects))
        return [tuple(row) for row in rows]


async def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait until a condition gives something, and return that."""
    deadline = time.monotonic() + seconds
    while not (found := await condition()):
        assert time.monotonic() < deadline, "it did not come"
        await asyncio.sleep(0.02)
    return found
