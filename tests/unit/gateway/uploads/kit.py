"""What the tests of uploads have in common: asking, and looking at what was written down for ingest."""

from __future__ import annotations

import asyncio
import time

import httpx
from sqlalchemy import select

from voxelmill_gateway.tables import OUTBOX
from voxelmill_shared.database import reading
from voxelmill_shared.events import AccessRecorded, Envelope, ObjectUploaded, UploadCompleted, open_envelope

DICOM = bytes(128) + b"DICM" + bytes(300)
"""Enough of a file to be told by; what ingest makes of it is not looked at here."""


class Client:
    """Asks a gateway."""

    def __init__(self, address):
        self.http = httpx.AsyncClient(base_url=address, timeout=60)

    async def ask(self, method, path, status, **more):
        """Ask, and hold the answer to its status; return its JSON, or the answer if it has none."""
        answer = await self.http.request(method, path, **more)
        assert answer.status_code == status, answer.text
        if status >= 400:
            assert answer.headers["content-type"] == "application/problem+json"
        return answer.json() if answer.content else answer

    async def begin(self, *bodies, name="x.dcm", **more):
        """Begin an upload of files of these sizes."""
        files = [{"name": name, "size": len(body)} for body in bodies]
        return await self.ask("POST", "/uploads", 201, json={"files": files, **more})

    async def send(self, upload, number, body, **headers):
        """Send a file through the gateway."""
        return await self.http.put(f"/uploads/{upload['upload_id']}/files/{number}", content=body, headers=headers)

    async def offset(self, upload, number):
        """Ask where a file goes on."""
        answer = await self.ask("HEAD", f"/uploads/{upload['upload_id']}/files/{number}", 204)
        return int(answer.headers["upload-offset"]), answer.headers["upload-complete"] == "?1"

    async def complete(self, upload, status=202):
        """Say that all has come."""
        return await self.ask("POST", f"/uploads/{upload['upload_id']}/complete", status)

    async def state(self, upload, **parameters):
        """Ask how far it is."""
        return await self.ask("GET", f"/uploads/{upload['upload_id']}", 200, params=parameters)


async def _waiting(gateway):
    async with reading(gateway.engine) as connection:
        bodies = (await connection.execute(select(OUTBOX.c.body).order_by(OUTBOX.c.id))).scalars().all()
    return [open_envelope(Envelope.decode(body)) for body in bodies]


async def recorded(gateway):
    """Return what has been done by callers, as far as nobody has taken it yet: the actions."""
    return [event.action for event in await _waiting(gateway) if isinstance(event, AccessRecorded)]


async def told(gateway):
    """Return what ingest is told, as far as nobody has taken it yet: objects and ends of uploads."""
    events = await _waiting(gateway)
    return (
        [event for event in events if isinstance(event, ObjectUploaded)],
        [event for event in events if isinstance(event, UploadCompleted)],
    )


async def stored(store):
    """Return the sizes of what is in a store, by key."""
    return {stat.key: stat.size async for stat in store.list()}


async def until(condition, seconds=20):
    """Wait until a condition holds, and return what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := await condition()):
        assert time.monotonic() < deadline, "it never came so far"
        await asyncio.sleep(0.01)
    return found
